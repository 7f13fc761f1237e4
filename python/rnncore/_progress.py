"""The progress bar of a fit."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

# How much a new measurement of the speed counts against those before it.
_NEWEST = 0.3


class Progress:
    """A bar over epochs that also moves within one; it may leave a line for each epoch.

    A context manager, so that the bar is closed however the fit ends.
    """

    def __init__(self, first: int, last: int, metric: str, lines: bool) -> None:
        """Show a bar for the epochs after `first`, up to `last`."""
        self._first = first
        self._last = last
        self._metric = metric
        self._lines = lines
        self._speed: float | None = None
        self._seen: tuple[int, float] | None = None  # steps of the epoch, and when they were done
        self._bar: Any = tqdm(
            total=last - first,
            desc=self._epoch(first + 1),
            bar_format="{desc} |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}{postfix}]",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def on_batch(self, epoch: int, figures: dict[str, Any]) -> None:
        """Move the bar to a part of an epoch."""
        done, total = figures["done"], figures["total"]
        parts = [f"{done}/{total}", *self._scores({**figures, self._metric: figures["metric"]})]
        parts.append(f"rate {figures['rate']:.3g}")
        if speed := self._measure(figures["steps"]):
            parts.append(f"{speed:,.0f} steps/s")
        self._show(epoch, epoch - 1 + done / max(total, 1), parts)

    def on_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Move the bar to the end of an epoch and show its figures."""
        self._seen = None
        parts = [*self._scores(figures), f"rate {figures['learning_rate']:.3g}"]
        if figures["seconds"] > 0:
            parts.append(f"{figures['steps'] / figures['seconds']:,.0f} steps/s")
        if self._lines:
            text = "  ".join([self._epoch(epoch), *parts, f"{figures['seconds']:.2f} s"])
            self._bar.write(text)
        self._show(epoch, epoch, parts)

    def _scores(self, figures: dict[str, Any]) -> list[str]:
        names = ("loss", self._metric, "val_loss", f"val_{self._metric}")
        return [f"{name} {figures[name]:.4f}" for name in names if name in figures]

    def _measure(self, steps: int) -> float | None:
        """Return the steps per second of late, or None while there is nothing to tell it by."""
        now = time.perf_counter()
        before, self._seen = self._seen, (steps, now)
        if before and steps > before[0] and now > before[1]:
            speed = (steps - before[0]) / (now - before[1])
            old = speed if self._speed is None else self._speed
            self._speed = old + _NEWEST * (speed - old)
        return self._speed

    def _epoch(self, epoch: int) -> str:
        return f"epoch {epoch:{len(str(self._last))}}/{self._last}"

    def _show(self, epoch: int, position: float, parts: list[str]) -> None:
        self._bar.set_description_str(self._epoch(epoch), refresh=False)
        self._bar.set_postfix_str("  ".join(parts), refresh=False)
        self._bar.n = position - self._first
        self._bar.refresh()
