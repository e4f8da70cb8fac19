"""From a prepared photo to views: conditions, classifier-free guidance, sampling, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.attention import AttentionHook, Step, hooked
from pipeline.diffusion.backbone import ViewDiffusion
from pipeline.diffusion.coarse import CoarseVolume, picture_volume
from pipeline.diffusion.conditioning import Conditions, fold_visibility
from pipeline.diffusion.latents import images_from_rgba
from pipeline.diffusion.loop import RowNoise, denoise, view_seeds
from pipeline.diffusion.poses import Poses, pluecker_maps, pose_tokens
from pipeline.diffusion.schedule import leading_timesteps, timestep_pairs, trailing_timesteps
from pipeline.diffusion.settings import SamplingSettings


@torch.no_grad()
def coarse_volume(
    model: ViewDiffusion, photo: UInt8[Tensor, "o s s 4"], source: Float[Tensor, "o 4"] | None = None
) -> CoarseVolume | None:
    """The coarse volumes of photos, or None if the model has none; the photo's camera is predicted unless given."""
    if model.coarse is None:
        return None
    return model.coarse.predict(images_from_rgba(photo.to(model.device), 4), source)


@torch.no_grad()
def coarse_pictures(
    model: ViewDiffusion, photo: UInt8[Tensor, "o s s 4"], volume: CoarseVolume, poses: Poses
) -> tuple[Float[Tensor, "o v c h w"], Float[Tensor, "o v 4 h w"]]:
    """Unscaled latents of the coarse pictures, and their folded visibility."""
    objects = poses.focal.shape[0]
    latents, visible = [], []
    for k in range(objects):
        images = images_from_rgba(photo[k : k + 1].to(model.device), 4)
        pictures = picture_volume(volume[k : k + 1], images, poses[k : k + 1])
        white = torch.cat([pictures.colour + 1 - pictures.alpha, pictures.alpha], 2)[0] * 2 - 1
        white = F.interpolate(white, (model.image_size, model.image_size), mode="bilinear", align_corners=False)
        raw = model.vae.encode(white[:, : model.codec.channels].to(model.vae.dtype)).latent_dist.mode().float()
        latents.append(raw)
        visible.append(fold_visibility(pictures.visible[0], model.latent_size))
    return torch.stack(latents), torch.stack(visible)


@torch.no_grad()
def view_conditions(
    model: ViewDiffusion,
    photo: UInt8[Tensor, "o s s 4"],
    source: Float[Tensor, "o 4"],
    orbits: Float[Tensor, "o v 3"],
    volume: CoarseVolume | None,
) -> Conditions:
    """Everything the model is told about views of prepared photos.

    Args:
        model: the view model.
        photo: prepared photos of the model's image size.
        source: cameras of the photos (elevation, focal, cx, cy).
        orbits: (azimuth, elevation, radius) of the views, relative to photos at azimuth 0.
        volume: coarse volumes, if the model was trained with them.
    """
    device = model.device
    photo, source, orbits = photo.to(device), source.to(device), orbits.to(device)
    raw = model.codec.encode_raw(photo)
    embedding = model.image_encoder(images_from_rgba(photo, 4).to(model.image_encoder.dtype)).float()
    identity = torch.tensor([0.0, 0.0, 1.0, 0.0], device=device).expand(len(photo), 1, 4)
    coarse = visible = rays = source_rays = None
    if model.conditioning.coarse and volume is not None:
        coarse, visible = coarse_pictures(model, photo, volume, Poses.of_orbits(orbits))
    if model.conditioning.pluecker:
        rays = pluecker_maps(Poses.of_orbits(orbits), model.latent_size)
        source_rays = pluecker_maps(Poses.of_sources(source), model.latent_size)
    return Conditions(
        raw,
        model.codec.normalise(raw),
        model.tokens(embedding, pose_tokens(source[:, None], orbits)),
        model.tokens(embedding, identity)[:, 0],
        coarse,
        visible,
        rays,
        source_rays,
    )


@torch.no_grad()
def sample_latents(
    model: ViewDiffusion,
    given: Conditions,
    settings: SamplingSettings,
    *,
    seeds: Sequence[int] | None = None,
    hooks: Sequence[AttentionHook] = (),
    on_step: Callable[[Step], None] | None = None,
) -> Float[Tensor, "o v c h w"]:
    """Sample normalised latents of all views.

    Args:
        model: the view model.
        given: conditions of the views.
        settings: steps, guidance, seed.
        seeds: one per row ``o * v``; by default views of every object get :func:`view_seeds` of the settings' seed.
        hooks: methods on self-attention, run after the model's own sharing of views.
        on_step: called after every step.
    """
    objects, views = given.tokens.shape[:2]
    noise = RowNoise.of(view_seeds(settings.seed, views) * objects if seeds is None else seeds)
    side = model.latent_size
    start = noise.draw((4, side, side), model.device)
    null = given.null() if settings.guidance != 1 else None

    def predict(z: Tensor, t: int) -> Tensor:
        grouped = z.unflatten(0, (objects, views))
        times = torch.full((objects, views), t, device=z.device)
        out = model.predict(grouped, times, given)
        if null is not None:
            blank = model.predict(grouped, times, null)
            out = blank + settings.guidance * (out - blank)
        return out.flatten(0, 1)

    count = len(model.schedule)
    spacing = trailing_timesteps if float(model.schedule.abar[-1]) < 1e-4 else leading_timesteps
    sharing = model.shared_views(views, joint=settings.joint)
    active = [*([] if sharing is None else [sharing]), *hooks]
    with hooked(model.unet, active, side):
        out = denoise(
            predict,
            start,
            model.schedule,
            timestep_pairs(spacing(settings.steps, count)),
            noise=noise,
            eta=settings.eta,
            hooks=active,
            on_step=on_step,
        )
    return out.unflatten(0, (objects, views))


@torch.no_grad()
def decode_views(
    model: ViewDiffusion, latents: Float[Tensor, "o v c h w"], chunk: int = 16
) -> Float[Tensor, "o v s s 4"]:
    """Decode latents to straight-alpha pictures in [0, 1]."""
    flat = latents.flatten(0, 1)
    return torch.cat([model.codec.decode(part) for part in flat.split(chunk)]).unflatten(0, latents.shape[:2])
