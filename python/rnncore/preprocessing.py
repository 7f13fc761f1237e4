"""scikit-learn's transformers, applied step by step to sequences.

::

    pipeline = make_pipeline(StepTransformer(StandardScaler()), rnncore.LSTM())
    pipeline.fit(X, y)  # X: (n, T, F), or a list of (T_i, F)
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from rnncore._data import read_vectors
from rnncore._options import CHECKS
from rnncore._sequences import Sequences
from rnncore._validate import Array, any_array, describe, listed_objects
from rnncore._words import WordsHere

__all__ = ["StepTransformer"]


def _inverts(step_transformer: StepTransformer) -> bool:
    inner = getattr(step_transformer, "transformer_", step_transformer.transformer)
    return hasattr(inner, "inverse_transform")


class StepTransformer(WordsHere, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Applies a transformer of rows to every step of every sequence.

    What it learns, it learns from all real steps together; padding is neither learned from nor
    transformed.

    Parameters
    ----------
    transformer : scikit-learn transformer
        Such as `sklearn.preprocessing.StandardScaler`; a clone of it is fitted. Its parameters are
        searched as ``steptransformer__transformer__...``.
    padding_value : float, optional
        Steps at the end of a sequence that consist of this value, which may be NaN, are padding,
        before and after: the same as the estimator's `padding_value`. NaN is the one value that no
        real step can take on when it is transformed.
    padding_side : "right" or "left"
        Whether padding, found so or left over by `lengths`, stands behind the real steps or
        before them.

    Attributes
    ----------
    transformer_ : the fitted clone
    n_features_in_ : int
        F.
    feature_names_in_ : array of str (F,)
        For X of tables whose columns have names: later ones must have the same in the same order.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> scaler = StepTransformer(StandardScaler())
    >>> scaler.fit_transform([np.array([[1.0], [2.0]]), np.array([[3.0]])])
    [array([[-1.22474487],
           [ 0.        ]]), array([[1.22474487]])]
    """

    def __init__(
        self,
        transformer: Any,
        *,
        padding_value: float | None = None,
        padding_side: str = "right",
    ) -> None:
        self.transformer = transformer
        self.padding_value = padding_value
        self.padding_side = padding_side

    def fit(self, X: object, y: object = None, *, lengths: object = None) -> Self:
        """Fit a clone of the transformer on all real steps.

        Parameters
        ----------
        X : array (n, T, F), or list of n arrays (T_i, F)
            Missing values (NaN) are left to the transformer.
        y : ignored
        lengths : array of int (n,), optional
            Real steps of each sequence of a padded array. In a `Pipeline`, which would not hand
            them on, use a list or `padding_value`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            When X is not as described, or the transformer does not make a row of numbers of every
            step. What an earlier fit learned is kept then.
        """
        self._fit_steps(X, lengths)
        return self

    def fit_transform(
        self, X: object, y: object = None, *, lengths: object = None
    ) -> Array | list[Array]:
        """Return ``fit(X).transform(X)``; arguments and errors are those of `fit`."""
        return self._apply("transform", self._fit_steps(X, lengths))

    def transform(self, X: object, *, lengths: object = None) -> Array | list[Array]:
        """Transform every real step.

        Parameters
        ----------
        X, lengths
            As in `fit`.

        Returns
        -------
        array (n, T, K) or list of n arrays (T_i, K)
            In the form of X; padded steps hold `padding_value`, or zeros without one.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            When X is not as in `fit`, or the transformer does not make a row of numbers of every
            step.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        known = None if names is None else tuple(names)
        return self._apply("transform", self._read(X, lengths, self.n_features_in_, known))

    @available_if(_inverts)  # type: ignore[untyped-decorator]
    def inverse_transform(self, X: object, *, lengths: object = None) -> Array | list[Array]:
        """Take every real step back to what it was before `transform`.

        Parameters, result and errors are those of `transform`.
        """
        check_is_fitted(self)
        return self._apply("inverse_transform", self._read(X, lengths, self._n_features_out))

    def _fit_steps(self, X: object, lengths: object) -> Sequences:
        methods = ("get_params", "fit", "transform")
        if isinstance(self.transformer, type) or not all(
            hasattr(self.transformer, method) for method in methods
        ):
            raise TypeError(
                "transformer: expected one of scikit-learn's transformers, "
                f"got {describe(self.transformer)}"
            )
        sequences = self._read(X, lengths, None)
        rows = sequences.values[sequences.rows()]
        if not len(rows):
            raise ValueError("X: expected a sequence with at least one step, got none")
        transformer = clone(self.transformer).fit(rows)
        width = _transformed(transformer, "transform", rows[:1]).shape[1]
        self.transformer_, self.n_features_in_ = transformer, rows.shape[1]
        self._n_features_out = width
        if sequences.feature_names is not None:
            self.feature_names_in_ = np.array(sequences.feature_names, object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return sequences

    def _read(
        self,
        X: object,
        lengths: object,
        n_features: int | None,
        feature_names: tuple[str, ...] | None = None,
    ) -> Sequences:
        X = listed_objects(X)
        arrays = X if isinstance(X, list | tuple) else [X]
        single = {np.dtype(np.float32), np.dtype(np.float16)}
        kept = all(isinstance(array, np.ndarray) and array.dtype in single for array in arrays)
        return read_vectors(
            X,
            lengths,
            padding_value=CHECKS["padding_value"]("padding_value", self.padding_value),
            n_features=n_features,
            feature_names=feature_names,
            dtype="float32" if kept else "float64",
            left=CHECKS["padding_side"]("padding_side", self.padding_side) == "left",
            finite=False,
        )

    def _apply(self, method: str, sequences: Sequences) -> Array | list[Array]:
        rows = sequences.rows()
        # A transformer refuses to transform no rows at all.
        given = sequences.values[rows] if len(rows) else np.zeros((1, sequences.values.shape[1]))
        steps = _transformed(self.transformer_, method, given)
        fill = 0.0 if self.padding_value is None else self.padding_value
        shape = (len(sequences.values), steps.shape[1])
        full = np.full(shape, fill, _dtype_with(steps.dtype, fill))
        full[rows] = steps[: len(rows)]
        return sequences.shape_like_input(full)

    def __sklearn_tags__(self) -> Any:  # noqa: D105
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags


def _dtype_with(dtype: np.dtype[Any], value: float) -> np.dtype[Any]:
    """Return the dtype, or a floating one where numbers of it cannot be `value`, even nearly."""
    if dtype.kind not in "biu":
        return dtype
    with np.errstate(invalid="ignore"):
        is_held = np.asarray(value).astype(dtype) == value
    return dtype if is_held else np.result_type(dtype, np.float32)


def _transformed(transformer: Any, method: str, rows: Array) -> Array:
    """Return what a transformer makes of rows, which may be sparse or a table, as an array."""
    found = getattr(transformer, method)(rows)
    array = any_array("transformer", found.toarray() if hasattr(found, "toarray") else found)
    if array.ndim != 2 or len(array) != len(rows) or array.dtype.kind not in "biufcO":
        raise ValueError(
            f"transformer: expected numbers of shape ({len(rows)}, k) from "
            f"{type(transformer).__name__}.{method}, got {describe(array)}"
        )
    return array
