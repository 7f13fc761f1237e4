"""One call of the Rust stack as an operation that torch can differentiate.

Letters of the shapes: T steps, B sequences, R steps of all sequences together, I inputs, H hidden
units, W columns of h (H, or those of a projection), L layers, D directions.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from rnncore import _core

# What the kernels compute with, and how Rust calls it.
DTYPES = {torch.float32: "float32", torch.float64: "float64"}

# How tensors go into Rust and out. A subclass may stand for something else than numbers in memory,
# and those of a negated view are not those in memory; torch's functions for C are there since 2.10.
PLAIN = [Tensor, torch.nn.Parameter]
_exchange = _core.Exchange(
    getattr(Tensor, "__dlpack_c_exchange_api__", None),
    PLAIN,
    Tensor.is_neg,
    torch._C._to_dlpack,
    torch._C._from_dlpack,
)

# h, or (h, c).
States = tuple[Tensor, ...]


class Call(NamedTuple):
    """What is called: all but the tensors, whose shapes say the rest."""

    cell: str
    num_layers: int
    bias: bool
    bidirectional: bool
    batch_first: bool
    # Whether `x` is (B, I), one step, with states (B, H).
    single: bool

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
        _, hidden_size, proj_size = sizes_of(x, states)
        return (
            (not proj_size or (proj_size < hidden_size and not self.single))
            and len(states) == (2 if self.cell == "lstm" else 1)
            and all(state.shape[:-1] == axes for state in states)
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


GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def find_weight_shapes(call: Call, sizes: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Shapes of the weights, in order, for the sizes of `sizes_of`."""
    input_size, hidden_size, proj_size = sizes
    rows, state_size = GATES[call.cell] * hidden_size, proj_size or hidden_size
    directions = 2 if call.bidirectional else 1
    shapes = []
    for layer in range(call.num_layers):
        width = state_size * directions if layer else input_size
        of_direction: list[tuple[int, ...]] = [(rows, width), (rows, state_size)]
        of_direction += [(rows,), (rows,)] if call.bias else []
        of_direction += [(proj_size, hidden_size)] if proj_size else []
        shapes += of_direction * directions
    return shapes


def sizes_of(x: Tensor, states: States) -> tuple[int, int, int]:
    """Return `input_size`, `hidden_size` and `proj_size`, which is 0 where h is no projection.

    torch tells a projection by the columns of h and c, which each have one dimension or more.
    """
    h, c = states[0].shape[-1], states[-1].shape[-1]
    return x.shape[-1], c, 0 if h == c else h


# What a call asks each time, without the way there.
_interpreter = torch._C._functorch.peek_interpreter_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_tracing = torch._C._get_tracing_state
_is_autocast = torch.is_autocast_enabled
_is_any_autocast = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)


def is_watched() -> bool:
    """Whether something besides autograd follows, or changes, each operation here."""
    # To ask about autocast on one device takes as long as all the other questions.
    return is_followed() or (_is_any_autocast() and _is_autocast("cpu"))


def is_followed() -> bool:
    """Whether something besides autograd follows each operation here."""
    return (
        # Transforms of torch.func, among them vmap; forward-mode differentiation.
        _interpreter() is not None
        or forward_ad._current_level >= 0
        # Modes that see each operation: fake tensors, tracing and counting. A default device is a
        # mode too, but of what makes tensors alone.
        or _dispatch_modes() > 0
        or (_function_modes() > 0 and _is_function_mode_on())
        or _tracing() is not None
    )


def _is_function_mode_on() -> bool:
    """Whether a mode sees functions of torch."""
    modes = [torch._C._get_function_stack_at(i) for i in range(_function_modes())]
    return any(type(mode) is not DeviceContext for mode in modes)


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


# An older torch cannot be asked.
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
        kernels do not compute this: it is left to torch, as all is while `is_watched`. So are
        errors, which torch names.
    """
    h0, c0 = states if len(states) == 2 else (states[0], None)
    keep = torch.is_grad_enabled() and (
        weights[0].requires_grad or any(map(_requires_grad, (*weights, x, *states)))
    )
    found = forward(call, batch_sizes, x, h0, c0, weights, keep=keep)
    if found is None:
        return None
    outputs, record = found
    if record is None:
        return outputs
    applied: tuple[Tensor, ...] = _Run.apply(
        (call, batch_sizes, record), outputs, x, h0, c0, *weights
    )
    return applied


_requires_grad = attrgetter("requires_grad")


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
    functional = _functional(call, x, h0, c0, weights)
    if functional is None:
        return None
    return functional.forward(
        weights,
        x,
        h0,
        c0,
        batch_sizes,
        call.batch_first,
        call.single,
        keep,
        torch.get_num_threads(),
    )


# The stack that packed a model's weights last, by the id of the first weight, while that lives.
_stacks: dict[int, tuple[weakref.ref[Tensor], Call, torch.dtype, _core.Functional]] = {}
if hasattr(os, "register_at_fork"):
    # A child begins with none: another thread of its parent may have been packing one.
    os.register_at_fork(after_in_child=_stacks.clear)


def _functional(
    call: Call, x: Tensor, h0: Tensor, c0: Tensor | None, weights: Sequence[Tensor]
) -> _core.Functional | None:
    """Return the stack of these weights; None if they are not of one that there is."""
    weight = weights[0]
    key = id(weight)
    known = _stacks.get(key)
    if known is not None:
        reference, known_call, dtype, functional = known
        if reference() is weight and known_call == call and dtype is weight.dtype and weight.is_cpu:
            return functional
        _stacks.pop(key, None)
    sizes = input_size, hidden_size, proj_size = sizes_of(x, (h0,) if c0 is None else (h0, c0))
    # A stack takes memory: none is made for what it could not compute.
    if (
        type(weight) not in PLAIN
        or not weight.is_cpu
        or weight.dtype not in DTYPES
        or not proj_size <= hidden_size > 0
        or [weight.shape for weight in weights] != find_weight_shapes(call, sizes)
    ):
        return None
    functional = _core.Functional(
        _exchange,
        call.cell,
        input_size,
        hidden_size,
        call.num_layers,
        call.bias,
        call.bidirectional,
        proj_size,
        DTYPES[weight.dtype],
    )

    def forget(reference: weakref.ref[Tensor]) -> None:
        # Another tensor may have the id by now.
        if (known := _stacks.get(key)) is not None and known[0] is reference:
            del _stacks[key]

    for other in weights:  # those of a part of this stack, as of a layer between two dropouts
        _stacks.pop(id(other), None)
    _stacks[key] = (weakref.ref(weight, forget), call, weight.dtype, functional)
    return functional


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        made: tuple[Call, Tensor | None, _core.Record],
        outputs: tuple[Tensor, ...],
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        call, batch_sizes, record = made
        # Then forward's record goes with the rest, so that it is not kept but made anew.
        byte = as_tensor(record) if _are_saved_tensors_hooked() else None
        # The others are inputs: torch finds out whether they were written before backward reads.
        ctx.save_for_backward(byte, *tensors)
        ctx.made = made if byte is None else (call, batch_sizes, None)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        byte, *tensors = ctx.saved_tensors
        call, batch_sizes, record = ctx.made
        if byte is not None:
            record = as_record(byte)
        _, _, *needs = ctx.needs_input_grad
        return (None, None, *backward(call, record, batch_sizes, tensors, needs, gradients))


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
    parts = [None, *gradients] if call.single else gradients
    d_output, d_h, d_c = parts if len(parts) == 3 else (*parts, None)
    if d_output is None and d_h is None and d_c is None:
        return [None] * len(tensors)
    found = None
    # Not where gradients are differentiated themselves, or somebody sees each operation. Autocast
    # comes too late: the kernels computed forward because there was none.
    if not (torch.is_grad_enabled() or is_followed()):
        x, h0, c0, *weights = tensors
        given = (x, weights, d_output, d_h, d_c, needs, torch.get_num_threads())
        found = record.backward(*given) if record is not None else None
        if found is None and (record is None or record.is_used()):
            made = forward(call, batch_sizes, x, h0, c0, weights, keep=True)
            if made is not None and made[1] is not None:
                found = made[1].backward(*given)
    if found is None:
        return _backward_through_torch(call, batch_sizes, tensors, needs, gradients)
    return found


def _backward_through_torch(
    call: Call,
    batch_sizes: Tensor | None,
    tensors: Sequence[Tensor | None],
    needs: Sequence[bool],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Run the call again with torch's own operations, and take that back."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        # Aliases, so that a tensor that came in twice has a gradient for each place.
        aliases: list[Any] = [
            _alias(tensor) if need and tensor is not None else tensor
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


def _alias(tensor: Tensor) -> Tensor:
    # A compiled graph saves what it computed itself without a graph of its own.
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
