"""One call of the Rust stack as an operation that torch can differentiate.

Letters of the shapes: T steps, B sequences, R steps of all sequences together, I inputs, H hidden
units, W columns of h (H, or those of a projection), L layers, D directions.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from rnncore import _core

if TYPE_CHECKING:
    from typing_extensions import CapsuleType

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}

# Tensors that hold their own numbers; a subclass may stand for something else.
_PLAIN = frozenset({Tensor, torch.nn.Parameter})

# h, or (h, c).
States = tuple[Tensor, ...]


class Call(NamedTuple):
    """What is called: all but the tensors."""

    cell: str
    input_size: int
    hidden_size: int
    # 0 where h is no projection.
    proj_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    batch_first: bool
    # Whether `x` is (B, I), one step, with states (B, H).
    single: bool

    @property
    def state_size(self) -> int:
        """Columns of h."""
        return self.proj_size or self.hidden_size

    def fits(self, x: Tensor, batch_sizes: Tensor | None, states: States) -> bool:
        """Whether there is something to compute, and states have its size."""
        axes: tuple[int, ...]
        if x.dim() != (2 if self.single or batch_sizes is not None else 3) or x.numel() == 0:
            return False
        if self.single:
            axes = (x.shape[0],)
        else:
            rows = self.num_layers * (2 if self.bidirectional else 1)
            if batch_sizes is None:
                batch = x.shape[0 if self.batch_first else 1]
            else:
                # How many rows are left at the first step only the numbers say.
                batch = states[0].shape[1] if states[0].dim() == 3 else 0
            axes = (rows, batch)
        widths = (self.state_size, self.hidden_size)[: 2 if self.cell == "lstm" else 1]
        return (
            (not self.proj_size or (self.proj_size < self.hidden_size and not self.single))
            and len(states) == len(widths)
            and all(s.shape == (*axes, width) for s, width in zip(states, widths, strict=True))
        )

    def through_torch(
        self, x: Tensor, batch_sizes: Tensor | None, states: States, weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Compute the same with torch's own operations."""
        mode = self.cell
        hx = states if mode == "lstm" else states[0]
        operations: Any = torch._VF
        if self.single:
            biases = weights[2:] if self.bias else (None, None)
            found = getattr(operations, f"{mode}_cell")(x, hx, *weights[:2], *biases)
            return found if mode == "lstm" else (found,)
        operation = getattr(operations, mode)
        rest = (weights, self.bias, self.num_layers, 0.0, False, self.bidirectional)
        if batch_sizes is None:
            found = operation(x, hx, *rest, self.batch_first)
        else:
            found = operation(x, batch_sizes, hx, *rest)
        return tuple(found)


_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def find_weight_shapes(call: Call) -> list[tuple[int, ...]]:
    """Shapes of the weights, in order."""
    rows = _GATES[call.cell] * call.hidden_size
    directions = 2 if call.bidirectional else 1
    shapes = []
    for layer in range(call.num_layers):
        width = call.state_size * directions if layer else call.input_size
        of_direction: list[tuple[int, ...]] = [(rows, width), (rows, call.state_size)]
        of_direction += [(rows,), (rows,)] if call.bias else []
        of_direction += [(call.proj_size, call.hidden_size)] if call.proj_size else []
        shapes += of_direction * directions
    return shapes


def sizes_of(states: States) -> tuple[int, int]:
    """Return `hidden_size` and `proj_size`, which torch tells by the columns of h and c."""
    h, c = states[0].shape[-1], states[-1].shape[-1]
    return c, 0 if h == c else h


# What `torch.utils.dlpack` calls in the end, some microseconds later.
_to_capsule = torch._C._to_dlpack
_from_capsule = torch._C._from_dlpack


def _capsules(tensors: Sequence[Tensor]) -> list[CapsuleType] | None:
    """Return what Rust reads; None unless all hold their own numbers in memory."""
    for tensor in tensors:
        # The numbers of a negated view are not those in memory.
        if type(tensor) not in _PLAIN or tensor.is_neg():
            return None
    try:
        return [_to_capsule(tensor) for tensor in tensors]
    except (RuntimeError, ValueError, BufferError):
        # Sparse and nested ones, one that stands for many, other devices.
        return None


def _is_watched() -> bool:
    """Whether something besides autograd follows each operation here."""
    return (
        # Transforms of torch.func, among them vmap; forward-mode differentiation.
        torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        # Modes that see each operation: fake tensors, tracing and counting. A default device is a
        # mode too, but of what makes tensors alone.
        or torch._C._len_torch_dispatch_stack() > 0
        or any(type(mode) is not DeviceContext for mode in _function_modes())
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
    )


def _function_modes() -> list[Any]:
    """Return the modes that see functions of torch."""
    depth = torch._C._len_torch_function_stack()
    return [torch._C._get_function_stack_at(i) for i in range(depth)] if depth else []


class _Byte(np.ndarray):
    """A byte that owns a record."""

    record: _core.Record


# Those that live, by their address.
_bytes: weakref.WeakValueDictionary[int, _Byte] = weakref.WeakValueDictionary()


def as_tensor(record: _core.Record) -> Tensor:
    """Return a tensor of one byte to whose memory a record belongs."""
    byte = np.zeros(1, np.uint8).view(_Byte)
    byte.record = record
    tensor = torch.from_numpy(byte)
    _bytes[tensor.data_ptr()] = byte
    return tensor


def as_record(tensor: Tensor) -> _core.Record | None:
    """Return the record of a tensor; None of one with other memory, such as a copy."""
    found = _bytes.get(tensor.data_ptr())
    return None if found is None else found.record


def _are_saved_tensors_hooked() -> bool:
    """Whether somebody puts away what is saved for backward, as activation checkpointing does."""
    return _top_hooks is None or _top_hooks(True) is not None


# Before torch 2.5 nobody can ask.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def run(
    call: Call,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: States,
    weights: Sequence[Tensor],
) -> tuple[Tensor, ...] | None:
    """Compute a call.

    Returns
    -------
    output, h, c : tensors, as torch's operation of the cell gives them
        Without `c` where the cell has none, and without `output` for a single step. None if the
        kernels do not compute this, here and now: it is left to torch. So are errors, which torch
        names.
    """
    if _is_watched():
        return None
    h0, c0 = states if len(states) == 2 else (states[0], None)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    found = forward(call, batch_sizes, x, h0, c0, weights, keep=keep)
    if found is None:
        return None
    outputs, record = found
    if keep:
        return tuple(_Run.apply(call, record, outputs, batch_sizes, x, h0, c0, *weights))
    return outputs


def forward(
    call: Call,
    batch_sizes: Tensor | None,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *,
    keep: bool,
) -> tuple[tuple[Tensor, ...], _core.Record | None] | None:
    """Compute what `run` says without autograd, and what backward needs if it is to be kept."""
    tensors = [x, h0, *weights]
    tensors += [] if c0 is None else [c0]
    tensors += [] if batch_sizes is None else [batch_sizes]
    capsules = _capsules(tensors)
    functional = _functional(call, weights) if capsules else None
    if capsules is None or functional is None:
        return None
    counts = None if batch_sizes is None else capsules.pop()
    memory = None if c0 is None else capsules.pop()
    found = functional.forward(
        capsules[2:],
        capsules[0],
        capsules[1],
        memory,
        counts,
        call.batch_first,
        keep,
        torch.get_num_threads(),
    )
    if found is None:
        return None
    outputs, record = found
    return tuple([_from_capsule(output) for output in outputs]), record


# The stack that packed a model's weights last, by the id of the first weight, while that lives.
_stacks: dict[int, tuple[weakref.ref[Tensor], Call, torch.dtype, _core.Functional]] = {}
if hasattr(os, "register_at_fork"):
    # A child begins with none: another thread of its parent may have been packing one.
    os.register_at_fork(after_in_child=_stacks.clear)


def _functional(call: Call, weights: Sequence[Tensor]) -> _core.Functional | None:
    """Return the stack of these weights; None if they are not of one that there is."""
    weight = weights[0]
    key = id(weight)
    known = _stacks.get(key)
    if known is not None:
        reference, known_call, dtype, functional = known
        if reference() is weight and known_call == call and dtype is weight.dtype:
            return functional
    if (
        weight.dtype not in _DTYPES
        or call.proj_size > call.hidden_size
        or [weight.shape for weight in weights] != find_weight_shapes(call)
    ):
        return None
    functional = _core.Functional(
        call.cell,
        call.input_size,
        call.hidden_size,
        call.num_layers,
        call.bias,
        call.bidirectional,
        call.proj_size,
        _DTYPES[weight.dtype],
    )

    def forget(reference: weakref.ref[Tensor]) -> None:
        # Another tensor may have the id by now.
        if (known := _stacks.get(key)) is not None and known[0] is reference:
            del _stacks[key]

    _stacks[key] = (weakref.ref(weight, forget), call, weight.dtype, functional)
    return functional


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        record: _core.Record,
        outputs: tuple[Tensor, ...],
        batch_sizes: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        # Then forward's record goes with the rest, so that it is not kept but made anew.
        byte = as_tensor(record) if _are_saved_tensors_hooked() else None
        # The others are inputs: torch finds out whether they were written before backward reads.
        ctx.save_for_backward(byte, *tensors)
        ctx.call, ctx.batch_sizes = call, batch_sizes
        ctx.record = record if byte is None else None
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        byte, *tensors = ctx.saved_tensors
        record = ctx.record if byte is None else as_record(byte)
        needs = ctx.needs_input_grad[4:]
        found = backward(ctx.call, record, ctx.batch_sizes, tensors, needs, gradients)
        return (None, None, None, None, *found)


def backward(
    call: Call,
    record: _core.Record | None,
    batch_sizes: Tensor | None,
    tensors: Sequence[Any],
    needs: Sequence[bool],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Take a call back.

    Parameters
    ----------
    record : what forward kept
        When there is none, or it was used as the graph is retained, forward runs again.
    tensors : x, h0, c0 or None, weights
    needs : whether each of these wants its gradient
    gradients : of what `run` returned

    Returns
    -------
    gradients : one for each of `tensors`, None where there is none
    """
    given = [gradient for gradient in gradients if gradient is not None]
    if not given:
        return [None] * len(tensors)
    # Not where gradients are differentiated themselves, or are no numbers in memory.
    capsules = None if torch.is_grad_enabled() or _is_watched() else _capsules(given)
    found = None
    if capsules:
        if record is None or record.is_used():
            x, h0, c0, *weights = tensors
            made = forward(call, batch_sizes, x, h0, c0, weights, keep=True)
            record = made[1] if made else None
        places = iter(capsules)
        parts = [None if gradient is None else next(places) for gradient in gradients]
        parts = [None, *parts] if call.single else parts
        d_output, d_h, d_c = parts if len(parts) == 3 else (*parts, None)
        if record is not None:
            found = record.backward(d_output, d_h, d_c, needs, torch.get_num_threads())
    if found is None:
        return _backward_through_torch(call, batch_sizes, tensors, needs, gradients)
    return [None if capsule is None else _from_capsule(capsule) for capsule in found]


def _backward_through_torch(
    call: Call,
    batch_sizes: Tensor | None,
    tensors: Sequence[Tensor | None],
    needs: Sequence[bool],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Run the call again with torch's own operations, and take that back."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, so that a tensor that came in twice has a gradient for each place.
        aliases: list[Any] = [
            tensor.view_as(tensor) if need and tensor is not None else tensor
            for tensor, need in zip(tensors, needs, strict=True)
        ]
        x, h0, c0, *weights = aliases
        states = (h0,) if c0 is None else (h0, c0)
        outputs = call.through_torch(x, batch_sizes, states, weights)
    pairs = [(y, dy) for y, dy in zip(outputs, gradients, strict=True) if dy is not None]
    wanted = [alias for alias, need in zip(aliases, needs, strict=True) if need]
    found = iter(
        torch.autograd.grad(
            [y for y, _ in pairs],
            wanted,
            [dy for _, dy in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return [next(found) if need else None for need in needs]
