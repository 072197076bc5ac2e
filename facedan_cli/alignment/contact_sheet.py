"""The contact sheet of aligned faces, the least certain first, for a look before training."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facedan_cli.alignment.index import digest64, last_of_each
from facedan_cli.data.manifest import AlignedRecord, read_record, read_with_places
from facedan_cli.data.templates import TEMPLATES
from facedan_cli.workspace import replacing

FACES = 100
COLUMNS = 10
TILE = 180
CAPTION = 34
MARGIN = 12
HEADING = 30
FINER = 2
"""Factor of the tile on which marks are drawn before it is reduced; their edges become smooth."""

PAPER, INK, PALE = "#ffffff", "#202020", "#707070"
REFERENCE, FOUND = "#00e0ff", "#ff3020"


def write_contact_sheet(path: Path, manifest: Path) -> int:
    """Draw the FACES least certain faces, with their points and those of the template.

    Args:
        path: the image to write; its suffix names the format.
        manifest: an aligned.jsonl beside its faces.

    Returns:
        How many faces are on it.

    Raises:
        OSError: it cannot be written.
    """
    places, total = _least_certain(manifest)
    records = [read_record(manifest, place) for place in places]
    faces = [(record, face) for record in records if (face := _face(manifest.parent, record))]
    rows = -(-len(faces) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * (TILE + MARGIN) - MARGIN
    sheet = Image.new("RGB", (width, HEADING + MARGIN + rows * (TILE + CAPTION + MARGIN)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _heading(draw, len(faces), total)
    for index, (record, face) in enumerate(faces):
        row, column = divmod(index, COLUMNS)
        x, y = MARGIN + column * (TILE + MARGIN), HEADING + MARGIN + row * (TILE + CAPTION + MARGIN)
        sheet.paste(_tile(record, face), (x, y))
        _caption(draw, record, x, y + TILE + 2)
    with replacing(path) as temporary:
        sheet.save(temporary)
    return len(faces)


def _least_certain(manifest: Path) -> tuple[list[int], int]:
    """Offsets of the manifest's lines to show, and the number of faces."""
    keys, places, certainties = array("Q"), array("Q"), array("d")
    for place, record in read_with_places(manifest, []):
        keys.append(digest64(record.path))
        places.append(place)
        # Detected faces come first, then faces with given landmarks; failed images are left out.
        certainty = 2.0 if record.probability is None else record.probability
        certainties.append(float("inf") if record.output is None else certainty)
    last = np.sort(last_of_each(np.frombuffer(keys, np.uint64)))
    certainty = np.frombuffer(certainties)[last]
    order = np.argsort(certainty, kind="stable")[:FACES]
    shown = last[order[np.isfinite(certainty[order])]]
    return [places[line] for line in shown], int(np.isfinite(certainty).sum())


def _face(root: Path, record: AlignedRecord) -> Image.Image | None:
    try:
        with Image.open(root / str(record.output), formats=("JPEG",)) as image:
            return image.convert("RGB")
    except OSError:  # removed since
        return None


def _tile(record: AlignedRecord, face: Image.Image) -> Image.Image:
    """A face with the template's points as crosses and its own points as dots."""
    side = TILE * FINER
    tile = face.resize((side, side), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(tile)
    if record.template in TEMPLATES:
        for x, y in TEMPLATES[record.template].shown(record.size, side, record.fitted or 3).tolist():
            for dx, dy in ((8, 0), (0, 8)):
                draw.line((x - dx, y - dy, x + dx, y + dy), REFERENCE, 2)
    if record.points is not None and record.transform is not None:
        matrix = np.array(record.transform)
        points = np.array(list(record.points.values())) @ matrix[:, :2].T + matrix[:, 2]
        for x, y in ((points + 0.5) * (side / record.size) - 0.5).tolist():
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), FOUND)
    return tile.resize((TILE, TILE), Image.Resampling.LANCZOS)


def _heading(draw: ImageDraw.ImageDraw, shown: int, total: int) -> None:
    text = f"{shown} of {total} faces, the least certain first"
    draw.text((MARGIN, MARGIN), text, INK, _font(14, bold=True))
    x = MARGIN + draw.textlength(text, _font(14, bold=True)) + 24
    y = MARGIN + 8
    draw.line((x - 5, y, x + 5, y), REFERENCE, 2)
    draw.line((x, y - 5, x, y + 5), REFERENCE, 2)
    draw.text((x + 12, MARGIN + 1), "the template's eyes and mouth", PALE, _font(12))
    x += 12 + draw.textlength("the template's eyes and mouth", _font(12)) + 20
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), FOUND)
    draw.text((x + 10, MARGIN + 1), "the face's points", PALE, _font(12))


def _caption(draw: ImageDraw.ImageDraw, record: AlignedRecord, x: int, y: int) -> None:
    """Probability and attempt of the detection, and the image's path."""
    sure = "" if record.probability is None else f"{record.probability:.4f}"
    attempt = "" if record.source == "mtcnn" else str(record.source).removeprefix("mtcnn, ")
    draw.text((x, y), sure, INK, _font(12, bold=True))
    if attempt:
        indent = draw.textlength(sure + " ", _font(12, bold=True)) if sure else 0
        draw.text((x + indent, y + 2), _fitting(draw, attempt, TILE - indent), PALE, _font(10))
    draw.text((x, y + 16), _fitting(draw, record.path, TILE), PALE, _font(10))


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: float) -> str:
    """The text, without its beginning if it is too long; the end of a path tells more."""
    text = " ".join(text.encode(errors="replace").decode().split())
    if draw.textlength(text, _font(10)) <= width:
        return text
    while text and draw.textlength("…" + text, _font(10)) > width:
        text = text[1:]
    return "…" + text


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    import matplotlib

    # Matplotlib brings a font with it that knows most alphabets.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
