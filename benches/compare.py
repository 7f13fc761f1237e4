"""
Our layers against torch's, ONNX Runtime's and JAX's, in one run on this machine.

Every row is checked before it is timed: each peer's output, and each of its gradients, against
torch's. Then all peers, and the machine's sgemm peak, run in turn, and medians are printed in
milliseconds, with

- `torch / us` and `best / us`: how many times faster we are than torch, and than the best peer;
- `GF/s`: our floating-point operations a second, counting the matrix products alone;
- `of peak`: the share that this is of a large matrix product's rate, by the faster of the two
  libraries that torch brings: its BLAS (MKL) and oneDNN. On AMD's processors oneDNN is, by far.

A pass is `forward` (inference) or `step` (forward that keeps what backward needs, then backward to
the input, the initial state and every weight, without optimizer). Every sequence starts from a
given state, as the next piece of a stream does. Each number of threads gets a process of its
own, pinned to as many processors. Complete runs are recorded in benches/results/; the exit status
is 1 when a result is wrong.

    python benches/compare.py                                  # all of it, about 10 minutes
    python benches/compare.py --quick --cell LSTM --threads 2
    python benches/compare.py --shape 64,100,128,256           # batch, steps, inputs, hidden
    python benches/compare.py --torch-modules                  # rnncore.torch against torch.nn
    python benches/compare.py --show benches/results/*.json    # records as tables, nothing runs
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from peers import GATES, PEERS, Case, Problem, installed_peers
from timing import available_cpus, circumstances, cpu_name, pin_to_cpus
from workloads import (
    PEAK_SIZE,
    Row,
    Table,
    Workload,
    differences,
    fill,
    head_of,
    measure,
    rounded,
    table_line,
)

RESULTS = Path(__file__).resolve().parent / "results"

SHAPES = [  # batch, steps, inputs, hidden
    (1, 1, 128, 256),
    (1, 50, 32, 32),
    (32, 50, 50, 128),
    (128, 50, 50, 128),
    (64, 100, 128, 256),
    (64, 100, 256, 512),
    (64, 50, 1024, 1024),
]
CASES = [Case(cell, *shape) for shape in SHAPES for cell in GATES]
# A classifier's gradient enters at the last step and decays on its way back, into denormals.
CASES.append(Case("LSTM", 64, 300, 128, 256, gradient="last"))


def workloads(cases: Iterable[Case], threads: int, peers: list[str]) -> Iterator[Workload]:
    """Give all rows of the table, each checked."""
    for case in cases:
        yield from layer_passes(case, threads, peers)


def layer_passes(case: Case, threads: int, names: list[str]) -> Iterator[Workload]:
    """Give inference and the training step of one layer, each checked against torch's."""
    problem = Problem(case)
    peers = {name: PEERS[name](problem, threads) for name in names}
    if case.gradient == "all":
        outputs = {name: {"output": peer.forward()} for name, peer in peers.items()}
        yield Workload(
            what={"pass": "forward", **asdict(case)},
            flops=case.forward_flops,
            runs={name: peer.forward for name, peer in peers.items()},
            wrong=differences(outputs),
        )
    trainers = {name: peer for name, peer in peers.items() if peer.trains}
    steps = {name: peer.step() for name, peer in trainers.items()}
    yield Workload(
        what={"pass": "step", **asdict(case)},
        flops=3 * case.forward_flops,
        runs={name: peer.step for name, peer in trainers.items()},
        wrong=differences({name: {"output": y, **grads} for name, (y, grads) in steps.items()}),
    )


def table_row(row: Row, peers: list[str]) -> str:
    """Give a row's figures."""
    what = row.what
    title = f"{what['cell']} {what['pass']} " + ",".join(
        str(what[key]) for key in ("batch", "steps", "inputs", "hidden")
    )
    if what["gradient"] == "last":
        title += " last"
    times = [f"{row.milliseconds[name]:.4g}" if name in row.milliseconds else "" for name in peers]
    figures = [f"{row.versus_torch:.2f}", f"{row.versus_best:.2f}", f"{row.gflops:.0f}"]
    return table_line([title, *times, *figures, f"{row.share_of_peak:.0%}"])


def layer_table(peers: list[str]) -> Table:
    """Give the table of our layers and their peers."""
    names = [f"{name} ms".replace("onnxruntime", "ORT") for name in peers]
    return Table(
        head=head_of(["B,T,I,H", *names, "torch / us", "best / us", "GF/s", "of peak"]),
        line=lambda row: table_row(row, peers),
        summary=layer_summary,
    )


def layer_summary(rows: Sequence[Row]) -> str:
    """Say how often we are faster."""
    faster = sum(row.versus_torch > 1 for row in rows)
    best = sum(row.versus_best > 1 for row in rows)
    return f"faster than torch in {faster} of {len(rows)} rows, than every peer in {best}"


def table_of(comparison: str, peers: list[str]) -> Table:
    """Give the table of a comparison by its name."""
    if comparison == "torch-modules":
        import torch_modules

        return torch_modules.TABLE
    return layer_table(peers)


def print_head(table: Table, cpu: str, threads: int, versions: Mapping[str, str]) -> None:
    """Print what stands above the rows."""
    print(f"\n{cpu}, {threads} thread(s): {', '.join(map(' '.join, versions.items()))}\n")
    print(table.head, flush=True)


def versions(peers: list[str]) -> dict[str, str]:
    """Give the installed version of each peer."""
    return {name: importlib.metadata.version(name) for name in peers}


def record(
    comparison: str, rows: list[Row], threads: int, peers: list[str], facts: dict[str, Any]
) -> Path:
    """Write a complete run to results/."""
    import rnncore

    slug = re.sub(r"\W+", "-", re.sub(r"\((R|TM)\)|@.*", "", facts["cpu"])).strip("-").lower()
    kind = "" if comparison == "layers" else f"-{comparison}"
    path = RESULTS / f"{slug}{kind}-{threads}.json"
    content = {
        "comparison": comparison,
        **facts,
        "threads": threads,
        "isa": rnncore._core.isa(),
        "versions": versions(peers),
        "numpy": np.__version__,
        "sgemm": f"float32, {PEAK_SIZE} x {PEAK_SIZE} x {PEAK_SIZE}, by torch.mm and by oneDNN",
        "rows": [
            {
                "what": row.what,
                "milliseconds": rounded(row.milliseconds),
                **rounded({"gflops": row.gflops}),
                "sgemm_gflops": rounded(row.sgemm_gflops),
            }
            for row in rows
        ],
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def show(path: Path) -> None:
    """Print a record as it was printed when it was made."""
    content = json.loads(path.read_text())
    table = table_of(content.get("comparison", "layers"), list(content["versions"]))
    print_head(table, content["cpu"], content["threads"], content["versions"])
    rows = [Row(**row) for row in content["rows"]]
    for row in rows:
        print(table.line(row))
    print("\n" + table.summary(rows))


def run_on(threads: int, chosen: argparse.Namespace, command: str) -> None:
    """Do the comparison on some threads, in this process; exit with its status."""
    facts = {"command": command, **circumstances()}
    pin_to_cpus(threads)
    modules = chosen.torch_modules is not None
    comparison = "torch-modules" if modules else "layers"
    peers = ["rnncore", "torch"] if modules else installed_peers()
    table = table_of(comparison, peers)
    print_head(table, cpu_name(), threads, versions(peers))
    if modules:
        import torch_modules

        forms, cells = chosen.torch_modules or torch_modules.FORMS, chosen.cell or list(GATES)
        jobs = torch_modules.workloads(forms, cells, chosen.shape or SHAPES, threads)
        rows = fill(table, jobs, lambda job: torch_modules.measure(job, chosen.quick))
    else:
        jobs = workloads(selected(chosen), threads, peers)
        rows = fill(table, jobs, lambda job: measure(job, threads, chosen.quick))
    if rows is None:
        sys.exit(1)
    if not (chosen.quick or chosen.cell or chosen.shape or chosen.torch_modules):
        print(f"recorded in {record(comparison, rows, threads, peers, facts)}")


def shape(text: str) -> tuple[int, ...]:
    """Read "batch,steps,inputs,hidden"."""
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 4 or min(numbers) < 1:
        raise ValueError
    return numbers


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few samples; nothing is recorded")
    parser.add_argument("--cell", nargs="+", choices=sorted(GATES), help="these cells alone")
    parser.add_argument(
        "--shape", nargs="+", type=shape, metavar="B,T,I,H", help="these shapes, of the grid or not"
    )
    parser.add_argument(
        "--torch-modules",
        nargs="*",
        metavar="FORM",
        help="rnncore.torch against torch.nn instead; all forms, or these",
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--show", nargs="+", type=Path, metavar="FILE", help="print these records")
    chosen = parser.parse_args(arguments)
    if not all(1 <= count <= available_cpus() for count in chosen.threads):
        parser.error(f"--threads: from 1 to the {available_cpus()} processors here")
    return chosen


def selected(chosen: argparse.Namespace) -> list[Case]:
    """Give the cases that the command line asks for."""
    cells = chosen.cell or list(GATES)
    if chosen.shape:
        return [Case(cell, *numbers) for numbers in chosen.shape for cell in cells]
    return [case for case in CASES if case.cell in cells]


def main(arguments: list[str]) -> int:
    """Run the command line; give the exit status."""
    chosen = parse(arguments)
    if chosen.show:
        for path in chosen.show:
            show(path)
        return 0
    missing = {"rnncore", "torch"}.difference(installed_peers())
    if missing:
        print(f"error: not installed: {', '.join(missing)}; try `make bench`", file=sys.stderr)
        return 1
    command = shlex.join(["python", "benches/compare.py", *arguments])
    statuses = []
    for threads in chosen.threads:
        process = get_context("spawn").Process(target=run_on, args=(threads, chosen, command))
        process.start()
        process.join()
        statuses.append(process.exitcode)
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
