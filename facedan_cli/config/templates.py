"""The table of alignment templates, a row each. It imports no NumPy, for the command line's sake."""

from __future__ import annotations

from collections.abc import Mapping

Point = tuple[float, float]

TEMPLATE_POINTS: Mapping[str, tuple[Point, Point, Point]] = {
    "vggface": ((98.65, 118.60), (151.09, 118.31), (125.21, 178.99)),
    "lfw": ((104.7, 112.5), (145.1, 111.7), (125.6, 156.9)),
    "arcface": ((85.48, 115.39), (164.13, 114.96), (125.31, 205.99)),
}
"""Left eye, right eye (the image's) and mouth in an aligned image of 250×250, (x, y) in pixels.

The paper gives no coordinates. `vggface` is ArcFace's template in the frame that VGG-Face pipelines use, `lfw` the mean
over LFW, `arcface` ArcFace's template as it is.
"""
