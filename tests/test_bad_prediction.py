"""What comes after fit, given bad data: refused before any work, saying what was expected."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import rnncore

X = np.zeros((4, 3, 2))
IDS = [[0, 1, 2], [3], [], [2, 2]]
Y = [0, 1, 0, 1]


def test_text_is_read_where_fit_read_text(tagger):
    with pytest.raises(TypeError, match="X: expected integer ids, as in fit, got text"):
        tagger.predict([["a", "b"]])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "save"])
def test_unfitted_estimators_say_so(method, tmp_path):
    args = {"score": (X, Y), "save": (tmp_path / "model",)}.get(method, (X,))
    with pytest.raises(NotFittedError, match="not fitted"):
        getattr(rnncore.LSTM(), method)(*args)


@pytest.fixture(scope="module")
def classifier():
    return rnncore.LSTM(2, max_epochs=1).fit(X, list("abab"))


@pytest.fixture(scope="module")
def tagger():
    return rnncore.GRU(2, max_epochs=1, embedding_dim=2).fit(IDS, IDS)


def test_predict_refuses(classifier, tagger):
    with pytest.raises(ValueError, match="X: expected 2 features, got 3"):
        classifier.predict(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"X: expected shape \(n, T, 2\), got \(3, 2\)"):
        classifier.predict(X[0])
    with pytest.raises(ValueError, match=r"X: .* got NaN in sequence 1, step 0"):
        classifier.predict_proba([X[0], [[np.nan, 0]]])
    with pytest.raises(ValueError, match=r"lengths: expected shape \(4,\), got \(2,\)"):
        classifier.predict(X, lengths=[1, 2])
    with pytest.raises(ValueError, match=r"X: expected ids in 0\.\.3, got 4 in sequence 0, step 1"):
        tagger.predict([[1, 4]])
    with pytest.raises(TypeError, match="X: expected integer ids, got float64 array"):
        tagger.predict(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("given", "kept"),
    [(X[0], 2), (pd.DataFrame(X[0]), 2), (X[0, :, 0], 1), (pd.Series(X[0, :, 0]), 1)],
    ids=lambda value: type(value).__name__,
)
def test_a_table_is_answered_with_how_to_pass_it(given, kept):
    with pytest.raises(ValueError, match=r"X: expected shape \(n, T, F\), got \(3") as error:
        rnncore.GRU(2).fit(given, np.zeros(3))
    ways = re.findall(r"use (\S+\[.*?\])[, ]", str(error.value))
    read = [eval(way, {"np": np, "X": given}) for way in ways]
    assert [x.shape for x in read] == [(3, 2, 1), (1, 3, 2)] if kept == 2 else [(1, 3, 1)]
    assert str(error.value).endswith("for ids set embedding_dim or embedding='one-hot'")
    column = pd.Series(X[0, :, 0])
    with pytest.raises(ValueError, match=re.escape("use np.array(x)[:, None]")):
        rnncore.GRU(2).fit([column, column], np.zeros(2))


def test_a_single_sequence_is_answered_with_how_to_pass_it(classifier, tagger):
    series = rnncore.RNN(2, max_epochs=1).fit(X[:, :, :1], Y)
    for model, alone, shape, advice in [
        (classifier, X[0], (3, 2), "X[None]"),
        (classifier, pd.DataFrame(X[0]), (3, 2), "np.array(X)[None]"),
        (classifier, list(X[0]), (2,), "[X]"),
        (series, X[0, :, :1], (3, 1), "X[None]"),
        (series, X[0, :, 0], (3,), "X[None, :, None]"),
        (series, [0.0, 1.0], "a list of numbers", "[np.array(X)[:, None]]"),
        (tagger, np.array([0, 1]), "shape (2,)", "X[None]"),
        (tagger, [0, 1], "a list of numbers", "[X]"),
    ]:
        match = re.escape(f"got {shape}; for ") + ".*" + re.escape(f" use {advice}") + "$"
        with pytest.raises(ValueError, match=match):
            model.predict(alone)
        assert len(model.predict(eval(advice, {"np": np, "X": alone}))) == 1
    with pytest.raises(ValueError, match=r"X: expected shape \(n, T, 2\), got \(4, 3\)$"):
        classifier.predict(X[:, :, 0])


def test_score_refuses(classifier, tagger):
    with pytest.raises(TypeError, match="y: expected labels that are strings, as in fit, got num"):
        classifier.score(X, Y)
    with pytest.raises(ValueError, match="y: expected 4 targets, one for each sequence, got 2"):
        classifier.score(X, ["a", "b"])
    with pytest.raises(
        ValueError, match=r"y: expected shape \(4, 3\) for classification, got \(4,\)"
    ):
        tagger.score(IDS, Y)
    regressor = rnncore.GRU(2, max_epochs=1).fit(X, np.zeros((4, 2)))
    with pytest.raises(
        ValueError, match="y: expected 2 numbers a target as in fit, got one number"
    ):
        regressor.score(X, np.zeros(4))
    with pytest.raises(ValueError, match="y: expected 2 numbers a target as in fit, got 4 numbers"):
        regressor.score(X, np.zeros((4, 4)))


def test_probabilities_are_for_classification():
    assert not hasattr(rnncore.LSTM(task="regression"), "predict_proba")
    model = rnncore.LSTM(2, max_epochs=1)
    assert hasattr(model, "predict_proba")
    model.fit(X, np.zeros(4))
    assert not hasattr(model, "predict_proba")
