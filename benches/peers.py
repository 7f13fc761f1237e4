"""
One recurrent layer, four ways: rnncore's, torch's, ONNX Runtime's and JAX's.

A `Problem` holds a layer's numbers under torch's names; a peer takes them over once, in whatever
order and layout it wants, and then runs `forward` (inference) or `step` (forward that keeps what
backward needs, then backward to the input and every weight) on them as often as asked.
Each takes the kind of array that its users have at hand, and leaves its results in that kind.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# ONNX orders the gates its own way: the position in torch's order of each of ONNX's.
ONNX_GATE_ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}


@dataclass(frozen=True)
class Case:
    """
    A layer and what goes in: `batch` sequences of `steps` steps, `inputs` wide, to `hidden` units.

    `gradient` says where the loss reads the output: at every step ("all") or, as in a classifier,
    at the last alone ("last"). `layers` lie over one another, each with a second direction if
    `bidirectional`.
    """

    cell: str
    batch: int
    steps: int
    inputs: int
    hidden: int
    gradient: str = "all"
    dtype: str = "float32"
    layers: int = 1
    bidirectional: bool = False

    @property
    def directions(self) -> int:
        """Count the directions."""
        return 2 if self.bidirectional else 1

    @property
    def is_plain(self) -> bool:
        """Say whether it is one layer of one direction in float32, which every peer has."""
        return (self.dtype, self.layers, self.directions) == ("float32", 1, 1)

    @property
    def widths(self) -> list[int]:
        """Give the inputs of each layer."""
        return [self.inputs] + [self.directions * self.hidden] * (self.layers - 1)

    @property
    def weights(self) -> int:
        """Count the weights, but for the biases."""
        columns = sum(width + self.hidden for width in self.widths)
        return self.directions * GATES[self.cell] * self.hidden * columns

    @property
    def forward_flops(self) -> int:
        """Count the floating-point operations of the products; backward has twice as many."""
        return 2 * self.batch * self.steps * self.weights


@dataclass(frozen=True)
class Problem:
    """The numbers of a case: drawn from a fixed seed, the weights as torch draws its own."""

    case: Case

    @cached_property
    def x(self) -> Array:
        """Input, (steps, batch, inputs)."""
        case = self.case
        return self._normal(0, (case.steps, case.batch, case.inputs))

    @cached_property
    def d_output(self) -> Array:
        """Gradient of the loss by the output, (steps, batch, directions * hidden)."""
        case = self.case
        d_output = self._normal(1, (case.steps, case.batch, case.directions * case.hidden))
        if case.gradient == "last":
            d_output[:-1] = 0
        return d_output

    @cached_property
    def state(self) -> dict[str, Array]:
        """Initial state: "h0", and for an LSTM "c0", each (layers * directions, batch, hidden)."""
        case = self.case
        names = ["h0", "c0"] if case.cell == "LSTM" else ["h0"]
        shape = (case.layers * case.directions, case.batch, case.hidden)
        return {name: self._normal(3 + i, shape) for i, name in enumerate(names)}

    @cached_property
    def weights(self) -> dict[str, Array]:
        """Weights by torch's names, gates in torch's order."""
        case, rng = self.case, np.random.default_rng(2)
        rows, bound = GATES[case.cell] * case.hidden, case.hidden**-0.5
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, width in enumerate(case.widths):
            for suffix in ["", "_reverse"][: case.directions]:
                shapes |= {
                    f"weight_ih_l{layer}{suffix}": (rows, width),
                    f"weight_hh_l{layer}{suffix}": (rows, case.hidden),
                    f"bias_ih_l{layer}{suffix}": (rows,),
                    f"bias_hh_l{layer}{suffix}": (rows,),
                }
        return {
            name: rng.uniform(-bound, bound, shape).astype(case.dtype)
            for name, shape in shapes.items()
        }

    def _normal(self, seed: int, shape: tuple[int, ...]) -> Array:
        return np.random.default_rng(seed).standard_normal(shape, self.case.dtype)


def joined(parts: Iterable[Any]) -> Any:
    """Give a state as torch has it: h alone, or the pair (h, c)."""
    state = tuple(parts)
    return state if len(state) == 2 else state[0]


class Peer(Protocol):
    """What is asked of an implementation; the results stay in its own kind of array."""

    trains: bool  # whether it has `step`
    plain_only: bool  # whether it is written for plain cases alone

    def __init__(self, problem: Problem, threads: int) -> None: ...

    def forward(self) -> Any:
        """Give the output, (steps, batch, hidden)."""

    def step(self) -> tuple[Any, dict[str, Any]]:
        """Give the output, and the gradients by name: of "x", "h0", "c0" and every weight."""


class Rnncore:
    """Our layers, over NumPy arrays."""

    trains = True
    plain_only = False

    def __init__(self, problem: Problem, threads: int) -> None:
        import rnncore

        rnncore.set_num_threads(threads)
        case = problem.case
        self.layer = getattr(rnncore.nn, case.cell)(
            case.inputs,
            case.hidden,
            case.layers,
            bidirectional=case.bidirectional,
            dtype=case.dtype,
        )
        self.layer.load_state_dict(problem.weights)
        self.x, self.d_output = problem.x, problem.d_output
        self.state_names = list(problem.state)
        self.state = joined(problem.state.values())

    def forward(self) -> Array:
        output, _ = self.layer(self.x, self.state)
        return output

    def step(self, *, copy: bool = True) -> tuple[Array, dict[str, Array]]:
        output, _, tape = self.layer.forward(self.x, self.state, copy=copy)
        return output, self._gradients(tape)

    def _gradients(self, tape: Any) -> dict[str, Array]:
        dx, d_state, gradients = self.layer.backward(tape, self.d_output)
        parts = d_state if isinstance(d_state, tuple) else [d_state]
        return {"x": dx, **dict(zip(self.state_names, parts, strict=True)), **gradients}


class Torch:
    """torch.nn, eager: what the others are checked against."""

    trains = True
    plain_only = False

    def __init__(self, problem: Problem, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        case = problem.case
        self.torch = torch
        self.layer = getattr(torch.nn, case.cell)(
            case.inputs,
            case.hidden,
            case.layers,
            bidirectional=case.bidirectional,
            dtype=getattr(torch, case.dtype),
        )
        self.layer.load_state_dict(
            {name: torch.from_numpy(value) for name, value in problem.weights.items()}
        )
        self.x = torch.from_numpy(problem.x).requires_grad_()
        states = {
            name: torch.from_numpy(part).requires_grad_() for name, part in problem.state.items()
        }
        self.state = joined(states.values())
        self.d_output = torch.from_numpy(problem.d_output)
        self.leaves = {"x": self.x, **states, **dict(self.layer.named_parameters())}

    def _run(self) -> Any:
        output, _ = self.layer(self.x, self.state)
        return output

    def forward(self) -> Any:
        with self.torch.inference_mode():
            return self._run()

    def step(self) -> tuple[Any, dict[str, Any]]:
        output = self._run()
        gradients = self.torch.autograd.grad(output, list(self.leaves.values()), self.d_output)
        return output.detach(), dict(zip(self.leaves, gradients, strict=True))


def onnx_weights(cell: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Give a layer's weights by ONNX's names, gates in ONNX's order."""

    def ordered(name: str) -> Array:
        weight = weights[name]
        gates = weight.reshape(GATES[cell], -1, *weight.shape[1:])
        return gates[ONNX_GATE_ORDER[cell]].reshape(weight.shape)

    return {
        "W": ordered("weight_ih_l0")[None],
        "R": ordered("weight_hh_l0")[None],
        "B": np.concatenate([ordered("bias_ih_l0"), ordered("bias_hh_l0")])[None],
    }


class OnnxRuntime:
    """ONNX Runtime's own operators: inference alone."""

    trains = False
    plain_only = True

    def __init__(self, problem: Problem, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.inputs = {"X": problem.x, **problem.state}
        self.session = onnxruntime.InferenceSession(
            self._model(problem), options, providers=["CPUExecutionProvider"]
        )

    def _model(self, problem: Problem) -> bytes:
        from onnx import TensorProto, helper, numpy_helper

        case = problem.case
        initializers = onnx_weights(case.cell, problem.weights)
        # torch multiplies the reset gate into W_hn h + b_hn, which ONNX calls linear before reset.
        options = {"linear_before_reset": 1} if case.cell == "GRU" else {}
        no_lengths = ""
        node = helper.make_node(
            case.cell,
            ["X", *initializers, no_lengths, *problem.state],
            ["Y"],
            hidden_size=case.hidden,
            **options,
        )
        graph = helper.make_graph(
            [node],
            "layer",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
                for name, value in self.inputs.items()
            ],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in initializers.items()],
        )
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()

    def forward(self) -> Array:
        (output,) = self.session.run(None, self.inputs)
        return output[:, 0]


class Jax:
    """JAX, compiled: the input's product over all steps first, then a scan over them."""

    trains = True
    plain_only = True

    def __init__(self, problem: Problem, threads: int) -> None:
        import jax

        self.jax = jax
        layer = self._layer(problem.case.cell)
        self.weights = {name: jax.device_put(value) for name, value in problem.weights.items()}
        self.x = jax.device_put(problem.x)
        self.state = {name: jax.device_put(part) for name, part in problem.state.items()}
        self.d_output = jax.device_put(problem.d_output)

        def step(weights: dict[str, Any], x: Any, state: Any, d_output: Any) -> tuple[Any, Any]:
            output, pull = jax.vjp(layer, weights, x, state)
            return output, pull(d_output)

        self._forward = jax.jit(layer)
        self._step = jax.jit(step)

    def _layer(self, cell: str) -> Any:
        jnp, jax = self.jax.numpy, self.jax

        def lstm(state: Any, from_x: Any, recur: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(from_x + recur(h), 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        def gru(h: Any, from_x: Any, recur: Any) -> Any:
            x_r, x_z, x_n = jnp.split(from_x, 3, axis=-1)
            h_r, h_z, h_n = jnp.split(recur(h), 3, axis=-1)
            r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
            h = (1 - z) * jnp.tanh(x_n + r * h_n) + z * h
            return h, h

        def rnn(h: Any, from_x: Any, recur: Any) -> Any:
            h = jnp.tanh(from_x + recur(h))
            return h, h

        one_step = {"LSTM": lstm, "GRU": gru, "RNN": rnn}[cell]

        def layer(weights: dict[str, Any], x: Any, state: dict[str, Any]) -> Any:
            from_x = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]

            def recur(h: Any) -> Any:
                return h @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]

            start = joined(state[name][0] for name in ("h0", "c0") if name in state)
            _, output = jax.lax.scan(lambda s, row: one_step(s, row, recur), start, from_x)
            return output

        return layer

    def forward(self) -> Any:
        return self._forward(self.weights, self.x, self.state).block_until_ready()

    def step(self) -> tuple[Any, dict[str, Any]]:
        output, (gradients, dx, d_state) = self.jax.block_until_ready(
            self._step(self.weights, self.x, self.state, self.d_output)
        )
        return output, {"x": dx, **d_state, **gradients}


PEERS: dict[str, type[Peer]] = {
    "rnncore": Rnncore,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "jax": Jax,
}


def installed_peers() -> list[str]:
    """Name the peers that can be imported here."""
    needs = {"onnxruntime": ["onnxruntime", "onnx"]}
    return [
        name
        for name in PEERS
        if all(importlib.util.find_spec(module) for module in needs.get(name, [name]))
    ]


def built(problem: Problem, names: Iterable[str], threads: int) -> dict[str, Peer]:
    """Give those of the named peers that serve the problem, each with its numbers."""
    serving = [name for name in names if problem.case.is_plain or not PEERS[name].plain_only]
    return {name: PEERS[name](problem, threads) for name in serving}
