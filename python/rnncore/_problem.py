"""What a fitted estimator knows of its data: kind of input, task, classes, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from rnncore._data import Sequences, read_ids, read_vectors
from rnncore._targets import check_same_kind, encode_labels, read_classes, read_targets
from rnncore._validate import Array


@dataclass(frozen=True)
class Problem:
    """What `fit` learned about X and y, and reading and writing data by it.

    input_kind : "dense", "embedding" or "one-hot"
    n_features, vocabulary_size : the one that the input has; the other is None
    task : "classification" or "regression"
    output : "last" or "sequence"
    classes : (n_outputs,) sorted labels, or None for regression
    n_outputs : classes or targets
    single : whether a regression target is a number rather than a vector
    dtype : "float32" or "float64"
    """

    input_kind: str
    n_features: int | None
    vocabulary_size: int | None
    task: str
    output: str
    classes: Array | None
    n_outputs: int
    single: bool
    dtype: str

    @classmethod
    def from_data(
        cls,
        X: object,
        y: object,
        lengths: object,
        *,
        input_kind: str,
        vocabulary_size: int | None,
        task: str,
        output: str,
        padding_value: float | None,
        dtype: str,
    ) -> tuple[Self, Sequences, Array]:
        """Find out what the problem is; return it with the sequences and the rows of targets."""
        n_features = None
        if input_kind == "dense":
            sequences = read_vectors(
                X, lengths, padding_value=padding_value, n_features=None, dtype=dtype
            )
            n_features = sequences.values.shape[1]
        else:
            sequences = read_ids(
                X, lengths, padding_value=padding_value, vocabulary_size=vocabulary_size
            )
            if vocabulary_size is None:
                ids = sequences.values[sequences.rows()]
                if len(ids) == 0:
                    raise ValueError("X: expected a sequence with at least one id, got none")
                vocabulary_size = int(ids.max()) + 1
        targets = read_targets(y, sequences, task=task, output=output)
        classes = read_classes(targets.values) if targets.task == "classification" else None
        single = targets.values.ndim == 1
        problem = cls(
            input_kind=input_kind,
            n_features=n_features,
            vocabulary_size=vocabulary_size,
            task=targets.task,
            output=targets.output,
            classes=classes,
            n_outputs=(1 if single else targets.values.shape[1])
            if classes is None
            else len(classes),
            single=single,
            dtype=dtype,
        )
        return problem, sequences, problem._rows_of_targets(targets.values, sequences, "y")

    def read(
        self,
        X: object,
        lengths: object,
        padding_value: float | None,
        names: tuple[str, str] = ("X", "lengths"),
    ) -> Sequences:
        """Read more sequences of the same kind; `names` are those of the two arguments."""
        if self.input_kind == "dense":
            return read_vectors(
                X,
                lengths,
                padding_value=padding_value,
                n_features=self.n_features,
                dtype=self.dtype,
                names=names,
            )
        return read_ids(
            X,
            lengths,
            padding_value=padding_value,
            vocabulary_size=self.vocabulary_size,
            names=names,
        )

    def read_targets(self, y: object, sequences: Sequences, name: str = "y") -> Array:
        """Read labels or numbers of the same kind, one row per sequence or per real step."""
        values = read_targets(y, sequences, task=self.task, output=self.output, name=name).values
        if self.classes is not None:
            check_same_kind(values, self.classes, name)
        elif (values.ndim == 1) != self.single or values[0].size != self.n_outputs:
            expected = "one number" if self.single else f"{self.n_outputs} numbers"
            got = "one number" if values.ndim == 1 else f"{values.shape[1]} numbers"
            raise ValueError(f"{name}: expected {expected} a target as in fit, got {got}")
        return values

    def targets_for_training(self, y: object, sequences: Sequences, name: str) -> Array:
        """Read targets of the same kind as the training loop wants them."""
        return self._rows_of_targets(self.read_targets(y, sequences, name), sequences, name)

    def _rows_of_targets(self, values: Array, sequences: Sequences, name: str) -> Array:
        """Return class indexes, or numbers (rows, n_outputs), per sequence or per row of values."""
        rows: Array
        if self.classes is not None:
            rows = encode_labels(values, self.classes, name)
        else:
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(values.reshape(len(values), self.n_outputs), self.dtype)
            if not np.isfinite(rows).all():
                largest = np.abs(values).max()
                raise ValueError(f"{name}: expected numbers that fit {self.dtype}, got {largest}")
        return sequences.spread(rows) if self.output == "sequence" else rows

    def predictions(self, outputs: Array) -> Array:
        """Return labels or numbers from raw outputs, one row per sequence or per real step."""
        if self.classes is not None:
            labels: Array = self.classes[outputs.argmax(axis=1)]
            return labels
        return outputs[:, 0] if self.single else outputs

    def shape_like_input(self, rows: Array, sequences: Sequences) -> Array | list[Array]:
        """Return rows in the form of X when they belong to steps, unchanged when to sequences."""
        return sequences.shape_like_input(rows) if self.output == "sequence" else rows

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        fields = dict(self.__dict__)
        if self.classes is not None:
            fields["classes"] = [self.classes.dtype.str, self.classes.tolist()]
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return what `to_json` described."""
        classes = fields["classes"]
        if classes is not None:
            dtype, labels = classes
            classes = np.array(labels, dtype)
        return cls(**{**fields, "classes": classes})
