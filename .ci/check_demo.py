"""Check what `facedan demo` left: a row a model on stdout, and beside the plot that it names the figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

MODELS = 5  # before, the control, DAN_m67, whitened, the one that is chosen
PARTITIONS = {"Good", "Bad", "Ugly"}


def check(printed: list[str]) -> None:
    """Fail where something is missing; `printed` is the demo's stdout, whatever came before it.

    Raises:
        AssertionError: the message names what is missing.
    """
    plot = Path(printed[-1])
    assert plot.name == "roc.png", f"the demo ends with the path of its plot, not with {printed[-1]!r}"
    assert plot.read_bytes().startswith(b"\x89PNG\r\n"), f"{plot} is no PNG"
    summary = json.loads((plot.parent / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["models"]) == MODELS, f"summary.json has {len(summary['models'])} models, not {MODELS}"
    for model in summary["models"]:
        name = model["name"]
        assert any(line.startswith(f"{name} ") for line in printed), f"the table has no row for {name}"
        assert model["partitions"].keys() == PARTITIONS, f"{name} was not measured on {sorted(PARTITIONS)}"
        for partition, figures in model["partitions"].items():
            assert figures["genuine"] > 0, f"{name}: {partition} has no genuine comparison"
            assert figures["vr"], f"{name}: no verification rate on {partition}"
            assert all(0 <= rate <= 1 for rate in figures["vr"].values()), f"{name}: no rates: {figures['vr']}"


if __name__ == "__main__":
    check(Path(sys.argv[1]).read_text(encoding="utf-8").strip().splitlines())
