"""Predictions step by step, for sequences that are not over yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from rnncore._data import check_integers, check_numbers
from rnncore._fitted import Fitted
from rnncore._validate import Array, as_array, choice, describe, integer, plain_array

if TYPE_CHECKING:
    from rnncore import _core
    from rnncore._problem import Problem

_METHODS = ("predict", "predict_proba", "transform")


class Stream:
    """Several sequences at once, one step of each at a time; `stream` of an estimator makes it.

    What `step` returns is what the estimator's method would return for the steps so far, to the
    last bit: of each sequence's last step, where there is a target for every step.
    """

    def __init__(
        self, network: _core.Network, problem: Problem, batch_size: int, method: str
    ) -> None:
        # Outputs that are numbers to predict are the answer, and have its shape already.
        is_answer = method == "predict" and problem.task == "regression"
        core = network.stream(batch_size, flat=is_answer and problem.single)
        self._core = core
        self._answer: Callable[[Array], Array] | None = None
        if not is_answer:
            self._answer = {
                "predict": problem.predictions,
                "predict_proba": problem.probabilities,
                "transform": lambda _: core.features(),
            }[method]
        self._input = problem.input
        self._batch_size = batch_size
        self._method = method
        if self._input.kind == "dense":
            self._shape: tuple[int, ...] = (batch_size, self._input.n_features)
            self._dtype = np.dtype(self._input.dtype)
        else:
            count = self._input.ids_per_step
            self._shape = (batch_size,) if count == 1 else (batch_size, count)
            self._dtype = np.dtype(np.int64)

    def step(self, x: object) -> Array:
        """Take the next step of every sequence.

        Parameters
        ----------
        x : array of float (batch_size, F)
            For a network over ids an array of int, (batch_size,) or (batch_size, k), or a list of
            words where the network has a vocabulary.

        Returns
        -------
        array, of batch_size rows
            Predictions, probabilities or features of the steps so far. Outputs that are not finite
            are not warned of, as looking for them would take a good part of a step.

        Raises
        ------
        ValueError, TypeError
            When x is not as described. No sequence has moved on then.
        """
        # The usual case, at no cost that a step would feel.
        if not (type(x) is np.ndarray and x.dtype is self._dtype and x.shape == self._shape):
            x = self._read(x)
        outputs = self._core.step(x)
        return outputs if self._answer is None else self._answer(outputs)

    @property
    def state(self) -> dict[str, Array]:
        """All that the steps so far left, by name: copies, and what is assigned is copied."""
        return self._core.state()

    @state.setter
    def state(self, state: Mapping[str, object]) -> None:
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping of arrays, got {describe(state)}")
        current = self._core.state()
        if set(state) != set(current):
            raise ValueError(
                f"state: expected the names {', '.join(current)}, got {', '.join(map(str, state))}"
            )
        arrays = {}
        for name, old in current.items():
            array = as_array(f"state[{name!r}]", state[name])
            if array.shape != old.shape:
                raise ValueError(f"state[{name!r}]: expected shape {old.shape}, got {array.shape}")
            if array.dtype.kind != old.dtype.kind:
                raise TypeError(
                    f"state[{name!r}]: expected {old.dtype.name}, got {describe(array)}"
                )
            arrays[name] = plain_array(array, old.dtype)
        self._core.set_state(arrays)

    def reset(self, rows: object = None) -> None:
        """Begin anew with some of the sequences, or with all.

        Parameters
        ----------
        rows : array of int, or of bool (batch_size,), optional
            Which. The default is all.

        Raises
        ------
        ValueError, TypeError
            When there is no such row. No sequence has begun anew then.
        """
        if rows is None:
            self._core.reset(None)
            return
        array = np.atleast_1d(as_array("rows", rows))
        if array.dtype == bool and array.shape == (self._batch_size,):
            array = np.flatnonzero(array)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise TypeError(f"rows: expected integers, got {describe(array)}")
        outside = array[(array < 0) | (array >= self._batch_size)]
        if len(outside):
            raise ValueError(f"rows: expected rows in 0..{self._batch_size - 1}, got {outside[0]}")
        self._core.reset(plain_array(array, np.int64))

    def _read(self, x: object) -> Array:
        if self._input.kind != "dense":
            if isinstance(x, str):
                raise TypeError(
                    f"x: expected a list of {self._batch_size} words, got {describe(x)}"
                )
            words = isinstance(x, list | tuple) and bool(x) and isinstance(x[0], str)
            if words and self._input.vocabulary is not None:
                x = self._input.vocabulary._transform([x], "x")[0]
        array = as_array("x", x)
        if array.shape != self._shape:
            raise self._misshapen(array.shape)
        if self._input.kind == "dense":
            check_numbers("x", array)
        else:
            check_integers("x", array)
        return np.asarray(array, self._dtype)

    def _misshapen(self, found: tuple[int, ...]) -> ValueError:
        expected = self._shape
        is_single = self._batch_size == 1 and found == expected[1:]
        advice = f"; for one sequence use {'x[None]' if found else '[x]'}" if is_single else ""
        return ValueError(f"x: expected shape {expected}, got {found}{advice}")

    def __repr__(self) -> str:
        return f"Stream(batch_size={self._batch_size}, method={self._method!r})"


class StreamMixin(Fitted):
    """Gives an estimator `stream`."""

    def stream(self, batch_size: int = 1, method: str = "predict") -> Stream:
        """Begin sequences that come step by step.

        Parameters
        ----------
        batch_size : int
            Sequences that go on side by side.
        method : "predict", "predict_proba" or "transform"
            What each step returns.

        Returns
        -------
        Stream
            With ``step(x)``, ``state`` and ``reset(rows)``. It keeps the weights of now; only one
            that a callback asks for follows the training that calls it.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When an argument is wrong, or the network also reads from the end (`bidirectional`).
        """
        self._check_fitted()
        batch_size = integer("batch_size", batch_size, 1)
        method = choice("method", method, _METHODS)
        if method == "predict_proba" and not hasattr(self, "predict_proba"):
            raise ValueError(
                "method: expected 'predict' or 'transform' for regression, got 'predict_proba'"
            )
        if self._config["bidirectional"]:
            raise ValueError(
                "stream: expected a network that reads forwards alone, got bidirectional=True"
            )
        return Stream(self._network, self._problem, batch_size, method)
