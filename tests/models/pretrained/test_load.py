from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import layouts
import numpy as np
import pytest
import torch
from damage import peak
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import vgg

from facedan_cli.errors import FacedanError
from facedan_cli.models.checkpoint import ModelCard, save_checkpoint
from facedan_cli.models.pretrained.load import PublicWeights, load_public_weights
from facedan_cli.models.vggface import Spec, VGGFace
from facedan_cli.workspace import sha256_file

SMALL = Spec(widths=(4, 4, 8, 8, 8), hidden=16, image_size=250, crop=224)
WEIGHTS = layouts.random_weights(SMALL.widths, SMALL.hidden, identities=3)
PICTURES = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(2)).double()  # RGB
MEANS = (129.1863, 104.7624, 93.5940)  # of R, G and B
LICENCE = "CC BY-NC 4.0"

SAME = {name: name for name in WEIGHTS}
UNDERSCORED = {name: name.replace("conv", "conv_") for name in WEIGHTS}
GROUPED = {name: f"{'fc' if name.startswith('fc') else 'features'}.{new}" for name, new in UNDERSCORED.items()}


@pytest.fixture
def network() -> VGGFace:
    torch.manual_seed(0)
    return VGGFace(SMALL, 5)


def torchvision_names() -> dict[str, str]:
    """Where torchvision's own VGG-16 has its convolutions and its linear layers."""
    with torch.device("meta"):
        reference = vgg.vgg16()
    places = [
        name for name, module in reference.named_modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    return dict(zip(WEIGHTS, places, strict=True))


def reference(order: str) -> dict[str, torch.Tensor]:
    """VGG-16 by its definition, on images whose channels are put into the order that the weights expect."""
    channels = [0, 1, 2] if order == "rgb" else [2, 1, 0]
    x = (PICTURES - torch.tensor(MEANS, dtype=torch.float64)[:, None, None])[:, channels]
    features = {}
    for name, (weight, bias) in WEIGHTS.items():
        if name == "fc8":
            break
        padding = 1 if name.startswith("conv") else 0
        x = F.relu(F.conv2d(x, torch.tensor(weight).double(), torch.tensor(bias).double(), padding=padding))
        if name in {"conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"}:
            x = F.max_pool2d(x, 2)
        features[name] = x.flatten(1)
    return features


EXPECTED = {order: reference(order) for order in ("rgb", "bgr")}


def assert_computes_as_published(network: VGGFace, order: str) -> None:
    with torch.no_grad():
        features = network.double().eval()(PICTURES)
    for layer in ("fc6", "fc7"):
        torch.testing.assert_close(features[layer], EXPECTED[order][layer], rtol=1e-5, atol=1e-5)
    other = EXPECTED["rgb" if order == "bgr" else "bgr"]["fc7"]
    assert (features["fc7"] - other).abs().max() > 0.1  # the order matters


def pth(rename: dict[str, str], *, flat: bool = True) -> Callable[[Path], None]:
    return lambda path: torch.save(layouts.state_dict(WEIGHTS, rename, flat=flat), path)


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def saved_by(writer: Callable[..., None], **style: bool) -> Callable[[Path], None]:
    return lambda path: writer(path, WEIGHTS, **style)


# name of the file → how it is written, the format, the order of channels, and whether that is a guess
FORMATS: dict[str, tuple[Callable[[Path], None], str, str, bool]] = {
    "vgg_face_dag.pth": (pth(SAME), "vgg_face_dag", "rgb", False),
    "without_fc8.pth": (
        pth({**SAME, "fc8": "scores"}),
        "names of vgg_face_dag",
        "rgb",
        True,
    ),
    "deepface.pth": (pth(SAME, flat=False), "deepface", "bgr", True),
    "vgg-face.pytorch.pth": (pth(UNDERSCORED), "vgg-face.pytorch", "bgr", False),
    "PyVGGFace.pth": (pth(GROUPED), "vgg-face.pytorch", "bgr", False),
    "module.pth": (pth({name: f"module.{name}" for name in WEIGHTS}), "vgg_face_dag", "rgb", False),
    "model.pth": (pth({name: f"model.{name}" for name in WEIGHTS}), "vgg_face_dag", "rgb", False),
    "VGG_FACE.t7": (written(layouts.torch7(WEIGHTS)), "torch7", "bgr", False),
    "matrices.t7": (written(layouts.torch7(WEIGHTS, matrices=True)), "torch7", "bgr", False),
    "double.T7": (written(layouts.torch7(WEIGHTS, double=True)), "torch7", "bgr", False),
    "old.caffemodel": (written(layouts.caffemodel(WEIGHTS, "old")), "caffe", "bgr", False),
    "new.caffemodel": (written(layouts.caffemodel(WEIGHTS, "new")), "caffe", "bgr", False),
    "double.caffemodel": (written(layouts.caffemodel(WEIGHTS, "double")), "caffe", "bgr", False),
    "unpacked.caffemodel": (written(layouts.caffemodel(WEIGHTS, "unpacked")), "caffe", "bgr", False),
    **{
        f"v5-{compressed}-{cell}-{net}.mat": (
            saved_by(layouts.matconvnet, compressed=compressed, in_one_cell=cell, in_net=net),
            "matconvnet",
            "rgb",
            False,
        )
        for compressed, cell, net in ((True, True, False), (False, False, False), (True, True, True))
    },
    "v7.3.mat": (saved_by(layouts.matconvnet_7_3, in_one_cell=True), "matconvnet", "rgb", False),
    "v7.3-fields.mat": (saved_by(layouts.matconvnet_7_3, in_one_cell=False), "matconvnet", "rgb", False),
    "rcmalli.h5": (saved_by(layouts.keras, dense=True, named=True, whole=False), "keras-vggface", "bgr", False),
    "whole.hdf5": (saved_by(layouts.keras, dense=True, named=True, whole=True), "keras-vggface", "bgr", False),
    "deepface.h5": (saved_by(layouts.keras, dense=False, named=False, whole=False), "keras", "bgr", True),
    "sequential.h5": (saved_by(layouts.keras, dense=True, named=False, whole=True), "keras", "bgr", True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_published_format_computes_what_its_weights_mean(network: VGGFace, tmp_path: Path, name: str) -> None:
    write, form, order, guessed = FORMATS[name]
    path = tmp_path / name
    write(path)
    identities = network.classifier.weight.clone()
    loaded = load_public_weights(path, network)
    assert loaded == PublicWeights(form, sha256_file(path), order, loaded.remarks, loaded.warnings)
    assert len(loaded.remarks) == 1
    assert LICENCE in loaded.remarks[0]
    assert len(loaded.warnings) == guessed
    assert all(f"taken as {order.upper()}" in warning for warning in loaded.warnings)
    assert torch.equal(network.classifier.weight, identities)
    assert_computes_as_published(network, order)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_names_are_read_with_a_warning(network: VGGFace, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vgg16{suffix}"
    state = layouts.state_dict(WEIGHTS, torchvision_names(), flat=True)
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    loaded = load_public_weights(path, network)
    assert (loaded.format, loaded.channels, loaded.remarks) == ("torchvision", "rgb", ())
    assert "ImageNet's weights expect others" in loaded.warnings[0]
    assert_computes_as_published(network, "rgb")


@pytest.mark.parametrize("name", ["vgg_face_dag.pth", "deepface.h5", "VGG_FACE.t7"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_order_of_the_channels_can_be_said(network: VGGFace, tmp_path: Path, name: str, channels: str) -> None:
    FORMATS[name][0](tmp_path / name)
    loaded = load_public_weights(tmp_path / name, network, channels=channels)
    assert (loaded.channels, loaded.warnings) == (channels, ())
    assert loaded.record() == {"form": loaded.format, "sha256": loaded.sha256, "channels": channels}
    assert_computes_as_published(network, channels)


def test_another_order_than_those_two_is_no_order(network: VGGFace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channels must be one of"):
        load_public_weights(tmp_path / "w.pth", network, channels="gbr")


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_our_own_names_are_read_through_the_usual_wrappings(
    network: VGGFace, tmp_path: Path, prefix: str, wrap: Any
) -> None:
    other = VGGFace(SMALL, 7)  # of other identities: its classifier is not taken
    torch.save(wrap({f"{prefix}{key}": value for key, value in other.state_dict().items()}), tmp_path / "w.pth")
    loaded = load_public_weights(tmp_path / "w.pth", network)
    assert (loaded.format, loaded.channels, loaded.remarks, loaded.warnings) == ("facedan", "rgb", (), ())
    for key, value in network.state_dict().items():
        assert key.startswith("classifier.") or torch.equal(value, other.state_dict()[key])


def test_a_checkpoint_of_ours_is_a_start_too(network: VGGFace, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.safetensors", network, ModelCard("vggface", ("a",) * 5, "pretrain", "run", {}))
    other = VGGFace(SMALL, 5)
    assert load_public_weights(tmp_path / "model.safetensors", other).format == "facedan"
    assert torch.equal(other.fc6.weight, network.fc6.weight)
    assert not torch.equal(other.classifier.weight, network.classifier.weight)


def test_an_export_of_ours_has_no_classifier_and_is_known_all_the_same(network: VGGFace, tmp_path: Path) -> None:
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier.")}
    save_file(state, tmp_path / "w.safetensors", metadata={"facedan": "{}"})
    loaded = load_public_weights(tmp_path / "w.safetensors", VGGFace(SMALL, 2))
    assert (loaded.format, loaded.warnings) == ("facedan", ())
    save_file(state, tmp_path / "foreign.safetensors")
    assert load_public_weights(tmp_path / "foreign.safetensors", network).format == "names of vgg_face_dag"


# What is refused


class Malicious:
    """Unpickling it makes a directory."""

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


@pytest.mark.parametrize("kind", [6, 7, 8])
def test_lua_functions_are_refused(network: VGGFace, tmp_path: Path, kind: int) -> None:
    writer = layouts.Torch7Writer()
    writer.reference(3)
    writer.int(1)
    writer.value("hook")
    writer.reference(kind)
    (tmp_path / "w.t7").write_bytes(writer.content + bytes(100))
    with pytest.raises(FacedanError, match="Lua functions"):
        load_public_weights(tmp_path / "w.t7", network)


FOREIGN = [
    b"",
    b"hello, this is text\n",
    b"\x89PNG\r\n\x1a\n",
    b"PK\x03\x04cut",
    b"\xff\xd8\xff\xe0\x00\x10JFIF",
    b"x" * 300,
]
SUFFIXES = [".pth", ".safetensors", ".t7", ".caffemodel", ".mat", ".h5"]


@pytest.mark.parametrize("content", [*FOREIGN, b"MATLAB 7.3 MAT-file", b"\x89HDF\r\n\x1a\n" + bytes(600)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_are_no_weights_is_refused(network: VGGFace, tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(FacedanError, match=r"cannot be read|does not fit"):
        load_public_weights(path, network)


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.startswith(("unpacked", "double"))])
def test_a_file_that_was_cut_is_refused_and_changes_nothing(network: VGGFace, tmp_path: Path, name: str) -> None:
    FORMATS[name][0](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    cut = tmp_path / f"cut{Path(name).suffix}"
    for length in {0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) * 4 // 5}:
        cut.write_bytes(whole[:length])
        with pytest.raises(FacedanError):
            load_public_weights(cut, network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {0: torch.zeros(2)}, {"a": torch.zeros(2).to_sparse()}])
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
    with pytest.raises(FacedanError, match=r"conv3_2\.bias .* classifier\.bias"):
        load_public_weights(tmp_path / "missing.pth", network)
    with pytest.raises(FacedanError, match="there are no weights at"):
        load_public_weights(tmp_path / "none.pth", network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_layout_is_not_taken_for_another(network: VGGFace, tmp_path: Path) -> None:
    """fc6 with its channels last has as many values, but is not the same."""
    state = layouts.state_dict(WEIGHTS, SAME, flat=False)
    state["fc6.weight"] = state["fc6.weight"].permute(0, 2, 3, 1).contiguous()
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(FacedanError, match=r"fc6\.weight \(16, 7, 7, 8\), not \(16, 392\)"):
        load_public_weights(tmp_path / "w.pth", network)


def test_a_network_without_its_last_layers_does_not_fit(network: VGGFace, tmp_path: Path) -> None:
    convolutions = {name: pair for name, pair in WEIGHTS.items() if name.startswith("conv")}
    layouts.keras(tmp_path / "notop.h5", convolutions, dense=True, named=True, whole=False)
    (tmp_path / "notop.t7").write_bytes(layouts.torch7(convolutions))
    for name in ("notop.h5", "notop.t7"):
        with pytest.raises(FacedanError, match=r"it lacks .* and has "):
            load_public_weights(tmp_path / name, network)


def test_without_h5py_the_message_says_what_to_install(
    network: VGGFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FORMATS["rcmalli.h5"][0](tmp_path / "w.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(FacedanError, match="for which h5py is missing") as caught:
        load_public_weights(tmp_path / "w.h5", network)
    assert caught.value.fix == "pip install 'facedan[keras]'"


def test_sizes_in_hdf5_are_not_believed(network: VGGFace, tmp_path: Path) -> None:
    """An array of which no value is stored takes no room in a file."""
    for path, group in ((tmp_path / "w.h5", ""), (tmp_path / "whole.h5", "model_weights/")):
        with h5py.File(path, "w") as file:
            for layer in (f"conv{index}" for index in range(64)):
                for name, shape in (("kernel:0", (1 << 11, 1 << 12)), ("bias:0", (1 << 12,))):
                    file.create_dataset(f"{group}{layer}/{name}", shape, np.float32, chunks=True)
                file[f"{group}{layer}"].attrs["weight_names"] = ["kernel:0", "bias:0"]
            file[group or "/"].attrs["layer_names"] = [f"conv{index}" for index in range(64)]
        assert path.stat().st_size < 1_000_000
        assert peak(lambda path=path: load_public_weights(path, network)) < 10_000_000


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_deflated_archive_is_refused_before_it_is_unpacked(network: VGGFace, tmp_path: Path, suffix: str) -> None:
    plain, path = tmp_path / "plain.pth", tmp_path / f"bomb{suffix}"
    torch.save({"conv1_1.weight": torch.zeros(1 << 18)}, plain)
    with zipfile.ZipFile(plain) as stored, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as deflated:
        for entry in stored.namelist():
            deflated.writestr(entry, stored.read(entry))
    assert peak(lambda: load_public_weights(path, network)) < 500_000
    with pytest.raises(FacedanError, match="compressed"):
        load_public_weights(path, network)


def test_arrays_of_hdf5_that_were_never_written_are_refused(network: VGGFace, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    layouts.keras(path, WEIGHTS, dense=False, named=True, whole=False)
    with h5py.File(path, "r+") as file:
        layer = file["fc6"]
        name = next(iter(layer.attrs["weight_names"]))
        del layer[name]
        layer.create_dataset(name, (224, 224, 64, 64), "f4", chunks=True)
    assert peak(lambda: load_public_weights(path, network)) < 20_000_000
    with pytest.raises(FacedanError, match="are stored"):
        load_public_weights(path, network)


def test_arrays_of_hdf5_that_lie_in_other_files_are_refused(network: VGGFace, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    layouts.keras(path, WEIGHTS, dense=False, named=True, whole=False)
    (tmp_path / "secret").write_bytes(bytes(range(256)))
    with h5py.File(path, "r+") as file:
        layer = file["fc6"]
        name = list(layer.attrs["weight_names"])[1]
        shape = layer[name].shape
        del layer[name]
        layer.create_dataset(name, shape, "f4", external=[(str(tmp_path / "secret"), 0, 256)])
    with pytest.raises(FacedanError, match="other files"):
        load_public_weights(path, network)
