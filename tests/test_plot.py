"""Pictures: what is drawn, and where; without a display."""

import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

mpl.use("Agg")
from matplotlib import pyplot

import rnncore
from rnncore import plot


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module", name="X")
def sequences():
    return np.random.default_rng(0).standard_normal((6, 5, 2))


@pytest.fixture(scope="module")
def model(X):
    return rnncore.LSTM(4, max_epochs=2, random_state=0).fit(X, X[:, 0, 0])


@pytest.fixture(scope="module")
def tagger():
    return rnncore.GRU(3, embedding_dim=2, max_epochs=1, random_state=0).fit(
        [["the", "dog"], ["a", "cat", "ran"]], [["D", "N"], ["D", "N", "V"]]
    )


def test_history(model):
    figure = plot.history(model)
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "R²"]
    assert len(plot.history(model.history_).axes) == 2
    with pytest.raises(TypeError, match="expected a fitted estimator or its history_, got int 3"):
        plot.history(3)


def test_what_cannot_be_drawn_is_named(model, X):
    for draw in (plot.hidden_states, plot.gates):
        with pytest.raises(TypeError, match="model: expected a fitted estimator, got None"):
            draw(None, X[0])
        for labels in (3, "abc"):
            with pytest.raises(TypeError, match="labels: expected a list of strings, got"):
                draw(model, X[0], labels=labels)


def heights(axes):
    return [[bar.get_height() for bar in container] for container in axes.containers]


def test_gradient_flow_has_a_bar_for_each_step_and_model(model, X):
    plain = rnncore.RNN(4, max_epochs=1, random_state=0).fit(X, X[:, 0, 0])
    axes = plot.gradient_flow([plain, model, model], X, X[:, 0, 0])
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "RNN",
        "LSTM 1",
        "LSTM 2",
    ]
    expected = model.gradient_flow(X, X[:, 0, 0]).mean(axis=0)
    np.testing.assert_allclose(heights(axes)[1], expected, rtol=1e-5)
    ours = pyplot.subplots()[1]
    assert plot.gradient_flow({"mine": model}, X, ax=ours) is ours
    assert ours.get_legend() is None


def test_gradient_flow_takes_the_mean_of_those_that_are_so_long(model, X):
    ragged = [X[0, :2], X[1], np.empty((0, 2))]
    flow = model.gradient_flow(ragged)
    axes = plot.gradient_flow(model, ragged)
    np.testing.assert_allclose(heights(axes)[0][:2], (flow[0] + flow[1][:2]) / 2, rtol=1e-5)
    np.testing.assert_allclose(heights(axes)[0][2:], flow[1][2:], rtol=1e-5)


def test_hidden_states_stand_over_their_words(tagger, model, X):
    axes = plot.hidden_states(tagger, ["the", "unheard", "dog"])
    (picture,) = axes.images
    want = tagger.hidden_states([["the", "unheard", "dog"]])[0].T
    np.testing.assert_array_equal(picture.get_array(), want)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["the", "unheard", "dog"]
    assert picture.get_clim()[0] == -picture.get_clim()[1]
    axes = plot.hidden_states(model, X[0], labels=["a", "b", "c", "d", "e"])
    assert [label.get_text() for label in axes.get_xticklabels()] == list("abcde")
    ours = pyplot.subplots()[1]
    assert plot.hidden_states(model, X[0], ax=ours) is ours
    assert ours.get_xlabel() == "step"
    with pytest.raises(ValueError, match="labels: expected 5, one for each step, got 1"):
        plot.hidden_states(model, X[0], labels=["a"])


def test_gates_stand_under_each_other(tagger, model, X):
    figure = plot.gates(tagger, ["the", "dog"])
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_ylabel() for axes in drawn] == [
        "reset\nunit",
        "update\nunit",
        "candidate\nunit",
    ]
    np.testing.assert_array_equal(
        drawn[1].images[0].get_array(), tagger.gates([["the", "dog"]])["update"][0].T
    )
    assert [label.get_text() for label in drawn[-1].get_xticklabels()] == ["the", "dog"]
    ours = pyplot.subplots()[1]
    assert plot.gates(model, X[0], gate="forget", ax=ours) is ours
    assert ours.images[0].get_clim() == (0, 1)
    with pytest.raises(ValueError, match="gate: expected one of 'input', 'forget', 'candidate'"):
        plot.gates(model, X[0], gate="update")
    with pytest.raises(ValueError, match="gate: expected the name of one gate beside ax, got None"):
        plot.gates(model, X[0], ax=ours)


def test_texts_are_cut_as_the_model_cuts_them():
    model = rnncore.GRU(3, embedding_dim=2, max_epochs=1, random_state=0)
    model.fit(["good film.", "bad film."], [0, 1])
    axes = plot.hidden_states(model, "a good film.")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "good", "film", "."]
    ids = rnncore.GRU(3, embedding_dim=2, max_epochs=1).fit([[0, 1], [2]], [0, 1])
    axes = plot.hidden_states(ids, [2, 1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "1"]


def test_sequences_without_steps_are_named(model):
    for draw in (plot.hidden_states, plot.gates):
        with pytest.raises(ValueError, match="sequence: expected at least one step, got none"):
            draw(model, np.empty((0, 2)))


def test_more_than_one_sequence_is_named(model, tagger, X):
    for draw in (plot.hidden_states, plot.gates):
        for wrong in (X[:1], X[0, 0], X[0, :, :1]):
            shape = re.escape(str(wrong.shape))
            with pytest.raises(
                ValueError, match=rf"sequence: expected shape \(T, 2\), got {shape}"
            ):
                draw(model, wrong)
        with pytest.raises(ValueError, match=r"sequence: expected shape \(T,\), got \(1, 3\)"):
            draw(tagger, [[2, 3, 2]])
        with pytest.raises(NotFittedError):
            draw(rnncore.GRU(), X[0])


def test_no_models_are_named(X):
    with pytest.raises(ValueError, match="models: expected at least one fitted estimator"):
        plot.gradient_flow([], X)
    with pytest.raises(TypeError, match="models: expected fitted estimators, got int 3"):
        plot.gradient_flow(3, X)


def test_without_matplotlib_the_way_to_it_is_named():
    code = """
import sys
sys.modules["matplotlib"] = None
import numpy as np, rnncore
model = rnncore.RNN(2, max_epochs=1).fit(np.ones((3, 2, 1)), np.arange(3.0))
for draw in (
    lambda: rnncore.plot.history(model),
    lambda: rnncore.plot.gradient_flow(model, np.ones((3, 2, 1))),
    lambda: rnncore.plot.hidden_states(model, np.ones((2, 1))),
    lambda: rnncore.plot.gates(model, np.ones((2, 1))),
):
    try:
        draw()
    except ImportError as error:
        assert "needs matplotlib: pip install rnncore[plot]" in str(error), error
        print("named")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["named"] * 4


def test_nothing_is_cut_off_at_the_edges(tagger, model, X):
    words = ["the", "extraordinarily-long-word"]
    axes = [plot.hidden_states(tagger, words), plot.hidden_states(model, X[0])]
    axes += [plot.gates(tagger, words, gate="reset"), plot.gradient_flow(model, X)]
    for figure in [*(ax.figure for ax in axes), plot.history(model), plot.gates(tagger, words)]:
        figure.canvas.draw()
        inside = figure.bbox.padded(1)
        for ax in figure.axes:
            box = ax.get_tightbbox()
            assert inside.contains(box.x0, box.y0)
            assert inside.contains(box.x1, box.y1)
