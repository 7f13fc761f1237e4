"""The same call inside a compiled graph: operations that ``torch.compile`` puts there as they are.

``rnncore::forward`` and ``rnncore::backward`` take and give tensors alone. What forward keeps for
backward lies in Rust: it goes from one to the other as a tensor of one byte (`as_tensor`). Where
the compiler hands backward another tensor, forward runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rnncore.torch._autograd import (
    DTYPES,
    Call,
    States,
    as_record,
    as_tensor,
    backward,
    find_weight_shapes,
    forward,
    sizes_of,
)

# What `Call` holds.
_CALL = "str cell, int num_layers, bool bias, bool bidirectional, bool batch_first, bool single"
_TENSORS = "Tensor x, Tensor? batch_sizes, Tensor h0, Tensor? c0, Tensor[] weights"


def _serves(
    call: Call, x: Tensor, batch_sizes: Tensor | None, states: States, weights: Sequence[Any]
) -> bool:
    """Whether the operations compute this, as far as the compiler knows the tensors."""
    exporting = getattr(torch.compiler, "is_exporting", None)
    if (
        not torch.compiler.is_dynamo_compiling()
        or (exporting is not None and exporting())
        or torch.is_autocast_enabled("cpu")
        or x.dtype not in DTYPES
    ):
        return False
    if not (x.dim() and states and all(state.dim() for state in states)):
        return False
    shapes = find_weight_shapes(call, sizes_of(x, states))
    return (
        all(t.dtype is x.dtype and t.device.type == "cpu" for t in (x, *states, *weights))
        and call.fits(x, batch_sizes, states)
        and len(shapes) == len(weights)
        and all(tuple(w.shape) == shape for w, shape in zip(weights, shapes, strict=True))
    )


def run(
    call: Call,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: States,
    weights: Sequence[Tensor],
) -> tuple[Tensor, ...] | None:
    """Compute a call as `rnncore.torch._autograd.run` does, by an operation in the graph."""
    if not _serves(call, x, batch_sizes, states, weights):
        return None
    h0, c0 = states if len(states) == 2 else (states[0], None)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    found = torch.ops.rnncore.forward(x, batch_sizes, h0, c0, list(weights), *call, keep)
    return tuple(found[1 if call.single else 0 : 3 if call.cell == "lstm" else 2])


def _forward(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *rest: Any,
) -> tuple[Tensor, ...]:
    *settings, keep = rest
    call = Call(*settings)
    states = (h0,) if c0 is None else (h0, c0)
    found = forward(call, batch_sizes, x, h0, c0, weights, keep=keep)
    if found is None:
        # Errors that only numbers show are torch's.
        found = call.through_torch(x, batch_sizes, states, weights), None
    outputs, record = found
    output = x.new_empty(0) if call.single else outputs[0].contiguous()
    h, c = (*outputs[-len(states) :], x.new_empty(0))[:2]
    kept = torch.zeros(int(keep), dtype=torch.uint8) if record is None else as_tensor(record)
    return output, h, c, kept


def _forward_shapes(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *rest: Any,
) -> tuple[Tensor, ...]:
    call = Call(*rest[:-1])
    width = h0.shape[-1] * (2 if call.bidirectional else 1)
    return (
        x.new_empty(0 if call.single else (*x.shape[:-1], width)),
        x.new_empty(h0.shape),
        x.new_empty(0 if c0 is None else c0.shape),
        x.new_empty(int(rest[-1]), dtype=torch.uint8),
    )


def _backward(
    handle: Tensor,
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *rest: Any,
) -> list[Tensor]:
    *settings, d_output, d_h, d_c, needs = rest
    call = Call(*settings)
    gradients = [d_h, d_c] if call.single else [d_output, d_h, d_c]
    gradients = gradients if call.cell == "lstm" else gradients[:-1]
    tensors = [x, h0, c0, *weights]
    with torch.no_grad():
        found = backward(call, as_record(handle), batch_sizes, tensors, needs, gradients)
    # A list of tensors has no place for None.
    filled: list[Tensor] = []
    for gradient, tensor in zip(found, tensors, strict=True):
        if gradient is None:
            need = needs[len(filled)]
            gradient = x.new_zeros(0 if tensor is None or not need else tensor.shape)
        filled.append(gradient.contiguous())
    return filled


def _backward_shapes(
    handle: Tensor,
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *rest: Any,
) -> list[Tensor]:
    shapes = [0 if tensor is None else tensor.shape for tensor in (x, h0, c0, *weights)]
    return [x.new_empty(shape if need else 0) for shape, need in zip(shapes, rest[-1], strict=True)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, batch_sizes, h0, c0, weights, *settings = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[3], x, batch_sizes, h0, c0, *weights)
    ctx.settings = settings[:-1]


def _take_back(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
    x, _, h0, c0, weights, *rest = ctx.needs_input_grad
    needs = [x, h0, c0, *weights]
    handle, x, batch_sizes, h0, c0, *tensors = ctx.saved_tensors
    dx, dh0, dc0, *d_weights = [
        gradient if need else None
        for gradient, need in zip(
            torch.ops.rnncore.backward(
                handle, x, batch_sizes, h0, c0, tensors, *ctx.settings, *gradients[:3], needs
            ),
            needs,
            strict=True,
        )
    ]
    return (dx, None, dh0, dc0, d_weights, *[None] * len(rest))


torch.library.define(
    "rnncore::forward",
    f"({_TENSORS}, {_CALL}, bool keep) -> (Tensor output, Tensor h, Tensor c, Tensor record)",
)
torch.library.define(
    "rnncore::backward",
    f"(Tensor record, {_TENSORS}, {_CALL}, Tensor? d_output, Tensor? d_h, Tensor? d_c, "
    "bool[] needs) -> Tensor[]",
)
torch.library.impl("rnncore::forward", "cpu", _forward)
torch.library.impl("rnncore::backward", "cpu", _backward)
torch.library.register_fake("rnncore::forward", _forward_shapes)
torch.library.register_fake("rnncore::backward", _backward_shapes)
torch.library.register_autograd("rnncore::forward", _take_back, setup_context=_keep)
