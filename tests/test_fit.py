"""Training in parts, parameters that shape it, and models as features and in searches."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, check_cv, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

import rnncore
from rnncore import optim

from .models import assert_same_bits, weights_of
from .sequences import ragged
from .test_tasks import OPINIONS, TEXTS

# Training in parts.


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad"])
def test_partial_fit_is_fit_in_parts(optimizer, rng):
    X = ragged(rng, 40)
    y = [int(x[0, 0] > 0) for x in X]
    options = {"optimizer": optimizer, "random_state": 3, "num_layers": 2, "dropout": 0.2}
    whole = rnncore.LSTM(5, max_epochs=4, **options).fit(X, y)
    parts = rnncore.LSTM(5, **options)
    for count in range(4):
        assert parts.partial_fit(X, y, classes=[0, 1]) is parts
        assert parts.n_epochs_ == count + 1
        parts = pickle.loads(pickle.dumps(parts))
    assert_same_bits(parts, whole)
    assert parts.history_["loss"] == whole.history_["loss"]
    again = rnncore.LSTM(5, max_epochs=2, warm_start=True, **options).fit(X, y).fit(X, y)
    assert_same_bits(again, whole)
    assert again.n_epochs_ == 4


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_training_a_copy_leaves_the_model_alone(duplicate, rng):
    X = rng.standard_normal((10, 4, 2))
    model = rnncore.LSTM(5, random_state=0).partial_fit(X, [0, 1] * 5)
    before = model.predict_proba(X)
    twin = duplicate(model).partial_fit(X, [0, 1] * 5)
    assert (twin.n_epochs_, len(twin.history_["loss"])) == (2, 2)
    assert (model.n_epochs_, len(model.history_["loss"])) == (1, 1)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert_same_bits(model.partial_fit(X, [0, 1] * 5), twin)


def test_partial_fit_keeps_no_checkpoints(rng, tmp_path):
    X = rng.standard_normal((10, 4, 2))
    rnncore.LSTM(5, checkpoint_dir=tmp_path / "kept").partial_fit(X, [0, 1] * 5)
    assert not (tmp_path / "kept").exists()


def test_partial_fit_knows_classes_that_come_later(rng):
    X = ragged(rng, 9)
    model = rnncore.GRU(4, random_state=0).partial_fit(X[:3], list("aab"), classes=list("cab"))
    assert model.classes_.tolist() == ["a", "b", "c"]
    model.partial_fit(X[3:6], list("ccc")).partial_fit(X[6:], list("abc"), classes=list("abc"))
    assert model.n_epochs_ == 3
    with pytest.raises(ValueError, match=r"classes: expected None or those of the first partial_f"):
        model.partial_fit(X[:3], list("aab"), classes=list("ab"))
    with pytest.raises(ValueError, match=r"y: expected labels seen in fit \(a, b, c\), got d too"):
        model.partial_fit(X[:1], ["d"])
    with pytest.raises(ValueError, match=r"classes: expected shape \(n_classes,\), got \(1, 2\)"):
        rnncore.GRU(4).partial_fit(X, list("ab") * 4 + ["a"], classes=[["a", "b"]])
    with pytest.raises(ValueError, match="classes: expected None for regression"):
        rnncore.GRU(4).partial_fit(X, np.arange(9.0), classes=[0, 1])
    with pytest.raises(ValueError, match="X: expected 2 features, got 3"):
        model.partial_fit(np.zeros((2, 3, 3)), list("ab"))
    assert model.n_epochs_ == 3


@pytest.mark.parametrize("classes", [[None, "a"], ["a", 1], [{}, {1: 2}], [1j, 2j]])
def test_classes_that_are_no_labels_are_named(classes, rng):
    X, y = rng.standard_normal((4, 3, 2)), list("abab")
    fitted = rnncore.GRU(2, random_state=0).partial_fit(X, y)
    for model in (rnncore.GRU(2), fitted):
        with pytest.raises(TypeError, match=r"classes.*: expected numbers or strings"):
            model.partial_fit(X, y, classes=classes)
    with pytest.raises(ValueError, match=r"classes: expected labels .*, got the continuous number"):
        rnncore.GRU(2).partial_fit(X, [0, 1, 0, 1], classes=[0, 1, 2.5])
    with pytest.raises(ValueError, match="classes: expected finite targets, got NaN"):
        rnncore.GRU(2).partial_fit(X, [0, 1, 0, 1], classes=[0, 1, np.nan])


def test_classes_are_for_one_label_a_target(rng):
    X = rng.standard_normal((4, 3, 2))
    with pytest.raises(ValueError, match="classes: expected None for several labels at once"):
        rnncore.GRU(2).partial_fit(X, [[0, 1], [1, 1]] * 2, classes=[0, 1])
    with pytest.raises(ValueError, match="classes: expected None for a language model"):
        rnncore.GRU(2, task="language_model").partial_fit([[0, 1]], classes=[0, 1])


# A class of one's own, with parameters that are not the estimators'.


@dataclass(kw_only=True, eq=False, repr=False)
class Named(rnncore.LSTM):
    label: str = ""


class Short(rnncore.LSTM):
    def __init__(self, folder=None, *, label="", rate=0.01):
        super().__init__(3, learning_rate=rate, checkpoint_dir=folder, max_epochs=1, random_state=0)
        self.folder, self.label, self.rate = folder, label, rate


def test_parameters_of_a_derived_class_are_its_own(rng):
    X, y = rng.standard_normal((6, 4, 2)), [0, 1] * 3
    options = {"max_epochs": 2, "random_state": 0}
    plain, named = rnncore.LSTM(3, **options), Named(3, **options, label="mine")
    assert_same_bits(named.fit(X, y).partial_fit(X, y), plain.fit(X, y).partial_fit(X, y))
    assert clone(named).label == named.get_params()["label"] == "mine"


def test_a_derived_class_goes_on_if_the_estimators_parameters_are_the_same(rng, tmp_path):
    X, y = rng.standard_normal((6, 4, 2)), [0, 1] * 3
    model = Short(tmp_path, label="first").fit(X, y)
    assert_same_bits(Short(tmp_path, label="second").fit(X, y, resume=True), model)
    with pytest.raises(ValueError, match=r"with learning_rate 0\.01 there and 0\.02 here"):
        Short(tmp_path, rate=0.02).fit(X, y, resume=True)


def test_a_warm_start_keeps_the_weights_and_takes_new_rates(rng):
    X = ragged(rng, 30)
    y = np.array([x[0, 0] for x in X])
    model = rnncore.LSTM(4, max_epochs=3, random_state=0).fit(X, y)
    before = weights_of(model)
    model.set_params(warm_start=True, learning_rate=1e-30, max_epochs=1, dropout=0.0).fit(X, y)
    for name, value in weights_of(model).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-6)
    model.set_params(warm_start=False).fit(X, y)
    assert model.n_epochs_ == 1


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("hidden_size", 5, r"hidden_size and num_layers: expected \[4\], .* got \[5\]"),
        ("num_layers", 2, r"hidden_size and num_layers: expected \[4\], .* got \[4, 4\]"),
        ("dtype", "float64", "dtype: expected float32, as the network .* got float64"),
        ("bidirectional", True, "bidirectional: expected False, as the network .* got True"),
        ("task", "classification", "task: expected 'regression', as .* got 'classification'"),
        ("output", "mean", "output: expected 'last', as the network .* got 'mean'"),
        ("loss", "huber", "loss: expected 'squared_error', as the network .* got 'huber'"),
        ("padding_value", np.nan, "padding_value: expected None, as the network .* got nan"),
        ("padding_side", "left", "padding_side: expected 'right', as the network .* got 'left'"),
        ("embedding_dim", 3, "embedding_dim: expected None for X of feature vectors, got int 3"),
        ("embedding", "one-hot", "embedding: expected None for X of feature .* got str 'one-hot'"),
        ("freeze_embedding", True, "freeze_embedding: expected False without .* got True"),
    ],
)
def test_what_goes_on_keeps_what_it_began_with(name, value, match, rng):
    X = ragged(rng, 9)
    y = np.array([x[0, 0] for x in X])
    model = rnncore.LSTM(4, max_epochs=1, random_state=0).fit(X, y)
    before = weights_of(model)
    model.set_params(warm_start=True, **{name: value})
    for train in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=match):
            train(X, y)
    for found, weights in weights_of(model).items():
        np.testing.assert_array_equal(weights, before[found])
    assert model.n_epochs_ == 1


@pytest.mark.parametrize(("first", "then"), [("one-hot", None), (None, "one-hot")])
def test_ids_go_on_as_they_began(first, then):
    X, y = [[0, 1], [2], [1, 1]], [0, 1, 1]
    model = rnncore.GRU(3, embedding=first, embedding_dim=None if first else 2, max_epochs=1)
    model.fit(X, y).set_params(warm_start=True, embedding=then, embedding_dim=2 if first else None)
    if then == "one-hot":
        expected = "None or an array, as the network that is trained on has, got str 'one-hot'"
    else:
        expected = "'one-hot', as the network that is trained on has, got None"
    with pytest.raises(ValueError, match=f"embedding: expected {expected}"):
        model.fit(X, y)


@pytest.mark.parametrize("train", ["fit", "partial_fit"])
@pytest.mark.parametrize("first", [True, False])
def test_vectors_of_ids_are_frozen_and_set_free(first, train, tmp_path):
    X, y = [[0, 1], [2], [1, 3]], [0, 1, 1]
    options = {"embedding_dim": 2, "max_epochs": 2, "warm_start": True, "random_state": 0}
    model = rnncore.GRU(3, freeze_embedding=first, **options).fit(X, y)
    for frozen in (not first, first):
        before = weights_of(model)["embedding.weight"]
        model.save(tmp_path / "model")
        anew = rnncore.load(tmp_path / "model")  # without what the optimizer keeps
        for each in (model, anew):
            getattr(each.set_params(freeze_embedding=frozen), train)(X, y)
        assert np.array_equal(weights_of(model)["embedding.weight"], before) is frozen
        assert_same_bits(model, anew)


@pytest.mark.parametrize(
    ("optimizer", "decay"),
    [("adamw", 0.01), ("adam", 0.0), ("sgd", 0.0), ("rmsprop", 0.0), ("adagrad", 0.0)],
)
def test_weight_decay_is_the_optimizers_own_unless_told(optimizer, decay, rng):
    X = rng.standard_normal((20, 5, 2))
    model = rnncore.GRU(4, optimizer=optimizer, max_epochs=3, random_state=0)
    own = model.fit(X, X[:, -1]).predict(X)
    told = model.set_params(weight_decay=decay).fit(X, X[:, -1]).predict(X)
    np.testing.assert_array_equal(own, told)
    other = model.set_params(weight_decay=0.02).fit(X, X[:, -1]).predict(X)
    assert not np.array_equal(own, other)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("sgd", {"momentum": 0.0}),
        (optim.SGD(0.1), {"optimizer": optim.SGD(0.1, momentum=0.9)}),
        (optim.RMSprop(), {"optimizer": optim.RMSprop(centered=True)}),
        # As many numbers, that mean something else.
        (optim.RMSprop(0.005, momentum=0.9), {"optimizer": optim.RMSprop(0.005, centered=True)}),
        ("adamw", {"optimizer": "adam"}),
    ],
)
def test_a_warm_start_may_change_what_the_optimizer_keeps(first, then, rng):
    X = ragged(rng, 30)
    y = np.array([x[0, 0] for x in X])
    model = rnncore.LSTM(4, optimizer=first, max_epochs=2, random_state=0).fit(X, y)
    loss = model.history_["loss"][0]
    model.set_params(warm_start=True, max_epochs=8, **then).fit(X, y)
    assert model.n_epochs_ == 10
    assert model.history_["loss"][-1] < loss


@pytest.mark.parametrize("then", ["plateau", "halve_on_rise", "cosine", None])
@pytest.mark.parametrize("first", ["plateau", "halve_on_rise", "cosine", None])
def test_the_schedule_may_change_between_partial_fits(first, then, rng):
    X = rng.standard_normal((12, 5, 2))
    model = rnncore.GRU(4, lr_schedule=first, max_epochs=9, random_state=0)
    for schedule in (first, first, then, then):
        model.set_params(lr_schedule=schedule).partial_fit(X, X[:, -1])
    assert model.n_epochs_ == len(model.history_["loss"]) == 4


def test_weights_beyond_the_dtype_train_as_others_do(rng):
    X, y = ragged(rng, 30), np.arange(30) % 3
    weights = np.array([1.0, 0.5, 0.25])[rng.integers(3, size=30)]
    model = rnncore.LSTM(4, max_epochs=2, random_state=0)
    expected = clone(model).fit(X, y, sample_weight=weights)
    for scale in (2.0**-1000, 2.0**-130, 2.0**1000):
        assert_same_bits(clone(model).fit(X, y, sample_weight=scale * weights), expected)


def test_early_stopping_keeps_sequences_back(rng):
    X = ragged(rng, 100)
    y = np.array(["a"] * 80 + ["b"] * 20)
    model = rnncore.GRU(4, max_epochs=50, early_stopping=True, n_iter_no_change=3, random_state=0)
    model.fit(X, y)
    assert model.n_epochs_ < 50
    assert 1 <= model.best_epoch_ <= model.n_epochs_
    assert min(model.history_["val_loss"]) == model.history_["val_loss"][model.best_epoch_ - 1]
    assert model.history_["steps"][0] < sum(map(len, X))
    assert_same_bits(model, clone(model).fit(X, y))
    given_set = clone(model).fit(X, y, eval_set=(X[:10], y[:10]))
    assert given_set.history_["steps"][0] == sum(map(len, X))
    with pytest.raises(ValueError, match="early_stopping: expected at least 2 sequences"):
        clone(model).fit(X[:1], [1.0])


def test_parts_without_a_target_are_refused(rng):
    model = rnncore.GRU(3, task="language_model", max_epochs=1, random_state=0)
    weightless = "expected a weight above 0 for an id that follows another, got zero everywhere"
    with pytest.raises(ValueError, match=f"sample_weight: {weightless}"):
        model.fit([[1, 2], [3, 4]], sample_weight=[[1, 0], [2, 0]])
    with pytest.raises(ValueError, match=rf"eval_set\[3\]: {weightless}"):
        model.fit([[1, 2], [3, 4]], eval_set=([[1, 2]], None, None, [[1, 0]]))
    with pytest.raises(ValueError, match=f"sample_weight: {weightless}"):
        model.fit([[1, 2], [3, 4]]).score([[1, 2]], sample_weight=[[1, 0]])
    model.set_params(early_stopping=True, random_state=1)
    with pytest.raises(ValueError, match=r"early_stopping: expected a target that .* kept back"):
        model.fit([[1, 2]] + [[1]] * 999)
    X = rng.standard_normal((6, 3, 2))
    with pytest.raises(ValueError, match="X: expected a target that weighs something, got none"):
        rnncore.GRU(class_weight={0: 0}).fit(X, [0, 1] * 3, sample_weight=[1, 0] * 3)


def test_truncated_errors_of_a_long_series(rng):
    x = rng.standard_normal((5000, 1))
    y = np.convolve(x[:, 0], [0.5, 0.3, 0.2])[:5000]
    model = rnncore.GRU(8, bptt_steps=20, max_epochs=6, random_state=0).fit([x], [y])
    assert model.score([x], [y]) > 0.9
    assert model.n_epochs_ == 6


# Parameters.


def test_an_optimizer_object_is_a_template(rng):
    X = ragged(rng, 30)
    y = np.array([x[0, 0] for x in X])
    optimizer = optim.Adam(0.02, beta1=0.8, weight_decay=0.01)
    model = rnncore.LSTM(4, optimizer=optimizer, max_epochs=2, random_state=0).fit(X, y)
    assert model.optimizer is optimizer
    assert model._optimizer is not optimizer
    assert_same_bits(clone(model).fit(X, y), model)
    assert_same_bits(model, pickle.loads(pickle.dumps(model)).fit(X, y))
    named = rnncore.LSTM(
        4, learning_rate=0.02, weight_decay=0.01, clip_norm=None, max_epochs=2, random_state=0
    )
    with pytest.raises(AssertionError):
        assert_same_bits(named.fit(X, y), model)
    template = optim.Adam(0.02, weight_decay=0.01)
    expected = copy.deepcopy(named)
    named.set_params(optimizer=template, learning_rate="auto", weight_decay="auto", clip_norm=1.0)
    assert_same_bits(named.fit(X, y), expected)


@pytest.mark.parametrize("way", ["uniform", "xavier_uniform", "xavier_normal", "orthogonal"])
def test_weights_start_as_the_name_says(way, rng):
    X = rng.standard_normal((4, 3, 2))
    model = rnncore.LSTM(
        (20, 10), init=way, forget_bias=1.5, learning_rate=1e-30, max_epochs=1, random_state=0
    )
    weights = weights_of(model.fit(X, [0, 1, 0, 1]))
    assert weights["rnn.weight_hh_l1"].shape == (40, 10)
    bias = weights["rnn.bias_ih_l0"] + weights["rnn.bias_hh_l0"]
    np.testing.assert_allclose(bias[20:40], 1.5, rtol=1e-6)
    square = weights["rnn.weight_hh_l0"][:20]
    is_orthogonal = np.allclose(square @ square.T, np.eye(20), atol=1e-5)
    assert is_orthogonal == (way == "orthogonal")


@settings(max_examples=15)
@given(
    task=st.sampled_from(["labels", "numbers", "steps", "columns", "model"]),
    options=st.fixed_dictionaries(
        {
            "hidden_size": st.sampled_from([1, 5, (3, 4), (4, 2, 3)]),
            "output_dropout": st.sampled_from([0.0, 0.4]),
            "input_dropout": st.sampled_from([0.0, 0.4]),
            "locked_dropout": st.booleans(),
            "learn_initial_state": st.booleans(),
            "optimizer": st.sampled_from(["adam", "adamw", "sgd", "rmsprop", "adagrad"]),
            "init": st.sampled_from(["uniform", "xavier_normal", "orthogonal"]),
            "batch_size": st.integers(1, 40),
            "accumulate_batches": st.integers(1, 3),
            "shuffle": st.booleans(),
            "bucket_by_length": st.booleans(),
            "early_stopping": st.booleans(),
            "dtype": st.sampled_from(["float32", "float64"]),
            "lr_schedule": st.sampled_from([None, "cosine", "plateau"]),
        }
    ),
    seed=st.integers(0, 5),
)
@pytest.mark.parametrize("estimator", [rnncore.RNN, rnncore.LSTM, rnncore.GRU])
def test_any_parameters_give_the_same_bits_whatever_the_threads(estimator, task, options, seed):
    rng = np.random.default_rng(seed)
    X = ragged(rng, 23, shortest=0)
    X[0] = X[0][:1] if len(X[0]) else np.ones((1, 2), np.float32)
    y = {
        "labels": np.arange(23) % 3,
        "numbers": rng.standard_normal((23, 2)),
        "steps": [np.arange(len(x)) % 2 for x in X],
        "columns": [(x > 0).astype(int) for x in X],
        "model": None,
    }[task]
    if task == "model":
        options = {**options, "task": "language_model"}
        X = [rng.integers(0, 5, len(x)) for x in [*X, np.zeros(9)]]
    models = [
        estimator(**options, max_epochs=2, random_state=seed, n_jobs=n_jobs).fit(X, y)
        for n_jobs in (1, 3)
    ]
    assert_same_bits(*models)
    one, other = (model.predict(X) for model in models)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert models[0].score(X, y) == models[1].score(X, y)


# Features, and scikit-learn.


def test_features_feed_other_estimators(rng):
    X = ragged(rng, 80)
    y = np.where([x[0, 0] > 0 for x in X], "up", "down")
    model = rnncore.GRU((6, 5), bidirectional=True, max_epochs=20, random_state=0).fit(X, y)
    assert model.transform(X).shape == (80, 10)
    steps = model.transform(X, output="sequence")
    assert [part.shape for part in steps] == [(len(x), 10) for x in X]
    for output, pool in (("mean", np.mean), ("max", np.max)):
        expected = np.stack([pool(part, axis=0) for part in steps])
        np.testing.assert_allclose(model.transform(X, output=output), expected, rtol=1e-5)
    last = np.stack([np.concatenate([part[-1, :5], part[0, 5:]]) for part in steps])
    np.testing.assert_array_equal(model.transform(X), last)
    pipeline = make_pipeline(clone(model), LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.9
    np.testing.assert_array_equal(clone(model).fit_transform(X, y), model.transform(X))
    with pytest.raises(ValueError, match=r"output: expected one of .*, got 'first'"):
        model.transform(X, output="first")


def test_scikit_learn_knows_what_kind_of_estimator_it_is():
    def kind(**parameters):
        return get_tags(rnncore.LSTM(**parameters))

    assert is_classifier(rnncore.LSTM(task="classification"))
    assert is_regressor(rnncore.LSTM(task="regression"))
    tagger = rnncore.LSTM(task="classification", output="sequence")
    assert not is_classifier(tagger)  # there is nothing to stratify by
    tags = kind(task="classification")
    assert tags.classifier_tags.multi_label
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.string
    assert not tags.input_tags.allow_nan
    assert kind(padding_value=np.nan).input_tags.allow_nan
    assert kind(embedding_dim=3).input_tags.two_d_array
    tags = kind(task="language_model")
    assert not tags.target_tags.required
    assert tags.estimator_type is None
    assert isinstance(check_cv(3, [0, 1] * 9, classifier=True), StratifiedKFold)


def test_searches_take_text_tags_and_language_models():
    texts, opinions = TEXTS * 4, OPINIONS * 4
    classifier = rnncore.GRU(6, task="classification", max_epochs=30, random_state=0)
    assert cross_val_score(classifier, texts, opinions, cv=3, error_score="raise").mean() > 0.8
    words = [text.split() for text in texts]
    tags = [["good" if word == "good" else "other" for word in line] for line in words]
    tagger = rnncore.GRU(6, task="classification", output="sequence", max_epochs=20)
    tagger.set_params(random_state=0)
    assert cross_val_score(tagger, words, tags, cv=3, error_score="raise").mean() > 0.8
    model = rnncore.GRU(8, task="language_model", random_state=0)
    search = GridSearchCV(model, {"max_epochs": [1, 20]}, cv=2, error_score="raise").fit(texts)
    assert search.best_params_ == {"max_epochs": 20}
    assert search.best_score_ < 0


def test_searches_over_several_labels(rng):
    X = np.stack(ragged(rng, 60, shortest=12))
    y = np.stack([X[:, 0, 0] > 0, X[:, -1, 1] > 0], axis=1).astype(int)
    model = rnncore.GRU(16, task="classification", output="mean", max_epochs=60, random_state=0)
    scores = cross_val_score(model, X, y, cv=3, scoring="f1_macro", error_score="raise")
    assert scores.mean() > 0.6


@pytest.mark.slow
def test_searches_in_parallel_find_what_one_process_finds(rng):
    X = ragged(rng, 60)
    y = ["up" if x[0, 0] > 0 else "down" for x in X]
    choices = {"hidden_size": [4, (8, 4)], "optimizer": ["adam", optim.SGD(0.1, momentum=0.9)]}
    model = rnncore.GRU(task="classification", max_epochs=8, random_state=0)
    found = [
        GridSearchCV(model, choices, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, y)
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*(f.cv_results_["mean_test_score"] for f in found))
    assert_same_bits(*(f.best_estimator_ for f in found))


class Centred(rnncore.GRU):
    """What it learns beside the network is its own."""

    def fit(self, X, y=None, **options):
        self.mean_, self.feature_names_in_ = np.mean(X), np.array(["a", "b"], object)
        return super().fit(X - self.mean_, y, **options)

    def predict(self, X, **options):
        return super().predict(X - self.mean_, **options)


def test_what_a_derived_class_learns_stays(rng):
    X = rng.normal(5, 1, (12, 4, 2))
    model = Centred(2, max_epochs=1, random_state=0).fit(X, [0, 1] * 6)
    model.threshold_ = 0.7
    expected = rnncore.GRU(2, max_epochs=1, random_state=0).fit(X - X.mean(), [0, 1] * 6)
    assert (model.predict(X) == expected.predict(X - X.mean())).all()
    assert model.partial_fit(X, [1, 0] * 6).threshold_ == 0.7
    assert list(model.feature_names_in_) == ["a", "b"]
    # What an earlier fit has left goes.
    model.fit(X, X[:, 0, 0])
    assert not hasattr(model, "classes_")


def test_sequences_may_have_no_step_alone_too(rng):
    X = rng.standard_normal((12, 4, 2))
    model = rnncore.GRU(2, max_epochs=1, random_state=0).fit(X, [0, 1] * 6)
    beside = model.predict_proba([[], [[1.0, 2.0]]])[:1]
    assert (model.predict_proba([[]]) == beside).all()
    assert (model.predict_proba([np.empty((0, 2))]) == beside).all()
    with pytest.raises(ValueError, match="X: expected a sequence with at least one step"):
        rnncore.GRU(2).fit([[]], [1])
