"""The benchmark against other libraries: it notices a wrong result, and it runs."""

import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHES = Path(__file__).resolve().parent.parent / "benches"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHES))


def test_differences_lets_rounding_pass():
    from workloads import differences

    for want in (np.linspace(-1, 1, 7), np.zeros(7)):
        assert differences({"torch": {"x": want}, "rnncore": {"x": want + 1e-6}}) == []


def test_differences_lets_denormals_be_zero():
    from workloads import differences

    want = np.full(7, 1e-39, np.float32)
    assert differences({"torch": {"x": want}, "rnncore": {"x": np.zeros(7)}}) == []


@pytest.mark.parametrize(
    "got",
    [
        {"x": np.linspace(-1, 1, 7) + 1e-3},
        {"x": np.full(7, np.nan)},
        {"x": np.linspace(-1, 1, 7)[:, None]},
        {},
    ],
    ids=["off", "nan", "shape", "missing"],
)
def test_differences_names_what_is_wrong(got):
    from workloads import differences

    wrong = differences({"torch": {"x": np.linspace(-1, 1, 7)}, "rnncore": got})
    assert len(wrong) == 1
    assert wrong[0].startswith("rnncore")


def goals(*figures: float, **asked):
    """Give the verdict on one target of rows that have these figures."""
    import reach
    from topics import Target, Topic
    from workloads import Row

    target = Target(1, "speed", lambda row: row.what["figure"], **asked)
    topic = Topic("t", "", "", iter, lambda what: f"row {what['figure']:g}", {}, [target])
    rows = {"t": [Row({"figure": figure}) for figure in figures]}
    (found,) = reach.verdicts([topic], rows, [1])
    return found.reached, found.outcome


def test_a_goal_is_decided_by_the_worst_row():
    assert goals(1.5, 1.2, 3.0, bound=1.2) == ("1.20x (row 1.2)", "reached")
    assert goals(1.5, 1.1, 0.9, bound=1.2) == ("0.90x (row 0.9)", "not reached by 2 of 3")
    assert goals(1.5, 1.0, bound=1.2, at_least=False) == (
        "1.50x (row 1.5)",
        "not reached by 1 of 2",
    )


def test_a_goal_of_the_mean():
    assert goals(1.0, 4.0, bound=2.0, of_mean=True) == ("2.00x over 2 rows", "reached")
    assert goals(1.0, 4.0, bound=2.1, of_mean=True) == ("2.00x over 2 rows", "not reached")


def test_a_goal_without_rows_is_not_measured():
    assert goals(bound=1.0) == ("not measured", "")


def test_records_keep_the_sections_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import record
    from workloads import Row

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    first = Row({"cell": "LSTM"}, {"rnncore": 1.23456}, 12.0, {"blas": 50.0})
    record.save("A CPU (R) @ 3 GHz", "grid", {1: [first], 2: [first, first]}, {"date": "now"})
    path = record.save("A CPU (R) @ 3 GHz", "memory", {2: [Row({}, megabytes={"us": 2.0})]}, {})
    assert path.name == "a-cpu.json"
    sections = record.load(path)["sections"]
    assert sections["grid"]["date"] == "now"
    assert record.rows_of(sections["grid"], 1) == [
        Row({"cell": "LSTM"}, {"rnncore": 1.235}, 12.0, {"blas": 50.0})
    ]
    assert len(record.rows_of(sections["grid"], 2)) == 2
    assert record.rows_of(sections["memory"], 2) == [Row({}, megabytes={"us": 2.0})]


def test_a_fit_is_held_against_the_step_of_its_layer():
    from topics.whole_fit import TOPIC, Training
    from workloads import Row

    training = Training("LSTM", 32, 50, batches=2, epochs=3)
    flops = 3 * 2 * 32 * 50 * (4 * 32) * (16 + 32)  # rows, gates and columns
    # At 100 GFLOP/s the layer's step takes so long, the matrix product half of it.
    seconds = {"rnncore": 4.0, "torch": 8.0, "layer": flops / 100e9, "one": 5e-4}
    what = {"batch": 32, "inputs": 16, **asdict(training)}
    times = {name: 1e3 * taken for name, taken in seconds.items()}
    row = Row(what, times, gflops=50.0, sgemm_gflops={"blas": 100.0, "onednn": 200.0})
    shown = {name: cell(row) for name, cell in TOPIC.columns.items()}
    assert (shown["of peak"], shown["layer"], shown["one ms"]) == ("25%", "50%", "0.5")
    assert [shown[name] for name in ("torch / us", "at layer", "at peak")] == [
        "2.00",
        "4.00",
        "8.00",
    ]
    del row.milliseconds["layer"], row.milliseconds["one"]  # an older record
    assert [TOPIC.columns[name](row) for name in ("at layer", "layer", "one ms")] == ["", "", ""]


def test_a_step_of_a_ragged_batch_over_one_of_a_dense():
    from topics.ragged import per_step
    from workloads import Row

    what = {"batch": 4, "steps": 10, "real_steps": 15, "running": 2}
    row = Row(what, {"dense": 8.0, "rnncore": 4.5, "fewer": 5.0, "alone": 9.0, "dense alone": 16.0})
    assert per_step("rnncore")(row) == pytest.approx(1.5)
    assert per_step("fewer")(row) == pytest.approx(1.25)
    assert per_step("alone", "dense alone")(row) == pytest.approx(1.5)
    assert per_step("sorted")(row) is None


class Answers:
    """A watch with these answers one after another, and at the end always a good one."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)

    def is_at_best(self) -> bool:
        return self.answers.pop(0) if self.answers else True


def test_processors_of_one_name_have_records_of_their_own(tmp_path: Path):
    import record
    import timing

    names = []
    for family in (25, 26):
        cpuinfo = tmp_path / f"cpuinfo {family}"
        one = f"cpu family\t: {family}\nmodel\t\t: 17\nmodel name\t: A (R) CPU @ 2.90GHz\n"
        cpuinfo.write_text(f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}\n")
        names.append(record.path_for(timing.cpu_name(cpuinfo)).name)
    assert names == ["a-cpu-family-25-model-17.json", "a-cpu-family-26-model-17.json"]
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A CPU\n")
    assert timing.cpu_name(cpuinfo) == "A CPU"
    assert timing.cpu_name(tmp_path / "none")


def test_a_sample_waits_for_the_machine(monkeypatch: pytest.MonkeyPatch):
    import timing

    rests = []
    monkeypatch.setattr(timing, "rest", lambda: rests.append(1))
    # Far, then not whole, then far again.
    near, whole = Answers(False, True, False, True), Answers(False, True)
    patience = timing.Patience([near, whole])
    assert patience.at_best(lambda: 5.0) == 5.0
    assert patience.spent > 0
    assert patience.disturbed == 0
    assert near.answers == whole.answers == []
    assert len(rests) == 4


def test_a_row_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch):
    import timing

    monkeypatch.setattr(timing, "REST_SECONDS", 0.0005)
    monkeypatch.setattr(timing, "PATIENCE_SECONDS", 0.01)
    patience = timing.Patience([Answers(), Answers(*[False] * 1000)])
    assert patience.at_best(lambda: 5.0) is None
    assert 0.01 < patience.spent < 1
    assert patience.at_best(lambda: 5.0) == 5.0
    assert patience.disturbed == 1


@pytest.mark.parametrize("good", [3, 4])
def test_a_row_ends_where_patience_does_if_it_has_enough(
    monkeypatch: pytest.MonkeyPatch, good: int
):
    import timing

    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "rest", lambda: now.__setitem__(0, now[0] + 1))
    monkeypatch.setattr(timing, "_calls_per_sample", lambda run: 1)
    monkeypatch.setattr(timing, "_sample", lambda run, calls: run())
    watch = Answers(*[True] * 2 * good, *[False] * 1000)
    timed = timing.interleaved_medians({"a": lambda: 1.0, "b": lambda: 2.0}, 0, 7, [watch])
    assert timed.seconds == {"a": 1.0, "b": 2.0}
    # Of seven rounds those after the third that a row with too few goes on with.
    assert timed.disturbed == (0 if good == timing.ENOUGH else pytest.approx(4 / 7))


def test_a_busy_thread_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    import threading

    import timing

    def work() -> None:
        while time.perf_counter() < end:
            pass

    monkeypatch.setattr(timing, "REST_SECONDS", 0.05)  # others may have the processors meanwhile
    end = time.perf_counter() + 0.2
    worker = threading.Thread(target=work)
    worker.start()
    timing.rest()
    assert time.perf_counter() >= end
    worker.join()
    monkeypatch.setattr(timing, "LONGEST_REST_SECONDS", 0.05)
    end = time.perf_counter() + 5
    worker = threading.Thread(target=work)
    worker.start()
    timing.rest()
    assert time.perf_counter() < end
    end = 0.0
    worker.join()


def test_processors_of_other_cores_come_first(tmp_path: Path):
    import timing

    for cpu, siblings in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert timing.by_cores({3, 1, 0, 2}, tmp_path) == [0, 2, 1, 3]
    assert timing.by_cores({5, 3, 1}, tmp_path) == [1, 3, 5]  # 5 is not listed


def test_a_watch_knows_a_slower_machine():
    import timing

    milliseconds = [1]
    watch = timing.Watch(lambda: 1e-3 * milliseconds[0], timing.BUSY)
    assert watch.is_at_best()
    milliseconds[0] = 1.3
    assert not watch.is_at_best()
    milliseconds[0] = 0.9
    assert watch.is_at_best()
    milliseconds[0] = 1.1
    assert not watch.is_at_best()


def test_disturbed_rows_are_named_and_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import compare
    import record
    from topics import grid
    from workloads import Row

    what = {"cell": "GRU", "pass": "step", "batch": 1, "steps": 2, "inputs": 3, "hidden": 4}
    rows = [Row(what, {"rnncore": 1.0, "torch": 2.0}, disturbed=share) for share in (0.0, 0.25)]
    compare.print_summary(grid.TOPIC, rows)
    assert capsys.readouterr().out.endswith("disturbed, of all samples: GRU step 1,2,3,4 25%\n")
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    path = record.save("a cpu", "grid", {2: rows}, {})
    assert record.rows_of(record.load(path)["sections"]["grid"], 2) == rows


@pytest.mark.slow
def test_a_row_for_each_pass_is_printed():
    options = [
        "--quick",
        "--rows",
        "1",
        "--threads",
        "1",
        "--cell",
        "LSTM",
        "GRU",
        "--shape",
        "2,3,4,5",
    ]
    done = subprocess.run(
        [sys.executable, BENCHES / "compare.py", *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [
        line for line in done.stdout.splitlines() if re.match(r"\| (LSTM|GRU) .* 2,3,4,5 ", line)
    ]
    assert [row.split()[1:3] for row in rows] == [
        ["LSTM", "forward"],
        ["LSTM", "step"],
        ["GRU", "forward"],
        ["GRU", "step"],
    ]
    assert "| inference against the best peer |" in done.stdout


def test_kernels_in_double_precision_are_held_against_half_the_rate():
    from topics import kernels
    from workloads import Row

    what = {"cell": "GRU", "batch": 64, "steps": 20, "inputs": 128, "hidden": 256}
    shares = [
        kernels.of_peak("chain")(
            Row(
                {**what, "dtype": dtype, "work": {"chain": 60_000_000}},
                milliseconds={"chain": 1.0},
                sgemm_gflops={"blas": 100.0, "onednn": 120.0},
            )
        )
        for dtype in ("float32", "float64")
    ]
    assert shares == pytest.approx([0.5, 1.0])
    assert kernels.title({**what, "dtype": "float64"}) == "GRU float64 64,20,128,256"


def test_a_speedup_is_held_against_the_rows_of_a_thread():
    from topics import growth
    from workloads import Row

    what = {"axis": "threads", "sizes": [1, 2]}
    row = Row(what, {"1": 3.0, "2": 2.0, "share": 1.6})
    assert (growth.speedup(row), growth.by_rows(row)) == (1.5, 1.875)
    # Of a record from before, and where sizes grow, there is none.
    assert growth.by_rows(Row(what, {"1": 3.0, "2": 2.0})) is None
    assert growth.by_rows(Row({"axis": "batch", "sizes": [1, 2]}, {"1": 3.0, "2": 6.0})) is None


def test_partners_do_what_they_are_asked_until_the_end(monkeypatch):
    import partners
    from topics import growth
    from workloads import Row

    with partners.Partners(2) as two:
        two.trips()
        alone = partners.timed(lambda: partners._compute(partners.ROUNDS))()
        assert 0 < two.compute() < 100 * alone
        taken = partners.timed(two.trips)()
        processes = two._processes
        assert all(process.is_alive() for process in processes)
    assert not any(process.is_alive() for process in processes)
    with partners.Partners(0) as nobody:
        assert nobody.compute() > 0
    monkeypatch.setattr(partners, "PATIENCE", 10)
    monkeypatch.setattr(partners, "MOST", 100)
    with pytest.raises(TimeoutError, match="expected an answer"):
        partners._count(memoryview(bytearray(64)).cast("Q"), 1)
    assert partners.nanoseconds(1e3 * taken) > 20  # no processors are nearer to each other
    what = {"axis": "threads", "sizes": [1, 2]}
    assert growth.line(Row(what, {"1": 3.0, "2": 2.0, "line": 0.8})) == pytest.approx(200)
    assert growth.line(Row(what, {"1": 3.0, "2": 2.0})) is None


def test_torchs_faster_way_of_a_step_counts():
    from topics import streaming
    from workloads import Row

    row = Row({}, {"rnncore": 2.0, "torch": 9.0, "torch cell": 6.0, "onnxruntime": 1.0})
    assert (streaming.torchs(row), streaming.versus_torch(row)) == (6, 3)


def test_the_readmes_rows_are_of_the_grid():
    import page
    from topics import Scope, grid

    cases = [asdict(case) for case in Scope(1).cases(grid.SHAPES)]
    titles = {grid.TOPIC.title({**case, "pass": name}) for case in cases for name in page.PASSES}
    assert set(page.SOME.split("\n")) - {""} <= {f"    {title}" for title in titles}


def test_a_misspelt_form_or_shape_is_answered(capsys: pytest.CaptureFixture[str]):
    import compare

    with pytest.raises(SystemExit):
        compare.parse(["--torch-modules", "lop"])
    assert "--torch-modules: invalid choice: 'lop' (choose from" in capsys.readouterr().err
    for shape in ("1,2,3", "1,2,3,0", "1,2,3,x"):
        with pytest.raises(SystemExit):
            compare.parse(["--shape", shape])
        assert f"expected B,T,I,H as 64,100,128,256, got '{shape}'" in capsys.readouterr().err
    assert compare.parse(["--shape", "1,2,3,4", "--threads", "1"]).shape == [(1, 2, 3, 4)]
    assert compare.parse(["--torch-modules", "loop", "--threads", "1"]).torch_modules == ["loop"]
    assert compare.parse(["--torch-modules", "--threads", "1"]).torch_modules == []


@pytest.mark.parametrize("wrong_on", [None, 1, 2])
def test_what_is_wrong_on_any_number_of_threads_is_not_recorded(
    wrong_on: int | None, monkeypatch: pytest.MonkeyPatch
):
    import compare
    from workloads import Row

    saved = []
    monkeypatch.setattr(compare, "rows_of", lambda _, scope: ([Row({})], scope.threads != wrong_on))
    monkeypatch.setattr(compare.record, "save", lambda *given: saved.append(given))
    monkeypatch.setattr(compare, "print_goals", lambda *_: None)
    installed = {name: compare.PEERS[name] for name in compare.installed_peers()}
    monkeypatch.setattr(compare, "PEERS", installed)
    monkeypatch.setattr(compare, "chosen_topics", lambda _: [compare.topic_of("grid")])
    chosen = SimpleNamespace(
        threads=[1, 2],
        quick=False,
        cell=["GRU", "LSTM", "RNN"],
        shape=None,
        rows=[1],
        torch_modules=None,
        kernels=False,
    )
    assert compare.compare(chosen, "compare.py") == (wrong_on is None)
    assert len(saved) == (wrong_on is None)


def test_what_runs_in_part_or_beside_some_peers_is_not_recorded(monkeypatch: pytest.MonkeyPatch):
    import compare

    monkeypatch.setattr(compare, "installed_peers", lambda: list(compare.PEERS))
    for options, is_whole in [
        ([], True),
        (["--threads", "2"], True),
        (["--rows", "6"], True),
        (["--threads", "1"], False),
        (["--quick"], False),
        (["--cell", "GRU"], False),
        (["--shape", "1,2,3,4"], False),
    ]:
        monkeypatch.setattr(compare, "available_cpus", lambda: 2)
        assert compare.is_whole(compare.parse(options)) == is_whole
    monkeypatch.setattr(compare, "installed_peers", lambda: ["rnncore", "torch"])
    assert not compare.is_whole(compare.parse([]))


def test_a_wrong_module_of_ours_is_noticed(monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    import rnncore.torch
    from topics import Scope, torch_modules

    def convert_badly(model):
        rnncore.torch.revert(model)
        with torch.no_grad():
            next(model.parameters()).add_(0.01)
        return model

    threads = torch.get_num_threads(), rnncore.get_num_threads()
    for convert in (rnncore.torch.convert, convert_badly):
        monkeypatch.setattr(rnncore.torch, "convert", convert)
        scope = Scope(1, True, ["GRU"], [(2, 3, 4, 5)], ["rnncore", "torch"], ["layer"])
        rows = [row for row in torch_modules.workloads(scope) if row.what["batch"] == 2]
        assert [row.what["pass"] for row in rows] == ["forward", "step"]
        assert [bool(row.wrong) for row in rows] == [convert is convert_badly] * 2
    torch.set_num_threads(threads[0])
    rnncore.set_num_threads(threads[1])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_module_is_timed_beside_itself():
    torch = pytest.importorskip("torch")
    import rnncore
    from topics import Scope, torch_modules

    threads = torch.get_num_threads(), rnncore.get_num_threads()
    with torch._dynamo.config.patch(allow_rnn=False):
        rows = list(torch_modules.workloads(Scope(1, True, ["GRU"], forms=["compiled"])))
    assert [set(row.runs) for row in rows] == [{"rnncore", "torch", "compiled"}] * 2
    assert not any(row.wrong for row in rows)
    torch.set_num_threads(threads[0])
    rnncore.set_num_threads(threads[1])


def test_a_step_is_its_call_and_the_rest():
    from topics import streaming
    from workloads import Row

    row = Row({}, {"rnncore": 4.0, "call": 1.0, "read by max": 2.0, "read by a sum": 3.0})
    assert streaming.over_read(row) == 2.0
    assert streaming.kernel_over_read(row) == 1.5
