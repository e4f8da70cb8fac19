"""Ray casting of triangle meshes on the CPU: Embree through embreex, or open3d where only that is installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from scene.backends import optional_module
from scene.errors import MissingBackendError


@dataclass(frozen=True, eq=False)
class Hits:
    """First intersections of rays.

    ``face`` is -1 and ``distance`` infinite where a ray hits nothing; ``bary`` are the weights (u, v) of the
    second and third corner.
    """

    face: Int[np.ndarray, "n"]
    distance: Float[np.ndarray, "n"]
    bary: Float[np.ndarray, "n 2"]


@runtime_checkable
class RayCaster(Protocol):
    """Finds the first hit of rays with one mesh."""

    def cast(self, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]) -> Hits:
        """First hits; directions need not have unit length, distances are in units of it."""


class EmbreeCaster:
    """Embree 4 through embreex: single precision, about 15 million rays a second and core."""

    def __init__(self, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self._scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(vertices[faces], dtype=np.float32))

    def cast(self, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]) -> Hits:
        """First hits of rays."""
        out = self._scene.run(
            np.ascontiguousarray(origins, dtype=np.float32),
            np.ascontiguousarray(directions, dtype=np.float32),
            query="INTERSECT",
            output=1,
        )
        face = out["primID"].astype(np.int64)
        face[out["geomID"] < 0] = -1
        distance = np.where(face >= 0, out["tfar"], np.inf).astype(np.float32)
        return Hits(face, distance, np.stack([out["u"], out["v"]], axis=1))


class Open3DCaster:
    """Embree through open3d's ``RaycastingScene``."""

    def __init__(self, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> None:
        import open3d as o3d

        self._o3d = o3d
        self._scene = o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32))

    def cast(self, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]) -> Hits:
        """First hits of rays."""
        rays = np.concatenate([origins, directions], axis=1).astype(np.float32)
        out = self._scene.cast_rays(self._o3d.core.Tensor(rays))
        distance = out["t_hit"].numpy()
        face = out["primitive_ids"].numpy().astype(np.int64)
        return Hits(np.where(np.isfinite(distance), face, -1), distance, out["primitive_uvs"].numpy())


def mesh_caster(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> RayCaster:
    """The best ray caster that is installed.

    Raises:
        MissingBackendError: neither embreex nor open3d can be imported.
    """
    if optional_module("embreex") is not None:
        return EmbreeCaster(vertices, faces)
    if optional_module("open3d") is not None:
        return Open3DCaster(vertices, faces)
    raise MissingBackendError("ray casting needs embreex or open3d", fix="Run: pip install embreex")


def unoccluded(
    caster: RayCaster,
    start: Float[np.ndarray, "*#n 3"],
    end: Float[np.ndarray, "*#n 3"],
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
) -> Bool[np.ndarray, "n"]:
    """Whether nothing of a mesh lies between points: the one visibility test.

    Points on the mesh itself need a tolerance, or the surface that they lie on hides them: rays have single precision.

    Args:
        caster: of the mesh.
        start, end: where each ray begins and ends, world frame; one of them may be a single point, such as a camera's
            centre. They must not coincide.
        relative, absolute: how far before the end a hit is taken for the end itself, as a fraction of the distance and
            in world units.
    """
    away = end - start
    distance = np.linalg.norm(away, axis=-1)
    hits = caster.cast(np.broadcast_to(start, away.shape), away / distance[:, None])
    return np.asarray(hits.distance > distance * (1 - relative) - absolute)
