"""Types of the Rust extension; the public modules check arguments before they come here."""

from collections.abc import Callable, Mapping
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

__all__ = [
    "Network",
    "Optimizer",
    "Stack",
    "Tape",
    "available_isas",
    "get_num_threads",
    "isa",
    "set_num_threads",
]

_Array = NDArray[Any]
_Lengths = NDArray[np.int64]
# values, starts, lengths, targets
_Labelled = tuple[_Array, _Lengths, _Lengths, _Array]

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
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
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> Self: ...

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
        seed: int | None,
    ) -> tuple[_Array, _Array, _Array | None, Tape | None]: ...
    def backward(
        self, tape: Tape, d_output: _Array | None, d_h: _Array | None, d_c: _Array | None
    ) -> tuple[_Array, _Array, _Array | None, dict[str, _Array]]: ...
    def apply_gradients(self, grads: Mapping[str, _Array], optimizer: Optimizer) -> float: ...

@final
class Network:
    def __new__(
        cls,
        cell: str,
        input: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        dropout: float,
        bidirectional: bool,
        output: str,
        n_outputs: int,
        loss: str,
        dtype: str,
        *,
        vocabulary_size: int | None = None,
    ) -> Self: ...
    def parameter_shapes(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def parameters(self) -> dict[str, _Array]: ...
    def set_parameters(self, parameters: Mapping[str, _Array]) -> None: ...
    def fit(
        self,
        values: _Array,
        starts: _Lengths,
        lengths: _Lengths,
        targets: _Array,
        optimizer: Optimizer,
        *,
        batch_size: int,
        max_epochs: int,
        shuffle: bool,
        bucket_by_length: bool,
        seed: int,
        n_threads: int | None = None,
        validation: _Labelled | None = None,
        on_batch: Callable[[int, int, int, float], None] | None = None,
        on_epoch: Callable[[dict[str, float]], bool | None] | None = None,
    ) -> str: ...
    def predict(
        self,
        values: _Array,
        starts: _Lengths,
        lengths: _Lengths,
        batch_size: int,
        n_threads: int | None = None,
    ) -> _Array: ...
