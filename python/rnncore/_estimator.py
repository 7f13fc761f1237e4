"""The estimators: recurrent networks with scikit-learn's interface."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils import ClassifierTags, RegressorTags, TransformerTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from rnncore import _core, optim
from rnncore._fit import Fit
from rnncore._history import History
from rnncore._inspect import InspectMixin
from rnncore._language import LanguageModelMixin
from rnncore._network import EVALUATION_BATCH, new_network
from rnncore._options import CHECKS, check_parameters
from rnncore._parameters import Parameters
from rnncore._problem import Problem
from rnncore._sequences import Sequences
from rnncore._state import State
from rnncore._store import StoreMixin
from rnncore._stream import StreamMixin
from rnncore._threads import threads_for
from rnncore._torch import TorchMixin
from rnncore._training import alone
from rnncore._validate import Array
from rnncore._words import WordsHere, words_here


class RecurrentEstimator(
    Parameters,
    WordsHere,
    LanguageModelMixin,
    StreamMixin,
    InspectMixin,
    StoreMixin,
    TorchMixin,
    BaseEstimator,  # type: ignore[misc]
):
    """What `RNN`, `LSTM` and `GRU` share: everything but the equations."""

    _cell: ClassVar[str]

    # Training.

    @words_here
    def fit(
        self,
        X: object,
        y: object = None,
        *,
        lengths: object = None,
        sample_weight: object = None,
        eval_set: object = None,
        resume: bool = False,
    ) -> Self:
        """Train a new network.

        Ctrl-C ends the training and keeps the network as it is then, with a warning; what called
        `fit`, such as a search over parameters, goes on.

        Parameters
        ----------
        X : array of float (n, T, F), or list of n arrays (T_i, F)
            Sequences of feature vectors. With `embedding_dim` or `embedding`: integer ids, an array
            (n, T) or a list of n arrays (T_i,); several ids a step, (n, T, k) or a list of
            (T_i, k), stand for the sum of their vectors. Or text: a list of strings, or of lists of
            words. Sequences may have no step at all. A column of objects, as of pandas, is read as
            a list, here and for y. Language models also take one long stream by itself: ids (T,),
            or a string.
        y : array or list, or None for a language model
            One target per sequence: labels or numbers (n,), or k numbers each (n, k). Or one per
            step: (n, T), (n, T, k), or a list of n arrays (T_i,) or (T_i, k). Several labels at
            once are columns of 0 and 1, as many as there are labels.
        lengths : array of int (n,), optional
            Real steps of each sequence of a padded array; padding is never read. The default is
            `padding_value`'s lengths, or all T.
        sample_weight : array (n,), optional
            What each sequence counts in loss and metric. With a target per step also (n, T) or a
            list of arrays (T_i,). A weight of 0 leaves a target out of loss, metric and gradient: a
            number may be NaN then, a label is one of `classes_` all the same. The weight of an id
            is that of predicting it, in a language model.
        eval_set : tuple (X, y), (X, y, lengths) or (X, y, lengths, sample_weight), optional
            Data to evaluate after every epoch, see `history_`; (X,) for a language model. It does
            not affect the training, but for two: with `early_stopping` no part of X is kept back,
            and an `lr_schedule` of "plateau" follows its loss. One long stream by itself, and what
            is kept back of one, is cut into several as that of X is: the ids that each begins with
            are predicted from less, so that "val_loss" differs a little from `score`.
        resume : bool
            Go on from the last checkpoint in `checkpoint_dir`, if there is one, to the same bits as
            a fit that nothing stopped.

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
            When loss or weights stop being finite; names epoch and update. The model keeps the last
            finite weights.
        OSError
            When `checkpoint_dir` is no folder that can be made, read and written to; the model has
            not changed then. When a checkpoint cannot be written, as on a full disk; the model
            keeps what it has learned by then.
        RuntimeError
            When the model is in training already: in another thread, or where a callback calls.

        Warns
        -----
        UserWarning
            When Ctrl-C ended the training; when `dropout` has no two layers to act between; when
            integers in y look like numbers but, with ``task="auto"``, are read as labels.
        """
        options = check_parameters(self._given(), self._cell)
        with alone(self, "fit"):
            fit = Fit(self, options, resume=resume)
            fit.read(X, y, lengths, sample_weight, eval_set)
            fit.prepare().fit(fit.checkpoints, fit.found, stacklevel=3)
        return self

    @words_here
    def partial_fit(
        self,
        X: object,
        y: object = None,
        *,
        classes: object = None,
        lengths: object = None,
        sample_weight: object = None,
    ) -> Self:
        """Train for one epoch more, the first time with a new network.

        A learning-rate schedule goes on from where it stands. Once "cosine" has come to its end,
        as after a whole `fit`, the rate stays its last: by default 0, which trains nothing.

        Parameters
        ----------
        X, y, lengths, sample_weight
            As in `fit`; after the first time of the same kind as then.
        classes : array (n_classes,), optional
            All labels that there will ever be, the first time; the default is those in y. Not for
            columns of several labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError, MemoryError, FloatingPointError, RuntimeError
            As in `fit`.
        """
        options = check_parameters(self._given(), self._cell)
        if options["early_stopping"]:
            raise ValueError("early_stopping: expected False for partial_fit, got True")
        with alone(self, "partial_fit"):
            fit = Fit(self, options, partial=True)
            fit.read(X, y, lengths, sample_weight, None, classes)
            fit.prepare().partial_fit(stacklevel=3)
        return self

    def _become_fitted(
        self,
        problem: Problem,
        config: dict[str, Any],
        network: _core.Network,
        history: History | None = None,
        *,
        state: State | None = None,
        optimizer: optim.Optimizer | None = None,
    ) -> None:
        """Replace all that an earlier fit left by what is given.

        All at once: another thread may be predicting.
        """
        history = History() if history is None else history
        learned = {
            "_problem": problem,
            "_config": config,
            "_network": network,
            "_optimizer": optimizer,
            "_state": state,
            "history_": history,
            "n_epochs_": len(history.get("loss", ())),
            "task_": problem.task,
            "output_": problem.output,
            "loss_": problem.loss,
            "n_outputs_": problem.n_outputs,
        }
        names = problem.input.feature_names
        of_some = {
            "classes_": problem.classes,
            "n_features_in_": problem.input.n_features or None,
            "feature_names_in_": None if names is None else np.array(names, object),
            "vocabulary_size_": problem.input.vocabulary_size or None,
            "vocabulary_": problem.input.vocabulary,
        }
        learned |= {name: value for name, value in of_some.items() if value is not None}
        # What an earlier fit left, but nothing of a subclass's own.
        left = {"best_epoch_", *getattr(self, "_set_by_fit", ())} - learned.keys()
        learned["_set_by_fit"] = frozenset(learned)
        self.__dict__.update(learned)
        for name in left:
            self.__dict__.pop(name, None)

    # Use.

    def predict(self, X: object, *, lengths: object = None) -> Array | list[Array]:
        """Predict labels or numbers; a language model the most probable id after each step.

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

        Warns
        -----
        RuntimeWarning
            When the network's outputs are not finite, as on sequences that are much longer than
            those of `fit` where a state may grow without bound.
        """
        self._check_fitted()
        sequences = self._read(X, lengths)
        return self._problem.shape_like_input(self._predictions(sequences), sequences)

    def _may_classify(self) -> bool:
        if self._task_if_known() == "regression":
            raise AttributeError(f"{type(self).__name__}.predict_proba: only for classification")
        return True

    @available_if(_may_classify)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: object, *, lengths: object = None) -> Array | list[Array]:
        """Predict the probability of every class, in the order of `classes_`, or of every next id.

        Parameters and errors are those of `predict`.

        Returns
        -------
        array (n, n_classes), or per step: array (n, T, n_classes), list of arrays (T_i, n_classes)
            Of labels that may come together each has a probability of its own.
        """
        self._check_fitted()
        sequences = self._read(X, lengths)
        outputs = self._run(sequences)
        with np.errstate(invalid="ignore"):  # a warning has been given
            probabilities = self._problem.probabilities(outputs)
        return self._problem.shape_like_input(probabilities, sequences)

    def score(
        self, X: object, y: object = None, *, lengths: object = None, sample_weight: object = None
    ) -> float:
        """Return the accuracy for classification, R² (mean over the targets) for regression.

        Where several labels come together all must be right. Of a language model it is the mean
        log-likelihood of the ids, the greater the better; see `perplexity`.

        Parameters
        ----------
        X, y, lengths, sample_weight
            As in `fit`. Padding does not count.

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
        self._check_fitted()
        if self.task_ == "language_model":
            return -self._mean_loss(X, y, lengths, sample_weight)
        sequences = self._read(X, lengths)
        targets, weights = self._problem.read(sequences, y, sample_weight)
        predictions = self._predictions(sequences)
        if self.task_ == "regression":
            # Sums of as many single-precision numbers as there may be steps would lose the spread.
            wide = predictions.astype(np.float64)
            return float(r2_score(targets, wide, sample_weight=weights))
        right = predictions == targets
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=weights))

    def transform(
        self, X: object, *, lengths: object = None, output: str = "auto"
    ) -> Array | list[Array]:
        """Return hidden states of the last layer, as features for other estimators.

        Parameters
        ----------
        X, lengths
            As in `fit`.
        output : "auto", "last", "mean", "max" or "sequence"
            One vector for each sequence, from its last state or from all, or one for each step. The
            default is the `output_` of the model, what its predictions are made from.

        Returns
        -------
        array (n, columns), or per step: array (n, T, columns), list of arrays (T_i, columns)
            A column for each unit of the last layer, and direction.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X is not as in `fit`, or there is no such `output`.
        """
        self._check_fitted()
        output = CHECKS["output"]("output", output)
        if output == "auto":
            output = self.output_
        sequences = self._read(X, lengths)
        states = self._network.features(
            self._examples(sequences),
            output=output,
            batch_size=EVALUATION_BATCH,
            n_threads=self._n_threads(),
        )
        return sequences.shape_like_input(states) if output == "sequence" else states

    @words_here
    def fit_transform(
        self,
        X: object,
        y: object = None,
        *,
        lengths: object = None,
        sample_weight: object = None,
        eval_set: object = None,
        resume: bool = False,
    ) -> Array | list[Array]:
        """Return ``fit(X, y).transform(X)``; arguments and errors are those of `fit`."""
        self.fit(
            X, y, lengths=lengths, sample_weight=sample_weight, eval_set=eval_set, resume=resume
        )
        return self.transform(X, lengths=lengths)

    # What the methods above, and those of the mixins, are made of.

    def _given(self) -> dict[str, Any]:
        """Return every parameter of the estimators by its name.

        ``get_params(deep=False)`` goes by the constructor's signature, to which a derived class may
        add parameters of its own, and from which it may leave some out.
        """
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name in CHECKS}

    def _check_fitted(self) -> None:
        check_is_fitted(self)

    def _n_threads(self) -> int | None:
        return threads_for(CHECKS["n_jobs"]("n_jobs", self.n_jobs))

    def _read(
        self, X: object, lengths: object = None, names: tuple[str, str] = ("X", "lengths")
    ) -> Sequences:
        """Read sequences like those of `fit`; `names` are what errors call the two arguments."""
        return self._problem.input.read(X, lengths, names)

    def _examples(self, sequences: Sequences) -> _core.Examples:
        """Return sequences without targets as the extension reads them."""
        return _core.Examples(sequences.values, sequences.starts, sequences.lengths)

    def _labelled(
        self, X: object, y: object, lengths: object, sample_weight: object = None
    ) -> tuple[Sequences, _core.Examples]:
        """Read sequences with targets like those of `fit`."""
        sequences = self._read(X, lengths)
        return sequences, self._problem.label(sequences, y, sample_weight).examples()

    def _run(self, sequences: Sequences, stacklevel: int = 2) -> Array:
        """Return raw outputs, a row for each sequence or each real step.

        `stacklevel` is that of a warning: 2 is the caller of the function that calls this.
        """
        outputs = self._network.predict(
            self._examples(sequences), batch_size=EVALUATION_BATCH, n_threads=self._n_threads()
        )
        if not _core.all_finite(outputs):
            _warn_of_outputs(stacklevel + 1)
        return outputs

    def _predictions(self, sequences: Sequences) -> Array:
        """Return labels, numbers or ids, a row for each sequence or each real step."""
        problem = self._problem
        if problem.loss != "cross_entropy":
            return problem.predictions(self._run(sequences, stacklevel=3))
        # Of raw outputs there may be thousands for each id.
        chosen, are_finite = self._network.choose(
            self._examples(sequences), batch_size=EVALUATION_BATCH, n_threads=self._n_threads()
        )
        if not are_finite:
            _warn_of_outputs(stacklevel=3)
        return problem.labels(chosen)

    def _mean_loss(self, X: object, y: object, lengths: object, sample_weight: object) -> float:
        _, examples = self._labelled(X, y, lengths, sample_weight)
        loss, _ = self._network.evaluate(
            examples, batch_size=EVALUATION_BATCH, n_threads=self._n_threads()
        )
        return loss

    # What scikit-learn asks.

    def _task_if_known(self) -> str:
        return getattr(self, "task_", self.task)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        task, per_step = self._task_if_known(), getattr(self, "output_", self.output) == "sequence"
        # For scikit-learn a classifier has one target a sample: with one for each step it would
        # try to stratify by them.
        if task == "classification" and not per_step:
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_label=True)
        elif task == "regression":
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.transformer_tags = TransformerTags(preserves_dtype=[])
        tags.target_tags.required = task != "language_model"
        tags.target_tags.multi_output = True
        ids = (
            self.embedding is not None or self.embedding_dim is not None or task == "language_model"
        )
        tags.input_tags.one_d_array = task == "language_model"
        tags.input_tags.two_d_array = ids
        tags.input_tags.three_d_array = not ids
        tags.input_tags.string = True
        tags.input_tags.allow_nan = isinstance(self.padding_value, float) and math.isnan(
            self.padding_value
        )
        return tags

    # Copies and pickles.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_network" in state:
            network, optimizer = state["_network"], state["_optimizer"]
            state["_network"] = network.parameters()
            if state["_state"] is not None:  # training changes it, and a copy has one of its own
                state["_state"] = copy.deepcopy(state["_state"])
                state["history_"] = state["_state"].history
            if optimizer is not None:
                state["_optimizer"] = (copy.copy(optimizer), optimizer._core.state(network))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_network" in state:
            self._network = new_network(self._config)
            self._network.set_parameters(state["_network"])
            if state["_optimizer"] is not None:
                self._optimizer, buffers = state["_optimizer"]
                self._optimizer._core.set_state(self._network, buffers)


def _warn_of_outputs(stacklevel: int) -> None:
    """Warn that outputs are not finite; a `stacklevel` of 2 is the caller of what calls this."""
    warnings.warn(
        "the network's outputs are not finite: its states grow without bound on sequences "
        "like these, and what is predicted from them means nothing",
        RuntimeWarning,
        stacklevel=stacklevel + 1,
    )
