"""The table of alignment templates, a row each. It imports no NumPy, for the command line's sake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]

POINT_COUNTS = (3, 5)
"""Numbers of points that may be fitted: eyes and centre of the mouth, or the five of `data.templates.POINT_NAMES`."""


@dataclass(frozen=True, kw_only=True)
class TemplateEntry:
    """Where a face lies in an aligned image.

    Args:
        points: left eye, right eye (the image's), nose, left and right corner of the mouth in an aligned image of
            `size`, (x, y) in pixels, 0 the centre of the first.
        size: side of the image that `points` are of, pixels; the default of `align --size`.
        fitted: how many points the similarity fits by default, of `POINT_COUNTS`.
        scaling: how an image of another size has them: "edge" scales about the image's corner, half a pixel outside
            the centre of the first; "centre" about the centre of the first pixel; "insightface" likewise, but a size
            that is a multiple of 128 and not of 112 is that of 128×128, whose face lies 8 pixels to the right.
        margin: what is cut away at each side of a larger image in which the face is drawn, as a share of the size.
        purpose: what it is for, in a phrase.
    """

    points: tuple[Point, ...]
    size: int
    fitted: int = 3
    scaling: Literal["edge", "centre", "insightface"] = "edge"
    margin: float = 0.0
    purpose: str


_ARCFACE: tuple[Point, ...] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)

TEMPLATES: Mapping[str, TemplateEntry] = {
    # The paper gives no coordinates: ArcFace's template in the frame that VGG-Face pipelines use.
    "vggface": TemplateEntry(
        points=((98.65, 118.60), (151.09, 118.31), (125.04, 148.42), (103.50, 179.11), (146.92, 178.87)),
        size=250,
        purpose="VGG-Face, and networks trained here",
    ),
    # The mean over LFW; nose and corners of the mouth are those of 310 of its images, moved to the mean mouth.
    "lfw": TemplateEntry(
        points=((104.7, 112.5), (145.1, 111.7), (124.8, 135.7), (107.8, 157.15), (143.4, 156.65)),
        size=250,
        purpose="images cropped as LFW's are",
    ),
    "arcface": TemplateEntry(
        points=((85.48, 115.39), (164.13, 114.96), (125.05, 160.12), (92.74, 206.17), (157.88, 205.81)),
        size=250,
        purpose="FaceNet; ArcFace's template fitted by three points",
    ),
    "arcface5": TemplateEntry(
        points=_ARCFACE,
        size=112,
        fitted=5,
        scaling="insightface",
        margin=1 / 14,
        purpose="published recognisers (ArcFace, AdaFace, MobileFaceNet, …), aligned as InsightFace does",
    ),
    "arcface5-frame": TemplateEntry(
        points=tuple((x + 8, y + 8) for x, y in _ARCFACE),
        size=128,
        fitted=5,
        scaling="centre",
        purpose="training them with random crops: arcface5 with a margin of 8 pixels",
    ),
    # Where MTCNN's points lie in dlib's own chips (padding 0.25): the means over 306 images of LFW. dlib's mean shape
    # has eyes at (47.0, 46.1) and (100.0, 46.1), nose (73.5, 76.1), mouth (49.9, 102.5) and (97.1, 102.5) there.
    "dlib": TemplateEntry(
        points=((46.85, 44.88), (100.85, 44.83), (73.30, 76.51), (50.17, 104.62), (97.37, 104.72)),
        size=150,
        fitted=5,
        purpose="dlib's ResNet: its face chip",
    ),
}
"""The templates by name."""
