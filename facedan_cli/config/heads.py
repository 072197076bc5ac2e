"""The table of classification heads, a row each, and their margins and scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facedan_cli.config.fields import check_choice
from facedan_cli.errors import UsageError


@dataclass(frozen=True)
class Head:
    """Default margin and scale of a classification head; None if it has none.

    Args:
        margin: added to the angle in radians (arcface), subtracted from the cosine (cosface), the integer factor of
            the angle (sphereface), or what adaface divides between angle and cosine by an image's quality.
        scale: factor of the cosines.
    """

    margin: float | None = None
    scale: float | None = None


HEADS: Mapping[str, Head] = {
    "softmax": Head(),
    "arcface": Head(margin=0.5, scale=64.0),
    "cosface": Head(margin=0.35, scale=64.0),
    "sphereface": Head(margin=4),
    "adaface": Head(margin=0.4, scale=64.0),
}
"""The classification heads (`models.classifier`)."""


def head_settings(head: str | None, margin: float | None, scale: float | None) -> dict[str, Any]:
    """Head, margin and scale, with the head's defaults for those that are None.

    Args:
        head: a key of `HEADS`; softmax where None.
        margin: the given margin; None: the default.
        scale: the given scale; None: the default.

    Raises:
        UsageError: the head is unknown, or has no margin or scale.
    """
    head = head or "softmax"
    check_choice("--head", head, tuple(HEADS))
    settings = {"margin": margin, "scale": scale}
    for name, value in settings.items():
        usual = getattr(HEADS[head], name)
        if value is not None and usual is None:
            raise UsageError(f"--{name} means nothing for --head {head}", f"leave --{name} out")
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} must be a positive number, not {value}", "leave it out for the default")
        settings[name] = usual if value is None else value
    return {"head": head, **settings}
