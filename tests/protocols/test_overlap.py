from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from facedan_cli.protocols.gbu import read_gbu
from facedan_cli.protocols.overlap import Overlap, overlap
from facedan_cli.protocols.sigset import Record, read_sigset

LFW = [Record("Al_Gore", "Al_Gore/Al_Gore_0001"), Record("Al_Gore", "Al_Gore/Al_Gore_0002"), Record("Ed", "Ed/Ed_0001")]
ORL = [Record(f"s{subject}", f"s{subject}/{image}.pgm") for subject in (2, 4) for image in (1, 2)]
GBU = [Record("nd1S04530", "Query/04530d235.jpg"), Record("nd1S02463", "Target/02463d689.jpg")]


@pytest.mark.parametrize(
    ("images", "records", "expected"),
    [
        (["somewhere/04530D235.png"], GBU, Overlap(("somewhere/04530D235.png",), ("nd1S04530",))),
        (["04530d240.png", "04999d1.png"], GBU, Overlap((), ("nd1S04530",))),
        (["nd1s02463/holiday.jpg"], GBU, Overlap((), ("nd1S02463",))),
        (["al_gore/7.jpg", "Eda/8.jpg"], LFW, Overlap((), ("Al_Gore",))),
        (["faces/Al_Gore_0009.jpg", r"faces\Ed_0001.jpg"], LFW, Overlap((r"faces\Ed_0001.jpg",), ("Al_Gore", "Ed"))),
        (["s1/1.pgm", "s3/2.pgm"], ORL, Overlap((), ())),  # base names that every directory has tell nothing
        (["s1/1.pgm", "s4/9.pgm"], ORL, Overlap((), ("s4",))),
        (["1.jpg", "2.jpg"], ORL, Overlap((), ())),
        ([], LFW, Overlap((), ())),
        (["a/b.jpg"], [], Overlap((), ())),
    ],
)
def test_what_names_tell(images: list[str], records: list[Record], expected: Overlap) -> None:
    assert overlap(images, records) == expected


def test_digits_that_are_not_subjects_are_not_taken() -> None:
    dated = [Record("a", "20240101_1.jpg"), Record("b", "20240101_2.jpg"), Record("b", "20240102_1.jpg")]
    assert overlap(["20240101_9.jpg"], dated) == Overlap((), ())


def test_real_gbu_training_sets_show_nobody_of_a_partition(shared_data: Path) -> None:
    partitions = read_gbu(shared_data / "gbu").values()
    records = list(chain.from_iterable((*part.target, *part.query) for part in partitions))
    for name in ("x1", "x2", "x4", "x8"):
        images = [
            record.file_name for record in read_sigset(shared_data / "gbu" / f"GBU_Training_Uncontrolled{name}.xml")
        ]
        assert overlap(images, records) == Overlap((), ())
    # An image of somebody of a partition, by a number that no list has, is found.
    known = records[0]
    assert overlap([f"{known.file_name.rpartition('/')[2][:5]}d9999.jpg"], records).subjects == (known.subject,)
