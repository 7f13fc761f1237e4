"""
`rnncore.torch` against `torch.nn`, through autograd, on what torch's users have in their hands.

Both sides are one module with the same weights, ours made of torch's by `rnncore.torch.convert`,
called on tensors of the same values. `forward` is inference under `no_grad`; `step` is gradients
back to None, a forward pass, and `backward` to the input, the initial state and every weight. The
values and the gradients are checked against torch's before anything is timed.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import rnncore
import rnncore.torch
from problems import GATES
from topics import MODULE_FORMS, Scope, Shape, Topic, ms, ratio, times
from topics.grid import SHAPES
from workloads import Row, Workload, differences

# Batch, steps, inputs, hidden. Jobs other than the plain layer run on some of the grid's shapes.
SOME_SHAPES = [(1, 50, 32, 32), (32, 50, 50, 128), (64, 100, 128, 256)]
ONE_STEP = (1, 1, 32, 32)

SHORTEST = 5  # of ragged sequences
VOCABULARY, CLASSES = 1000, 50

# What the path through torch may cost over `rnncore.nn`, forward and backward together.
OVERHEAD_ASKED = 60e-3  # milliseconds


@dataclass(frozen=True)
class Job:
    """
    A module and what it is called on.

    `form` is "layer", "packed" (lengths uniform in 5..T), "loop" (the cell's module called step by
    step), "model" (embedding, layer, head, cross entropy and SGD), "overhead" (a layer beside
    `rnncore.nn`'s) or "compiled" (a layer beside itself inside `torch.compile`).
    """

    form: str
    cell: str
    batch: int
    steps: int
    inputs: int
    hidden: int
    dtype: str = "float32"
    layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0

    @property
    def title(self) -> str:
        """Name it in a table."""
        words = [] if self.form == "layer" else [self.form]
        words += ["float64"] if self.dtype == "float64" else []
        words += [f"{self.layers} layers"] if self.layers > 1 else []
        words += ["both ways"] if self.bidirectional else []
        words += [f"proj {self.proj_size}"] if self.proj_size else []
        shape = ",".join(map(str, (self.batch, self.steps, self.inputs, self.hidden)))
        return " ".join([shape, *words])

    @property
    def state_shape(self) -> Shape:
        """Give the shape of an initial state; those of an LSTM with projection differ in width."""
        return (self.layers * (2 if self.bidirectional else 1), self.batch, self.hidden)


def jobs(forms: Sequence[str], cells: Sequence[str], grid: Iterable[Shape]) -> Iterator[Job]:
    """Give the rows of the table, those of `grid` first."""
    has_compiler = shutil.which("g++") is not None  # torch.compile builds C++
    layers = [Job("layer", cell, *shape) for shape in [*grid, ONE_STEP] for cell in cells]
    some = [Job("layer", cell, *shape) for shape in SOME_SHAPES for cell in cells]
    found = {
        "layer": layers,
        "float64": [replace(job, dtype="float64") for job in some],
        "stack": [replace(job, layers=2, bidirectional=True) for job in some],
        "proj": [replace(job, proj_size=job.hidden // 2) for job in some if job.cell == "LSTM"],
        "packed": [replace(job, form="packed") for job in some if job.batch > 1],
        "loop": [replace(job, form="loop") for job in some],
        "model": [replace(job, form="model") for job in some],
        "overhead": [Job("overhead", cell, *ONE_STEP) for cell in cells],
        "compiled": [Job("compiled", cell, *ONE_STEP) for cell in cells if has_compiler],
    }
    for form in forms:
        yield from found[form]


class Subject:
    """A module, its tensors, and the two passes."""

    def __init__(self, job: Job, module: nn.Module) -> None:
        self.module = module
        dtype = getattr(torch, job.dtype)
        torch.manual_seed(1)
        x = torch.randn(job.steps, job.batch, job.inputs, dtype=dtype)
        self.inputs = {"x": x, **self._states(job, dtype)}
        with torch.no_grad():
            output, _ = self.run()
            self.d_output = torch.randn_like(output)
        for tensor in self.inputs.values():
            tensor.requires_grad_()
        self.leaves = {**self.inputs, **dict(module.named_parameters())}

    def _states(self, job: Job, dtype: torch.dtype) -> dict[str, Tensor]:
        *some, hidden = job.state_shape
        states = {"h0": torch.randn(*some, job.proj_size or hidden, dtype=dtype)}
        if job.cell == "LSTM":
            states["c0"] = torch.randn(*some, hidden, dtype=dtype)
        return states

    @property
    def state(self) -> Any:
        """Give the initial state as torch has it: h alone, or the pair (h, c)."""
        _, *state = self.inputs.values()
        return tuple(state) if len(state) == 2 else state[0]

    def run(self) -> tuple[Tensor, Any]:
        """Give the output, and the state at its end."""
        found: tuple[Tensor, Any] = self.module(self.inputs["x"], self.state)
        return found

    def forward(self) -> tuple[Tensor, Any]:
        """Run inference."""
        with torch.no_grad():
            return self.run()

    def step(self) -> tuple[Tensor, Any]:
        """Run forward, and back to all that was given."""
        for leaf in self.leaves.values():
            leaf.grad = None
        output, state = self.run()
        output.backward(self.d_output)
        return output, state

    def results(self, train: bool) -> dict[str, Any]:
        """Give what a pass computes, as arrays by name."""
        output, state = self.step() if train else self.forward()
        states = state if isinstance(state, tuple) else (state,)
        found = {"output": output, **{f"state {i}": part for i, part in enumerate(states)}}
        if train:
            found |= {f"gradient of {name}": leaf.grad for name, leaf in self.leaves.items()}
        return {name: tensor.detach().numpy() for name, tensor in found.items()}


class Compiled(Subject):
    """A layer as one operation of a compiled graph."""

    def __init__(self, job: Job, module: nn.Module) -> None:
        torch._dynamo.reset()  # how often it compiles is limited
        torch._dynamo.config.allow_rnn = True
        self.compiled = torch.compile(module, fullgraph=True)
        super().__init__(job, module)

    def run(self) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = self.compiled(self.inputs["x"], self.state)
        return found


class Packed(Subject):
    """A layer over sequences of different lengths."""

    def __init__(self, job: Job, module: nn.Module) -> None:
        rng = np.random.default_rng(0)
        lengths = rng.integers(SHORTEST, job.steps, job.batch, endpoint=True)
        self.lengths = torch.from_numpy(-np.sort(-lengths))
        super().__init__(job, module)

    def run(self) -> tuple[Tensor, Any]:
        packed = pack_padded_sequence(self.inputs["x"], self.lengths)
        output, state = self.module(packed, self.state)
        return output.data, state


class Loop(Subject):
    """A cell called step by step."""

    def _states(self, job: Job, dtype: torch.dtype) -> dict[str, Tensor]:
        return {name: part[0] for name, part in super()._states(job, dtype).items()}

    def run(self) -> tuple[Tensor, Any]:
        state, output = self.state, []
        for x in self.inputs["x"].unbind():
            state = self.module(x, state)
            output.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(output), state


class Tagger(nn.Module):
    """A label for every step of sequences of symbols."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, job.inputs)
        self.layer = layer(job)
        self.head = nn.Linear(job.hidden, CLASSES)

    def forward(self, symbols: Tensor) -> tuple[Tensor, Any]:
        output, state = self.layer(self.embedding(symbols))
        return self.head(output), state


class Model(Subject):
    """A model and its optimizer: torch's operations run between ours."""

    def __init__(self, job: Job, module: nn.Module) -> None:
        self.module = module
        torch.manual_seed(1)
        self.symbols = torch.randint(VOCABULARY, (job.steps, job.batch))
        self.labels = torch.randint(CLASSES, (job.steps, job.batch))
        self.leaves = dict(module.named_parameters())
        self.optimizer = torch.optim.SGD(module.parameters(), lr=0.01)

    def run(self) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = self.module(self.symbols)
        return found

    def step(self) -> tuple[Tensor, Any]:
        self.optimizer.zero_grad()
        logits, state = self.run()
        nn.functional.cross_entropy(logits.flatten(0, 1), self.labels.flatten()).backward()
        self.optimizer.step()
        return logits, state


def layer(job: Job) -> nn.Module:
    """Give torch's layer, or stack of layers."""
    options: dict[str, Any] = {"proj_size": job.proj_size} if job.proj_size else {}
    made: nn.Module = getattr(nn, job.cell)(
        job.inputs,
        job.hidden,
        job.layers,
        bidirectional=job.bidirectional,
        dtype=getattr(torch, job.dtype),
        **options,
    )
    return made


def torchs_module(job: Job) -> nn.Module:
    """Give torch's own module for a job, with weights from a fixed seed."""
    torch.manual_seed(0)
    if job.form == "model":
        return Tagger(job)
    if job.form == "loop":
        cell: nn.Module = getattr(nn, job.cell + "Cell")(job.inputs, job.hidden)
        return cell
    return layer(job)


SUBJECTS = {"packed": Packed, "loop": Loop, "model": Model}


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give inference and the training step of every job, each checked against torch's."""
    torch.set_num_threads(scope.threads)
    rnncore.set_num_threads(scope.threads)
    cells, grid = scope.of(list(GATES)), scope.shapes or SHAPES
    for job in jobs(scope.forms or MODULE_FORMS, cells, grid):
        theirs = torchs_module(job)
        subject = SUBJECTS.get(job.form, Subject)
        ours = subject(job, rnncore.torch.convert(copy.deepcopy(theirs)))
        subjects = {"rnncore": ours, "torch": subject(job, theirs)}
        if job.form == "compiled":
            subjects["compiled"] = Compiled(job, ours.module)
        for name in ["step"] if job.form == "overhead" else ["forward", "step"]:
            results = {who: it.results(name == "step") for who, it in subjects.items()}
            runs = {who: getattr(it, name) for who, it in subjects.items()}
            if job.form == "overhead":
                runs["rnncore.nn"] = bare_step(job, ours)
            yield Workload(
                what={"pass": name, **asdict(job)},
                runs=runs,
                wrong=differences(results, job.dtype),
            )


def bare_step(job: Job, subject: Subject) -> Any:
    """Give the training step of a subject's layer over NumPy arrays, without torch."""
    bare = getattr(rnncore.nn, job.cell)(job.inputs, job.hidden)
    bare.load_state_dict(
        {name: p.detach().numpy() for name, p in subject.module.named_parameters()}
    )
    x, *state = [tensor.detach().numpy() for tensor in subject.inputs.values()]
    given = tuple(state) if len(state) == 2 else state[0]
    d_output = subject.d_output.numpy()

    def step() -> Any:
        _, _, tape = bare.forward(x, given)
        return bare.backward(tape, d_output)

    return step


def title(what: dict[str, Any]) -> str:
    """Name a row."""
    job = {key: value for key, value in what.items() if key != "pass"}
    return f"{what['cell']} {what['pass']} {Job(**job).title}"


def summary(rows: Sequence[Row]) -> str:
    """Say how often we are faster, and what the path through torch costs."""
    slower = [row for row in rows if row.versus_torch <= 1]
    lines = [f"faster than torch.nn in {len(rows) - len(slower)} of {len(rows)} rows"]
    lines += [f"slower: {title(row.what)}, {row.versus_torch:.2f}" for row in slower]
    for row in rows:
        if "rnncore.nn" in row.milliseconds:
            over = row.milliseconds["rnncore"] - row.milliseconds["rnncore.nn"]
            verdict = "reached" if over <= OVERHEAD_ASKED else "not reached"
            lines.append(
                f"{row.what['cell']}: {1e3 * over:.0f} us over rnncore.nn, forward and backward; "
                f"asked at most {1e3 * OVERHEAD_ASKED:.0f}: {verdict}"
            )
        if "compiled" in row.milliseconds:
            over = row.milliseconds["compiled"] - row.milliseconds["rnncore"]
            lines.append(
                f"{row.what['cell']}: {1e3 * over:.0f} us more inside torch.compile, "
                f"{row.what['pass']}"
            )
    return "\n".join(lines)


TOPIC = Topic(
    name="torch modules",
    heading="rnncore.torch against torch.nn",
    notes="""\
Through autograd, both sides modules with the same weights: "forward" under `no_grad`, "step" with
`backward` to the input, the initial state and every weight. "loop" calls the cell's module step by
step, "model" has an embedding, a head, cross entropy and SGD around the layer.""",
    workloads=workloads,
    title=title,
    columns={
        "ours ms": ms("rnncore"),
        "torch ms": ms("torch"),
        "torch / us": times(ratio("torch")),
    },
    targets=[],
    thread_counts="each",
    summary=summary,
)
