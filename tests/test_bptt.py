"""Truncated backpropagation through time, against torch in float64 with the same truncation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore

from .memory import grown

CELLS = {"RNN": torch.nn.RNN, "LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}
F, H, CLASSES = 3, 4, 3


def data(lengths, seed=0):
    rng = np.random.default_rng(seed)
    X = [rng.standard_normal((length, F)) for length in lengths]
    y = [rng.integers(CLASSES, size=length) for length in lengths]
    y[0][:CLASSES] = range(CLASSES)  # so that every class is there
    return X, y


def fitted(cell, X, y, rate, **options):
    """One epoch of plain gradient descent over one batch; its weights as tensors."""
    model = getattr(rnncore, cell)(
        H,
        optimizer="sgd",
        momentum=0.0,
        clip_norm=None,
        learning_rate=rate,
        batch_size=len(X),
        max_epochs=1,
        dtype="float64",
        random_state=3,
        **options,
    ).fit(X, y)
    weights = model._network.parameters()
    return {name: torch.tensor(value) for name, value in weights.items()}


def first_weights(cell, X, y, **options):
    return fitted(cell, X, y, 1e-300, **options)


def twin(cell, weights):
    """The same network in torch: recurrent layer, head, all parameters by our names."""
    layers = sum(name.startswith("rnn.weight_hh") for name in weights)
    layer = CELLS[cell](F, H, num_layers=layers, batch_first=True, dtype=torch.float64)
    layer.load_state_dict({n[4:]: w for n, w in weights.items() if n.startswith("rnn.")})
    head = torch.nn.Linear(H, CLASSES, dtype=torch.float64)
    head.load_state_dict({n[5:]: w for n, w in weights.items() if n.startswith("head.")})
    parameters = {f"rnn.{n}": p for n, p in layer.named_parameters()}
    return layer, head, parameters | {f"head.{n}": p for n, p in head.named_parameters()}


def detached(state):
    if state is None:
        return None
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


def summed_loss(head, h, y):
    return torch.nn.functional.cross_entropy(head(h), torch.tensor(y), reduction="sum")


def windowed_gradients(cell, weights, X, y, k1, k2):
    """The sum over the blocks of k1 steps, each of whose windows begins k2 before its last step."""
    layer, head, parameters = twin(cell, weights)
    total = sum(map(len, X))
    for x, labels in zip(X, y, strict=True):
        x = torch.tensor(x)[None]
        for first in range(0, x.shape[1], k1):
            end = min(first + k1, x.shape[1])
            begin = max(0, first + k1 - 1 - k2)
            state = detached(layer(x[:, :begin])[1]) if begin else None
            h, _ = layer(x[:, begin:end], state)
            (summed_loss(head, h[0, first - begin :], labels[first:end]) / total).backward()
    return {name: parameter.grad for name, parameter in parameters.items()}


def truncated_weights(cell, weights, X, y, k, rate):
    """Weights after an update for each chunk of k steps, the state carried on without gradient."""
    layer, head, parameters = twin(cell, weights)
    states = [None] * len(X)
    for first in range(0, max(map(len, X)), k):
        running = [i for i, x in enumerate(X) if len(x) > first]
        losses = []
        for i in running:
            chunk = torch.tensor(X[i][None, first : first + k])
            h, states[i] = layer(chunk, detached(states[i]))
            losses.append(summed_loss(head, h[0], y[i][first : first + k]))
        count = sum(len(X[i][first : first + k]) for i in running)
        gradients = torch.autograd.grad(sum(losses) / count, list(parameters.values()))
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                parameter -= rate * gradient
    return {name: parameter.detach() for name, parameter in parameters.items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)


lengths = st.lists(st.integers(1, 17), min_size=1, max_size=4).map(lambda more: [9, *more])


@settings(max_examples=settings.default.max_examples // 10)
@given(
    cell=st.sampled_from(list(CELLS)),
    lengths=lengths,
    k1=st.integers(1, 5),
    more=st.integers(-1, 6),
)
def test_windows_as_torch(cell, lengths, k1, more):
    X, y = data(lengths)
    options = {"bptt_steps": (k1, k1 + more), "num_layers": 1 + len(lengths) % 2}
    weights = first_weights(cell, X, y, **options)
    expected = windowed_gradients(cell, weights, X, y, k1, k1 + more)
    found = fitted(cell, X, y, 1.0, **options)
    assert_equal({name: weights[name] - found[name] for name in weights}, expected)


@settings(max_examples=settings.default.max_examples // 10)
@given(cell=st.sampled_from(list(CELLS)), lengths=lengths, k=st.integers(1, 12))
def test_chunks_as_torch(cell, lengths, k):
    X, y = data(lengths)
    weights = first_weights(cell, X, y, bptt_steps=k)
    found = fitted(cell, X, y, 0.5, bptt_steps=k)
    assert_equal(found, truncated_weights(cell, weights, X, y, k, 0.5))


def test_window_of_four_is_the_notebooks():
    """Errors go back four steps, as in D. Britz's `bptt_truncate=4`: five steps' weights each."""
    X, y = data([9, 30])
    weights = first_weights("RNN", X, y, bptt_steps=(1, 4))
    Wih, Whh = weights["rnn.weight_ih_l0"].numpy(), weights["rnn.weight_hh_l0"].numpy()
    bias = (weights["rnn.bias_ih_l0"] + weights["rnn.bias_hh_l0"]).numpy()
    V, c = weights["head.weight"].numpy(), weights["head.bias"].numpy()
    dU, dW, dV = np.zeros_like(Wih), np.zeros_like(Whh), np.zeros_like(V)
    for x, labels in zip(X, y, strict=True):
        s = np.zeros((len(x) + 1, H))  # s[-1] is the state before the first step
        for t in range(len(x)):
            s[t] = np.tanh(Wih @ x[t] + Whh @ s[t - 1] + bias)
        o = np.exp(s[:-1] @ V.T + c)
        d_o = o / o.sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels]
        for t in range(len(x)):
            dV += np.outer(d_o[t], s[t])
            delta = V.T @ d_o[t] * (1 - s[t] ** 2)
            for step in range(t, max(0, t - 4) - 1, -1):
                dW += np.outer(delta, s[step - 1])
                dU += np.outer(delta, x[step])
                delta = Whh.T @ delta * (1 - s[step - 1] ** 2)
    found = fitted("RNN", X, y, 1.0, bptt_steps=(1, 4))
    for name, expected in (
        ("rnn.weight_ih_l0", dU),
        ("rnn.weight_hh_l0", dW),
        ("head.weight", dV),
    ):
        np.testing.assert_allclose(
            weights[name] - found[name], expected / 39, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("bptt_steps", [9, (9, 9), (3, 40)])
def test_a_long_reach_is_no_truncation(bptt_steps):
    X, y = data([9, 5, 9])
    whole = fitted("GRU", X, y, 1.0)
    found = fitted("GRU", X, y, 1.0, bptt_steps=bptt_steps)
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)


BEFORE = """
import sys
import numpy as np
import rnncore
length = int(sys.argv[1])
X = np.random.default_rng(0).standard_normal((1, length, 4), dtype=np.float32)
y = np.ascontiguousarray(X[:, :, :1])
model = rnncore.LSTM(32, output="sequence", task="regression", bptt_steps=50, max_epochs=1)
model.fit(X[:, :1000], y[:, :1000])
"""


@pytest.mark.slow
def test_a_million_steps_take_no_more_memory_than_a_few():
    few, many = (grown(BEFORE, "model.fit(X, y)", length) for length in (100_000, 1_000_000))
    # Kept states would be a gigabyte, a copy of the data 20 MB.
    assert many < few + 10
