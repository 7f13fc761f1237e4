"""Recurrent layers and cells over NumPy arrays, with torch's constructors, shapes and names.

Shapes use these letters: T steps, B sequences of a batch, I ``input_size``, H ``hidden_size``,
L ``num_layers``, D directions (2 when bidirectional, else 1). An LSTM with `proj_size` has that
many columns for H in `output` and ``h``; ``c`` keeps H.

==============  =========================================  ====================================
array           batched                                    unbatched
==============  =========================================  ====================================
``x``           (T, B, I), or (B, T, I) with batch_first   (T, I)
``output``      (T, B, D*H), or (B, T, D*H)                (T, D*H)
state           (L*D, B, H)                                (L*D, H)
==============  =========================================  ====================================

The state of an LSTM is a pair ``(h, c)``, that of the others ``h`` alone. Arrays of another float
type are converted to the layer's dtype. NaN is not searched for: it propagates, as in torch.

Calling a layer is inference. To train by hand::

    output, state, tape = layer.forward(x)
    dx, dhx, grads = layer.backward(tape, d_output)
    layer.apply_gradients(grads, optimizer)

Layers and cells are made of torch's by ``from_torch``, and become torch's by ``to_torch``.
"""

from __future__ import annotations

import warnings

from rnncore._recurrent import NONLINEARITIES, Recurrent, State, Tape
from rnncore._sides import Sides, sides_of_cell, sides_of_layers
from rnncore._validate import (
    Array,
    as_array,
    boolean,
    choice,
    dtype_name,
    integer,
    lengths_array,
    real,
)

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "Tape"]


class _Layer(Recurrent):
    """A stack over whole sequences."""

    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    locked_dropout: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        locked_dropout: bool = False,
        dtype: object = "float32",
        random_state: object = None,
    ) -> None:
        self._build(
            random_state,
            input_size=integer("input_size", input_size, 1),
            hidden_size=integer("hidden_size", hidden_size, 1),
            num_layers=integer("num_layers", num_layers, 1),
            bias=boolean("bias", bias),
            batch_first=boolean("batch_first", batch_first),
            dropout=real("dropout", dropout, 0.0, 1.0),
            bidirectional=boolean("bidirectional", bidirectional),
            locked_dropout=boolean("locked_dropout", locked_dropout),
            dtype=dtype_name("dtype", dtype),
        )
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                "dropout acts between layers: with num_layers=1 it does nothing",
                # That of who builds the layer: constructors of derived classes call this one.
                stacklevel=2 if type(self).__init__ is _Layer.__init__ else 3,
            )

    def __call__(self, x: object, hx: object = None, lengths: object = None) -> tuple[Array, State]:
        """Run the layer without dropout and without keeping anything for `backward`.

        Parameters
        ----------
        x : array of floats (T, B, I), (B, T, I) with batch_first, or (T, I)
        hx : initial state, optional
            (L*D, B, H), or a pair of these for an LSTM; (L*D, H) when `x` is unbatched. Zeros when
            left out.
        lengths : array of int (B,), optional
            Real steps of each sequence, in 0..=T, in any order. Later steps of `x` are not read,
            those of `output` are zero, and the final state is that after the last real step.

        Returns
        -------
        output : array (T, B, D*H), (B, T, D*H) or (T, D*H)
        state : array (L*D, B, H) or (L*D, H); a pair of these for an LSTM

        Raises
        ------
        ValueError
            When a shape differs or a length is out of its range.
        TypeError
            When `x` or `hx` does not hold floats, or `lengths` integers.
        """
        output, state, _ = self._run_sequence(x, hx, lengths, keep=False)
        return output, state

    def forward(
        self, x: object, hx: object = None, lengths: object = None, *, copy: object = True
    ) -> tuple[Array, State, Tape]:
        """Run the layer for training: with dropout, keeping what `backward` needs.

        Parameters and errors are those of calling the layer, and one more.

        Parameters
        ----------
        copy : bool
            Whether the tape has the input and the output for itself, so that you may write to both
            before `backward`. With False `output` is read-only, and `backward` reads `x` again,
            which has to hold the same numbers until then. That spares the memory of both where
            sequences are all T long and rows fill registers: columns in multiples of 16, or of 8
            in float64.

        Returns
        -------
        output, state
            As from calling the layer.
        tape : Tape
            For one call of `backward`.
        """
        copy = boolean("copy", copy)
        drops = self.dropout > 0 and self.num_layers > 1
        seed = int(self._generator.integers(2**63)) if drops else None
        output, state, tape = self._run_sequence(x, hx, lengths, keep=True, copy=copy, seed=seed)
        assert tape is not None
        return output, state, tape

    def backward(
        self, tape: Tape, d_output: object, d_state: object = None
    ) -> tuple[Array, State, dict[str, Array]]:
        """Propagate the gradient of a loss back through one `forward`.

        Parameters
        ----------
        tape : Tape
            From `forward`; it is used up.
        d_output : array of the shape of `output`, or None for zeros
            Gradient of the loss with respect to `output`.
        d_state : array or pair of arrays of the shape of the final state, optional
            Gradient with respect to the final state; None stands for zeros.

        Returns
        -------
        dx : array of the shape of `x`
        dhx : array or pair of arrays of the shape of the initial state
        grads : dict of name to array
            Gradient of every parameter, for `apply_gradients`.

        Raises
        ------
        ValueError
            When a shape differs, or the tape was used, is another layer's or is older than the
            weights.
        TypeError
            When `tape` is no tape or a gradient does not hold floats.
        """
        return self._gradients(tape, d_output, d_state)

    def _run_sequence(
        self,
        x: object,
        hx: object,
        lengths: object,
        *,
        keep: bool,
        copy: bool = True,
        seed: int | None = None,
    ) -> tuple[Array, State, Tape | None]:
        x = as_array("x", x)
        sides = self._sides(x.shape)
        batch_first = self.batch_first
        if sides.outside is not sides.inside:
            batch_first = False
            if lengths is not None:
                raise ValueError(f"lengths: expected None with an unbatched x {x.shape}")
        elif lengths is not None:
            batch, steps = x.shape[:2] if batch_first else x.shape[1::-1]
            lengths = lengths_array("lengths", lengths, batch, steps)
        how = {"batch_first": batch_first, "keep": keep, "copy": copy}
        return self._run(sides, x, hx, lengths, **how, seed=seed)

    def _sides(self, x: tuple[int, ...]) -> Sides:
        directions = 2 if self.bidirectional else 1
        width = self._options.get("proj_size", 0) or self.hidden_size
        return sides_of_layers(
            x,
            self.input_size,
            self.batch_first,
            directions,
            self.num_layers * directions,
            (width, self.hidden_size),
        )


class LSTM(_Layer):
    """Long short-term memory, as `torch.nn.LSTM` (gates i, f, g, o).

    ::

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)        c' = f * c + i * g
        f = sigmoid(W_if x + b_if + W_hf h + b_hf)        h' = o * tanh(c')
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)

    With `proj_size` the state is a projection of that, ``h' = W_hr (o * tanh(c'))`` (Sak et al.,
    2014): fewer numbers to hand on, and fewer weights to read them.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int, >= 1
    bias : bool
        Whether there are ``bias_ih`` and ``bias_hh``.
    batch_first : bool
        Whether `x` and `output` are (B, T, ...) instead of (T, B, ...). States are not affected.
    dropout : float in [0, 1]
        Probability with which `forward` zeroes the outputs between two layers.
    bidirectional : bool
    proj_size : int, >= 0 and < hidden_size
        Columns of the projection; 0 for none. The weights ``weight_hr_l0`` and so on, (P, H), stand
        after the biases.
    locked_dropout : bool
        Whether dropout zeroes the same numbers at all steps of a sequence (Gal and Ghahramani,
        2016) instead of drawing anew at each.
    dtype : "float32" or "float64"
    random_state : None, int or numpy.random.Generator
        Where initial weights (see `rnncore.init`) and dropout masks come from.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> layer = LSTM(3, 4, random_state=0)
    >>> output, (h, c) = layer(np.zeros((5, 2, 3)))
    >>> output.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    _cell = "lstm"

    proj_size: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        locked_dropout: bool = False,
        dtype: object = "float32",
        random_state: object = None,
    ) -> None:
        hidden_size = integer("hidden_size", hidden_size, 1)
        also = f", smaller than hidden_size ({hidden_size})"
        self._own = {"proj_size": integer("proj_size", proj_size, 0, hidden_size - 1, also=also)}
        shared = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(
            *shared, locked_dropout=locked_dropout, dtype=dtype, random_state=random_state
        )


class GRU(_Layer):
    """Gated recurrent unit, as `torch.nn.GRU` (gates r, z, n).

    ::

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    Parameters and errors are those of `LSTM`, without `proj_size`; the state is `h` alone.
    """

    _cell = "gru"


def _simple(nonlinearity: object, residual: object) -> dict[str, object]:
    """Check what a plain RNN is told besides what all cells are."""
    return {
        "nonlinearity": choice("nonlinearity", nonlinearity, NONLINEARITIES),
        "residual": boolean("residual", residual),
    }


class RNN(_Layer):
    """Elman network, as `torch.nn.RNN`: ``h' = f(W_ih x + b_ih + W_hh h + b_hh)``.

    Parameters and errors are those of `LSTM`, with two more and without `proj_size`. The state is
    `h` alone.

    Parameters
    ----------
    nonlinearity : "tanh", "relu", "leaky_relu" (slope 0.01 below 0), "softsign" or "sigmoid"
        f. Stands fourth, as in torch, which has the first two.
    residual : bool
        Whether a step adds to the state before: ``h' = f(W_ih x + b_ih + W_hh h + b_hh) + h``.
        Gradients then reach early steps undiminished.
    """

    _cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        residual: bool = False,
        locked_dropout: bool = False,
        dtype: object = "float32",
        random_state: object = None,
    ) -> None:
        self._own = _simple(nonlinearity, residual)
        shared = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(
            *shared, locked_dropout=locked_dropout, dtype=dtype, random_state=random_state
        )


class _Cell(Recurrent):
    """One step of one layer: a stack over a sequence of length one."""

    _suffix = "_l0"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: object = "float32",
        random_state: object = None,
    ) -> None:
        self._build(
            random_state,
            input_size=integer("input_size", input_size, 1),
            hidden_size=integer("hidden_size", hidden_size, 1),
            bias=boolean("bias", bias),
            dtype=dtype_name("dtype", dtype),
        )

    def __call__(self, x: object, hx: object = None) -> State:
        """Take one step without keeping anything for `backward`.

        Parameters
        ----------
        x : array of floats (B, I) or (I,)
        hx : array (B, H) or (H,), a pair of these for an LSTM, optional
            Zeros when left out.

        Returns
        -------
        state : array (B, H) or (H,); a pair of these for an LSTM

        Raises
        ------
        ValueError, TypeError
            When a shape differs or an array does not hold floats.
        """
        return self._run_step(x, hx, keep=False)[0]

    def forward(self, x: object, hx: object = None) -> tuple[State, Tape]:
        """Take one step, keeping what `backward` needs.

        Parameters and errors are those of calling the cell.

        Returns
        -------
        state
            As from calling the cell.
        tape : Tape
            For one call of `backward`.
        """
        state, tape = self._run_step(x, hx, keep=True)
        assert tape is not None
        return state, tape

    def backward(self, tape: Tape, d_state: object) -> tuple[Array, State, dict[str, Array]]:
        """Propagate the gradient with respect to the new state back through one `forward`.

        Parameters
        ----------
        tape : Tape
            From `forward`; it is used up.
        d_state : array of the shape of the state; a pair (either may be None) for an LSTM

        Returns
        -------
        dx : array of the shape of `x`
        dhx : array or pair of arrays of the shape of the state
        grads : dict of name to array
            Gradient of every parameter, for `apply_gradients`.

        Raises
        ------
        ValueError, TypeError
            As in `LSTM.backward`.
        """
        return self._gradients(tape, None, d_state)

    def _run_step(self, x: object, hx: object, *, keep: bool) -> tuple[State, Tape | None]:
        x = as_array("x", x)
        sides = sides_of_cell(x.shape, self.input_size, self.hidden_size)
        _, state, tape = self._run(sides, x, hx, keep=keep)
        return state, tape


class LSTMCell(_Cell):
    """One step of an `LSTM`, as `torch.nn.LSTMCell`: ``(h, c) = cell(x, (h, c))``.

    Parameters
    ----------
    input_size, hidden_size : int, >= 1
    bias : bool
        Whether there are ``bias_ih`` and ``bias_hh``.
    dtype : "float32" or "float64"
    random_state : None, int or numpy.random.Generator
        Where initial weights come from.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong type or out of its range.
    """

    _cell = "lstm"


class GRUCell(_Cell):
    """One step of a `GRU`, as `torch.nn.GRUCell`: ``h = cell(x, h)``; built like `LSTMCell`."""

    _cell = "gru"


class RNNCell(_Cell):
    """One step of an `RNN`, as `torch.nn.RNNCell`: ``h = cell(x, h)``.

    Parameters and errors are those of `LSTMCell`, and `RNN`'s ``nonlinearity`` and ``residual``.
    """

    _cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        residual: bool = False,
        dtype: object = "float32",
        random_state: object = None,
    ) -> None:
        self._own = _simple(nonlinearity, residual)
        super().__init__(input_size, hidden_size, bias, dtype=dtype, random_state=random_state)
