"""The three estimators."""

from __future__ import annotations

from dataclasses import dataclass

from rnncore._estimator import RecurrentEstimator


class LSTM(RecurrentEstimator):
    """A long short-term memory network over sequences: classifier, regressor or language model.

    X and numbers in y are taken as they are: scaled to a size of about 1 they are learned best, for
    X with `rnncore.preprocessing.StepTransformer`, for y with
    `sklearn.compose.TransformedTargetRegressor`.

    Parameters
    ----------
    hidden_size : int or tuple of int
        Units of every recurrent layer, or of each.
    num_layers : int, optional
        Recurrent layers, each over the outputs of the one before it. The default is 1, or as many
        as `hidden_size` has sizes.
    bidirectional : bool
        Whether every layer also reads the sequence from its end.
    task : "auto", "classification", "regression" or "language_model"
        With "auto" `fit` decides: floats in y mean regression, other types classification. Name
        the task where scikit-learn should know it before `fit`, as in stratified cross-validation;
        for classes of every step the `output`, too, which it cannot stratify by.
        A language model learns to predict the next id; it takes no y.
    output : "auto", "last", "mean", "max" or "sequence"
        Whether there is a target for each sequence, read off its last state, the mean or the
        largest of each unit's states; or for each of its steps. With "auto" the shape of y decides
        between "last" and "sequence"; where numbers (n, T) could be either, say which.
    loss : str
        "cross_entropy" or, for two classes, "binary_cross_entropy", which is also that of several
        labels at once; "squared_error", "absolute_error" or "huber" for regression. "auto" is the
        first that suits.
    huber_delta : float
        Error from which on the Huber loss is linear.
    class_weight : dict or "balanced", optional
        What targets of each class count in the loss: a class that the dict lacks counts 1,
        "balanced" gives all classes the same sum (`sample_weight` comes on top). Not for several
        labels at once.
    embedding : "one-hot" or array (vocabulary_size, embedding_dim), optional
        For X of integer ids: no learned vectors, or vectors to start from.
    embedding_dim : int, optional
        For X of integer ids: the size of the vector learned for each id. For text and language
        models the default is `hidden_size`.
    freeze_embedding : bool
        Keep the vectors of ids as they are.
    tie_embedding : bool
        Let a language model's outputs have the vectors of ids as weights. They are as long as the
        last layer is wide.
    vocabulary : "auto", "word", "char" or rnncore.text.Vocabulary
        What makes ids of text. "auto" takes words, and characters for a language model of strings.
        A Vocabulary that has been fitted is used as it is, and may be that which has made the ids
        in X. (But scikit-learn's searches fit clones, with vocabularies that are fitted anew:
        beside vectors in `embedding` it needs `words`.)
    vocabulary_size : int, optional
        Every id is below it. The default is the largest id in `fit` plus one.
    masked_id : int, optional
        An id whose vector is zero for ever. For text that is the padding's.
    padding_value : float, optional
        Steps at the end of a sequence that consist of this value, which may be NaN, are padding;
        at the start they are data. Not looked for where `lengths` are given, nor in one stream of
        ids by itself.
    padding_side : "right" or "left"
        With "left" padding, that of `lengths` too, is at the start.
    init : "uniform", "xavier_uniform", "xavier_normal" or "orthogonal"
        How weights are drawn; "uniform" as torch does.
    forget_bias : float, optional
        What the bias of an LSTM's forget gate starts from: with 1 or 2 it starts by remembering.
    learn_initial_state : bool
        Learn the states before the first step, which are zero otherwise.
    dropout, input_dropout, output_dropout : float in [0, 1)
        Probability with which outputs between two layers, features (or elements of the vectors of
        ids), and what predictions are made from are zeroed in training.
    locked_dropout : bool
        Zero the same ones at all steps of a sequence; of what is learned piece by piece, with
        `bptt_steps` or from one long stream, at all steps of a piece.
    optimizer : "adam", "adamw", "sgd", "rmsprop", "adagrad" or an object of rnncore.optim
        An object, of which a copy is used, brings its own rate, decay and clipping.
    learning_rate : float or "auto"
        "auto" is 0.01 for Adam and AdamW, 0.1 for SGD and Adagrad, 0.005 for RMSprop; for a plain
        `RNN` 0.005, 0.02, 0.05 and 0.003.
    momentum : float
        Of SGD.
    nesterov : bool
        Of SGD.
    weight_decay : float or "auto"
        Added to the gradient as ``weight_decay * weight``; AdamW takes it off the weights. "auto"
        is 0.01 for AdamW, as in torch, and 0 for the others.
    l1 : float
        Added to the gradient as ``l1 * sign(weight)``.
    clip_norm : float, optional
        The gradient is scaled down to this norm when it is longer.
    clip_value : float, optional
        Each element of the gradient is cut to this size.
    lr_schedule : str or object of rnncore.schedules, optional
        How the learning rate changes: "step", "exponential", "cosine", "plateau" or
        "halve_on_rise", or an object with a schedule's settings.
    max_epochs : int
        Passes over the data.
    batch_size : int
        Sequences in each step of the optimizer. One long stream of a language model is cut into
        this many, which are read side by side.
    accumulate_batches : int
        Batches whose gradients are added up for a step.
    shuffle : bool
        Whether every epoch takes the sequences in a new order.
    bucket_by_length : bool
        Whether a batch is made of sequences of similar length, which saves time.
    bptt_steps : int or pair of int, optional
        Truncates backpropagation through time where there is a target for each step. An int is the
        number of steps after which there is a step of the optimizer, from which the states are
        carried on; memory does not grow with the length of the sequences. With a pair (k1, k2) the
        errors of every k1 steps go back to k2 steps before the last of them, k1 - 1 or more. The
        default is 64 for one long stream, and no truncation otherwise.
    checkpoint_time : bool
        Trains in less memory and at most 1.4 times the time, to the same bits; in less time where
        what is kept otherwise outgrows the caches. Of T steps only the states are kept in which
        each of about sqrt(T) segments begins, and a segment (256 rows of the batch or more) is
        computed again when its turn in backpropagation comes, so that what is kept grows with
        sqrt(T). With an int as `bptt_steps`, T is that. Not for ``bidirectional=True``, where each
        layer needs the whole sequence from the one beneath it, nor for a pair of `bptt_steps`,
        which keeps k2 steps as it is.
    early_stopping : bool
        Stop when the loss on `eval_set`, or on a part of X that is kept back, has not become
        smaller for some epochs.
    validation_fraction : float in (0, 1)
        Share of the sequences kept back, with the classes' shares unchanged; of a single long
        sequence its end.
    n_iter_no_change : int
        Epochs without an improvement before an early stop.
    tol : float
        By how much the loss has to be smaller.
    restore_best : bool
        With `early_stopping`: take back the weights of the epoch with the least validation loss,
        however the training ends.
    warm_start : bool
        Let `fit` go on with the network of the last `fit`: task, output, loss, padding, vocabulary,
        `masked_id`, dtype, `nonlinearity`, `residual` and the sizes of its layers have to stay as
        they were. Where the rule of the optimizer changes, or `freeze_embedding`, what the
        optimizer keeps begins anew.
    callbacks : callable, object or list of them, optional
        Functions of (model, logs), called after every epoch, or objects with any of
        ``on_fit_begin(model)``, ``on_epoch_end(model, logs)`` and ``on_fit_end(model)``. `logs` has
        the epoch's figures by the names of `history_`, and "epoch", counted from 1. The training
        ends when one returns True; what one raises passes, and the model keeps what it has learned.
    checkpoint_dir : path, optional
        Folder for a checkpoint, from which ``fit(..., resume=True)`` goes on; any other `fit`
        begins anew and replaces it.
    checkpoint_epochs : int, optional
        Epochs between checkpoints; None for one at the end, and by `checkpoint_minutes`.
    checkpoint_minutes : float, optional
        Minutes between checkpoints, also within an epoch.
    dtype : "float32" or "float64"
    n_jobs : int, optional
        Threads; -1 stands for all CPUs, None for `rnncore.get_num_threads`, or for one in a worker
        of joblib, as in a search with several. The result is the same to the last bit whatever it
        is.
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
        An int makes `fit` reproducible.
    verbose : 0, 1 or 2
        1 shows a progress bar, 2 also prints a line for each epoch.

    Attributes
    ----------
    history_ : dict of lists
        Figures of every epoch: "loss", "accuracy" or "r2", "grad_norm", "learning_rate", "steps"
        and "seconds", with validation also "val_loss" and "val_accuracy" or "val_r2".
        ``history_.plot()`` draws them, ``history_.to_pandas()`` makes a table of them.
    n_epochs_ : int
        Finished epochs.
    best_epoch_ : int
        With validation: of the last `fit` alone, though counted as in `history_`, the epoch with
        the least loss on it.
    task_, output_, loss_ : str
        What "auto" stood for.
    classes_ : array (n_classes,)
        Sorted labels, for classification; the columns' numbers for several labels at once.
    n_outputs_ : int
        Numbers that the network gives for each target.
    n_features_in_ : int
        F, for X of feature vectors.
    feature_names_in_ : array of str (F,)
        For X of tables, such as pandas DataFrames, whose columns have names: later ones must have
        the same in the same order. Arrays are taken at their word.
    vocabulary_size_ : int
        For X of ids or text.
    vocabulary_ : rnncore.text.Vocabulary
        For X of text.

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


@dataclass(kw_only=True, eq=False, repr=False)
class RNN(RecurrentEstimator):
    """A plain (Elman) recurrent network; parameters, attributes and use are those of `LSTM`.

    Beside them it has two of its own.

    Parameters
    ----------
    nonlinearity : "tanh", "relu", "leaky_relu", "softsign" or "sigmoid"
        What the units apply.
    residual : bool
        Add the state before a step to that after it: ``h' = f(W x + U h + b) + h``. Gradients then
        reach far back.
    """

    _cell = "rnn"

    nonlinearity: str = "tanh"
    residual: bool = False
