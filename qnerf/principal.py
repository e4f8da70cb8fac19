"""Queries as colours, for people to look at: their three principal components."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_REACH = 2.5
"""Deviations from the mean at which colours end."""


class PrincipalAxes(NamedTuple):
    """Where queries vary most.

    Two sets of queries can be compared as colours if both are drawn with the same axes.
    """

    mean: Float[Tensor, "c"]
    axes: Float[Tensor, "c 3"]
    """Orthonormal; the largest entry of each is positive. Zero where queries have fewer dimensions."""
    spread: Float[Tensor, "3"]
    """Deviation along each axis."""

    def colours(self, queries: Float[Tensor, "*n c"]) -> Float[Tensor, "*n 3"]:
        """Queries as colours in [0, 1]; the mean is grey."""
        along = (queries - self.mean) @ self.axes / (2 * _REACH * self.spread)
        return (along + 0.5).clamp(0, 1)


def principal_axes(queries: Float[Tensor, "n c"]) -> PrincipalAxes:
    """The three directions along which queries vary most.

    Args:
        queries: one or more; on any device.
    """
    values = queries.double()
    mean = values.mean(0)
    covariance = (values - mean).T @ (values - mean) / len(values)
    power, vectors = torch.linalg.eigh(covariance)
    kept = min(3, len(power))
    axes = vectors.flip(-1)[:, :kept]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    spread = power.flip(-1)[:kept].clamp(min=0).sqrt().clamp(min=1e-6)
    out = values.new_zeros(values.shape[-1], 3)
    out[:, :kept] = axes
    wide = values.new_ones(3)
    wide[:kept] = spread
    return PrincipalAxes(mean.float(), out.float(), wide.float())
