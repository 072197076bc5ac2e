"""The input of a network of others by options: size, mean and deviation."""

from __future__ import annotations

import math

from facedan_cli.errors import UsageError

Channels = tuple[float, float, float]


def parse_normalisation(mean: str | None, std: str | None) -> tuple[Channels, Channels]:
    """The mean and deviation of R, G and B in units of 0-255; 127.5 where they are not given.

    Args:
        mean: one number or three, as in 0.485,0.456,0.406; in units of 0-1 where neither it nor `std` exceeds 1.
        std: likewise.

    Raises:
        UsageError: they are no such numbers.
    """
    given = {option: _three(option, text) for option, text in (("--mean", mean), ("--std", std)) if text is not None}
    unit = 255.0 if all(abs(value) <= 1 for values in given.values() for value in values) else 1.0
    means, deviations = (given.get(option, (127.5 / unit,) * 3) for option in ("--mean", "--std"))
    if min(deviations) <= 0:
        raise UsageError(f"--std must be positive, not {std}", "give one number or three, as in 0.229,0.224,0.225")
    red, green, blue = (unit * value for value in means)
    return (red, green, blue), (unit * deviations[0], unit * deviations[1], unit * deviations[2])


def parse_size(text: str) -> tuple[int, int]:
    """Height and width in pixels from a text such as 112x96 or 112.

    Raises:
        UsageError: it is no size from 16 to 1024.
    """
    parts = text.lower().replace("×", "x").split("x")
    sides = [int(part) for part in parts if part.strip().isascii() and part.strip().isdigit()]
    if len(sides) != len(parts) or len(sides) not in (1, 2) or not all(16 <= side <= 1024 for side in sides):
        raise UsageError(f"--input must be height x width in pixels from 16 to 1024, not '{text}'", "such as 112x112")
    return sides[0], sides[-1]


def _three(option: str, text: str) -> Channels:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise UsageError(f"{option} must be one number or three, not '{text}'", f"such as {option} 0.485,0.456,0.406")
    return values[0], values[len(values) // 2], values[-1]
