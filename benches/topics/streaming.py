"""One step at a time, one sequence: `stream().step(x)` (goal 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from estimators import part, weights_of
from peers import onnx_weights
from problems import GATES, Array
from topics import Scope, Target, Topic, ratio, times
from workloads import Row, Workload, differences

INPUTS = 64
HIDDEN = [64, 256, 512, 1024]
CHECKED_STEPS = 3


class RnncoreStream:
    """Ours: a stream of an estimator that predicts one number."""

    def __init__(self, model: Any, x: Array) -> None:
        self.stream, self.x = model.stream(), x

    def reset(self) -> None:
        self.stream.reset()

    def step(self) -> Array:
        return self.stream.step(self.x)


class TorchStream:
    """torch's layer and head on a sequence of one step, the state carried on."""

    suffix = ""  # of the module's name
    names = "_l0"  # what its weights' names end in

    def __init__(self, cell: str, weights: dict[str, Array], x: Array) -> None:
        import torch

        self.torch = torch
        hidden = weights["head.weight"].shape[1]
        self.layer = getattr(torch.nn, cell + self.suffix)(INPUTS, hidden)
        self.head = torch.nn.Linear(hidden, 1)
        for module, name in ((self.layer, "rnn"), (self.head, "head")):
            given = {
                key.replace("_l0", self.names): torch.from_numpy(value)
                for key, value in part(weights, name).items()
            }
            module.load_state_dict(given)
        self.x = torch.from_numpy(x)
        self.state: Any = None

    def reset(self) -> None:
        self.state = None

    def step(self) -> Array:
        with self.torch.inference_mode():
            return self.head(self.next())[:, 0].numpy()

    def next(self) -> Any:
        output, self.state = self.layer(self.x[None], self.state)
        return output[0]


class TorchCellStream(TorchStream):
    """torch's cell, which is made for a step."""

    suffix, names = "Cell", ""

    def next(self) -> Any:
        self.state = self.layer(self.x, self.state)
        return self.state[0] if isinstance(self.state, tuple) else self.state


class OnnxStream:
    """ONNX Runtime's operators, the state going in and out."""

    def __init__(self, cell: str, weights: dict[str, Array], x: Array, threads: int) -> None:
        import onnxruntime

        self.hidden = weights["head.weight"].shape[1]
        self.states = ["h", "c"] if cell == "LSTM" else ["h"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self._model(cell, weights), options, providers=["CPUExecutionProvider"]
        )
        self.x = x[None]
        self.reset()

    def _model(self, cell: str, weights: dict[str, Array]) -> bytes:
        from onnx import TensorProto, helper, numpy_helper

        def value(name: str) -> Any:
            shape = (1, 1, INPUTS if name == "x" else self.hidden)
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        initializers = {
            **onnx_weights(cell, part(weights, "rnn")),
            "head": np.ascontiguousarray(weights["head.weight"].T),
            "bias": weights["head.bias"],
        }
        ends = [f"{name}'" for name in self.states]
        nodes = [
            helper.make_node(
                cell,
                ["x", "W", "R", "B", "", *self.states],
                ["", *ends],
                hidden_size=self.hidden,
                **({"linear_before_reset": 1} if cell == "GRU" else {}),
            ),
            helper.make_node("MatMul", ["h'", "head"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "stream",
            [value(name) for name in ["x", *self.states]],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 1))]
            + [value(name) for name in ends],
            [numpy_helper.from_array(array, name) for name, array in initializers.items()],
        )
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()

    def reset(self) -> None:
        start = np.zeros((1, 1, self.hidden), np.float32)
        self.inputs = {"x": self.x, **dict.fromkeys(self.states, start)}

    def step(self) -> Array:
        y, *states = self.session.run(None, self.inputs)
        self.inputs.update(zip(self.states, states, strict=True))
        return y[0, 0]


def reads(size: int) -> dict[str, Callable[[], object]]:
    """Give several ways of reading float32 numbers once; the fastest shows what a cache gives."""
    import torch

    columns = 256
    matrix = np.random.default_rng(0).random((size // columns, columns), np.float32)
    flat, row, tensor = matrix.reshape(-1), matrix[0].copy(), torch.from_numpy(matrix)
    return {
        "read by max": flat.max,
        "read by a dot product": lambda: np.dot(flat, flat),
        "read by matrix @ vector": lambda: matrix @ row,
        "read by a sum": tensor.sum,
    }


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows."""
    import torch

    import rnncore

    rnncore.set_num_threads(scope.threads)
    torch.set_num_threads(scope.threads)
    rng = np.random.default_rng(0)
    X, x = (rng.standard_normal(shape, np.float32) for shape in ((4, 3, INPUTS), (1, INPUTS)))
    for hidden in HIDDEN[1:2] if scope.quick else HIDDEN:
        for cell in scope.of(["LSTM", "GRU"]):
            model, least = (
                getattr(rnncore, cell)(units, max_epochs=1, random_state=0).fit(X, X[:, -1, 0])
                for units in (hidden, 1)
            )
            weights = weights_of(model)
            streams: dict[str, Any] = {
                "rnncore": RnncoreStream(model, x),
                "torch": TorchStream(cell, weights, x),
                "torch cell": TorchCellStream(cell, weights, x),
            }
            if "onnxruntime" in scope.peers:
                streams["onnxruntime"] = OnnxStream(cell, weights, x, scope.threads)
            numbers = GATES[cell] * hidden * (INPUTS + hidden)
            yield Workload(
                what={"cell": cell, "inputs": INPUTS, "hidden": hidden, "weights": numbers},
                runs={
                    **{who: it.step for who, it in streams.items()},
                    "call": RnncoreStream(least, x).step,
                    **reads(numbers),
                },
                wrong=differences({who: first_steps(it) for who, it in streams.items()}),
            )


def first_steps(stream: Any) -> dict[str, Array]:
    """Give the outputs of the first steps."""
    stream.reset()
    return {f"output {step}": np.copy(stream.step()) for step in range(CHECKED_STEPS)}


def fastest_read(row: Row) -> float:
    """Give the milliseconds of reading the weights once."""
    return min(value for name, value in row.milliseconds.items() if name.startswith("read"))


def torchs(row: Row) -> float:
    """Give the milliseconds of torch's faster way."""
    return min(value for name, value in row.milliseconds.items() if name.startswith("torch"))


def versus_torch(row: Row) -> float:
    """Give torch's time over ours."""
    return torchs(row) / row.milliseconds["rnncore"]


def over_read(row: Row) -> float:
    """Give our time over that of reading the weights once."""
    return row.milliseconds["rnncore"] / fastest_read(row)


def kernel_over_read(row: Row) -> float | None:
    """Give what a step takes beside the call over the time of reading the weights once."""
    if "call" not in row.milliseconds:
        return None
    return (row.milliseconds["rnncore"] - row.milliseconds["call"]) / fastest_read(row)


def _microseconds(name: str) -> Callable[[Row], str]:
    return lambda row: f"{1e3 * row.milliseconds[name]:.1f}" if name in row.milliseconds else ""


TOPIC = Topic(
    name="streaming",
    heading="One step of one sequence",
    notes=f"""\
Microseconds of `model.stream().step(x)` in Python: {INPUTS} features, one layer, a head of one
output. torch runs its cell or its layer (on a sequence of one step), whichever is faster, and its
head, ONNX Runtime a session with the state as input and output. "read" is the fastest of four ways
(NumPy's max, dot and matrix @ vector, torch's sum) to read as many float32 numbers as the layer has
weights, on as many threads. "call" is our step with one hidden unit: Python, the checks, the new
array, all of a step but its weights; "kernel / read" is the rest of the step over "read".""",
    workloads=workloads,
    title=lambda what: f"{what['cell']} .step {what['inputs']},{what['hidden']}",
    columns={
        "rnncore us": _microseconds("rnncore"),
        "torch us": lambda row: f"{1e3 * torchs(row):.1f}",
        "ORT us": _microseconds("onnxruntime"),
        "call us": _microseconds("call"),
        "read us": lambda row: f"{1e3 * fastest_read(row):.1f}",
        "torch / us": times(versus_torch),
        "ORT / us": times(ratio("onnxruntime")),
        "us / read": times(over_read),
        "kernel / read": times(kernel_over_read),
        "MB": lambda row: f"{4e-6 * row.what['weights']:.2f}",
    },
    targets=[
        Target(6, ".step of one sequence against ONNX Runtime", ratio("onnxruntime"), 2.0),
        Target(6, ".step of one sequence against torch", versus_torch, 10.0),
        Target(6, ".step over reading the weights once", over_read, 1.5, at_least=False),
    ],
)
