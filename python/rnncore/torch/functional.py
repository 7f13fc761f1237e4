"""torch's recurrent operations, computed by the Rust kernels where these can.

Each takes and returns what torch's operation of the same name does (``torch.lstm``,
``torch.gru_cell``), by position, and raises its errors: whatever the kernels do not compute is
handed on to it. A module of your own may call them, or any that calls ``torch.lstm`` may be told to
call these::

    output, h, c = rnncore.torch.functional.lstm(
        x, (h0, c0), weights, bias, num_layers, dropout, training, bidirectional, batch_first
    )

Gradients of the second order, and dropout between layers, are torch's own computation: with one
seed, torch and these drop the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rnncore.torch import _autograd, _compiled
from rnncore.torch._autograd import GATES, Call, States

__all__ = [
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
]

_VF: Any = torch._VF

# The calls of one step, by cell and bias.
_STEPS = {
    (cell, bias): Call(cell, 1, bias, False, False, True)
    for cell in GATES
    for bias in (True, False)
}


def lstm(x: Tensor, /, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Run a stack of LSTM layers over a batch of sequences.

    Parameters
    ----------
    x : tensor (T, B, I), (B, T, I) with `batch_first`, or (R, I) with `batch_sizes`
    batch_sizes : int64 tensor (T,), for packed input only
        As in a ``PackedSequence`` whose data `x` is.
    hx : pair of tensors (L*D, B, W) and (L*D, B, H)
        Initial ``h`` and ``c``. W is H, or the columns of a projection where there are fewer.
    params : list of tensors
        ``weight_ih``, ``weight_hh``, with `has_biases` ``bias_ih`` and ``bias_hh``, with a
        projection ``weight_hr`` of every layer and direction, in the order of
        ``torch.nn.LSTM.parameters``.
    has_biases : bool
    num_layers : int
    dropout : float
    train : bool
        Whether there is dropout.
    bidirectional : bool
    batch_first : bool, for input that is not packed only

    Returns
    -------
    output : tensor (T, B, D*W), (B, T, D*W) or (R, D*W)
    h, c : tensors (L*D, B, W) and (L*D, B, H)

    Raises
    ------
    RuntimeError
        As ``torch.lstm``.
    """
    found: tuple[Tensor, Tensor, Tensor] = _layers("lstm", x, args)
    return found


def gru(x: Tensor, /, *args: Any) -> tuple[Tensor, Tensor]:
    """Run a stack of GRU layers: `lstm`'s arguments, with one tensor for `hx`."""
    found: tuple[Tensor, Tensor] = _layers("gru", x, args)
    return found


def rnn_tanh(x: Tensor, /, *args: Any) -> tuple[Tensor, Tensor]:
    """Run a stack of plain layers with tanh: `lstm`'s arguments, with one tensor for `hx`."""
    found: tuple[Tensor, Tensor] = _layers("rnn_tanh", x, args)
    return found


def rnn_relu(x: Tensor, /, *args: Any) -> tuple[Tensor, Tensor]:
    """Run a stack of plain layers with relu: `lstm`'s arguments, with one tensor for `hx`."""
    found: tuple[Tensor, Tensor] = _layers("rnn_relu", x, args)
    return found


def lstm_cell(x: Tensor, hx: Any, /, *weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Take one step of an LSTM.

    Parameters
    ----------
    x : tensor (B, I)
    hx : pair of tensors (B, H)
    w_ih, w_hh : tensors
    b_ih, b_hh : tensors or None, optional

    Returns
    -------
    h, c : tensors (B, H)

    Raises
    ------
    RuntimeError
        As ``torch.lstm_cell``.
    """
    found: tuple[Tensor, Tensor] = _cell("lstm", x, hx, weights)
    return found


def gru_cell(x: Tensor, hx: Tensor, /, *weights: Tensor | None) -> Tensor:
    """Take one step of a GRU: `lstm_cell`'s arguments, with one tensor for `hx`."""
    found: Tensor = _cell("gru", x, hx, weights)
    return found


def rnn_tanh_cell(x: Tensor, hx: Tensor, /, *weights: Tensor | None) -> Tensor:
    """Take one step with tanh: `lstm_cell`'s arguments, with one tensor for `hx`."""
    found: Tensor = _cell("rnn_tanh", x, hx, weights)
    return found


def rnn_relu_cell(x: Tensor, hx: Tensor, /, *weights: Tensor | None) -> Tensor:
    """Take one step with relu: `lstm_cell`'s arguments, with one tensor for `hx`."""
    found: Tensor = _cell("rnn_relu", x, hx, weights)
    return found


def _layers(cell: str, x: Tensor, args: tuple[Any, ...]) -> Any:
    found = None
    run = _kernels()
    if run is not None and len(args) == 8:
        # What follows the input of torch's two signatures is told by where the states stand.
        if isinstance(args[0 if cell == "lstm" else 1], Tensor):
            batch_sizes, hx, weights, bias, num_layers, dropout, train, bidirectional = args
            batch_first = False
        else:
            hx, weights, bias, num_layers, dropout, train, bidirectional, batch_first = args
            batch_sizes = None
        states = _states(cell, x, hx)
        if states:
            call = Call(cell, num_layers, bias, bidirectional, batch_first, False)
            if train and dropout and num_layers > 1:
                found = _with_dropout(run, call, x, batch_sizes, states, weights, dropout)
            else:
                found = run(call, x, batch_sizes, states, weights)
    return getattr(_VF, cell)(x, *args) if found is None else found


def _with_dropout(
    run: Any,
    call: Call,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: States,
    weights: Sequence[Tensor],
    dropout: float,
) -> tuple[Tensor, ...] | None:
    """Go layer by layer, steps first, as torch goes: so that it draws the same masks."""
    each = len(weights) // call.num_layers
    rows = 2 if call.bidirectional else 1
    ends = []
    output = x.transpose(0, 1) if call.batch_first else x
    for layer in range(call.num_layers):
        if layer:
            output = torch.dropout(output, dropout, True)
        # Not by `_replace`, which an older compiler does not follow.
        one = Call(call.cell, 1, call.bias, call.bidirectional, False, call.single)
        its_states = tuple(state[layer * rows : (layer + 1) * rows] for state in states)
        its_weights = weights[layer * each : (layer + 1) * each]
        found = run(one, output, batch_sizes, its_states, its_weights)
        if found is None and layer:
            found = one.through_torch(output, batch_sizes, its_states, its_weights)
        if found is None:
            return None
        output, *end = found
        ends.append(end)
    output = output.transpose(0, 1) if call.batch_first else output
    return (output, *(torch.cat(end) for end in zip(*ends, strict=True)))


def _cell(cell: str, x: Tensor, hx: Any, weights: tuple[Tensor | None, ...]) -> Any:
    run = _kernels()
    if run is not None:
        given = [weight for weight in weights if weight is not None]
        states = _states(cell, x, hx)
        # Those that are missing are the last.
        fits = len(given) == len(weights) or all(w is not None for w in weights[: len(given)])
        if fits and states and len(given) in (2, 4):
            found = run(_STEPS[cell, len(given) == 4], x, None, states, given)
            if found is not None:
                return found if cell == "lstm" else found[0]
    return getattr(_VF, f"{cell}_cell")(x, hx, *weights)


def _kernels() -> Any:
    """Return what computes a call by our kernels; None where all is for torch to do."""
    if torch.compiler.is_compiling():
        return _compiled.run
    return None if _autograd.is_watched() else _autograd.run


def _states(cell: str, x: Any, hx: Any) -> States:
    """Return the states as a tuple; an empty one if a tensor is none or has no dimensions."""
    if cell == "lstm":
        states = tuple(hx)
        if len(states) != 2:
            return ()
        h, c = states
        if not (isinstance(c, Tensor) and c.dim()):
            return ()
    else:
        h, states = hx, (hx,)
    fits = isinstance(x, Tensor) and isinstance(h, Tensor) and x.dim() and h.dim()
    return states if fits else ()


def _compile_as_part(function: Any) -> None:
    """Let ``torch.compile`` take a function into a graph, but not make one of it alone.

    Where the compiler leaves Python at a module, it would go on inside, and once for each size.
    """
    frames: Any = torch._C._dynamo.eval_frame
    if hasattr(frames, "set_code_exec_strategy"):  # since torch 2.7
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))


for _name in __all__:
    _compile_as_part(globals()[_name])
