"""The changes of source images in training: --augment, restyle and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import normalised
import numpy as np
import pytest
import torch
from tiny import Notes

from facedan_cli.adaptation.restyle import restyle
from facedan_cli.config.common import hashed_options
from facedan_cli.config.looks import AUGMENTATIONS as KINDS
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.augment import AUGMENTATIONS, augmentation
from facedan_cli.data.masks import draw_mask
from facedan_cli.data.templates import TEMPLATES
from facedan_cli.errors import UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.models.checkpoint import load_checkpoint, read_card
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.changes import Restyling
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

PRETRAIN = PretrainConfig(source="casia", model=normalised.NAME, iterations=3, batch=8, log_every=1)
ADAPT = AdaptConfig(source="casia", target="frgc", iterations=3, batch=4, lambda_=0.0, log_every=1)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with normalised.known():
        yield


@pytest.fixture
def pretrained(workspace: Workspace, network: None) -> Workspace:
    pretrain(plan_pretrain(PRETRAIN, workspace))
    return workspace


def weights(workspace: Workspace, **options: Any) -> dict[str, torch.Tensor]:
    made = adapt(plan_adapt(replace(ADAPT, **options), workspace)).run
    return load_checkpoint(made.checkpoint)[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def face() -> np.ndarray:
    drawn: np.ndarray = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    return drawn


@pytest.mark.parametrize("kind", KINDS)
def test_each_augmentation_changes_a_copy_as_its_random_numbers_say(kind: str) -> None:
    assert AUGMENTATIONS.keys() == KINDS.keys()
    given = face()
    found = [AUGMENTATIONS[kind](given, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2]) == (kind == "grey")
    assert np.array_equal(given, face())
    assert all((one.shape, one.dtype) == (given.shape, np.uint8) for one in found)
    assert not np.array_equal(found[0], given)


def test_kinds_that_are_not_named_change_nothing() -> None:
    random = np.random.default_rng(0)
    assert augmentation(())(face(), random) is not None
    grey = [augmentation(("grey",))(face(), random) for _ in range(40)]
    changed = [bool((one == one[:, :, :1]).all()) for one in grey]
    assert 3 < sum(changed) < 25
    assert all(np.array_equal(one, face()) for one, so in zip(grey, changed, strict=True) if not so)


def test_a_mask_covers_nose_and_mouth_and_leaves_the_eyes() -> None:
    points = TEMPLATES["arcface5"].points(112, 5)
    given = np.full((112, 112, 3), 128, np.uint8)
    for seed in range(20):
        masked = draw_mask(given, points, np.random.default_rng(seed))
        for x, y in np.rint(points[3:]).astype(int):
            assert (masked[y, x] != 128).any(), "a corner of the mouth"
        for x, y in np.rint(points[:2]).astype(int):
            assert (masked[y, x] == 128).all(), "an eye"
        assert (masked[:30] == 128).all()
        assert (given == 128).all()


def test_a_share_of_the_rows_is_restyled_by_the_target_in_the_same_row() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(0, 256, (40, 3, 8, 8), generator=generator).to(torch.uint8) for _ in range(2))
    change = Restyling(("histogram",), 0.5, 7, range(40))
    found, whole = change(source, target, 3), restyle(source, target, ["histogram"])
    changed = (found != source).flatten(1).any(1)
    assert 8 < int(changed.sum()) < 32
    assert torch.equal(found[changed], whole[changed])
    assert not torch.equal(change(source, target, 4), found)
    assert change(source, target, 3).equal(found)
    halves = [Restyling(("histogram",), 0.5, 7, range(start, start + 20)) for start in (0, 20)]
    parts = [
        half(source[half.rows.start : half.rows.stop], target[half.rows.start : half.rows.stop], 3) for half in halves
    ]
    assert torch.equal(torch.cat(parts), found), "two processes change what one does"
    assert Restyling(("histogram",), 0.0, 7, range(40))(source, target, 3) is source


@pytest.mark.parametrize(
    ("options", "idle", "label"),
    [
        ({"method": "restyle"}, {"restyle_share": 0.0}, "λ = 0 restyled"),
        ({"method": "masks"}, {"mask_share": 0.0}, "λ = 0 masks"),
        ({"augment": "all"}, {"augment": "none"}, "λ = 0 augmented"),
        ({"augment": "grey,blur"}, {"augment": "none"}, "λ = 0 augmented grey,blur"),
    ],
)
def test_a_training_differs_by_them_alone(
    pretrained: Workspace, options: dict[str, Any], idle: dict[str, Any], label: str
) -> None:
    plain, changed = weights(pretrained), weights(pretrained, **options)
    assert not same(plain, changed)
    job = plan_adapt(replace(ADAPT, **(options | idle)), pretrained)
    if "method" in options:  # the run has a seed of its own, since it is another method
        assert job.run.name != plan_adapt(ADAPT, pretrained).run.name
    made = plan_adapt(replace(ADAPT, **options), pretrained).run
    assert made.finished
    assert label_of(read_card(made.checkpoint)) == label


def test_an_interrupted_training_goes_on_with_the_same_changes(pretrained: Workspace) -> None:
    options = {"method": "mmd+restyle+masks", "augment": "all", "lambda_": 0.5, "checkpoint_every": 1}
    whole = weights(pretrained, **options)
    job = plan_adapt(replace(ADAPT, **options), pretrained)
    with pytest.raises(Exception, match="stopped at step 2"):
        adapt(job, force=True, report=Notes(stop_at=2))
    adapt(plan_adapt(replace(ADAPT, **options), pretrained))
    assert same(load_checkpoint(job.run.checkpoint)[0].state_dict(), whole)


def test_spellings_of_one_change_are_one_run(pretrained: Workspace) -> None:
    for name, method, one, other in (
        ("augment", "mmd", "noise, blur", "blur,noise"),
        ("augment", "mmd", "all", ",".join(reversed(KINDS))),
        ("restyle_by", "restyle", "histogram,amplitude", "amplitude,histogram"),
    ):
        jobs = [plan_adapt(replace(ADAPT, method=method, **{name: text}), pretrained) for text in (one, other)]
        assert jobs[0].run.name == jobs[1].run.name
    assert plan_pretrain(replace(PRETRAIN, augment=",".join(KINDS)), pretrained).config.augment == "all"


def test_earlier_runs_keep_their_names() -> None:
    known = {"augment", "restyle_share", "restyle_by", "mask_share", "method"}
    assert not known & hashed_options(ADAPT).keys()
    assert "augment" not in hashed_options(PRETRAIN)
    assert hashed_options(replace(PRETRAIN, augment="all"))["augment"] == "all"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "gray"}, "--augment does not know 'gray'"),
        ({"method": "restyle", "restyle_by": "histograms"}, "--restyle-by does not know"),
        ({"method": "restyle", "restyle_by": "none"}, "would change nothing"),
        ({"method": "restyle", "restyle_share": 1.5}, "--restyle-share must be a share"),
        ({"method": "masks", "mask_share": -0.1}, "--mask-share must be a share"),
        ({"mask_share": 0.2}, "--mask-share means nothing without --method masks"),
    ],
)
def test_what_cannot_be_is_refused(pretrained: Workspace, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_adapt(replace(ADAPT, **options), pretrained)


def test_the_source_alone_is_augmented_in_pretraining(workspace: Workspace) -> None:
    made = pretrain(plan_pretrain(replace(PRETRAIN, augment="all"), workspace)).run
    assert label_of(read_card(made.checkpoint)) == "source only augmented"
    with pytest.raises(UsageError, match="--augment does not know"):
        plan_pretrain(replace(PRETRAIN, augment="everything"), workspace)
