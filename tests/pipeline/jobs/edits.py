"""The edit of a small body, which tests of edits share: its world, its poses, its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.settings import EditSettings, MeshSettings
from recon.export.glb_read import read_glb
from recon.settings import FitSettings
from scene.camera import apply_transform, normalising_transform
from scene.skeleton import Skeleton
from tests.bodies import body_of, standing

AWAY = np.array([[3.0, 0, 0, 5], [0, 3, 0, -2], [0, 0, 3, 40], [0, 0, 0, 1]])
"""Where the captured body stands: three times larger, far from the origin."""
SETTINGS = EditSettings(
    fit=FitSettings(levels=(16, 32), iterations=(2, 2), rays=256, image_side=64, hull_resolution=32),
    mesh=MeshSettings(max_faces=1500, texture=64, smoothing=2, turntable=(48, 4)),
    view_side=48,
)
STAGES = ["views", "surface", "asset", "edit", "edited-views"]
UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
"""The left arm, from sideways, to point up."""


@dataclass
class Made:
    """An edit that was made, not to be written to."""

    capture: Path
    out: Path
    result: ItemResult
    heard: Any


def pose(*arms: str) -> Skeleton:
    """The body with some arms raised, in the capture's world."""
    turns = {"left": UP, "right": UP.T}
    return standing().posed({f"{side}_shoulder": turns[side] for side in arms}).transformed(to_world())


def to_world() -> np.ndarray:
    return AWAY @ normalising_transform(body_of(standing(), 0.05).vertices)


def target_of(made: Made) -> Path:
    return made.capture.parent / "target.json"


def in_world(glb: Path) -> np.ndarray:
    """Vertices of a GLB in the capture's own world."""
    asset = read_glb(glb)
    assert asset.world_from_asset is not None
    return apply_transform(asset.world_from_asset, asset.vertices.astype(np.float64))


def gap(points: np.ndarray, place: np.ndarray) -> float:
    return float(np.linalg.norm(points - place, axis=1).min())
