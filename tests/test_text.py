"""Vocabularies: which ids words get, and that texts come back."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import rnncore
from rnncore.text import Vocabulary

TEXTS = ["The cat sat.", "the dog sat, the dog didn't!", ""]


def test_ids_go_by_count_then_alphabet():
    vocabulary = Vocabulary().fit(TEXTS)
    assert vocabulary.vocabulary_ == {
        "<pad>": 0,
        "<unk>": 1,
        "dog": 2,
        "sat": 3,
        "the": 4,
        "!": 5,
        ",": 6,
        ".": 7,
        "The": 8,
        "cat": 9,
        "didn't": 10,
    }
    assert vocabulary.vocabulary_size_ == 11
    ids = vocabulary.transform(TEXTS)
    assert [array.tolist() for array in ids] == [[8, 9, 3, 7], [4, 2, 3, 6, 4, 2, 10, 5], []]
    assert {array.dtype for array in ids} == {np.dtype(np.int64)}
    assert vocabulary.transform(["a dog"])[0].tolist() == [1, 2]


def test_words_are_runs_of_letters_and_single_marks():
    words = Vocabulary().fit(["Ça_va 3rd-rate <br /> 'n' O’Brien's ..."]).vocabulary_  # noqa: RUF001
    assert set(words) - {"<pad>", "<unk>"} == {
        *("Ça_va", "3rd", "-", "rate", "<", "br", "/", ">", "'", "n", "O’Brien's", "."),  # noqa: RUF001
    }


def test_strings_are_cut_without_ids():
    assert Vocabulary().split("The cat sat.") == ["The", "cat", "sat", "."]
    assert Vocabulary("char").split("a b") == ["a", " ", "b"]


def test_lower_case_minimum_and_maximum():
    assert Vocabulary(lowercase=True).fit(TEXTS).transform("THE the").tolist() == [2, 2]
    kept = Vocabulary(lowercase=True, min_count=2).fit(TEXTS).vocabulary_
    assert list(kept) == ["<pad>", "<unk>", "the", "dog", "sat"]
    kept = Vocabulary(lowercase=True, max_size=2).fit(TEXTS).vocabulary_
    assert list(kept) == ["<pad>", "<unk>", "the", "dog"]


def test_characters_and_callables():
    characters = Vocabulary("char").fit("abca")
    assert characters.transform("cab!").tolist() == [4, 2, 3, 1]
    assert characters.inverse_transform(characters.transform("cab!")) == "cab<unk>"
    lines = Vocabulary(str.splitlines).fit(["a b\nc", "c"])
    assert lines.transform(["c\na b"])[0].tolist() == [2, 3]
    assert lines.inverse_transform([[2, 3]]) == [["c", "a b"]]


def test_lists_of_words_are_taken_as_they_are():
    vocabulary = Vocabulary()
    ids = vocabulary.fit_transform([["New York", "is"], ("is", "<unk>", "<pad>"), np.array(["is"])])
    assert [array.tolist() for array in ids] == [[3, 2], [2, 1, 0], [2]]
    assert vocabulary.inverse_transform(ids) == [["New York", "is"], ["is", "<unk>"], ["is"]]
    assert vocabulary.transform(["is is"])[0].tolist() == [2, 2]


def test_columns_of_strings_are_lists():
    vocabulary = Vocabulary().fit(np.array(TEXTS))
    for column in (np.array(TEXTS), np.array(TEXTS, object)):
        for a, b in zip(vocabulary.transform(column), vocabulary.transform(TEXTS), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    words = np.array([["the", "cat"], ["dog", "<pad>"]])
    assert [ids.tolist() for ids in Vocabulary().fit_transform(words)] == [[4, 2], [3, 0]]


def test_affixes_stand_beside_their_word():
    vocabulary = Vocabulary(affixes=2, lowercase=True).fit(["un un- Un", "ab"])
    words, prefixes, suffixes = (
        vocabulary.vocabulary_,
        vocabulary.prefixes_,
        vocabulary.suffixes_,
    )
    assert not {*prefixes.values(), *suffixes.values()} & set(words.values())
    assert vocabulary.vocabulary_size_ == len(words) + len(prefixes) + len(suffixes)
    rows = vocabulary.transform(["Un a zebra", ""])
    assert rows[0].tolist() == [
        [words["un"], prefixes["U"], prefixes["Un"], suffixes["n"], suffixes["Un"]],
        [1, prefixes["a"], 0, 0, 0],
        [1, 0, 0, 0, 0],
    ]
    assert rows[1].shape == (0, 5)
    assert vocabulary.inverse_transform(rows) == ["un <unk> <unk>", ""]
    assert vocabulary.inverse_transform(rows[0]) == "un <unk> <unk>"


@pytest.mark.parametrize("words", [None, ["dog", "the"]])
def test_words_that_are_padding_or_unknown_in_lower_case_are_that(words):
    texts = [["The", "<UNK>", "dog"], ["the", "<Pad>", "dog"]]
    vocabulary = Vocabulary(lowercase=True, words=words, affixes=1).fit(texts)
    assert list(vocabulary.vocabulary_) == ["<pad>", "<unk>", "dog", "the"]
    assert vocabulary.vocabulary_size_ == 4 + len(vocabulary.prefixes_) + len(vocabulary.suffixes_)
    ids = vocabulary.transform(texts)
    assert [x[:, 0].tolist() for x in ids] == [[3, 1, 2], [3, 0, 2]]
    assert vocabulary.inverse_transform(ids) == [["the", "<unk>", "dog"], ["the", "dog"]]
    again = Vocabulary.from_json(vocabulary.to_json()).transform(texts)
    for found, expected in zip(again, ids, strict=True):
        np.testing.assert_array_equal(found, expected)


@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=6),
    st.sampled_from(["word", "char"]),
    st.booleans(),
    st.integers(1, 3),
    st.none() | st.integers(1, 5),
    st.integers(0, 2),
)
def test_fit_transform_is_fit_then_transform(texts, analyzer, lowercase, count, size, affixes):
    options = {
        "lowercase": lowercase,
        "min_count": count,
        "max_size": size,
        "affixes": affixes,
    }
    both = Vocabulary(analyzer, **options)
    ids = both.fit_transform(texts)
    vocabulary = Vocabulary(analyzer, **options).fit(texts)
    assert vocabulary.vocabulary_ == both.vocabulary_
    for a, b, text in zip(ids, vocabulary.transform(texts), texts, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
        np.testing.assert_array_equal(a, vocabulary.transform(text), strict=True)
        assert a.size == 0 or 0 <= a.min() <= a.max() < vocabulary.vocabulary_size_
    stored = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert stored.get_params() == vocabulary.get_params()
    for a, b in zip(ids, stored.transform(texts), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@given(st.text())
def test_characters_come_back(text):
    vocabulary = Vocabulary("char")
    assert vocabulary.inverse_transform(vocabulary.fit_transform(text)) == text


def test_pretrained_vectors_are_arranged_by_id():
    vocabulary = Vocabulary().fit(["the The cat cat cat zyx"])
    pretrained = {"the": [1.0, 2.0], "cat": np.array([3.0, 6.0]), "<unk>": [9.0, 9.0]}
    table = vocabulary.vectors(pretrained)
    assert table.dtype == np.float32
    words = vocabulary.vocabulary_
    np.testing.assert_array_equal(table[words["<pad>"]], [0, 0])
    for word, vector in {"cat": [3, 6], "the": [1, 2], "The": [1, 2]}.items():
        np.testing.assert_array_equal(table[words[word]], vector)
    assert np.abs(table[words["zyx"]]).max() < 12
    assert table[words["zyx"]].any()
    np.testing.assert_array_equal(table, vocabulary.vectors(pretrained))
    assert (table != vocabulary.vectors(pretrained, random_state=1)).any()


def test_drawn_vectors_have_the_scale_of_the_known():
    words = [f"w{index}" for index in range(4000)]
    known = np.random.default_rng(1).normal(0.1, 0.4, (2000, 10))
    table = Vocabulary().fit([words]).vectors(dict(zip(words[:2000], known, strict=True)))
    drawn = table[1 + 2001 :]
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [0.1, 0.4], atol=0.02)


def test_vectors_of_affixes_are_zero():
    vocabulary = Vocabulary(affixes=1).fit(["ab"])
    np.testing.assert_array_equal(vocabulary.vectors({"ab": [1.0]})[2:], [[1], [0], [0]])


def test_vectors_that_do_not_fit_are_named():
    vocabulary = Vocabulary().fit(["a b"])
    with pytest.raises(ValueError, match="expected vectors of some of the 4 words, got none"):
        vocabulary.vectors({"c": [1.0]})
    with pytest.raises(ValueError, match=r"of one shape \(D,\), got \(1,\) and \(2,\)"):
        vocabulary.vectors({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"of one shape \(D,\), got \(\)"):
        vocabulary.vectors({"a": 1.0})
    with pytest.raises(TypeError, match="pretrained: expected a mapping"):
        vocabulary.vectors(3)
    with pytest.raises(
        TypeError, match=r"pretrained\['a'\]: expected an array of numbers, got str"
    ):
        vocabulary.vectors({"a": "x"})
    for value in (np.nan, 1e300):
        with pytest.raises(ValueError, match=r"pretrained\['b'\]: expected finite numbers"):
            vocabulary.vectors({"a": [1.0], "b": [value]})


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "X: expected at least one text, got none"),
        (3, "X: expected a list of strings or of lists of words, got int 3"),
        (["a", 3], r"X\[1\]: expected a string, got int 3"),
        (["a", ["b"]], r"X\[1\]: expected a string, got list"),
        ([None, "a"], r"X\[0\]: expected a string, got None"),
        ([float("nan"), ["a"]], r"X\[0\]: expected a list of words, got float nan"),
        ([b"a"], r"X\[0\]: expected a list of words, got bytes b'a'"),
        ([["b"], "a"], r"X\[1\]: expected a list of words, got str 'a'"),
        ([["b"], ["a", 7]], r"X\[1\]: expected words that are strings, got int 7"),
        ([["b", ["c"]]], r"X\[0\]: expected words that are strings, got list \['c'\] as word 1"),
    ],
)
def test_what_is_no_text_is_named(X, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Vocabulary().fit(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"analyzer": "line"}, "analyzer: expected one of 'word', 'char', got 'line'"),
        ({"analyzer": len}, "analyzer: expected it to return a list of words, got int"),
        ({"analyzer": str.lower}, "analyzer: expected it to return a list of words, got str"),
        ({"lowercase": 1}, "lowercase: expected True or False"),
        ({"min_count": 0}, "min_count: expected an integer >= 1, got 0"),
        ({"max_size": 0}, "max_size: expected an integer >= 1, got 0"),
        ({"affixes": -1}, "affixes: expected an integer >= 0, got -1"),
        ({"unknown": None}, "unknown: expected a string, got None"),
        ({"words": "abc"}, "words: expected a list of strings, got str 'abc'"),
        ({"words": ["a", 3]}, "words: expected words that are strings, got int 3 as word 1"),
        ({"padding": "<unk>"}, "padding: expected another string than unknown, got '<unk>'"),
    ],
)
def test_parameters_are_checked_in_fit(options, message):
    vocabulary = Vocabulary(**options)
    with pytest.raises((TypeError, ValueError), match=message):
        vocabulary.fit(TEXTS)


def test_what_holds_no_ids_is_named():
    vocabulary = Vocabulary().fit(["a b"])
    with pytest.raises(ValueError, match=r"X\[1\]: expected ids of words, in 0\.\.3, got 4"):
        vocabulary.inverse_transform([[2], [4]])
    with pytest.raises(TypeError, match="X: expected integer ids, got float64"):
        vocabulary.inverse_transform(np.ones(2))
    with pytest.raises(NotFittedError):
        Vocabulary().transform(["a"])
    assert vocabulary.inverse_transform([]) == []
    assert vocabulary.inverse_transform(np.array([[2, 3, 0], [3, 0, 0]])) == ["a b", "b"]
    assert vocabulary.inverse_transform([2, 3]) == "a b"


def test_a_callable_is_not_stored():
    vocabulary = Vocabulary(str.split).fit(["a b"])
    stored = Vocabulary.from_json(vocabulary.to_json())
    assert stored.transform([["b"]])[0].tolist() == [3]
    with pytest.raises(TypeError, match="a callable is not saved"):
        stored.transform(["b"])
    assert stored.set_params(analyzer=str.split).transform(["b"])[0].tolist() == [3]


def test_copies_and_pickles():
    vocabulary = Vocabulary("char", lowercase=True, affixes=1)
    assert clone(vocabulary.fit("ab")).get_params() == vocabulary.get_params()
    assert not hasattr(clone(vocabulary), "vocabulary_")
    again = pickle.loads(pickle.dumps(vocabulary))
    np.testing.assert_array_equal(again.transform("ba"), vocabulary.transform("ba"))


def test_a_pipeline_reads_texts():
    X = ["good film", "bad film", "a good one", "a bad one"] * 5
    y = ["+", "-"] * 10
    model = rnncore.GRU(4, embedding_dim=3, vocabulary_size=7, max_epochs=60, random_state=0)
    pipeline = make_pipeline(Vocabulary(), model).fit(X, y)
    assert pipeline.score(X, y) == 1
    assert pipeline.predict(["a good film", "one bad film"]).tolist() == ["+", "-"]
    assert len(pipeline.predict(["an unheard-of film", ""])) == 2


def test_given_words_keep_their_ids():
    vocabulary = Vocabulary(words=["zebra", "dog", "Dog"], min_count=5, affixes=1).fit(["a cat"])
    assert list(vocabulary.vocabulary_) == ["<pad>", "<unk>", "zebra", "dog", "Dog"]
    assert list(vocabulary.prefixes_) == ["D", "d", "z"]
    assert list(vocabulary.suffixes_) == ["g", "a"]
    again = clone(vocabulary).fit(["another"])
    np.testing.assert_array_equal(again.transform("dog cat"), vocabulary.transform("dog cat"))
    assert Vocabulary(words=vocabulary.vocabulary_).fit("").vocabulary_ == vocabulary.vocabulary_


@pytest.mark.parametrize(
    ("words", "again"),
    [(["a", "b", "a"], "a"), (["dog", "Dog"], "Dog"), (["a", "<pad>"], "<pad>")],
)
def test_given_words_differ(words, again):
    vocabulary = Vocabulary(words=words, lowercase=True)
    with pytest.raises(ValueError, match=f"words: expected words that differ .* got '{again}' aga"):
        vocabulary.fit("a")


def test_real_reviews_take_seconds(shared_data):
    import gzip
    import time

    with gzip.open(shared_data / "imdb_train.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
        texts = [line.rstrip("\n").split("\t")[3] for line in file][:5000]
    start = time.process_time()  # of this process alone, whatever else runs
    vocabulary = Vocabulary(lowercase=True, min_count=2)
    ids = vocabulary.fit_transform(texts)
    assert time.process_time() - start < 10  # takes half a second on an idle machine
    assert sum(map(len, ids)) > 1_000_000
    assert list(vocabulary.vocabulary_)[2:6] == [".", "the", ",", "a"]


@pytest.mark.parametrize("words", [iter(["a", "b"]), {"a", "b"}, {"a": 1}.keys(), "ab"])
def test_words_have_an_order_and_can_be_read_again(words):
    with pytest.raises(TypeError, match="words: expected a list of strings"):
        Vocabulary(words=words).fit(TEXTS)


def test_words_may_be_an_array():
    vocabulary = Vocabulary(words=np.array(["dog", "sat"])).fit(TEXTS)
    assert vocabulary.vocabulary_ == {"<pad>": 0, "<unk>": 1, "dog": 2, "sat": 3}


def test_a_vocabulary_that_comes_back_twice_is_two(tmp_path):
    texts, y = ["I like it", "I hate it"] * 4, [1, 0] * 4
    vocabulary = Vocabulary().fit(texts)
    rnncore.GRU(4, vocabulary=vocabulary, max_epochs=1).fit(texts, y).save(tmp_path / "m")
    model = rnncore.load(tmp_path / "m")
    before = model.predict_proba(texts)
    model.vocabulary.fit(["other words"])
    model.set_params(vocabulary__lowercase=False)
    assert np.array_equal(model.predict_proba(texts), before)
