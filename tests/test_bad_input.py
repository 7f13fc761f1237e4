"""Bad data of estimators: refused before any work, saying what was expected."""

import warnings

import numpy as np
import pandas as pd
import pytest

import rnncore

X = np.zeros((4, 3, 2))
LISTED = [np.zeros((3, 2)), np.zeros((1, 2)), np.zeros((0, 2)), np.zeros((2, 2))]
IDS = [[0, 1, 2], [3], [], [2, 2]]
Y = [0, 1, 0, 1]
NAN, INF = float("nan"), float("inf")


def changed(array, index, value):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


def case(error, match, *args, **kwargs):
    return pytest.param(args, kwargs, error, match, id=match)


# In fit.

FIT_CASES = [
    # rank and size
    case(
        ValueError, r"X: expected shape \(n, T, F\), got \(4, 3\); .*X\[:, :, None\]", X[:, :, 0], Y
    ),
    case(ValueError, r"X: expected shape \(n, T, F\), got \(2, 4, 3, 2\)", np.stack([X, X]), Y),
    case(ValueError, r"X: expected shape \(n, T, F\), got \(\)", 3.5, Y),
    case(
        ValueError,
        r"X\[1\]: expected shape \(T, F\), got \(3,\); .*x\[:, None\]",
        [X[0], X[1, :, 0]],
        [0, 1],
    ),
    case(
        ValueError,
        r"X: expected a list of arrays of shape \(T, F\), got a list of numbers",
        [1.0, 2.0],
        [0, 1],
    ),
    case(
        ValueError,
        r"X: expected as many features everywhere, got 2 in X\[0\] and 1 in X\[1\]",
        [X[0], X[1, :, :1]],
        [0, 1],
    ),
    case(ValueError, r"X: expected at least 1 features, got 0", X[:, :, :0], Y),
    case(ValueError, r"X: expected at least one sequence, got none", X[:0], []),
    case(ValueError, r"X: expected at least one sequence, got none", [], []),
    case(ValueError, r"X: expected a sequence with at least one step, got none", [[], []], [0, 1]),
    case(ValueError, r"X\[1\]: expected a rectangular array", [X[0], [[1, 2], [3]]], [0, 1]),
    case(ValueError, r"X\[0\]: expected .* differ in shape, in list", [[[1, 2], [3]]] * 2, [0, 1]),
    # type
    case(
        TypeError,
        r"X\[1\]: expected an array of numbers, got None",
        np.array([X[0], None], object),
        [0, 1],
    ),
    case(
        ValueError,
        r"X: expected texts \(n,\) or words \(n, T\), got str array of shape \(4, 3, 2\)",
        X.astype(str),
        Y,
    ),
    case(TypeError, r"X: expected real numbers, got complex128 array", X.astype(complex), Y),
    case(TypeError, r"X: expected real numbers, got datetime64", X.astype("M8[s]"), Y),
    case(TypeError, r"X: expected an array of numbers, got None", None, Y),
    case(TypeError, r"X\[1\]: expected real numbers, got str", [X[0], X[1].astype(str)], [0, 1]),
    case(TypeError, r"X: expected a list of texts, got str 'hello'; .* use \[X\]", "hello", [0, 1]),
    case(TypeError, r"X\[1\]: expected .*, got int 2", ["one", 2], [0, 1]),
    case(TypeError, r"X\[0\]: expected a string, got None", [None, "two"], [0, 1]),
    case(TypeError, r"X\[0\]: expected a string, got float nan", [NAN, "two"], [0, 1]),
    case(
        TypeError,
        r"X: expected an array of numbers, got DataFrame of shape \(2, 1\) with str 'one' in it",
        pd.DataFrame({"text": ["one", "two"]}),
        [0, 1],
    ),
    case(
        TypeError,
        r"X\[0\]: .* got object array of shape \(3, 2\), numbers as objects: .* astype\(float\)",
        [X[0].astype(object), X[1]],
        [0, 1],
    ),
    case(TypeError, r"X\[1\]: expected .*, got str 'two'", [[1, 2], "two"], [0, 1]),
    case(
        ValueError,
        r"lengths: expected None beside a list of sequences, got list \[3, 1\]",
        ["one", "two"],
        [0, 1],
        lengths=[3, 1],
    ),
    # values
    case(
        ValueError,
        r"X: expected finite numbers \(in float32\), got NaN in sequence 2, step 1, feature 0",
        changed(X, (2, 1, 0), NAN),
        Y,
    ),
    case(
        ValueError,
        r"X: expected finite numbers \(in float32\), got -inf in sequence 0, step 0",
        changed(X, (0, 0, 1), -INF),
        Y,
    ),
    case(
        ValueError,
        r"X: .* got NaN in sequence 3, step 1",
        [*LISTED[:3], changed(LISTED[3], 1, NAN)],
        Y,
    ),
    case(
        ValueError,
        "X: expected no masked values, got 1",
        np.ma.masked_equal(changed(X, (2, 1, 0), -9), -9),
        Y,
    ),
    # lengths
    case(
        ValueError,
        r"lengths: expected lengths in 0\.\.3, got 4 for sequence 1",
        X,
        Y,
        lengths=[3, 4, 0, 1],
    ),
    case(
        ValueError,
        r"lengths: expected lengths in 0\.\.3, got -1 for sequence 0",
        X,
        Y,
        lengths=[-1, 2, 0, 1],
    ),
    case(ValueError, r"lengths: expected shape \(4,\), got \(3,\)", X, Y, lengths=[1, 2, 3]),
    case(ValueError, r"lengths: expected shape \(4,\), got \(\)", X, Y, lengths=2),
    case(TypeError, r"lengths: expected integers, got float64 array", X, Y, lengths=[1.0, 2, 3, 3]),
    case(TypeError, r"lengths: expected integers, got bool array", X, Y, lengths=[True] * 4),
    case(
        ValueError,
        r"lengths: expected None beside a list of sequences, got list \[3, 1, 0, 2\]",
        LISTED,
        Y,
        lengths=[3, 1, 0, 2],
    ),
    # y
    case(ValueError, r"y: expected 4 targets, one for each sequence, got 3", X, Y[:3]),
    case(TypeError, r"y: expected 4 targets, one for each sequence, got int 3", X, 3),
    case(ValueError, r"y: .* differ in shape, in list \[\[0, 1\], 2", X, [[0, 1], 2, 0, 1]),
    case(
        TypeError,
        r"sample_weight: expected 4 weights, .*, got str 'balanced'",
        X,
        Y,
        sample_weight="balanced",
    ),
    case(ValueError, r"y: expected a target|y: expected 4 targets", X, []),
    case(ValueError, r"y: .* requires y to be passed, but the target y is None: only", X, None),
    case(TypeError, r"y\[2\]: expected numbers or strings, got None", X, [0, 1, None, 1]),
    case(TypeError, r"y\[0\]\[1\]: expected numbers or strings, got None", X, [[0, None, 1]] * 4),
    case(
        TypeError, r"y: expected numbers or strings, got complex128 array", X, np.zeros(4, complex)
    ),
    case(
        TypeError,
        r"y: expected numbers or strings, not both, got str 'b' and int 1",
        X,
        ["a", 1, "b", 1],
    ),
    case(TypeError, r"y: .*, not both, got str 'b' and float nan", X, ["a", NAN, "b", "b"]),
    case(
        TypeError,
        r"y: .*, not both, got str 'a' and True",
        X,
        np.array(["a", True, "a", True], object),
    ),
    case(TypeError, r"y: .*, not both, got str 'a' and int 2", X, [["a"] * 3, [2] * 3] * 2),
    case(TypeError, r"y\[1\]: .*, not both, got str 'a' and int 2", X, [["a"] * 3, ["a", 2]] * 2),
    case(
        ValueError, r"y: expected no masked values, got 4", X, np.ma.masked_equal([1, 1, 1, 1], 1)
    ),
    case(ValueError, r"y: .* got \(4, 1\); .* use y\.ravel\(\)", X, np.array([Y]).T),
    case(
        ValueError,
        r"y: .* got \(4, 2\); several labels at once are columns of 0 and 1",
        X,
        np.eye(2, dtype=int)[Y] + 1,
    ),
    case(ValueError, r"y: shape \(4, 3\) could be 3 targets for each", X, np.zeros((4, 3), int)),
    case(ValueError, r"y: expected finite targets, got NaN", X, [0.5, NAN, 1, 2]),
    case(ValueError, r"y: expected finite targets, got inf", X, [0.5, 2, INF, 2]),
    case(
        ValueError, r"y: expected labels of at least 2 classes, got one class, 7", X, [7, 7, 7, 7]
    ),
    case(
        ValueError,
        r"y: expected shape \(4,\) or \(4, 3\) for classification, got \(4, 2\)",
        X,
        np.full((4, 2), 2),
    ),
    case(
        ValueError, r"y: expected shape .* for regression, got \(4, 2, 1\)", X, np.zeros((4, 2, 1))
    ),
    case(
        ValueError,
        r"y: expected .*a target for each step; got 2 in y\[1\], where there are 1 steps",
        LISTED,
        [[1, 2, 3], [1, 2], [], [1, 2]],
    ),
    case(
        ValueError, r"y: shape \(4, 3\) could be 3 targets for each sequence", X, np.zeros((4, 3))
    ),
    case(
        ValueError,
        r"y: expected targets of one shape, got shapes",
        LISTED,
        [[1.0, 2, 3], [[1.0]], [], [1.0, 2]],
    ),
    case(
        ValueError,
        r"y: expected at least one step with a target, got none",
        [X[0, :0], X[1, :0]],
        [[], []],
    ),
    # eval_set
    case(
        TypeError,
        r"eval_set: expected a tuple \(X, y\), \(X, y, lengths\) or .*, got list \[1\]",
        X,
        Y,
        eval_set=[1],
    ),
    case(ValueError, r"eval_set\[0\]: expected 2 features, got 1", X, Y, eval_set=(X[:, :, :1], Y)),
    case(
        ValueError,
        r"eval_set\[1\]: expected 4 targets, one for each sequence, got 2",
        X,
        Y,
        eval_set=(X, Y[:2]),
    ),
    case(
        ValueError,
        r"eval_set\[1\]: expected labels seen in fit \(0, 1\), got 5 too",
        X,
        Y,
        eval_set=(X, [0, 1, 5, 1]),
    ),
    case(
        TypeError,
        r"eval_set\[1\]: expected labels that are numbers, as in fit, got strings",
        X,
        Y,
        eval_set=(X, list("abab")),
    ),
    case(
        ValueError,
        r"eval_set\[2\]: expected lengths in 0\.\.3, got 9",
        X,
        Y,
        eval_set=(X, Y, [9, 1, 1, 1]),
    ),
    case(
        ValueError,
        r"eval_set\[3\]: expected finite weights >= 0, got -1 in sequence 2",
        X,
        Y,
        eval_set=(X, Y, None, [1, 1, -1, 1]),
    ),
    # sample_weight
    case(
        ValueError,
        r"sample_weight: expected finite weights >= 0, got -2 in sequence 1",
        X,
        Y,
        sample_weight=[1, -2, 1, 1],
    ),
    case(
        ValueError,
        r"sample_weight: expected shape \(4,\), got \(4, 3\)",
        X,
        Y,
        sample_weight=np.ones((4, 3)),
    ),
    case(
        ValueError,
        r"sample_weight: expected 4 weights, one for each sequence, got 3",
        X,
        Y,
        sample_weight=[1, 2, 3],
    ),
    case(
        ValueError,
        r"y: expected finite targets, got NaN",
        X,
        [0.5, NAN, 1, 2],
        sample_weight=[1] * 4,
    ),
]


@pytest.fixture
def model(monkeypatch):
    """An estimator that must not come as far as building a network."""
    monkeypatch.setattr(rnncore._core, "Network", None)
    return rnncore.LSTM(hidden_size=3)


@pytest.mark.parametrize(("args", "kwargs", "error", "match"), FIT_CASES)
def test_fit_refuses(args, kwargs, error, match, model):
    with pytest.raises(error, match=match):
        model.fit(*args, **kwargs)
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        case(
            ValueError,
            r"X: expected ids of shape \(n, T\), got shape \(4, 3, 2, 1\)",
            X[..., None].astype(int),
            Y,
        ),
        case(TypeError, r"X: expected integer ids, got float64 array", X[:, :, 0], Y),
        case(TypeError, r"X: expected integer ids, got bool array", X[:, :, 0] > 0, Y),
        case(TypeError, r"X\[0\]: expected integer ids, got float64 array", [[0.5], [1]], [0, 1]),
        case(
            ValueError,
            r"vocabulary_size: expected 6 ids or more, those of the vocabulary, got 5",
            [["the", "cat"], ["sat", "down"]],
            [0, 1],
        ),
        case(
            ValueError,
            r"X: expected as many ids a step everywhere, got shapes \(1, 2\) and \(1,\)",
            [[1], [[1, 2]]],
            [0, 1],
        ),
        case(
            ValueError,
            r"X\[1\]: expected ids of shape \(T,\), got shape \(1, 1, 2\)",
            [[1], [[[1, 2]]]],
            [0, 1],
        ),
        case(
            ValueError,
            r"X: expected ids in 0\.\.4, got 5 in sequence 3, step 1",
            [*IDS[:3], [2, 5]],
            Y,
        ),
        case(
            ValueError,
            r"X: expected ids in 0\.\.4, got -1 in sequence 1, step 0",
            [IDS[0], [-1]],
            [0, 1],
        ),
        case(ValueError, r"X: expected at least one sequence, got none", [], []),
    ],
)
@pytest.mark.parametrize("options", [{"embedding_dim": 2}, {"embedding": "one-hot"}], ids=str)
def test_fit_refuses_ids(args, kwargs, error, match, options, model):
    model.set_params(vocabulary_size=5, **options)
    with pytest.raises(error, match=match):
        model.fit(*args, **kwargs)


def test_fit_refuses_ids_without_a_vocabulary_to_be_found(model):
    model.set_params(embedding_dim=2)
    with pytest.raises(ValueError, match="X: expected a sequence with at least one id, got none"):
        model.fit([[], []], [0, 1])
    with pytest.raises(ValueError, match="X: expected ids >= 0, got -1 in sequence 1, step 2"):
        model.fit([[1], [2, 3, -1]], [0, 1])


@pytest.mark.parametrize("value", [NAN, 0.5])
def test_padding_of_ids_is_an_integer(value, model):
    model.set_params(embedding_dim=2, padding_value=value)
    with pytest.raises(
        ValueError, match=f"padding_value: expected an integer for ids, got {value}"
    ):
        model.fit(np.zeros((4, 3), int), Y)


def test_numbers_beyond_the_dtype_are_refused(model):
    with pytest.raises(ValueError, match=r"y: expected numbers that fit float32, got 1e\+300"):
        model.fit(X, [0.5, 1, 1e300, 2])


def test_integer_arrays_hint_at_embeddings(model):
    with pytest.raises(ValueError, match="for ids set embedding_dim or embedding='one-hot'"):
        model.fit(np.zeros((4, 3), int), Y)


@pytest.mark.parametrize(
    ("task", "output", "y", "match"),
    [
        (
            "classification",
            "auto",
            [0.5, 1, 2, 3],
            r"y: expected labels .* got the continuous number 0\.5",
        ),
        ("regression", "auto", list("abab"), r"y: expected numbers for regression, got .*str"),
        ("auto", "sequence", Y, r"y: expected shape \(4, 3\) for classification, got \(4,\)"),
        ("regression", "last", np.zeros((4, 3, 1)), r"y: expected shape \(4,\) or \(4, k\)"),
        ("classification", "last", np.full((4, 3), 2), r"y: expected shape \(4,\) for class"),
        ("regression", "mean", np.zeros((4, 3, 1)), r"y: expected shape \(4,\) or \(4, k\)"),
    ],
)
def test_fit_refuses_targets_that_are_not_what_was_asked_for(task, output, y, match, model):
    model.set_params(task=task, output=output)
    with pytest.raises((ValueError, TypeError), match=match):
        model.fit(X, y)


def test_models_beyond_memory_are_refused():
    model = rnncore.LSTM(4, embedding_dim=64)
    with pytest.raises(
        MemoryError,
        match=rf"do not fit into memory: .*vocabulary_size {10**12 + 1} \(above every id",
    ):
        model.fit([[10**12], [1]], [0, 1])  # say, a hash for an id
    assert not hasattr(model, "history_")
    for largest in (2**40, 2**62):
        with pytest.raises(MemoryError, match=rf"vocabulary_size {largest + 1} \(above every id"):
            rnncore.GRU(4, task="language_model").fit([1, largest])
    with pytest.raises(ValueError, match=rf"ids in 0\.\.{2**63 - 2}, got {2**64 - 1}$"):
        model.fit(np.array([[2**64 - 1]] * 2, np.uint64), [0, 1])
    with pytest.raises(MemoryError, match=f"memory: hidden sizes {2**22}$"):
        rnncore.GRU(2**22).fit(X, Y)


# Of language models.


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        case(ValueError, "y: expected None for a language model, .* got list", IDS, Y),
        case(ValueError, "X: expected a sequence of two ids or more, got none", [[1], [], [3]]),
        case(ValueError, "X: expected a sequence of two ids or more, got none", [3]),
        case(
            ValueError,
            "sample_weight: expected a weight above 0 for an id that follows another",
            [1, 2, 3],
            sample_weight=[1, 0, 0],
        ),
        case(
            ValueError, "X: expected one id a step for a language model, got 2", [[[1, 2], [3, 4]]]
        ),
        case(TypeError, r"X: expected integer ids, got float64 array of shape \(4, 3, 2\)", X),
        case(TypeError, "X: expected integer ids, got float64 array", np.zeros(5)),
        case(ValueError, "lengths: expected None beside one sequence", [1, 2, 3], lengths=[2]),
        case(ValueError, r"sample_weight: expected shape \(3,\)", [1, 2, 3], sample_weight=[1.0]),
        case(
            ValueError, r"eval_set\[0\]: expected ids in 0\.\.3, got 4", IDS, eval_set=([[4, 1]],)
        ),
        case(TypeError, r"eval_set: expected a tuple \(X,\), \(X, None, len", IDS, eval_set=()),
        case(
            ValueError,
            r"eval_set\[0\]: expected a sequence of two ids",
            IDS,
            eval_set=([[1], [2]],),
        ),
    ],
)
def test_fit_of_a_language_model_refuses(args, kwargs, error, match, model):
    model.set_params(task="language_model")
    with pytest.raises(error, match=match):
        model.fit(*args, **kwargs)


# After fit.


def test_a_refused_fit_leaves_the_model_as_it_was():
    model = rnncore.LSTM(2, max_epochs=1, random_state=0).fit(X, list("abab"))
    before = model.predict_proba(X)
    for bad in (changed(X, 0, NAN), X[:3]):
        with pytest.raises(ValueError, match="expected"):
            model.fit(bad, Y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.classes_.tolist() == ["a", "b"]


def test_good_input_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rnncore.LSTM(2, max_epochs=1).fit(LISTED, Y).predict(LISTED)
