"""The modules: torch's own, with other operations at their end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules import rnn
from torch.nn.utils.parametrize import is_parametrized

from rnncore._validate import describe
from rnncore.torch import functional

_Module = TypeVar("_Module", bound=nn.Module)


def _with_kernels(module: type[nn.Module]) -> Callable[..., Any]:
    """Return torch's own ``forward``, checks and all, with our operations for ``_VF``."""
    forward: Any = module.forward
    return FunctionType(
        forward.__code__, vars(_names), forward.__name__, forward.__defaults__, forward.__closure__
    )


# What stands around torch's forwards, our operations for ``_VF``. As a module, since the compiler
# looks for it by its name.
_names = ModuleType("rnncore.torch._names")
vars(_names).update(vars(rnn) | {"__name__": _names.__name__, "_VF": functional})
sys.modules[_names.__name__] = _names


class _Kernels:
    """What makes a module ours; stands before torch's class."""

    def __prepare_scriptable__(self) -> object:
        """Return what ``torch.jit.script`` compiles in the module's place."""
        theirs = _THEIRS.get(type(self))  # type: ignore[arg-type]
        if theirs is None:
            return self
        module = theirs.__new__(theirs)
        module.__dict__.update(self.__dict__)
        return module


class _Layers(_Kernels, nn.RNNBase):
    """The same for modules of layers."""

    def _weights_have_changed(self) -> bool:
        """Tell whether weights are other tensors than those in ``_flat_weights``.

        What torch's method tells. That one looks each weight up twice among the attributes, where
        parameters are found last: that is a good part of a short call.
        """
        for name, known in zip(self._flat_weights_names, self._flat_weight_refs, strict=True):
            weight = self._parameters.get(name)
            if weight is None:  # no parameter, such as a parametrized one
                weight = getattr(self, name, None)
            if weight is not None and known is not None and known() is not weight:
                return True
        return False


class _Found:
    """A parameter where Python looks for attributes first: in the class.

    torch has them where Python looks last, after an error: for the four of a cell that takes a
    fifth of a step. What is no parameter, such as a pruned weight, is left to torch.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, module: nn.Module | None, owner: type[nn.Module]) -> nn.Parameter | None:
        if module is not None and self._name in module._parameters:
            return module._parameters[self._name]
        raise AttributeError(f"type object {owner.__name__!r} has no attribute {self._name!r}")


class _Cell(_Kernels):
    """The same for cells."""


# An older compiler takes such an object for the parameter itself: 2.5's does.
if torch.__version__ >= "2.15":
    for _name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(_Cell, _name, _Found(_name))


class RNN(_Layers, nn.RNN):
    """`torch.nn.RNN`, computed by the Rust kernels."""

    forward = _with_kernels(nn.RNN)


class LSTM(_Layers, nn.LSTM):
    """`torch.nn.LSTM`, computed by the Rust kernels."""

    forward = _with_kernels(nn.LSTM)


class GRU(_Layers, nn.GRU):
    """`torch.nn.GRU`, computed by the Rust kernels."""

    forward = _with_kernels(nn.GRU)


class RNNCell(_Cell, nn.RNNCell):
    """`torch.nn.RNNCell`, computed by the Rust kernels."""

    forward = _with_kernels(nn.RNNCell)


class LSTMCell(_Cell, nn.LSTMCell):
    """`torch.nn.LSTMCell`, computed by the Rust kernels."""

    forward = _with_kernels(nn.LSTMCell)


class GRUCell(_Cell, nn.GRUCell):
    """`torch.nn.GRUCell`, computed by the Rust kernels."""

    forward = _with_kernels(nn.GRUCell)


_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.RNN: RNN,
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNNCell: RNNCell,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
for _ours in _THEIRS:
    # Pickles name the public place.
    _ours.__module__ = "rnncore.torch"


def convert(model: _Module) -> _Module:
    """Let the Rust kernels compute every recurrent module of torch's inside a model, in place.

    The modules stay the same objects, with their parameters, hooks and names; their class changes.
    Subclasses of torch's classes are left alone, but for the one that torch makes of each where a
    weight is parametrized.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    model

    Raises
    ------
    TypeError
        When `model` is no module.
    """
    return _exchange(model, _OURS)


def revert(model: _Module) -> _Module:
    """Undo `convert`: every module of `rnncore.torch` inside a model becomes torch's, in place.

    Parameters, result and errors are those of `convert`.
    """
    return _exchange(model, _THEIRS)


def _exchange(model: _Module, classes: dict[type[nn.Module], type[nn.Module]]) -> _Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {describe(model)}")
    for module in model.modules():
        kind = type(module)
        if is_parametrized(module) and kind.__bases__[0] in classes:
            # The properties that compute weights stand in a class of the module's own, which copies
            # of the module share.
            module.__class__ = _with_base(kind, classes[kind.__bases__[0]])
        else:
            module.__class__ = classes.get(kind, kind)
    return model


def _with_base(kind: type[nn.Module], base: type[nn.Module]) -> type[nn.Module]:
    """Return a class with the same contents over another."""
    names = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{base.__name__}", (base,), names)
