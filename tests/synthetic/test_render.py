from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.alignment.detector import Detector
from facedan_cli.synthetic.head import see_head
from facedan_cli.synthetic.render import (
    STUDIO,
    WEB,
    Identity,
    Style,
    View,
    between,
    draw_identity,
    draw_view,
    render,
)

RANGES = [f.name for f in fields(Style) if f.name not in ("light_both_sides", "grey")]


def identity_of(seed: int) -> Identity:
    return draw_identity(np.random.default_rng(seed))


def symmetrical_identity() -> Identity:
    return replace(identity_of(3), nose_bend=0.0, hairline_slant=0.0, skin_patches=0.0, freckles=-1.0, marks=())


def plain_view(**changes: float | bool | int) -> View:
    """Frontal, neutral, softly lit from the front, a perfect camera."""
    rng = np.random.default_rng(0)
    neutral = dict.fromkeys(RANGES, 0.0) | {
        "eye_open": 1.0,
        "light_elevation": 15.0,
        "light_hardness": 0.5,
        "exposure": 1.0,
        "gamma": 1.0,
        "contrast": 1.0,
        "jpeg_quality": 100.0,
        "scale": 1.0,
        "backdrop": 0.2,
    }
    style = replace(WEB, **{name: (value, value) for name, value in neutral.items()})
    return replace(draw_view(rng, style), **changes)


def face(image: np.ndarray) -> np.ndarray:
    """The middle of the face of an upright, centred image of 160 pixels, as floats."""
    return image[50:130, 50:110].astype(float)


@pytest.mark.parametrize("style", [WEB, STUDIO], ids=["web", "studio"])
def test_same_seed_same_pixels(style: Style) -> None:
    first, second = (
        render(draw_identity(rng), draw_view(rng, style))
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert first.dtype == np.uint8
    assert first.shape == (160, 160, 3)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("style", "mean", "deviation"), [(WEB, 133.72, 52.11), (STUDIO, 136.80, 27.98)], ids=["web", "studio"]
)
def test_images_stay_what_they_were(style: Style, mean: float, deviation: float) -> None:
    """Frozen figures: whoever changes the drawing changes every published number of the demo, and should know it."""
    rng = np.random.default_rng(2018)
    images = np.stack([render(draw_identity(rng), draw_view(rng, style)) for _ in range(8)])
    assert images.mean() == pytest.approx(mean, abs=0.3)
    assert images.std() == pytest.approx(deviation, abs=0.3)


def test_identities_differ_more_than_images_of_one_identity() -> None:
    identities = [identity_of(seed) for seed in range(30)]
    gallery = [face(render(who, plain_view())) for who in identities]
    changed = plain_view(yaw=2.0, light_azimuth=5.0, exposure=1.05, noise=4.0, blur=0.5, seed=9)
    probes = [face(render(who, changed)) for who in identities]
    distances = np.array([[np.abs(probe - known).mean() for known in gallery] for probe in probes])
    np.testing.assert_array_equal(distances.argmin(axis=1), np.arange(len(identities)))


def test_identities_differ_in_more_than_colour() -> None:
    same_paint = {"skin_shade": 0.3, "skin_redness": 0.5, "skin_patches": 0.0, "hair_shade": 0.3, "beard": -1.0}
    grey = plain_view(grey=True)
    identities = [replace(identity_of(seed), **same_paint) for seed in range(6)]
    images = [face(render(who, grey)) for who in identities]
    noise = np.abs(images[0] - face(render(identities[0], replace(grey, noise=4.0)))).mean()
    apart = [np.abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]]
    assert min(apart) > 1.5 * noise


def test_light_brightens_its_side_and_mirrors() -> None:
    who = symmetrical_identity()
    left = face(render(who, plain_view(light_azimuth=-60.0, light_hardness=0.8)))
    right = face(render(who, plain_view(light_azimuth=60.0, light_hardness=0.8)))
    assert left[:, :30].mean() > left[:, 30:].mean() + 20
    assert right[:, 30:].mean() > right[:, :30].mean() + 20
    assert np.abs(left - right[:, ::-1]).mean() < 1.5


def test_nose_casts_a_shadow_away_from_the_light() -> None:
    """Growing a nose darkens the cheek behind it, and leaves the cheek towards the light as it was."""
    flat = replace(symmetrical_identity(), nose_depth=0.0, nose_bridge=0.0)
    nosed = replace(flat, nose_depth=0.25, nose_bridge=0.1)
    view = plain_view(light_azimuth=65.0, light_hardness=0.8)
    loss = face(render(flat, view)) - face(render(nosed, view))
    beside_nose = slice(30, 45)
    assert loss[beside_nose, 11:19].mean() > 8
    assert abs(loss[beside_nose, 41:49].mean()) < 3


@pytest.mark.parametrize("sign", [-1, 1])
def test_yaw_moves_the_nose_against_the_eyes(sign: int) -> None:
    who = symmetrical_identity()
    axis = (np.arange(200, dtype=np.float32) - 99.5) / 70
    x, y = np.meshgrid(axis, axis)

    def nose_offset(yaw: float) -> float:
        head = see_head(who, plain_view(yaw=yaw), x, y)

        def column(u: float, v: float) -> float:
            return float(x.flat[np.argmin(np.where(head.present, np.hypot(head.u - u, head.v - v), np.inf))])

        eyes = [column(side * who.eye_spacing, who.eye_height) for side in (-1, 1)]
        return column(0.0, who.eye_height + who.nose_length - 0.04) - sum(eyes) / 2

    assert abs(nose_offset(0.0)) < 0.02
    assert sign * nose_offset(sign * 20.0) > 0.05


def test_pitch_and_roll_turn_the_way_they_say() -> None:
    who = symmetrical_identity()
    axis = (np.arange(200, dtype=np.float32) - 99.5) / 70
    x, y = np.meshgrid(axis, axis)

    def nose(view: View) -> np.ndarray:
        head = see_head(who, view, x, y)
        nearest = np.argmin(np.where(head.present, np.hypot(head.u, head.v - who.eye_height - who.nose_length), np.inf))
        return np.array([x.flat[nearest], y.flat[nearest]])

    straight = nose(plain_view())
    assert nose(plain_view(pitch=10.0))[1] < straight[1] - 0.1
    assert nose(plain_view(roll=10.0))[0] < straight[0] - 0.05  # clockwise: what is below the centre goes left


def test_expression_opens_the_mouth_and_shuts_the_eyes() -> None:
    who = replace(symmetrical_identity(), beard=-1.0, skin_shade=0.0)
    neutral = face(render(who, plain_view()))
    for change in ({"mouth_open": 0.6}, {"smile": 1.0}, {"eye_open": 0.0}, {"brow_raise": 1.0}, {"gaze": 1.0}):
        changed = np.abs(face(render(who, plain_view(**change))) - neutral).mean(axis=(1, 2))
        upper, lower = changed[:30].sum(), changed[30:].sum()
        assert (upper > 3 * lower) == (change.keys() <= {"eye_open", "brow_raise", "gaze"}), change


def test_camera_nuisances_act() -> None:
    who = identity_of(1)
    plain = render(who, plain_view()).astype(float)
    assert render(who, plain_view(exposure=1.5)).mean() > plain.mean() + 10
    assert render(who, plain_view(gamma=1.5)).mean() < plain.mean() - 10
    assert render(who, plain_view(contrast=0.5)).std() == pytest.approx(plain.std() / 2, rel=0.05)
    assert render(who, plain_view(veil=0.4)).min() > plain.min() + 50
    assert render(who, plain_view(warmth=0.2))[..., 0].mean() > plain[..., 0].mean() + 3
    grey, noisy = (render(who, plain_view(grey=True, noise=sigma)).astype(float) for sigma in (0.0, 8.0))
    assert (noisy - grey).std() == pytest.approx(8, rel=0.1)
    edges, soft_edges = (cv2.Laplacian(p, cv2.CV_64F).std() for p in (plain, render(who, plain_view(blur=1.5))))
    assert soft_edges < 0.5 * edges


@pytest.mark.parametrize("blur", [0.0, 2.5])
def test_same_view_at_another_size(blur: float) -> None:
    who, view = identity_of(2), plain_view(blur=blur, yaw=12.0, light_azimuth=30.0)
    small = cv2.resize(render(who, view, 320), (160, 160), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - render(who, view, 160)).mean() < 1.2


@given(st.integers(0, 2**32 - 1))
def test_views_stay_in_their_style(seed: int) -> None:
    for style in (WEB, STUDIO):
        view = draw_view(np.random.default_rng(seed), replace(style, light_both_sides=0.0))
        for name in RANGES:
            low, high = getattr(style, name)
            assert low <= getattr(view, name) <= high, name


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_light_comes_from_both_sides_as_often_as_asked(share: float) -> None:
    rng = np.random.default_rng(0)
    style = replace(STUDIO, light_both_sides=share)
    from_left = np.mean([draw_view(rng, style).light_azimuth < 0 for _ in range(400)])
    assert from_left == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("seed", range(4))
def test_grey_images_have_equal_channels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    who = draw_identity(rng)
    grey = render(who, draw_view(rng, STUDIO))
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, axis=-1))
    assert np.ptp(render(who, draw_view(rng, WEB)).astype(int), axis=-1).max() > 10


def test_between_meets_both_styles_and_their_middle() -> None:
    assert between(WEB, STUDIO, 0.0) == WEB
    assert between(WEB, STUDIO, 1.0) == STUDIO
    middle = between(WEB, STUDIO, 0.5)
    assert middle.grey == 0.5
    assert middle.light_azimuth == pytest.approx(np.mean([WEB.light_azimuth, STUDIO.light_azimuth], axis=0))
    with pytest.raises(ValueError, match=r"severity must lie in \[0, 1\]"):
        between(WEB, STUDIO, 1.1)


@pytest.mark.parametrize("style", [WEB, STUDIO], ids=["web", "studio"])
def test_a_face_detector_takes_them_for_faces(style: Style) -> None:
    rng = np.random.default_rng(11)
    views = [draw_view(rng, style) for _ in range(10)]
    found = Detector(torch.device("cpu"), min_face=40).detect([render(draw_identity(rng), view) for view in views])
    for view, faces in zip(views, found, strict=True):
        left, top, right, bottom = faces[0].box
        centre = np.array([(left + right) / 2, (top + bottom) / 2])
        np.testing.assert_allclose(centre, 160 * np.array([0.5 + view.offset_x, 0.56 + view.offset_y]), atol=16)
