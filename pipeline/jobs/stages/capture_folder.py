"""What view and capture stages leave: a folder of posed pictures in the normalised world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from scene.archives import npz_archive
from scene.errors import InputError
from scene.viewset import ViewSet

COARSE_FILE = "coarse.npz"
LATENTS_FILE = "latents.npz"
BESIDE_VIEWS = (COARSE_FILE, LATENTS_FILE)
"""What generated views leave beside their pictures; part of the capture, wherever it is taken."""
WEIGHTS_FILE = "weights.json"
"""Of fused photos: which pictures beside it show what each photo counts in a view."""
CoarseGrid: TypeAlias = tuple[Float[np.ndarray, "r r r"], Float[np.ndarray, "r r r 3"]]
"""Occupancy and colours of a coarse volume."""
_LARGEST = 256
"""Voxels along each side of a coarse volume."""
_SLACK = 1e-2
"""By which its numbers may be beyond their range."""


@dataclass(frozen=True)
class CaptureFolder:
    """A capture folder that a stage wrote.

    Args:
        path: holds ``transforms.json``, pictures, masks, and the coarse volume where there is one.
    """

    path: Path

    @cached_property
    def views(self) -> ViewSet:
        """The posed pictures; pixels are read when they are asked for."""
        return ViewSet.load(self.path)

    def looked_at(self) -> CaptureFolder:
        """The folder itself, once its capture file has been read.

        Raises:
            InputError: it cannot be.
        """
        self.views.metadata  # noqa: B018 - read when first asked for
        return self

    @property
    def warnings(self) -> list[str]:
        """What the user should know of them."""
        return list(self.views.metadata.get("warnings", []))

    @property
    def coarse_volume(self) -> CoarseGrid | None:
        """Occupancy in [0, 1] and sRGB colours over the cube of half side 0.6, where one photo is all there was.

        Raises:
            InputError: the file holds something else.
        """
        path = self.path / COARSE_FILE
        return read_coarse_volume(path) if path.exists() else None


def write_latents(folder: Path, names: Sequence[str], latents: Float[np.ndarray, "v c h w"], vae: str) -> None:
    """Keep what views were decoded from beside them: normalised latents, by the views' names.

    Args:
        folder: of the capture.
        names: of the views.
        latents: in their order.
        vae: whose they are (:func:`pipeline.diffusion.checkpoints.digests.latent_digest`).
    """
    held = {name: one.astype(np.float32) for name, one in zip(names, latents, strict=True)}
    with (folder / LATENTS_FILE).open("wb") as file:
        np.savez(file, vae=np.array(vae), **held)


def read_latents(folder: Path, names: Sequence[str], vae: str) -> Float[np.ndarray, "v c h w"]:
    """Latents of views.

    Args:
        folder: of the capture.
        names: of the views.
        vae: whose they must be.

    Raises:
        InputError: there are none, or not of these views, or of another model; or they are damaged.
    """
    path, again = folder / LATENTS_FILE, "Draw the views anew with this model."
    if not path.is_file():
        raise InputError("the views have no latents", where=folder, fix=again)
    with npz_archive(path, "latents of views") as data:
        if data.text("vae") != vae:
            raise InputError("these are latents of another model", where=path, fix=again)
        missing = [name for name in names if name not in data.names]
        if missing:
            raise InputError(f"it lacks the latents of {', '.join(missing[:3])}", where=path, fix=again)
        found = [data.numbers(name, (None,) * 3) for name in names]
    if len({one.shape for one in found}) > 1:
        raise InputError("its latents differ in size", where=path, fix=again)
    return np.stack(found).astype(np.float32)


def read_coarse_volume(path: Path) -> CoarseGrid:
    """Occupancy and colours of a coarse volume's file.

    Raises:
        InputError: it is damaged, or holds no such volume.
    """
    with npz_archive(path, "a coarse volume") as data:
        occupancy, colours = data.numbers("occupancy", (None,) * 3), data.numbers("colours", (None,) * 3 + (3,))
    side = occupancy.shape[0]
    if not 2 <= side <= _LARGEST or occupancy.shape != (side,) * 3 or colours.shape[:3] != occupancy.shape:
        shapes = f"{occupancy.shape} and {colours.shape}"
        raise InputError(f"occupancy and colours are no cubes of one size, but {shapes}", where=path)
    if min(occupancy.min(), colours.min()) < -_SLACK or max(occupancy.max(), colours.max()) > 1 + _SLACK:
        raise InputError("occupancy or colours are not between 0 and 1", where=path)
    return occupancy.astype(np.float32), colours.astype(np.float32)
