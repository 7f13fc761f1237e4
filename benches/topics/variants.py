"""Double precision, and two layers of two directions (goal 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from topics import Scope, Target, Topic, at_peak, layer_title, ms, ratio, share, times
from topics.layers import layer_passes
from workloads import Row, Workload

SHAPES = [(32, 50, 50, 128), (64, 100, 128, 256)]


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows."""
    for plain in scope.cases(scope.some(SHAPES)):
        for variant in ({"dtype": "float64"}, {"layers": 2, "bidirectional": True}):
            case = replace(plain, **variant)
            yield from layer_passes(case, scope.threads, ["rnncore", "torch"], against_peak=True)


def _float64(row: Row) -> float | None:
    return row.versus_torch if row.what["dtype"] == "float64" else None


def _bidirectional(row: Row) -> float | None:
    return row.versus_torch if row.what["bidirectional"] else None


TOPIC = Topic(
    name="variants",
    heading="float64, and two layers of two directions (2x2)",
    notes="""\
Passes and columns as in the grid. The peak in double precision is half of that in single, as a
register holds half as many numbers.""",
    workloads=workloads,
    title=layer_title,
    columns={
        "rnncore ms": ms("rnncore"),
        "torch ms": ms("torch"),
        "torch / us": times(ratio("torch")),
        "at peak": times(at_peak()),
        "of peak": times(share, "{:.0%}"),
    },
    targets=[
        Target(9, "float64 against torch", _float64, 3.0),
        Target(9, "two bidirectional layers against torch", _bidirectional, 1.5),
    ],
)
