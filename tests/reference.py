"""torch as the reference: the same weights on both sides, and how near is near enough."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from .layers import parts, state_size, whole

# The sizes here are not worth a second thread, and an idle one of torch's keeps a processor busy.
torch.set_num_threads(1)


class Simple(torch.nn.RNN):
    """torch's plain RNN with any nonlinearity, residual or not, by a loop over the steps."""

    FUNCTIONS: ClassVar = {
        "tanh": torch.tanh,
        "relu": torch.relu,
        "leaky_relu": torch.nn.functional.leaky_relu,
        "softsign": torch.nn.functional.softsign,
        "sigmoid": torch.sigmoid,
    }

    def __init__(self, *, nonlinearity: str, residual: bool, **options) -> None:
        super().__init__(**options)
        self.function, self.residual = self.FUNCTIONS[nonlinearity], residual

    def run(self, x, state, lengths):
        """Run a batch (T, B, I) from a state (L*D, B, H) as `run_twin` does."""
        steps, batch, _ = x.shape
        lengths = torch.tensor([steps] * batch if lengths is None else lengths, dtype=torch.int64)
        real = torch.arange(steps)[:, None, None] < lengths[None, :, None]
        x, last = torch.where(real, x, 0), []
        # Where a sequence's steps are found from the last to the first.
        back = torch.where(real, lengths[None, :, None] - 1 - torch.arange(steps)[:, None, None], 0)
        for layer in range(self.num_layers):
            outputs = []
            for suffix in ["", "_reverse"][: 2 if self.bidirectional else 1]:
                turn = (lambda a: a.gather(0, back.expand_as(a))) if suffix else (lambda a: a)
                w, u, *biases = (
                    getattr(self, f"{name}_l{layer}{suffix}")
                    for name in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                    if self.bias or name.startswith("weight")
                )
                h, rows = state[len(last)], []
                for x_t, real_t in zip(turn(x), real, strict=True):
                    new = self.function(x_t @ w.T + h @ u.T + sum(biases))
                    h = torch.where(real_t, new + h if self.residual else new, h)
                    rows.append(h)
                last.append(h)
                rows = torch.stack(rows) if rows else x.new_zeros(0, batch, self.hidden_size)
                outputs.append(torch.where(real, turn(rows), 0))
            x = torch.cat(outputs, -1)
        return x, torch.stack(last)


def twin(layer) -> torch.nn.Module:
    """Build torch's layer or cell with the sizes and weights of ours, in float64."""
    theirs = getattr(torch.nn, type(layer).__name__)
    names = (
        "input_size",
        "hidden_size",
        "num_layers",
        "nonlinearity",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
    )
    options = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    if options.get("nonlinearity", "tanh") not in ("tanh", "relu") or getattr(
        layer, "residual", False
    ):
        theirs, options["residual"] = Simple, layer.residual
    module = theirs(**options, dtype=torch.float64)
    module.load_state_dict(tensors(layer.state_dict()))
    return module


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in arrays.items()}


def run_twin(module, x, state, lengths):
    """Run torch's layer on a batch; give back the padded output and the final state's parts.

    `x` and `state` (a list of h, or of h and c) are tensors. Torch knows no sequence without steps:
    such a one gives no output, and ends in the state that it starts from.
    """
    if isinstance(module, Simple):
        if x.ndim == 2:
            output, last = module.run(x[:, None], state[0][:, None], None)
            return output[:, 0], [last[:, 0]]
        order = (1, 0, 2) if module.batch_first else (0, 1, 2)
        output, last = module.run(x.permute(order), state[0], lengths)
        return output.permute(order), [last]
    if x.ndim == 2:
        if not len(x):
            return x.new_zeros(0, width_of(module)), state
        output, last = module(x, whole(state))
        return output, parts(last)
    batch, steps = (0, 1) if module.batch_first else (1, 0)
    if lengths is None:
        lengths = [x.shape[steps]] * x.shape[batch]
    running = torch.tensor([b for b, length in enumerate(lengths) if length], dtype=torch.int64)
    output = x.new_zeros(*x.shape[:2], width_of(module))
    if not len(running):
        return output, state
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x.index_select(batch, running),
        [length for length in lengths if length],
        batch_first=module.batch_first,
        enforce_sorted=False,
    )
    ran, last = module(packed, whole([part.index_select(1, running) for part in state]))
    ran, _ = torch.nn.utils.rnn.pad_packed_sequence(
        ran, module.batch_first, total_length=x.shape[steps]
    )
    return (
        output.index_copy(batch, running, ran),
        [
            first.index_copy(1, running, part)
            for first, part in zip(state, parts(last), strict=True)
        ],
    )


def width_of(module) -> int:
    return state_size(module) * (2 if module.bidirectional else 1)


def gradients_of(outputs: list, weights: list, inputs: list) -> list[np.ndarray]:
    """Return the gradients of the sum of outputs times weights (arrays or None) by the inputs."""
    used = [
        (output, torch.tensor(weight, dtype=torch.float64))
        for output, weight in zip(outputs, weights, strict=True)
        if weight is not None and output.requires_grad
    ]
    found = [None] * len(inputs)
    if used:
        of, by = zip(*used, strict=True)
        found = torch.autograd.grad(of, inputs, by, allow_unused=True)
    return [
        np.zeros(tuple(value.shape)) if gradient is None else gradient.numpy()
        for value, gradient in zip(inputs, found, strict=True)
    ]


def assert_near(got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray], dtype) -> None:
    """Check each array against its reference, in units of the reference's largest number.

    An array may also be off by a trace of the largest number of all: where nearly all of it cancels
    (it may be a single weight), rounding is most of what is left.
    """
    relative, cancelled = TOLERANCES[np.dtype(dtype).name]
    assert list(got) == list(want)
    largest = max((np.abs(array).max(initial=0) for array in want.values()), default=0)
    for name, array in want.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == dtype, name
        allowed = relative * np.abs(array).max(initial=0) + cancelled * largest
        off = np.abs(got[name] - array).max(initial=0)
        assert off <= allowed, f"{name}: off by {off:.3g}, allowed {allowed:.3g}"


# Of the array's own largest number, and of the largest of all arrays.
TOLERANCES = {"float64": (1e-9, 1e-14), "float32": (5e-5, 2e-6)}
