"""One task of each kind, learned to a score that broken gradients miss.

Each task needs gradients through time: targets depend on steps long before the last one. With
random recurrent weights and the best head for them accuracy stays below 0.65, R² below 0.5.
"""

import numpy as np
import pytest

import rnncore

from .sequences import pad, ragged

ESTIMATORS = [rnncore.RNN, rnncore.LSTM, rnncore.GRU]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_learns_to_classify(estimator, optimizer, rng):
    X = ragged(rng, 600)
    y = np.where([x[0, 0] > 0 for x in X], "up", "down")  # the first step decides
    model = estimator(32, optimizer=optimizer, random_state=0)
    model.fit(X[:400], y[:400])
    assert model.score(X[400:], y[400:]) > 0.85
    assert model.task_ == "classification"
    assert set(model.predict(X[400:])) == {"up", "down"}
    proba = model.predict_proba(X[400:])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[proba.argmax(axis=1)], model.predict(X[400:]))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_learns_a_number(estimator, rng):
    X = ragged(rng, 600)
    y = np.array([np.tanh(x[:3, 0].sum()) for x in X])  # the first three steps decide
    model = estimator(32, random_state=0).fit(X[:400], y[:400])
    assert model.task_ == "regression"
    assert model.predict(X[400:]).shape == (200,)
    assert model.score(X[400:], y[400:]) > 0.75


def test_learns_several_numbers(rng):
    X = ragged(rng, 600)
    y = np.array([[x[0, 0], x[0, 1], x[-1, 0]] for x in X])
    model = rnncore.GRU(48, max_epochs=60, random_state=0).fit(X[:400], y[:400])
    assert model.predict(X[400:]).shape == (200, 3)
    assert model.score(X[400:], y[400:]) > 0.9


@pytest.mark.parametrize("bidirectional", [False, True])
def test_learns_to_tag_every_step(bidirectional, rng):
    """A step's tag is the side of its neighbour: that before it, or after it."""
    X = ragged(rng, 400, features=1)
    ahead = -1 if bidirectional else 1
    y = [np.where(np.roll(x[:, 0], ahead) > 0, "N", "V") for x in X]
    for tags in y:
        tags[-1 if bidirectional else 0] = "."
    model = rnncore.LSTM(24, max_epochs=30, bidirectional=bidirectional, random_state=0)
    model.fit(X[:300], y[:300])
    assert model.output_ == "sequence"
    assert model.score(X[300:], y[300:]) > 0.95
    assert model.classes_.tolist() == [".", "N", "V"]


def test_learns_numbers_at_every_step(rng):
    X, lengths = pad(ragged(rng, 400, features=1), fill=np.nan)
    y = np.nancumsum(X[:, :, 0], axis=1) / 3
    y[np.isnan(X[:, :, 0])] = np.nan
    model = rnncore.GRU(32, max_epochs=60, random_state=0, output="sequence")
    model.fit(X[:300], y[:300], lengths=lengths[:300])
    assert model.score(X[300:], y[300:], lengths=lengths[300:]) > 0.95


@pytest.mark.parametrize("options", [{"embedding_dim": 8}, {"embedding": "one-hot"}], ids=str)
def test_learns_from_ids(options, rng):
    X = [rng.integers(0, 20, length).tolist() for length in rng.integers(3, 10, 600)]
    y = np.array([x[0] % 2 for x in X])  # of the first id
    model = rnncore.GRU(32, max_epochs=40, random_state=0, **options).fit(X[:400], y[:400])
    assert model.vocabulary_size_ == 20
    assert model.score(X[400:], y[400:]) > 0.95


@pytest.mark.parametrize("estimator", [rnncore.LSTM, rnncore.GRU])
def test_recognises_speakers_with_nothing_set(estimator, shared_data):
    sets = {}
    for split in ("TRAIN", "TEST"):
        text = (shared_data / "JapaneseVowels" / f"JapaneseVowels_{split}.ts").read_text()
        rows = text.split("@data")[1].split()
        series = [row.split(":") for row in rows]
        X = [np.array([c.split(",") for c in row[:-1]], np.float32).T for row in series]
        sets[split] = X, [row[-1] for row in series]
    model = estimator(hidden_size=64).fit(*sets["TRAIN"])
    assert model.score(*sets["TEST"]) >= 0.93
