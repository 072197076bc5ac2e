"""View 2 of Labeled Faces in the Wild: ten folds of pairs, for accuracy by cross-validation (Huang et al. 2007)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.pairs import Pair, read_pairs

FOLDS, PAIRS_PER_KIND = 10, 300
"""View 2 has ten folds of 300 pairs of one subject and 300 of two."""


def read_view2(path: Path) -> list[Pair]:
    """Read pairs.txt of View 2, or another list in its form with at least two folds (CFP, AgeDB, a part of LFW).

    Raises:
        FacedanError: as `read_pairs`; the list has fewer than two folds, or a pair compares an image with itself.
    """
    pairs = read_pairs(path)
    folds = len({pair.fold for pair in pairs})
    if folds < 2:
        raise FacedanError(
            f"{path} has no folds, but the threshold for a fold is chosen on the others",
            "Give LFW's pairs.txt, whose first line is '10 300'; lists without folds are for `facedan evaluate pairs`.",
        )
    for pair in pairs:
        if pair.a == pair.b:
            raise FacedanError(f"{path} compares {pair.a} with itself", "Take the list from its distribution again.")
    return pairs


def is_view2(pairs: list[Pair]) -> bool:
    """Whether a list has the shape of View 2; rates of others are not comparable with reported ones."""
    return Counter((pair.fold, pair.same) for pair in pairs) == {
        (fold, same): PAIRS_PER_KIND for fold in range(FOLDS) for same in (True, False)
    }
