"""Every option of a network and its training against the same computation written with torch."""

import threading
import time

import numpy as np
import pytest
import torch

from rnncore import _core

from .networks import FEATURES, IDS, LENGTHS, OUTPUTS, VOCABULARY, Problem, batched
from .twin import detached, windows

CASES = {
    "mean": {"output": "mean"},
    "max": {"output": "max"},
    "last": {"output": "last"},
    "sequence": {},
    "mean both ways": {"output": "mean", "bidirectional": True},
    "max both ways": {"output": "max", "bidirectional": True},
    "last both ways": {"output": "last", "bidirectional": True, "learn_initial_state": True},
    "initial": {"learn_initial_state": True},
    "initial, last": {"learn_initial_state": True, "output": "last", "weighted": True},
    "initial, mean": {"learn_initial_state": True, "output": "mean", "cell": "gru"},
    "embedding": {**IDS},
    "several ids": {**IDS, "each": 3},
    "masked": {**IDS, "masked_id": 2},
    "several ids, masked": {**IDS, "each": 3, "masked_id": 0, "output": "max"},
    "frozen": {**IDS, "freeze_embedding": True},
    "tied": {**IDS, "tie_embedding": True, "input_size": 7, "n_outputs": VOCABULARY},
    "tied, masked": {
        **IDS,
        "tie_embedding": True,
        "input_size": 7,
        "n_outputs": VOCABULARY,
        "masked_id": 1,
        "each": 2,
        "output": "last",
    },
    "one-hot": {"input": "one-hot", "vocabulary_size": VOCABULARY, "learn_initial_state": True},
    "weights": {"weighted": True},
    "weights, mean": {"weighted": True, "output": "mean", "cell": "rnn_softsign"},
    "binary": {"loss": "binary_cross_entropy", "weighted": True},
    "absolute": {"loss": "absolute_error", "weighted": True},
    "huber": {"loss": "huber", "huber_delta": 0.7, "output": "last"},
    "residual": {"cell": "rnn_tanh_residual", "hidden_sizes": [5, 5], "learn_initial_state": True},
    "leaky": {"cell": "rnn_leaky_relu", "hidden_sizes": [9, 2, 20]},
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def problem(request):
    return Problem(**request.param)


@pytest.mark.parametrize("together", [1, 2])
def test_outputs_losses_and_weights_are_torchs(problem, together):
    outputs = problem.network.predict(problem.examples(), batch_size=4, n_threads=2)
    sequences = range(len(problem.lengths))
    each = [problem.twin.outputs(problem.values[problem.rows(i)[0]]) for i in sequences]
    np.testing.assert_allclose(outputs, torch.cat(each).detach().numpy(), rtol=0, atol=1e-12)
    loss, _ = problem.network.evaluate(problem.examples(), batch_size=2)
    assert loss == pytest.approx(problem.mean_loss(sequences).item(), rel=1e-9)

    log = problem.train(accumulate_batches=together)
    norms = [
        problem.twin.descend(problem.mean_loss(batch), 0.3)
        for batch in batched(sequences, 3 * together)
    ]
    assert log["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-9)
    assert log["steps"] == sum(LENGTHS)
    problem.check()


def test_batches_that_are_accumulated_are_one_larger_batch(problem):
    whole = _core.Network(**problem.config)
    whole.set_parameters(problem.parameters)
    problem.train(accumulate_batches=7, batch_size=1)
    problem.train(whole, batch_size=7)
    for name, want in whole.parameters().items():
        got = problem.network.parameters()[name]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12, err_msg=name)


STEPWISE = {
    "lstm": {},
    "gru": {"cell": "gru", "weighted": True},
    "rnn": {"cell": "rnn_tanh", "learn_initial_state": True},
    "initial": {"learn_initial_state": True, "weighted": True},
    "embedding": {**IDS, "each": 2, "masked_id": 3},
}


@pytest.fixture(params=STEPWISE.values(), ids=STEPWISE.keys())
def stepwise(request):
    return Problem(**request.param)


@pytest.mark.parametrize(("steps", "together"), [(1, 1), (3, 1), (4, 2), (11, 1), (50, 2)])
def test_truncated_backpropagation_updates_after_each_piece(stepwise, steps, together):
    log = stepwise.train(bptt_steps=steps, accumulate_batches=together)
    twin, norms = stepwise.twin, []
    for group in batched(range(len(LENGTHS)), 3 * together):
        states = {}
        for start in range(0, max(LENGTHS[i] for i in group), steps):
            total, weight = torch.zeros((), dtype=torch.float64), 0.0
            for i in group:
                rows = stepwise.rows(i)[0]
                rows = slice(rows.start + start, min(rows.start + start + steps, rows.stop))
                if rows.stop <= rows.start:
                    continue
                x = twin.inputs(stepwise.values[rows])
                x, trails = twin.run(x, states.get(i) or twin.initial())
                states[i] = detached(trails, -1)
                losses = twin.losses(twin.head(x), stepwise.targets[rows])
                total = total + (losses * torch.from_numpy(stepwise.weight(rows))).sum()
                weight += stepwise.weight(rows).sum()
            norms.append(twin.descend(total / weight if weight else total * 0, 0.3))
    assert log["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-9)
    assert log["steps"] == sum(LENGTHS)
    stepwise.check()


@pytest.mark.parametrize(
    ("block", "reach"), [(1, 4), (1, 0), (3, 2), (3, 5), (4, 9), (2, 2**64 - 1)]
)
def test_windows_reach_so_far_back(stepwise, block, reach):
    log = stepwise.train(bptt_steps=block, bptt_window=reach)
    norms = []
    for batch in batched(range(len(LENGTHS)), 3):
        total, weight = torch.zeros((), dtype=torch.float64), 0.0
        for i in batch:
            rows = stepwise.rows(i)[0]
            total = total + windows(
                stepwise.twin,
                stepwise.values[rows],
                stepwise.targets[rows],
                stepwise.weight(rows),
                block,
                reach,
            )
            weight += stepwise.weight(rows).sum()
        norms.append(stepwise.twin.descend(total / weight, 0.3))
    assert log["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-9)
    stepwise.check()


def trained(problem, **options):
    """Return the weights and the log of a network that is trained as the problem's."""
    network = _core.Network(**problem.config)
    network.set_parameters(problem.parameters)
    log = problem.train(network, **options)
    del log["seconds"]
    return network.parameters(), log


def assert_equal_bits(got, want):
    assert got.keys() == want.keys()
    for name in want:
        assert np.asarray(got[name]).tobytes() == np.asarray(want[name]).tobytes(), name


DROPPED = {"dropout": 0.3, "input_dropout": 0.2, "output_dropout": 0.4}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_batches": 2},
        {"bptt_steps": 3},
        {"bptt_steps": 2, "accumulate_batches": 2},
        {"bptt_steps": 2, "bptt_window": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_an_epoch_goes_on_where_it_was_paused(cell, options):
    problem = Problem(cell=cell, **DROPPED, learn_initial_state=True, weighted=True)
    options = {**options, "shuffle": True, "bucket_by_length": True, "rates": (0.1, 0.01)}
    adam = {"weight_decay": 0.1}
    want = trained(problem, optimizer=_core.Optimizer("adam", 0.1, **adam), **options)

    optimizer, position, pauses = _core.Optimizer("adam", 0.1, **adam), None, 0
    network = _core.Network(**problem.config)
    network.set_parameters(problem.parameters)
    while True:
        log = problem.train(
            network, optimizer=optimizer, pause_after=0.0, position=position, **options
        )
        position = log.pop("position", None)
        if position is None:
            break
        pauses += 1
        assert position["updates"] == pauses
        assert all(isinstance(v, int | float | np.ndarray) for v in position.values())
        problem = Problem(cell=cell, **DROPPED, learn_initial_state=True, weighted=True)
    assert pauses >= 1
    del log["seconds"]
    assert_equal_bits(log, want[1])
    assert_equal_bits(network.parameters(), want[0])


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("last", {}),
        ("mean", {}),
        ("max", {}),
        ("sequence", {}),
        ("sequence", {"bptt_steps": 3}),
        ("sequence", {"bptt_steps": 1, "bptt_window": 4}),
    ],
    ids=str,
)
def test_the_bits_do_not_depend_on_threads(threads, output, options):
    # Enough numbers for all threads, and sequences that all end early among them.
    lengths = (60, 41, 90, 7, 80) * 9
    problem = Problem(**IDS, each=2, **DROPPED, lengths=lengths, hidden_sizes=[40], output=output)
    want = trained(problem, batch_size=45, n_threads=1, **options)
    got = trained(problem, batch_size=45, n_threads=threads, **options)
    assert_equal_bits(got[0], want[0])
    assert_equal_bits(got[1], want[1])


def test_a_network_keeps_its_instruction_set(monkeypatch):
    problem = Problem()
    monkeypatch.setenv("RNNCORE_ISA", "none")
    with pytest.raises(ValueError, match="RNNCORE_ISA"):
        _core.Network(**problem.config)
    problem.train()


@pytest.mark.parametrize("output", ["last", "mean", "max", "sequence"])
@pytest.mark.parametrize("initial", [False, True])
def test_prediction_in_pieces_and_streams_have_the_same_bits(output, initial):
    # One sequence is longer than a piece; each result must be that of the sequence alone.
    lengths = (9000, 12, 0, 300, 1)
    problem = Problem(output=output, lengths=lengths, learn_initial_state=initial)
    problem.config["dtype"] = "float32"
    network = _core.Network(**problem.config)
    network.set_parameters({k: v.astype("float32") for k, v in problem.parameters.items()})
    values = problem.values.astype("float32")
    everything = _core.Examples(values, problem.starts, problem.lengths)
    together = network.predict(everything, batch_size=5, n_threads=2)
    alone = network.predict(everything, batch_size=1)
    assert together.tobytes() == alone.tobytes()
    for wanted in ("last", "mean", "max", "sequence"):
        for layer in (0, 1, -1):
            options = {"output": wanted, "layer": layer}
            a = network.features(everything, batch_size=5, **options)
            assert a.tobytes() == network.features(everything, batch_size=1, **options).tobytes()

    stream = network.stream(2)
    firsts = np.cumsum([0, *(problem.lengths if problem.per_step else np.ones(5, int))])
    seen = network.features(everything, batch_size=5, output=output)
    for step in range(300):
        rows = [problem.starts[3] + step, problem.starts[0] + step]
        got = stream.step(values[rows])
        if problem.per_step:
            assert got[0].tobytes() == together[firsts[3] + step].tobytes()
            assert got[1].tobytes() == together[firsts[0] + step].tobytes()
    assert got[0].tobytes() == together[firsts[4] - 1].tobytes()
    assert stream.features()[0].tobytes() == seen[firsts[4] - 1].tobytes()

    # The second row begins anew; the first one's state goes to another stream and back.
    state = stream.state()
    other = network.stream(2)
    other.set_state(state)
    assert_equal_bits(other.state(), state)
    stream.reset(np.array([1]))
    for step in range(12):
        rows = [problem.starts[0] + step, problem.starts[1] + step]
        got = stream.step(values[rows])
        assert got[0].tobytes() == other.step(values[rows])[0].tobytes()
    assert got[1].tobytes() == together[firsts[2] - 1].tobytes()
    stream.reset()
    assert_equal_bits(stream.state(), network.stream(2).state())


def test_dropout_keeps_the_mean_and_one_mask_when_locked():
    ones = {"hidden_sizes": [50], "cell": "rnn_relu", "loss": "squared_error", "n_outputs": 1}
    for name in ("input_dropout", "output_dropout"):
        problem = Problem(lengths=(400,), **ones, **{name: 0.5})
        parameters = {k: np.zeros_like(v) for k, v in problem.parameters.items()}
        # The output is the number of inputs, or of hidden units, that are not dropped.
        parameters["rnn.weight_ih_l0"][:] = np.eye(50, FEATURES)
        if name == "output_dropout":
            parameters["rnn.weight_ih_l0"][:] = 0
            parameters["rnn.bias_ih_l0"][:] = 1
        parameters["head.weight"][:] = 1
        count = 50 if name == "output_dropout" else FEATURES
        for locked in (False, True):
            network = _core.Network(**{**problem.config, "locked_dropout": locked})
            network.set_parameters(parameters)
            examples = _core.Examples(
                np.ones_like(problem.values),
                problem.starts,
                problem.lengths,
                np.full((400, 1), float(count)),
            )
            options = {"batch_size": 1, "shuffle": False, "bucket_by_length": False, "seed": 3}
            log = network.train_epoch(examples, _core.Optimizer("sgd", 0.0), epoch=1, **options)
            # Each number is 0 or 2, so that its variance is 1.
            if not locked:
                assert log["loss"] == pytest.approx(count, rel=0.2)
            assert network.evaluate(examples, batch_size=1)[0] == 0


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"cell": "gru", "output": "last"},
        {"cell": "rnn_tanh", "output": "mean", "weighted": True},
        {"output": "max", "learn_initial_state": True},
        {"weighted": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("with_targets", [True, False])
def test_gradients_flow_as_in_torch(case, with_targets):
    problem = Problem(**case)
    twin = problem.twin
    for layer in (0, 1):
        want = []
        for i, length in enumerate(LENGTHS):
            steps, rows = problem.rows(i)
            x, trails = twin.run(twin.inputs(problem.values[steps]), twin.initial())
            if with_targets:
                seen = twin.pooled(x, trails, problem.config["output"])
                losses = twin.losses(twin.head(seen), problem.targets[rows])
                weight = problem.weight(rows)
                goal = (losses * torch.from_numpy(weight)).sum() / (weight.sum() or 1)
            else:
                goal = trails["l1"][-1][0].sum()
            # The states as the next step finds them: what an error in them, each by itself, costs.
            for step in range(1, length + 1):
                state = trails[f"l{layer}"][step]
                hidden = torch.autograd.grad(
                    goal, state[0], retain_graph=True, allow_unused=True, materialize_grads=True
                )[0]
                square = (hidden**2).sum()
                if len(state) == 2:
                    square = square + (memory_gradient(goal, trails[f"l{layer}"], step) ** 2).sum()
                want.append(float(square.sqrt()))
        examples = (
            problem.examples()
            if with_targets
            else _core.Examples(problem.values, problem.starts, problem.lengths)
        )
        got = problem.network.gradient_flow(examples, layer=layer, n_threads=2)
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-13)


def memory_gradient(goal, trail, step):
    """Return the gradient by a memory, less what goes through its own step's hidden state."""
    hidden, memory = trail[step]
    by_memory, by_hidden = torch.autograd.grad(
        goal, [memory, hidden], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    through = torch.autograd.grad(
        hidden, memory, by_hidden, retain_graph=True, allow_unused=True, materialize_grads=True
    )[0]
    return by_memory - through


def test_nothing_that_weighs_counts_changes_nothing():
    problem = Problem(weighted=True)
    problem.weights[:] = 0
    log = problem.train()
    assert np.isnan(log["loss"])
    assert log["grad_norm"] == 0
    assert_equal_bits(problem.network.parameters(), problem.parameters)


def test_a_stream_sees_the_weights_of_now_and_outlives_other_references():
    problem = Problem()
    stream = problem.network.stream(1)
    x = np.ones((1, FEATURES))
    first = stream.step(x)
    problem.train()
    want = problem.network.predict(_core.Examples(x, np.array([0]), np.array([1])), batch_size=1)
    stream.reset()
    assert stream.step(x).tobytes() == want.tobytes() != first.tobytes()
    problem.network = None
    stream.step(x)


def test_what_runs_during_training_is_told_that_it_cannot():
    problem = Problem(lengths=(50,) * 4000, hidden_sizes=[64])
    stream, heard = problem.network.stream(1), []

    def on_batch(logs):
        assert 0 < logs["done"] <= logs["total"] == 1334
        assert logs["rate"] == pytest.approx(0.3)
        with pytest.raises(RuntimeError, match="in use"):
            stream.step(np.ones((1, FEATURES)))
        heard.append(logs["loss"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problem.train(on_batch=on_batch)
    assert len(heard) == 1
    assert stream.step(np.ones((1, FEATURES))).shape == (1, OUTPUTS)


@pytest.mark.timeout(60)
def test_a_stream_that_waits_for_training_does_not_hold_it_up():
    problem = Problem(lengths=(50,) * 4000, hidden_sizes=[64])
    stream, x, heard = problem.network.stream(1), np.ones((1, FEATURES)), []
    other = threading.Thread(target=lambda: heard.append(stream.step(x)), daemon=True)

    def on_batch(logs):
        other.start()
        time.sleep(0.2)  # by then it waits
        with pytest.raises(RuntimeError, match="in use"):
            stream.step(x)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problem.train(on_batch=on_batch)
    other.join()
    assert heard[0].shape == (1, OUTPUTS)


@pytest.mark.timeout(60)
def test_who_waits_for_an_optimizer_does_not_keep_its_network_from_others():
    problem = Problem(lengths=(50,) * 4000, hidden_sizes=[64])
    other, heard = Problem(), []
    optimizer = _core.Optimizer("sgd", 0.3)
    waiting = threading.Thread(target=lambda: other.train(optimizer=optimizer), daemon=True)

    def on_batch(logs):
        waiting.start()
        time.sleep(0.2)  # by then it waits
        heard.append(other.network.predict(other.examples(), batch_size=3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problem.train(on_batch=on_batch, optimizer=optimizer)
    waiting.join()
    assert len(heard) == 1
