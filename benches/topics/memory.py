"""The peak of memory in a training step (goal 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

from footprint import alone, is_measured, rise
from peers import PEERS
from problems import Case, Problem
from timing import pin_to_cpus
from topics import Scope, Target, Topic, layer_title, times
from workloads import Row, Workload

SHAPES = [(64, 100, 128, 256), (64, 100, 256, 512)]

# What backward needs of each unit and step: LSTM i, f, g, o, c and h, GRU r, z, n, h and
# W_hn h + b_hn, RNN h.
SAVED = {"LSTM": 6, "GRU": 5, "RNN": 1}


def needed_megabytes(case: Case) -> float:
    """Count what is saved (h is the output too), and what is given back: dx and gradients."""
    per_step = SAVED[case.cell] * case.hidden + case.inputs
    return 4e-6 * (case.steps * case.batch * per_step + case.weights)


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows, each implementation in a process of its own; none but on Linux."""
    if not is_measured():
        return
    for case in scope.cases(scope.some(SHAPES)):
        yield Workload(
            what={"pass": "step", **asdict(case), "needed": needed_megabytes(case)},
            runs={
                "rnncore": alone(first_step, "rnncore", case, scope.threads),
                "no copies": alone(first_step, "rnncore", case, scope.threads, copy=False),
                "torch": alone(first_step, "torch", case, scope.threads),
            },
            wrong=[],
        )


def first_step(name: str, case: Case, threads: int, copy: bool = True) -> float:
    """
    Measure the first training step of a process; without copies, which only rnncore's can.

    Input and weights are there before it. A small layer runs first, for what is loaded and started
    once.
    """
    pin_to_cpus(threads)
    small = PEERS[name](Problem(Case(case.cell, 16, 4, 16, 32)), threads)
    peer = PEERS[name](Problem(case), threads)
    step = peer.step if copy else partial(peer.step, copy=False)
    small.step()
    return rise(step)


def measure(workload: Workload, threads: int, quick: bool) -> Row:
    """Take each figure once: it repeats to a percent."""
    megabytes = {name: float(run()) for name, run in workload.runs.items()}  # type: ignore[arg-type]
    return Row(what=workload.what, megabytes=megabytes)


def over_needed(name: str) -> Callable[[Row], float | None]:
    """Give a run's peak over what is needed."""

    def figure(row: Row) -> float | None:
        return row.megabytes[name] / row.what["needed"] if name in row.megabytes else None

    return figure


def over_safe(row: Row) -> float:
    """Give our peak over what is needed where the caller may write to the input and the output."""
    what = row.what
    copied = 4e-6 * what["steps"] * what["batch"] * (what["inputs"] + what["hidden"])
    return row.megabytes["rnncore"] / (what["needed"] + copied)


OURS, LEAN = over_needed("rnncore"), over_needed("no copies")

TOPIC = Topic(
    name="memory",
    heading="Peak memory of a training step",
    notes="""\
Megabytes by which resident memory rises at most (VmHWM over VmRSS before) in the first step of a
fresh process, input and weights being there. "needed" counts what backward has to know of every
unit and step (LSTM: i, f, g, o, c, h; GRU: r, z, n, h and the state's part of n; RNN: h, each also
the output), the gradient of the input and those of the weights, nothing else. "safe" adds the input
and the output once more: NumPy's arrays do not tell that they were written, so that whoever lets
the caller write to both before backward has them twice. "no copies" is the step of a caller who
promises not to, with `forward(x, copy=False)`.""",
    workloads=workloads,
    title=layer_title,
    columns={
        "needed MB": lambda row: f"{row.what['needed']:.1f}",
        "rnncore MB": lambda row: f"{row.megabytes['rnncore']:.1f}",
        "no copies": times(lambda row: row.megabytes.get("no copies"), "{:.1f}"),
        "torch MB": lambda row: f"{row.megabytes['torch']:.1f}",
        "us / needed": times(OURS),
        "us / safe": times(over_safe),
        "no copies / needed": times(LEAN),
    },
    targets=[
        Target(7, "peak memory over what is needed", OURS, 1.15, at_least=False),
        Target(7, "the same with copy=False", LEAN, 1.15, at_least=False),
    ],
    measure=measure,
)
