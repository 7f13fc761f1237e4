"""What the core's networks refuse, by name."""

import numpy as np
import pytest

from rnncore import _core

from .networks import FEATURES, IDS, PLAIN, VOCABULARY, Problem


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"masked_id": 3}, "masked_id"),
        ({"freeze_embedding": True}, "freeze_embedding"),
        ({"tie_embedding": True}, "tie_embedding"),
        ({**IDS, "masked_id": VOCABULARY}, "masked_id"),
        ({**IDS, "tie_embedding": True, "freeze_embedding": True}, "tie_embedding"),
        ({**IDS, "tie_embedding": True}, "n_outputs"),
        ({**IDS, "tie_embedding": True, "n_outputs": VOCABULARY}, "input_size"),
        ({"input": "one-hot", "vocabulary_size": 3, "input_dropout": 0.1}, "input_dropout"),
        ({"input_dropout": 1.1}, "input_dropout"),
        ({"output_dropout": -0.1}, "output_dropout"),
        ({"output_dropout": np.nan}, "output_dropout"),
        ({"loss": "huber", "huber_delta": 0.0}, "huber_delta"),
        ({"input_size": 0}, "input_size"),
        ({**IDS, "input_size": 0}, "input_size"),
        ({**IDS, "vocabulary_size": 0}, "vocabulary_size"),
        ({"input": "one-hot", "vocabulary_size": 0}, "vocabulary_size"),
        ({"hidden_sizes": []}, "hidden_sizes"),
        ({"hidden_sizes": [3, 0]}, "hidden_size"),
        ({"cell": "rnn_sine"}, "cell"),
        ({"output": "first"}, "output"),
        ({"loss": "sum"}, "loss"),
    ],
    ids=str,
)
def test_networks_that_cannot_be_are_refused_by_name(options, name):
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        _core.Network(**{**PLAIN, **options})


@pytest.mark.parametrize(
    ("case", "options", "name"),
    [
        ({}, {"batch_size": 0}, "batch_size"),
        ({}, {"accumulate_batches": 0}, "accumulate_batches"),
        ({}, {"bptt_steps": 0}, "bptt_steps"),
        ({}, {"bptt_window": 3}, "bptt_window"),
        ({}, {"bptt_steps": 3, "bptt_window": 1}, "bptt_window"),
        ({"output": "last"}, {"bptt_steps": 3}, "bptt_steps"),
        ({"bidirectional": True}, {"bptt_steps": 3}, "bptt_steps"),
        ({}, {"rates": (0.1, -1.0)}, "rates"),
        ({}, {"pause_after": -1.0}, "pause_after"),
        ({}, {"n_threads": 0}, "n_threads"),
        ({}, {"position": {}}, "position"),
    ],
    ids=str,
)
def test_training_that_cannot_be_is_refused_by_name(case, options, name):
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        Problem(**case).train(**options)


def test_positions_of_another_epoch_are_refused():
    problem = Problem()
    position = problem.train(bptt_steps=3, pause_after=0.0)["position"]
    for change in (
        {"group": 9},
        {"piece": 9},
        {"updates": 2},
        {"score": position["score"][:-1]},
        {"states": position["states"][:-1]},
        {"states": np.append(position["states"], 0)},
    ):
        with pytest.raises(ValueError, match=r"^position: "):
            problem.train(bptt_steps=3, position={**position, **change})
    with pytest.raises(TypeError, match="score"):
        problem.train(bptt_steps=3, position={**position, "score": [1.0]})
    for change in ({"group": -1}, {"draws": 1.5}, {"norms": "x"}):
        (name,) = change
        match = rf"position\[\"{name}\"\]: expected a number >= 0, got {change[name]}"
        with pytest.raises(ValueError, match=match):
            problem.train(bptt_steps=3, position={**position, **change})
    problem.train(bptt_steps=3, position=position)


def test_parameters_have_names():
    network = Problem().network
    with pytest.raises(ValueError, match=r"parameters: expected rnn\.weight_ih_l0, .* got 7"):
        network.set_parameters({**network.parameters(), 7: np.zeros(1)})


def test_weights_and_targets_that_cannot_be_are_refused_by_name():
    problem = Problem(weighted=True)
    for weight, fits in [(-1.0, False), (np.nan, False), (np.inf, False), (0.0, True)]:
        problem.weights[problem.starts[3]] = weight
        if fits:
            problem.targets[problem.starts[3]] = -1  # of no weight: never looked at
            problem.train()
        else:
            with pytest.raises(ValueError, match=r"^weights\["):
                problem.train()
    problem.weights[problem.starts[3]] = 1
    with pytest.raises(ValueError, match=r"^targets\["):
        problem.train()
    problem.weights = problem.weights[1:]
    with pytest.raises(ValueError, match=r"^weights: "):
        problem.train()
    problem = Problem(loss="binary_cross_entropy")
    problem.targets[0, 1] = 1.5
    with pytest.raises(ValueError, match="from 0 to 1"):
        problem.train()
    numbers = problem.targets
    problem.targets = np.zeros(numbers.shape[::-1])
    with pytest.raises(ValueError, match=rf"^targets: .* {numbers.shape[1]} columns, got"):
        problem.train()
    problem.targets = numbers
    with pytest.raises(ValueError, match=r"^targets: "):
        problem.network.evaluate(
            _core.Examples(problem.values, problem.starts, problem.lengths), batch_size=3
        )
    values = problem.values.astype("float32")
    singles = _core.Examples(values, problem.starts, problem.lengths)
    with pytest.raises(TypeError, match=r"^values: expected a float64 array"):
        problem.network.predict(singles, batch_size=3)
    columns = np.asfortranarray(problem.values)
    with pytest.raises(ValueError, match="values: expected a C-contiguous array, got one of other"):
        _core.Examples(columns, problem.starts, problem.lengths)


def test_arrays_that_have_changed_since_are_refused_or_not_seen():
    problem = Problem(weighted=True)
    nowhere = problem.starts[3]
    problem.weights[nowhere], problem.targets[nowhere] = 0, -1
    examples = problem.examples()
    want = problem.network.evaluate(examples, batch_size=3)
    problem.weights[nowhere] = 1  # the class there is none
    assert problem.network.evaluate(examples, batch_size=3) == want
    for name, value in [("dtype", np.dtype(np.uint8)), ("shape", (problem.values.size,))]:
        before = getattr(problem.values, name)
        setattr(problem.values, name, value)
        with pytest.raises(TypeError, match=r"^values: expected a float64 array with 2 dimensions"):
            problem.network.evaluate(examples, batch_size=3)
        setattr(problem.values, name, before)
    assert problem.network.evaluate(examples, batch_size=3) == want


def test_streams_refuse_by_name():
    problem = Problem(output="mean")
    with pytest.raises(ValueError, match=r"^bidirectional: "):
        Problem(bidirectional=True).network.stream(1)
    with pytest.raises(ValueError, match=r"^batch_size: "):
        problem.network.stream(0)
    stream = problem.network.stream(2)
    for x in (np.zeros((3, FEATURES)), np.zeros((2, FEATURES + 1))):
        with pytest.raises(ValueError, match=r"^x: "):
            stream.step(x)
    with pytest.raises(TypeError, match=r"^x: "):
        stream.step(np.zeros((2, FEATURES), "float32"))
    with pytest.raises(ValueError, match=r"^rows: "):
        stream.reset(np.array([2]))
    state = stream.state()
    for change in ({"h_l0": state["h_l0"][:1]}, {"steps": np.array([-1, 0])}, {"more": 1}):
        with pytest.raises(ValueError, match=r"^state\b"):
            stream.set_state({**state, **change})
    del state["c_l1"]
    with pytest.raises(ValueError, match="c_l1"):
        stream.set_state(state)
    ids = Problem(**IDS, masked_id=0).network.stream(2)
    ids.step(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"^x\[1\]: expected an identifier"):
        ids.step(np.array([1, VOCABULARY]))
