"""What layers and cells share: the weights of one Rust stack, its states, its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from rnncore import _core
from rnncore._sides import Sides
from rnncore._validate import Array, describe, float_array, generator
from rnncore._words import WordsHere
from rnncore.init import draw
from rnncore.optim import Optimizer

if TYPE_CHECKING:
    import torch

# h, or (h, c) for an LSTM.
State = Array | tuple[Array, Array]


class Tape:
    """What one `forward` keeps for its `backward`: good for one use, until the weights change."""

    __slots__ = ("_core", "_sides")

    def __init__(self, core: _core.Tape, sides: Sides) -> None:
        self._core = core
        self._sides = sides

    def __repr__(self) -> str:
        shapes = self._sides.outside
        return f"Tape(x {shapes.x}, state {shapes.states[0]})"


NONLINEARITIES = ("tanh", "relu", "leaky_relu", "softsign", "sigmoid")


def cell_name(cell: str, nonlinearity: str | None = None, residual: bool = False) -> str:
    """Return the extension's name of a cell: "lstm", "rnn_tanh", "rnn_relu_residual"."""
    name = cell if nonlinearity is None else f"{cell}_{nonlinearity}"
    return f"{name}_residual" if residual else name


def cell_options(name: str) -> tuple[str | None, bool]:
    """Return nonlinearity and residual of the cell that `cell_name` gave a name."""
    plain = name.removesuffix("_residual")
    return plain.partition("_")[2] or None, plain != name


def _write_state(h: Array, c: Array | None, sides: Sides) -> State:
    """Return the stack's states as the caller has them."""
    outside, inside = sides
    if outside is not inside:
        h = h.reshape(outside.states[0])
        c = None if c is None else c.reshape(outside.states[1])
    return h if c is None else (h, c)


class Recurrent(WordsHere):
    """Weights, state handling and gradients of one Rust stack: all that layers and cells share."""

    _cell: ClassVar[str]
    # What torch appends to the parameter names of a layer, and leaves out for a cell.
    _suffix: ClassVar[str] = ""

    # What the plain RNN is told besides, set before it builds; the others have nothing to choose.
    _own: Mapping[str, object] = {}

    input_size: int
    hidden_size: int
    bias: bool
    dtype: np.dtype[Any]

    def _build(self, random_state: object, **options: Any) -> None:
        """Make the stack and its first weights from checked constructor arguments by name."""
        options |= self._own
        self._options = options
        self.__dict__.update(options, dtype=np.dtype(options["dtype"]))
        self._generator = generator("random_state", random_state)
        self._stack = self._new_stack()
        shapes = self._stack.parameter_shapes()
        self._stack.set_parameters(draw("uniform", shapes, self._generator, self.dtype.name))

    def _new_stack(self) -> _core.Stack:
        options = self._options
        return _core.Stack(
            cell=cell_name(self._cell, options.get("nonlinearity"), options.get("residual", False)),
            input_size=options["input_size"],
            hidden_size=options["hidden_size"],
            num_layers=options.get("num_layers", 1),
            bias=options["bias"],
            dropout=options.get("dropout", 0.0),
            locked_dropout=options.get("locked_dropout", False),
            bidirectional=options.get("bidirectional", False),
            proj_size=options.get("proj_size", 0),
            dtype=options["dtype"],
        )

    # Attributes: the constructor's arguments and the parameters, all read-only.

    def __getattr__(self, name: str) -> Any:
        if "_stack" in self.__dict__ and name in self.parameter_shapes():
            value = self.state_dict()[name]
            value.flags.writeable = False
            return value
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__.get("_options", {}):
            raise AttributeError(f"{name} is fixed when the layer is built")
        if "_stack" in self.__dict__ and name in self.parameter_shapes():
            raise AttributeError(f"{name} is read-only: write weights with load_state_dict")
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.parameter_shapes()]

    # Weights.

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter by its torch name, in torch's order."""
        return {
            name.removesuffix(self._suffix): shape for name, shape in self._stack.parameter_shapes()
        }

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter by its torch name, in torch's order."""
        return {
            name.removesuffix(self._suffix): value
            for name, value in self._stack.parameters().items()
        }

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Replace all weights; on an error none has changed.

        Parameters
        ----------
        state_dict : mapping of name to array
            Exactly the names and shapes of `parameter_shapes`, in any float type. What torch's
            `state_dict` returns will do.

        Raises
        ------
        ValueError
            When names are missing or unexpected, or a shape differs.
        TypeError
            When a value does not hold floats.
        """
        self._stack.set_parameters(self._checked("state_dict", state_dict))

    @classmethod
    def from_torch(cls, module: torch.nn.Module, *, random_state: object = None) -> Self:
        """Build the layer that computes what torch's module does.

        Parameters
        ----------
        module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
            The one of the class's name, or `rnncore.torch`'s, on any device. Its weights are read
            where they lie and copied once, into the layer; parametrized ones as they are now.
        random_state : None, int or numpy.random.Generator
            Where dropout masks come from.

        Raises
        ------
        TypeError
            When `module` is something else, has a forward of its own, or weights that are neither
            float32 nor float64.
        ValueError
            When `module` has hooks around its forward or weights without numbers.
        ImportError
            Without torch.
        """
        from rnncore.torch import _layers

        options, dtype = _layers.read_module("module", module, cls._torch_name())
        layer = cls(**options, dtype=dtype, random_state=random_state)
        arrays = {
            name: _layers.array_of(f"module.{name}", getattr(module, name))
            for name in layer.parameter_shapes()
        }
        layer._stack.set_parameters(layer._checked("module", arrays))
        return layer

    def to_torch(self) -> torch.nn.Module:
        """Build the module of `rnncore.torch` that computes what the layer does.

        It is a ``torch.nn`` module, a subclass of the one of the same name, with a copy of the
        weights; `rnncore.torch.revert` makes it exactly that one. torch's generator is not drawn
        from.

        Returns
        -------
        rnncore.torch.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell

        Raises
        ------
        ValueError
            Naming what torch does not have: `residual`, `locked_dropout`, another `nonlinearity`
            than "tanh" and "relu".
        ImportError
            Without torch.
        """
        from rnncore.torch import _layers

        return _layers.to_module(self)

    @classmethod
    def _torch_name(cls) -> str:
        """Return torch's name of the layer or cell that this is, or is derived from."""
        return next(kind.__name__ for kind in cls.__mro__ if kind.__module__ == "rnncore.nn")

    def apply_gradients(self, grads: Mapping[str, object], optimizer: Optimizer) -> float:
        """Take one step of `optimizer` along the gradients of all parameters.

        Parameters
        ----------
        grads : mapping of name to array
            What `backward` returned, or sums of such.
        optimizer : one of `rnncore.optim`

        Returns
        -------
        float
            The joint norm of the gradients, before clipping.

        Raises
        ------
        ValueError, TypeError
            As in `load_state_dict`.
        FloatingPointError
            When the gradients or the new weights are not finite. The weights have not changed then.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected one of rnncore.optim, got {describe(optimizer)}")
        return self._stack.apply_gradients(self._checked("grads", grads), optimizer._core)

    def _checked(self, argument: str, values: Mapping[str, object]) -> dict[str, Array]:
        """Check names and shapes; return `values` under the stack's names, in its dtype."""
        if not isinstance(values, Mapping):
            raise TypeError(
                f"{argument}: expected a mapping of names to arrays, got {describe(values)}"
            )
        shapes = self.parameter_shapes()
        missing = [name for name in shapes if name not in values]
        unexpected = [str(name) for name in values if name not in shapes]
        if missing or unexpected:
            raise ValueError(
                f"{argument}: expected the names {', '.join(shapes)}; "
                f"missing: {', '.join(missing) or 'none'}; "
                f"unexpected: {', '.join(unexpected) or 'none'}"
            )
        return {
            name + self._suffix: np.ascontiguousarray(
                float_array(f"{argument}[{name!r}]", values[name], self.dtype, shape)
            )
            for name, shape in shapes.items()
        }

    # Computation.

    def _run(
        self,
        sides: Sides,
        x: Array,
        hx: object,
        lengths: Array | None = None,
        *,
        batch_first: bool = False,
        keep: bool = False,
        copy: bool = True,
        seed: int | None = None,
    ) -> tuple[Array, State, Tape | None]:
        outside, inside = sides
        x = float_array("x", x, self.dtype, outside.x)
        h0, c0 = self._read_state("hx", hx, sides)
        if outside is not inside:
            x = x.reshape(inside.x)
        output, h, c, tape = self._stack.forward(x, h0, c0, lengths, batch_first, keep, copy, seed)
        if outside is not inside:
            output = output.reshape(outside.output)
        state = _write_state(h, c, sides)
        return output, state, None if tape is None else Tape(tape, sides)

    def _gradients(
        self, tape: Tape, d_output: object, d_state: object
    ) -> tuple[Array, State, dict[str, Array]]:
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected what forward returned, got {describe(tape)}")
        outside, inside = sides = tape._sides
        dy = None
        if d_output is not None:
            dy = float_array("d_output", d_output, self.dtype, outside.output)
            if outside is not inside:
                dy = dy.reshape(inside.output)
        d_h, d_c = self._read_state("d_state", d_state, sides)
        dx, dh, dc, grads = self._stack.backward(tape._core, dy, d_h, d_c)
        if outside is not inside:
            dx = dx.reshape(outside.x)
        if self._suffix:
            grads = {name.removesuffix(self._suffix): value for name, value in grads.items()}
        return dx, _write_state(dh, dc, sides), grads

    def _read_state(
        self, name: str, state: object, sides: Sides
    ) -> tuple[Array | None, Array | None]:
        """Return h and c as the stack wants them, each None for zeros, from a caller's state."""
        if state is None:
            return None, None
        if self._cell != "lstm":
            return self._read_part(name, state, sides, 0), None
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise TypeError(f"{name}: expected a pair (h, c), got {describe(state)}")
        h, c = state
        return (
            self._read_part(f"{name}[0]", h, sides, 0),
            self._read_part(f"{name}[1]", c, sides, 1),
        )

    def _read_part(self, name: str, part: object, sides: Sides, which: int) -> Array | None:
        if part is None:
            return None
        outside, inside = sides
        array = float_array(name, part, self.dtype, outside.states[which])
        return array if outside is inside else array.reshape(inside.states[which])

    def __repr__(self) -> str:
        defaults = {
            "num_layers": 1,
            "nonlinearity": "tanh",
            "residual": False,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "locked_dropout": False,
            "bidirectional": False,
            "proj_size": 0,
            "dtype": "float32",
        }
        shown = [str(self.input_size), str(self.hidden_size)]
        shown += [
            f"{name}={self._options[name]!r}"
            for name, default in defaults.items()
            if self._options.get(name, default) != default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    # The stack lives in Rust: copies and pickles carry its weights.

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_stack"}
        return {**state, "parameters": self._stack.parameters()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parameters = state.pop("parameters")
        self.__dict__.update(state)
        self._stack = self._new_stack()
        self._stack.set_parameters(parameters)
