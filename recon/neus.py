"""NeuS: opacities from signed distances.

Source: NeuS (Wang et al. 2021), equation 13, in the discrete form of its public code; as in Neuralangelo's code the
small constant is added to the denominator only, so that rays through empty space have no opacity and depth is unbiased.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def neus_alpha(
    sdf: Float[Tensor, "*r n"], slope: Float[Tensor, "*r n"], length: Float[Tensor, "*r n"], inv_s: float | Tensor
) -> Float[Tensor, "*r n"]:
    """Opacity of intervals of a ray.

    Args:
        sdf: signed distance at the intervals' midpoints, positive outside.
        slope: derivative of the signed distance along the ray; values above 0 (leaving the surface) give no opacity.
        length: of the intervals, in the units of ``sdf``.
        inv_s: inverse deviation of the logistic density, per unit of ``sdf``; grows while a fit converges.

    Returns:
        Opacities in [0, 1].
    """
    half = slope.clamp(max=0) * length / 2
    before = torch.sigmoid((sdf - half) * inv_s)
    after = torch.sigmoid((sdf + half) * inv_s)
    return ((before - after) / (before + 1e-5)).clamp(0, 1)
