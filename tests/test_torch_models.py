"""Estimators as torch networks and back: the same numbers, and the same next step of training."""

import copy
import io
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import rnncore
import rnncore.torch
from rnncore.text import Vocabulary
from rnncore.torch import _estimators

from .models import assert_same_bits, weights_of

LENGTHS = [4, 1, 6, 0, 3, 6, 2, 5]
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
WORDS = ["the", "dog", "ate", "a", "green", "apple"]
INPUTS = ("features", "ids", "several ids", "one-hot", "words")
TARGETS = (
    "two labels",
    "two labels, one output",
    "three labels",
    "several labels",
    "number",
    "one column",
    "columns",
    "label a step",
    "number a step",
    "next id",
)


@pytest.fixture(autouse=True)
def one_thread():
    """Keep the threads of the one from waiting for work where the other's do some."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rnncore.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Data(NamedTuple):
    X: Any
    y: Any
    options: dict


def data_of(inputs: str, targets: str, rng) -> Data:
    """Return sequences, some without a step, with targets and what an estimator is told of them."""
    lengths = LENGTHS
    options: dict[str, Any] = {}
    X: Any
    if inputs == "features":
        X = [rng.standard_normal((length, 3)).astype("f4") for length in lengths]
    elif inputs == "words":
        X = [[WORDS[i] for i in rng.integers(0, 6, length)] for length in lengths]
        X[-1][:3] = ["dog", "ate", "apple"]
        options["embedding_dim"] = 3
    else:
        shape = (2,) if inputs == "several ids" else ()
        X = [rng.integers(0, 7, (length, *shape)) for length in lengths]
        options["vocabulary_size"] = 7
        options |= {"embedding": "one-hot"} if inputs == "one-hot" else {"embedding_dim": 3}
    n = len(X)
    labels = np.resize(["no", "yes", "perhaps"], n)
    y = {
        "two labels": labels == "yes",
        "two labels, one output": labels == "yes",
        "three labels": labels,
        "several labels": np.resize([[0, 1, 1], [1, 0, 0]], (n, 3)),
        "number": rng.standard_normal(n),
        "one column": rng.standard_normal((n, 1)),
        "columns": rng.standard_normal((n, 2)),
        "label a step": [np.resize(["A", "B", "C"], length) for length in lengths],
        "number a step": [rng.standard_normal(length) for length in lengths],
        "next id": None,
    }[targets]
    if targets == "two labels, one output":
        options["loss"] = "binary_cross_entropy"
    if targets == "several labels":
        options["loss"] = "binary_cross_entropy"
    if targets == "next id":
        options["task"] = "language_model"
    return Data(X, y, options)


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


def tensors(model, X):
    """Return sequences as a tensor and lengths, with what nobody should read as padding."""
    if getattr(model, "vocabulary_", None) is not None:
        X = model.vocabulary_.transform(X)
    lengths = [len(x) for x in X]
    is_dense = not hasattr(model, "vocabulary_size_")
    shape = next(np.shape(x)[1:] for x in X if len(x))
    padding, dtype = (np.nan, model.dtype) if is_dense else (-1, np.int64)
    padded = np.full((len(X), max(lengths), *shape), padding, dtype)
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = x
    return torch.from_numpy(padded), torch.tensor(lengths)


def answers(model, X):
    """Return probabilities, or numbers, in one array of rows."""
    found = model.predict(X) if model.task_ == "regression" else model.predict_proba(X)
    return np.concatenate(found) if isinstance(found, list) else found


@torch.no_grad()
def answers_in_torch(network, X, lengths):
    regression = network.task == "regression"
    found = network(X, lengths) if regression else network.predict_proba(X, lengths)
    if network.output != "sequence":
        return found.numpy()
    is_real = torch.arange(X.shape[1]) < lengths[:, None]
    assert not found[~is_real].any()
    return found[is_real].numpy()


def assert_alike(model, network, X):
    ours = answers(model, X)
    theirs = answers_in_torch(network, *tensors(model, X))
    assert theirs.dtype == model.dtype
    tolerance = TOLERANCE[model.dtype]
    np.testing.assert_allclose(theirs.reshape(ours.shape), ours, tolerance, tolerance)


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


def fitted(inputs="features", targets="three labels", kind=rnncore.LSTM, **options):
    data = data_of(inputs, targets, np.random.default_rng(0))
    options = {"hidden_size": 5, "max_epochs": 1, "random_state": 0, **data.options, **options}
    return kind(**options).fit(data.X, data.y), data.X, data.y


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


def saved(network):
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n)), saved])
def test_networks_are_copied(copied):
    model, X, _ = fitted("words", "next id", tie_embedding=True, embedding_dim=5, max_epochs=2)
    network = copied(model.to_torch())
    assert type(network) is rnncore.torch.Network
    assert network.head.weight is network.embedding.weight
    assert_alike(model, network, X)
    assert (
        network.vocabulary_.transform(X)[0].tolist() == model.vocabulary_.transform(X)[0].tolist()
    )
    assert answers(rnncore.LSTM.from_torch(network), X).tobytes() == answers(model, X).tobytes()


def test_networks_are_reverted_and_converted():
    model, X, _ = fitted(hidden_size=(4, 3), kind=rnncore.GRU)
    network = rnncore.torch.revert(model.to_torch())
    assert {type(module) for module in network.layers()} == {torch.nn.GRU}
    assert_alike(model, network, X)
    assert_same_bits(rnncore.GRU.from_torch(network), model)
    rnncore.torch.convert(network)
    assert {type(module) for module in network.layers()} == {rnncore.torch.GRU}


def test_without_lengths_all_steps_are_real():
    model, X, _ = fitted(output="mean", bidirectional=True)
    x = np.stack([x[:4] for x in X if len(x) >= 4])
    with torch.no_grad():
        found = model.to_torch().predict_proba(torch.from_numpy(x))
    np.testing.assert_allclose(found, model.predict_proba(x), 1e-6, 1e-6)


@pytest.mark.parametrize("output", ["last", "mean", "max", "sequence"])
@pytest.mark.parametrize("learned", [False, True])
def test_sequences_without_steps(output, learned):
    targets = "number a step" if output == "sequence" else "number"
    model, X, _ = fitted("features", targets, output=output, learn_initial_state=learned)
    network = model.to_torch()
    none = [X[0][:0]] * 2
    with torch.no_grad():
        found = network(torch.zeros(2, 0, 3))
    assert found.shape == ((2, 0, 1) if output == "sequence" else (2, 1))
    np.testing.assert_allclose(found.flatten(), answers(model, none).ravel(), 1e-6, 1e-6)
    # Nor is there a gradient of what is not read.
    loss = network(torch.full((2, 1, 3), np.nan), [0, 0]).sum()
    loss.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


def test_dropout_acts_in_training_alone():
    model, X, _ = fitted("ids", "label a step", input_dropout=0.5, output_dropout=0.5)
    network = model.to_torch()
    x, lengths = tensors(model, X)
    assert torch.equal(network(x, lengths), network(x, lengths))
    network.train()
    assert not torch.equal(network(x, lengths), network(x, lengths))


def test_locked_dropout_drops_the_same_at_all_steps():
    model, *_ = fitted(
        "features",
        "label a step",
        hidden_size=(40, 40),
        locked_dropout=True,
        dropout=0.5,
        input_dropout=0.5,
        output_dropout=0.5,
    )
    network = model.to_torch().train()
    seen = {}
    for name in ("rnn.0", "rnn.1", "head"):
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
    network(torch.rand(6, 5, 3) + 1)
    for x in seen.values():
        dropped = x == 0
        assert dropped.any()
        assert not dropped.all()
        assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    kept = seen["rnn.0"] != 0
    assert (seen["rnn.0"][kept] >= 2).all()  # divided by the share that is kept


def test_training_settings_are_the_callers():
    model, *_ = fitted(optimizer="sgd", learning_rate=0.3)
    network = model.to_torch()
    assert rnncore.LSTM.from_torch(network).optimizer == "adam"
    back = rnncore.LSTM.from_torch(network, **model.get_params())
    assert back.get_params() == model.get_params()
    back = rnncore.LSTM.from_torch(network, output_dropout=0.4)
    assert back.output_dropout == back._config["output_dropout"] == 0.4


def test_padding_is_read_as_before():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 6, 2))
    X[:4, :3] = -1
    model = rnncore.LSTM(4, padding_value=-1, padding_side="left", max_epochs=1, random_state=0)
    model.fit(X, [0, 1] * 4)
    back = rnncore.LSTM.from_torch(model.to_torch())
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))


def test_a_frozen_embedding_stays_frozen():
    vectors = np.random.default_rng(0).standard_normal((7, 3))
    model, X, y = fitted("ids", vocabulary_size=None, embedding=vectors, freeze_embedding=True)
    network = model.to_torch()
    assert not network.embedding.weight.requires_grad
    assert all(p.requires_grad for name, p in network.named_parameters() if "emb" not in name)
    back = rnncore.LSTM.from_torch(network).partial_fit(X, y)
    np.testing.assert_array_equal(weights_of(back)["embedding.weight"], vectors.astype("f4"))


def test_a_vocabulary_with_vectors_comes_along():
    words = Vocabulary("word").fit([" ".join(WORDS)])
    model, X, _ = fitted("words", vocabulary=words)
    network = model.to_torch()
    assert network.embedding.padding_idx == 0
    back = rnncore.LSTM.from_torch(network)
    assert back.predict(X).tolist() == model.predict(X).tolist()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"nonlinearity": "softsign"}, r"nonlinearity: expected 'tanh' or 'relu', .*'softsign'"),
        ({"residual": True}, r"residual: expected False, as torch has it, got True"),
    ],
)
def test_what_torch_lacks_stays_here(options, match):
    model, *_ = fitted(kind=rnncore.RNN, **options)
    with pytest.raises(ValueError, match=match):
        model.to_torch()


def test_to_torch_needs_a_fit():
    with pytest.raises(Exception, match="not fitted"):
        rnncore.LSTM().to_torch()
