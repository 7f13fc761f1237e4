"""Records: one file a machine, with a section for each topic, replaced when it is measured anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workloads import Row

RESULTS = Path(__file__).resolve().parent / "results"


def path_for(cpu: str) -> Path:
    """Give the file of a machine, named after its processor without its clock rate."""
    name = re.sub(r"\W+", "-", re.sub(r"\((R|TM)\)|@ *[\d.]+ *GHz", "", cpu)).strip("-").lower()
    return RESULTS / f"{name}.json"


def save(
    cpu: str, section: str, rows: Mapping[int, Iterable[Row]], facts: Mapping[str, Any]
) -> Path:
    """
    Write a section of a machine's record.

    Parameters
    ----------
    cpu : str
    section : str
        The name of the topic; what stood there before is replaced.
    rows : mapping of number of threads to rows
    facts : mapping
        When, where and with which versions it was taken.
    """
    path = path_for(cpu)
    record = json.loads(path.read_text()) if path.exists() else {"cpu": cpu, "sections": {}}
    record["sections"][section] = {
        **facts,
        "rows": [{"threads": n, **_plain(row)} for n, some in rows.items() for row in some],
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a record."""
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def rows_of(section: Mapping[str, Any], threads: int) -> list[Row]:
    """Give the rows of a section on so many threads."""
    fields = ("what", "milliseconds", "gflops", "sgemm_gflops", "megabytes", "disturbed")
    return [
        Row(**{name: row[name] for name in fields if name in row})
        for row in section["rows"]
        if row["threads"] == threads
    ]


def _plain(row: Row) -> dict[str, Any]:
    content = {
        "milliseconds": _rounded(row.milliseconds),
        "gflops": _digits(row.gflops),
        "sgemm_gflops": _rounded(row.sgemm_gflops),
        "megabytes": _rounded(row.megabytes),
        "disturbed": _digits(row.disturbed),
    }
    return {"what": row.what, **{name: value for name, value in content.items() if value}}


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: _digits(value) for name, value in figures.items()}


def _digits(value: float) -> float:
    """Keep four digits, which is more than repeats from run to run."""
    return float(f"{value:.4g}")
