"""The parameters of the estimators: what each may be, and what other libraries call it."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np

from rnncore import optim
from rnncore._validate import boolean, choice, dtype_name, generator, integer, real

# Words of other libraries, and what they are called here.
_WORDS_HERE = {
    **dict.fromkeys(("units", "hidden_dim", "hidden_units", "n_hidden", "n_units"), "hidden_size"),
    **dict.fromkeys(("layers", "n_layers", "n_rnn_layers"), "num_layers"),
    **dict.fromkeys(("lr", "learning_rate_init", "eta", "step_size"), "learning_rate"),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_iter"), "max_epochs"),
    **dict.fromkeys(("solver", "optim"), "optimizer"),
    **dict.fromkeys(("alpha", "l2", "decay"), "weight_decay"),
    **dict.fromkeys(("clipnorm", "max_grad_norm", "max_norm"), "clip_norm"),
    **dict.fromkeys(("seed", "random_seed"), "random_state"),
    **dict.fromkeys(("threads", "n_threads", "num_threads"), "n_jobs"),
    **dict.fromkeys(("vocab_size", "num_embeddings"), "vocabulary_size"),
    **dict.fromkeys(("embedding_size", "output_dim"), "embedding_dim"),
    **dict.fromkeys(("mask_value", "padding_idx", "pad_value"), "padding_value"),
    "clipvalue": "clip_value",
    "return_sequences": "output",
    "activation": "nonlinearity",
}


def _or_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _learning_rate(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return choice(name, value, ("auto",))
    return real(name, value, 0.0, open_minimum=True)


def _padding_value(name: str, value: Any) -> float:
    if isinstance(value, float | np.floating) and np.isnan(value):
        return float(value)
    return real(name, value)


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
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "hidden_size": partial(integer, minimum=1),
    "nonlinearity": partial(choice, options=("tanh", "relu")),
    "num_layers": partial(integer, minimum=1),
    "bidirectional": boolean,
    "dropout": partial(real, minimum=0.0, maximum=1.0, open_maximum=True),
    "task": partial(choice, options=("auto", "classification", "regression")),
    "output": partial(choice, options=("auto", "last", "sequence")),
    "embedding": _or_none(partial(choice, options=("one-hot",))),
    "embedding_dim": _or_none(partial(integer, minimum=1)),
    "vocabulary_size": _or_none(partial(integer, minimum=1)),
    "padding_value": _or_none(_padding_value),
    "optimizer": partial(choice, options=("adam", "sgd")),
    "learning_rate": _learning_rate,
    "momentum": partial(real, minimum=0.0),
    "nesterov": boolean,
    "weight_decay": partial(real, minimum=0.0),
    "clip_norm": _or_none(_positive),
    "clip_value": _or_none(_positive),
    "max_epochs": partial(integer, minimum=1),
    "batch_size": partial(integer, minimum=1),
    "shuffle": boolean,
    "bucket_by_length": boolean,
    "dtype": dtype_name,
    "n_jobs": _or_none(_n_jobs),
    "random_state": generator,
    "verbose": _verbose,
}


# What "auto" stands for, by optimizer and by whether the cell has gates: measured over 30 seeds on
# short series (speakers, digits, sums), and on sentences with embeddings.
_LEARNING_RATES = {
    ("adam", True): 0.01,
    ("adam", False): 0.005,
    ("sgd", True): 0.1,
    ("sgd", False): 0.02,
}


def check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return every parameter in the type that `fit` works with, or raise for one that is wrong."""
    options = {name: CHECKS[name](name, value) for name, value in parameters.items()}
    if options["embedding"] and options["embedding_dim"] is not None:
        raise ValueError(
            f"embedding_dim: expected None with embedding='one-hot', got {options['embedding_dim']}"
        )
    ids = options["embedding"] or options["embedding_dim"]
    if options["vocabulary_size"] is not None and not ids:
        raise ValueError(
            "vocabulary_size: expected None without embedding_dim or embedding='one-hot', "
            f"got {options['vocabulary_size']}"
        )
    if options["nesterov"] and options["optimizer"] != "sgd":
        raise ValueError(
            f"nesterov: expected False with optimizer={options['optimizer']!r}, got True"
        )
    if options["dropout"] and options["num_layers"] == 1:
        warnings.warn(
            "dropout acts between layers: with num_layers=1 it does nothing", stacklevel=3
        )
    return options


def new_optimizer(options: dict[str, Any], gated: bool) -> optim.Optimizer:
    """Build the optimizer that checked parameters describe, for a `gated` cell or a plain one."""
    names = ("learning_rate", "weight_decay", "clip_norm", "clip_value")
    common = {name: options[name] for name in names}
    if common["learning_rate"] == "auto":
        common["learning_rate"] = _LEARNING_RATES[options["optimizer"], gated]
    if options["optimizer"] == "adam":
        return optim.Adam(**common)
    return optim.SGD(**common, momentum=options["momentum"], nesterov=options["nesterov"])


class WordsHere:
    """Answers an argument of another library's name with the name it has here."""

    def __new__(cls, *args: object, **arguments: object) -> Self:
        known = cls._get_param_names()  # type: ignore[attr-defined]
        for name in arguments:
            if name in known:
                continue
            word = _WORDS_HERE.get(name)
            if word not in known:
                word = next(iter(difflib.get_close_matches(name, known, n=1)), None)
            hint = f"expected {word!r}" if word else f"expected some of {', '.join(known)}"
            raise TypeError(f"{cls.__name__}: {hint}, got the unknown argument {name!r}")
        return super().__new__(cls)
