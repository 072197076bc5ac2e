from __future__ import annotations

import pytest
import torch

from facedan_cli.config.models import NETWORKS
from facedan_cli.models.networks import build
from facedan_cli.models.vggface import Spec, VGGFace

SMALL = Spec(widths=(4, 4, 8, 8, 8), hidden=16, image_size=36, crop=32, scale=64.0)
BLOCKS = {1: (3, 64, 2), 2: (64, 128, 2), 3: (128, 256, 3), 4: (256, 512, 3), 5: (512, 512, 3)}


def random_images(count: int, side: int = 32, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.fixture
def network() -> VGGFace:
    torch.manual_seed(0)
    return VGGFace(SMALL, classes=5)


def test_vggface_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        published = build("vggface", 2622)
    shapes = {key: tuple(value.shape) for key, value in published.state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {}
    for block, (first, width, depth) in BLOCKS.items():
        for index in range(1, depth + 1):
            expected[f"conv{block}_{index}.weight"] = (width, first if index == 1 else width, 3, 3)
            expected[f"conv{block}_{index}.bias"] = (width,)
    for layer, (inputs, outputs) in {"fc6": (25088, 4096), "fc7": (4096, 4096), "classifier": (4096, 2622)}.items():
        expected |= {f"{layer}.weight": (outputs, inputs), f"{layer}.bias": (outputs,)}
    assert shapes == expected
    assert sum(value.numel() for value in published.parameters()) == 145_002_878


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("vggface")])
def test_crops_fit_their_images(name: str) -> None:
    entry = NETWORKS[name]
    assert entry.crop % 32 == 0
    assert entry.crop < entry.image_size


def test_features_and_scores_have_their_shapes(network: VGGFace) -> None:
    network.eval()
    features = network(random_images(6))
    assert tuple(features) == network.layers
    assert {layer: tuple(rows.shape) for layer, rows in features.items()} == {"fc6": (6, 16), "fc7": (6, 16)}
    scores = network.scores(features)
    assert scores.shape == (6, 5)
    torch.testing.assert_close(network.scores({layer: rows[:2] for layer, rows in features.items()}), scores[:2])


def test_features_are_taken_after_relu_and_before_dropout(network: VGGFace) -> None:
    seen: dict[str, torch.Tensor] = {}
    for layer in ("fc6", "fc7"):
        network.get_submodule(layer).register_forward_hook(lambda _, __, out, layer=layer: seen.update({layer: out}))
    network.train()
    features = network(random_images(4))
    for layer, rows in features.items():
        assert torch.equal(rows, seen[layer].clamp(min=0))
        assert bool((rows == 0).any())


def test_dropout_acts_in_training_only(network: VGGFace) -> None:
    network.train()
    first, second = network(random_images(2)), network(random_images(2))
    assert torch.equal(first["fc6"], second["fc6"])  # before the first dropout
    assert not torch.equal(first["fc7"], second["fc7"])
    assert not torch.equal(network.scores(first), network.scores(first))  # the classifier has its own
    network.eval()
    first, second = network(random_images(2)), network(random_images(2))
    assert torch.equal(first["fc7"], second["fc7"])
    assert torch.equal(network.scores(first), network.scores(second))


@pytest.mark.parametrize(("name", "scale"), [("vggface", 1.0), ("vggface-mini", 64.0)])
def test_the_published_mean_is_subtracted_from_rgb(name: str, scale: float) -> None:
    with torch.device("meta"):
        assert build(name, 2).spec.scale == scale
    network = VGGFace(Spec(widths=(4, 4, 4, 4, 4), hidden=4, image_size=36, crop=32, scale=scale), classes=2)
    entered = []
    network.get_submodule("conv1_1").register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    images = random_images(2)
    network(images)
    network(images.float())
    mean = torch.tensor([129.1863, 104.7624, 93.5940])  # of R, G and B
    assert torch.equal(entered[0], (images - mean[:, None, None]) / scale)
    assert torch.equal(entered[1], entered[0])


def test_it_starts_with_signals_of_even_strength_through_its_depth(network: VGGFace) -> None:
    """He et al. 2015: neither vanishing nor exploding."""
    spreads = []
    for name, module in network.named_children():
        if name.startswith("conv"):
            module.register_forward_hook(lambda _, __, out: spreads.append(out.std().item()))
    network(random_images(8))
    assert max(spreads) / min(spreads) < 30
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.3)
