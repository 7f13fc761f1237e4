"""Dropout between layers: where its masks come from, their rate, and their gradients."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncore import nn

from .layers import (
    Call,
    assert_same_bits,
    build,
    every_isa,
    every_shape,
    parts,
    state_size,
    threads,
)


def test_dropout_comes_from_the_random_state():
    x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype("float32")
    options = {"num_layers": 3, "dropout": 0.4, "bidirectional": True}
    first, second = (nn.LSTM(3, 9, **options, random_state=7) for _ in range(2))
    draws = [first.forward(x)[0].tobytes() for _ in range(3)]
    assert draws == [second.forward(x)[0].tobytes() for _ in range(3)]
    assert len(set(draws)) == 3
    other = nn.LSTM(3, 9, **options, random_state=8)
    other.load_state_dict(first.state_dict())
    assert other.forward(x)[0].tobytes() not in draws


@every_isa
@every_shape
def test_dropout_does_not_depend_on_threads(cell, isa):
    runs = []
    for n in [1, 2, 3]:
        layer = build(cell, 40, 70, 3, dropout=0.3, random_state=0, isa=isa)
        call = Call(layer, np.random.default_rng(0), 37, 20, np.arange(37) % 21)
        with threads(n):
            runs.append(call.run(layer))
    assert_same_bits(runs[1], runs[0])
    assert_same_bits(runs[2], runs[0])


@every_shape
def test_dropout_of_nothing_is_none(cell):
    layer = build(cell, 3, 9, 2, dropout=0.0, random_state=0)
    plain = build(cell, 3, 9, 2, random_state=0)
    call = Call(layer, np.random.default_rng(0), 4, 6, [3, 0, 6, 1])
    assert_same_bits(call.run(layer), call.run(plain))


@every_shape
def test_dropout_of_all_cuts_layers_apart(cell):
    # The second layer sees zeros, and nothing flows back through them to the first.
    layer = build(cell, 3, 9, 2, dropout=1.0, random_state=0)
    call = Call(layer, np.random.default_rng(0), 4, 6, [3, 0, 6, 1])
    got = call.run(layer)
    apart = []
    for number, input_size in enumerate([3, state_size(layer)]):
        part = build(cell, input_size, 9)
        own = {k: v for k, v in layer.state_dict().items() if k.endswith(f"_l{number}")}
        part.load_state_dict({k.replace(f"_l{number}", "_l0"): v for k, v in own.items()})
        view = copy.copy(call)
        view.states = [state[number : number + 1] for state in call.states]
        view.d_states = [state[number : number + 1] for state in call.d_states]
        if number == 0:
            view.d_output = np.zeros_like(call.d_output)
        else:
            view.x = np.zeros((6, 4, input_size), "float32")
        apart.append(view.run(part))
    lower, upper = apart
    want = {"output": upper["output"], "x": lower["x"]}
    want |= {name: np.concatenate([lower[name], upper[name]]) for name in got if name[1:2] == "_"}
    for name in layer.parameter_shapes():
        want[name] = apart[int(name[-1])][f"{name[:-1]}0"]
    assert sorted(got) == sorted(want)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_dropout_drops_its_share_and_keeps_the_mean():
    """A last layer that hands its input on shows what dropout did to it."""
    H, p = 64, 0.3
    layer = nn.RNN(H, H, 2, "relu", bias=False, dropout=p, random_state=0, dtype="float64")
    identity = {
        name: np.eye(H) if "ih" in name else np.zeros((H, H)) for name in layer.parameter_shapes()
    }
    layer.load_state_dict(identity)
    x = np.random.default_rng(0).uniform(1, 2, (50, 30, H))
    output, _, tape = layer.forward(x)
    dropped = output == 0
    np.testing.assert_allclose(output[~dropped], (x / (1 - p))[~dropped], rtol=1e-12)
    # 96000 draws: a standard error of 0.0015 for the rate, and 0.002 for a mean of 1.5.
    assert dropped.mean() == pytest.approx(p, abs=0.006)
    assert output.mean() == pytest.approx(x.mean(), abs=0.015)
    for axis in range(3):
        rates = dropped.mean(axis=tuple({0, 1, 2} - {axis}))
        assert rates.std() < 2 * np.sqrt(p * (1 - p) * x.shape[axis] / x.size)
    # Backward goes through what was kept, no more and no less.
    dx, _, _ = layer.backward(tape, np.ones_like(output))
    np.testing.assert_allclose(dx, np.where(dropped, 0, 1 / (1 - p)), rtol=1e-12)


def test_locked_dropout_drops_the_same_at_every_step():
    H, p = 64, 0.3
    options = {"bias": False, "dropout": p, "random_state": 0, "dtype": "float64"}
    layer = nn.RNN(H, H, 2, "relu", locked_dropout=True, **options)
    identity = {
        name: np.eye(H) if "ih" in name else np.zeros((H, H)) for name in layer.parameter_shapes()
    }
    layer.load_state_dict(identity)
    x = np.random.default_rng(0).uniform(1, 2, (9, 200, H))
    lengths = np.arange(200) % 10
    output, _, tape = layer.forward(x, lengths=lengths)
    for sequence, length in enumerate(lengths):
        kept = output[:length, sequence] != 0
        assert (kept == kept[:1]).all()
    first = output[0, lengths > 0]
    dropped = first == 0
    np.testing.assert_allclose(first[~dropped], (x[0, lengths > 0] / (1 - p))[~dropped], rtol=1e-12)
    # 11520 draws: a standard error of 0.0043.
    assert dropped.mean() == pytest.approx(p, abs=0.017)
    assert len({row.tobytes() for row in dropped}) == len(dropped)
    dx, _, _ = layer.backward(tape, np.ones_like(output))
    np.testing.assert_allclose(dx, np.where(output == 0, 0, 1 / (1 - p)), rtol=1e-12)
    # Another call draws other masks.
    assert (layer.forward(x, lengths=lengths)[0] != output).any()


@every_shape
@every_isa
@settings(max_examples=10, derandomize=True)  # so that no step meets a kink of relu one day
@given(seed=st.integers(0, 2**32 - 1), bidirectional=st.booleans(), locked=st.booleans())
def test_gradients_with_dropout_are_differences(cell, isa, seed, bidirectional, locked):
    options = {"dropout": 0.4, "locked_dropout": locked, "bidirectional": bidirectional}
    options |= {"dtype": "float64", "isa": isa}

    def layer_with(weights=None):
        # The same seed again: the same masks.
        layer = build(cell, 3, 5, 3, random_state=seed, **options)
        if weights is not None:
            layer.load_state_dict(weights)
        return layer

    layer = layer_with()
    weights = layer.state_dict()
    rng = np.random.default_rng(seed)
    call = Call(layer, rng, 3, 4, [4, 0, 2])
    found = call.run(layer)

    def loss(call, weights):
        output, state, _ = call.forward(layer_with(weights))
        pairs = zip([output, *parts(state)], [call.d_output, *call.d_states], strict=True)
        return sum((array * by).sum() for array, by in pairs)

    def difference(direction, scale):
        moved = copy.copy(call)
        moved.x = call.x + scale * direction["x"]
        moved.states = [
            state + scale * direction[f"{name}_0"]
            for name, state in zip("hc", call.states, strict=False)
        ]
        return loss(moved, {name: weights[name] + scale * direction[name] for name in weights})

    moving = [name for name in found if name in weights or name in ("x", "h_0", "c_0")]
    direction = {name: rng.standard_normal(found[name].shape) for name in moving}
    step = 1e-6
    want = (difference(direction, step) - difference(direction, -step)) / (2 * step)
    got = sum((found[name] * direction[name]).sum() for name in moving)
    assert got == pytest.approx(want, rel=1e-5, abs=1e-5)
