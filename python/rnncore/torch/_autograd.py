"""One call of the Rust stack as an operation that torch can differentiate.

Letters of the shapes: T steps, B sequences, R steps of all sequences together, I inputs, H hidden
units, W columns of h (H, or those of a projection), L layers, D directions.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rnncore import _core

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

    def serves(
        self, x: Tensor, batch_sizes: Tensor | None, states: States, weights: Sequence[Any]
    ) -> bool:
        """Whether the kernels compute this, here and now; what they do not is left to torch.

        So are calls that are errors: torch names them.
        """
        dtype = x.dtype
        return (
            dtype in _DTYPES
            and can_read(dtype, x, *states, *weights)
            and self.fits(x, batch_sizes, states)
            and (batch_sizes is None or _counts_rows(batch_sizes, x, states[0].shape[1]))
            and [weight.shape for weight in weights] == _weight_shapes(self)
        )

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


_weight_shapes = functools.lru_cache(find_weight_shapes)


def sizes_of(states: States) -> tuple[int, int]:
    """Return `hidden_size` and `proj_size`, which torch tells by the columns of h and c."""
    h, c = states[0].shape[-1], states[-1].shape[-1]
    return c, 0 if h == c else h


def _counts_rows(batch_sizes: Tensor, x: Tensor, batch: int) -> bool:
    """Whether these are the numbers of packed rows at each step."""
    return (
        type(batch_sizes) is Tensor
        and batch_sizes.is_cpu
        and batch_sizes.dtype is torch.int64
        and batch_sizes.dim() == 1
        and batch_sizes.numel() > 0
        and int(batch_sizes[0]) == batch
        and int(batch_sizes[-1]) > 0
        and int(batch_sizes.sum()) == x.shape[0]
        and bool((batch_sizes[1:] <= batch_sizes[:-1]).all())
    )


def can_read(dtype: torch.dtype, *tensors: Any) -> bool:
    """Whether these are numbers of a type in memory, and autograd alone watches their use."""
    if (
        # Transforms of torch.func, among them vmap; forward-mode differentiation.
        torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        # Modes that see each operation: fake tensors, tracing and counting.
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    for tensor in tensors:
        if (
            type(tensor) not in _PLAIN
            or tensor.dtype is not dtype
            or not tensor.is_cpu
            or tensor.layout is not torch.strided
            or tensor.is_nested
            or tensor.is_neg()
        ):
            return False
    return True


def run(
    call: Call,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: States,
    weights: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Compute what `Call.serves`.

    Returns
    -------
    output, h, c : tensors, as torch's operation of the cell gives them
        Without `c` where the cell has none, and without `output` for a single step.
    """
    h0, c0 = states if len(states) == 2 else (states[0], None)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights)):
        found = _Run.apply(call, batch_sizes, x, h0, c0, *weights)
        return tuple(found)
    return forward(call, batch_sizes, x, h0, c0, weights, keep=False)[0]


def forward(
    call: Call,
    batch_sizes: Tensor | None,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *,
    keep: bool,
) -> tuple[tuple[Tensor, ...], _core.Record | None]:
    (output, h, c), record = _functional(call, weights[0]).forward(
        [weight.detach().numpy() for weight in weights],
        x.detach().numpy(),
        _state_array(call, h0),
        _state_array(call, c0),
        None if batch_sizes is None else batch_sizes.numpy(),
        call.batch_first,
        keep,
        torch.get_num_threads(),
    )
    arrays = [h] if c is None else [h, c]
    arrays = [array[0] for array in arrays] if call.single else [output, *arrays]
    return tuple([torch.from_numpy(array) for array in arrays]), record


def _state_array(call: Call, state: Tensor | None) -> Any:
    if state is None:
        return None
    array = state.detach().numpy()
    return array[None] if call.single else array


# The stack that packed a model's weights last, by the id of the first weight, while that lives.
_stacks: dict[int, tuple[weakref.ref[Tensor], Call, torch.dtype, _core.Functional]] = {}
if hasattr(os, "register_at_fork"):
    # A child begins with none: another thread of its parent may have been packing one.
    os.register_at_fork(after_in_child=_stacks.clear)


def _functional(call: Call, weight: Tensor) -> _core.Functional:
    key = id(weight)
    known = _stacks.get(key)
    if known is not None:
        reference, known_call, dtype, functional = known
        if reference() is weight and known_call == call and dtype is weight.dtype:
            return functional
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


def _arrays(gradients: Sequence[Tensor | None]) -> list[Any] | None:
    """Return gradients as arrays; None if one stands for many, as with ``is_grads_batched``."""
    try:
        return [None if g is None else g.detach().numpy() for g in gradients]
    except RuntimeError:
        return None


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        batch_sizes: Tensor | None,
        x: Tensor,
        h0: Tensor,
        c0: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        # All are inputs: torch finds out whether they were written before backward reads them.
        ctx.save_for_backward(x, h0, c0, *weights)
        ctx.call, ctx.batch_sizes = call, batch_sizes
        outputs, ctx.record = forward(call, batch_sizes, x, h0, c0, weights, keep=True)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            *backward(ctx.call, ctx.record, ctx.batch_sizes, ctx.saved_tensors, needs, gradients),
        )


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
        When there is none, or it was used because the graph is retained, forward runs again.
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
    arrays = _arrays(gradients)
    x, h0, c0, *weights = tensors
    if torch.is_grad_enabled() or not can_read(given[0].dtype, *given) or arrays is None:
        # A gradient that is differentiated itself, or one that is no array.
        return _backward_through_torch(call, batch_sizes, tensors, needs, gradients)
    kept: Any = record
    if record is None or record.is_used():
        _, kept = forward(call, batch_sizes, x, h0, c0, weights, keep=True)
    if call.single:
        arrays = [None, *[None if array is None else array[None] for array in arrays]]
    d_output, d_h, d_c = arrays if len(arrays) == 3 else (*arrays, None)
    dx, dh0, dc0, d_weights = kept.backward(
        d_output,
        d_h,
        d_c,
        needs[0],
        needs[1] or needs[2],
        any(needs[3:]),
        torch.get_num_threads(),
    )
    if call.single:
        dh0, dc0 = (None if array is None else array[0] for array in (dh0, dc0))
    found = [dx, dh0, dc0, *(d_weights or [None] * len(weights))]
    return [
        torch.from_numpy(array) if need and array is not None else None
        for need, array in zip(needs, found, strict=True)
    ]


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
