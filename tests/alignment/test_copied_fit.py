from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Notes

from facedan_cli.alignment.align import align
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.landmark_fit import landmark_fit
from facedan_cli.embedding.alignment import misfits

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def raw(tmp_path: Path, shared_data: Path) -> Path:
    """Images of LFW, by links."""
    for image in sorted(shared_data.glob("lfw/*/*_0001.jpg"))[::25]:
        link = tmp_path / "raw" / image.parent.name / image.name
        link.parent.mkdir(parents=True)
        link.symlink_to(image)
    return tmp_path / "raw"


def aligned_as(raw: Path, template: str) -> Path:
    """The images aligned to a template at 112 pixels, with nothing that says so."""
    out = raw.parent / template
    align(AlignConfig(raw=raw, out=out, template=template, size=112, workers=1, device="cpu"))
    for name in ("aligned.jsonl", "align.json", ".lock"):
        (out / name).unlink()
    return out


def stated(raw: Path, out: str) -> AlignConfig:
    return AlignConfig(raw=raw, out=raw.parent / out, no_align=True, template="arcface5", workers=1, device="cpu")


def test_faces_on_the_stated_template_are_not_warned_of(raw: Path) -> None:
    config, notes = stated(aligned_as(raw, "arcface5"), "copies"), Notes()
    align(config, notes)
    assert notes.warnings == []
    fit = landmark_fit(config.out)
    assert fit.copied
    assert fit.faces >= 20
    assert fit.eye_distance == pytest.approx(1, abs=0.08)
    assert misfits({"gate": config.out}) == []


def test_faces_on_another_template_than_is_stated_are_warned_of_by_every_command(raw: Path) -> None:
    config, notes = stated(aligned_as(raw, "dlib"), "copies"), Notes()
    align(config, notes)
    (warning,) = notes.warnings
    assert "do not seem to be on arcface5" in warning
    (later,) = misfits({"gate": config.out})
    assert "another template than is stated" in str(later)
    assert "without --no-align" in later.command

    settings = (config.out / "align.json").read_bytes()
    again = Notes()
    align(config, again)  # the same, of what is recorded
    assert again.warnings == notes.warnings
    assert (config.out / "align.json").read_bytes() == settings
    unknown = Notes()
    align(replace(config, template=None, out=raw.parent / "given"), unknown)
    assert unknown.warnings == []  # nothing is stated
    assert "landmark_fit" not in json.loads((raw.parent / "given" / "align.json").read_text())


@pytest.mark.parametrize("entry", [5, {}, {"faces": "many", "eye_distance": 1, "spread": 0}])
def test_an_odd_record_counts_as_none(tmp_path: Path, entry: object) -> None:
    (tmp_path / "aligned.jsonl").write_text("")
    (tmp_path / "align.json").write_text(json.dumps({"landmark_fit": entry}))
    assert landmark_fit(tmp_path) is None
