"""What the estimators make of targets, weights and kinds of input, end to end."""

import numpy as np
import pytest
from sklearn.base import clone

import rnncore
from rnncore.text import Vocabulary

from .memory import grown
from .models import assert_close, assert_same_bits, weights_of
from .sequences import pad, ragged

POOLED = ["last", "mean", "max"]


# Tasks and outputs.


@pytest.mark.parametrize("output", POOLED)
@pytest.mark.parametrize("y", ["labels", "numbers", "several", "columns"])
def test_a_target_for_each_sequence(output, y, rng):
    X = ragged(rng, 20, shortest=0)
    first = np.array([x[0, 0] if len(x) else 0 for x in X])
    targets = {
        "labels": np.where(first > 0, "up", "down"),
        "numbers": first,
        "several": np.stack([first, -first, first], axis=1),
        "columns": np.stack([first > 0, first > 0.5, first > 1], axis=1).astype(int),
    }[y]
    model = rnncore.GRU(4, output=output, max_epochs=2, random_state=0).fit(X, targets)
    assert model.output_ == output
    predictions = model.predict(X)
    assert predictions.shape == targets.shape
    assert predictions.dtype.kind == ("f" if y in ("numbers", "several") else targets.dtype.kind)
    padded, lengths = pad(X, fill=np.nan)
    np.testing.assert_array_equal(model.predict(padded, lengths=lengths), predictions)
    features = model.transform(X)
    assert features.shape == (20, 4)
    empty = [i for i, x in enumerate(X) if len(x) == 0]
    assert empty
    assert not features[empty].any()


@pytest.mark.parametrize("form", ["list", "array"])
def test_several_labels_at_every_step(form, rng):
    X = ragged(rng, 30, features=3)
    y = [(x > 0).astype(int) for x in X]
    if form == "array":
        (X, lengths), (y, _) = pad(X), pad(y)
        options = {"lengths": lengths}
    else:
        options = {}
    model = rnncore.LSTM(16, max_epochs=80, random_state=0).fit(X, y, **options)
    assert (model.loss_, model.output_, model.n_outputs_) == ("binary_cross_entropy", "sequence", 3)
    assert model.classes_.tolist() == [0, 1, 2]
    predictions = model.predict(X, **options)
    assert type(predictions) is type(y)
    for found, wanted in zip(predictions, y, strict=True):
        assert found.shape == wanted.shape
        assert set(np.unique(found)) <= {0, 1}
    assert model.score(X, y, **options) > 0.9
    proba = model.predict_proba(X, **options)
    for found, p in zip(predictions, proba, strict=True):
        np.testing.assert_array_equal(found, p > 0.5)


def test_two_classes_with_one_output(rng):
    X = ragged(rng, 60)
    y = np.where([x[0, 0] > 0 for x in X], "up", "down")
    model = rnncore.LSTM(16, loss="binary_cross_entropy", max_epochs=60, random_state=0).fit(X, y)
    assert model.n_outputs_ == 1
    proba = model.predict_proba(X)
    assert proba.shape == (60, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    assert model.score(X, y) > 0.9
    weights = weights_of(model)
    weights["head.weight"] *= 1e6
    model._network.set_parameters(weights)
    assert np.isfinite(model.predict_proba(X)).all()


def test_score_is_of_all_labels_together(rng):
    X = rng.standard_normal((8, 3, 2))
    y = np.array([[0, 1], [1, 1]] * 4)
    model = rnncore.GRU(3, max_epochs=1, random_state=0).fit(X, y)
    right = (model.predict(X) == y).all(axis=1)
    assert model.score(X, y) == right.mean()
    weights = np.arange(8.0)
    assert model.score(X, y, sample_weight=weights) == pytest.approx(
        (right * weights).sum() / weights.sum()
    )
    with pytest.raises(ValueError, match="y: expected 2 labels a target as in fit, got 3 labels"):
        model.score(X, np.eye(8, 3, dtype=int))


# Losses and weights: what the history says is what the definitions give.


def losses_by_hand(model, X, y):
    """Return the loss of every sequence, in float64, from probabilities or numbers."""
    if model.task_ == "classification":
        proba = model.predict_proba(X).astype(float)
        if model.loss_ == "cross_entropy" or y.ndim == 1:
            return -np.log(proba[np.arange(len(y)), np.searchsorted(model.classes_, y)])
        return -np.log(np.where(y == 1, proba, 1 - proba)).mean(axis=1)
    error = np.abs(model.predict(X).astype(float) - y)
    delta = model.huber_delta
    of = {
        "squared_error": error**2,
        "absolute_error": error,
        "huber": np.where(error < delta, error**2 / 2, delta * (error - delta / 2)),
    }[model.loss_]
    return of if of.ndim == 1 else of.mean(axis=1)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("auto", "labels"),
        ("binary_cross_entropy", "two"),
        ("auto", "columns"),
        ("auto", "numbers"),
        ("absolute_error", "numbers"),
        ("huber", "numbers"),
        ("huber", "several"),
    ],
)
@pytest.mark.parametrize("weighed", [False, True])
def test_losses_are_what_they_are_called(loss, kind, weighed, rng):
    X = ragged(rng, 30)
    first = np.array([x[0, 0] for x in X])
    y = {
        "labels": np.digitize(first, [-0.5, 0.5]),
        "two": (first > 0).astype(int),
        "columns": np.stack([first > 0, first > 0.5, first < 0.2], axis=1).astype(int),
        "numbers": first,
        "several": np.stack([first, 2 * first], axis=1),
    }[kind]
    weight = rng.uniform(0, 2, 30) if weighed else None
    model = rnncore.LSTM(5, loss=loss, huber_delta=0.3, max_epochs=2, dtype="float64")
    model.set_params(random_state=0).fit(X, y, eval_set=(X, y, None, weight))
    expected = np.average(losses_by_hand(model, X, y), weights=weight)
    assert model.history_["val_loss"][-1] == pytest.approx(expected, rel=1e-9)
    score = model.history_["val_r2" if model.task_ == "regression" else "val_accuracy"][-1]
    assert score == pytest.approx(model.score(X, y, sample_weight=weight), rel=1e-9)


def test_class_weight_is_a_sample_weight(rng):
    X = ragged(rng, 50)
    y = np.array(["a"] * 10 + ["b"] * 15 + ["c"] * 25)
    model = rnncore.GRU(5, max_epochs=3, random_state=0)
    balanced = clone(model).set_params(class_weight="balanced").fit(X, y, eval_set=(X, y))
    counts = {"a": 10, "b": 15, "c": 25}
    weight = np.array([50 / 3 / counts[label] for label in y])
    given_weights = clone(model).fit(X, y, sample_weight=weight, eval_set=(X, y, None, weight))
    assert_same_bits(balanced, given_weights)
    for name in ("loss", "val_loss", "accuracy"):
        assert balanced.history_[name] == given_weights.history_[name]
    as_dict = {label: 50 / 3 / count for label, count in counts.items()}
    assert_same_bits(clone(model).set_params(class_weight=as_dict).fit(X, y), balanced)
    half = clone(model).set_params(class_weight={"a": 0.5}).fit(X, y, sample_weight=2 * weight)
    expected = np.where(y == "a", weight, 2 * weight)
    assert_same_bits(half, clone(model).fit(X, y, sample_weight=expected))


@pytest.mark.parametrize("class_weight", [{"b": 3.0}, "balanced"])
def test_class_weight_is_that_of_every_step(class_weight, rng):
    X = ragged(rng, 20)
    y = [np.where(x[:, 0] > 0.5, "b", "a") for x in X]
    model = rnncore.GRU(5, max_epochs=3, random_state=0)
    counts = dict(zip(*np.unique(np.concatenate(y), return_counts=True), strict=True))
    if class_weight == "balanced":
        of = {label: sum(counts.values()) / 2 / count for label, count in counts.items()}
    else:
        of = {"a": 1.0, **class_weight}
    weights = [np.array([of[label] for label in labels]) for labels in y]
    weighed = clone(model).set_params(class_weight=class_weight).fit(X, y)
    given_weights = clone(model).fit(X, y, sample_weight=weights)
    assert_same_bits(weighed, given_weights)
    assert weighed.history_["accuracy"] == given_weights.history_["accuracy"]
    assert weighed.history_["loss"] != clone(model).fit(X, y).history_["loss"]


@pytest.mark.parametrize("per_step", [False, True])
def test_what_weighs_nothing_is_as_if_it_were_not_there(per_step, rng):
    X = ragged(rng, 12)
    y = [x[:, 0] for x in X] if per_step else np.array([x[0, 0] for x in X])
    weight = np.array([1.0, 2, 0, 1] * 3)
    model = rnncore.LSTM(4, max_epochs=3, batch_size=12, dtype="float64", random_state=0)
    kept = np.flatnonzero(weight)
    part = clone(model).fit(
        [X[i] for i in kept],
        [y[i] for i in kept] if per_step else y[kept],
        sample_weight=weight[kept],
    )
    missing = [np.full_like(t, np.nan) if w == 0 else t for t, w in zip(y, weight, strict=True)]
    assert_close(clone(model).fit(X, missing, sample_weight=weight), part)
    assert part.score(X, missing, sample_weight=weight) == pytest.approx(
        part.score([X[i] for i in kept], [y[i] for i in kept], sample_weight=weight[kept])
    )


def test_steps_may_weigh_nothing(rng):
    X = ragged(rng, 12)
    y = [x[:, 0] for x in X]
    masks = [(rng.uniform(size=len(x)) < 0.5).astype(float) for x in X]
    holes = [np.where(m > 0, t, np.nan) for t, m in zip(y, masks, strict=True)]
    model = rnncore.LSTM(4, max_epochs=3, random_state=0)
    with_holes = clone(model).fit(X, holes, sample_weight=masks)
    junk = [np.where(m > 0, t, 99) for t, m in zip(y, masks, strict=True)]
    assert_same_bits(with_holes, clone(model).fit(X, junk, sample_weight=masks))
    (padded, lengths), (targets, _), (weights, _) = pad(X), pad(holes, np.nan), pad(masks)
    again = clone(model).set_params(output="sequence")
    again.fit(padded, targets, lengths=lengths, sample_weight=weights)
    assert_same_bits(with_holes, again)


# Input.


def test_left_padding_does_not_change_a_bit(rng):
    X = ragged(rng, 40, shortest=0)
    y = [x[:, 0] for x in X]
    model = rnncore.LSTM(5, max_epochs=2, output="sequence", random_state=0)
    reference = clone(model).fit(X, y)
    longest = max(map(len, X))
    left = np.stack([np.pad(x, ((longest - len(x), 0), (0, 0)), constant_values=np.nan) for x in X])
    targets = np.stack([np.pad(t, (longest - len(t), 0)) for t in y])
    model.set_params(padding_side="left")
    for options in ({"lengths": [len(x) for x in X]}, {}):
        model.set_params(padding_value=None if options else np.nan).fit(left, targets, **options)
        assert_same_bits(model, reference)
        for row, x, found in zip(
            model.predict(left, **options), X, reference.predict(X), strict=True
        ):
            np.testing.assert_array_equal(row[longest - len(x) :], found)
            assert not row[: longest - len(x)].any()


@pytest.mark.parametrize("estimator", [rnncore.RNN, rnncore.LSTM, rnncore.GRU])
def test_padding_has_no_gradient(estimator):
    """Four sentences of four or five words: the vector of what pads them never moves."""
    X = np.array([[1, 2, 3, 4, 0], [1, 5, 3, 4, 0], [1, 6, 5, 3, 4], [1, 6, 2, 3, 4]])

    def vectors(learning_rate):
        model = estimator(3, embedding_dim=2, padding_value=0, max_epochs=3, random_state=0)
        model.set_params(optimizer="sgd", learning_rate=learning_rate)
        return model.fit(X, [1, 0, 1, 0])._network.parameters()["embedding.weight"]

    moved = vectors(1.0) != vectors(1e-30)
    assert moved.all(axis=1).tolist() == [False, *[True] * 6]
    assert not moved[0].any()


def test_vectors_of_ids_may_be_given(rng):
    table = rng.standard_normal((6, 3)).astype(np.float32)
    X = [rng.integers(0, 6, n) for n in rng.integers(1, 9, 40)]
    y = [int(x[0] > 2) for x in X]
    options = {"max_epochs": 2, "random_state": 0}
    tuned = rnncore.GRU(4, embedding=table, **options).fit(X, y)
    assert tuned.vocabulary_size_ == 6
    moved = np.abs(weights_of(tuned)["embedding.weight"] - table)
    assert 0 < moved.max() < 0.5
    frozen = rnncore.GRU(4, embedding=table, freeze_embedding=True, **options).fit(X, y)
    np.testing.assert_array_equal(weights_of(frozen)["embedding.weight"], table)
    vectors = rnncore.GRU(4, **options).fit([table[x] for x in X], y)
    for name, value in weights_of(vectors).items():
        assert value.shape == weights_of(frozen)[name].shape
    with pytest.raises(ValueError, match=r"X: expected ids in 0\.\.5, got 6 in sequence 1, step 0"):
        rnncore.GRU(4, embedding=table).fit([[0], [6]], [0, 1])


def test_several_ids_a_step_are_summed(rng):
    table = rng.standard_normal((7, 3))
    X = [rng.integers(0, 7, (n, 2)) for n in rng.integers(1, 6, 10)]
    y = rng.standard_normal(10)
    options = {"max_epochs": 1, "random_state": 0, "dtype": "float64"}
    model = rnncore.LSTM(4, embedding=table, masked_id=0, **options).fit(X, y)
    learned = weights_of(model)["embedding.weight"]
    assert not learned[0].any()
    sums = [learned[x].sum(axis=1) for x in X]
    vectors = rnncore.LSTM(4, **options).fit(sums, y)
    weights = weights_of(model)
    del weights["embedding.weight"]
    vectors._network.set_parameters(weights)
    np.testing.assert_allclose(model.predict(X), vectors.predict(sums), rtol=1e-12)
    padded, lengths = pad(X)
    np.testing.assert_array_equal(model.predict(padded, lengths=lengths), model.predict(X))
    with pytest.raises(
        ValueError, match=r"X: expected ids of shape \(n, T, 2\), got shape \(10, 4\)"
    ):
        model.predict(padded[:, :, 0])


TEXTS = ["a good film", "good and fine", "a bad film", "bad and dull", "so good", "too bad"]
OPINIONS = ["+", "+", "-", "-", "+", "-"]


@pytest.mark.parametrize("form", [list, np.array, tuple])
def test_texts_are_classified(form):
    model = rnncore.LSTM(8, max_epochs=60, random_state=0).fit(form(TEXTS), OPINIONS)
    assert model.predict(form(TEXTS)).tolist() == OPINIONS
    assert model.predict(["good unheard words", "bad"]).tolist() == ["+", "-"]
    assert model.vocabulary_.vocabulary_["good"] < model.vocabulary_size_
    assert model._config["input_size"] == 8
    ids = model.vocabulary_.transform(TEXTS)
    np.testing.assert_array_equal(model.predict(ids), model.predict(TEXTS))


def test_words_are_tagged_with_their_affixes():
    words = [["the", "dog", "barks"], ["dogs", "bark"], ["the", "cats", "purr"]]
    tags = [["D", "N", "V"], ["N", "V"], ["D", "N", "V"]]
    model = rnncore.GRU(
        8,
        bidirectional=True,
        vocabulary=Vocabulary(affixes=2),
        embedding_dim=6,
        max_epochs=60,
        random_state=0,
    )
    model.fit(words, tags)
    assert [line.tolist() for line in model.predict(words)] == tags
    assert model._config["masked_id"] == 0
    assert not hasattr(model.vocabulary, "vocabulary_size_")


def test_a_fitted_vocabulary_is_used_as_it_is():
    vocabulary = Vocabulary("char").fit(["abcdefghij "])
    model = rnncore.RNN(3, vocabulary=vocabulary, max_epochs=1).fit(["ab", "ba"], [0, 1])
    assert model.vocabulary_.vocabulary_ == vocabulary.vocabulary_
    assert model.vocabulary_size_ == 13
    table = np.ones((13, 2))
    model.set_params(embedding=table).fit(["ab", "ba"], [0, 1])
    assert weights_of(model)["embedding.weight"].shape == (13, 2)
    with pytest.raises(ValueError, match=r"embedding: expected 13 ids or more, .* got 5"):
        model.set_params(embedding=table[:5]).fit(["ab", "ba"], [0, 1])
    before = model.predict_proba(["abcj"])
    vocabulary.fit(["other words, for another model"])
    np.testing.assert_array_equal(model.predict_proba(["abcj"]), before)


BEFORE = """
import numpy as np
import rnncore
X = np.random.default_rng(0).integers(0, 10**5, (64, 50))
"""
ONE_HOT = """
model = rnncore.RNN(2, embedding="one-hot", vocabulary_size=10**5, max_epochs=2, random_state=0)
model.fit(X, X[:, 0] > 5 * 10**4).predict(X)
"""


def test_one_hot_vectors_are_never_built():
    assert grown(BEFORE, ONE_HOT) < 200  # MB: they would be 1280, the weights are 0.8


# Language models.


def test_a_language_model_predicts_what_follows():
    model = rnncore.GRU(24, task="language_model", max_epochs=60, batch_size=4, random_state=0)
    model.fit("abcd" * 200)
    assert model.loss_ == "cross_entropy"
    assert not hasattr(model, "classes_")
    follow = model.vocabulary_.inverse_transform(model.predict("abcdab"))
    assert follow == "bcdabc"
    assert model.score("abcdabcd") > -0.1
    listed = model.predict(["abc", "", "d"])
    assert [len(ids) for ids in listed] == [3, 0, 1]
    proba = model.predict_proba("abc")
    assert proba.shape == (3, model.vocabulary_size_)
    ids = model.vocabulary_.transform("abcdab")
    by_hand = np.log(model.predict_proba("abcdab")[np.arange(5), ids[1:]]).mean()
    assert model.score("abcdab") == pytest.approx(by_hand, rel=1e-4)
    weight = np.array([9.0, 0, 1, 2, 0, 3])
    logs = np.log(model.predict_proba("abcdab")[np.arange(5), ids[1:]])
    assert model.score("abcdab", sample_weight=weight) == pytest.approx(
        np.average(logs, weights=weight[1:]), rel=1e-4
    )


@pytest.mark.parametrize("form", ["list", "array", "padding"])
def test_sequences_of_a_language_model_are_apart(form, rng):
    X = [rng.integers(1, 7, n) for n in rng.integers(0, 9, 20)]
    model = rnncore.LSTM(5, task="language_model", max_epochs=2, random_state=0)
    reference = clone(model).fit(X, eval_set=(X,))
    assert reference.history_["val_loss"][-1] == pytest.approx(-reference.score(X), rel=1e-6)
    padded, lengths = pad(X)
    if form == "array":
        assert_same_bits(clone(model).fit(padded, lengths=lengths), reference)
    if form == "padding":
        assert_same_bits(clone(model).set_params(padding_value=0).fit(padded), reference)
    both = rnncore.LSTM(5, embedding_dim=5, max_epochs=2, random_state=0).fit(
        [x[:-1] for x in X if len(x) > 1], [x[1:] for x in X if len(x) > 1]
    )
    assert both.n_outputs_ == 6  # the classes met; a language model has one for each id
    assert reference.n_outputs_ == 7


@pytest.mark.parametrize("form", ["list", "array", "stream"])
def test_the_most_probable_id_is_predicted(form, rng):
    X = {
        "list": [rng.integers(0, 7, n) for n in (4, 0, 0, 9, 1, 3, 0)],
        "array": rng.integers(0, 7, (5, 4)),
        "stream": rng.integers(0, 7, 30),
    }[form]
    model = rnncore.LSTM(5, task="language_model", vocabulary_size=7, max_epochs=1, random_state=0)
    model.fit(X)
    for found, probabilities in zip(model.predict(X), model.predict_proba(X), strict=True):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, probabilities.argmax(axis=-1))


@pytest.mark.parametrize(
    ("loss", "y", "bias", "expected"),
    [
        ("cross_entropy", list("dbca"), [0, 1, 0, 1], "b"),
        ("binary_cross_entropy", list("abab"), [0], "a"),
        ("binary_cross_entropy", [[0, 1], [1, 0], [1, 1], [0, 0]], [0, 1e-6], [0, 1]),
    ],
)
def test_the_first_of_equally_probable_classes_is_predicted(loss, y, bias, expected):
    model = rnncore.RNN(3, loss=loss, max_epochs=1).fit(np.zeros((4, 3, 1)), y)
    weights = weights_of(model)
    weights["head.weight"][:] = 0
    weights["head.bias"][:] = bias
    model._network.set_parameters(weights)
    assert model.predict(np.zeros((2, 2, 1))).tolist() == [expected] * 2
    assert model.stream().step([[0.0]]).tolist() == [expected]


def test_truncation_says_that_targets_are_the_steps():
    X, y = np.zeros((4, 3, 1)), np.zeros((4, 3))
    assert rnncore.RNN(2, bptt_steps=2, max_epochs=1).fit(X, y).output_ == "sequence"


@pytest.mark.parametrize(("fraction", "trained"), [(0.01, 4), (0.4, 3), (0.99, 1)])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_some_are_kept_back_and_some_are_not(fraction, trained, task):
    model = rnncore.RNN(2, task=task, early_stopping=True, validation_fraction=fraction)
    model.set_params(max_epochs=1).fit(np.zeros((5, 3, 1)), [0, 1, 0, 1, 1])
    assert model.history_["steps"] == [3 * trained]


def test_one_long_stream_is_predicted_without_its_outputs():
    before = """
import numpy as np
import rnncore
model = rnncore.GRU(4, task="language_model", vocabulary_size=5000, max_epochs=1)
stream = np.arange(20_000) % 5000
model.fit(stream[:200]).predict(stream[:200])
"""
    assert grown(before, "model.predict(stream)") < 60  # of 400 MB


def test_output_weights_may_be_the_vectors_of_ids():
    model = rnncore.LSTM((6, 4), task="language_model", tie_embedding=True, max_epochs=2)
    weights = weights_of(model.fit([[1, 2, 3], [3, 1]]))
    assert weights["embedding.weight"].shape == (4, 4)
    assert "head.weight" not in weights


def test_a_stream_is_cut_and_its_tail_kept_back(monkeypatch):
    cuts = []
    examples = rnncore._core.Examples

    def spy(values, starts, lengths, *rest):
        cuts.append((starts, lengths))
        return examples(values, starts, lengths, *rest)

    monkeypatch.setattr(rnncore._core, "Examples", spy)
    ids = np.arange(1001) % 7
    model = rnncore.RNN(3, task="language_model", batch_size=4, bptt_steps=10, max_epochs=1)
    model.set_params(early_stopping=True, validation_fraction=0.2).fit(ids)
    (starts, lengths), (held_starts, held) = cuts
    assert lengths.tolist() == [200] * 4
    assert held.tolist() == [50] * 4
    assert [*starts, *held_starts] == [0, 200, 400, 600, 800, 850, 900, 950]
    assert model.history_["steps"] == [800]
    cuts.clear()
    model.set_params(early_stopping=False).fit(ids, eval_set=([[1, 2, 3], [4, 5]],))
    assert [part.tolist() for _, part in cuts] == [[250] * 4, [2, 1]]
