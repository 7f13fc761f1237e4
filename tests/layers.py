"""Layers to test: every cell by name, on an instruction set, and calls whose results compare."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest

import rnncore
from rnncore import _core, nn
from rnncore._recurrent import NONLINEARITIES

# Every cell that torch has, by name: its class and what that is told.
CELLS = {
    "rnn_tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
}
# Those that it does not have.
OWN_CELLS = {
    f"rnn_{nonlinearity}{'_residual' * residual}": (
        nn.RNN,
        {"nonlinearity": nonlinearity, "residual": residual},
    )
    for residual in (False, True)
    for nonlinearity in NONLINEARITIES
    if residual or nonlinearity not in ("tanh", "relu")
}
# An LSTM whose state is a projection: two columns for three units, and none for one.
PROJECTED = "lstm_projected"
DTYPES = ["float32", "float64"]
ISAS = _core.available_isas()

every_cell = pytest.mark.parametrize("cell", CELLS)
# One cell of each shape: what goes from step to step, and what is read and kept.
every_shape = pytest.mark.parametrize("cell", [*CELLS, PROJECTED, "rnn_sigmoid_residual"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_isa = pytest.mark.parametrize("isa", ISAS)


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Have what is built inside compute on one instruction set."""
    with mock.patch.dict(os.environ, RNNCORE_ISA=name):
        yield


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Have what is called inside use `n` threads."""
    before = rnncore.get_num_threads()
    rnncore.set_num_threads(n)
    try:
        yield
    finally:
        rnncore.set_num_threads(before)


def build(cell: str, input_size: int, hidden_size: int, *args, isa: str = ISAS[-1], **kwargs):
    """Build the layer of a cell, for an instruction set."""
    projected = nn.LSTM, {"proj_size": 2 * hidden_size // 3}
    of, options = (CELLS | OWN_CELLS | {PROJECTED: projected})[cell]
    with instruction_set(isa):
        return of(input_size, hidden_size, *args, **options, **kwargs)


def state_size(layer) -> int:
    """Return the columns of a layer's h."""
    return getattr(layer, "proj_size", 0) or layer.hidden_size


def parts(state) -> list:
    """Return the state's arrays, or gradients: h and c for an LSTM, else h alone."""
    return list(state) if isinstance(state, tuple) else [state]


def whole(arrays: list):
    """Put together again what `parts` took apart."""
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


class Call:
    """Arguments of one forward and backward; `run` names all that comes back."""

    def __init__(self, layer, rng, batch: int, steps: int, lengths=None):
        directions = 2 if layer.bidirectional else 1
        axes = (batch, steps) if layer.batch_first else (steps, batch)
        state = (layer.num_layers * directions, batch)
        widths = [state_size(layer)]
        widths += [layer.hidden_size] if isinstance(layer, nn.LSTM) else []

        def draw(*shape):
            return rng.standard_normal(shape).astype(layer.dtype)

        self.x = draw(*axes, layer.input_size)
        self.d_output = draw(*axes, directions * state_size(layer))
        self.states = [draw(*state, width) for width in widths]
        self.d_states = [draw(*state, width) for width in widths]
        self.lengths = lengths

    def forward(self, layer):
        return layer.forward(self.x, whole(self.states), self.lengths)

    def backward(self, layer, tape):
        return layer.backward(tape, self.d_output, whole(self.d_states))

    def run(self, layer) -> dict[str, np.ndarray]:
        output, state, tape = self.forward(layer)
        return named(output, state, *self.backward(layer, tape))

    def select(self, sequences, longest: int) -> "Call":
        """Return the call with some sequences of a time-major batch, cut or filled up with NaN."""
        chosen = copy.copy(self)
        chosen.lengths = np.asarray(self.lengths)[sequences]
        for name in ("x", "d_output"):
            array = getattr(self, name)[:longest, sequences]
            missing = longest - len(array)
            array = np.pad(array, [(0, missing), (0, 0), (0, 0)], constant_values=np.nan)
            setattr(chosen, name, array)
        chosen.states = [array[:, sequences] for array in self.states]
        chosen.d_states = [array[:, sequences] for array in self.d_states]
        return chosen


def named(output, state, dx, d_initial, grads) -> dict[str, np.ndarray]:
    arrays = {"output": output, "x": dx, **grads}
    for name, last, first in zip("hc", parts(state), parts(d_initial), strict=False):
        arrays |= {f"{name}_n": last, f"{name}_0": first}
    return arrays


def assert_same_bits(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name
