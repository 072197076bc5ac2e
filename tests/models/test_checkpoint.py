from __future__ import annotations

import json
import resource
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from facedan_cli.config import models
from facedan_cli.errors import FacedanError
from facedan_cli.models.checkpoint import ModelCard, build, load_checkpoint, read_card, save_checkpoint, save_tensors
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.vggface import Spec, VGGFace

SMALL = Spec(widths=(4, 4, 8, 8, 8), hidden=16, image_size=36, crop=32)
CARD = ModelCard("small", ("ann", "bob", "Zoë"), "pretrain", "pretrain-casia-00000000", {"lr": 1e-4, "init": None})


def make_small(classes: int, *, image_size: int, crop: int, **head: Any) -> VGGFace:
    return VGGFace(SMALL, classes, **head)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(models.NETWORKS["vggface-mini"], constructor=f"{__name__}:make_small", image_size=36, crop=32)
    monkeypatch.setitem(models.NETWORKS, "small", entry)


@pytest.fixture
def network() -> FaceNetwork:
    torch.manual_seed(0)
    return build("small", 3)


def equal(one: FaceNetwork, other: FaceNetwork) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_checkpoint_gives_back_the_network_and_its_card(network: FaceNetwork, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, CARD)
    loaded, card = load_checkpoint(path)
    assert card == CARD == read_card(path)
    assert equal(loaded, network)
    assert not loaded.training
    assert sorted(load_file(path)) == sorted(network.state_dict())


def test_a_checkpoint_keeps_the_moments_of_the_norms(tmp_path: Path) -> None:
    """Of adaface, which have no row for each identity."""
    network = build("small", 3, head="adaface")
    network.classifier.observe(torch.tensor([1.0, 2.0, 5.0]))
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, replace(CARD, config={"head": "adaface", "margin": 0.4, "scale": 64.0}))
    assert equal(load_checkpoint(path)[0], network)


def test_a_checkpoint_says_what_published_weights_it_came_from(network: FaceNetwork, tmp_path: Path) -> None:
    card = replace(CARD, init={"form": "torch7", "sha256": "0" * 64, "channels": "bgr"})
    save_checkpoint(tmp_path / "model.safetensors", network, card)
    assert read_card(tmp_path / "model.safetensors") == card
    fields = {key: value for key, value in asdict(CARD).items() if key != "init"}  # as written before there was `init`
    save_file({"a": torch.zeros(2)}, tmp_path / "older", metadata={"facedan": json.dumps(fields)})
    assert read_card(tmp_path / "older") == CARD


def test_a_checkpoint_of_another_architecture_is_refused(network: FaceNetwork, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.safetensors", network, replace(CARD, model="vggface-mini"))
    with pytest.raises(FacedanError, match="other tensors than vggface-mini"):
        load_checkpoint(tmp_path / "model.safetensors")


def test_a_checkpoint_can_be_read_by_whoever_reads_the_directory(network: FaceNetwork, tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    save_checkpoint(tmp_path / "model.safetensors", network, CARD)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_is_no_checkpoint_is_refused(network: FaceNetwork, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "whole", network, CARD)
    whole = (tmp_path / "whole").read_bytes()
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    contents = {
        "empty": b"",
        "text": b"not a checkpoint",
        "cut": whole[:-1],
        "head": whole[:100],
        "noise": np.random.default_rng(0).bytes(500),
        "foreign": (tmp_path / "foreign").read_bytes(),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FacedanError, match=f"{name} is not a facedan checkpoint"):
            read_card(path)
    with pytest.raises(FacedanError, match="there is no checkpoint"):
        read_card(tmp_path / "missing")


def test_a_model_of_another_version_is_named(network: FaceNetwork, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, replace(CARD, model="vggface-maxi"))
    with pytest.raises(FacedanError, match="holds an unknown model 'vggface-maxi'") as caught:
        read_card(path)
    assert caught.value.fix == "did you mean vggface-mini or vggface?"


def rewritten(path: Path, **card: object) -> None:
    """Give a checkpoint another card, its tensors as they are."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    fields = json.loads(header["__metadata__"]["facedan"]) | card
    header["__metadata__"]["facedan"] = json.dumps(fields)
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])


def test_identities_that_a_card_claims_are_counted_before_there_is_a_network(
    network: FaceNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, CARD)
    rewritten(path, identities=[""] * 300_000)  # as many rows would take 19 MB

    def load() -> None:
        with pytest.raises(FacedanError, match="300000 identities") as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # the names themselves, KB


def test_a_claim_with_tensors_of_no_bytes_is_refused(network: FaceNetwork, tmp_path: Path) -> None:
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    tensors |= {"classifier.weight": torch.zeros(50_000, 0), "classifier.bias": torch.zeros(50_000)}
    save_tensors(tmp_path / "x", tensors, replace(CARD, identities=("",) * 50_000))
    with pytest.raises(FacedanError, match="holds other tensors"):
        load_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    "card",
    [
        {"identities": 5},
        {"identities": "abc"},
        {"identities": [["a"]]},
        {"config": None},
        {"config": {"head": ["arcface"]}},
        {"config": {"head": "nohead"}},
        {"config": {"head": "arcface", "margin": "x"}},
        {"model": None},
        {"init": 5},
        {"unknown": 1},
    ],
)
def test_an_odd_card_is_named_with_its_file(network: FaceNetwork, tmp_path: Path, card: dict[str, object]) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, CARD)
    rewritten(path, **card)
    with pytest.raises(FacedanError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("margin", [-1.0, 1e300])
def test_a_head_that_cannot_be_is_told_of(network: FaceNetwork, tmp_path: Path, margin: float) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, CARD)
    rewritten(path, config={"head": "arcface", "margin": margin})
    with pytest.raises(FacedanError, match=r"the card of .* is damaged"):
        load_checkpoint(path)
