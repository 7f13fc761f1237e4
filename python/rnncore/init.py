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
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from rnncore._validate import Array, choice, describe, generator, real

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

# The ways in which the weights of a whole network may start; see `draw`.
WAYS = ("uniform", "xavier_uniform", "xavier_normal", "orthogonal")


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
    TypeError
        When `layer` is no layer or cell.
    """
    _check_layer(layer)
    limit = 1 / math.sqrt(layer.hidden_size) if bound is None else real("bound", bound, 0.0)
    return _fill(layer, names, random_state, partial(_uniform, limit))


def xavier_uniform(
    layer: LayerT, names: str = "weight", *, gain: float = 1.0, random_state: object = None
) -> LayerT:
    """Fill with uniform(-a, a), a = gain * sqrt(6 / (fan_in + fan_out)) of each gate.

    Parameters and errors are those of `uniform`; `gain` scales the values.
    """
    draw = partial(_xavier_uniform, real("gain", gain, 0.0))
    return _fill(layer, names, random_state, draw, weights_only=True)


def xavier_normal(
    layer: LayerT, names: str = "weight", *, gain: float = 1.0, random_state: object = None
) -> LayerT:
    """Fill with normal(0, s), s = gain * sqrt(2 / (fan_in + fan_out)) of each gate.

    Parameters and errors are those of `uniform`; `gain` scales the values.
    """
    draw = partial(_xavier_normal, real("gain", gain, 0.0))
    return _fill(layer, names, random_state, draw, weights_only=True)


def orthogonal(
    layer: LayerT, names: str = "weight_hh", *, gain: float = 1.0, random_state: object = None
) -> LayerT:
    """Fill each gate with a random (semi-)orthogonal matrix times `gain`.

    Parameters and errors are those of `uniform`.
    """
    draw = partial(_orthogonal, real("gain", gain, 0.0))
    return _fill(layer, names, random_state, draw, weights_only=True)


def zeros(layer: LayerT, names: str = "bias") -> LayerT:
    """Fill with zeros the parameters whose names start with `names`; return the layer."""
    return _fill(layer, names, None, _zeros)


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
    TypeError
        When `layer` is no layer or cell.
    """
    _check_layer(layer)
    value = real("value", value)
    state, hidden = layer.state_dict(), layer.hidden_size
    if not any(name.startswith("bias") for name in state):
        raise ValueError(f"layer: expected one with biases, got {layer!r}")
    biases = _select(state, "bias")
    for name in biases:
        if len(state[name]) != 4 * hidden:
            raise ValueError(f"layer: expected an LSTM, got {layer!r}")
        _set_forget_bias(name, state[name], value)
    layer.load_state_dict(state)
    return layer


def draw(
    way: str,
    shapes: Mapping[str, tuple[int, ...]] | Iterable[tuple[str, tuple[int, ...]]],
    rng: np.random.Generator,
    dtype: str,
    *,
    forget_bias: float | None = None,
) -> dict[str, Array]:
    """Draw all weights of a network, in the order of `shapes`, each gate for itself.

    Parameters
    ----------
    way : str
        "uniform": as torch starts, uniform(-1 / sqrt(n), 1 / sqrt(n)), where n is the hidden size
        of a layer, or the columns that the head sees.
        "xavier_uniform", "xavier_normal": weights as these functions draw them, biases zero.
        "orthogonal": the state's weights orthogonal, other weights as "xavier_uniform", biases
        zero.
    shapes : mapping or pairs of name to shape
        "embedding.weight", "rnn.weight_ih_l0" and so on (or without "rnn."), "rnn.h0_l0",
        "head.weight" and "head.bias", as far as they are there.
    rng : numpy.random.Generator
    dtype : "float32" or "float64"
    forget_bias : float, optional
        The sum of the two biases of an LSTM's forget gates.

    Returns
    -------
    dict of name to array
        Whatever the way, initial states are zero and an embedding is normal(0, 1), as torch's; an
        embedding that is the head's weight too starts as "uniform" starts a head.

    Raises
    ------
    ValueError
        When there is no such way, or `forget_bias` is given and a bias has not four gates.
    """
    choice("init", way, WAYS)
    shapes = dict(shapes)
    weights = {}
    for name, shape in shapes.items():
        values = weights[name] = np.empty(shape, dtype)
        hidden = _hidden_size(name, shapes)
        of_gate = _draw_of(way, name, shapes)
        # Numbers that do not depend on the shape are the same drawn at once.
        is_whole = way == "uniform" or values.ndim == 1
        rows = len(values) if hidden is None or is_whole else hidden
        _fill_gates(values, rows, rng, of_gate)
        if forget_bias is not None and hidden is not None and values.ndim == 1:
            if len(values) != 4 * hidden:
                raise ValueError(f"forget_bias: expected None without forget gates, got {name!r}")
            _set_forget_bias(name, values, forget_bias)
    return weights


def _weight_of_state(name: str) -> str:
    """Name the weight of the state that goes with a layer's weight or bias."""
    for kind in ("weight_ih", "bias_ih", "bias_hh", "weight_hr"):
        name = name.replace(f"{kind}_l", "weight_hh_l")
    return name if "weight_hh_l" in name else ""


def _hidden_size(name: str, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the hidden size of the layer whose weight or bias this is, if it is one's."""
    of_state = _weight_of_state(name)
    if of_state not in shapes:
        return None
    # Columns of the state are fewer where it is a projection of the hidden units.
    projection = of_state.replace("weight_hh_l", "weight_hr_l")
    return shapes[projection if projection in shapes else of_state][1]


def _draw_of(way: str, name: str, shapes: Mapping[str, tuple[int, ...]]) -> _Draw:
    """Return what draws a parameter, or each of its gates."""
    if name.rpartition(".")[2].startswith(("h0_", "c0_")):
        return _zeros
    if name == "embedding.weight":
        tied = "head.bias" in shapes and "head.weight" not in shapes
        return partial(_uniform, shapes[name][1] ** -0.5) if tied else _normal
    if way == "uniform":
        hidden = _hidden_size(name, shapes)
        if hidden is None:
            weight = "head.weight" if "head.weight" in shapes else "embedding.weight"
            hidden = shapes[weight][1]
        return partial(_uniform, hidden**-0.5)
    if len(shapes[name]) == 1:
        return _zeros
    if way == "xavier_normal":
        return partial(_xavier_normal, 1.0)
    if way == "orthogonal" and name == _weight_of_state(name):
        return partial(_orthogonal, 1.0)
    return partial(_xavier_uniform, 1.0)


def _zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.zeros(shape)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _uniform(limit: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(-limit, limit, shape)


def _xavier_uniform(gain: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return _uniform(gain * math.sqrt(6 / sum(shape)), rng, shape)


def _xavier_normal(gain: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0.0, gain * math.sqrt(2 / sum(shape)), shape)


def _orthogonal(gain: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    # The sign makes the distribution uniform over orthogonal matrices (Mezzadri 2007).
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return gain * (q if rows >= columns else q.T)


def _fill_gates(values: Array, rows: int, rng: np.random.Generator, draw: _Draw) -> None:
    """Fill an array in place, as many rows of it at a time as a gate has."""
    for start in range(0, len(values), rows):
        gate = values[start : start + rows]
        gate[...] = draw(rng, gate.shape)


def _set_forget_bias(name: str, bias: Array, value: float) -> None:
    """Set the second of a bias's four gates, so that the two biases add up to `value`."""
    hidden = len(bias) // 4
    bias[hidden : 2 * hidden] = value if "bias_ih" in name else 0.0


def _check_layer(layer: object) -> None:
    from rnncore._recurrent import Recurrent  # which imports this module

    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected a layer or cell of rnncore.nn, got {describe(layer)}")


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
    _check_layer(layer)
    rng = generator("random_state", random_state)
    state, hidden = layer.state_dict(), layer.hidden_size
    for name in _select(state, names):
        if weights_only and state[name].ndim != 2:
            raise ValueError(f"names: expected weights alone, got {name!r}, a bias")
        _fill_gates(state[name], hidden, rng, draw)
    layer.load_state_dict(state)
    return layer
