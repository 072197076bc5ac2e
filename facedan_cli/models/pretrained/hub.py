"""Weights from the Hugging Face Hub, as hf:OWNER/NAME or hf:OWNER/NAME:FILE names them."""

from __future__ import annotations

import re
from pathlib import Path

from facedan_cli.errors import FacedanError, UsageError

PREFIX = "hf:"
WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".onnx", ".bin", ".dat", ".h5")
"""Suffixes of files that may be weights; of a repository's files those with the first of these suffixes count."""

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(name: str) -> bool:
    """Whether a name means a file on the Hub."""
    return name.startswith(PREFIX)


def download(name: str) -> Path:
    """The file that a name means, from the Hub's cache or downloaded to it.

    The Hub's own variables hold: HF_ENDPOINT, HF_HOME, HF_TOKEN, and HF_HUB_OFFLINE=1, with which the cache alone is
    read.

    Args:
        name: hf:OWNER/NAME:FILE; without a file, the repository's only file of weights.

    Raises:
        UsageError: the name is no such name.
        FacedanError: huggingface_hub is not installed, there is no such file, or it cannot be downloaded.
    """
    repository, _, file = name.removeprefix(PREFIX).partition(":")
    if not _NAME.fullmatch(repository) or file.startswith("/") or ".." in Path(file).parts:
        raise UsageError(f"'{name}' names no file on the Hugging Face Hub", "write hf:OWNER/NAME or hf:OWNER/NAME:FILE")
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as error:
        raise FacedanError(f"{name} needs huggingface_hub", "pip install 'facedan[hub]'") from error
    try:
        return Path(hub.hf_hub_download(repository, file or _only_file(repository)))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise FacedanError(
            f"{name} is not in the Hub's cache, and the Hub cannot be reached",
            "check the network, or HF_HUB_OFFLINE; or download the file elsewhere and give its path",
        ) from error
    except errors.EntryNotFoundError as error:
        raise FacedanError(f"{repository} has no file '{file}'", f"see its files at hf.co/{repository}") from error
    except errors.GatedRepoError as error:
        fix = "accept its terms on the web page, and set HF_TOKEN"
        raise FacedanError(f"{repository} is open only to those who accepted its terms", fix) from error
    except errors.RepositoryNotFoundError as error:
        fix = "check the name; for a private one set HF_TOKEN"
        raise FacedanError(f"there is no repository '{repository}' on the Hub", fix) from error
    except FacedanError:
        raise
    except Exception as error:  # the library and what it downloads with raise errors of many types
        raise FacedanError(f"{name} cannot be downloaded: {error}", "try again, or give a file's path") from error


def _only_file(repository: str) -> str:
    """The file of weights of a repository that has one; offline, of what the cache has of it.

    Raises:
        FacedanError: there is none, or which one is meant is open.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        root = Path(hub.snapshot_download(repository, local_files_only=True))
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    else:
        names = sorted(hub.HfApi().list_repo_files(repository))
    for suffix in WEIGHTS:
        found = [name for name in names if name.lower().endswith(suffix)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(found[:5])
            raise FacedanError(f"{repository} has several files of weights: {some}", f"name one: hf:{repository}:FILE")
    raise FacedanError(f"{repository} has no file of weights that is read", f"they end in {', '.join(WEIGHTS)}")
