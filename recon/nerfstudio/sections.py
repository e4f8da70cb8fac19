"""Where a surface is looked for along rays: sections spread over the box, and more of them where the surface is now."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from recon.hash_sdf.field import HashField
from recon.neus import neus_alpha, render_weights


@torch.no_grad()
def sample_pdf(
    field: HashField,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, "r"],
    far: Float[Tensor, "r"],
    sharpness: float | Tensor,
    *,
    probes: int,
    sections: int,
    jitter: bool,
) -> Float[Tensor, "r s"]:
    """Ends of sections along rays, in order.

    Args:
        field: whose surface is looked for.
        origins, directions: the rays; directions of unit length.
        near, far: where rays enter and leave the box.
        sharpness: inverse deviation of the density; half of it is used, so that the neighbourhood gets its share.
        probes: distances evaluated along each ray, evenly.
        sections: ends to give, besides the last; a third of them even.
        jitter: move the ends at random, for training.
    """

    def spread(count: int) -> Tensor:
        shift = torch.rand(len(origins), 1, device=origins.device) if jitter else 0.5
        return ((torch.arange(count, device=origins.device) + shift) / count).expand(len(origins), count)

    t = near[:, None] + (far - near)[:, None] * spread(probes)
    sdf = field.sdf(origins[:, None] + directions[:, None] * t[..., None])
    length = t.diff(dim=-1).clamp(min=1e-6)
    alpha = neus_alpha((sdf[:, 1:] + sdf[:, :-1]) / 2, sdf.diff(dim=-1) / length, length, sharpness / 2)
    # Rays that just miss the surface are refined as well, or it could never grow towards them.
    chance = render_weights(alpha) + 0.3 * torch.exp(-sdf[:, 1:].abs() * sharpness / 2) + 1e-4
    cumulative = torch.nn.functional.pad(chance.cumsum(-1), (1, 0))
    cumulative = cumulative / cumulative[:, -1:]
    fine = sections - sections // 3
    wanted = spread(fine).contiguous()
    slot = torch.searchsorted(cumulative, wanted, right=True).clamp(1, probes - 1)
    low, high = cumulative.gather(1, slot - 1), cumulative.gather(1, slot)
    part = (wanted - low) / (high - low).clamp(min=1e-6)
    begin = t.gather(1, slot - 1)
    refined = begin + part * (t.gather(1, slot) - begin)
    even = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, sections // 3 + 1, device=t.device)
    return torch.cat([even, refined], -1).sort(-1).values
