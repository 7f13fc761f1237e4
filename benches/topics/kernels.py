"""The passes over a layer, each by itself, from `cargo bench`: where the time of a step goes."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from timing import interleaved_medians
from topics import Scope, Topic, times
from workloads import Row, Workload, matrix_products, rates, watches

ROOT = Path(__file__).resolve().parents[2]
# As in benches/kernels.rs.
SHAPES = [(1, 50, 32, 32), (32, 50, 16, 64), (32, 50, 50, 128), (64, 20, 256, 512)]
# Double precision: rows of as many bytes as the last of these has in single.
DOUBLE = (64, 20, 128, 256)
PACKING = ["pack forward", "pack backward"]
STEP = ["forward", "chain", "input gradient", "weight gradient"]

NOTES = """\
One thread, by `cargo bench --features bench --bench kernels`. Of a training step, each part timed
in its place there, as shares of the rate of a large matrix product: forward that keeps what
backward needs, the chain of gradients back through the steps, and the gradients of the input and of
the weights; "inference" is forward alone, over and over. "packing" is the share of the step for
laying the weights out anew. "cell" is what the cell computes between the products forward, run
alone from the nearest cache, as a share of inference; "ns a unit" of that is
its time for one hidden unit at one step. Products and cell overlap in part. The rate in double
precision is taken as half of that in single, as a register holds half as many numbers."""


def workloads(scope: Scope) -> Iterator[Workload]:
    """Give the rows: nothing to check here, the crate's tests hold the kernels."""
    cases = scope.cases(SHAPES[1:3] if scope.quick else SHAPES)
    double = scope.cases([] if scope.quick else [DOUBLE])
    for case in [*cases, *(replace(case, dtype="float64") for case in double)]:
        yield Workload(what=asdict(case), runs={}, wrong=[])


def measure(workload: Workload, threads: int, quick: bool) -> Row:
    """Run the benchmarks of a row, and the matrix product before and after them."""
    what = workload.what
    before = _products(threads)
    name = "/".join(title(what).rsplit(" ", 1))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["cargo", "bench", "--locked", "--features", "bench", "--bench", "kernels", "--", name],
            cwd=ROOT,
            env={**os.environ, "CRITERION_HOME": folder},
            check=True,
            capture_output=True,
            text=True,
        )
        found = {
            path.parent.parent.parent.parent.name: _result(path.parent)
            for path in Path(folder).glob(f"*/{name}/new/estimates.json")
        }
    after = _products(threads)
    return Row(
        what={**what, "work": {kernel: work for kernel, (work, _) in found.items()}},
        milliseconds={kernel: 1e3 * seconds for kernel, (_, seconds) in found.items()},
        sgemm_gflops={name: max(before[name], after[name]) for name in before},
    )


def _products(threads: int) -> dict[str, float]:
    """Give the GFLOP/s of the matrix product, taken while the machine is calm."""
    products = matrix_products(threads)
    timed = interleaved_medians(products, seconds=0.2, min_rounds=5, watches=watches(threads))
    return rates(timed.seconds)


def _result(folder: Path) -> tuple[int, float]:
    """Read what criterion left of a benchmark: how much work it is, and its median seconds."""
    estimates, benchmark = (
        json.loads((folder / name).read_text()) for name in ("estimates.json", "benchmark.json")
    )
    return benchmark["throughput"]["Elements"], 1e-9 * estimates["median"]["point_estimate"]


def step(row: Row) -> float:
    """Give the milliseconds of a training step, packing included."""
    return sum(row.milliseconds[kernel] for kernel in [*PACKING, *STEP])


def of_peak(kernel: str) -> Callable[[Row], float]:
    """Give the share of the matrix product's rate that a kernel reaches."""

    def figure(row: Row) -> float:
        gflops = row.what["work"][kernel] / (1e6 * row.milliseconds[kernel])
        halves = 2 if row.what["dtype"] == "float64" else 1
        return halves * gflops / max(row.sgemm_gflops.values())

    return figure


def packing(row: Row) -> float:
    """Give the share of a step that goes to laying out weights."""
    return sum(row.milliseconds[kernel] for kernel in PACKING) / step(row)


def cell_share(row: Row) -> float:
    """Give the cell's own time over that of inference."""
    return row.milliseconds["pointwise forward"] / row.milliseconds["inference"]


def nanoseconds_a_unit(row: Row) -> float:
    """Give the cell's own time for a unit at a step."""
    return 1e6 * row.milliseconds["pointwise forward"] / row.what["work"]["pointwise forward"]


def title(what: Mapping[str, Any]) -> str:
    """Name a row as the benchmark is, "LSTM 32,50,50,128" or "LSTM float64 64,20,128,256"."""
    words = [what["cell"]] + (["float64"] if what["dtype"] == "float64" else [])
    numbers = "{batch},{steps},{inputs},{hidden}".format(**what)
    return " ".join([*words, numbers])


PERCENT = "{:.0%}"
TOPIC = Topic(
    name="kernels",
    heading="The kernels by themselves",
    notes=NOTES,
    workloads=workloads,
    title=title,
    columns={
        "inference ms": lambda row: f"{row.milliseconds['inference']:.4g}",
        "step ms": times(step, "{:.4g}"),
        "inference": times(of_peak("inference"), PERCENT),
        "forward": times(of_peak("forward"), PERCENT),
        "chain": times(of_peak("chain"), PERCENT),
        "dx": times(of_peak("input gradient"), PERCENT),
        "dW": times(of_peak("weight gradient"), PERCENT),
        "packing": times(packing, PERCENT),
        "cell": times(cell_share, PERCENT),
        "ns a unit": times(nanoseconds_a_unit),
    },
    targets=[],
    thread_counts="one",
    measure=measure,
)
