"""A textured mesh of your own in every format; the GLB is checked after it is written.

    python examples/05_export_formats.py           # a second

The mesh is a torus with a painted texture; any vertices, faces, normals and texture coordinates will do.
"""

from pathlib import Path

import numpy as np

from viewloom import GlbSettings, TexturedMesh, export_mesh

OUT, MAJOR, MINOR, RINGS, SIDES = Path("out/examples/formats"), 0.4, 0.15, 64, 32

# A grid of angles; the seams are there twice, once with each texture coordinate.
u, v = np.meshgrid(np.linspace(0, 1, RINGS + 1), np.linspace(0, 1, SIDES + 1), indexing="ij")
around, about = 2 * np.pi * u, 2 * np.pi * v
outward = np.stack([np.cos(around), np.sin(around), np.zeros_like(around)], -1)
normals = (np.cos(about)[..., None] * outward + np.sin(about)[..., None] * [0, 0, 1]).reshape(-1, 3)
vertices = MAJOR * outward.reshape(-1, 3) + MINOR * normals

corners = np.arange(RINGS)[:, None] * (SIDES + 1) + np.arange(SIDES)
pair = np.array([[0, SIDES + 1, SIDES + 2], [0, SIDES + 2, 1]])
faces = (corners[..., None, None] + pair).reshape(-1, 3).astype(np.int32)

row, column = np.mgrid[:256, :256]
texture = np.where((row // 32 + column // 16)[..., None] % 2, [230, 120, 40], [40, 60, 120]).astype(np.uint8)
mesh = TexturedMesh(vertices, faces, normals, np.stack([u, v], -1).reshape(-1, 2), texture)

for ending in ("glb", "obj", "ply", "stl", "usdz"):
    done = export_mesh(OUT / f"torus.{ending}", mesh, GlbSettings(longest_side=0.2))
    found = "" if done.report is None else f", {done.report.errors} errors, {done.report.warnings} warnings"
    print(f"{done.path}: {done.size / 1000:.0f} kB{found}")
