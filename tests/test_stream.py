"""Streams: the same bits, step by step, as the whole sequence at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

import rnncore

STEPS = 6
BATCH = 3

CELLS = [
    (rnncore.LSTM, {}),
    (rnncore.LSTM, {"learn_initial_state": True}),
    (rnncore.GRU, {}),
    (rnncore.GRU, {"learn_initial_state": True}),
    *[
        (rnncore.RNN, {"nonlinearity": name, "residual": residual})
        for name in ("tanh", "relu", "leaky_relu", "softsign", "sigmoid")
        for residual in (False, True)
    ],
]
SIZES = [(5,), (17,), (4, 3), (3, 9, 2)]
INPUTS = ["vectors", "ids", "one-hot", "rows of ids"]
TASKS = ["classes", "two classes", "number", "numbers", "labels"]


def make_X(rng, kind):
    if kind == "vectors":
        return rng.standard_normal((8, STEPS, 2))
    return rng.integers(0, 5, (8, STEPS, 3) if kind == "rows of ids" else (8, STEPS))


def make_y(rng, task, per_step):
    shape = (8, STEPS) if per_step else (8,)
    if task == "classes":
        y = np.array(["a", "b", "c"])[rng.integers(0, 3, shape)]
        y.flat[:3] = ["a", "b", "c"]
        return y
    if task == "two classes":
        y = rng.integers(0, 2, shape)
        y.flat[:2] = [0, 1]
        return y
    if task == "number":
        return rng.standard_normal(shape)
    if task == "numbers":
        return rng.standard_normal((*shape, 2))
    return rng.integers(0, 2, (*shape, 4))


def fit(cell, sizes, kind, task, output, dtype, seed):
    estimator, options = cell
    rng = np.random.default_rng(seed)
    X = make_X(rng, kind)
    if kind == "one-hot":
        options = {**options, "embedding": "one-hot"}
    elif kind != "vectors":
        options = {**options, "embedding_dim": 4, "masked_id": 0}
    if task in ("two classes", "labels"):
        options = {**options, "loss": "binary_cross_entropy"}
    model = estimator(
        sizes,
        task="regression" if task.startswith("number") else "classification",
        output=output,
        max_epochs=1,
        batch_size=4,
        dtype=dtype,
        random_state=seed,
        **options,
    )
    return model.fit(X, make_y(rng, task, output == "sequence")), X


@given(
    st.sampled_from(CELLS),
    st.sampled_from(SIZES),
    st.sampled_from(INPUTS),
    st.sampled_from(TASKS),
    st.sampled_from(["last", "mean", "max", "sequence"]),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(["predict", "predict_proba", "transform"]),
    st.integers(0, 1000),
)
@settings(max_examples=60)
def test_steps_give_the_bits_of_the_whole_sequence(
    cell, sizes, kind, task, output, dtype, method, seed
):
    model, X = fit(cell, sizes, kind, task, output, dtype, seed)
    if method == "predict_proba" and task.startswith("number"):
        method = "predict"
    stream = model.stream(BATCH, method)
    whole = getattr(model, method)(X[:BATCH])
    for step in range(STEPS):
        got = stream.step(X[:BATCH, step])
        if output == "sequence":
            want = whole[:, step]
        else:
            want = getattr(model, method)(X[:BATCH, : step + 1])
        np.testing.assert_array_equal(got, want, strict=True)


def test_every_cell_and_output():
    for cell in CELLS:
        for output in ("last", "mean", "max", "sequence"):
            model, X = fit(cell, (4, 3), "vectors", "classes", output, "float32", 1)
            stream = model.stream(BATCH, "predict_proba")
            for step in range(STEPS):
                got = stream.step(X[:BATCH, step])
            want = model.predict_proba(X[:BATCH])
            np.testing.assert_array_equal(got, want[:, -1] if output == "sequence" else want)


@pytest.fixture(scope="module")
def fitted():
    return fit(CELLS[0], (4, 3), "vectors", "number", "last", "float32", 0)


def test_rows_begin_anew(fitted):
    model, X = fitted
    stream = model.stream(BATCH)
    for step in range(3):
        stream.step(X[:BATCH, step])
    stream.reset([1])
    after = stream.step(X[:BATCH, 3])
    np.testing.assert_array_equal(after[[0, 2]], model.predict(X[[0, 2], :4]))
    np.testing.assert_array_equal(after[[1]], model.predict(X[[1], 3:4]))
    stream.reset(np.array([True, False, True]))
    after = stream.step(X[:BATCH, 4])
    np.testing.assert_array_equal(after[[0, 2]], model.predict(X[[0, 2], 4:5]))
    np.testing.assert_array_equal(after[[1]], model.predict(X[[1], 3:5]))
    stream.reset([])
    stream.reset()
    np.testing.assert_array_equal(stream.step(X[:BATCH, 0]), model.predict(X[:BATCH, :1]))


@pytest.mark.parametrize("output", ["last", "mean", "max"])
def test_a_state_can_be_kept(output):
    model, X = fit(CELLS[1], (4, 3), "vectors", "number", output, "float64", 0)
    stream = model.stream(BATCH)
    stream.step(X[:BATCH, 0])
    kept = stream.state
    assert all(isinstance(array, np.ndarray) for array in kept.values())
    expected = stream.step(X[:BATCH, 1])
    other = model.stream(BATCH)
    other.state = kept
    np.testing.assert_array_equal(other.step(X[:BATCH, 1]), expected)
    for array in kept.values():
        array[...] = 0  # a copy: nothing depends on it
    stream.step(X[:BATCH, 2])


def test_a_stream_keeps_the_weights_it_began_with():
    model, X = fit(CELLS[0], (4,), "vectors", "number", "last", "float32", 0)
    expected = model.predict(X[:1, :1])
    stream = model.stream()
    model.fit(X + 1, np.arange(8.0))
    np.testing.assert_array_equal(stream.step(X[:1, 0]), expected)


def test_wrong_shapes_are_named(fitted):
    model, X = fitted
    stream = model.stream(BATCH)
    assert repr(stream) == "Stream(batch_size=3, method='predict')"
    stream.step(X[:BATCH, 0])
    for x, message in [
        (X[0, 0], r"x: expected shape \(3, 2\), got \(2,\)"),
        (X[:2, 0], r"x: expected shape \(3, 2\), got \(2, 2\)"),
        (X[:3], r"x: expected shape \(3, 2\), got \(3, 6, 2\)"),
        (np.full((3, 2), np.nan), "x: expected finite numbers, got nan in row 0"),
        (
            np.float32([[0, 1], [2, 3], [-np.inf, 4]]),
            "x: expected finite numbers, got -inf in row 2",
        ),
        (np.full((3, 2), "a"), "x: expected real numbers, got str array"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            stream.step(x)
    # Nothing moved on.
    np.testing.assert_array_equal(stream.step(X[:BATCH, 1]), model.predict(X[:BATCH, :2]))
    for rows, message in [
        ([3], r"rows: expected rows in 0\.\.2, got 3"),
        ([-1], r"rows: expected rows in 0\.\.2, got -1"),
        ([0.5], "rows: expected integers, got float64 array"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            stream.reset(rows)
    state = stream.state
    name = next(iter(state))
    for wrong, message in [
        (3, "state: expected a mapping of arrays, got int 3"),
        ({}, "state: expected the names"),
        ({**state, name: state[name][..., :-1]}, r"state\['.*'\]: expected shape"),
        ({**state, name: np.full(state[name].shape, "a")}, r"state\['.*'\]: expected float32"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            stream.state = wrong


def test_vectors_of_any_finite_size_layout_and_type_are_taken(fitted):
    model, X = fitted
    # Their squares are beyond float32.
    huge = np.where(X[:BATCH, :1] > 0, 1e30, -1e30)
    for same in [
        huge.astype(np.float32),
        huge,
        np.asfortranarray(huge.astype(np.float32)),
        np.repeat(huge.astype(np.float32), 2, axis=2)[..., ::2],
    ]:
        expected = model.predict(huge.astype(np.float32))
        np.testing.assert_array_equal(model.stream(BATCH).step(same[:, 0]), expected)


def test_wrong_ids_are_named():
    model, X = fit(CELLS[2], (4,), "ids", "classes", "last", "float32", 0)
    stream = model.stream(2)
    with pytest.raises(ValueError, match=r"x: expected shape \(2,\), got \(2, 1\)"):
        stream.step(X[:2, :1])
    with pytest.raises(ValueError, match=r"x\[1\]: expected an identifier >= 0 and under 5, got 5"):
        stream.step([0, 5])
    with pytest.raises(ValueError, match=r"x\[0\]: expected an identifier >= 0 .*, got -1"):
        stream.step([-1, 5])
    with pytest.raises(TypeError, match="x: expected integer ids, got float64"):
        stream.step([0.0, 1.0])
    with pytest.raises(ValueError, match=rf"x: expected ids in 0\.\.\d+, got {2**64 - 1}"):
        stream.step(np.array([0, 2**64 - 1], np.uint64))


def test_words_are_looked_up():
    model = rnncore.GRU(4, embedding_dim=3, max_epochs=2, random_state=0)
    model.fit([["the", "dog"], ["a", "cat", "ran"]], [["D", "N"], ["D", "N", "V"]])
    stream = model.stream()
    tags = [stream.step([word])[0] for word in ["the", "unheard", "ran"]]
    assert tags == list(model.predict([["the", "unheard", "ran"]])[0])
    with pytest.raises(TypeError, match="x: expected a list of 1 words, got str 'the'"):
        stream.step("the")


def test_ids_are_taken_for_words_and_no_words_for_ids():
    model = rnncore.GRU(2, max_epochs=1, random_state=0).fit(["a b", "b"], [0, 1])
    by_word, by_id = (model.stream(method="transform") for _ in range(2))
    for word in "ab":
        expected = by_word.step([word])
        np.testing.assert_array_equal(by_id.step([model.vocabulary_.vocabulary_[word]]), expected)
    model = rnncore.GRU(2, max_epochs=1, embedding_dim=2).fit([[0, 1], [1]], [0, 1])
    with pytest.raises(TypeError, match="x: expected integer ids, got str array"):
        model.stream().step(["a"])


def test_what_is_no_word_is_named():
    model = rnncore.GRU(2, max_epochs=1).fit(["a b", "b"], [0, 1])
    with pytest.raises(TypeError, match=r"x\[0\]: expected words that are strings, got int 3"):
        model.stream(2).step(["a", 3])


def test_a_step_of_one_sequence_is_answered_with_how_to_pass_it():
    X, y = np.ones((4, 2, 3)), [0, 1, 0, 1]
    for model, x, advice in [
        (
            rnncore.LSTM(2, max_epochs=1).fit(X, y),
            X[0, 0],
            r"\(1, 3\), got \(3,\); .* use x\[None\]$",
        ),
        (
            rnncore.LSTM(2, max_epochs=1, embedding_dim=2).fit([[1]] * 4, y),
            1,
            r"got \(\); .* \[x\]$",
        ),
    ]:
        with pytest.raises(ValueError, match="x: expected shape .*" + advice):
            model.stream().step(x)
        with pytest.raises(ValueError, match=r"got \(3?,?\)$"):
            model.stream(2).step(x)


def test_what_cannot_stream_is_named():
    X, y = np.ones((4, 2, 1)), np.array([0.0, 1.0, 2.0, 3.0])
    with pytest.raises(NotFittedError):
        rnncore.LSTM().stream()
    both = rnncore.LSTM(3, bidirectional=True, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="forwards alone, got bidirectional=True"):
        both.stream()
    model = rnncore.LSTM(3, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="method: expected 'predict' or 'transform' for regress"):
        model.stream(method="predict_proba")
    with pytest.raises(ValueError, match="method: expected one of 'predict', 'predict_proba', 'tr"):
        model.stream(method="score")
    with pytest.raises(ValueError, match="batch_size: expected an integer >= 1, got 0"):
        model.stream(0)
