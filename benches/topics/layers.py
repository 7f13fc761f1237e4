"""Inference and the training step of one layer, each checked against torch's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from peers import built
from problems import Case, Problem
from workloads import Workload, differences


def layer_passes(
    case: Case, threads: int, names: Sequence[str], against_peak: bool = False
) -> Iterator[Workload]:
    """Give both passes; where the gradient enters at the last step, the training step alone."""
    peers = built(Problem(case), names, threads)
    # Held against products in single precision, of which the processor does twice as many.
    flops = case.forward_flops * np.dtype(case.dtype).itemsize // 4 if against_peak else 0
    if case.gradient == "all":
        outputs = {name: peer.as_torchs(peer.forward()) for name, peer in peers.items()}
        yield Workload(
            what={"pass": "forward", **asdict(case)},
            runs={name: peer.forward for name, peer in peers.items()},
            wrong=differences(outputs, case.dtype),
            flops=flops,
        )
    trainers = {name: peer for name, peer in peers.items() if peer.trains}
    steps = {name: peer.as_torchs(*peer.step()) for name, peer in trainers.items()}
    yield Workload(
        what={"pass": "step", **asdict(case)},
        runs={name: peer.step for name, peer in trainers.items()},
        wrong=differences(steps, case.dtype),
        flops=3 * flops,
    )
