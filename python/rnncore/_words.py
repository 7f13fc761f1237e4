"""What other libraries call the arguments of constructors here."""

from __future__ import annotations

import difflib
import inspect
from typing import Self

# Words of other libraries, and what they are called here.
_WORDS_HERE = {
    **dict.fromkeys(("units", "hidden_dim", "hidden_units", "n_hidden", "n_units"), "hidden_size"),
    **dict.fromkeys(("layers", "n_layers", "n_rnn_layers"), "num_layers"),
    **dict.fromkeys(("lr", "learning_rate_init", "eta", "step_size"), "learning_rate"),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_iter"), "max_epochs"),
    **dict.fromkeys(("solver", "optim"), "optimizer"),
    **dict.fromkeys(("alpha", "l2", "decay"), "weight_decay"),
    **dict.fromkeys(("clipnorm", "max_grad_norm", "max_norm"), "clip_norm"),
    **dict.fromkeys(("seed", "random_seed"), "random_state"),
    **dict.fromkeys(("threads", "n_threads", "num_threads"), "n_jobs"),
    **dict.fromkeys(("vocab_size", "num_embeddings"), "vocabulary_size"),
    **dict.fromkeys(("embedding_size", "output_dim"), "embedding_dim"),
    **dict.fromkeys(("mask_value", "padding_idx", "pad_value"), "padding_value"),
    **dict.fromkeys(("gamma", "drop"), "factor"),
    **dict.fromkeys(("eta_min", "min_lr"), "minimum"),
    "T_max": "epochs",
    "betas": "beta1",
    "clipvalue": "clip_value",
    "return_sequences": "output",
    "activation": "nonlinearity",
}


class WordsHere:
    """Answers an argument of another library's name with the name it has here."""

    __slots__ = ()

    def __new__(cls, *args: object, **arguments: object) -> Self:
        known = list(inspect.signature(cls.__init__).parameters)[1:] if arguments else []
        for name in arguments:
            if name in known:
                continue
            word = _WORDS_HERE.get(name)
            if word not in known:
                word = next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.7)), None)
            hint = f"expected {word!r}" if word else f"expected some of {', '.join(known)}"
            raise TypeError(f"{cls.__name__}: {hint}, got the unknown argument {name!r}")
        return super().__new__(cls)
