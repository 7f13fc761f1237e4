"""From the arguments of `fit` to a training that may begin: all checks, then all changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncore import _core, optim
from rnncore._checkpoint import Checkpoint, Checkpoints, digest
from rnncore._labelled import Labelled, split
from rnncore._network import initial_weights, network_config, new_network
from rnncore._options import STREAM_BPTT_STEPS, new_optimizer
from rnncore._problem import Problem
from rnncore._recurrent import cell_options
from rnncore._state import State
from rnncore._targets import label_array
from rnncore._training import Trainer
from rnncore._validate import Array, boolean, describe
from rnncore._weights import weights_of_classes

if TYPE_CHECKING:
    from rnncore._estimator import RecurrentEstimator
    from rnncore._input import Input

# Parameters that another process may change when it goes on from a checkpoint.
_MAY_DIFFER = {
    "max_epochs",
    "n_jobs",
    "verbose",
    "callbacks",
    "checkpoint_dir",
    "checkpoint_epochs",
    "checkpoint_minutes",
    "checkpoint_time",  # which changes no bit
    "warm_start",
    "vocabulary",  # the ids that it made are compared
}


class Fit:
    """One call of `fit` or `partial_fit`: `read`, then `prepare`, which changes the model.

    Parameters
    ----------
    model : estimator
    options : dict
        Its parameters, checked.
    partial : bool
        Whether this is `partial_fit`, which trains the network that there is, if there is one, and
        keeps no checkpoints.
    resume : bool
        Whether to go on from a checkpoint.
    """

    checkpoints: Checkpoints | None = None
    found: Checkpoint | None = None

    def __init__(
        self,
        model: RecurrentEstimator,
        options: dict[str, Any],
        *,
        partial: bool = False,
        resume: object = False,
    ) -> None:
        go_on = partial or options["warm_start"]
        self._model = model
        self._options = options
        self._partial = partial
        self._go_on = go_on and model.__sklearn_is_fitted__()
        self._resume = boolean("resume", resume)
        if self._resume and options["checkpoint_dir"] is None:
            raise ValueError("resume: expected False without a checkpoint_dir, got True")
        if self._resume and go_on:
            raise ValueError("resume: expected False with warm_start=True, got True")
        self._optimizer = new_optimizer(options, gated=model._cell != "rnn")

    def read(
        self,
        X: object,
        y: object,
        lengths: object,
        sample_weight: object,
        eval_set: object,
        classes: object = None,
    ) -> None:
        """Read the data, and find out what there is to learn."""
        options = self._options
        if self._go_on:
            self._problem = self._model._problem
            check_unchanged(options, self._problem)
            check_same_reading(options, self._problem.input, self._model._config["cell"])
            _check_vocabulary(options["vocabulary"], self._problem.input.vocabulary)
            _check_classes(classes, self._problem)
            sequences = self._problem.input.read(X, lengths)
            data = self._problem.label(sequences, y, sample_weight)
        else:
            self._problem, data = Problem.from_data(X, y, lengths, sample_weight, options, classes)
        validation = self._read_eval_set(eval_set)
        if options["bptt_steps"] is not None and not self._problem.per_step:
            raise ValueError(
                "bptt_steps: expected None without a target for each step, "
                f"got {options['bptt_steps']}"
            )
        if options["class_weight"] is not None:
            if self._problem.classes is None or not self._problem.single:
                raise ValueError(
                    "class_weight: expected None unless each target is one label, "
                    f"got {options['class_weight']!r}"
                )
            weights = weights_of_classes(
                options["class_weight"], self._problem.classes, data.counted_codes()
            )
            data = data.weighed_by_class(weights)
            validation = validation and validation.weighed_by_class(weights)
        if options["checkpoint_dir"] is not None and not self._partial:
            fingerprint = self._fingerprint(data, validation)
            self.checkpoints = Checkpoints(options["checkpoint_dir"], fingerprint)
            if self._resume:
                self.found = self.checkpoints.find(options["max_epochs"])
        self._state = self._state_to_train_from()
        kept = options["early_stopping"] and validation is None
        if kept:
            data, validation = split(
                data,
                options["validation_fraction"],
                np.random.default_rng([self._state.seed, 1]),
                self._problem.stratifies,
            )
        for part, name in ((data, "X"), (validation, "early_stopping" if kept else "eval_set")):
            if part is not None and not part.is_counted():
                where = " in the part kept back" if kept and part is validation else ""
                raise ValueError(
                    f"{name}: expected a target that weighs something{where}, got none"
                )
        if data.stream:
            options["bptt_steps"] = options["bptt_steps"] or STREAM_BPTT_STEPS
        self._data, self._validation = self._cut(data), validation and self._cut(validation)

    def prepare(self) -> Trainer:
        """Give the model its network, and return what will train it."""
        model, options, problem = self._model, self._options, self._problem
        config = network_config(options, problem, model._cell)
        if self._go_on:
            check_same_network(config, model._config)
        network = new_network(config)
        optimizer = self._optimizer
        if self._go_on:
            self._take_over(config, network, optimizer)
        else:
            rng = np.random.default_rng(self._state.seed)
            network.set_parameters(initial_weights(network, options, rng))
        train = self._data.examples()
        validation = None if self._validation is None else self._validation.examples()
        if self.checkpoints is not None:  # now rather than after the first epoch, which may be long
            self.checkpoints.make_folder()
        model._become_fitted(
            problem, config, network, self._state.history, state=self._state, optimizer=optimizer
        )
        return Trainer(
            model,
            network,
            optimizer._core,
            self._state,
            options=options,
            metric=problem.metric,
            train=train,
            validation=validation,
        )

    def _cut(self, data: Labelled) -> Labelled:
        """Cut one long stream into those that are read side by side."""
        if not data.stream:
            return data
        shortest = int(np.max(self._options["bptt_steps"] or STREAM_BPTT_STEPS))
        return data.streams(self._options["batch_size"], shortest)

    def _take_over(
        self, config: dict[str, Any], network: _core.Network, optimizer: optim.Optimizer
    ) -> None:
        """Give weights, and what the optimizer keeps, of the model's network to a new one."""
        model = self._model
        network.set_parameters(model._network.parameters())
        before = model._optimizer
        if before is not None and _keeps(before, model._config) == _keeps(optimizer, config):
            optimizer._core.set_state(network, before._core.state(model._network))

    def _state_to_train_from(self) -> State:
        if self.found is not None:
            return State(self.found.state.seed)
        if self._go_on and self._model._state is not None:
            return self._model._state
        return State(int(self._options["random_state"].integers(2**63)))

    def _read_eval_set(self, eval_set: object) -> Labelled | None:
        if eval_set is None:
            return None
        fewest, forms = 2, "(X, y), (X, y, lengths) or (X, y, lengths, sample_weight)"
        if self._problem.task == "language_model":
            fewest, forms = 1, "(X,), (X, None, lengths) or (X, None, lengths, sample_weight)"
        if not isinstance(eval_set, tuple | list) or not fewest <= len(eval_set) <= 4:
            raise TypeError(f"eval_set: expected a tuple {forms}, got {describe(eval_set)}")
        X, y, lengths, sample_weight = (*eval_set, None, None, None)[:4]
        sequences = self._problem.input.read(X, lengths, ("eval_set[0]", "eval_set[2]"))
        names = ("eval_set[0]", "eval_set[1]", "eval_set[3]")
        return self._problem.label(sequences, y, sample_weight, names)

    def _fingerprint(self, data: Labelled, validation: Labelled | None) -> dict[str, Any]:
        """Return what makes two fits the same, by the names that the caller knows."""
        model = self._model
        parts: dict[str, Any] = {"estimator": type(model).__name__}
        for name, value in model._given().items():
            if name == "random_state" and not isinstance(value, int | np.integer):
                continue
            if name in ("dtype", "embedding"):  # in the one form that each is read in
                value = self._options[name]
            if name == "vocabulary_size":  # also that of text, of which more may be known now
                value = self._problem.input.vocabulary_size or value
            if name not in _MAY_DIFFER:
                parts[name] = _plain(value)
        values, targets, weights = data.without_padding()
        parts["X"] = digest(values, data.lengths)
        parts["y"] = digest(targets)
        parts["sample_weight"] = digest(weights)
        if validation is not None:
            parts["eval_set"] = digest(*validation.without_padding(), validation.lengths)
        return parts


def _keeps(optimizer: optim.Optimizer, config: dict[str, Any]) -> tuple[object, ...]:
    """Return what decides which numbers an optimizer keeps of each weight, and of which weights."""
    options, frozen = optimizer.options, config["freeze_embedding"]
    return type(optimizer), bool(options.get("momentum")), bool(options.get("centered")), frozen


def _plain(value: Any) -> Any:
    """Return a parameter as JSON gives it back; what JSON has no form for, in words."""
    if isinstance(value, np.ndarray):
        return digest(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return sorted([repr(key), _plain(item)] for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def check_unchanged(options: dict[str, Any], problem: Problem) -> None:
    """Check parameters that a network goes on with as it began."""
    kind = problem.input
    for name, known in (
        ("task", problem.task),
        ("output", problem.output),
        ("loss", problem.loss),
        ("padding_value", kind.padding_value),
        ("padding_side", "left" if kind.left else "right"),
    ):
        value = options[name]
        if value not in ("auto", known) and (value == value or known == known):  # NaN is NaN
            raise ValueError(
                f"{name}: expected {known!r}, as the network that is trained on has, got {value!r}"
            )
    kind.check_parameters(options)


def check_same_reading(options: dict[str, Any], kind: Input, cell: str) -> None:
    """Check parameters that a network's weights do not tell, but what it computes depends on.

    `kind` is what it was trained on, and `cell` what its configuration calls its own.
    """
    from rnncore.text import PADDING

    nonlinearity, residual = cell_options(cell)
    # What None stands for: as many ids as there are, and in text that of padding.
    by_none = {"vocabulary_size": kind.vocabulary_size or None}
    if kind.vocabulary is not None:
        by_none["masked_id"] = PADDING
    for name, known in (
        ("nonlinearity", nonlinearity),
        ("residual", residual),
        ("vocabulary_size", kind.vocabulary_size or None),
        ("masked_id", kind.masked_id),
    ):
        value = options.get(name, known)  # two of them are those of the plain RNN
        if value != known and not (value is None and by_none.get(name) == known):
            raise ValueError(f"{name}: expected {known!r}, as the network has, got {value!r}")


def _check_vocabulary(value: Any, known: Any) -> None:
    """Check that a `vocabulary` is that of the network; one not fitted yet, that it would be."""
    from rnncore.text import Vocabulary

    if known is None:
        if hasattr(value, "vocabulary_size_"):
            raise ValueError(
                "vocabulary: expected 'auto', as the network was trained on ids without one, "
                f"got {value!r}"
            )
        return
    if value == "auto":
        return
    now = (Vocabulary(value) if isinstance(value, str) else value).to_json()
    was = known.to_json()
    if "words" in now:  # then it does not matter how they were found
        names = ["analyzer", "lowercase", "affixes", "words", "prefixes", "suffixes"]
        now, was = ({**fields["parameters"], **fields} for fields in (now, was))
    else:
        now, was = now["parameters"], was["parameters"]
        names = list(was)
    for name in names:
        if now.get(name) != was[name]:
            expected, got = _first_difference(was[name], now.get(name))
            raise ValueError(
                f"vocabulary: expected {name} {expected!r}, as the network has, got {got!r}"
            )
    # One that a file could not hold has to be given anew; else it is in no description either.
    analyzers = [getattr(each, "analyzer", None) for each in (known, value)]
    if all(map(callable, analyzers)) and analyzers[0] != analyzers[1]:
        raise ValueError(
            f"vocabulary: expected analyzer {analyzers[0]!r}, as the network has, "
            f"got {analyzers[1]!r}"
        )


def _first_difference(a: Any, b: Any) -> tuple[Any, Any]:
    """Return two unlike values; of two lists the first items that differ."""
    if not (isinstance(a, list) and isinstance(b, list)):
        return a, b
    return next(pair for pair in zip_longest(a, b) if pair[0] != pair[1])


# Of a network's configuration what its weights depend on, by the parameters that it comes from.
_OF_WEIGHTS = {
    "dtype": "dtype",
    "hidden_sizes": "hidden_size and num_layers",
    "bidirectional": "bidirectional",
    "learn_initial_state": "learn_initial_state",
    "tie_embedding": "tie_embedding",
    "input_size": "embedding_dim",
}


def check_same_network(config: dict[str, Any], known: dict[str, Any]) -> None:
    """Check that weights of a network that was configured as `known` fit the new one."""
    for field, name in _OF_WEIGHTS.items():
        if config[field] != known[field]:
            raise ValueError(
                f"{name}: expected {known[field]}, as the network that is trained on has, "
                f"got {config[field]}"
            )


def _check_classes(classes: object, problem: Problem) -> None:
    if classes is None:
        return
    known: Array | None = problem.classes
    if known is None or not np.array_equal(np.unique(label_array("classes", classes)), known):
        raise ValueError(
            f"classes: expected None or those of the first partial_fit, got {describe(classes)}"
        )
