"""The estimators under scikit-learn's tools: its own checks, searches, pipelines, parallel work."""

import io
import os
import pickle

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    StratifiedKFold,
    check_cv,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

import rnncore
from rnncore._threads import threads_for
from rnncore.preprocessing import StepTransformer
from rnncore.text import Vocabulary

from .sequences import ragged


class RowRegressor(rnncore.GRU):
    """Takes rows (n, F) as scikit-learn's checks have them: sequences of F steps of one number.

    What is about two dimensions, scikit-learn's own validation answers; all else is the network's.
    """

    def _sequences(self, X, reset=False):
        if not reset:
            check_is_fitted(self)
        X = validate_data(self, X, ensure_all_finite=False, reset=reset)
        return X[:, :, None]

    def fit(self, X, y=None, sample_weight=None):
        steps = self._sequences(X, reset=True)
        super().fit(steps, y, sample_weight=sample_weight)
        self.n_features_in_ = steps.shape[1]
        return self

    def partial_fit(self, X, y=None, classes=None, sample_weight=None):
        steps = self._sequences(X, reset=not self.__sklearn_is_fitted__())
        super().partial_fit(steps, y, classes=classes, sample_weight=sample_weight)
        self.n_features_in_ = steps.shape[1]
        return self

    def predict(self, X):
        return super().predict(self._sequences(X))

    def transform(self, X):
        return super().transform(self._sequences(X))

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)

    def score(self, X, y, sample_weight=None):
        return super().score(self._sequences(X), y, sample_weight=sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


class RowClassifier(RowRegressor):
    def predict_proba(self, X):
        return super().predict_proba(self._sequences(X))


# The checks that make no sense here, by the task that they are for, each with its reason.
SKIPPED = {
    "classification": {
        "check_supervised_y_2d": "a column of labels is refused by name: it may be one label for "
        "each sequence, or one of several labels at once",
    },
    "regression": {},
}
# Enough epochs for the checks that want something learned, and digits for those that compare.
OPTIONS = {
    "max_epochs": 100,
    "batch_size": 64,
    "learning_rate": 0.03,
    "dtype": "float64",
    "random_state": 0,
}


@parametrize_with_checks(
    [
        RowClassifier(8, task="classification", **OPTIONS),
        RowRegressor(8, task="regression", **OPTIONS),
    ],
    expected_failed_checks=lambda estimator: SKIPPED[estimator.task],
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module", name="X")
def sequences():
    return ragged(np.random.default_rng(0), 40, features=2)


@pytest.fixture(scope="module", name="y")
def labels(X):
    return ["up" if x[:, 0].sum() > 0 else "down" for x in X]


def classifier(**options):
    options = {"task": "classification", "max_epochs": 3, "random_state": 0, **options}
    return rnncore.GRU(4, **options)


def test_folds_of_classifiers_are_stratified(X):
    y = np.array([0] * 30 + [1] * 10)
    model = classifier()
    assert is_classifier(model)
    assert not is_regressor(model)
    folds = check_cv(5, y, classifier=is_classifier(model))
    assert isinstance(folds, StratifiedKFold)
    for _, test in folds.split(X, y):
        assert np.bincount(y[test]).tolist() == [6, 2]
    assert is_regressor(rnncore.RNN(task="regression"))
    assert len(cross_val_score(model, X, y)) == 5


def test_scorers_and_predictions_out_of_fold(X, y):
    model = classifier(max_epochs=40, learning_rate=0.03)
    scores = cross_validate(model, X, y, cv=3, scoring=["accuracy", "neg_log_loss", "roc_auc"])
    assert scores["test_accuracy"].mean() > 0.7
    assert scores["test_roc_auc"].mean() > 0.7
    probabilities = cross_val_predict(model, X, y, cv=3, method="predict_proba")
    assert probabilities.shape == (40, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_search_in_two_processes_over_size_and_rate(X, y):
    grid = {"hidden_size": [2, 5, (4, 3)], "learning_rate": [0.003, 0.03]}
    searches = [GridSearchCV(classifier(), grid, cv=2, n_jobs=jobs).fit(X, y) for jobs in (2, None)]
    for name in ("mean_test_score", "rank_test_score"):
        parallel, serial = (search.cv_results_[name] for search in searches)
        np.testing.assert_array_equal(parallel, serial)
    assert searches[0].best_params_ == searches[1].best_params_
    assert list(searches[0].predict(X)) == list(searches[1].predict(X))


def test_a_random_search_over_a_pipeline(X, y):
    pipeline = make_pipeline(StepTransformer(StandardScaler()), classifier())
    search = RandomizedSearchCV(
        pipeline,
        {
            "gru__hidden_size": [2, 3, 4],
            "gru__optimizer": ["adam", rnncore.optim.SGD(0.1)],
            "gru__lr_schedule": [None, "cosine", rnncore.schedules.Step(2)],
            "steptransformer__transformer__with_mean": [True, False],
        },
        n_iter=4,
        cv=2,
        random_state=0,
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.predict_proba(X)) == len(X)


def test_a_search_over_texts():
    X = ["good film", "bad film", "a good one", "a bad one"] * 6
    y = ["+", "-"] * 12
    model = rnncore.GRU(4, embedding_dim=3, task="classification", max_epochs=20, random_state=0)
    search = GridSearchCV(
        model, {"vocabulary": ["word", Vocabulary("char")], "embedding_dim": [2, 3]}, cv=2
    ).fit(X, y)
    assert search.best_score_ > 0.9
    pipeline = make_pipeline(Vocabulary(), model.set_params(vocabulary_size=7)).fit(X, y)
    assert pipeline.score(X, y) == 1


def test_a_search_over_a_language_model():
    X = ["abcabcabcabc", "bcabcabca", "cabcab", "abcabc"]
    model = rnncore.GRU(4, embedding_dim=3, task="language_model", random_state=0)
    search = GridSearchCV(model, {"max_epochs": [1, 60]}, cv=2).fit(X)
    assert search.best_params_ == {"max_epochs": 60}
    assert search.best_score_ < 0


def test_targets_are_scaled_around_the_model(X):
    y = np.array([100 * x.sum() for x in X])
    model = TransformedTargetRegressor(
        rnncore.GRU(8, max_epochs=40, random_state=0),
        transformer=StandardScaler(),
        check_inverse=False,
    ).fit(X, y)
    assert model.score(X, y) > 0.5


def test_states_are_features_for_others(X, y):
    pipeline = make_pipeline(classifier(max_epochs=30), LogisticRegression()).fit(X, y)
    assert pipeline.score(X, y) > 0.8


def test_clones_are_unfitted_and_alike(X, y):
    model = rnncore.RNN(
        (4, 3),
        nonlinearity="relu",
        residual=False,
        embedding=None,
        class_weight={"up": 2.0, "down": 1.0},
        lr_schedule=rnncore.schedules.Cosine(),
        optimizer=rnncore.optim.Adam(0.01),
        callbacks=[print],
        bptt_steps=None,
        random_state=0,
    )
    copy = clone(model)
    ours, theirs = copy.get_params(), model.get_params()
    assert repr(ours.pop("optimizer")) == repr(theirs.pop("optimizer"))
    assert ours == theirs
    model.set_params(callbacks=None, max_epochs=1).fit(X, y)
    assert not clone(model).__sklearn_is_fitted__()


@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_fitted_models_travel(X, y, way):
    model = classifier().fit(X, y)
    if way == "pickle":
        again = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        joblib.dump(model, file)
        file.seek(0)
        again = joblib.load(file)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    for each in (model, again):
        each.partial_fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.history_["loss"] == model.history_["loss"]


def test_models_fitted_in_other_processes_come_back(X, y):
    models = cross_validate(classifier(), X, y, cv=2, n_jobs=2, return_estimator=True)["estimator"]
    for model, (train, _) in zip(models, StratifiedKFold(2).split(X, y), strict=True):
        here = classifier().fit([X[i] for i in train], [y[i] for i in train])
        np.testing.assert_array_equal(model.predict_proba(X), here.predict_proba(X))
        np.testing.assert_array_equal(
            model.partial_fit(X, y).predict_proba(X), here.partial_fit(X, y).predict_proba(X)
        )
        assert model.history_["loss"] == here.history_["loss"]


def limits():
    """Say what a task has for threads, and whether its environment limits them."""
    return threads_for(None), threads_for(5), "OMP_NUM_THREADS" in os.environ


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "loky"])
def test_workers_have_the_cpus_between_them(backend, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("RNNCORE_NUM_THREADS", raising=False)
    assert threads_for(None) is None
    with parallel_config(backend=backend):
        alone = Parallel(n_jobs=1)(delayed(limits)() for _ in range(2))
        several = Parallel(n_jobs=2)(delayed(limits)() for _ in range(2))
    assert alone == [(None, 5, False)] * 2
    limited = backend == "loky"  # whose environment has each worker's share
    assert several == [(None if limited else 1, 5, limited)] * 2


def test_limits_of_the_environment_hold_in_workers(monkeypatch):
    monkeypatch.setenv("RNNCORE_NUM_THREADS", "3")
    several = Parallel(n_jobs=2, backend="threading")(delayed(limits)() for _ in range(2))
    assert [threads for threads, *_ in several] == [None, None]


def test_models_in_workers_take_one_thread(X, y, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("RNNCORE_NUM_THREADS", raising=False)
    seen = []
    model = classifier(callbacks=lambda model, logs: seen.append(model._n_threads()))
    assert model.fit(X, y)._n_threads() is None
    assert set(seen) == {None}
    seen.clear()
    with parallel_config(backend="threading"):
        cross_val_score(model, X, y, cv=2, n_jobs=2)
    assert set(seen) == {1}
