"""The benchmark against other libraries: it notices a wrong result, and it runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHES = Path(__file__).resolve().parent.parent / "benches"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHES))
    import compare

    return compare


def test_differences_lets_rounding_pass(compare):
    for want in (np.linspace(-1, 1, 7), np.zeros(7)):
        assert compare.differences({"torch": {"x": want}, "rnncore": {"x": want + 1e-6}}) == []


@pytest.mark.parametrize(
    "got",
    [
        {"x": np.linspace(-1, 1, 7) + 1e-3},
        {"x": np.full(7, np.nan)},
        {"x": np.linspace(-1, 1, 7)[:, None]},
        {},
    ],
    ids=["off", "nan", "shape", "missing"],
)
def test_differences_names_what_is_wrong(compare, got):
    wrong = compare.differences({"torch": {"x": np.linspace(-1, 1, 7)}, "rnncore": got})
    assert len(wrong) == 1
    assert wrong[0].startswith("rnncore")


@pytest.mark.slow
def test_a_row_for_each_pass_is_printed():
    options = ["--quick", "--threads", "1", "--cell", "LSTM", "GRU", "--shape", "2,3,4,5"]
    done = subprocess.run(
        [sys.executable, BENCHES / "compare.py", *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "2,3,4,5" in line]
    assert [row.split()[1:3] for row in rows] == [
        ["LSTM", "forward"],
        ["LSTM", "step"],
        ["GRU", "forward"],
        ["GRU", "step"],
    ]
