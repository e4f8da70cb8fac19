"""Rays of tokens: token (i, j) of a grid of side h looks through the image point ((j + 0.5) / h, (i + 0.5) / h)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene.camera import Camera
from scene.errors import InputError


def token_camera(camera: Camera, side: int) -> Camera:
    """The camera of a token grid, whose pixels are the tokens.

    Args:
        camera: of the picture.
        side: of the token grid.

    Raises:
        InputError: the picture is not square.
    """
    if camera.width != camera.height:
        raise InputError(
            f"queries of a picture of {camera.width}x{camera.height} pixels have no square grid",
            fix="Crop the pictures to squares.",
        )
    return camera.resized(side, side)


def token_rays(camera: Camera, side: int) -> tuple[Float[Tensor, "side side 3"], Float[Tensor, "side side 3"]]:
    """World rays through the centres of a view's tokens, row by row.

    Args:
        camera: of the picture.
        side: of the token grid.

    Returns:
        Origins and unit directions, on the CPU.

    Raises:
        InputError: the picture is not square.
    """
    origins, directions = token_camera(camera, side).rays()
    return torch.from_numpy(origins.copy()).float(), torch.from_numpy(directions).float()
