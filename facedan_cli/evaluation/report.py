"""report.html: an evaluation on one page that needs no network."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2

from facedan_cli.config.protocols import PROTOCOLS
from facedan_cli.data.images import UnreadableImage, read_image
from facedan_cli.evaluation import text_tables as tables
from facedan_cli.evaluation.error_examples import ErrorExample
from facedan_cli.evaluation.result import EvaluateResult, draw, write_results
from facedan_cli.figures.page import Face, Figure, Gallery, Page, Pair, write_page
from facedan_cli.workspace import make_directory

THUMBNAIL = 128
"""Longest side of a face on the page, pixels."""

CURVES = {
    "roc": "ROC: verification rate over false accept rate",
    "det": "DET: false reject rate over false accept rate",
    "scores": "Distributions of genuine and impostor scores",
    "cmc": "CMC: identification rate over rank",
}


def write_evaluation(result: EvaluateResult, examples: Sequence[ErrorExample] = ()) -> EvaluateResult:
    """Draw the curves and write the page, the tables and, at last, summary.json.

    Args:
        result: the result of the evaluation.
        examples: errors to show on the page as pairs of faces.

    Returns:
        The results, with a warning where the curves could not be drawn: that costs no rates.
    """
    make_directory(result.directory)
    drawn: Mapping[str, str] = {}
    try:
        drawn = draw(result)
    except Exception as error:  # matplotlib wants a directory of its own, and a disk may be full
        logging.getLogger("facedan").warning("the curves could not be drawn: %s", error)
        result = replace(result, warnings=[*result.warnings, f"the curves could not be drawn: {error}"])
    write_report(result, examples, drawn)
    write_results(result)
    return result


def write_report(result: EvaluateResult, examples: Sequence[ErrorExample], drawn: Mapping[str, str]) -> None:
    """Write the page into the results directory.

    Args:
        result: the result on the page.
        examples: errors to show as pairs of faces.
        drawn: SVG of each figure, as `draw` returns them.
    """
    names = ", ".join(model.name for model in result.models)
    shown = [
        tables.main_table(result),
        tables.failures_table(result),
        tables.differences_table(result),
        tables.points_table(result),
    ]
    page = Page(
        title=f"{PROTOCOLS[result.protocol].title}: {names}",
        lead=list(_lead(result)),
        warnings=result.warnings,
        tables=[found for found in shown if found is not None],
        figures=[Figure(CURVES[name], svg, f"{CURVES[name]}, of {names}") for name, svg in drawn.items()],
        galleries=_galleries(examples),
        provenance=dict(_flat(result.provenance)),
    )
    write_page(result.page, page)


def _lead(result: EvaluateResult) -> Iterator[str]:
    config = result.config
    if result.verifies:
        rule = "the largest with at most floor(FAR × impostors) false accepts" if config.convention == "max-tar" else ""
        yield f"Verification rate in per cent, convention {config.convention}" + (f": {rule}." if rule else ".")
    else:
        yield "Identification rate in per cent; ties count against the mate."
    yield {
        "bootstrap": f"In brackets 95 % intervals: {config.replicates} bootstrap replicates over subjects, "
        f"seed {config.seed}.",
        "wilson": "In brackets 95 % Wilson intervals, which take comparisons of one subject to be independent.",
        "none": "No intervals were asked for.",
    }[config.ci]
    if result.set_aside is not None:
        yield f"Images that could not be used are listed in {result.set_aside.name}."


def _galleries(examples: Sequence[ErrorExample]) -> list[Gallery]:
    face = cache(_face)
    galleries = []
    for (model, partition, kind), group in groupby(examples, key=lambda one: (one.model, one.partition, one.kind)):
        where = model if partition == "all" else f"{model}, {partition}"
        what = {
            "false accept": "different subjects that score highest",
            "false reject": "images of one subject that score lowest",
        }[kind]
        pairs = [
            Pair(face(one.files[0]), face(one.files[1]), one.score, kind if one.wrong else f"no {kind}, but nearest")
            for one in group
        ]
        galleries.append(Gallery(f"{where}: {what}", pairs))
    return galleries


def _face(path: Path) -> Face:
    name = "/".join(path.parts[-2:])
    try:
        image = read_image(path)
    except UnreadableImage:
        return Face(name, None)
    scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))
    return Face(name, encoded.tobytes())


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested facts as pairs of texts, such as "versions torch" and "2.11"."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
