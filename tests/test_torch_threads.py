"""Whose threads the torch modules run on; each test in a process of its own, as threads stay."""

import ctypes
import subprocess
import sys
import textwrap

import pytest
import torch

BEGINNING = '''
import os
import time
from pathlib import Path

import numpy as np
import torch

import rnncore.torch

def ours_appear(seconds):
    """Wait for a thread of ours: one that has just started may not have its name yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any("rnncore" in name.read_text() for name in Path("/proc/self/task").glob("*/comm")):
            return True
        time.sleep(0.01)
    return False

torch.manual_seed(0)
torch.set_num_threads(2)
layer = rnncore.torch.GRU(64, 96)
x = torch.randn(20, 40, 64)

def step(layer, x):
    layer.zero_grad()
    output, _ = layer(x)
    output.sum().backward()
    return [output.detach(), *[p.grad for p in layer.parameters()]]

def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
'''

openmp = pytest.mark.skipif(
    "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info()
    or not sys.platform.startswith("linux")
    or not hasattr(ctypes.CDLL(None), "GOMP_parallel"),
    reason="no OpenMP runtime that can be called",
)


def run(code: str) -> None:
    program = BEGINNING + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@openmp
def test_torchs_threads_do_our_work_and_no_others_start():
    run(
        """
        found = step(layer, x)
        assert not ours_appear(0.2)
        torch.set_num_threads(1)
        assert same(step(layer, x), found)
        rnncore.set_num_threads(2)
        rnncore.nn.GRU(64, 96)(x.numpy())
        assert ours_appear(60)
        """
    )


@openmp
def test_threads_that_stayed_with_the_parent_are_not_waited_for():
    run(
        """
        found = step(layer, x)
        child = os.fork()
        if child == 0:
            again, _ = layer(x)
            right = np.array_equal(again.detach().numpy(), found[0].numpy())
            os._exit(0 if right and ours_appear(60) else 1)
        assert os.waitpid(child, 0)[1] == 0
        """
    )


@openmp
def test_a_child_whose_parent_never_called_us_does_not_wait_for_torchs_threads():
    run(
        """
        torch.randn(4_000_000).exp()  # by torch's threads
        child = os.fork()
        if child == 0:
            layer(x)
            os._exit(0 if ours_appear(60) else 1)
        assert os.waitpid(child, 0)[1] == 0
        """
    )


def test_several_python_threads_call_at_once():
    run(
        """
        from threading import Thread

        expected = step(layer, x)
        right = []

        def work():
            mine = rnncore.torch.GRU(64, 96)
            mine.load_state_dict(layer.state_dict())
            right.append(all(same(step(mine, x), expected) for _ in range(20)))

        workers = [Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert right == [True] * 3
        """
    )
