from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import two_ranks
from processes import run_together
from safetensors.torch import load_file

from facedan_cli.config.looks import RESTYLINGS
from facedan_cli.distributed import DistEnv, shard_range
from facedan_cli.errors import UsageError

CHOICES: dict[str, dict[str, Any]] = {
    "plain": {},
    "linear": {"estimator": "linear", "kernel_weights": "optimal"},
    "bank": {"memory_bank": 9},
    "parts": {"grad_accum": 2},
    "restyled": {"restyle": tuple(RESTYLINGS)},
    "kept": {"keep": 3.0, "grad_accum": 2},
}
MODES: dict[str, dict[str, Any]] = {mode: {"batch_norm": mode} for mode in ("source", "joint")}
ANGULAR: dict[str, dict[str, Any]] = {head: {"head": head, "scale": 4.0} for head in ("arcface", "adaface")}
HEADS: dict[str, dict[str, Any]] = {"softmax": {}, **ANGULAR}


def train_alone(directory: Path, options: dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    two_ranks.adapt_in(0, 1, directory, options)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings by one process and by several."""
    root = tmp_path_factory.mktemp("ranks")
    for name, options in (CHOICES | MODES | ANGULAR).items():
        train_alone(root / name, {**options, "grad_accum": 1})
    jobs = [
        (f"two-{name}", 2, options)
        for name, options in (CHOICES | MODES | {"adaface": ANGULAR["adaface"] | {"grad_accum": 2}}).items()
    ]
    jobs += [(f"sharded-{name}", 2, {**options, "sharded": 1}) for name, options in HEADS.items()]
    for sharded in (0, 1):
        train_alone(root / f"to-three-{sharded}", {"die_after": 5})  # the state is of step 4
        jobs += [
            (f"to-three-{sharded}", 3, {"sharded": sharded}),
            (f"to-one-{sharded}", 2, {"sharded": sharded, "die_after": 5}),
        ]
    for name, _, _ in jobs:
        (root / name).mkdir(exist_ok=True)
    run_together(two_ranks.adapt_together, 3, root, jobs)
    return root


def assert_alike(one: Path, other: Path, layers: tuple[str, str] = ("fc6", "fc7")) -> None:
    """Two trainings came to the same network, and logged the same on the way."""
    networks = [load_file(directory / "model.safetensors") for directory in (one, other)]
    assert networks[0].keys() == networks[1].keys()
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=1e-4, atol=1e-5)
    logs = [
        [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for directory in (one, other)
    ]
    assert [entry["step"] for entry in logs[1]] == [3, 4, 6, 8, 9, 10]
    for first, second in zip(*logs, strict=True):
        for key in (
            "loss",
            "classification",
            "accuracy",
            *(f"mmd2_{layer}" for layer in layers),
            f"rank_{layers[1]}_target",
        ):
            assert second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("choice", CHOICES)
def test_two_processes_are_one(root: Path, choice: str) -> None:
    """Also with dropout, whose mask is that of the global batch."""
    one, two = root / choice, root / f"two-{choice}"
    whole = load_file(one / "measured0.safetensors")
    parts = [load_file(two / f"measured{part}.safetensors") for part in (0, 1)]
    for part in parts:
        torch.testing.assert_close(part["value"], whole["value"], rtol=1e-12, atol=0)
    for domain in ("source", "target"):
        assert [len(part[domain]) for part in parts] == [3, 4]
        joined = torch.cat([part[domain] for part in parts])
        torch.testing.assert_close(joined, whole[domain], rtol=1e-10, atol=1e-14)
    assert_alike(one, two)


@pytest.mark.parametrize("mode", MODES)
def test_batch_statistics_are_those_of_the_global_batch(root: Path, mode: str) -> None:
    """Of three rows and of four; with the gradient through them."""
    assert_alike(root / mode, root / f"two-{mode}", ("8", "embedding"))


@pytest.mark.parametrize("head", HEADS)
def test_a_sharded_classifier_is_the_whole_one(root: Path, head: str) -> None:
    assert_alike(root / {"softmax": "plain"}.get(head, head), root / f"sharded-{head}")


def test_adaface_sees_the_norms_of_the_global_batch(root: Path, tmp_path: Path) -> None:
    """Of two processes with their parts; an interrupted training goes on with the moments that it had."""
    assert_alike(root / "adaface", root / "two-adaface")
    train_alone(tmp_path, {**ANGULAR["adaface"], "die_after": 5})
    train_alone(tmp_path, ANGULAR["adaface"])
    whole, resumed = (load_file(directory / "model.safetensors") for directory in (root / "adaface", tmp_path))
    assert float(whole["classifier.norm_mean"]) != 20
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.parametrize("sharded", [0, 1])
def test_another_number_of_processes_goes_on_from_a_state(root: Path, sharded: int) -> None:
    assert (root / f"to-one-{sharded}" / "state.safetensors").is_file()
    assert not (root / f"to-one-{sharded}" / "model.safetensors").exists()
    train_alone(root / f"to-one-{sharded}", {})
    assert_alike(root / "plain", root / f"to-one-{sharded}")
    assert_alike(root / "plain", root / f"to-three-{sharded}")


@pytest.mark.parametrize(("batch", "parts"), [(32, 1), (32, 2), (7, 3), (2, 5)])
def test_shares_are_neighbours_and_make_the_whole(batch: int, parts: int) -> None:
    shares = [shard_range(batch, part, parts) for part in range(parts)]
    assert [row for own in shares for row in own] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_are_what_the_launcher_says() -> None:
    assert DistEnv.of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}) == DistEnv(
        3, 4, 1, 2
    )
    assert DistEnv.of({"PATH": "/bin"}) == DistEnv(0, 1, 0, 1)


def test_every_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    second = DistEnv(5, 8, local_rank=1, local_count=2)
    assert str(second.device(torch.device("cuda"))) == "cuda:1"
    assert str(second.device(torch.device("cpu"))) == "cpu"
    assert str(DistEnv().device(torch.device("cuda:1"))) == "cuda:1"
    with pytest.raises(UsageError, match="several processes cannot share cuda:0"):
        second.device(torch.device("cuda:0"))
    with pytest.raises(UsageError, match="there are 3 processes here and 2 GPUs"):
        DistEnv(2, 3, local_rank=2, local_count=3).device(torch.device("cuda"))
