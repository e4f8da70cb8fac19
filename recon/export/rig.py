"""A textured mesh as a rig: a skinned GLB, bound to a skeleton inside the solid, with poses as a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from recon.export.asset import Asset, jpeg_of, weld_numbers
from recon.export.glb import GlbClip, GlbSkin, glb_of
from recon.export.validate import GlbReport, validate_glb
from scene.errors import InputError, ViewloomError
from scene.files import written_aside
from scene.mesh import ColouredMesh, vertex_normals
from scene.skeleton import PARENTS, PIVOTS, Motion, Skeleton
from scene.skinning.bind import BindReport, SkinnedMesh, bind_to_skeleton
from scene.skinning.motion import PARENT_OF, PARTS, part_motions
from scene.skinning.weights import WeightSettings

_QUALITY = 90
"""Of the JPEG, where the texture's own bytes are not at hand."""
_NAMED = 4
"""Bones that a message names at most."""


@dataclass(frozen=True, eq=False)
class Rig:
    """An asset that can be posed.

    Args:
        asset: cut where parts were glued together, textures and attributes as they were.
        skin: joints, weights, and a clip if there is one.
        report: what was cut.
        parts: joints that move some of the surface.
        welds: a number for each vertex, the same for those that a chart border or a cut's closing doubled.
    """

    asset: Asset
    skin: GlbSkin
    report: BindReport
    parts: int
    welds: Int[np.ndarray, "v"]


def make_rig(
    asset: Asset,
    skeleton: Skeleton,
    motion: Motion | None = None,
    *,
    settings: WeightSettings = WeightSettings(),
    allow_open: bool = False,
) -> Rig:
    """Bind an asset to a skeleton.

    Args:
        asset: a closed mesh.
        skeleton: in the asset's frame and pose.
        motion: poses of the same body in the asset's frame, for a clip.
        settings: of the weights.
        allow_open: take meshes with holes too.

    Raises:
        InputError: the skeleton misses the mesh or lacks joints of the trunk, a pose does (its number is named), or the
            mesh is open.
    """
    mesh = ColouredMesh(asset.vertices, asset.faces, uv=asset.uv, texture=asset.texture)
    bound = bind_to_skeleton(mesh, skeleton, settings, weld_numbers(asset))
    if not bound.report.was_closed and not allow_open:
        raise InputError(
            "the mesh is open or has edges of more than two faces, and what is inside it is a guess",
            fix="Give a closed mesh, or --allow-open to guess.",
        )
    pivots = _pivots(skeleton)
    skin = GlbSkin(
        bound.skin.joints.astype(np.uint8),
        bound.skin.weights,
        PARTS,
        tuple(PARENT_OF.get(part, -1) for part in range(len(PARTS))),
        pivots,
        None if motion is None else _clip(skeleton, motion, pivots),
    )
    moving = np.unique(bound.skin.joints[bound.skin.weights > 0])
    return Rig(_carried(asset, bound), skin, bound.report, len(moving), bound.welds)


def require_same_bones(motion: Motion, skeleton: Skeleton, where: Path) -> None:
    """Raise if a pose's bones differ by more than a fifth from those of the body that is posed.

    Raises:
        InputError: some do; the bones of the first such pose are named.
    """
    for number, pose in enumerate(motion.poses):
        ratios = pose.compare_bones(skeleton)
        if ratios:
            named = [f"{PARENTS[name]} to {name} {ratio:.2f} times" for name, ratio in ratios.items()]
            more = f" (and {len(named) - _NAMED} more)" if len(named) > _NAMED else ""
            # Bones without length have no direction that could be kept.
            otherwise = ", or give --fit-bones to keep its directions only" if min(ratios.values()) > 0 else ""
            raise InputError(
                f"pose {number} has bones of other lengths: {', '.join(named[:_NAMED])} the skeleton's{more}",
                where=where,
                fix=f"Correct the pose{otherwise}.",
            )


def write_rig(path: Path, rig: Rig, *, khronos: bool | None = None) -> GlbReport:
    """Write a rig aside, check it, and rename it.

    Args:
        path: a .glb.
        rig: the rig.
        khronos: see :func:`recon.export.validate.validate_glb`.

    Raises:
        InputError: the ending is another.
        OutputError: the file cannot be written.
        ViewloomError: what was written is not sound.
    """
    if path.suffix.lower() != ".glb":
        raise InputError("a rig is written as GLB only", where=path, fix="Give a name that ends in .glb.")
    with written_aside(path) as partial:
        partial.write_bytes(glb_of(rig.asset, jpeg_of(rig.asset, _QUALITY, max(rig.asset.texture.shape)), rig.skin))
        report = validate_glb(partial, khronos=khronos)
        if not report.clean:
            raise ViewloomError(f"the rig is not sound: {'; '.join(report.messages[:3])}", where=path)
    return report


def _pivots(skeleton: Skeleton) -> Float[np.ndarray, "p 3"]:
    """Where parts turn; a part that is not known is where the one that carries it is."""
    pivots = np.stack([skeleton.joint(PIVOTS[part][0]) for part in PARTS])
    for part, parent in PARENT_OF.items():
        if np.isnan(pivots[part]).any():
            pivots[part] = pivots[parent]
    return np.asarray(pivots)


def _clip(rest: Skeleton, motion: Motion, pivots: Float[np.ndarray, "p 3"]) -> GlbClip:
    rotations = np.zeros((len(PARTS), len(motion.poses), 4))
    translations = np.zeros((len(PARTS), len(motion.poses), 3))
    for number, pose in enumerate(motion.poses):
        try:
            placed = part_motions(rest, pose)
        except InputError as error:
            raise InputError(f"pose {number}: {error.what}", fix=error.fix) from error
        placed[:, :3, 3] += np.einsum("pij,pj->pi", placed[:, :3, :3], pivots)
        for part in range(len(PARTS)):
            local = placed[part] if part not in PARENT_OF else np.linalg.inv(placed[PARENT_OF[part]]) @ placed[part]
            turn = Rotation.from_matrix(local[:3, :3]).as_quat()
            # Between two poses viewers go the short way round only if neighbours lie on one side.
            before = rotations[part, number - 1] if number else turn
            rotations[part, number] = turn if turn @ before >= 0 else -turn
            translations[part, number] = local[:3, 3]
    return GlbClip(np.array(motion.seconds), rotations, translations)


def _carried(asset: Asset, bound: SkinnedMesh) -> Asset:
    """The asset with the surface as it was cut, and everything else that it holds."""
    vertices, faces = bound.mesh.vertices, bound.mesh.faces
    normals = asset.normals[bound.source].copy()
    first = 3 * (len(faces) - len(asset.faces))
    if first:  # caps have normals of their own, and come last
        normals[-first:] = vertex_normals(vertices.astype(np.float64), faces)[-first:]
    return replace(
        asset,
        vertices=vertices.astype(np.float32),
        normals=normals.astype(np.float32),
        uv=asset.uv[bound.source],
        faces=faces.astype(np.int64),
        evidence=None if asset.evidence is None else asset.evidence[bound.source],
    )
