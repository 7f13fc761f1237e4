"""A transformer applied step by step: what it learns, and what becomes of padding."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import rnncore
from rnncore.preprocessing import StepTransformer

from .sequences import pad, ragged


@pytest.fixture(name="X")
def sequences():
    return [3 + 2 * x for x in ragged(np.random.default_rng(0), 12, features=3, shortest=0)]


@pytest.mark.parametrize("X", [np.zeros((4, 3)), [np.zeros(3)]], ids=["array", "list"])
def test_advice_speaks_of_what_there_is(X):
    with pytest.raises(ValueError, match=r"for (a )?single series use") as error:
        StepTransformer(StandardScaler()).fit(X)
    assert "embedding" not in str(error.value)


def test_all_real_steps_are_fitted_together(X):
    scaler = StepTransformer(StandardScaler())
    scaled = scaler.fit_transform(X)
    assert isinstance(scaled, list)
    assert [x.shape for x in scaled] == [x.shape for x in X]
    assert scaled[0].dtype == np.float32
    rows = np.concatenate(scaled)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-6)
    assert (scaler.n_features_in_, scaler.transformer_.n_samples_seen_) == (3, len(rows))
    for a, b in zip(scaler.inverse_transform(scaled), X, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (bool, np.nan, "float32"),
        (np.int64, np.nan, "float64"),
        (np.int64, 0.5, "float64"),
        (np.uint8, -1.0, "float32"),
        (np.int64, -1.0, "int64"),
        (bool, 0.0, "bool"),
        (np.float32, 0.1, "float32"),
        (np.float32, np.nan, "float32"),
    ],
)
def test_padding_is_what_was_asked_for_whatever_comes_out(kind, value, expected):
    X = np.full((2, 3, 1), 7.0)
    X[1, 1:] = value
    steps = FunctionTransformer(lambda rows: (rows > 0).astype(kind))
    found = StepTransformer(steps, padding_value=value).fit_transform(X)
    assert found.dtype == expected
    np.testing.assert_array_equal(found[1, 1:, 0], np.array([value, value], expected))
    assert found[0].all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["lengths", "nan", "zero"]), st.booleans())
def test_padding_is_neither_fitted_on_nor_changed(seed, kind, narrow):
    rng = np.random.default_rng(seed)
    X = [x + 5 for x in ragged(rng, 6, features=3, shortest=1, longest=5)]
    value = {"lengths": None, "nan": np.nan, "zero": 0.0}[kind]
    padded, lengths = pad(X, fill=77.0 if value is None else value)
    inner = PCA(2) if narrow and sum(lengths) > 3 else StandardScaler()
    expected = StepTransformer(inner).fit_transform(X)
    given_lengths = {"lengths": lengths} if value is None else {}
    got = StepTransformer(inner, padding_value=value).fit_transform(padded, **given_lengths)
    assert got.shape == (*padded.shape[:2], expected[0].shape[1])
    for row, x, length in zip(got, expected, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], x)
        np.testing.assert_array_equal(row[length:], 0.0 if value is None else value)


def test_padding_on_the_left():
    X = ragged(np.random.default_rng(0), 5, shortest=1)
    padded, lengths = pad(X, fill=np.nan)
    left = np.stack([np.roll(x, len(x) - n, axis=0) for x, n in zip(padded, lengths, strict=True)])
    expected = StepTransformer(StandardScaler(), padding_value=np.nan).fit_transform(padded)
    scaler = StepTransformer(StandardScaler(), padding_value=np.nan, padding_side="left")
    for options in ({}, {"lengths": lengths}):
        got = scaler.fit_transform(left, **options)
        for row, want, length in zip(got, expected, lengths, strict=True):
            np.testing.assert_array_equal(np.roll(row, length - len(row), axis=0), want)
    with pytest.raises(ValueError, match="padding_side: expected one of 'right', 'left'"):
        StepTransformer(StandardScaler(), padding_side="top").fit(X)


def test_doubles_stay_doubles_and_integers_become_them(X):
    doubles = [x.astype(np.float64) for x in X]
    assert StepTransformer(StandardScaler()).fit_transform(doubles)[0].dtype == np.float64
    integers = np.arange(12).reshape(2, 3, 2)
    assert StepTransformer(StandardScaler()).fit_transform(integers).dtype == np.float64


def test_sparse_results_and_missing_values():
    X = np.array([[[0.0], [1.0]], [[2.0], [0.0]]])
    encoded = StepTransformer(OneHotEncoder()).fit_transform(X)
    np.testing.assert_array_equal(encoded.argmax(axis=2), X[:, :, 0])
    X[0, 1] = np.nan
    filled = StepTransformer(SimpleImputer()).fit_transform(X)
    np.testing.assert_allclose(filled[0, 1, 0], 2 / 3)


def test_sequences_without_steps_alone_are_transformed():
    scaler = StepTransformer(StandardScaler()).fit(np.ones((2, 3, 4)))
    (empty,) = scaler.transform([np.empty((0, 4))])
    assert empty.shape == (0, 4)


def test_searches_reach_the_inner_transformer(X):
    X = [x for x in X if len(x)] * 2
    y = ["up" if x.mean() > 3 else "down" for x in X]
    network = rnncore.RNN(3, max_epochs=2, task="classification", random_state=0)
    pipeline = make_pipeline(StepTransformer(StandardScaler()), network)
    search = GridSearchCV(
        pipeline, {"steptransformer__transformer__with_mean": [True, False]}, cv=2
    ).fit(X, y)
    assert len(search.cv_results_["params"]) == 2
    assert len(search.predict(X)) == len(X)
    steps = search.best_estimator_[:-1].transform(X)
    assert [x.shape for x in steps] == [x.shape for x in X]


def test_the_given_transformer_is_left_alone(X):
    inner = StandardScaler()
    scaler = StepTransformer(inner).fit(X)
    assert not hasattr(inner, "mean_")
    assert clone(scaler).transformer is not inner
    again = pickle.loads(pickle.dumps(scaler))
    for a, b in zip(again.transform(X), scaler.transform(X), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_what_can_be_inverted_is(X):
    assert not hasattr(StepTransformer(_Doubler()), "inverse_transform")
    assert hasattr(StepTransformer(FunctionTransformer()), "inverse_transform")


class _Doubler:
    def fit(self, X):
        return self

    def transform(self, X):
        return 2 * X


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (lambda rows: rows[:, 0], r"float64 array of shape \(1,\)"),
        (lambda rows: rows[:, :, None], r"float64 array of shape \(1, 2, 1\)"),
        (lambda rows: np.repeat(rows, 2, axis=0), r"float64 array of shape \(2, 2\)"),
        (lambda rows: rows.sum(), "float"),
        (lambda rows: rows.astype(str), r"str array of shape \(1, 2\)"),
    ],
)
def test_what_gives_no_rows_of_numbers_is_refused(result, got, X):
    scaler = StepTransformer(StandardScaler()).fit(X)
    before = scaler.transform(X)
    scaler.transformer = FunctionTransformer(result)
    match = rf"transformer: expected numbers of shape \(1, k\) from FunctionTransformer\..*{got}"
    for train in (scaler.fit, scaler.fit_transform):
        with pytest.raises(ValueError, match=match):
            train(np.ones((3, 4, 2)))
    assert scaler.n_features_in_ == 3
    for a, b in zip(scaler.transform(X), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_row_may_go_missing():
    steps = StepTransformer(FunctionTransformer(lambda rows: rows[rows[:, 0] > 0]))
    X = np.array([[[1.0], [2.0]], [[3.0], [-1.0]]])
    assert steps.fit(X).transform(X[:1]).shape == (1, 2, 1)
    with pytest.raises(ValueError, match=r"expected numbers of shape \(4, k\) .* shape \(3, 1\)"):
        steps.transform(X)


def test_errors_name_what_is_wrong(X):
    with pytest.raises(TypeError, match="transformer: expected one of scikit-learn's transformers"):
        StepTransformer(3).fit(X)
    with pytest.raises(TypeError, match=r"transformer: expected one of .*, got type <class"):
        StepTransformer(StandardScaler).fit(X)
    with pytest.raises(ValueError, match=r"X: expected shape \(n, T, F\), got \(2, 3\)"):
        StepTransformer(StandardScaler()).fit(np.ones((2, 3)))
    with pytest.raises(ValueError, match="X: expected a sequence with at least one step, got none"):
        StepTransformer(StandardScaler(), padding_value=1).fit(np.ones((2, 3, 1)))
    scaler = StepTransformer(StandardScaler()).fit(X)
    with pytest.raises(ValueError, match="X: expected 3 features, got 2"):
        scaler.transform(np.ones((1, 2, 2)))
    with pytest.raises(NotFittedError):
        StepTransformer(StandardScaler()).transform(X)
    with pytest.raises(TypeError, match="padding_value: expected a finite number"):
        StepTransformer(StandardScaler(), padding_value="0").fit(X)


def test_a_column_may_have_any_name():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"dtype": [1.0, 2.0], "x": [3.0, 4.0]})
    found = StepTransformer(StandardScaler()).fit_transform([table])
    np.testing.assert_array_equal(found[0], [[-1.0, -1.0], [1.0, 1.0]])
