"""Killed processes and Ctrl-C in a terminal: real ones, with real networks."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

# Trains in one process after the other, each a fork of this one. Those with a number above 0 are
# killed at the n-th time that a file or a folder is about to be written through, which for odd n is
# before a checkpoint gets its name, and for even n after. Prints how each process ended.
TRAIN = """
import json, os, signal, sys
import numpy as np
from rnncore import LSTM

runs, options = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
X = [rng.standard_normal((n, 3)) for n in rng.integers(1, 30, 50)]
y = [(x.cumsum(axis=0)[:, 0] > 0).astype(int) for x in X]

def count_or_die(handle):  # and not wait for the disk: what was written outlives the process
    global kill_at
    kill_at -= 1
    if kill_at == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def train(folder, out):
    model = LSTM(
        6, num_layers=2, dropout=0.2, batch_size=8, random_state=3, checkpoint_dir=folder, **options
    )
    model.fit(X, y, resume=True)
    history = {"history " + k: v for k, v in model.history_.items() if k != "seconds"}
    arrays = {**model._network.parameters(), **history}
    np.savez(out, *model.predict_proba(X), best=getattr(model, "best_epoch_", 0), **arrays)

os.fsync = count_or_die
for folder, out, kill_at in runs:
    child = os.fork()
    if child == 0:
        train(folder, out)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

EARLY = {"early_stopping": True, "n_iter_no_change": 3, "tol": 0.0, "learning_rate": 0.1}
BPTT = {"bptt_steps": 7, "checkpoint_minutes": 1e-9, "checkpoint_epochs": None}


def command(runs: list[tuple[Path, int]], options: dict) -> list[str]:
    """Return the command that trains in folders, killed so soon, and saves what comes out."""
    listed = [[str(folder), f"{folder}.npz", kill_at] for folder, kill_at in runs]
    return [sys.executable, "-c", TRAIN, json.dumps([listed, options])]


def ends(runs: list[tuple[Path, int]], options: dict) -> list[int]:
    """Return how the processes of a command ended."""
    done = subprocess.run(command(runs, options), check=True, stdout=subprocess.PIPE)
    return [int(line) for line in done.stdout.split()]


def compare(got: Path, want: Path) -> None:
    with np.load(f"{got}.npz") as got, np.load(f"{want}.npz") as want:
        assert sorted(got) == sorted(want)
        assert len(want["history loss"]) > 3
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kills"),
    [
        ({}, [1, 4]),
        ({"lr_schedule": "plateau", "optimizer": "sgd", "checkpoint_epochs": 2}, [3]),
        (EARLY, [5, 8]),
        ({**EARLY, "lr_schedule": "cosine", "checkpoint_minutes": 1e-9}, [3, 20]),
        (BPTT, [2, 31]),
        ({**BPTT, "accumulate_batches": 2, "shuffle": False}, [11]),
        ({**BPTT, "bptt_steps": [2, 6]}, [9, 12]),
    ],
    ids=str,
)
def test_killed_and_resumed_is_uninterrupted(options, kills, tmp_path):
    options = {"max_epochs": 8, **options}
    runs = [(tmp_path / "a", 0), *((tmp_path / "b", kill_at) for kill_at in [*kills, 0])]
    assert ends(runs, options) == [0, *[-signal.SIGKILL] * len(kills), 0]
    assert os.listdir(tmp_path / "b") == ["checkpoint.safetensors"]
    compare(tmp_path / "b", tmp_path / "a")


@pytest.mark.slow
def test_killed_at_any_time(tmp_path):
    """As above, but from outside, at times that nothing in the process knows of."""
    options = {"max_epochs": 30, "checkpoint_minutes": 1e-9}
    path = tmp_path / "b" / "checkpoint.safetensors"
    for wait in (0.0, 0.013):
        before = path.stat().st_mtime_ns if path.exists() else 0
        group = subprocess.Popen(command([(tmp_path / "b", 0)], options), start_new_session=True)
        with group:
            while not path.exists() or path.stat().st_mtime_ns == before:
                assert group.poll() is None
                time.sleep(0.001)
            time.sleep(wait)
            os.killpg(group.pid, signal.SIGKILL)
    assert not (tmp_path / "b.npz").exists()
    assert ends([(tmp_path / "a", 0), (tmp_path / "b", 0)], options) == [0, 0]
    compare(tmp_path / "b", tmp_path / "a")


INTERRUPTED = """
import sys, warnings
import numpy as np
import rnncore

warnings.simplefilter("default")
rng = np.random.default_rng(0)
X = rng.standard_normal((3000, 200, 8)).astype(np.float32)
model = rnncore.LSTM(128, max_epochs=1000, verbose=1, **eval(sys.argv[1]))
model.fit(X, X[:, 0, 0])
print("KEPT", model.n_epochs_, np.isfinite(model.predict(X[:5])).all(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"early_stopping": True}], ids=str)
def test_ctrl_c_in_a_terminal(options):
    import pty
    import termios

    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execv(sys.executable, [sys.executable, "-c", INTERRUPTED, repr(options)])
    termios.tcsetwinsize(terminal, (24, 200))
    shown = read_until(terminal, b"steps/s")
    assert b"epoch    1/1000" in shown
    pressed = time.perf_counter()
    os.write(terminal, b"\x03")
    shown = read_until(terminal, b"KEPT")
    taken = time.perf_counter() - pressed
    shown += read_until(terminal, None)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert b"UserWarning: fit was interrupted in epoch 1 of 1000: the model keeps what" in shown
    assert b"KEPT 0 True" in shown
    assert os.waitstatus_to_exitcode(status) == 0
    assert taken < 1


def read_until(terminal: int, word: bytes | None) -> bytes:
    """Return what a terminal shows until a word, or until its process has ended."""
    shown = b""
    while word is None or word not in shown:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            part = b""
        if not part:
            assert word is None, shown
            break
        shown += part
    return shown
