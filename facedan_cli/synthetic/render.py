"""Faces of invented identities, lit and seen by a camera: numpy and OpenCV, no network, no download.

    rng = np.random.default_rng(0)
    who = draw_identity(rng)
    image = render(who, draw_view(rng, STUDIO))

`render` turns a height field of the head (`synthetic.head`), finds the point of it that each pixel sees, paints it,
lights the depth map (Lambert, ambient light, cast shadows) and passes the image through a simple camera. Light and
pose therefore act as they do on real faces: a nose casts a shadow, and it moves against the eyes when the head turns.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from facedan_cli.synthetic.head import Array, see_head, smooth_noise
from facedan_cli.synthetic.paint import add_body, paint_head
from facedan_cli.synthetic.traits import STUDIO, WEB, Identity, Style, View, between, draw_identity, draw_view

__all__ = ["STUDIO", "WEB", "Identity", "Style", "View", "between", "draw_identity", "draw_view", "render"]

HEAD_SHARE = 0.36  # half head height as a share of the image, at scale 1
REFERENCE_SIZE = 160  # blur is given in pixels of an image of this size, so that a view looks alike at every size
HAZE = 0.75  # encoded level of the veil
GREY_WEIGHTS = np.array([[0.40, 0.45, 0.15]])  # of a monochrome silicon sensor, which sees more red than the eye


def render(identity: Identity, view: View, size: int = 160) -> npt.NDArray[np.uint8]:
    """Render one image of an identity.

    Args:
        identity: the traits.
        view: pose, expression, light, camera and background.
        size: side of the image, pixels.

    Returns:
        RGB, shape (size, size, 3). With `view.grey` the three channels are equal.
    """
    rng = np.random.default_rng(view.seed)
    unit = HEAD_SHARE * view.scale * size  # pixels per half head height
    pixels = np.arange(size, dtype=np.float32) + 0.5
    x = np.broadcast_to((pixels - (0.5 + view.offset_x) * size) / unit, (size, size))
    y = np.broadcast_to((pixels - (0.48 + view.offset_y) * size)[:, None] / unit, (size, size))

    head = see_head(identity, view, x, y)
    box = _bounding_box(head.present)
    colour: Array = np.zeros((3, size, size), np.float32)
    colour[:, *box] = paint_head(identity, view, head.crop(box), 1 / unit)
    clothes = rng.uniform(0.03, 0.6, 3)
    colour, depth, present = add_body(identity, head, colour, clothes, x=x, y=y)
    alpha = cv2.GaussianBlur(present.astype(np.float32), (3, 3), 0.6)
    background = _background(view, size, rng)
    return _camera(view, background + (colour * _irradiance(view, depth, unit) - background) * alpha, rng)


def _bounding_box(mask: Array) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _irradiance(view: View, depth: Array, unit: float) -> Array:
    """The light on each pixel of a depth map, shape (h, w): a distant lamp with cast shadows, and ambient light.

    Ambient light is kept out of hollows, the cheap way: by how far a point lies below the mean of its neighbourhood.
    """
    azimuth, elevation = np.radians([view.light_azimuth, view.light_elevation])
    x, y, z = np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)
    surface = cv2.GaussianBlur(depth, (0, 0), 0.014 * unit)
    slope_x = cv2.Sobel(surface, cv2.CV_32F, 1, 0, ksize=3, scale=unit / 8)
    slope_y = cv2.Sobel(surface, cv2.CV_32F, 0, 1, ksize=3, scale=unit / 8)
    lamp = np.maximum(z.astype(np.float32) - slope_x * float(x) - slope_y * float(y), 0)
    lamp /= np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)

    # Along the way to the lamp, by how much (as a slope) does the surface stand above the ray?
    rise = np.zeros_like(surface)
    for way in (0.06, 0.1, 0.15, 0.21, 0.29, 0.4, 0.55, 0.75):
        shift = np.array([[1, 0, -way * x * unit], [0, 1, -way * y * unit]])
        ahead = cv2.warpAffine(surface, shift, surface.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        np.maximum(rise, (ahead - surface) / way - float(z), out=rise)
    lamp *= 1 - 0.85 * np.clip(3 * rise, 0, 1)

    hollow = cv2.GaussianBlur(surface, (0, 0), 0.09 * unit) - surface
    ambient = np.clip(1 - 2.5 * hollow, 0.5, 1.15)
    light: Array = (1 - view.light_hardness) * ambient + 1.6 * view.light_hardness * lamp
    return light


def _background(view: View, size: int, rng: np.random.Generator) -> Array:
    """A background of soft shapes in two paints, shape (3, size, size)."""
    paints = rng.uniform(0.6, 1.4, (2, 3, 1, 1)).astype(np.float32)
    coarse, fine, mixture = (smooth_noise(rng, cells, (size, size)) for cells in ((5, 5), (9, 7), (4, 6)))
    shade = view.backdrop * np.exp(view.clutter * (0.5 * coarse + 0.4 * np.clip(4 * fine, -1, 1)))
    share = np.clip(0.5 + 1.5 * view.clutter * mixture, 0, 1)
    image: Array = shade * (paints[0] + (paints[1] - paints[0]) * share)
    return image


def _camera(view: View, scene: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The camera's image: exposure, optics, encoding, haze, noise and JPEG, in this order; (3, h, w) → (h, w, 3)."""
    gains = view.exposure * np.exp([view.warmth, view.tint, -view.warmth])
    sensor = GREY_WEIGHTS * gains if view.grey else np.diag(gains)
    image: Array = np.einsum("sc,chw->hws", sensor.astype(np.float32), scene)
    shape = image.shape
    sigma = view.blur * len(image) / REFERENCE_SIZE
    if sigma > 0.05:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = cv2.pow(np.clip(image, 0, 1), view.gamma / 2.2).reshape(shape)
    slope = view.contrast * (1 - view.veil)
    level = 0.5 * (1 - view.contrast) * (1 - view.veil) + HAZE * view.veil
    grain = view.noise * rng.standard_normal(shape, dtype=np.float32)
    levels = np.clip(255 * slope * image + grain + (255 * level + 0.5), 0, 255).astype(np.uint8)
    _, stream = cv2.imencode(".jpg", levels, (cv2.IMWRITE_JPEG_QUALITY, round(view.jpeg_quality)))
    decoded = np.asarray(cv2.imdecode(stream, cv2.IMREAD_UNCHANGED), np.uint8).reshape(shape)
    return np.ascontiguousarray(np.broadcast_to(decoded, (*shape[:2], 3)))
