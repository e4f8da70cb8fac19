"""Cutting the object out of a photo: by rembg where it is installed, by the nano segmenter, or by colour (GrabCut)."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.checkpoints.weight_files import part_files
from pipeline.diffusion.preparation.openings import closed_openings
from pipeline.diffusion.preparation.segmenter import SegmenterModel
from pipeline.diffusion.settings import CutoutWay
from scene.backends import optional_module
from scene.errors import InputError, MissingBackendError, ViewloomError
from scene.resources import shipped
from scene.segment import picture_inside_bars, segment_object

WORKING_SIDE = 512
"""Masks are fitted to the edges of the photo at this size."""
REMBG_MODELS = ("isnet-general-use", "u2net", "silueta", "u2netp")
"""General models of rembg, the best first."""
UNSURE = 0.75
"""Below this confidence the user is asked to look."""
_COLOUR_CONFIDENCE = 0.6
"""In GrabCut's masks, which have no probabilities: about their overlap with the truth on real photos."""

Mask = Float[np.ndarray, "h w"]
SmallMask = Float[np.ndarray, "r c"]


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object found in a photo.

    Args:
        alpha: the object's coverage, at the photo's size.
        confidence: what the model expects its mask's overlap with the truth to be, in [0, 1].
        warnings: what the user should look at.
    """

    alpha: UInt8[np.ndarray, "h w"]
    confidence: float
    warnings: tuple[str, ...]


def find_object(rgb: UInt8[np.ndarray, "h w 3"], way: CutoutWay = "auto") -> CutOut:
    """A photo's object, and what the user should know of it.

    Args:
        way: what finds it; ``auto`` takes rembg, the nano segmenter, GrabCut, the first that is there and finds one.

    Raises:
        InputError: no object was found.
        MissingBackendError: rembg was asked for and it or its model is not there.
        CheckpointError: the segmenter is damaged, or was asked for and is missing.
        ViewloomError: rembg was asked for and failed.
    """
    notes: tuple[str, ...] = ()
    name = rembg_model() if way in ("auto", "rembg") else None
    if name is not None:
        try:
            return _with_origin(cut_out_by_rembg(rgb, name), f"rembg ({name})")
        except ViewloomError as error:
            if way == "rembg":
                raise
            notes = (f"rembg was passed over: {error.what}.",)
    elif way == "rembg":
        raise MissingBackendError(
            "rembg or its model is not on this machine",
            fix="Install rembg[cpu] and run `rembg d u2net` once, or choose another way with --prepare.cutout.",
        )
    folder = segmenter_folder()
    if way == "nano" or (way == "auto" and folder is not None):
        model = load_segmenter(shipped("weights") / "nano" / "segmenter" if folder is None else folder)
        try:
            found = _with_origin(cut_out(rgb, model), "the nano segmenter")
            return replace(found, warnings=(*found.warnings, *notes))
        except InputError:
            if way == "nano":
                raise
            notes = (*notes, "The nano segmenter found no object.")
    alpha, more = _with_labels(segment_object(rgb), rgb)
    return _with_origin(CutOut(alpha, _COLOUR_CONFIDENCE, (*more, *notes)), "colour (GrabCut)")


_LOOK = "Look at cutout.png, and give a mask with --mask if it is wrong."


def _with_origin(found: CutOut, by: str) -> CutOut:
    """A cut-out with a line that says what made it, before its own warnings."""
    return replace(found, warnings=(f"The photo has no alpha: the object was found by {by}. {_LOOK}", *found.warnings))


def finder_files(way: CutoutWay) -> tuple[str | None, list[Path]]:
    """What cut-outs of photos without alpha depend on beside their settings: rembg's model, the segmenter's weights."""
    folder = segmenter_folder() if way in ("auto", "nano") else None
    return rembg_model() if way in ("auto", "rembg") else None, [] if folder is None else part_files(folder)


def segmenter_folder() -> Path | None:
    """Where the shipped segmenter lies; None if this installation came without it."""
    folder = shipped("weights") / "nano" / "segmenter"
    return folder if (folder / "config.json").is_file() else None


@functools.lru_cache(maxsize=2)
def load_segmenter(folder: Path) -> SegmenterModel:
    """Load a segmenter once.

    Raises:
        CheckpointError: the folder is incomplete or damaged.
    """
    model = load_part(SegmenterModel, folder)
    assert isinstance(model, SegmenterModel)
    return model


def cut_out(rgb: UInt8[np.ndarray, "h w 3"], model: SegmenterModel) -> CutOut:
    """Find the object with the segmenter.

    Letterbox bars are left out. The model looks at the whole image, then again at the object's surroundings alone;
    GrabCut decides where it is unsure; what the object encloses is its own unless it looks like the surroundings; the
    mask is fitted to the photo's edges and cleaned of specks.

    Raises:
        InputError: no object was found.
    """
    if min(rgb.shape[:2]) < 8:
        raise _nothing()
    top, bottom, left, right = picture_inside_bars(rgb)
    image = np.ascontiguousarray(rgb[top:bottom, left:right])
    soft = object_probability(image, model)
    if not (soft > 0.5).mean() > 0.001:
        raise _nothing()
    decided = grown_by_colour(soft, image)
    labels, notes = closed_openings(decided > 0.5, cv2.resize(image, soft.shape[::-1], interpolation=cv2.INTER_AREA))
    decided[labels] = 1
    confidence = min(_expected_overlap(soft), _expected_overlap(soft, decided > 0.5))
    mask = _tidied(fitted_to_edges(decided, image))
    if not 0.001 < (mask > 0.5).mean() < 0.995:
        raise _nothing()
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    alpha[top:bottom, left:right] = np.round(mask * 255)
    unsure = (f"The cut-out is uncertain (expected overlap {confidence:.2f}).",) if confidence < UNSURE else ()
    return CutOut(alpha, confidence, (*notes, *unsure))


def _with_labels(
    alpha: UInt8[np.ndarray, "h w"], rgb: UInt8[np.ndarray, "h w 3"]
) -> tuple[UInt8[np.ndarray, "h w"], tuple[str, ...]]:
    """A mask found by colour, with what it encloses and does not look like the surroundings; and what to know of it."""
    height, width = alpha.shape
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = [cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (alpha, rgb)]
    labels, notes = closed_openings(small[0] >= 128, small[1])
    if not labels.any():
        return alpha, notes
    # The soft rim of the opening goes as well.
    grown = cv2.dilate(labels.astype(np.uint8), np.ones((7, 7), np.uint8))
    full = cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return np.where(full, 255, alpha).astype(np.uint8), notes


@torch.no_grad()
def object_probability(rgb: UInt8[np.ndarray, "h w 3"], model: SegmenterModel) -> SmallMask:
    """How likely each pixel is of the object, at the working size or the photo's own if that is smaller."""
    scale = min(1.0, WORKING_SIDE / max(rgb.shape[:2]))
    height, width = (max(8, round(n * scale)) for n in rgb.shape[:2])
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    first = _look(small, model)
    rows, columns = (np.nonzero((first > 0.5).any(axis=k))[0] for k in (1, 0))
    if not len(rows):
        return first
    top, bottom = _around(int(rows[0]), int(rows[-1]) + 1, height)
    left, right = _around(int(columns[0]), int(columns[-1]) + 1, width)
    if (bottom - top) * (right - left) > 0.8 * height * width:
        return first
    second = _look(np.ascontiguousarray(small[top:bottom, left:right]), model)
    # Both looks count: the first has seen the surroundings, the second has more pixels.
    first[top:bottom, left:right] = 0.35 * first[top:bottom, left:right] + 0.65 * second
    return first


def _look(rgb: UInt8[np.ndarray, "h w 3"], model: SegmenterModel) -> Mask:
    """The model's probabilities of an image and of its mirror image, at the size of the image."""
    side = int(model.config["image_size"])
    seen = torch.from_numpy(cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)).float() / 255
    pair = torch.stack([seen, seen.flip(1)]).permute(0, 3, 1, 2)
    mask = model(pair)[0].sigmoid()[:, 0]
    mean = ((mask[0] + mask[1].flip(1)) / 2).numpy()
    return np.clip(cv2.resize(mean, rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)


def _around(low: int, high: int, length: int, room: float = 0.2) -> tuple[int, int]:
    margin = round((high - low) * room) + 4
    return max(0, low - margin), min(length, high + margin)


def _expected_overlap(soft: Mask, mask: Bool[np.ndarray, "h w"] | None = None) -> float:
    """Intersection over union of a mask, or of the likelier pixels, with a truth that the probabilities describe."""
    inside = soft > 0.5 if mask is None else mask
    return float(soft[inside].sum() / (inside.sum() + soft[~inside].sum()))


def grown_by_colour(soft: SmallMask, rgb: UInt8[np.ndarray, "h w 3"]) -> SmallMask:
    """The mask decided by GrabCut where the model is unsure, from the colours of where it is sure."""
    state = np.where(soft > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[soft > 0.95], state[soft < 0.05] = cv2.GC_FGD, cv2.GC_BGD
    if not (state & 1).any() or (state & 1).all():
        return soft
    small = cv2.resize(rgb, soft.shape[::-1], interpolation=cv2.INTER_AREA)
    cv2.setRNGSeed(1)  # its clustering draws from a shared generator
    cv2.grabCut(small, state, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    return (state & 1).astype(np.float32)


def fitted_to_edges(soft: SmallMask, rgb: UInt8[np.ndarray, "h w 3"]) -> Mask:
    """The mask at the photo's size, its boundary drawn to the photo's edges by a guided filter.

    In every window the mask is the linear function of the colours that fits best (He, Sun and Tang, "Guided image
    filtering", 2013). The functions are found at the mask's size and applied to the photo's own pixels.
    """
    height, width = soft.shape
    guide = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    slope, offset = _local_fit(guide, soft, max(2, round(max(height, width) / 100)), 1e-4)
    size = rgb.shape[1::-1]
    mask = cv2.resize(offset, size, interpolation=cv2.INTER_LINEAR)
    for k in range(3):  # one by one: all at once would take a gigabyte for a large photo
        part = cv2.resize(np.ascontiguousarray(slope[..., k]), size, interpolation=cv2.INTER_LINEAR)
        part *= rgb[..., k]
        mask += part / np.float32(255)
    # Windows that straddle the boundary leave a haze on both sides.
    return np.clip((mask - 0.5) * 2.5 + 0.5, 0, 1)


def _local_fit(
    guide: Float[np.ndarray, "h w 3"], mask: Mask, radius: int, smooth: float
) -> tuple[Float[np.ndarray, "h w 3"], Mask]:
    """Slopes and offsets of the best linear functions of colour, averaged over the windows that hold a pixel."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    middle, level = mean(guide), mean(mask)
    products = mean((guide[..., :, None] * guide[..., None, :]).reshape(*mask.shape, 9)).reshape(*mask.shape, 3, 3)
    spread = products - middle[..., :, None] * middle[..., None, :] + smooth * np.eye(3, dtype=np.float32)
    shared = mean(guide * mask[..., None]) - middle * level[..., None]
    slope = np.linalg.solve(spread, shared[..., None])[..., 0].astype(np.float32)
    return mean(slope), mean(level - (slope * middle).sum(axis=-1))


def _tidied(mask: Mask) -> Mask:
    """The mask without specks and pinholes."""
    solid: Bool[np.ndarray, "h w"] = mask > 0.5
    label, count = ndimage.label(solid)
    if count == 0:
        return mask
    size = np.bincount(label.reshape(-1), minlength=count + 1)
    size[0] = 0
    kept = size >= 0.1 * size.max()
    # The soft rim of what is kept stays, that of specks goes.
    radius = max(2, round(max(mask.shape) / 200))
    near = cv2.dilate(kept[label].astype(np.uint8), np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0
    tidy = np.where(near & (kept[label] | ~solid), mask, 0).astype(np.float32)
    holes, _ = ndimage.label(tidy <= 0.5)
    pinholes = np.bincount(holes.reshape(-1)) < 0.0005 * mask.size
    pinholes[0] = False
    tidy[pinholes[holes]] = 1.0
    return tidy


def _nothing() -> InputError:
    return InputError(
        "no object stands out from the background", fix="Give a cut-out with alpha (PNG), or a mask with --mask."
    )


def rembg_model() -> str | None:
    """The best general model of rembg on this machine; None if rembg or its models are not there.

    Looks only where rembg keeps its files: nothing is downloaded.
    """
    found = next((name for name in REMBG_MODELS if _rembg_file(name) is not None), None)
    return found if found is not None and optional_module("rembg") is not None else None


def cut_out_by_rembg(rgb: UInt8[np.ndarray, "h w 3"], name: str) -> CutOut:
    """Find the object with a model of rembg.

    Raises:
        InputError: no object was found.
        ViewloomError: rembg failed, or its model is damaged.
    """
    rembg = optional_module("rembg")
    assert rembg is not None
    try:
        mask = rembg.remove(Image.fromarray(rgb), session=_rembg_session(rembg, name), only_mask=True)
    except Exception as error:
        raise ViewloomError(
            f"rembg failed with its model {name} ({error})", fix="Choose another way with --prepare.cutout."
        ) from error
    alpha = np.array(mask.convert("L"))
    soft = alpha.astype(np.float32) / 255
    if not 0.001 < (soft > 0.5).mean() < 0.995:
        raise _nothing()
    return CutOut(alpha, _expected_overlap(soft), ())


def _rembg_file(name: str) -> Path | None:
    """Where rembg keeps a model: in a folder of its own since 2.0.80, before that beside the others."""
    own, data = os.environ.get("U2NET_HOME"), os.environ.get("XDG_DATA_HOME")
    home = own or os.environ.get("REMBG_HOME", f"{data}/rembg" if data else "~/.rembg")
    shared = own or f"{data or '~'}/.u2net"
    places = f"{home}/models/{name}/{name}.onnx", f"{shared}/{name}.onnx"
    return next((path for path in (Path(place).expanduser() for place in places) if path.is_file()), None)


def _rembg_session(rembg: Any, name: str) -> Any:
    """A session of rembg that takes the file which is there.

    rembg's own would compare its checksum, and download the model again if it is damaged.
    """
    path, onnxruntime = _rembg_file(name), optional_module("onnxruntime")
    if path is None or onnxruntime is None:
        raise FileNotFoundError("its model or onnxruntime is gone")
    kind = next(kind for kind in rembg.sessions.sessions_class if kind.name() == name)
    local = type(kind.__name__, (kind,), {"download_models": classmethod(lambda *_, **__: str(path))})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return local(name, options)
