"""Pictures of a fitted model; they need matplotlib: ``pip install rnncore[plot]``.

::

    rnncore.plot.gradient_flow({"RNN": rnn, "LSTM": lstm}, X, y)
    rnncore.plot.gates(tagger, "the dog ate the apple")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncore._data import holds_text
from rnncore._validate import Array, any_array, choice, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rnncore._estimator import RecurrentEstimator

__all__ = ["gates", "gradient_flow", "hidden_states", "history"]


def history(model: Any) -> Figure:
    """Draw loss and score of every epoch of a fit.

    Parameters
    ----------
    model : fitted estimator, or its `history_`

    Returns
    -------
    matplotlib.figure.Figure
        As ``model.history_.plot()``.

    Raises
    ------
    TypeError
        When it is neither.
    ImportError
        Without matplotlib.
    """
    found = getattr(model, "history_", model)
    if not hasattr(found, "plot"):
        raise TypeError(
            f"model: expected a fitted estimator or its history_, got {describe(model)}"
        )
    _pyplot("history")
    return found.plot()  # type: ignore[no-any-return]


def gradient_flow(
    models: Any,
    X: object,
    y: object = None,
    *,
    lengths: object = None,
    layer: int = -1,
    ax: Axes | None = None,
) -> Axes:
    """Draw how strongly each step's state acts on the loss, models side by side.

    Bars that shrink towards the first steps are the vanishing gradient.

    Parameters
    ----------
    models : fitted estimator, or a list of such, or a dict of name to such
    X, y, lengths, layer
        As in the models' `gradient_flow`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; the default is a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        A bar for each step (the first is 0) and model, on a logarithmic axis: the mean of the norms
        over the sequences that have the step.

    Raises
    ------
    ValueError, TypeError
        When there are no models, or X and y are not as in their `fit`.
    ImportError
        Without matplotlib.
    """
    pyplot = _pyplot("gradient_flow")
    named = _named(models)
    means = {name: _mean_by_step(model, X, y, lengths, layer) for name, model in named.items()}
    if ax is None:
        ax = pyplot.subplots(figsize=(7, 3.5), layout="constrained")[1]
    width = 0.8 / len(means)
    for index, (name, heights) in enumerate(means.items()):
        left = np.arange(len(heights)) - 0.4 + width * (index + 0.5)
        ax.bar(left, heights, width, label=name)
    if any((heights > 0).any() for heights in means.values()):
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("norm of the gradient")
    ax.grid(alpha=0.3, axis="y")
    if len(means) > 1:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(means), frameon=False)
    return ax


def hidden_states(
    model: RecurrentEstimator,
    sequence: object,
    *,
    layer: int = -1,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the hidden state of a layer over one sequence.

    Parameters
    ----------
    model : fitted estimator
    sequence : array of float (T, F), array of ids (T,), string or list of words
    layer : int
        -1 is the last.
    labels : list of str, optional
        What to write under the steps. The default is the words, or the ids, or the steps' numbers.
    ax : matplotlib.axes.Axes, optional
        Where to draw; the default is a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        A column for each step and a row for each unit.

    Raises
    ------
    ValueError, TypeError
        When the sequence has no step or is not like those of `fit`, or there is no such layer.
    ImportError
        Without matplotlib.
    """
    pyplot = _pyplot("hidden_states")
    _check_model(model)
    _check_sequence(model, sequence)
    (states,) = model.hidden_states([sequence], layer=layer)
    _check_steps(len(states))
    if ax is None:
        ax = pyplot.subplots(figsize=_size(len(states)), layout="constrained")[1]
    _heat_map(ax, states, "hidden state", signed=True)
    _label_steps(ax, _labels(model, sequence, labels, len(states)))
    return ax


def gates(
    model: RecurrentEstimator,
    sequence: object,
    *,
    gate: str | None = None,
    layer: int = -1,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw what the gates of a layer let through over one sequence.

    Parameters
    ----------
    model, sequence, layer, labels
        As in `hidden_states`.
    gate : str, optional
        One of the names of the model's `gates`; the default is all.
    ax : matplotlib.axes.Axes, optional
        Where to draw one `gate`; the default is a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        One picture under the other; the Axes alone for one `gate`.

    Raises
    ------
    ValueError, TypeError
        When there is no such gate or none beside `ax`, and as `hidden_states`.
    ImportError
        Without matplotlib.
    """
    pyplot = _pyplot("gates")
    _check_model(model)
    _check_sequence(model, sequence)
    if ax is not None and gate is None:
        raise ValueError("gate: expected the name of one gate beside ax, got None")
    found = {name: steps for name, (steps,) in model.gates([sequence], layer=layer).items()}
    if gate is not None:
        found = {gate: found[choice("gate", gate, tuple(found))]}
    steps = len(next(iter(found.values())))
    _check_steps(steps)
    if ax is None:
        width, height = _size(steps)
        figure, panels = pyplot.subplots(
            len(found),
            1,
            figsize=(width, 0.7 * height * len(found) if len(found) > 1 else height),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        axes = list(panels[:, 0])
    else:
        figure, axes = ax.figure, [ax]
    for panel, (name, values) in zip(axes, found.items(), strict=True):
        _heat_map(panel, values, name, signed=name in ("candidate", "cell"))
    _label_steps(axes[-1], _labels(model, sequence, labels, steps))
    chosen: Figure | Axes = figure if gate is None else axes[0]
    return chosen


def _pyplot(name: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"rnncore.plot.{name} needs matplotlib: pip install rnncore[plot]"
        ) from error
    return pyplot


def _named(models: Any) -> dict[str, Any]:
    """Return models by name: that of their class, with a number where it occurs again."""
    if isinstance(models, Mapping):
        named = {str(name): model for name, model in models.items()}
    else:
        listed = list(models) if isinstance(models, list | tuple) else [models]
        kinds = [type(model).__name__ for model in listed]
        named = {
            kind if kinds.count(kind) == 1 else f"{kind} {kinds[: index + 1].count(kind)}": model
            for index, (kind, model) in enumerate(zip(kinds, listed, strict=True))
        }
    if not named:
        raise ValueError("models: expected at least one fitted estimator, got none")
    for model in named.values():
        if not hasattr(model, "gradient_flow"):
            raise TypeError(f"models: expected fitted estimators, got {describe(model)}")
    return named


def _mean_by_step(model: Any, X: object, y: object, lengths: object, layer: int) -> Array:
    """Return the mean norm at every step, over the sequences that have it."""
    sequences, rows = model._gradient_rows(X, y, lengths, layer)
    counts: Array = sequences.lengths
    step = np.concatenate([np.arange(count) for count in counts])
    return np.bincount(step, rows) / np.bincount(step)


def _check_model(model: object) -> None:
    if not hasattr(model, "hidden_states"):
        raise TypeError(f"model: expected a fitted estimator, got {describe(model)}")


def _check_sequence(model: Any, sequence: object) -> None:
    """Check the shape of one sequence, which the model knows as one of several."""
    model._check_fitted()
    known = model._problem.input
    if holds_text(sequence):
        return
    array = any_array("sequence", sequence)
    columns = known.n_features or (known.ids_per_step if known.ids_per_step > 1 else None)
    if array.size and array.shape[1:] != (() if columns is None else (columns,)):
        expected = "(T,)" if columns is None else f"(T, {columns})"
        raise ValueError(f"sequence: expected shape {expected}, got {array.shape}")


def _check_steps(steps: int) -> None:
    if not steps:
        raise ValueError("sequence: expected at least one step, got none")


def _heat_map(ax: Axes, steps: Array, name: str, *, signed: bool) -> None:
    """Draw units by steps: -m .. m around white when `signed`, otherwise 0 .. 1."""
    if signed:
        limit = max(float(np.abs(steps).max(initial=0)), 1e-12)
        picture = ax.imshow(
            steps.T, aspect="auto", interpolation="nearest", cmap="RdBu_r", vmin=-limit, vmax=limit
        )
    else:
        picture = ax.imshow(
            steps.T, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0, vmax=1
        )
    ax.set_ylabel(f"{name}\nunit")
    ax.figure.colorbar(picture, ax=ax)


def _label_steps(ax: Axes, labels: list[str]) -> None:
    if not labels:
        ax.set_xlabel("step")
        return
    long = max(map(len, labels)) > 2
    ax.set_xticks(range(len(labels)), labels, rotation=90 if long else 0)


def _labels(model: Any, sequence: Any, labels: Sequence[str] | None, steps: int) -> list[str]:
    """Return what to write under each of `steps`; nothing where the steps are no tokens."""
    if labels is not None:
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise TypeError(f"labels: expected a list of strings, got {describe(labels)}")
        labels = list(labels)
        if len(labels) != steps:
            raise ValueError(f"labels: expected {steps}, one for each step, got {len(labels)}")
        return [str(label) for label in labels]
    vocabulary = getattr(model, "vocabulary_", None)
    if vocabulary is not None:
        if isinstance(sequence, str):
            return vocabulary.split(sequence)  # type: ignore[no-any-return]
        if len(sequence) and isinstance(sequence[0], str):
            return list(sequence)
    if model._problem.input.kind == "dense":
        return []
    return [str(item) for item in np.asarray(sequence).tolist()]


def _size(steps: int) -> tuple[float, float]:
    return min(max(4.0, 1.5 + 0.28 * steps), 16.0), 3.0
