"""What a fitted estimator knows of its data: input, task, loss, classes, sizes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from rnncore._input import Input
from rnncore._labelled import Labelled
from rnncore._options import LOSSES
from rnncore._sequences import Sequences
from rnncore._targets import (
    Targets,
    check_same_kind,
    check_targets,
    encode_labels,
    label_array,
    read_classes,
    read_targets,
)
from rnncore._validate import Array, describe, plain_array
from rnncore._weights import read_sample_weight

# What errors call the sequences, the targets and their weights.
_NAMES = ("X", "y", "sample_weight")


@dataclass(frozen=True)
class Problem:
    """What `fit` learned about X and y, and reading and writing targets by it.

    input : what X is
    task : "classification", "regression" or "language_model"
    output : "last", "mean", "max" or "sequence"
    loss : one of those of the task
    classes : sorted labels, or None but for classification
    n_outputs : numbers that the network gives for a target
    single : whether a target is one label or number rather than a row of them
    """

    input: Input
    task: str
    output: str
    loss: str
    classes: Array | None
    n_outputs: int
    single: bool

    @classmethod
    def from_data(
        cls,
        X: object,
        y: object,
        lengths: object,
        sample_weight: object,
        options: dict[str, Any],
        classes: object = None,
    ) -> tuple[Self, Labelled]:
        """Find out what the problem is, by the checked `options`; return it with the data.

        `classes` are all labels that there will ever be, None for those of `y`.
        """
        kind, sequences = Input.from_data(X, lengths, options)
        if options["task"] == "language_model":
            _check_no_classes(classes, "a language model")
            problem = cls(
                input=kind,
                task="language_model",
                output="sequence",
                loss="cross_entropy",
                classes=None,
                n_outputs=kind.vocabulary_size,
                single=True,
            )
            return problem, problem.label(sequences, y, sample_weight)
        targets = read_targets(
            y,
            sequences,
            task=options["task"],
            output=options["output"],
            columns=options["loss"] != "cross_entropy",
            prefer_steps=options["bptt_steps"] is not None,
        )
        labels = _labels(targets, classes)
        if options["task"] == "auto" and classes is None and labels is not None:
            _warn_of_numbers(targets.values, labels)
        loss = _loss(options["loss"], targets, labels)
        columns = 1 if targets.values.ndim == 1 else targets.values.shape[1]
        problem = cls(
            input=kind,
            task=targets.task,
            output="sequence" if targets.per_step else options["output"].replace("auto", "last"),
            loss=loss,
            classes=labels,
            n_outputs=columns if labels is None or loss != "cross_entropy" else len(labels),
            single=targets.values.ndim == 1,
        )
        return problem, problem._join(sequences, targets.values, sample_weight, _NAMES)

    @property
    def per_step(self) -> bool:
        """Whether there is a target for each step."""
        return self.output == "sequence"

    @property
    def metric(self) -> str:
        """What the network's metric is called."""
        return "r2" if self.task == "regression" else "accuracy"

    @property
    def stratifies(self) -> bool:
        """Whether every sequence has one label."""
        return self.classes is not None and self.single and not self.per_step

    # Targets, as they come.

    def label(
        self,
        sequences: Sequences,
        y: object,
        sample_weight: object,
        names: tuple[str, str, str] = _NAMES,
    ) -> Labelled:
        """Join sequences with targets of the same kind; `names` are those of the arguments."""
        if self.task == "language_model":
            if y is not None:
                raise ValueError(
                    f"{names[1]}: expected None for a language model, whose targets are the ids "
                    f"that follow, got {describe(y)}"
                )
            weights = read_sample_weight(sample_weight, sequences, True, names[2])
            data = Labelled.of_next_ids(sequences, weights, self.input.dtype, names[0])
            if weights is not None and not data.is_counted():
                raise ValueError(
                    f"{names[2]}: expected a weight above 0 for an id that follows another, "
                    "got zero everywhere"
                )
            return data
        return self._join(sequences, self._read(y, sequences, names[1]), sample_weight, names)

    def read(
        self, sequences: Sequences, y: object, sample_weight: object
    ) -> tuple[Array, Array | None]:
        """Return targets as they are, and weights, for each sequence or each real step."""
        values = self._read(y, sequences, "y")
        weights = read_sample_weight(sample_weight, sequences, self.per_step, "sample_weight")
        return check_targets(values, self.task, "y", weights), weights

    def _read(self, y: object, sequences: Sequences, name: str) -> Array:
        values = read_targets(
            y,
            sequences,
            task=self.task,
            output=self.output,
            columns=not self.single,
            name=name,
        ).values
        if self.classes is not None and self.single:
            check_same_kind(values, self.classes, name)
        elif (values.ndim == 1) != self.single or values[0].size != self.n_outputs:
            what = "number" if self.task == "regression" else "label"
            expected = f"one {what}" if self.single else f"{self.n_outputs} {what}s"
            got = f"one {what}" if values.ndim == 1 else f"{values.shape[1]} {what}s"
            raise ValueError(f"{name}: expected {expected} a target as in fit, got {got}")
        return values

    def _join(
        self,
        sequences: Sequences,
        values: Array,
        sample_weight: object,
        names: tuple[str, str, str],
    ) -> Labelled:
        weights = read_sample_weight(sample_weight, sequences, self.per_step, names[2])
        values = check_targets(values, self.task, names[1], weights)
        rows = self._encode(values, names[1])
        return Labelled.of(sequences, rows, weights, self.per_step, self.input.dtype)

    def _encode(self, values: Array, name: str) -> Array:
        """Return class indexes, or numbers (rows, n_outputs)."""
        dtype = self.input.dtype
        if self.classes is not None and self.single:
            codes = encode_labels(values, self.classes, name)
            return codes if self.loss == "cross_entropy" else codes.astype(dtype)[:, None]
        with np.errstate(over="ignore"):
            rows = plain_array(values.reshape(len(values), self.n_outputs), dtype)
        if not np.isfinite(rows).all():
            largest = np.abs(values).max()
            raise ValueError(f"{name}: expected numbers that fit {dtype}, got {largest}")
        return rows

    # Results, from raw outputs: one row for each sequence or each real step.

    def predictions(self, outputs: Array) -> Array:
        """Return labels, numbers or ids."""
        if self.task == "regression":
            return outputs[:, 0] if self.single else outputs
        if not self.single:
            return (outputs > 0).astype(np.int64)
        if self.loss == "cross_entropy":
            return self.labels(outputs.argmax(axis=1))
        return self.labels((outputs[:, 0] > 0).astype(np.int64))

    def labels(self, chosen: Array) -> Array:
        """Return the labels of class indexes, which are ids for a language model."""
        return chosen if self.classes is None else self.classes[chosen]

    def probabilities(self, outputs: Array) -> Array:
        """Return the probability of every class; `outputs` are overwritten."""
        if self.loss == "cross_entropy":
            outputs -= outputs.max(axis=1, keepdims=True)
            np.exp(outputs, out=outputs)
            outputs /= outputs.sum(axis=1, keepdims=True)
            return outputs
        if self.single:
            outputs = np.concatenate([-outputs, outputs], axis=1)
        # The sigmoid, by a function that does not overflow.
        outputs /= 2
        np.tanh(outputs, out=outputs)
        outputs += 1
        outputs /= 2
        return outputs

    def shape_like_input(self, rows: Array, sequences: Sequences) -> Array | list[Array]:
        """Return rows in the form of X when they belong to steps, unchanged when to sequences."""
        return sequences.shape_like_input(rows) if self.per_step else rows

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        fields = {**self.__dict__, "input": self.input.to_json()}
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
        return cls(**{**fields, "input": Input.from_json(fields["input"]), "classes": classes})


def _labels(targets: Targets, classes: object) -> Array | None:
    """Return the sorted labels of a classifier, those of `classes` if there are any."""
    if targets.task == "regression":
        _check_no_classes(classes, "regression")
        return None
    if targets.values.ndim == 2:
        _check_no_classes(classes, "several labels at once")
        return np.arange(targets.values.shape[1])
    if classes is None:
        return read_classes(check_targets(targets.values, targets.task, "y", None))
    given = label_array("classes", classes)
    if given.ndim != 1:
        raise ValueError(f"classes: expected shape (n_classes,), got {given.shape}")
    labels = read_classes(check_targets(given, targets.task, "classes", None), "classes")
    check_same_kind(targets.values, labels, "y")
    return labels


def _check_no_classes(classes: object, what: str) -> None:
    if classes is not None:
        raise ValueError(f"classes: expected None for {what}, got {describe(classes)}")


def _warn_of_numbers(values: Array, labels: Array) -> None:
    """Warn of integers that scikit-learn, by the same measure, would not take for labels either."""
    if values.dtype.kind in "iu" and len(values) > 20 and 2 * len(labels) > len(values):
        warnings.warn(
            f"y: integers are labels, and of these {len(values)} as many as {len(labels)} differ: "
            "for numbers set task='regression', for labels task='classification'",
            stacklevel=6,
        )


def _loss(loss: str, targets: Targets, labels: Array | None) -> str:
    """Return the loss that `loss` stands for, if it suits the targets."""
    allowed, what = LOSSES[targets.task], targets.task
    if labels is not None and targets.values.ndim == 2:
        allowed, what = ("binary_cross_entropy",), "several labels at once"
    elif labels is not None and len(labels) > 2:
        allowed, what = ("cross_entropy",), f"{len(labels)} classes"
    if loss == "auto":
        return allowed[0]
    if loss not in allowed:
        listed = ", ".join(map(repr, ("auto", *allowed)))
        raise ValueError(f"loss: expected one of {listed} for {what}, got {loss!r}")
    return loss
