"""Jobs that take a second: a tiny random model, few views, small grids; and photos of a made-up object."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.diffusion.settings import PrepareSettings, SamplingSettings
from pipeline.editing.boxes import BoxTarget
from pipeline.jobs.edit import edit
from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.settings import Image2MeshSettings, MeshSettings, ReconstructSettings, RingSettings, ViewsSettings
from pipeline.jobs.time_left import Work
from pipeline.training.procedural import random_object
from recon.settings import FitSettings
from scene.camera import normalising_transform, orbit_camera
from scene.render import MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from tests.bodies import body_of, standing
from tests.pipeline.jobs.edits import AWAY, SETTINGS, Made, pose, to_world

SMALL_FIT = FitSettings(levels=(8, 16), iterations=(2, 2), rays=256, image_side=32, hull_resolution=16)
SMALL_MESH = MeshSettings(max_faces=400, texture=64, smoothing=2, turntable=(48, 4))
STAGES = ["prepare", "views", "surface", "asset"]


@dataclass
class Heard:
    """A reporter that remembers."""

    items: list[str] = field(default_factory=list)
    stages: list[tuple[str, bool]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def item(self, name: str, work: Work = Work()) -> None:
        self.items.append(name)
        self.works.append(work)

    def stage(self, name: str, cached: bool) -> None:
        self.stages.append((name, cached))

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finished(self) -> None:
        self.ends.append("finished")

    def failed(self, text: str) -> None:
        self.ends.append("failed")
        self.failures.append(text)

    @property
    def redone(self) -> list[str]:
        """Stages that were not kept."""
        return [name for name, cached in self.stages if not cached]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def ring_of_views(count: int, size: int) -> ViewSet:
    """Views around a made-up object, alternately from above and below, with exact masks."""
    renderer = MeshRenderer(random_object(3, "creature"))
    views = []
    for k in range(count):
        camera = orbit_camera(2 * math.pi * k / count, (0.5, -0.2)[k % 2], 1.5, size=size)
        views.append(View(f"v{k}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8)))
    return ViewSet(tuple(views), True)


@pytest.fixture(scope="session")
def rendered() -> Callable[[int, int], ViewSet]:
    """Makes such views."""
    return ring_of_views


@pytest.fixture(scope="session")
def pixels(rendered: Callable[[int, int], ViewSet]) -> np.ndarray:
    """A cut-out of the object."""
    return rendered(1, 64).views[0].rgba()


@pytest.fixture
def photo(pixels: np.ndarray, tmp_path: Path) -> Path:
    """The cut-out as a file."""
    path = tmp_path / "toy.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def settings(tiny_checkpoint: Path) -> Image2MeshSettings:
    """Settings of a photo's job."""
    return Image2MeshSettings(
        prepare=PrepareSettings(side=64, cutout="grabcut"),
        views=ViewsSettings(
            weights=tiny_checkpoint, rings=RingSettings((3,), (10.0,), (45.0,)), sampling=SamplingSettings(steps=2)
        ),
        fit=SMALL_FIT,
        mesh=SMALL_MESH,
        device="cpu",
    )


@pytest.fixture(scope="session")
def capture_settings() -> ReconstructSettings:
    """Settings of a capture's job."""
    return ReconstructSettings(fit=SMALL_FIT, mesh=SMALL_MESH)


@dataclass
class Done:
    """A finished job, not to be written to."""

    photo: Path
    out: Path
    result: ItemResult
    heard: Heard


@pytest.fixture(scope="session")
def done(pixels: np.ndarray, settings: Image2MeshSettings, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The job of the photo, run once for all tests that look at its result."""
    folder = tmp_path_factory.mktemp("done")
    photo, heard = folder / "toy.png", Heard()
    Image.fromarray(pixels).save(photo)
    results = image2mesh([photo], folder / "out", settings, reporter=heard)
    if results[0].error is not None:
        raise results[0].error
    return Done(photo, folder / "out", results[0], heard)


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Names and bytes of a job's results, without the report (it tells times) and what a killed writer left aside."""

    def read(folder: Path) -> dict[str, bytes]:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return {k: v for k, v in files.items() if not k.endswith("report.html") and not Path(k).name.startswith(".")}

    return read


# --- edits ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of a body with its arms spread, with a skeleton, a target and boxes."""
    folder = tmp_path_factory.mktemp("captures") / "body"
    body = body_of(standing(), 0.04)
    renderer = MeshRenderer(body.transformed(normalising_transform(body_of(standing(), 0.05).vertices)))
    views = []
    for k in range(8):
        camera = orbit_camera(2 * math.pi * k / 8, (0.5, -0.1)[k % 2], 1.5, size=64)
        views.append(View(f"v{k}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8)))
    ViewSet(tuple(views), True).transformed(AWAY).save(folder)
    pose().save(folder / "skeleton.json")
    pose("left").save(folder.parent / "target.json")
    legs = np.array([[0.3, 0, 0, 0], [0, 0.4, 0, 0], [0, 0, 0.45, 0.45], [0, 0, 0, 1.0]])
    rest = np.array([[0.3, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0.45, 1.35], [0, 0, 0, 1.0]])
    longer = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1.5, -0.45], [0, 0, 0, 1.0]])
    boxes = np.stack([legs, rest])
    after = np.stack([longer @ legs, rest])
    BoxTarget(to_world() @ boxes, to_world() @ after).save(folder.parent / "boxes.json")
    return folder


@pytest.fixture(scope="session")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The edit by the target's skeleton, made once."""
    heard, out = Heard(), tmp_path_factory.mktemp("made") / "out"
    result = edit(source, out, SETTINGS, skeleton=source.parent / "target.json", reporter=heard)
    return Made(source, out, result, heard)


@pytest.fixture
def again(made: Made, tmp_path: Path) -> Path:
    """A copy of what was made, to be changed."""
    shutil.copytree(made.out, tmp_path / "out")
    return tmp_path / "out"
