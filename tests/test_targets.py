"""How y and weights are read."""

import numpy as np
import pytest

import rnncore
from rnncore._targets import check_targets, read_targets
from rnncore._weights import fitting, read_sample_weight, weights_of_classes

from .sequences import ids, objects, vectors


@pytest.fixture(name="X")
def small_block():
    return np.arange(24, dtype=np.float32).reshape(3, 4, 2)


# y.


def targets(y, sequences, task="auto", output="auto", **options):
    found = read_targets(y, sequences, task=task, output=output, **options)
    return found.task, "sequence" if found.per_step else "last", found.values.tolist()


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0, 1, 0], ("classification", "last", [0, 1, 0])),
        (["a", "b", "a"], ("classification", "last", ["a", "b", "a"])),
        (np.array(["a", "b", "a"], object), ("classification", "last", ["a", "b", "a"])),
        ([True, False, True], ("classification", "last", [True, False, True])),
        ([0.5, 1, 2], ("regression", "last", [0.5, 1, 2])),
        ([[0.5, 1], [1, 2], [2, 3]], ("regression", "last", [[0.5, 1], [1, 2], [2, 3]])),
        (np.zeros((3, 1)), ("regression", "last", [[0]] * 3)),
        (
            np.arange(12).reshape(3, 4),
            ("classification", "sequence", [0, 1, 8, 9, 10]),
        ),
        ([[5, 6], [], [7, 8, 9]], ("classification", "sequence", [5, 6, 7, 8, 9])),
        ([["x", "y"], [], ["z"] * 3], ("classification", "sequence", list("xyzzz"))),
        ([[0.5, 6], [], [7, 8, 9]], ("regression", "sequence", [0.5, 6, 7, 8, 9])),
        (
            np.arange(12.0).reshape(3, 4, 1),
            ("regression", "sequence", [[0], [1], [8], [9], [10]]),
        ),
        (
            [np.ones((2, 2)), np.ones((0, 2)), np.ones((3, 2))],
            ("regression", "sequence", [[1, 1]] * 5),
        ),
    ],
)
def test_kind_of_targets_is_found_by_type_and_shape(X, y, expected):
    assert targets(y, vectors(X, lengths=[2, 0, 3])) == expected
    in_list = vectors([X[0, :2], X[1, :0], X[2, :3]])
    if isinstance(y, np.ndarray) and y.ndim > 1 and y.shape[1] == 4:
        y = y[:, :3]  # padded to the longest of the list
        if expected[0] == "classification":
            expected = (*expected[:2], [0, 1, 8, 9, 10])
    assert targets(y, in_list) == expected


@pytest.mark.parametrize("form", [list, np.array], ids=["list", "array"])
def test_targets_of_padding_are_left_out(X, form):
    y = np.arange(12).reshape(3, 4)
    X[0, 2:] = X[1] = -1
    sequences = vectors(form(X), padding_value=-1)
    expected = ("classification", "sequence", [0, 1, 8, 9, 10, 11])
    for form in (y, list(y), y.tolist(), [y[0, :2], y[1, :0], y[2]]):
        assert targets(form, sequences) == expected


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b", "a"],
        [2, 1, 2],
        [True, False, True],
        [0.5, 1, 2],
        [["x", "y"], [], ["z"] * 3],
        [np.array([5, 6]), np.array([], int), np.array([7, 8, 9])],
        [np.ones((2, 2)), np.ones((0, 2)), np.ones((3, 2))],
    ],
    ids=repr,
)
def test_columns_of_objects_are_read_as_lists(X, y):
    sequences = vectors(X, lengths=[2, 0, 3])
    assert targets(objects(y), sequences) == targets(y, sequences)


def test_rectangles_of_strings_may_be_objects(X):
    y = np.array([["a", "b", "c", "d"]] * 3, object)
    expected = ("classification", "sequence", ["a", "b", "a", "b", "c"])
    assert targets(y, vectors(X, lengths=[2, 0, 3])) == expected


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="needs NumPy 2")
def test_strings_of_any_length():
    y = np.array(["short", "a rather long label", "short"], np.dtypes.StringDType())
    assert targets(y, vectors(np.zeros((3, 1, 1))))[2] == y.tolist()


def test_task_and_output_overrule_the_guess(X):
    sequences = vectors(X)
    assert targets([0, 1, 2], sequences, task="regression")[0] == "regression"
    assert targets([0.0, 1.0, 2.0], sequences, task="classification")[0] == "classification"
    square = np.arange(12.0).reshape(3, 4)
    with pytest.raises(ValueError, match="4 targets for each sequence, or one for each step"):
        targets(square, sequences)
    assert targets(square, sequences, output="last")[1:] == ("last", square.tolist())
    assert targets(square, sequences, output="sequence")[1:] == (
        "sequence",
        square.ravel().tolist(),
    )
    assert targets(square, sequences, task="classification")[1] == "sequence"


def test_integers_that_look_like_numbers_are_warned_of():
    X, counts = np.zeros((30, 2, 1)), np.arange(30)

    def fit(y, **options):
        return rnncore.RNN(1, max_epochs=1, **options).fit(X, y)

    with pytest.warns(UserWarning, match="as many as 30 differ: for numbers set task='reg") as met:
        assert fit(counts).task_ == "classification"
    assert met[0].filename == __file__
    fit(counts, task="classification")  # where a warning is an error
    fit(counts // 2)
    fit([str(count) for count in counts])
    rnncore.RNN(1).partial_fit(X, counts, classes=np.arange(40))


def test_columns_of_0_and_1_are_several_labels(X):
    sequences = vectors(X, lengths=[2, 0, 3])
    y = np.array([[0, 1], [1, 1], [0, 0]])
    assert targets(y, sequences) == ("classification", "last", y.tolist())
    assert targets(y.tolist(), sequences) == ("classification", "last", y.tolist())
    assert targets(y > 0, sequences)[2] == y.tolist()
    assert targets(y.astype(float), sequences)[0] == "regression"
    assert targets(y.astype(float), sequences, task="classification")[2] == y.tolist()
    steps = np.zeros((3, 4, 5), int)
    assert targets(steps, sequences) == ("classification", "sequence", [[0] * 5] * 5)
    assert targets([steps[0, :2], [], steps[1, :3]], sequences)[1:] == (
        "sequence",
        [[0] * 5] * 5,
    )
    with pytest.raises(ValueError, match=r"got \(3, 2\); several labels at once are columns of 0"):
        targets(y + 1, sequences)
    with pytest.raises(ValueError, match=r"got \(3, 2\)"):
        targets(y, sequences, columns=False)
    with pytest.raises(ValueError, match=r"got \(3, 1\); for a column of labels use y\.ravel\(\)"):
        targets(y[:, :1], sequences)


def test_columns_of_labels_are_not_taken_for_steps(X):
    y = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]])
    sequences = vectors(X)
    for form in (y, y.tolist(), list(y)):
        with pytest.raises(ValueError, match="4 targets for each sequence, or one for each step"):
            targets(form, sequences)
        assert targets(form, sequences, output="max")[1:] == ("last", y.tolist())
        assert targets(form, sequences, output="sequence")[1:] == ("sequence", y.ravel().tolist())
    assert targets(y, sequences, columns=False)[1] == "sequence"
    assert targets(y + 1, sequences)[1] == "sequence"
    assert targets(y, vectors(X, lengths=[1, 2, 3]), output="sequence")[2] == [0, 1, 1, 0, 0, 0]


def test_numbers_without_weight_may_be_missing():
    y = np.array([1.0, np.nan, 3.0])
    weights = np.array([1.0, 0.0, 2.0])
    assert check_targets(y, "regression", "y", weights).tolist() == [1, 0, 3]
    pairs = np.stack([y, y], axis=1)
    assert check_targets(pairs, "regression", "y", weights).tolist() == [[1, 1], [0, 0], [3, 3]]
    for given_weights in (None, weights[::-1] + 1):
        with pytest.raises(ValueError, match="y: expected finite targets, got NaN"):
            check_targets(y, "regression", "y", given_weights)


# Weights.


def sample_weight(weights, sequences, per_step):
    return read_sample_weight(weights, sequences, per_step, "sample_weight").tolist()


@pytest.mark.parametrize("form", [lambda X: X, list], ids=["array", "list"])
def test_weights_of_sequences_and_of_steps(X, form):
    X[0, 2:] = X[1] = -1
    sequences = vectors(form(X), padding_value=-1)
    assert read_sample_weight(None, sequences, True, "sample_weight") is None
    assert sample_weight([1, 2, 3], sequences, False) == [1, 2, 3]
    assert sample_weight([1, 2, 3], sequences, True) == [1, 1, 3, 3, 3, 3]
    steps = np.arange(12).reshape(3, 4)
    expected = [0, 1, 8, 9, 10, 11]
    for given_weights in (steps, list(steps), steps.tolist(), [steps[0, :2], [], steps[2]]):
        assert sample_weight(given_weights, sequences, True) == expected
    with pytest.raises(ValueError, match=r"sample_weight: expected shape \(3,\), got \(3, 4\)"):
        sample_weight(steps, sequences, False)
    with pytest.raises(ValueError, match=r"shape \(3,\) or \(3, 4\) or a list with a weight for"):
        sample_weight(steps[:, :3], sequences, True)


def test_weights_of_a_stream():
    sequences = ids([4, 5, 6], may_be_stream=True)
    assert sample_weight([1, 0, 2], sequences, True) == [1, 0, 2]
    with pytest.raises(ValueError, match=r"sample_weight: expected shape \(3,\), got .*\[1, 2\]"):
        sample_weight([1, 2], sequences, True)


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        ([1, -1, 1], ValueError, "expected finite weights >= 0, got -1 in sequence 1"),
        ([1, 1, np.nan], ValueError, "expected finite weights >= 0, got NaN in sequence 2"),
        ([0, 0, 0], ValueError, "expected a weight above 0, got zero everywhere"),
        (["a", "b", "c"], TypeError, "expected numbers, got"),
        ([1, 1], ValueError, "expected 3 weights, one for each sequence, got 2"),
    ],
)
def test_weights_that_are_none(X, weights, error, match):
    with pytest.raises(error, match=f"sample_weight: {match}"):
        sample_weight(weights, vectors(X), False)
    if len(weights) == 3 and error is ValueError and "zero" not in match:
        at = match.rsplit(" in ")[0]
        with pytest.raises(error, match=f"sample_weight: {at} in sequence ., step 0"):
            sample_weight(np.repeat(weights, 4).reshape(3, 4), vectors(X), True)


def test_weights_of_classes_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    codes = np.array([0, 0, 0, 2, 1, 1])
    classes = np.array(["a", "b", "c"])
    expected = compute_class_weight("balanced", classes=classes, y=classes[codes])
    np.testing.assert_allclose(weights_of_classes("balanced", classes, codes), expected)
    assert weights_of_classes({"a": 2, "c": 0}, classes, codes).tolist() == [2, 1, 0]
    assert weights_of_classes("balanced", classes, codes[:3]).tolist() == [1 / 3, 0, 0]
    numbers = np.array([3, 7])
    assert weights_of_classes({7: 5, 3: 1, 9: 4}, numbers, codes[:3]).tolist() == [1, 5]
    with pytest.raises(
        ValueError, match=r"class_weight: expected the classes of y, .* got 8 and no 3"
    ):
        weights_of_classes({7: 5, 8: 1}, numbers, codes[:3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-300, 1e-40, 1.0, 1e30, 1e300])
def test_only_the_proportions_of_weights_count(size, dtype):
    weights = fitting(size * np.array([0.0, 1.0, 0.5, 0.25]), dtype)
    assert weights.dtype == dtype
    assert 1e-30 < weights.max() < 1e31
    np.testing.assert_allclose(weights / weights.max(), [0, 1, 0.5, 0.25], rtol=1e-6)
    assert fitting(np.zeros(2), dtype).tolist() == [0, 0]
