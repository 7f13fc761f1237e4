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


@pytest.mark.parametrize("page", ["README.md", "docs/speed.md"])
def test_figures_are_those_on_record(page: str, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benches"))
    import compare

    compare.main(["--show", *map(str, sorted((ROOT / "benches" / "results").glob("*.json")))])
    recorded = capsys.readouterr().out.splitlines()
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"^\| (?:LSTM|GRU|RNN|\d+) .*", text, re.MULTILINE)
    assert [line for line in shown if line not in recorded] == []
