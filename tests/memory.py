"""How much memory some code takes, measured in a process of its own: a peak never falls."""

import subprocess
import sys

import pytest

# `getrusage` would begin with the peak of the process that started this one.
PEAK = """
def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
"""


def grown(before: str, code: str, *arguments: object) -> float:
    """Return by how many MB `code` raises the peak that `before`, run before it, leaves."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    lines = [PEAK, before, "start = peak()", code, "print(peak() - start)"]
    command = [sys.executable, "-c", "\n".join(lines), *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
