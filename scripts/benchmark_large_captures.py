"""Time and memory until a capture of large photos is ready to be fitted: reading, masks, check, normalising.

Makes photos of 12 megapixels of a textured wall, and cameras around it; only their size matters here.

Example: python scripts/benchmark_large_captures.py --count 100
"""

from __future__ import annotations

import json
import math
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.evaluation.script import run_script
from pipeline.jobs.runner import Runner
from pipeline.jobs.settings import CaptureSettings
from pipeline.jobs.stages.capture import CaptureStage
from scene.camera import orbit_camera
from scene.captures import load_capture
from scene.files import write_text

_SIZE = (4000, 3000)
_DIFFERENT = 6
"""Photos that are drawn; further ones are copies of them."""


@dataclass(frozen=True)
class Arguments:
    """Time the stage that reads captures."""

    count: int = 100
    """Photos."""
    distorted: bool = False
    """Give the lens a radial term, which is undone for every photo."""


def make_capture(folder: Path, count: int, *, distorted: bool) -> None:
    """Write photos and their cameras."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (750, 1000, 3)).astype(np.uint8))
    wall = np.asarray(small.resize(_SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
    frames = []
    for k in range(count):
        path = folder / "images" / f"{k:04d}.jpg"
        if k < _DIFFERENT:
            grain = rng.integers(-6, 7, (_SIZE[1], _SIZE[0], 1))
            Image.fromarray(np.clip(np.roll(wall, 37 * k, axis=1) + grain, 0, 255).astype(np.uint8)).save(path)
        else:
            path.write_bytes((folder / "images" / f"{k % _DIFFERENT:04d}.jpg").read_bytes())
        pose = orbit_camera(2 * math.pi * k / count, 0.3, 1.5).c2w.tolist()
        frames.append({"file_path": f"images/{path.name}", "transform_matrix": pose})
    lens = {"fl_x": 3600.0, "fl_y": 3600.0, "cx": _SIZE[0] / 2, "cy": _SIZE[1] / 2, "w": _SIZE[0], "h": _SIZE[1]}
    content = {"camera_model": "OPENCV", **lens, **({"k1": 0.02} if distorted else {}), "frames": frames}
    write_text(folder / "transforms.json", json.dumps(content))


def main(arguments: Arguments) -> None:
    """Make the capture, read it, say what it took."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "capture"
        folder.mkdir()
        make_capture(folder, arguments.count, distorted=arguments.distorted)
        wall, busy = time.monotonic(), time.process_time()
        views = load_capture(folder)
        stage = CaptureStage(views, folder, [], CaptureSettings())
        Runner(Path(place) / "out", lambda name, cached: None).run(stage)
        wall, busy = time.monotonic() - wall, time.process_time() - busy
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(views)} photos: {wall:.1f} s, {busy:.1f} s of CPU time, {memory:.2f} GB at most")


if __name__ == "__main__":
    run_script(main, Arguments)
