"""A folder for the Hugging Face Hub: the checkpoint, its configuration and a model card with what was measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.export.graphs import Features
from facedan_cli.export.measured import Measured
from facedan_cli.export.model_card import model_card
from facedan_cli.export.weights import rebuilt, without_classifier
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.embedder import Embedder
from facedan_cli.runs import HUB_WEIGHTS
from facedan_cli.workspace import make_directory, write_json, write_text

WEIGHTS, CONFIG, CARD = HUB_WEIGHTS, "config.json", "README.md"


def write_folder(
    embedder: Embedder,
    folder: Path,
    metadata: Mapping[str, str],
    card: ModelCard,
    data: Mapping[str, str],
    measured: Measured,
) -> Features:
    """Write the three files of a folder, and give what the checkpoint in it gives.

    Args:
        embedder: whose layer the configuration names.
        folder: is there, and empty.
        metadata: as `describe` gives them.
        card: of the checkpoint. The names of its identities are left out, with its classifier.
        data: names of the training's data sets, by what they were used for.
        measured: what evaluations found.
    """
    bare = replace(card, identities=("",))
    save_checkpoint(folder / WEIGHTS, rebuilt(card, without_classifier(embedder.network.state_dict())), bare)
    height, width = embedder.sides
    config = {
        "library_name": "facedan",
        "facedan_version": metadata["facedan"],
        "network": card.model,
        "settings": dict(card.network or {}),
        "stage": card.stage,
        "run": card.run,
        "input": [3, height, width],
        "crop": int(metadata["crop"]),
        "mean": [float(value) for value in metadata["mean"].split()],
        "std": [float(value) for value in (3 * metadata["divisor"].split())[:3]],
        "channels": "rgb",
        **({"input_normalisation": metadata["input_normalisation"]} if "input_normalisation" in metadata else {}),
        "layer": embedder.layer,
        "flip": embedder.flip,
        "length": int(metadata["length"]),
        "template": metadata.get("template"),
        "init": dict(card.init) if card.init else None,
    }
    write_json(folder / CONFIG, config)
    write_text(folder / CARD, model_card(card, metadata, data, measured))
    return Embedder(load_checkpoint(folder / WEIGHTS)[0], embedder.layer, flip=embedder.flip)


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder that would be overwritten.

    Raises:
        FacedanError: it is there already and not to be replaced, or holds what is not of an export.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file", "name a folder")
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in (WEIGHTS, CONFIG, CARD))
    if others:
        raise FacedanError(f"{folder} holds other files, such as {others[0]}", "name another folder")
    if any(folder.iterdir()) and not force:
        raise FacedanError(f"{folder} exists already", "--force replaces it; or name another folder")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary directory beside a folder, which takes its place when the block ends well, and else is removed."""
    make_directory(folder.parent)
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(temporary, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
