"""From what people pass as y to checked targets: one row per sequence, or one per step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnncore._sequences import Sequences
from rnncore._validate import Array, any_array, describe, listed_objects, shown


@dataclass(frozen=True)
class Targets:
    """Targets whose values are still to be checked.

    values : (rows,) labels or numbers, or (rows, k) columns; a row is a sequence, or a real step
    task : "classification" or "regression"
    per_step : whether a row is a step
    """

    values: Array
    task: str
    per_step: bool


def read_targets(
    y: object,
    sequences: Sequences,
    *,
    task: str,
    output: str,
    columns: bool = True,
    prefer_steps: bool = False,
    name: str = "y",
) -> Targets:
    """Read y: (n,), (n, k), (n, T), (n, T, k), or a list with one array for each sequence.

    With `task` "auto", floats mean regression, other types classification; columns of a classifier
    are 0 or 1, a label each, and `columns` says whether there may be any. With `output` "auto" the
    shape tells whether a target belongs to a sequence or to a step; where it may be both,
    `prefer_steps` decides or else there is an error.
    """
    if y is None:
        raise ValueError(
            f"{name}: expected targets, got None; this task requires y to be passed, but the "
            "target y is None: only task='language_model' goes without"
        )
    y = listed_objects(y)
    readings, given = targets_by_kind(y, sequences, name)
    if task == "auto":
        task = "regression" if given.dtype.kind == "f" else "classification"
    kind = {"auto": "auto", "sequence": "step"}.get(output, "sequence")
    fitting = {
        found: values
        for found, values in readings.items()
        if kind in ("auto", found)
        and (values.ndim == 1 or task == "regression" or (columns and _are_labels(values)))
    }
    if not fitting:
        raise ValueError(_mismatch(y, given, sequences, task, kind, name))
    if len(fitting) == 2 and prefer_steps:
        del fitting["sequence"]
    if len(fitting) == 2 and given.shape[1] > 1:
        raise ValueError(
            f"{name}: shape {given.shape} could be {given.shape[1]} targets for each sequence, or "
            "one for each step; output: expected 'last' or 'sequence' to say which, got 'auto'"
        )
    found, values = next(iter(fitting.items()))
    if len(values) == 0:
        raise ValueError(f"{name}: expected at least one step with a target, got none")
    return Targets(values, task, found == "step")


def check_targets(values: Array, task: str, name: str, weights: Array | None) -> Array:
    """Return targets that are of the right type, and finite; zero for numbers without weight."""
    if task == "regression" and values.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers for regression, got {describe(values)}")
    if values.dtype.kind != "f":
        return values
    if task == "regression" and weights is not None and not weights.all():
        values = np.where((weights > 0).reshape(-1, *[1] * (values.ndim - 1)), values, 0)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name}: expected finite targets, got {shown(values[bad][0])}")
    if task == "classification" and not (values == np.floor(values)).all():
        wrong = values[values != np.floor(values)][0]
        raise ValueError(
            f"{name}: expected labels for classification, got the continuous number {wrong:g}"
        )
    return values


def _are_labels(values: Array) -> bool:
    """Return whether columns are labels that a row has or not."""
    return (
        values.ndim == 2
        and values.shape[1] > 1
        and values.dtype.kind in "iubf"
        and bool(np.isin(values, (0, 1)).all())
    )


def read_classes(values: Array, name: str = "y") -> Array:
    """Return the sorted distinct labels, of which there must be two or more."""
    classes = np.unique(values)
    if len(classes) < 2:
        raise ValueError(
            f"{name}: expected labels of at least 2 classes, got one class, {classes.tolist()[0]!r}"
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
    wrong = classes[codes] != values
    if wrong.any():
        unknown = np.unique(values[wrong])
        raise ValueError(
            f"{name}: expected labels seen in fit ({_listed(classes)}), got {_listed(unknown)} too"
        )
    return codes.astype(np.int64)


def targets_by_kind(
    y: object, sequences: Sequences, name: str, what: str = "targets"
) -> tuple[dict[str, Array], Array]:
    """Return the ways to read `y`, and `y` as an array, joined if it is ragged.

    What is read as one target (or row of them) per "sequence" comes first, then per "step", where
    only real steps have rows. `what` is what an error calls them.
    """
    count = len(sequences)
    readings: dict[str, Array] = {}
    if isinstance(y, list | tuple) and y and all(map(_has_items, y)):
        arrays = [label_array(f"{name}[{index}]", item) for index, item in enumerate(y)]
        _check_count(name, len(arrays), count, what)
        # Without the empty ones: an empty list became an array of floats.
        filled = [array for array in arrays if len(array)]
        if len({array.shape[1:] for array in filled}) > 1:
            shapes = " and ".join(sorted({str(array.shape[1:]) for array in filled}))
            raise ValueError(f"{name}: expected targets of one shape, got shapes {shapes}")
        _check_not_mixed(name, [array.flat[0].item() for array in filled if array.size])
        given = np.concatenate(filled) if filled else arrays[0]
        steps = given
        if len({len(array) for array in arrays}) == 1 and given.size and given.ndim == 1:
            given = readings["sequence"] = np.stack(arrays)
        sizes = [len(array) for array in arrays]
        if steps.ndim <= 2 and sizes == sequences.lengths.tolist():
            readings["step"] = steps
        elif steps.ndim <= 2 and sizes == sequences.sizes.tolist():
            readings["step"] = steps[sequences.rows()]
        return readings, given
    given = label_array(name, _with_labels_for_padding(name, y, sequences))
    if given.ndim == 0:
        raise TypeError(
            f"{name}: expected {count} {what}, one for each sequence, got {describe(given)}"
        )
    _check_count(name, len(given), count, what)
    if given.ndim == 1 or (given.ndim == 2 and given.shape[1]):
        readings["sequence"] = given
    if given.ndim in (2, 3) and given.shape[1] == sequences.longest:
        readings["step"] = sequences.real_of(given)
    return readings, given


def _with_labels_for_padding(name: str, y: object, sequences: Sequences) -> object:
    """Return padded labels with one of them wherever padding is, which may be NaN or None."""
    array = any_array(name, y)
    if array.dtype != object or array.shape != (len(sequences), sequences.longest):
        return y
    is_real = sequences.mask()
    if is_real.all() or not is_real.any():
        return y
    return np.where(is_real, array, array[is_real][0])


def _has_items(value: object) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def label_array(name: str, value: object) -> Array:
    """Return labels or numbers as an array, of numbers or of strings."""
    array = any_array(name, value)
    if array.dtype.kind in "OT":
        value = array.tolist()  # whose items say what it holds
        array = any_array(name, value)
    if array.dtype.kind == "U" and isinstance(value, list | tuple):
        _check_not_mixed(name, np.asarray(value, object).flat)
    if array.dtype.kind not in "fiubU":
        if array.dtype == object and array.ndim == 1:
            for index, item in enumerate(array):
                label_array(f"{name}[{index}]", item)  # raises for the first that is neither
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


def _check_count(name: str, found: int, expected: int, what: str) -> None:
    if found != expected:
        raise ValueError(f"{name}: expected {expected} {what}, one for each sequence, got {found}")


def _mismatch(
    y: object, given: Array, sequences: Sequences, task: str, kind: str, name: str
) -> str:
    n, steps = len(sequences), sequences.longest
    shapes = {
        "sequence": [f"({n},)", f"({n}, k)"],
        "step": [f"({n}, {steps})", f"({n}, {steps}, k)"],
    }
    accepted = [
        shape
        for found, pair in shapes.items()
        if kind in ("auto", found)
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
    return f"{message}, got a list of {given.ndim}-D arrays{_advice(given, task)}"


def _advice(given: Array, task: str) -> str:
    """Say what makes columns labels, where their number or values tell."""
    if task != "classification" or given.ndim < 2:
        return ""
    if given.shape[-1] == 1:
        return f"; for a column of labels use y{'.ravel()' if given.ndim == 2 else '[..., 0]'}"
    return "; several labels at once are columns of 0 and 1"


def _listed(labels: Iterable[object]) -> str:
    shown = [str(label) for label in labels]
    return ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "")
