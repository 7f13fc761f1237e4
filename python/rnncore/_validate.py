"""Checks of arguments at the boundary, shared by layers, optimizers and estimators.

Every check takes the argument's name first, returns the value in the one type that the code behind
it works with, and raises a `TypeError` or `ValueError` that names the argument, what was expected
and what came.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DTYPES = ("float32", "float64")
_LARGEST_SIZE = 2**31 - 1


def describe(value: object) -> str:
    """Say in a few words what a value is, for the end of an error message."""
    if isinstance(value, np.ndarray) and value.ndim:
        dtype = "str" if value.dtype.kind == "U" else value.dtype.name
        return f"{dtype} array of shape {value.shape}"
    if isinstance(value, np.ndarray):
        value = value.item()
    shape = getattr(value, "shape", ())
    if shape and not isinstance(value, type):  # an array of another library
        return f"{type(value).__name__} of shape {tuple(shape)}"
    if value is None or isinstance(value, bool):
        return repr(value)
    text = " ".join(repr(value).split())  # that of arrays inside goes over several lines
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def shown(number: float) -> str:
    """Write a number of the data in an error message."""
    return "NaN" if math.isnan(number) else f"{number:g}"


def integer(
    name: str, value: object, minimum: int, maximum: int = _LARGEST_SIZE, *, also: str = ""
) -> int:
    """Return `value` as an int in ``minimum..=maximum``; booleans and floats are refused.

    `also` is what else an error says was expected: what the caller has dealt with.
    """
    if type(value) is int and minimum <= value <= maximum:  # the usual case: no words are needed
        return value
    limits = f"an integer >= {minimum}" if maximum == _LARGEST_SIZE else f"{minimum}..{maximum}"
    limits += also
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected {limits}, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected {limits}, got {describe(value)}") from None
    if not minimum <= number <= maximum:
        if number > _LARGEST_SIZE == maximum:
            limits = f"an integer in {minimum}..{maximum}{also}"
        raise ValueError(f"{name}: expected {limits}, got {number}")
    return number


def real(
    name: str,
    value: object,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    open_minimum: bool = False,
    open_maximum: bool = False,
    also: str = "",
) -> float:
    """Return `value` as a finite float between two limits, each of which may itself be excluded.

    `also` is what else an error says was expected: what the caller has dealt with.
    """
    is_number = type(value) in (float, int) or (
        isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    )
    try:
        number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:  # an integer of more digits than a float can have
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    below = number <= minimum if open_minimum else number < minimum
    above = number >= maximum if open_maximum else number > maximum
    if math.isfinite(number) and not below and not above:
        return number
    parts = ["a finite number"]
    if minimum > -math.inf:
        parts.append(f"{'>' if open_minimum else '>='} {minimum:g}")
    if maximum < math.inf:
        parts.append(f"{'<' if open_maximum else '<='} {maximum:g}")
    expected = f"{parts[0]} {' and '.join(parts[1:])}".rstrip() + also
    if not is_number:
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")
    raise ValueError(f"{name}: expected {expected}, got {number:g}")


def boolean(name: str, value: object) -> bool:
    """Return `value` as a bool; only Python's and NumPy's own booleans pass."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")
    return bool(value)


def choice(name: str, value: object, options: tuple[str, ...]) -> str:
    """Return `value` when it is one of the strings in `options`."""
    if isinstance(value, str) and value in options:
        return value
    listed = ", ".join(map(repr, options))
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {listed}, got {describe(value)}")
    raise ValueError(f"{name}: expected one of {listed}, got {value!r}")


def file_path(name: str, value: object, what: str = "file") -> str:
    """Return the path that a string or an `os.PathLike` stands for; no descriptor is one."""
    try:
        path = os.fsdecode(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected the path of a {what}, got {describe(value)}") from None
    if not path or "\0" in path:
        raise ValueError(f"{name}: expected the path of a {what}, got {path!r}")
    return path


def check_own_class(name: str, value: object, module: str) -> None:
    """Refuse a value to save of a class that is derived from one of `module`'s.

    From a file comes the class that its name says, and there is no other of that name.
    """
    if type(value).__module__ != module:
        raise TypeError(
            f"{name}: expected one of {module}, which rnncore.load knows, "
            f"got {type(value).__qualname__}: pickle the model instead"
        )


def dtype_name(name: str, value: object) -> str:
    """Return ``"float32"`` or ``"float64"`` for anything NumPy takes as that dtype."""
    try:
        found = np.dtype(value).name if value is not None else None  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found not in DTYPES:
        raise ValueError(f"{name}: expected 'float32' or 'float64', got {value!r}")
    return str(found)


def generator(name: str, value: object) -> np.random.Generator:
    """Return the generator that a `random_state` stands for.

    None gives a fresh one, an int a seeded one; a Generator is used as it is; a RandomState (what
    scikit-learn passes around) seeds a new one with a number drawn from it.
    """
    if value is None or isinstance(value, np.random.Generator):
        return np.random.default_rng(value)
    if isinstance(value, np.random.RandomState):
        return np.random.default_rng(value.randint(2**31 - 1))
    expected = "None, an integer >= 0 or a numpy.random.Generator"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")
    if value < 0:
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return np.random.default_rng(value)


def column_names(name: str, X: object, expected: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return what the tables in `X` call their columns; refuse others than `expected`.

    Columns in another order are other features, though as many. None where there is no table, or
    one whose columns have no names.
    """
    found, known, where = None, expected, "fit"
    for index, item in enumerate(X if isinstance(X, list | tuple) else ()):
        names = tuple(getattr(item, "columns", ()))
        if not names or not all(isinstance(each, str) for each in names):
            continue
        found = names
        if known is None:
            known, where = names, f"{name}[{index}]"
        for number, (got, wanted) in enumerate(zip(names, known, strict=False)):
            if got != wanted:
                raise ValueError(
                    f"{name}[{index}]: expected the columns of {where} in their order, "
                    f"{wanted!r} as column {number}, got {got!r}"
                )
    return found


def listed_objects(value: object) -> object:
    """Return the items of a one-dimensional array of objects as a list, almost all else as it is.

    Such arrays, and columns of tables that become one, hold strings, or sequences that differ in
    length. Columns that become an array of strings are returned as that.
    """
    if len(getattr(value, "shape", ())) != 1:
        return value
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError):  # `any_array` says of it what it is called
        return value
    if array.dtype == object:
        return array.tolist()
    return array if array.dtype.kind in "UT" else value


def any_array(name: str, value: object) -> Array:
    """Return `value` as an array of any type, none of it masked."""
    if type(value) is np.ndarray:  # the usual case, at no cost that a single step would feel
        return value
    mask = getattr(value, "mask", None)  # np.ma itself would take time to import
    if isinstance(mask, np.ndarray) and mask.any():
        raise ValueError(f"{name}: expected no masked values, got {mask.sum()}")
    try:
        return np.asarray(value)
    except ValueError:  # ragged nested lists
        raise ValueError(
            f"{name}: expected a rectangular array, got items that differ in shape, in "
            f"{describe(value)}"
        ) from None
    except (RuntimeError, TypeError) as error:  # such as a tensor that requires gradients
        raise TypeError(
            f"{name}: expected an array, got {describe(value)}, which is none to NumPy: {error}"
        ) from error


def as_array(name: str, value: object) -> Array:
    """Return `value` as an array of any type but object."""
    array = any_array(name, value)
    if array.dtype.kind == "O":
        raise TypeError(f"{name}: expected an array of numbers, got {_with_objects(value, array)}")
    return array


def _with_objects(value: object, array: Array) -> str:
    """Say what a value is of which NumPy makes `array`, one of objects, and why that may be."""
    if not array.ndim:
        return describe(value)
    for item in array.flat:
        if not isinstance(item, numbers.Number):
            return f"{describe(value)} with {describe(item)} in it"
    return f"{describe(value)}, numbers as objects: convert them by astype(float)"


def float_array(name: str, value: object, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return floats of exactly `shape` in `dtype`, aligned and in native byte order.

    Nothing is copied when `value` is that already, whatever its strides.
    """
    # The usual case, at no cost that a single step would feel.
    if (
        type(value) is np.ndarray
        and value.dtype == dtype
        and value.shape == shape
        and value.flags.aligned
    ):
        return value
    array = as_array(name, value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected floats of shape {shape}, got {describe(array)}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return np.require(array, dtype, ["ALIGNED"])


def plain_array(array: Array, dtype: np.dtype[Any] | type | str) -> Array:
    """Return `array` as the kernels read one: in `dtype`, row after row, and aligned.

    That last is what `np.ascontiguousarray` leaves as it was.
    """
    return np.require(array, dtype, ["C", "ALIGNED"])


def lengths_array(name: str, value: object, count: int, steps: int) -> NDArray[np.int64]:
    """Return `count` sequence lengths in ``0..=steps`` as a contiguous int64 array."""
    array = as_array(name, value)
    if array.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), got {array.shape}")
    if array.dtype.kind not in "iu" and count:
        raise TypeError(f"{name}: expected integers, got {describe(array)}")
    outside = np.flatnonzero((array < 0) | (array > steps))
    if len(outside):
        where = int(outside[0])
        raise ValueError(
            f"{name}: expected lengths in 0..{steps}, got {array[where]} for sequence {where}"
        )
    return plain_array(array, np.int64)
