"""Types of the Rust extension; the public modules check arguments before they come here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import CapsuleType, disjoint_base

__all__ = [
    "Examples",
    "Exchange",
    "Functional",
    "Network",
    "Optimizer",
    "Record",
    "Stack",
    "Stream",
    "Tape",
    "all_finite",
    "available_isas",
    "get_num_threads",
    "isa",
    "set_num_threads",
]

_Array = NDArray[Any]
_Lengths = NDArray[np.int64]
# A tensor of the library that an `Exchange` is of.
_Tensor = Any

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def all_finite(values: _Array) -> bool: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...

@final
class Tape: ...

@disjoint_base
class Optimizer:
    learning_rate: float
    def __new__(
        cls,
        rule: str,
        learning_rate: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        alpha: float = 0.99,
        centered: bool = False,
        lr_decay: float = 0.0,
        initial_accumulator: float = 0.0,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> Self: ...
    # {"steps": int, "buffers": [a 1-D array, ...]}; None before the first update.
    def state(self, model: Network | Stack) -> dict[str, Any] | None: ...
    def set_state(self, model: Network | Stack, state: dict[str, Any] | None) -> None: ...

@final
class Stack:
    def __new__(
        cls,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        dropout: float,
        locked_dropout: bool,
        bidirectional: bool,
        proj_size: int,
        dtype: str,
    ) -> Self: ...
    def parameter_shapes(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def parameters(self) -> dict[str, _Array]: ...
    def set_parameters(self, parameters: Mapping[str, _Array]) -> None: ...
    def forward(
        self,
        x: _Array,
        h0: _Array | None,
        c0: _Array | None,
        lengths: _Lengths | None,
        batch_first: bool,
        keep: bool,
        copy: bool,
        seed: int | None,
    ) -> tuple[_Array, _Array, _Array | None, Tape | None]: ...
    def backward(
        self, tape: Tape, d_output: _Array | None, d_h: _Array | None, d_c: _Array | None
    ) -> tuple[_Array, _Array, _Array | None, dict[str, _Array]]: ...
    def apply_gradients(self, grads: Mapping[str, _Array], optimizer: Optimizer) -> float: ...

@final
class Exchange:
    """How a library's tensors go in and out; those of other types than `kinds` do not."""

    def __new__(
        cls,
        api: CapsuleType | None,
        kinds: Sequence[type[_Tensor]],
        is_view: Callable[[_Tensor], bool],
        to_capsule: Callable[[_Tensor], CapsuleType],
        from_capsule: Callable[[CapsuleType], _Tensor],
    ) -> Self: ...

@final
class Functional:
    """A stack that is given its weights at every call; `x` in packed order has two dimensions."""

    def __new__(
        cls,
        exchange: Exchange,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        bidirectional: bool,
        proj_size: int,
        dtype: str,
    ) -> Self: ...
    def forward(
        self,
        weights: Sequence[_Tensor],
        x: _Tensor,
        h0: _Tensor,
        c0: _Tensor | None,
        batch_sizes: _Tensor | None,
        batch_first: bool,
        is_single: bool,
        keep: bool,
        n_threads: int,
    ) -> tuple[tuple[_Tensor, ...], Record | None] | None: ...

@final
class Record:
    def is_used(self) -> bool: ...
    def backward(
        self,
        x: _Tensor,
        weights: Sequence[_Tensor],
        d_output: _Tensor | None,
        d_h: _Tensor | None,
        d_c: _Tensor | None,
        needs: Sequence[bool],
        n_threads: int,
    ) -> list[_Tensor | None] | None: ...

@final
class Examples:
    """Sequences, targets and weights; numbers are read where they lie, indexes are copied."""

    def __new__(
        cls,
        values: _Array,
        starts: _Lengths,
        lengths: _Lengths,
        targets: _Array | None = None,
        weights: _Array | None = None,
    ) -> Self: ...

@final
class Network:
    def __new__(
        cls,
        cell: str,
        input: str,
        input_size: int,
        hidden_sizes: Sequence[int],
        bidirectional: bool,
        output: str,
        n_outputs: int,
        loss: str,
        dtype: str,
        *,
        vocabulary_size: int | None = None,
        masked_id: int | None = None,
        freeze_embedding: bool = False,
        tie_embedding: bool = False,
        learn_initial_state: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        locked_dropout: bool = False,
        huber_delta: float = 1.0,
    ) -> Self: ...
    def parameter_shapes(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def parameters(self) -> dict[str, _Array]: ...
    def set_parameters(self, parameters: Mapping[str, _Array]) -> None: ...
    def train_epoch(
        self,
        examples: Examples,
        optimizer: Optimizer,
        *,
        epoch: int,
        batch_size: int,
        shuffle: bool,
        bucket_by_length: bool,
        seed: int,
        bptt_steps: int | None = None,
        bptt_window: int | None = None,
        checkpoint_time: bool = False,
        accumulate_batches: int = 1,
        rates: tuple[float, float] | None = None,
        n_threads: int | None = None,
        on_batch: Callable[[dict[str, Any]], None] | None = None,
        position: dict[str, Any] | None = None,
        pause_after: float | None = None,
    ) -> dict[str, Any]: ...
    def evaluate(
        self, examples: Examples, *, batch_size: int, n_threads: int | None = None
    ) -> tuple[float, float]: ...
    def predict(
        self, examples: Examples, *, batch_size: int, n_threads: int | None = None
    ) -> _Array: ...
    # Which output of each row of `predict` is the largest, and whether all outputs are finite.
    def choose(
        self, examples: Examples, *, batch_size: int, n_threads: int | None = None
    ) -> tuple[NDArray[np.int64], bool]: ...
    def features(
        self,
        examples: Examples,
        *,
        output: str,
        batch_size: int,
        layer: int = ...,
        n_threads: int | None = None,
    ) -> _Array: ...
    def gradient_flow(
        self, examples: Examples, *, layer: int, n_threads: int | None = None
    ) -> _Array: ...
    def stream(self, batch_size: int, *, flat: bool = False) -> Stream: ...

@final
class Stream:
    def step(self, x: _Array) -> _Array: ...
    def features(self) -> _Array: ...
    def state(self) -> dict[str, _Array]: ...
    def set_state(self, state: Mapping[str, _Array]) -> None: ...
    def reset(self, rows: _Lengths | None = None) -> None: ...
