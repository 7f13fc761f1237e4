"""What training and scores make of the data and the parameters that speak of them."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import rnncore

from .models import assert_same_bits
from .sequences import as_unaligned


@pytest.mark.parametrize("kind", ["vectors", "ids", "one sequence of ids"])
def test_arrays_at_odd_addresses_are_taken(kind, rng):
    X = rng.integers(0, 5, (6, 7))
    y, lengths, weights = rng.standard_normal((6, 7)), rng.integers(1, 8, 6), rng.random((6, 7))
    options = {"random_state": 0, "max_epochs": 2, "embedding": rng.standard_normal((5, 3))}
    options["output"] = "sequence"
    named = {"y": y, "lengths": lengths, "sample_weight": weights}
    if kind == "vectors":
        X = rng.standard_normal((6, 7, 2)).astype(np.float32)
        del options["embedding"]
    elif kind != "ids":
        X, named = X.ravel(), {"sample_weight": weights.ravel()}
        options["task"] = "language_model"
    model = rnncore.GRU(5, **options).fit(X, **named)
    odd = {name: as_unaligned(array) for name, array in named.items()}
    if "embedding" in options:
        options["embedding"] = as_unaligned(options["embedding"])
    assert_same_bits(rnncore.GRU(5, **options).fit(as_unaligned(X), **odd), model)
    stream, same = model.stream(2), model.stream(2)
    x = X[:2] if X.ndim == 1 else X[:2, 0]
    np.testing.assert_array_equal(stream.step(as_unaligned(x)), same.step(x))
    stream.state = {name: as_unaligned(array) for name, array in same.state.items()}
    for one in (stream, same):
        one.reset(as_unaligned(np.array([1])))
    np.testing.assert_array_equal(stream.step(x), same.step(x))


def test_a_score_of_many_has_no_rounding(rng):
    X = np.zeros((200_000, 1, 1), np.float32)
    y = (1000 + rng.standard_normal((len(X), 2))).astype(np.float32)
    model = rnncore.RNN(1, max_epochs=1, random_state=0).fit(X[:2], y[:2])
    expected = r2_score(y.astype(np.float64), model.predict(X).astype(np.float64))
    assert model.score(X, y) == pytest.approx(expected, rel=1e-9)


def test_a_target_that_weighs_nothing_may_be_any_number(rng):
    X, y, weights = rng.standard_normal((4, 3, 2)), [0.5, 1e300, 1.0, 2.0], [1, 0, 1, 1]
    options = {"max_epochs": 2, "random_state": 0}
    model = rnncore.GRU(3, **options).fit(X, y, sample_weight=weights)
    same = rnncore.GRU(3, **options).fit(X, [0.5, np.nan, 1.0, 2.0], sample_weight=weights)
    assert_same_bits(model, same)
    kept = [0, 2, 3]
    expected = model.score(X[kept], [y[i] for i in kept])
    assert model.score(X, y, sample_weight=weights) == pytest.approx(expected)


def test_padding_has_no_label(rng):
    pd = pytest.importorskip("pandas")
    X, lengths = rng.standard_normal((3, 4, 2)), [2, 4, 1]
    tags = [["a", "b", None, None], ["b", "a", "a", "b"], ["a", None, None, None]]
    options = {"max_epochs": 2, "random_state": 0}
    ragged = [row[:length] for row, length in zip(tags, lengths, strict=True)]
    expected = rnncore.GRU(3, **options).fit(X, ragged, lengths=lengths)
    for y in (np.array(tags, object), pd.DataFrame(tags), pd.DataFrame(tags).fillna(np.nan)):
        model = rnncore.GRU(3, **options).fit(X, y, lengths=lengths)
        assert_same_bits(model, expected)
        assert model.score(X, y, lengths=lengths) == expected.score(X, ragged, lengths=lengths)
    with pytest.raises(TypeError, match="y: expected numbers or strings"):
        rnncore.GRU(3).fit(X, np.array(tags, object), lengths=[3, 4, 1])


def test_the_vocabulary_that_made_the_ids_stays_with_them():
    vocabulary = rnncore.text.Vocabulary().fit(["a b c d e"])
    train, texts = ["a b", "b a a"], ["e d", "c"]
    options = {"embedding_dim": 3, "max_epochs": 2, "random_state": 0}
    model = rnncore.GRU(4, **options, vocabulary=vocabulary).fit(
        vocabulary.transform(train), [0, 1]
    )
    assert model.vocabulary_size_ == vocabulary.vocabulary_size_
    expected = model.predict_proba(vocabulary.transform(texts))
    np.testing.assert_array_equal(model.predict_proba(texts), expected)
    with pytest.raises(ValueError, match=r"X: expected ids in 0\.\.6, got 7"):
        rnncore.GRU(4, **options, vocabulary=vocabulary).fit([[7], [1]], [0, 1])
    with pytest.raises(ValueError, match=r"vocabulary: expected 'auto' .* vectors, got str 'char'"):
        rnncore.GRU(4, vocabulary="char").fit(np.zeros((2, 3, 1)), [0, 1])


def test_another_function_cuts_other_words():
    texts, options = ["a b", "b"], {"max_epochs": 1, "random_state": 0}
    model = rnncore.GRU(4, vocabulary=rnncore.text.Vocabulary(str.split), **options)
    model.fit(texts, [0, 1]).partial_fit(texts, [0, 1])
    model.set_params(vocabulary=rnncore.text.Vocabulary(str.splitlines))
    with pytest.raises(ValueError, match="vocabulary: expected analyzer <method 'split'"):
        model.partial_fit(texts, [0, 1])


def test_a_transformer_takes_what_fit_does(rng):
    X, y = rng.standard_normal((12, 4, 2)), [0, 1] * 6
    options = {"early_stopping": True, "max_epochs": 3, "random_state": 0}
    pipeline = make_pipeline(rnncore.GRU(3, **options), LogisticRegression())
    pipeline.fit(X, y, gru__eval_set=(X[:4], y[:4]))
    model = rnncore.GRU(3, **options).fit(X, y, eval_set=(X[:4], y[:4]))
    assert_same_bits(pipeline[0], model)
    with pytest.raises(TypeError, match=r"GRU\.fit_transform: expected 'sample_weight'"):
        model.fit_transform(X, y, sample_weights=None)


def test_a_search_over_taggers_takes_lists():
    words = [["a", "b"], ["b"], ["a", "a", "b"], ["b", "b"]]
    tags = [[word.upper() for word in line] for line in words]
    model = rnncore.GRU(3, task="classification", output="sequence", max_epochs=1, random_state=0)
    assert cross_val_score(model, words, tags, cv=2).shape == (2,)
