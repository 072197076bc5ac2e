"""`--input-normalisation`: CLAHE against OpenCV, the retinex against NumPy and SciPy, and both as part of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import normalised
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from facedan_cli.config import models
from facedan_cli.config.common import EmbedConfig, ExportConfig, hashed_options
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import find_model
from facedan_cli.errors import UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.export.export import export
from facedan_cli.models.checkpoint import load_checkpoint, read_card
from facedan_cli.models.input_normalisation import CLAHE, NORMALISATIONS, Retinex
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

PRETRAIN = PretrainConfig(source="casia", model=normalised.NAME, iterations=2, batch=8, input_normalisation="retinex")
ADAPT = AdaptConfig(source="casia", target="frgc", iterations=1, batch=4, lambda_=0.0)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(models.NETWORKS, normalised.NAME, normalised.ENTRY)  # type: ignore[arg-type]
        patched.setattr("facedan_cli.training.bandwidths.BANDWIDTH_SAMPLE", 16)
        yield


def as_batch(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def opencv(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    change = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(grey).astype(float) - grey
    return np.clip(image + change[..., None], 0, 255)


def check_clahe(images: list[np.ndarray]) -> None:
    found = CLAHE(images[0].shape[0])(as_batch(images)).permute(0, 2, 3, 1).numpy()
    assert found.dtype == np.float32
    for image, one in zip(images, found, strict=True):
        assert np.abs(one - opencv(image)).max() <= 1


@given(st.integers(16, 120), st.floats(0, 8), st.integers(1, 255), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_clahe_is_opencvs_within_a_grey_level(side: int, blur: float, most: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, most + 1, (side, side, 3), dtype=np.uint8)
    check_clahe([noise, cv2.GaussianBlur(noise, (0, 0), blur + 0.1), np.full_like(noise, most)])


@pytest.mark.parametrize("side", [64, 112, 150])
def test_clahe_is_opencvs_on_real_images(shared_data: Path, side: int) -> None:
    files = sorted((shared_data / "lfw").glob("*/*.jpg"))[::60][:10]
    check_clahe([cv2.resize(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB), (side, side)) for file in files])


def test_retinex_is_the_logarithm_less_its_blur() -> None:
    side = 40
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    x = np.log1p(image.astype(float))
    at = np.arange(side)
    blurred = np.zeros_like(x)
    for row in range(side):
        for column in range(side):
            weights = np.exp(-((at[:, None] - row) ** 2 + (at - column) ** 2) / (2 * (side / 8) ** 2))
            blurred[row, column] = (weights[..., None] * x).sum((0, 1)) / weights.sum()
    rest = x - blurred
    expected = np.clip(127.5 + 48 * (rest - rest.mean()) / rest.std(), 0, 255)
    found = Retinex(side)(as_batch([image]))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=0.01)


@given(st.sampled_from(sorted(NORMALISATIONS)), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_an_image_does_not_depend_on_its_batch_nor_on_its_type(kind: str, seed: int) -> None:
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 3, 40, 40), dtype=np.uint8))
    images[2] = images[2, 0, 0, 0]  # without any contrast
    module = NORMALISATIONS[kind](40)
    found = module(images)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 255
    torch.testing.assert_close(found, module(images.double()))
    torch.testing.assert_close(found[1:2], module(images[1:2]))
    assert len(module(images[:0])) == 0


def test_a_retinex_takes_away_what_light_adds_slowly() -> None:
    image = np.random.default_rng(0).integers(60, 200, (64, 64, 3), dtype=np.uint8)
    dimmed = image * np.linspace(0.4, 1, 64)[:, None]
    one, other = Retinex(64)(torch.from_numpy(np.stack([image, dimmed])).permute(0, 3, 1, 2))
    assert (one - other).abs().mean() < 5 < np.abs(image - dimmed).mean()


@pytest.mark.parametrize("kind", sorted(NORMALISATIONS))
def test_it_is_a_part_of_the_network_in_training_and_in_every_export(
    workspace: Workspace, tmp_path: Path, kind: str
) -> None:
    run = pretrain(plan_pretrain(replace(PRETRAIN, input_normalisation=kind), workspace)).run
    network, card = load_checkpoint(run.checkpoint)
    assert label_of(card) == f"source only {kind}"
    images = torch.randint(0, 256, (2, 3, network.crop, network.crop), dtype=torch.uint8)
    with torch.no_grad():
        found, plainly = network(images), network.features(NORMALISATIONS[kind](network.crop)(images))
        torch.testing.assert_close(found["embedding"], plainly["embedding"])
        assert not torch.allclose(found["embedding"], network.features(images)["embedding"])
    for name in ("a.onnx", "a.pt", "a.safetensors"):  # which are compared with the network
        made = export(ExportConfig(model=run.name, out=tmp_path / name), run.checkpoint)
        assert made.metadata["input_normalisation"] == kind
    export(ExportConfig(model=run.name, out=tmp_path / "hub", format="hub"), run.checkpoint)
    faces = read_dataset(workspace.root / "aligned" / "frgc")
    rows = [
        embed(EmbedConfig(dataset="frgc"), faces, find_model(workspace, str(name)), workspace).load()[0]
        for name in (run.name, tmp_path / "a.onnx", tmp_path / "hub")
    ]
    for row in rows[1:]:
        np.testing.assert_allclose(row, rows[0], atol=1e-5)
    again = plan_pretrain(replace(PRETRAIN, init=str(tmp_path / "a.safetensors"), input_normalisation=None), workspace)
    assert again.config.input_normalisation == kind
    for refused, options in {"light": {"raw": True}, f"--input-normalisation {kind}": {"format": "original"}}.items():
        with pytest.raises(UsageError, match=refused):
            export(ExportConfig(model=run.name, out=tmp_path / "b.onnx", **options), run.checkpoint)


def test_adapt_keeps_that_of_the_initial_network_or_sets_its_own(workspace: Workspace) -> None:
    pretrained = pretrain(plan_pretrain(PRETRAIN, workspace)).run
    for asked, kept in {None: "retinex", "none": "none", "clahe": "clahe"}.items():
        job = plan_adapt(replace(ADAPT, input_normalisation=asked), workspace)
        assert job.config.input_normalisation == kept
    for method in ("adabn", "whiten"):
        run = adapt(plan_adapt(replace(ADAPT, method=method, iterations=None, batch=None), workspace)).run
        assert type(load_checkpoint(run.checkpoint)[0].input_normalisation) is Retinex
        with pytest.raises(UsageError, match="input-normalisation"):
            plan_adapt(replace(ADAPT, method=method, input_normalisation="clahe"), workspace)
    own = adapt(plan_adapt(replace(ADAPT, init=pretrained.name, input_normalisation="clahe"), workspace)).run
    assert type(load_checkpoint(own.checkpoint)[0].input_normalisation) is CLAHE
    assert find_model(workspace, own.name).card == read_card(own.checkpoint)
    again = plan_pretrain(replace(PRETRAIN, init=own.name, input_normalisation=None), workspace)
    assert again.config.input_normalisation == "clahe"  # type: ignore[union-attr]


def test_none_is_what_earlier_versions_did(workspace: Workspace) -> None:
    options = [replace(PRETRAIN, input_normalisation=asked) for asked in (None, "none")]
    assert len({plan_pretrain(one, workspace).run.name for one in options}) == 1
    for asked in (None, "none"):
        assert "input_normalisation" not in hashed_options(replace(ADAPT, input_normalisation=asked))


def test_it_computes_in_float32_where_the_network_does_not(workspace: Workspace) -> None:
    network = load_checkpoint(pretrain(plan_pretrain(PRETRAIN, workspace)).run.checkpoint)[0]
    seen: list[Tensor] = []
    assert network.input_normalisation is not None
    network.input_normalisation.register_forward_hook(lambda _, given, found: seen.append(found))
    images = torch.randint(0, 256, (2, 3, network.crop, network.crop), dtype=torch.uint8)
    with torch.no_grad():
        network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network(images)
    assert torch.equal(*seen)
