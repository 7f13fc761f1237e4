"""What may not change a single bit, and whose arrays are whose."""

import copy
import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnncore
from rnncore import nn, optim

from .layers import (
    DTYPES,
    ISAS,
    Call,
    assert_same_bits,
    build,
    every_dtype,
    every_isa,
    every_shape,
    named,
    parts,
    threads,
    whole,
)
from .sequences import as_unaligned


@every_isa
@every_dtype
@every_shape
def test_threads_change_nothing(cell, dtype, isa):
    rng = np.random.default_rng(0)
    layer = build(cell, 40, 70, 2, bidirectional=True, dtype=dtype, random_state=0, isa=isa)
    for shape in [(37, 20, None), (37, 20, rng.integers(0, 21, 37)), (3, 150, [150, 70, 149])]:
        call = Call(layer, rng, *shape)
        with threads(1):
            want = call.run(layer)
        for n in [2, 3, 8]:
            with threads(n):
                assert_same_bits(call.run(layer), want)


@every_isa
@every_dtype
@every_shape
def test_threads_that_share_units_change_nothing(cell, dtype, isa):
    """Few rows of a wide layer: threads take units of each step and wait for one another."""
    rng = np.random.default_rng(0)
    layer = build(cell, 40, 200, bidirectional=True, dtype=dtype, random_state=0, isa=isa)
    for shape in [(1, 60, None), (2, 40, [17, 40]), (5, 30, [0, 30, 7, 30, 2])]:
        call = Call(layer, rng, *shape)
        with threads(1):
            want = call.run(layer)
            alone, _ = layer(call.x, whole(call.states), call.lengths)
        for n in [2, 3, 7]:
            with threads(n):
                assert_same_bits(call.run(layer), want)
                output, _ = layer(call.x, whole(call.states), call.lengths)
                assert output.tobytes() == alone.tobytes()


# What belongs to one sequence of a batch, by the axis that counts them.
BY_SEQUENCE = ["output", "x", "h_n", "c_n", "h_0", "c_0"]


@every_shape
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 2)),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    isa=st.sampled_from(ISAS),
    n_threads=st.integers(1, 3),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    padding=st.integers(0, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_company_and_padding_change_nothing(
    cell, sizes, bidirectional, bias, dtype, isa, n_threads, lengths, padding, seed
):
    rng = np.random.default_rng(seed)
    layer = build(
        cell,
        *sizes,
        bias=bias,
        bidirectional=bidirectional,
        dtype=dtype,
        random_state=rng,
        isa=isa,
    )
    longest = max(lengths)
    call = Call(layer, rng, len(lengths), longest, lengths)

    def run(sequences, longest):
        found = call.select(sequences, longest).run(layer)
        return {name: found[name] for name in BY_SEQUENCE if name in found}

    with threads(n_threads):
        together = run(np.arange(len(lengths)), longest)
        some = rng.permutation(len(lengths))[: rng.integers(1, len(lengths) + 1)]
        elsewhere = run(some, longest + padding)
        for at, sequence in enumerate(some):
            length = lengths[sequence]
            alone = run([sequence], length)
            for name, array in alone.items():
                end = length if name in ("output", "x") else None
                want = array[:, 0].tobytes()
                assert together[name][:end, sequence].tobytes() == want, name
                assert elsewhere[name][:end, at].tobytes() == want, name
                if end is not None:
                    assert not together[name][end:, sequence].any(), name
                    assert not elsewhere[name][end:, at].any(), name


@pytest.mark.parametrize(
    ("sizes", "batch", "steps"),
    [((40, 70, 2), 37, 20), ((40, 70, 2), 5, 150), ((300, 600, 1), 140, 3)],
    ids=["many", "long", "wide"],
)
@every_isa
@every_dtype
@every_shape
def test_large_company_changes_nothing(cell, dtype, isa, sizes, batch, steps):
    """As above where the work is worth several threads, or the weights are beyond the caches."""
    rng = np.random.default_rng(0)
    layer = build(cell, *sizes, bidirectional=True, dtype=dtype, random_state=0, isa=isa)
    lengths = rng.integers(0, steps + 1, batch)
    lengths[0] = steps
    call = Call(layer, rng, batch, steps, lengths)
    with threads(3):
        together = call.run(layer)
    for sequence in [0, 2, batch - 1]:
        alone = call.select([sequence], lengths[sequence]).run(layer)
        for name in BY_SEQUENCE:
            if name in alone:
                end = lengths[sequence] if name in ("output", "x") else None
                want = alone[name][:, 0].tobytes()
                assert together[name][:end, sequence].tobytes() == want, name


@every_isa
@every_dtype
@every_shape
def test_earlier_calls_change_nothing(cell, dtype, isa):
    """Memory is used again: what other shapes, and NaN, left in it must not be seen."""
    rng = np.random.default_rng(0)
    options = {"bidirectional": True, "dtype": dtype, "random_state": 0, "isa": isa}
    layer = build(cell, 3, 17, 2, **options)
    shapes = [(4, 7, None), (1, 1, None), (5, 6, [6, 0, 3, 3, 1]), (0, 3, None), (3, 0, None)]
    shapes += [(16, 9, None), (2, 30, [1, 30]), (4, 7, [2, 7, 0, 5])]
    calls = [Call(layer, rng, *shape) for shape in shapes]
    fresh = [call.run(build(cell, 3, 17, 2, **options)) for call in calls]
    poison = [copy.copy(call) for call in calls]
    for call in poison:
        call.x = np.full_like(call.x, np.nan)
        call.d_output = np.full_like(call.d_output, np.nan)
    for i in rng.permutation(np.repeat(np.arange(len(calls)), 3)):
        poison[i].run(layer)
        assert_same_bits(calls[i].run(layer), fresh[i])
        layer(poison[i].x)
        output, state = layer(calls[i].x, whole(calls[i].states), calls[i].lengths)
        assert output.tobytes() == fresh[i]["output"].tobytes()
        assert parts(state)[0].tobytes() == fresh[i]["h_n"].tobytes()


@every_shape
def test_tapes_live_side_by_side(cell):
    layer = build(cell, 3, 9, 2, bidirectional=True, random_state=0)
    rng = np.random.default_rng(0)
    calls = [Call(layer, rng, 3, 5, lengths) for lengths in [None, [5, 0, 2], None, [1, 1, 5]]]
    want = [call.run(layer) for call in calls]
    recorded = [call.forward(layer) for call in calls]
    for i in [2, 0, 3]:
        output, state, tape = recorded[i]
        assert_same_bits(named(output, state, *calls[i].backward(layer, tape)), want[i])
    # One that is never used is no loss either, nor one that outlives its layer.
    other = build(cell, 3, 9, 2, random_state=0)
    tape = Call(other, rng, 3, 5).forward(other)[2]
    del recorded, other
    gc.collect()
    assert "Tape" in repr(tape)
    assert_same_bits(calls[1].run(layer), want[1])


@every_shape
def test_zeros_are_what_absent_states_and_gradients_are(cell):
    layer = build(cell, 3, 9, 2, bidirectional=True, random_state=0)
    call = Call(layer, np.random.default_rng(0), 3, 5)
    call.states = [np.zeros_like(state) for state in call.states]
    call.d_states = [np.zeros_like(state) for state in call.d_states]
    output, state, tape = layer.forward(call.x)
    assert_same_bits(named(output, state, *layer.backward(tape, call.d_output)), call.run(layer))

    call.d_output = np.zeros_like(call.d_output)
    call.d_states[0] += 1
    output, state, tape = layer.forward(call.x)
    gradients = layer.backward(tape, None, whole(call.d_states))
    assert_same_bits(named(output, state, *gradients), call.run(layer))


@every_shape
def test_layout_changes_nothing(cell):
    layer = build(cell, 3, 9, 2, bidirectional=True, random_state=0)
    other = build(cell, 3, 9, 2, bidirectional=True, batch_first=True, random_state=0)
    call = Call(layer, np.random.default_rng(0), 4, 6, [3, 0, 6, 1])
    turned = copy.copy(call)
    turned.x, turned.d_output = call.x.swapaxes(0, 1), call.d_output.swapaxes(0, 1)
    got = turned.run(other)
    for name in ("output", "x"):
        got[name] = got[name].swapaxes(0, 1)
    assert_same_bits(got, call.run(layer))


def as_fortran(array):
    return np.asfortranarray(array)


def as_reversed_view(array):
    return array[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]


def as_every_third(array):
    wide = np.full((*array.shape[:-1], 3 * array.shape[-1]), np.nan, array.dtype)
    wide[..., ::3] = array
    return wide[..., ::3]


def as_big_endian(array):
    return array.astype(array.dtype.newbyteorder(">"))


@pytest.mark.parametrize(
    "change", [as_fortran, as_reversed_view, as_every_third, as_unaligned, as_big_endian]
)
@every_dtype
@every_shape
def test_strides_and_byte_order_change_nothing(cell, dtype, change):
    layer = build(cell, 3, 9, 2, dtype=dtype, random_state=0)
    call = Call(layer, np.random.default_rng(0), 4, 6, [3, 0, 6, 1])
    want = call.run(layer)
    changed = copy.copy(call)
    changed.x, changed.d_output = change(call.x), change(call.d_output)
    changed.states = [change(state) for state in call.states]
    changed.d_states = [change(state) for state in call.d_states]
    assert_same_bits(changed.run(layer), want)


@every_dtype
@every_shape
def test_arguments_stay_as_they_were(cell, dtype):
    layer = build(cell, 3, 9, 2, dropout=0.5, dtype=dtype, random_state=0)
    call = Call(layer, np.random.default_rng(0), 4, 6, np.array([3, 0, 6, 1]))
    weights = layer.state_dict()
    everything = [call.x, call.d_output, call.lengths, *call.states, *call.d_states]
    everything += weights.values()
    before = [array.tobytes() for array in everything]
    for array in everything:
        array.flags.writeable = False
    layer.load_state_dict(weights)
    layer(call.x, whole(call.states), call.lengths)
    results = call.run(layer)
    grads = {name: results[name] for name in weights}
    for array in grads.values():
        array.flags.writeable = False
    everything += grads.values()
    before += [array.tobytes() for array in grads.values()]
    layer.apply_gradients(grads, optim.SGD(0.1, momentum=0.9, clip_norm=1e-3, clip_value=1e-4))
    assert [array.tobytes() for array in everything] == before


@every_shape
def test_results_are_the_callers_own(cell):
    layer = build(cell, 3, 9, random_state=0)
    # One step: the output and the final state hold the same numbers, each its own.
    call = Call(layer, np.random.default_rng(0), 4, 1)
    results = [*call.run(layer).values(), *call.run(layer).values()]
    results += [*layer.state_dict().values(), *layer.state_dict().values()]
    arguments = [call.x, call.d_output, *call.states, *call.d_states]
    want = call.run(layer)
    for i, array in enumerate(results):
        assert array.flags.writeable
        for other in results[i + 1 :] + arguments:
            assert not np.shares_memory(array, other)
        array[...] = np.nan
    assert_same_bits(call.run(layer), want)


def test_a_final_state_goes_back_in_without_harm():
    layer = nn.LSTM(3, 9, random_state=0)
    x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype("float32")
    _, state = layer(x)
    before = [part.tobytes() for part in state]
    layer(x, state)
    assert [part.tobytes() for part in state] == before


# Tapes.


@pytest.fixture
def layer():
    return nn.GRU(3, 9, num_layers=2, random_state=0)


@pytest.fixture
def call(layer):
    return Call(layer, np.random.default_rng(0), 4, 6)


def test_a_tape_is_used_up(layer, call):
    tape = call.forward(layer)[2]
    call.backward(layer, tape)
    for _ in range(2):
        with pytest.raises(ValueError, match="tape"):
            call.backward(layer, tape)


@pytest.mark.parametrize("change", ["load_state_dict", "apply_gradients"])
def test_a_tape_is_older_than_other_weights(layer, call, change):
    tape = call.forward(layer)[2]
    if change == "load_state_dict":
        layer.load_state_dict(layer.state_dict())
    else:
        grads = {name: np.ones_like(value) for name, value in layer.state_dict().items()}
        layer.apply_gradients(grads, optim.SGD(0.1))
    with pytest.raises(ValueError, match="tape"):
        call.backward(layer, tape)
    call.run(layer)


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (lambda layer: copy.deepcopy(layer), ValueError),
        (lambda layer: nn.GRU(3, 9, num_layers=2, random_state=0), ValueError),
        (lambda layer: nn.GRU(3, 9, num_layers=2, random_state=0, dtype="float64"), TypeError),
        (lambda layer: nn.GRU(3, 5), ValueError),
    ],
    ids=["copy", "twin", "dtype", "sizes"],
)
def test_a_tape_is_of_one_layer(layer, call, other, error):
    want = call.run(layer)
    output, state, tape = call.forward(layer)
    with pytest.raises(error, match="tape"):
        other(layer).backward(tape, None)
    # Whose it is can still use it.
    assert_same_bits(named(output, state, *call.backward(layer, tape)), want)


def test_a_refused_gradient_leaves_the_tape(layer, call):
    want = call.run(layer)
    output, state, tape = call.forward(layer)
    for wrong in [call.d_output[:-1], call.d_output[..., :-1], call.d_output.astype(int)]:
        with pytest.raises((ValueError, TypeError), match="d_output"):
            layer.backward(tape, wrong)
    with pytest.raises(ValueError, match="d_state"):
        layer.backward(tape, call.d_output, call.d_states[0][:-1])
    assert_same_bits(named(output, state, *call.backward(layer, tape)), want)


@pytest.mark.parametrize("output", ["last", "mean", "max"])
def test_threads_pool_a_ragged_batch_alike(output):
    """Sequences that have ended before others leave a thread without work at the last steps."""
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((length, 3)) for length in [150] * 9 + [2] * 40]
    y = rng.standard_normal(len(X))
    found = [
        rnncore.GRU(
            64, bidirectional=True, output=output, max_epochs=2, n_jobs=n_jobs, random_state=0
        )
        .fit(X, y)
        .predict(X)
        for n_jobs in (1, 2, 3)
    ]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
