"""Language models: what they write, and how well they say they know a text."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import rnncore
from rnncore._language import _draw
from rnncore.text import Vocabulary

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 8


@pytest.fixture(scope="module")
def characters():
    return rnncore.GRU(
        24, embedding_dim=8, task="language_model", batch_size=2, max_epochs=12, random_state=0
    ).fit(TEXT)


@pytest.fixture(scope="module")
def ids():
    X = [[1, 2, 3, 4] * 4, [3, 4, 1, 2, 3], [2, 3]] * 6
    return rnncore.LSTM(
        12, embedding_dim=6, task="language_model", max_epochs=30, random_state=0
    ).fit(X)


@pytest.fixture(scope="module")
def words():
    lines = [["the", "cat", "sat", "on", "the", "mat", "."], ["the", "dog", "ran", "."]] * 6
    return rnncore.LSTM(
        12, embedding_dim=6, task="language_model", vocabulary="word", max_epochs=20, random_state=0
    ).fit(lines)


def test_what_goes_in_comes_out(characters, ids, words):
    text = characters.generate("the c", 20, random_state=0)
    assert isinstance(text, str)
    assert len(text) == 25
    assert text.startswith("the c")
    several = characters.generate(["the c", "a", "dog"], 4, random_state=0)
    assert [len(text) for text in several] == [9, 5, 7]
    assert [text[:1] for text in several] == ["t", "a", "d"]

    one = ids.generate([1, 2], 5, random_state=0)
    assert (one.shape, one.dtype) == ((7,), np.int64)
    assert one[:2].tolist() == [1, 2]
    assert [len(x) for x in ids.generate([[1], np.array([2, 3, 4])], 2, random_state=0)] == [3, 5]
    assert [len(x) for x in ids.generate(np.array([[1, 2], [3, 4]]), 2, random_state=0)] == [4, 4]
    assert ids.generate(np.array([3]), 0).tolist() == [3]

    line = words.generate(["the", "cat"], 3, random_state=0)
    assert line[:2] == ["the", "cat"]
    assert len(line) == 5
    assert [len(x) for x in words.generate([["the"], ["dog", "ran"]], 1, random_state=0)] == [2, 3]


def test_words_of_strings_stand_apart():
    model = rnncore.GRU(
        4,
        embedding_dim=4,
        task="language_model",
        vocabulary=Vocabulary(),
        max_epochs=2,
        random_state=0,
    ).fit(["a b c", "a b a b"])
    text = model.generate("a  b", 3, random_state=0)
    assert text.startswith("a  b ")
    assert len(text.split()) == 5
    assert model.generate("a  b", 0) == "a  b"


def test_only_ids_of_words_are_drawn():
    """A network may have room for more ids than there are words."""
    model = rnncore.GRU(
        4, task="language_model", vocabulary_size=500, max_epochs=1, random_state=0
    ).fit(TEXT)
    text = model.generate("the ", 200, temperature=10, random_state=0)
    assert len(text) == 204
    assert set(text) <= set(TEXT)


def test_lists_of_words_are_a_language_of_words():
    lines = [["the", "cat", "sat"], ["the", "dog", "ran"]]
    for X in (lines, np.array(lines), [np.array(line) for line in lines]):
        model = rnncore.GRU(4, task="language_model", max_epochs=1, random_state=0).fit(X)
        assert model.vocabulary_.analyzer == "word"
        assert model.generate("the cat", 2, random_state=0)[:2] == ["the", "cat"]
        assert model.perplexity(["the cat sat"]) == model.perplexity(lines[:1])


def test_lists_of_words_stay_such():
    model = rnncore.GRU(
        4, task="language_model", vocabulary="word", max_epochs=2, random_state=0
    ).fit(["one two three", "one two one two"])
    prompt = ["one", "two"]
    (line,) = model.generate([prompt], 3, random_state=0)
    assert line[:2] == prompt
    assert len(line) == 5
    assert set(line) <= {"one", "two", "three"}
    assert " ".join(line) == model.generate("one two", 3, random_state=0)
    for given in (np.array([prompt]), [np.array(prompt)], [np.array(prompt, object)], [(*prompt,)]):
        assert model.generate(given, 3, random_state=0) == [line]
    written = model.generate(np.array(prompt), 1, random_state=0)
    assert [text.split()[0] for text in written] == prompt


def test_a_row_of_words_is_a_list_of_them(words):
    row = ["the", "cat"]
    line = words.generate(row, 3, random_state=0)
    assert words.generate(np.array(row), 3, random_state=0) == line
    assert words.generate(np.array(row, object), 3, random_state=0) == line
    assert words.generate(np.array([row]), 3, random_state=0) == [line]


def test_temperature_zero_takes_the_likeliest(ids, characters):
    written = ids.generate([1], 8, temperature=0).tolist()
    assert written == [1, 2, 3, 4, 1, 2, 3, 4, 1]
    for length in range(1, 9):
        assert ids.predict([written[:length]])[0][-1] == written[length]
    same = characters.generate("the", 10, temperature=0)
    assert same == characters.generate("the", 10, temperature=0, random_state=5)
    assert same == characters.generate("the", 10, top_k=1, random_state=5)
    assert same == characters.generate("the", 10, top_p=1e-9, random_state=5)
    assert same == characters.generate("the", 10, temperature=1e-6, random_state=5)


def test_one_seed_is_one_text_whatever_stands_beside(characters):
    prompts = ["the cat", "a", "on the mat"]
    written = characters.generate(prompts, 30, random_state=7)
    assert written == characters.generate(prompts, 30, random_state=7)
    assert written != characters.generate(prompts, 30, random_state=8)
    assert written[0] == characters.generate("the cat", 30, random_state=7)
    assert written[:2] == characters.generate(prompts[:2], 30, random_state=7)
    alike = characters.generate(["the cat"] * 2, 30, temperature=2.0, random_state=7)
    assert alike[0] != alike[1]
    rng = np.random.default_rng(7)
    assert characters.generate("the cat", 30, random_state=rng) == written[0]
    assert characters.generate("the cat", 30, random_state=rng) != written[0]


def test_padding_and_unknown_are_never_drawn(characters, words):
    text = characters.generate("the", 400, temperature=50.0, random_state=0)
    assert set(text) == set(TEXT)
    line = words.generate(["the"], 200, temperature=50.0, random_state=0)
    assert set(line) == {"the", "cat", "sat", "on", "mat", "dog", "ran", "."}


def test_what_is_drawn_has_the_model_s_probabilities(ids):
    rng = np.random.default_rng(0)
    drawn = [ids.generate([2], 1, temperature=3.0, random_state=rng)[1] for _ in range(600)]
    probabilities = ids.predict_proba([[2]])[0][0] ** (1 / 3)
    expected = probabilities / probabilities.sum()
    found = np.bincount(drawn, minlength=len(expected)) / 600
    np.testing.assert_allclose(found, expected, atol=0.06)


def shares(probabilities, **options):
    """Return how often each id is drawn over an even grid of numbers."""
    options = {"temperature": 1.0, "top_k": None, "top_p": None, **options}
    count = 10_000
    outputs = np.tile(np.log(probabilities), (count, 1))
    drawn = _draw(outputs, (np.arange(count) + 0.5) / count, **options)
    return np.bincount(drawn, minlength=len(probabilities)) / count


def test_top_k_and_top_p_cut_the_tail():
    p = np.array([0.15, 0.5, 0.1, 0.25])
    np.testing.assert_allclose(shares(p), p, atol=1e-3)
    np.testing.assert_allclose(shares(p, top_k=2), [0, 2 / 3, 0, 1 / 3], atol=1e-3)
    np.testing.assert_allclose(shares(p, top_k=9), p, atol=1e-3)
    np.testing.assert_allclose(shares(p, top_p=0.5), [0, 1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(shares(p, top_p=0.6), [0, 2 / 3, 0, 1 / 3], atol=1e-3)
    np.testing.assert_allclose(shares(p, top_p=1.0), p, atol=1e-3)
    np.testing.assert_allclose(shares(p, top_k=3, top_p=0.6), [0, 2 / 3, 0, 1 / 3], atol=1e-3)
    sharp = p**2 / (p**2).sum()
    np.testing.assert_allclose(shares(p, temperature=0.5), sharp, atol=1e-3)
    np.testing.assert_allclose(shares(p, temperature=0), [0, 1, 0, 0])
    np.testing.assert_allclose(shares(p, temperature=1e-300), [0, 1, 0, 0])


def test_where_nothing_may_be_drawn_none_is():
    rare = Vocabulary(min_count=9)
    model = rnncore.GRU(2, task="language_model", vocabulary=rare, max_epochs=1).fit("a b c")
    with pytest.raises(ValueError, match="length: expected 0 for a model that knows padding and"):
        model.generate("a", 3)
    assert model.generate("a b", 0) == "a b"


def test_states_without_bound_end_the_text():
    model = rnncore.RNN(
        3, nonlinearity="relu", residual=True, task="language_model", max_epochs=1, random_state=0
    ).fit("a b c a b")
    weights = model._network.parameters()
    model._network.set_parameters({name: np.ones_like(w) for name, w in weights.items()})
    assert len(model.generate("a", 3, random_state=0)) == 4
    with pytest.raises(FloatingPointError, match=r"outputs are not finite after \d+ steps"):
        model.generate("a", 300, random_state=0)


def test_what_is_out_of_the_question_is_never_drawn():
    outputs = np.array([[-np.inf, 0.0, 0.0, -np.inf]] * 2)
    for options in ({}, {"top_k": 3}, {"top_p": 1.0}):
        options = {"temperature": 1.0, "top_k": None, "top_p": None, **options}
        assert _draw(outputs, np.array([0.0, 1 - 1e-16]), **options).tolist() == [1, 2]


def test_perplexity_is_of_the_mean_log_likelihood(ids):
    X = [[1, 2, 3, 4], [2, 3, 1]]
    likelihoods = np.concatenate(
        [p[np.arange(len(x) - 1), x[1:]] for x, p in zip(X, ids.predict_proba(X), strict=True)]
    )
    np.testing.assert_allclose(ids.score(X), np.log(likelihoods).mean(), rtol=1e-5)
    np.testing.assert_allclose(ids.perplexity(X), np.exp(-ids.score(X)), rtol=1e-12)
    assert ids.perplexity(X) > 1


def test_perplexity_falls_with_training(characters):
    assert characters.perplexity(TEXT) < 8
    assert characters.perplexity("tac eht") > characters.perplexity("the cat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 3), "prompt: expected at least one id to go on from, got none"),
        ((["a", ""], 3), r"prompt\[1\]: expected at least one id to go on from, got none"),
        (("a", -1), "length: expected an integer >= 0, got -1"),
        (("a", 2.0), "length: expected an integer >= 0, got float"),
        (("a", 1, {"temperature": -1}), "temperature: expected a finite number >= 0, got -1"),
        (("a", 1, {"top_k": 0}), "top_k: expected an integer >= 1, got 0"),
        (("a", 1, {"top_p": 0.0}), "top_p: expected a finite number > 0 and <= 1, got 0"),
        (("a", 1, {"random_state": "x"}), "random_state: expected None, an integer"),
        (([[0, 99]], 1), r"prompt: expected ids in 0..\d+, got 99"),
        ((["a", [1]], 1), r"prompt\[1\]: expected a string, got list"),
        ((3.5, 1), "prompt"),
    ],
)
def test_wrong_arguments_are_named(characters, arguments, message):
    *positional, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises((TypeError, ValueError), match=message):
        characters.generate(*positional, **options)


def test_only_language_models_write():
    model = rnncore.LSTM(task="language_model", embedding_dim=3)
    with pytest.raises(NotFittedError):
        model.generate("a", 1)
    for method in ("generate", "perplexity"):
        assert hasattr(model, method)
        assert not hasattr(rnncore.LSTM(), method)
    fitted = rnncore.LSTM(2, max_epochs=1).fit(np.ones((4, 2, 1)), [0, 1, 0, 1])
    with pytest.raises(AttributeError, match="no attribute 'generate'"):
        fitted.generate("a", 1)


def test_ids_may_be_listed_where_the_vocabulary_has_words(words):
    listed, array = (
        words.generate(prompt, 4, random_state=0) for prompt in ([2, 3], np.array([2, 3]))
    )
    assert isinstance(listed, np.ndarray)
    assert np.array_equal(listed, array)
    several = words.generate([[2, 3], [2]], 4, random_state=0)
    assert [len(ids) for ids in several] == [6, 5]
    assert words.generate(["the", "cat"], 1, random_state=0)[:2] == ["the", "cat"]
