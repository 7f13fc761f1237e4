"""Estimators for every kind of input and target, and what they answer, here and in torch."""

from typing import Any, NamedTuple

import numpy as np
import torch

import rnncore

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


def fitted(inputs="features", targets="three labels", kind=rnncore.LSTM, **options):
    data = data_of(inputs, targets, np.random.default_rng(0))
    options = {"hidden_size": 5, "max_epochs": 1, "random_state": 0, **data.options, **options}
    return kind(**options).fit(data.X, data.y), data.X, data.y
