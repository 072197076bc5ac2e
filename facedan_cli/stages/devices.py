"""Which processor does the work."""

from __future__ import annotations

import os

import torch

from facedan_cli.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU where there is one, else the CPU.

    Raises:
        UsageError: the device is not there: never a silent fall-back to a slower one.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device '{name}' here", "use --device auto, cpu, cuda or cuda:N") from error
    return device


def worker_count(asked: int) -> int:
    """How many threads decode images: as asked, or as many as this process may run on."""
    return asked or len(os.sched_getaffinity(0))
