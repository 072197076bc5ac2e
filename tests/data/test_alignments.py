"""Whether faces are aligned as a network expects them, and how a checkpoint names what it learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from facedan_cli.config.models import NETWORKS
from facedan_cli.data.alignments import Alignment, alignment_of
from facedan_cli.data.manifest import ALIGNED, FAILED, AlignedRecord

MINI, RECOGNISER = NETWORKS["vggface-mini"], NETWORKS["iresnet50"]
CROPS = replace(RECOGNISER, template="arcface5-frame", image_size=128)


@pytest.mark.parametrize(
    ("label", "network", "expected"),
    [
        ("vggface", MINI, Alignment("vggface", 72, 3)),
        ("lfw", MINI, Alignment("lfw", 72, 3)),
        ("lfw:5", MINI, Alignment("lfw", 72, 5)),
        ("arcface5", RECOGNISER, Alignment("arcface5", 112, 5)),
        ("arcface5:3", RECOGNISER, Alignment("arcface5", 112, 3)),
        ("arcface5-frame", RECOGNISER, Alignment("arcface5-frame", 128, 5)),
        ("arcface5", MINI, Alignment("arcface5", 112, 5)),
        ("given", MINI, Alignment("given", 72, 3)),
    ],
)
def test_what_a_network_expects_of_a_template(label: str, network: object, expected: Alignment) -> None:
    found = Alignment.expected(label, network)
    assert found == expected
    assert found.label == label


@pytest.mark.parametrize(
    ("found", "label", "network", "suits"),
    [
        (Alignment("vggface", 250), "vggface", MINI, True),
        (Alignment("lfw", 250), "vggface", MINI, False),
        (Alignment("vggface", 250, 5), "vggface", MINI, False),
        (Alignment("arcface5", 112, 5), "arcface5", RECOGNISER, True),
        (Alignment("arcface5", 224, 5), "arcface5", RECOGNISER, True),
        (Alignment("arcface5", 250, 5), "arcface5", RECOGNISER, True),
        (Alignment("arcface5", 128, 5), "arcface5", RECOGNISER, False),  # InsightFace's 128×128 has a margin
        (Alignment("arcface5", 112, 3), "arcface5", RECOGNISER, False),
        (Alignment("arcface", 250), "arcface5", RECOGNISER, False),
        (Alignment("arcface", 250), "arcface5:3", RECOGNISER, True),  # the same under another name
        (Alignment("arcface5-frame", 128, 5), "arcface5", RECOGNISER, True),
        (Alignment("arcface5-frame", 256, 5), "arcface5", RECOGNISER, True),
        (Alignment("arcface5", 112, 5), "arcface5-frame", RECOGNISER, True),
        (Alignment("arcface5", 112, 5), "arcface5-frame", CROPS, True),
        (Alignment("arcface5", 112, 5), "arcface5-frame", MINI, False),  # it learnt the margin, and sees all
        (Alignment("arcface5-frame", 128, 5), "arcface5", MINI, False),
        (Alignment("dlib", 150, 5), "arcface5", RECOGNISER, False),
        (Alignment("given", 112), "given", MINI, True),
        (Alignment("given", 112), "vggface", MINI, False),
        (Alignment("template-of-2030", 112), "template-of-2030", MINI, True),
    ],
)
def test_faces_suit_by_the_part_that_they_show(found: Alignment, label: str, network: object, suits: bool) -> None:
    assert found.suits(Alignment.expected(label, network), network) is suits


def test_the_first_face_of_a_manifest_speaks_for_all(tmp_path: Path) -> None:
    facts = {"template": "arcface5", "size": 112, "bytes": 1, "modified": 1}
    manifest = tmp_path / "aligned.jsonl"
    assert alignment_of(manifest) is None
    lines = [
        AlignedRecord(path="a.jpg", status=FAILED, **facts),
        AlignedRecord(path="b.jpg", status=ALIGNED, output="b.jpg", fitted=5, **facts),
    ]
    manifest.write_text("damaged\n" + "".join(line.to_line() for line in lines))
    assert alignment_of(manifest) == Alignment("arcface5", 112, 5)
