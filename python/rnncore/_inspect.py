"""Looking inside a network: its states, its gates, and how far back errors reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rnncore._fitted import Fitted
from rnncore._network import EVALUATION_BATCH
from rnncore._sequences import Sequences
from rnncore._validate import Array, integer


def _sigmoid(x: Array) -> Array:
    # Halves of tanh: never overflows.
    half = np.asarray(0.5, x.dtype)
    halves: Array = half * np.tanh(half * x) + half
    return halves


_NONLINEARITIES: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, np.asarray(0.01, x.dtype) * x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sigmoid": _sigmoid,
}


class InspectMixin(Fitted):
    """Gives an estimator `gradient_flow`, `hidden_states` and `gates`."""

    def gradient_flow(
        self, X: object, y: object = None, *, lengths: object = None, layer: int = -1
    ) -> Any:
        """Return how strongly every step's state acts on the loss, or on the final state.

        That is the norm of the gradient with respect to the state that a step leaves to the next,
        h and an LSTM's c together. Where it vanishes towards the beginning of a sequence, the
        network cannot learn from there.

        Parameters
        ----------
        X, lengths
            As in `fit`.
        y : as in `fit`, optional
            With it the gradient is that of each sequence's loss, the mean over its steps where each
            has a target; without, that of the sum of the final state's units. Language models make
            it from X.
        layer : int
            -1 is the last.

        Returns
        -------
        array (n, T) or list of n arrays (T_i,)
            In the form of X, zero for padding. `rnncore.plot.gradient_flow` draws it.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X or y is not as in `fit`, there is no such layer, or the network also reads from
            the end (`bidirectional`).
        """
        sequences, rows = self._gradient_rows(X, y, lengths, layer)
        return sequences.shape_like_input(rows)

    def _gradient_rows(
        self, X: object, y: object, lengths: object, layer: int
    ) -> tuple[Sequences, Array]:
        """Return the norms of `gradient_flow` for all real steps, sequence after sequence."""
        self._check_fitted()
        layer = self._layer(layer)
        if self._config["bidirectional"]:
            raise ValueError(
                "gradient_flow: expected a network that reads forwards alone, "
                "got bidirectional=True"
            )
        if self._task_if_known() == "language_model":
            sequences, examples = self._labelled(X, y, lengths)
            # The last id has no target, and is not read.
            sequences = replace(sequences, lengths=np.maximum(sequences.lengths - 1, 0))
        elif y is None:
            sequences = self._read(X, lengths)
            examples = self._examples(sequences)
        else:
            sequences, examples = self._labelled(X, y, lengths)
        rows = self._network.gradient_flow(examples, layer=layer, n_threads=self._n_threads())
        return sequences, rows

    def hidden_states(self, X: object, *, lengths: object = None, layer: int = -1) -> Any:
        """Return the hidden state of a layer after every step.

        Parameters
        ----------
        X, lengths
            As in `fit`.
        layer : int
            -1 is the last.

        Returns
        -------
        array (n, T, H) or list of n arrays (T_i, H)
            In the form of X, zero for padding; in a bidirectional layer first the H units that read
            forwards, then those that read backwards.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X is not as in `fit`, or there is no such layer.
        """
        self._check_fitted()
        layer = self._layer(layer)
        sequences = self._read(X, lengths)
        return sequences.shape_like_input(self._states(sequences, layer))

    def gates(self, X: object, *, lengths: object = None, layer: int = -1) -> dict[str, Any]:
        """Return what the gates of a layer let through at every step.

        Parameters
        ----------
        X, lengths, layer
            As in `hidden_states`.

        Returns
        -------
        dict of arrays (n, T, H), or of lists of n arrays (T_i, H)
            For an LSTM "input", "forget", "candidate", "output" and the state "cell"; for a GRU
            "reset", "update" and "candidate"; for a plain network "candidate" alone, which is its
            state but for `residual`. In the form of X, as `hidden_states`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X is not as in `fit`, or there is no such layer.
        """
        self._check_fitted()
        layer = self._layer(layer)
        sequences = self._read(X, lengths)
        states = self._states(sequences, layer)
        weights = self._network.parameters()
        suffixes = ("", "_reverse") if self._config["bidirectional"] else ("",)
        below = self._states(sequences, layer - 1) if layer else None
        found: list[dict[str, Array]] = []
        for suffix, h in zip(suffixes, np.split(states, len(suffixes), axis=1), strict=True):
            named = {
                name.removeprefix("rnn."): value
                for name, value in weights.items()
                if name.endswith(f"_l{layer}{suffix}")
            }
            of_input = self._from_input(sequences, below, named[f"weight_ih_l{layer}{suffix}"])
            direction = _Direction(sequences.lengths, f"_l{layer}{suffix}", named)
            found.append(direction.gates(self._config["cell"], of_input, h))
        return {
            name: sequences.shape_like_input(np.concatenate([part[name] for part in found], axis=1))
            for name in found[0]
        }

    def _layer(self, layer: int) -> int:
        count = len(self._config["hidden_sizes"])
        return integer("layer", layer, -count, count - 1) % count

    def _states(self, sequences: Sequences, layer: int) -> Array:
        return self._network.features(
            self._examples(sequences),
            output="sequence",
            batch_size=EVALUATION_BATCH,
            layer=layer,
            n_threads=self._n_threads(),
        )

    def _from_input(self, sequences: Sequences, below: Array | None, weight: Array) -> Array:
        """Return the product of a layer's input with `weight`, for every real step."""
        if below is not None:
            return below @ weight.T
        values = sequences.real()
        if self._problem.input.kind == "dense":
            return values @ weight.T
        table = weight.T  # one-hot: the product is a row of it
        if self._problem.input.kind == "embedding":
            embedding = self._network.parameters()["embedding.weight"]
            used, values = np.unique(values, return_inverse=True)
            values = values.reshape(-1, *sequences.values.shape[1:])
            table = embedding[used]
            if self._config.get("masked_id") is not None:
                table[used == self._config["masked_id"]] = 0
            table = table @ weight.T
        rows = table[values]
        return rows if rows.ndim == 2 else rows.sum(axis=1)


class _Direction:
    """The steps of all sequences in one direction of a layer, one row each, end to end."""

    def __init__(self, lengths: Array, suffix: str, weights: dict[str, Array]) -> None:
        self._reverse = suffix.endswith("_reverse")
        self._suffix = suffix
        self._weights = weights
        real = lengths[lengths > 0]
        ends = np.cumsum(real)
        # The row of each sequence that is read first.
        self._first = ends - 1 if self._reverse else ends - real
        self._lengths = real

    def gates(self, cell: str, of_input: Array, h: Array) -> dict[str, Array]:
        """Return the activations of every gate from the products with the input and the states."""
        before = self._before(h)
        a = of_input + self._weights[f"bias_ih{self._suffix}"]
        b = before @ self._weights[f"weight_hh{self._suffix}"].T
        b = b + self._weights[f"bias_hh{self._suffix}"]
        if cell == "lstm":
            i, f, g, o = np.split(a + b, 4, axis=1)
            i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
            c = self._cell_states(i * g, f)
            return {"input": i, "forget": f, "candidate": g, "output": o, "cell": c}
        if cell == "gru":
            (a_r, a_z, a_n), (b_r, b_z, b_n) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)
            r, z = _sigmoid(a_r + b_r), _sigmoid(a_z + b_z)
            return {"reset": r, "update": z, "candidate": np.tanh(a_n + r * b_n)}
        nonlinearity = cell.removeprefix("rnn_").removesuffix("_residual")
        return {"candidate": _NONLINEARITIES[nonlinearity](a + b)}

    def _before(self, h: Array) -> Array:
        """Return the state before every step."""
        before = np.roll(h, -1 if self._reverse else 1, axis=0)
        before[self._first] = self._weights.get(f"h0{self._suffix}", 0)
        return before

    def _cell_states(self, added: Array, kept: Array) -> Array:
        c = np.zeros_like(added)
        now = np.broadcast_to(
            self._weights.get(f"c0{self._suffix}", np.zeros((), c.dtype)),
            (len(self._first), c.shape[1]),
        )
        order = np.argsort(-self._lengths, kind="stable")  # those that are over drop off the end
        rows, lengths = self._first[order], self._lengths[order]
        for step in range(int(lengths.max(initial=0))):
            rows = rows[: np.searchsorted(-lengths, -step)]
            now = kept[rows] * now[: len(rows)] + added[rows]
            c[rows] = now
            rows = rows + (-1 if self._reverse else 1)
        return c
