"""Sequences with their targets and weights: what a network is trained or scored on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from rnncore import _core
from rnncore._sequences import Indexes, Sequences, rows_of
from rnncore._validate import Array
from rnncore._weights import fitting


@dataclass(frozen=True)
class Labelled:
    """Sequences with a target, and perhaps a weight, for each sequence or each step.

    values, starts, lengths : as in `Sequences`
    targets : class indexes (rows,) or numbers (rows, n_outputs)
    weights : (rows,), or None for 1 everywhere
    per_step : whether the rows are those of `values` rather than the sequences
    dtype : of numbers and weights
    stream : whether it is one long sequence of ids, to be cut into several
    """

    values: Array
    starts: Indexes
    lengths: Indexes
    targets: Array
    weights: Array | None
    per_step: bool
    dtype: str
    stream: bool = False

    @classmethod
    def of(
        cls,
        sequences: Sequences,
        targets: Array,
        weights: Array | None,
        per_step: bool,
        dtype: str,
    ) -> Self:
        """Join sequences with targets and weights for each of them, or for every real step."""
        if per_step:
            targets = sequences.spread(targets)
            weights = None if weights is None else sequences.spread(weights)
        if weights is not None:
            weights = fitting(weights, dtype)
        starts, lengths = sequences.starts, sequences.lengths
        return cls(sequences.values, starts, lengths, targets, weights, per_step, dtype)

    @classmethod
    def of_next_ids(
        cls, sequences: Sequences, weights: Array | None, dtype: str, name: str
    ) -> Self:
        """Join sequences of ids, the argument `name`, with what follows each.

        A target has the weight of that id.
        """
        values = sequences.values
        targets = np.zeros_like(values)
        targets[:-1] = values[1:]
        if weights is not None:
            weights = fitting(np.append(sequences.spread(weights)[1:], 0), dtype)
        lengths = np.maximum(sequences.lengths - 1, 0)
        if not lengths.any():
            raise ValueError(f"{name}: expected a sequence of two ids or more, got none")
        stream = sequences.stream
        return cls(values, sequences.starts, lengths, targets, weights, True, dtype, stream)

    def __len__(self) -> int:
        return len(self.lengths)

    def weighed_by_class(self, class_weight: Array) -> Self:
        """Multiply every weight by that of the target's class."""
        weights = fitting(class_weight, "float64")[self._codes()]
        if self.weights is not None:
            weights *= self.weights
        return replace(self, weights=fitting(weights, self.dtype))

    def is_counted(self) -> bool:
        """Return whether any target weighs something."""
        if self.weights is None:
            return bool(self.lengths.any()) if self.per_step else len(self) > 0
        return len(self.counted()) > 0

    def without_padding(self) -> tuple[Array, Array, Array | None]:
        """Return values, targets and weights of what is read, sequence after sequence."""
        values, targets, weights = self.values, self.targets, self.weights
        if self.lengths.sum() < len(values):
            rows = rows_of(self.starts, self.lengths)
            values = values[rows]
            if self.per_step:
                targets = targets[rows]
                weights = None if weights is None else weights[rows]
        return values, targets, weights

    def counted(self) -> Indexes:
        """Return the rows of the targets that weigh something."""
        rows = np.arange(len(self))
        if self.per_step:
            rows = rows_of(self.starts, self.lengths)
        return rows if self.weights is None else rows[self.weights[rows] > 0]

    def counted_codes(self) -> Indexes:
        """Return the class indexes of the targets that weigh something."""
        return self._codes()[self.counted()]

    def _codes(self) -> Indexes:
        return self.targets.reshape(len(self.targets)).astype(np.int64, copy=False)

    def take(self, indexes: Array) -> Self:
        """Return some of the sequences; nothing but the rows of sequences is copied."""
        part = replace(self, starts=self.starts[indexes], lengths=self.lengths[indexes])
        if self.per_step:
            return part
        weights = None if self.weights is None else self.weights[indexes]
        return replace(part, targets=self.targets[indexes], weights=weights)

    def cut(self, at: Array) -> Self:
        """Cut a single sequence at the steps `at`, from 0 on to its end."""
        bounds = np.asarray(at, np.int64)
        return replace(self, starts=self.starts[0] + bounds[:-1], lengths=np.diff(bounds))

    def streams(self, count: int, shortest: int) -> Self:
        """Cut one sequence into `count` of nearly one length, or fewer so that none is short."""
        steps = int(self.lengths[0])
        count = max(min(count, steps // shortest), 1)
        return self.cut(np.arange(count + 1) * steps // count)

    def examples(self) -> _core.Examples:
        """Return them as the extension reads them."""
        return _core.Examples(self.values, self.starts, self.lengths, self.targets, self.weights)


def split(
    data: Labelled, fraction: float, rng: np.random.Generator, stratify: bool
) -> tuple[Labelled, Labelled]:
    """Split off a share of the sequences for validation, or the tail of a single long one.

    With `stratify` the classes have the same shares on both sides, as far as there are sequences.
    """
    if len(data) == 1 and data.per_step and data.lengths[0] > 1:
        steps = int(data.lengths[0])
        tail = min(max(round(fraction * steps), 1), steps - 1)
        return data.cut(np.array([0, steps - tail])), data.cut(np.array([steps - tail, steps]))
    count = len(data)
    if count < 2:
        raise ValueError(
            "early_stopping: expected at least 2 sequences, of which to keep one back, or an "
            f"eval_set; got {count}"
        )
    held = min(max(round(fraction * count), 1), count - 1)
    order = rng.permutation(count)
    if stratify:
        # Each class is spread evenly over [0, 1): the first places hold their share of each.
        codes = data.targets[order].reshape(count)
        place = np.empty(count)
        for code in np.unique(codes):
            members = np.flatnonzero(codes == code)
            place[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(place, kind="stable")]
    return data.take(np.sort(order[held:])), data.take(np.sort(order[:held]))
