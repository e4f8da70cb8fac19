"""Assets of one photo against the object: the object itself scores best, and evidence is told apart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.photo_assets import PhotoAssets, gains_table
from pipeline.evaluation.subjects import Subject, coloured
from pipeline.jobs.settings import Image2MeshSettings, MeshSettings, RingSettings, ViewsSettings
from pipeline.training.procedural.primitives import box
from recon.settings import FitSettings
from recon.texture.bake import TexturedMesh
from scene.mesh import ColouredMesh

SETTINGS = Image2MeshSettings(
    views=ViewsSettings(rings=RingSettings((3,), (10.0,), (45.0,)), sampling=SamplingSettings(steps=1)),
    fit=FitSettings(levels=(8, 16), iterations=(4, 4), rays=256, image_side=32, hull_resolution=16),
    mesh=MeshSettings(max_faces=400, texture=64),
)


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A long box whose normal of the long side stands at 30 degrees."""
    vertices, faces = box((0.5, 0.15, 0.3))
    turn = math.radians(30)
    matrix = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    vertices = vertices @ matrix.T
    colours = np.round(255 * (0.5 + vertices / 1.2)).astype(np.uint8)
    mesh = ColouredMesh(vertices.astype(np.float32), faces.astype(np.int32), vertex_colours=colours).normalised()
    return Subject("box", mesh, 0)


@pytest.fixture(scope="module")
def made(subject: Subject, tiny_checkpoint: Path) -> PhotoAssets:
    return PhotoAssets.draw(ViewDiffusion.from_pretrained(tiny_checkpoint), subject, SETTINGS, side=64)


def textured(subject: Subject, evidence: np.ndarray) -> TexturedMesh:
    """The object itself as an asset, in a texture of four colours that is a little off."""
    mesh = subject.mesh
    assert mesh.vertex_colours is not None
    texture = np.broadcast_to(mesh.vertex_colours.mean(axis=0).astype(np.uint8), (4, 4, 3)).copy()
    uv = np.full((len(mesh.vertices), 2), 0.5, np.float32)
    normals = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    return TexturedMesh(mesh.vertices, mesh.faces, normals, uv, texture, evidence=evidence)


def test_the_true_plane_is_known_and_a_guess_is_checked(made: PhotoAssets) -> None:
    assert made.true_heading_deg is not None
    assert min(abs(made.true_heading_deg - k) for k in (30, 120)) <= 5
    assert made.guess is None
    assert not made.guess_is_right
    way = made.mirroring(made.true_heading_deg)
    assert way.view is not None
    mesh = made.asset(way.view)
    assert mesh.evidence is not None
    assert mesh.evidence[:, 1].max() > 0.5


def test_the_object_itself_scores_best(made: PhotoAssets, subject: Subject) -> None:
    own = textured(subject, np.tile([1.0, 0, 0, 0], (len(subject.mesh.vertices), 1)))
    smaller = replace(own, vertices=own.vertices * np.array([0.6, 1, 1], np.float32))
    best, worse = (made.scores(mesh, None) for mesh in (own, smaller))
    assert best.keys() == {"hidden", "around", "chamfer"}
    assert best["chamfer"] < 0.002 < worse["chamfer"]
    assert best["hidden"] > worse["hidden"] + 1
    assert made.scores(own, lambda a, b: float(np.abs(a - b).mean()))["perceptual"] > 0


def test_evidence_is_scored_by_kind(made: PhotoAssets, subject: Subject) -> None:
    evidence = np.zeros((len(subject.mesh.vertices), 4))
    left = subject.mesh.vertices[:, 0] < 0
    evidence[left, 0] = evidence[~left, 2] = 1
    scores = made.evidence_scores(textured(subject, evidence))
    assert scores["seen_true"] == pytest.approx(1)
    assert {"error_seen", "error_generated"} <= scores.keys()
    assert "error_mirrored" not in scores


def test_gains_are_paired() -> None:
    scores = [{"a": {"x": 1.0}, "b": {"x": 2.0}}, {"a": {"x": 5.0}}]
    [row] = gains_table(scores, "a", "b", ["x", "y"])
    assert row[:4] == ["x", "1", "1.0000", "2.0000"]
    assert row[4].startswith("+1.0000")


def test_objects_of_one_colour_are_told(subject: Subject) -> None:
    assert coloured(subject.mesh)
    assert not coloured(replace(subject.mesh, vertex_colours=None))
