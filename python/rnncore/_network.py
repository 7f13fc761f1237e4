"""From checked parameters and a problem to a network with its first weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import _core, init
from rnncore._problem import Problem
from rnncore._recurrent import cell_name
from rnncore._validate import Array, plain_array

# Sequences at a time where nothing is learned. Results do not depend on it: large enough that every
# thread has rows for a full tile.
EVALUATION_BATCH = 256


def network_config(options: dict[str, Any], problem: Problem, cell: str) -> dict[str, Any]:
    """Return the arguments of `_core.Network`, all of them values that JSON can hold."""
    sizes, kind = options["hidden_sizes"], problem.input
    if kind.kind == "dense":
        width = kind.n_features
    elif kind.kind == "one-hot":
        width = 1
    else:
        width = options["embedding_dim"] or sizes[-1 if options["tie_embedding"] else 0]
    passed = (
        "bidirectional",
        "freeze_embedding",
        "tie_embedding",
        "learn_initial_state",
        "dropout",
        "input_dropout",
        "output_dropout",
        "locked_dropout",
        "huber_delta",
        "dtype",
    )
    return {
        "cell": cell_name(cell, options.get("nonlinearity"), options.get("residual", False)),
        "input": kind.kind,
        "input_size": width,
        "hidden_sizes": list(sizes),
        "output": problem.output,
        "n_outputs": problem.n_outputs,
        "loss": problem.loss,
        "vocabulary_size": kind.vocabulary_size or None,
        "masked_id": kind.masked_id,
        **{name: options[name] for name in passed},
    }


def new_network(config: dict[str, Any]) -> _core.Network:
    """Build a network; its weights are still to be set."""
    try:
        return _core.Network(**config)
    except MemoryError as error:
        sizes = f"hidden sizes {', '.join(map(str, config['hidden_sizes']))}"
        if config["vocabulary_size"] is not None:
            sizes += f", vocabulary_size {config['vocabulary_size']} (above every id in X)"
        raise MemoryError(f"{error}: {sizes}") from None


def initial_weights(
    network: _core.Network, options: dict[str, Any], rng: np.random.Generator
) -> dict[str, Array]:
    """Draw weights by the checked `options`, but take the vectors of ids that they give."""
    weights = init.draw(
        options["init"],
        network.parameter_shapes(),
        rng,
        options["dtype"],
        forget_bias=options["forget_bias"],
    )
    if isinstance(options["embedding"], np.ndarray):
        weights["embedding.weight"] = plain_array(options["embedding"], options["dtype"])
    return weights
