"""Networks without a file of their own here: somebody's function, other packages', timm's and torchvision's."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from facedan_cli import own_networks
from facedan_cli.config import networks
from facedan_cli.config.models import NetworkEntry
from facedan_cli.config.networks import is_network, network_entry
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.checkpoint import ModelCard, layer_paths, load_checkpoint, save_checkpoint
from facedan_cli.models.network import WIDEST
from facedan_cli.models.networks import build

CODE = """
from torch import nn


def small():
    maps = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.PReLU(), nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(16, 8))


def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small()

        def forward(self, x):
            y = self.body(x)
            return y / y.norm(dim=1, keepdim=True), y.norm(dim=1)

    return Pair()


def broken():
    raise RuntimeError("no file")


def maps():
    return nn.Conv2d(3, 4, 3)


number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with networks, in the current directory, which the user has named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "mine_of_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine_of_test", raising=False)
    for name in ("small", "pair", "broken", "maps", "number", "missing"):
        own_networks.allow(f"mine_of_test:{name}")
    return "mine_of_test"


def images(height: int, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, height), generator=torch.Generator().manual_seed(1)).byte()


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_a_function_s_network_gets_normalised_images_in_its_order_of_channels(own: str, channels: str) -> None:
    settings = {"input": "40x32", "mean": "0.1,0.2,0.3", "std": "0.4", "channels": channels}
    network = build(f"{own}:small", 2, settings).eval()
    assert isinstance(network, Backbone)
    faces = images(40)
    middle = faces[..., 4:36].double() / 255
    if channels == "bgr":
        middle = middle[:, [2, 1, 0]]
    normalised = (middle - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.4
    with torch.no_grad():
        expected = copy.deepcopy(network.body).double()(normalised)
        found = network(faces)
    assert list(found) == ["embedding"]
    assert torch.allclose(found["embedding"].double(), expected, atol=1e-5)
    assert network.scores(found).shape == (3, 2)


def test_a_network_may_give_its_embedding_first_among_several_tensors(own: str) -> None:
    network = build(f"{own}:pair", 2, {"input": "32"}).eval()
    assert network(images(32))["embedding"].norm(dim=1).tolist() == pytest.approx([1, 1, 1])


@torch.no_grad()
def test_layers_are_dotted_paths_of_modules(own: str) -> None:
    network = build(f"{own}:small", 2, {"input": "32", "layers": "3,1"}).eval()
    assert network.layers == ("3", "1", "embedding")
    found = network(images(32))
    seen = network.body[0]((images(32).float() - 127.5) / 127.5)
    assert torch.allclose(found["1"], network.body[1](seen).flatten(1), atol=1e-5)
    assert found["3"].shape == (3, 16)
    again = copy.deepcopy(network)
    assert torch.equal(again(images(32))["3"], found["3"])
    with pytest.raises(UsageError, match="nowhere"):
        network.offer(["nowhere"])


def test_a_wide_map_is_averaged_and_a_wide_row_is_refused() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.flat = nn.Flatten()
            self.unused = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.flat(self.conv(x))[:, :5]

    entry = network_entry("somebody.networks:wide", {"input": "32"})
    network = Backbone(Wide(), "wide", entry, 2).eval()
    network.offer(["conv"])
    assert WIDEST < 4 * 32 * 32
    found = network(images(32))["conv"]
    assert torch.allclose(found, network.body.conv((images(32).float() - 127.5) / 127.5).mean((2, 3)), atol=1e-5)
    assert network(images(32, 0))["conv"].shape == (0, 4)
    network.offer(["flat"])
    with pytest.raises(UsageError, match="4,096 features"):
        network(images(32))
    other = Backbone(Wide(), "wide", entry, 2).eval()
    other.offer(["unused"])
    with pytest.raises(UsageError, match="takes no part"):
        other(images(32))


def test_the_parameters_above_the_convolutions_are_those_of_linear_layers(own: str) -> None:
    network = build(f"{own}:small", 2, {"input": "32"})
    names = {id(one): name for name, one in network.named_parameters()}
    assert {names[id(one)] for one in network.convolutions()} == {
        *("body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "body.2.weight")
    }


@pytest.mark.parametrize(
    ("function", "said"),
    [("broken", "no file"), ("maps", "no embeddings"), ("number", "no function"), ("missing", "cannot be imported")],
)
def test_a_function_that_gives_no_network_is_told_of(own: str, function: str, said: str) -> None:
    with pytest.raises(FacedanError, match=said):
        build(f"{own}:{function}", 2)


def test_no_file_makes_code_run_that_the_user_has_not_named(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings = f"{own}:small", {"input": "32", "mean": "0"}
    network = build(name, 2, settings)
    card = ModelCard(name, ("a", "b"), "pretrain", "run", {}, network=settings)
    save_checkpoint(tmp_path / "model.safetensors", network, card)
    loaded, found = load_checkpoint(tmp_path / "model.safetensors")
    assert found.network == settings
    assert torch.equal(loaded(images(32))["embedding"], network.eval()(images(32))["embedding"])
    assert "4" in layer_paths(found)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    with pytest.raises(FacedanError, match="not named"):
        load_checkpoint(tmp_path / "model.safetensors")
    own_networks.allow(name)
    load_checkpoint(tmp_path / "model.safetensors")
    (tmp_path / "elsewhere").mkdir()  # the same name with other code
    (tmp_path / "elsewhere" / "mine_of_test.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    monkeypatch.delitem(sys.modules, "mine_of_test")
    with pytest.raises(FacedanError, match="not named"):
        load_checkpoint(tmp_path / "model.safetensors")


class Point:
    """An entry point as importlib.metadata gives it."""

    dist = None
    group = networks.ENTRY_POINTS

    def __init__(self, name: str, value: str, loaded: object) -> None:
        self.name, self.value, self.loaded = name, value, loaded

    def load(self) -> object:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def test_other_packages_bring_networks_by_entry_points(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = network_entry(f"{own}:small", {"input": "32"})
    points = [
        Point("theirs", "their.package:ROW", row),
        Point("function", f"{own}:small", len),
        Point("odd", "odd:x", ImportError("no module odd")),
    ]
    monkeypatch.setattr(networks, "entry_points", lambda group: points if group == networks.ENTRY_POINTS else [])
    assert network_entry("theirs") is row
    assert isinstance(network_entry("function", {"input": "48"}), NetworkEntry)
    assert build("function", 2, {"input": "48"}).crop == 48
    assert is_network("theirs")
    assert not is_network("nobody's")
    with pytest.raises(FacedanError, match="no module odd"):
        network_entry("odd")
    with pytest.raises(UsageError, match="--input"):
        network_entry("theirs", {"input": "32"})
    with pytest.raises(UsageError) as raised:
        network_entry("their")
    assert "theirs" in raised.value.fix


def test_a_package_that_is_installed_brings_its_network(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site"
    (package / "theirs_of_test-1.0.dist-info").mkdir(parents=True)
    (package / "theirs_of_test.py").write_text(CODE)
    facts = package / "theirs_of_test-1.0.dist-info"
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-of-test\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{networks.ENTRY_POINTS}]\ntheir-net = theirs_of_test:small\n")
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))  # an installed package needs no other word
    assert is_network("their-net")
    assert build("their-net", 2, {"input": "32"}).eval()(images(32))["embedding"].shape == (3, 8)


@pytest.mark.parametrize(
    ("name", "length"),
    [("torchvision:resnet18", 512), ("torchvision:mobilenet_v3_small", 1024), ("torchvision:squeezenet1_1", 512)],
)
def test_torchvision_s_classifiers_are_backbones(name: str, length: int) -> None:
    network = build(name, 2, {"input": "64"}).eval()
    assert network(images(64, 2))["embedding"].shape == (2, length)


def test_timm_s_networks_are_backbones() -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    assert build("timm:resnet10t", 2, {"input": "64"}).eval()(images(64, 2))["embedding"].shape == (2, 512)
    vit = build("timm:vit_tiny_patch16_224", 2, {"input": "64"}).eval()
    vit.offer(["blocks.0"])
    assert {layer: x.shape for layer, x in vit(images(64, 2)).items()} == {"blocks.0": (2, 192), "embedding": (2, 192)}


@pytest.mark.parametrize("name", ["timm:hf-hub:somebody/net", "timm:", "torchvision:../x", "os.path", "nobody"])
def test_names_of_no_network_are_refused(name: str) -> None:
    with pytest.raises(FacedanError):
        build(name, 2)
