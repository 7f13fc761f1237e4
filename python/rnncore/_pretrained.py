"""From word vectors of elsewhere to the table that an embedding starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncore._validate import Array, as_array, describe


def arrange(
    pretrained: Mapping[str, Any],
    words: Mapping[str, int],
    size: int,
    rng: np.random.Generator,
    *,
    padding: int,
    unknown: int,
) -> Array:
    """Return a table (size, D) with the vector of each word in the row of its id.

    Words without one, and the id of unknown words, are drawn; the rows of padding and of no word
    are zero.
    """
    if not hasattr(pretrained, "__getitem__") or not hasattr(pretrained, "__contains__"):
        raise TypeError(
            f"pretrained: expected a mapping of words to vectors, got {describe(pretrained)}"
        )
    found = {}
    for word, index in words.items():
        key = next((key for key in (word, word.lower()) if key in pretrained), None)
        if key is not None and index not in (padding, unknown):
            found[index] = _vector(f"pretrained[{key!r}]", pretrained[key])
    if not found:
        raise ValueError(
            f"pretrained: expected vectors of some of the {len(words)} words, got none of them"
        )
    shapes = {vector.shape for vector in found.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        listed = " and ".join(sorted(map(str, shapes)))
        raise ValueError(f"pretrained: expected vectors of one shape (D,), got {listed}")
    known = np.stack(list(found.values()))
    table = np.zeros((size, known.shape[1]), np.float32)
    drawn = rng.normal(known.mean(), known.std(), (len(words), known.shape[1]))
    table[: len(words)] = drawn
    table[list(found)] = known
    table[padding] = 0
    return table


def _vector(name: str, value: object) -> Array:
    """Return a pretrained vector, of finite numbers."""
    array = as_array(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of numbers, got {describe(value)}")
    with np.errstate(over="ignore"):
        vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError(f"{name}: expected finite numbers (in float32), got others")
    return vector
