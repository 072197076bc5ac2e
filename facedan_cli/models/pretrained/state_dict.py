"""A reader of state dicts of torch.save and safetensors that runs no code in the files."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from facedan_cli.errors import FacedanError
from facedan_cli.models.pretrained.pickled_tensors import named, pickled_tensors

METADATA_KEY = "facedan"
"""The metadata key under which our safetensors files describe themselves."""


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """A safetensors file opened by `safe_open`; its name need not be UTF-8.

    Raises:
        SafetensorError: it is no such file.
        OSError: it cannot be read.
    """
    with ExitStack() as held:
        name = os.fspath(path)
        if not _is_utf8(name):
            file = held.enter_context(path.open("rb"))
            name = f"/dev/fd/{file.fileno()}"
        yield held.enter_context(safe_open(name, framework="pt"))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, opened as by `open_safetensors`."""
    with open_safetensors(path) as file:
        return {key: file.get_tensor(key) for key in sorted(file.keys())}


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_ours(path: Path) -> bool:
    """Whether a readable state dict is a safetensors file that facedan wrote."""
    if path.suffix != ".safetensors":
        return False
    with open_safetensors(path) as file:
        return METADATA_KEY in (file.metadata() or {})


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without the prefixes of wrappers ("module.", "model.").

    Args:
        path: .safetensors, or what torch.save wrote; there the state dict may lie under the key "state_dict".

    Raises:
        FacedanError: the file cannot be read, would run code, or is no state dict.
    """
    loaded = load_any(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) and _is_plain(value) for key, value in loaded.items()
    ):
        raise FacedanError(f"{path} is not a state dict", "give a dict of tensors by name")
    return {key.removeprefix("module.").removeprefix("model."): value for key, value in loaded.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a training's checkpoint, without its other objects.

    Args:
        path: .safetensors, or what torch.save wrote: a dictionary in which dictionaries, lists, settings and objects of
            any class may lie beside tensors. Objects are not made, so none of their code is run.

    Returns:
        Tensors by their names as they are; those in dictionaries by all keys on the way, joined by dots.

    Raises:
        FacedanError: the file cannot be read, or has no tensors.
    """
    tensors = {name: tensor for name, tensor in named(load_any(path, objects=True), Tensor) if _is_plain(tensor)}
    if not tensors:
        raise FacedanError(
            f"{path} has no tensors that can be read without running code of its own",
            "save it again as torch.save(model.state_dict(), …) or as safetensors, where you trust it",
        )
    return tensors


def load_any(path: Path, *, objects: bool = False) -> Any:
    """The content of a file of torch.save or safetensors.

    Args:
        path: the file.
        objects: whether it may hold objects of other classes, which are left out.

    Raises:
        FacedanError: it cannot be read, or would run code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_tensors(path)
        _refuse_deflated(path)
        with warnings.catch_warnings(action="ignore"):  # our own errors describe damaged files better
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                if not (objects and zipfile.is_zipfile(path)):
                    raise
            return pickled_tensors(path)
    except FacedanError:
        raise
    except Exception as error:  # torch.load raises errors of every type on what is no state dict
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise FacedanError(
                f"{path} is not a plain state dict: opening it would run code that is stored in it",
                "save it again as torch.save(model.state_dict(), …) or as safetensors, where you trust it",
            ) from error
        raise FacedanError(f"{path} cannot be read as weights", "give a .safetensors or .pth state dict") from error


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense and has as many stored numbers as its shape says."""
    usual = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return usual and not (tensor.is_quantized or tensor.is_complex())


def _refuse_deflated(path: Path) -> None:
    """Raise an error for a zip archive whose entries are compressed or claim to be longer than the file.

    torch.save stores entries as they are; a deflated one of some megabytes can unfold to gigabytes.

    Raises:
        FacedanError: it is such an archive.
        zipfile.BadZipFile, OSError: it cannot be read.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    claimed = sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or claimed > path.stat().st_size:
        raise FacedanError(
            f"{path} cannot be read as weights: its entries are compressed, which torch.save never does",
            "unpack it and pack it again without compression (zip -0), or fetch the file again",
        )
