"""Measures of assets whose answers are known: balls, shells, rings, open boxes, sheets, what floats or tips over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from pipeline.training.procedural import Part
from recon.checks.asset import AssetMeasures, measure_asset
from recon.texture.evidence import EvidenceShares
from scene.camera import orbit_camera
from scene.mesh import ColouredMesh
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

ORANGE = (200, 60, 20)
SHARES = EvidenceShares(0.4, 0.0, 0.5, 0.1)
PHOTO = orbit_camera(0.0, 0.1, 1.5, size=96)


def part_of(mesh: trimesh.Trimesh) -> Part:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)


def joined(*parts: Part) -> Part:
    ends = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    return np.concatenate([v for v, _ in parts]), np.concatenate([f + k for (_, f), k in zip(parts, ends)])


def turned_out(part: Part) -> Part:
    """The surface seen from its other side: the wall of a cavity."""
    return part[0], part[1][:, ::-1]


@pytest.fixture(scope="session")
def measure(shoot: Callable[..., ViewSet]) -> Callable[..., AssetMeasures]:
    """Measures of a part, beside the photo of another one if that is given."""

    def run(part: Part, shown: Part | None = None, colour: tuple[int, int, int] = ORANGE) -> AssetMeasures:
        views = shoot(part if shown is None else shown, [PHOTO])
        paint = np.broadcast_to(np.array(colour, np.uint8), part[0].shape).copy()
        coloured = ColouredMesh(part[0].astype(np.float32), part[1].astype(np.int32), paint)
        return measure_asset(*part, coloured, SHARES, views, 0.9)

    return run


def test_a_ball_has_no_faults(measure: Callable[..., AssetMeasures], ball: Callable[..., Part]) -> None:
    found = measure(ball(0.5))
    assert (found.pieces, found.loose, found.handles, found.open_edges) == (1, 0, 0, 0)
    assert found.hollow == found.thin == found.overhang == 0
    assert found.depth == pytest.approx(1, abs=0.01)
    assert found.convex == pytest.approx(1, abs=0.01)
    assert found.iou > 0.99
    assert found.psnr > 40
    assert 0 < found.contact < 0.1  # what lies in the lowest two hundredths
    assert (found.seen, found.invented, found.cutout, found.drawn) == (0.4, 0.1, 0.9, None)


def test_two_balls_are_two_pieces(measure: Callable[..., AssetMeasures], ball: Callable[..., Part]) -> None:
    found = measure(joined(ball(0.4, (0, -0.1, 0)), ball(0.1, (0, 0.45, 0))))
    assert found.pieces == 2
    assert found.loose == pytest.approx(1 / 17, abs=0.002)
    assert found.convex < 0.95


def test_specks_are_no_pieces(measure: Callable[..., AssetMeasures], ball: Callable[..., Part]) -> None:
    assert measure(joined(ball(0.5), ball(0.015, (0, 0, 0.6), 2))).pieces == 1


def test_a_shell_is_hollow_and_one_piece(measure: Callable[..., AssetMeasures], ball: Callable[..., Part]) -> None:
    shell = measure(joined(ball(0.5), turned_out(ball(0.45))))
    assert shell.pieces == 1
    assert shell.hollow > 0.6
    assert measure(joined(ball(0.5), turned_out(ball(0.1)))).hollow == 0


@pytest.mark.parametrize("holes", [1, 2])
def test_holes_through_it_are_counted(measure: Callable[..., AssetMeasures], holes: int) -> None:
    rings = [trimesh.creation.torus(0.3, 0.08) for _ in range(holes)]
    for k, ring in enumerate(rings):
        ring.apply_translation((0, 0.5 * k, 0.3 * k))
    found = measure(joined(*map(part_of, rings)))
    assert (found.handles, found.pieces, found.open_edges) == (holes, holes, 0)


def test_the_border_of_an_open_box_is_found(measure: Callable[..., AssetMeasures]) -> None:
    vertices, faces = part_of(trimesh.creation.box((0.6, 0.6, 0.6)))
    lid = np.isclose(vertices[faces][..., 2], 0.3).all(axis=1)
    assert measure((vertices, faces[~lid])).open_edges == 4


def test_a_sheet_is_thin_and_flat(measure: Callable[..., AssetMeasures]) -> None:
    found = measure(part_of(trimesh.creation.box((0.02, 0.8, 0.8))))
    assert found.thin > 0.95
    assert found.depth == pytest.approx(0.025, abs=0.001)
    deep = measure(part_of(trimesh.creation.box((0.9, 0.3, 0.2))))
    assert deep.depth == pytest.approx(3, abs=0.01)
    assert deep.thin < 0.1


def test_a_box_stands_and_a_leaning_one_tips_over(measure: Callable[..., AssetMeasures]) -> None:
    box = trimesh.creation.box((0.4, 0.4, 0.6)).subdivide()
    standing = measure(part_of(box))
    assert (standing.contact, standing.overhang) == (pytest.approx(1), 0)
    foot = trimesh.creation.box((0.1, 0.1, 0.2))
    foot.apply_translation((0, -0.4, -0.2))
    beam = trimesh.creation.box((0.1, 0.9, 0.2))
    assert measure(part_of(foot + beam)).overhang > 0.3


def test_what_floats_stands_on_its_lowest_part_only(
    measure: Callable[..., AssetMeasures], ball: Callable[..., Part]
) -> None:
    found = measure(joined(ball(0.08, (0, 0, -0.5)), ball(0.3, (0, 0, 0.2))))
    assert found.pieces == 2
    assert found.contact < 0.05


def test_the_photo_is_compared_with_what_is_there(
    measure: Callable[..., AssetMeasures], ball: Callable[..., Part]
) -> None:
    small = measure(ball(0.4), ball(0.5))
    assert small.iou == pytest.approx(0.64, abs=0.05)
    assert measure(ball(0.5), colour=(100, 60, 20)).psnr == pytest.approx(-10 * np.log10((100 / 255) ** 2 / 3), abs=0.5)


def test_generated_views_are_compared_too_and_photos_are_not_among_them(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    part = ball(0.5)
    paint = np.broadcast_to(np.array(ORANGE, np.uint8), part[0].shape).copy()
    coloured = ColouredMesh(part[0].astype(np.float32), part[1].astype(np.int32), paint)
    drawn = [
        replace(view, name=f"d{view.name}", origin="generated") for view in shoot(ball(0.4), sphere_cameras(12, 64))
    ]
    found = measure_asset(*part, coloured, SHARES, ViewSet((*shoot(part, [PHOTO]), *drawn), True))
    assert found.iou > 0.98
    assert found.drawn == pytest.approx(0.64, abs=0.06)
    many = ViewSet(tuple(shoot(part, sphere_cameras(20, 64))), True)
    assert measure_asset(*part, coloured, SHARES, many).depth is None


def test_generated_views_alone_take_the_photos_place(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5)
    paint = np.broadcast_to(np.array(ORANGE, np.uint8), part[0].shape).copy()
    coloured = ColouredMesh(part[0].astype(np.float32), part[1].astype(np.int32), paint)
    drawn = [replace(view, origin="generated") for view in shoot(part, sphere_cameras(12, 64))]
    assert measure_asset(*part, coloured, SHARES, ViewSet(tuple(drawn), True)).iou > 0.98
