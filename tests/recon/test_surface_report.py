"""Reports of surfaces: what is written reads back, also what earlier versions wrote."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.surface import Surface
from recon.surface_report import MapReport, SurfaceReport, ViewsReport

NUMBER = st.none() | st.floats(0, 1)
MAPS = st.fixed_dictionaries(
    {
        "depth": st.integers(0, 9),
        "normal": st.integers(0, 9),
        "left_out": st.lists(st.text(max_size=3), max_size=3).map(tuple),
        "ignored": st.booleans(),
    }
)
REPORTS = st.fixed_dictionaries(
    {
        "kept": st.sampled_from(["fit", "hull", "stereo", "coarse volume"]),
        "masked": st.booleans(),
        "hull_threshold": NUMBER,
        "mask_consistency": NUMBER,
        "fit_silhouette_iou": NUMBER,
        "hull_silhouette_iou": NUMBER,
        "losses": st.dictionaries(st.sampled_from(["colour", "mask"]), st.floats(0, 9)),
        "shading": st.just(()) | st.tuples(*[st.floats(-1, 1)] * 3),
        "specular": NUMBER,
        "exposures": st.just(()) | st.tuples(*[st.floats(0.5, 2)] * 2),
        "depth_fraction": NUMBER,
        "flat_base": st.booleans(),
        "reason": st.none() | st.text(max_size=5),
        "views": st.none() | st.builds(ViewsReport, st.integers(1, 9), st.integers(1, 9)),
    }
)


@given(REPORTS, st.none() | MAPS)
def test_reports_come_back_through_json(values: dict[str, Any], maps: dict[str, Any] | None) -> None:
    report = SurfaceReport(**values, maps=None if maps is None else MapReport(**maps))
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert SurfaceReport.from_dict(written) == report
    assert None not in written.values()


def test_only_what_stands_in_for_a_fit_is_a_fall_back() -> None:
    assert [SurfaceReport(kept).fell_back for kept in ("fit", "stereo", "hull", "coarse volume")] == [
        False,
        False,
        True,
        True,
    ]


OLD = {
    "kept": "hull",
    "vote": 0.85,
    "mask_agreement": 0.97,
    "fit_outline_iou": 0.9,
    "hull_outline_iou": 0.95,
    "loss_colour": 0.02,
    "loss_mask": 0.1,
    "light": [0.1, 0.2, -0.1],
    "gloss": 0.05,
    "exposures": [0.9, 1.1],
    "depth_maps": 3,
    "normal_maps": 1,
    "depth_maps_left_out": ["b"],
    "base": "cut flat below what views see",
    "reason": "the masks have no common inside",
}
NEW = SurfaceReport(
    "hull",
    True,
    0.85,
    0.97,
    0.9,
    0.95,
    {"colour": 0.02, "mask": 0.1},
    (0.1, 0.2, -0.1),
    0.05,
    (0.9, 1.1),
    MapReport(3, 1, ("b",)),
    None,
    True,
    "the masks have no common inside",
)


def test_what_earlier_versions_wrote_is_read() -> None:
    assert SurfaceReport.from_dict(OLD) == NEW
    stereo = SurfaceReport.from_dict({"kept": "stereo", "masks": "none", "known": 0.4, "depth_maps": 2})
    assert stereo == SurfaceReport("stereo", masked=False, maps=MapReport(2), depth_fraction=0.4)
    assert SurfaceReport.from_dict({"maps": "not used"}) == SurfaceReport(maps=MapReport(ignored=True))
    assert SurfaceReport.from_dict({"written by": "a later version"}) == SurfaceReport()


def test_surfaces_of_earlier_versions_are_read(tmp_path: Path) -> None:
    data = io.BytesIO()
    np.savez(
        data,
        sdf=np.ones((2, 2, 2), np.float32),
        colour=np.full((2, 2, 2, 3), 255, np.uint8),
        low=np.zeros(3),
        voxel=np.float64(0.1),
        gloss=np.ones((15, 3), np.float32),
        facts=np.array(json.dumps(OLD)),
    )
    (tmp_path / "old.npz").write_bytes(data.getvalue())
    surface = Surface.load(tmp_path / "old.npz")
    assert surface.report == NEW
    assert surface.specular is not None
    assert (surface.specular.coefficients == 1).all()
    surface.save(tmp_path / "new.npz")
    assert Surface.load(tmp_path / "new.npz").report == NEW


@pytest.mark.parametrize("values", [{"losses": 3}, {"shading": ["x"]}, {"maps": {"depth": "many", "normal": 0}}])
def test_values_of_other_types_are_errors(values: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)):
        SurfaceReport.from_dict(values)
