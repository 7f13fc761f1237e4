"""Saved models: what comes back, and what a damaged or foreign file gives."""

import errno
import json
import os
import pickle
import stat

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors
from sklearn.exceptions import NotFittedError

import rnncore
from rnncore import _io
from rnncore.text import Vocabulary


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
    refitted = loaded.fit(X, np.where(X[:, 0, 0] > 0, "up", "down"))
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
        (
            rnncore.RNN((4, 2), nonlinearity="softsign", residual=True, max_epochs=1, output="max"),
            np.ones((4, 2, 1)),
            [[0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]],
        ),
        (
            rnncore.LSTM(4, learn_initial_state=True, loss="binary_cross_entropy", max_epochs=1),
            np.ones((4, 2, 1)),
            ["a", "b", "a", "b"],
        ),
        (
            rnncore.GRU(4, embedding_dim=3, max_epochs=1),
            [["one", "word"], ["two"], []],
            [["A", "B"], ["A"], []],
        ),
        (
            rnncore.LSTM(4, embedding_dim=4, task="language_model", tie_embedding=True),
            [[0, 1, 2], [2, 1]],
            None,
        ),
        (
            rnncore.LSTM(4, loss="huber", huber_delta=2.0, output="mean", max_epochs=1),
            np.ones((3, 2, 1)),
            [1.0, 2.0, 3.0],
        ),
    ],
    ids=[
        "embedding",
        "one-hot tagging",
        "regression",
        "regression per step",
        "several labels",
        "two classes, one output",
        "words",
        "language model",
        "Huber",
    ],
)
def test_all_kinds_come_back(estimator, X, y, tmp_path):
    estimator.fit(X, y).save(tmp_path / "model")
    loaded = rnncore.load(tmp_path / "model")
    assert type(loaded) is type(estimator)
    assert loaded.get_params() == estimator.get_params()
    for a, b in zip(loaded.predict(X), estimator.predict(X), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def both(a, b):
    """Check that two results, arrays or lists of them, are the same to the bit."""
    if not isinstance(a, list):
        a, b = [a], [b]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_parameters_of_every_kind_come_back(tmp_path):
    words = ["a", "b", "c"]
    model = rnncore.LSTM(
        (4, 3),
        embedding_dim=2,
        class_weight={0: 1.0, np.int64(1): 2},
        vocabulary=Vocabulary(words=words, lowercase=True),
        optimizer=rnncore.optim.SGD(0.1, momentum=0.5),
        lr_schedule=rnncore.schedules.WarmUp(1, then="cosine"),
        bptt_steps=(1, 2),
        callbacks=[print],
        checkpoint_dir=None,
        max_epochs=1,
        random_state=np.int64(4),
    )
    X, y = ["a B c", "c c", "a"], [[0, 1, 1], [1, 1], [0]]
    model.set_params(callbacks=None).fit(X, y).set_params(callbacks=[print]).save(tmp_path / "m")
    loaded = rnncore.load(tmp_path / "m")
    ours, theirs = loaded.get_params(deep=False), model.get_params(deep=False)
    assert ours.pop("callbacks") is None
    assert ours.pop("vocabulary").get_params() == theirs.pop("vocabulary").get_params()
    assert repr(ours.pop("optimizer")) == repr(theirs.pop("optimizer"))
    del theirs["callbacks"]
    assert ours == theirs
    assert type(ours["hidden_size"]) is tuple
    assert loaded.vocabulary_.vocabulary_ == model.vocabulary_.vocabulary_
    both(loaded.predict(X), model.predict(X))
    both(loaded.fit(X, y).predict_proba(X), model.set_params(callbacks=None).predict_proba(X))


class Derived(rnncore.LSTM):
    pass


def test_a_class_that_load_does_not_know_is_named(X, tmp_path):
    model = Derived(2, max_epochs=1).fit(X, X[:, 0, 0])
    with pytest.raises(TypeError, match=r"save: expected an RNN, LSTM or GRU .*, got Derived"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    both(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


class DerivedVocabulary(Vocabulary):
    pass


class DerivedAdam(rnncore.optim.Adam):
    pass


class DerivedStep(rnncore.schedules.Step):
    pass


@pytest.mark.parametrize(
    "parameters",
    [
        {"vocabulary": DerivedVocabulary()},
        {"optimizer": DerivedAdam()},
        {"lr_schedule": DerivedStep()},
        {"lr_schedule": rnncore.schedules.WarmUp(then=DerivedStep())},
    ],
    ids=["vocabulary", "optimizer", "schedule", "schedule inside another"],
)
def test_a_parameter_of_a_class_that_load_does_not_know_is_named(parameters, tmp_path):
    X = ["a b", "b"]
    model = rnncore.GRU(2, max_epochs=1, random_state=0, **parameters).fit(X, [0, 1])
    (name,) = parameters
    expected = rf"{name}: expected one of rnncore\.\w+, which rnncore.load knows, got Derived"
    with pytest.raises(TypeError, match=expected):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []
    both(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


def test_a_vocabulary_that_was_learned_by_is_of_a_known_class(tmp_path):
    model = rnncore.GRU(2, vocabulary=DerivedVocabulary(), max_epochs=1).fit(["a b", "b"], [0, 1])
    with pytest.raises(TypeError, match=r"vocabulary: expected one of .*, got DerivedVocabulary"):
        model.set_params(vocabulary="auto").save(tmp_path / "model")


def test_a_fitted_vocabulary_is_kept_once(tmp_path):
    vocabulary = Vocabulary().fit(["unmistakable"])
    model = rnncore.GRU(2, embedding_dim=2, vocabulary=vocabulary, max_epochs=1, random_state=0)
    model.fit(["unmistakable", "other"], [0, 1]).save(tmp_path / "model")
    assert (tmp_path / "model").read_bytes().count(b"unmistakable") == 1
    loaded = rnncore.load(tmp_path / "model")
    assert loaded.vocabulary is not loaded.vocabulary_  # its owner may fit it to something else
    assert loaded.vocabulary.vocabulary_ == loaded.vocabulary_.vocabulary_
    both(loaded.predict_proba(["other"]), model.predict_proba(["other"]))


@pytest.mark.parametrize("freeze", [True, False])
def test_pretrained_vectors_are_kept_once(freeze, tmp_path):
    table = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    model = rnncore.RNN(2, embedding=table, freeze_embedding=freeze, max_epochs=1, random_state=0)
    model.fit([[1, 2], [3]], [0, 1]).save(tmp_path / "model")
    loaded = rnncore.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.embedding, table, strict=True)
    both(loaded.predict_proba([[1, 2, 3]]), model.predict_proba([[1, 2, 3]]))
    copies = (tmp_path / "model").stat().st_size / table.nbytes
    assert copies < (1.2 if freeze else 2.2)


def test_vectors_in_a_list_come_back(tmp_path):
    vectors = [np.array([0.0, 1.0]), [2.0, 3.0], np.array([4.0, 5.0]), (6.0, 7.0)]
    model = rnncore.RNN(2, embedding=vectors, max_epochs=1).fit([[1, 2], [3]], [0, 1])
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(rnncore.load(tmp_path / "model").embedding, np.array(vectors))
    assert model.embedding is vectors


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2", ">i4"])
def test_vectors_of_any_bytes_come_back(dtype, tmp_path):
    table = np.arange(8.0).reshape(4, 2).astype(dtype)
    model = rnncore.RNN(2, embedding=table, max_epochs=1, random_state=0).fit([[1, 2], [3]], [0, 1])
    model.save(tmp_path / "model")
    assert model.embedding is table
    assert table.dtype == dtype
    loaded = rnncore.load(tmp_path / "model").embedding
    np.testing.assert_array_equal(loaded, table)
    assert loaded.dtype == table.dtype.newbyteorder("=")
    model.set_params(embedding=table.astype(np.longdouble))
    with pytest.raises(TypeError, match="embedding: expected numbers that a file can hold, got"):
        model.save(tmp_path / "other")
    assert os.listdir(tmp_path) == ["model"]


def test_a_value_that_no_file_holds_is_named(model, tmp_path):
    class Odd:
        pass

    odd = pickle.loads(pickle.dumps(model)).set_params(checkpoint_dir=Odd())
    with pytest.raises(TypeError, match="checkpoint_dir: expected a value that a file can hold"):
        odd.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


OPTIMIZERS = ["adam", "adamw", "sgd", "rmsprop", "adagrad"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("way", ["partial_fit", "warm_start"])
def test_training_goes_on_to_the_same_bits(optimizer, way, X, tmp_path):
    y = X[:, :, 0]
    model = rnncore.LSTM(
        4,
        output="sequence",
        optimizer=optimizer,
        lr_schedule="exponential",
        max_epochs=2,
        random_state=0,
    ).fit(X, y)
    model.save(tmp_path / "model", include_optimizer=True)
    loaded = rnncore.load(tmp_path / "model")
    for each in (model, loaded):
        if way == "partial_fit":
            each.partial_fit(X, y).partial_fit(X, y)
        else:
            each.set_params(warm_start=True, random_state=5).fit(X, y)
    both(loaded.predict(X), model.predict(X))
    for name in ("loss", "grad_norm", "learning_rate"):
        assert loaded.history_[name] == model.history_[name]
    assert loaded.n_epochs_ == model.n_epochs_ == 4


def test_without_the_optimizer_training_goes_on_with_a_new_one(model, path, X):
    loaded = rnncore.load(path)
    y = np.where(X[:, 0, 0] > 0, "up", "down")
    loaded.partial_fit(X, y)
    assert loaded.n_epochs_ == 3
    again = rnncore.load(path)
    with pytest.raises(ValueError, match="include_optimizer: expected False for a model that was"):
        again.save(path, include_optimizer=True)


def test_the_best_epoch_is_kept(X, tmp_path):
    model = rnncore.GRU(3, early_stopping=True, n_iter_no_change=1, random_state=0)
    model.fit(X, X[:, 0, 0]).save(tmp_path / "model")
    assert rnncore.load(tmp_path / "model").best_epoch_ == model.best_epoch_


def test_a_language_model_comes_back(tmp_path):
    model = rnncore.LSTM(
        6, embedding_dim=4, task="language_model", tie_embedding=False, max_epochs=1, random_state=0
    ).fit("to be or not to be, that is the question " * 4)
    model.save(tmp_path / "model")
    loaded = rnncore.load(tmp_path / "model")
    assert loaded.perplexity("to be") == model.perplexity("to be")
    ours, theirs = (each.generate("to", 9, random_state=0) for each in (loaded, model))
    assert ours == theirs


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


def test_save_goes_where_a_link_leads(model, path):
    link = path.with_name("latest")
    link.symlink_to(path.name)
    path.write_bytes(b"old")
    model.save(link)
    assert link.is_symlink()
    assert rnncore.load(path).hidden_size == model.hidden_size


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_save_leaves_what_is_no_file(model, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"path: expected the path of a file, got .* '.*pipe'$"):
        model.save(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_only_fitted_models_are_saved(tmp_path):
    with pytest.raises(NotFittedError):
        rnncore.GRU().save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", [None, 3, ["a"], "", "a\0b"])
def test_what_is_no_path_is_named(model, path):
    for way in (model.save, rnncore.load):
        with pytest.raises((TypeError, ValueError), match="path: expected the path of a file, got"):
            way(path)


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
    save_tensors({"weight": torch.zeros(3, dtype=torch.bfloat16)}, path)  # which NumPy lacks
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
        lambda c: {**c, "network": {**c["network"], "hidden_sizes": [8]}},
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
