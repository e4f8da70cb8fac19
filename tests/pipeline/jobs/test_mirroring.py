"""When a photo is mirrored, and what comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.diffusion.modules.symmetry import SymmetryGuess
from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.settings import Image2MeshSettings, ViewsSettings
from pipeline.jobs.stages.mirroring import mirror_overlap, mirrored_photo
from scene.camera import orbit_camera
from scene.errors import SettingsError
from scene.view import View
from scene.viewset import ViewSet
from tests.pipeline.jobs.conftest import Done


@pytest.fixture
def photo() -> View:
    rgba = np.random.default_rng(0).integers(0, 255, (16, 16, 4)).astype(np.uint8)
    return View("photo", orbit_camera(0.0, 0.2, 1.5, size=16), rgba)


def guess(degrees: float, confidence: float = 0.97, sure: bool = True) -> SymmetryGuess:
    return SymmetryGuess(math.radians(degrees), confidence, sure)


def test_a_sure_plane_gives_the_flipped_photo_from_the_other_side(photo: View) -> None:
    done = mirrored_photo(photo, "auto", guess(5))
    assert done.view is not None
    assert done.view.origin == "mirrored"
    np.testing.assert_array_equal(done.view.rgba()[..., 3], photo.rgba()[:, ::-1, 3])
    assert done.view.weight == pytest.approx(0.5 * 0.97)
    azimuth = math.degrees(math.atan2(done.view.camera.centre[1], done.view.camera.centre[0]))
    assert azimuth % 360 == pytest.approx(190)
    assert done.as_dict()["used"]


@pytest.mark.parametrize(
    ("wanted", "found", "why"),
    [
        ("none", guess(5), "switched off"),
        ("auto", None, "does not look"),
        ("auto", guess(5, 0.6, sure=False), "certain"),
        ("auto", guess(85), "what the photo shows"),
        (90.0, None, "what the photo shows"),
    ],
)
def test_otherwise_there_is_none_and_it_is_said_why(
    photo: View, wanted: object, found: SymmetryGuess | None, why: str
) -> None:
    done = mirrored_photo(photo, wanted, found)  # type: ignore[arg-type]
    assert done.view is None
    assert why in done.as_dict()["reason"]
    assert not done.as_dict()["used"]
    # What the user asked for and did not get is said aloud.
    assert bool(done.warnings) == (wanted == 90.0)


def test_planes_that_are_likely_are_named_with_how_likely(photo: View) -> None:
    assert "--symmetry 41 (52% sure)" in mirrored_photo(photo, "auto", guess(41, 0.52, sure=False)).reason
    assert "--symmetry" not in mirrored_photo(photo, "auto", guess(41, 0.2, sure=False)).reason


def test_opposite_normals_are_one_setting() -> None:
    assert ViewsSettings(symmetry=-10.0) == ViewsSettings(symmetry=170.0) == ViewsSettings(symmetry=350.0)


def test_a_given_plane_overrules_the_model(photo: View) -> None:
    done = mirrored_photo(photo, 30.0, guess(5))
    assert done.heading_deg == pytest.approx(30)
    assert done.confidence == 1


def test_lettering_is_wiped_and_told(photo: View, monkeypatch: pytest.MonkeyPatch) -> None:
    where = np.zeros((16, 16), bool)
    where[4:8, 4:12] = True
    monkeypatch.setattr("pipeline.jobs.stages.mirroring.lettering", lambda rgba: where)
    done = mirrored_photo(photo, 0.0, None)
    assert done.view is not None
    assert done.lettering > 0
    assert "backwards" in done.warnings[0]
    assert (done.view.rgba()[where] != photo.rgba()[:, ::-1][where]).any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_headings_are_headings(value: float) -> None:
    with pytest.raises(SettingsError, match="heading"):
        ViewsSettings(symmetry=value)


def test_a_job_with_a_given_plane(done: Done, settings: Image2MeshSettings, tmp_path: Path) -> None:
    mirrored = replace(settings, views=replace(settings.views, symmetry=0.0))
    result = image2mesh([done.photo], tmp_path, mirrored)[0]
    if result.error is not None:
        raise result.error
    views = ViewSet.load(tmp_path / "toy" / "views")
    assert [view.origin for view in views] == ["photo", *["generated"] * (len(views.views) - 2), "mirrored"]
    manifest = json.loads((tmp_path / "toy" / "manifest.json").read_text())
    assert manifest["symmetry"] == {
        "used": True,
        "reason": "given",
        "heading_deg": 0.0,
        "confidence": 1.0,
        "lettering": manifest["symmetry"]["lettering"],
    }
    assert result.evidence is not None
    assert result.evidence.mirrored > 0
    assert done.result.evidence is not None
    assert done.result.evidence.mirrored == 0
    report = (tmp_path / "toy" / "report.html").read_text()
    assert "plane given at 0 degrees" in report


def test_a_model_that_does_not_look_for_planes_says_so(done: Done) -> None:
    manifest = json.loads((done.out / "toy" / "manifest.json").read_text())
    assert not manifest["symmetry"]["used"]
    assert "does not look" in manifest["symmetry"]["reason"]


def bar(degrees: float) -> np.ndarray:
    """A flat bar of 32 voxels that lies along an azimuth and has two vertical planes."""
    axis = (np.arange(32) + 0.5) / 32 * 1.2 - 0.6
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    along = x * math.cos(math.radians(degrees)) + y * math.sin(math.radians(degrees))
    across = -x * math.sin(math.radians(degrees)) + y * math.cos(math.radians(degrees))
    return ((np.abs(along) < 0.5) & (np.abs(across) < 0.08) & (np.abs(z) < 0.1)).astype(np.float32)


@pytest.mark.parametrize("along", [0.0, 35.0, 130.0])
def test_volumes_overlap_their_image_in_their_own_planes(along: float) -> None:
    occupancy = bar(along)
    assert mirror_overlap(occupancy, along) > 0.75
    assert mirror_overlap(occupancy, along + 90) > 0.75
    # Bars that cross at right angles share a square of .16 of two lengths of 1.
    assert mirror_overlap(occupancy, along + 45) == pytest.approx(0.16 / (2 - 0.16), abs=0.03)
    assert mirror_overlap(np.zeros((8, 8, 8), np.float32), 10.0) == 0


def test_a_given_plane_that_the_shape_contradicts_is_doubted(photo: View) -> None:
    occupancy = bar(20)
    wrong = mirrored_photo(photo, 65.0, None, occupancy)
    assert wrong.view is not None
    assert any("hardly fits" in text and "65 degrees" in text for text in wrong.warnings)
    for given in (20.0, 24.0, 110.0):
        assert not any("hardly fits" in text for text in mirrored_photo(photo, given, None, occupancy).warnings)
    assert not mirrored_photo(photo, "auto", guess(65), occupancy).warnings
    assert not mirrored_photo(photo, 65.0, None, np.zeros((8, 8, 8), np.float32)).warnings
