"""Pictures of a fitted surface as the fit itself sees it, before there is a mesh."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from recon.sdf_grid import kernels
from recon.sdf_grid.narrow_band import NarrowBandSDF, camera_rows
from recon.surface import Surface
from scene.camera import Camera

_SAMPLING = kernels.Sampling(np.float32(6.0), np.float32(0.5), np.float32(2.0))


def render_surface(surface: Surface, cameras: list[Camera]) -> list[Float[np.ndarray, "_ _ 4"]]:
    """Volume rendering with the surface's own colours.

    Returns:
        For each camera straight sRGB and opacity in [0, 1].
    """
    band = NarrowBandSDF(surface.box, surface.sdf / np.float32(surface.voxel))
    x, y, z = surface.box.centres()
    i, j, k = band.cells.T
    band.colour[:-1] = surface.colours_at(np.stack([x[i], y[j], z[k]], -1))
    rows = camera_rows(tuple(cameras), band.box)
    pictures = []
    for n, camera in enumerate(cameras):
        px, py = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        out = np.zeros((px.size, 5), np.float32)
        kernels.render_rays(
            band.field,  # whose shading is none: the surface's colours hold it
            kernels.Rays(
                rows,
                np.full(px.size, n, np.int32),
                px.reshape(-1).astype(np.float32),
                py.reshape(-1).astype(np.float32),
            ),
            _SAMPLING,
            out,
        )
        rgba = np.concatenate([out[:, :3] / np.maximum(out[:, 3:4], 1e-3), out[:, 3:4]], 1)
        pictures.append(np.clip(rgba, 0, 1).reshape(camera.height, camera.width, 4))
    return pictures
