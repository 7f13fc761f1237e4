"""Estimators as torch networks and back: the same numbers, and the same next step of training."""

import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import rnncore
import rnncore.torch
from rnncore.torch import _estimators

from .in_torch import INPUTS, TARGETS, answers, assert_alike, data_of, fitted, tensors
from .models import assert_same_bits, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


class Case(NamedTuple):
    kind: Any
    inputs: str
    targets: str
    options: dict
    seed: int


@st.composite
def cases(draw):
    """Return what an estimator is, and what it is to learn."""
    inputs = draw(st.sampled_from(INPUTS))
    targets = draw(st.sampled_from(TARGETS))
    if inputs in ("features", "several ids") and targets == "next id":
        inputs = "ids"
    seed = draw(st.integers(0, 99))
    options = data_of(inputs, targets, np.random.default_rng(seed)).options
    kind = draw(st.sampled_from([rnncore.RNN, rnncore.LSTM, rnncore.GRU]))
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    if draw(st.booleans()):
        sizes = sizes[:1] * len(sizes)
    options["hidden_size"] = tuple(sizes)
    if targets != "next id":
        options["bidirectional"] = draw(st.booleans())
        if "step" not in targets:
            options["output"] = draw(st.sampled_from(["last", "mean", "max"]))
    if kind is rnncore.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    rates = st.sampled_from([0.0, 0.3])
    if len(sizes) > 1:
        options["dropout"] = draw(rates)
    if inputs != "one-hot":
        options["input_dropout"] = draw(rates)
    options["output_dropout"] = draw(rates)
    options["locked_dropout"] = draw(st.booleans())
    options["learn_initial_state"] = draw(st.booleans())
    options["dtype"] = draw(st.sampled_from(["float32", "float64"]))
    if "embedding_dim" in options:
        options["freeze_embedding"] = draw(st.booleans())
        options["masked_id"] = draw(st.sampled_from([None, 2]))
        if targets == "next id" and draw(st.booleans()):
            options |= {"tie_embedding": True, "freeze_embedding": False}
            options["embedding_dim"] = sizes[-1]
    return Case(kind, inputs, targets, options, seed)


@given(cases())
def test_models_go_to_torch_and_come_back(case):
    X, y, _ = data_of(case.inputs, case.targets, np.random.default_rng(case.seed))
    model = case.kind(
        max_epochs=1, random_state=0, learning_rate=0.1, batch_size=5, **case.options
    ).fit(X, y)
    network = model.to_torch()
    assert not network.training
    assert_alike(model, network, X)
    assert (network.task, network.output, network.loss) == (
        model.task_,
        model.output_,
        model.loss_,
    )
    if hasattr(model, "classes_"):
        assert network.classes_.tolist() == model.classes_.tolist()
    assert set(network.state_dict()) >= set(dict(network.named_parameters()))

    for parameters in ({}, model.get_params(deep=False)):
        back = type(model).from_torch(network, **parameters)
        assert_same_bits(back, model)
        assert answers(back, X).tobytes() == answers(model, X).tobytes()
        for ours, theirs in zip(back.predict(X), model.predict(X), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert back._config == {**model._config, "huber_delta": back.huber_delta}
        assert back._problem.to_json() == model._problem.to_json()
    assert back.get_params() == model.get_params()
    np.testing.assert_equal(back.score(X, y), model.score(X, y))
    back.partial_fit(X, y)


# The rest looks closer, at a few models.


@dataclass(kw_only=True, eq=False, repr=False)
class Named(rnncore.GRU):
    label: str = ""


def test_parameters_of_a_derived_class_are_its_own():
    model, *_ = fitted(kind=rnncore.GRU)
    back = Named.from_torch(model.to_torch(), label="mine")
    assert back.label == "mine"
    assert_same_bits(back, model)


def loss_in_torch(model, network, X, y):
    """Return the loss that the estimator trains on."""
    of = torch.nn.functional
    X, lengths = tensors(model, X)
    if model.task_ == "language_model":
        y = X[:, 1:]
        X, lengths = X[:, :-1], (lengths - 1).clamp(min=0)
        rows, targets = network(X, lengths), y
    else:
        rows = network(X, lengths)
        coded = model.task_ == "classification" and model._problem.single
        parts = [np.searchsorted(model.classes_, part) if coded else np.asarray(part) for part in y]
        if isinstance(y, list):
            parts = [np.pad(part, (0, X.shape[1] - len(part))) for part in parts]
        targets = torch.from_numpy(np.stack(parts))
    if network.output == "sequence":
        is_real = torch.arange(X.shape[1]) < lengths[:, None]
        rows, targets = rows[is_real], targets[is_real]
    if model.loss_ == "cross_entropy":
        return of.cross_entropy(rows, targets)
    targets = targets.to(rows.dtype).reshape(rows.shape)
    if model.loss_ == "binary_cross_entropy":
        return of.binary_cross_entropy_with_logits(rows, targets)
    return of.mse_loss(rows, targets)


def step_in_torch(network, loss, rate):
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight -= rate * slope


@pytest.mark.parametrize(
    ("inputs", "targets", "options"),
    [
        ("features", "three labels", {}),
        ("features", "two labels, one output", {"output": "max", "kind": rnncore.GRU}),
        ("features", "columns", {"output": "mean", "bidirectional": True}),
        ("ids", "several labels", {"hidden_size": (5, 3), "masked_id": 2}),
        ("several ids", "number", {"kind": rnncore.RNN, "freeze_embedding": True}),
        ("one-hot", "label a step", {"kind": rnncore.GRU, "num_layers": 2}),
        ("words", "number a step", {"bidirectional": True}),
        ("ids", "next id", {"tie_embedding": True, "embedding_dim": 5}),
        ("words", "next id", {"kind": rnncore.GRU}),
    ],
)
def test_a_step_in_torch_is_a_step_here(inputs, targets, options):
    model, X, y = fitted(
        inputs,
        targets,
        learn_initial_state=True,
        dtype="float64",
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.0,
        clip_norm=None,
        batch_size=99,
        **options,
    )
    network = model.to_torch().train()
    loss = loss_in_torch(model, network, X, y)
    step_in_torch(network, loss, 0.1)
    model.partial_fit(X, y)
    assert model.history_["loss"][-1] == pytest.approx(loss.item(), rel=1e-10)
    stepped = weights_of(type(model).from_torch(network))
    for name, value in weights_of(model).items():
        np.testing.assert_allclose(stepped[name], value, 1e-9, 1e-11, err_msg=name)


def test_training_goes_on_in_torch_and_comes_back():
    model, X, y = fitted("words", "three labels", dropout=0.2, num_layers=2)
    network = model.to_torch().train()
    before = loss_in_torch(model, network.eval(), X, y).item()
    for _ in range(30):
        step_in_torch(network, loss_in_torch(model, network.train(), X, y), 0.5)
    after = loss_in_torch(model, network.eval(), X, y).item()
    assert after < before
    back = rnncore.LSTM.from_torch(network)
    assert_alike(back, network, X)
    assert back.score(X, y) >= model.score(X, y)
    assert back.n_epochs_ == 0
    back.set_params(warm_start=True, max_epochs=3).fit(X, y)
    assert back.n_epochs_ == 3


def test_a_model_that_came_back_serves(tmp_path):
    model, X, y = fitted("words", "label a step")
    back = rnncore.LSTM.from_torch(model.to_torch())
    back.save(tmp_path / "model.safetensors")
    loaded = rnncore.load(tmp_path / "model.safetensors")
    assert answers(loaded, X).tobytes() == answers(model, X).tobytes()
    stream = back.stream(method="predict_proba")
    steps = np.concatenate([stream.step([word]) for word in X[0]])
    np.testing.assert_array_equal(steps, model.predict_proba(X[:1])[0])
    assert back.score(X, y) == model.score(X, y)
    copied = pickle.loads(pickle.dumps(back))
    assert answers(copied, X).tobytes() == answers(model, X).tobytes()


@pytest.mark.parametrize("classes", ["abcde", "ecdab"])
def test_a_classifier_may_share_the_vectors_of_its_ids(classes):
    torch.manual_seed(0)
    head, embedding = torch.nn.Linear(4, 5), torch.nn.Embedding(5, 4)
    head.weight = embedding.weight
    rnn = rnncore.torch.GRU(4, 4, batch_first=True)
    network = rnncore.torch.Network(rnn, head, embedding, classes=list(classes))
    model = rnncore.GRU.from_torch(network)
    X = np.random.default_rng(0).integers(0, 5, (6, 7))
    expected = network(torch.from_numpy(X)).softmax(1).detach().numpy()
    assert list(model.classes_) == sorted(classes)
    found = model.predict_proba(X)[:, np.searchsorted(model.classes_, list(classes))]
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    model.set_params(warm_start=True, max_epochs=1).fit(X, list("abcdea"))


def test_a_language_model_writes_as_before():
    text = "the quick brown fox " * 20
    model = rnncore.GRU(
        8, task="language_model", embedding_dim=4, max_epochs=2, random_state=0
    ).fit(text)
    back = rnncore.GRU.from_torch(model.to_torch())
    assert back.perplexity(text) == model.perplexity(text)
    assert back.generate("the", 9, random_state=1) == model.generate("the", 9, random_state=1)
    back.fit(text)  # anew, with a vocabulary of the same kind
    assert back.vocabulary_.get_params() == model.vocabulary_.get_params()


def test_names_of_weights_are_those_of_the_file(tmp_path):
    model, X, _ = fitted("ids", "three labels", num_layers=2, bidirectional=True)
    network = model.to_torch()
    assert list(network.state_dict()) == [
        "embedding.weight",
        *(
            f"rnn.{what}_l{layer}{way}"
            for layer in range(2)
            for way in ("", "_reverse")
            for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ),
        "head.weight",
        "head.bias",
    ]
    model.save(tmp_path / "model.safetensors")
    for weight in network.parameters():
        weight.data.zero_()
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert_alike(model, network, X)


def test_names_of_layers_of_different_sizes():
    model, *_ = fitted(hidden_size=(4, 3), learn_initial_state=True, kind=rnncore.LSTM)
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert list(model.to_torch().state_dict()) == [
        *(f"rnn.{layer}.{kind}_l0" for layer in range(2) for kind in kinds),
        *("h0.0", "h0.1", "c0.0", "c0.1"),
        *("head.weight", "head.bias"),
    ]


def test_weights_are_copies():
    model, X, _ = fitted("ids", learn_initial_state=True)
    before = answers(model, X)
    network = model.to_torch()
    for weight in network.parameters():
        weight.data.zero_()
    np.testing.assert_array_equal(answers(model, X), before)
    back = rnncore.LSTM.from_torch(network)
    for weight in network.parameters():
        weight.data.fill_(1)
    assert not any(value.any() for value in weights_of(back).values())


def test_fresh_arrays_become_the_tensors_memory(monkeypatch):
    model, *_ = fitted("ids")
    arrays = {}

    def caught(kind, config, problem, given):
        arrays.update(given)
        return to_network(kind, config, problem, given)

    to_network = _estimators.to_network
    monkeypatch.setattr(_estimators, "to_network", caught)
    weights = model.to_torch().state_dict()
    assert list(weights) == list(arrays)
    for name, array in arrays.items():
        assert np.shares_memory(weights[name].numpy(), array), name


def test_weights_are_read_where_they_lie():
    model, *_ = fitted("ids", learn_initial_state=True)
    network = model.to_torch()
    found = _estimators.read_network(network, "LSTM").weights
    assert found.keys() == weights_of(model).keys()
    memory = [weight.numpy() for weight in network.state_dict().values()]
    for name, array in found.items():
        assert any(np.shares_memory(array, part) for part in memory), name
