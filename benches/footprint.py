"""By how much memory rises at most while something runs, in a process of its own; on Linux."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CLEAR = Path("/proc/self/clear_refs")


def is_measured() -> bool:
    """Say whether this system tells."""
    return CLEAR.exists()


def alone(function: Callable[..., float], *arguments: Any, **options: Any) -> Callable[[], float]:
    """Give a call of a function in a fresh process."""

    def run() -> float:
        with get_context("spawn").Pool(1) as pool:
            return pool.apply(function, arguments, options)

    return run


def rise(run: Callable[[], object]) -> float:
    """
    Give by how many megabytes resident memory rises at most while `run` runs.

    What was there before does not count, what it returns does. Memory that was freed before goes
    back to the system first, so that what it is used for again counts.
    """
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    CLEAR.write_text("5")  # the peak begins anew
    before = _resident("VmRSS")
    result = run()
    peak = _resident("VmHWM")
    del result
    return (peak - before) / 1e6


def _resident(field: str) -> int:
    """Give a figure of this process's memory in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s*(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
