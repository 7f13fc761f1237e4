"""What language models can do besides: write, and say how well they know a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.metaestimators import available_if

from rnncore._fitted import Fitted
from rnncore._validate import Array, generator, integer, listed_objects, real

if TYPE_CHECKING:
    from rnncore.text import Vocabulary


def _models_language(model: Fitted) -> bool:
    if model._task_if_known() != "language_model":
        raise AttributeError(f"{type(model).__name__}: only for task='language_model'")
    return True


class LanguageModelMixin(Fitted):
    """Gives an estimator `generate` and `perplexity`, for task="language_model"."""

    @available_if(_models_language)  # type: ignore[untyped-decorator]
    def generate(
        self,
        prompt: object,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        random_state: object = None,
    ) -> Any:
        """Go on with a text.

        What stands for no word is never drawn: a vocabulary's padding and unknown word, ids beyond
        its words, or `masked_id`.

        Parameters
        ----------
        prompt : str, array of ids (T,) or list of words; or a list of such
            At least one id each. What is drawn for one does not depend on the others.
        length : int
            Ids to add.
        temperature : float >= 0
            The outputs are divided by it before they become probabilities: below 1 likely ids gain,
            and with 0 the likeliest is always taken.
        top_k : int, optional
            Draw among the `top_k` likeliest ids.
        top_p : float in (0, 1], optional
            Draw among the likeliest ids that have this probability together (nucleus sampling,
            Holtzman et al. 2020), after `temperature` and `top_k`.
        random_state : None, int, numpy.random.Generator or numpy.random.RandomState
            An int gives the same text every time.

        Returns
        -------
        str, array of int64 (T + length,) or list of words; or a list of such
            The prompt and what follows, in the form of `prompt`; a list of words for a str where
            the vocabulary was fitted on such, or has an `analyzer` of its own, and does not know
            how words are joined.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When an argument is not as described.
        FloatingPointError
            When the network's outputs are not finite: its states have grown without bound.
        """
        self._check_fitted()
        length = integer("length", length, 0)
        temperature = real("temperature", temperature, 0.0)
        if top_k is not None:
            top_k = integer("top_k", top_k, 1)
        if top_p is not None:
            top_p = real("top_p", top_p, 0.0, 1.0, open_minimum=True)
        rng = generator("random_state", random_state)
        vocabulary: Vocabulary | None = getattr(self, "vocabulary_", None)

        prompts, several = _prompts(prompt, vocabulary)
        sequences = self._read(prompts, names=("prompt", "lengths"))
        begun = [
            sequences.values[start : start + count]
            for start, count in zip(sequences.starts, sequences.lengths, strict=True)
        ]
        for index, ids in enumerate(begun):
            if not len(ids):
                name = f"prompt[{index}]" if several else "prompt"
                raise ValueError(f"{name}: expected at least one id to go on from, got none")
        if length and len(self._never_drawn()) == self._config["n_outputs"]:
            raise ValueError(
                "length: expected 0 for a model that knows padding and unknown words alone, of "
                f"which none is drawn, got {length}"
            )
        # A generator each, so that no text depends on how many others are written.
        numbers = np.stack([child.random(length) for child in rng.spawn(len(begun))])
        added = self._go_on(begun, numbers, temperature, top_k, top_p)
        texts = [
            _joined(given, ids, new, vocabulary)
            for given, ids, new in zip(prompts, begun, added, strict=True)
        ]
        return texts if several else texts[0]

    @available_if(_models_language)  # type: ignore[untyped-decorator]
    def perplexity(self, X: object, *, lengths: object = None) -> float:
        """Return the exponential of the mean negative log-likelihood of an id.

        It is the number of equally likely ids among which the model would waver as much.

        Parameters
        ----------
        X, lengths
            As in `fit`.

        Returns
        -------
        float

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X is not as in `fit`.
        """
        with np.errstate(over="ignore"):
            return float(np.exp(-self.score(X, lengths=lengths)))

    def _go_on(
        self,
        begun: list[Array],
        numbers: Array,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> Array:
        """Return ids (n, length) to follow `begun`; `numbers` (n, length) in [0, 1) choose them."""
        count, length = numbers.shape
        added = np.zeros((count, length), np.int64)
        if not length:
            return added
        stream = self._network.stream(count)
        known = np.array([len(ids) for ids in begun])
        rows = np.arange(count)
        x = np.array([ids[0] for ids in begun])
        never = self._never_drawn()
        # All go on side by side: the short prompts already add where the long ones still read.
        for step in range(int(known.max()) + length - 1):
            outputs = stream.step(x).astype(np.float64)
            place = step + 1 - known  # below 0: the next id is given
            adding = rows[(place >= 0) & (place < length)]
            if len(adding):
                outputs = outputs[adding]
                if not np.isfinite(outputs).all():
                    raise FloatingPointError(
                        f"the network's outputs are not finite after {step + 1} steps: its states "
                        "have grown without bound, and there is nothing to draw from"
                    )
                outputs[:, never] = -np.inf
                drawn = _draw(outputs, numbers[adding, place[adding]], temperature, top_k, top_p)
                added[adding, place[adding]] = x[adding] = drawn
            for row in rows[place < 0]:
                x[row] = begun[row][step + 1]
        return added

    def _never_drawn(self) -> list[int]:
        vocabulary = getattr(self, "vocabulary_", None)
        if vocabulary is not None:
            from rnncore.text import PADDING, UNKNOWN

            known = len(vocabulary.vocabulary_)
            return [PADDING, UNKNOWN, *range(known, self._config["n_outputs"])]
        masked = self._config.get("masked_id")
        return [] if masked is None else [masked]


def _prompts(prompt: Any, vocabulary: Vocabulary | None) -> tuple[list[Any], bool]:
    """Return prompts as a list, and whether they came as one."""
    prompt = _listed_words(prompt)
    words = vocabulary is not None and vocabulary.tokenized_
    if isinstance(prompt, str):
        return [prompt], False
    if isinstance(prompt, list | tuple):
        if prompt and all(isinstance(item, str) for item in prompt):
            return ([list(prompt)], False) if words else (list(prompt), True)
        if all(np.ndim(item) == 0 and not isinstance(item, str) for item in prompt):
            return [list(prompt) if words and not prompt else np.asarray(prompt)], False
        return [_listed_words(item) for item in prompt], True
    if getattr(prompt, "ndim", None) == 1:
        return [prompt], False
    return prompt, True


def _listed_words(value: Any) -> Any:
    """Return words as a list where they come as an array or a table's column; all else as it is."""
    value = listed_objects(value)
    is_text = isinstance(value, np.ndarray) and value.dtype.kind in "UT"
    return value.tolist() if is_text else value


def _draw(
    outputs: Array, numbers: Array, temperature: float, top_k: int | None, top_p: float | None
) -> Array:
    """Return an id for each row of outputs (n, V), as a number (n,) in [0, 1) chooses."""
    drawn: Array
    if temperature == 0:
        drawn = outputs.argmax(axis=1)
        return drawn
    if top_k is not None and top_k < outputs.shape[1]:
        least = np.partition(outputs, -top_k, axis=1)[:, -top_k, None]
        outputs = np.where(outputs >= least, outputs, -np.inf)
    with np.errstate(over="ignore"):
        powers = np.exp((outputs - outputs.max(axis=1, keepdims=True)) / temperature)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    if top_p is not None:
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ordered = np.take_along_axis(probabilities, order, axis=1)
        before = ordered.cumsum(axis=1) - ordered
        np.put_along_axis(probabilities, order, np.where(before < top_p, ordered, 0), axis=1)
    sums = probabilities.cumsum(axis=1)
    # The first id whose sum is above the number; it has a probability above zero itself.
    drawn = (sums > numbers[:, None] * sums[:, -1:]).argmax(axis=1)
    return drawn


def _joined(given: Any, ids: Array, added: Array, vocabulary: Vocabulary | None) -> Any:
    """Return a prompt, given as text or as ids, and what was added in the prompt's form."""
    text = isinstance(given, str) or (
        isinstance(given, Sequence) and bool(given) and isinstance(given[0], str)
    )
    if vocabulary is None or not text:
        return np.concatenate([ids, added])
    if not isinstance(given, str):
        return [*given, *vocabulary._known("ids", added, list(vocabulary.vocabulary_))]
    new = vocabulary.inverse_transform([added])[0]
    if isinstance(new, str):
        return given + ("" if vocabulary.analyzer == "char" or not new else " ") + new
    return vocabulary.inverse_transform([np.concatenate([ids, added])])[0]
