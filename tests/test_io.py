"""Saved models: what comes back, and what a damaged or foreign file gives."""

import errno
import json
import os
import pickle
import stat

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError

import rnncore
from rnncore import _io


@pytest.fixture(scope="module", name="X")
def sequences():
    return np.random.default_rng(0).standard_normal((20, 6, 3))


@pytest.fixture(scope="module")
def model(X):
    y = np.where(X[:, 0, 0] > 0, "up", "down")
    return rnncore.LSTM(
        hidden_size=np.int64(7),
        num_layers=2,
        bidirectional=True,
        learning_rate=np.float32(0.5),
        max_epochs=2,
        padding_value=np.nan,
        dtype=np.float64,
        random_state=3,
    ).fit(X, y, eval_set=(X, y))


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    return path


def test_a_classifier_comes_back_whole(model, path, X):
    loaded = rnncore.load(str(path))
    assert type(loaded) is rnncore.LSTM
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.classes_, model.classes_)
    assert loaded.predict(X).dtype == model.predict(X).dtype
    assert loaded.history_ == model.history_
    assert (loaded.n_epochs_, loaded.n_features_in_, loaded.task_, loaded.output_) == (
        2,
        3,
        "classification",
        "last",
    )
    ours, theirs = loaded.get_params(), model.get_params()
    assert np.isnan(ours.pop("padding_value"))
    assert np.isnan(theirs.pop("padding_value"))
    assert ours == {**theirs, "dtype": "float64"}
    refitted = loaded.fit(X, model.predict(X))
    assert refitted.n_epochs_ == 2


@pytest.mark.parametrize(
    ("estimator", "X", "y"),
    [
        (
            rnncore.GRU(4, max_epochs=1, embedding_dim=3),
            [[1, 2], [0], [], [4, 4, 4]],
            [0, 1, 0, 1],
        ),
        (
            rnncore.RNN(4, nonlinearity="relu", max_epochs=1, embedding="one-hot"),
            [[1, 2], [0], [], [4, 4, 4]],
            [[True, False], [True], [], [False, False, True]],
        ),
        (rnncore.LSTM(4, max_epochs=1), np.ones((3, 2, 1)), np.array([[1.0], [2.0], [3.0]])),
        (rnncore.LSTM(4, max_epochs=1), np.ones((3, 2, 1)), np.ones((3, 2, 5))),
    ],
    ids=["embedding", "one-hot tagging", "regression", "regression per step"],
)
def test_all_kinds_come_back(estimator, X, y, tmp_path):
    estimator.fit(X, y).save(tmp_path / "model")
    loaded = rnncore.load(tmp_path / "model")
    assert type(loaded) is type(estimator)
    assert loaded.get_params() == estimator.get_params()
    for a, b in zip(loaded.predict(X), estimator.predict(X), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_weights_have_torchs_names(path):
    weights = load_file(path)
    assert weights["rnn.weight_hh_l1_reverse"].shape == (28, 7)
    assert weights["head.weight"].shape == (2, 14)
    assert weights["head.bias"].dtype == np.float64
    with safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["configuration"])["estimator"] == "LSTM"


def test_a_generator_as_random_state_is_not_kept(X, tmp_path):
    model = rnncore.RNN(3, max_epochs=1, random_state=np.random.default_rng(0))
    model.fit(X, X[:, 0, 0]).save(tmp_path / "model")
    assert rnncore.load(tmp_path / "model").random_state is None


def test_a_failed_save_leaves_the_old_file_and_no_other(model, path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"disk full: .*model\.safetensors'$"):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_save_replaces_and_keeps_usual_permissions(model, path):
    path.write_text("something else")
    model.save(path)
    assert rnncore.load(path).n_epochs_ == 2
    plain = path.parent / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_only_fitted_models_are_saved(tmp_path):
    with pytest.raises(NotFittedError):
        rnncore.GRU().save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_missing_paths_give_the_usual_errors(model, tmp_path):
    with pytest.raises(FileNotFoundError):
        rnncore.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        rnncore.load(tmp_path)
    for path, error in [
        (tmp_path / "none" / "model", FileNotFoundError),
        (tmp_path, IsADirectoryError),
    ]:
        with pytest.raises(error) as raised:
            model.save(path)
        assert raised.value.filename == str(path)
        assert str(raised.value).endswith(f": '{path}'")


@pytest.mark.parametrize("size", [0, 4, 100, -1, -1000])
def test_truncated_files_are_named(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model\.safetensors: expected a whole safetensors file"):
        rnncore.load(path)


def test_files_of_other_kinds_are_named(path):
    path.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(ValueError, match=r"model\.safetensors: expected a whole safetensors file"):
        rnncore.load(path)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="expected a model saved by rnncore"):
        rnncore.load(path)


def test_files_of_another_kind_are_named(path):
    rewrite(path, kind="checkpoint")
    with pytest.raises(ValueError, match=r"safetensors: expected a model, got a checkpoint"):
        rnncore.load(path)


def test_altered_weights_are_found(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="altered or damaged"):
        rnncore.load(path)


def test_altered_configuration_is_found(path):
    data = path.read_bytes()
    assert data.count(b"LSTM") == 1
    path.write_bytes(data.replace(b"LSTM", b"GRUX"))
    with pytest.raises(ValueError, match="altered or damaged"):
        rnncore.load(path)


def rewrite(path, **changes):
    """Write the file again with other metadata; a new configuration gets its own digest."""
    weights = load_file(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    metadata.update(changes)
    if "configuration" in changes:
        metadata["sha256"] = _io._digest(changes["configuration"], weights)
    save_file(weights, path, metadata)


def test_later_versions_are_named(path):
    rewrite(path, format_version="2")
    with pytest.raises(ValueError, match=r"format version 1 or older, got '2'; a later rnncore"):
        rnncore.load(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: {**c, "estimator": "Transformer"},
        lambda c: {**c, "parameters": {**c["parameters"], "n_heads": 8}},
        lambda c: {**c, "network": {**c["network"], "hidden_size": 8}},
        lambda c: {**c, "network": {**c["network"], "cell": "sru"}},
        lambda c: {name: value for name, value in c.items() if name != "problem"},
        lambda c: {**c, "problem": {**c["problem"], "classes": None, "extra": 1}},
        lambda _: [1, 2],
    ],
    ids=["estimator", "parameter", "size", "cell", "missing", "problem", "list"],
)
def test_a_configuration_that_does_not_fit_is_named(path, edit):
    with safe_open(path, "numpy") as file:
        configuration = json.loads(file.metadata()["configuration"])
    rewrite(path, configuration=json.dumps(edit(configuration)))
    with pytest.raises(ValueError, match="expected the description of a model"):
        rnncore.load(path)
    rewrite(path, configuration="{")
    with pytest.raises(ValueError, match="expected the description of a model"):
        rnncore.load(path)


def test_nothing_is_unpickled(path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    rnncore.load(path)
