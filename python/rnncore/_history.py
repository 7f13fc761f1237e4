"""The record of a fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What has no panel in the plot: the rest are losses and scores.
_NOT_PLOTTED = ("grad_norm", "learning_rate", "steps", "seconds")


class History(dict[str, list[float]]):
    """Figures of every finished epoch, in lists by name.

    ``loss``, ``accuracy`` or ``r2``, ``grad_norm`` (mean over updates, before clipping),
    ``learning_rate`` (at the start of the epoch), ``steps`` (real ones, of all sequences) and
    ``seconds``; with data to validate on also ``val_loss`` and ``val_accuracy`` or ``val_r2``.
    A figure that an epoch does not have, as when later epochs are validated and earlier ones were
    not, is NaN.
    """

    def begin(self, names: Iterable[str]) -> None:
        """Make place for figures of these names; earlier epochs that lack them have NaN."""
        epochs = self._epochs()
        for name in names:
            self.setdefault(name, [math.nan] * epochs)

    def add_epoch(self, figures: dict[str, float]) -> None:
        """Append one epoch's figures."""
        self.begin(figures)
        for name, values in self.items():
            values.append(figures.get(name, math.nan))

    def cut(self, epochs: int) -> None:
        """Forget what comes after so many epochs, part of an epoch included."""
        for values in self.values():
            del values[epochs:]

    def _epochs(self) -> int:
        return max(map(len, self.values()), default=0)

    def to_pandas(self) -> Any:
        """Return the figures as a table: a row for each epoch, a column for each name.

        Returns
        -------
        pandas.DataFrame
            Its index, named "epoch", counts from 1.

        Raises
        ------
        ImportError
            Without pandas: ``pip install pandas``.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("history_.to_pandas() needs pandas: pip install pandas") from error
        index = pandas.RangeIndex(1, self._epochs() + 1, name="epoch")
        return pandas.DataFrame(dict(self), index=index)

    def plot(self) -> Figure:
        """Draw loss and score over the epochs, training and validation data together.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            Without matplotlib, which ``pip install rnncore[plot]`` brings.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(
                "history_.plot() needs matplotlib: pip install rnncore[plot]"
            ) from error
        shown = [
            name for name in self if name not in _NOT_PLOTTED and not name.startswith("val_")
        ] or ["loss"]
        figure, axes = pyplot.subplots(
            1, len(shown), figsize=(4.5 * len(shown), 3.5), squeeze=False, layout="constrained"
        )
        for axis, name in zip(axes[0], shown, strict=True):
            for series, label in ((name, "training"), (f"val_{name}", "validation")):
                if series in self:
                    epochs = range(1, len(self[series]) + 1)
                    axis.plot(epochs, self[series], marker=".", label=label)
            axis.set_xlabel("epoch")
            axis.set_ylabel({"r2": "R²"}.get(name, name))
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend()
        return figure
