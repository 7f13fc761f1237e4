"""The progress bar of a fit."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm


class Progress:
    """A bar over epochs that also moves within one; it may leave a line for each epoch.

    A context manager, so that the bar is closed however the fit ends.
    """

    def __init__(self, max_epochs: int, score: str, lines: bool) -> None:
        self._max_epochs = max_epochs
        self._score = score
        self._lines = lines
        self._bar: Any = tqdm(
            total=max_epochs,
            desc=f"epoch 1/{max_epochs}",
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

    def on_batch(self, epoch: int, logs: dict[str, Any]) -> None:
        """Move the bar to a part of an epoch."""
        self._show(epoch, epoch - 1 + logs["done"] / logs["total"], f"loss {logs['loss']:.4f}")

    def on_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Move the bar to the end of an epoch and show its figures."""
        names = ("loss", self._score, "val_loss", f"val_{self._score}")
        text = "  ".join(f"{name} {figures[name]:.4f}" for name in names if name in figures)
        if self._lines:
            width = len(str(self._max_epochs))
            line = f"epoch {epoch:{width}}/{self._max_epochs}  {text}  {figures['seconds']:.2f} s"
            self._bar.write(line)
        self._show(epoch, epoch, text)

    def _show(self, epoch: int, position: float, text: str) -> None:
        self._bar.set_description_str(f"epoch {epoch}/{self._max_epochs}", refresh=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.n = position
        self._bar.refresh()
