"""How X, y and lengths become the flat arrays of the training loop, and results X's form again."""

import numpy as np
import pytest

from rnncore._data import read_ids, read_vectors
from rnncore._targets import read_targets


def vectors(X, lengths=None, padding_value=None, n_features=None, dtype="float32"):
    return read_vectors(X, lengths, padding_value=padding_value, n_features=n_features, dtype=dtype)


def ids(X, lengths=None, padding_value=None, vocabulary_size=None):
    return read_ids(X, lengths, padding_value=padding_value, vocabulary_size=vocabulary_size)


def steps_of(sequences):
    return [
        sequences.values[start : start + length].tolist()
        for start, length in zip(sequences.starts, sequences.lengths, strict=True)
    ]


def objects(items):
    """Return a one-dimensional array of objects, as a column of a table holds them."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.fixture(name="X")
def small_block():
    return np.arange(24, dtype=np.float32).reshape(3, 4, 2)


# X.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padded_floats_are_not_copied(X, dtype):
    X = X.astype(dtype)
    sequences = vectors(X, lengths=[4, 0, 2], dtype=dtype)
    assert np.shares_memory(sequences.values, X)
    assert sequences.values.shape == (12, 2)
    assert sequences.starts.tolist() == [0, 4, 8]
    assert sequences.lengths.tolist() == [4, 0, 2]
    assert steps_of(sequences) == [X[0].tolist(), [], X[2, :2].tolist()]


def test_int64_ids_are_not_copied():
    X = np.array([[1, 2, 0], [3, 0, 0]])
    assert np.shares_memory(ids(X).values, X)


def test_lists_are_laid_end_to_end(X):
    X = [X[0], X[1, :0], X[2, :3]]
    sequences = vectors(X)
    assert sequences.steps is None
    assert sequences.starts.tolist() == [0, 4, 4]
    assert steps_of(sequences) == [x.tolist() for x in X]
    assert sequences.values.flags.c_contiguous


def test_columns_of_sequences_are_read_as_lists(X):
    ragged = [X[0], X[1, :0], X[2, :3]]
    assert steps_of(vectors(objects(ragged))) == steps_of(vectors(ragged))
    words = [[1, 2], [], [3]]
    sequences = ids(objects(words))
    assert steps_of(sequences) == words
    assert sequences.steps is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a.astype(">f8"), id="big-endian"),
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda a: a.astype(np.float16), id="half"),
        pytest.param(lambda a: a.astype(np.int16), id="int"),
        pytest.param(lambda a: a.repeat(2, axis=1)[:, ::2], id="strided"),
        pytest.param(
            lambda a: np.frombuffer(b"x" + a.tobytes(), "u1")[1:].view("f4").reshape(a.shape),
            id="unaligned and read-only",
        ),
    ],
)
@pytest.mark.parametrize("form", [lambda a: a, list], ids=["array", "list"])
def test_formats_of_arrays_do_not_matter(X, change, form):
    sequences = vectors(form(change(X)))
    np.testing.assert_array_equal(sequences.values, X.reshape(-1, 2))
    assert sequences.values.dtype == np.float32
    assert sequences.values.dtype.isnative
    assert sequences.values.flags.c_contiguous
    assert sequences.values.flags.aligned


@pytest.mark.parametrize("value", [np.nan, 0.0, -1])
def test_padding_value_ends_sequences(X, value):
    X[0, 0] = 0 if value == 0 else 5  # a step of the padding's value that is followed by others
    X[0, 3:] = X[1] = X[2, 2:] = value
    X[2, 1, 0] = 0 if value == 0 else 5  # not a whole step of it
    assert vectors(X, padding_value=value).lengths.tolist() == [3, 0, 2]
    assert vectors(X.astype(np.float64), padding_value=value).lengths.tolist() == [3, 0, 2]
    in_list = vectors(list(X), padding_value=value)
    assert in_list.lengths.tolist() == [3, 0, 2]
    np.testing.assert_array_equal(in_list.values, X.reshape(-1, 2))
    if np.isfinite(value):
        given = vectors(X, lengths=[4, 4, 4], padding_value=value)
        assert given.lengths.tolist() == [4, 4, 4]


def test_padding_value_of_ids():
    X = np.array([[0, 4, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    for form in (X, X.tolist(), [X[0, :3], X[1, :0], X[2]]):
        assert ids(form, padding_value=0).lengths.tolist() == [2, 0, 4]
    X[X == 0] = -1
    assert ids(X[2:], padding_value=-1).lengths.tolist() == [4]
    assert ids(np.array([[3, -1, -1]]), padding_value=-1).lengths.tolist() == [1]


def test_padding_may_hold_anything(X):
    X[0, 2:] = np.nan
    X[1, 1:] = np.inf
    assert vectors(X, lengths=[2, 1, 4]).lengths.tolist() == [2, 1, 4]
    with pytest.raises(ValueError, match=r"got nan in sequence 0, step 2"):
        vectors(X, lengths=[3, 1, 4])
    with pytest.raises(ValueError, match=r"got inf in sequence 1, step 1"):
        vectors(X, lengths=[2, 3, 4])
    assert ids(
        np.array([[1, -9], [99, 2]]), lengths=[1, 0], vocabulary_size=5
    ).lengths.tolist() == [1, 0]


def test_numbers_beyond_the_dtype_are_found():
    X = np.full((1, 2, 1), 1e300)
    assert vectors(X, dtype="float64").lengths.tolist() == [2]
    with pytest.raises(ValueError, match=r"finite numbers \(in float32\), got inf"):
        vectors(X)
    large = np.full((1, 4, 1), 1e38, np.float32)  # their sum is infinite
    assert vectors(large).lengths.tolist() == [4]


def test_no_steps_at_all():
    assert vectors(np.zeros((2, 0, 3))).lengths.tolist() == [0, 0]
    assert vectors([np.zeros((0, 3)), []]).lengths.tolist() == [0, 0]
    assert ids([[], []]).lengths.tolist() == [0, 0]
    assert vectors([[], [[1.0, 2.0]]]).lengths.tolist() == [0, 1]


# Results.


def test_results_per_step_take_the_form_of_x(X):
    sequences = vectors(X, lengths=[2, 0, 3])
    flat = np.arange(1.0, 6.0)
    assert sequences.rows().tolist() == [0, 1, 8, 9, 10]
    assert sequences.shape_like_input(flat).tolist() == [[1, 2, 0, 0], [0] * 4, [3, 4, 5, 0]]
    pairs = sequences.shape_like_input(np.stack([flat, -flat], axis=1))
    assert pairs.shape == (3, 4, 2)
    assert pairs[2, 1].tolist() == [4, -4]
    words = sequences.shape_like_input(np.array(["a", "b", "c", "d", "e"]))
    assert words[0].tolist() == ["a", "b", "", ""]
    padded = vectors([X[0], X[1, :0], np.zeros((2, 2))], padding_value=0).shape_like_input(
        np.arange(1.0, 5.0)
    )
    assert [part.tolist() for part in padded] == [[1, 2, 3, 4], [], [0, 0]]
    from_list = vectors([X[0, :2], X[1, :0], X[2, :3]]).shape_like_input(flat)
    assert [part.tolist() for part in from_list] == [[1, 2], [], [3, 4, 5]]


# y.


def targets(y, sequences, task="auto", output="auto"):
    found = read_targets(y, sequences, task=task, output=output)
    return found.task, found.output, found.values.tolist()


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
    for given in (y, list(y), y.tolist(), [y[0, :2], y[1, :0], y[2]]):
        assert targets(given, sequences) == expected


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
