from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, optim

from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.vggface import Spec, VGGFace
from facedan_cli.training import state
from facedan_cli.training.state import Best, Checkpoints

SPEC = Spec(widths=(4, 4, 4, 4, 4), hidden=4, image_size=36, crop=32, scale=64.0, dropout=0.0)
CARD = ModelCard("vggface-mini", ("ann", "bob"), "pretrain", "pretrain-casia-00000000", {})
REMEMBERED = {"gamma.fc7": torch.tensor(3.5, dtype=torch.float64), "source.fc7": torch.arange(8.0).view(4, 2)}


def make(kind: str = "adamw", classes: int = 2) -> tuple[VGGFace, optim.Optimizer]:
    torch.manual_seed(0)
    network = VGGFace(SPEC, classes).to(memory_format=torch.channels_last)
    classifier = list(network.classifier.parameters())
    body = [value for name, value in network.named_parameters() if not name.startswith("classifier.")]
    groups = [{"params": body, "scale": 1.0}, {"params": classifier, "scale": 10.0}]
    if kind == "adamw":
        return network, optim.AdamW(groups, lr=0.01, fused=True)
    return network, optim.SGD(groups, lr=0.01, momentum=0.9 if kind == "momentum" else 0.0, fused=True)


def step(network: FaceNetwork, optimizer: optim.Optimizer, number: int) -> None:
    inputs = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(number)).float()
    optimizer.zero_grad()
    network.scores(network(inputs)).square().mean().backward()
    optimizer.step()


def save(directory: Path, number: int, network: FaceNetwork, optimizer: optim.Optimizer) -> None:
    with Checkpoints(directory, CARD) as checkpoints:
        checkpoints.save(number, network, optimizer, REMEMBERED)


@pytest.mark.parametrize("kind", ["adamw", "momentum", "plain"])
def test_training_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path, kind: str) -> None:
    network, optimizer = make(kind)
    for number in range(3):
        step(network, optimizer, number)
    save(tmp_path, 3, network, optimizer)
    other, other_optimizer = make(kind)
    done, remembered = Checkpoints(tmp_path, CARD).load(other, other_optimizer)
    assert done == 3
    assert remembered.keys() == REMEMBERED.keys()
    assert all(torch.equal(remembered[name], REMEMBERED[name]) for name in remembered)
    assert [group["scale"] for group in other_optimizer.param_groups] == [1.0, 10.0]
    for number in range(3, 6):
        step(network, optimizer, number)
        step(other, other_optimizer, number)
    assert all(map(torch.equal, network.parameters(), other.parameters()))


def test_what_is_written_is_what_was_there_at_the_save(tmp_path: Path) -> None:
    """The step goes on while a thread writes."""
    network, optimizer = make()
    step(network, optimizer, 0)
    before: dict[str, Tensor] = {key: value.clone() for key, value in network.state_dict().items()}
    with Checkpoints(tmp_path, CARD) as checkpoints:
        checkpoints.save(1, network, optimizer, REMEMBERED, loss=1.0)
        for value in network.parameters():
            value.data.zero_()
    found = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(found[key], value) for key, value in before.items())
    assert Checkpoints(tmp_path, CARD).load(*make())[0] == 1


def test_there_is_nothing_to_go_on_from_at_first(tmp_path: Path) -> None:
    network, optimizer = make()
    checkpoints = Checkpoints(tmp_path, CARD)
    assert checkpoints.load(network, optimizer) == (0, {})
    assert checkpoints.told() == "no state was saved before it"


def test_a_full_device_is_no_fault_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    save(tmp_path, 1, *make())
    network, optimizer = make()
    monkeypatch.setattr(network, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        Checkpoints(tmp_path, CARD).load(network, optimizer)


def test_the_best_is_remembered(tmp_path: Path) -> None:
    network, optimizer = make()
    with Checkpoints(tmp_path, CARD) as checkpoints:
        checkpoints.save(1, network, optimizer, {}, loss=0.25)
        checkpoints.save(2, network, optimizer, {}, loss=0.5)
    again = Checkpoints(tmp_path, CARD)
    again.load(network, optimizer)
    assert again.best == Best(1, 0.25)
    assert again.told() == f"the state after step 2 is kept in {tmp_path / 'state.safetensors'}"


def test_a_state_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, optimizer = make()
    save(tmp_path, 1, network, optimizer)
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(tensors: object, temporary: Path, **_: object) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2, network, optimizer)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.safetensors"]


def test_what_stopped_the_training_is_told_before_what_stopped_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save_file", full)

    def train(stopped_by: BaseException) -> None:
        with Checkpoints(tmp_path, CARD) as checkpoints:
            checkpoints.save(1, *make(), {})
            raise stopped_by

    with pytest.raises(KeyboardInterrupt):
        train(KeyboardInterrupt())
    with pytest.raises(OSError, match="No space"):  # for the state that is promised is not there
        train(Interrupted("stopped", "goes on"))


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40], lambda b: b"", lambda b: b"x" * len(b)])
def test_a_damaged_state_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "state.safetensors"
    save(tmp_path, 1, *make())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FacedanError, match=r"the training state .* cannot be used") as caught:
        Checkpoints(tmp_path, CARD).load(*make())
    assert "--force" in caught.value.fix


@pytest.mark.parametrize("kind", ["adamw", "plain"])
def test_the_state_of_another_network_is_refused(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 1, *make(kind))
    with pytest.raises(FacedanError, match=r"cannot be used: .* 2 classes, not 3"):
        Checkpoints(tmp_path, CARD).load(*make(kind, classes=3))
