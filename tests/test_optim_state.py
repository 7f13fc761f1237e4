"""Optimizers copied, pickled and stored."""

import copy
import pickle

import numpy as np
import pytest

from rnncore import _core, nn, optim

from .optimizers import batches, copied, every_rule, step


@every_rule
def test_copies_have_the_settings_alone(rule):
    optimizer = rule(0.25, weight_decay=0.5, l1=0.125, clip_norm=2.0)
    layer = nn.GRU(3, 7, dtype="float64", random_state=0)
    optimizer.learning_rate = 0.0625
    step(layer, optimizer, *next(batches(layer, 0)))
    want = {"learning_rate": 0.0625, "weight_decay": 0.5, "l1": 0.125, "clip_norm": 2.0}
    copies = [
        pickle.loads(pickle.dumps(optimizer)),
        copy.copy(optimizer),
        copy.deepcopy(optimizer),
        rule(**optimizer.options),
    ]
    for other in copies:
        assert type(other) is rule
        assert other.name == optimizer.name == rule.__name__.lower()
        assert other.options == optimizer.options
        assert other.options.items() >= want.items()
        assert repr(other) == repr(optimizer)
        assert other._core.state(layer._stack) is None
        other.learning_rate = 3.0
    assert optimizer.learning_rate == 0.0625
    # What is returned is a copy too.
    optimizer.options["l1"] = 7.0
    assert optimizer.options["l1"] == 0.125


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_rule
def test_a_stored_state_goes_on_to_the_same_bits(rule, dtype):
    options = {"momentum": 0.9} if rule in (optim.SGD, optim.RMSprop) else {}
    whole = nn.GRU(3, 7, dtype=dtype, random_state=0)
    optimizer = rule(0.01, **options)
    assert optimizer._core.state(whole._stack) is None
    examples = list(batches(whole, 0))
    for batch in examples[:5]:
        step(whole, optimizer, *batch)
    state = optimizer._core.state(whole._stack)
    assert state["steps"] == 5
    size = sum(value.size for value in whole.state_dict().values())
    assert [(b.dtype, b.shape) for b in state["buffers"]] == [(dtype, (size,))] * len(
        state["buffers"]
    )
    resumed = nn.GRU(3, 7, dtype=dtype)
    resumed.load_state_dict(whole.state_dict())
    other = rule(0.01, **options)
    other._core.set_state(resumed._stack, state)
    for batch in examples[5:]:
        step(whole, optimizer, *batch)
        step(resumed, other, *batch)
    assert copied(whole.state_dict()) == copied(resumed.state_dict())
    # What was stored is a copy, and None forgets it.
    assert state["steps"] == 5
    other._core.set_state(resumed._stack, None)
    assert other._core.state(resumed._stack) is None


def test_the_stored_state_of_a_network_goes_on_to_the_same_bits():
    rng = np.random.default_rng(0)
    lengths = np.full(10, 5)
    values = rng.standard_normal((50, 3)).astype("float32")
    examples = _core.Examples(values, 5 * np.arange(10), lengths, np.arange(10) % 2)

    def make():
        return _core.Network("gru", "dense", 3, [7], False, "last", 2, "cross_entropy", "float32")

    def train(network, optimizer, epoch):
        network.train_epoch(
            examples,
            optimizer._core,
            epoch=epoch,
            batch_size=3,
            shuffle=True,
            bucket_by_length=True,
            seed=0,
        )

    whole, optimizer = make(), optim.AdamW()
    whole.set_parameters(
        {
            name: rng.uniform(-1, 1, shape).astype("float32")
            for name, shape in whole.parameter_shapes()
        }
    )
    train(whole, optimizer, 1)
    resumed, other = make(), optim.AdamW()
    resumed.set_parameters(whole.parameters())
    state = optimizer._core.state(whole)
    assert state["steps"] == 4
    other._core.set_state(resumed, state)
    train(whole, optimizer, 2)
    train(resumed, other, 2)
    assert copied(whole.parameters()) == copied(resumed.parameters())


def test_a_state_that_does_not_fit_is_refused():
    layer, optimizer = nn.GRU(3, 7, random_state=0), optim.Adam()
    step(layer, optimizer, *next(batches(layer, 0)))
    core, stack = optimizer._core, layer._stack
    good = core.state(stack)
    zeros = np.zeros_like(good["buffers"][0])
    negative = zeros.copy()
    negative[3] = -1
    for state, error, message in [
        ({"buffers": [zeros, zeros]}, ValueError, r'state\["steps"\]'),
        ({"steps": 1}, ValueError, r'state\["buffers"\]'),
        ({"steps": 0, "buffers": [zeros, zeros]}, ValueError, r'state\["steps"\].*>= 1, got 0'),
        ({"steps": 1, "buffers": [zeros]}, ValueError, "expected 2 buffers, got 1"),
        ({"steps": 1, "buffers": [zeros, zeros[1:]]}, ValueError, r"as the weights, got \(251,\)"),
        ({"steps": 1, "buffers": [zeros, negative]}, ValueError, r"\[1\]\[3\].*>= 0, got -1"),
        ({"steps": 1, "buffers": [zeros + np.nan, zeros]}, ValueError, r"\[0\]\[0\].*finite"),
        ({"steps": 1, "buffers": [zeros, zeros.astype(float)]}, TypeError, "float32 array"),
        ({"steps": 1, "buffers": 7}, TypeError, "iterable"),
        ([1], TypeError, "dict"),
    ]:
        with pytest.raises(error, match=message):
            core.set_state(stack, state)
    with pytest.raises(TypeError, match=r"model.*expected a Network or a Stack"):
        core.state(layer)
    # None of them changed anything.
    after = core.state(stack)
    assert after["steps"] == good["steps"]
    for got, want in zip(after["buffers"], good["buffers"], strict=True):
        np.testing.assert_array_equal(got, want)
