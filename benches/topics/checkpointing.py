"""Activations stored every few steps and computed again (goal 11)."""

from __future__ import annotations

from collections.abc import Iterator

from topics import Scope, Target, Topic, layer_title, ms, ratio, times
from workloads import Workload


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows: none, as there is no such setting yet."""
    yield from ()


TOPIC = Topic(
    name="checkpointing",
    heading="Checkpoints over time",
    notes="",
    workloads=workloads,
    title=layer_title,
    columns={"with ms": ms("rnncore"), "without ms": ms("kept"), "ratio": times(ratio("kept"))},
    targets=[
        Target(
            11,
            "checkpoints over time, time against without",
            ratio("rnncore", "kept"),
            1.4,
            at_least=False,
        )
    ],
    missing="not built",
)
