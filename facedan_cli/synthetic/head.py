"""The surface of an invented head.

A head is a cylindrical relief, as in a laser scan (Blanz and Vetter 1999, "A morphable model for the synthesis of 3D
faces"): for every angle around the vertical axis and every height there is a radius, an elliptic cross-section plus
Gaussian bumps and hollows for nose, sockets, lips and so on.

Lengths are in half head heights: the crown lies near v = -1, the chin near v = 1, and u is the arc length from the
midline at a mean radius. Image axes: x to the right, y down, z towards the camera.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from facedan_cli.synthetic.traits import Identity, View

Array: TypeAlias = npt.NDArray[Any]  # float32 throughout

MEAN_RADIUS = 0.75  # turns an angle around the head into the arc length u
ANGLE_SPAN, HEIGHT_SPAN = 2.2, 1.25  # half extent of the relief: radians and half head heights


class Head(NamedTuple):
    """The visible surface of a head at each pixel; every array has the shape of the image."""

    u: Array
    v: Array
    depth: Array  # z
    hair: Array  # cover, 0 … 1
    texture: Array  # relative change of reflectance
    present: Array  # whether the pixel meets the head

    def crop(self, box: tuple[slice, slice]) -> Head:
        """The part of the head in a part of the image."""
        return Head(*(array[box] for array in self))


def see_head(who: Identity, view: View, x: Array, y: Array) -> Head:
    """The intersection of each pixel's ray with the turned head.

    A fixed-point iteration: the depth gives the height v, and with the angle it gives the radius, which gives a better
    depth and angle. Half steps keep it from hopping to and fro where hair overhangs the face.

    Args:
        who: the identity.
        view: pose and expression.
        x: right of the head's centre for each pixel, half head heights, shape (h, w).
        y: below the head's centre, same shape.
    """
    yaw, pitch, roll = np.radians([view.yaw, view.pitch, view.roll]).astype(np.float32)
    radii, hair, texture = _surface(who, view, len(x))
    rows, columns = radii.shape
    x, y = np.cos(roll) * x + np.sin(roll) * y, np.cos(roll) * y - np.sin(roll) * x

    def lookup(surface: Array) -> Array:
        column = (angle + ANGLE_SPAN) * ((columns - 1) / (2 * ANGLE_SPAN))
        row = (v + HEIGHT_SPAN) * ((rows - 1) / (2 * HEIGHT_SPAN))
        return cv2.remap(surface, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    radius: Array = np.full_like(x, 0.8)
    z: Array = np.sqrt(np.maximum(0.7 - x * x, 0))
    for _ in range(5):
        v = (y + z * np.sin(pitch)) / np.cos(pitch)
        angle = np.arcsin(np.clip(x / radius, -1, 1)) - yaw
        radius = 0.5 * (radius + np.maximum(lookup(radii), 1e-3))
        z = np.sqrt(np.maximum(radius * radius - x * x, 0))
    return Head(
        u=angle * np.float32(MEAN_RADIUS),
        v=v,
        depth=v * np.sin(pitch) + z * np.cos(pitch),
        hair=lookup(hair),
        texture=lookup(texture),
        present=lookup(radii) > np.abs(x),
    )


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Normal noise of unit variance on a grid of cells, interpolated to a shape."""
    return cv2.resize(rng.standard_normal(cells, dtype=np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)


def _surface(who: Identity, view: View, size: int) -> tuple[Array, Array, Array]:
    """Radius, hair cover and texture over a grid of angle (columns, ±ANGLE_SPAN) and height (rows, ±HEIGHT_SPAN)."""
    shape = (size, round(1.4 * size))
    angle = np.linspace(-ANGLE_SPAN, ANGLE_SPAN, shape[1], dtype=np.float32)[None, :]
    v = np.linspace(-HEIGHT_SPAN, HEIGHT_SPAN, shape[0], dtype=np.float32)[:, None]
    u = angle * np.float32(MEAN_RADIUS)
    hair = _hair_cover(who, u, v)
    crown, chin = 1 + 0.8 * who.hair_volume, 1 + who.chin_length + 0.06 * view.mouth_open
    up, down = np.clip(-v / crown, 0, 1), np.clip(v / chin, 0, 1)
    taper = 1 - who.jaw_taper * _smoothstep(down)
    width = who.head_width * taper * np.sqrt((1 - down**who.jaw_power) * (1 - up**2.4)) + 1e-4
    length = 0.84 * (1 - 0.06 * down) * np.sqrt((1 - down**7) * (1 - up**2.6)) + 1e-4
    radius = 1 / np.sqrt((np.sin(angle) / width) ** 2 + (np.cos(angle) / length) ** 2)
    closing = np.minimum(2 * np.sqrt((1 - down**7) * (1 - up**2.4)), 1)  # no relief where the ends close
    volume = who.hair_volume * cv2.GaussianBlur(hair, (0, 0), 0.05 * size, sigmaY=0.015 * size)
    radius = radius + closing * (_relief(who, view, u, v) * (1 - hair) + volume)

    rng = np.random.default_rng(who.texture_seed)
    skin = who.skin_patches * smooth_noise(rng, (14, 20), shape)
    if who.freckles > 0:
        cheeks = np.exp(-(((v - who.eye_height - 0.22) / 0.25) ** 2)) * np.exp(-((u / 0.6) ** 2))
        skin -= who.freckles * cheeks * np.clip(smooth_noise(rng, (90, 126), shape) - 0.7, 0, 1)
    strands = 0.3 * smooth_noise(rng, (7, 77), shape)
    return radius.astype(np.float32), hair, (skin + hair * (strands - skin)).astype(np.float32)


def _relief(who: Identity, view: View, u: Array, v: Array) -> Array:
    """Bumps and hollows of the face on a grid, u of shape (1, n), v of shape (m, 1)."""
    a = np.abs(u)
    nose_v = who.eye_height + who.nose_length
    mouth_v = nose_v + who.mouth_height
    drop = 0.06 * view.mouth_open
    fold = who.fold_depth * (1 + 0.8 * view.smile)

    def bump(height: float, across: Array, along: Array, wide: float, tall: float) -> Array:
        shape: Array = height * np.exp(-((across / wide) ** 2)) * np.exp(-((along / tall) ** 2))
        return shape

    relief = bump(who.brow_ridge, a - 0.22, v - who.eye_height + 0.17, 0.22, 0.08)
    relief -= bump(who.socket_depth, a - who.eye_spacing + 0.03, v - who.eye_height, 0.16, 0.10)
    relief += bump(0.035, a - who.eye_spacing, v - who.eye_height, 0.085, 0.07)  # eyeball
    relief -= bump(0.05, a - 0.85, v - who.eye_height + 0.05, 0.15, 0.2)  # temple
    relief += bump(who.cheekbone, a - 0.46, v - who.eye_height - 0.26, 0.17, 0.13)
    relief += bump(who.cheek_fullness, a - 0.42, v - mouth_v + 0.02, 0.17, 0.22)
    relief += bump(0.025 + 0.03 * view.smile, a - 0.33, v - nose_v, 0.12, 0.12)
    relief -= bump(fold, a - 0.2 - 0.35 * (v - nose_v), v - nose_v - 0.08, 0.035, 0.14)
    relief += bump(0.05, a, v - mouth_v, 0.26, 0.14)  # the muzzle that teeth make
    relief += bump(0.9 * who.upper_lip, a, v - mouth_v + 0.6 * who.upper_lip, 0.8 * who.mouth_width, 0.035)
    relief += bump(0.8 * who.lower_lip, a, v - mouth_v - 0.6 * who.lower_lip - drop, 0.65 * who.mouth_width, 0.04)
    relief -= bump(0.05, a, v - mouth_v - 1.6 * who.lower_lip - drop, 0.2, 0.045)
    relief += bump(0.05 + who.chin_depth, a, v - 0.88 - who.chin_length - drop, 0.2, 0.13)
    relief += bump(who.ear_size, a - np.pi / 2 * MEAN_RADIUS, v - 0.12, 0.07, 0.17)
    # The nose: a ridge that rises and widens from the bridge to the tip, then the wings.
    down = np.clip((v - who.eye_height + 0.06) / (who.nose_length + 0.02), 0, 1)
    ridge = who.nose_bridge * np.minimum(4 * down, 1) + (who.nose_depth - who.nose_bridge) * down**1.6
    ridge = ridge * np.exp(-((np.maximum(v - nose_v + 0.03, 0) / 0.05) ** 2))
    middle = u - who.nose_bend * np.sin(np.pi * down)
    relief += ridge * np.exp(-((middle / (0.055 + 0.45 * who.nose_width * down * down)) ** 2))
    relief += bump(0.07, a - 0.8 * who.nose_width, v - nose_v + 0.035, 0.05, 0.05)
    return relief


def _hair_cover(who: Identity, u: Array, v: Array) -> Array:
    """The share of hair cover at each point of a grid, 0 … 1."""
    a = np.abs(u)
    fringe = who.hairline + who.hairline_slant * u * (a < who.temple) + who.hairline_peak * np.exp(-((u / 0.12) ** 2))
    edge = fringe + (who.sideburn - fringe) * _smoothstep(np.clip((a - who.temple) / 0.16, 0, 1))
    cover: Array = np.clip(0.5 + (edge - v) / 0.07, 0, 1).astype(np.float32)
    return cover


def _smoothstep(t: Array) -> Array:
    ramp: Array = t * t * (3 - 2 * t)
    return ramp
