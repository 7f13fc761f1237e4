"""A job that several implementations do: checked, timed, and laid out as a line of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.util import Finalize
from typing import Any

import numpy as np

from partners import Partners, timed
from timing import BUSY, FAR, Watch, interleaved_medians

# Largest difference from torch's numbers, as a share of the largest of them. Sums of some
# thousand products in another order differ by a tenth of this; a wrong formula by far more.
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}
# Where the largest of them is less, it is as good as zero: some flush denormals, some do not.
SMALLEST = 1e-30
PEAK_SIZE = 1536


@dataclass(frozen=True)
class Workload:
    """
    One row: the same job, done by each of `runs`.

    Measuring and printing know nothing else, so that another kind of job is another generator of
    workloads.

    what : what tells it from the other rows, in what JSON can hold
    wrong : what is wrong with the results, a sentence each; a wrong row is not timed
    flops : floating-point operations of our run, where they are to be held against the machine's
    """

    what: dict[str, Any]
    runs: Mapping[str, Callable[[], object]]
    wrong: list[str]
    flops: int = 0


@dataclass(frozen=True)
class Row:
    """
    What was measured of a workload.

    disturbed : share of the samples that were taken though the machine was not at its best
    """

    what: dict[str, Any]
    milliseconds: dict[str, float] = field(default_factory=dict)
    gflops: float = 0.0
    sgemm_gflops: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    disturbed: float = 0.0

    @property
    def versus_torch(self) -> float:
        """Give torch's time over ours."""
        return self.milliseconds["torch"] / self.milliseconds["rnncore"]

    @property
    def versus_best(self) -> float:
        """Give the best peer's time over ours."""
        peers = [ms for name, ms in self.milliseconds.items() if name != "rnncore"]
        return min(peers) / self.milliseconds["rnncore"]

    @property
    def share_of_peak(self) -> float:
        """Give our rate over the faster matrix product's."""
        return self.gflops / max(self.sgemm_gflops.values())


def differences(results: Mapping[str, Mapping[str, Any]], dtype: str = "float32") -> list[str]:
    """Say of each array that is not torch's, but for sums' order, by how much it is off."""
    expected = {key: np.asarray(value) for key, value in results["torch"].items()}
    wrong = []
    for name, arrays in results.items():
        if arrays.keys() != expected.keys():
            wrong.append(f"{name} gives {sorted(arrays)}, torch {sorted(expected)}")
            continue
        for key, value in arrays.items():
            got, want = np.asarray(value), expected[key]
            if got.shape != want.shape:
                wrong.append(f"{name}'s {key} has shape {got.shape}, torch's {want.shape}")
                continue
            largest = np.abs(want).max()
            off = np.abs(got - want).max() / (largest if largest > SMALLEST else 1.0)
            if not off <= TOLERANCE[dtype]:
                wrong.append(f"{name}'s {key} is off by {off:.1e} of its largest value")
    return wrong


def matrix_products(threads: int) -> dict[str, Callable[[], object]]:
    """Give a float32 matrix product by each of the libraries that torch brings."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    a, b, out = torch.randn(3, PEAK_SIZE, PEAK_SIZE)
    products: dict[str, Callable[[], object]] = {"blas": lambda: torch.mm(a, b, out=out)}
    if torch.backends.mkldnn.is_available():
        packed = a.to_mkldnn(), b.to_mkldnn()
        products["onednn"] = lambda: torch.ops.aten.mkldnn_linear(*packed)
    return products


def rates(seconds: Mapping[str, float]) -> dict[str, float]:
    """Give the GFLOP/s of large matrix products that took so long."""
    return {name: 2 * PEAK_SIZE**3 / taken / 1e9 for name, taken in seconds.items()}


@cache
def partners(count: int) -> Partners:
    """Give processes on so many other processors, which wait beside all rows of this process."""
    made = Partners(count)
    Finalize(None, made.close, exitpriority=1)
    return made


def trips() -> float:
    """Send a cache line to another processor and back, many times; give the seconds."""
    return timed(partners(1).trips)()


@cache
def watches(threads: int) -> list[Watch]:
    """Give what tells of the machine: a cache line's way, and what all processors compute."""
    whole = Watch(partners(threads - 1).compute, BUSY)
    return [whole] if threads == 1 else [Watch(timed(partners(threads - 1).trips), FAR), whole]


def measure(workload: Workload, threads: int, quick: bool) -> Row:
    """Time all runs of a workload, and where it counts its operations the peak beside them."""
    products = matrix_products(threads) if workload.flops else {}
    seconds, disturbed = interleaved_medians(
        {**workload.runs, **products},
        seconds=0.2 if quick else 0.6,
        min_rounds=3 if quick else 7,
        watches=watches(threads),
    )
    return Row(
        what=workload.what,
        milliseconds={name: 1e3 * seconds[name] for name in workload.runs},
        gflops=workload.flops / seconds["rnncore"] / 1e9 if workload.flops else 0.0,
        sgemm_gflops=rates({name: seconds[name] for name in products}),
        disturbed=disturbed,
    )


def table_line(cells: Iterable[str]) -> str:
    """Lay out a line that reads well here, and as a Markdown table too."""
    first, *others = cells
    return f"| {first:<29} | " + " | ".join(f"{cell:>10}" for cell in others) + " |"
