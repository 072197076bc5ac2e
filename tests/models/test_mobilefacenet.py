from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from functional import State, assert_same, conv, norm, prelu, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.alignment.detector import Detector, choose
from facedan_cli.data.images import read_image
from facedan_cli.data.templates import similarity, warp
from facedan_cli.models.mobilefacenet import mbf, mobilefacenet

ARCFACE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]


def foamliu(state: State, x: Tensor) -> Tensor:
    """The network as foamliu's mobilefacenet.py has it, from a state dict."""

    def relu6(name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        padding = state[f"{name}.0.weight"].shape[-1] // 2
        return norm(state, f"{name}.1", conv(state, f"{name}.0", x, stride, padding, groups)).clamp(0, 6)

    x = relu6("conv1", x, stride=2)
    x = norm(state, "dw_conv.bn1", conv(state, "dw_conv.depthwise", x, padding=1, groups=64)).relu()
    x = norm(state, "dw_conv.bn2", conv(state, "dw_conv.pointwise", x)).relu()
    for number in range(15):
        inner = f"features.{number}.conv"
        y = relu6(f"{inner}.0", x)
        y = relu6(f"{inner}.1", y, stride=2 if number in {0, 5, 12} else 1, groups=y.shape[1])
        y = norm(state, f"{inner}.3", conv(state, f"{inner}.2", y))
        x = x + y if x.shape == y.shape else y
    x = norm(state, "gdconv.bn", conv(state, "gdconv.depthwise", relu6("conv2", x), groups=512))
    return norm(state, "bn", conv(state, "conv3", x))[:, :, 0, 0]


def insightface(state: State, x: Tensor) -> Tensor:
    """The network as arcface_torch's mobilefacenet.py has it, from a state dict."""

    def linear(name: str, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        return norm(state, f"{name}.layers.1", conv(state, f"{name}.layers.0", x, stride, padding, groups))

    def active(name: str, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        return prelu(state, f"{name}.layers.2", linear(name, x, stride, padding, groups))

    def depthwise(name: str, x: Tensor, stride: int) -> Tensor:
        y = active(f"{name}.layers.0", x)
        y = active(f"{name}.layers.1", y, stride, padding=1, groups=y.shape[1])
        return linear(f"{name}.layers.2", y)

    x = active("layers.1", active("layers.0", x, stride=2, padding=1), padding=1, groups=64)
    for place, blocks in ((2, 4), (4, 6), (6, 2)):
        x = depthwise(f"layers.{place}", x, stride=2)
        for block in range(blocks):
            x = x + depthwise(f"layers.{place + 1}.layers.{block}", x, stride=1)
    x = linear("features.layers.0", active("conv_sep", x), groups=512).flatten(1)
    return norm(state, "features.layers.3", F.linear(x, state["features.layers.2.weight"]))


@pytest.mark.parametrize(
    ("make", "published", "parameters"), [(mobilefacenet, foamliu, 999_936), (mbf, insightface, 2_059_520)]
)
def test_it_computes_what_the_published_network_computes(
    make: Callable[[], nn.Module], published: Callable[[State, Tensor], Tensor], parameters: int
) -> None:
    network = make()
    state = randomise(network)
    images = torch.randn(2, 3, 112, 112, dtype=torch.float64)
    with torch.no_grad():
        assert_same(network(images), published(state, images))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def aligned(path: Path, detector: Detector) -> np.ndarray:
    """An image of LFW at 112×112 by ArcFace's five points."""
    image = read_image(path)
    face = choose(detector.detect([image])[0], image.shape[1], image.shape[0])
    return warp(image, similarity(face.points, ARCFACE), 112)


def test_the_published_file_tells_faces_of_lfw_apart(shared_data: Path) -> None:
    file = shared_data.parent / "weights" / "mobilefacenet.pt"
    if not file.is_file():
        pytest.skip("the published weights ../shared/weights/mobilefacenet.pt are not beside this checkout")
    network = mobilefacenet().eval()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    identities = sorted(path for path in (shared_data / "lfw").iterdir() if path.is_dir())[::100][:5]
    detector, subjects, faces = Detector(torch.device("cpu"), min_face=40), [], []
    for identity in identities:
        for path in sorted(identity.glob("*.jpg"))[:2]:
            subjects.append(identity.name)
            faces.append(aligned(path, detector))
    images = torch.tensor(np.stack(faces)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        embeddings = F.normalize(network((images - IMAGENET[0]) / IMAGENET[1]))
    similarities = (embeddings @ embeddings.T).tolist()
    genuine = [similarities[i][j] for i, j in combinations(range(10), 2) if subjects[i] == subjects[j]]
    impostor = [similarities[i][j] for i, j in combinations(range(10), 2) if subjects[i] != subjects[j]]
    assert len(genuine) == 5
    assert min(genuine) > 0.4 > max(impostor)
    assert abs(np.mean(impostor)) < 0.15
