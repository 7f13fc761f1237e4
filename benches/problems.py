"""What a layer is given: its shape, its numbers and its weights, under torch's names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Case:
    """
    A layer and what goes in: `batch` sequences of `steps` steps, `inputs` wide, to `hidden` units.

    `gradient` says where the loss reads the output: at every step ("all") or, as in a classifier,
    at the last alone ("last"). `layers` lie over one another, each with a second direction if
    `bidirectional`.
    """

    cell: str
    batch: int
    steps: int
    inputs: int
    hidden: int
    gradient: str = "all"
    dtype: str = "float32"
    layers: int = 1
    bidirectional: bool = False

    @property
    def directions(self) -> int:
        """Count the directions."""
        return 2 if self.bidirectional else 1

    @property
    def is_plain(self) -> bool:
        """Say whether it is one layer of one direction in float32, which every peer has."""
        return (self.dtype, self.layers, self.directions) == ("float32", 1, 1)

    @property
    def widths(self) -> list[int]:
        """Give the inputs of each layer."""
        return [self.inputs] + [self.directions * self.hidden] * (self.layers - 1)

    @property
    def weights(self) -> int:
        """Count the weights, but for the biases."""
        columns = sum(width + self.hidden for width in self.widths)
        return self.directions * GATES[self.cell] * self.hidden * columns

    @property
    def forward_flops(self) -> int:
        """Count the floating-point operations of the products; backward has twice as many."""
        return 2 * self.batch * self.steps * self.weights


@dataclass(frozen=True)
class Problem:
    """The numbers of a case: drawn from a fixed seed, the weights as torch draws its own."""

    case: Case

    @cached_property
    def x(self) -> Array:
        """Input, (steps, batch, inputs)."""
        case = self.case
        return self._normal(0, (case.steps, case.batch, case.inputs))

    @cached_property
    def d_output(self) -> Array:
        """Gradient of the loss by the output, (steps, batch, directions * hidden)."""
        case = self.case
        d_output = self._normal(1, (case.steps, case.batch, case.directions * case.hidden))
        if case.gradient == "last":
            d_output[:-1] = 0
        return d_output

    @cached_property
    def state(self) -> dict[str, Array]:
        """Initial state: "h0", and for an LSTM "c0", each (layers * directions, batch, hidden)."""
        case = self.case
        names = ["h0", "c0"] if case.cell == "LSTM" else ["h0"]
        shape = (case.layers * case.directions, case.batch, case.hidden)
        return {name: self._normal(3 + i, shape) for i, name in enumerate(names)}

    @cached_property
    def weights(self) -> dict[str, Array]:
        """Weights by torch's names, gates in torch's order."""
        case, rng = self.case, np.random.default_rng(2)
        rows, bound = GATES[case.cell] * case.hidden, case.hidden**-0.5
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, width in enumerate(case.widths):
            for suffix in ["", "_reverse"][: case.directions]:
                shapes |= {
                    f"weight_ih_l{layer}{suffix}": (rows, width),
                    f"weight_hh_l{layer}{suffix}": (rows, case.hidden),
                    f"bias_ih_l{layer}{suffix}": (rows,),
                    f"bias_hh_l{layer}{suffix}": (rows,),
                }
        return {
            name: rng.uniform(-bound, bound, shape).astype(case.dtype)
            for name, shape in shapes.items()
        }

    def _normal(self, seed: int, shape: tuple[int, ...]) -> Array:
        return np.random.default_rng(seed).standard_normal(shape, self.case.dtype)


def joined(parts: Iterable[Any]) -> Any:
    """Give a state as torch has it: h alone, or the pair (h, c)."""
    state = tuple(parts)
    return state if len(state) == 2 else state[0]
