"""Score cut-outs of the segmenter beside GrabCut (and rembg where it is installed) on photos with true masks.

Photos are those of a folder with pairs: `NAME.png` with `NAME_mask.png` or `NAME_rgba.png` of the same size. Or photos
composed of held-out objects in surroundings of kinds that are never trained on. The boundary score is the F-measure of
outline pixels within 0.75 % of the picture's diagonal.

Example: python scripts/evaluate_segmenter.py --pairs DATA/images/pairs --sheet pairs.png
Example: python scripts/evaluate_segmenter.py --objects DATA/meshes_train --count 100
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from rich.progress import track

from pipeline.diffusion.preparation.cutout import (
    cut_out,
    cut_out_by_rembg,
    fitted_to_edges,
    grown_by_colour,
    load_segmenter,
    object_probability,
    rembg_model,
    segmenter_folder,
)
from pipeline.diffusion.preparation.segmenter import SegmenterModel
from pipeline.training.tasks.segmenter import held_out_photos
from scene.errors import InputError
from scene.metrics import mask_iou
from scene.photo import load_rgba
from scene.segment import segment_object

Finder = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Arguments:
    """Score cut-outs on photos with true masks."""

    pairs: Path | None = None
    """Folder of photos with masks."""
    objects: Path | None = None
    """Folder of the object pool: composed photos of its val split."""
    count: int = 100
    """Composed photos."""
    side: int = 384
    """Side of composed photos."""
    weights: Path | None = None
    """Segmenter; the shipped one by default."""
    stages: bool = False
    """Score the segmenter's steps as well: the network's mask alone, fitted to edges, and decided by GrabCut."""
    sheet: Path | None = None
    """Write a picture of photos, true masks and cut-outs."""


@dataclass(frozen=True, eq=False)
class Case:
    """A photo and its true mask."""

    name: str
    rgb: UInt8[np.ndarray, "h w 3"]
    truth: Bool[np.ndarray, "h w"]


def read_pairs(folder: Path) -> list[Case]:
    """The aligned pairs of a folder.

    Raises:
        InputError: there are none.
    """
    cases = []
    names = {p.stem.removesuffix("_mask").removesuffix("_rgba") for p in sorted(folder.glob("*.png"))}
    for name in sorted(names):
        plain, mask, rgba = (folder / f"{name}{end}.png" for end in ("", "_mask", "_rgba"))
        # A cut-out without its photo is left out: its hidden pixels are black, and nothing is to be found.
        photo_path, truth_path = plain, mask if mask.is_file() else rgba
        if not (photo_path.is_file() and truth_path.is_file()):
            continue
        photo, given = load_rgba(photo_path), load_rgba(truth_path)
        truth = given[..., 3] if given[..., 3].min() < 255 else given[..., :3].max(axis=-1)
        if truth.shape != photo.shape[:2]:
            continue
        cases.append(Case(name, np.ascontiguousarray(photo[..., :3]), truth >= 128))
    if not cases:
        raise InputError("no photos with masks", where=folder)
    return cases


def boundary_f(mask: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """F-measure of outlines, with a tolerance of 0.75 % of the diagonal."""
    reach = max(1.0, 0.0075 * float(np.hypot(*mask.shape)))

    def outline(solid: np.ndarray) -> np.ndarray:
        padded = np.pad(solid, 1).astype(np.uint8)
        return (padded - cv2.erode(padded, np.ones((3, 3), np.uint8)))[1:-1, 1:-1] > 0

    def found(some: np.ndarray, among: np.ndarray) -> float:
        if not some.any() or not among.any():
            return float(some.any() == among.any())
        far = cv2.distanceTransform((~among).astype(np.uint8), cv2.DIST_L2, 5)
        return float((far[some] <= reach).mean())

    precision, recall = found(outline(mask), outline(truth)), found(outline(truth), outline(mask))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def finders(model: SegmenterModel, *, stages: bool) -> dict[str, Finder]:
    """Everything that is scored, by name."""
    found: dict[str, Finder] = {"grabcut": segment_object, "nano": lambda rgb: cut_out(rgb, model).alpha}
    if stages:
        found["nano, network alone"] = lambda rgb: np.round(
            cv2.resize(object_probability(rgb, model), rgb.shape[1::-1]) * 255
        ).astype(np.uint8)
        found["nano, guided filter"] = lambda rgb: np.round(
            fitted_to_edges(object_probability(rgb, model), rgb) * 255
        ).astype(np.uint8)
        found["nano, GrabCut"] = lambda rgb: np.round(
            cv2.resize(grown_by_colour(object_probability(rgb, model), rgb), rgb.shape[1::-1]) * 255
        ).astype(np.uint8)
    name = rembg_model()
    if name is not None:
        found[f"rembg ({name})"] = lambda rgb: cut_out_by_rembg(rgb, name).alpha
    return found


def sheet_row(case: Case, masks: Mapping[str, np.ndarray], side: int = 192) -> np.ndarray:
    """Photo, true cut-out and cut-outs, side by side."""

    def tile(alpha: np.ndarray | None) -> np.ndarray:
        rgb: Float[np.ndarray, "h w 3"] = case.rgb.astype(np.float32)
        if alpha is not None:
            share = alpha[..., None].astype(np.float32) / 255
            rgb = rgb * share + np.array([255, 0, 255], np.float32) * (1 - share)
        return cv2.resize(np.round(rgb).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)

    return np.concatenate([tile(None), tile(case.truth * np.uint8(255)), *(tile(m) for m in masks.values())], axis=1)


def main(arguments: Arguments) -> None:
    """Score, print tables, write the sheet."""
    if arguments.pairs is not None:
        cases = read_pairs(arguments.pairs)
    elif arguments.objects is not None:
        photos = held_out_photos(arguments.objects, arguments.count, arguments.side)
        cases = [
            Case(str(k), rgb, alpha >= 128) for k, (rgb, alpha) in enumerate(zip(photos.rgb, photos.alpha, strict=True))
        ]
    else:
        raise InputError("nothing to score", fix="Give --pairs or --objects.")
    folder = arguments.weights or segmenter_folder()
    if folder is None:
        raise InputError("there is no segmenter", fix="Name one with --weights.")
    ways = finders(load_segmenter(folder), stages=arguments.stages)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    rows = []
    if arguments.pairs is not None:
        print(f"IoU, boundary F\n\n| photo | {' | '.join(ways)} |\n|{'---|' * (1 + len(ways))}")
    for case in track(cases, "cutting out", disable=len(cases) < 20):
        masks = {}
        for name, find in ways.items():
            start = time.monotonic()
            try:
                masks[name] = find(case.rgb)
            except InputError:
                masks[name] = np.zeros(case.truth.shape, np.uint8)
            seconds[name] += time.monotonic() - start
            solid = masks[name] >= 128
            scores[name].append((mask_iou(solid, case.truth), boundary_f(solid, case.truth)))
        rows.append(sheet_row(case, masks))
        if arguments.pairs is not None:
            print(f"| {case.name} | " + " | ".join(f"{s[-1][0]:.3f}, {s[-1][1]:.3f}" for s in scores.values()) + " |")
    print(
        f"\n| {len(cases)} photos | IoU | median | below 0.5 | boundary F | seconds each |\n|---|---|---|---|---|---|"
    )
    for name, values in scores.items():
        iou, edge = np.array(values).T
        print(
            f"| {name} | {iou.mean():.3f} | {np.median(iou):.3f} | {(iou < 0.5).mean():.0%} | {edge.mean():.3f} "
            f"| {seconds[name] / len(cases):.2f} |"
        )
    if arguments.sheet is not None:
        Image.fromarray(np.concatenate(rows[:24])).save(arguments.sheet)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
