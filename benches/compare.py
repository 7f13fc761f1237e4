"""
rnncore against torch, ONNX Runtime, JAX and Keras, and against what is asked of it, measured here.

Topics are run one by one, each in a process of its own that is pinned to as many processors as it
has threads: the grid on each number of threads, the others on the most. A row that holds rnncore
against others is checked against torch's numbers before it is timed; then all who do the job run in
turn, and medians are taken. The eleven goals come last: what is asked, what was reached and in
which row, over all rows on the most threads. A topic that was run whole, beside all peers and on 2
threads, is recorded in benches/results/, a file a machine. The exit status is 1 when a result is
wrong: a goal that is not reached is no error.

    python benches/compare.py                                  # all of it
    python benches/compare.py --quick                          # some of each topic, few samples
    python benches/compare.py --rows 4 6                       # what goals 4 and 6 need
    python benches/compare.py --rows 1 --cell LSTM --threads 2 --shape 64,100,128,256
    python benches/compare.py --torch-modules                  # rnncore.torch against torch.nn
    python benches/compare.py --kernels                        # where the time of a step goes
    python benches/compare.py --show benches/results/*.json    # records as tables, nothing runs
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import reach
import record
from peers import PEERS, installed_peers
from problems import GATES
from timing import available_cpus, circumstances, pin_to_cpus
from topics import (
    MODULE_FORMS,
    Scope,
    Topic,
    checkpointing,
    grid,
    growth,
    kernels,
    last_step,
    memory,
    ragged,
    streaming,
    variants,
    whole_fit,
)
from workloads import PEAK_SIZE, Row, table_line

TOPICS = [
    module.TOPIC
    for module in (
        grid,
        whole_fit,
        ragged,
        streaming,
        memory,
        growth,
        variants,
        last_step,
        checkpointing,
        kernels,
    )
]
GOALS = range(1, 12)
THREADS = [1, 2]  # the goals are of the most


def topic_of(name: str) -> Topic:
    """Give a topic by its name; that of modules alone imports torch."""
    if name == "torch modules":
        from topics import torch_modules

        return torch_modules.TOPIC
    return next(topic for topic in TOPICS if topic.name == name)


def print_head(topic: Topic, threads: int) -> None:
    """Print what stands above the rows."""
    print(f"\n## {topic.heading}, {threads} thread(s)\n\n{topic.notes}\n")
    print_columns(topic)


def print_columns(topic: Topic) -> None:
    """Print the names of the columns, and the rule beneath."""
    head = table_line(["B,T,I,H", *topic.columns])
    print(head, re.sub(r"[^|]", "-", head), sep="\n", flush=True)


def print_summary(topic: Topic, rows: Sequence[Row]) -> None:
    """Print what is said of all rows."""
    for text in (topic.summary(rows) if rows else "", disturbance(topic, rows)):
        if text:
            print(f"\n{text}")


def disturbance(topic: Topic, rows: Iterable[Row]) -> str:
    """Say which rows the machine was not at its best for, and for which share of their samples."""
    found = [f"{topic.title(row.what)} {row.disturbed:.0%}" for row in rows if row.disturbed]
    return f"disturbed, of all samples: {', '.join(found)}" if found else ""


def print_row(topic: Topic, row: Row) -> None:
    """Print a row's figures."""
    cells = [column(row) for column in topic.columns.values()]
    print(table_line([topic.title(row.what), *cells]), flush=True)


def run_topic(name: str, scope: Scope, results: Connection) -> None:
    """Check, time and print the rows of a topic, in this process; send them to who asked."""
    pin_to_cpus(scope.threads)
    topic = topic_of(name)
    rows, is_right = [], True
    try:
        for workload in topic.workloads(scope):
            for line in workload.wrong:
                is_right = False
                print(f"WRONG: {topic.title(workload.what)}: {line}", file=sys.stderr, flush=True)
            if not workload.wrong:
                rows.append(topic.measure(workload, scope.threads, scope.quick))
                print_row(topic, rows[-1])
        print_summary(topic, rows)
    except Exception:
        traceback.print_exc()
        is_right = False
    results.send((rows, is_right))


def rows_of(topic: Topic, scope: Scope) -> tuple[list[Row], bool]:
    """Run a topic in a process of its own; say too whether all was right."""
    print_head(topic, scope.threads)
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_topic, args=(topic.name, scope, sender))
    process.start()
    sender.close()
    try:
        rows, is_right = receiver.recv()
    except EOFError:  # it died
        rows, is_right = [], False
    process.join()
    return rows, is_right


def compare(chosen: argparse.Namespace, command: str) -> bool:
    """Run the chosen topics and print what they reach; say whether all results were right."""
    facts = {"command": command, **circumstances(), "versions": versions()}
    cpu = facts.pop("cpu")
    print(f"{cpu}: {', '.join(map(' '.join, facts['versions'].items()))}")
    found, all_right = {}, True
    for topic in chosen_topics(chosen):
        counts = topic.counts(chosen.threads)
        rows: dict[int, list[Row]] = {}
        right = []
        for threads in counts:
            scope = Scope(
                threads,
                chosen.quick,
                chosen.cell,
                chosen.shape,
                installed_peers(),
                chosen.torch_modules or (),
            )
            rows[threads], is_right = rows_of(topic, scope)
            right.append(is_right)
        all_right &= all(right)
        found[topic.name] = rows[max(counts)]
        if is_whole(chosen) and all(right) and any(rows.values()):
            record.save(cpu, topic.name, rows, facts)
    if not is_beside_goals(chosen):
        print_goals(found, chosen.rows)
    return all_right


def is_whole(chosen: argparse.Namespace) -> bool:
    """Say whether topics run whole, on as many threads as the goals are of, beside all peers."""
    is_part = chosen.quick or chosen.shape or chosen.torch_modules or len(chosen.cell) < len(GATES)
    return not (is_part or max(chosen.threads) < max(THREADS) or set(PEERS) - {*installed_peers()})


def print_goals(rows: Mapping[str, Iterable[Row]], numbers: Iterable[int]) -> None:
    """Print what is asked and what was reached."""
    print(f"\n## The goals\n\n{reach.table(reach.verdicts(TOPICS, rows, numbers))}")


def versions() -> dict[str, str]:
    """Give the installed version of each peer, and what else decides about speed."""
    import rnncore

    modules = {module for name in installed_peers() for module in PEERS[name].needs}
    found = {name: importlib.metadata.version(name) for name in sorted(modules)}
    return {
        **found,
        "numpy": np.__version__,
        "instructions": rnncore._core.isa(),
        "sgemm": f"{PEAK_SIZE} x {PEAK_SIZE} x {PEAK_SIZE}",
    }


def show(path: Path, chosen: argparse.Namespace) -> None:
    """Print a record as it was printed when it was made."""
    content = record.load(path)
    print(content["cpu"])
    found: dict[str, list[Row]] = {}
    for topic in chosen_topics(chosen):
        section = content["sections"].get(topic.name)
        if section is None:
            continue
        for threads in sorted({row["threads"] for row in section["rows"]}):
            print_head(topic, threads)
            found[topic.name] = record.rows_of(section, threads)
            for row in found[topic.name]:
                print_row(topic, row)
            print_summary(topic, found[topic.name])
        print(f"\n{section['date']}, {section['commit']}: {section['command']}")
    if not is_beside_goals(chosen):
        print_goals(found, chosen.rows)


def is_beside_goals(chosen: argparse.Namespace) -> bool:
    """Say whether a topic was chosen that belongs to no goal."""
    return chosen.kernels or chosen.torch_modules is not None


def chosen_topics(chosen: argparse.Namespace) -> list[Topic]:
    """Give the topics that the command line asks for."""
    if chosen.kernels:
        return [kernels.TOPIC]
    if chosen.torch_modules is not None:
        return [topic_of("torch modules")]
    wanted = set(chosen.rows)
    found = [topic for topic in TOPICS if {target.number for target in topic.targets} & wanted]
    return [*found, kernels.TOPIC] if chosen.show else found


def shape(text: str) -> tuple[int, ...]:
    """Read "batch,steps,inputs,hidden"."""
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.isdecimal() and int(number) for number in numbers):
        raise argparse.ArgumentTypeError(f"expected B,T,I,H as 64,100,128,256, got {text!r}")
    return tuple(map(int, numbers))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rows and samples; not recorded")
    parser.add_argument(
        "--rows",
        nargs="+",
        type=int,
        choices=GOALS,
        default=list(GOALS),
        metavar="N",
        help="these goals alone, from 1 to 11",
    )
    parser.add_argument(
        "--cell", nargs="+", choices=sorted(GATES), default=list(GATES), help="these cells alone"
    )
    parser.add_argument(
        "--shape", nargs="+", type=shape, metavar="B,T,I,H", help="shapes instead of the grid's"
    )
    parser.add_argument(
        "--torch-modules",
        nargs="*",
        choices=MODULE_FORMS,
        metavar="FORM",
        help="rnncore.torch against torch.nn instead; all forms, or some of: "
        + ", ".join(MODULE_FORMS),
    )
    parser.add_argument(
        "--kernels", action="store_true", help="the passes of a layer by themselves instead"
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=int,
        metavar="N",
        help="not recorded without 2; the default is " + " ".join(map(str, THREADS)),
    )
    parser.add_argument("--show", nargs="+", type=Path, metavar="FILE", help="print these records")
    chosen = parser.parse_args(arguments)
    chosen.threads = chosen.threads or (THREADS[1:] if chosen.quick else THREADS)
    if not chosen.show and not all(1 <= count <= available_cpus() for count in chosen.threads):
        parser.error(f"--threads: from 1 to the {available_cpus()} processors here")
    return chosen


def main(arguments: list[str]) -> int:
    """Run the command line; give the exit status."""
    chosen = parse(arguments)
    if chosen.show:
        for path in chosen.show:
            show(path, chosen)
        return 0
    missing = {"rnncore", "torch"}.difference(installed_peers())
    if missing:
        print(f"error: not installed: {', '.join(missing)}; try `make bench`", file=sys.stderr)
        return 1
    command = shlex.join(["python", "benches/compare.py", *arguments])
    return 0 if compare(chosen, command) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
