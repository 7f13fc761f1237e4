"""Checkpoints: what is in them, what is refused, and that a fit goes on to the same bits."""

import json
import math
import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from safetensors.numpy import save_file

import rnncore
from rnncore import _io
from rnncore._checkpoint import Checkpoint, Checkpoints, digest
from rnncore._state import State
from rnncore.schedules import ReduceOnPlateau

from .fake_network import FakeNetwork, FakeOptimizer, trainer

FINGERPRINT = {"hidden_size": (64, 32), "padding_value": math.nan, "X": digest(np.zeros(3))}
VAL_LOSSES = [3, 2, 4, 1, 5, 6, 7, 8, 9]


class KilledError(Exception):
    """What stands for a kill: nothing is written after it."""


def stop_at(epoch, batch):
    def kill():
        raise KilledError

    return {(epoch, batch): kill}


def fit(folder, *, events=None, resume=False, fingerprint=FINGERPRINT, **options):
    network = FakeNetwork(val_losses=VAL_LOSSES, events=events)
    made = trainer(network, **{"validation": True, "max_epochs": 6, **options})
    checkpoints = found = None
    if folder is not None:
        checkpoints = Checkpoints(folder, fingerprint)
        found = checkpoints.find(made._options["max_epochs"]) if resume else None
        checkpoints.make_folder()
    made.found = found
    with suppress(KilledError):
        made.fit(checkpoints, found)
    return made


def results(made):
    """Return all that two fits must agree in."""
    history = {name: values for name, values in made.state.history.items() if name != "seconds"}
    weights = {name: value.tobytes() for name, value in made.network.weights.items()}
    buffer = made.optimizer.buffer.tobytes()
    return weights, buffer, history, made.model.best_epoch_, made.state.counts, made.state.waited


# Going on.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr_schedule": ReduceOnPlateau(0.5, patience=0)},
        {"early_stopping": True, "n_iter_no_change": 2},
        {"early_stopping": True, "n_iter_no_change": 2, "checkpoint_epochs": 2},
        {"early_stopping": True, "restore_best": False},
        {"checkpoint_minutes": 1e-6},
        {"checkpoint_minutes": 1e-6, "checkpoint_epochs": None, "early_stopping": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("where", [(1, 0), (1, 3), (2, 0), (3, 2), (5, 1), (6, "validation")])
def test_a_killed_fit_goes_on_to_the_same_bits(options, where, tmp_path):
    want = fit(None, **options)
    fit(tmp_path, events=stop_at(*where), **options)
    again = fit(tmp_path, resume=True, **options)
    assert results(again) == results(want)
    assert again.model.history_ is again.state.history
    if "checkpoint_minutes" not in options:
        epochs = (where[0] - 1) // options.get("checkpoint_epochs", 1)
        epochs *= options.get("checkpoint_epochs", 1)
        first = again.network.calls[0]["epoch"]
        assert first == min(epochs, want.state.epoch - 1) + 1
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]


def test_it_goes_on_in_the_middle_of_an_epoch(tmp_path):
    options = {"checkpoint_minutes": 1e-6, "checkpoint_epochs": None}
    fit(tmp_path, events=stop_at(2, 3), **options)
    found = Checkpoints(tmp_path, FINGERPRINT).find(9)
    assert (found.state.epoch, found.position["done"], found.seconds > 0) == (1, 3, True)
    again = fit(tmp_path, resume=True, **options)
    assert again.network.calls[0]["position"]["done"] == 3
    assert results(again) == results(fit(None))
    assert again.state.history["seconds"][1] > found.seconds


def test_a_long_interval_does_not_pause(tmp_path):
    made = fit(tmp_path, checkpoint_minutes=10, checkpoint_epochs=None)
    assert len(made.network.calls) == 6
    assert 590 < made.network.calls[0]["pause_after"] <= 600
    assert Checkpoints(tmp_path, FINGERPRINT).find(9).state.epoch == 6


def test_a_finished_fit_is_only_read(tmp_path):
    options = {"early_stopping": True, "n_iter_no_change": 2}
    want = fit(tmp_path, **options)
    before = (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns
    again = fit(tmp_path, resume=True, **options)
    assert again.network.calls == []
    assert results(again) == results(want)
    assert again.model.n_epochs_ == 6
    assert (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns == before


def test_max_epochs_may_grow_and_not_shrink(tmp_path):
    fit(tmp_path, max_epochs=2)
    again = fit(tmp_path, resume=True, max_epochs=6)
    assert [call["epoch"] for call in again.network.calls] == [3, 4, 5, 6]
    assert results(again) == results(fit(None))
    with pytest.raises(ValueError, match=r"max_epochs: expected at least 6, as in .*got 5"):
        fit(tmp_path, resume=True, max_epochs=5)


def test_an_empty_folder_begins_anew_and_is_made(tmp_path):
    made = fit(tmp_path / "not" / "there", resume=True)
    assert made.found is None
    assert made.network.calls[0]["epoch"] == 1
    assert results(made) == results(fit(None))


def test_without_resume_a_fit_begins_anew(tmp_path):
    fit(tmp_path, max_epochs=2)
    made = fit(tmp_path, max_epochs=2)
    assert [call["epoch"] for call in made.network.calls] == [1, 2]


def test_the_seed_of_the_checkpoint_is_kept(tmp_path):
    fit(tmp_path, events=stop_at(3, 0))
    checkpoints = Checkpoints(tmp_path, FINGERPRINT)
    found = checkpoints.find(9)
    network = FakeNetwork(val_losses=VAL_LOSSES)
    made = trainer(network, state=State(seed=99), validation=True, max_epochs=6)
    made.fit(checkpoints, found)
    assert made.state.seed == 7
    assert results(made) == results(fit(None))


def test_a_warm_start_keeps_its_own_epochs(tmp_path):
    def begin():
        made = fit(None, max_epochs=2)
        return made, {"network": made.network, "optimizer": made.optimizer, "state": made.state}

    def warm(network, optimizer, state, found=None):
        made = trainer(
            network,
            optimizer=optimizer,
            state=state,
            validation=True,
            max_epochs=4,
            checkpoint_epochs=3,
        )
        with suppress(KilledError):
            made.fit(Checkpoints(tmp_path, {}), found)
        return made

    _, parts = begin()
    want = warm(**parts)
    _, parts = begin()
    parts["network"].events = stop_at(6, 2)
    warm(**parts)
    network = FakeNetwork(val_losses=VAL_LOSSES)
    found = Checkpoints(tmp_path, {}).find(9)
    assert (found.state.begin, found.state.epoch) == (2, 5)
    again = warm(network, FakeOptimizer(), State(0), found)
    assert results(again) == results(want)


# The file.


def test_everything_comes_back(tmp_path):
    checkpoint = Checkpoint(
        state=State(seed=2**63 - 1, epoch=3, counts={"best": math.inf, "waited": 1}),
        max_epochs=9,
        weights={"a.b": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0, 3))},
        optimizer={"steps": 4, "buffers": [np.ones(2), np.zeros(2)]},
        best=(2, 0.1, {"a.b": np.ones(1)}),
        position={"deep": [1, {"x": np.array([2**64 - 1], np.uint64)}, None, "text"], "y": 2**64},
        seconds=0.1 + 0.2,
    )
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.write(checkpoint)
    found = checkpoints.find(9)
    assert found.state == checkpoint.state
    assert (found.max_epochs, found.seconds) == (9, 0.1 + 0.2)
    assert found.position["deep"][1]["x"].dtype == np.uint64
    assert found.position["deep"][1]["x"] == 2**64 - 1
    assert found.position["deep"][0::2] == [1, None]
    assert found.position["deep"][3] == "text"
    assert found.position["y"] == 2**64
    assert found.best[:2] == [2, 0.1]
    for got, want in [
        (found.weights, checkpoint.weights),
        (found.best[2], checkpoint.best[2]),
        (dict(enumerate(found.optimizer["buffers"])), {0: np.ones(2), 1: np.zeros(2)}),
    ]:
        assert list(got) == list(want)
        for name, value in want.items():
            assert got[name].dtype == value.dtype
            np.testing.assert_array_equal(got[name], value)


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = ".checkpoint.safetensors.{}.0f"
    for pid in (gone.pid, 10**30, os.getpid(), 1):
        (tmp_path / left.format(pid)).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    Checkpoints(tmp_path, {}).make_folder()
    # Another fit may be writing there, in a process of its own or a thread of this one.
    kept = {left.format(os.getpid()), left.format(1), "notes.txt"}
    assert set(os.listdir(tmp_path)) == kept


def test_a_failed_write_leaves_the_last_one(tmp_path, monkeypatch):
    made = fit(tmp_path, max_epochs=1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_io.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path, resume=True, max_epochs=2)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert made.state.epoch == 1


def test_a_folder_that_cannot_be_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        assert Checkpoints(path, {}).find(9) is None
        with pytest.raises(NotADirectoryError, match="checkpoint_dir: expected a folder, got"):
            Checkpoints(path, {}).make_folder()


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(part, tmp_path):
    fit(tmp_path, max_epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: expected a whole"):
        fit(tmp_path, resume=True)


def test_an_altered_file_is_refused(tmp_path):
    fit(tmp_path, max_epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: expected .* altered"):
        fit(tmp_path, resume=True)


def test_a_later_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_io, "FORMAT_VERSION", _io.FORMAT_VERSION + 1)
    fit(tmp_path, max_epochs=1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="a later rnncore wrote it"):
        fit(tmp_path, resume=True)


def test_models_and_checkpoints_are_told_apart(tmp_path):
    fit(tmp_path, max_epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(ValueError, match="expected a model, got a checkpoint"):
        rnncore.load(path)
    _io.write_file(path, {}, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match="expected a checkpoint, got a model"):
        fit(tmp_path, resume=True)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"expected a checkpoint .*got another safetensors file"):
        fit(tmp_path, resume=True)
    _io.write_file(path, {"fingerprint": {}}, {"a": np.zeros(2)}, kind="checkpoint")
    with pytest.raises(ValueError, match="expected a checkpoint, got one that does not fit"):
        fit(tmp_path, resume=True)


# The fingerprint.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 32}, r"got one with hidden_size \[64, 32\] there and 32 here"),
        ({"padding_value": None}, "padding_value NaN there and null here"),
        ({"X": digest(np.ones(3))}, "another X "),
        ({"X": digest(np.ones(3)), "hidden_size": 1}, "another X, hidden_size"),
        ({"new": 1}, "new nothing there and 1 here"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(change, message, tmp_path):
    fit(tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, resume=True, fingerprint={**FINGERPRINT, **change})
    fit(tmp_path, resume=True, fingerprint={**FINGERPRINT, "hidden_size": [64, 32]})


def test_digests_see_every_difference():
    table = np.arange(6.0).reshape(2, 3)
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros(2), np.zeros(3)]
    various = [
        None,
        table,
        table.T,
        table.reshape(3, 2),
        table.astype(np.float32),
        table + 1e-9,
        [table],
        [[1, 2], [3]],
        [[1], [2, 3]],
        ["ab", "c"],
        ["a", "bc"],
        np.array(["ab", "c"]),
        ragged,
        [],
        np.zeros((0, 3)),
        np.zeros((0, 4)),
        np.zeros(3, "M8[s]"),
        "text",
    ]
    found = [digest(item) for item in various]
    assert len(set(found)) == len(found)
    assert [digest(item) for item in various] == found
    assert digest(np.asfortranarray(table)) == digest(table)
    assert digest(table, None) != digest(None, table) != digest([table, None])
    assert json.dumps(found)
