"""torch's recurrent modules, computed by the Rust kernels (``pip install rnncore[torch]``).

::

    from rnncore.torch import LSTM  # instead of torch.nn

Each module is a subclass of torch's of the same name. Construction, initial weights,
``state_dict``, checks, errors, hooks and copies are torch's own; only the computation of
``forward`` and of its gradients is replaced, on as many threads as ``torch.get_num_threads()``
says.

What the kernels do not compute is left to torch's own implementation: devices other than the CPU,
types other than float32 and float64, autocast, forward-mode gradients, gradients of gradients,
transforms of ``torch.func``, tensors without numbers, and exported or scripted code.
What goes by the exact class of a module has to see torch's, so `revert` the model first:
``torch.fx.symbolic_trace`` goes into modules that are not of ``torch.nn``, and fails in recurrent
ones; so does ``torch.export`` of torch 2.5 with ``strict=True``; ``quantize_dynamic`` passes them
over.

``torch.compile`` leaves recurrent layers out of its graphs unless it is told to take them: then
what stands around a layer is compiled, and the layer runs as without the compiler. After
``torch._dynamo.config.allow_rnn = True`` a model is one graph (``fullgraph=True``), in which a
layer is one operation, ``rnncore::forward``, that the same kernels compute. Nothing is fused with
it; a training step costs some 0.2 ms a layer more than outside of a graph, inference 0.03 ms
(``python benches/compare.py --torch-modules compiled`` prints both); and torch unrolls the other
recurrent layers of the process. Cells and `functional` need no setting.

A `Network` is a whole model: what an estimator's ``to_torch`` gives and its ``from_torch`` takes.

Packed copies of the weights are kept from call to call. Each call compares the weights with those
that were packed, so that it does not matter how they were written.
"""

try:
    import torch as _  # noqa: F401
except ImportError as error:
    raise ImportError("rnncore.torch needs torch: pip install rnncore[torch]") from error

from rnncore.torch import functional
from rnncore.torch._modules import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LSTMCell,
    RNNCell,
    convert,
    revert,
)
from rnncore.torch._network import Network

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Network",
    "RNNCell",
    "convert",
    "functional",
    "revert",
]
