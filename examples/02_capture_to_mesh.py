"""Posed pictures to a textured mesh: a capture folder, as nerfstudio writes it, goes in.

    python examples/02_capture_to_mesh.py          # a minute on two cores; --quick for a rough one

Here the capture is made first: twelve renders of a procedural animal, with alpha as masks.
"""

import sys
from pathlib import Path

import numpy as np

from pipeline.training.procedural import random_object
from scene.render import MeshRenderer
from viewloom import FitSettings, MeshSettings, ReconstructSettings, View, ViewSet, orbit_camera, reconstruct

CAPTURE, OUT = Path("out/examples/capture"), Path("out/examples/capture_to_mesh")

# Cameras stand on two rings about the origin: azimuth and elevation in radians, world z up.
cameras = [orbit_camera(2 * np.pi * k / 12, (0.5, -0.2)[k % 2], size=192) for k in range(12)]
renderer = MeshRenderer(random_object(3, "creature"))
images = [np.round(renderer.render(camera).rgba * 255).astype(np.uint8) for camera in cameras]
views = [View(f"{k:02d}", camera, image) for k, (camera, image) in enumerate(zip(cameras, images, strict=True))]
ViewSet(tuple(views), has_masks=True).save(CAPTURE)

settings = ReconstructSettings()
if "--quick" in sys.argv:
    fit = FitSettings(levels=(12, 24), iterations=(20, 20), rays=1024)
    settings = ReconstructSettings(fit=fit, mesh=MeshSettings(max_faces=2000, texture=256))

result = reconstruct(CAPTURE, OUT, settings)
print(f"mesh:   {result.asset}")
print(f"report: {result.folder / 'report.html'}")
