"""Device, memory and threads of a computation."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import torch

from facedan_cli.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, as its malloc.h numbers them."""

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl."""


def resolve_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first GPU if there is one, else the CPU.

    Raises:
        UsageError: there is no such device: no silent fall-back to a slower one.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device '{name}' here", "use --device auto, cpu, cuda or cuda:N") from error
    return device


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees for the next one.

    Else it returns blocks to the system and fetches them again page by page, up to a fifth of the time of a training
    step on a CPU. Other C libraries are unchanged.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the highest there is


def seed_random(seed: int, device: torch.device) -> None:
    """Seed torch's random numbers on a device; those of the CPU always.

    On a machine without a GPU `torch.manual_seed` notes for each kind of GPU from where it was called, which takes
    longer than many parts of a training step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def serve(parent: int) -> None:
    """Prepare a worker process: it leaves interrupts to its parent and ends with it.

    Args:
        parent: the other process's number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def worker_count(asked: int) -> int:
    """The number of decoding threads: the given one, or the number of processors that this process may use."""
    return asked or len(os.sched_getaffinity(0))
