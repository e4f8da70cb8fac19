"""Other sizes, units and axes than the asset's own, for printing, other programs and captures of known size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from recon.export.asset import Asset, welded
from recon.file_frame import AssetSize, FileFrame, Unit
from recon.mesh.topology import face_components
from scene.camera import Mat4, z_up_from_y_up
from scene.errors import InputError
from scene.mesh import Faces, Vertices

_PER_METRE: Mapping[Unit, float] = {"m": 1.0, "mm": 1000.0}


def frame_from_asset(frame: FileFrame) -> Mat4:
    """From the asset's frame, +Y up and in metres, to a file's."""
    matrix = np.eye(4)
    if frame.up == "z":
        matrix[:3, :3] = z_up_from_y_up(np.eye(3)).T
    matrix[:3] *= _PER_METRE[frame.unit]
    return matrix


def in_frame(asset: Asset, frame: FileFrame) -> Asset:
    """The asset with its numbers in another frame; its way back into the world starts there."""
    return _moved(asset, frame_from_asset(frame), str(frame))


def resized(asset: Asset, factor: float) -> Asset:
    """The asset so many times as large, about the origin that it stands on.

    Raises:
        InputError: that is no size.
    """
    if not 0 < factor < np.inf:
        raise InputError(f"nothing can be {factor:g} times as large", fix="Give a positive length.")
    return _moved(asset, np.diag([factor, factor, factor, 1.0]), asset.frame)


def in_size(asset: Asset, size: AssetSize) -> Asset:
    """The asset in the size that was asked for.

    Raises:
        InputError: it is no size, or the asset does not say where it came from.
    """
    if size.longest_side is not None:
        return resized(asset, size.longest_side / float(np.ptp(asset.vertices, axis=0).max()))
    if size.capture:
        return resized(asset, capture_units(asset))
    if size.length is not None:
        a, b, metres = size.length
        return resized(asset, length_factor(asset, np.array(a), np.array(b), metres))
    return asset


def capture_units(asset: Asset) -> float:
    """Units of the capture's world in one metre of the asset.

    Raises:
        InputError: the asset does not say where it came from.
    """
    if asset.world_from_asset is None:
        raise InputError("the asset does not say which world it came from, so its scale is unknown")
    return float(np.cbrt(abs(np.linalg.det(asset.world_from_asset[:3, :3]))))


def length_factor(asset: Asset, a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"], metres: float) -> float:
    """How many times as large the asset must be for two points of its capture to be so far apart.

    Args:
        asset: made of the capture.
        a, b: points in the capture's world.
        metres: their true distance.

    Raises:
        InputError: the points are one, or numbers are none.
    """
    apart = float(np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64)))
    if not (0 < apart < np.inf and 0 < metres < np.inf):
        raise InputError(
            f"two points {apart:g} apart cannot be {metres:g} m from each other",
            fix="Give two different points of the capture's world and a positive length.",
        )
    return metres * capture_units(asset) / apart


def without_inner_walls(asset: Asset) -> tuple[Asset, int]:
    """The asset without the walls of cavities, which a printer would leave empty; and how many those were.

    A wall of a cavity is a closed piece of the surface that looks inwards: the volume within it counts as negative.
    """
    vertices, faces = welded(asset)
    piece = face_components(faces, len(vertices))
    volume = _volumes(vertices, faces, piece)
    inner = volume < 0
    if not inner.any() or inner.all():
        return asset, 0
    return replace(asset, faces=asset.faces[~inner[piece]]), int(inner.sum())


def _volumes(vertices: Vertices, faces: Faces, piece: np.ndarray) -> Float[np.ndarray, "p"]:
    """Signed volume of each piece, by the divergence theorem about its own middle."""
    corners = vertices[faces]
    count = int(piece.max()) + 1
    share = 1 / np.bincount(piece, minlength=count)[piece]
    middle = np.stack([np.bincount(piece, share * corners[:, :, k].mean(axis=1), count) for k in range(3)], axis=1)
    a, b, c = (corners - middle[piece][:, None]).transpose(1, 0, 2)
    return np.bincount(piece, (a * np.cross(b, c)).sum(axis=1) / 6, count)


def _moved(asset: Asset, matrix: Mat4, frame: str) -> Asset:
    linear = matrix[:3, :3]
    turn = linear / np.cbrt(np.linalg.det(linear))
    back = asset.world_from_asset
    return replace(
        asset,
        vertices=(asset.vertices.astype(np.float64) @ linear.T + matrix[:3, 3]).astype(np.float32),
        normals=(asset.normals.astype(np.float64) @ turn.T).astype(np.float32),
        world_from_asset=None if back is None else back @ np.linalg.inv(matrix),
        cameras=tuple(camera.moved(matrix) for camera in asset.cameras),
        frame=frame,
    )
