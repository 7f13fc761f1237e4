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

# Trains; killed at the n-th time that a file or a folder is about to be written through, which for
# odd n is before a checkpoint gets its name, and for even n after.
KILLED = """
import json, os, signal, sys
import numpy as np
import rnncore

folder, resume, out, kill_at, options = json.loads(sys.argv[1])
fsync = os.fsync

def fsync_or_die(handle):
    global kill_at
    kill_at -= 1
    if kill_at == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)

os.fsync = fsync_or_die
rng = np.random.default_rng(0)
X = [rng.standard_normal((n, 3)) for n in rng.integers(1, 30, 50)]
y = [(x.cumsum(axis=0)[:, 0] > 0).astype(int) for x in X]
model = rnncore.LSTM(
    6, num_layers=2, dropout=0.2, batch_size=8, random_state=3, checkpoint_dir=folder, **options
)
model.fit(X, y, resume=resume)
history = {k: v for k, v in model.history_.items() if k != "seconds"}
np.savez(out, n=model.n_epochs_, best=getattr(model, "best_epoch_", 0), *model.predict_proba(X),
         **model._network.parameters(), **{"history " + k: v for k, v in history.items()})
"""

EARLY = {"early_stopping": True, "n_iter_no_change": 3, "tol": 0.0, "learning_rate": 0.1}
BPTT = {"bptt_steps": 7, "checkpoint_minutes": 1e-9, "checkpoint_epochs": None}


def run(folder: Path, resume: bool, out: Path, kill_at: int, options: dict) -> int:
    arguments = json.dumps([str(folder), resume, str(out), kill_at, options])
    return subprocess.run([sys.executable, "-c", KILLED, arguments], check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kills"),
    [
        ({}, [1, 4, 5]),
        ({"lr_schedule": "plateau", "optimizer": "sgd", "checkpoint_epochs": 2}, [3]),
        (EARLY, [5, 8]),
        ({**EARLY, "lr_schedule": "cosine", "checkpoint_minutes": 1e-9}, [3, 20, 31]),
        (BPTT, [2, 23, 50]),
        ({**BPTT, "accumulate_batches": 2, "shuffle": False}, [11]),
        ({**BPTT, "bptt_steps": [2, 6]}, [9, 12]),
    ],
    ids=str,
)
def test_killed_and_resumed_is_uninterrupted(options, kills, tmp_path):
    options = {"max_epochs": 8, **options}
    assert run(tmp_path / "a", False, tmp_path / "want.npz", 0, options) == 0
    for kill_at in kills:
        killed = run(tmp_path / "b", True, tmp_path / "never.npz", kill_at, options)
        assert killed == -signal.SIGKILL
    assert run(tmp_path / "b", True, tmp_path / "got.npz", 0, options) == 0
    assert os.listdir(tmp_path / "b") == ["checkpoint.safetensors"]
    want, got = np.load(tmp_path / "want.npz"), np.load(tmp_path / "got.npz")
    assert sorted(want) == sorted(got)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.slow
def test_killed_at_any_time(tmp_path):
    """As above, but from outside, at times that nothing in the process knows of."""
    options = {"max_epochs": 60, "checkpoint_minutes": 1e-9}
    assert run(tmp_path / "a", False, tmp_path / "want.npz", 0, options) == 0
    arguments = json.dumps([str(tmp_path / "b"), True, str(tmp_path / "got.npz"), 0, options])
    path = tmp_path / "b" / "checkpoint.safetensors"
    for wait in (0.0, 0.013, 0.029):
        before = path.stat().st_mtime_ns if path.exists() else 0
        with subprocess.Popen([sys.executable, "-c", KILLED, arguments]) as process:
            while not path.exists() or path.stat().st_mtime_ns == before:
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(wait)
            process.kill()
    assert run(tmp_path / "b", True, tmp_path / "got.npz", 0, options) == 0
    want, got = np.load(tmp_path / "want.npz"), np.load(tmp_path / "got.npz")
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


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

    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execv(sys.executable, [sys.executable, "-c", INTERRUPTED, repr(options)])
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
