"""The record of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(dict[str, list[float]]):
    """Figures of every finished epoch, in lists by name.

    ``loss``, ``accuracy`` or ``r2``, ``grad_norm`` (mean over batches, before clipping) and
    ``seconds``; with an `eval_set` also ``val_loss`` and ``val_accuracy`` or ``val_r2``.
    """

    def add_epoch(self, figures: dict[str, float]) -> None:
        """Append one epoch's figures."""
        for name, value in figures.items():
            self.setdefault(name, []).append(value)

    def plot(self) -> Figure:
        """Draw loss and score over the epochs, training and evaluation data together.

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
        shown = [name for name in ("loss", "accuracy", "r2") if name in self] or ["loss"]
        figure, axes = pyplot.subplots(
            1, len(shown), figsize=(4.5 * len(shown), 3.5), squeeze=False
        )
        for axis, name in zip(axes[0], shown, strict=True):
            for series, label in ((name, "training"), (f"val_{name}", "evaluation")):
                if series in self:
                    epochs = range(1, len(self[series]) + 1)
                    axis.plot(epochs, self[series], marker=".", label=label)
            axis.set_xlabel("epoch")
            axis.set_ylabel({"r2": "R²"}.get(name, name))
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend()
        figure.tight_layout()
        return figure
