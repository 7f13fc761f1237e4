"""The estimators: recurrent networks with scikit-learn's interface."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from rnncore import _core
from rnncore._data import Sequences
from rnncore._history import History
from rnncore._io import to_json, write_file
from rnncore._options import CHECKS, check_parameters, new_optimizer
from rnncore._problem import Problem
from rnncore._progress import Progress
from rnncore._validate import Array, describe
from rnncore._words import WordsHere

# Prediction does not depend on it: large enough that every thread has rows for a full tile.
_PREDICT_BATCH = 256


class RecurrentEstimator(BaseEstimator, WordsHere):  # type: ignore[misc]
    """What `RNN`, `LSTM` and `GRU` share: everything but the equations."""

    _cell: ClassVar[str]

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        task: str = "auto",
        output: str = "auto",
        embedding: str | None = None,
        embedding_dim: int | None = None,
        vocabulary_size: int | None = None,
        padding_value: float | None = None,
        optimizer: str = "adam",
        learning_rate: float | str = "auto",
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        clip_value: float | None = None,
        max_epochs: int = 100,
        batch_size: int = 32,
        shuffle: bool = True,
        bucket_by_length: bool = True,
        dtype: str = "float32",
        n_jobs: int | None = None,
        random_state: object = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.task = task
        self.output = output
        self.embedding = embedding
        self.embedding_dim = embedding_dim
        self.vocabulary_size = vocabulary_size
        self.padding_value = padding_value
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.bucket_by_length = bucket_by_length
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # Training.

    def fit(self, X: object, y: object, *, lengths: object = None, eval_set: object = None) -> Self:
        """Train a new network.

        Ctrl-C ends the training and keeps the network as it is then, with a warning.

        Parameters
        ----------
        X : array of float (n, T, F), or list of n arrays (T_i, F)
            Sequences of feature vectors. With `embedding_dim` or `embedding`: integer ids, an array
            (n, T) or a list of n arrays (T_i,). Sequences may have no step at all. A column of
            objects, as of pandas, is read as a list, here and for y.
        y : array or list
            One target per sequence: labels or numbers (n,), or k numbers each (n, k). Or one per
            step: (n, T), (n, T, k), or a list of n arrays (T_i,) or (T_i, k).
        lengths : array of int (n,), optional
            Real steps of each sequence of a padded array; what comes after them is never read.
            The default is `padding_value`'s lengths, or all T.
        eval_set : tuple (X, y) or (X, y, lengths), optional
            Data to evaluate after every epoch, see `history_`. It does not affect the training.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            When a parameter or the data is not as described above. The model has not changed then.
        MemoryError
            When there is no room for the weights, as when an id in X is huge: all ids up to the
            largest have weights. The model has not changed then either.
        FloatingPointError
            When loss or weights stop being finite; names epoch and batch. The model keeps the last
            finite weights.
        """
        options = check_parameters(self.get_params(deep=False))
        optimizer = new_optimizer(options, gated=self._cell != "rnn")._core
        problem, sequences, targets = Problem.from_data(
            X,
            y,
            lengths,
            input_kind="embedding" if options["embedding_dim"] else options["embedding"] or "dense",
            vocabulary_size=options["vocabulary_size"],
            task=options["task"],
            output=options["output"],
            padding_value=options["padding_value"],
            dtype=options["dtype"],
        )
        validation = self._read_eval_set(eval_set, problem, options["padding_value"])
        rng = options["random_state"]
        config = self._network_config(options, problem)
        network = _new_network(config)
        network.set_parameters(_initial_weights(network, config, rng))

        self._become_fitted(problem, config, network, History())
        data = _examples(sequences, targets)
        if self._train(data, validation, optimizer, int(rng.integers(2**63)), options):
            warnings.warn(
                f"fit was interrupted in epoch {self.n_epochs_ + 1} of {options['max_epochs']}: "
                "the model keeps what it had learned by then",
                stacklevel=2,
            )
        return self

    def _train(
        self,
        data: _core.Examples,
        validation: _core.Examples | None,
        optimizer: _core.Optimizer,
        seed: int,
        options: dict[str, Any],
    ) -> bool:
        """Run the training loop; return whether Ctrl-C ended it."""
        score = "accuracy" if self.task_ == "classification" else "r2"
        bar: AbstractContextManager[Progress | None] = (
            Progress(options["max_epochs"], score, lines=options["verbose"] == 2)
            if options["verbose"]
            else nullcontext()
        )
        use = {"batch_size": options["batch_size"], "n_threads": options["n_jobs"]}
        try:
            with bar as progress:
                for epoch in range(1, options["max_epochs"] + 1):
                    logs = self._network.train_epoch(
                        data,
                        optimizer,
                        epoch=epoch,
                        shuffle=options["shuffle"],
                        bucket_by_length=options["bucket_by_length"],
                        seed=seed,
                        on_batch=partial(progress.on_batch, epoch) if progress else None,
                        **use,
                    )
                    del logs["steps"]
                    if validation is not None:
                        evaluated = self._network.evaluate(validation, **use)
                        logs["val_loss"], logs["val_metric"] = evaluated
                    self._on_epoch(score, progress, epoch, logs)
        except KeyboardInterrupt:
            return True
        return False

    def _on_epoch(
        self, score: str, progress: Progress | None, epoch: int, logs: dict[str, float]
    ) -> None:
        figures = {name.replace("metric", score): value for name, value in logs.items()}
        self.n_epochs_ = epoch
        self.history_.add_epoch(figures)
        if progress:
            progress.on_epoch(epoch, figures)

    def _network_config(self, options: dict[str, Any], problem: Problem) -> dict[str, Any]:
        cell = f"rnn_{options['nonlinearity']}" if self._cell == "rnn" else self._cell
        return {
            "cell": cell,
            "input": problem.input_kind,
            "input_size": problem.n_features or options["embedding_dim"] or 1,
            "vocabulary_size": problem.vocabulary_size,
            "hidden_sizes": [options["hidden_size"]] * options["num_layers"],
            "dropout": options["dropout"],
            "bidirectional": options["bidirectional"],
            "output": problem.output,
            "n_outputs": problem.n_outputs,
            "loss": "squared_error" if problem.classes is None else "cross_entropy",
            "dtype": options["dtype"],
        }

    def _read_eval_set(
        self, eval_set: object, problem: Problem, padding_value: float | None
    ) -> _core.Examples | None:
        if eval_set is None:
            return None
        if not isinstance(eval_set, tuple | list) or len(eval_set) not in (2, 3):
            raise TypeError(
                f"eval_set: expected a tuple (X, y) or (X, y, lengths), got {describe(eval_set)}"
            )
        lengths = eval_set[2] if len(eval_set) == 3 else None
        names = ("eval_set[0]", "eval_set[2]")
        sequences = problem.read(eval_set[0], lengths, padding_value, names)
        targets = problem.targets_for_training(eval_set[1], sequences, "eval_set[1]")
        return _examples(sequences, targets)

    def _become_fitted(
        self, problem: Problem, config: dict[str, Any], network: _core.Network, history: History
    ) -> None:
        """Replace all that an earlier fit left by what is given."""
        for name in [name for name in vars(self) if name.endswith("_") and name[0] != "_"]:
            delattr(self, name)
        self._problem = problem
        self._config = config
        self._network = network
        self.history_ = history
        self.n_epochs_ = len(history.get("loss", ()))
        self.task_ = problem.task
        self.output_ = problem.output
        if problem.classes is not None:
            self.classes_ = problem.classes
        if problem.n_features is not None:
            self.n_features_in_ = problem.n_features
        if problem.vocabulary_size is not None:
            self.vocabulary_size_ = problem.vocabulary_size

    # Use.

    def predict(self, X: object, *, lengths: object = None) -> Array | list[Array]:
        """Predict labels or numbers.

        Parameters
        ----------
        X, lengths
            As in `fit`.

        Returns
        -------
        array or list
            Of the shape that y had in `fit`. One target per step comes in the form of X: a list for
            a list, an array for an array, with zeros or empty strings for padding.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X is not as in `fit`.
        """
        sequences, outputs = self._outputs(X, lengths)
        return self._problem.shape_like_input(self._problem.predictions(outputs), sequences)

    def _may_classify(self) -> bool:
        if self._task_if_known() == "regression":
            raise AttributeError(f"{type(self).__name__}.predict_proba: only for classification")
        return True

    @available_if(_may_classify)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: object, *, lengths: object = None) -> Array | list[Array]:
        """Predict the probability of every class, in the order of `classes_`.

        Parameters and errors are those of `predict`.

        Returns
        -------
        array (n, n_classes), or per step: array (n, T, n_classes), list of arrays (T_i, n_classes)
        """
        sequences, outputs = self._outputs(X, lengths)
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        return self._problem.shape_like_input(probabilities, sequences)

    def score(self, X: object, y: object, *, lengths: object = None) -> float:
        """Return the accuracy for classification, R² (mean over the targets) for regression.

        Parameters
        ----------
        X, y, lengths
            As in `fit`. Steps after the end of a sequence do not count.

        Returns
        -------
        float

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X or y is not as in `fit`.
        """
        check_is_fitted(self)
        sequences = self._read(X, lengths)
        targets = self._problem.read_targets(y, sequences)
        predictions = self._problem.predictions(self._run(sequences))
        if self.task_ == "classification":
            return float(np.mean(predictions == targets))
        return float(r2_score(targets, predictions))

    def _outputs(self, X: object, lengths: object) -> tuple[Sequences, Array]:
        check_is_fitted(self)
        sequences = self._read(X, lengths)
        return sequences, self._run(sequences)

    def _read(self, X: object, lengths: object) -> Sequences:
        padding_value = CHECKS["padding_value"]("padding_value", self.padding_value)
        return self._problem.read(X, lengths, padding_value)

    def _run(self, sequences: Sequences) -> Array:
        return self._network.predict(
            _examples(sequences),
            batch_size=_PREDICT_BATCH,
            n_threads=CHECKS["n_jobs"]("n_jobs", self.n_jobs),
        )

    # What scikit-learn asks.

    def _task_if_known(self) -> str:
        return getattr(self, "task_", self.task)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        task = self._task_if_known()
        if task == "classification":
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        elif task == "regression":
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.target_tags.required = True
        tags.input_tags.two_d_array = self.embedding is not None or self.embedding_dim is not None
        tags.input_tags.three_d_array = not tags.input_tags.two_d_array
        return tags

    # Files and pickles.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file that `rnncore.load` reads.

        The file is safetensors: weights by torch's names, everything else as JSON in its metadata.
        It appears whole or not at all. A `random_state` that is no int is not kept.

        Parameters
        ----------
        path : path of the file
            Replaced if it exists.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        OSError
            When the file cannot be written.
        """
        check_is_fitted(self)
        parameters = {name: to_json(value) for name, value in self.get_params(deep=False).items()}
        if not isinstance(parameters["random_state"], int):
            parameters["random_state"] = None
        configuration = {
            "estimator": type(self).__name__,
            "parameters": parameters,
            "problem": self._problem.to_json(),
            "network": self._config,
            "history": self.history_,
        }
        write_file(path, configuration, self._network.parameters())

    @classmethod
    def _from_configuration(cls, configuration: dict[str, Any], weights: dict[str, Array]) -> Self:
        """Build the fitted model that `save` described."""
        model = cls(**configuration["parameters"])
        config = configuration["network"]
        network = _core.Network(**config)
        network.set_parameters(weights)
        problem = Problem.from_json(configuration["problem"])
        model._become_fitted(problem, config, network, History(configuration["history"]))
        return model

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_network" in state:
            state["_network"] = state["_network"].parameters()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_network" in state:
            network = _core.Network(**self._config)
            network.set_parameters(state["_network"])
            self._network = network


def _examples(sequences: Sequences, targets: Array | None = None) -> _core.Examples:
    return _core.Examples(sequences.values, sequences.starts, sequences.lengths, targets)


def _new_network(config: dict[str, Any]) -> _core.Network:
    try:
        return _core.Network(**config)
    except MemoryError as error:
        sizes = f"hidden_size {config['hidden_sizes'][0]}, num_layers {len(config['hidden_sizes'])}"
        if config["vocabulary_size"] is not None:
            sizes += f", vocabulary_size {config['vocabulary_size']} (above every id in X)"
        raise MemoryError(f"{error}: {sizes}") from None


def _initial_weights(
    network: _core.Network, config: dict[str, Any], rng: np.random.Generator
) -> dict[str, Array]:
    """Draw weights as torch does: normal for the embedding, uniform for all else."""
    weights = {}
    for name, shape in network.parameter_shapes():
        if name.startswith("embedding."):
            values = rng.standard_normal(shape)
        else:
            width = config["hidden_sizes"][-1]
            if name.startswith("head.") and config["bidirectional"]:
                width *= 2
            values = rng.uniform(-(width**-0.5), width**-0.5, shape)
        weights[name] = values.astype(config["dtype"])
    return weights
