"""Scores of cut-outs on photos with true masks: overlap, and how near the boundaries are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from pipeline.diffusion.preparation.cutout import (
    cut_out,
    cut_out_by_rembg,
    fitted_to_edges,
    grown_by_colour,
    object_probability,
    rembg_model,
)
from pipeline.diffusion.preparation.segmenter import SegmenterModel
from pipeline.evaluation.tables import markdown_table
from pipeline.training.tasks.segmenter import held_out_photos
from scene.errors import InputError
from scene.metrics import mask_iou
from scene.photo import load_rgba
from scene.segment import segment_object

Segmenter = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w"]]
"""A photo to the alpha of its object."""


@dataclass(frozen=True, eq=False)
class MaskedPhoto:
    """A photo and its true mask."""

    name: str
    rgb: UInt8[np.ndarray, "h w 3"]
    truth: Bool[np.ndarray, "h w"]


def photo_pairs(folder: Path) -> list[MaskedPhoto]:
    """The aligned pairs of a folder: ``NAME.png`` with ``NAME_mask.png`` or ``NAME_rgba.png`` of the same size.

    Raises:
        InputError: there are none.
    """
    photos = []
    names = {p.stem.removesuffix("_mask").removesuffix("_rgba") for p in sorted(folder.glob("*.png"))}
    for name in sorted(names):
        plain, mask, rgba = (folder / f"{name}{end}.png" for end in ("", "_mask", "_rgba"))
        # A cut-out without its photo is left out: its hidden pixels are black, and nothing is to be found.
        truth_path = mask if mask.is_file() else rgba
        if not (plain.is_file() and truth_path.is_file()):
            continue
        photo, masked = load_rgba(plain), load_rgba(truth_path)
        truth = masked[..., 3] if masked[..., 3].min() < 255 else masked[..., :3].max(axis=-1)
        if truth.shape != photo.shape[:2]:
            continue
        photos.append(MaskedPhoto(name, np.ascontiguousarray(photo[..., :3]), truth >= 128))
    if not photos:
        raise InputError("no photos with masks", where=folder)
    return photos


def composed_photos(objects: Path, count: int, side: int) -> list[MaskedPhoto]:
    """Photos composed of held-out objects in surroundings of kinds that are never trained on."""
    photos = held_out_photos(objects, count, side)
    pairs = zip(photos.rgb, photos.alpha, strict=True)
    return [MaskedPhoto(str(k), rgb, alpha >= 128) for k, (rgb, alpha) in enumerate(pairs)]


def boundary_f(mask: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """F-measure of boundary pixels, with a tolerance of 0.75 % of the diagonal."""
    tolerance = max(1.0, 0.0075 * float(np.hypot(*mask.shape)))

    def boundary(solid: np.ndarray) -> np.ndarray:
        padded = np.pad(solid, 1).astype(np.uint8)
        return (padded - cv2.erode(padded, np.ones((3, 3), np.uint8)))[1:-1, 1:-1] > 0

    def found(some: np.ndarray, among: np.ndarray) -> float:
        if not some.any() or not among.any():
            return float(some.any() == among.any())
        far = cv2.distanceTransform((~among).astype(np.uint8), cv2.DIST_L2, 5)
        return float((far[some] <= tolerance).mean())

    precision, recall = found(boundary(mask), boundary(truth)), found(boundary(truth), boundary(mask))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def segmenters(model: SegmenterModel, *, stages: bool) -> dict[str, Segmenter]:
    """Everything that is scored, by name; with ``stages`` the nano segmenter's steps as well."""
    found: dict[str, Segmenter] = {"grabcut": segment_object, "nano": lambda rgb: cut_out(rgb, model).alpha}
    if stages:
        found["nano, network alone"] = lambda rgb: _alpha(object_probability(rgb, model), rgb)
        found["nano, guided filter"] = lambda rgb: _alpha(fitted_to_edges(object_probability(rgb, model), rgb), rgb)
        found["nano, GrabCut"] = lambda rgb: _alpha(grown_by_colour(object_probability(rgb, model), rgb), rgb)
    name = rembg_model()
    if name is not None:
        found[f"rembg ({name})"] = lambda rgb: cut_out_by_rembg(rgb, name).alpha
    return found


def _alpha(mask: Float[np.ndarray, "r c"], rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """A soft mask at the size of its photo."""
    if mask.shape != rgb.shape[:2]:
        mask = cv2.resize(mask, rgb.shape[1::-1])
    return np.round(mask * 255).astype(np.uint8)


@dataclass
class CutoutScores:
    """IoU and boundary F of every segmenter's cut-outs so far, and the seconds they took."""

    segmenters: dict[str, Segmenter]
    scores: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, photo: MaskedPhoto) -> dict[str, UInt8[np.ndarray, "h w"]]:
        """Cut a photo's object out in every way; nothing found counts as an empty mask."""
        masks = {}
        for name, find in self.segmenters.items():
            start = time.monotonic()
            try:
                masks[name] = find(photo.rgb)
            except InputError:
                masks[name] = np.zeros(photo.truth.shape, np.uint8)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
            solid = masks[name] >= 128
            scores = mask_iou(solid, photo.truth), boundary_f(solid, photo.truth)
            self.scores.setdefault(name, []).append(scores)
        return masks

    def last(self) -> list[str]:
        """IoU and boundary F of the photo added last, as cells of a table."""
        return [f"{iou:.3f}, {edge:.3f}" for iou, edge in (values[-1] for values in self.scores.values())]

    def table(self) -> str:
        """Means over all photos."""
        lines = []
        for name, values in self.scores.items():
            iou, edge = np.array(values).T
            means = f"{iou.mean():.3f}", f"{np.median(iou):.3f}", f"{(iou < 0.5).mean():.0%}", f"{edge.mean():.3f}"
            lines.append([name, *means, f"{self.seconds[name] / len(values):.2f}"])
        count = len(next(iter(self.scores.values())))
        return markdown_table([f"{count} photos", "IoU", "median", "below 0.5", "boundary F", "seconds each"], lines)


def sheet_row(photo: MaskedPhoto, masks: Mapping[str, np.ndarray], side: int = 192) -> UInt8[np.ndarray, "s w 3"]:
    """Photo, true cut-out and cut-outs, side by side."""

    def tile(alpha: np.ndarray | None) -> np.ndarray:
        rgb: Float[np.ndarray, "h w 3"] = photo.rgb.astype(np.float32)
        if alpha is not None:
            cover = alpha[..., None].astype(np.float32) / 255
            rgb = rgb * cover + np.array([255, 0, 255], np.float32) * (1 - cover)
        return cv2.resize(np.round(rgb).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)

    return np.concatenate([tile(None), tile(photo.truth * np.uint8(255)), *(tile(m) for m in masks.values())], axis=1)
