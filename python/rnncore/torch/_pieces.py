"""The pieces of a `Network`: whether they fit together, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from rnncore._targets import label_array
from rnncore._validate import Array, choice, describe

if TYPE_CHECKING:
    from rnncore._problem import Problem

_LAYERS = (nn.RNN, nn.LSTM, nn.GRU)


def checked_layers(rnn: object) -> list[Any]:
    """Return the recurrent modules, if one can stand over the other."""
    listed = [rnn] if isinstance(rnn, nn.Module) and not isinstance(rnn, nn.ModuleList) else rnn
    if not isinstance(listed, list | tuple | nn.ModuleList) or not len(listed):
        raise TypeError(
            f"rnn: expected a torch.nn.RNN, LSTM or GRU, or a list of them, got {describe(rnn)}"
        )
    names = ["rnn"] if listed[0] is rnn else [f"rnn[{index}]" for index in range(len(listed))]
    modules: list[Any] = list(listed)
    below = None
    for name, module in zip(names, modules, strict=True):
        if not isinstance(module, _LAYERS):
            raise TypeError(f"{name}: expected a torch.nn.RNN, LSTM or GRU, got {describe(module)}")
        if below is None:
            below = module
            continue
        if module.mode != below.mode:
            raise TypeError(f"{name}: expected one like that below, {below}, got {module}")
        if module.bidirectional != below.bidirectional:
            raise ValueError(
                f"{name}: expected bidirectional={below.bidirectional} as below, "
                f"got {module.bidirectional}"
            )
        if module.input_size != width_of(below):
            raise ValueError(
                f"{name}: expected input_size {width_of(below)}, the outputs of the module below, "
                f"got {module.input_size}"
            )
        below = module
    return modules


def width_of(module: Any) -> int:
    """Return how many numbers a recurrent module gives for a step."""
    return int((module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1))


def check_ends(modules: list[Any], head: object, embedding: object) -> None:
    """Check that these stand over and under the recurrent modules."""
    if not isinstance(head, nn.Linear):
        raise TypeError(f"head: expected a torch.nn.Linear, got {describe(head)}")
    if head.in_features != width_of(modules[-1]):
        raise ValueError(
            f"head: expected in_features {width_of(modules[-1])}, the outputs of the last layer, "
            f"got {head.in_features}"
        )
    if isinstance(embedding, nn.Embedding):
        if embedding.embedding_dim != modules[0].input_size:
            raise ValueError(
                f"embedding: expected embedding_dim {modules[0].input_size}, the input_size of "
                f"rnn, got {embedding.embedding_dim}"
            )
    elif embedding is not None and not (isinstance(embedding, str) and embedding == "one-hot"):
        raise TypeError(
            "embedding: expected a torch.nn.Embedding, 'one-hot' or None, "
            f"got {describe(embedding)}"
        )


def problem(
    modules: list[Any],
    head: nn.Linear,
    embedding: object,
    *,
    output: str,
    task: str,
    loss: str,
    classes: object,
    ids_per_step: int,
) -> Problem:
    """Return what inputs and outputs mean."""
    # These need scikit-learn, which is slow to import.
    from rnncore._input import Input
    from rnncore._options import LOSSES
    from rnncore._problem import Problem

    task = choice("task", task, tuple(LOSSES))
    output = choice("output", output, ("auto", "last", "mean", "max", "sequence"))
    is_model = task == "language_model"
    outputs = head.out_features
    if isinstance(embedding, nn.Embedding):
        kind, size, masked = "embedding", embedding.num_embeddings, embedding.padding_idx
    elif embedding is None:
        kind, size, masked = "dense", 0, None
    else:
        kind, size, masked = "one-hot", modules[0].input_size, None
    if kind != "embedding" and ids_per_step != 1:
        raise ValueError(f"ids_per_step: expected 1 without an embedding, got {ids_per_step}")
    if is_model:
        for name, fits, expected, got in (
            ("embedding", kind != "dense", "a torch.nn.Embedding or 'one-hot'", "None"),
            ("ids_per_step", ids_per_step == 1, "1", ids_per_step),
            ("output", output in ("auto", "sequence"), "'sequence'", repr(output)),
            ("rnn", not modules[0].bidirectional, "bidirectional=False", "True"),
            ("head", outputs == size, f"out_features {size}, one for each id", outputs),
        ):
            if not fits:
                raise ValueError(f"{name}: expected {expected} for a language model, got {got}")
    if loss == "auto":
        loss = LOSSES[task][task == "classification" and outputs == 1]
    loss = choice("loss", loss, LOSSES[task])
    if task == "classification" and loss == "cross_entropy" and outputs == 1:
        raise ValueError(
            "loss: expected 'binary_cross_entropy' for a head with one output, got 'cross_entropy'"
        )
    # Several labels at once are told from two classes by their number, and by their names.
    single = outputs == 1 if loss != "cross_entropy" else True
    labels = None
    if task == "classification":
        labels = _labels(classes, 2 if single and loss != "cross_entropy" else outputs)
        if classes is not None and not single:
            raise ValueError(
                f"classes: expected None for several labels at once, got {describe(classes)}"
            )
    elif classes is not None:
        raise ValueError(f"classes: expected None for {task}, got {describe(classes)}")
    found = Input(
        kind=kind,
        n_features=modules[0].input_size if kind == "dense" else 0,
        vocabulary_size=size,
        ids_per_step=0 if kind == "dense" else ids_per_step,
        masked_id=masked,
        vocabulary=None,
        may_be_stream=is_model,
        padding_value=None,
        left=False,
        dtype="float32",  # or what the weights have when they are read
    )
    return Problem(
        input=found,
        task=task,
        output=output.replace("auto", "sequence" if is_model else "last"),
        loss=loss,
        classes=labels,
        n_outputs=outputs,
        single=single,
    )


def _labels(classes: object, count: int) -> Array:
    if classes is None:
        return np.arange(count)
    labels = label_array("classes", classes)
    if labels.shape != (count,):
        raise ValueError(
            f"classes: expected {count} labels, one for each output, got {describe(labels)}"
        )
    if len(np.unique(labels)) != count:
        raise ValueError(f"classes: expected labels that differ, got {labels.tolist()}")
    return labels
