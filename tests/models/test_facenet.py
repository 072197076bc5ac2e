from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models import inception_resnet_v1 as library
from torch import nn
from torch.nn import functional as F

from facedan_cli.config.models import NETWORKS, AdaptRecipe
from facedan_cli.errors import FacedanError
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.dropout import set_batch_rows
from facedan_cli.models.facenet import RELEASES, Facenet, fetch_release, release_file
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.load import load_public_weights
from facedan_cli.models.vggface import Spec, VGGFace


def random_images(count: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 160, 160), generator=generator, dtype=torch.uint8)


def trained(network: nn.Module) -> None:
    """Statistics and scales as training leaves them: no two alike."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)


@pytest.fixture(scope="module")
def published() -> InceptionResnetV1:
    """The library's network, with as many identities as its published weights tell apart."""
    torch.manual_seed(0)
    network = InceptionResnetV1()
    network.logits = nn.Linear(512, RELEASES["vggface2"][1])
    trained(network)
    return network.eval()


@pytest.fixture(scope="module")
def weights(published: InceptionResnetV1, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / RELEASES["vggface2"][0]
    torch.save(published.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def built() -> Facenet:
    """To be copied, which is quicker than to draw the weights."""
    torch.manual_seed(0)
    made = build("facenet", 5)
    assert isinstance(made, Facenet)
    trained(made)
    return made


@pytest.fixture
def network(built: Facenet) -> Facenet:
    return deepcopy(built)


def test_it_computes_what_the_library_computes_from_the_librarys_weights(
    published: InceptionResnetV1, weights: Path, network: Facenet
) -> None:
    before = network.classifier.weight.clone()
    loaded = load_public_weights(weights, network)
    assert (loaded.format, loaded.channels, loaded.warnings) == ("facenet-pytorch", "rgb", ())
    assert torch.equal(network.classifier.weight, before)
    network.eval()
    with torch.no_grad():
        features = network(random_images(3))
        expected = published((random_images(3).float() - 127.5) / 128)
        pooled = nn.Sequential(*list(published.children())[:15])((random_images(3).float() - 127.5) / 128)
    torch.testing.assert_close(F.normalize(features["embedding"]), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(features["pool"], pooled.flatten(1), rtol=1e-4, atol=1e-5)
    assert features["embedding"].norm(dim=1).std() > 0  # not normalised yet


def test_its_layers_are_those_that_the_command_line_offers(network: Facenet) -> None:
    assert network.layers == NETWORKS["facenet"].layers
    features = network(random_images(2))
    assert {layer: tuple(rows.shape) for layer, rows in features.items()} == {"pool": (2, 1792), "embedding": (2, 512)}
    assert network.scores(features).shape == (2, 5)
    assert network.crop < network.image_size


def test_an_images_features_do_not_depend_on_the_batch_not_even_in_training(network: Facenet) -> None:
    network.train()
    together = network(random_images(4))["pool"]
    torch.testing.assert_close(network(random_images(4)[:1])["pool"], together[:1], rtol=1e-4, atol=1e-5)


def test_training_changes_weights_and_scales_but_no_statistics(network: Facenet) -> None:
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    F.cross_entropy(network.scores(network(random_images(4))), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    for key, value in network.state_dict().items():
        statistic = key.rpartition(".")[2] in {"running_mean", "running_var", "num_batches_tracked"}
        assert torch.equal(value, before[key]) == statistic, key


def test_dropout_lies_before_the_embedding_and_is_that_of_the_whole_batch(network: Facenet) -> None:
    network.train()
    torch.manual_seed(3)
    whole = network(random_images(4))
    assert not torch.equal(network(random_images(4))["embedding"], whole["embedding"])
    parts = []
    for rows in (torch.tensor([0, 1]), torch.tensor([2, 3])):
        set_batch_rows(network.modules(), rows, 4)
        torch.manual_seed(3)
        parts.append(network(random_images(4)[rows])["embedding"])
    torch.testing.assert_close(torch.cat(parts), whole["embedding"], rtol=1e-4, atol=1e-4)


def test_random_weights_give_signals_of_even_strength_through_the_depth() -> None:
    torch.manual_seed(0)
    network, spreads = build("facenet", 5), []
    for stage in ("conv2d_1a", "conv2d_4b", "repeat_1", "repeat_2", "repeat_3", "block8"):
        network.get_submodule(f"body.{stage}").register_forward_hook(
            lambda _, __, out: spreads.append(out.std().item())
        )
    network(random_images(2))
    assert max(spreads) / min(spreads) < 30


def test_a_checkpoint_gives_back_weights_and_statistics(network: Facenet, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, ModelCard("facenet", tuple("abcde"), "pretrain", "run", {}))
    loaded, _ = load_checkpoint(path)
    state = loaded.state_dict()
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert loaded.get_parameter("body.conv2d_4b.conv.weight").is_contiguous(memory_format=torch.channels_last)
    other = build("facenet", 2)
    assert load_public_weights(path, other).format == "facedan"
    assert torch.equal(other.get_buffer("body.last_bn.running_var"), state["body.last_bn.running_var"])


def test_weights_of_before_batches_were_counted_are_taken(
    published: InceptionResnetV1, network: Facenet, tmp_path: Path
) -> None:
    state = published.state_dict()
    older = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(older, tmp_path / "w.pt")
    load_public_weights(tmp_path / "w.pt", network)
    assert torch.equal(network.get_buffer("body.last_bn.running_var"), state["last_bn.running_var"])


def test_weights_of_the_other_network_do_not_fit(weights: Path, network: Facenet, tmp_path: Path) -> None:
    other = VGGFace(Spec(widths=(4, 4, 8, 8, 8), hidden=16, image_size=36, crop=32), 3)
    with pytest.raises(FacedanError, match=r"it lacks conv1_1\.bias"):
        load_public_weights(weights, other)
    torch.save(other.state_dict(), tmp_path / "vggface.pth")
    with pytest.raises(FacedanError, match=r"it lacks body\.block8"):
        load_public_weights(tmp_path / "vggface.pth", network)


# Published weights by name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("name", RELEASES)
def test_offline_the_message_says_which_file_to_put_where(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(library, "download_url_to_file", no_network)
    with pytest.raises(FacedanError, match=f"the weights '{name}' of facenet-pytorch cannot be downloaded") as caught:
        fetch_release(name)
    assert f"put {RELEASES[name][0]} " in caught.value.fix
    assert f"into {cache}," in caught.value.fix


def test_what_is_in_the_cache_is_not_fetched(weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "download_url_to_file", lambda *_: pytest.fail("fetched"))
    cache.mkdir()
    release_file("vggface2").write_bytes(weights.read_bytes())
    assert fetch_release("vggface2") == cache / RELEASES["vggface2"][0]


def test_the_librarys_loader_fetches_its_own_addresses(
    weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(address: str, path: str) -> None:
        assert address.rpartition("/")[2] == RELEASES["vggface2"][0]
        Path(path).write_bytes(weights.read_bytes())

    monkeypatch.setattr(library, "download_url_to_file", fetch)
    assert fetch_release("vggface2").read_bytes() == weights.read_bytes()


def test_what_is_not_the_weights_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "download_url_to_file", lambda _, path: Path(path).write_text("<html>sign in</html>"))
    with pytest.raises(FacedanError, match="'vggface2' is not"):
        fetch_release("vggface2")
    assert not release_file("vggface2").exists()


def test_convolutions_are_all_below_the_pooling() -> None:
    network = Facenet(3)
    convolutions = {id(parameter) for parameter in network.convolutions()}
    rest = {name for name, parameter in network.named_parameters() if id(parameter) not in convolutions}
    top = {"body.last_linear.weight", "body.last_bn.weight", "body.last_bn.bias"}
    assert rest - top == {name for name, _ in network.named_parameters() if name.startswith("classifier.")}
    assert top <= rest


def test_recipes_differ_in_the_new_classifiers_rate_alone() -> None:
    pretrain, adapt = NETWORKS["facenet"].pretrain, NETWORKS["facenet"].adapt
    assert pretrain.batch == 32
    assert AdaptRecipe(**asdict(replace(pretrain, classifier_lr_mult=1.0))) == adapt
