"""Edits by deformation: the textured surface bound to a skeleton or to boxes, and posed as the target says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from pipeline.editing.depth_target import DepthTarget
from pipeline.editing.target import EditTarget, SkeletonTarget, check_meets
from recon.export.asset import Asset, has_area, weld_numbers
from recon.export.rig import Rig, make_rig
from scene.errors import InputError
from scene.mesh import ColouredMesh, Vertices, vertex_normals
from scene.skeleton import PIVOTS, Motion
from scene.skinning.bind import bind_to_boxes, box_motions
from scene.skinning.motion import PARENT_OF, PARTS, part_motions
from scene.skinning.pose import posed_vertices
from scene.skinning.weights import Weights

_SECONDS = 1.0
"""From the pose of the capture to the target, in a rig's clip."""
_TURNS = 1.0
"""Degrees: what turns less is not told."""
_MOVES = 1e-3
"""As a fraction of the object's longest side: what moves less is not told."""


@dataclass(frozen=True, eq=False)
class Deformed:
    """An asset after an edit.

    Args:
        asset: in the frame of the original, textures and attributes as they were.
        moved: a sentence for each part that moves against the one that carries it, or for each box that moves.
        warnings: what the user should know.
        cuts: rings along which parts that were glued together were cut apart, and closed.
        rig: of a skeleton's edit: the asset in its first pose, bound, with a clip from there to the target.
    """

    asset: Asset
    moved: tuple[str, ...]
    warnings: tuple[str, ...]
    cuts: int
    rig: Rig | None = None


def deform(asset: Asset, target: EditTarget, *, softness: float = 0.5) -> Deformed:
    """Deform an asset by its target.

    A body is posed by dual quaternions, which keep the volume of what twists; its rig is posed by viewers, which blend
    linearly. What two boxes share, or lies between them, is blended linearly.

    Args:
        asset: the original.
        target: in the asset's frame.
        softness: of boxes; see :func:`scene.skinning.bind.bind_to_boxes`.

    Raises:
        InputError: the target misses the asset, or is a mesh; or the asset has too many faces.
    """
    check_meets(target, asset.vertices)
    if isinstance(target, DepthTarget):
        raise InputError(
            "a mesh says where the surface shall be, not which part of the object goes there",
            fix="Use --method consolidate, or give boxes or a skeleton.",
        )
    if isinstance(target, SkeletonTarget):
        return _posed(asset, target)
    mesh = ColouredMesh(asset.vertices, asset.faces)
    bound = bind_to_boxes(mesh, target.before, softness)
    motions = box_motions(target.before, target.after)
    moved = posed_vertices(asset.vertices.astype(np.float64), bound.skin, motions, "linear")
    edited = with_vertices(asset, moved, weld_numbers(asset))
    size = float(np.ptp(asset.vertices, axis=0).max())
    said = tuple(
        text
        for number, motion in enumerate(motions)
        if (text := _box_line(number, target.before[number], motion, size))
    )
    return Deformed(edited, said, _openness(bound.report.was_closed), 0)


def _posed(asset: Asset, target: SkeletonTarget) -> Deformed:
    clip = Motion((0.0, _SECONDS), (target.rest, target.target))
    rig = make_rig(asset, target.rest, clip, allow_open=True)
    skin = Weights(rig.skin.joints.astype(np.int64), rig.skin.weights)
    motions = part_motions(target.rest, target.target)
    moved = posed_vertices(rig.asset.vertices.astype(np.float64), skin, motions)
    warnings = list(_openness(rig.report.was_closed))
    if rig.report.left_open:
        warnings.append(f"Cuts of {rig.report.left_open} edges could not be closed, since they run into holes.")
    size = float(np.ptp(asset.vertices, axis=0).max())
    return Deformed(
        with_vertices(rig.asset, moved, rig.welds),
        _part_lines(target, motions, size),
        tuple(warnings),
        rig.report.cuts,
        rig,
    )


def _openness(closed: bool) -> tuple[str, ...]:
    return () if closed else ("The surface is open, so that what is inside it, and what moves it, is a guess.",)


def with_vertices(asset: Asset, vertices: Vertices, welds: Int[np.ndarray, "v"]) -> Asset:
    """An asset whose vertices have moved, with normals of their new places, smooth where they were smooth before.

    Args:
        asset: before.
        vertices: as many as it has, in its frame.
        welds: a number for each vertex, the same for those of one place and normal.
    """
    places = np.zeros((int(welds.max()) + 1, 3))
    places[welds] = vertices
    normals = vertex_normals(places, welds[asset.faces])[welds]
    moved = vertices.astype(np.float32)
    return replace(
        asset, vertices=moved, normals=normals.astype(np.float32), faces=asset.faces[has_area(moved, asset.faces)]
    )


def _part_lines(target: SkeletonTarget, motions: Float[np.ndarray, "p 4 4"], size: float) -> tuple[str, ...]:
    """What turns, and by how much, against what carries it; and where the whole goes."""
    said = []
    for number, part in enumerate(PARTS):
        turn = motions[number, :3, :3]
        if number in PARENT_OF:
            turn = motions[PARENT_OF[number], :3, :3].T @ turn
        angle = float(np.degrees(Rotation.from_matrix(turn).magnitude()))
        if angle >= _TURNS:
            said.append(f"{part.replace('_', ' ')} turns by {angle:.0f} degrees")
    root = PIVOTS["body"][0]
    shift = float(np.linalg.norm(target.target.joint(root) - target.rest.joint(root)))
    if shift >= _MOVES * size:
        said.append(f"body moves by {shift / size:.0%} of the object's longest side")
    return tuple(said)


def _box_line(number: int, box: Float[np.ndarray, "4 4"], motion: Float[np.ndarray, "4 4"], size: float) -> str:
    """How a box changes; empty if it does not."""
    turn, stretch = _polar(motion[:3, :3])
    middle = box[:3, 3]
    shift = float(np.linalg.norm(motion[:3, :3] @ middle + motion[:3, 3] - middle))
    angle = float(np.degrees(Rotation.from_matrix(turn).magnitude()))
    changes = []
    if angle >= _TURNS:
        changes.append(f"turns by {angle:.0f} degrees")
    if np.abs(stretch - 1).max() >= _MOVES:
        changes.append("is stretched by " + " x ".join(f"{s:.2f}" for s in stretch))
    if shift >= _MOVES * size:
        changes.append(f"moves by {shift / size:.0%} of the object's longest side")
    return f"box {number} {', '.join(changes)}" if changes else ""


def _polar(linear: Float[np.ndarray, "3 3"]) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """The rotation nearest to a linear map, and by how much it stretches along three axes."""
    u, stretch, vt = np.linalg.svd(linear)
    return np.asarray(u @ vt), np.asarray(stretch)
