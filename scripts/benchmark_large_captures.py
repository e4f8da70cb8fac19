"""Time and memory of captures of many large photos.

Until a capture is ready to be fitted (reading, masks, check, normalising): makes photos of 12 megapixels of a textured
wall, and cameras around it; only their size matters there. With --whole, all of `viewloom reconstruct`: the photos then
show two blocks in a room, every one drawn for its camera, so that there is a surface to be found.

Examples:
    python scripts/benchmark_large_captures.py --count 100
    python scripts/benchmark_large_captures.py --count 300 --whole draft --out OUT
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

from pipeline.evaluation.block_scene import BlockScene, ring_cameras
from pipeline.evaluation.script import run_script
from pipeline.jobs.presets import load_preset
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.runner import Runner
from pipeline.jobs.settings import CaptureSettings, ReconstructSettings
from pipeline.jobs.stages.capture import CaptureStage
from scene.camera import orbit_camera
from scene.captures import load_capture
from scene.files import write_text

_SIZE = (4000, 3000)
_FOCAL = 3600.0
"""Pixels."""
_DIFFERENT = 6
"""Photos that are drawn; further ones are copies of them."""


@dataclass(frozen=True)
class Arguments:
    """Time the stage that reads captures, or the whole job."""

    count: int = 100
    """Photos."""
    distorted: bool = False
    """Give the lens a radial term, which is undone for every photo; without --whole."""
    whole: str | None = None
    """Preset to run the whole job with, on photos of blocks."""
    masks: bool = False
    """With --whole: give the blocks' masks as well."""
    out: Path | None = None
    """With --whole: keep capture and result in this folder; a capture that is there is used again."""


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
    lens = {"fl_x": _FOCAL, "fl_y": _FOCAL, "cx": _SIZE[0] / 2, "cy": _SIZE[1] / 2, "w": _SIZE[0], "h": _SIZE[1]}
    content = {"camera_model": "OPENCV", **lens, **({"k1": 0.02} if distorted else {}), "frames": frames}
    write_text(folder / "transforms.json", json.dumps(content))


def make_blocks(folder: Path, count: int, *, masks: bool) -> None:
    """Write photos of blocks, each with grain of its own, and their cameras; with masks if asked for."""
    for name in ("images", *(["masks"] if masks else [])):
        (folder / name).mkdir(parents=True)
    scene = BlockScene.of_seed()
    grain = np.random.default_rng(1).integers(-5, 6, (_SIZE[1], _SIZE[0], 1)).astype(np.int16)
    frames = []
    for k, camera in enumerate(ring_cameras(count, _SIZE, _FOCAL)):
        photo, mask = scene.photo(camera)
        grainy = np.clip(photo + np.roll(grain, (37 * k, 91 * k), (0, 1)), 0, 255).astype(np.uint8)
        frame = {"file_path": f"images/{k:04d}.jpg", "transform_matrix": camera.c2w.tolist()}
        Image.fromarray(grainy).save(folder / f"images/{k:04d}.jpg", quality=92)
        if masks:
            frame["mask_path"] = f"masks/{k:04d}.png"
            Image.fromarray(mask).save(folder / f"masks/{k:04d}.png", compress_level=1)
        frames.append(frame)
    lens = {"fl_x": _FOCAL, "fl_y": _FOCAL, "cx": _SIZE[0] / 2, "cy": _SIZE[1] / 2, "w": _SIZE[0], "h": _SIZE[1]}
    write_text(folder / "transforms.json", json.dumps({"camera_model": "OPENCV", **lens, "frames": frames}))


def time_whole(place: Path, arguments: Arguments, preset: str) -> None:
    """Run the whole job and say what each stage took."""
    capture = place / f"blocks{arguments.count}{'m' if arguments.masks else ''}"
    if not (capture / "transforms.json").is_file():
        make_blocks(capture, arguments.count, masks=arguments.masks)
    settings = load_preset(preset, ReconstructSettings()).settings
    wall, busy = time.monotonic(), time.process_time()
    result = reconstruct(capture, place / f"{capture.name}_{preset}", settings)
    wall, busy = time.monotonic() - wall, time.process_time() - busy
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in result.seconds.items())
    print(f"{arguments.count} photos, {preset}: {wall:.0f} s ({stages}), {busy:.0f} s of CPU time, {_memory()}")


def _memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most"


def main(arguments: Arguments) -> None:
    """Make the capture, read it or reconstruct it, say what it took."""
    if arguments.whole is not None:
        with tempfile.TemporaryDirectory() as scratch:
            time_whole(arguments.out or Path(scratch), arguments, arguments.whole)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "capture"
        folder.mkdir()
        make_capture(folder, arguments.count, distorted=arguments.distorted)
        wall, busy = time.monotonic(), time.process_time()
        views = load_capture(folder)
        stage = CaptureStage(views, folder, [], CaptureSettings())
        Runner(Path(place) / "out", lambda name, cached: None).run(stage)
        wall, busy = time.monotonic() - wall, time.process_time() - busy
    print(f"{len(views)} photos: {wall:.1f} s, {busy:.1f} s of CPU time, {_memory()}")


if __name__ == "__main__":
    run_script(main, Arguments)
