"""Sequences of several lengths as the flat arrays that the training loop reads, and back.

The loop wants all steps of all sequences as rows of one array: sequence i is the rows
``starts[i] .. starts[i] + lengths[i]`` of `values`. A padded array is that already, and a float
one in the right dtype is not copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnncore._validate import Array

Indexes = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Checked sequences.

    values : (N, F) floats, or (N,) or (N, k) int64 ids; C-contiguous, possibly the caller's memory
    starts, lengths : (n,) int64
    offsets : (n + 1,) int64; the rows that sequence i came with, padding included, are
        ``offsets[i] .. offsets[i + 1]``
    steps : padded number of steps T, or None when the sequences did not come as one array
    left : whether padding stands before the steps rather than behind them
    stream : whether X was one long sequence by itself
    feature_names : what X calls the columns of `values`, or None where it has no names for them
    """

    values: Array
    starts: Indexes
    lengths: Indexes
    offsets: Indexes
    steps: int | None = None
    left: bool = False
    stream: bool = False
    feature_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sizes(self) -> Indexes:
        """Steps that each sequence came with, padding included."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> int:
        """Steps of a padded array over these sequences."""
        return int(self.sizes.max())

    def rows(self) -> Indexes:
        """Return the row of `values` of every real step, sequence after sequence."""
        return rows_of(self.starts, self.lengths)

    def real(self) -> Array:
        """Return the rows of all real steps: `values` itself where there is no padding."""
        return self.values if self.lengths.sum() == len(self.values) else self.values[self.rows()]

    def real_of(self, padded: Array) -> Array:
        """Return the real steps of an array (n, `longest`, ...) over these sequences.

        A view of `padded` where there is no padding and its memory allows.
        """
        if (self.lengths == self.longest).all():
            return padded.reshape(int(self.lengths.sum()), *padded.shape[2:])
        found: Array = padded[self.mask()]
        return found

    def mask(self) -> NDArray[np.bool_]:
        """Return where an array (n, `longest`) over these sequences has real steps."""
        first = self.starts - self.offsets[:-1]
        if self.left:
            first = first + self.longest - self.sizes
        step = np.arange(self.longest)
        mask: NDArray[np.bool_] = step >= first[:, None]
        return mask & (step < (first + self.lengths)[:, None])

    def locate(self, position: int) -> tuple[int, int]:
        """Return (sequence, step) of the real step at `position` among all real steps."""
        ends = np.cumsum(self.lengths)
        sequence = int(np.searchsorted(ends, position, side="right"))
        before = int(ends[sequence] - self.lengths[sequence])
        return sequence, position - before + int(self.starts[sequence] - self.offsets[sequence])

    def spread(self, steps: Array) -> Array:
        """Return `steps`, given for real steps alone, aligned with `values`: zero at the others."""
        if len(steps) == len(self.values):
            return steps
        full = np.zeros((len(self.values), *steps.shape[1:]), steps.dtype)
        full[self.rows()] = steps
        return full

    def shape_like_input(self, steps: Array) -> Array | list[Array]:
        """Return per-step results in the form that X had, a list or an array, zero for padding."""
        full = self.spread(steps)
        if self.stream:
            return full
        if self.steps is None:
            return np.split(full, self.offsets[1:-1])
        return full.reshape(len(self), self.steps, *steps.shape[1:])


def rows_of(starts: Indexes, lengths: Indexes) -> Indexes:
    """Return the rows ``starts[i] .. starts[i] + lengths[i]``, sequence after sequence."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
