"""Bad parameters of estimators: refused before any work, saying what was expected."""

import numpy as np
import pytest

import rnncore

X = np.zeros((4, 3, 2))
IDS = [[0, 1, 2], [3], [], [2, 2]]
Y = [0, 1, 0, 1]
NAN, INF = float("nan"), float("inf")

PARAMETER_CASES = [
    ("hidden_size", 0, ValueError, "hidden_size: expected an integer >= 1, got 0"),
    ("hidden_size", 2.0, TypeError, "hidden_size: expected an integer >= 1, got float 2.0"),
    ("hidden_size", True, TypeError, "hidden_size: expected an integer >= 1, got True"),
    ("hidden_size", "64", TypeError, "hidden_size: expected an integer >= 1, got str '64'"),
    ("hidden_size", 10**30, ValueError, "hidden_size: expected an integer >= 1, got 10"),
    ("num_layers", 0, ValueError, "num_layers: expected an integer >= 1, got 0"),
    ("bidirectional", 1, TypeError, "bidirectional: expected True or False, got int 1"),
    ("dropout", 1.0, ValueError, "dropout: expected a finite number >= 0 and < 1, got 1"),
    ("dropout", "0.5", TypeError, "dropout: expected a finite number .* got str '0.5'"),
    ("task", "tagging", ValueError, "task: expected one of 'auto', 'class.* got 'tagging'"),
    ("output", None, TypeError, "output: expected one of 'auto', 'last', 'sequence', got None"),
    ("embedding", "onehot", ValueError, "embedding: expected one of 'one-hot', got 'onehot'"),
    ("embedding_dim", 0, ValueError, "embedding_dim: expected an integer >= 1, got 0"),
    ("vocabulary_size", 7, ValueError, "vocabulary_size: expected None without embedding_dim"),
    ("padding_value", "0", TypeError, "padding_value: expected a finite number, got str"),
    ("padding_value", INF, ValueError, "padding_value: expected a finite number, got inf"),
    ("optimizer", "rmsprop", ValueError, "optimizer: expected one of 'adam', 'sgd', got 'rms"),
    ("learning_rate", 0, ValueError, "learning_rate: expected a finite number > 0, got 0"),
    ("learning_rate", NAN, ValueError, "learning_rate: expected a finite number > 0, got nan"),
    ("learning_rate", "fast", ValueError, "learning_rate: expected one of 'auto', got 'fast'"),
    ("momentum", -0.1, ValueError, "momentum: expected a finite number >= 0, got -0.1"),
    ("nesterov", True, ValueError, "nesterov: expected False with optimizer='adam', got True"),
    ("weight_decay", -1, ValueError, "weight_decay: expected a finite number >= 0, got -1"),
    ("clip_norm", 0.0, ValueError, "clip_norm: expected a finite number > 0, got 0"),
    ("clip_value", -1.0, ValueError, "clip_value: expected a finite number > 0, got -1"),
    ("max_epochs", 0, ValueError, "max_epochs: expected an integer >= 1, got 0"),
    ("batch_size", 0, ValueError, "batch_size: expected an integer >= 1, got 0"),
    ("shuffle", None, TypeError, "shuffle: expected True or False, got None"),
    ("bucket_by_length", "no", TypeError, "bucket_by_length: expected True or False, got str"),
    ("dtype", "float16", ValueError, "dtype: expected 'float32' or 'float64', got 'float16'"),
    ("dtype", None, ValueError, "dtype: expected 'float32' or 'float64', got None"),
    ("n_jobs", 0, ValueError, "n_jobs: expected an integer >= 1, -1 for all CPUs, or None, got 0"),
    ("n_jobs", -2, ValueError, "n_jobs: expected"),
    ("random_state", -1, ValueError, "random_state: expected None, an integer >= 0 or .*, got -1"),
    ("random_state", "seed", TypeError, "random_state: expected None, .*, got str"),
    ("verbose", 3, ValueError, r"verbose: expected 0\.\.2, got 3"),
]


@pytest.fixture
def model(monkeypatch):
    """An estimator that must not come as far as building a network."""
    monkeypatch.setattr(rnncore._core, "Network", None)
    return rnncore.LSTM(hidden_size=3)


@pytest.mark.parametrize(
    ("name", "value", "error", "match"),
    PARAMETER_CASES,
    ids=[f"{name}={value!r}"[:30] for name, value, *_ in PARAMETER_CASES],
)
def test_fit_refuses_parameters(name, value, error, match, model):
    model.set_params(**{name: value})
    with pytest.raises(error, match=match):
        model.fit(X, Y)


def test_every_parameter_has_a_refusal():
    assert set(rnncore.LSTM().get_params()) == {name for name, *_ in PARAMETER_CASES}


def test_fit_refuses_parameters_that_do_not_go_together(model):
    model.set_params(embedding="one-hot", embedding_dim=3)
    with pytest.raises(ValueError, match="embedding_dim: expected None with embedding='one-hot'"):
        model.fit(IDS, Y)
    model = rnncore.GRU(optimizer="sgd", momentum=0.0, nesterov=True)
    with pytest.raises(ValueError, match="nesterov: expected a momentum above 0"):
        model.fit(X, Y)
    with pytest.raises(ValueError, match="nonlinearity: expected one of 'tanh', 'relu', got 'sin'"):
        rnncore.RNN(nonlinearity="sin").fit(X, Y)


def test_dropout_that_does_nothing_warns():
    with pytest.warns(UserWarning, match="dropout acts between layers"):
        rnncore.LSTM(2, dropout=0.5, max_epochs=1).fit(X, Y)


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("units", "hidden_size"),
        ("lr", "learning_rate"),
        ("epochs", "max_epochs"),
        ("seed", "random_state"),
        ("vocab_size", "vocabulary_size"),
        ("hiden_size", "hidden_size"),
        ("max_epoch", "max_epochs"),
    ],
)
def test_other_words_are_answered_with_the_right_one(word, right):
    with pytest.raises(TypeError, match=f"LSTM: expected '{right}', got the unknown .* '{word}'"):
        rnncore.LSTM(**{word: 3})
    with pytest.raises(ValueError, match=f"Invalid parameter '{word}'"):
        rnncore.LSTM().set_params(**{word: 3})


def test_words_of_other_classes_are_not_offered():
    with pytest.raises(TypeError, match=r"RNN: expected 'nonlinearity', got the unknown .* 'activ"):
        rnncore.RNN(activation="relu")
    with pytest.raises(
        TypeError, match=r"GRU: expected .*got the unknown argument 'activation'"
    ) as e:
        rnncore.GRU(activation="relu")
    assert "'nonlinearity'" not in str(e.value)
    for word in ("qwxyz", "warm_start"):
        with pytest.raises(TypeError, match=r"GRU: expected some of .*hidden_size"):
            rnncore.GRU(**{word: 1})
