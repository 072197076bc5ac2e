"""The paint of an invented head, and the body behind it.

Colours are linear RGB reflectances, channel first. Lengths and axes are those of `synthetic.head`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from facedan_cli.synthetic.head import Array, Head
from facedan_cli.synthetic.traits import Identity, View

Colour: TypeAlias = Array | Sequence[float]


def paint_head(who: Identity, view: View, head: Head, pixel: float) -> Array:
    """Reflectance of a head, shape (3, h, w).

    Args:
        who: the identity.
        view: the expression.
        head: the surface points.
        pixel: the side of a pixel in half head heights; edges are one and a half of it soft.
    """
    skin, hair = _skin_colour(who), _hair_colour(who)
    canvas = _Canvas(head.u, head.v, 1.5 * pixel, skin)
    _paint_skin(who, canvas, skin, hair)
    _paint_brows(who, view, canvas, np.minimum(0.8 * hair, 0.16 * skin))
    _paint_eyes(who, view, canvas, skin)
    _paint_mouth(who, view, canvas, skin)
    canvas.blend(head.hair, hair)
    painted: Array = np.maximum(canvas.colour * (1 + head.texture), 0.003)
    return painted


def add_body(
    who: Identity, head: Head, colour: Array, clothes: Colour, *, x: Array, y: Array
) -> tuple[Array, Array, Array]:
    """Add long hair, neck and shoulders behind a painted head; the nearest surface is visible.

    Returns:
        Reflectance (3, h, w), depth (h, w), and where there is a body at all (h, w).
    """
    far = np.float32(-1.5)
    nearest = np.where(head.present, head.depth, far)
    x2 = x * x
    neck = np.sqrt(np.maximum(who.neck_width**2 - x2, 0)) - 0.05
    neck = np.where((neck > -0.05) & (y > 0.4), neck, far)
    top = 1.17 + 0.35 * x2
    torso = np.where(y > top, 0.1 + 0.5 * np.sqrt(np.maximum(y - top, 0)) - 0.25 * x2, far)
    reach = who.head_width + 0.5 * who.hair_volume + 0.12 * np.clip(y, 0, 1) * (who.hair_length - 0.6)
    across = x2 / (reach * reach)
    hanging = (across < 1) & (y > -0.4) & (y < who.hair_length - 0.3 * across * across)
    mane = np.where(hanging, 0.05 - 0.4 * across, far)
    for layer, paint in ((mane, _hair_colour(who)), (neck, 0.92 * _skin_colour(who)), (torso, clothes)):
        np.copyto(colour, np.asarray(paint, np.float32)[:, None, None], where=layer > nearest)
        nearest = np.maximum(nearest, layer)
    return colour, nearest, nearest > far


def _skin_colour(who: Identity) -> Array:
    pale, dark = np.array([0.66, 0.43, 0.33]), np.array([0.26, 0.15, 0.10])
    flush = 1 + (who.skin_redness - 0.5) * np.array([0.16, -0.14, -0.12])
    colour: Array = pale ** (1 - who.skin_shade) * dark**who.skin_shade * flush
    return colour


def _hair_colour(who: Identity) -> Array:
    """The colour of the hair, which is fair only with pale skin."""
    shade = 0.012 * 25 ** (who.hair_shade * (1 - 0.8 * who.skin_shade))
    colour: Array = shade * (1 + who.hair_warmth * np.array([0.7, 0.0, -0.6]))
    return colour


class _Canvas:
    """Reflectance of the surface points (u, v), shape (3, h, w), painted shape over shape."""

    def __init__(self, u: Array, v: Array, edge: float, ground: Colour) -> None:
        self.u, self.v, self.edge = u, v, edge
        self.a = np.abs(u)  # the two halves of a face are painted at once
        self.colour: Array = np.empty((3, *u.shape), np.float32)
        self.colour[:] = np.asarray(ground)[:, None, None]

    def inside(self, signed_distance: Array) -> Array:
        """A mask with an antialiased edge: 1 for positive distances, 0 for negative ones."""
        mask: Array = np.clip(0.5 + signed_distance / self.edge, 0, 1)
        return mask

    def blend(self, mask: Array, paint: Colour) -> None:
        """Cover a share `mask` of the present colours."""
        self.colour += (np.asarray(paint, np.float32)[:, None, None] - self.colour) * mask


def _paint_skin(who: Identity, canvas: _Canvas, skin: Array, hair: Array) -> None:
    u, v, a = canvas.u, canvas.v, canvas.a
    nose_v = who.eye_height + who.nose_length
    flush = np.exp(-(((a - 0.38) / 0.16) ** 2) - ((v - nose_v + 0.06) / 0.14) ** 2)
    canvas.blend(0.35 * who.skin_redness * flush, skin * [1.05, 0.75, 0.75])
    if who.beard > 0:
        jaw = np.clip((v - nose_v - 0.06 + 0.5 * np.maximum(a - 0.35, 0)) / 0.1, 0, 1)
        jaw *= 1 - 0.8 * np.exp(-((a / 0.2) ** 2) - ((v - nose_v - who.mouth_height - 0.02) / 0.06) ** 2)
        canvas.blend(who.beard * jaw * np.clip((a + v - 0.55) / 0.15, 0, 1), 1.3 * hair)
    for mark_u, mark_v, radius, darkness in who.marks:
        canvas.blend(darkness * canvas.inside(radius - np.hypot(u - mark_u, v - mark_v)), 0.25 * skin)
    nostril = np.hypot((a - 0.5 * who.nose_width) / 1.5, v - nose_v - 0.012)
    canvas.blend(0.8 * canvas.inside(0.022 - nostril), 0.12 * skin)


def _paint_brows(who: Identity, view: View, canvas: _Canvas, paint: Array) -> None:
    t = (canvas.a - who.eye_spacing + 0.02) / who.brow_length  # -1 at the nose … 1 at the temple
    middle = who.eye_height - who.brow_height - 0.05 * view.brow_raise
    centre = middle - who.brow_arch * (1 - t * t) + who.brow_tilt * t
    thickness = who.brow_thickness * (1 - 0.5 * np.clip(t + 0.2, 0, 1))
    ends = np.clip((1 - np.abs(t)) * 5, 0, 1)
    canvas.blend(who.brow_darkness * ends * canvas.inside(thickness - np.abs(canvas.v - centre)), paint)


def _paint_eyes(who: Identity, view: View, canvas: _Canvas, skin: Array) -> None:
    t = (canvas.a - who.eye_spacing) / who.eye_length  # -1 at the nose … 1 at the temple
    arc = np.maximum(1 - t * t, 0)
    ends = np.clip((1.08 - np.abs(t)) * 6, 0, 1)
    below = canvas.v - who.eye_height + who.eye_tilt * t
    upper = -who.eye_opening * (1.5 * view.eye_open - 0.5) * arc
    lower = 0.75 * who.eye_opening * arc
    crease = np.exp(-(((below + 1.5 * who.eye_opening * arc + 0.02) / 0.025) ** 2))
    bag = np.exp(-((t / 0.9) ** 2) - ((below - 1.9 * who.eye_opening) / 0.035) ** 2)
    canvas.blend(0.30 * ends * crease, 0.35 * skin)
    canvas.blend(0.25 * bag, 0.5 * skin)
    opened = canvas.inside(below - upper) * canvas.inside(lower - below) * ends
    canvas.blend(opened, np.minimum([0.36, 0.32, 0.30], 1.8 * skin))
    brown, blue = np.array([0.035, 0.017, 0.010]), np.array([0.16, 0.24, 0.30])
    gaze = 0.03 * view.gaze * np.sign(canvas.u)
    from_pupil = np.hypot(canvas.a - who.eye_spacing - gaze, below + 0.12 * who.eye_opening)
    canvas.blend(opened * canvas.inside(0.052 - from_pupil), brown ** (1 - who.iris_shade) * blue**who.iris_shade)
    canvas.blend(opened * canvas.inside(0.022 - from_pupil), (0.004, 0.004, 0.004))
    canvas.blend(0.9 * ends * canvas.inside(0.018 - np.abs(below - upper)), 0.06 * skin)
    canvas.blend(0.35 * ends * canvas.inside(0.008 - np.abs(below - lower)), 0.25 * skin)


def _paint_mouth(who: Identity, view: View, canvas: _Canvas, skin: Array) -> None:
    v = canvas.v
    opening = max(view.mouth_open, 0.0)
    t = canvas.u / (who.mouth_width * (1 + 0.18 * view.smile))
    arc = np.maximum(1 - t * t, 0)
    ends = np.clip((1.02 - np.abs(t)) * 8, 0, 1)
    line = who.eye_height + who.nose_length + who.mouth_height + (who.mouth_curve + 0.07 * view.smile) * (arc - 0.6)
    top, bottom = line - 0.02 * opening * arc, line + 0.13 * opening * arc
    cupid = arc * (1 - 0.25 * np.exp(-((t / 0.14) ** 2)))
    lips = canvas.inside(v - top + who.upper_lip * cupid) * canvas.inside(bottom + who.lower_lip * np.sqrt(arc) - v)
    canvas.blend(ends * lips, skin * (1 - who.lip_redness * np.array([0.42, 0.65, 0.6])))
    if opening < 0.1:
        canvas.blend(0.9 * ends * canvas.inside(0.011 - np.abs(v - line)), 0.1 * skin)
    else:
        gap = ends * canvas.inside(v - top) * canvas.inside(bottom - v)
        canvas.blend(gap, (0.03, 0.008, 0.008))
        canvas.blend(0.9 * gap * canvas.inside(top + 0.05 - v), (0.55, 0.52, 0.47))  # teeth
