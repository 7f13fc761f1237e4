"""The grid: one layer of each cell, from a single step to a thousand units (goals 1 to 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import geometric_mean

from topics import (
    Scope,
    Target,
    Topic,
    at_peak,
    best,
    layer_title,
    ms,
    ratio,
    share,
    times,
)
from topics.layers import layer_passes
from workloads import Row, Workload

SHAPES = [  # batch, steps, inputs, hidden
    (1, 1, 128, 256),
    (1, 50, 32, 32),
    (32, 50, 50, 128),
    (128, 50, 50, 128),
    (64, 100, 128, 256),
    (64, 100, 256, 512),
    (64, 50, 1024, 1024),
]
# Sequences with which products are large.
MANY = 32
QUICK_SHAPES = [SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[4]]

NOTES = """\
"forward" is inference, "step" forward that keeps what backward needs, then backward to the input,
the initial state and every weight, without optimizer. Every sequence starts from a given state.
"GF/s" counts the operations of the matrix products alone; "of peak" is the share of a large matrix
product's rate, by the faster of MKL and oneDNN, "of MKL" by MKL alone. "at peak" is what
"best / us" would be at all of it: the most that there is to win."""


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows."""
    shapes = scope.shapes or (QUICK_SHAPES if scope.quick else SHAPES)
    for case in scope.cases(shapes):
        yield from layer_passes(case, scope.threads, scope.peers, against_peak=True)


def share_of_mkl(row: Row) -> float | None:
    """Give our rate over MKL's matrix product's."""
    return row.gflops / row.sgemm_gflops["blas"] if row.sgemm_gflops else None


def summary(rows: Sequence[Row]) -> str:
    """Say how often we are faster, and what the limit leaves of the means."""
    faster = sum(row.versus_torch > 1 for row in rows)
    fastest = sum(row.versus_best > 1 for row in rows)
    means = []
    for name in ("forward", "step"):
        most = [_at_most(row) for row in rows if row.what["pass"] == name]
        means += [f"{name} {geometric_mean(most):.2f}"] if most else []
    return (
        f"faster than torch in {faster} of {len(rows)} rows, than every peer in {fastest}\n"
        "geometric mean of the best peer's time over ours, were all rows of "
        f"{MANY} sequences and more at the peak: {', '.join(means)}"
    )


def _at_most(row: Row) -> float:
    """Give the best peer's time over ours; at the peak, where there are products to reach it."""
    limited = row.what["batch"] >= MANY and row.sgemm_gflops and row.share_of_peak < 1
    return row.versus_best / (row.share_of_peak if limited else 1)


Figure = Callable[[Row], float | None]


def _of(name: str, figure: Figure) -> Figure:
    """Give a figure of one pass alone."""
    return lambda row: figure(row) if row.what["pass"] == name else None


def _large(name: str, figure: Figure) -> Figure:
    """Give a figure of one pass of a layer whose products are large."""
    of_pass = _of(name, figure)
    return lambda row: (
        of_pass(row) if row.what["hidden"] >= 256 and row.what["batch"] >= 64 else None
    )


TOPIC = Topic(
    name="grid",
    heading="One layer, float32",
    notes=NOTES,
    workloads=workloads,
    title=layer_title,
    columns={
        "rnncore ms": ms("rnncore"),
        "torch ms": ms("torch"),
        "ORT ms": ms("onnxruntime"),
        "JAX ms": ms("jax", "jax ahead"),
        "Keras ms": ms("keras"),
        "torch / us": times(ratio("torch")),
        "best / us": times(best),
        "at peak": times(at_peak()),
        "GF/s": times(lambda row: row.gflops, "{:.0f}"),
        "of peak": times(share, "{:.0%}"),
        "of MKL": times(share_of_mkl, "{:.0%}"),
    },
    targets=[
        Target(1, "inference against the best peer", _of("forward", best), 1.2),
        Target(1, "inference against the best peer", _of("forward", best), 2.5, of_mean=True),
        Target(2, "training step against the best peer", _of("step", best), 1.25),
        Target(2, "training step against the best peer", _of("step", best), 3.0, of_mean=True),
        *(
            Target(
                3,
                f"{name}, H >= 256, B >= 64, share of {whose}",
                _large(name, of),
                bound,
                form="{:.0%}",
            )
            for whose, of in (("sgemm's peak", share), ("MKL's", share_of_mkl))
            for name, bound in (("forward", 0.85), ("step", 0.80))
        ),
    ],
    thread_counts="each",
    summary=summary,
)
