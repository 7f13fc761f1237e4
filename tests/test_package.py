"""The package as a user meets it: what is in the wheel, what importing it costs and brings in."""

import importlib.metadata
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import rnncore

ROOT = Path(__file__).resolve().parent.parent
IMPORT_SECONDS = 0.3


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter, away from the source tree; give what it printed."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def wheel_files() -> set[str]:
    files = importlib.metadata.files("rnncore")
    assert files is not None
    return {str(file) for file in files if "__pycache__" not in file.parts}


def test_versions_agree():
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert rnncore.__version__ == manifest["package"]["version"]
    assert importlib.metadata.version("rnncore") == rnncore.__version__


def test_tests_run_against_the_installed_wheel():
    assert ROOT / "python" not in Path(rnncore.__file__).parents


def test_import_is_quick():
    code = """
from time import perf_counter
start = perf_counter()
import rnncore
print(perf_counter() - start)
"""
    # The best of several: other work on the machine can only add to it.
    seconds = []
    deadline = time.monotonic() + 20
    while len(seconds) < 5 or (min(seconds) >= IMPORT_SECONDS and time.monotonic() < deadline):
        seconds.append(float(run_python(code)))
    assert min(seconds) < IMPORT_SECONDS


def test_import_and_use_leave_heavy_packages_alone():
    code = """
import sys
import numpy as np
import rnncore
rnncore.nn.LSTM(2, 3)(np.zeros((4, 1, 2), np.float32))
heavy = ["torch", "sklearn", "scipy", "matplotlib", "tqdm"]
print(*[name for name in heavy if name in sys.modules])
"""
    assert run_python(code).split() == []


def test_import_starts_no_thread():
    code = """
import os
import rnncore
print(len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1)
"""
    without = int(run_python(code.replace("import rnncore", "import numpy")))
    assert int(run_python(code)) == without


def test_wheel_holds_the_package_its_types_and_licences():
    files = wheel_files()
    sources = {
        path.relative_to(ROOT / "python").as_posix()
        for path in (ROOT / "python" / "rnncore").rglob("*")
        if path.suffix in {".py", ".pyi"}
    }
    assert sources <= files
    assert "rnncore/py.typed" in files
    assert "rnncore/_core.pyi" in files
    assert [file for file in files if re.fullmatch(r"rnncore/_core\.abi3\.(so|pyd)", file)]
    assert len([file for file in files if re.search(r"licenses/LICENSE-\w+$", file)]) == 2


def test_wheel_holds_nothing_else():
    others = [file for file in wheel_files() if not file.startswith(("rnncore/", "rnncore-"))]
    assert others == []
