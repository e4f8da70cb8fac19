"""Shaded pictures of meshes by ray casting, under the one light of all training data and evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from scene.camera import Camera
from scene.mesh import ColouredMesh, vertex_normals
from scene.raycast import RayCaster, mesh_caster


@dataclass(frozen=True)
class Light:
    """A soft light fixed to the world.

    A point with unit normal n gets its colour times ``ambient + diffuse * (1 + n . direction) / 2``, applied to the
    sRGB values. The strong ambient part keeps colours nearly independent of the view.
    """

    direction: tuple[float, float, float] = (0.35, 0.25, 0.9)
    ambient: float = 0.7
    diffuse: float = 0.3

    def shade(self, normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
        """Brightness factors of unit normals."""
        towards = np.asarray(self.direction, np.float32)
        towards = towards / np.linalg.norm(towards)
        return self.ambient + self.diffuse * 0.5 * (1 + normals @ towards)


WORLD_LIGHT = Light()
UNLIT = Light(ambient=1.0, diffuse=0.0)
"""For textures that hold their light already."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """One view of a mesh.

    Args:
        rgba: sRGB and coverage in [0, 1]; colour is not premultiplied and is 0 where nothing was hit.
        depth: z-depth along the optical axis at the pixel centre, 0 where nothing was hit.
        normal: unit world normal facing the camera at the pixel centre, 0 where nothing was hit.
    """

    rgba: Float[np.ndarray, "h w 4"]
    depth: Float[np.ndarray, "h w"]
    normal: Float[np.ndarray, "h w 3"]

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """Pixels at least half covered."""
        return self.rgba[..., 3] >= 0.5


class MeshRenderer:
    """Renders one mesh from many cameras.

    Args:
        mesh: the mesh; faces are drawn from both sides.
        light: the light.
        smooth: shade with interpolated vertex normals instead of face normals.
    """

    def __init__(
        self, mesh: ColouredMesh, light: Light = WORLD_LIGHT, *, smooth: bool = False, caster: RayCaster | None = None
    ) -> None:
        self.mesh, self.light = mesh, light
        self.caster = mesh_caster(mesh.vertices, mesh.faces) if caster is None else caster
        self._face_normals = mesh.face_normals().astype(np.float32)
        self._vertex_normals = vertex_normals(mesh.vertices, mesh.faces).astype(np.float32) if smooth else None

    def render(self, camera: Camera, *, samples: int = 4) -> Rendering:
        """Draw one view.

        Args:
            camera: any pinhole camera.
            samples: rays per pixel where colour or coverage changes; other pixels get one. 1 turns smoothing off.
        """
        height, width = camera.height, camera.width
        origins, directions = camera.rays()
        rgba, distance, normal = self._shade(origins.reshape(-1, 3), directions.reshape(-1, 3))
        # Distance along the unit ray to z-depth along the optical axis.
        depth = np.where(np.isfinite(distance), distance * (directions.reshape(-1, 3) @ camera.forward), 0.0)
        rgba = rgba.reshape(height, width, 4)
        if samples > 1:
            self._antialias(rgba, camera, samples)
        return Rendering(rgba, depth.reshape(height, width).astype(np.float32), normal.reshape(height, width, 3))

    def _antialias(self, rgba: Float[np.ndarray, "h w 4"], camera: Camera, samples: int) -> None:
        """Replace pixels on edges by the mean of ``samples`` rotated-grid rays."""
        premultiplied = rgba[..., :3] * rgba[..., 3:]
        signal = np.concatenate([premultiplied, rgba[..., 3:]], axis=-1)
        edge = np.zeros(rgba.shape[:2], bool)
        for axis in (0, 1):
            step = np.abs(np.diff(signal, axis=axis)).max(axis=-1) > 0.04
            low = [slice(None), slice(None)]
            high = [slice(None), slice(None)]
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            edge[tuple(low)] |= step
            edge[tuple(high)] |= step
        ys, xs = np.nonzero(edge)
        if not len(ys):
            return
        index = np.arange(samples)
        # A rank-1 lattice: distinct rows and columns for every sample, so near-vertical edges get all levels.
        offsets = np.stack(
            [(index + 0.5) / samples, (index * _lattice_step(samples) % samples + 0.5) / samples], axis=1
        )
        pixels = np.stack([xs, ys], axis=1)[:, None, :] + offsets
        origins, directions = camera.rays(pixels.reshape(-1, 2))
        sampled = self._shade(origins, directions)[0].reshape(len(ys), samples, 4)
        alpha = sampled[..., 3].mean(axis=1)
        colour = (sampled[..., :3] * sampled[..., 3:]).sum(axis=1) / np.maximum(sampled[..., 3].sum(axis=1), 1)[:, None]
        rgba[ys, xs, :3], rgba[ys, xs, 3] = colour, alpha

    def _shade(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        hits = self.caster.cast(origins, directions)
        hit = np.nonzero(hits.face >= 0)[0]
        face, bary = hits.face[hit], hits.bary[hit]
        if self._vertex_normals is None:
            found = self._face_normals[face]
        else:
            corners = self._vertex_normals[self.mesh.faces[face]]
            weights = np.stack([1 - bary.sum(axis=1), bary[:, 0], bary[:, 1]], axis=1)
            found = np.einsum("nkc,nk->nc", corners, weights)
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        away = np.einsum("nc,nc->n", found, directions[hit].astype(np.float32)) > 0
        found = np.where(away[:, None], -found, found)
        rgba = np.zeros((len(origins), 4), np.float32)
        colours = self.mesh.colours_at(face, bary)
        rgba[hit, :3] = np.clip(colours * self.light.shade(found)[:, None], 0, 1)
        rgba[hit, 3] = 1
        normal = np.zeros((len(origins), 3), np.float32)
        normal[hit] = found
        return rgba, hits.distance, normal


def render_mesh(
    mesh: ColouredMesh, camera: Camera, light: Light = WORLD_LIGHT, *, smooth: bool = False, samples: int = 4
) -> Rendering:
    """Draw one view of a mesh; use :class:`MeshRenderer` for several."""
    return MeshRenderer(mesh, light, smooth=smooth).render(camera, samples=samples)


def over_white(rgba: Float[np.ndarray, "*hw 4"]) -> Float[np.ndarray, "*hw 3"]:
    """Composite straight-alpha colour on white."""
    return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])


def _lattice_step(samples: int) -> int:
    """A step near the golden section that visits every row once."""
    step = max(1, round(samples * 0.618))
    while math.gcd(step, samples) != 1:
        step += 1
    return step
