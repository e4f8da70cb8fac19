"""Queries, opacity and pictures of a query field, from cameras of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qnerf.field import QueryField
from qnerf.principal import principal_axes
from qnerf.rays import token_rays
from qnerf.store import QueryLayer, QueryStore
from scene.camera import Camera
from scene.errors import InputError


def render_queries(field: QueryField, cameras: Sequence[Camera], layers: Sequence[QueryLayer], out: QueryStore) -> None:
    """Put the standardised queries of every view into a store, each layer at its own token grid.

    Args:
        field: what to render.
        cameras: of the pictures, one for each view of the store.
        layers: which; those of one side share their rays.
        out: takes them. Undo the standardisation when they are used: ``mean + deviation * query``.

    Raises:
        InputError: cameras and store do not go together, a layer is not of the field, or a picture is not square.
    """
    if len(cameras) != out.views:
        raise InputError(f"there are {len(cameras)} cameras for a store of {out.views} views", where=out.folder)
    for layer in layers:
        if layer not in field.layers:
            raise InputError(f"the field has no layer {layer} with {layer.channels} channels")
    for view, camera in enumerate(cameras):
        for side in sorted({layer.side for layer in layers}):
            same = [layer for layer in layers if layer.side == side]
            origins, directions = token_rays(camera, side)
            rendered = field.rendered(origins.flatten(0, 1), directions.flatten(0, 1), same)
            out.put(view, {layer: queries.unflatten(0, (side, side)) for layer, queries in rendered.items()})


@torch.no_grad()
def render_opacity(field: QueryField, camera: Camera, side: int) -> Float[Tensor, "side side"]:
    """Opacity of each token's ray, in [0, 1], on the CPU.

    Args:
        field: what to render.
        camera: of the picture.
        side: of the grid.

    Raises:
        InputError: the picture is not square.
    """
    origins, directions = token_rays(camera, side)
    rows = [
        field.trace(start.to(field.low.device), towards.to(field.low.device)).opacity.cpu()
        for start, towards in zip(origins, directions, strict=True)
    ]
    return torch.stack(rows)


def principal_picture(
    field: QueryField, camera: Camera, side: int, layer: QueryLayer | None = None
) -> Float[Tensor, "side side 3"]:
    """The rendered queries of a view as colours in [0, 1], by their three principal components in this view.

    Args:
        field: what to render.
        camera: of the picture.
        side: of the grid, which may be finer than the layer's own.
        layer: which; by default the first of the finest.

    Raises:
        InputError: the picture is not square.
    """
    shown = layer or max(field.layers, key=lambda one: (one.side, -one.ordinal))
    origins, directions = token_rays(camera, side)
    queries = field.rendered(origins.flatten(0, 1), directions.flatten(0, 1), [shown])[shown]
    return principal_axes(queries).colours(queries).unflatten(0, (side, side))
