"""Every script in examples/ runs, on little data in the form that it reads.

Here they only have to come to their end and say what they found; what they reach on the real data
is in their own output.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def run(name, *arguments, cwd):
    command = [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern, text):
    (found,) = re.findall(pattern, text)
    return float(found)


@pytest.fixture
def reviews(tmp_path):
    """Reviews of two lines in the folders of aclImdb, told apart by one word."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, word in (("pos", "wonderful"), ("neg", "dreadful")):
            folder = tmp_path / "aclImdb" / part / label
            folder.mkdir(parents=True)
            for i in range(60):
                words = ["film", "plot", word, "actor", "scene"]
                rng.shuffle(words)
                (folder / f"{i}.txt").write_text(f"A {' '.join(words)}.<br />The end.")
    return tmp_path / "aclImdb"


@pytest.fixture
def treebank(tmp_path):
    """Sentences as CoNLL-U has them, with a comment, a contraction and an empty node."""
    lines = ["# text = The cats saw it ."]
    for i, (word, tag) in enumerate(
        [("The", "DET"), ("cats", "NOUN"), ("saw", "VERB"), ("it", "PRON"), (".", "PUNCT")], 1
    ):
        lines.append("\t".join([str(i), word, word, tag, *"______"]))
    lines.insert(3, "\t".join(["2-3", "catssaw", *"________"]))
    lines.insert(5, "\t".join(["3.1", "had", "had", "AUX", *"______"]))
    for part in ("train", "test"):
        (tmp_path / f"en_x-ud-{part}.conllu").write_text(("\n".join(lines) + "\n\n") * 30)
    return tmp_path


@pytest.mark.slow
def test_digits(tmp_path):
    told = run("digits", "--output", "demo", cwd=tmp_path)
    assert number(r"test set: +([\d.]+)", told) > 0.97
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "digits.safetensors",
        "history.png",
    }


def test_digit_tagging(tmp_path):
    told = run("digit_tagging", "--strips", 60, "--epochs", 8, cwd=tmp_path)
    assert number(r"never seen: ([\d.]+)", told) > 0.3  # a tenth by chance


@pytest.mark.slow
def test_text_classification(reviews, tmp_path):
    told = run("text_classification", reviews, "--epochs", 12, "--save", "m", cwd=tmp_path)
    assert number(r"test set: ([\d.]+)", told) > 0.9
    assert (tmp_path / "m").stat().st_size > 1000


@pytest.mark.slow
def test_glove_sentiment(reviews, tmp_path):
    rng = np.random.default_rng(0)
    words = ["a", "film", "plot", "wonderful", "dreadful", "actor", "scene", "the", "end"]
    vectors = [" ".join([word, *map(str, rng.standard_normal(50).round(4))]) for word in words]
    (tmp_path / "glove.txt").write_text("\n".join(vectors))
    told = run("glove_sentiment", reviews, "glove.txt", "--epochs", 60, cwd=tmp_path)
    assert number(r"val_accuracy ([\d.]+)", told.splitlines()[-1]) > 0.8


@pytest.mark.slow
def test_character_model(tmp_path):
    arguments = (ROOT / "README.md", "--hidden-size", 32, "--epochs", 2, "--length", 50)
    told = run("character_model", *arguments, cwd=tmp_path)
    assert number(r"not seen: ([\d.]+)", told) < 4.2  # less than a uniform guess
    assert "perplexity" in told


@pytest.mark.slow
@pytest.mark.parametrize("affixes", [0, 2])
def test_pos_tagging(treebank, affixes):
    told = run("pos_tagging", treebank, "--epochs", 30, "--affixes", affixes, cwd=treebank)
    assert number(r"on the test set: ([\d.]+)", told) == 1
    assert "The/DET cats/NOUN saw/VERB it/PRON ./PUNCT" in told


@pytest.mark.slow
def test_forecasting(tmp_path):
    hours = np.arange(20 * 30 * 24)
    columns = [np.sin(2 * np.pi * (hours + shift) / 24) for shift in range(7)]
    lines = [f"time,{','.join(map(str, row))}" for row in np.round(np.stack(columns, axis=1), 4)]
    (tmp_path / "ETTh1.csv").write_text("date,a,b,c,d,e,f,g\n" + "\n".join(lines))
    arguments = ("--epochs", 2, "--past", 48, "--every", 20)
    told = run("forecasting", tmp_path, *arguments, cwd=tmp_path)
    assert number(r"GRU +([\d.]+)", told) < 0.5  # of a variance of 1


@pytest.mark.slow
def test_parity_is_right_on_sequences_three_times_as_long(tmp_path):
    told = run("parity", cwd=tmp_path)
    assert "up to 20 bits: 100.0000% right" in told
    assert "up to 60 bits: 100.0000% right" in told


def test_toy_sentences(tmp_path):
    told = run("toy_sentences", cwd=tmp_path).splitlines()
    assert [line.split(maxsplit=1)[0] for line in told[:4]] == ["kind", "unkind", "kind", "unkind"]
    assert told[4] == "The/DET dog/NN ate/V the/DET apple/NN"
    assert told[5] == "Everybody/NN read/V that/DET book/NN"


@pytest.mark.slow
def test_windowed_bptt(tmp_path):
    told = run("windowed_bptt", ROOT / "README.md", "--most", 20, "--epochs", 3, cwd=tmp_path)
    # By a guess among all words it is their number, more than 200.
    assert 1 < number(r"what it learned: ([\d.]+)", told) < 190
    assert told.splitlines()[-1].startswith("<start>")


def test_streaming(tmp_path):
    told = run("streaming", "--epochs", 2, cwd=tmp_path)
    assert told.count("with") == 8
    assert "microseconds a step" in told


@pytest.mark.slow
def test_data_parallel_in_one_process(tmp_path):
    told = run("data_parallel", "--check", "--sequences", 2048, "--epochs", 2, cwd=tmp_path)
    assert "processes: 1" in told
    assert number(r"epoch 2: .* right ([\d.]+)", told) > 0.8


def test_gradient_flow(tmp_path):
    told = run("gradient_flow", "--steps", 12, cwd=tmp_path)
    flows = {name: float(flow) for name, flow in re.findall(r"(?m)^(.+): .* is ([\d.e+-]+)", told)}
    assert flows["RNN"] < flows["LSTM"]
    assert (tmp_path / "gradient_flow.png").stat().st_size > 1000


def test_the_table_of_defaults(tmp_path):
    command = [sys.executable, ROOT / "benches" / "defaults.py", tmp_path, "--factors", "1"]
    done = subprocess.run(
        [*command, "--tasks", "digits", "IMDB"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| digits, accuracy \| 40 \| 0\.9\d+ \(\d+ s\) \|", done.stdout)
    assert "left out for want of data: IMDB" in done.stderr


def test_every_example_is_tested():
    told = Path(__file__).read_text(encoding="utf-8")
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert {name for name in names if f'run("{name}"' not in told} == set()
