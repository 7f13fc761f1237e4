"""The README's examples run as they stand, and the commands it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_there_are_examples():
    assert code_blocks("python")


@pytest.mark.slow
@pytest.mark.parametrize("code", code_blocks("python"), ids=lambda code: code.splitlines()[0])
def test_python_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_rust_example_is_part_of_one_that_cargo_builds():
    def unindented(code: str) -> str:
        return "\n".join(line.strip() for line in code.splitlines())

    (shown,) = code_blocks("rust")
    example = (ROOT / "examples" / "layer.rs").read_text(encoding="utf-8")
    assert unindented(shown) in unindented(example)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    assert set(re.findall(r"(?m)(?:`|^ {4})make ([a-z-]+)", README)) <= targets


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == []


def test_figures_are_those_on_record(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benches"))
    import page
    import record

    speed = ROOT / "docs" / "speed.md"
    text = speed.read_text(encoding="utf-8")
    (named,) = re.findall(r"one record,\n\[[^]]*\]\(([^)]*)\)", text)
    path = (speed.parent / named).resolve()
    rows = page.most_threads(record.load(path))
    others = set(path.parent.glob("*.json")) - {path}
    for drawn in (text, README):
        assert page.fill_in(drawn, rows, others) == drawn
