"""Every benchmark runs: what it measures at full size it measures here at its smallest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def test_there_are_benchmarks() -> None:
    assert {"mmd", "estimators", "two_sample", "choices", "shifts", "align", "evaluate", "train"} <= {
        path.stem for path in BENCHMARKS
    }


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda path: path.stem)
def test_it_runs_and_prints_figures(script: Path, tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, script, "--smoke"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"\d\.\d", ended.stdout)
