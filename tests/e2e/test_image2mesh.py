"""From a photo to an asset, through the command line: sound, upright, the right way round, and coloured."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml
from PIL import Image

from pipeline.training.procedural import assemble, box, moved
from recon.export.glb_read import read_glb
from recon.export.validate import validate_glb
from recon.texture.evidence import KINDS
from scene.camera import orbit_camera
from scene.mesh import sample_image
from scene.render import MeshRenderer
from scene.resources import default_weights

RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.2, 0.8)
TINY = {
    "prepare": {"side": 128},
    "views": {"rings": {"views": [4], "elevations_deg": [10], "offsets_deg": [45]}, "sampling": {"steps": 2}},
    "fit": {
        "levels": [16, 32],
        "iterations": [4, 4],
        "rays": 1024,
        "hull_resolution": 32,
        "hull_threshold": 0.9,
        "prior_weight": 0.0,
    },
    "mesh": {"max_faces": 2000, "texture": 256, "turntable": [64, 4]},
}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A wide red plinth with a blue tower on its left, seen from slightly above."""
    plinth = moved(box((0.25, 0.5, 0.15)), (0.0, 0.0, 0.15))
    tower = moved(box((0.15, 0.15, 0.35)), (0.0, -0.35, 0.65))
    renderer = MeshRenderer(assemble([(plinth, RED), (tower, BLUE)]).normalised())
    rgba = renderer.render(orbit_camera(0.0, math.radians(10), 1.5, size=256)).rgba
    Image.fromarray(np.round(rgba * 255).astype(np.uint8)).save(tmp_path / "castle.png")
    return tmp_path / "castle.png"


def run(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line and insist that it succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", "viewloom", *words], capture_output=True, text=True, cwd=folder, timeout=1500
    )
    assert done.returncode == 0, done.stderr
    return done


def check_results(folder: Path, max_bytes: int) -> None:
    """All that must hold for the asset of the photo, whatever the model can do."""
    path = folder / "castle.glb"
    report = validate_glb(path)
    assert report.clean, report.messages
    assert path.stat().st_size < max_bytes
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'href="castle.glb"' in page
    assert "://" not in page
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["asset"]["health"]["watertight"] is True
    assert manifest["asset"]["validator_errors"] == manifest["asset"]["validator_warnings"] == 0
    assert manifest["photo"]["name"] == "castle.png"

    mesh = trimesh.load(path, force="mesh")
    low, high = mesh.bounds
    assert (high - low).max() == pytest.approx(0.3, abs=1e-4)
    assert low[1] == pytest.approx(0, abs=1e-6)  # it stands on the ground,
    assert np.allclose((low + high)[[0, 2]], 0, atol=1e-6)  # in the middle
    height, width = high[1], high[0] - low[0]
    x, y, _ = mesh.vertices.T
    top, bottom = y > 0.75 * height, y < 0.15 * height
    # The tower is at the top (+Y up), and on the left of whoever looks at the front (+Z).
    assert np.ptp(x[top]) < 0.6 * width < np.ptp(x[bottom])
    assert x[top].mean() < -0.15 * width
    # The photo's colours are on the front, where it sees that: the tower's at the top, the plinth's on the right of it.
    asset = read_glb(path)
    assert asset.evidence is not None
    x, y, _ = asset.vertices.T
    seen = (asset.normals[:, 2] > 0.5) & (asset.evidence[:, KINDS.index("seen")] > 127)
    tower, plinth = seen & (y > 0.75 * height), seen & (x > 0.05 * width)
    assert min(tower.sum(), plinth.sum()) > 5
    colours = 255 * sample_image(asset.texture, asset.uv.astype(np.float32))
    blue, red = colours[tower].mean(axis=0), colours[plinth].mean(axis=0)
    assert blue[2] > blue[0] + 80
    assert red[0] > red[2] + 80


@pytest.mark.slow
def test_a_tiny_model_through_the_command_line(photo: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    words = ["image2mesh", photo, "-o", "out", "--preset", "tiny.yaml", "--views.weights", tiny_checkpoint]
    words += ["--elevation", "10", "--device", "cpu"]
    done = run(*words, folder=tmp_path)
    verdict = json.loads((tmp_path / "out" / "castle" / "manifest.json").read_text())["asset"]["verdict"]
    about = f"{verdict['word']} {verdict['score']:.2f}; report: {Path('out/castle/report.html')}"
    assert done.stdout == f"{Path('out/castle/castle.glb')}  ({about})\n"
    assert done.stderr.splitlines()[0].endswith(": image2mesh")
    check_results(tmp_path / "out" / "castle", max_bytes=300_000)
    first = (tmp_path / "out" / "castle" / "castle.glb").read_bytes()
    again = run(*words, folder=tmp_path)
    assert [line.split()[1] for line in again.stderr.splitlines() if line.endswith("kept")] == ["kept"] * 4
    assert (tmp_path / "out" / "castle" / "castle.glb").read_bytes() == first
    (tmp_path / "elsewhere").mkdir()
    run(*words[:3], "elsewhere", *words[4:], folder=tmp_path)
    assert (tmp_path / "elsewhere" / "castle" / "castle.glb").read_bytes() == first


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shipped_model_through_the_command_line(photo: Path, tmp_path: Path) -> None:
    weights = default_weights()  # an installation without them is incomplete
    run("image2mesh", photo, "-o", "out", "--preset", "draft", "--device", "cpu", folder=tmp_path)
    folder = tmp_path / "out" / "castle"
    check_results(folder, max_bytes=5_000_000)
    manifest = json.loads((folder / "manifest.json").read_text())
    index = json.loads((weights / "model_index.json").read_text(encoding="utf-8"))
    assert manifest["weights"]["licence"] == index["viewloom"]["licence"] != "unknown"
    assert manifest["warnings"] == []
