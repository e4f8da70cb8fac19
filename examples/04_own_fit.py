"""The fit by itself: pictures and cameras of your own, no files, and each step's result in hand.

    python examples/04_own_fit.py                  # half a minute on two cores; --quick for a rough one

The pictures are drawn by hand: a shaded ball, which every camera sees as a disc.
"""

import sys
from pathlib import Path

import numpy as np

from viewloom import Camera, FitSettings, View, ViewSet, bake, extract_mesh, fit_surface, orbit_camera, write_glb

RADIUS, SIZE, OUT = 0.5, 128, Path("out/examples/own_fit.glb")


def draw(camera: Camera) -> np.ndarray:
    """The ball where rays meet it, coloured by its normals; RGBA, alpha is the mask."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    local = np.stack([(x - camera.cx) / camera.fx, -(y - camera.cy) / camera.fy, -np.ones_like(x)], -1)
    rays = local @ camera.c2w[:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    along = rays @ camera.centre
    inside = along**2 - camera.centre @ camera.centre + RADIUS**2
    points = camera.centre + rays * (-along - np.sqrt(inside.clip(0)))[..., None]
    return (np.dstack([points / RADIUS * 0.4 + 0.5, inside > 0]) * 255).clip(0, 255).astype(np.uint8)


cameras = [orbit_camera(2 * np.pi * k / 10, (0.5, -0.5)[k % 2], size=SIZE) for k in range(10)]
views = ViewSet(tuple(View(f"{k:02d}", c, draw(c)) for k, c in enumerate(cameras)), has_masks=True)
quick = FitSettings(levels=(12, 24), iterations=(20, 20), rays=1024)
surface = fit_surface(views, quick if "--quick" in sys.argv else FitSettings(levels=(20, 40), iterations=(300, 300)))
vertices, faces = extract_mesh(surface)
print(f"{len(faces)} triangles; mean radius {np.linalg.norm(vertices, axis=1).mean():.3f} (the ball's is {RADIUS})")
write_glb(OUT, bake(vertices, faces, views, surface, 512))
print(f"mesh: {OUT}")
