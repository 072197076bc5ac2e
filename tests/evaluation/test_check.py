"""`adapt --check`: the verification rate before and after an adaptation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import normalised
import pytest

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation.check import check_adaptation, refuse_pairs
from facedan_cli.evaluation.protocols import evaluate_pairs
from facedan_cli.evaluation.verification import Verification
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with normalised.known():
        yield


@pytest.fixture
def adapted(workspace: Workspace, network: None) -> AdaptJob:
    pretrain(plan_pretrain(PretrainConfig(source="casia", model=normalised.NAME, iterations=3, batch=8), workspace))
    job = plan_adapt(AdaptConfig(source="casia", target="frgc", method="whiten"), workspace)
    adapt(job)
    return job


@pytest.fixture
def pairs(workspace: Workspace, tmp_path: Path) -> Path:
    """All pairs of the target's images; those whose numbers agree modulo 4 are of one subject."""
    images = sorted(path.name for path in (workspace.root / "aligned" / "frgc").glob("*.png"))
    numbered = combinations(enumerate(images), 2)
    lines = [f"{a}\t{b}\t{int(first % 4 == second % 4)}" for (first, a), (second, b) in numbered]
    file = tmp_path / "pairs.tsv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_check_is_two_rows_of_evaluate_pairs(adapted: AdaptJob, pairs: Path, workspace: Workspace) -> None:
    images = workspace.dataset("frgc")
    models = (adapted.init, adapted.run.checkpoint)
    found = check_adaptation(*models, images, pairs, workspace, EvaluateConfig(replicates=50))
    config = EvaluateConfig(model=tuple(map(str, models)), far=("0.1",), replicates=50)
    rows = [model.partitions["all"] for model in evaluate_pairs(config, workspace, images, pairs).models]
    rates = [row.points["0.1"].vr for row in rows if isinstance(row, Verification)]
    assert found.difference.at == "0.1"  # 96 impostor comparisons: fewer than five false accepts at 0.01
    assert [found.before.vr, found.after.vr] == rates
    assert found.difference.value == rates[1] - rates[0]
    assert found.difference.interval is not None
    low, high = found.difference.interval
    assert low <= found.difference.value <= high
    assert "120 pairs of pairs.tsv" in str(found)
    assert ("this may be chance" in str(found)) == (not found.difference.distinguishable)


def test_the_far_is_one_that_the_pairs_can_show(adapted: AdaptJob, pairs: Path, workspace: Workspace) -> None:
    lines = pairs.read_text().splitlines()
    impostors = [line for line in lines if line.endswith("0")]
    pairs.write_text("\n".join(lines + impostors * 5) + "\n")
    models = (adapted.init, adapted.run.checkpoint)
    images = workspace.dataset("frgc")
    found = check_adaptation(*models, images, pairs, workspace, EvaluateConfig(replicates=0))
    assert (found.difference.at, found.difference.interval) == ("0.01", None)
    assert found.before.impostor == 6 * 96


@pytest.mark.parametrize(("text", "what"), [("a.png\tb.png\t1\n", "different subjects"), ("a.png\tb.png\t0\n", "same")])
def test_pairs_of_one_kind_are_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "pairs.tsv").write_text(text)
    with pytest.raises(FacedanError, match=what):
        refuse_pairs(tmp_path / "pairs.tsv")


def test_the_command_line(
    adapted: AdaptJob, pairs: Path, workspace: Workspace, facedan: Callable[..., Any], tmp_path: Path
) -> None:
    command = ("adapt", "--workspace", workspace.root, "--source", "casia", "--target", "frgc", "--method", "whiten")
    ended = facedan(*command, "--check", pairs, "--json")
    assert ended.code == 0, ended.err
    made = json.loads(ended.out)
    assert made["skipped"]  # the run does not depend on the check
    assert (made["check"]["genuine"], made["check"]["impostor"]) == (24, 96)
    assert "on the 120 pairs of pairs.tsv the verification rate at FAR 0.1 was" in ended.err
    ended = facedan(*command, "--whiten-power", "0.5", "--check", tmp_path / "missing.tsv")
    assert ended.code == 1
    assert "cannot read the list of pairs" in ended.err
    assert not list((workspace.root / "runs").glob("*/run.json"))[2:]  # said before anything is adapted
