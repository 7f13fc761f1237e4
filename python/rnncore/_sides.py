"""The shapes of a call of a layer or cell: its caller's, and those of the stack inside.

They are kept for the next call: to make them takes as long as a step of a small network.
"""

from __future__ import annotations

import functools
from typing import NamedTuple


class Shapes(NamedTuple):
    """Shapes of one call's arrays: of `x`, of the output, and of h and an LSTM's c."""

    x: tuple[int, ...]
    output: tuple[int, ...]
    states: tuple[tuple[int, ...], tuple[int, ...]]


class Sides(NamedTuple):
    """The shapes of one call: the caller's, and the stack's, which have steps and batch.

    They are one object where they are the same.
    """

    outside: Shapes
    inside: Shapes


@functools.lru_cache(maxsize=256)
def sides_of_layers(
    x: tuple[int, ...],
    input_size: int,
    batch_first: bool,
    directions: int,
    rows: int,
    widths: tuple[int, int],
) -> Sides:
    """Return the shapes of a call with an `x` of this one, for as many states and their columns."""
    if len(x) not in (2, 3) or x[-1] != input_size:
        batched = "(B, T, {0})" if batch_first else "(T, B, {0})"
        expected = (batched + " or (T, {0})").format(input_size)
        raise ValueError(f"x: expected shape {expected}, got {x}")

    def with_batch(x: tuple[int, ...], batch: int) -> Shapes:
        h, c = ((rows, batch, width) for width in widths)
        return Shapes(x, (*x[:-1], directions * widths[0]), (h, c))

    if len(x) == 3:
        both = with_batch(x, x[0 if batch_first else 1])
        return Sides(both, both)
    h, c = ((rows, width) for width in widths)
    outside = Shapes(x, (x[0], directions * widths[0]), (h, c))
    return Sides(outside, with_batch((x[0], 1, input_size), 1))


@functools.lru_cache(maxsize=256)
def sides_of_cell(x: tuple[int, ...], input_size: int, hidden_size: int) -> Sides:
    """Return the shapes of a step with an `x` of this one."""
    if len(x) not in (1, 2) or x[-1] != input_size:
        expected = f"(B, {input_size}) or ({input_size},)"
        raise ValueError(f"x: expected shape {expected}, got {x}")
    batch = x[0] if len(x) == 2 else 1
    state, stack_state = (*x[:-1], hidden_size), (1, batch, hidden_size)
    return Sides(
        Shapes(x, state, (state, state)),
        Shapes((1, batch, input_size), stack_state, (stack_state, stack_state)),
    )
