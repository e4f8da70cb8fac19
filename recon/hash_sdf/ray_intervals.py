"""Where a hash field's surface is looked for along rays: intervals over the whole box, and more where it is now."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from recon.hash_sdf.field import HashField
from recon.neus import neus_alpha
from scene.volume_rendering import render_weights, sample_pdf, stratified_fractions

_NEAR_MISS = 0.3
"""Share of intervals that a ray which just misses the surface gets: or it could never grow towards that ray."""


@torch.no_grad()
def interval_ends(
    field: HashField,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    inv_s: float | Tensor,
    *,
    probes: int,
    count: int,
    jitter: bool,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "r s"]:
    """Ends of intervals along rays, in order: distances, world units.

    A third of them is even, the rest follows the NeuS weights of the field at ``probes`` places (importance sampling).

    Args:
        field: whose surface is looked for.
        origins, directions: the rays; directions of unit length.
        near, far: where rays enter and leave the box.
        inv_s: inverse deviation of the density; half of it is used, so that the neighbourhood gets its share.
        probes: distances evaluated along each ray, evenly.
        count: ends to give, besides the last.
        jitter: move the ends at random, for training.
        generator: of random numbers; torch's own by default.
    """

    def fractions(n: int) -> Tensor:
        return stratified_fractions(
            len(origins), n, jitter="ray" if jitter else "none", generator=generator, device=origins.device
        )

    t = near[:, None] + (far - near)[:, None] * fractions(probes)
    sdf = field.sdf(origins[:, None] + directions[:, None] * t[..., None])
    length = t.diff(dim=-1).clamp(min=1e-6)
    alpha = neus_alpha((sdf[:, 1:] + sdf[:, :-1]) / 2, sdf.diff(dim=-1) / length, length, inv_s / 2)
    density = render_weights(alpha) + _NEAR_MISS * torch.exp(-sdf[:, 1:].abs() * inv_s / 2) + 1e-4
    refined = sample_pdf(t, density, fractions(count - count // 3))
    even = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, count // 3 + 1, device=t.device)
    return torch.cat([even, refined], -1).sort(-1).values
