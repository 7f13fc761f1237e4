"""Optimizers for layers trained by hand, with torch's update rules and names.

::

    optimizer = rnncore.optim.SGD(0.1, momentum=0.9, clip_norm=1.0)
    output, state, tape = layer.forward(x)
    dx, dhx, grads = layer.backward(tape, d_output)
    norm = layer.apply_gradients(grads, optimizer)

One optimizer may update several layers: it keeps the momentum of each.
"""

from __future__ import annotations

from rnncore import _core
from rnncore._validate import boolean, real
from rnncore._words import WordsHere

__all__ = ["SGD", "Adam"]


class Optimizer(WordsHere):
    """What `SGD` and `Adam` share; build one of those."""

    # No other attributes: a schedule that assigned to `lr` would do nothing.
    __slots__ = ("_core", "_options")

    def __init__(
        self,
        rule: str,
        learning_rate: float,
        weight_decay: float,
        clip_norm: float | None,
        clip_value: float | None,
        **rest: float | bool,
    ) -> None:
        self._options: dict[str, float | None] = {
            "learning_rate": real("learning_rate", learning_rate, 0.0),
            **rest,
            "weight_decay": real("weight_decay", weight_decay, 0.0),
            "clip_norm": _limit("clip_norm", clip_norm),
            "clip_value": _limit("clip_value", clip_value),
        }
        self._core = _core.Optimizer(rule, **self._options)  # type: ignore[arg-type]

    @property
    def learning_rate(self) -> float:
        """The step size; assign to it to follow a schedule."""
        return self._core.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._core.learning_rate = real("learning_rate", value, 0.0)

    def __repr__(self) -> str:
        options = {**self._options, "learning_rate": self.learning_rate}
        shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{type(self).__name__}({shown})"


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
    clip_norm : float > 0, optional
        Scale all gradients down together when their joint norm is above this.
    clip_value : float > 0, optional
        Then cut each element to ``[-clip_value, clip_value]``.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    __slots__ = ()

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        *,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
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
            "sgd",
            learning_rate,
            weight_decay,
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
    weight_decay, clip_norm, clip_value
        As in `SGD`.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    __slots__ = ()

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            "adam",
            learning_rate,
            weight_decay,
            clip_norm,
            clip_value,
            beta1=real("beta1", beta1, 0.0, 1.0, open_maximum=True),
            beta2=real("beta2", beta2, 0.0, 1.0, open_maximum=True),
            eps=real("eps", eps, 0.0, open_minimum=True),
        )


def _limit(name: str, value: float | None) -> float | None:
    return None if value is None else real(name, value, 0.0, open_minimum=True)
