"""From strings to integer ids and back, as a scikit-learn transformer.

::

    vocabulary = rnncore.text.Vocabulary(min_count=2)
    ids = vocabulary.fit_transform(["the dog ate", "the cat sat on it"])  # a ragged list
    words = vocabulary.inverse_transform(ids)
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from rnncore._pretrained import arrange
from rnncore._validate import (
    Array,
    as_array,
    boolean,
    choice,
    describe,
    generator,
    integer,
    listed_objects,
)
from rnncore._words import WordsHere

__all__ = ["PADDING", "UNKNOWN", "Vocabulary"]

Ids = NDArray[np.int64]

# The ids of padding and of words that `fit` did not see, in every vocabulary.
PADDING = 0
UNKNOWN = 1

# A word: letters, digits and underscores, with apostrophes inside; or one mark of another kind.
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # noqa: RUF001, both kinds of apostrophe


class Vocabulary(WordsHere, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Gives every word, or every character, of the texts in `fit` an integer id.

    Id 0 is padding and id 1 any unknown word; the others go from the most frequent word on, equally
    frequent ones in alphabetical order. Texts become a ragged list, as the estimators take it.

    Parameters
    ----------
    analyzer : "word", "char" or callable
        What a string is cut into. A word is a run of letters, digits and underscores, with
        apostrophes inside, and every other mark is a word too; space counts for nothing. With
        "char" each character is a word. A callable is given the string and returns a list of
        strings.
    lowercase : bool
        Whether words are looked up in lower case. Affixes keep their case, in which a name shows.
    min_count : int
        Words (and affixes) that occur less often are unknown. With 1 no word in `fit` is, so that
        a network learns nothing for the unknown ones it will meet: with words, take 2.
    max_size : int, optional
        Keep this many of the most frequent words, besides padding and unknown; of prefixes and of
        suffixes as many each.
    unknown, padding : str
        What stands for the ids 1 and 0 in `inverse_transform`. In lists of words they have those
        ids too.
    words : list of str, optional
        The words to know, by id from 2 on (`padding` and `unknown` may stand before them, all
        others differ): then `fit` learns nothing. Affixes are those of these
        words, and `min_count` and `max_size` mean nothing. It keeps the ids that a
        pretrained `embedding` goes by, whatever a search over parameters leaves out of `fit`.
    affixes : int
        With m > 0 a word becomes 1 + 2 m ids: its own, then its prefixes of 1 to m characters,
        then its suffixes. What a word is too short for, and an affix that `fit` did not see, is
        padding. An estimator adds up the vectors of a row: set its ``masked_id=0``. This
        is what tells an unknown "-ly" from an unknown "-ing".

    Attributes
    ----------
    vocabulary_ : dict of str to int
        Ids of the words, padding and unknown among them.
    prefixes_, suffixes_ : dict of str to int
        Ids of the affixes, apart from those of words: "un-" and "-un" and "un" are three.
    vocabulary_size_ : int
        All ids are below it: the estimators' `vocabulary_size`.
    tokenized_ : bool
        Whether `fit` was given lists of words rather than strings.

    Examples
    --------
    >>> vocabulary = Vocabulary(lowercase=True)
    >>> vocabulary.fit_transform(["The dog barks.", "The cat doesn't."])
    [array([3, 7, 4, 2]), array([3, 5, 6, 2])]
    >>> vocabulary.inverse_transform([[3, 5, 4, 1]])
    ['the cat barks <unk>']
    """

    def __init__(
        self,
        analyzer: str | Callable[[str], list[str]] = "word",
        *,
        lowercase: bool = False,
        min_count: int = 1,
        max_size: int | None = None,
        unknown: str = "<unk>",
        padding: str = "<pad>",
        words: Sequence[str] | None = None,
        affixes: int = 0,
    ) -> None:
        self.analyzer = analyzer
        self.lowercase = lowercase
        self.min_count = min_count
        self.max_size = max_size
        self.unknown = unknown
        self.padding = padding
        self.words = words
        self.affixes = affixes

    def fit(self, X: object, y: object = None) -> Self:
        """Count the words and give them ids.

        Parameters
        ----------
        X : list of str, or list of lists of str
            Texts, or texts that are cut into words already; those are taken as they are. One string
            is one text.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            When a parameter or X is not as described.
        """
        self._fit(*self._coded(X))
        return self

    def fit_transform(self, X: object, y: object = None) -> list[Ids] | Ids:
        """Return ``fit(X).transform(X)``, but read X only once; all else is as in `fit`."""
        words, codes, tokenized = self._coded(X)
        self._fit(words, codes, tokenized)
        return self._ids(X, words, codes)

    def transform(self, X: object) -> list[Ids] | Ids:
        """Return the ids of the words of every text.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        list of arrays of int64, (T_i,), or with `affixes` (T_i, 1 + 2 * affixes)
            For one string one array.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X is not as described.
        """
        return self._transform(X, "X")

    def _transform(self, X: object, name: str) -> list[Ids] | Ids:
        """Return what `transform` does; `name` is what errors call X."""
        check_is_fitted(self)
        words, codes, _ = self._coded(X, name)
        return self._ids(X, words, codes)

    def inverse_transform(self, X: object) -> list[Any] | str:
        """Return the texts that ids stand for.

        Parameters
        ----------
        X : list of id arrays, or one array
            As `transform` returned them, or of the first ids of each row alone. Padding is left
            out.

        Returns
        -------
        list
            Of strings, in which one space stands between two words and nothing between two
            characters. Of lists of words instead, when `fit` was given such, or `analyzer` is a
            callable. For one array one of them.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X holds no ids of words.
        """
        check_is_fitted(self)
        words = list(self.vocabulary_)
        X = listed_objects(X)
        if not isinstance(X, list | tuple) or (X and np.ndim(X[0]) == 0):
            X = as_array("X", X)
            if X.ndim < (3 if self.affixes else 2):
                return self._text("X", X, words)  # type: ignore[no-any-return]
        return [self._text(f"X[{index}]", item, words) for index, item in enumerate(X)]

    def split(self, text: str) -> list[str]:
        """Cut a string into words, as `analyzer` says; unknown ones are among them.

        Parameters
        ----------
        text : str

        Returns
        -------
        list of str

        Raises
        ------
        ValueError, TypeError
            When a parameter is not as described, or `text` is no string.
        """
        self._check_parameters()
        return self._words("text", text, tokenized=False)

    def vectors(self, pretrained: Mapping[str, Any], *, random_state: object = 0) -> Array:
        """Arrange pretrained word vectors by id, for an estimator's `embedding`.

        Parameters
        ----------
        pretrained : mapping of word to array (D,)
            Such as GloVe's, read into a dict. A word that it lacks is looked up in lower case.
        random_state : None, int, numpy.random.Generator or numpy.random.RandomState
            For the rows of words without a vector.

        Returns
        -------
        array of float32 (vocabulary_size_, D)
            Words without a vector are drawn from a normal distribution of mean and
            standard deviation of those with one; padding and affixes are zero.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When there is no vector for any word, or they differ in shape.
        """
        check_is_fitted(self)
        rng = generator("random_state", random_state)
        return arrange(
            pretrained,
            self.vocabulary_,
            self.vocabulary_size_,
            rng,
            padding=PADDING,
            unknown=UNKNOWN,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the vocabulary as values that JSON can hold, for `from_json`.

        A callable `analyzer` cannot be kept: None comes back in its place, and then strings are
        refused until `analyzer` is set again.
        """
        parameters = self.get_params(deep=False)
        if callable(parameters["analyzer"]):
            parameters["analyzer"] = None
        if parameters["words"] is not None:
            parameters["words"] = list(parameters["words"])
        parameters = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in parameters.items()
        }
        if not hasattr(self, "vocabulary_"):
            return {"parameters": parameters}
        return {
            "parameters": parameters,
            "words": list(self.vocabulary_),
            "prefixes": list(self.prefixes_),
            "suffixes": list(self.suffixes_),
            "tokenized": self.tokenized_,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the vocabulary that `to_json` described."""
        vocabulary = cls(**fields["parameters"])
        if len(fields) > 1:
            vocabulary._number(fields["words"], fields["prefixes"], fields["suffixes"])
            vocabulary.tokenized_ = bool(fields["tokenized"])
        return vocabulary

    # From texts to codes: the distinct words, and for each text where its words stand among them.
    # What is costly is then done once a distinct word.

    def _coded(self, X: object, name: str = "X") -> tuple[list[str], list[Ids], bool]:
        """Return distinct words as they stand in X, their indexes by text, and if X held lists."""
        self._check_parameters()
        texts = [X] if isinstance(X, str) else _listed(X, name)
        # The first that is a text of any kind says of which the others must be.
        are_strings = (isinstance(text, str) for text in texts if isinstance(text, Iterable))
        tokenized = bool(texts) and not next(are_strings, True)
        code: defaultdict[str, int] = defaultdict()
        code.default_factory = code.__len__  # a new word gets the next number
        codes = []
        for index, text in enumerate(texts):
            words = self._words(f"{name}[{index}]", text, tokenized)
            try:
                codes.append(np.fromiter(map(code.__getitem__, words), np.int64, len(words)))
            except TypeError:  # what cannot be looked up
                raise TypeError(_not_a_word(f"{name}[{index}]", words)) from None
        for word in code:
            if not isinstance(word, str):
                where = next(i for i, found in enumerate(codes) if (found == code[word]).any())
                raise TypeError(_not_a_word(f"{name}[{where}]", [word]))
        return list(code), codes, tokenized

    def _words(self, name: str, text: object, tokenized: bool) -> list[str]:
        """Return the words of one text, which must be of the kind that `tokenized` says."""
        if tokenized:
            if isinstance(text, str | bytes) or not isinstance(text, Iterable):
                raise TypeError(f"{name}: expected a list of words, got {describe(text)}")
            return list(text)
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected a string, got {describe(text)}")
        if self.analyzer == "word":
            return _WORD.findall(text)
        if self.analyzer == "char":
            return list(text)
        if self.analyzer is None:
            raise TypeError(
                "analyzer: expected 'word', 'char' or a callable to cut strings into words, "
                "got None: a callable is not saved, set it again"
            )
        words = self.analyzer(text)  # type: ignore[operator]
        if isinstance(words, str) or not isinstance(words, Iterable):
            raise TypeError(
                f"analyzer: expected it to return a list of words, got {describe(words)}"
            )
        return list(words)

    def _fit(self, words: list[str], codes: list[Ids], tokenized: bool) -> None:
        if not codes:
            raise ValueError("X: expected at least one text, got none")
        special = (self.padding, self.unknown)
        if self.words is None:
            counts = np.bincount(np.concatenate(codes), minlength=len(words)).tolist()
            limits = (self.min_count, self.max_size)
        else:
            words = list(self.words)
            counts = [1] * len(words)
            limits = (1, None)
        counted: list[Counter[str]] = [Counter(), Counter(), Counter()]
        for word, count in zip(words, counts, strict=True):
            known_as = word.lower() if self.lowercase else word
            if word in special or known_as in special:
                continue
            counted[0][known_as] += count
            for length in range(1, min(self.affixes, len(word)) + 1):
                counted[1][word[:length]] += count
                counted[2][word[-length:]] += count
        known = _most_frequent(counted[0], *limits) if self.words is None else list(counted[0])
        affixes = [_most_frequent(counter, *limits) for counter in counted[1:]]
        self._number([*special, *known], *affixes)
        self.tokenized_ = tokenized

    def _number(self, words: list[str], prefixes: list[str], suffixes: list[str]) -> None:
        ids = iter(range(len(words) + len(prefixes) + len(suffixes)))
        self.vocabulary_ = dict(zip(words, ids, strict=False))
        self.prefixes_ = dict(zip(prefixes, ids, strict=False))
        self.suffixes_ = dict(zip(suffixes, ids, strict=False))
        self.vocabulary_size_ = len(words) + len(prefixes) + len(suffixes)

    def _ids(self, X: object, words: list[str], codes: list[Ids]) -> list[Ids] | Ids:
        lowered = [
            word.lower() if self.lowercase and word not in (self.unknown, self.padding) else word
            for word in words
        ]
        table = np.fromiter(
            (self.vocabulary_.get(word, UNKNOWN) for word in lowered), np.int64, len(words)
        )
        if self.affixes:
            table = np.column_stack([table, *self._affix_columns(words)])
        ids = [table[code] for code in codes]
        return ids[0] if isinstance(X, str) else ids

    def _affix_columns(self, words: list[str]) -> list[Ids]:
        columns = []
        for known, prefix in ((self.prefixes_, True), (self.suffixes_, False)):
            for length in range(1, self.affixes + 1):
                column = (
                    known.get(word[:length] if prefix else word[-length:], PADDING)
                    if len(word) >= length and word not in (self.unknown, self.padding)
                    else PADDING
                    for word in words
                )
                columns.append(np.fromiter(column, np.int64, len(words)))
        return columns

    def _text(self, name: str, ids: object, words: list[str]) -> Any:
        known = self._known(name, ids, words)
        if self.tokenized_ or not isinstance(self.analyzer, str):
            return known
        return ("" if self.analyzer == "char" else " ").join(known)

    def _known(self, name: str, ids: object, words: list[str]) -> list[str]:
        """Return the words of one text, but padding; `words` are those of the vocabulary."""
        array = as_array(name, ids)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected integer ids, got {describe(array)}")
        if self.affixes and array.ndim == 2:
            array = array[:, 0]
        if array.ndim != 1:
            raise ValueError(f"{name}: expected ids of shape (T,), got {array.shape}")
        outside = array[(array < 0) | (array >= len(words))]
        if len(outside):
            raise ValueError(
                f"{name}: expected ids of words, in 0..{len(words) - 1}, got {outside[0]}"
            )
        return [words[index] for index in array.tolist() if index != PADDING]

    def _check_parameters(self) -> None:
        if not callable(self.analyzer) and self.analyzer is not None:
            choice("analyzer", self.analyzer, ("word", "char"))
        boolean("lowercase", self.lowercase)
        integer("min_count", self.min_count, 1)
        if self.max_size is not None:
            integer("max_size", self.max_size, 1)
        for name in ("unknown", "padding"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected a string, got {describe(getattr(self, name))}")
        if self.unknown == self.padding:
            raise ValueError(f"padding: expected another string than unknown, got {self.padding!r}")
        if self.words is not None:
            # Words have an order, and are read more than once.
            is_list = hasattr(self.words, "__len__") and hasattr(self.words, "__getitem__")
            if not is_list or isinstance(self.words, str | bytes):
                raise TypeError(f"words: expected a list of strings, got {describe(self.words)}")
            if not all(isinstance(word, str) for word in self.words):
                raise TypeError(_not_a_word("words", list(self.words)))
            self._check_distinct(self.words)
        integer("affixes", self.affixes, 0)

    def _check_distinct(self, words: Iterable[str]) -> None:
        """Check that the words have the ids that their places say."""
        special = [self.padding, self.unknown]
        seen, words = set(special), list(words)
        for word in words[2:] if words[:2] == special else words:
            if (key := word.lower() if self.lowercase and word not in seen else word) in seen:
                raise ValueError(
                    "words: expected words that differ from each other (in lower case, with "
                    f"lowercase=True) and from unknown and padding, got {word!r} again"
                )
            seen.add(key)

    def __sklearn_tags__(self) -> Any:  # noqa: D105
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def _listed(X: object, name: str) -> list[Any]:
    """Return texts as a list, from an array or a table's column too; errors call them `name`."""
    X = listed_objects(X)
    if isinstance(X, np.ndarray) and X.dtype.kind in "UT" and X.ndim in (1, 2):
        return list(X.tolist())
    if not isinstance(X, list | tuple):
        raise TypeError(
            f"{name}: expected a list of strings or of lists of words, got {describe(X)}"
        )
    return list(X)


def _most_frequent(counts: Counter[str], minimum: int, size: int | None) -> list[str]:
    kept = [(word, count) for word, count in counts.items() if count >= minimum]
    kept.sort(key=lambda item: (-item[1], item[0]))
    return [word for word, _ in kept[:size]]


def _not_a_word(name: str, words: list[Any]) -> str:
    at, word = next((at, word) for at, word in enumerate(words) if not isinstance(word, str))
    return f"{name}: expected words that are strings, got {describe(word)}" + (
        f" as word {at}" if len(words) > 1 else ""
    )
