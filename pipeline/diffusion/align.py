"""Views of one object decoded once more, together, along a draft of its surface and around its photo."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from pipeline.diffusion.aligned_decoder import AlignedDecoder
from pipeline.diffusion.epipolar_attention import Guide
from pipeline.diffusion.generate import GeneratedViews
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses
from pipeline.diffusion.sample import transfer_low_frequencies
from pipeline.diffusion.settings import AlignSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from recon.mesh.marching_cubes import extract_mesh
from recon.surface import Surface
from scene.camera import Camera
from scene.errors import CheckpointError, InputError
from scene.raycast import mesh_caster
from scene.view import View
from scene.viewset import ViewSet

_LOG = logging.getLogger("viewloom")


def align_views(
    model: ViewDiffusion,
    views: GeneratedViews,
    photo: UInt8[np.ndarray, "f f 4"],
    surface: Surface,
    settings: AlignSettings = AlignSettings(),
) -> ViewSet:
    """Decode generated views once more, along a draft of their surface.

    Args:
        model: that drew the views, with an aligned decoder.
        views: with their latents.
        photo: the framed cut-out, of any size; best twice the views'.
        surface: fitted to the views.
        settings: what is read; of the iterations this is one.

    Returns:
        The photo, and the views in their order, named ``view_00`` and on.

    Raises:
        CheckpointError: the model has no aligned decoder.
        InputError: the surface is empty, or the views have no latents and are larger than the model's pictures.
    """
    camera, latents, plain = views.photo_camera.resized(photo.shape[1], photo.shape[0]), views.latents, views.rgba
    if latents is None:
        plain, latents = encoded_views(model, plain, reduce=settings.reduce)
        _LOG.warning("%s", encoded_note(model))
    pictures = aligned_pictures(model, latents, plain, views.cameras, photo, camera, surface, settings)
    made = [
        View(f"view_{k:02d}", one.resized(rgba.shape[1], rgba.shape[0]), rgba, origin="generated")
        for k, (one, rgba) in enumerate(zip(views.cameras, pictures, strict=True))
    ]
    return ViewSet((View("photo", camera, photo), *made), True)


@torch.no_grad()
def aligned_pictures(
    model: ViewDiffusion,
    latents: Float[np.ndarray, "v c h w"],
    plain: UInt8[np.ndarray, "v s s 4"],
    cameras: Sequence[Camera],
    photo: UInt8[np.ndarray, "f f 4"],
    photo_camera: Camera,
    surface: Surface,
    settings: AlignSettings = AlignSettings(),
) -> UInt8[np.ndarray, "v s s 4"]:
    """Pictures of views, decoded together; as :func:`align_views`.

    Args:
        model: with an aligned decoder.
        latents: of the views, normalised.
        plain: the views as they were decoded one by one.
        cameras: of the views.
        photo: the framed cut-out.
        photo_camera: its camera.
        surface: fitted to the views.
        settings: what is read.
    """
    decoder, side = aligned_decoder(model), plain.shape[1]
    decoder.reading(settings.samples, settings.half_width, settings.nearest)
    front = resized_photo(photo, 2 * side)
    front_camera = photo_camera.resized(2 * side, 2 * side)
    *depths, front_depth = surface_depths(surface, [*cameras, front_camera])
    guide = Guide(
        Poses.of(cameras),
        torch.from_numpy(np.stack(depths)),
        images_from_rgba(torch.from_numpy(front)[None], decoder.codec.channels)[0],
        Poses.of([front_camera]),
        torch.from_numpy(front_depth)[None],
    )
    images = decoder.decode(torch.from_numpy(latents).to(model.device), guide.to(model.device)).float().cpu()
    if settings.colours:
        images = transfer_low_frequencies(images[None], torch.from_numpy(plain)[None].float() / 255)[0]
    return np.round(images.numpy() * 255).astype(np.uint8)


@torch.no_grad()
def encoded_views(
    model: ViewDiffusion, views: UInt8[np.ndarray, "v s s 4"], *, reduce: bool = False
) -> tuple[UInt8[np.ndarray, "v t t 4"], Float[np.ndarray, "v c h w"]]:
    """Views of the model's size, and their normalised latents, for views that came without.

    Args:
        model: whose encoder is used.
        views: the pictures.
        reduce: whether larger ones may be reduced.

    Raises:
        InputError: they are larger, and must not be reduced.
    """
    side, size = views.shape[1], model.image_size
    if side > size and not reduce:
        raise InputError(
            f"the views have no latents, and {side} pixels where the model draws {size}",
            fix=f"Reduce them to {size} with --aligning.reduce, or leave --align out to keep them as they are.",
        )
    small = np.stack([resized_photo(view, size) for view in views])
    latents = model.codec.normalise(model.codec.encode_raw(torch.from_numpy(small).to(model.device)))
    return small, latents.float().cpu().numpy()


def encoded_note(model: ViewDiffusion) -> str:
    """What is told of views that came without latents."""
    return f"The views have no latents: they were encoded at {model.image_size} pixels to be aligned."


def aligned_decoder(model: ViewDiffusion) -> AlignedDecoder:
    """A model's aligned decoder.

    Raises:
        CheckpointError: it has none.
    """
    if model.aligned is None:
        raise CheckpointError(
            "the model has no aligned decoder", fix="Leave --align out, or train one (scripts/train_decoder.py)."
        )
    return AlignedDecoder(model.vae, model.aligned)


def surface_depths(surface: Surface, cameras: Sequence[Camera]) -> list[Float[np.ndarray, "h w"]]:
    """Z-depth of a surface at the pixel centres of cameras, 0 beside it.

    Raises:
        InputError: the surface is empty.
    """
    vertices, faces = extract_mesh(surface)
    caster, found = mesh_caster(vertices, faces), []
    for camera in cameras:
        origins, directions = (x.reshape(-1, 3) for x in camera.rays())
        distance = caster.cast(origins, directions).distance
        depth = np.where(np.isfinite(distance), distance * (directions @ camera.forward), 0.0)
        found.append(depth.reshape(camera.height, camera.width).astype(np.float32))
    return found


def resized_photo(photo: UInt8[np.ndarray, "f f 4"], side: int) -> UInt8[np.ndarray, "s s 4"]:
    """A cut-out at another size; colours are weighed by alpha, lest the background's bleed in."""
    if photo.shape[0] == side:
        return photo
    way = cv2.INTER_AREA if side < photo.shape[0] else cv2.INTER_LINEAR
    alpha = photo[..., 3:].astype(np.float32) / 255
    whole = cv2.resize(np.concatenate([photo[..., :3] * alpha, alpha], -1), (side, side), interpolation=way)
    colour = whole[..., :3] / np.maximum(whole[..., 3:], 1e-3)
    return np.round(np.concatenate([colour, whole[..., 3:] * 255], -1).clip(0, 255)).astype(np.uint8)
