"""From what people pass as y to checked targets: one row per sequence, or one per step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnncore._data import Sequences
from rnncore._validate import Array, any_array, describe, listed_objects


@dataclass(frozen=True)
class Targets:
    """Checked targets.

    values : (rows,) labels or numbers, or (rows, k) numbers; a row is a sequence, or a real step
    task : "classification" or "regression"
    output : "last" (a row is a sequence) or "sequence" (a row is a step)
    """

    values: Array
    task: str
    output: str


def read_targets(
    y: object, sequences: Sequences, *, task: str, output: str, name: str = "y"
) -> Targets:
    """Read y: (n,), (n, k), (n, T), (n, T, k), or a list with one array for each sequence.

    With `task` "auto", floats mean regression, other types classification. With `output` "auto" the
    shape tells whether a target belongs to a sequence or to a step.
    """
    y = listed_objects(y)
    readings, given = _readings(y, sequences, name)
    if task == "auto":
        task = "regression" if given.dtype.kind == "f" else "classification"
    fitting = {
        kind: values
        for kind, values in readings.items()
        # A label is a single value, so only numbers may have columns.
        if output in ("auto", kind) and (task == "regression" or values.ndim == 1)
    }
    if not fitting:
        raise ValueError(_mismatch(y, given, sequences, task, output, name))
    if len(fitting) == 2 and given.shape[1] > 1:
        raise ValueError(
            f"{name}: shape {given.shape} could be {given.shape[1]} targets for each sequence, or "
            "one for each step; output: expected 'last' or 'sequence' to say which, got 'auto'"
        )
    found = next(iter(fitting))
    if found == "sequence" and len(fitting[found]) == 0:
        raise ValueError(f"{name}: expected at least one step with a target, got none")
    _check_values(fitting[found], task, name)
    return Targets(fitting[found], task, found)


def read_classes(values: Array, name: str = "y") -> Array:
    """Return the sorted distinct labels, of which there must be two or more."""
    classes = np.unique(values)
    if len(classes) < 2:
        raise ValueError(
            f"{name}: expected labels of at least 2 classes, got only {classes.tolist()[0]!r}"
        )
    return classes


def check_same_kind(values: Array, classes: Array, name: str) -> None:
    """Check that labels are strings where the classes are, and no strings where they are not."""
    if (values.dtype.kind == "U") != (classes.dtype.kind == "U"):
        expected, got = (
            "strings" if array.dtype.kind == "U" else "numbers" for array in (classes, values)
        )
        raise TypeError(f"{name}: expected labels that are {expected}, as in fit, got {got}")


def encode_labels(values: Array, classes: Array, name: str) -> NDArray[np.int64]:
    """Return the index of each label in `classes`, of which each must be one."""
    codes = np.searchsorted(classes, values).clip(max=len(classes) - 1)
    unknown = np.unique(values[classes[codes] != values])
    if len(unknown):
        raise ValueError(
            f"{name}: expected labels seen in fit ({_listed(classes)}), got {_listed(unknown)} too"
        )
    return codes.astype(np.int64)


def _readings(y: object, sequences: Sequences, name: str) -> tuple[dict[str, Array], Array]:
    """Return the ways to read `y`, "last" first, and `y` as an array, joined if it is ragged."""
    count = len(sequences)
    readings = {}
    if isinstance(y, list | tuple) and y and all(map(_has_items, y)):
        arrays = [_label_array(f"{name}[{index}]", item) for index, item in enumerate(y)]
        _check_count(name, len(arrays), count)
        # Without the empty ones: an empty list became an array of floats.
        filled = [array for array in arrays if len(array)]
        if len({array.shape[1:] for array in filled}) > 1:
            shapes = " and ".join(sorted({str(array.shape[1:]) for array in filled}))
            raise ValueError(f"{name}: expected targets of one shape, got shapes {shapes}")
        _check_not_mixed(name, [array.flat[0].item() for array in filled if array.size])
        given = np.concatenate(filled) if filled else arrays[0]
        steps = given
        if len({len(array) for array in arrays}) == 1 and given.size and given.ndim == 1:
            given = readings["last"] = np.stack(arrays)
        sizes = [len(array) for array in arrays]
        if steps.ndim <= 2 and sizes == sequences.lengths.tolist():
            readings["sequence"] = steps
        elif steps.ndim <= 2 and sizes == sequences.sizes.tolist():
            readings["sequence"] = steps[sequences.rows()]
        return readings, given
    given = _label_array(name, y)
    _check_count(name, len(given) if given.ndim else 0, count)
    if given.ndim == 1 or (given.ndim == 2 and given.shape[1]):
        readings["last"] = given
    if given.ndim in (2, 3) and given.shape[1] == sequences.longest:
        real = np.arange(sequences.longest) < sequences.lengths[:, None]
        readings["sequence"] = given[real]
    return readings, given


def _has_items(value: object) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def _label_array(name: str, value: object) -> Array:
    array = any_array(name, value)
    if array.dtype.kind in "OT":
        value = array.tolist()  # whose items say what it holds
        array = any_array(name, value)
    if array.dtype.kind == "U" and isinstance(value, list | tuple):
        _check_not_mixed(name, np.asarray(value, object).flat)
    if array.dtype.kind not in "fiubU":
        if array.dtype == object and array.ndim == 1:
            for index, item in enumerate(array):
                _label_array(f"{name}[{index}]", item)  # raises for the first that is neither
        raise TypeError(f"{name}: expected numbers or strings, got {describe(value)}")
    return array


def _check_not_mixed(name: str, items: Iterable[object]) -> None:
    """Check that all are strings or none is: NumPy makes numbers among strings strings too."""
    kinds = {isinstance(item, str): item for item in items}
    if len(kinds) == 2:
        raise TypeError(
            f"{name}: expected numbers or strings, not both, "
            f"got {describe(kinds[True])} and {describe(kinds[False])}"
        )


def _check_count(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{name}: expected {expected} targets, one for each sequence, got {found}")


def _check_values(values: Array, task: str, name: str) -> None:
    if task == "regression" and values.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers for regression, got {describe(values)}")
    if values.dtype.kind != "f":
        return
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        raise ValueError(f"{name}: expected finite targets, got {bad}")
    if task == "classification" and not (values == np.floor(values)).all():
        bad = values[values != np.floor(values)][0]
        raise ValueError(f"{name}: expected labels for classification, got the number {bad:g}")


def _mismatch(
    y: object, given: Array, sequences: Sequences, task: str, output: str, name: str
) -> str:
    n, steps = len(sequences), sequences.longest
    shapes = {
        "last": [f"({n},)", f"({n}, k)"],
        "sequence": [f"({n}, {steps})", f"({n}, {steps}, k)"],
    }
    accepted = [
        shape
        for kind, pair in shapes.items()
        if output in ("auto", kind)
        for shape in (pair if task == "regression" else pair[:1])
    ]
    message = f"{name}: expected shape {' or '.join(accepted)} for {task}"
    if not isinstance(y, list | tuple) or not all(map(_has_items, y)):
        return f"{message}, got {given.shape}{_advice(given, task)}"
    for index, (item, length) in enumerate(zip(y, sequences.lengths, strict=True)):
        if len(item) != length:
            return (
                f"{message}, or a list with a target for each step; "
                f"got {len(item)} in {name}[{index}], where there are {length} steps"
            )
    return f"{message}, got a list of {given.ndim}-D arrays"


def _advice(given: Array, task: str) -> str:
    """Say what makes columns labels, where their number or values tell."""
    if task != "classification" or given.ndim != 2:
        return ""
    if given.shape[1] == 1:
        return "; for a column of labels use y.ravel()"
    one_hot = np.isin(given, (0, 1)).all() and (given.sum(axis=1) == 1).all()
    return "; for one-hot labels use y.argmax(axis=1)" if one_hot else ""


def _listed(labels: Iterable[object]) -> str:
    shown = [str(label) for label in labels]
    return ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "")
