"""Lenses that OpenCV does not have, against what COLMAP computes, and their inverses."""

from __future__ import annotations

import numpy as np
import pytest

from scene.captures.colmap_files import MODELS
from scene.lens import Intrinsics, Lens, pinhole_of
from scene.lens_models import DivisionLens, FovLens, PrismFisheyeLens, UnifiedLens

POINTS = np.array([[0.31, -0.22], [-0.4, 0.15], [0.05, 0.6]])
PRISM = [0.02, -0.01, 0.003, -0.002, 0.004, -0.001, 0.002, -0.0015]
RAD_TAN = [0.02, -0.01, 0.003, -0.002, 0.001, -0.0005, 0.003, -0.002, 0.002, -0.001, 0.0015, 0.0005]
BY_COLMAP = {
    "FOV": ([0.7], [[0.3153745379, -0.2238141882], [-0.4043876889, 0.1516453833], [0.0491311187, 0.5895734241]]),
    "THIN_PRISM_FISHEYE": (
        PRISM,
        [[0.2962508862, -0.2100446255], [-0.380058116, 0.1427662937], [0.045373788, 0.5449260164]],
    ),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        RAD_TAN,
        [[0.2983998496, -0.211367069], [-0.3772918477, 0.1417132788], [0.0465441673, 0.5416802944]],
    ),
    "SIMPLE_DIVISION": (
        [-0.12],
        [[0.3048033106, -0.2163120269], [-0.39160389, 0.1468514588], [0.0479958653, 0.5759503838]],
    ),
    "DIVISION": ([-0.12], [[0.3048033106, -0.2163120269], [-0.39160389, 0.1468514588], [0.0479958653, 0.5759503838]]),
    "SIMPLE_FISHEYE": (
        [],
        [[0.2962427249, -0.2102367725], [-0.3780267527, 0.1417600323], [0.0450062744, 0.5400752927]],
    ),
    "FISHEYE": ([], [[0.2962427249, -0.2102367725], [-0.3780267527, 0.1417600323], [0.0450062744, 0.5400752927]]),
    "EUCM": ([0.6, 1.1], [[0.2963877295, -0.210339679], [-0.3782604516, 0.1418476693], [0.0450607729, 0.5407292744]]),
}
"""Parameters, and where COLMAP 4.2.1 (pycolmap's ``img_from_cam``) images the points, for focal length 1."""


@pytest.mark.parametrize("name", BY_COLMAP)
def test_lenses_image_as_colmaps_do(name: str) -> None:
    values, expected = BY_COLMAP[name]
    model = next(model for model in MODELS if model.name == name)
    focal = [1.0, 1.0] if "fx" in model.parameters else [1.0]
    intrinsics, lens = model.camera((400, 300), [*focal, 0.0, 0.0, *values], "here")
    assert intrinsics == Intrinsics(1, 1, 0, 0, 400, 300)
    assert lens.distort(POINTS) == pytest.approx(np.array(expected), abs=1e-9)


LENSES = {
    "fov": FovLens(omega=0.9),
    "division": DivisionLens(k=-0.2),
    "pincushion": DivisionLens(k=0.1),
    "unified": UnifiedLens(alpha=0.6, beta=1.1),
    "prism": PrismFisheyeLens(angular=(0.02, -0.01), tangential=(0.002, 0.001), prism=(0.001, 0.002, -0.001, 0.0)),
    "eighth power": Lens(k1=-0.1, r8=0.3),
}


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_they_can_be_undone(lens: Lens) -> None:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))
    assert lens.undistort(lens.distort(points)) == pytest.approx(points, abs=1e-7)
    assert lens.bends
    pinhole = pinhole_of(lens, Intrinsics(310.0, 305.0, 205.0, 148.0, 400, 300))
    assert (pinhole.width, pinhole.height) == (400, 300)


def test_parameters_of_nothing_bend_nothing() -> None:
    for lens in (FovLens(), DivisionLens(), UnifiedLens()):
        assert lens.distort(POINTS) == pytest.approx(POINTS, abs=1e-12)


def test_what_a_division_lens_cannot_image_has_no_image() -> None:
    """With k of 0.1 nothing beyond a radius of 1.58 is imaged."""
    lens = DivisionLens(k=0.1)
    assert np.isnan(lens.distort(np.array([[1.7, 0.0]]))).all()
    assert lens.max_radius == pytest.approx(0.5 / np.sqrt(0.1), abs=2e-3)
