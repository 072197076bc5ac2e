"""A check of the folders of a tree: in some data sets identities lie a level deeper, as train/IDENTITY."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from facedan_cli.data.dataset import FaceDataset
from facedan_cli.errors import FacedanError
from facedan_cli.report import Report
from facedan_cli.workspace import Dataset

_NO_IDENTITIES = re.compile(
    r"(train(ing)?|trn|test(ing)?|tst|val(id(ation)?)?|dev(elopment)?|eval(uation)?|split|part|fold|session|set|data|raw"
    r"|gallery|probes?|query|queries|images?|imgs?|faces?|photos?|pictures?|aligned|cropped)(set)?"
)
"""Names of folders that hold identity folders."""


@dataclass(frozen=True)
class Levels:
    """The two upper levels of folders of a tree.

    Args:
        first: the first folders.
        below: folders in which most images lie, deeper than these.
        surely: whether the names of the first ones are those of no identities.
    """

    first: Sequence[str]
    below: Sequence[str]
    surely: bool


def deeper_identities(folder: FaceDataset) -> Levels | None:
    """The levels of a tree whose identities seem to lie below its first folders; None if they do not.

    They do where most images lie deeper, and the first folders have names of divisions (train, test), or hold more
    folders each than there are first ones.
    """
    inside = [path for path in folder.paths if "/" in path]
    deep = [path for path in inside if path.count("/") > 1]
    if 2 * len(deep) <= len(inside):
        return None
    first = sorted({path.partition("/")[0] for path in inside})
    below = sorted({path.rpartition("/")[0] for path in deep})
    surely = all(_NO_IDENTITIES.fullmatch(re.sub("[^a-z]", "", name.casefold())) for name in first)
    return Levels(first, below, surely) if surely or len(below) > len(first) ** 2 else None


def check_levels(dataset: Dataset, folder: FaceDataset) -> None:
    """Raise an error if a tree's first folders seem to be divisions, not identities.

    Raises:
        FacedanError: it is one.
    """
    levels = deeper_identities(folder) if dataset.root.is_dir() else None
    if levels is not None and levels.surely:
        raise FacedanError(_what(dataset, levels, "would be taken for"), _fix(dataset, levels))


def warn_of_levels(report: Report, dataset: Dataset, folder: FaceDataset) -> None:
    """Warn where identities seem to lie a level deeper."""
    levels = deeper_identities(folder) if dataset.root.is_dir() else None
    if levels is not None:
        report.warn(f"{_what(dataset, levels, 'are taken for')}; if they are not: {_fix(dataset, levels)}")


def _what(dataset: Dataset, levels: Levels, are: str) -> str:
    some = ", ".join(levels.first[:3]) + (", …" if len(levels.first) > 3 else "")
    identities = "1 identity" if len(levels.first) == 1 else f"{len(levels.first)} identities"
    return (
        f"identity folders seem to lie a level deeper in '{dataset.name}': its first folders ({some}) {are} "
        f"{identities}, but most images lie in {len(levels.below)} folders below them, such as {levels.below[0]}"
    )


def _fix(dataset: Dataset, levels: Levels) -> str:
    within = dataset.root / levels.first[0]
    return f"name the directory of identity folders, such as {within}, or a list of path<TAB>identity"
