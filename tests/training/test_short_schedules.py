"""A short training of a strong network: rows from class means, and only its last modules trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import normalised
import numpy as np
import pytest
import torch
from processes import joined, run_together
from safetensors.torch import load_file, save_file
from tiny import ADAPT as OF_VGG
from tiny import Notes, metrics, weights
from torch.nn import functional as F

from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.batches import FaceStore, read_face
from facedan_cli.data.dataset import read_dataset
from facedan_cli.distributed import shard_range
from facedan_cli.errors import Interrupted, UsageError
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.networks import build
from facedan_cli.runs import Run
from facedan_cli.training import adapt as stage_2
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.class_means import set_class_means
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

ADAPT = AdaptConfig(source="casia", target="frgc", iterations=4, batch=6, log_every=1, lambda_=2.0)
FROM_MEANS = "mean embedding of each identity"


@pytest.fixture(autouse=True, scope="module")
def network() -> Iterator[None]:
    with normalised.known():
        yield


@pytest.fixture
def place(workspace: Workspace) -> Workspace:
    """With published weights of the network, `weights.safetensors`; an image cannot be read."""
    torch.manual_seed(3)
    card = ModelCard(normalised.NAME, ("",), "weights", "weights-tiny", {"model": normalised.NAME})
    made = build(normalised.NAME, 1)
    save_checkpoint(workspace.root / "weights.safetensors", made, card)
    return workspace


def planned(place: Workspace, **options: Any) -> AdaptJob:
    return plan_adapt(replace(ADAPT, init=str(place.root / "weights.safetensors"), **options), place)


def adapted(place: Workspace, report: Notes | None = None, **options: Any) -> Run:
    return adapt(planned(place, **options), report=report or Notes()).run


def class_means(place: Workspace) -> torch.Tensor:
    """Row by row, image by image."""
    body, rows = load_checkpoint(place.root / "weights.safetensors")[0], []
    for person in range(4):
        embeddings = []
        for path in sorted((place.root / "aligned" / "casia" / f"person{person}").glob("*.png")):
            if path.stat().st_size > 10:
                face = torch.from_numpy(read_face(path, 36).copy()).permute(2, 0, 1)[None, :, 2:34, 2:34]
                with torch.no_grad():
                    embeddings.append(F.normalize(body(face)["embedding"])[0])
        rows.append(F.normalize(torch.stack(embeddings).mean(0), dim=0))
    return torch.stack(rows)


def test_a_fresh_classifier_starts_from_the_mean_of_each_identity(place: Workspace) -> None:
    (place.root / "aligned" / "casia" / "person1" / "0.png").write_bytes(b"no image")
    report = Notes()
    run = adapted(place, report, iterations=1, lr=0.0)
    torch.testing.assert_close(load_file(run.checkpoint)["classifier.weight"], class_means(place), rtol=1e-4, atol=1e-5)
    assert any(FROM_MEANS in note for note in report.notes)
    assert not any("trained on other identities" in warning for warning in report.warnings)


def test_it_classifies_better_than_random_rows_from_the_first_step(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = [line["classification"] for line in metrics(adapted(place))]
    monkeypatch.setattr(stage_2, "set_class_means", lambda *_: None)
    random = [line["classification"] for line in metrics(adapted(place, seed=1))]
    assert np.mean(means) < np.mean(random)


def test_pretraining_on_published_weights_does_so_too(place: Workspace) -> None:
    file = place.root / "body.pth"
    torch.save(load_checkpoint(place.root / "weights.safetensors")[0].body.state_dict(), file)
    report = Notes()
    config = PretrainConfig(source="casia", model=normalised.NAME, init=str(file), iterations=1, batch=4, lr=0.0)
    run = pretrain(plan_pretrain(config, place), report=report).run
    torch.testing.assert_close(weights(run)["classifier.weight"], class_means(place), rtol=1e-4, atol=1e-5)
    report = Notes()
    pretrain(plan_pretrain(replace(config, init=None), place), report=report)
    assert not any(FROM_MEANS in note for note in report.notes)


def test_other_classifiers_are_left_alone(place: Workspace, trained: Any) -> None:
    report = Notes()
    run = adapted(place, report, head="softmax", iterations=1)
    adapt(plan_adapt(replace(ADAPT, init=run.name, iterations=2), place), report=report)  # it keeps its classifier
    networks_of_the_paper = replace(OF_VGG, head="cosface", iterations=1)
    adapt(plan_adapt(networks_of_the_paper, trained.workspace), report=report)
    assert not any(FROM_MEANS in note for note in report.notes)


def test_an_interrupted_run_goes_on_from_its_rows(place: Workspace) -> None:
    whole = adapted(place)
    logged, tensors = metrics(whole), weights(whole)
    shutil.rmtree(whole.directory)
    with pytest.raises(Interrupted):
        adapted(place, Notes(stop_at=2))
    again = adapted(place)
    assert metrics(again) == logged
    assert all(torch.equal(tensors[key], value) for key, value in weights(again).items())


TRAIN_FROM = {"0": (), "3": ("body.0.", "body.1.", "body.2."), "8": tuple(f"body.{n}." for n in (0, 1, 2, 3, 4))}


@pytest.mark.parametrize("first", TRAIN_FROM)
@pytest.mark.parametrize("parts", [1, 2])
def test_modules_before_it_stay_to_the_bit(place: Workspace, first: str, parts: int) -> None:
    usual, mode = ({"batch_norm": "joint"}, {}) if parts == 1 else ({}, {"grad_accum": parts})
    run = adapted(place, train_from=first, weight_decay=0.1, **usual, **mode)
    before, after = load_file(place.root / "weights.safetensors"), load_file(run.checkpoint)
    changed = {
        name for name, value in after.items() if name.startswith("body.") and not torch.equal(value, before[name])
    }
    assert changed
    assert not [name for name in changed if name.startswith(TRAIN_FROM[first])]
    learnt = {name.split(".")[1] for name in changed if name.endswith(".weight")}
    expected = {number for number in ("0", "1", "2", "3", "4", "8", "9") if f"body.{number}." not in TRAIN_FROM[first]}
    assert learnt == expected
    assert run.name != adapted(place, **usual, **mode).name


def test_the_whole_backward_pass_of_what_stays_is_spared(place: Workspace) -> None:
    network = load_checkpoint(place.root / "weights.safetensors")[0]
    network.train_from("8")
    network.train()
    seen: list[bool] = []
    network.body[6].register_forward_hook(lambda _, given, output: seen.append(output.requires_grad))
    assert network(torch.zeros(2, 3, 32, 32))["embedding"].requires_grad
    assert seen == [False]
    assert not network.body[1].training
    assert network.body[9].training


def test_what_cannot_be_trained_from_is_refused(place: Workspace) -> None:
    with pytest.raises(UsageError, match="there is no module '88' to train from"):
        planned(place, train_from="88")
    with pytest.raises(UsageError, match="keeps all that could change the layer 3"):
        planned(place, train_from="8", layers="3,embedding")
    with pytest.raises(UsageError, match="there is no module 'fc9'"):
        plan_pretrain(PretrainConfig(source="casia", model="vggface-mini", train_from="fc9"), place)
    plan_pretrain(PretrainConfig(source="casia", model="vggface-mini", train_from="fc7"), place)


def means_in(part: int, parts: int, root: Path) -> None:
    """One of several processes: rows of a replicated and of a sharded classifier."""
    folder = read_dataset(root / "aligned" / "casia")
    labels = np.array([int(name.removeprefix("person")) for name in folder.names])
    for sharded in (False, True):
        torch.manual_seed(3)
        own = shard_range(4, part, parts) if sharded else None
        network = Backbone(normalised.body(), normalised.NAME, normalised.ENTRY, 4, head="cosface", local_classes=own)
        with ThreadPoolExecutor(1) as pool:
            set_class_means(network, FaceStore(folder, 36, pool), labels)
        save_file({"weight": network.classifier.weight.detach()}, root / f"{parts}-{part}-{sharded}.safetensors")


def means_together(part: int, parts: int, root: Path) -> None:
    with joined(part, parts, root):
        means_in(part, parts, root)


def test_several_processes_find_the_same_rows(place: Workspace) -> None:
    means_in(0, 1, place.root)
    run_together(means_together, 3, place.root)

    def rows(parts: int, part: int, sharded: bool) -> torch.Tensor:
        return load_file(place.root / f"{parts}-{part}-{sharded}.safetensors")["weight"]

    whole = rows(1, 0, False)
    for part in range(3):
        torch.testing.assert_close(rows(3, part, False), whole)
    torch.testing.assert_close(torch.cat([rows(3, part, True) for part in range(3)]), whole)
