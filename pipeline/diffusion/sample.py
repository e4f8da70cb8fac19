"""From a prepared photo to views: conditions, classifier-free guidance, sampling, decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.denoising.loop import RowNoise, denoise, view_seeds
from pipeline.diffusion.denoising.schedule import Span, leading_timesteps, timestep_pairs, trailing_timesteps
from pipeline.diffusion.methods.zero_to_hero import (
    ZeroToHero,
    plan_zero_to_hero,
    shared_seeds,
    source_seeds,
    with_source_view,
)
from pipeline.diffusion.modules.attention import AttentionHook, Step, hooked
from pipeline.diffusion.modules.coarse_volume import CoarseVolume, render_coarse_volume
from pipeline.diffusion.modules.conditioning import Conditions, fold_visibility
from pipeline.diffusion.modules.latents import encode_images, images_from_rgba, rgba_from_images
from pipeline.diffusion.modules.poses import Poses, identity_poses, pluecker_maps, pose_tokens
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from scene.errors import SettingsError


@torch.no_grad()
def coarse_volume(
    model: ViewDiffusion, photo: UInt8[Tensor, "o s s 4"], source: Float[Tensor, "o 4"] | None = None
) -> CoarseVolume | None:
    """The coarse volumes of photos, or None if the model has none; the photo's camera is predicted unless given."""
    if model.coarse is None:
        return None
    return model.coarse.predict(images_from_rgba(photo.to(model.device), 4), source)


@torch.no_grad()
def coarse_renders(
    model: ViewDiffusion, photo: UInt8[Tensor, "o s s 4"], volume: CoarseVolume, poses: Poses
) -> tuple[Float[Tensor, "o v c h w"], Float[Tensor, "o v 4 h w"]]:
    """Unscaled latents of the coarse volumes' renders, and their folded visibility."""
    latents, visible = [], []
    for k in range(len(photo)):
        white, seen = _renders_on_white(model, photo[k : k + 1], volume[k : k + 1], poses[k : k + 1])
        white = (white * 2 - 1)[:, : model.codec.channels]
        latents.append(encode_images(model.vae, white).mode().float())
        visible.append(fold_visibility(seen, model.latent_size))
    return torch.stack(latents), torch.stack(visible)


def _renders_on_white(
    model: ViewDiffusion, photo: UInt8[Tensor, "1 s s 4"], volume: CoarseVolume, poses: Poses
) -> tuple[Float[Tensor, "v 4 p p"], Float[Tensor, "v 1 q q"]]:
    """Renders of one object at the model's image size, composited on white, with alpha; and what the photo sees."""
    renders = render_coarse_volume(volume, images_from_rgba(photo.to(model.device), 4), poses)
    white = torch.cat([renders.colour + 1 - renders.alpha, renders.alpha], 2)[0]
    size = (model.image_size, model.image_size)
    return F.interpolate(white, size, mode="bilinear", align_corners=False), renders.visible[0]


@torch.no_grad()
def view_conditions(
    model: ViewDiffusion,
    photo: UInt8[Tensor, "o s s 4"],
    source: Float[Tensor, "o 4"],
    orbits: Float[Tensor, "o v 3"],
    volume: CoarseVolume | None,
) -> Conditions:
    """All conditions of views of prepared photos.

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
    embedding = model.image_encoder(images_from_rgba(photo, 4)).float()
    fourth = model.conditioning.fourth
    coarse = visible = rays = source_rays = None
    if model.conditioning.coarse and volume is not None:
        coarse, visible = coarse_renders(model, photo, volume, Poses.of_orbits(orbits))
    if model.conditioning.pluecker:
        rays = pluecker_maps(Poses.of_orbits(orbits), model.latent_size)
        source_rays = pluecker_maps(Poses.of_sources(source), model.latent_size)
    return Conditions(
        raw,
        model.codec.normalise(raw),
        model.tokens(embedding, pose_tokens(source[:, None], orbits, fourth)),
        model.tokens(embedding, identity_poses(source, fourth)[:, None])[:, 0],
        coarse,
        visible,
        rays,
        source_rays,
    )


@torch.no_grad()
def sample_latents(
    model: ViewDiffusion,
    conditions: Conditions,
    settings: SamplingSettings,
    *,
    seeds: Sequence[int] | None = None,
    hooks: Sequence[AttentionHook] = (),
    on_step: Callable[[Step], None] | None = None,
) -> Float[Tensor, "o v c h w"]:
    """Sample normalised latents of all views.

    Args:
        model: the view model.
        conditions: of the views.
        settings: steps, guidance, seed.
        seeds: one per row ``o * v``; by default views of every object get :func:`view_seeds` of the settings' seed.
        hooks: methods on self-attention, run after the model's own sharing of views.
        on_step: called after every step.
    """
    objects, views = conditions.tokens.shape[:2]
    targets = objects * views
    seeds = view_seeds(settings.seed, views) * objects if seeds is None else seeds
    planned = plan_zero_to_hero(model, settings, objects, views)
    method = planned or ZeroToHero(objects, views, None, Span(0, 0), 1)
    # While a source row is denoised along, it needs conditions and a seed of its own.
    extended, all_seeds = conditions, [*seeds]
    if method.adds_source:
        extended, all_seeds = with_source_view(conditions), [*seeds, *source_seeds(seeds, views)]
    noise = RowNoise.of(all_seeds)
    start, pairs = _start(model, extended, settings, method, noise)
    shared = planned is not None and settings.zero_to_hero.share_renoise
    renoise = RowNoise.of(shared_seeds(seeds, views)[: len(all_seeds)]) if shared else None
    guidance = settings.plan(model.sampling).guidance
    null = conditions.null() if guidance != 1 else None
    extended_null = null if null is None or extended is conditions else extended.null()
    sharing = model.shared_views(views + int(method.adds_source), joint=settings.joint)
    active = [*([] if sharing is None else [sharing]), *(planned.hooks if planned else []), *hooks]

    def call(number: int, z: Tensor, times: Tensor, read: Conditions) -> Tensor:
        for hook in active:
            hook.begin_call(number)
        return model.predict(z, times, read)

    def predict(z: Tensor, t: int) -> Tensor:
        grouped = method.grouped(z)
        alone = len(z) == targets
        times = torch.full(grouped.shape[:2], t, device=z.device)
        out = call(0, grouped, times, conditions if alone else extended)
        if null is not None and extended_null is not None:
            uncond = call(1, grouped, times, null if alone else extended_null)
            out = uncond + guidance * (out - uncond)
        return method.flattened(out)

    with hooked(model.unet, active, model.latent_size):
        out = denoise(
            predict,
            start,
            model.schedule,
            pairs,
            noise=noise,
            eta=settings.eta,
            passes=method.passes,
            renoise=renoise,
            rows=method.rows,
            hooks=active,
            on_step=on_step,
        )
    return out[:targets].unflatten(0, (objects, views))


def _start(
    model: ViewDiffusion, conditions: Conditions, settings: SamplingSettings, method: ZeroToHero, noise: RowNoise
) -> tuple[Float[Tensor, "r c h w"], list[tuple[int, int]]]:
    """What the loop begins with, and its timesteps: noise alone, or noised latents of the coarse renders (SDEdit)."""
    side, count = model.latent_size, len(model.schedule)
    spacing = trailing_timesteps if model.schedule.zero_terminal_snr else leading_timesteps
    start = noise.draw((model.codec.latents, side, side), model.device)
    if settings.filtering != "none" and settings.zero_to_hero.share_init_noise:
        firsts = start[: method.objects * method.views : method.views]
        start = torch.cat([firsts.repeat_interleave(method.views, 0), firsts])[: len(start)]
    plan = settings.plan(model.sampling)
    from_coarse = plan.strength < 1 and conditions.coarse is not None
    end = round(plan.strength * count) if from_coarse else count
    if method.timesteps is None:
        timesteps = spacing(plan.steps, max(plan.steps, end) if from_coarse else count)
    else:
        timesteps = [t for t in method.timesteps if t < end] or method.timesteps[-1:]
    if not method.acts(timesteps):
        raise SettingsError(
            f"the sampling begins at timestep {timesteps[0]} of {count}, below all ranges of the filtering",
            where=f"--filtering {settings.filtering}",
            fix="Start from noise (a strength of 1), or leave the filtering out.",
        )
    pairs = timestep_pairs(timesteps)
    if from_coarse:
        coarse = conditions.coarse
        assert coarse is not None
        known = method.flattened(model.codec.normalise(coarse.flatten(0, 1)).unflatten(0, coarse.shape[:2]))
        start = model.schedule.add_noise(known, start, torch.full((len(start),), pairs[0][0], device=start.device))
    return start, pairs


@torch.no_grad()
def sample_views(
    model: ViewDiffusion,
    photo: UInt8[Tensor, "o s s 4"],
    source: Float[Tensor, "o 4"],
    orbits: Float[Tensor, "o v 3"],
    volume: CoarseVolume | None,
    settings: SamplingSettings,
    *,
    hooks: Sequence[AttentionHook] = (),
    on_step: Callable[[Step], None] | None = None,
) -> Float[Tensor, "o v s s 4"]:
    """Views of prepared photos as straight-alpha images in [0, 1]; arguments as in the functions it chains."""
    conditions = view_conditions(model, photo, source, orbits, volume)
    latents = sample_latents(model, conditions, settings, hooks=hooks, on_step=on_step)
    return finished_views(model, photo, latents, orbits, volume, settings)


@torch.no_grad()
def finished_views(
    model: ViewDiffusion,
    photo: UInt8[Tensor, "o s s 4"],
    latents: Float[Tensor, "o v c h w"],
    orbits: Float[Tensor, "o v 3"],
    volume: CoarseVolume | None,
    settings: SamplingSettings,
) -> Float[Tensor, "o v s s 4"]:
    """Sampled latents as straight-alpha images in [0, 1]; settings may ask for the coarse renders' broad colours."""
    images = decode_views(model, latents)
    if volume is None or not settings.coarse_colours:
        return images
    renders = coarse_render_images(model, photo, volume, Poses.of_orbits(orbits.to(model.device)))
    return transfer_low_frequencies(images, renders)


@torch.no_grad()
def coarse_render_images(
    model: ViewDiffusion, photo: UInt8[Tensor, "o s s 4"], volume: CoarseVolume, poses: Poses
) -> Float[Tensor, "o v s s 4"]:
    """The coarse volumes' renders at the model's image size, straight alpha in [0, 1]."""
    renders = [
        _renders_on_white(model, photo[k : k + 1], volume[k : k + 1], poses[k : k + 1])[0] for k in range(len(photo))
    ]
    white = torch.stack(renders)
    return rgba_from_images(white.flatten(0, 1) * 2 - 1).unflatten(0, white.shape[:2])


def transfer_low_frequencies(
    images: Float[Tensor, "o v s s 4"], reference: Float[Tensor, "o v s s 4"], sigma: float = 0.06
) -> Float[Tensor, "o v s s 4"]:
    """Images with the low-frequency colours of a reference, while silhouettes and detail stay.

    What a Gaussian blur keeps is exchanged, as in StableSR's colour correction (which uses wavelets); only pixels that
    both images cover take part in the blurs, and a pixel with none of them near stays as it is.

    Args:
        images: straight-alpha images in [0, 1].
        reference: of the same views.
        sigma: standard deviation of the blur over the side of the image.
    """
    colour, alpha = images[..., :3], images[..., 3:]
    both = alpha * reference[..., 3:]
    change = _blurred((reference[..., :3] - colour) * both, sigma)
    near = _blurred(both, sigma)
    moved = colour + change / near.clamp(min=1e-4) * (near / 0.05).clamp(max=1)
    return torch.cat([moved.clamp(0, 1), alpha], -1)


def _blurred(x: Float[Tensor, "o v s s c"], sigma: float) -> Float[Tensor, "o v s s c"]:
    side = x.shape[2]
    deviation = sigma * side
    radius = math.ceil(3 * deviation)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device) / deviation) ** 2)
    kernel = kernel / kernel.sum()
    flat = x.movedim(-1, 2).reshape(-1, 1, side, side)
    flat = F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, radius))
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return flat.view(*x.shape[:2], x.shape[-1], side, side).movedim(2, -1)


@torch.no_grad()
def decode_views(
    model: ViewDiffusion, latents: Float[Tensor, "o v c h w"], chunk: int | None = None
) -> Float[Tensor, "o v s s 4"]:
    """Decode latents to straight-alpha images in [0, 1]; as many at once as the model's rows, at most 16."""
    flat = latents.flatten(0, 1)
    chunk = chunk or min(16, model.rows_at_once or 16)
    return torch.cat([model.codec.decode(part) for part in flat.split(chunk)]).unflatten(0, latents.shape[:2])
