"""Our own keys in a capture file, which anyone may edit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene.camera import orbit_camera
from scene.errors import InputError
from scene.metadata import checked_metadata
from scene.view import View
from scene.viewset import ViewSet

VIEW = View("a", orbit_camera(0.0, 0.0, size=8), np.full((8, 8, 4), 255, np.uint8))
EYE = np.eye(4).tolist()
SOUND: dict[str, Any] = {
    "format": "nerfstudio",
    "normalised": True,
    "region": {"centre": [0, 0.5, -1], "radius": 2},
    "world_from_file": np.diag([2.0, 2, 2, 1]).tolist(),
    "normalised_from_world": EYE,
    "applied_transform": EYE,
    "applied_scale": 0.5,
    "warnings": ["dark"],
    "notes": [],
    "cutout_confidence": 1,
    "symmetry": {"used": True, "reason": "found", "heading_deg": 3.0, "confidence": 0.9, "lettering": 0.0},
    "of others": {"a": [1, None]},
}


def scaled(factor: float) -> list[list[float]]:
    return np.diag([factor, factor, factor, 1.0]).tolist()


FAULTS = {
    "normalised": ["yes", 1, [], {}],
    "region": [
        [],
        {"centre": [0, 0, 0]},
        {"centre": [0, 0], "radius": 1},
        {"centre": "abc", "radius": 1},
        {"centre": [0, 0, math.nan], "radius": 1},
        {"centre": [0, 0, 0], "radius": 0},
        {"centre": [0, 0, 0], "radius": "1"},
        {"centre": [0, 0, 0], "radius": 1e300},
        {"centre": [0, True, 0], "radius": 1},
    ],
    "world_from_file": ["x", [], EYE[:3], scaled(0), scaled(1e300), [["1"] * 4] * 4, scaled(math.nan), [EYE] * 4],
    "normalised_from_world": [7, {}, np.ones((4, 4)).tolist(), scaled(math.inf), np.eye(3).tolist()],
    "applied_transform": [scaled(0), [[1, 2], [3]], "0"],
    "applied_scale": [0, -1, "2", True, [1], 1e300, 10**400, math.inf],
    "warnings": ["dark", [1], {"a": "b"}, 7],
    "notes": ["dark", [None]],
    "cutout_confidence": ["high", 2, math.nan, [1]],
    "symmetry": ["none", {"used": "no", "reason": ""}, {"used": True, "reason": "given"}, {"used": False, "reason": 7}],
    "of others": [math.nan, [[math.inf]], {"a": {"b": -math.inf}}],
}
CASES = [(key, value) for key, values in FAULTS.items() for value in values]


def test_sound_keys_are_kept_and_null_is_nothing(tmp_path: Path) -> None:
    assert checked_metadata(SOUND, tmp_path) == SOUND
    assert checked_metadata({**SOUND, **dict.fromkeys(FAULTS)}, tmp_path) == {"format": "nerfstudio"}


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{key} {str(value)[:30]}" for key, value in CASES])
def test_keys_of_another_kind_are_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"t\.json: viewloom\.{key} .*(Mend|invertible)"):
        checked_metadata({**SOUND, key: value}, tmp_path / "t.json")


def test_a_capture_with_such_a_key_is_refused_when_it_is_read(tmp_path: Path) -> None:
    ViewSet((VIEW,), True, SOUND).save(tmp_path)
    assert ViewSet.load(tmp_path).metadata == {k: v for k, v in SOUND.items() if k != "notes"}
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["viewloom"]["applied_scale"] = "two"
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"viewloom\.applied_scale is 'two', not a positive number"):
        ViewSet.load(tmp_path)


@pytest.mark.parametrize("weight", [-1, 1e300])
def test_views_have_weights_within_reason(tmp_path: Path, weight: float) -> None:
    ViewSet((VIEW,), True).save(tmp_path)
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["frames"][0]["viewloom_weight"] = weight
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="frame 0: viewloom_weight must be from 0 to"):
        ViewSet.load(tmp_path)


@pytest.mark.parametrize("name", ["n" * 300, "ä" * 200, "a/" * 3 + "n" * 5000])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    ViewSet((VIEW,), True).save(tmp_path)
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["frames"][0]["file_path"] = name
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"frame 0: file_path is a name of .* which no file has"):
        ViewSet.load(tmp_path)
