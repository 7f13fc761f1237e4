"""LSTMs whose state is a projection, as people build, copy and carry them.

That they compute what torch does is shown with the other layers: test_parity.py, test_bits.py and
test_torch_random.py draw them too.
"""

import copy
import pickle

import numpy as np
import pytest
import torch

from rnncore import init, nn, optim

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
T, B, I, H, P = 5, 3, 4, 6, 2  # noqa: E741


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((T, B, I)).astype("float32")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_shapes_and_names_are_torchs(x, bias, bidirectional):
    arguments = (I, H, 2, bias, False, 0.0, bidirectional, P)
    layer, theirs = nn.LSTM(*arguments), torch.nn.LSTM(*arguments)
    assert layer.proj_size == P
    names = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert list(layer.parameter_shapes().items()) == list(names.items())
    for given in (x, x[:, 0]):
        output, (h, c), tape = layer.forward(given)
        want, (want_h, want_c) = theirs(torch.tensor(given))
        assert (output.shape, h.shape, c.shape) == (want.shape, want_h.shape, want_c.shape)
        dx, (dh, dc), grads = layer.backward(tape, output, (h, c))
        assert (dx.shape, dh.shape, dc.shape) == (given.shape, h.shape, c.shape)
        assert {name: value.shape for name, value in grads.items()} == names


def test_a_state_goes_on(x):
    layer = nn.LSTM(I, H, 2, proj_size=P, random_state=0)
    whole, end = layer(x)
    first, state = layer(x[:2])
    second, last = layer(x[2:], state)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    for got, want in zip(last, end, strict=True):
        np.testing.assert_array_equal(got, want)


def test_weights_go_to_torch_and_back(x):
    layer = nn.LSTM(I, H, 2, bidirectional=True, proj_size=P, random_state=0)
    module = layer.to_torch()
    assert module.proj_size == P
    again = nn.LSTM.from_torch(module)
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])
    np.testing.assert_allclose(module(torch.tensor(x))[0].detach(), layer(x)[0], atol=1e-6)


def test_copies(x):
    layer = nn.LSTM(I, H, 2, proj_size=P, random_state=0)
    assert repr(layer) == "LSTM(4, 6, num_layers=2, proj_size=2)"
    assert repr(nn.LSTM(I, H)) == "LSTM(4, 6)"
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        np.testing.assert_array_equal(twin(x)[0], layer(x)[0])
    with pytest.raises(AttributeError, match="proj_size is fixed when the layer is built"):
        layer.proj_size = 3


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"proj_size": H}, ValueError, r"expected 0\.\.5, smaller than hidden_size \(6\), got 6"),
        ({"proj_size": -1}, ValueError, r"expected 0\.\.5, .*, got -1"),
        ({"proj_size": 2.0}, TypeError, r"expected 0\.\.5, .*, got float 2.0"),
        ({"proj_size": True}, TypeError, r"expected 0\.\.5, .*, got True"),
    ],
)
def test_sizes_are_checked(arguments, error, match):
    with pytest.raises(error, match=f"proj_size: {match}"):
        nn.LSTM(I, H, **arguments)


def test_arrays_are_checked(x):
    layer = nn.LSTM(I, H, proj_size=P)
    h, c = np.zeros((1, B, P)), np.zeros((1, B, H))
    with pytest.raises(ValueError, match=r"hx\[0\]: expected shape \(1, 3, 2\), got \(1, 3, 6\)"):
        layer(x, (c, c))
    with pytest.raises(ValueError, match=r"hx\[1\]: expected shape \(1, 3, 6\), got \(1, 3, 2\)"):
        layer(x, (h, h))
    output, _, tape = layer.forward(x, (h, c))
    with pytest.raises(ValueError, match=r"d_output: expected shape \(5, 3, 2\)"):
        layer.backward(tape, np.zeros((T, B, H)))
    with pytest.raises(ValueError, match=r"d_state\[0\]: expected shape \(1, 3, 2\)"):
        layer.backward(tape, output, (c, c))


def test_first_weights_are_as_large_as_torchs():
    # By the hidden units, not by the columns of the state.
    for make in (nn.LSTM, torch.nn.LSTM):
        layer = make(3, 64, proj_size=4)
        for name, value in layer.state_dict().items():
            assert 0.1 < np.abs(np.asarray(value)).max() <= 1 / 8, (make, name)


@pytest.mark.parametrize("way", init.WAYS)
def test_networks_weights_may_start_in_every_way(way):
    shapes = nn.LSTM(3, 8, proj_size=2).parameter_shapes()
    rng = np.random.default_rng(0)
    weights = init.draw(way, shapes, rng, "float64", forget_bias=1.0)
    assert {name: value.shape for name, value in weights.items()} == shapes
    np.testing.assert_array_equal(weights["bias_ih_l0"][8:16], 1)
    if way == "orthogonal":
        for gate in weights["weight_hh_l0"].reshape(4, 8, 2):
            np.testing.assert_allclose(gate.T @ gate, np.eye(2), atol=1e-12)


def test_initialisers_take_the_projection_for_one_block():
    layer = init.orthogonal(nn.LSTM(3, 8, proj_size=2, dtype="float64"), "weight_hr")
    weight = layer.state_dict()["weight_hr_l0"]
    np.testing.assert_allclose(weight @ weight.T, np.eye(2), atol=1e-12)


def test_it_learns(x):
    layer = nn.LSTM(I, 16, proj_size=P, random_state=0)
    optimizer = optim.Adam(learning_rate=0.01)
    target = np.tanh(x.cumsum(axis=0)[..., :P])
    losses = []
    for _ in range(200):
        output, _, tape = layer.forward(x)
        error = output - target
        losses.append(float((error**2).mean()))
        grads = layer.backward(tape, error)[2]
        layer.apply_gradients(grads, optimizer)
    assert losses[-1] < 0.2 * losses[0]
