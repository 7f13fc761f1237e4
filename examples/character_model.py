"""
Learn a text character by character, and write more of it.

Any text does; Shakespeare's plays in one file are
https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt. Run it as

    python examples/character_model.py input.txt
"""

import argparse
from pathlib import Path

import rnncore


def main() -> None:
    """Train on the first nine tenths, measure on the rest, generate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--length", type=int, default=300, help="characters to write")
    arguments = parser.parse_args()
    text = arguments.text.read_text()
    cut = len(text) * 9 // 10

    # One long text: read as `batch_size` streams side by side, the state carried from chunk to
    # chunk of `bptt_steps` characters.
    model = rnncore.LSTM(
        arguments.hidden_size,
        task="language_model",
        max_epochs=arguments.epochs,
        random_state=0,
        verbose=2,
    ).fit(text[:cut])

    print(f"nats a character in text not seen: {-model.score(text[cut:]):.3f}")
    print(f"perplexity: {model.perplexity(text[cut:]):.2f}")
    print(model.generate(text[:20], arguments.length, temperature=0.8, random_state=0))


if __name__ == "__main__":
    main()
