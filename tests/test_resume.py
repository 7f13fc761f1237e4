"""Resumed fits and callbacks with real networks; killed processes; Ctrl-C in a terminal."""

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

import rnncore

from .models import assert_same_bits

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

X = [np.random.default_rng(n).standard_normal((n, 2)) for n in (3, 1, 0, 7, 5, 5, 2, 9, 4, 6)]
Y = [int(len(x) > 4) for x in X]
IDS = np.random.default_rng(0).integers(0, 9, 400)
FEW = {"max_epochs": 4, "batch_size": 3, "random_state": 0}


class StopError(Exception):
    pass


def raise_in_epoch(epoch):
    def stop(model, logs):
        if logs["epoch"] == epoch:
            raise StopError

    return stop


# In this process.


@pytest.mark.parametrize(
    ("options", "data"),
    [
        ({"random_state": None}, (X, Y)),
        ({"early_stopping": True, "validation_fraction": 0.3}, (X, Y)),
        ({"lr_schedule": rnncore.schedules.WarmUp(2, "plateau"), "optimizer": "sgd"}, (X, Y)),
        ({"optimizer": rnncore.optim.RMSprop(0.01, momentum=0.5)}, (X, [float(y) for y in Y])),
        ({"task": "language_model", "embedding_dim": 3, "checkpoint_minutes": 1e-9}, (IDS,)),
        ({"task": "language_model", "embedding_dim": 3}, ("to be or not to be, " * 9,)),
        ({"class_weight": "balanced", "dropout": 0.5, "num_layers": 2}, (X, Y)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_resumed_fit_is_that_which_nothing_stopped(options, data, tmp_path):
    options = {**FEW, **options, "checkpoint_dir": tmp_path / "a"}
    model = rnncore.GRU(4, callbacks=raise_in_epoch(3), **options)
    with pytest.raises(StopError):
        model.fit(*data)
    resumed = rnncore.GRU(4, **options).fit(*data, resume=True)
    # The first two epochs come from the file; without a seed there is no other to compare with.
    np.testing.assert_array_equal(resumed.history_["loss"][:2], model.history_["loss"][:2])
    assert resumed.n_epochs_ == 4
    if options["random_state"] is None:
        return
    whole = rnncore.GRU(4, **{**options, "checkpoint_dir": tmp_path / "b"}).fit(*data, resume=True)
    assert_same_bits(resumed, whole)
    for name in set(whole.history_) - {"seconds"}:
        np.testing.assert_array_equal(resumed.history_[name], whole.history_[name])
    # A finished fit, with more epochs.
    resumed.set_params(max_epochs=6).fit(*data, resume=True)
    more = rnncore.GRU(4, **{**options, "max_epochs": 6, "checkpoint_dir": None}).fit(*data)
    assert_same_bits(resumed, more)


@pytest.mark.parametrize(
    ("change", "data", "message"),
    [
        ({"hidden_size": 5}, (X, Y), r"checkpoint.safetensors: .* hidden_size 4 there and 5 here"),
        ({"random_state": 1}, (X, Y), "random_state 0 there and 1 here"),
        ({"batch_size": 4, "dtype": "float64"}, (X, Y), "batch_size .*, dtype .float32. there"),
        ({"lr_schedule": "step"}, (X, Y), "lr_schedule null there and .step. here"),
        ({}, ([x + 1e-6 for x in X], Y), "with another X "),
        ({}, (X[:-1], Y[:-1]), "with another X, another y "),
        ({}, (X, Y[::-1]), "with another y "),
        ({"max_epochs": 3}, (X, Y), "max_epochs: expected at least 4, .* got 3"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_another_fit_is_not_resumed(change, data, message, tmp_path):
    model = rnncore.GRU(4, **FEW, checkpoint_dir=tmp_path).fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        model.set_params(**change).fit(*data, resume=True)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_a_fit_with_other_validation_data_is_not_resumed(tmp_path):
    model = rnncore.GRU(4, **FEW, checkpoint_dir=tmp_path).fit(X, Y)
    with pytest.raises(ValueError, match="got one with another eval_set "):
        model.fit(X, Y, eval_set=(X, Y), resume=True)


def test_a_fit_with_a_larger_vocabulary_is_not_resumed(tmp_path):
    texts, words = ["a b", "b", "a a"], ["a", "b"]
    vocabulary = rnncore.text.Vocabulary(words=words)
    model = rnncore.GRU(4, **FEW, vocabulary=vocabulary, checkpoint_dir=tmp_path)
    before = model.fit(texts, [0, 1, 0]).predict_proba(texts)
    model.set_params(vocabulary=rnncore.text.Vocabulary(words=[*words, "c"]))
    with pytest.raises(ValueError, match="vocabulary_size 4 there and 5 here"):
        model.fit(texts, [0, 1, 0], resume=True)
    np.testing.assert_array_equal(model.predict_proba(texts), before)


@pytest.mark.parametrize("per_step", [False, True])
def test_a_fit_with_other_padding_is_resumed(per_step, tmp_path):
    rng = np.random.default_rng(0)
    lengths, weights = np.array([3, 5, 1, 4]), np.ones((4, 5) if per_step else 4)
    numbers, ids = rng.standard_normal((4, 5, 2)), rng.integers(1, 9, (4, 5))
    y = rng.standard_normal(weights.shape)
    behind = np.arange(5) >= lengths[:, None]
    for folder, x, options in (
        ("numbers", numbers, {}),
        ("ids", ids, {"embedding_dim": 3}),
        ("model", ids, {"embedding_dim": 3, "task": "language_model"}),
    ):
        given = None if folder == "model" else y
        if per_step and given is not None:
            options["output"] = "sequence"
        model = rnncore.GRU(4, **FEW, **options, checkpoint_dir=tmp_path / folder)
        model.fit(x, given, lengths=lengths)
        x[behind] = 7
        if per_step:
            y[behind] = 7
        again = rnncore.GRU(4, **FEW, **options, checkpoint_dir=tmp_path / folder)
        again.fit(x, given, lengths=lengths, resume=True)
        assert_same_bits(again, model)
        x[0, 0] += 1
        with pytest.raises(ValueError, match="with another X"):
            again.fit(x, given, lengths=lengths, resume=True)
        x[0, 0] -= 1
        x[behind], y[y == 7] = 1, 1


def test_vectors_are_the_same_in_every_form(tmp_path):
    pd = pytest.importorskip("pandas")
    table = np.arange(400.0).reshape(200, 2)
    data, options = ([[1, 2], [3]], [0, 1]), {**FEW, "checkpoint_dir": tmp_path}
    model = rnncore.GRU(4, **options, embedding=pd.DataFrame(table)).fit(*data)
    rnncore.GRU(4, **options, embedding=list(table)).fit(*data, resume=True)
    table[100] += 1
    with pytest.raises(ValueError, match="with another embedding "):
        model.set_params(embedding=pd.DataFrame(table)).fit(*data, resume=True)


def test_a_refused_fit_leaves_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    model = rnncore.GRU(4, **FEW).fit(X, Y)
    before = model.predict_proba(X)
    model.set_params(checkpoint_dir=tmp_path / "a" / "b", early_stopping=True)
    for resume in (False, True):
        with pytest.raises(ValueError, match="early_stopping: expected at least 2 sequences"):
            model.fit(X[:1], [1.0], resume=resume)
    model.set_params(warm_start=True, hidden_size=5)
    with pytest.raises(ValueError, match="hidden_size and num_layers: expected"):
        model.fit(X, Y)
    model.set_params(hidden_size=4, checkpoint_dir=tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="checkpoint_dir: expected a folder"):
        model.fit(X, Y)
    assert os.listdir(tmp_path) == ["file"]
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_what_may_differ_does(tmp_path):
    rnncore.GRU(4, **FEW, checkpoint_dir=tmp_path).fit(X, Y)
    model = rnncore.GRU(
        4, **FEW, checkpoint_dir=tmp_path, checkpoint_epochs=2, n_jobs=1, callbacks=print
    )
    assert model.fit(X, Y, resume=True).n_epochs_ == 4


def test_callbacks_use_the_model(tmp_path):
    seen = []

    class Callback:
        def on_fit_begin(self, model):
            seen.append(model.predict(X))

        def on_epoch_end(self, model, logs):
            seen.append(model.score(X, Y))
            assert logs["val_accuracy"] == seen[-1]
            model.save(tmp_path / f"{logs['epoch']}.safetensors", include_optimizer=True)
            return logs["epoch"] == 3

        def on_fit_end(self, model):
            seen.append(model.best_epoch_)

    model = rnncore.GRU(4, **FEW, callbacks=Callback()).fit(X, Y, eval_set=(X, Y))
    assert model.n_epochs_ == 3
    assert len(seen) == 5
    assert seen[-1] == int(np.argmin(model.history_["val_loss"])) + 1
    assert_same_bits(rnncore.load(tmp_path / "3.safetensors"), model)
    # What was saved in between can be trained on, to the same.
    second = rnncore.load(tmp_path / "2.safetensors").set_params(warm_start=True, max_epochs=1)
    assert_same_bits(second.fit(X, Y), model)


# Killed processes.

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


@posix
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


@posix
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


# Ctrl-C.

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


@posix
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
