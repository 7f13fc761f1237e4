"""A whole model as one torch module: what the estimators compute, from pieces of torch.

Letters of the shapes: B sequences, T steps, F features, k ids a step, L layers, D directions, H
hidden units, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore._validate import Array, boolean, describe, integer, lengths_array, real
from rnncore.torch import _pieces

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class LockedDropout(nn.Dropout):
    """Dropout that drops the same numbers at all steps of a sequence, (B, T, F)."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers in training."""
        if not self.training or not self.p:
            return x
        return x * nn.functional.dropout(torch.ones_like(x[:, :1]), self.p)


class Network(nn.Module):
    """Embedding, recurrent layers and a linear head: what an estimator computes, in torch.

    ``estimator.to_torch()`` builds one, and the estimators' ``from_torch`` reads one. Build it
    yourself around modules that you trained in torch, to have an estimator of them; they are used
    as they are, weights shared::

        network = rnncore.torch.Network(model.lstm, model.linear, model.embedding, classes=names)
        rnncore.LSTM.from_torch(network).save("model.safetensors")

    Its modules are `embedding`, `rnn` and `head`, and ``state_dict`` has the names that follow from
    that: ``embedding.weight``, ``rnn.weight_ih_l0`` and so on as torch numbers layers,
    ``head.weight``, ``head.bias``; these are the names in an estimator's file too. Where `rnn` is a
    list, as it is for layers of different sizes and for locked dropout between layers, the place in
    it comes first: ``rnn.1.weight_ih_l0``. Learned initial states are ``h0.0`` and, of an LSTM,
    ``c0.0``, by the place in the list.

    Parameters
    ----------
    rnn : torch.nn.RNN, LSTM or GRU, or a list of them
        One over another, all of one class and all bidirectional or none; ``batch_first`` or not.
    head : torch.nn.Linear
        From the last layer's states to the outputs. Where its weight is that of the embedding, the
        two are one parameter.
    embedding : torch.nn.Embedding, "one-hot" or None
        What steps are: ids with vectors; ids without, for which there is a row of zeros and a one;
        or, for None, features. The id ``padding_idx`` stands for nothing.
    output : "auto", "last", "mean", "max" or "sequence"
        What the head sees: the states in which the directions end, their mean or largest number
        over the steps, or those of every step. "auto" is the last, and for a language model every
        one.
    task : "classification", "regression" or "language_model"
    loss : "auto" or one of the estimators' losses
        What the outputs mean, and what training is to minimise: the function of
        ``torch.nn.functional`` by that name (``binary_cross_entropy_with_logits``, ``mse_loss``,
        ``l1_loss``, ``huber_loss``) over the outputs of sequences or real steps. "auto" is
        "cross_entropy" for classes, "binary_cross_entropy" for one output, the logit of the second
        of two classes, and "squared_error" for regression. Several outputs with
        "binary_cross_entropy" are labels that may come together.
    classes : array (n_classes,), optional
        The labels in the order of the outputs. The default is 0, 1, ...
    ids_per_step : int
        How many ids stand for a step; their vectors are added.
    dropout : float
        Rate between the modules of a list; one with several layers has a rate of its own.
    input_dropout, output_dropout : float
        Rates of what the first layer and the head see.
    locked_dropout : bool
        Whether dropout drops the same numbers at all steps of a sequence.
    learn_initial_state : bool
        Whether sequences begin in states that are learned rather than zero.

    Attributes
    ----------
    task, output, loss : str
    classes_ : array (n_classes,) or None
    vocabulary_ : rnncore.text.Vocabulary or None
        What makes ids of the text that the estimator was trained on.

    Raises
    ------
    TypeError, ValueError
        When a piece is something else, or does not fit the others.
    """

    h0: nn.ParameterList | None
    c0: nn.ParameterList | None

    def __init__(
        self,
        rnn: nn.Module | Sequence[nn.Module],
        head: nn.Linear,
        embedding: nn.Embedding | str | None = None,
        *,
        output: str = "auto",
        task: str = "classification",
        loss: str = "auto",
        classes: object = None,
        ids_per_step: int = 1,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        locked_dropout: bool = False,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__()
        modules = _pieces.checked_layers(rnn)
        several = modules[0] is not rnn
        _pieces.check_ends(modules, head, embedding)
        self._problem = _pieces.problem(
            modules,
            head,
            embedding,
            output=output,
            task=task,
            loss=loss,
            classes=classes,
            ids_per_step=integer("ids_per_step", ids_per_step, 1),
        )
        self.locked_dropout = boolean("locked_dropout", locked_dropout)
        if not several and real("dropout", dropout):
            raise ValueError(
                f"dropout: expected 0 beside one module, which has its own, got {dropout}"
            )
        if self.locked_dropout and any(m.dropout and m.num_layers > 1 for m in modules):
            raise ValueError(
                "locked_dropout: expected False with dropout inside a module of several layers, "
                "which draws anew at each step, got True"
            )
        kind = LockedDropout if self.locked_dropout else nn.Dropout
        self.embedding = embedding if isinstance(embedding, nn.Embedding) else None
        self.input_dropout = kind(real("input_dropout", input_dropout, 0.0, 1.0))
        self.rnn = nn.ModuleList(modules) if several else modules[0]
        self.dropout = kind(real("dropout", dropout, 0.0, 1.0)) if several else None
        self.h0 = self.c0 = None
        if boolean("learn_initial_state", learn_initial_state):
            self.h0 = _states(modules, lambda module: module.proj_size or module.hidden_size)
            if isinstance(modules[0], nn.LSTM):
                self.c0 = _states(modules, lambda module: module.hidden_size)
        if self.output != "sequence":
            kind = nn.Dropout
        self.output_dropout = kind(real("output_dropout", output_dropout, 0.0, 1.0))
        self.head = head

    @property
    def task(self) -> str:
        """What it is for: "classification", "regression" or "language_model"."""
        return self._problem.task

    @property
    def output(self) -> str:
        """What the head sees: "last", "mean", "max" or "sequence"."""
        return self._problem.output

    @property
    def loss(self) -> str:
        """What training should minimise."""
        return self._problem.loss

    @property
    def classes_(self) -> Array | None:
        """The labels in the order of the outputs, for classification."""
        return self._problem.classes

    @property
    def vocabulary_(self) -> Any:
        """What makes ids of text, or None."""
        return self._problem.input.vocabulary

    def layers(self) -> list[Any]:
        """Return the recurrent modules, the one that reads the input first."""
        return list(self.rnn) if isinstance(self.rnn, nn.ModuleList) else [self.rnn]

    def forward(self, X: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return the outputs before softmax or sigmoid; for regression the numbers themselves.

        Parameters
        ----------
        X : tensor (B, T, F), or of ids (B, T) or (B, T, k)
        lengths : integers (B,), optional
            Real steps of each sequence, in 0..=T and in any order; what follows them is not read.

        Returns
        -------
        tensor (B, C), or (B, T, C) with an output for each step
            Of steps that are not real, zeros.

        Raises
        ------
        ValueError, TypeError
            When `X` is no tensor or of another type, a shape differs, or a length is out of its
            range.
        """
        counts, is_real = self._real_steps(X, lengths)
        if not X.shape[1]:  # torch's modules want a step
            found: Tensor = self(X.new_zeros(len(X), 1, *X.shape[2:]), [0] * len(X))
            return found[:, :0] if self.output == "sequence" else found
        if is_real is not None:
            # Whatever stands there: ids that there are not, or NaN.
            X = X.masked_fill(~is_real.reshape(*is_real.shape, *[1] * (X.dim() - 2)), 0)
        x = self.input_dropout(self._vectors(X))
        states = self._initial_states(len(X))
        for index, (module, hx) in enumerate(zip(self.layers(), states, strict=True)):
            if index and self.dropout is not None:
                x = self.dropout(x)
            x, h = _run(module, x, counts, hx)
        outputs: Tensor = self.head(self.output_dropout(self._seen(x, h, states[-1], is_real)))
        return self._without_padding(outputs, is_real)

    def predict_proba(self, X: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return the probability of every class, in the order of `classes_`, or of every next id.

        It is `forward` and then softmax, or the sigmoid where labels may come together: dropout
        acts in training mode, and gradients pass.

        Parameters and errors are those of `forward`.

        Returns
        -------
        tensor (B, n_classes) or (B, T, n_classes)
            Of steps that are not real, zeros.
        """
        if self.task == "regression":
            raise AttributeError("predict_proba: only for classification")
        outputs = self(X, lengths)
        if self.loss == "cross_entropy":
            found = outputs.softmax(-1)
        elif self._problem.single:
            found = torch.cat([-outputs, outputs], -1).sigmoid()
        else:
            found = outputs.sigmoid()
        return self._without_padding(found, self._real_steps(X, lengths)[1])

    def _real_steps(
        self, X: Tensor, lengths: Tensor | Sequence[int] | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return how many steps of each sequence are real (B,), and which (B, T)."""
        if not isinstance(X, Tensor):
            raise TypeError(f"X: expected a tensor, got {describe(X)}")
        kind = self._problem.input
        width = kind.n_features if kind.kind == "dense" else kind.ids_per_step
        step = () if kind.kind != "dense" and width == 1 else (width,)
        if X.dim() < 2 or X.shape[2:] != step:
            expected = ", ".join(map(str, ("B", "T", *step)))
            raise ValueError(f"X: expected shape ({expected}), got {tuple(X.shape)}")
        if kind.kind != "dense" and X.dtype not in _INTEGERS:
            raise TypeError(f"X: expected ids, integers, got {X.dtype}")
        if lengths is None:
            return None, None
        given = lengths.cpu() if isinstance(lengths, Tensor) else lengths
        counts = torch.from_numpy(lengths_array("lengths", given, *X.shape[:2]))
        if not len(counts):  # torch does not pack nothing
            return None, None
        is_real = torch.arange(X.shape[1]) < counts[:, None]
        return counts, is_real.to(X.device)

    def _vectors(self, X: Tensor) -> Tensor:
        """Return what the first layer is fed, (B, T, F)."""
        kind = self._problem.input
        if kind.kind == "dense":
            return X
        if kind.kind == "one-hot":
            weight = self.head.weight
            return nn.functional.one_hot(X.long(), kind.vocabulary_size).to(weight.dtype)
        assert self.embedding is not None
        ids = X if X.dtype in (torch.int32, torch.int64) else X.long()  # what torch looks up
        vectors: Tensor = self.embedding(ids)
        return vectors if kind.ids_per_step == 1 else vectors.sum(2)

    def _initial_states(self, batch: int) -> list[Any]:
        """Return the `hx` of every module, None for zeros."""
        if self.h0 is None:
            return [None] * len(self.layers())

        def of_each(state: Tensor) -> Tensor:
            return state.unsqueeze(1).repeat(1, batch, 1)  # cuDNN takes no expanded one

        states = [of_each(h) for h in self.h0]
        if self.c0 is None:
            return states
        memories = [of_each(c) for c in self.c0]
        return list(zip(states, memories, strict=True))

    def _seen(self, x: Tensor, h: Tensor, hx: Any, is_real: Tensor | None) -> Tensor:
        """Return what the head sees, from the last module's outputs and final states."""
        if self.output == "sequence":
            return x
        empty = None if is_real is None else ~is_real.any(1)[:, None]
        if self.output == "last":
            directions = 2 if self.layers()[-1].bidirectional else 1
            last = _joined(h, directions)
            if empty is None:
                return last
            first = hx[0] if isinstance(hx, tuple) else hx
            return torch.where(empty, 0 if first is None else _joined(first, directions), last)
        if is_real is None or empty is None:
            return x.mean(1) if self.output == "mean" else x.max(1).values
        padding = ~is_real[..., None]
        if self.output == "mean":
            return x.masked_fill(padding, 0).sum(1) / is_real.sum(1).clamp(min=1)[:, None]
        return x.masked_fill(padding, -torch.inf).max(1).values.masked_fill(empty, 0)

    def _without_padding(self, rows: Tensor, is_real: Tensor | None) -> Tensor:
        """Return rows (B, T, C) with zeros for steps that are not real, others as they are."""
        if is_real is None or self.output != "sequence":
            return rows
        return rows.masked_fill(~is_real[..., None], 0)


def _run(module: Any, x: Tensor, lengths: Tensor | None, hx: Any) -> tuple[Tensor, Tensor]:
    """Return outputs (B, T, D*H) and final states (L*D, B, H) of a module for x (B, T, F)."""
    if lengths is None:
        output, state = module(x if module.batch_first else x.transpose(0, 1), hx)
        output = output if module.batch_first else output.transpose(0, 1)
    else:
        # Sequences without a step take one here, and what comes of it is not used.
        packed = pack_padded_sequence(x, lengths.clamp(min=1), True, enforce_sorted=False)
        packed, state = module(packed, hx)
        output, _ = pad_packed_sequence(packed, True, total_length=x.shape[1])
    return output, state[0] if isinstance(state, tuple) else state


def _joined(states: Tensor, directions: int) -> Tensor:
    """Return the last layer's states (L*D, B, H) side by side, (B, D*H)."""
    return states[-directions:].transpose(0, 1).flatten(1)


# Pickles name the public place.
Network.__module__ = "rnncore.torch"


def _states(modules: list[Any], size: Any) -> nn.ParameterList:
    """Return zeros (L*D, H) for every module."""
    return nn.ParameterList(
        module.weight_hh_l0.new_zeros(
            module.num_layers * (2 if module.bidirectional else 1), size(module)
        )
        for module in modules
    )
