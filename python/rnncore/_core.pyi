"""Types of the Rust extension; the public modules check arguments before they come here."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Lengths = NDArray[np.int64]
# values, starts, lengths, targets
Labelled = tuple[Array, Lengths, Lengths, Array]

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...

class Tape: ...

class Optimizer:
    learning_rate: float
    def __init__(
        self,
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
    ) -> None: ...

class Stack:
    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        dropout: float,
        bidirectional: bool,
        dtype: str,
    ) -> None: ...
    def parameter_shapes(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def parameters(self) -> dict[str, Array]: ...
    def set_parameters(self, parameters: Mapping[str, Array]) -> None: ...
    def forward(
        self,
        x: Array,
        h0: Array | None,
        c0: Array | None,
        lengths: Lengths | None,
        batch_first: bool,
        keep: bool,
        seed: int | None,
    ) -> tuple[Array, Array, Array | None, Tape | None]: ...
    def backward(
        self, tape: Tape, d_output: Array | None, d_hn: Array | None, d_cn: Array | None
    ) -> tuple[Array, Array, Array | None, dict[str, Array]]: ...
    def apply_gradients(self, grads: Mapping[str, Array], optimizer: Optimizer) -> float: ...

class Network:
    def __init__(
        self,
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
        vocabulary_size: int | None = None,
    ) -> None: ...
    def parameter_shapes(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def parameters(self) -> dict[str, Array]: ...
    def set_parameters(self, parameters: Mapping[str, Array]) -> None: ...
    def fit(
        self,
        values: Array,
        starts: Lengths,
        lengths: Lengths,
        targets: Array,
        optimizer: Optimizer,
        *,
        batch_size: int,
        max_epochs: int,
        shuffle: bool,
        bucket_by_length: bool,
        seed: int,
        n_threads: int | None = None,
        validation: Labelled | None = None,
        on_batch: Callable[[int, int, int, float], None] | None = None,
        on_epoch: Callable[[dict[str, float]], bool | None] | None = None,
    ) -> str: ...
    def predict(
        self,
        values: Array,
        starts: Lengths,
        lengths: Lengths,
        batch_size: int,
        n_threads: int | None = None,
    ) -> Array: ...
    def evaluate(
        self,
        values: Array,
        starts: Lengths,
        lengths: Lengths,
        targets: Array,
        batch_size: int,
        n_threads: int | None = None,
    ) -> tuple[float, float]: ...
