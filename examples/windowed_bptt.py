"""
A plain recurrent network over one-hot words whose errors go back four steps at most.

The network of D. Britz, "Recurrent neural networks tutorial" (2015): word language model, tanh,
SGD by sentence, truncated backpropagation, the rate halved whenever the loss rises. It learns the
sentences of a text file:

    python examples/windowed_bptt.py README.md
"""

import argparse
import re
from pathlib import Path

import rnncore
from rnncore.text import Vocabulary


def main() -> None:
    """Train on the sentences of a text, print the loss by epoch and a few new sentences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--most", type=int, help="only so many sentences")
    arguments = parser.parse_args()
    text = re.sub(r"\s+", " ", arguments.text.read_text())
    sentences = [
        f"<start> {part} <end>" for part in re.split(r"(?<=[.:;!?]) ", text) if " " in part
    ]

    model = rnncore.RNN(
        100,
        task="language_model",
        vocabulary=Vocabulary(str.split, max_size=8000),
        embedding="one-hot",
        bptt_steps=(1, 4),
        optimizer="sgd",
        momentum=0.0,
        learning_rate=0.5,
        lr_schedule="halve_on_rise",
        batch_size=1,
        max_epochs=arguments.epochs,
        random_state=0,
        verbose=2,
    ).fit(sentences[: arguments.most])
    print(f"perplexity on what it learned: {model.perplexity(sentences[: arguments.most]):.1f}")
    for line in model.generate(["<start>"] * 3, 12, temperature=0.7, random_state=0):
        print(*line)


if __name__ == "__main__":
    main()
