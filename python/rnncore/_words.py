"""What other libraries call the arguments of constructors here."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

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
    **dict.fromkeys(("mask_value", "pad_value"), "padding_value"),
    **dict.fromkeys(("validation_data", "validation_set", "X_val"), "eval_set"),
    **dict.fromkeys(("validation_split", "test_size"), "validation_fraction"),
    **dict.fromkeys(("weights", "sample_weights"), "sample_weight"),
    **dict.fromkeys(("scheduler", "schedule", "lr_scheduler"), "lr_schedule"),
    **dict.fromkeys(("patience", "n_iter_no_improvement"), "n_iter_no_change"),
    **dict.fromkeys(("recurrent_initializer", "kernel_initializer", "initializer"), "init"),
    **dict.fromkeys(("truncated_bptt_steps", "bptt", "bptt_truncate"), "bptt_steps"),
    **dict.fromkeys(("gradient_checkpointing", "remat"), "checkpoint_time"),
    "padding_idx": "masked_id",
    "restore_best_weights": "restore_best",
    "criterion": "loss",
    **dict.fromkeys(("gamma", "drop"), "factor"),
    **dict.fromkeys(("eta_min", "min_lr"), "minimum"),
    "T_max": "epochs",
    "betas": "beta1",
    "clipvalue": "clip_value",
    "return_sequences": "output",
    "activation": "nonlinearity",
}


def _word_here(name: str, known: list[str]) -> str | None:
    """Return what is called `name` elsewhere, or was misspelt so, if that is in `known`."""
    word = _WORDS_HERE.get(name)
    if word in known:
        return word
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.7)), None)


@functools.cache
def _parameters_of(method: Callable[..., object]) -> tuple[list[str] | None, list[str] | None]:
    """Return the names of the parameters but self: all, and those that may go by position.

    None stands for any, of a method that hands them on.
    """
    parameters = list(inspect.signature(method).parameters.values())
    kinds = {p.kind for p in parameters}
    in_order = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    known = [p.name for p in parameters][1:]
    return (
        None if inspect.Parameter.VAR_KEYWORD in kinds else known,
        None if inspect.Parameter.VAR_POSITIONAL in kinds else in_order,
    )


def _check_positions(name: str, found: int, in_order: list[str] | None) -> None:
    """Check how many arguments come by position; errors call who takes them `name`."""
    if in_order is not None and found > len(in_order):
        raise TypeError(
            f"{name}: expected {', '.join(in_order) or 'nothing'} by position and the "
            f"rest by name, got {found} arguments by position"
        )


class WordsHere:
    """Answers an argument of another library's name with the name it has here."""

    __slots__ = ()

    def __new__(cls, *args: object, **arguments: object) -> Self:
        known, in_order = _parameters_of(cls.__init__) if args or arguments else ([], [])
        _check_positions(cls.__name__, len(args), in_order)
        for name in arguments:
            if known is None or name in known:
                continue
            word = _word_here(name, known)
            hint = f"expected {word!r}" if word else f"expected some of {', '.join(known)}"
            raise TypeError(f"{cls.__name__}: {hint}, got the unknown argument {name!r}")
        return super().__new__(cls)


def words_here(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method answer arguments that it lacks, but that its class's constructor may have."""
    known, in_order = _parameters_of(method)

    @functools.wraps(method)
    def answering(*args: P.args, **arguments: P.kwargs) -> R:
        _check_positions(f"{type(args[0]).__name__}.{method.__name__}", len(args) - 1, in_order)
        for name in arguments:
            if known is not None and name not in known:
                raise TypeError(_answer(type(args[0]), method.__name__, name, known))
        return method(*args, **arguments)

    return answering


def _answer(cls: type, method: str, name: str, known: list[str]) -> str:
    got = f"got the unknown argument {name!r}"
    constructor = list(inspect.signature(cls).parameters)
    for here, where in ((known, ""), (constructor, f" in the constructor {cls.__name__}(...)")):
        word = name if name in here else _word_here(name, here)
        if word:
            return f"{cls.__name__}.{method}: expected {word!r}{where}, {got}"
    return f"{cls.__name__}.{method}: expected some of {', '.join(known)}, {got}"
