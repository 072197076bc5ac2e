from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facedan_cli.config.models import NETWORKS as TABLE
from facedan_cli.errors import FacedanError
from facedan_cli.models.adaface_ir import ir18, ir50
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.dlib_resnet import dlib_resnet
from facedan_cli.models.iresnet import iresnet18
from facedan_cli.models.mobilefacenet import mbf, mobilefacenet
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained import backbone_formats
from facedan_cli.models.pretrained.formats import FORMATS, network_of
from facedan_cli.models.pretrained.load import load_public_weights

NETWORKS = {
    name: make
    for family in vars(backbone_formats).values()
    if isinstance(family, backbone_formats.Family)
    for name, make in family.networks.items()
}
WRAPPERS = ["", "module.", "backbone.", "model.", "encoder.", "net.", "module.model.net."]
State = dict[str, Tensor]


def on_meta(make: Callable[[], nn.Module]) -> State:
    with torch.device("meta"):
        return dict(make().state_dict())


def named(tensors: State) -> list[str]:
    """The networks that the rows for any network name, by those that recognise such tensors."""
    rows = [row for row in FORMATS if row.architecture is None and row.network and row.recognises(tensors)]
    return [name for row in rows if row.network and (name := row.network(tensors))]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_is_known_by_names_and_shapes(name: str) -> None:
    assert set(named(on_meta(NETWORKS[name]))) == {name}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("make", [iresnet18, ir18, mobilefacenet, mbf])
def test_wrappers_and_heads_do_not_count(wrapper: str, make: Callable[[], nn.Module]) -> None:
    plain = on_meta(make)
    heads = {
        "head.kernel": torch.empty(512, 10),
        "head.t": torch.empty(1),
        "kernel": torch.empty(512, 10),
        "weight": torch.empty(10, 512),
    }
    if wrapper:
        heads["fc.weight"] = torch.empty(10, 512)  # of a classifier beside the body
    tensors = heads | {wrapper + name: value for name, value in plain.items()}
    assert set(named(tensors)) == {make.__name__ if make is not ir18 else "adaface-ir18"}
    row = next(row for row in FORMATS if row.architecture is None and row.recognises(tensors))
    ours = row.as_ours(tensors, None)
    assert ours.keys() == {f"body.{name}" for name in plain}
    assert all(ours[f"body.{name}"] is value for name, value in plain.items())


def without_counts(tensors: State) -> State:
    return {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}


def with_squeeze_and_excitation(tensors: State) -> State:
    return tensors | {"layer1.0.se.fc1.weight": torch.empty(4, 64, 1, 1)}


def with_shorter_embeddings(tensors: State) -> State:
    return tensors | {"fc.weight": torch.empty(128, 25088), "fc.bias": torch.empty(128)}


def without_a_block(tensors: State) -> State:
    return {name: value for name, value in tensors.items() if not name.startswith("layer3.1.")}


def twice(tensors: State) -> State:
    return {f"{which}.{name}": value for which in ("model", "average") for name, value in tensors.items()}


@pytest.mark.parametrize(
    "change", [with_squeeze_and_excitation, with_shorter_embeddings, without_a_block, twice, lambda tensors: {}]
)
def test_other_networks_are_not_taken_for_those_of_the_table(change: Callable[[State], State]) -> None:
    assert named(change(on_meta(iresnet18))) == []


def test_weights_without_counts_of_batches_are_known() -> None:
    assert named(without_counts(on_meta(iresnet18))) == ["iresnet18"]


def test_a_scale_of_adafaces_last_normalisation_is_another_network() -> None:
    """As face.evoLVe's IR networks have it; left out, it would change what the network computes."""
    assert named(on_meta(ir50) | {"output_layer.4.weight": torch.empty(512)}) == []


@pytest.mark.parametrize("names", [("iresnet34", "iresnet18"), ("iresnet18", "iresnet34"), ("mobilefacenet", "mbf")])
def test_weights_of_another_network_do_not_fit(names: tuple[str, str], tmp_path: Path) -> None:
    file, network = names
    save_file(
        {name: torch.zeros(value.shape) for name, value in on_meta(NETWORKS[file]).items()}, tmp_path / "w.safetensors"
    )
    with torch.device("meta"):
        other = build(network, 3)
    with pytest.raises(FacedanError, match="does not fit") as caught:
        load_public_weights(tmp_path / "w.safetensors", other)
    assert f"--model {file}" in caught.value.fix


@pytest.mark.parametrize(
    ("wrapper", "suffix", "form", "channels"),
    [
        ("model.net.", ".safetensors", "cvlface", "rgb"),  # on the Hugging Face Hub
        ("net.", ".pt", "cvlface", "rgb"),
        ("model.", ".ckpt", "adaface", "bgr"),
        ("", ".pt", "names of adaface", "bgr"),
    ],
)
def test_adafaces_files_say_their_channels_by_their_names(
    wrapper: str, suffix: str, form: str, channels: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    published = ir18().state_dict()
    path, tensors = tmp_path / f"w{suffix}", {wrapper + name: value for name, value in published.items()}
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors | {"head.kernel": torch.zeros(512, 4)}, "epoch": 3}, path)
    assert network_of(path) == "adaface-ir18"
    network = build("adaface-ir18", 3)
    loaded = load_public_weights(path, network)
    assert (loaded.format, loaded.channels) == (form, channels)
    assert bool(loaded.warnings) == (form == "names of adaface")
    first = published.pop("input_layer.0.weight")
    ours = network.get_submodule("body").state_dict()
    assert torch.equal(ours.pop("input_layer.0.weight"), first.flip(1) if channels == "bgr" else first)
    assert all(torch.equal(ours[name], value) for name, value in published.items())


def test_weights_of_insightface_say_their_licence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = mbf().state_dict()
    torch.save(published, tmp_path / "model.pt")
    network = build("mbf", 3)
    loaded = load_public_weights(tmp_path / "model.pt", network)
    assert (loaded.format, loaded.channels, loaded.warnings) == ("arcface_torch's mbf", "rgb", ())
    assert any("non-commercial" in remark for remark in loaded.remarks)
    assert all(torch.equal(network.state_dict()[f"body.{name}"], value) for name, value in published.items())


def test_what_facedan_wrote_says_itself_what_it_is(tmp_path: Path) -> None:
    tensors = {f"body.{name}": value for name, value in mbf().state_dict().items()}
    save_file(tensors, tmp_path / "theirs.safetensors")
    save_file(tensors, tmp_path / "ours.safetensors", metadata={"facedan": "{}"})
    assert network_of(tmp_path / "theirs.safetensors") == "mbf"
    assert load_public_weights(tmp_path / "ours.safetensors", build("mbf", 3)).format == "facedan"


def test_the_published_mobilefacenet_is_known(shared_data: Path) -> None:
    file = shared_data.parent / "weights" / "mobilefacenet.pt"
    if not file.is_file():
        pytest.skip("the published weights ../shared/weights/mobilefacenet.pt are not beside this checkout")
    assert network_of(file) == "mobilefacenet"
    assert load_public_weights(file, build("mobilefacenet", 3)).format == "foamliu's MobileFaceNet"


def own_network() -> Backbone:
    torch.manual_seed(0)
    body = nn.Sequential(
        OrderedDict(stem=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), flat=nn.Flatten(), top=nn.Linear(4 * 36, 8))
    )
    entry = replace(TABLE["mbf"], body="mine:network", image_size=8, crop=8, length=8)
    return Backbone(body, "mine:network", entry, 3)


@pytest.mark.parametrize("wrapper", ["", "module.", "state_dict.model.", "body."])
def test_weights_of_ones_own_network_are_known_by_its_names(wrapper: str, tmp_path: Path) -> None:
    published = {name: torch.rand(value.shape) for name, value in own_network().body.state_dict().items()}
    tensors = {wrapper + name: value for name, value in published.items()} | {"head.weight": torch.zeros(9, 8)}
    torch.save(tensors, tmp_path / "w.pth")
    network = own_network()
    load_public_weights(tmp_path / "w.pth", network)
    assert torch.equal(network.body.state_dict()["top.weight"], published["top.weight"])
    assert torch.equal(network.body.state_dict()["norm.running_var"], published["norm.running_var"])
    torch.save(tensors | {f"{wrapper}top.extra": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(FacedanError, match=r"body\.top\.extra"):
        load_public_weights(tmp_path / "w.pth", network)


def test_a_file_of_no_network_of_the_table_says_so(tmp_path: Path) -> None:
    torch.save({"model": {"stem.weight": torch.zeros(3)}, "settings": Namespace(depth=3)}, tmp_path / "w.ckpt")
    with pytest.raises(FacedanError, match="no weights of a network that is recognised"):
        network_of(tmp_path / "w.ckpt")


def test_dlibs_network_is_no_mobile_one() -> None:
    assert named(on_meta(dlib_resnet)) == ["dlib-resnet"]
