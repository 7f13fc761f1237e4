"""The parameters of the estimators: what each may be, and which go together."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from rnncore import init, optim
from rnncore._callbacks import as_callbacks
from rnncore._parameters import Parameters
from rnncore._recurrent import NONLINEARITIES
from rnncore._threads import threads_for
from rnncore._validate import (
    Array,
    as_array,
    boolean,
    choice,
    describe,
    dtype_name,
    file_path,
    generator,
    integer,
    real,
)
from rnncore.schedules import as_schedule

_Check = Callable[[str, Any], Any]

# Steps that a stream of a language model is trained on at a time, unless `bptt_steps` says.
STREAM_BPTT_STEPS = 64


def _or_none(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _hidden_size(name: str, value: Any) -> int | tuple[int, ...]:
    if not isinstance(value, list | tuple):
        return integer(name, value, 1, also=" or a tuple of such")
    if not value:
        raise ValueError(f"{name}: expected the size of at least one layer, got {value!r}")
    return tuple(integer(f"{name}[{index}]", size, 1) for index, size in enumerate(value))


def _class_weight(name: str, value: Any) -> Mapping[Any, float] | str:
    if isinstance(value, str) and value == "balanced":
        return value
    if not isinstance(value, Mapping):
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(
            f"{name}: expected None, 'balanced' or a dict of weights by class, "
            f"got {describe(value)}"
        )
    return {label: real(f"{name}[{label!r}]", weight, 0.0) for label, weight in value.items()}


def _embedding(name: str, value: Any) -> str | Array:
    if isinstance(value, str) and value == "one-hot":
        return value
    array = as_array(name, value)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name}: expected None, 'one-hot' or an array (vocabulary_size, embedding_dim), "
            f"got {describe(value)}"
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"{name}: expected finite numbers, got others in row {row}")
    return array


def _vocabulary(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return choice(name, value, ("auto", "word", "char"))
    from rnncore.text import Vocabulary

    if not isinstance(value, Vocabulary):
        raise TypeError(
            f"{name}: expected 'auto', 'word', 'char' or a rnncore.text.Vocabulary, "
            f"got {describe(value)}"
        )
    return value


def _padding_value(name: str, value: Any) -> float:
    if isinstance(value, float | np.floating) and np.isnan(value):
        return float(value)
    return real(name, value, also=" or NaN")


def _optimizer(name: str, value: Any) -> Any:
    if isinstance(value, optim.Optimizer):
        return value
    if not isinstance(value, str):
        listed = ", ".join(map(repr, _RULES))
        raise TypeError(
            f"{name}: expected one of {listed}, or an object of rnncore.optim, "
            f"got {describe(value)}"
        )
    return choice(name, value, tuple(_RULES))


def _or_auto(name: str, value: Any, *, open_minimum: bool) -> Any:
    if isinstance(value, str):
        if value != "auto":
            above = ">" if open_minimum else ">="
            raise ValueError(f"{name}: expected 'auto' or a finite number {above} 0, got {value!r}")
        return value
    return real(name, value, 0.0, open_minimum=open_minimum, also=" or 'auto'")


def _bptt_steps(name: str, value: Any) -> int | tuple[int, int]:
    if not isinstance(value, list | tuple):
        return integer(name, value, 1, also=" or a pair (k1, k2)")
    if len(value) != 2:
        raise ValueError(f"{name}: expected an integer or a pair (k1, k2), got {value!r}")
    block = integer(f"{name}[0]", value[0], 1)
    window = integer(f"{name}[1]", value[1], 0)
    if window < block - 1:
        raise ValueError(
            f"{name}: expected (k1, k2) with k2 >= k1 - 1, a window over all {block} steps of a "
            f"block, got {(block, window)}"
        )
    return block, window


def _folder(name: str, value: Any) -> str:
    return file_path(name, value, "folder")


def _n_jobs(name: str, value: Any) -> int:
    jobs = integer(name, value, -1)
    if jobs == 0:
        raise ValueError(f"{name}: expected an integer >= 1, -1 for all CPUs, or None, got 0")
    if jobs > 0:
        return jobs
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _verbose(name: str, value: Any) -> int:
    return int(value) if isinstance(value, bool) else integer(name, value, 0, 2)


_positive = partial(real, minimum=0.0, open_minimum=True)
_count = partial(integer, minimum=1)
_rate = partial(real, minimum=0.0, maximum=1.0, open_maximum=True)
_TASKS = ("auto", "classification", "regression", "language_model")
_OUTPUTS = ("auto", "last", "mean", "max", "sequence")
# The losses of each task, that of "auto" first.
LOSSES = {
    "classification": ("cross_entropy", "binary_cross_entropy"),
    "regression": ("squared_error", "absolute_error", "huber"),
    "language_model": ("cross_entropy",),
}
_RULES: dict[str, Any] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "sgd": optim.SGD,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
}

CHECKS: dict[str, _Check] = {
    "hidden_size": _hidden_size,
    "num_layers": _or_none(_count),
    "bidirectional": boolean,
    "nonlinearity": partial(choice, options=NONLINEARITIES),
    "residual": boolean,
    "task": partial(choice, options=_TASKS),
    "output": partial(choice, options=_OUTPUTS),
    "loss": partial(choice, options=("auto", *sum(LOSSES.values(), ())[:-1])),
    "huber_delta": _positive,
    "class_weight": _or_none(_class_weight),
    "embedding": _or_none(_embedding),
    "embedding_dim": _or_none(_count),
    "freeze_embedding": boolean,
    "tie_embedding": boolean,
    "vocabulary": _vocabulary,
    "vocabulary_size": _or_none(_count),
    "masked_id": _or_none(partial(integer, minimum=0)),
    "padding_value": _or_none(_padding_value),
    "padding_side": partial(choice, options=("right", "left")),
    "init": partial(choice, options=init.WAYS),
    "forget_bias": _or_none(real),
    "learn_initial_state": boolean,
    "dropout": _rate,
    "input_dropout": _rate,
    "output_dropout": _rate,
    "locked_dropout": boolean,
    "optimizer": _optimizer,
    "learning_rate": partial(_or_auto, open_minimum=True),
    "momentum": partial(real, minimum=0.0),
    "nesterov": boolean,
    "weight_decay": partial(_or_auto, open_minimum=False),
    "l1": partial(real, minimum=0.0),
    "clip_norm": _or_none(_positive),
    "clip_value": _or_none(_positive),
    "lr_schedule": as_schedule,
    "max_epochs": _count,
    "batch_size": _count,
    "accumulate_batches": _count,
    "shuffle": boolean,
    "bucket_by_length": boolean,
    "bptt_steps": _or_none(_bptt_steps),
    "checkpoint_time": boolean,
    "early_stopping": boolean,
    "validation_fraction": partial(
        real, minimum=0.0, maximum=1.0, open_minimum=True, open_maximum=True
    ),
    "n_iter_no_change": _count,
    "tol": partial(real, minimum=0.0),
    "restore_best": boolean,
    "warm_start": boolean,
    "callbacks": as_callbacks,
    "checkpoint_dir": _or_none(_folder),
    "checkpoint_epochs": _or_none(_count),
    "checkpoint_minutes": _or_none(_positive),
    "dtype": dtype_name,
    "n_jobs": _or_none(_n_jobs),
    "random_state": generator,
    "verbose": _verbose,
}

# What "auto" stands for, by optimizer, with gates in the cell and without: measured on short series
# (speakers, digits, sums) and on sentences with embeddings, 30 times for Adam and SGD and 3 times
# for the others.
_LEARNING_RATES = {
    "adam": (0.01, 0.005),
    "adamw": (0.01, 0.005),
    "sgd": (0.1, 0.02),
    "rmsprop": (0.005, 0.003),
    "adagrad": (0.1, 0.05),
}

# What an optimizer that is given as an object brings along.
_OF_THE_OPTIMIZER = (
    "learning_rate",
    "momentum",
    "nesterov",
    "weight_decay",
    "l1",
    "clip_norm",
    "clip_value",
)
# What ids have no use for when they have no vectors.
_OF_VECTORS = ("embedding_dim", "freeze_embedding", "tie_embedding", "masked_id", "input_dropout")
_DEFAULTS = {field.name: field.default for field in fields(Parameters)}


# What stands for the defaults, but of those that give each fit something of its own. (Of fifty
# parameters few are set. After the kernels have filled the caches, code that has not run for a
# while takes ten times as long.)
_CHECKED_DEFAULTS = {
    name: CHECKS[name](name, value)
    for name, value in _DEFAULTS.items()
    if name not in ("callbacks", "random_state")
}


def check_each(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return every parameter in the type that it is to have, whatever the others are."""
    return {
        name: _CHECKED_DEFAULTS[name]
        if name in _CHECKED_DEFAULTS and value is _DEFAULTS[name]
        else CHECKS[name](name, value)
        for name, value in parameters.items()
    }


def check_parameters(parameters: dict[str, Any], cell: str) -> dict[str, Any]:
    """Return every parameter in the type that `fit` works with, or raise for one that is wrong.

    Beside them comes "hidden_sizes", the size of every layer. `cell` is "rnn", "lstm" or "gru".
    """
    options = check_each(parameters)
    options["n_jobs"] = threads_for(options["n_jobs"])
    options["hidden_sizes"] = _hidden_sizes(options["hidden_size"], options["num_layers"])
    for name in ("embedding", "forget_bias"):
        _check_size(name, options[name], options["dtype"])
    _check_embedding(options)
    _check_task(options)
    _check_optimizer(options)
    if options["bidirectional"] and options["bptt_steps"] is not None:
        raise ValueError(
            "bptt_steps: expected None with bidirectional=True, which needs the whole sequence, "
            f"got {options['bptt_steps']}"
        )
    _check_checkpoint_time(options)
    if options["checkpoint_dir"] is not None and (
        options["checkpoint_epochs"] is None and options["checkpoint_minutes"] is None
    ):
        raise ValueError(
            "checkpoint_epochs: expected a number of epochs, or of checkpoint_minutes, beside "
            "checkpoint_dir, got None"
        )
    if cell != "lstm" and options["forget_bias"] is not None:
        raise ValueError(
            "forget_bias: expected None but for an LSTM, the one with a forget gate, "
            f"got {options['forget_bias']:g}"
        )
    if options["dropout"] and len(options["hidden_sizes"]) == 1:
        warnings.warn(
            "dropout acts between layers: with one layer it does nothing; "
            "see input_dropout and output_dropout",
            stacklevel=4,
        )
    return options


def _check_checkpoint_time(options: dict[str, Any]) -> None:
    if not options["checkpoint_time"]:
        return
    if options["bidirectional"]:
        raise ValueError(
            "checkpoint_time: expected False with bidirectional=True, where each layer needs the "
            "whole sequence from the one beneath it, got True"
        )
    if isinstance(options["bptt_steps"], tuple):
        raise ValueError(
            "checkpoint_time: expected False with a pair of bptt_steps, which keeps "
            f"{options['bptt_steps'][1] + 1} steps as it is, got True"
        )


def _hidden_sizes(hidden_size: int | tuple[int, ...], num_layers: int | None) -> tuple[int, ...]:
    if isinstance(hidden_size, int):
        return (hidden_size,) * (num_layers or 1)
    if num_layers not in (None, len(hidden_size)):
        raise ValueError(
            f"num_layers: expected None or {len(hidden_size)}, since hidden_size has as many "
            f"sizes, got {num_layers}"
        )
    return hidden_size


def _check_size(name: str, value: Any, dtype: str) -> None:
    """Check that finite numbers are finite in `dtype` too."""
    if value is None or isinstance(value, str):
        return
    largest = np.abs(value).max()
    if largest > np.finfo(dtype).max:
        raise ValueError(f"{name}: expected numbers that fit {dtype}, got {largest:g}")


def _check_embedding(options: dict[str, Any]) -> None:
    embedding, width, size = (
        options[name] for name in ("embedding", "embedding_dim", "vocabulary_size")
    )
    if isinstance(embedding, str):
        for name in _OF_VECTORS:
            if options[name] != _DEFAULTS[name]:
                raise ValueError(
                    f"{name}: expected {_DEFAULTS[name]} with embedding='one-hot', "
                    f"got {options[name]}"
                )
    elif embedding is not None:
        for name, value, found in (
            ("vocabulary_size", size, embedding.shape[0]),
            ("embedding_dim", width, embedding.shape[1]),
        ):
            if value not in (None, found):
                raise ValueError(f"{name}: expected None or {found}, as embedding has, got {value}")
        options["embedding_dim"] = embedding.shape[1]


def _check_task(options: dict[str, Any]) -> None:
    task, loss = options["task"], options["loss"]
    if task != "auto" and loss not in ("auto", *LOSSES[task]):
        listed = ", ".join(map(repr, ("auto", *LOSSES[task])))
        raise ValueError(f"loss: expected one of {listed} for {task}, got {loss!r}")
    if task == "language_model":
        for name, value, why in (
            ("output", "sequence", ", which predicts at every step"),
            ("bidirectional", False, ", whose steps may not see those after them"),
            ("class_weight", None, ""),
        ):
            if options[name] not in (value, _DEFAULTS[name]):
                raise ValueError(
                    f"{name}: expected {value!r} for a language model{why}, got {options[name]!r}"
                )
    if options["tie_embedding"]:
        if task != "language_model":
            raise ValueError("tie_embedding: expected False unless task='language_model', got True")
        if options["freeze_embedding"]:
            raise ValueError("freeze_embedding: expected False with tie_embedding=True, got True")
        last = options["hidden_sizes"][-1]
        if options["embedding_dim"] not in (None, last):
            raise ValueError(
                f"embedding_dim: expected {last} with tie_embedding=True, the size of the last "
                f"layer, got {options['embedding_dim']}"
            )


def _check_optimizer(options: dict[str, Any]) -> None:
    optimizer = options["optimizer"]
    if isinstance(optimizer, optim.Optimizer):
        for name in _OF_THE_OPTIMIZER:
            if options[name] != _DEFAULTS[name]:
                raise ValueError(
                    f"{name}: expected its default beside an optimizer object, which has its own, "
                    f"got {options[name]!r}"
                )
    elif options["nesterov"] and optimizer != "sgd":
        raise ValueError(f"nesterov: expected False with optimizer={optimizer!r}, got True")


def new_optimizer(options: dict[str, Any], gated: bool) -> optim.Optimizer:
    """Build the optimizer that checked parameters describe, for a `gated` cell or a plain one."""
    rule = options["optimizer"]
    if isinstance(rule, optim.Optimizer):
        return copy.copy(rule)
    names = ("learning_rate", "weight_decay", "l1", "clip_norm", "clip_value")
    chosen = {name: options[name] for name in names}
    if chosen["learning_rate"] == "auto":
        chosen["learning_rate"] = _LEARNING_RATES[rule][0 if gated else 1]
    if chosen["weight_decay"] == "auto":
        del chosen["weight_decay"]  # the rule has its own
    if rule == "sgd":
        chosen |= {name: options[name] for name in ("momentum", "nesterov")}
    optimizer: optim.Optimizer = _RULES[rule](**chosen)
    return optimizer
