"""Initialisation of layers: each function overwrites the chosen parameters of a layer in place.

A layer starts with `uniform`, which is torch's default. To start otherwise::

    layer = rnncore.nn.LSTM(8, 64)
    rng = np.random.default_rng(0)
    rnncore.init.xavier_uniform(layer, "weight_ih", random_state=rng)
    rnncore.init.orthogonal(layer, "weight_hh", random_state=rng)
    rnncore.init.zeros(layer, "bias")
    rnncore.init.forget_bias(layer, 1.0)

The gates of a weight lie on top of one another, ``(gates * hidden_size, columns)``. What depends on
the size of a matrix (`xavier_uniform`, `xavier_normal`, `orthogonal`) takes each gate for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from rnncore._validate import Array, generator, real

__all__ = ["forget_bias", "orthogonal", "uniform", "xavier_normal", "xavier_uniform", "zeros"]


class _Layer(Protocol):
    """What these functions need of a layer or a cell."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, state_dict: Mapping[str, object]) -> None: ...


LayerT = TypeVar("LayerT", bound=_Layer)
# Draws one gate's values: (generator, shape of the gate) -> values of that shape.
_Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def uniform(
    layer: LayerT, names: str = "", *, bound: float | None = None, random_state: object = None
) -> LayerT:
    """Fill with uniform(-bound, bound).

    Parameters
    ----------
    layer : layer or cell of `rnncore.nn`
    names : str
        Parameters whose names start with this; the default takes all of them.
    bound : float, optional
        The default is torch's ``1 / sqrt(hidden_size)``.
    random_state : None, int or numpy.random.Generator

    Returns
    -------
    layer
        The layer that was given.

    Raises
    ------
    ValueError
        When no parameter's name starts with `names`.
    """
    limit = 1 / math.sqrt(layer.hidden_size) if bound is None else real("bound", bound, 0.0)
    return _fill(layer, names, random_state, lambda rng, shape: rng.uniform(-limit, limit, shape))


def xavier_uniform(
    layer: LayerT, names: str = "weight", *, gain: float = 1.0, random_state: object = None
) -> LayerT:
    """Fill with uniform(-a, a), a = gain * sqrt(6 / (fan_in + fan_out)) of each gate.

    Parameters and errors are those of `uniform`; `gain` scales the values.
    """
    gain = real("gain", gain, 0.0)

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        limit = gain * math.sqrt(6 / sum(shape))
        return rng.uniform(-limit, limit, shape)

    return _fill(layer, names, random_state, draw, weights_only=True)


def xavier_normal(
    layer: LayerT, names: str = "weight", *, gain: float = 1.0, random_state: object = None
) -> LayerT:
    """Fill with normal(0, s), s = gain * sqrt(2 / (fan_in + fan_out)) of each gate.

    Parameters and errors are those of `uniform`; `gain` scales the values.
    """
    gain = real("gain", gain, 0.0)

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.normal(0.0, gain * math.sqrt(2 / sum(shape)), shape)

    return _fill(layer, names, random_state, draw, weights_only=True)


def orthogonal(
    layer: LayerT, names: str = "weight_hh", *, gain: float = 1.0, random_state: object = None
) -> LayerT:
    """Fill each gate with a random (semi-)orthogonal matrix times `gain`.

    Parameters and errors are those of `uniform`.
    """
    gain = real("gain", gain, 0.0)

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        rows, columns = shape
        q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
        # The sign makes the distribution uniform over orthogonal matrices (Mezzadri 2007).
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)
        return gain * (q if rows >= columns else q.T)

    return _fill(layer, names, random_state, draw, weights_only=True)


def zeros(layer: LayerT, names: str = "bias") -> LayerT:
    """Fill with zeros the parameters whose names start with `names`; return the layer."""
    return _fill(layer, names, None, lambda _, shape: np.zeros(shape))


def forget_bias(layer: LayerT, value: float = 1.0) -> LayerT:
    """Set the bias of an LSTM's forget gate, so that it starts by remembering.

    Both biases of a gate are added: its part of every ``bias_ih`` becomes `value`, that of every
    ``bias_hh`` zero.

    Parameters
    ----------
    layer : rnncore.nn.LSTM or rnncore.nn.LSTMCell
        With biases.
    value : float

    Returns
    -------
    layer
        The layer that was given.

    Raises
    ------
    ValueError
        When the layer is not an LSTM or has no bias.
    """
    value = real("value", value)
    state, hidden = layer.state_dict(), layer.hidden_size
    biases = _select(state, "bias")
    for name in biases:
        if len(state[name]) != 4 * hidden:
            raise ValueError(f"layer: expected an LSTM, got {layer!r}")
        state[name][hidden : 2 * hidden] = value if name.startswith("bias_ih") else 0.0
    layer.load_state_dict(state)
    return layer


def uniform_values(
    shapes: Mapping[str, tuple[int, ...]], bound: float, rng: np.random.Generator, dtype: str
) -> dict[str, Array]:
    """Draw parameters from uniform(-bound, bound), in the order of `shapes`."""
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}


def _select(names: Mapping[str, Array], prefix: str) -> list[str]:
    if not isinstance(prefix, str):
        raise TypeError(f"names: expected a string, got {prefix!r}")
    chosen = [name for name in names if name.startswith(prefix)]
    if not chosen:
        raise ValueError(f"names: expected the start of one of {', '.join(names)}; got {prefix!r}")
    return chosen


def _fill(
    layer: LayerT, names: str, random_state: object, draw: _Draw, *, weights_only: bool = False
) -> LayerT:
    """Replace the chosen parameters gate by gate, in the order of the state dict."""
    rng = generator("random_state", random_state)
    state, hidden = layer.state_dict(), layer.hidden_size
    for name in _select(state, names):
        if weights_only and state[name].ndim != 2:
            raise ValueError(f"names: expected weights alone, got {name!r}, a bias")
        for gate in np.split(
            state[name], len(state[name]) // hidden
        ):  # views of the state's arrays
            gate[...] = draw(rng, gate.shape)
    layer.load_state_dict(state)
    return layer
