from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import vgg

from facedan_cli.errors import FacedanError
from facedan_cli.models import weights
from facedan_cli.models.vggface import SPECS, Spec, VGGFace
from facedan_cli.models.weights import Card, build, load_checkpoint, load_public_weights, read_card, save_checkpoint

# At 224 pixels torchvision's adaptive pooling before fc6 does nothing, as in VGG-Face.
SMALL = Spec(widths=(4, 4, 8, 8, 8), hidden=16, image_size=250, crop=224)
CARD = Card("small", ("ann", "bob", "Zoë"), "pretrain", "pretrain-casia-00000000", {"lr": 1e-4, "init": None})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SPECS", {**SPECS, "small": SMALL})


@pytest.fixture
def network() -> VGGFace:
    torch.manual_seed(0)
    return build("small", 3)


def equal(one: VGGFace, other: VGGFace) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def torchvision_vgg16(widths: tuple[int, ...], hidden: int) -> vgg.VGG:
    """torchvision's own VGG-16, narrower, with random weights."""
    depths: list[str | int] = []
    for width, depth in zip(widths, (2, 2, 3, 3, 3), strict=True):
        depths += [width] * depth + ["M"]
    with torch.device("meta"):  # its 411 MB of fc6 are not wanted
        reference = vgg.VGG(vgg.make_layers(depths), init_weights=False)
    reference.classifier[0] = nn.Linear(widths[-1] * 49, hidden)
    reference.classifier[3] = nn.Linear(hidden, hidden)
    reference.classifier[6] = nn.Linear(hidden, 3)
    reference = reference.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(1)
    for value in reference.parameters():
        nn.init.normal_(value, std=(2 / max(1, value[0].numel())) ** 0.5, generator=generator)
    return reference


def test_a_checkpoint_gives_back_the_network_and_its_card(network: VGGFace, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, CARD)
    loaded, card = load_checkpoint(path)
    assert card == CARD == read_card(path)
    assert equal(loaded, network)
    assert not loaded.training
    assert sorted(load_file(path)) == sorted(network.state_dict())


def test_a_checkpoint_can_be_read_by_whoever_reads_the_directory(network: VGGFace, tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    save_checkpoint(tmp_path / "model.safetensors", network, CARD)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_is_no_checkpoint_is_refused(network: VGGFace, tmp_path: Path) -> None:
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


def test_a_model_of_another_version_is_named(network: VGGFace, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, replace(CARD, model="vggface-maxi"))
    with pytest.raises(FacedanError, match="holds an unknown model 'vggface-maxi'") as caught:
        read_card(path)
    assert caught.value.fix == "did you mean vggface-mini or vggface?"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_weights_give_torchvisions_features(network: VGGFace, tmp_path: Path, suffix: str) -> None:
    reference = torchvision_vgg16(SMALL.widths, SMALL.hidden)
    path = tmp_path / f"vgg16{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(reference.state_dict(), path)
    classifier = network.fc8.weight.clone()
    assert load_public_weights(path, network) == "torchvision"
    assert torch.equal(network.fc8.weight, classifier)
    images = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(2)).float()
    with torch.no_grad():
        features, _ = network.eval()(images)
        pooled = reference.features(images - torch.tensor(SMALL.mean)[:, None, None]).flatten(1)
        fc6 = reference.classifier[:2](pooled)
        fc7 = reference.classifier[:5](pooled)
    for found, expected in ((features["fc6"], fc6), (features["fc7"], fc7)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert expected.std() > 1e-2


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_our_own_names_are_read_through_the_usual_wrappings(
    network: VGGFace, tmp_path: Path, prefix: str, wrap: Any
) -> None:
    torch.manual_seed(1)
    other = build("small", 7)  # of other people: its classifier is not taken
    torch.save(wrap({f"{prefix}{key}": value for key, value in other.state_dict().items()}), tmp_path / "w.pth")
    assert load_public_weights(tmp_path / "w.pth", network) == "facedan"
    for key, value in network.state_dict().items():
        assert key.startswith("fc8.") or torch.equal(value, other.state_dict()[key])


def test_a_checkpoint_of_ours_is_a_start_too(network: VGGFace, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.safetensors", network, CARD)
    torch.manual_seed(1)
    other = build("small", 3)
    assert load_public_weights(tmp_path / "model.safetensors", other) == "facedan"
    assert torch.equal(other.fc6.weight, network.fc6.weight)


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_code_in_a_file_is_refused_and_not_run(network: VGGFace, tmp_path: Path, save: Any) -> None:
    save({"state_dict": Malicious(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(FacedanError, match="opening it would run code"):
        load_public_weights(tmp_path / "w.pth", network)
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_network_is_refused(network: VGGFace, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "w.pth")
    with pytest.raises(FacedanError, match="is not a plain state dict"):
        load_public_weights(tmp_path / "w.pth", network)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is text\n",
        b"\x89PNG\r\n\x1a\n",
        b"PK\x03\x04cut",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"x" * 300,
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_are_no_weights_is_refused(network: VGGFace, tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(FacedanError, match=r"cannot be read as weights"):
        load_public_weights(path, network)


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {0: torch.zeros(2)}])
def test_what_is_no_state_dict_is_refused(network: VGGFace, tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(FacedanError, match="is not a state dict"):
        load_public_weights(tmp_path / "w.pth", network)


def test_tensors_that_do_not_fit_are_named_and_nothing_is_changed(network: VGGFace, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = dict(before)
    state["fc6.weight"] = torch.zeros(16, 5)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(FacedanError, match=r"fc6\.weight \(16, 5\), not \(16, 392\)"):
        load_public_weights(tmp_path / "wrong.pth", network)
    del state["conv3_2.bias"]
    torch.save(state, tmp_path / "missing.pth")
    with pytest.raises(FacedanError, match=r"it lacks conv3_2\.bias and has conv1_1\.bias, .* more"):
        load_public_weights(tmp_path / "missing.pth", network)
    with pytest.raises(FacedanError, match="there are no weights at"):
        load_public_weights(tmp_path / "none.pth", network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
