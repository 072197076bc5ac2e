from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import dlib_layout
import numpy as np
import pytest
import torch
from damage import peak
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from facedan_cli.errors import FacedanError
from facedan_cli.models.dlib_resnet import dlib_resnet
from facedan_cli.models.pretrained.dlib_dat import MEAN, dlib_tensors
from facedan_cli.models.pretrained.formats import network_of


def random_state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(1, 0.1, tensor.shape).astype(np.float32) for name, tensor in dlib_resnet().state_dict().items()
    }


STATE = random_state()
WRITTEN = dlib_layout.written(STATE)


def assert_state(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.mark.parametrize("convolution", ["con_4", "con_5", "con_6"])
@pytest.mark.parametrize("version", [1, 2])
def test_what_was_written_is_read(version: int, convolution: str) -> None:
    assert_state(dlib_tensors(dlib_layout.written(STATE, version=version, convolution=convolution)), STATE)


def test_batch_normalisation_of_training_becomes_scales() -> None:
    rng = np.random.default_rng(1)
    state = {**STATE}
    for name in STATE:
        if "scale" in name and name.endswith("weight"):
            scale = name.removesuffix("weight")
            state[f"{scale}running_mean"] = rng.normal(0, 1, len(STATE[name])).astype(np.float32)
            state[f"{scale}running_var"] = rng.uniform(0.5, 2, len(STATE[name])).astype(np.float32)
    found = dlib_tensors(dlib_layout.written(state, trained=True))
    x = torch.randn(2, 32, 3, 3)
    mean, variance, weight, bias = (
        torch.tensor(state[f"scale1.{kind}"]) for kind in ("running_mean", "running_var", "weight", "bias")
    )
    scaled = x * torch.tensor(found["scale1.weight"])[:, None, None] + torch.tensor(found["scale1.bias"])[:, None, None]
    torch.testing.assert_close(scaled, F.batch_norm(x, mean, variance, weight, bias, eps=dlib_layout.EPSILON))
    rest = {name: value for name, value in found.items() if "scale" not in name}
    assert_state(rest, {name: value for name, value in STATE.items() if "scale" not in name})


def test_the_file_is_known_by_its_suffix_and_content(tmp_path: Path) -> None:
    (tmp_path / "w.dat").write_bytes(WRITTEN)
    assert network_of(tmp_path / "w.dat") == "dlib-resnet"
    (tmp_path / "w.dat").write_bytes(WRITTEN[:-1])
    with pytest.raises(FacedanError, match="it ends before"):
        network_of(tmp_path / "w.dat")


HEADER = WRITTEN.index(b"con_4") + 200


@given(
    at=st.one_of(
        st.integers(0, HEADER), st.integers(0, len(WRITTEN) - 1), st.integers(len(WRITTEN) - 300, len(WRITTEN))
    )
)
@settings(max_examples=20)
def test_a_file_that_is_cut_is_refused(at: int) -> None:
    if at < len(WRITTEN):
        with pytest.raises(ValueError, match="it ends before"):
            dlib_tensors(WRITTEN[:at])
    else:
        with pytest.raises(ValueError, match="it goes on"):
            dlib_tensors(WRITTEN + b"\x00")


@given(at=st.integers(0, HEADER), byte=st.integers(0, 255))
@settings(max_examples=20)
def test_a_wrong_byte_is_read_or_refused(at: int, byte: int) -> None:
    damaged = bytearray(WRITTEN)
    damaged[at] = byte
    try:
        found = dlib_tensors(bytes(damaged))
    except ValueError:
        return
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in STATE.items()}


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        dlib_tensors(content)


def replaced(old: bytes, new: bytes) -> bytes:
    assert old in WRITTEN
    return WRITTEN.replace(old, new, 1)


def integers(*values: int) -> bytes:
    writer = dlib_layout.DlibWriter()
    writer.integers(*values)
    return bytes(writer.content)


def text(text: str) -> bytes:
    return integers(len(text)) + text.encode()


def floats(*values: float) -> bytes:
    writer = dlib_layout.DlibWriter()
    writer.floats(*values)
    return bytes(writer.content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (replaced(text("loss_metric_2"), text("loss_mmod_")), "metric loss"),
        (replaced(text("input_rgb_image_sized"), text("input_grayscale_image")), "unknown input"),
        (replaced(floats(122.782), floats(0.5)), "expects images less"),
        (replaced(floats(122.782), integers(1, 32000)), "not finite"),
        (replaced(text("affine_"), text("bn_fc2")), "bn_fc2"),
        (replaced(text("relu_") + b"110", text("relu_2") + b"1110"), "fused"),
        (replaced(text("relu_") + b"110", text("relu_") + b"x10"), "neither 0 nor 1"),
        (replaced(integers(3, 3, 2, 2, 0, 0), integers(3, 3, 1, 1, 0, 0)), "strides"),
        (replaced(integers(2, 32 * 3 * 49 + 32, 1, 1, 1), integers(2, 1 << 40, 1, 1, 1)), "it ends before"),
        (replaced(integers(1, 32, 3, 7, 7), integers(1, 32, 3, 7, 9)), "says to have the shapes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_networks_are_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        dlib_tensors(content)
    assert peak(lambda: dlib_tensors(content)) < 1_000_000


def published() -> Path | None:
    """The file of the package face_recognition_models, where that is installed; it is not imported."""
    package = find_spec("face_recognition_models")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0], "models", "dlib_face_recognition_resnet_model_v1.dat")


# compute_face_descriptor of dlib 20.0.1 of the image of the test below: its first values, and its norm.
BY_DLIB = (-0.0549134, 0.1220007, 0.0636024, 0.0062207, -0.0601266, -0.0470814, -0.0833598, -0.0046009)
NORM_BY_DLIB = 1.3181019


def test_the_published_file_gives_what_dlib_gives() -> None:
    path = published()
    if path is None:
        pytest.skip("face_recognition_models, which has dlib's published weights, is not installed")
    network = dlib_resnet()
    network.load_state_dict({name: torch.tensor(value) for name, value in dlib_tensors(path.read_bytes()).items()})
    # An image that needs no file: gradients in three directions.
    y, x = np.mgrid[0:150, 0:150]
    image = np.stack([x, y, (x + y) // 2], -1).astype(np.uint8)
    normalised = (torch.tensor(image).permute(2, 0, 1)[None] - torch.tensor(MEAN)[:, None, None]) / 256
    with torch.no_grad():
        found = network(normalised)[0]
    torch.testing.assert_close(found[:8], torch.tensor(BY_DLIB), rtol=0, atol=1e-5)
    assert abs(found.norm().item() - NORM_BY_DLIB) < 1e-4
