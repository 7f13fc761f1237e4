"""The estimators as people use them: they learn, mirror their input, repeat, stop, suit sklearn."""

import copy
import os
import pickle
import threading
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, check_cv, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import rnncore
from rnncore import _core

from .sequences import pad, ragged

mpl.use("Agg")

ESTIMATORS = [rnncore.RNN, rnncore.LSTM, rnncore.GRU]


# The form of what comes out.


def test_output_mirrors_input(rng):
    X = ragged(rng, 30, shortest=0)
    y = [(x[:, 0] > 0).astype(int) for x in X]
    model = rnncore.GRU(8, max_epochs=2, random_state=0).fit(X, y)
    listed, probabilities = model.predict(X), model.predict_proba(X)
    assert [tags.shape for tags in listed] == [(len(x),) for x in X]
    assert [p.shape for p in probabilities] == [(len(x), 2) for x in X]

    padded, lengths = pad(X)
    array = model.predict(padded, lengths=lengths)
    assert array.shape == padded.shape[:2]
    for row, tags in zip(array, listed, strict=True):
        np.testing.assert_array_equal(row[: len(tags)], tags)
        assert not row[len(tags) :].any()
    array = model.predict_proba(padded, lengths=lengths)
    for row, p in zip(array, probabilities, strict=True):
        np.testing.assert_array_equal(row[: len(p)], p)
        assert not row[len(p) :].any()


@pytest.mark.parametrize("y", [np.zeros((5, 1)), np.zeros((5, 3)), np.zeros(5)])
def test_regression_returns_the_shape_of_y(y):
    model = rnncore.RNN(3, max_epochs=1).fit(
        np.ones((5, 4, 2)), y + np.arange(5).reshape(-1, *[1] * (y.ndim - 1))
    )
    assert model.predict(np.ones((5, 4, 2))).shape == y.shape
    assert model.predict([np.ones((2, 2))]).shape == (1, *y.shape[1:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_that_of_results(dtype):
    model = rnncore.LSTM(3, max_epochs=1, dtype=dtype)
    model.fit(np.ones((4, 3, 2)), [0.5, 1, 2, 3])
    assert model.predict(np.ones((4, 3, 2))).dtype == dtype


@pytest.mark.parametrize("labels", [[3, 7], [False, True], ["a", "b"], [-1.0, 1.0]])
def test_labels_come_back_as_they_are(labels):
    X = np.zeros((4, 3, 1))
    model = rnncore.LSTM(3, max_epochs=1, task="classification").fit(X, labels * 2)
    assert model.classes_.tolist() == labels
    assert set(model.predict(X).tolist()) <= set(labels)


# What may not change the result.


def fit_bits(X, y, n_jobs=1, **options):
    options = {"max_epochs": 3, "random_state": 5, "num_layers": 2, "dropout": 0.3, **options}
    model = rnncore.LSTM(17, n_jobs=n_jobs, **options).fit(X, y, eval_set=(X[:20], y[:20]))
    return [*model._network.parameters().values(), np.array(model.history_["val_loss"])]


def assert_equal_bits(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("output", ["last", "sequence"])
def test_threads_do_not_change_a_bit(output, rng):
    X = ragged(rng, 70, longest=20, shortest=0)
    y = [x[:, 0] for x in X] if output == "sequence" else [x.sum() for x in X]
    reference = fit_bits(X, y)
    for n_jobs in (2, 3, -1):
        assert_equal_bits(fit_bits(X, y, n_jobs), reference)
    assert not np.array_equal(fit_bits(X, y, random_state=6)[0], reference[0])


@pytest.mark.parametrize("embedding", [False, True])
def test_padding_and_form_do_not_change_a_bit(embedding, rng):
    X = ragged(rng, 40, features=3)
    options = {}
    if embedding:
        X = [(np.abs(x[:, 0]) * 5).astype(int) for x in X]
        options["embedding_dim"] = 4
    y = [int(x[0].sum() > 1) for x in X]
    reference = fit_bits(X, y, **options)
    padded, lengths = pad(X)
    wide = np.concatenate([padded, np.full_like(padded, 99)], axis=1)
    model = rnncore.LSTM(17, max_epochs=3, random_state=5, num_layers=2, dropout=0.3, **options)
    for array in (padded, wide):
        model.fit(array, y, lengths=lengths)
        assert_equal_bits(model._network.parameters().values(), reference[:-1])
    model.set_params(padding_value=-1).fit(pad(X, fill=-1)[0], y)
    assert_equal_bits(model._network.parameters().values(), reference[:-1])
    np.testing.assert_array_equal(
        model.predict_proba(pad(X, fill=-1)[0]), model.predict_proba(wide, lengths=lengths)
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_prediction_does_not_depend_on_company(estimator, rng):
    X = ragged(rng, 300, longest=30, shortest=0)
    model = estimator(33, max_epochs=1, bidirectional=True, random_state=0)
    model.fit(X[:32], [float(len(x)) for x in X[:32]])
    together = model.predict(X)
    order = rng.permutation(len(X))
    np.testing.assert_array_equal(model.predict([X[i] for i in order]), together[order])
    for i in range(0, 300, 29):
        np.testing.assert_array_equal(model.predict([X[i]]), together[i : i + 1])
    padded, lengths = pad(X, fill=np.nan)
    np.testing.assert_array_equal(model.predict(padded, lengths=lengths), together)


def test_random_state_none_differs_and_generators_advance(rng):
    X = rng.standard_normal((10, 4, 2))
    y = X[:, 0, 0]

    def first(random_state):
        return rnncore.GRU(5, max_epochs=1, random_state=random_state).fit(X, y).predict(X)

    assert not np.array_equal(first(None), first(None))
    np.testing.assert_array_equal(first(np.int64(3)), first(3))
    generator = np.random.default_rng(3)
    np.testing.assert_array_equal(first(generator), first(3))
    assert not np.array_equal(first(generator), first(3))
    legacy = np.random.RandomState(3)
    a, b = first(legacy), first(np.random.RandomState(3))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first(legacy), a)


def test_fit_starts_anew(rng):
    X = rng.standard_normal((10, 4, 2))
    model = rnncore.GRU(5, max_epochs=2, random_state=0)
    first = model.fit(X, X[:, 0, 0]).predict(X)
    model.fit(X, list("ababababab"))
    assert model.classes_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(model.fit(X, X[:, 0, 0]).predict(X), first)
    assert model.n_epochs_ == 2
    assert not hasattr(model, "classes_")


def test_data_is_left_as_it_was(rng):
    X = rng.standard_normal((6, 4, 2)).astype(np.float32)
    X.flags.writeable = False
    y = np.arange(6.0)
    y.flags.writeable = False
    rnncore.GRU(5, max_epochs=1, weight_decay=0.1).fit(X, y).predict(X)


def test_weights_start_as_in_torch():
    X = [list(range(500)), [1, 2]]
    options = {"embedding_dim": 20, "learning_rate": 1e-30, "max_epochs": 1}
    model = rnncore.GRU(100, bidirectional=True, random_state=0, **options).fit(X, [0, 1])
    weights = model._network.parameters()
    assert weights["embedding.weight"].std() == pytest.approx(1, rel=0.02)
    assert np.abs(weights["rnn.weight_hh_l0_reverse"]).max() == pytest.approx(0.1, rel=0.01)
    assert np.abs(weights["head.weight"]).max() == pytest.approx(200**-0.5, rel=0.02)


def test_probabilities_of_large_outputs_are_finite(rng):
    X = rng.standard_normal((10, 4, 2))
    model = rnncore.LSTM(5, max_epochs=1).fit(X, [0, 1] * 5)
    weights = model._network.parameters()
    weights["head.weight"] *= 1e6
    model._network.set_parameters(weights)
    probabilities = model.predict_proba(X)
    assert probabilities.max() == 1
    np.testing.assert_array_equal(probabilities.sum(axis=1), 1)


def test_outputs_that_overflow_are_told(rng):
    X = 0.1 * rng.standard_normal((6, 4, 2))
    model = rnncore.RNN(3, nonlinearity="relu", residual=True, max_epochs=1, random_state=0)
    model.fit(X, [0, 1, 2] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X)
    weights = dict(model._network.parameters())
    model._network.set_parameters({name: np.ones_like(w) for name, w in weights.items()})
    long = [*X, np.ones((200, 2))]
    for call in (
        lambda: model.predict(long),
        lambda: model.predict_proba(long),
        lambda: model.score(long, [0, 1, 2] * 2 + [0]),
    ):
        message = "the network's outputs are not finite: its states"
        with pytest.warns(RuntimeWarning, match=message) as found:
            call()
        assert [warning.filename for warning in found] == [__file__]


def test_what_is_not_a_number_is_chosen_alike(rng):
    X = rng.standard_normal((9, 4, 2))
    y = np.arange(9) % 3
    model = rnncore.RNN(3, nonlinearity="relu", residual=True, max_epochs=1, random_state=0)
    model.fit(X, y)
    weights = {name: np.ones_like(w) for name, w in model._network.parameters().items()}
    # Of infinite states the classes have the sums -inf, nan and inf.
    weights["head.weight"] = np.array([[-1, -1, -1], [1, -1, 1], [1, 1, 1]], np.float32)
    model._network.set_parameters(weights)
    long = np.ones((1, 200, 2))
    with pytest.warns(RuntimeWarning, match="not finite"):
        predicted = model.predict(long)
    stream = model.stream()
    steps = [stream.step(x[None]) for x in long[0]]
    assert (predicted, steps[-1], steps[0]) == (1, 1, 2)


def test_threads_and_seed_reach_the_loop(monkeypatch, rng):
    calls = []

    class Spy:
        """Stands for a network, and notes what it is asked."""

        def __init__(self, **config):
            self.network = network(**config)

        def __getattr__(self, name):
            def call(*args, **kwargs):
                calls.append((name, kwargs))
                return getattr(self.network, name)(*args, **kwargs)

            return call

    network = _core.Network
    monkeypatch.setattr(_core, "Network", Spy)
    X = rng.standard_normal((6, 4, 2))
    for seed in (0, 0, 1):
        rnncore.LSTM(3, max_epochs=1, n_jobs=2, random_state=seed).fit(X, X[:, 0, 0]).predict(X)
    used = ("train_epoch", "predict")
    assert [kwargs["n_threads"] for name, kwargs in calls if name in used] == [2] * 6
    first, same, other = (kwargs["seed"] for name, kwargs in calls if name == "train_epoch")
    assert first == same != other


# Options.


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"optimizer": "sgd"}),
        ({"optimizer": "sgd"}, {"momentum": 0.5}),
        ({"optimizer": "sgd"}, {"nesterov": True}),
        ({}, {"learning_rate": 0.001}),
        ({}, {"weight_decay": 0.1}),
        ({}, {"clip_norm": 1e-9}),
        ({}, {"clip_value": 1e-9}),
        ({}, {"batch_size": 7}),
        ({}, {"shuffle": False}),
        ({}, {"bucket_by_length": False}),
        ({}, {"num_layers": 2}),
        ({"num_layers": 2}, {"dropout": 0.5}),
        ({}, {"bidirectional": True}),
        ({}, {"nonlinearity": "relu"}),
        ({}, {"max_epochs": 3}),
        ({}, {"dtype": "float64"}),
        ({}, {"hidden_size": (4, 4)}),
        ({}, {"output": "mean"}),
        ({}, {"output": "max"}),
        ({}, {"loss": "absolute_error"}),
        ({"loss": "huber"}, {"huber_delta": 0.1}),
        ({}, {"padding_value": 0.0, "padding_side": "left"}),
        ({"padding_value": 0.0}, {"padding_side": "left"}),
        ({}, {"init": "xavier_uniform"}),
        ({}, {"init": "orthogonal"}),
        ({}, {"learn_initial_state": True}),
        ({}, {"input_dropout": 0.5}),
        ({}, {"output_dropout": 0.5}),
        ({"input_dropout": 0.5}, {"locked_dropout": True}),
        ({}, {"optimizer": "adamw", "weight_decay": 0.1}),
        ({}, {"optimizer": "rmsprop"}),
        ({}, {"optimizer": "adagrad"}),
        ({}, {"l1": 0.1}),
        ({}, {"lr_schedule": "cosine"}),
        ({}, {"accumulate_batches": 2}),
        ({}, {"early_stopping": True}),
        ({"early_stopping": True}, {"validation_fraction": 0.5}),
        (
            {"early_stopping": True, "max_epochs": 9},
            {"n_iter_no_change": 1, "tol": 1e3, "restore_best": False},
        ),
        ({}, {"residual": True}),
        ({}, {"nonlinearity": "softsign"}),
    ],
    ids=str,
)
def test_every_option_has_an_effect(base, change, rng):
    X = ragged(rng, 60)
    y = [x[0, 0] for x in X]
    X[0][:2] = X[1][-2:] = 0
    base = {"max_epochs": 2, "batch_size": 8, "random_state": 0, **base}
    base = {"hidden_size": 4, **base}
    before = rnncore.RNN(**base).fit(X, y).predict(X)
    assert not np.array_equal(rnncore.RNN(**{**base, **change}).fit(X, y).predict(X), before)


# scikit-learn.


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_constructor_only_stores(estimator):
    given = {name: object() for name in estimator().get_params()}
    model = estimator(**given)
    assert model.get_params() == given
    assert set(vars(model)) == set(given)
    assert clone(estimator(7, dropout=0.5)).get_params() == estimator(7, dropout=0.5).get_params()


def test_repr_shows_what_was_set():
    assert repr(rnncore.GRU(7, learning_rate=0.5)) == "GRU(hidden_size=7, learning_rate=0.5)"


def test_task_is_the_kind_of_estimator(rng):
    X = rng.standard_normal((6, 4, 2))
    assert is_classifier(rnncore.LSTM(task="classification"))
    assert is_regressor(rnncore.LSTM(task="regression"))
    model = rnncore.LSTM(2, max_epochs=1)
    assert not is_classifier(model)
    assert not is_regressor(model)
    assert is_classifier(model.fit(X, [0, 1] * 3))
    assert is_regressor(model.fit(X, X[:, 0, 0]))
    y = [0, 1] * 3
    named = rnncore.LSTM(task="classification")
    assert isinstance(check_cv(3, y, classifier=is_classifier(named)), StratifiedKFold)


def test_searches_and_pipelines_take_ragged_lists(rng):
    X = ragged(rng, 60)
    y = np.where([x[-1, 0] > 0 for x in X], "up", "down")
    model = rnncore.GRU(8, task="classification", max_epochs=30, random_state=0)
    search = GridSearchCV(
        model, {"hidden_size": [2, 8], "learning_rate": [1e-6, 0.02]}, cv=3, error_score="raise"
    ).fit(X, y)
    assert search.best_params_["learning_rate"] == 0.02
    assert search.score(X, y) > 0.85
    scores = cross_val_score(model, X, y, cv=3, scoring="neg_log_loss", error_score="raise")
    assert scores.mean() > -0.6
    pipeline = make_pipeline(FunctionTransformer(lambda X: [2 * x for x in X]), clone(model))
    assert pipeline.fit(X, y).score(X, y) > 0.85
    numbers = cross_val_score(
        rnncore.GRU(8, max_epochs=15, learning_rate=0.02, random_state=0),
        X,
        [float(x[-1, 0]) for x in X],
        cv=KFold(3),
        scoring="r2",
    )
    assert numbers.mean() > 0.5


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_and_pickles_predict_the_same(duplicate, rng):
    X = rng.standard_normal((10, 4, 2))
    model = rnncore.LSTM(5, max_epochs=2, random_state=0).fit(X, list("abcde") * 2)
    before = model.predict_proba(X)
    twin = duplicate(model)
    np.testing.assert_array_equal(twin.predict_proba(X), before)
    assert twin.history_ == model.history_
    twin.set_params(random_state=1).fit(X, list("abcde") * 2)
    assert not np.array_equal(twin.predict_proba(X), before)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    unfitted = duplicate(rnncore.RNN(3))
    assert unfitted.get_params() == rnncore.RNN(3).get_params()


def test_forked_workers_predict(rng):
    X = rng.standard_normal((30, 4, 2))
    model = rnncore.LSTM(5, max_epochs=2, n_jobs=2, random_state=0).fit(X, X[:, 0, 0])
    expected = model.predict(X)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, model.predict(X).tobytes())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        result = np.frombuffer(pipe.read(), expected.dtype)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_a_model_has_one_training_at_a_time(call, rng):
    X = rng.standard_normal((20, 4, 2))
    y = X[:, 0, 0]
    said = []

    def train_meanwhile(model, logs):
        for trained in (model, rnncore.GRU(2, max_epochs=1)):
            thread = threading.Thread(target=lambda of=trained: said.append(tried(of)))
            thread.start()
            thread.join()
        said.append(tried(model))

    def tried(model):
        try:
            return getattr(model, call)(X, y).n_epochs_
        except RuntimeError as error:
            return str(error)

    model = rnncore.GRU(2, max_epochs=1, callbacks=train_meanwhile).fit(X, y)
    refused = f"{call}: expected a model that is not in training, got one that is: in another "
    assert [text if text == 1 else text[: len(refused)] for text in said] == [refused, 1, refused]
    assert model.set_params(callbacks=None).partial_fit(X, y).n_epochs_ == 2
    with pytest.raises(ValueError, match="y: expected 20 targets"):
        model.fit(X, y[1:])
    assert model.fit(X, y).n_epochs_ == 1


class Watched(rnncore.GRU):
    """Looks at itself after each change, as another thread may."""

    watch = None

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if self.watch:
            self.watch(self)

    def __delattr__(self, name):
        super().__delattr__(name)
        if self.watch:
            self.watch(self)


def test_a_model_is_whole_while_it_is_fitted_anew(monkeypatch, rng):
    X = rng.standard_normal((20, 4, 3))
    ys = {"classification": X[:, 0, 0] > 0, "regression": X[:, 0, 0]}
    model = Watched(2, max_epochs=1).fit(X, ys["classification"])
    seen = set()

    def watch(model):
        seen.add((model.task_, model.n_features_in_))
        assert np.isfinite(model.score(X[:, :, : model.n_features_in_], ys[model.task_]))

    monkeypatch.setattr(Watched, "watch", staticmethod(watch))
    model.fit(X[:, :, :2], ys["regression"])
    assert seen == {("regression", 2)}
    assert not hasattr(model, "classes_")


def test_other_threads_run_during_fit(rng):
    X = rng.standard_normal((200, 50, 4)).astype(np.float32)
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.wait(0.005):
            ticks.append(1)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        model = rnncore.LSTM(64, max_epochs=10, batch_size=200).fit(X, X[:, 0, 0])
    finally:
        stop.set()
        thread.join()
    # With the GIL held there would be no tick but those between epochs.
    assert len(ticks) > 0.2 * sum(model.history_["seconds"]) / 0.005
