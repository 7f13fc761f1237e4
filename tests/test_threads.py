"""How many threads, on which instructions; forks; many callers at once; what calls leave behind."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
import pytest
import torch

import rnncore
from rnncore import nn, optim

from .children import CHILD_DOES
from .layers import ISAS, Call, assert_same_bits, build, every_cell, named, threads

OURS = ["RNNCORE_NUM_THREADS", "RNNCORE_ISA", "OMP_NUM_THREADS"]

# Layers and batches that are worth several threads: by rows, and by the units of a lone sequence.
WORK = """
import os
import numpy as np
import rnncore
from rnncore import nn

def work(seed=0):
    def through(layer, *shape):
        x = np.random.default_rng(seed).standard_normal((*shape, 40)).astype("float32")
        output, _, tape = layer.forward(x)
        dx, _, grads = layer.backward(tape, output)
        return b"".join(array.tobytes() for array in [output, dx, *grads.values()])

    many = through(nn.LSTM(40, 70, 2, bidirectional=True, random_state=seed), 20, 37)
    return many + through(nn.LSTM(40, 250, random_state=seed), 30, 1)
"""


def run(code: str, **environment: str) -> str:
    """Run a program in a process of its own, without our variables but those given."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# How many.


def test_the_number_is_what_was_set():
    for n in [1, 3, 64, np.int64(2)]:
        rnncore.set_num_threads(n)
        assert rnncore.get_num_threads() == n
    with pytest.raises(ValueError, match="n: expected an integer >= 1, got 0"):
        rnncore.set_num_threads(0)
    assert rnncore.get_num_threads() == 2


def test_the_number_is_everybodys():
    seen = []
    rnncore.set_num_threads(3)
    thread = threading.Thread(target=lambda: seen.append(rnncore.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3]


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({"RNNCORE_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"RNNCORE_NUM_THREADS": " 3 ", "OMP_NUM_THREADS": "5"}, 3),
        ({"RNNCORE_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5),
        ({"RNNCORE_NUM_THREADS": "3", "OMP_NUM_THREADS": "nonsense"}, 3),
    ],
)
def test_the_number_comes_from_the_environment(environment, number):
    code = "import rnncore; print(rnncore.get_num_threads())"
    assert run(code, **environment) == str(number)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_number_is_that_of_the_cpus_we_may_use():
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import rnncore
print(rnncore.get_num_threads())
"""
    assert run(code) == "1"
    assert 1 <= int(run("import rnncore; print(rnncore.get_num_threads())")) <= os.cpu_count()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RNNCORE_NUM_THREADS", "0"),
        ("RNNCORE_NUM_THREADS", "two"),
        ("RNNCORE_NUM_THREADS", "9" * 30),
        ("OMP_NUM_THREADS", "-1"),
        ("OMP_NUM_THREADS", "1.5"),
    ],
)
def test_a_bad_number_in_the_environment_is_named(variable, value):
    code = f"""
import numpy as np
import rnncore
from rnncore import nn

for use in [
    rnncore.get_num_threads,
    lambda: nn.LSTM(2, 3),
    lambda: rnncore.GRU(hidden_size=2).fit(np.zeros((4, 2, 2)), [0, 1, 0, 1]),
]:
    try:
        use()
    except ValueError as error:
        assert {variable!r} in str(error) and {value!r} in str(error), error
    else:
        raise AssertionError("went unnoticed")
rnncore.set_num_threads(2)
assert rnncore.get_num_threads() == 2
nn.LSTM(2, 3)(np.zeros((4, 2, 2)))
"""
    run(code, **{variable: value})


# Whose instructions.


@pytest.mark.parametrize("name", sorted({"avx1024", "AVX2", "avx2 ", "avx2", "avx512"} - {*ISAS}))
def test_an_instruction_set_that_is_not_there_is_an_error(name, monkeypatch):
    kept = nn.LSTM(2, 3)
    monkeypatch.setenv("RNNCORE_ISA", name)
    for use in [
        lambda: nn.LSTM(2, 3),
        lambda: nn.GRUCell(2, 3),
        lambda: rnncore.RNN(hidden_size=2).fit(np.zeros((4, 2, 2)), [0, 1, 0, 1]),
    ]:
        with pytest.raises(ValueError, match="RNNCORE_ISA") as error:
            use()
        assert repr(name)[1:-1] in str(error.value)
        assert all(isa in str(error.value) for isa in ISAS)
    kept(np.zeros((4, 2, 2)))  # has the one that it was built with


def test_the_instruction_set_comes_from_the_environment():
    code = "from rnncore import _core; print(_core.isa())"
    for isa in ISAS:
        assert run(code, RNNCORE_ISA=isa) == isa
    assert run(code) == run(code, RNNCORE_ISA="") == ISAS[-1]
    with pytest.raises(AssertionError, match=r"ValueError.*RNNCORE_ISA"):
        run(code, RNNCORE_ISA="mmx")


@pytest.mark.skipif(len(ISAS) < 2, reason="has no other than the portable instruction set")
def test_the_instruction_set_is_used():
    """The portable kernels round products, the others do not: names that did nothing would show."""
    x = np.random.default_rng(0).standard_normal((30, 4, 50)).astype("float32")
    outputs = [build("lstm", 50, 50, random_state=0, isa=isa)(x)[0] for isa in ISAS]
    for output in outputs[1:]:
        assert output.tobytes() != outputs[0].tobytes()
        np.testing.assert_allclose(output, outputs[0], atol=1e-6)


# Starting, forking.


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_threads_start_when_there_is_work_for_them():
    code = """
import os
import numpy as np

def count():
    return len(os.listdir("/proc/self/task"))

before = count()
import rnncore
from rnncore import nn
layer = nn.LSTM(40, 70)
x = np.zeros((20, 37, 40), "float32")
rnncore.set_num_threads(1)
layer(x)
assert count() == before, (before, count())
rnncore.set_num_threads(3)
layer(x[:1, :1])
assert count() == before, (before, count())
layer(x)
assert count() == before + 2, (before, count())
layer(x)
assert count() == before + 2, (before, count())
"""
    run(code)


FORK = WORK + CHILD_DOES


def test_a_forked_child_computes():
    code = """
rnncore.set_num_threads(3)
layer = nn.LSTM(40, 70, 2, random_state=0)
x = np.random.default_rng(0).standard_normal((20, 37, 40)).astype("float32")
output, _, tape = layer.forward(x)
want = work()

def job():
    # With a layer and a tape of its parent, with its own, and as a parent.
    assert layer(x)[0].tobytes() == output.tobytes()
    layer.backward(tape, output)
    assert work() == want
    child_does(lambda: work() == want or 1 / 0)
    assert work() == want

for _ in range(5):
    child_does(job)
    assert work() == want
"""
    run(FORK + code)


def test_a_child_forked_amid_others_work_computes():
    code = """
import threading
rnncore.set_num_threads(3)
want = work()
stop = threading.Event()

def keep_working():
    while not stop.is_set():
        work(1)

others = [threading.Thread(target=keep_working) for _ in range(3)]
for other in others:
    other.start()
try:
    for _ in range(20):
        child_does(lambda: work() == want or 1 / 0)
finally:
    stop.set()
for other in others:
    other.join()
"""
    run(FORK + code)


def test_a_pool_of_forked_processes_computes():
    code = """
import multiprocessing
rnncore.set_num_threads(3)
want = [work(seed) for seed in range(4)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(work, range(4)).get(timeout=60) == want
"""
    run(WORK + code)


def test_training_goes_on_in_a_forked_child():
    code = """
rnncore.set_num_threads(2)
rng = np.random.default_rng(0)
X, y = rng.standard_normal((64, 20, 8)), rng.integers(0, 2, 64)

def fit():
    model = rnncore.LSTM(hidden_size=64, max_epochs=2, random_state=0, verbose=0)
    return model.fit(X, y).predict_proba(X).tobytes()

want = fit()
child_does(lambda: fit() == want or 1 / 0)
"""
    run(FORK + code)


# Many callers.


@every_cell
def test_callers_of_one_layer_do_not_meet(cell):
    layer = build(cell, 40, 70, 2, bidirectional=True, random_state=0)
    rng = np.random.default_rng(0)
    calls = [Call(layer, rng, *shape) for shape in [(37, 20), (1, 3), (5, 50), (64, 9)]]
    want = [call.run(layer) for call in calls]
    with threads(3), ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            found = list(pool.map(Call.run, calls * 3, repeat(layer)))
            for got, expected in zip(found, want * 3, strict=True):
                assert_same_bits(got, expected)


def test_callers_of_different_layers_do_not_meet():
    rng = np.random.default_rng(0)
    layers = [
        build(cell, 40, size, 2, dtype=dtype, random_state=0)
        for cell in ("lstm", "gru", "rnn_tanh")
        for size, dtype in [(70, "float32"), (33, "float64")]
    ]
    calls = [Call(layer, rng, 37, 20) for layer in layers]
    want = [call.run(layer) for call, layer in zip(calls, layers, strict=True)]
    with threads(3), ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            found = list(pool.map(Call.run, calls, layers))
            for got, expected in zip(found, want, strict=True):
                assert_same_bits(got, expected)


def test_a_tape_may_be_used_in_another_thread():
    layer = nn.GRU(40, 70, random_state=0)
    call = Call(layer, np.random.default_rng(0), 37, 20)
    want = call.run(layer)
    with ThreadPoolExecutor(1) as pool:
        output, state, tape = pool.submit(call.forward, layer).result()
    assert_same_bits(named(output, state, *call.backward(layer, tape)), want)


def test_of_many_uses_of_a_tape_one_succeeds():
    layer = nn.GRU(40, 70, random_state=0)
    call = Call(layer, np.random.default_rng(0), 37, 20)
    with ThreadPoolExecutor(6) as pool:
        for _ in range(20):
            tape = call.forward(layer)[2]
            uses = [pool.submit(call.backward, layer, tape) for _ in range(6)]
            errors = [use.exception() for use in uses]
            assert errors.count(None) == 1
            assert all(isinstance(error, ValueError) for error in errors if error)


def test_updates_of_many_threads_all_count():
    layer = nn.GRU(3, 5, random_state=0)
    zeros = {name: np.zeros(shape, "float32") for name, shape in layer.parameter_shapes().items()}
    layer.load_state_dict(zeros)
    grads = {name: np.ones_like(value) for name, value in zeros.items()}
    optimizer = optim.SGD(2.0**-10)
    x = np.zeros((4, 2, 3), "float32")

    def work(_):
        layer.apply_gradients(grads, optimizer)
        layer(x)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(600)))
    for value in layer.state_dict().values():
        np.testing.assert_array_equal(value, -600 * 2.0**-10)


def test_no_caller_sees_half_of_an_update():
    layer = nn.RNN(1, 64, bias=False, dtype="float64")
    names = layer.parameter_shapes()
    states = [{name: np.full(names[name], float(v)) for name in names} for v in (0, 1)]
    layer.load_state_dict(states[0])
    stop = threading.Event()

    def write():
        for i in range(1000):
            layer.load_state_dict(states[i % 2])
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not stop.is_set():
        values = np.unique(np.concatenate([v.ravel() for v in layer.state_dict().values()]))
        assert len(values) == 1
        output, _ = layer(np.ones((1, 3, 1)))
        assert len(np.unique(output)) == 1
    writer.join()


@pytest.mark.parametrize("method", ["forward", "backward", "fit"])
def test_others_run_meanwhile(method):
    """While a call computes, another Python thread counts: the interpreter is free."""
    layer = nn.LSTM(64, 128, random_state=0)
    call = Call(layer, np.random.default_rng(0), 64, 100)
    tapes = [call.forward(layer)[2] for _ in range(10)]
    model = rnncore.LSTM(hidden_size=64, max_epochs=3, random_state=0, verbose=0)
    X, y = np.random.default_rng(0).standard_normal((64, 100, 16)), np.arange(64) % 2
    long_call = {
        "forward": lambda: layer(call.x),
        "backward": lambda: call.backward(layer, tapes.pop()),
        "fit": lambda: model.fit(X, y),
    }[method]
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    counter.start()
    while not counted[0]:
        time.sleep(0.001)
    # From here on nobody is asked to give the interpreter away: only who lets go of it does.
    sys.setswitchinterval(1000)
    try:
        before, calls = counted[0], 0
        # A few times: on a busy machine the other thread may not have had a processor meanwhile.
        while counted[0] == before and calls < 10:
            long_call()
            calls += 1
        during = counted[0] - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        counter.join()
    assert during > 0


# What calls leave behind.


def flushes() -> bool:
    """Tell whether this thread takes denormal numbers for zeros."""
    return bool(np.float32(1e-38) * np.float32(0.1) == 0)


@pytest.mark.parametrize("flushing", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_denormals_are_as_before(n, flushing):
    if not torch.set_flush_denormal(flushing):
        pytest.skip("denormals cannot be flushed here")
    try:
        assert flushes() == flushing
        layer = nn.LSTM(40, 70, random_state=0)
        call = Call(layer, np.random.default_rng(0), 37, 20)
        with threads(n):
            output, _, tape = call.forward(layer)
            assert flushes() == flushing
            grads = call.backward(layer, tape)[2]
            assert flushes() == flushing
            layer.apply_gradients(grads, optim.SGD(0.1))
            assert flushes() == flushing
            with pytest.raises(ValueError, match="tape"):
                call.backward(layer, tape)
            assert flushes() == flushing
            model = rnncore.GRU(hidden_size=70, max_epochs=1, random_state=0, verbose=0)
            model.fit(np.zeros((37, 20, 40)), np.arange(37) % 2)
            assert flushes() == flushing
        assert np.isfinite(output).all()
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("n", [1, 3])
def test_denormals_are_zeros_inside(n):
    """A state that decays ends at zero, for all threads alike, and not among the denormals."""
    layer = nn.RNN(1, 64, nonlinearity="relu", bias=False)
    eye = np.eye(64, dtype="float32") / 2
    layer.load_state_dict({"weight_ih_l0": np.zeros((64, 1)), "weight_hh_l0": eye})
    with threads(n):
        output, _ = layer(np.zeros((200, 40, 1), "float32"), np.ones((1, 40, 64), "float32"))
    smallest = np.finfo("float32").tiny
    assert ((output == 0) | (output >= smallest)).all()
    assert (output[-1] == 0).all()
