"""
Two tasks of a few words each: whether a sentence is kind, and which part of speech its words are.

    python examples/toy_sentences.py
"""

import rnncore

SENTENCES = ["I like it .", "I hate it .", "I don't hate it .", "I don't like it ."]
KIND = [True, False, True, False]

WORDS = [["The", "dog", "ate", "the", "apple"], ["Everybody", "read", "that", "book"]]
TAGS = [["DET", "NN", "V", "DET", "NN"], ["NN", "V", "DET", "NN"]]


def main() -> None:
    """Learn both by heart."""
    model = rnncore.RNN(3, embedding_dim=2, nonlinearity="leaky_relu", learn_initial_state=True)
    model.set_params(loss="binary_cross_entropy", learning_rate=0.05, max_epochs=500)
    model.set_params(random_state=0).fit(SENTENCES, KIND)
    for sentence, kind in zip(SENTENCES, model.predict(SENTENCES), strict=True):
        print("kind  " if kind else "unkind", sentence)

    tagger = rnncore.LSTM(6, embedding_dim=6, optimizer="sgd", learning_rate=0.1, random_state=0)
    tagger.set_params(momentum=0.0, clip_norm=None, batch_size=1, max_epochs=300).fit(WORDS, TAGS)
    for words, tags in zip(WORDS, tagger.predict(WORDS), strict=True):
        print(*(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True)))


if __name__ == "__main__":
    main()
