"""What a saved model consists of, and how it is put together again."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from rnncore import optim, schedules
from rnncore._fitted import Fitted
from rnncore._history import History
from rnncore._io import pack, to_json, unpack, write_file
from rnncore._network import new_network
from rnncore._problem import Problem
from rnncore._state import State
from rnncore._validate import Array, boolean, check_own_class, describe, file_path


class StoreMixin(Fitted):
    """Gives an estimator `save`; `rnncore.load` is its counterpart."""

    def save(self, path: str | os.PathLike[str], *, include_optimizer: bool = False) -> None:
        """Write the model to a file that `rnncore.load` reads.

        The file is safetensors: weights by torch's names, everything else as JSON in its metadata.
        It appears whole or not at all. Not kept are `callbacks`, a `random_state` that is no int,
        and the function of a `vocabulary` that has its own to cut strings.

        Parameters
        ----------
        path : path of the file
            Replaced if it exists; of a link, what it leads to.
        include_optimizer : bool
            Whether `partial_fit`, or `fit` with ``warm_start=True``, is to go on from the file to
            the same bits as here. It takes room for up to two more copies of the weights.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        TypeError
            When a parameter is no value that a file can hold, or the model, its optimizer, schedule
            or vocabulary is of a class that is derived from rnncore's, which `rnncore.load` would
            not know.
        ValueError
            With `include_optimizer` for a model that has none: loaded without, or from torch. When
            the path is that of a device, a pipe or a socket.
        OSError
            When the file cannot be written.
        """
        self._check_fitted()
        path = file_path("path", path)
        if type(self).__module__ != "rnncore._models":
            raise TypeError(
                "save: expected an RNN, LSTM or GRU of rnncore, which rnncore.load knows, "
                f"got {type(self).__qualname__}: pickle it instead"
            )
        arrays = dict(self._network.parameters())
        configuration = {
            "estimator": type(self).__name__,
            "parameters": self._parameters_to_json(arrays),
            "problem": self._problem.to_json(),
            "network": self._config,
            "history": self.history_,
            "state": None if self._state is None else {**self._state.to_json(), "history": {}},
            "best_epoch": getattr(self, "best_epoch_", None),
            "optimizer": None,
        }
        if boolean("include_optimizer", include_optimizer):
            if self._optimizer is None:
                raise ValueError(
                    "include_optimizer: expected False for a model that was loaded without its "
                    "optimizer, or comes from torch, got True"
                )
            state = self._optimizer._core.state(self._network)
            configuration["optimizer"] = {
                **_optimizer_to_json(self._optimizer),
                "state": pack(state, "optimizer", arrays),
            }
        write_file(path, configuration, arrays)

    @classmethod
    def _from_configuration(cls, configuration: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """Build the fitted model that `save` described."""
        problem = Problem.from_json(configuration["problem"])
        model = cls(
            **{
                name: _from_json(value, problem, arrays)
                for name, value in configuration["parameters"].items()
            }
        )
        config = configuration["network"]
        network = new_network(config)
        network.set_parameters({name: arrays[name] for name, _ in network.parameter_shapes()})
        history = History(configuration["history"])
        model._become_fitted(problem, config, network, history)
        if configuration["state"] is not None:
            model._state = State.from_json({**configuration["state"], "history": history})
            model._state.history = history
        if configuration["best_epoch"] is not None:
            model.best_epoch_ = configuration["best_epoch"]
        if configuration["optimizer"] is not None:
            optimizer = _optimizer_from_json(configuration["optimizer"])
            optimizer._core.set_state(network, unpack(configuration["optimizer"]["state"], arrays))
            model._optimizer = optimizer
        return model

    def _parameters_to_json(self, arrays: dict[str, Array]) -> dict[str, Any]:
        """Return the constructor's arguments as plain values; arrays among them go to `arrays`."""
        parameters = self._given()
        parameters["callbacks"] = None
        if not isinstance(parameters["random_state"], int | np.integer):
            parameters["random_state"] = None
        if not isinstance(parameters["embedding"], str | None):  # as a list of vectors, or a table
            parameters["embedding"] = np.asarray(parameters["embedding"])
        return {name: self._to_json(name, value, arrays) for name, value in parameters.items()}

    def _to_json(self, name: str, value: Any, arrays: dict[str, Array]) -> Any:
        """Return one parameter as a plain value; what JSON has no form for says what it is."""
        from rnncore.text import Vocabulary

        value = to_json(value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            items = [self._to_json(name, item, arrays) for item in value]
            return {type(value).__name__: items}
        if isinstance(value, Mapping):
            return {"dict": [[to_json(key), to_json(item)] for key, item in value.items()]}
        if isinstance(value, np.ndarray):
            return {"array": _place(name, value, arrays)}
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, optim.Optimizer):
            return {"optimizer": _optimizer_to_json(value)}
        if isinstance(value, schedules.Schedule):
            return {"schedule": value.to_json()}
        if isinstance(value, Vocabulary):
            check_own_class(name, value, Vocabulary.__module__)
            fields, learned = value.to_json(), self._problem.input.vocabulary
            known = learned is not None and learned.to_json() == fields
            return {"vocabulary": None if known else fields}
        raise TypeError(f"{name}: expected a value that a file can hold, got {describe(value)}")


def _place(name: str, value: Array, arrays: dict[str, Array]) -> str:
    """Return the name of the array in `arrays` that is `value`, put there if none is."""
    if value.dtype.char == "g":  # of the numbers the only ones that safetensors lacks
        raise TypeError(f"{name}: expected numbers that a file can hold, got {describe(value)}")
    value = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
    for known, array in arrays.items():
        if array.dtype == value.dtype and np.array_equal(array, value):
            return known
    arrays[f"parameters/{name}"] = value
    return f"parameters/{name}"


def _from_json(value: Any, problem: Problem, arrays: dict[str, Array]) -> Any:
    """Return the parameter that `StoreMixin._to_json` described."""
    from rnncore.text import Vocabulary

    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind in ("list", "tuple"):
        items = [_from_json(item, problem, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return dict(content)
    if kind == "array":
        return arrays[content].copy()
    if kind == "optimizer":
        return _optimizer_from_json(content)
    if kind == "schedule":
        return schedules.from_json(content)
    if kind == "vocabulary":
        if content is None:
            return copy.copy(problem.input.vocabulary)  # whatever its owner fits it to later
        return Vocabulary.from_json(content)
    raise ValueError(f"expected a parameter, got {kind!r}")


def _optimizer_to_json(optimizer: optim.Optimizer) -> dict[str, Any]:
    check_own_class("optimizer", optimizer, optim.__name__)
    return {"class": type(optimizer).__name__, "options": optimizer.options}


def _optimizer_from_json(fields: dict[str, Any]) -> optim.Optimizer:
    kinds = {name: getattr(optim, name) for name in optim.__all__}
    optimizer: optim.Optimizer = kinds[fields["class"]](**fields["options"])
    return optimizer
