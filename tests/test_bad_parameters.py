"""Bad parameters of estimators: refused before any work, saying what was expected."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

import rnncore
from rnncore._options import CHECKS, check_each
from rnncore.text import Vocabulary

X = np.zeros((4, 3, 2))
IDS = [[0, 1, 2], [3], [], [2, 2]]
Y = [0, 1, 0, 1]
NAN, INF = float("nan"), float("inf")

PARAMETER_CASES = [
    ("hidden_size", 0, ValueError, "hidden_size: expected an integer >= 1 or a tuple .* got 0"),
    ("hidden_size", 2.0, TypeError, "hidden_size: expected an integer >= 1 or .* got float 2.0"),
    ("hidden_size", True, TypeError, "hidden_size: expected an integer >= 1 or .* got True"),
    ("hidden_size", "64", TypeError, "hidden_size: expected an integer >= 1 or .* got str '64'"),
    ("hidden_size", 10**30, ValueError, r"hidden_size: expected an integer in 1\.\.2147483647 or"),
    ("hidden_size", np.float64, TypeError, "hidden_size: .*, got type <class 'numpy.float64'>"),
    ("hidden_size", (), ValueError, r"hidden_size: expected the size of at least one .* got \(\)"),
    ("hidden_size", (3, 0), ValueError, r"hidden_size\[1\]: expected an integer >= 1, got 0"),
    ("num_layers", 0, ValueError, "num_layers: expected an integer >= 1, got 0"),
    ("bidirectional", 1, TypeError, "bidirectional: expected True or False, got int 1"),
    ("task", "tagging", ValueError, "task: expected one of 'auto', 'class.* got 'tagging'"),
    ("output", None, TypeError, "output: expected one of 'auto', 'last', 'mean', .* got None"),
    ("loss", "hinge", ValueError, "loss: expected one of 'auto', 'cross_entropy', .*, got 'hinge'"),
    ("huber_delta", 0, ValueError, "huber_delta: expected a finite number > 0, got 0"),
    ("class_weight", "even", ValueError, "class_weight: expected None, 'balanced' or a dict of"),
    ("class_weight", [1, 2], TypeError, "class_weight: expected None, 'balanced' or a dict of"),
    ("class_weight", {0: -1}, ValueError, r"class_weight\[0\]: expected a finite number >= 0"),
    ("embedding", "onehot", ValueError, "embedding: expected None, 'one-hot' or an array"),
    ("embedding", [1.0, 2.0], ValueError, r"embedding: expected .* an array \(vocabulary_size, em"),
    ("embedding", [[1.0], [NAN]], ValueError, "embedding: expected finite numbers, .* in row 1"),
    ("embedding_dim", 0, ValueError, "embedding_dim: expected an integer >= 1, got 0"),
    ("freeze_embedding", 1, TypeError, "freeze_embedding: expected True or False, got int 1"),
    (
        "freeze_embedding",
        True,
        ValueError,
        "freeze_embedding: expected False without embedding_dim",
    ),
    ("tie_embedding", "yes", TypeError, "tie_embedding: expected True or False, got str 'yes'"),
    ("tie_embedding", True, ValueError, "tie_embedding: expected False unless task='language_mod"),
    ("vocabulary", "letter", ValueError, "vocabulary: expected one of 'auto', 'word', 'char', got"),
    ("vocabulary", ["a"], TypeError, "vocabulary: expected .* a rnncore.text.Vocabulary, got list"),
    ("vocabulary", StandardScaler(), TypeError, "vocabulary: expected .*, got StandardScaler"),
    ("vocabulary_size", 7, ValueError, "vocabulary_size: expected None without embedding_dim"),
    ("masked_id", -1, ValueError, "masked_id: expected an integer >= 0, got -1"),
    ("masked_id", 0, ValueError, "masked_id: expected None without embedding_dim"),
    ("padding_value", "0", TypeError, "padding_value: expected a finite number or NaN, got str"),
    ("padding_value", INF, ValueError, "padding_value: expected a finite number or NaN, got inf"),
    ("padding_side", "both", ValueError, "padding_side: expected one of 'right', 'left', got"),
    ("init", "he", ValueError, "init: expected one of 'uniform', 'xavier_uniform', .* got 'he'"),
    (
        "forget_bias",
        -1e39,
        ValueError,
        r"forget_bias: expected numbers that fit float32, got 1e\+39",
    ),
    (
        "embedding",
        [[0.5, 1e39]],
        ValueError,
        r"embedding: expected numbers that fit float32, got 1e\+39",
    ),
    ("forget_bias", NAN, ValueError, "forget_bias: expected a finite number, got nan"),
    ("learn_initial_state", 0, TypeError, "learn_initial_state: expected True or False, got int"),
    ("dropout", 1.0, ValueError, "dropout: expected a finite number >= 0 and < 1, got 1"),
    ("dropout", "0.5", TypeError, "dropout: expected a finite number .* got str '0.5'"),
    ("input_dropout", -0.1, ValueError, "input_dropout: expected a finite number >= 0 and < 1"),
    ("output_dropout", 2, ValueError, "output_dropout: expected a finite number >= 0 and < 1"),
    ("locked_dropout", 0.5, TypeError, "locked_dropout: expected True or False, got float"),
    ("optimizer", "lion", ValueError, "optimizer: expected one of 'adam', 'adamw', .* got 'lion'"),
    (
        "optimizer",
        rnncore.optim.SGD,
        TypeError,
        r"optimizer: expected one of 'adam', .*, or an object of rnncore\.optim, got type",
    ),
    (
        "learning_rate",
        0,
        ValueError,
        "learning_rate: expected a finite number > 0 or 'auto', got 0",
    ),
    ("learning_rate", NAN, ValueError, "learning_rate: expected a finite number > 0 or .* got nan"),
    ("learning_rate", 10**400, ValueError, "learning_rate: expected a finite .* got inf"),
    ("weight_decay", -(10**400), ValueError, "weight_decay: expected a finite number .* got -inf"),
    (
        "learning_rate",
        "fast",
        ValueError,
        "learning_rate: expected 'auto' or a finite number > 0, got",
    ),
    ("momentum", -0.1, ValueError, "momentum: expected a finite number >= 0, got -0.1"),
    ("nesterov", True, ValueError, "nesterov: expected False with optimizer='adam', got True"),
    (
        "weight_decay",
        -1,
        ValueError,
        "weight_decay: expected a finite number >= 0 or 'auto', got -1",
    ),
    ("l1", -1, ValueError, "l1: expected a finite number >= 0, got -1"),
    ("clip_norm", 0.0, ValueError, "clip_norm: expected a finite number > 0, got 0"),
    ("clip_value", -1.0, ValueError, "clip_value: expected a finite number > 0, got -1"),
    ("lr_schedule", "linear", ValueError, "lr_schedule: expected one of .*, got 'linear'"),
    ("max_epochs", 0, ValueError, "max_epochs: expected an integer >= 1, got 0"),
    ("batch_size", 0, ValueError, "batch_size: expected an integer >= 1, got 0"),
    ("accumulate_batches", 0, ValueError, "accumulate_batches: expected an integer >= 1, got 0"),
    ("shuffle", None, TypeError, "shuffle: expected True or False, got None"),
    ("bucket_by_length", "no", TypeError, "bucket_by_length: expected True or False, got str"),
    ("bptt_steps", 0, ValueError, r"bptt_steps: expected an integer >= 1 or a pair \(k1, k2\)"),
    ("bptt_steps", (4, 2), ValueError, r"k2 >= k1 - 1, .* all 4 steps .* got \(4, 2\)"),
    ("bptt_steps", (1, 2, 3), ValueError, r"bptt_steps: expected an integer or a pair \(k1, k2\)"),
    ("bptt_steps", 5, ValueError, "bptt_steps: expected None without a target for each step"),
    ("checkpoint_time", 1, TypeError, "checkpoint_time: expected True or False, got int 1"),
    ("early_stopping", "yes", TypeError, "early_stopping: expected True or False, got str"),
    ("validation_fraction", 0, ValueError, "validation_fraction: expected a finite number > 0 and"),
    ("n_iter_no_change", 0, ValueError, "n_iter_no_change: expected an integer >= 1, got 0"),
    ("tol", -1, ValueError, "tol: expected a finite number >= 0, got -1"),
    ("restore_best", 1, TypeError, "restore_best: expected True or False, got int 1"),
    ("warm_start", 1, TypeError, "warm_start: expected True or False, got int 1"),
    ("callbacks", [3], TypeError, r"callbacks.*: expected"),
    ("callbacks", iter([print]), TypeError, r"callbacks: expected"),
    ("callbacks", np.array(2), TypeError, "callbacks: expected a function .* got int 2"),
    ("checkpoint_dir", 3, TypeError, "checkpoint_dir: expected the path of a folder, got int 3"),
    ("checkpoint_dir", "", ValueError, "checkpoint_dir: expected the path of a folder, got ''"),
    ("checkpoint_epochs", 0, ValueError, "checkpoint_epochs: expected an integer >= 1, got 0"),
    ("checkpoint_minutes", 0, ValueError, "checkpoint_minutes: expected a finite number > 0"),
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
    assert set(rnncore.RNN().get_params()) == set(CHECKS)


@pytest.mark.parametrize("estimator", [rnncore.LSTM, rnncore.RNN])
def test_defaults_are_what_their_checks_make_of_them(estimator):
    model = estimator()
    given = model._given()
    assert given == model.get_params(deep=False)
    checked, again = check_each(given), check_each(given)
    for name in ("callbacks", "random_state"):  # each fit has its own
        assert checked.pop(name) is not again.pop(name)
        del given[name]
    assert checked == {name: CHECKS[name](name, value) for name, value in given.items()}
    assert check_each({"max_epochs": 7, "shuffle": True}) == {"max_epochs": 7, "shuffle": True}


TABLE = np.ones((5, 3))
MODEL = {"task": "language_model"}


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        (
            {"embedding": "one-hot", "embedding_dim": 3},
            "embedding_dim: expected None with embedding",
        ),
        ({"embedding": "one-hot", "masked_id": 0}, "masked_id: expected None with embedding='one"),
        ({"embedding": "one-hot", "input_dropout": 0.5}, "input_dropout: expected 0.0 with embedd"),
        (
            {"embedding": "one-hot", "freeze_embedding": True},
            "freeze_embedding: expected False with embedding='one-hot', got True",
        ),
        (
            {"embedding": TABLE, "embedding_dim": 4},
            "embedding_dim: expected None or 3, as embedding has, got 4",
        ),
        (
            {"embedding": TABLE, "vocabulary_size": 6},
            "vocabulary_size: expected None or 5, as embedding has, got 6",
        ),
        (
            {"embedding_dim": 2, "vocabulary_size": 4, "masked_id": 4},
            "masked_id: expected an id below the vocabulary_size 4, got 4",
        ),
        (
            {"checkpoint_dir": "nowhere", "checkpoint_epochs": None},
            "checkpoint_epochs: expected a number of epochs, or of checkpoint_minutes, beside",
        ),
        ({"hidden_size": (3, 4), "num_layers": 3}, "num_layers: expected None or 2, .* got 3"),
        (
            {"bidirectional": True, "bptt_steps": 3},
            "bptt_steps: expected None with bidirectional=True, .* got 3",
        ),
        (
            {"bidirectional": True, "checkpoint_time": True},
            "checkpoint_time: expected False with bidirectional=True, .* got True",
        ),
        (
            {"bptt_steps": (2, 4), "checkpoint_time": True},
            "checkpoint_time: expected False with a pair of bptt_steps, which keeps 5 steps",
        ),
        ({**MODEL, "bidirectional": True}, "bidirectional: expected False for a language model"),
        (
            {**MODEL, "output": "last"},
            "output: expected 'sequence' for a language model, .* got 'la",
        ),
        ({**MODEL, "class_weight": "balanced"}, "class_weight: expected None for a language model"),
        (
            {**MODEL, "loss": "huber"},
            "loss: expected one of 'auto', 'cross_entropy' for language_model, got 'huber'",
        ),
        (
            {**MODEL, "tie_embedding": True, "embedding_dim": 5, "hidden_size": (5, 4)},
            "embedding_dim: expected 4 with tie_embedding=True, .* got 5",
        ),
        (
            {**MODEL, "tie_embedding": True, "embedding": TABLE, "hidden_size": 4},
            "embedding_dim: expected 4 with tie_embedding=True, .* got 3",
        ),
        (
            {**MODEL, "tie_embedding": True, "freeze_embedding": True},
            "freeze_embedding: expected False with tie_embedding=True, got True",
        ),
        (
            {**MODEL, "tie_embedding": True, "embedding": "one-hot"},
            "tie_embedding: expected False with embedding='one-hot', got True",
        ),
        (
            {"task": "classification", "loss": "squared_error"},
            "loss: expected one of 'auto', 'cross_entropy', 'binary_cross_entropy' for classific",
        ),
        ({"loss": "huber"}, "loss: expected one of .* for classification, got 'huber'"),
        (
            {"optimizer": rnncore.optim.Adam(0.1), "learning_rate": 0.1},
            "learning_rate: expected its default beside an optimizer object, which has its own",
        ),
        (
            {"optimizer": "sgd", "momentum": 0.0, "nesterov": True},
            "nesterov: expected a momentum above 0",
        ),
        (
            {"optimizer": "rmsprop", "nesterov": True},
            "nesterov: expected False with optimizer='rmsprop', got True",
        ),
    ],
)
def test_fit_refuses_parameters_that_do_not_go_together(parameters, match, model):
    model.set_params(**parameters)
    is_model = parameters.get("task") == "language_model"
    ids = is_model or "embedding_dim" in parameters or "embedding" in parameters
    with pytest.raises(ValueError, match=match):
        model.fit(IDS if ids else X, None if is_model else Y)


@pytest.mark.parametrize(
    ("labels", "loss", "match"),
    [
        ([0, 1, 2, 1], "binary_cross_entropy", "'cross_entropy' for 3 classes, got 'binary_cross"),
        (np.eye(4, dtype=int), "cross_entropy", r"y: expected shape .* got \(4, 4\)"),
        (
            [0.5, 1, 2, 3],
            "cross_entropy",
            "loss: expected one of .* for regression, got 'cross_ent",
        ),
    ],
)
def test_losses_suit_the_targets(labels, loss, match, model):
    with pytest.raises(ValueError, match=match):
        model.set_params(loss=loss).fit(X, labels)


@pytest.mark.parametrize("labels", [[0.5, 1, 2, 3], np.eye(4, dtype=int)[:, :2]])
def test_weights_are_of_single_classes(labels, model):
    with pytest.raises(ValueError, match="class_weight: expected None unless each target is one"):
        model.set_params(class_weight="balanced").fit(X, labels)


@pytest.mark.parametrize("kind", [rnncore.GRU, rnncore.RNN])
def test_parameters_of_one_cell(kind):
    with pytest.raises(ValueError, match=r"forget_bias: expected None but for an LSTM, .* got 1"):
        kind(forget_bias=1.0).fit(X, Y)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("nonlinearity", "sin", "nonlinearity: expected one of 'tanh', 'relu', .* got 'sin'"),
        ("residual", 1, "residual: expected True or False, got int 1"),
    ],
)
def test_parameters_of_the_plain_cell(name, value, match):
    with pytest.raises((ValueError, TypeError), match=match):
        rnncore.RNN(**{name: value}).fit(X, Y)
    with pytest.raises(TypeError, match=f"LSTM: .* the unknown argument '{name}'"):
        rnncore.LSTM(**{name: value})


@pytest.mark.parametrize("change", [{"warm_start": True}, {"checkpoint_dir": None}])
def test_resume_needs_a_checkpoint_of_a_new_fit(change, model, tmp_path):
    model.set_params(**{"checkpoint_dir": tmp_path, **change})
    with pytest.raises(ValueError, match="resume: expected False with"):
        model.fit(X, Y, resume=True)
    with pytest.raises(TypeError, match="resume: expected True or False, got int 1"):
        model.fit(X, Y, resume=1)


def test_partial_fit_does_not_stop_early(model):
    with pytest.raises(ValueError, match="early_stopping: expected False for partial_fit"):
        model.set_params(early_stopping=True).partial_fit(X, Y)


@pytest.mark.parametrize(
    ("before", "then", "match"),
    [
        ({}, {"nonlinearity": "relu"}, "nonlinearity: expected 'tanh', as .* has, got 'relu'"),
        ({}, {"residual": True}, "residual: expected False, as the network has, got True"),
        ({"residual": True}, {"residual": False}, "residual: expected True, .*, got False"),
        ({}, {"masked_id": 1}, "masked_id: expected None, as the network has, got 1"),
        ({"masked_id": 0}, {"masked_id": 1}, "masked_id: expected 0, as .* has, got 1"),
        ({"masked_id": 1}, {"masked_id": None}, "masked_id: expected 1, as .* has, got None"),
        ({}, {"vocabulary_size": 9}, "vocabulary_size: expected 4, as the network has, got 9"),
    ],
)
def test_a_network_that_goes_on_computes_what_it_did(before, then, match):
    model = rnncore.RNN(3, embedding_dim=2, max_epochs=1, random_state=0, **before).fit(IDS, Y)
    found = model.predict_proba(IDS)
    model.set_params(warm_start=True, **then)
    for train in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=match):
            train(IDS, Y)
    np.testing.assert_array_equal(model.predict_proba(IDS), found)


WORDS = Vocabulary().fit(["b c a", "b c"])


@pytest.mark.parametrize(
    ("vocabulary", "match"),
    [
        ("char", "analyzer 'word', as the network has, got 'char'"),
        (Vocabulary(min_count=2), "min_count 1, as the network has, got 2"),
        (Vocabulary().fit(["b c d", "b c"]), "words 'a', as the network has, got 'd'"),
        (Vocabulary().fit(["b c a", "b c", "b d"]), "words None, as the network has, got 'd'"),
        (Vocabulary(lowercase=True).fit(["b c a", "b c"]), "lowercase False, as .* has, got True"),
        *((same, None) for same in ("auto", "word", WORDS, clone(WORDS))),
        (Vocabulary(words=["b", "c", "a"], min_count=3).fit(["x"]), None),
    ],
)
@pytest.mark.parametrize("first", ["auto", WORDS])
def test_a_vocabulary_goes_on_if_its_words_are_the_same(first, vocabulary, match):
    model = rnncore.GRU(2, vocabulary=first, max_epochs=1).fit(["b c a", "b c"], [0, 1])
    model.set_params(vocabulary=vocabulary)
    if match is None:
        model.partial_fit(["a b"], [0]).set_params(masked_id=0).partial_fit(["x"], [1])
        assert model.n_epochs_ == 3
    else:
        with pytest.raises(ValueError, match=f"vocabulary: expected {match}"):
            model.partial_fit(["a b"], [0])


def test_a_network_over_ids_goes_on_without_a_vocabulary():
    model = rnncore.GRU(2, vocabulary="word", embedding_dim=2, max_epochs=1).fit(IDS, Y)
    model.partial_fit(IDS, Y).set_params(vocabulary=WORDS, warm_start=True)
    for train in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"vocabulary: expected 'auto', .*, got Vocabulary\("):
            train(IDS, Y)
    assert model.n_epochs_ == 2


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
    with pytest.raises(TypeError, match=r"GRU: expected some of .*hidden_size"):
        rnncore.GRU(qwxyz=1)


@pytest.mark.parametrize(
    ("method", "word", "answer"),
    [
        ("fit", "epochs", r"expected 'max_epochs' in the constructor LSTM\(...\)"),
        ("fit", "batch_size", r"expected 'batch_size' in the constructor LSTM\(...\)"),
        ("fit", "validation_data", "expected 'eval_set'"),
        (
            "fit",
            "validation_split",
            r"expected 'validation_fraction' in the constructor LSTM\(...\)",
        ),
        ("fit", "sample_weights", "expected 'sample_weight'"),
        ("fit", "qwxyz", "expected some of X, y, lengths, sample_weight, eval_set, resume"),
        ("partial_fit", "class_weight", r"expected 'class_weight' in the constructor LSTM\(...\)"),
        ("partial_fit", "eval_set", "expected some of X, y, classes, lengths, sample_weight"),
    ],
)
def test_arguments_that_a_method_lacks_are_answered(method, word, answer):
    with pytest.raises(TypeError, match=f"LSTM.{method}: {answer}, got the unknown .* '{word}'"):
        getattr(rnncore.LSTM(), method)(X, Y, **{word: 3})


def test_too_many_positional_arguments_are_answered():
    match = "LSTM: expected hidden_size by position and the rest by name, got 2 arguments"
    with pytest.raises(TypeError, match=match):
        rnncore.LSTM(3, 2)
    with pytest.raises(TypeError, match="Adam: expected learning_rate by position"):
        rnncore.optim.Adam(0.1, 0.9)
    match = "GRU.fit: expected X, y by position and the rest by name, got 3 arguments by position"
    with pytest.raises(TypeError, match=match):
        rnncore.GRU(3).fit(X, Y, np.ones(4))
