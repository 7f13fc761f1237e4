"""From what people pass as X and lengths to checked `Sequences`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore import _core
from rnncore._sequences import Indexes, Sequences
from rnncore._validate import (
    Array,
    as_array,
    column_names,
    describe,
    lengths_array,
    listed_objects,
    plain_array,
    shown,
)

Mask = NDArray[np.bool_]

_LARGEST_ID = np.iinfo(np.int64).max - 1  # one more is their number


def holds_text(X: object) -> bool:
    """Return whether `X` is a string, or holds strings, or lists of strings.

    The first item says so that is neither empty nor missing.
    """
    X = listed_objects(X)
    if isinstance(X, str):
        return True
    if isinstance(X, list | tuple):
        first = next((item for item in X if not _is_nothing(item)), None)
        if isinstance(first, list | tuple):
            first = first[0]
        return isinstance(first, str) or _is_array_of_text(first)
    return _is_array_of_text(X)


def _is_single(item: object) -> bool:
    """Return whether `item` is a value by itself, a string too, and no list or array of them."""
    return not isinstance(item, list | tuple) and np.ndim(item) == 0  # type: ignore[arg-type]


def _is_nothing(item: Any) -> bool:
    """Return whether `item` is empty, or stands for no text in the column of a table."""
    if _is_single(item):
        return item is None or (isinstance(item, float) and bool(np.isnan(item)))
    shape = getattr(item, "shape", None)  # a sparse matrix has no len
    return len(item) == 0 if shape is None else 0 in shape


def _is_array_of_text(value: object) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", None) in ("U", "T")


def read_vectors(
    X: object,
    lengths: object,
    *,
    padding_value: float | None,
    n_features: int | None,
    feature_names: tuple[str, ...] | None = None,
    dtype: str,
    left: bool = False,
    finite: bool = True,
    names: tuple[str, str] = ("X", "lengths"),
    ids: str = "",
) -> Sequences:
    """Read sequences of feature vectors: (n, T, F), or a list of (T_i, F).

    `n_features` is the F that is expected, and `feature_names` the names of the columns that tables
    are to have, None while they are not known; `left` says on which side of a sequence its padding
    stands; `names` are what errors call the first two arguments, and `ids`
    says how the caller would be given ids, where it may. Numbers that are not `finite` are refused
    unless told otherwise.
    """
    X = listed_objects(X)
    with np.errstate(over="ignore"):  # what the dtype cannot hold is found as an infinity below
        rest = (lengths, padding_value, n_features, dtype, left, names, ids)
        if isinstance(X, list | tuple):
            sequences = _vectors_of_list(X, *rest)
        else:
            sequences = _vectors_of_array(X, *rest)
    if finite:
        _check_finite(names[0], sequences)
    found = column_names(names[0], X, feature_names)
    return replace(sequences, feature_names=found)


def _vectors_of_list(
    X: Sequence[Any],
    lengths: object,
    padding_value: float | None,
    n_features: int | None,
    dtype: str,
    left: bool,
    names: tuple[str, str],
    ids: str,
) -> Sequences:
    name, wanted = names[0], n_features or "F"
    one = "[np.array(X)[:, None]]"
    arrays = _read_list(X, lengths, names, check_numbers, f"(T, {wanted})", one)
    widths: dict[int, int] = {}  # and where each was met first
    for index, array in enumerate(arrays):
        if array.ndim == 2:
            widths.setdefault(array.shape[1], index)
        elif array.shape != (0,):
            raise ValueError(
                f"{name}[{index}]: expected shape (T, {wanted}), got {array.shape}"
                f"{_advice_in_list(X[index], array.shape, n_features, ids)}"
            )
    if not widths and n_features:
        widths = {n_features: 0}
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
    return _lay_out(values, list(map(len, arrays)), _find_padding(arrays, padding_value), left)


def _vectors_of_array(
    X: object,
    lengths: object,
    padding_value: float | None,
    n_features: int | None,
    dtype: str,
    left: bool,
    names: tuple[str, str],
    ids: str,
) -> Sequences:
    name, lengths_name = names
    array = as_array(name, X)
    check_numbers(name, array)
    if array.ndim != 3:
        raise ValueError(
            f"{name}: expected shape (n, T, {n_features or 'F'}), got {array.shape}"
            f"{_advice(X, array.shape, n_features, ids)}"
        )
    _check_not_empty(name, len(array))
    _check_width(name, array.shape[2], n_features)
    padding = _find_padding([array], padding_value) if lengths is None else None
    values = plain_array(array, dtype).reshape(-1, array.shape[2])
    return _blocks(lengths_name, values, array.shape[:2], lengths, padding, left)


def read_ids(
    X: object,
    lengths: object,
    *,
    padding_value: float | None,
    vocabulary_size: int | None,
    ids_per_step: int | None = 1,
    left: bool = False,
    may_be_stream: bool = False,
    names: tuple[str, str] = ("X", "lengths"),
) -> Sequences:
    """Read sequences of integer ids: (n, T), or a list of (T_i,); with several a step (n, T, k).

    `vocabulary_size` is what every id must be below, and `ids_per_step` that k, None while they are
    not known; `left` says on which side of a sequence its padding stands. With `may_be_stream`
    also one sequence by itself is read, (T,). `names` are what errors call the first two arguments.
    """
    name, lengths_name = names
    if padding_value is not None and not float(padding_value).is_integer():
        raise ValueError(f"padding_value: expected an integer for ids, got {padding_value}")
    X = listed_objects(X)
    if may_be_stream and _is_one_sequence(X):
        array = as_array(name, X)
        check_integers(name, array)
        if lengths is not None:
            raise ValueError(
                f"{lengths_name}: expected None beside one sequence, got {describe(lengths)}"
            )
        values = plain_array(array, np.int64)
        bounds = np.array([0, len(values)])
        sequences = Sequences(values, bounds[:1], bounds[1:], bounds, stream=True)
    elif isinstance(X, list | tuple):
        sequences = _ids_of_list(X, lengths, padding_value, ids_per_step, left, names)
    else:
        array = as_array(name, X)
        _check_ids_shape(name, array, 2, "(n, T", ids_per_step)
        check_integers(name, array)
        _check_not_empty(name, len(array))
        columns = array.reshape(*array.shape[:2], -1) if array.size else array[:, :, None]
        padding = _find_padding([columns], padding_value) if lengths is None else None
        shape = array.shape[:2]
        values = _flat_ids(array, shape[0] * shape[1])
        sequences = _blocks(lengths_name, values, shape, lengths, padding, left)
    _check_ids(name, sequences, vocabulary_size)
    return sequences


def _is_one_sequence(X: object) -> bool:
    if isinstance(X, list | tuple):
        return len(X) > 0 and all(map(_is_single, X[:2]))
    return len(getattr(X, "shape", ())) == 1


def _ids_of_list(
    X: Sequence[Any],
    lengths: object,
    padding_value: float | None,
    ids_per_step: int | None,
    left: bool,
    names: tuple[str, str],
) -> Sequences:
    name = names[0]
    arrays = _read_list(X, lengths, names, check_integers, "(T,)", "[X]")
    filled = []
    for index, array in enumerate(arrays):
        if array.shape != (0,):
            _check_ids_shape(f"{name}[{index}]", array, 1, "(T", ids_per_step)
            filled.append(array)
    widths = {array.shape[1:] for array in filled}
    if len(widths) > 1:
        raise ValueError(
            f"{name}: expected as many ids a step everywhere, got shapes "
            f"{' and '.join(sorted({str(array.shape) for array in filled})[:2])}"
        )
    flat = np.concatenate(filled or [np.empty(0, np.int64)], dtype=np.int64, casting="unsafe")
    padding = None
    if padding_value is not None:
        columns = [array.reshape(len(array), array.size // max(len(array), 1)) for array in arrays]
        padding = _find_padding(columns, padding_value)
    return _lay_out(_flat_ids(flat, len(flat)), list(map(len, arrays)), padding, left)


def _check_ids_shape(
    name: str, array: Array, axes: int, shape: str, ids_per_step: int | None
) -> None:
    """Check that ids have `axes` axes, or one more for several a step."""
    found = array.shape[axes] if array.ndim == axes + 1 else 1
    if array.ndim not in (axes, axes + 1) or found == 0 or ids_per_step not in (None, found):
        wanted = (
            f"{shape}, {ids_per_step})"
            if ids_per_step not in (None, 1)
            else (f"{shape})" if axes == 2 else f"{shape},)")
        )
        hint = "; for one sequence use X[None]" if array.ndim == 1 and axes == 2 else ""
        raise ValueError(f"{name}: expected ids of shape {wanted}, got shape {array.shape}{hint}")


def _flat_ids(array: Array, rows: int) -> Array:
    """Return ids as (rows,), or (rows, k) for more than one a step."""
    width = 1 if array.ndim == 1 or rows == 0 else array.size // rows
    ids = plain_array(array, np.int64)
    return ids.reshape(rows) if width == 1 else ids.reshape(rows, width)


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
    values: Array,
    sizes: list[int] | Indexes,
    padding: Mask | None,
    left: bool,
    steps: int | None = None,
) -> Sequences:
    """Return sequences of `sizes` rows end to end, without the `padding` on one side of each."""
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    starts, ends = offsets[:-1], offsets[1:]
    if padding is not None:
        real = np.flatnonzero(~padding)
        if left:
            first = np.concatenate([real, [len(padding)]])[np.searchsorted(real, starts)]
            starts = np.minimum(first, ends)
        else:
            last = np.concatenate([[-1], real])[np.searchsorted(real, ends)]
            ends = np.maximum(last + 1, starts)
    return Sequences(values, starts.copy(), ends - starts, offsets, steps, left)


def _blocks(
    lengths_name: str,
    values: Array,
    shape: tuple[int, ...],
    lengths: object,
    padding: Mask | None,
    left: bool,
) -> Sequences:
    count, steps = shape
    sequences = _lay_out(values, np.full(count, steps, np.int64), padding, left, steps)
    if lengths is None:
        return sequences
    real = lengths_array(lengths_name, lengths, count, steps)
    starts, offsets = sequences.starts, sequences.offsets
    return Sequences(values, offsets[1:] - real if left else starts, real, offsets, steps, left)


def _check_not_empty(name: str, count: int) -> None:
    if count == 0:
        raise ValueError(f"{name}: expected at least one sequence, got none")


def _check_width(name: str, width: int, n_features: int | None) -> None:
    if width == 0 or n_features not in (None, width):
        raise ValueError(f"{name}: expected {n_features or 'at least 1'} features, got {width}")


def check_numbers(name: str, array: Array) -> None:
    """Refuse an array of anything but real numbers."""
    _check_type(name, array, "fiub", "real numbers")


def check_integers(name: str, array: Array) -> None:
    """Refuse an array of anything but integers that int64 holds."""
    if array.size or array.dtype.kind != "f":  # an empty list became an array of floats
        _check_type(name, array, "iu", "integer ids")
    if array.dtype == np.uint64 and array.size and array.max() > _LARGEST_ID:
        raise ValueError(f"{name}: expected ids in 0..{_LARGEST_ID}, got {array.max()}")


def _check_type(name: str, array: Array, kinds: str, expected: str) -> None:
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected {expected}, got {describe(array)}")


def _advice(X: object, shape: tuple[int, ...], n_features: int | None, ids: str) -> str:
    """Say what makes an array of too few axes one of sequences, where its shape tells."""
    if len(shape) not in (1, 2):
        return ""
    array = _as_numpy("X", X)
    ways = []
    if len(shape) == 1 and n_features in (None, 1):
        ways.append(f"for a single series use {array}[None, :, None]")
    elif len(shape) == 2 and n_features in (None, 1) and shape[1] != n_features:
        ways.append(f"for single series use {array}[:, :, None]")
    if len(shape) == 2 and n_features in (None, shape[1]):
        ways.append(f"for one sequence (T, F) use {array}[None]")
    if ids and n_features is None:
        ways.append(f"for ids {ids}")
    return "; " + ", ".join(ways) if ways else ""


def _advice_in_list(item: object, shape: tuple[int, ...], n_features: int | None, ids: str) -> str:
    """Say what makes an item of the wrong number of axes a sequence, where its shape tells."""
    if len(shape) == 1 and n_features in (None, 1):
        or_ids = f", for ids {ids}" if ids and n_features is None else ""
        return f"; for a single series use {_as_numpy('x', item)}[:, None]{or_ids}"
    return "; for one sequence use [X]" if shape == (n_features,) else ""


def _as_numpy(name: str, value: object) -> str:
    """Say what of a value may be indexed as an array is: tables and lists may not."""
    return name if isinstance(value, np.ndarray) else f"np.array({name})"


def _check_finite(name: str, sequences: Sequences) -> None:
    if _core.all_finite(sequences.values):
        return
    finite = np.logical_and.reduce(np.isfinite(sequences.values), axis=1)
    rows = sequences.rows()
    bad = np.flatnonzero(~finite[rows])
    if len(bad):
        sequence, step = sequences.locate(int(bad[0]))
        values = sequences.values[rows[bad[0]]]
        feature = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"{name}: expected finite numbers (in {values.dtype}), got {shown(values[feature])} in "
            f"sequence {sequence}, step {step}, feature {feature}"
        )


def _check_ids(name: str, sequences: Sequences, vocabulary_size: int | None) -> None:
    ids: Indexes = sequences.real()
    top = _LARGEST_ID + 1 if vocabulary_size is None else vocabulary_size
    wrong = np.logical_or(ids < 0, ids >= top)
    bad = np.flatnonzero(wrong if ids.ndim == 1 else wrong.any(axis=1))
    if len(bad):
        sequence, step = sequences.locate(int(bad[0]))
        found = ids[bad[0]] if ids.ndim == 1 else ids[bad[0]][wrong[bad[0]]][0]
        limits = ">= 0" if vocabulary_size is None and found < 0 else f"in 0..{top - 1}"
        raise ValueError(
            f"{name}: expected ids {limits}, got {found} in sequence {sequence}, step {step}"
        )
