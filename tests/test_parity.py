"""Against torch: outputs, final states and every gradient, of layers drawn at random."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from rnncore import nn

from .layers import (
    CELLS,
    ISAS,
    OWN_CELLS,
    PROJECTED,
    build,
    instruction_set,
    parts,
    state_size,
    threads,
    whole,
)
from .reference import assert_near, gradients_of, run_twin, twin

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
TORCHS = [*CELLS, PROJECTED]

# On both sides of 4, 8 and 16 numbers in a register.
WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33]

# The gradients that backward is given.
GIVEN = [
    frozenset(names)
    for names in (["output"], ["output", "h", "c"], ["output", "h"], ["h", "c"], ["c"], [])
]


@dataclass(frozen=True)
class Example:
    """One call to compare; its numbers come from `seed`."""

    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    batch: int | None  # None: x has no batch axis
    steps: int
    lengths: tuple[int, ...] | None
    with_state: bool
    gradients: frozenset[str]
    copy: bool
    threads: int
    isa: str
    seed: int


@st.composite
def examples(draw) -> Example:
    batch = draw(st.sampled_from([3, None, 1, 2, 4, 5, 6, 8, 11, 13, 24, 0]))
    steps = draw(st.sampled_from([3, 1, 2, 4, 5, 6, 7, 8, 10, 13, 0]))
    lengths = None
    if batch is not None and draw(st.booleans()):
        # Full sequences are what an example shrinks to.
        length = st.integers(0, steps).map(lambda missing: steps - missing)
        lengths = tuple(draw(st.lists(length, min_size=batch, max_size=batch)))
    return Example(
        input_size=draw(st.sampled_from(WIDTHS)),
        hidden_size=draw(st.sampled_from(WIDTHS)),
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        batch=batch,
        steps=steps,
        lengths=lengths,
        with_state=draw(st.booleans()),
        gradients=draw(st.sampled_from(GIVEN)),
        copy=draw(st.booleans()),
        threads=draw(st.integers(1, 3)),
        isa=draw(st.sampled_from(ISAS)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def values(names, outputs) -> dict[str, np.ndarray]:
    """Name the numbers of what torch put out."""
    return {name: value.detach().numpy() for name, value in zip(names, outputs, strict=True)}


def compare(cell: str, dtype: str, example: Example) -> None:
    """Run an example on both sides, and compare all that comes back."""
    rng = np.random.default_rng(example.seed)
    layer = build(
        cell,
        example.input_size,
        example.hidden_size,
        example.num_layers,
        bias=example.bias,
        batch_first=example.batch_first,
        bidirectional=example.bidirectional,
        dtype=dtype,
        random_state=rng,
        isa=example.isa,
    )
    directions = 2 if example.bidirectional else 1
    axes, state_axes = [example.steps], [example.num_layers * directions]
    if example.batch is not None:
        axes.insert(0 if example.batch_first else 1, example.batch)
        state_axes.append(example.batch)

    def draw(*shape, given=True):
        return rng.standard_normal(shape).astype(dtype) if given else None

    names = ["h", "c"] if isinstance(layer, nn.LSTM) else ["h"]
    widths = [state_size(layer), layer.hidden_size][: len(names)]
    x = draw(*axes, example.input_size)
    states = [draw(*state_axes, width) for width in widths]
    d_output = draw(*axes, directions * widths[0], given="output" in example.gradients)
    d_states = [
        draw(*state.shape, given=name in example.gradients)
        for name, state in zip(names, states, strict=True)
    ]
    if example.lengths is not None:
        # Nobody may read what lies behind a sequence's end.
        by_sequence = x if example.batch_first else x.swapaxes(0, 1)
        for sequence, length in zip(by_sequence, example.lengths, strict=True):
            sequence[length:] = np.nan

    with threads(example.threads):
        hx = whole(states) if example.with_state else None
        output, state, tape = layer.forward(x, hx, example.lengths, copy=example.copy)
        dx, d_initial, grads = layer.backward(tape, d_output, whole(d_states))

    module = twin(layer)
    if not example.with_state:
        states = [np.zeros_like(state) for state in states]
    leaves = [torch.tensor(array, dtype=torch.float64).requires_grad_() for array in [x, *states]]
    want_output, want_states = run_twin(module, leaves[0], leaves[1:], example.lengths)
    outputs = [want_output, *want_states]
    inputs = dict(zip(["x", "h0", "c0"], leaves, strict=False)) | dict(module.named_parameters())
    gradients = gradients_of(outputs, [d_output, *d_states], list(inputs.values()))

    got = dict(zip(["output", *names], [output, *parts(state)], strict=True))
    assert_near(
        got, {name: v.detach().numpy() for name, v in zip(got, outputs, strict=True)}, dtype
    )
    got = dict(zip(["x", "h0", "c0"], [dx, *parts(d_initial)], strict=False)) | grads
    assert_near(got, dict(zip(inputs, gradients, strict=True)), dtype)


@pytest.mark.parametrize("cell", TORCHS)
@given(example=examples())
def test_layers_are_torchs_in_float64(cell, example):
    event("no batch axis" if example.batch is None else "batch")
    event("all of one length" if example.lengths is None else "lengths")
    event("steps" if example.steps and example.batch != 0 else "no steps or no sequences")
    compare(cell, "float64", example)


@pytest.mark.parametrize("cell", TORCHS)
@settings(max_examples=settings.default.max_examples // 4)
@given(example=examples())
def test_layers_are_torchs_in_float32(cell, example):
    compare(cell, "float32", example)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", OWN_CELLS)
@settings(max_examples=settings.default.max_examples // 4)
@given(example=examples())
def test_cells_that_torch_lacks_follow_their_equations(cell, isa, example):
    compare(cell, "float64", replace(example, isa=isa))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", OWN_CELLS)
@settings(max_examples=settings.default.max_examples // 20)
@given(example=examples())
def test_cells_that_torch_lacks_in_float32(cell, isa, example):
    compare(cell, "float32", replace(example, isa=isa))


LARGE = Example(
    input_size=40,
    hidden_size=70,
    num_layers=2,
    bidirectional=True,
    bias=True,
    batch_first=True,
    batch=37,
    steps=20,
    lengths=tuple((7 * sequence) % 20 for sequence in range(37)),
    with_state=True,
    gradients=frozenset(["output", "h", "c"]),
    copy=False,
    threads=3,
    isa=ISAS[-1],
    seed=1,
)


@pytest.mark.parametrize(
    "example",
    [
        LARGE,
        replace(LARGE, lengths=None, bidirectional=False, threads=2),
        replace(LARGE, batch=1, steps=150, lengths=None),
        replace(LARGE, batch=3, steps=150, lengths=(150, 0, 71)),
        # Weights that no cache holds, of more columns than one block has.
        replace(
            LARGE,
            input_size=530,
            hidden_size=600,
            num_layers=1,
            batch=4,
            steps=6,
            lengths=(3, 6, 0, 6),
        ),
    ],
    ids=["ragged", "full", "long", "long and few", "wide"],
)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", TORCHS)
def test_large_layers_are_torchs(cell, dtype, isa, example):
    """Work that is worth several threads, in several blocks of whatever is cut into blocks."""
    compare(cell, dtype, replace(example, isa=isa))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", [*TORCHS, "rnn_sigmoid", "rnn_sigmoid_residual"])
@pytest.mark.parametrize("hidden_size", [5, 16, 19])
def test_infinities_reach_what_they_reach_in_torch(cell, isa, hidden_size, rng):
    """Padding is multiplied with them too: zero times infinity is none."""
    layer = build(cell, 3, hidden_size, 2, bidirectional=True, dtype="float64", isa=isa)
    x = rng.standard_normal((6, 4, 3))
    x[2, 1, 0] = np.inf
    output, state, tape = layer.forward(x)
    d_output = rng.standard_normal(output.shape)
    dx, _, grads = layer.backward(tape, d_output)

    module, leaf = twin(layer), torch.tensor(x, requires_grad=True)
    zeros = [torch.zeros(part.shape, dtype=torch.float64) for part in parts(state)]
    want, _ = run_twin(module, leaf, zeros, None)
    inputs = {"x": leaf} | dict(module.named_parameters())
    gradients = gradients_of([want], [d_output], list(inputs.values()))
    wanted = {"output": want.detach().numpy()} | dict(zip(inputs, gradients, strict=True))
    assert np.isfinite(wanted["output"][:, 0]).all()
    for name, array in ({"output": output, "x": dx} | grads).items():
        finite = np.isfinite(wanted[name])
        np.testing.assert_array_equal(np.isfinite(array), finite, err_msg=name)
        assert_near({name: array[finite]}, {name: wanted[name][finite]}, "float64")


STEPS = {
    "rnn_tanh": (nn.RNNCell, {"nonlinearity": "tanh"}),
    "rnn_relu": (nn.RNNCell, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTMCell, {}),
    "gru": (nn.GRUCell, {}),
}


@pytest.mark.parametrize("cell", STEPS)
@settings(max_examples=settings.default.max_examples // 4)
@given(
    sizes=st.tuples(st.sampled_from(WIDTHS), st.sampled_from(WIDTHS)),
    batch=st.sampled_from([3, None, 0, 1, 2, 17]),
    bias=st.booleans(),
    dtype=st.sampled_from(["float64", "float32"]),
    with_state=st.booleans(),
    isa=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)
def test_cells_are_torchs(cell, sizes, batch, bias, dtype, with_state, isa, seed):
    rng = np.random.default_rng(seed)
    of, options = STEPS[cell]
    with instruction_set(isa):
        ours = of(*sizes, bias, **options, dtype=dtype, random_state=rng)
    axes = () if batch is None else (batch,)

    def draw(size):
        return rng.standard_normal((*axes, size)).astype(dtype)

    names = ["h", "c"] if cell == "lstm" else ["h"]
    x = draw(sizes[0])
    states = [draw(sizes[1]) for _ in names]
    d_states = [draw(sizes[1]) for _ in names]
    state, tape = ours.forward(x, whole(states) if with_state else None)
    dx, d_initial, grads = ours.backward(tape, whole(d_states))

    module = twin(ours)
    if not with_state:
        states = [np.zeros_like(state) for state in states]
    leaves = [torch.tensor(array, dtype=torch.float64).requires_grad_() for array in [x, *states]]
    outputs = parts(module(leaves[0], whole(leaves[1:])))
    inputs = dict(zip(["x", "h0", "c0"], leaves, strict=False)) | dict(module.named_parameters())
    gradients = gradients_of(outputs, d_states, list(inputs.values()))

    got = dict(zip(names, parts(state), strict=True))
    assert_near(
        got, {name: v.detach().numpy() for name, v in zip(got, outputs, strict=True)}, dtype
    )
    got = dict(zip(["x", "h0", "c0"], [dx, *parts(d_initial)], strict=False)) | grads
    assert_near(got, dict(zip(inputs, gradients, strict=True)), dtype)
