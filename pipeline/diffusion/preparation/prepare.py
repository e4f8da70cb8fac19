"""From a photo of any kind to the centred cut-out that the models expect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from pipeline.diffusion.preparation.coverage import FAINTEST, weighed
from pipeline.diffusion.preparation.cutout import find_object
from pipeline.diffusion.settings import PrepareSettings
from scene.errors import InputError
from scene.framing import Framing, apply_framing, framing_of_mask
from scene.photo import MAX_SIDE, read_masked, read_picture
from scene.segment import has_useful_alpha

LEAST_SIDE = 512
"""Photos that hold less of their object are enlarged to a frame of this side (or of the most, if that is less)."""

_LONGEST_STRIP = 64
"""Photos that are this many times as long as wide show nothing that could be framed."""


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """A photo ready for the view model.

    Args:
        cutout: the photo at its own size, its background transparent.
        framed: the cut-out centred in a square frame, as large as the photo itself.
        framing: how the frame was cut from the photo.
        warnings: what the user should look at.
        confidence: in the cut-out, in [0, 1]; 1 where it was given.
        came_cut_out: the photo's own alpha is the mask: what that hides is no part of the picture.
    """

    cutout: UInt8[np.ndarray, "h w 4"]
    framed: UInt8[np.ndarray, "s s 4"]
    framing: Framing
    warnings: tuple[str, ...]
    confidence: float = 1.0
    came_cut_out: bool = False

    @property
    def mask(self) -> UInt8[np.ndarray, "h w"]:
        """The cut-out's alpha."""
        return self.cutout[..., 3]

    def resized(self, side: int) -> UInt8[np.ndarray, "s s 4"]:
        """The framed cut-out at another size, resampled from the photo itself."""
        return apply_framing(self.cutout, self.framing.resized(side))


def prepare_photo(
    path: Path, settings: PrepareSettings = PrepareSettings(), mask_path: Path | None = None
) -> PreparedPhoto:
    """Read, cut out, centre and frame a photo.

    The mask comes from ``mask_path`` if given, else from the photo's own alpha if that tells object from background,
    else from what ``settings.cutout`` names, with a warning. Alpha and mask are evidence, see
    :func:`pipeline.diffusion.preparation.coverage.weighed`.

    Raises:
        InputError: the photo or mask cannot be read, or no object is found.
    """
    picture = read_picture(path, MAX_SIDE) if mask_path is None else read_masked(path, mask_path, MAX_SIDE)
    _refuse_strips(path, picture.size)
    rgba, warnings = picture.rgba, list(picture.notes)
    confidence, came_cut_out = 1.0, mask_path is None
    if mask_path is None and rgba[..., 3].max() < FAINTEST:
        raise InputError("the photo is fully transparent", where=path, fix="Export it with its object visible.")
    if rgba[..., 3].min() < 255:
        rgba, notes = _weighed(rgba, is_mask=mask_path is not None)
        warnings += notes
    if mask_path is None and not has_useful_alpha(rgba):
        flat = _on_white(rgba)
        try:
            found = find_object(flat, settings.cutout)
        except InputError as error:
            raise type(error)(error.what, where=error.where or path, fix=error.fix) from error
        warnings += found.warnings
        confidence, came_cut_out = found.confidence, False
        rgba = np.concatenate([flat, found.alpha[..., None]], axis=-1)
    solid = rgba[..., 3] >= 128
    if solid.sum() < 64:
        raise InputError(
            "the object covers fewer than 64 pixels", where=path, fix="Give a larger or better masked photo."
        )
    edges = [
        name
        for name, line in (("top", solid[0]), ("bottom", solid[-1]), ("left", solid[:, 0]), ("right", solid[:, -1]))
        if line.mean() > 0.01
    ]
    if edges:
        warnings.append(
            f"The object is cut off at the {' and '.join(edges)} of the photo: the missing part will be guessed."
        )
    if (pieces := _pieces(solid)) > 1:
        warnings.append(
            f"The cut-out is of {pieces} separate pieces, which are taken for one object. "
            "Give a mask with --mask to choose one."
        )
    framing = _own_size(framing_of_mask(solid, settings.side, settings.fill))
    framed = apply_framing(rgba, framing)
    if not (framed[..., 3] >= 128).any():
        raise InputError(
            "the object is too thin to be seen once it is framed", where=path, fix="Give a photo that shows it whole."
        )
    if framing.scale > 4:
        warnings.append(
            f"The object is only {round(settings.fill * framing.size / framing.scale)} pixels large: "
            "expect a blurred result."
        )
    return PreparedPhoto(rgba, framed, framing, tuple(warnings), confidence, came_cut_out)


def _refuse_strips(path: Path, size: tuple[int, int]) -> None:
    """Raise if the photo is a line of pixels: whatever that shows, it is no object."""
    if max(size) > _LONGEST_STRIP * min(size):
        raise InputError(
            f"{size[0]}x{size[1]} pixels are no picture of an object", where=path, fix="Give the whole photo."
        )


def _weighed(rgba: UInt8[np.ndarray, "h w 4"], *, is_mask: bool) -> tuple[UInt8[np.ndarray, "h w 4"], tuple[str, ...]]:
    """The photo with the coverage that its alpha or mask means; an alpha that is the same everywhere means none."""
    least, most = int(rgba[..., 3].min()), int(rgba[..., 3].max())
    if not is_mask and least >= max(128, 0.8 * most):
        return rgba, ()
    alpha, notes = weighed(rgba[..., 3], rgba[..., :3], is_mask=is_mask)
    return (np.dstack([rgba[..., :3], alpha]) if notes else rgba), notes


def _own_size(framing: Framing) -> Framing:
    """The framing without pixels that the photo does not have, but for those of the least side."""
    own = math.ceil(framing.size / framing.scale - 1e-6)
    return framing.resized(min(framing.size, max(LEAST_SIDE, own)))


def _on_white(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """The photo laid on white."""
    if rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _pieces(solid: Bool[np.ndarray, "h w"]) -> int:
    """How many separate pieces there are that have a tenth of the largest one's area."""
    # Every few pixels suffices: what falls apart by that is thinner than the views can show.
    step = max(1, max(solid.shape) // 512)
    area = np.bincount(ndimage.label(solid[::step, ::step], np.ones((3, 3)))[0].reshape(-1))[1:]
    return int((area >= 0.1 * area.max()).sum()) if len(area) else 0
