from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn, optim

from facedan_cli.errors import FacedanError
from facedan_cli.training.checkpoint import load_state, save_state


def make(kind: str) -> tuple[nn.Sequential, optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)).to(memory_format=torch.channels_last)
    groups = [{"params": network[0].parameters(), "scale": 1.0}, {"params": network[2].parameters(), "scale": 10.0}]
    if kind == "adamw":
        return network, optim.AdamW(groups, lr=0.01)
    return network, optim.SGD(groups, lr=0.01, momentum=0.9 if kind == "momentum" else 0.0)


def step(network: nn.Module, optimizer: optim.Optimizer, number: int) -> None:
    inputs = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    network(inputs).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "momentum", "plain"])
def test_training_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path, kind: str) -> None:
    network, optimizer = make(kind)
    for number in range(3):
        step(network, optimizer, number)
    remembered = {"gamma.fc7": torch.tensor(3.5, dtype=torch.float64), "source.fc7": torch.randn(4, 2)}
    save_state(tmp_path / "state.safetensors", 3, network, optimizer, remembered)
    other, other_optimizer = make(kind)
    done, penalty = load_state(tmp_path / "state.safetensors", other, other_optimizer)
    assert done == 3
    assert penalty.keys() == remembered.keys()
    assert all(torch.equal(penalty[name], remembered[name]) for name in remembered)
    assert [group["scale"] for group in other_optimizer.param_groups] == [1.0, 10.0]
    for number in range(3, 6):
        step(network, optimizer, number)
        step(other, other_optimizer, number)
    assert all(map(torch.equal, network.parameters(), other.parameters()))


def test_a_state_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    network, optimizer = make("adamw")
    save_state(path, 1, network, optimizer)
    before = path.read_bytes()

    def full(tensors: object, temporary: Path, **_: object) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("facedan_cli.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_state(path, 2, network, optimizer)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40], lambda b: b"", lambda b: b"x" * len(b)])
def test_a_damaged_state_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "state.safetensors"
    network, optimizer = make("adamw")
    save_state(path, 1, network, optimizer)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FacedanError, match=r"the training state .* cannot be used") as caught:
        load_state(path, *make("adamw"))
    assert "--force" in caught.value.fix


def test_the_state_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, 1, *make("adamw"))
    other = nn.Linear(2, 2)
    with pytest.raises(FacedanError, match=r"cannot be used"):
        load_state(path, other, optim.AdamW(other.parameters()))
