"""Inside the networks: states, gates and gradient flow, against torch's cells."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import rnncore

from .sequences import pad, ragged

FUNCTIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": torch.nn.functional.leaky_relu,
    "softsign": torch.nn.functional.softsign,
    "sigmoid": torch.sigmoid,
}


def step(model, weights, name, x, state):
    """Take one step as the equations say; return the new state and what the gates let through."""
    h = state[0]
    a = x @ weights[f"rnn.weight_ih{name}"].T + weights[f"rnn.bias_ih{name}"]
    b = h @ weights[f"rnn.weight_hh{name}"].T + weights[f"rnn.bias_hh{name}"]
    if isinstance(model, rnncore.LSTM):
        i, f, g, o = (a + b).chunk(4)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * state[1] + i * g
        gates = {"input": i, "forget": f, "candidate": g, "output": o, "cell": c}
        return [o * c.tanh(), c], gates
    if isinstance(model, rnncore.GRU):
        (a_r, a_z, a_n), (b_r, b_z, b_n) = a.chunk(3), b.chunk(3)
        r, z = (a_r + b_r).sigmoid(), (a_z + b_z).sigmoid()
        n = (a_n + r * b_n).tanh()
        return [(1 - z) * n + z * h], {"reset": r, "update": z, "candidate": n}
    n = FUNCTIONS[model.nonlinearity](a + b)
    return [n + h if model.residual else n], {"candidate": n}


def run(model, x):
    """Run one sequence; return for each layer the states and the gates of all steps."""
    weights = {
        name: torch.tensor(value, dtype=torch.float64)
        for name, value in model._network.parameters().items()
    }
    weights = {name: value.requires_grad_() for name, value in weights.items()}
    rows = list(_vectors(model, weights, x))
    layers = []
    sizes = model.hidden_size if isinstance(model.hidden_size, tuple) else (model.hidden_size,)
    for layer, size in enumerate(sizes):
        states, gates = [], []
        for suffix in ("", "_reverse") if model.bidirectional else ("",):
            name = f"_l{layer}{suffix}"
            zero = torch.zeros(size, dtype=torch.float64)
            state = [weights.get(f"rnn.h0{name}", zero), weights.get(f"rnn.c0{name}", zero)]
            kept = []
            for row in reversed(rows) if suffix else rows:
                state, seen = step(model, weights, name, row, state)
                state = [part.clone() for part in state]  # h does not come from c any more
                for part in state:
                    part.retain_grad()
                kept.append((state, seen))
            kept = kept[::-1] if suffix else kept
            states.append([state for state, _ in kept])
            gates.append([seen for _, seen in kept])
        rows = [torch.cat([direction[t][0] for direction in states]) for t in range(len(rows))]
        layers.append((rows, states, gates))
    return weights, layers


def _vectors(model, weights, x):
    if x.dtype.kind == "f":
        return torch.tensor(x, dtype=torch.float64)
    ids = x.reshape(len(x), -1)
    if model.embedding == "one-hot":
        table = torch.eye(model.vocabulary_size_, dtype=torch.float64)
    else:
        table = weights["embedding.weight"]
    real = torch.tensor(ids != (-1 if model.masked_id is None else model.masked_id))
    return (table[torch.tensor(ids)] * real[..., None]).sum(dim=1)


VECTORS = ragged(np.random.default_rng(0), 9, features=3, shortest=1, longest=6)
VECTORS.insert(2, np.empty((0, 3), np.float32))
IDS = [np.random.default_rng(1).integers(0, 6, len(x)) for x in VECTORS]
ROWS = [np.random.default_rng(1).integers(0, 6, (len(x), 3)) for x in VECTORS]

MODELS = {
    "LSTM": (rnncore.LSTM(4), VECTORS),
    "LSTM both ways": (rnncore.LSTM((4, 3), bidirectional=True), VECTORS),
    "LSTM begun": (rnncore.LSTM((3, 5), learn_initial_state=True), VECTORS),
    "LSTM of ids": (rnncore.LSTM(4, embedding_dim=3), IDS),
    "GRU": (rnncore.GRU((4, 6)), VECTORS),
    "GRU one-hot": (rnncore.GRU(4, embedding="one-hot"), IDS),
    "GRU of rows": (rnncore.GRU(4, embedding_dim=3, masked_id=0), ROWS),
    "GRU both ways": (rnncore.GRU(3, bidirectional=True, learn_initial_state=True), VECTORS),
    "RNN of rows": (rnncore.RNN((2, 3), embedding_dim=2), ROWS),
    **{
        f"RNN {name} {residual}": (rnncore.RNN(4, nonlinearity=name, residual=residual), VECTORS)
        for name in FUNCTIONS
        for residual in (False, True)
    },
}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    model, X = MODELS[request.param]
    model.set_params(max_epochs=2, dtype="float64", random_state=0, task="regression")
    y = [np.linspace(-1, 1, len(x)) for x in X]
    return model.fit(X, y), X, y


def test_states_are_torchs(case):
    model, X, _ = case
    layers = len(model.hidden_size) if isinstance(model.hidden_size, tuple) else 1
    for layer in range(-layers, layers):
        states = model.hidden_states(X, layer=layer)
        assert isinstance(states, list)
        for x, got in zip(X, states, strict=True):
            assert len(got) == len(x)
            if len(x):
                want = torch.stack(run(model, x)[1][layer][0]).detach()
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_gates_are_torchs(case):
    model, X, _ = case
    layers = len(model.hidden_size) if isinstance(model.hidden_size, tuple) else 1
    for layer in range(layers):
        gates = model.gates(X, layer=layer)
        for index, x in enumerate(X):
            if not len(x):
                assert all(len(found[index]) == 0 for found in gates.values())
                continue
            directions = run(model, x)[1][layer][2]
            assert list(gates) == list(directions[0][0])
            for name, found in gates.items():
                want = torch.cat(
                    [torch.stack([seen[name] for seen in steps]) for steps in directions], dim=1
                )
                np.testing.assert_allclose(found[index], want.detach(), rtol=1e-9, atol=1e-12)


def norms(states):
    """Return the norm of the gradient with respect to each step's state."""
    (forwards,) = states
    parts = [[part.grad for part in state if part.grad is not None] for state in forwards]
    return [float(torch.cat(found).norm()) if found else 0.0 for found in parts]


def test_gradients_are_torchs(case):
    model, X, y = case
    if model.bidirectional:
        with pytest.raises(ValueError, match="forwards alone, got bidirectional=True"):
            model.gradient_flow(X, y)
        return
    layers = len(model.hidden_size) if isinstance(model.hidden_size, tuple) else 1
    for layer in range(layers):
        flow = model.gradient_flow(X, y, layer=layer)
        assert isinstance(flow, list)
        for x, target, got in zip(X, y, flow, strict=True):
            assert got.shape == (len(x),)
            if not len(x):
                continue
            weights, found = run(model, x)
            top = torch.stack(found[-1][0])
            outputs = top @ weights["head.weight"].T + weights["head.bias"]
            torch.nn.functional.mse_loss(outputs[:, 0], torch.tensor(target)).backward()
            np.testing.assert_allclose(got, norms(found[layer][1]), rtol=1e-8, atol=1e-12)


def test_gradients_of_the_final_state_are_torchs(case):
    model, X, _ = case
    if model.bidirectional:
        return
    flow = model.gradient_flow(X)
    for x, got in zip(X, flow, strict=True):
        if not len(x):
            continue
        _, found = run(model, x)
        _, states, _ = found[-1]
        states[0][-1][0].sum().backward()
        np.testing.assert_allclose(got, norms(states), rtol=1e-8, atol=1e-12)


def test_padding_is_zero_and_changes_nothing():
    X = [x for x in VECTORS if len(x)]
    y = np.array([x.sum() for x in X])
    model = rnncore.LSTM(3, max_epochs=1, random_state=0).fit(X, y)
    padded, lengths = pad(X, fill=7.0)
    for got, want in [
        (model.hidden_states(padded, lengths=lengths), model.hidden_states(X)),
        (model.gates(padded, lengths=lengths)["forget"], model.gates(X)["forget"]),
        (model.gradient_flow(padded, y, lengths=lengths), model.gradient_flow(X, y)),
    ]:
        assert got.shape[:2] == padded.shape[:2]
        for row, x, length in zip(got, want, lengths, strict=True):
            np.testing.assert_array_equal(row[:length], x)
            assert not row[length:].any()


def test_a_single_target_acts_through_the_last_step():
    X = [x for x in VECTORS if len(x) > 1]
    y = np.array([x.sum() for x in X])
    model = rnncore.RNN(3, max_epochs=1, random_state=0, dtype="float64").fit(X, y)
    for x, target, got in zip(X, y, model.gradient_flow(X, y), strict=True):
        weights, found = run(model, x)
        output = found[-1][0][-1] @ weights["head.weight"].T + weights["head.bias"]
        ((output[0] - target) ** 2).backward()
        np.testing.assert_allclose(got, norms(found[-1][1]), rtol=1e-8, atol=1e-12)


def test_language_models_make_their_targets():
    X = [[1, 2, 0, 1], [2, 1]]
    model = rnncore.GRU(3, embedding_dim=2, task="language_model", max_epochs=1, random_state=0)
    flow = model.fit(X).gradient_flow(X)
    assert all((row > 0).any() for row in flow)


def test_wrong_arguments_are_named():
    with pytest.raises(NotFittedError):
        rnncore.LSTM().gates(VECTORS)
    model = rnncore.GRU((2, 2), max_epochs=1).fit(np.ones((4, 3, 1)), np.arange(4.0))
    for method in ("gradient_flow", "hidden_states", "gates"):
        with pytest.raises(ValueError, match=r"layer: expected -2\.\.1, got 2"):
            getattr(model, method)(np.ones((4, 3, 1)), layer=2)
        with pytest.raises(ValueError, match="X: expected 1 features, got 2"):
            getattr(model, method)(np.ones((4, 3, 2)))
