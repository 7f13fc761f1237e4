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
    python benches/compare.py --show benches/results/*.json    # records as tables, nothing runs
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from peers import GATES, PEERS, Case, Problem, installed_peers
from timing import available_cpus, circumstances, cpu_name, pin_to_cpus
from workloads import PEAK_SIZE, Row, Workload, differences, measure, rounded, table_line

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


def table_head(peers: list[str]) -> str:
    """Give the names of the columns."""
    names = [
        "B,T,I,H",
        *(f"{name} ms".replace("onnxruntime", "ORT") for name in peers),
        "torch / us",
        "best / us",
    ]
    head = table_line([*names, "GF/s", "of peak"])
    return head + "\n" + re.sub(r"[^|]", "-", head)


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


def print_head(cpu: str, threads: int, versions: Mapping[str, str]) -> None:
    """Print what stands above the rows."""
    print(f"\n{cpu}, {threads} thread(s): {', '.join(map(' '.join, versions.items()))}\n")
    print(table_head(list(versions)), flush=True)


def compare(cases: list[Case], threads: int, peers: list[str], quick: bool) -> list[Row] | None:
    """Check, time and print every row; None when a result was wrong."""
    print_head(cpu_name(), threads, versions(peers))
    rows, wrong = [], []
    for workload in workloads(cases, threads, peers):
        for line in workload.wrong:
            wrong.append(line)
            print(f"WRONG: {workload.what}: {line}", file=sys.stderr, flush=True)
        if not workload.wrong:
            rows.append(measure(workload, threads, quick))
            print(table_row(rows[-1], peers), flush=True)
    faster = sum(row.versus_torch > 1 for row in rows)
    best = sum(row.versus_best > 1 for row in rows)
    print(f"\nfaster than torch in {faster} of {len(rows)} rows, than every peer in {best}")
    return None if wrong else rows


def versions(peers: list[str]) -> dict[str, str]:
    """Give the installed version of each peer."""
    return {name: importlib.metadata.version(name) for name in peers}


def record(rows: list[Row], threads: int, peers: list[str], facts: dict[str, Any]) -> Path:
    """Write a complete run to results/<cpu>-<threads>.json."""
    import rnncore

    slug = re.sub(r"\W+", "-", re.sub(r"\((R|TM)\)|@.*", "", facts["cpu"])).strip("-").lower()
    path = RESULTS / f"{slug}-{threads}.json"
    content = {
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
    print_head(content["cpu"], content["threads"], content["versions"])
    for row in content["rows"]:
        print(table_row(Row(**row), list(content["versions"])))


def run_on(threads: int, chosen: argparse.Namespace, command: str) -> None:
    """Do the comparison on some threads, in this process; exit with its status."""
    facts = {"command": command, **circumstances()}
    pin_to_cpus(threads)
    peers = installed_peers()
    rows = compare(selected(chosen), threads, peers, chosen.quick)
    if rows is None:
        sys.exit(1)
    if not (chosen.quick or chosen.cell or chosen.shape):
        print(f"recorded in {record(rows, threads, peers, facts)}")


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
