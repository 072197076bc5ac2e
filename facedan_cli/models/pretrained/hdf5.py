"""A reader of HDF5 files by h5py, which the extra `keras` installs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.errors import FacedanError

MOST_WEIGHTS = 1 << 28
"""Most elements of a file's arrays, nearly twice VGG-Face's; a small file can claim arrays of any size."""

_MOST_RATIO = 64  # of claimed to stored bytes; weights hardly shrink, and what was never written is not stored at all
_LEAST_BYTES = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The h5py.File at a path, open for reading.

    Raises:
        FacedanError: h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise FacedanError(
            f"{path} is an HDF5 file, for which h5py is missing", "pip install 'facedan[keras]'"
        ) from error
    with h5py.File(path, "r") as file:
        yield file


def arrays_in(datasets: Sequence[Any], most: int = MOST_WEIGHTS) -> list[np.ndarray]:
    """The arrays in h5py datasets.

    Args:
        datasets: which.
        most: elements that they may have together.

    Raises:
        ValueError: they have more, or lie in other files; nothing has been read then.
    """
    if sum(dataset.size for dataset in datasets) > most:
        raise ValueError(f"its arrays claim to have more than {most} elements")
    claimed = sum(dataset.size * dataset.dtype.itemsize for dataset in datasets)
    stored = sum(dataset.id.get_storage_size() for dataset in datasets)
    if claimed > _LEAST_BYTES + _MOST_RATIO * stored:
        raise ValueError(f"its arrays claim to have {claimed} bytes, of which {stored} are stored")
    if any(dataset.external or dataset.is_virtual for dataset in datasets):
        raise ValueError("its arrays lie in other files")
    if len({dataset.file.filename for dataset in datasets}) > 1:
        raise ValueError("it leads to other files")
    return [np.asarray(dataset[()]) for dataset in datasets]
