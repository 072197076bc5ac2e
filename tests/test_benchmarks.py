"""Every benchmark runs: what it measures at full size it measures here at its smallest."""

from __future__ import annotations

import os
import re
import runpy
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
HERE = [path for path in BENCHMARKS if path.stem != "intervals"]  # that is in metrics/test_intervals.py


def test_there_are_benchmarks() -> None:
    assert {"mmd", "estimators", "two_sample", "choices", "shifts", "align", "embed", "evaluate", "train"} <= {
        path.stem for path in BENCHMARKS
    }


@pytest.mark.parametrize("script", HERE, ids=lambda path: path.stem)
def test_it_runs_and_prints_figures(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has read the libraries: that takes longer than most benchmarks at their smallest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(script), "--smoke"])
    monkeypatch.syspath_prepend(script.parent)  # they import one another
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    runpy.run_path(str(script), run_name="__main__")
    assert re.search(r"\d\.\d", capsys.readouterr().out)
