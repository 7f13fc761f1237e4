"""The three estimators."""

from __future__ import annotations

from rnncore._estimator import RecurrentEstimator


class LSTM(RecurrentEstimator):
    """A long short-term memory network as a classifier or regressor over sequences.

    It learns to minimise the cross-entropy of the labels, or the mean squared error of the numbers.
    X and numbers in y are taken as they are: scaled to a size of about 1 they are learned best, for
    y with `sklearn.compose.TransformedTargetRegressor`.

    Parameters
    ----------
    hidden_size : int
        Units of every recurrent layer.
    num_layers : int
        Recurrent layers, each over the outputs of the one before it.
    bidirectional : bool
        Whether every layer also reads the sequence from its end.
    dropout : float in [0, 1)
        Probability with which outputs between two layers are zeroed in training.
    task : "auto", "classification" or "regression"
        With "auto" `fit` decides: floats in y mean regression, other types classification. Name
        the task where scikit-learn should know it before `fit`, as in stratified cross-validation.
    output : "auto", "last" or "sequence"
        Whether there is a target for each sequence, read off the last state, or for each of its
        steps. With "auto" the shape of y decides.
    embedding_dim : int, optional
        Set for X of integer ids: the size of the vector learned for each id.
    embedding : "one-hot", optional
        Set for X of integer ids without a learned embedding.
    vocabulary_size : int, optional
        Every id is below it. The default is the largest id in `fit` plus one.
    padding_value : float, optional
        Steps at the end of a sequence that consist of this value, which may be NaN, are padding;
        at the start they are data. Not looked for where `lengths` are given.
    optimizer : "adam" or "sgd"
    learning_rate : float or "auto"
        "auto" is 0.01 for Adam and 0.1 for SGD; 0.005 and 0.02 for a plain `RNN`.
    momentum : float
        Of SGD.
    nesterov : bool
        Of SGD.
    weight_decay : float
        Added to the gradient as ``weight_decay * weight``.
    clip_norm : float, optional
        The gradient is scaled down to this norm when it is longer.
    clip_value : float, optional
        Each element of the gradient is cut to this size.
    max_epochs : int
        Passes over the data.
    batch_size : int
        Sequences in each step of the optimizer.
    shuffle : bool
        Whether every epoch takes the sequences in a new order.
    bucket_by_length : bool
        Whether a batch is made of sequences of similar length, which saves time.
    dtype : "float32" or "float64"
    n_jobs : int, optional
        Threads; -1 stands for all CPUs, None for `rnncore.get_num_threads`. The result is the same
        to the last bit whatever it is.
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
        An int makes `fit` reproducible.
    verbose : 0, 1 or 2
        1 shows a progress bar, 2 also prints a line for each epoch.

    Attributes
    ----------
    history_ : dict of lists
        Figures of every epoch: "loss", "accuracy" or "r2", "grad_norm" and "seconds", with an
        `eval_set` also "val_loss" and "val_accuracy" or "val_r2". ``history_.plot()`` draws them.
    n_epochs_ : int
        Finished epochs.
    task_, output_ : str
        What "auto" stood for.
    classes_ : array (n_classes,)
        Sorted labels, for classification.
    n_features_in_ : int
        F, for X of feature vectors.
    vocabulary_size_ : int
        For X of ids.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((200, 10, 1))
    >>> y = np.where(X.sum(axis=(1, 2)) > 0, "up", "down")
    >>> model = LSTM(hidden_size=16, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    """

    _cell = "lstm"


class GRU(RecurrentEstimator):
    """A network of gated recurrent units; parameters, attributes and use are those of `LSTM`."""

    _cell = "gru"


class RNN(RecurrentEstimator):
    """A plain (Elman) recurrent network; parameters, attributes and use are those of `LSTM`.

    Beside them it has ``nonlinearity``, "tanh" or "relu".
    """

    _cell = "rnn"

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        nonlinearity: str = "tanh",
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
        super().__init__(
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            task=task,
            output=output,
            embedding=embedding,
            embedding_dim=embedding_dim,
            vocabulary_size=vocabulary_size,
            padding_value=padding_value,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            clip_value=clip_value,
            max_epochs=max_epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            bucket_by_length=bucket_by_length,
            dtype=dtype,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.nonlinearity = nonlinearity
