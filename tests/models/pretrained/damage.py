"""What damaged files are measured by."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from facedan_cli.errors import FacedanError


def peak(act: Callable[[], object]) -> int:
    """Bytes that an action that ends in an error had allocated at most."""
    tracemalloc.start()
    try:
        with pytest.raises((FacedanError, ValueError)):
            act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(read: Callable[..., object], *arguments: object) -> bool:
    try:
        read(*arguments)
    except ValueError:
        return True
    return False
