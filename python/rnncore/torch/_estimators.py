"""Fitted estimators as a `Network`, and a `Network` as what makes a fitted estimator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from torch import nn

from rnncore._recurrent import cell_options
from rnncore._validate import Array, describe
from rnncore.torch import _layers
from rnncore.torch._network import Network
from rnncore.torch._pieces import width_of

if TYPE_CHECKING:
    from rnncore._problem import Problem


def to_network(
    kind: str, config: dict[str, Any], problem: Problem, arrays: dict[str, Array]
) -> Network:
    """Build what `_core.Network(**config)` computes, with its weights; `arrays` become those.

    `kind` is "RNN", "LSTM" or "GRU".
    """
    dtype, width = config["dtype"], config["input_size"]
    if config["input"] == "one-hot":
        width = config["vocabulary_size"]
    rnn = _recurrent_modules(kind, config, width)
    seen = width_of(rnn[-1] if isinstance(rnn, list) else rnn)
    empty: dict[str, Any] = {"device": "meta", "dtype": _layers.DTYPES[dtype]}
    embedding: Any = "one-hot" if config["input"] == "one-hot" else None
    if config["input"] == "embedding":
        embedding = nn.Embedding(config["vocabulary_size"], width, config["masked_id"], **empty)
    network = Network(
        rnn,
        nn.Linear(seen, config["n_outputs"], **empty),
        embedding,
        output=problem.output,
        task=problem.task,
        loss=problem.loss,
        ids_per_step=problem.input.ids_per_step or 1,
        dropout=config["dropout"] if isinstance(rnn, list) else 0.0,
        input_dropout=config["input_dropout"],
        output_dropout=config["output_dropout"],
        locked_dropout=config["locked_dropout"],
        learn_initial_state=config["learn_initial_state"],
    )
    network._problem = problem
    tied = config["tie_embedding"]
    for place in _places(network, tied):
        parts = [arrays[name] for name in place.names]
        array = np.stack(parts) if place.is_stacked else parts[0]
        setattr(place.module, place.attribute, nn.Parameter(torch.from_numpy(array)))
    if tied:
        network.head.weight = embedding.weight
    if config["freeze_embedding"] and network.embedding is not None:
        embedding.weight.requires_grad_(False)
    return network.eval()


def _recurrent_modules(kind: str, config: dict[str, Any], width: int) -> Any:
    """Return the stack as one module, or as a list with one a layer where it takes several."""
    options: dict[str, Any] = {"bidirectional": config["bidirectional"], "batch_first": True}
    if kind == "RNN":
        options["nonlinearity"], residual = cell_options(config["cell"])
        _layers.check_options({**options, "residual": residual})
    sizes = config["hidden_sizes"]
    dropout = config["dropout"] if len(sizes) > 1 else 0.0

    def layers(width: int, size: int, count: int, dropout: float) -> Any:
        return _layers.new_module(
            kind,
            dtype=config["dtype"],
            input_size=width,
            hidden_size=size,
            num_layers=count,
            dropout=dropout,
            **options,
        )

    if len(set(sizes)) == 1 and not (config["locked_dropout"] and dropout):
        return layers(width, sizes[0], len(sizes), dropout)
    found: list[Any] = []
    for size in sizes:
        found.append(layers(width, size, 1, 0.0))
        width = width_of(found[-1])
    return found


class _Place(NamedTuple):
    """A parameter of a network, and what the estimators call it, or its rows."""

    names: list[str]
    module: nn.Module
    attribute: str
    is_stacked: bool = False


def _places(network: Network, tied: bool) -> Iterator[_Place]:
    if network.embedding is not None:
        yield _Place(["embedding.weight"], network.embedding, "weight")
    first = 0
    for index, module in enumerate(network.layers()):
        suffixes = ("", "_reverse") if module.bidirectional else ("",)
        ends = [f"_l{j}{suffix}" for j in range(module.num_layers) for suffix in suffixes]
        ours = [f"_l{first + j}{suffix}" for j in range(module.num_layers) for suffix in suffixes]
        for our, end in zip(ours, ends, strict=True):
            for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                yield _Place([f"rnn.{what}{our}"], module, f"{what}{end}")
        for what, states in (("h0", network.h0), ("c0", network.c0)):
            if states is not None:
                yield _Place([f"rnn.{what}{our}" for our in ours], states, str(index), True)
        first += module.num_layers
    if not tied:
        yield _Place(["head.weight"], network.head, "weight")
    yield _Place(["head.bias"], network.head, "bias")


class Found(NamedTuple):
    """What a network says of the estimator that computes the same.

    parameters : arguments of the constructor
    problem : what inputs and outputs mean
    weights : by the estimators' names, in memory of the network's where that is the CPU's
    """

    parameters: dict[str, Any]
    problem: Problem
    weights: dict[str, Array]


def read_network(network: object, kind: str) -> Found:
    """Read a network whose layers are all of a `kind`, "RNN", "LSTM" or "GRU"."""
    if not isinstance(network, Network):
        raise TypeError(
            "network: expected a rnncore.torch.Network, as Network(rnn, head, embedding) makes of "
            f"modules of torch, got {describe(network)}"
        )
    _layers.check_forward("network", network, Network)
    modules = network.layers()
    for index, module in enumerate(modules):
        name = "network.rnn" if len(modules) == 1 else f"network.rnn[{index}]"
        _layers.check_module(name, module, kind)
        if module.proj_size:
            raise ValueError(f"{name}: expected proj_size 0, got {module.proj_size}")
    _layers.check_module("network.head", network.head, "Linear")
    _check_embedding(network)
    dtype = _layers.dtype_of("network", network.parameters())
    known = network._problem
    problem = replace(known, input=replace(known.input, dtype=dtype))
    embedding = network.embedding
    # What a classifier shares, its estimator has twice.
    of_language = known.task == "language_model"
    tied = of_language and embedding is not None and network.head.weight is embedding.weight
    weights: dict[str, Array] = {}
    for place in _places(network, tied):
        value = getattr(place.module, place.attribute, None)
        if value is None:  # a bias that is left out
            weights[place.names[0]] = _no_bias(place, dtype)
            continue
        array = _layers.array_of(f"network: {place.names[0]}", value)
        weights.update(zip(place.names, array if place.is_stacked else [array], strict=True))
    masked = None if embedding is None else embedding.padding_idx
    if masked is not None and weights["embedding.weight"][masked].any():
        raise ValueError(
            f"network.embedding: expected zeros as the vector of padding_idx {masked}, "
            "which stands for nothing, got others"
        )
    problem = _in_order(problem, weights)
    return Found(_parameters(network, modules, problem, tied), problem, weights)


def _check_embedding(network: Network) -> None:
    embedding = network.embedding
    if embedding is None:
        return
    _layers.check_module("network.embedding", embedding, "Embedding")
    if embedding.max_norm is not None:
        raise ValueError(f"network.embedding: expected max_norm None, got {embedding.max_norm}")


def _no_bias(place: _Place, dtype: str) -> Array:
    module: Any = place.module
    if isinstance(module, nn.Linear):
        return np.zeros(module.out_features, dtype)
    return np.zeros(len(getattr(module, place.attribute.replace("bias", "weight"))), dtype)


def _in_order(problem: Problem, weights: dict[str, Array]) -> Problem:
    """Sort the classes, as the estimators have them, and the outputs with them."""
    classes = problem.classes
    if classes is None or not problem.single:
        return problem
    order = np.argsort(classes, kind="stable")
    if (order == np.arange(len(order))).all():
        return problem
    for name in ("head.weight", "head.bias"):
        if problem.loss == "cross_entropy":
            weights[name] = weights[name][order]
        else:
            weights[name] = -weights[name]  # the logit of the other of two classes
    return replace(problem, classes=classes[order])


def _parameters(
    network: Network, modules: list[Any], problem: Problem, tied: bool
) -> dict[str, Any]:
    """Return the arguments of an estimator's constructor that a network has a say in."""
    sizes = [module.hidden_size for module in modules for _ in range(module.num_layers)]
    same = len(set(sizes)) == 1
    kind = problem.input
    found: dict[str, Any] = {
        "hidden_size": sizes[0] if same else tuple(sizes),
        "num_layers": len(sizes) if same else None,
        "bidirectional": modules[0].bidirectional,
        "task": problem.task,
        "output": problem.output,
        "loss": problem.loss,
        "padding_value": kind.padding_value,
        "padding_side": "left" if kind.left else "right",
        "learn_initial_state": network.h0 is not None,
        "dropout": _rate_between(network, modules),
        "input_dropout": _rate("input_dropout", network.input_dropout),
        "output_dropout": _rate("output_dropout", network.output_dropout),
        "locked_dropout": network.locked_dropout,
        "dtype": kind.dtype,
    }
    if isinstance(modules[0], nn.RNN):
        found["nonlinearity"] = modules[0].nonlinearity
    if kind.kind == "one-hot":
        found["embedding"] = "one-hot"
    if network.embedding is not None:
        found["embedding_dim"] = network.embedding.embedding_dim
        found["masked_id"] = kind.masked_id
        found["freeze_embedding"] = not network.embedding.weight.requires_grad
        found["tie_embedding"] = tied
    if kind.vocabulary is not None:
        found["vocabulary"] = clone(kind.vocabulary)
    elif kind.kind != "dense":
        found["vocabulary_size"] = kind.vocabulary_size
    return found


def _rate_between(network: Network, modules: list[Any]) -> float:
    """Return the rate of dropout between layers, which is one in an estimator."""
    rates = {float(module.dropout) for module in modules if module.num_layers > 1}
    if len(modules) > 1:
        rates.add(_rate("dropout", network.dropout))
    if len(rates) > 1:
        listed = " and ".join(map(str, sorted(rates)))
        raise ValueError(f"network: expected one rate of dropout between layers, got {listed}")
    return rates.pop() if rates else 0.0


def _rate(name: str, module: object) -> float:
    if not isinstance(module, nn.Dropout):
        raise TypeError(f"network.{name}: expected a torch.nn.Dropout, got {describe(module)}")
    return float(module.p)
