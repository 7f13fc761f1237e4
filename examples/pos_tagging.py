"""
Tag the words of sentences with their parts of speech.

The sentences are of Universal Dependencies, English Web Treebank:
https://github.com/UniversalDependencies/UD_English-EWT. Run it on a folder with its files, which
may be gzipped, as

    python examples/pos_tagging.py UD_English-EWT
"""

import argparse
import gzip
import time
from pathlib import Path

import rnncore
from rnncore.text import Vocabulary


def sentences(folder: Path, split: str) -> tuple[list[list[str]], list[list[str]]]:
    """Return the words and the universal tags of each sentence."""
    path = next(folder.glob(f"*-ud-{split}.conllu*"), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: expected a file *-ud-{split}.conllu, got none")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        blocks = file.read().strip().split("\n\n")
    lines = [[line.split("\t") for line in block.split("\n")] for block in blocks]
    # Lines of other shapes are comments, words that were contracted, words that were left out.
    words = [[line for line in block if line[0].isdigit()] for block in lines]
    return [[w[1] for w in block] for block in words], [[w[3] for w in block] for block in words]


def main() -> None:
    """Train on the training set, score on the test set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, help="only so many sentences of each set")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--affixes", type=int, default=0, help="also read prefixes and suffixes up to this length"
    )
    arguments = parser.parse_args()
    (X_train, y_train), (X_test, y_test) = (
        tuple(part[: arguments.most] for part in sentences(arguments.folder, split))
        for split in ("train", "test")
    )

    tagger = rnncore.LSTM(
        hidden_size=100,
        bidirectional=True,
        embedding_dim=100,
        vocabulary=Vocabulary(min_count=2, affixes=arguments.affixes),
        input_dropout=0.3,
        output_dropout=0.3,
        max_epochs=arguments.epochs,
        random_state=0,
        verbose=2,
    )
    start = time.perf_counter()
    tagger.fit(X_train, y_train)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    print(f"accuracy by word on the test set: {tagger.score(X_test, y_test):.4f}")
    for words in ([*["Buffalo", "buffalo", "buffalo", "Buffalo", "."]], X_test[0]):
        (tags,) = tagger.predict([words])
        print(*(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True)))


if __name__ == "__main__":
    main()
