"""Models trained in plain torch as estimators, and pieces that do not fit: refused, by name."""

import io

import numpy as np
import pytest
import torch
from torch import nn

import rnncore
from rnncore.text import Vocabulary
from rnncore.torch import Network


@pytest.fixture(autouse=True)
def one_thread():
    """Keep the threads of the one from waiting for work where the other's do some."""
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rnncore.set_num_threads(1)
    yield
    torch.set_num_threads(before)


X = np.random.default_rng(0).standard_normal((6, 5, 3)).astype("f4")
IDS = np.random.default_rng(0).integers(0, 7, (6, 5))


class Tagger(nn.Module):
    """What people write in torch."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3, padding_idx=0)
        self.lstm = nn.LSTM(3, 4, 2, bidirectional=True)
        self.linear = nn.Linear(8, 3)

    def forward(self, ids):
        return self.linear(self.lstm(self.embedding(ids.T))[0]).transpose(0, 1)


@torch.no_grad()
def test_a_model_of_torch_is_served():
    model = Tagger()
    network = Network(
        model.lstm, model.linear, model.embedding, output="sequence", classes=["N", "A", "V"]
    )
    expected = model(torch.from_numpy(IDS))
    assert torch.equal(network(torch.from_numpy(IDS)), expected)
    assert network.embedding.weight is model.embedding.weight

    estimator = rnncore.LSTM.from_torch(network)
    assert estimator.classes_.tolist() == ["A", "N", "V"]  # sorted, whatever torch's order
    expected = expected.softmax(-1).numpy()
    np.testing.assert_allclose(estimator.predict_proba(IDS), expected[..., [1, 0, 2]], 1e-5, 1e-6)
    assert (estimator.predict(IDS) == np.array(["N", "A", "V"])[expected.argmax(-1)]).all()
    assert estimator.masked_id == 0
    estimator.partial_fit(IDS, estimator.predict(IDS))


@pytest.mark.parametrize("classes", [None, ["no", "yes"], ["yes", "no"]])
@torch.no_grad()
def test_one_output_tells_two_classes(classes):
    gru, linear = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)
    network = Network(gru, linear, classes=classes)
    assert network.loss == "binary_cross_entropy"
    second = linear(gru(torch.from_numpy(X))[0][:, -1]).sigmoid().numpy()[:, 0]
    labels = network.classes_.tolist()
    assert labels == (classes or [0, 1])
    estimator = rnncore.GRU.from_torch(network)
    for found, order in (
        (network.predict_proba(torch.from_numpy(X)).numpy(), labels),
        (estimator.predict_proba(X), estimator.classes_.tolist()),
    ):
        np.testing.assert_allclose(found[:, order.index(labels[1])], second, 1e-5, 1e-6)
        np.testing.assert_allclose(found.sum(1), 1, 1e-6)


@torch.no_grad()
def test_several_modules_without_biases():
    rnn = [nn.RNN(3, 4, 2, bias=False, nonlinearity="relu"), nn.RNN(4, 5, nonlinearity="relu")]
    linear = nn.Linear(5, 2, bias=False)
    expected = linear(rnn[1](rnn[0](torch.from_numpy(X).transpose(0, 1))[0])[0].mean(0)).numpy()
    network = Network(rnn, linear, task="regression", output="mean")
    estimator = rnncore.RNN.from_torch(network)
    assert (estimator.hidden_size, estimator.num_layers) == ((4, 4, 5), None)
    assert estimator.nonlinearity == "relu"
    np.testing.assert_allclose(estimator.predict(X), expected, 1e-5, 1e-6)
    estimator.partial_fit(X, expected)


def test_a_language_model_with_its_vocabulary():
    words = Vocabulary("word").fit(["the dog ate a green apple"])
    size = words.vocabulary_size_
    embedding, rnn, head = nn.Embedding(size, 4), nn.LSTM(4, 4), nn.Linear(4, size)
    head.weight = embedding.weight
    network = Network(rnn, head, embedding, task="language_model")
    estimator = rnncore.LSTM.from_torch(network, vocabulary=words)
    assert estimator.tie_embedding
    assert estimator.generate("the dog", 3, random_state=0).startswith("the dog ")
    ids = words.transform(["the dog ate"])[0]
    with torch.no_grad():
        expected = network.predict_proba(torch.tensor(ids)[None])[0].numpy()
    np.testing.assert_allclose(estimator.predict_proba(["the dog ate"])[0], expected, 1e-5, 1e-6)
    estimator.partial_fit(["a dog ate an apple"])


@torch.no_grad()
def test_one_hot_ids():
    network = Network(nn.GRU(7, 4), nn.Linear(4, 7), "one-hot", task="language_model")
    estimator = rnncore.GRU.from_torch(network)
    expected = network.predict_proba(torch.from_numpy(IDS)).numpy()
    np.testing.assert_allclose(estimator.predict_proba(IDS), expected, 1e-5, 1e-6)


def test_double_precision_stays_that():
    network = Network(nn.GRU(3, 4), nn.Linear(4, 2)).double()
    estimator = rnncore.GRU.from_torch(network)
    assert estimator.dtype == "float64"
    with torch.no_grad():
        expected = network.predict_proba(torch.from_numpy(X).double()).numpy()
    np.testing.assert_allclose(estimator.predict_proba(X), expected, 1e-12)


def test_weights_of_other_layouts_are_read():
    head = nn.Linear(4, 2)
    head.weight = nn.Parameter(head.weight.detach().T.contiguous().T)
    network = Network(nn.GRU(3, 4), head)
    estimator = rnncore.GRU.from_torch(network)
    np.testing.assert_array_equal(
        estimator._network.parameters()["head.weight"], head.weight.detach().numpy()
    )


def lstm(*args, **options):
    return nn.LSTM(*(args or (3, 4)), **options)


def linear(*args):
    return nn.Linear(*(args or (4, 2)))


def case(error, match, *args, **options):
    return pytest.param(args, options, error, match, id=match)


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        case(TypeError, r"rnn: expected a torch.nn.RNN, LSTM or GRU, got Linear", linear(), 0),
        case(TypeError, r"rnn: expected .* or a list of them, got list \[\]", [], linear()),
        case(TypeError, r"rnn\[1\]: expected a torch.nn.RNN, .* got None", [lstm(), None], 0),
        case(TypeError, r"rnn\[1\]: expected one like that below, LSTM", [lstm(), nn.GRU(4, 4)], 0),
        case(
            ValueError,
            r"rnn\[1\]: expected bidirectional=False as below, got True",
            [lstm(), lstm(4, 4, bidirectional=True)],
            0,
        ),
        case(ValueError, r"rnn\[1\]: expected input_size 4, .* got 3", [lstm(), lstm()], 0),
        case(TypeError, r"head: expected a torch.nn.Linear, got None", lstm(), None),
        case(ValueError, r"head: expected in_features 4, .* got 5", lstm(), linear(5, 2)),
        case(
            ValueError,
            r"embedding: expected embedding_dim 3, the input_size of rnn, got 2",
            lstm(),
            linear(),
            nn.Embedding(7, 2),
        ),
        case(TypeError, r"embedding: expected .* or None, got str 'hot'", lstm(), linear(), "hot"),
        case(ValueError, r"output: expected one of", lstm(), linear(), output="first"),
        case(ValueError, r"task: expected one of", lstm(), linear(), task="tagging"),
        case(ValueError, r"loss: expected one of .* got 'huber'", lstm(), linear(), loss="huber"),
        case(
            ValueError,
            r"loss: expected 'binary_cross_entropy' for a head with one output",
            lstm(),
            linear(4, 1),
            loss="cross_entropy",
        ),
        case(
            ValueError,
            r"classes: expected 2 labels, .* shape \(3,\)",
            lstm(),
            linear(),
            classes=[*"abc"],
        ),
        case(ValueError, r"classes: expected labels that differ", lstm(), linear(), classes=[1, 1]),
        case(
            ValueError,
            r"classes: expected None for regression",
            lstm(),
            linear(),
            task="regression",
            classes=[0, 1],
        ),
        case(
            ValueError,
            r"classes: expected None for several labels at once",
            lstm(),
            linear(),
            loss="binary_cross_entropy",
            classes=[0, 1],
        ),
        case(ValueError, r"ids_per_step: expected 1 without", lstm(), linear(), ids_per_step=2),
        case(ValueError, r"dropout: expected 0 beside one module", lstm(), linear(), dropout=0.1),
        case(ValueError, r"input_dropout: expected", lstm(), linear(), input_dropout=1.5),
        case(
            ValueError,
            r"locked_dropout: expected False with dropout inside a module",
            lstm(3, 4, 2, dropout=0.1),
            linear(),
            locked_dropout=True,
        ),
        case(
            ValueError,
            r"embedding: expected .* for a language model, got None",
            lstm(),
            linear(),
            task="language_model",
        ),
        case(
            ValueError,
            r"head: expected out_features 7, one for each id for a language model, got 2",
            lstm(),
            linear(),
            nn.Embedding(7, 3),
            task="language_model",
        ),
        case(
            ValueError,
            r"output: expected 'sequence' for a language model, got 'mean'",
            lstm(),
            linear(4, 7),
            nn.Embedding(7, 3),
            task="language_model",
            output="mean",
        ),
    ],
)
def test_pieces_that_do_not_fit(args, options, error, match):
    with pytest.raises(error, match=match):
        Network(*args, **options)


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ((X,), TypeError, r"X: expected a tensor, got float32 array of shape \(6, 5, 3\)"),
        ((torch.zeros(2, 5),), ValueError, r"X: expected shape \(B, T, 3\), got \(2, 5\)"),
        ((torch.zeros(2, 5, 2),), ValueError, r"X: expected shape \(B, T, 3\), got \(2, 5, 2\)"),
        ((torch.zeros(2, 5, 3), [1]), ValueError, r"lengths: expected shape \(2,\), got \(1,\)"),
        ((torch.zeros(2, 5, 3), [1, 6]), ValueError, r"lengths: expected lengths in 0..5, got 6"),
        ((torch.zeros(2, 5, 3), [1.0, 2.0]), TypeError, r"lengths: expected integers"),
    ],
)
def test_forward_refuses(args, error, match):
    with pytest.raises(error, match=match):
        Network(lstm(), linear())(*args)


def test_forward_refuses_ids_of_another_shape():
    embedding = nn.Embedding(7, 3)
    with pytest.raises(ValueError, match=r"X: expected shape \(B, T\), got \(2, 5, 2\)"):
        Network(lstm(), linear(), embedding)(torch.zeros(2, 5, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"X: expected shape \(B, T, 2\), got \(2, 5\)"):
        Network(lstm(), linear(), embedding, ids_per_step=2)(torch.zeros(2, 5, dtype=torch.int64))


@pytest.mark.parametrize("embedding", [nn.Embedding(3, 3), "one-hot"])
def test_forward_refuses_ids_that_are_not_whole(embedding):
    with pytest.raises(TypeError, match=r"X: expected ids, integers, got torch.float32"):
        Network(lstm(), linear(), embedding)(torch.full((2, 5), 1.5))


@pytest.mark.parametrize("output", ["last", "mean", "max", "sequence"])
def test_no_sequences(output):
    network, x = Network(lstm(), linear(), output=output), torch.zeros(0, 5, 3)
    expected = (0, 5, 2) if output == "sequence" else (0, 2)
    for lengths in (None, [], torch.zeros(0, dtype=torch.int64)):
        assert network(x, lengths).shape == network.predict_proba(x, lengths).shape == expected


def test_regression_has_no_probabilities():
    network = Network(lstm(), linear(), task="regression")
    with pytest.raises(AttributeError, match="predict_proba: only for classification"):
        network.predict_proba(torch.from_numpy(X))


def hooked():
    network = Network(lstm(), linear())
    network.register_forward_hook(lambda *_: None)
    return network


def with_attribute(name, value, *args, **options):
    network = Network(*(args or (lstm(), linear())), **options)
    setattr(network, name, value)
    return network


class Scaled(Network):
    def forward(self, X, lengths=None):
        return 2 * super().forward(X, lengths)


class Normed(nn.Linear):
    def forward(self, x):
        return super().forward(x).tanh()


def with_vector_of_padding():
    embedding = nn.Embedding.from_pretrained(torch.ones(7, 3), padding_idx=0)
    return Network(lstm(), linear(), embedding)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lstm, TypeError, r"network: expected a rnncore.torch.Network, .* got LSTM"),
        (
            lambda: Network(nn.GRU(3, 4), linear()),
            TypeError,
            r"network.rnn: expected a torch.nn.LSTM, got GRU",
        ),
        (
            lambda: Scaled(lstm(), linear()),
            TypeError,
            r"network: expected rnncore.torch.Network's own forward, got that of Scaled",
        ),
        (hooked, ValueError, r"network: expected no hooks around forward"),
        (
            lambda: Network(lstm(), Normed(4, 2)),
            TypeError,
            r"network.head: expected torch.nn.Linear's own forward, got that of Normed",
        ),
        (
            lambda: Network(lstm(3, 4, proj_size=2), linear(2, 2)),
            ValueError,
            r"network.rnn: expected proj_size 0, got 2",
        ),
        (
            lambda: Network(lstm(), linear(), nn.Embedding(7, 3, max_norm=1.0)),
            ValueError,
            r"network.embedding: expected max_norm None, got 1.0",
        ),
        (
            with_vector_of_padding,
            ValueError,
            r"network.embedding: expected zeros as the vector of padding_idx 0",
        ),
        (
            lambda: Network([lstm(3, 4, 2, dropout=0.1), lstm(4, 4)], linear(), dropout=0.3),
            ValueError,
            r"network: expected one rate of dropout between layers, got 0.1 and 0.3",
        ),
        (
            lambda: with_attribute("input_dropout", nn.Identity()),
            TypeError,
            r"network.input_dropout: expected a torch.nn.Dropout, got Identity",
        ),
        (
            lambda: with_attribute("head", linear(4, 5)),
            ValueError,
            r"network: head.weight: expected shape \(2, 4\), got \(5, 4\)",
        ),
        (
            lambda: Network(lstm(), linear()).bfloat16(),
            TypeError,
            r"network: expected weights that are all torch.float32 or all torch.float64",
        ),
        (
            lambda: Network(lstm(device="meta"), nn.Linear(4, 2, device="meta")),
            ValueError,
            r"network: rnn.weight_ih_l0: expected weights that hold numbers",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_from_torch_refuses(make, error, match):
    network = make()
    with pytest.raises(error, match=match):
        rnncore.LSTM.from_torch(network)


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"hidden_size": 5}, ValueError, r"hidden_size and num_layers: expected \[4\], .*\[5\]"),
        ({"bidirectional": True}, ValueError, r"bidirectional: expected False"),
        ({"dtype": "float64"}, ValueError, r"dtype: expected float32, .* got float64"),
        ({"task": "regression"}, ValueError, r"task: expected 'classification', .* 'regression'"),
        ({"task": "language_model"}, ValueError, r"task: expected .*, got 'language_model'"),
        ({"loss": "huber"}, ValueError, r"loss: expected 'cross_entropy', as .*, got 'huber'"),
        (
            {"embedding": "one-hot"},
            ValueError,
            r"embedding: expected None or an array, .* 'one-hot'",
        ),
        ({"output": "mean"}, ValueError, r"output: expected 'last'"),
        ({"embedding_dim": 2}, ValueError, r"embedding_dim: expected 3"),
        ({"masked_id": 2}, ValueError, r"masked_id: expected 0, as the network has, got 2"),
        ({"vocabulary_size": 9}, ValueError, r"vocabulary_size: expected 7, .* got 9"),
        ({"learning_rate": -1}, ValueError, r"learning_rate: expected"),
        ({"lr": 0.1}, TypeError, r"LSTM: expected 'learning_rate', got the unknown argument 'lr'"),
        (
            {"vocabulary": Vocabulary("word").fit(["a b c d e f g h i"])},
            ValueError,
            r"vocabulary: expected at most 7 ids, as the network has, got 1\d",
        ),
    ],
)
def test_parameters_that_do_not_fit(parameters, error, match):
    network = Network(lstm(), linear(), nn.Embedding(7, 3, padding_idx=0))
    with pytest.raises(error, match=match):
        rnncore.LSTM.from_torch(network, **parameters)
    relu = Network(nn.RNN(3, 4, nonlinearity="relu"), linear())
    with pytest.raises(ValueError, match=r"nonlinearity: expected 'relu', .* got 'tanh'"):
        rnncore.RNN.from_torch(relu, nonlinearity="tanh")
    with pytest.raises(ValueError, match=r"embedding_dim: expected None for X of feature vectors"):
        rnncore.RNN.from_torch(relu, embedding_dim=3)


def test_a_model_without_optimizer_says_so_when_saved_with_one(tmp_path):
    estimator = rnncore.LSTM.from_torch(Network(lstm(), linear()))
    estimator.save(tmp_path / "model")
    with pytest.raises(ValueError, match="include_optimizer: expected False for a model"):
        estimator.save(tmp_path / "model", include_optimizer=True)
    estimator.partial_fit(X, [0, 1] * 3).save(tmp_path / "model", include_optimizer=True)


def test_classes_of_a_column_of_objects():
    classes = np.array(["no", "yes"], object)
    assert Network(lstm(), linear(), classes=classes).classes_.tolist() == ["no", "yes"]


def test_pieces_are_saved_with_the_network():
    network = Network(lstm(), linear(), classes=["b", "a"])
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    assert torch.load(file, weights_only=False).classes_.tolist() == ["b", "a"]
