"""One task of each kind, learned to a score that broken gradients miss.

Each task needs gradients through time: targets depend on steps long before the last one. With
random recurrent weights and the best head for them accuracy stays below 0.65, R² below 0.5.
"""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import rnncore
from rnncore.preprocessing import StepTransformer

from .sequences import pad, ragged

ESTIMATORS = [rnncore.RNN, rnncore.LSTM, rnncore.GRU]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop", "adagrad"])
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


@pytest.mark.parametrize("output", ["mean", "max"])
def test_learns_what_stands_anywhere(output, rng):
    """The label is whether an 11 is among the ids: a pooled output sees it at once."""
    X = [rng.integers(0, 40, length) for length in rng.integers(20, 50, 600)]
    y = np.array([11 in x for x in X])
    model = rnncore.LSTM(16, embedding_dim=8, output=output, max_epochs=30, random_state=0)
    assert model.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.95


def test_learns_several_labels_of_a_sequence(rng):
    X = ragged(rng, 600)
    y = np.array([[x[0, 0] > 0, x[0, 1] > 0.5, x[-1, 0] > 0] for x in X])
    model = rnncore.GRU(48, max_epochs=60, random_state=0).fit(X[:400], y[:400])
    assert model.loss_ == "binary_cross_entropy"
    assert model.score(X[400:], y[400:]) > 0.8
    assert (model.predict(X[400:]) == y[400:]).mean() > 0.92


def test_learns_rare_classes_that_weigh_more(rng):
    X = ragged(rng, 900, features=1)
    y = np.array([int(x[0, 0] > 1.6) for x in X])  # one in twenty
    rare = y[600:] == 1
    found = {}
    for class_weight in (None, "balanced"):
        model = rnncore.GRU(16, class_weight=class_weight, max_epochs=8, random_state=0)
        model.fit(X[:600], y[:600])
        found[class_weight] = model.predict(X[600:])[rare].mean()
    assert found["balanced"] > 0.9
    assert found["balanced"] > found[None]


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_learns_numbers_among_wild_ones(loss, rng):
    X = ragged(rng, 600)
    y = np.array([np.tanh(x[:3, 0].sum()) for x in X])
    noisy = y.copy()
    noisy[rng.choice(400, 40, replace=False)] = 30
    options = {"max_epochs": 20, "random_state": 0}
    robust = rnncore.GRU(32, loss=loss, **options).fit(X[:400], noisy[:400])
    assert robust.score(X[400:], y[400:]) > 0.6
    squared = rnncore.GRU(32, **options).fit(X[:400], noisy[:400])
    assert squared.score(X[400:], y[400:]) < 0


@pytest.mark.parametrize("bptt_steps", [None, 8, (1, 6)])
def test_learns_what_comes_next(bptt_steps, rng):
    """After "a" comes what stood before it: the state has to carry it."""
    text = "".join(f"{c}a{c}" for c in rng.choice(list("bcdef"), 1500))
    model = rnncore.GRU(
        24, task="language_model", bptt_steps=bptt_steps, max_epochs=30, random_state=0
    )
    batches = {"batch_size": 8} if isinstance(bptt_steps, int | None) else {}
    pieces = [text[at : at + 60] for at in range(0, len(text), 60)]
    model.set_params(**batches).fit(text if batches else pieces)
    entropy = np.log(5) / 3  # of one letter in three
    assert -model.score(text) < 1.1 * entropy + 0.05


@pytest.fixture(scope="module")
def speakers(shared_data):
    """Return training and test data, (X, y) each, of nine speakers' vowels."""
    sets = []
    for split in ("TRAIN", "TEST"):
        text = (shared_data / "JapaneseVowels" / f"JapaneseVowels_{split}.ts").read_text()
        rows = text.split("@data")[1].split()
        series = [row.split(":") for row in rows]
        X = [np.array([c.split(",") for c in row[:-1]], np.float32).T for row in series]
        sets.append((X, [row[-1] for row in series]))
    return sets


@pytest.mark.parametrize("estimator", [rnncore.LSTM, rnncore.GRU])
def test_recognises_speakers_with_nothing_set(estimator, speakers):
    train, test = speakers
    assert estimator(hidden_size=64).fit(*train).score(*test) >= 0.93


def test_recognises_speakers_better_both_ways_with_dropout(speakers):
    train, test = speakers
    model = rnncore.LSTM(64, bidirectional=True, input_dropout=0.2, output_dropout=0.5)
    model.set_params(locked_dropout=True, random_state=0)
    pipeline = make_pipeline(StepTransformer(StandardScaler()), model).fit(*train)
    assert pipeline.score(*test) >= 0.97
