"""From `sample_weight` and `class_weight` to one weight for every target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore._sequences import Sequences
from rnncore._targets import targets_by_kind
from rnncore._validate import Array, any_array, describe, listed_objects, shown


def read_sample_weight(
    sample_weight: object, sequences: Sequences, per_step: bool, name: str
) -> Array | None:
    """Read weights: (n,), and where targets belong to steps also (n, T) or a list of (T_i,).

    They come as float64, one for each sequence or for each real step; None stands for 1 everywhere.
    """
    if sample_weight is None:
        return None
    weights = _rows(sample_weight, sequences, per_step, name).astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        at = int(wrong[0])
        where = f"sequence {at}"
        if per_step:
            where = "sequence {}, step {}".format(*sequences.locate(at))
        raise ValueError(
            f"{name}: expected finite weights >= 0, got {shown(weights[at])} in {where}"
        )
    if not weights.any():
        raise ValueError(f"{name}: expected a weight above 0, got zero everywhere")
    return weights


def _rows(sample_weight: object, sequences: Sequences, per_step: bool, name: str) -> Array:
    sample_weight = listed_objects(sample_weight)
    if sequences.stream:
        given = any_array(name, sample_weight)
        readings = {"step": given} if given.shape == sequences.values.shape[:1] else {}
    else:
        readings, given = targets_by_kind(sample_weight, sequences, name, "weights")
    if given.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got {describe(given)}")
    readings = {kind: values for kind, values in readings.items() if values.ndim == 1}
    if per_step and "step" in readings:
        return readings["step"]
    if "sequence" in readings:
        weights = readings["sequence"]
        return np.repeat(weights, sequences.lengths) if per_step else weights
    shapes = [f"({len(sequences)},)"] if not sequences.stream else [f"({len(sequences.values)},)"]
    if per_step and not sequences.stream:
        shapes.append(f"({len(sequences)}, {sequences.longest})")
        shapes.append("a list with a weight for each step")
    got = given.shape if not isinstance(sample_weight, list) else describe(sample_weight)
    raise ValueError(f"{name}: expected shape {' or '.join(shapes)}, got {got}")


def fitting(weights: Array, dtype: str) -> Array:
    """Return weights in `dtype`, brought into its range where the largest is far outside.

    Only their proportions count, and a power of two leaves those as they are.
    """
    largest = float(weights.max(initial=0.0))
    if largest and not 2.0**-60 < largest < 2.0**60:
        weights = np.ldexp(weights, -math.frexp(largest)[1])
    return weights.astype(dtype)


def weights_of_classes(
    class_weight: Mapping[Any, float] | str, classes: Array, codes: NDArray[np.int64]
) -> Array:
    """Return the weight of every class; `codes` are the class indexes of the targets in `fit`.

    "balanced" is scikit-learn's ``n / (n_classes * count)``.
    """
    if isinstance(class_weight, str):
        counts = np.bincount(codes, minlength=len(classes))
        return np.divide(
            len(codes), len(classes) * counts, out=np.zeros(len(classes)), where=counts > 0
        )
    labels = classes.tolist()
    missing = [label for label in labels if label not in class_weight]
    unknown = [label for label in class_weight if label not in labels]
    if missing and unknown:  # where no class is missing, the others may be those of another fold
        raise ValueError(
            f"class_weight: expected the classes of y, {missing[0]!r} among them, "
            f"got {unknown[0]!r} and no {missing[0]!r}"
        )
    return np.array([float(class_weight.get(label, 1.0)) for label in labels])
