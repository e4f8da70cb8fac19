"""Volume rendering along rays: the ground floor of radiance fields and of surface fields, in torch.

A ray is cut into intervals, each with an opacity alpha in [0, 1]; distances along it are in world units, for directions
of unit length. All functions keep device and precision; gradients flow through all of them.

Source: NeRF (Mildenhall et al. 2020), equation 3 and section 5.2; Max 1995 for the homogeneous medium.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

SH_TERMS = 16
"""Real spherical harmonics of degrees 0 to 3."""
_TINY = 1e-7
"""Added to what an interval lets through, so that what stands behind an opaque one still has a gradient."""


def alpha_from_density(density: Float[Tensor, "*r n"], length: Float[Tensor, "*r n"]) -> Float[Tensor, "*r n"]:
    """Opacities of intervals of a constant density: ``1 - exp(-density * length)``.

    Args:
        density: extinction in inverse world units, 0 and more.
        length: of the intervals, world units, 0 and more.
    """
    return -torch.expm1(-density * length)


def transmittance(alpha: Float[Tensor, "*r n"]) -> Float[Tensor, "*r n"]:
    """How much of what stands at the start of each interval reaches the camera, in [0, 1]; 1 for the first.

    Args:
        alpha: opacities from the camera on.
    """
    return torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1] + _TINY], -1), -1)


def render_weights(alpha: Float[Tensor, "*r n"]) -> Float[Tensor, "*r n"]:
    """Weights of intervals in a ray's colour: opacity times transmittance; their sum, the ray's opacity, is at most 1.

    Args:
        alpha: opacities from the camera on.
    """
    return alpha * transmittance(alpha)


def composite(weights: Float[Tensor, "*r n"], values: Float[Tensor, "*r n c"]) -> Float[Tensor, "*r c"]:
    """Values of intervals (colours, positions), summed by weight: premultiplied by the ray's opacity.

    Args:
        weights: see :func:`render_weights`.
        values: of each interval.
    """
    return (weights[..., None] * values).sum(-2)


def ray_box_span(
    origin: Float[Tensor, "*r 3"],
    direction: Float[Tensor, "*r 3"],
    low: float | Float[Tensor, "3"],
    high: float | Float[Tensor, "3"],
) -> tuple[Float[Tensor, "*r"], Float[Tensor, "*r"]]:
    """Distances at which rays enter and leave an axis-aligned box; leaving before entering means a miss.

    Args:
        origin: world frame; rays from inside the box enter at 0.
        direction: need not be of unit length: distances are in units of it.
        low, high: corners of the box, world frame.

    Source: Kay and Kajiya 1986 (slabs).
    """
    safe = torch.where(direction.abs() < 1e-9, torch.full_like(direction, 1e-9), direction)
    a, b = (low - origin) / safe, (high - origin) / safe
    return torch.minimum(a, b).amax(-1).clamp(min=0), torch.maximum(a, b).amin(-1)


def stratified_fractions(
    rays: int,
    count: int,
    *,
    jitter: Literal["none", "ray", "sample"] = "none",
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Float[Tensor, "r n"]:
    """Ascending fractions in [0, 1), one in each of ``count`` equal strata.

    Args:
        rays, count: how many rays, and fractions for each.
        jitter: where in its stratum each fraction lies: in the middle, anywhere but alike in all strata of a ray
            (which is even along the ray), or anywhere, as in NeRF.
        generator: of random numbers; torch's own for the device by default. Draws do not depend on the device then.
        device: of the result.
    """
    shift: Tensor | float = 0.5
    if jitter != "none":
        home = device if generator is None else generator.device
        shift = torch.rand(rays, count if jitter == "sample" else 1, generator=generator, device=home).to(device)
    return ((torch.arange(count, device=device) + shift) / count).expand(rays, count)


def sample_pdf(
    edges: Float[Tensor, "r n"], weights: Float[Tensor, "r m"], fractions: Float[Tensor, "r k"]
) -> Float[Tensor, "r k"]:
    """Inverse-CDF sampling: distances at which a piecewise constant density has passed the given fractions of its mass.

    Args:
        edges: ascending ends of n - 1 intervals along each ray.
        weights: mass of each interval (m = n - 1), not negative, some positive; they need not sum to 1.
        fractions: in [0, 1], such as those of :func:`stratified_fractions`; ascending ones give ascending distances.

    Source: NeRF, section 5.2 (hierarchical volume sampling).
    """
    cumulative = torch.nn.functional.pad(weights.cumsum(-1), (1, 0))
    cumulative = cumulative / cumulative[:, -1:]
    slot = torch.searchsorted(cumulative, fractions.contiguous(), right=True).clamp(1, edges.shape[-1] - 1)
    low, high = cumulative.gather(-1, slot - 1), cumulative.gather(-1, slot)
    part = (fractions - low) / (high - low).clamp(min=1e-6)
    begin = edges.gather(-1, slot - 1)
    return begin + part * (edges.gather(-1, slot) - begin)


def spherical_harmonics(
    directions: Float[Tensor, "*n 3"], *, normalisation: Literal["ortho", "4pi"] = "ortho"
) -> Float[Tensor, "*n 16"]:
    """Real spherical harmonics of degrees 0 to 3, by degree and order: 1; y, z, x; xy, yz, 3z2-1, xz, x2-y2; and so on.

    Args:
        directions: unit vectors.
        normalisation: ``ortho`` for an integral of each square over the sphere of 1, ``4pi`` for a mean square of 1.
    """
    x, y, z = directions.unbind(-1)
    root = math.sqrt
    terms = [
        torch.ones_like(x),
        *(root(3) * y, root(3) * z, root(3) * x),
        *(root(15) * x * y, root(15) * y * z, root(5) / 2 * (3 * z * z - 1)),
        *(root(15) * z * x, root(15) / 2 * (x * x - y * y)),
        *(root(35 / 8) * y * (3 * x * x - y * y), root(105) * x * y * z, root(21 / 8) * y * (5 * z * z - 1)),
        *(root(7) / 2 * z * (5 * z * z - 3), root(21 / 8) * x * (5 * z * z - 1)),
        *(root(105) / 2 * z * (x * x - y * y), root(35 / 8) * x * (x * x - 3 * y * y)),
    ]
    out = torch.stack(terms, -1)
    return out if normalisation == "4pi" else out / root(4 * math.pi)
