"""Networks that estimators become in torch, as torch's users handle them."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

import rnncore
import rnncore.torch
from rnncore.text import Vocabulary

from .in_torch import WORDS, answers, assert_alike, fitted, tensors
from .models import assert_same_bits, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


def saved(network):
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n)), saved])
def test_networks_are_copied(copied):
    model, X, _ = fitted("words", "next id", tie_embedding=True, embedding_dim=5, max_epochs=2)
    network = copied(model.to_torch())
    assert type(network) is rnncore.torch.Network
    assert network.head.weight is network.embedding.weight
    assert_alike(model, network, X)
    assert (
        network.vocabulary_.transform(X)[0].tolist() == model.vocabulary_.transform(X)[0].tolist()
    )
    assert answers(rnncore.LSTM.from_torch(network), X).tobytes() == answers(model, X).tobytes()


def test_networks_are_reverted_and_converted():
    model, X, _ = fitted(hidden_size=(4, 3), kind=rnncore.GRU)
    network = rnncore.torch.revert(model.to_torch())
    assert {type(module) for module in network.layers()} == {torch.nn.GRU}
    assert_alike(model, network, X)
    assert_same_bits(rnncore.GRU.from_torch(network), model)
    rnncore.torch.convert(network)
    assert {type(module) for module in network.layers()} == {rnncore.torch.GRU}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("options", [{"embedding": "one-hot"}, {"embedding_dim": 3}])
def test_ids_of_any_type_are_looked_up(dtype, options):
    X = np.random.default_rng(0).integers(0, 5, (8, 6))
    model = rnncore.GRU(4, max_epochs=1, random_state=0, **options).fit(X, np.arange(8) % 2)
    found = model.to_torch().predict_proba(torch.from_numpy(X).to(dtype)).detach()
    np.testing.assert_allclose(found, model.predict_proba(X), 1e-6, 1e-6)


def test_without_lengths_all_steps_are_real():
    model, X, _ = fitted(output="mean", bidirectional=True)
    x = np.stack([x[:4] for x in X if len(x) >= 4])
    with torch.no_grad():
        found = model.to_torch().predict_proba(torch.from_numpy(x))
    np.testing.assert_allclose(found, model.predict_proba(x), 1e-6, 1e-6)


@pytest.mark.parametrize("output", ["last", "mean", "max", "sequence"])
@pytest.mark.parametrize("learned", [False, True])
def test_sequences_without_steps(output, learned):
    targets = "number a step" if output == "sequence" else "number"
    model, X, _ = fitted("features", targets, output=output, learn_initial_state=learned)
    network = model.to_torch()
    none = [X[0][:0]] * 2
    with torch.no_grad():
        found = network(torch.zeros(2, 0, 3))
    assert found.shape == ((2, 0, 1) if output == "sequence" else (2, 1))
    np.testing.assert_allclose(found.flatten(), answers(model, none).ravel(), 1e-6, 1e-6)
    # Nor is there a gradient of what is not read.
    loss = network(torch.full((2, 1, 3), np.nan), [0, 0]).sum()
    loss.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


def test_dropout_acts_in_training_alone():
    model, X, _ = fitted("ids", "label a step", input_dropout=0.5, output_dropout=0.5)
    network = model.to_torch()
    x, lengths = tensors(model, X)
    assert torch.equal(network(x, lengths), network(x, lengths))
    network.train()
    assert not torch.equal(network(x, lengths), network(x, lengths))


def test_locked_dropout_drops_the_same_at_all_steps():
    model, *_ = fitted(
        "features",
        "label a step",
        hidden_size=(40, 40),
        locked_dropout=True,
        dropout=0.5,
        input_dropout=0.5,
        output_dropout=0.5,
    )
    network = model.to_torch().train()
    seen = {}
    for name in ("rnn.0", "rnn.1", "head"):
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
    network(torch.rand(6, 5, 3) + 1)
    for x in seen.values():
        dropped = x == 0
        assert dropped.any()
        assert not dropped.all()
        assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    kept = seen["rnn.0"] != 0
    assert (seen["rnn.0"][kept] >= 2).all()  # divided by the share that is kept


def test_training_settings_are_the_callers():
    model, *_ = fitted(optimizer="sgd", learning_rate=0.3)
    network = model.to_torch()
    assert rnncore.LSTM.from_torch(network).optimizer == "adam"
    back = rnncore.LSTM.from_torch(network, **model.get_params())
    assert back.get_params() == model.get_params()
    back = rnncore.LSTM.from_torch(network, output_dropout=0.4)
    assert back.output_dropout == back._config["output_dropout"] == 0.4


def test_padding_is_read_as_before():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 6, 2))
    X[:4, :3] = -1
    model = rnncore.LSTM(4, padding_value=-1, padding_side="left", max_epochs=1, random_state=0)
    model.fit(X, [0, 1] * 4)
    back = rnncore.LSTM.from_torch(model.to_torch())
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))


def test_a_frozen_embedding_stays_frozen():
    vectors = np.random.default_rng(0).standard_normal((7, 3))
    model, X, y = fitted("ids", vocabulary_size=None, embedding=vectors, freeze_embedding=True)
    network = model.to_torch()
    assert not network.embedding.weight.requires_grad
    assert all(p.requires_grad for name, p in network.named_parameters() if "emb" not in name)
    back = rnncore.LSTM.from_torch(network).partial_fit(X, y)
    np.testing.assert_array_equal(weights_of(back)["embedding.weight"], vectors.astype("f4"))


def test_a_vocabulary_with_vectors_comes_along():
    words = Vocabulary("word").fit([" ".join(WORDS)])
    model, X, _ = fitted("words", vocabulary=words)
    network = model.to_torch()
    assert network.embedding.padding_idx == 0
    back = rnncore.LSTM.from_torch(network)
    assert back.predict(X).tolist() == model.predict(X).tolist()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"nonlinearity": "softsign"}, r"nonlinearity: expected 'tanh' or 'relu', .*'softsign'"),
        ({"residual": True}, r"residual: expected False, as torch has it, got True"),
    ],
)
def test_what_torch_lacks_stays_here(options, match):
    model, *_ = fitted(kind=rnncore.RNN, **options)
    with pytest.raises(ValueError, match=match):
        model.to_torch()


def test_to_torch_needs_a_fit():
    with pytest.raises(Exception, match="not fitted"):
        rnncore.LSTM().to_torch()
