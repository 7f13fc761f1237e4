"""Where a training stands, beside the weights and what the optimizer keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from rnncore._history import History


@dataclass
class State:
    """What the next epoch needs to know of those before it; all of it plain values.

    seed : everything random in a training follows from it
    epoch : finished epochs
    history : their figures
    begin : finished epochs when the latest `fit` began; its schedule counts from there
    counts : what the learning-rate schedule counts, or None before its first epoch
    target : validation loss to get below by `tol`, or None before the first
    waited : epochs in a row that did not get below it
    """

    seed: int
    epoch: int = 0
    history: History = field(default_factory=History)
    begin: int = 0
    counts: dict[str, Any] | None = None
    target: float | None = None
    waited: int = 0

    def begin_fit(self) -> None:
        """Begin a schedule and early stopping anew; epochs and history go on."""
        self.begin = self.epoch
        self.counts = None
        self.target = None
        self.waited = 0

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {**asdict(self), "history": {name: [*v] for name, v in self.history.items()}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return what `to_json` described."""
        return cls(**{**value, "history": History(value["history"])})
