"""A classifier's gradient: it enters at the last step alone (goal 10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from peers import Torch
from problems import Case, Problem
from topics import Scope, Target, Topic, layer_title, ms, ratio, times
from topics.layers import layer_passes
from workloads import Workload

CELLS = ["LSTM", "GRU"]
STEPS = [200, 300]


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows."""
    for cell in scope.of(scope.some(CELLS)):
        for steps in STEPS:
            case = Case(cell, 64, steps, 128, 256, gradient="last")
            at_all = Torch(Problem(replace(case, gradient="all")), scope.threads)
            at_all.step()
            for workload in layer_passes(case, scope.threads, scope.peers):
                yield replace(workload, runs={**workload.runs, "at all": at_all.step})


TOPIC = Topic(
    name="last step",
    heading="The training step of a classifier over long sequences",
    notes="""\
The loss reads the last step alone, and its gradient decays on the way back: with weights as torch
draws its own, uniform to 1/sqrt(H), it becomes denormal after some hundred steps, which many
processors compute with slowly. rnncore flushes denormals to zero; torch runs as it comes. "at all"
is torch's time where the loss reads all steps, so that nothing decays: the difference is what
denormals cost on this processor.""",
    workloads=workloads,
    title=layer_title,
    columns={
        "rnncore ms": ms("rnncore"),
        "torch ms": ms("torch"),
        "JAX ms": ms("jax", "jax ahead"),
        "Keras ms": ms("keras"),
        "at all ms": ms("at all"),
        "torch / us": times(ratio("torch")),
    },
    targets=[Target(10, "gradient at the last step, against torch", ratio("torch"), 8.0)],
)
