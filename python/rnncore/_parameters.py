"""The constructor of the estimators: every parameter, with its default, once.

A dataclass writes an ordinary ``__init__`` that only stores, with the signature that scikit-learn's
``get_params``, `inspect`, type checkers and editors read. `LSTM`'s docstring says what each
parameter means, `_options` what it may be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rnncore._validate import Array


@dataclass(kw_only=True, eq=False, repr=False)
class Parameters:
    """Stores the constructor's arguments."""

    hidden_size: int | Sequence[int] = field(default=64, kw_only=False)
    num_layers: int | None = None
    bidirectional: bool = False
    # What is learned.
    task: str = "auto"
    output: str = "auto"
    loss: str = "auto"
    huber_delta: float = 1.0
    class_weight: Mapping[Any, float] | str | None = None
    # What goes in.
    embedding: str | Array | None = None
    embedding_dim: int | None = None
    freeze_embedding: bool = False
    tie_embedding: bool = False
    vocabulary: Any = "auto"
    vocabulary_size: int | None = None
    masked_id: int | None = None
    padding_value: float | None = None
    padding_side: str = "right"
    # Where the weights start.
    init: str = "uniform"
    forget_bias: float | None = None
    learn_initial_state: bool = False
    # What holds them back.
    dropout: float = 0.0
    input_dropout: float = 0.0
    output_dropout: float = 0.0
    locked_dropout: bool = False
    # How they move.
    optimizer: Any = "adam"
    learning_rate: float | str = "auto"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float | str = "auto"
    l1: float = 0.0
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    lr_schedule: Any = None
    # How long, and over what.
    max_epochs: int = 100
    batch_size: int = 32
    accumulate_batches: int = 1
    shuffle: bool = True
    bucket_by_length: bool = True
    bptt_steps: int | tuple[int, int] | None = None
    checkpoint_time: bool = False
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    tol: float = 1e-4
    restore_best: bool = True
    warm_start: bool = False
    callbacks: Any = None
    checkpoint_dir: Any = None
    checkpoint_epochs: int | None = 1
    checkpoint_minutes: float | None = None
    # The machine.
    dtype: Any = "float32"
    n_jobs: int | None = None
    random_state: Any = None
    verbose: int = 0
