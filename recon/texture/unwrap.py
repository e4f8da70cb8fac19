"""Texture coordinates: a mesh cut into charts that are packed into a square."""

from __future__ import annotations

import numpy as np
import xatlas
from jaxtyping import Float, Int

from recon.texture.charts import ChartCutter
from recon.texture.pack import pack_charts
from recon.texture.rasterise import covered_texels
from scene.mesh import Faces, Vertices

_XATLAS_FACES = 20_000
"""Most faces that xatlas is given: its time grows faster than their number."""


def unwrap(vertices: Vertices, faces: Faces, side: int) -> tuple[Int[np.ndarray, "w"], Faces, Float[np.ndarray, "w 2"]]:
    """Charts packed into a square texture, none mirrored, none over another.

    Up to 20,000 faces are unwrapped by xatlas, which bends charts open and needs fewer; above that, faces are seen
    along common directions, which takes a second or two.

    Args:
        vertices, faces: the mesh.
        side: texture side in texels, for the padding between charts.

    Returns:
        Original vertex of each new vertex, faces over new vertices, and coordinates in [0, 1], v running down.
    """
    padding = max(2, side // 512)
    if len(faces) <= _XATLAS_FACES:
        unwrapped = _by_xatlas(vertices, faces, side, padding)
        # Bent open too far, a chart may lie over itself.
        if _lies_flat(unwrapped[1], unwrapped[2], side):
            return unwrapped
    return project_charts(vertices, faces, side, padding)


def project_charts(
    vertices: Vertices, faces: Faces, side: int, padding: int
) -> tuple[Int[np.ndarray, "w"], Faces, Float[np.ndarray, "w 2"]]:
    """:func:`unwrap` by seeing faces along common directions: any number of faces."""
    cutter = ChartCutter(vertices, faces)
    charts = cutter.charts()
    # Overlaps are looked for at about half the final size first, and then where the charts have come to lie.
    texels = 0.5 * side * np.sqrt(0.6 / max(cutter.area, 1e-30))
    for _ in range(8):
        if not cutter.part_hidden(charts, charts.flat * texels):
            break
        charts = cutter.charts()
    uv, scale = pack_charts(charts, side, padding)
    for _ in range(8):
        if not cutter.part_hidden(charts, uv * side):
            break
        charts = cutter.charts()
        uv, scale = pack_charts(charts, side, padding, scale)
    return charts.source, charts.faces, uv


def _by_xatlas(
    vertices: Vertices, faces: Faces, side: int, padding: int
) -> tuple[Int[np.ndarray, "w"], Faces, Float[np.ndarray, "w 2"]]:
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    pack = xatlas.PackOptions()
    pack.padding = padding
    pack.resolution = side
    pack.bilinear = True
    chart = xatlas.ChartOptions()
    chart.max_iterations = 1
    chart.fix_winding = True
    pack.rotate_charts = False  # it would mirror them
    atlas.generate(chart, pack)
    source, indices, uv = atlas[0]
    # The packed atlas need not be square: stretch neither axis against the other.
    size = np.array([atlas.width, atlas.height])
    uv = uv * size / size.max()
    # xatlas turns all charts alike, seen with v upwards.
    uv[:, 1] = size[1] / size.max() - uv[:, 1]
    return source.astype(np.int64), indices.astype(np.int64), uv


def _lies_flat(faces: Faces, uv: Float[np.ndarray, "w 2"], side: int) -> bool:
    """No texel is claimed by two faces, and no face is mirrored."""
    corners = uv[faces] * side
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    mirrored = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] > 1e-3
    _, x, y, _ = covered_texels(uv * side, faces, slack=-1e-6)
    return not mirrored.any() and bool(np.bincount(y * (side + 1) + x, minlength=1).max() <= 1)
