"""Traits of identities, views and styles: the parameters of `facedan_cli.synthetic.render`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np

Range: TypeAlias = tuple[float, float]


def _range(low: float, high: float) -> dict[str, Range]:
    return {"range": (low, high)}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The traits of an identity, the same in all its images.

    Lengths are in half head heights, heights are positive downwards; shares run from 0 to 1. The metadata of a field is
    the range from which `draw_identity` draws it.
    """

    head_width: float = field(metadata=_range(0.66, 0.80))
    jaw_taper: float = field(metadata=_range(0.02, 0.30))
    jaw_power: float = field(metadata=_range(2.2, 4.6))  # low: oval, high: square
    chin_length: float = field(metadata=_range(-0.07, 0.09))
    chin_depth: float = field(metadata=_range(-0.02, 0.14))
    cheekbone: float = field(metadata=_range(0.0, 0.09))
    cheek_fullness: float = field(metadata=_range(-0.07, 0.06))
    fold_depth: float = field(metadata=_range(0.0, 0.035))
    ear_size: float = field(metadata=_range(0.04, 0.13))
    eye_spacing: float = field(metadata=_range(0.27, 0.36))
    eye_height: float = field(metadata=_range(-0.02, 0.08))
    eye_length: float = field(metadata=_range(0.115, 0.16))
    eye_opening: float = field(metadata=_range(0.045, 0.08))
    eye_tilt: float = field(metadata=_range(-0.025, 0.03))
    socket_depth: float = field(metadata=_range(0.04, 0.11))
    iris_shade: float = field(metadata=_range(0.0, 1.0))  # dark brown to pale blue
    brow_height: float = field(metadata=_range(0.14, 0.24))  # above the eye
    brow_length: float = field(metadata=_range(0.15, 0.23))
    brow_thickness: float = field(metadata=_range(0.02, 0.05))
    brow_arch: float = field(metadata=_range(-0.01, 0.07))
    brow_tilt: float = field(metadata=_range(-0.06, 0.06))
    brow_darkness: float = field(metadata=_range(0.6, 1.0))
    brow_ridge: float = field(metadata=_range(0.0, 0.05))
    nose_length: float = field(metadata=_range(0.34, 0.48))  # below the eye
    nose_width: float = field(metadata=_range(0.09, 0.17))
    nose_depth: float = field(metadata=_range(0.13, 0.27))
    nose_bridge: float = field(metadata=_range(0.03, 0.13))
    nose_bend: float = field(metadata=_range(-0.025, 0.025))
    mouth_height: float = field(metadata=_range(0.15, 0.25))  # below the nose
    mouth_width: float = field(metadata=_range(0.20, 0.31))
    upper_lip: float = field(metadata=_range(0.02, 0.065))
    lower_lip: float = field(metadata=_range(0.035, 0.085))
    lip_redness: float = field(metadata=_range(0.3, 0.9))
    mouth_curve: float = field(metadata=_range(-0.025, 0.025))
    skin_shade: float = field(metadata=_range(0.0, 1.0))  # pale to dark
    skin_redness: float = field(metadata=_range(0.0, 1.0))
    skin_patches: float = field(metadata=_range(0.03, 0.16))
    freckles: float = field(metadata=_range(-0.5, 0.6))  # none below zero
    hair_shade: float = field(metadata=_range(0.0, 1.0))  # black to fair
    hair_warmth: float = field(metadata=_range(0.0, 1.0))
    hair_volume: float = field(metadata=_range(0.01, 0.16))
    hair_length: float = field(metadata=_range(-0.6, 1.5))  # down to this y behind the head
    hairline: float = field(metadata=_range(-0.86, -0.42))
    hairline_slant: float = field(metadata=_range(-0.35, 0.35))
    hairline_peak: float = field(metadata=_range(-0.08, 0.10))
    temple: float = field(metadata=_range(0.52, 0.80))
    sideburn: float = field(metadata=_range(-0.2, 0.45))
    beard: float = field(metadata=_range(-1.0, 0.7))  # none below zero
    neck_width: float = field(metadata=_range(0.34, 0.52))
    marks: tuple[tuple[float, float, float, float], ...]  # moles: u, v, radius, darkness
    texture_seed: int  # hair strands, skin patches and freckles


@dataclass(frozen=True, kw_only=True)
class View:
    """The view of one image: pose, expression, light, camera."""

    yaw: float  # degrees, > 0: the nose turns to image right; up to 35 either way
    pitch: float  # degrees, > 0: looks up
    roll: float  # degrees, > 0: clockwise
    smile: float  # -1 … 1
    mouth_open: float  # 0 … 1
    brow_raise: float  # -1 … 1
    eye_open: float  # 0 closed … 1 as in the identity … 1.3 wide
    gaze: float  # -1 … 1, > 0: to image right
    light_azimuth: float  # degrees, > 0: from image right
    light_elevation: float  # degrees, > 0: from above
    light_hardness: float  # share of the light that comes from its direction; the rest is ambient
    exposure: float  # gain on linear light
    gamma: float  # exponent on the encoded image, > 1: darker middle tones
    contrast: float  # about mid-grey, 1: unchanged
    veil: float  # share of additive haze
    warmth: float  # log gain of red over blue
    tint: float  # log gain of green
    blur: float  # Gaussian sigma, pixels of a 160-pixel image
    noise: float  # Gaussian sigma, grey levels of 255
    jpeg_quality: float  # 1 … 100
    scale: float  # 1: the head is 72 % of the image's height
    offset_x: float  # share of the image, > 0: to the right
    offset_y: float  # share of the image, > 0: down
    backdrop: float  # mean reflectance of the background
    clutter: float  # 0 plain … 1 busy background
    grey: bool
    seed: int  # background, clothes and noise


@dataclass(frozen=True, kw_only=True)
class Style:
    """A style of images: a range (low, high) for each nuisance of `View`, and two probabilities."""

    yaw: Range
    pitch: Range
    roll: Range
    smile: Range
    mouth_open: Range
    brow_raise: Range
    eye_open: Range
    gaze: Range
    light_azimuth: Range
    light_elevation: Range
    light_hardness: Range
    exposure: Range
    gamma: Range
    contrast: Range
    veil: Range
    warmth: Range
    tint: Range
    blur: Range
    noise: Range
    jpeg_quality: Range
    scale: Range
    offset_x: Range
    offset_y: Range
    backdrop: Range
    clutter: Range
    light_both_sides: float  # probability that the light's azimuth is mirrored
    grey: float  # probability of a grey image


WEB = Style(
    yaw=(-25, 25),
    pitch=(-12, 12),
    roll=(-8, 8),
    smile=(-0.3, 1.0),
    mouth_open=(-0.6, 0.6),
    brow_raise=(-0.5, 0.8),
    eye_open=(0.7, 1.15),
    gaze=(-0.6, 0.6),
    light_azimuth=(-35, 35),
    light_elevation=(5, 45),
    light_hardness=(0.3, 0.6),
    exposure=(0.85, 1.35),
    gamma=(0.9, 1.15),
    contrast=(0.9, 1.15),
    veil=(0.0, 0.05),
    warmth=(-0.12, 0.18),
    tint=(-0.05, 0.05),
    blur=(0.0, 0.7),
    noise=(0.0, 4.0),
    jpeg_quality=(70, 98),
    scale=(0.85, 1.1),
    offset_x=(-0.05, 0.05),
    offset_y=(-0.04, 0.04),
    backdrop=(0.05, 0.7),
    clutter=(0.2, 1.0),
    light_both_sides=0.0,
    grey=0.0,
)

STUDIO = Style(
    yaw=(-8, 8),
    pitch=(-6, 6),
    roll=(-4, 4),
    smile=(-0.2, 0.4),
    mouth_open=(-0.6, 0.2),
    brow_raise=(-0.3, 0.4),
    eye_open=(0.75, 1.1),
    gaze=(-0.3, 0.3),
    light_azimuth=(25, 50),
    light_elevation=(0, 35),
    light_hardness=(0.5, 0.7),
    exposure=(0.7, 1.5),
    gamma=(0.9, 1.2),
    contrast=(0.5, 1.0),
    veil=(0.0, 0.5),
    warmth=(0.0, 0.0),
    tint=(0.0, 0.0),
    blur=(0.2, 0.8),
    noise=(1.0, 3.0),
    jpeg_quality=(60, 95),
    scale=(0.9, 1.05),
    offset_x=(-0.03, 0.03),
    offset_y=(-0.03, 0.03),
    backdrop=(0.03, 0.5),
    clutter=(0.0, 0.1),
    light_both_sides=0.5,
    grey=1.0,
)


def draw_identity(rng: np.random.Generator) -> Identity:
    """A random identity, each trait uniform in its range."""
    traits: dict[str, Any] = {f.name: rng.uniform(*f.metadata["range"]) for f in fields(Identity) if f.metadata}
    marks = tuple(
        (rng.uniform(-0.5, 0.5), rng.uniform(-0.45, 0.85), rng.uniform(0.012, 0.03), rng.uniform(0.4, 0.9))
        for _ in range(rng.integers(0, 5))
    )
    return Identity(**traits, marks=marks, texture_seed=int(rng.integers(2**31)))


def draw_view(rng: np.random.Generator, style: Style) -> View:
    """A random view in a style, each nuisance uniform in its range.

    The same generator state gives the same quantiles in every style, so styles can be compared image by image.
    """
    ranges = {f.name: getattr(style, f.name) for f in fields(Style) if f.name not in ("light_both_sides", "grey")}
    nuisances: dict[str, Any] = {name: rng.uniform(*span) for name, span in ranges.items()}
    if rng.random() < style.light_both_sides:
        nuisances["light_azimuth"] *= -1
    return View(**nuisances, grey=bool(rng.random() < style.grey), seed=int(rng.integers(2**31)))


def between(mild: Style, hard: Style, severity: float) -> Style:
    """The style between `mild` (severity 0) and `hard` (severity 1), in every range and probability.

    Raises:
        ValueError: severity is outside [0, 1].
    """
    if not 0 <= severity <= 1:
        raise ValueError(f"severity must lie in [0, 1], not {severity}")

    def mix(a: Any, b: Any) -> Any:
        if isinstance(a, tuple):
            return tuple(mix(x, y) for x, y in zip(a, b, strict=True))
        return (1 - severity) * a + severity * b

    return Style(**{f.name: mix(getattr(mild, f.name), getattr(hard, f.name)) for f in fields(Style)})
