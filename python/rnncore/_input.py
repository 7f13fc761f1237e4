"""What a fitted estimator knows of its X: vectors, ids or strings, and how many."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.base import clone

from rnncore._data import holds_text, read_ids, read_vectors
from rnncore._sequences import Sequences
from rnncore._validate import any_array, check_own_class, describe

# Parameters that say that X is of ids, and those that have no say on feature vectors either; what
# they are when not set.
_OF_IDS = {"embedding": None, "embedding_dim": None}
_ID_PARAMETERS = {
    "vocabulary_size": None,
    "masked_id": None,
    "freeze_embedding": False,
    "tie_embedding": False,
    "vocabulary": "auto",
}


@dataclass(frozen=True)
class Input:
    """The kind of X that `fit` was given, and reading more of it.

    kind : "dense", "embedding" or "one-hot"
    n_features : F of vectors, 0 for ids
    vocabulary_size : of ids, 0 for vectors
    ids_per_step : of ids, 0 for vectors
    masked_id : id that stands for nothing, or None
    vocabulary : the rnncore.text.Vocabulary that makes ids of strings, or None
    may_be_stream : whether one sequence may come by itself
    padding_value, left : what padding consists of, and whether it stands on the left
    dtype : "float32" or "float64"
    feature_names : what the tables that X came as call their columns, or None
    """

    kind: str
    n_features: int
    vocabulary_size: int
    ids_per_step: int
    masked_id: int | None
    vocabulary: Any
    may_be_stream: bool
    padding_value: float | None
    left: bool
    dtype: str
    feature_names: tuple[str, ...] | None = None

    @classmethod
    def from_data(
        cls, X: object, lengths: object, options: dict[str, Any]
    ) -> tuple[Self, Sequences]:
        """Find out what X is, by the checked `options`; return it with the sequences."""
        is_model = options["task"] == "language_model"
        embedding = options["embedding"]
        text = holds_text(X)
        if text or is_model or embedding is not None or options["embedding_dim"] is not None:
            kind = embedding if isinstance(embedding, str) else "embedding"
        else:
            kind = "dense"
        found = cls(
            kind=kind,
            n_features=0,
            vocabulary_size=0,
            ids_per_step=0,
            masked_id=options["masked_id"],
            vocabulary=None,
            may_be_stream=is_model,
            padding_value=options["padding_value"],
            left=options["padding_side"] == "left",
            dtype=options["dtype"],
        )
        if kind == "dense":
            found.check_parameters(options)
            sequences = found._read_vectors(X, lengths, None, ("X", "lengths"))
            width, names = sequences.values.shape[1], sequences.feature_names
            return replace(found, n_features=width, feature_names=names), sequences
        size = options["vocabulary_size"]
        if text:
            found, X = found._with_vocabulary(X, options)
            size = None
        elif hasattr(options["vocabulary"], "vocabulary_size_"):  # it has made these ids
            found = replace(found, vocabulary=copy.copy(options["vocabulary"]))
            size = found.vocabulary.vocabulary_size_
        elif isinstance(embedding, np.ndarray):
            size = len(embedding)
        sequences = found._read_ids(X, lengths, size, None, ("X", "lengths"))
        return found._with_size(sequences, options), sequences

    def check_parameters(self, options: dict[str, Any]) -> None:
        """Check that parameters speak of X as it is."""
        if self.kind == "dense":
            for name, empty in (_OF_IDS | _ID_PARAMETERS).items():
                value = options[name]
                if value is not empty and not (isinstance(value, str) and value == empty):
                    where = "" if name in _OF_IDS else " without embedding_dim or embedding,"
                    raise ValueError(
                        f"{name}: expected {empty!r}{where} for X of feature vectors, "
                        f"got {describe(value)}"
                    )
        elif isinstance(options["embedding"], str) != (self.kind == "one-hot"):
            expected = "'one-hot'" if self.kind == "one-hot" else "None or an array"
            raise ValueError(
                f"embedding: expected {expected}, as the network that is trained on has, "
                f"got {describe(options['embedding'])}"
            )

    def _with_vocabulary(self, X: object, options: dict[str, Any]) -> tuple[Self, object]:
        """Return this input with a vocabulary for the strings in `X`, and their ids."""
        from rnncore.text import PADDING, Vocabulary

        chosen = options["vocabulary"]
        X = self._texts(X, "X")
        if chosen == "auto":
            strings = isinstance(X, str) or any(isinstance(text, str) for text in X)
            chosen = "char" if self.may_be_stream and strings else "word"
        vocabulary = Vocabulary(chosen) if isinstance(chosen, str) else chosen
        if hasattr(vocabulary, "vocabulary_size_"):
            vocabulary = copy.copy(vocabulary)  # whatever its owner fits it to later
            ids = vocabulary.transform(X)
        else:
            vocabulary = clone(vocabulary)
            ids = vocabulary.fit_transform(X)
        masked = self.masked_id
        if masked is None and self.kind == "embedding":
            masked = PADDING
        return replace(self, vocabulary=vocabulary, masked_id=masked), ids

    def _with_size(self, sequences: Sequences, options: dict[str, Any]) -> Self:
        """Return this input with the number of ids in all, and in each step."""
        values = sequences.values
        size, embedding = options["vocabulary_size"], options["embedding"]
        needed = self.vocabulary.vocabulary_size_ if self.vocabulary is not None else 0
        if isinstance(embedding, np.ndarray):
            size = len(embedding)
        if size is not None and size < needed:
            name = "embedding" if isinstance(embedding, np.ndarray) else "vocabulary_size"
            raise ValueError(
                f"{name}: expected {needed} ids or more, those of the vocabulary, got {size}"
            )
        if size is None:
            size = needed
        if not size:
            ids = sequences.real()
            if len(ids) == 0:
                raise ValueError("X: expected a sequence with at least one id, got none")
            size = int(ids.max()) + 1
        if self.masked_id is not None and self.masked_id >= size:
            raise ValueError(
                f"masked_id: expected an id below the vocabulary_size {size}, got {self.masked_id}"
            )
        width = 1 if values.ndim == 1 else values.shape[1]
        for single, what in (
            (self.may_be_stream, "for a language model"),
            (self.kind == "one-hot", "with embedding='one-hot'"),
        ):
            if single and width > 1:
                raise ValueError(f"X: expected one id a step {what}, got {width}")
        return replace(self, vocabulary_size=size, ids_per_step=width)

    def read(
        self, X: object, lengths: object, names: tuple[str, str] = ("X", "lengths")
    ) -> Sequences:
        """Read more sequences of the same kind; `names` are those of the two arguments."""
        if self.kind == "dense":
            return self._read_vectors(X, lengths, self.n_features, names)
        if self.vocabulary is not None:
            if holds_text(X):
                X = self.vocabulary._transform(self._texts(X, names[0]), names[0])
        elif holds_text(X):
            raise TypeError(f"{names[0]}: expected integer ids, as in fit, got text, {describe(X)}")
        return self._read_ids(X, lengths, self.vocabulary_size, self.ids_per_step, names)

    def _texts(self, X: object, name: str) -> str | list[Any] | tuple[Any, ...]:
        """Return strings, or lists of strings, in no array; refuse a single string or sequence."""
        if not isinstance(X, str | list | tuple):
            array = any_array(name, X)
            if array.ndim > 2:
                raise ValueError(
                    f"{name}: expected texts (n,) or words (n, T), got {describe(array)}"
                )
            texts: str | list[Any] = array.tolist()
            return self._texts(texts, name)
        if isinstance(X, str) and not self.may_be_stream:
            raise TypeError(f"{name}: expected a list of texts, got {describe(X)}; for one use [X]")
        return X

    def _read_vectors(
        self, X: object, lengths: object, n_features: int | None, names: tuple[str, str]
    ) -> Sequences:
        return read_vectors(
            X,
            lengths,
            padding_value=self.padding_value,
            n_features=n_features,
            feature_names=self.feature_names,
            dtype=self.dtype,
            left=self.left,
            names=names,
            ids="set embedding_dim or embedding='one-hot'",
        )

    def _read_ids(
        self,
        X: object,
        lengths: object,
        vocabulary_size: int | None,
        ids_per_step: int | None,
        names: tuple[str, str],
    ) -> Sequences:
        return read_ids(
            X,
            lengths,
            padding_value=self.padding_value,
            vocabulary_size=vocabulary_size,
            ids_per_step=ids_per_step,
            left=self.left,
            may_be_stream=self.may_be_stream,
            names=names,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        fields = dict(self.__dict__)
        if self.vocabulary is not None:
            check_own_class("vocabulary", self.vocabulary, "rnncore.text")
            fields["vocabulary"] = self.vocabulary.to_json()
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return what `to_json` described."""
        vocabulary, names = fields["vocabulary"], fields["feature_names"]
        if vocabulary is not None:
            from rnncore.text import Vocabulary

            vocabulary = Vocabulary.from_json(vocabulary)
        names = None if names is None else tuple(names)
        return cls(**{**fields, "vocabulary": vocabulary, "feature_names": names})
