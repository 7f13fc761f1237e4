"""Layers and cells of `rnncore.nn` as torch's modules, and torch's modules as those."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from rnncore._recurrent import Recurrent
from rnncore._validate import Array, describe
from rnncore.torch import _autograd, _modules

# What torch's constructors and ours have in common.
FIELDS = (
    "input_size",
    "hidden_size",
    "num_layers",
    "nonlinearity",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
)
# What theirs lack, and what it has to be.
_OURS_ALONE = {"residual": False, "locked_dropout": False}
_NONLINEARITIES = ("tanh", "relu")

DTYPES = {name: dtype for dtype, name in _autograd.DTYPES.items()}


def check_options(options: dict[str, Any]) -> None:
    """Check that torch has a module for these options of ours."""
    for name, expected in _OURS_ALONE.items():
        if options.get(name, expected) != expected:
            raise ValueError(f"{name}: expected {expected}, as torch has it, got {options[name]}")
    nonlinearity = options.get("nonlinearity", "tanh")
    if nonlinearity not in _NONLINEARITIES:
        raise ValueError(
            f"nonlinearity: expected 'tanh' or 'relu', which torch has, got {nonlinearity!r}"
        )


def to_module(layer: Recurrent) -> nn.Module:
    """Build the module of `rnncore.torch` that computes what a layer or cell does."""
    options = layer._options
    check_options(options)
    shared = {name: options[name] for name in FIELDS if name in options}
    module = new_module(layer._torch_name(), dtype=options["dtype"], **shared)
    return with_weights(module, layer.state_dict())


def new_module(name: str, *, dtype: str, **options: Any) -> nn.Module:
    """Build the module of `rnncore.torch` of that name; its weights are still to be set.

    torch's generator is left as it is.
    """
    kind = getattr(_modules, name)
    module: nn.Module = kind(**options, device="meta", dtype=DTYPES[dtype])
    return module


def with_weights(module: nn.Module, arrays: dict[str, Array]) -> nn.Module:
    """Give a module without numbers fresh arrays as its weights; nothing is copied."""
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    module.load_state_dict(weights, assign=True)
    return module


def read_module(name: str, module: object, kind: str) -> tuple[dict[str, Any], str]:
    """Return the arguments of torch's module of a `kind`, "LSTM", and the name of its dtype.

    `name` is what errors call the module.
    """
    check_module(name, module, kind)
    assert isinstance(module, nn.Module)
    options = {field: getattr(module, field) for field in FIELDS if hasattr(module, field)}
    if kind != "LSTM":
        # Which no other module may set.
        options.pop("proj_size", None)
    return options, dtype_of(name, module.parameters())


def check_module(name: str, module: object, kind: str) -> None:
    """Check that this is torch's module of a `kind`, and computes no more than its weights say."""
    theirs: type[nn.Module] = getattr(nn, kind)
    if not isinstance(module, theirs):
        raise TypeError(f"{name}: expected a torch.nn.{kind}, got {describe(module)}")
    check_forward(name, module, theirs, getattr(_modules, kind, theirs))


def check_forward(name: str, module: nn.Module, *kinds: type[nn.Module]) -> None:
    """Check that a module has the forward of one of `kinds`, and no hooks around it."""
    found: type[nn.Module] = type_before_parametrizations(module)
    if found.forward not in [kind.forward for kind in kinds] or "forward" in vars(module):
        raise TypeError(
            f"{name}: expected {kinds[0].__module__.partition('.modules')[0]}."
            f"{kinds[0].__name__}'s own forward, got that of {found.__qualname__}"
        )
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        if hooks:
            raise ValueError(
                f"{name}: expected no hooks around forward, whose work would be lost, "
                f"got {describe(next(iter(hooks.values())))}"
            )


def dtype_of(name: str, tensors: Iterable[Tensor]) -> str:
    """Return the name of the one dtype that weights have."""
    found = {tensor.dtype for tensor in tensors}
    if len(found) != 1 or not found <= _autograd.DTYPES.keys():
        listed = " and ".join(sorted(map(str, found)))
        raise TypeError(
            f"{name}: expected weights that are all torch.float32 or all torch.float64, "
            f"got {listed}"
        )
    return _autograd.DTYPES[found.pop()]


def array_of(name: str, tensor: Tensor) -> Array:
    """Return a weight as an array: its own memory where that is the CPU's."""
    if tensor.is_meta:
        raise ValueError(f"{name}: expected weights that hold numbers, got some on device 'meta'")
    array: Array = tensor.detach().cpu().numpy()
    return array
