"""Optimizers with torch's update rules, names and defaults.

::

    optimizer = rnncore.optim.SGD(0.1, momentum=0.9, clip_norm=1.0)
    output, state, tape = layer.forward(x)
    dx, dhx, grads = layer.backward(tape, d_output)
    norm = layer.apply_gradients(grads, optimizer)

One optimizer may update several layers: it keeps the momentum of each. A copy has the same
settings and has updated nothing yet.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from rnncore import _core
from rnncore._validate import boolean, real
from rnncore._words import WordsHere

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"]


class Optimizer(WordsHere):
    """What all optimizers share; build one of those.

    Attributes
    ----------
    name : str
        What estimators call it: ``"adam"``.
    """

    name: ClassVar[str]

    # No other attributes: a schedule that assigned to `lr` would do nothing.
    __slots__ = ("_core", "_options")

    def __init__(
        self,
        learning_rate: float,
        weight_decay: float,
        l1: float,
        clip_norm: float | None,
        clip_value: float | None,
        **rest: float | bool,
    ) -> None:
        self._options: dict[str, Any] = {
            "learning_rate": real("learning_rate", learning_rate, 0.0),
            **rest,
            "weight_decay": real("weight_decay", weight_decay, 0.0),
            "l1": real("l1", l1, 0.0),
            "clip_norm": _limit("clip_norm", clip_norm),
            "clip_value": _limit("clip_value", clip_value),
        }
        self._core = _core.Optimizer(self.name, **self._options)

    @property
    def learning_rate(self) -> float:
        """The step size; assign to it to follow a schedule."""
        return self._core.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._core.learning_rate = real("learning_rate", value, 0.0)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that construct an optimizer with these settings, a new dict each time."""
        return {**self._options, "learning_rate": self.learning_rate}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.options), ()


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`.

    Parameters
    ----------
    learning_rate : float, >= 0
    momentum : float, >= 0
    dampening : float, in [0, 1]
    nesterov : bool
        Needs a momentum and no dampening.
    weight_decay : float, >= 0
        Added to the gradient as ``weight_decay * weight``.
    l1 : float, >= 0
        Added to the gradient as ``l1 * sign(weight)``, which drives weights towards 0.
    clip_norm : float > 0, optional
        Scale all gradients down together when their joint norm is above this. Clipping comes before
        `weight_decay` and `l1`.
    clip_value : float > 0, optional
        Then cut each element to ``[-clip_value, clip_value]``.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    name = "sgd"
    __slots__ = ()

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        *,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        momentum = real("momentum", momentum, 0.0)
        dampening = real("dampening", dampening, 0.0, 1.0)
        nesterov = boolean("nesterov", nesterov)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                "nesterov: expected a momentum above 0 and no dampening beside it, "
                f"got momentum={momentum:g}, dampening={dampening:g}"
            )
        super().__init__(
            learning_rate,
            weight_decay,
            l1,
            clip_norm,
            clip_value,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
        )


class Adam(Optimizer):
    """Adam with bias correction, as `torch.optim.Adam`.

    Parameters
    ----------
    learning_rate : float, >= 0
    beta1, beta2 : float, in [0, 1)
        Decay of the running means of the gradient and of its square.
    eps : float, > 0
        Added to the denominator.
    weight_decay, l1, clip_norm, clip_value
        As in `SGD`.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    name = "adam"
    __slots__ = ()

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay,
            l1,
            clip_norm,
            clip_value,
            beta1=real("beta1", beta1, 0.0, 1.0, open_maximum=True),
            beta2=real("beta2", beta2, 0.0, 1.0, open_maximum=True),
            eps=_eps(eps),
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    Parameters
    ----------
    learning_rate : float, >= 0
    beta1, beta2, eps
        As in `Adam`.
    weight_decay : float, >= 0
        Each update takes ``learning_rate * weight_decay`` of every weight away, beside the step
        along the gradient.
    l1, clip_norm, clip_value
        As in `SGD`: l1 is part of the gradient.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    name = "adamw"
    __slots__ = ()

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        l1: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=weight_decay,
            l1=l1,
            clip_norm=clip_norm,
            clip_value=clip_value,
        )


class RMSprop(Optimizer):
    """Gradients divided by the root of their running mean square, as `torch.optim.RMSprop`.

    Parameters
    ----------
    learning_rate : float, >= 0
    alpha : float, in [0, 1)
        Decay of the running mean of squared gradients.
    eps : float, > 0
        Added to the denominator.
    momentum : float, >= 0
    centered : bool
        Divide by the standard deviation of the gradients instead.
    weight_decay, l1, clip_norm, clip_value
        As in `SGD`.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    name = "rmsprop"
    __slots__ = ()

    def __init__(
        self,
        learning_rate: float = 0.01,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay,
            l1,
            clip_norm,
            clip_value,
            alpha=real("alpha", alpha, 0.0, 1.0, open_maximum=True),
            eps=_eps(eps),
            momentum=real("momentum", momentum, 0.0),
            centered=boolean("centered", centered),
        )


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares, as `torch.optim.Adagrad`.

    Parameters
    ----------
    learning_rate : float, >= 0
    lr_decay : float, >= 0
        Update number t, from 0, goes by ``learning_rate / (1 + t * lr_decay)``.
    initial_accumulator : float, >= 0
        What the sums of squares begin as.
    eps : float, > 0
        Added to the denominator.
    weight_decay, l1, clip_norm, clip_value
        As in `SGD`.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    name = "adagrad"
    __slots__ = ()

    def __init__(
        self,
        learning_rate: float = 0.01,
        *,
        lr_decay: float = 0.0,
        initial_accumulator: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay,
            l1,
            clip_norm,
            clip_value,
            lr_decay=real("lr_decay", lr_decay, 0.0),
            initial_accumulator=real("initial_accumulator", initial_accumulator, 0.0),
            eps=_eps(eps),
        )


def _eps(value: float) -> float:
    return real("eps", value, 0.0, open_minimum=True)


def _limit(name: str, value: float | None) -> float | None:
    return None if value is None else real(name, value, 0.0, open_minimum=True)
