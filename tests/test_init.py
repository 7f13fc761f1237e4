"""How weights start: the functions over layers, and the weights of a whole network by name."""

import numpy as np
import pytest

from rnncore import _core, init, nn


def test_orthogonal_and_xavier_take_each_gate_for_itself():
    layer = nn.LSTM(32, 16, dtype="float64")
    assert init.orthogonal(layer, gain=2.0, random_state=0) is layer
    for gate in np.split(layer.weight_hh_l0, 4):
        np.testing.assert_allclose(gate @ gate.T, 4 * np.eye(16), atol=1e-12)
    init.xavier_uniform(layer, "weight_ih", random_state=0)
    limit = np.sqrt(6 / (32 + 16))
    assert 0.99 * limit < np.abs(layer.weight_ih_l0).max() <= limit
    init.xavier_normal(layer, random_state=0)
    assert layer.weight_ih_l0.std() == pytest.approx(np.sqrt(2 / 48), rel=0.05)
    init.uniform(layer, "bias", bound=0.5, random_state=0)
    assert 0.4 < np.abs(layer.bias_ih_l0).max() <= 0.5


def test_forget_bias_sets_the_sum_of_both_biases():
    layer = nn.LSTM(2, 3, 2, bidirectional=True, random_state=0)
    init.zeros(layer)
    init.forget_bias(layer, 1.5)
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        total = getattr(layer, f"bias_ih_{suffix}") + getattr(layer, f"bias_hh_{suffix}")
        np.testing.assert_array_equal(total, np.repeat([0, 1.5, 0, 0], 3))


def network(cell: str = "lstm", kind: str = "embedding", n_outputs: int = 31, **options):
    return _core.Network(
        cell, kind, 24, [20, 28], True, "last", n_outputs, "cross_entropy", "float64", **options
    )


SHAPES = dict(network(vocabulary_size=500, learn_initial_state=True).parameter_shapes())
STATE = [name for name in SHAPES if "weight_hh" in name]


def drawn(way, seed=0, shapes=SHAPES, **options):
    weights = init.draw(way, shapes, np.random.default_rng(seed), "float64", **options)
    assert {name: values.shape for name, values in weights.items()} == dict(shapes)
    return weights


def hidden_of(name: str) -> int:
    return 20 if "_l0" in name else 28


@pytest.mark.parametrize("way", init.WAYS)
def test_all_ways_start_embeddings_and_states_alike(way):
    weights = drawn(way)
    assert weights["embedding.weight"].mean() == pytest.approx(0, abs=0.03)
    assert weights["embedding.weight"].std() == pytest.approx(1, abs=0.03)
    states = [name for name in weights if ".h0" in name or ".c0" in name]
    assert len(states) == 8
    assert not any(weights[name].any() for name in states)
    again = drawn(way)
    assert all((again[name] == values).all() for name, values in weights.items())
    assert (drawn(way, seed=1)["head.weight"] != weights["head.weight"]).all()


def test_uniform_is_torchs():
    for name, values in drawn("uniform").items():
        if name != "embedding.weight" and "0_l" not in name:
            limit = (56 if name.startswith("head") else hidden_of(name)) ** -0.5
            assert 0.8 * limit < np.abs(values).max() <= limit, name


@pytest.mark.parametrize("way", ["xavier_uniform", "xavier_normal", "orthogonal"])
def test_ways_take_each_gate_for_itself(way):
    for name, values in drawn(way).items():
        if values.ndim == 1:
            assert not values.any(), name
        elif name != "embedding.weight":
            rows = len(values) if name == "head.weight" else hidden_of(name)
            for gate in np.split(values, len(values) // rows):
                if way == "orthogonal" and name in STATE:
                    np.testing.assert_allclose(gate @ gate.T, np.eye(rows), atol=1e-12)
                    continue
                spread = np.sqrt(2 / sum(gate.shape))
                assert gate.std() == pytest.approx(spread, rel=0.15), name
                if way != "xavier_normal":
                    assert np.abs(gate).max() <= np.sqrt(3) * spread, name


def test_forget_gates_start_as_asked():
    plain, asked = drawn("uniform"), drawn("uniform", forget_bias=1.5)
    for name, values in plain.items():
        hidden = hidden_of(name)
        forget = slice(hidden, 2 * hidden) if "bias_" in name else slice(0, 0)
        expected = values.copy()
        expected[forget] = 1.5 if "bias_ih" in name else 0.0
        np.testing.assert_array_equal(asked[name], expected, err_msg=name)
    with pytest.raises(ValueError, match="forget_bias: expected None without forget gates"):
        drawn("uniform", shapes=dict(network("gru", "dense").parameter_shapes()), forget_bias=1.0)


def test_an_embedding_that_is_the_head_too_starts_as_a_head():
    shapes = {"embedding.weight": (500, 24), "head.bias": (500,)}
    for way in init.WAYS:
        values = drawn(way, shapes=shapes)["embedding.weight"]
        assert 0.99 * 24**-0.5 < np.abs(values).max() <= 24**-0.5
    bias = drawn("uniform", shapes=shapes)["head.bias"]
    assert 0.9 * 24**-0.5 < np.abs(bias).max() <= 24**-0.5


def test_a_layer_starts_as_a_network_of_its_weights():
    layer = nn.GRU(3, 5, 2, bidirectional=True, dtype="float64", random_state=3)
    weights = drawn("uniform", seed=3, shapes=layer.parameter_shapes())
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, weights[name])


def test_other_ways_are_refused():
    with pytest.raises(ValueError, match=r"init: expected one of 'uniform', .*, got 'glorot'"):
        drawn("glorot")
