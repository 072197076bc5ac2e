"""Warnings about a protocol's comparisons: images compared with themselves, and images without a subject."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from facedan_cli.evaluation.trials import LeftOut, Trials


def remarks(trials: Mapping[str, Trials]) -> list[str]:
    """Warnings about the comparisons, each once for all its partitions.

    Args:
        trials: the comparisons by partition.
    """
    found: dict[str, list[str]] = {}
    for name, part in trials.items():
        for remark in _of(part):
            found.setdefault(remark, []).append(name)
    return [remark if names == ["all"] else f"{', '.join(names)}: {remark}" for remark, names in found.items()]


def _of(trials: Trials) -> Iterator[str]:
    if trials.left_out:
        yield of_left_out(trials.left_out)
    if trials.failures.unlabelled:
        yield (
            f"{trials.failures.unlabelled} of the images that could not be aligned have no known subject: none of "
            "their comparisons is among the failures"
        )


def of_left_out(left_out: LeftOut) -> str:
    """The warning about comparisons of an image with itself."""
    some = f"{left_out.genuine + left_out.impostor} comparisons of an image with itself are left out"
    why = f"{left_out.images} images are there more than once, as links, copies or in two lists"
    more = f"; {left_out.impostor} of them under the names of two subjects" if left_out.impostor else ""
    probes = f"; {left_out.probes} probes have no other image of their subject to find" if left_out.probes else ""
    return f"{some} ({why}{more}{probes})"
