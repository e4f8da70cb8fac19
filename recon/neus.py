"""NeuS: rendering weights from signed distances, and the robust colour loss for generated views.

Source: NeuS (Wang et al. 2021), equation 13, in the discrete form of its public code; as in Neuralangelo's code the
small constant is added to the denominator only, so that rays through empty space have no opacity and depth is unbiased.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def neus_alpha(
    sdf: Float[Tensor, "*r n"], slope: Float[Tensor, "*r n"], length: Float[Tensor, "*r n"], sharpness: float | Tensor
) -> Float[Tensor, "*r n"]:
    """Opacity of ray sections.

    Args:
        sdf: signed distance at section midpoints, positive outside.
        slope: derivative of the signed distance along the ray; values above 0 (leaving the surface) give no opacity.
        length: section lengths, in the units of ``sdf``.
        sharpness: inverse deviation s of the logistic density; grows while a fit converges.

    Returns:
        Opacities in [0, 1].
    """
    half = slope.clamp(max=0) * length / 2
    before = torch.sigmoid((sdf - half) * sharpness)
    after = torch.sigmoid((sdf + half) * sharpness)
    return ((before - after) / (before + 1e-5)).clamp(0, 1)


def render_weights(alpha: Float[Tensor, "*r n"]) -> Float[Tensor, "*r n"]:
    """Weights of sections along rays: opacity times the transmittance in front of it."""
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1] + 1e-7], -1), -1)
    return alpha * through


def trimmed_mean(error: Float[Tensor, "n"], keep: float, weight: Float[Tensor, "n"] | None = None) -> Float[Tensor, ""]:
    """Weighted mean of the ``keep`` share of smallest errors.

    Generated views contradict each other in places; the largest errors are those contradictions.
    """
    if not len(error):
        return error.sum()
    kept, index = torch.topk(error, max(1, round(keep * len(error))), largest=False)
    if weight is None:
        return kept.mean()
    chosen = weight[index]
    return (kept * chosen).sum() / chosen.sum().clamp(min=1e-6)
