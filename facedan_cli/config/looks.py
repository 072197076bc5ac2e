"""Changes of source images in training: what `--augment` and `--restyle-by` may name."""

from __future__ import annotations

from collections.abc import Mapping

from facedan_cli.errors import UsageError, did_you_mean

AUGMENTATIONS: Mapping[str, str] = {
    "contrast": "contrast, brightness and gamma",
    "grey": "grey instead of colour",
    "blur": "Gaussian blur",
    "resolution": "fewer pixels, scaled up again",
    "noise": "Gaussian noise",
    "jpeg": "compression",
}
"""The kinds of --augment, in the order in which they change an image: light, lens, sensor and file."""

RESTYLINGS: Mapping[str, str] = {
    "resolution": "fall of the spectrum, by resolution and blur",
    "amplitude": "amplitudes of low frequencies; Yang and Soatto 2020",
    "statistics": "mean and standard deviation of each channel",
    "histogram": "histogram of each channel",
}
"""The looks that restyle gives source images, in the order in which they are given."""


def kinds_of(option: str, text: str, known: Mapping[str, str]) -> tuple[str, ...]:
    """The kinds in a text such as "blur,noise", in the order of `known`; all of them for "all", none for "none".

    Raises:
        UsageError: one is unknown, or there is none.
    """
    if text in ("all", "none"):
        return tuple(known) if text == "all" else ()
    asked = [kind.strip() for kind in text.split(",")]
    for kind in asked:
        if kind not in known:
            raise UsageError(f"{option} does not know '{kind}'", did_you_mean(kind, [*known, "all", "none"]))
    return tuple(kind for kind in known if kind in asked)


def spelling_of(option: str, text: str, known: Mapping[str, str]) -> str:
    """The one spelling of kinds, so that equal settings are one run.

    >>> spelling_of("--augment", "jpeg, blur", AUGMENTATIONS)
    'blur,jpeg'

    Raises:
        UsageError: as `kinds_of`.
    """
    kinds = kinds_of(option, text, known)
    return "all" if len(kinds) == len(known) else ",".join(kinds) or "none"
