"""
One recurrent layer, several ways: rnncore's, torch's, ONNX Runtime's, JAX's and Keras's.

A peer takes a problem's numbers over once, in whatever order and layout it wants, and then runs
`forward` (inference) or `step` (forward that keeps what backward needs, then backward to the input
and every weight) on them as often as asked. Each takes the kind of array that its users have at
hand, and leaves its results in that kind; `as_torchs` reads them, where no time is taken.
"""

from __future__ import annotations

import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from problems import Array, Problem, joined

# Others order the gates their own way: the position in torch's order of each of theirs.
ONNX_GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}
KERAS_GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 1, 2, 3]}


def with_gates(order: Sequence[int], weight: Array) -> Array:
    """Order the blocks of rows of a weight, one a gate, anew."""
    gates = weight.reshape(len(order), -1, *weight.shape[1:])
    return gates[list(order)].reshape(weight.shape)


class Peer(ABC):
    """
    An implementation of a layer.

    needs : the modules to be imported
    trains : whether it has `step`
    plain_only : whether it is written for plain cases alone
    """

    needs: ClassVar[tuple[str, ...]]
    trains = True
    plain_only = False

    @abstractmethod
    def __init__(self, problem: Problem, threads: int) -> None: ...

    @abstractmethod
    def forward(self) -> Any:
        """Give the output."""

    def step(self) -> tuple[Any, dict[str, Any]]:
        """Give the output, and the gradients by name: of "x", "h0", "c0" and every weight."""
        raise NotImplementedError

    def as_torchs(self, output: Any, gradients: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Give what was computed under torch's names, in torch's order and layout."""
        return {"output": output, **(gradients or {})}


class Rnncore(Peer):
    """Our layers, over NumPy arrays."""

    needs = ("rnncore",)

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


class Torch(Peer):
    """torch.nn, eager: what the others are checked against."""

    needs = ("torch",)

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
        return with_gates(ONNX_GATES[cell], weights[name])

    return {
        "W": ordered("weight_ih_l0")[None],
        "R": ordered("weight_hh_l0")[None],
        "B": np.concatenate([ordered("bias_ih_l0"), ordered("bias_hh_l0")])[None],
    }


class OnnxRuntime(Peer):
    """ONNX Runtime's own operators: inference alone."""

    needs = ("onnxruntime", "onnx")
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


class OnJax(Peer):
    """What computes with JAX, compiled; its arrays stay JAX's."""

    plain_only = True

    def __init__(self, problem: Problem, threads: int) -> None:
        import jax

        self.jax, self.cell = jax, problem.case.cell
        layer = self._layer(problem)
        self.weights = jax.device_put(self._weights(problem.weights))
        self.x, self.d_output = jax.device_put(
            (self._rows(problem.x), self._rows(problem.d_output))
        )
        self.state = jax.device_put({name: part[0] for name, part in problem.state.items()})

        def step(weights: Any, x: Any, state: Any, d_output: Any) -> Any:
            output, pull = jax.vjp(layer, weights, x, state)
            return output, pull(d_output)

        self._forward = jax.jit(layer)
        self._step = jax.jit(step)

    @abstractmethod
    def _layer(self, problem: Problem) -> Callable[[Any, Any, Any], Any]:
        """Give what computes the output from weights and state, each by name, and the input."""

    @abstractmethod
    def _weights(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Give weights under the names and in the layout that are theirs."""

    @abstractmethod
    def _torchs_weights(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Give weights, or their gradients, under torch's names and in its layout."""

    def _rows(self, rows: Array) -> Array:
        """Give what comes as (steps, batch, width) as they have it, and back."""
        return rows

    def forward(self) -> Any:
        return self._forward(self.weights, self.x, self.state).block_until_ready()

    def step(self) -> tuple[Any, dict[str, Any]]:
        output, (gradients, dx, d_state) = self.jax.block_until_ready(
            self._step(self.weights, self.x, self.state, self.d_output)
        )
        return output, {"x": dx, **d_state, **gradients}

    def as_torchs(self, output: Any, gradients: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found = {"output": self._rows(np.asarray(output))}
        if gradients:
            arrays = {name: np.asarray(value) for name, value in gradients.items()}
            found["x"] = self._rows(arrays["x"])
            found |= {name: arrays[name][None] for name in self.state}
            found |= self._torchs_weights({name: arrays[name] for name in self.weights})
        return found


class Jax(OnJax):
    """Cells in a scan over the steps, each of which multiplies its own input."""

    needs = ("jax",)
    ahead = False  # whether the inputs of all steps are multiplied before the scan

    def _weights(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        # As the products read them, which would turn them anew at each call.
        return {name: value.T for name, value in weights.items()}

    def _torchs_weights(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        return {name: value.T for name, value in weights.items()}

    def _layer(self, problem: Problem) -> Callable[[Any, Any, Any], Any]:
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

        one_step = {"LSTM": lstm, "GRU": gru, "RNN": rnn}[self.cell]

        def layer(weights: Mapping[str, Any], x: Any, state: Mapping[str, Any]) -> Any:
            def project(rows: Any) -> Any:
                return rows @ weights["weight_ih_l0"] + weights["bias_ih_l0"]

            def recur(h: Any) -> Any:
                return h @ weights["weight_hh_l0"] + weights["bias_hh_l0"]

            def scanned(carried: Any, row: Any) -> Any:
                return one_step(carried, row if self.ahead else project(row), recur)

            start = joined(state[name] for name in problem.state)
            _, output = jax.lax.scan(scanned, start, project(x) if self.ahead else x)
            return output

        return layer


class JaxAhead(Jax):
    """The inputs of all steps multiplied at once, then a scan over the steps."""

    ahead = True


class Keras(OnJax):
    """Keras's layers, on JAX."""

    needs = ("keras", "jax")

    def _rows(self, rows: Array) -> Array:
        return rows.swapaxes(0, 1)

    def _weights(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        def ordered(name: str) -> Array:
            return with_gates(KERAS_GATES[self.cell], weights[name])

        biases = np.stack([ordered("bias_ih_l0"), ordered("bias_hh_l0")])
        return {
            "kernel": ordered("weight_ih_l0").T,
            "recurrent_kernel": ordered("weight_hh_l0").T,
            "bias": biases if self.cell == "GRU" else biases.sum(axis=0),
        }

    def _torchs_weights(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        def ordered(weight: Array) -> Array:
            return with_gates(np.argsort(KERAS_GATES[self.cell]), weight)

        biases = np.broadcast_to(weights["bias"], (2, weights["bias"].shape[-1]))
        return {
            "weight_ih_l0": ordered(weights["kernel"].T),
            "weight_hh_l0": ordered(weights["recurrent_kernel"].T),
            "bias_ih_l0": ordered(biases[0]),
            "bias_hh_l0": ordered(biases[1]),
        }

    def _layer(self, problem: Problem) -> Callable[[Any, Any, Any], Any]:
        os.environ["KERAS_BACKEND"] = "jax"  # read when it is imported
        import keras

        case = problem.case
        layers = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "RNN": keras.layers.SimpleRNN}
        keras_layer = layers[case.cell](case.hidden, return_sequences=True)
        keras_layer.build((case.batch, case.steps, case.inputs))
        names = [variable.name for variable in keras_layer.trainable_variables]
        others = [variable.value for variable in keras_layer.non_trainable_variables]

        def layer(weights: Mapping[str, Any], x: Any, state: Mapping[str, Any]) -> Any:
            start = [state[name] for name in problem.state]
            output, _ = keras_layer.stateless_call(
                [weights[name] for name in names], others, x, initial_state=start
            )
            return output

        return layer


PEERS: dict[str, type[Peer]] = {
    "rnncore": Rnncore,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "jax": Jax,
    "jax ahead": JaxAhead,
    "keras": Keras,
}


def installed_peers() -> list[str]:
    """Name the peers that can be imported here."""
    return [
        name
        for name, peer in PEERS.items()
        if all(importlib.util.find_spec(module) for module in peer.needs)
    ]


def built(problem: Problem, names: Iterable[str], threads: int) -> dict[str, Peer]:
    """Give those of the named peers that serve the problem, each with its numbers."""
    serving = [name for name in names if problem.case.is_plain or not PEERS[name].plain_only]
    return {name: PEERS[name](problem, threads) for name in serving}
