"""Estimators that go to torch and come from there; torch is imported where it is used."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from rnncore._fit import check_same_network, check_same_reading, check_unchanged
from rnncore._fitted import Fitted
from rnncore._network import network_config, new_network
from rnncore._options import check_each, check_parameters
from rnncore._validate import float_array

if TYPE_CHECKING:
    from rnncore._input import Input
    from rnncore.torch import Network


class TorchMixin(Fitted):
    """Gives an estimator `to_torch` and `from_torch`."""

    _cell: ClassVar[str]

    def to_torch(self) -> Network:
        """Build a torch module that computes what the model does, and can be trained on in torch.

        It is made of ``torch.nn.Embedding``, modules of `rnncore.torch` and ``torch.nn.Linear``,
        has a copy of the weights (here they are kept in memory of Rust's, which nothing outside can
        change), and is in evaluation mode: ``train()`` turns dropout on. It knows `classes_` and
        the vocabulary, but nothing of how the model was trained: optimizer, schedule and what the
        optimizer keeps stay here.

        Returns
        -------
        rnncore.torch.Network
            Its ``predict_proba`` gives the same as this model's, for tensors. What is padding it
            is told by `lengths`, which count the first steps: it does not look for `padding_value`,
            nor know of padding on the left.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            Naming what torch does not have: `residual`, another `nonlinearity` than "tanh" and
            "relu".
        ImportError
            Without torch.
        """
        self._check_fitted()
        from rnncore.torch import _estimators

        return _estimators.to_network(
            self._cell.upper(), self._config, self._problem, self._network.parameters()
        )

    @classmethod
    def from_torch(cls, network: Network, **parameters: Any) -> Self:
        """Build a fitted model that computes what a torch network does.

        It predicts, streams, saves and learns on, by `partial_fit` or with ``warm_start=True``, as
        any fitted model; its optimizer begins anew, and `history_` is empty. Weights are read where
        they lie, if that is the CPU's memory, and copied once. Biases that the network leaves out
        are zeros here, which training moves; nothing but an embedding stays frozen. Labels are
        sorted, and the outputs with them.

        Parameters
        ----------
        network : rnncore.torch.Network
            From `to_torch`, or around modules that you trained in torch.
        **parameters
            Arguments of the constructor: how to train, how padding is marked, a fitted
            `vocabulary`. Those that the network has a say in may be left out.

        Returns
        -------
        A fitted model.

        Raises
        ------
        TypeError
            When `network` is something else, its layers are not of this class's kind, or a piece of
            it computes more than its weights say.
        ValueError
            When the network, or a parameter, is not what a model can be, or a parameter is not as
            the network has it.
        ImportError
            Without torch.
        """
        from rnncore.torch import _estimators

        found = _estimators.read_network(network, cls._cell.upper())
        model, known = cls(**found.parameters | parameters), cls(**found.parameters)
        # What is not as the network has it first: together with the rest it may not go either.
        each = check_each(model._given())
        problem = replace(found.problem, input=_input(found.problem.input, each))
        check_unchanged(each, problem)
        options = check_parameters(model._given(), cls._cell)
        implied = check_parameters(known._given(), cls._cell)
        was = network_config(implied, problem, cls._cell)
        check_same_reading(options, problem.input, was["cell"])
        config = network_config(options, problem, cls._cell)
        check_same_network(config, was)
        core = new_network(config)
        dtype = np.dtype(config["dtype"])
        core.set_parameters(
            {
                name: np.ascontiguousarray(
                    float_array(f"network: {name}", found.weights[name], dtype, shape)
                )
                for name, shape in core.parameter_shapes()
            }
        )
        model._become_fitted(problem, config, core)
        return model


def _input(kind: Input, options: dict[str, Any]) -> Input:
    """Return what X is, with the padding and the vocabulary that parameters speak of."""
    kind = replace(
        kind,
        padding_value=options["padding_value"],
        left=options["padding_side"] == "left",
    )
    vocabulary = options["vocabulary"]
    if not hasattr(vocabulary, "vocabulary_size_"):
        return kind
    if vocabulary.vocabulary_size_ > kind.vocabulary_size:
        raise ValueError(
            f"vocabulary: expected at most {kind.vocabulary_size} ids, as the network has, "
            f"got {vocabulary.vocabulary_size_}"
        )
    return replace(kind, vocabulary=copy.copy(vocabulary))
