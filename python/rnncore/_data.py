"""From what people pass as X and lengths to the flat arrays that the training loop reads, and back.

The loop wants all steps of all sequences as rows of one array: sequence i is the rows
``starts[i] .. starts[i] + lengths[i]`` of `values`. A padded array is that already, and a float
one in the right dtype is not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore._validate import Array, as_array, describe, lengths_array, listed_objects

Indexes = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sequences:
    """Checked sequences.

    values : (N, F) floats, or (N,) int64 ids; C-contiguous, possibly the caller's own memory
    starts, lengths : (n,) int64; behind the rows of a sequence its padding may follow
    steps : padded number of steps T, or None when the sequences came as a list
    """

    values: Array
    starts: Indexes
    lengths: Indexes
    steps: int | None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sizes(self) -> Indexes:
        """Steps that each sequence came with, padding included."""
        return np.diff(self.starts, append=len(self.values))

    @property
    def longest(self) -> int:
        """Steps of a padded array over these sequences."""
        return int(self.sizes.max())

    def rows(self) -> Indexes:
        """Return the row of `values` of every real step, sequence after sequence."""
        before = np.cumsum(self.lengths) - self.lengths
        total = int(self.lengths.sum())
        return np.repeat(self.starts - before, self.lengths) + np.arange(total)

    def spread(self, steps: Array) -> Array:
        """Return `steps`, given for real steps alone, aligned with `values`: zero at the others."""
        if len(steps) == len(self.values):
            return steps
        full = np.zeros((len(self.values), *steps.shape[1:]), steps.dtype)
        full[self.rows()] = steps
        return full

    def shape_like_input(self, steps: Array) -> Array | list[Array]:
        """Return per-step results in the form that X had, a list or an array, zero for padding."""
        if self.steps is None:
            return np.split(self.spread(steps), self.starts[1:])
        return self.spread(steps).reshape(len(self), self.steps, *steps.shape[1:])


def read_vectors(
    X: object,
    lengths: object,
    *,
    padding_value: float | None,
    n_features: int | None,
    dtype: str,
    names: tuple[str, str] = ("X", "lengths"),
    finite: bool = True,
) -> Sequences:
    """Read sequences of feature vectors: (n, T, F), or a list of (T_i, F).

    `n_features` is the F that is expected, None while it is not known; `names` are what errors call
    the first two arguments; `finite` says whether NaN and infinities are refused.
    """
    X = listed_objects(X)
    with np.errstate(over="ignore"):  # what the dtype cannot hold is found as an infinity below
        if isinstance(X, list | tuple):
            sequences = _vectors_of_list(X, lengths, padding_value, n_features, dtype, names)
        else:
            sequences = _vectors_of_array(X, lengths, padding_value, n_features, dtype, names)
    if finite:
        _check_finite(names[0], sequences)
    return sequences


def _vectors_of_list(
    X: Sequence[Any],
    lengths: object,
    padding_value: float | None,
    n_features: int | None,
    dtype: str,
    names: tuple[str, str],
) -> Sequences:
    name, wanted = names[0], n_features or "F"
    one = "[np.array(X)[:, None]]"
    arrays = _read_list(X, lengths, names, _check_numbers, f"(T, {wanted})", one)
    widths: dict[int, int] = {}  # and where each was met first
    for index, array in enumerate(arrays):
        if array.ndim == 2:
            widths.setdefault(array.shape[1], index)
        elif array.shape != (0,):
            raise ValueError(
                f"{name}[{index}]: expected shape (T, {wanted}), got {array.shape}"
                f"{_advice_in_list(array.shape, n_features)}"
            )
    if not widths:
        raise ValueError(f"{name}: expected a sequence with at least one step, got none")
    if len(widths) > 1:
        (first, at), (second, other) = list(widths.items())[:2]
        raise ValueError(
            f"{name}: expected as many features everywhere, "
            f"got {first} in {name}[{at}] and {second} in {name}[{other}]"
        )
    (width,) = widths
    _check_width(name, width, n_features)
    arrays = [array.reshape(-1, width) for array in arrays]
    values = np.empty((sum(map(len, arrays)), width), dtype)
    np.concatenate(arrays, out=values, casting="same_kind")
    return _lay_out(values, list(map(len, arrays)), _find_padding(arrays, padding_value))


def _vectors_of_array(
    X: object,
    lengths: object,
    padding_value: float | None,
    n_features: int | None,
    dtype: str,
    names: tuple[str, str],
) -> Sequences:
    name, lengths_name = names
    array = as_array(name, X)
    _check_numbers(name, array)
    if array.ndim != 3:
        raise ValueError(
            f"{name}: expected shape (n, T, {n_features or 'F'}), got {array.shape}"
            f"{_advice(array.shape, n_features)}"
        )
    _check_not_empty(name, len(array))
    _check_width(name, array.shape[2], n_features)
    padding = _find_padding([array], padding_value) if lengths is None else None
    values = np.require(array, dtype, ["C", "ALIGNED"]).reshape(-1, array.shape[2])
    return _blocks(lengths_name, values, array.shape[:2], lengths, padding)


def read_ids(
    X: object,
    lengths: object,
    *,
    padding_value: float | None,
    vocabulary_size: int | None,
    names: tuple[str, str] = ("X", "lengths"),
) -> Sequences:
    """Read sequences of integer ids: (n, T), or a list of (T_i,).

    `vocabulary_size` is what every id must be below, None while it is not known; `names` are what
    errors call the first two arguments.
    """
    name, lengths_name = names
    if padding_value is not None and not float(padding_value).is_integer():
        raise ValueError(f"padding_value: expected an integer for ids, got {padding_value}")
    X = listed_objects(X)
    if isinstance(X, list | tuple):
        arrays = _read_list(X, lengths, names, _check_integers, "(T,)", "[X]")
        for index, array in enumerate(arrays):
            if array.ndim != 1:
                raise ValueError(
                    f"{name}[{index}]: expected ids of shape (T,), got shape {array.shape}"
                )
        filled = [array for array in arrays if len(array)] or [np.empty(0, np.int64)]
        values = np.concatenate(filled, dtype=np.int64, casting="unsafe")
        padding = _find_padding([array[:, None] for array in arrays], padding_value)
        sequences = _lay_out(values, list(map(len, arrays)), padding)
    else:
        array = as_array(name, X)
        if array.ndim != 2:
            hint = "; for one sequence use X[None]" if array.ndim == 1 else ""
            raise ValueError(f"{name}: expected ids of shape (n, T), got shape {array.shape}{hint}")
        _check_integers(name, array)
        _check_not_empty(name, len(array))
        padding = _find_padding([array[:, :, None]], padding_value) if lengths is None else None
        values = np.require(array, np.int64, ["C", "ALIGNED"]).reshape(-1)
        sequences = _blocks(lengths_name, values, array.shape, lengths, padding)
    _check_ids(name, sequences, vocabulary_size)
    return sequences


def _read_list(
    X: Sequence[Any],
    lengths: object,
    names: tuple[str, str],
    check: Callable[[str, Array], None],
    shape: str,
    one: str,
) -> list[Array]:
    """Return arrays that passed `check`; `one` is how to pass a single sequence of scalars."""
    name, lengths_name = names
    if lengths is not None:
        raise ValueError(
            f"{lengths_name}: expected None beside a list of sequences, got {describe(lengths)}"
        )
    _check_not_empty(name, len(X))
    arrays = [as_array(f"{name}[{index}]", item) for index, item in enumerate(X)]
    for index, array in enumerate(arrays):
        check(f"{name}[{index}]", array)
    if all(array.ndim == 0 for array in arrays):
        raise ValueError(
            f"{name}: expected a list of arrays of shape {shape}, got a list of numbers; "
            f"for one sequence use {one}"
        )
    return arrays


def _find_padding(arrays: list[Array], value: float | None) -> Mask | None:
    """Return for each step of arrays (..., F) whether it consists of `value`; None without one."""
    if value is None:
        return None
    equal = [np.isnan(array) if np.isnan(value) else array == value for array in arrays]
    return np.concatenate([array.all(axis=-1).reshape(-1) for array in equal])


def _lay_out(
    values: Array, sizes: list[int] | Indexes, padding: Mask | None, steps: int | None = None
) -> Sequences:
    """Return sequences of `sizes` rows end to end, each up to its last row that is no `padding`."""
    ends = np.cumsum(sizes, dtype=np.int64)
    starts = ends - sizes
    if padding is not None:
        real = np.flatnonzero(~padding)
        last = np.concatenate([[-1], real])[np.searchsorted(real, ends)]
        ends = np.maximum(last + 1, starts)
    return Sequences(values, starts, ends - starts, steps)


def _blocks(
    lengths_name: str,
    values: Array,
    shape: tuple[int, ...],
    lengths: object,
    padding: Mask | None,
) -> Sequences:
    count, steps = shape
    sequences = _lay_out(values, np.full(count, steps, np.int64), padding, steps)
    if lengths is None:
        return sequences
    return replace(sequences, lengths=lengths_array(lengths_name, lengths, count, steps))


def _check_not_empty(name: str, count: int) -> None:
    if count == 0:
        raise ValueError(f"{name}: expected at least one sequence, got none")


def _check_width(name: str, width: int, n_features: int | None) -> None:
    if width == 0 or n_features not in (None, width):
        raise ValueError(f"{name}: expected {n_features or 'at least 1'} features, got {width}")


def _check_numbers(name: str, array: Array) -> None:
    _check_type(name, array, "fiub", "real numbers")


def _check_integers(name: str, array: Array) -> None:
    if array.size or array.dtype.kind != "f":  # an empty list became an array of floats
        _check_type(name, array, "iu", "integer ids")


def _check_type(name: str, array: Array, kinds: str, expected: str) -> None:
    if array.dtype.kind not in kinds:
        words = (
            "; words go in as integer ids, see embedding_dim" if array.dtype.kind in "UT" else ""
        )
        raise TypeError(f"{name}: expected {expected}, got {describe(array)}{words}")


def _advice(shape: tuple[int, ...], n_features: int | None) -> str:
    """Say what makes an array of too few axes one of sequences, where its shape tells."""
    if n_features is None and len(shape) == 2:
        return (
            "; for single series use X[:, :, None], "
            "for ids set embedding_dim or embedding='one-hot'"
        )
    if len(shape) == 2 and shape[1] == n_features:
        return "; for one sequence use X[None]"
    if n_features == 1 and len(shape) in (1, 2):
        return f"; for single series use X[{'None' if len(shape) == 1 else ':'}, :, None]"
    return ""


def _advice_in_list(shape: tuple[int, ...], n_features: int | None) -> str:
    """Say what makes an item of the wrong number of axes a sequence, where its shape tells."""
    if len(shape) == 1 and n_features in (None, 1):
        return "; for a single series use x[:, None]"
    return "; for one sequence use [X]" if shape == (n_features,) else ""


def _check_finite(name: str, sequences: Sequences) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(sequences.values.sum()):  # true for nearly all input, and needs no memory
            return
    finite = np.logical_and.reduce(np.isfinite(sequences.values), axis=1)
    rows = sequences.rows()
    bad = np.flatnonzero(~finite[rows])
    if len(bad):
        sequence, step = _locate(sequences, int(bad[0]))
        values = sequences.values[rows[bad[0]]]
        raise ValueError(
            f"{name}: expected finite numbers (in {values.dtype}), got "
            f"{values[~np.isfinite(values)][0]} in sequence {sequence}, step {step}"
        )


def _check_ids(name: str, sequences: Sequences, vocabulary_size: int | None) -> None:
    ids: Indexes = sequences.values[sequences.rows()]
    top = np.iinfo(np.int64).max if vocabulary_size is None else vocabulary_size
    bad = np.flatnonzero(np.logical_or(ids < 0, ids >= top))
    if len(bad):
        sequence, step = _locate(sequences, int(bad[0]))
        limits = ">= 0" if vocabulary_size is None else f"in 0..{vocabulary_size - 1}"
        raise ValueError(
            f"{name}: expected ids {limits}, got {ids[bad[0]]} in sequence {sequence}, step {step}"
        )


def _locate(sequences: Sequences, position: int) -> tuple[int, int]:
    """Return (sequence, step) of the real step that stands at `position` among all real steps."""
    ends = np.cumsum(sequences.lengths)
    sequence = int(np.searchsorted(ends, position, side="right"))
    return sequence, position - int(ends[sequence] - sequences.lengths[sequence])
