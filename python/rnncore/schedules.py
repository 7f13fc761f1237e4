"""Learning-rate schedules for the estimators, with the formulas of ``torch.optim.lr_scheduler``.

::

    rnncore.LSTM(lr_schedule="cosine")
    rnncore.LSTM(lr_schedule=rnncore.schedules.WarmUp(2, then="cosine"))

A schedule says what the learning rate is at the start of every epoch, counted from 0, given the
rate that training was asked for. `Exponential`, `Cosine` and `WarmUp` go on within the epoch, from
update to update, in a straight line to the start of the next; the others keep the rate for an
epoch. In a `fit` with ``warm_start=True`` a schedule begins anew; `partial_fit` goes on with it,
after the end of a `Cosine` at its `minimum`.

Schedules are descriptions and never change: they can be compared, copied and used in several
models. What `ReduceOnPlateau` and `HalveOnRise` count belongs to the training, and goes into its
checkpoints.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

from rnncore._validate import check_own_class, choice, describe, integer, real
from rnncore._words import WordsHere

__all__ = [
    "Cosine",
    "Exponential",
    "HalveOnRise",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "WarmUp",
]


_Checks = dict[str, Callable[[str, Any], Any]]


@dataclass(frozen=True)
class Schedule(WordsHere, ABC):
    """What all schedules share; build one of the others."""

    # What the arguments may be.
    _checks: ClassVar[_Checks] = {}
    # Whether the rate also changes within an epoch.
    _by_update: ClassVar[bool] = False

    def start(self) -> dict[str, Any]:
        """Return what the schedule counts, as it is before the first epoch: plain values."""
        return {}

    @abstractmethod
    def rate(self, base: float, epoch: int, epochs: int, counts: dict[str, Any]) -> float:
        """Return the rate at the start of an epoch.

        Parameters
        ----------
        base : float
            The learning rate that training was asked for.
        epoch : int
            Epochs since the schedule began.
        epochs : int
            Epochs that the training will have.
        counts : dict
            What `start` returned and `observe` has updated since.
        """

    def rates(
        self, base: float, epoch: int, epochs: int, counts: dict[str, Any]
    ) -> tuple[float, float]:
        """Return the rates at both ends of an epoch; arguments are those of `rate`."""
        rate = self.rate(base, epoch, epochs, counts)
        if not self._by_update:
            return rate, rate
        return rate, self.rate(base, epoch + 1, epochs, counts)

    def observe(
        self, epoch: int, loss: float, val_loss: float | None, counts: dict[str, Any]
    ) -> None:
        """Update `counts` by the losses of an epoch that has ended."""

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as plain values, for `from_json`: one of this module's."""
        check_own_class("lr_schedule", self, __name__)
        arguments = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            "schedule": type(self).__name__,
            "arguments": {
                name: value.to_json() if isinstance(value, Schedule) else value
                for name, value in arguments.items()
            },
        }

    def __post_init__(self) -> None:
        """Bring every argument to its checked type."""
        for name, check in self._checks.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))


_factor = partial(real, minimum=0.0, maximum=1.0, open_minimum=True)
_at_least_0 = partial(real, minimum=0.0)
_at_least_1 = partial(integer, minimum=1)


@dataclass(frozen=True)
class Step(Schedule):
    """Multiply the rate by `factor` after `every` epochs, again and again, as torch's ``StepLR``.

    Parameters
    ----------
    every : int, >= 1
    factor : float, in (0, 1]
    """

    every: int = 10
    factor: float = 0.5

    _checks: ClassVar[_Checks] = {"every": _at_least_1, "factor": _factor}

    def rate(self, base: float, epoch: int, epochs: int, counts: dict[str, Any]) -> float:
        """Return the rate at the start of an epoch, as `Schedule.rate` says."""
        return float(base * self.factor ** (epoch // self.every))


@dataclass(frozen=True)
class Exponential(Schedule):
    """Multiply the rate by `factor` from epoch to epoch, as torch's ``ExponentialLR``.

    Parameters
    ----------
    factor : float, in (0, 1]
    """

    factor: float = 0.95

    _checks: ClassVar[_Checks] = {"factor": _factor}
    _by_update = True

    def rate(self, base: float, epoch: int, epochs: int, counts: dict[str, Any]) -> float:
        """Return the rate at the start of an epoch, as `Schedule.rate` says."""
        return float(base * self.factor**epoch)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Let the rate fall along half a cosine to `minimum`, as torch's ``CosineAnnealingLR``.

    Parameters
    ----------
    epochs : int >= 1, optional
        The epochs until `minimum`, where the rate then stays. The default is all that the training
        has: `max_epochs`, less those of a `WarmUp`. (So a fit that is resumed with a larger
        `max_epochs` is not quite the one that had so many from the start; with `epochs` it is.)
    minimum : float, >= 0
        A rate, not a factor.
    """

    epochs: int | None = None
    minimum: float = 0.0

    _checks: ClassVar[_Checks] = {
        "epochs": lambda name, value: None if value is None else _at_least_1(name, value),
        "minimum": _at_least_0,
    }
    _by_update = True

    def rate(self, base: float, epoch: int, epochs: int, counts: dict[str, Any]) -> float:
        """Return the rate at the start of an epoch, as `Schedule.rate` says."""
        length = max(self.epochs or epochs, 1)
        part = min(epoch / length, 1.0)
        return self.minimum + (base - self.minimum) * (1.0 + math.cos(math.pi * part)) / 2.0


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Let the rate rise in a straight line, as torch's ``LinearLR``; then follow another schedule.

    Parameters
    ----------
    epochs : int, >= 1
        The epochs until the full rate.
    then : str or schedule, optional
        What follows, its epochs counted from there. The default is the full rate.
    start_factor : float, in [0, 1]
        The factor at the beginning.
    """

    epochs: int = 1
    then: Schedule | str | None = None
    start_factor: float = 0.0

    _checks: ClassVar[_Checks] = {
        "epochs": _at_least_1,
        "then": lambda name, value: as_schedule(name, value),  # which is defined below
        "start_factor": partial(real, minimum=0.0, maximum=1.0),
    }

    def start(self) -> dict[str, Any]:
        """Return what `then` counts."""
        return self.then.start() if isinstance(self.then, Schedule) else {}

    def rate(self, base: float, epoch: int, epochs: int, counts: dict[str, Any]) -> float:
        """Return the rate at the start of an epoch, as `Schedule.rate` says."""
        return self.rates(base, epoch, epochs, counts)[0]

    def rates(
        self, base: float, epoch: int, epochs: int, counts: dict[str, Any]
    ) -> tuple[float, float]:
        """Return the rates at both ends of an epoch, as `Schedule.rates` says."""
        if epoch < self.epochs:
            first, last = (
                base * (self.start_factor + (1.0 - self.start_factor) * at / self.epochs)
                for at in (epoch, epoch + 1)
            )
            return first, last
        if not isinstance(self.then, Schedule):
            return base, base
        return self.then.rates(base, epoch - self.epochs, epochs - self.epochs, counts)

    def observe(
        self, epoch: int, loss: float, val_loss: float | None, counts: dict[str, Any]
    ) -> None:
        """Update what `then` counts, from its first epoch on."""
        if isinstance(self.then, Schedule) and epoch >= self.epochs:
            self.then.observe(epoch - self.epochs, loss, val_loss, counts)


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Multiply the rate by `factor` when the loss no longer falls, as ``ReduceLROnPlateau``.

    The loss is that of the validation data where there are any, else that of training.

    Parameters
    ----------
    factor : float, in (0, 1]
    patience : int, >= 0
        So many epochs in a row may pass without a better loss; the next one reduces the rate.
    tol : float, in [0, 1)
        A loss is better when it is below ``(1 - tol)`` times the best.
    minimum : float, >= 0
        The rate goes no further down. A rate, not a factor.
    """

    factor: float = 0.5
    patience: int = 5
    tol: float = 1e-4
    minimum: float = 0.0

    _checks: ClassVar[_Checks] = {
        "factor": _factor,
        "patience": partial(integer, minimum=0),
        "tol": partial(real, minimum=0.0, maximum=1.0, open_maximum=True),
        "minimum": _at_least_0,
    }

    def start(self) -> dict[str, Any]:
        """Return no best loss, no epoch without a better one, and no reduction."""
        return {"best": None, "waited": 0, "reductions": 0}

    def rate(self, base: float, epoch: int, epochs: int, counts: dict[str, Any]) -> float:
        """Return the rate at the start of an epoch, as `Schedule.rate` says."""
        if not counts["reductions"]:
            return base
        return max(float(base * self.factor ** counts["reductions"]), min(self.minimum, base))

    def observe(
        self, epoch: int, loss: float, val_loss: float | None, counts: dict[str, Any]
    ) -> None:
        """Count the epochs without a better loss, and the reductions."""
        seen = loss if val_loss is None else val_loss
        best = math.inf if counts["best"] is None else counts["best"]
        if seen < best * (1.0 - self.tol):
            counts.update(best=seen, waited=0)
        else:
            counts["waited"] += 1
        if counts["waited"] > self.patience:
            counts.update(waited=0, reductions=counts["reductions"] + 1)


@dataclass(frozen=True)
class HalveOnRise(Schedule):
    """Multiply the rate by `factor` after each epoch whose training loss is above the last one's.

    Parameters
    ----------
    factor : float, in (0, 1]
    """

    factor: float = 0.5

    _checks: ClassVar[_Checks] = {"factor": _factor}

    def start(self) -> dict[str, Any]:
        """Return no last loss, and no reduction."""
        return {"last": None, "reductions": 0}

    def rate(self, base: float, epoch: int, epochs: int, counts: dict[str, Any]) -> float:
        """Return the rate at the start of an epoch, as `Schedule.rate` says."""
        return float(base * self.factor ** counts["reductions"])

    def observe(
        self, epoch: int, loss: float, val_loss: float | None, counts: dict[str, Any]
    ) -> None:
        """Count the epochs after which the loss had risen."""
        if counts["last"] is not None and loss > counts["last"]:
            counts["reductions"] += 1
        counts["last"] = loss


_NAMES: dict[str, type[Schedule]] = {
    "step": Step,
    "exponential": Exponential,
    "cosine": Cosine,
    "plateau": ReduceOnPlateau,
    "halve_on_rise": HalveOnRise,
}
_ALL: list[type[Schedule]] = [*_NAMES.values(), WarmUp]
_CLASSES = {kind.__name__: kind for kind in _ALL}


def as_schedule(name: str, value: object) -> Schedule | None:
    """Return the schedule that an argument stands for: None, a name, or a schedule."""
    if value is None or isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        return _NAMES[choice(name, value, tuple(_NAMES))]()
    listed = ", ".join(map(repr, _NAMES))
    raise TypeError(
        f"{name}: expected None, one of {listed}, or a schedule of rnncore.schedules, "
        f"got {describe(value)}"
    )


def from_json(value: dict[str, Any]) -> Schedule:
    """Return the schedule that `Schedule.to_json` described."""
    arguments = {
        name: from_json(argument) if isinstance(argument, dict) else argument
        for name, argument in value["arguments"].items()
    }
    return _CLASSES[value["schedule"]](**arguments)
