from __future__ import annotations

import os
import pickle
import struct
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import peak
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.errors import FacedanError
from facedan_cli.models.mobilefacenet import mobilefacenet
from facedan_cli.models.pretrained.pickled_tensors import pickled_tensors
from facedan_cli.models.pretrained.state_dict import read_state_dict, read_tensors


class AttributeDict(dict[str, Any]):
    """As Lightning keeps hyper-parameters: a class that no reader knows."""

    def __getattr__(self, key: str) -> Any:
        return self[key]


class Callback:
    """An object with a state of its own."""

    def __init__(self, best: torch.Tensor) -> None:
        self.best, self.path = best, Path("model.ckpt")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        pytest.fail("an object of the file was made")


class Runs:
    """What an attacker stores: a call that is made on opening."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call: tuple[Any, ...] = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


WEIGHT = torch.arange(6.0).reshape(2, 3)


def tensors() -> dict[str, torch.Tensor]:
    return {
        "model.a.weight": WEIGHT,
        "model.a.transposed": WEIGHT.T,  # of the same storage
        "model.a.half": torch.ones(3).half(),
        "model.a.brain": torch.full((2,), 0.5, dtype=torch.bfloat16),
        "model.a.row": WEIGHT[1],
        "model.bn.num_batches_tracked": torch.tensor(7),
        "model.mask": torch.tensor([True, False]),
        "head.kernel": torch.nn.Parameter(torch.full((2, 2), 3.0)),
    }


def lightning(**others: object) -> dict[str, Any]:
    """A checkpoint as Lightning writes them."""
    return {
        "epoch": 25,
        "global_step": 100,
        "pytorch-lightning_version": "1.4.4",
        "state_dict": OrderedDict(tensors()),
        "callbacks": {Callback: {"best_model_score": torch.tensor(0.9)}, "early": Callback(torch.ones(3))},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(4)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [{"milestones": defaultdict(int, {12: 1}), "last": np.float64(0.5)}],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(arch="ir_18", args=Namespace(gpus=2, path=Path("data")), names={"a", "b"}),
        **others,
    }


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def test_tensors_are_read_from_among_objects_of_any_class(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.ckpt", lightning())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found, expected = read_tensors(path), {f"state_dict.{name}": value for name, value in tensors().items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_plain_checkpoints_are_read_alike(tmp_path: Path) -> None:
    value = {"backbone": tensors(), "optimizer": {"state": {0: {"momentum": WEIGHT}}}, "epoch": 3}
    expected = {f"backbone.{name}" for name in tensors()}
    for old in (False, True):
        path = tmp_path / "w.pt"
        torch.save(value, path, _use_new_zipfile_serialization=not old)
        found = read_tensors(path)
        assert found.keys() == expected
        assert torch.equal(found["backbone.model.a.transposed"], WEIGHT.T)
    assert pickled_tensors(saved(path, value)).keys() == expected


@pytest.mark.parametrize("call", ["os.system", "eval", "open", "class"])
def test_code_is_never_run(call: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    made = {
        "os.system": Runs(os.system, f"touch {mark}"),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w')"),
        "open": Runs(open, str(mark), "w"),
        "class": Runs(type, "Bad", (), {}),
    }[call]
    path = saved(tmp_path / "w.ckpt", lightning(bad=made))
    assert torch.equal(read_tensors(path)["state_dict.model.a.weight"], WEIGHT)  # they are read; the call is not made
    assert not mark.exists()
    with pytest.raises(FacedanError, match="would run code"):
        read_state_dict(path)
    with pytest.raises(FacedanError, match="no tensors"):
        read_tensors(saved(path, {"state_dict": made}))
    assert not mark.exists()


def test_a_whole_pickled_network_has_no_tensors_by_name(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match="without running code"):
        read_tensors(saved(tmp_path / "w.pt", mobilefacenet()))


def test_dictionaries_that_hold_themselves_end(tmp_path: Path) -> None:
    value: dict[str, Any] = {"weight": WEIGHT, "object": Callback(WEIGHT)}
    for key in "abcdefghij":
        value[key] = value
    assert read_tensors(saved(tmp_path / "w.ckpt", value)).keys() == {"weight"}


def archive(path: Path, content: bytes, storages: dict[str, bytes] | None = None, order: bytes = b"little") -> Path:
    """What torch.save writes, with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/byteorder", order)
        for name, stored in (storages or {}).items():
            file.writestr(f"archive/data/{name}", stored)
    return path


class Described(pickle._Pickler):
    """Writes tensors as torch.save does, from a storage's entry, offset, sizes and strides."""

    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, value.entry, "cpu", 4) if isinstance(value, Stored) else None


class Stored:
    def __init__(self, entry: str) -> None:
        self.entry = entry


def described(path: Path, *numbers: Any, order: bytes = b"little") -> Path:
    with (path.with_suffix(".pkl")).open("wb") as file:
        tensor = Runs(torch._utils._rebuild_tensor_v2, Stored("0"), *numbers, False, OrderedDict())
        Described(file, protocol=2).dump({"w": tensor, "object": Callback})
    return archive(path, path.with_suffix(".pkl").read_bytes(), {"0": struct.pack("<4f", 1, 2, 3, 4)}, order)


def test_tensors_lie_in_their_numbers(tmp_path: Path) -> None:
    found = pickled_tensors(described(tmp_path / "w.pt", 1, (2, 1), (2, 1)))
    assert found["w"].tolist() == [[2.0], [4.0]]


@pytest.mark.parametrize(
    "numbers",
    [
        (0, (5,), (1,)),
        (4, (1,), (1,)),
        (1, (2, 2), (2, 1)),
        (0, (1 << 20, 1 << 20), (0, 0)),
        (0, (1 << 62, 1 << 62), (1, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
        (0, 2, 1),
        ("0", (2,), (1,)),
    ],
    ids=str,
)
def test_tensors_beyond_their_numbers_are_refused(numbers: tuple[Any, ...], tmp_path: Path) -> None:
    path = described(tmp_path / "w.pt", *numbers)
    assert peak(lambda: read_tensors(path)) < 10_000_000


def test_the_other_order_of_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other order"):
        pickled_tensors(described(tmp_path / "w.pt", 0, (4,), (1,), order=b"big"))


def test_a_pickle_that_claims_memory_gets_none(tmp_path: Path) -> None:
    """Python's unpickler in C makes room for as many memos as the largest number says."""
    content = b"\x80\x02cbad\nclass\nr\xff\xff\xff\x7f."
    path = archive(tmp_path / "w.pt", content)
    assert peak(lambda: read_tensors(path)) < 10_000_000


SMALL = pickle.dumps(lightning(state_dict={}, callbacks={}), protocol=2)


@given(at=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255), end=st.integers(0, len(SMALL)))
def test_damaged_pickles_are_read_or_refused(at: int, byte: int, end: int, tmp_path_factory: Any) -> None:
    damaged = bytearray(SMALL)
    damaged[at] = byte
    path = archive(tmp_path_factory.getbasetemp() / "damaged.pt", bytes(damaged[:end]))
    with pytest.raises(FacedanError, match=r"tensors|weights"):
        read_tensors(path)


def test_attributes_that_a_pickle_sets_stay_in_it(tmp_path: Path) -> None:
    """BUILD may set attributes of what a pickle names; the next file must not meet them."""
    content = b"\x80\x02}(X\x01\x00\x00\x00acbad\nclass\n}(X\x08\x00\x00\x00__call__K\x01ubu."
    with pytest.raises(FacedanError):
        read_tensors(archive(tmp_path / "bad.pt", content))
    assert read_tensors(saved(tmp_path / "w.ckpt", lightning()))


def test_an_attribute_does_not_stand_for_a_dictionarys_items(tmp_path: Path) -> None:
    value = Runs(OrderedDict)
    value.call = (OrderedDict, (), {"items": 5}, None, iter([("w", WEIGHT), ("object", Callback)]))
    assert read_tensors(saved(tmp_path / "w.ckpt", value)).keys() == {"w"}
