"""How X, y and lengths become the flat arrays of the training loop, and results X's form again."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from rnncore._data import holds_text
from rnncore._labelled import Labelled, split

from .sequences import ids, objects, vectors


class Column:
    """A column of a table by a library whose dtypes are not NumPy's."""

    dtype = "String"

    def __init__(self, values):
        self.values = np.array(values)
        self.shape = self.values.shape

    def __array__(self, dtype=None, copy=None):
        return self.values


def steps_of(sequences):
    return [
        sequences.values[start : start + length].tolist()
        for start, length in zip(sequences.starts, sequences.lengths, strict=True)
    ]


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
    X = np.zeros((1000, 100), np.int64)
    tracemalloc.start()
    read = ids(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read.real() is read.values
    assert peak < X.nbytes / 2  # what checks them takes a byte for each


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
    with pytest.raises(ValueError, match=r"got NaN in sequence 0, step 2"):
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


def test_padding_may_stand_on_the_left(X):
    X[0, :2] = X[1] = -1
    for form in (X, list(X)):
        sequences = vectors(form, padding_value=-1, left=True)
        assert sequences.starts.tolist() == [2, 8, 8]
        assert steps_of(sequences) == [X[0, 2:].tolist(), [], X[2].tolist()]
    given = vectors(X, lengths=[2, 0, 3], left=True)
    assert steps_of(given) == [X[0, 2:].tolist(), [], X[2, 1:].tolist()]
    with pytest.raises(ValueError, match="got NaN in sequence 2, step 3, feature 1"):
        vectors(np.where(np.arange(24).reshape(X.shape) == 23, np.nan, X), [2, 0, 3], left=True)


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    left=st.booleans(),
    width=st.integers(1, 3),
    data=st.data(),
)
def test_padding_is_found_on_either_side(lengths, left, width, data):
    longest = max(lengths) + data.draw(st.integers(0, 2))
    block = np.full((len(lengths), longest, width), -1)
    y = np.full((len(lengths), longest), -1)
    count = 0
    for row, tags, length in zip(block, y, lengths, strict=True):
        steps = slice(longest - length, None) if left else slice(length)
        row[steps] = count + np.arange(length)[:, None]
        tags[steps] = count + np.arange(length)
        count += length
    options = {"padding_value": -1, "left": left}
    for sequences in (
        vectors(block, **options),
        vectors(list(block), **options),
        vectors(block, lengths=lengths, left=left),
        ids(block, **options, ids_per_step=None),
        ids(list(block), **options, ids_per_step=None),
    ):
        values = sequences.values.reshape(-1, width)[sequences.rows(), 0]
        assert values.tolist() == list(range(count))
        assert sequences.lengths.tolist() == lengths
        assert sequences.real_of(y).tolist() == list(range(count))
        back = np.array(sequences.shape_like_input(np.arange(count) + 1))
        np.testing.assert_array_equal(back, y + 1)
        if count:
            at = data.draw(st.integers(0, count - 1))
            assert y[sequences.locate(at)] == at


def test_several_ids_a_step():
    X = [[[1, 2], [3, 4]], [], [[5, 6]]]
    sequences = ids(X, ids_per_step=None)
    assert steps_of(sequences) == X
    assert ids(X, ids_per_step=2).values.shape == (3, 2)
    array = np.arange(12).reshape(2, 3, 2)
    assert steps_of(ids(array, lengths=[1, 2], ids_per_step=None)) == [
        array[0, :1].tolist(),
        array[1, :2].tolist(),
    ]
    assert ids(np.ones((2, 3, 1), int)).values.shape == (6,)
    with pytest.raises(
        ValueError, match=r"X: expected ids of shape \(n, T\), got shape \(2, 3, 2\)"
    ):
        ids(array)
    with pytest.raises(
        ValueError, match=r"X\[0\]: expected ids of shape \(T, 3\), got shape \(2, 2"
    ):
        ids(X, ids_per_step=3)
    with pytest.raises(ValueError, match="as many ids a step everywhere"):
        ids([[[1, 2]], [[1]]], ids_per_step=None)
    with pytest.raises(ValueError, match=r"ids in 0\.\.5, got 6 in sequence 2, step 0"):
        ids(X, ids_per_step=None, vocabulary_size=6)


@pytest.mark.parametrize("form", [list, np.array, tuple])
def test_one_stream_of_ids(form):
    sequences = ids(form([3, 1, 2]), may_be_stream=True)
    assert sequences.stream
    assert steps_of(sequences) == [[3, 1, 2]]
    assert sequences.shape_like_input(np.array([5, 6, 7])).tolist() == [5, 6, 7]
    assert not ids([[3, 1, 2]], may_be_stream=True).stream
    with pytest.raises(ValueError, match="for one sequence use"):
        ids(form([3, 1, 2]))
    with pytest.raises(TypeError, match="expected integer ids"):
        ids(form([0.5, 1]), may_be_stream=True)


def test_text_is_told_from_numbers():
    for text in ("a", ["a"], [[], ["a"]], np.array(["a"]), [np.array(["a"])], objects(["a", "b"])):
        assert holds_text(text)
    for other in ([[1]], [], [[], []], None, 3, [None], np.zeros(3), [np.zeros((2, 2))]):
        assert not holds_text(other)
    assert not holds_text([csr_array((2, 2))])  # which has no len
    assert holds_text(Column(["a"]))
    assert not holds_text(Column([1]))


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


# What a network is trained on.


def of_steps(lengths, weights=None):
    """Join sequences of these lengths, 3 rows apart, with targets that count the rows."""
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths) + 3)])
    rows = np.arange(offsets[-1])
    return Labelled(
        rows.astype(float), offsets[:-1], np.array(lengths), rows, weights, True, "float64"
    )


def test_next_ids_are_targets():
    sequences = ids(np.array([[4, 5, 6, 0], [7, 0, 0, 0], [0, 0, 0, 0]]), padding_value=0)
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    data = Labelled.of_next_ids(sequences, weights, "float32", "X")
    assert data.lengths.tolist() == [2, 0, 0]
    assert data.targets[:2].tolist() == [5, 6]
    np.testing.assert_allclose(data.weights[:2], [0.2, 0.3], rtol=1e-6)
    with pytest.raises(ValueError, match="X: expected a sequence of two ids or more, got none"):
        Labelled.of_next_ids(ids([[1], []]), None, "float32", "X")


@given(steps=st.integers(1, 300), count=st.integers(1, 40), shortest=st.integers(1, 70))
def test_streams_cover_a_sequence_evenly(steps, count, shortest):
    data = of_steps([steps]).streams(count, shortest)
    np.testing.assert_array_equal(np.cumsum(data.lengths)[:-1], data.starts[1:])
    assert data.starts[0] == 0
    assert data.lengths.sum() == steps
    assert len(data) <= count
    assert np.ptp(data.lengths) <= 1
    assert len(data) == 1 or data.lengths.min() >= shortest
    assert len(data) == count or steps // (len(data) + 1) < shortest


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_a_split_keeps_the_shares_of_the_classes(labels, fraction, seed):
    codes = np.array(labels)
    n = len(codes)
    data = Labelled(np.zeros((n, 1)), np.arange(n), np.ones(n, int), codes, None, False, "float32")
    train, held = split(data, fraction, np.random.default_rng(seed), True)
    assert sorted([*train.starts, *held.starts]) == list(range(n))
    assert len(held) == min(max(round(fraction * n), 1), n - 1)
    np.testing.assert_array_equal(train.targets, codes[train.starts])
    for code in np.unique(codes):
        share = (codes == code).sum() * len(held) / n
        assert abs((held.targets == code).sum() - share) <= 1.5
    again = split(data, fraction, np.random.default_rng(seed), True)[1]
    np.testing.assert_array_equal(again.starts, held.starts)


def test_a_split_takes_sequences_whole_and_the_tail_of_one():
    train, held = split(of_steps([3, 4, 5, 0]), 0.5, np.random.default_rng(0), False)
    assert sorted([*train.lengths, *held.lengths]) == [0, 3, 4, 5]
    assert len(train.targets) == len(held.targets) == 24
    train, held = split(of_steps([20]), 0.1, np.random.default_rng(0), False)
    assert (train.starts, train.lengths) == ([0], [18])
    assert (held.starts, held.lengths) == ([18], [2])
    single = of_steps([1])
    with pytest.raises(
        ValueError, match=r"early_stopping: expected at least 2 sequences, .* got 1"
    ):
        split(single, 0.1, np.random.default_rng(0), False)


def test_weights_of_classes_reach_the_targets_that_count():
    data = of_steps([2, 1])
    codes = np.array([0, 1, 9, 9, 9, 1, 9, 9, 9]).clip(max=2)  # 2 where there is padding
    data = Labelled(data.values, data.starts, data.lengths, codes, np.ones(9), True, "float32")
    assert data.counted_codes().tolist() == [0, 1, 1]
    weighed = data.weighed_by_class(np.array([3.0, 5.0, 7.0]))
    assert weighed.weights[[0, 1, 5]].tolist() == [3, 5, 5]
    assert weighed.weights.dtype == np.float32
    weighed = weighed.weighed_by_class(np.array([0.0, 1.0, 1.0]))
    assert weighed.counted_codes().tolist() == [1, 1]
