"""Queries of the decoder's self-attention: recorded, with gradients where these are on, or replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer
from pipeline.editing.model import EditDiffusion
from qnerf.store import DEVIATION_FLOOR, QueryLayer, Statistics, token_weights
from scene.errors import InputError

Queries = Mapping[QueryLayer, Float[Tensor, "v _ _ _"]]
"""Of some views, by layer: ``[v, side, side, c]``, which differ from layer to layer."""


def query_layers(model: EditDiffusion) -> dict[Layer, QueryLayer]:
    """The decoder's layers as the query field knows them, in the order of computation."""
    return {
        layer: QueryLayer(layer.resolution, model.channels_of(layer), layer.ordinal) for layer in model.decoder_layers
    }


@dataclass(eq=False)
class QueryProbe(AttentionHook):
    """Records the queries of a pass, or puts others in the place of some rows'.

    A query is what the layer's linear map gives, all heads side by side, before it is scaled.

    Args:
        layers: which, from :func:`query_layers`.
        replaced: what the rows ``rows`` get, or None to leave them as they are.
        rows: of the batch, those that ``replaced`` is for.
        weights: how much of each place is replaced, in [0, 1]; None for all of it.
    """

    layers: Mapping[Layer, QueryLayer]
    replaced: Queries | None = None
    rows: Sequence[int] = ()
    weights: Float[Tensor, "v h w"] | None = None
    _recording: bool = False
    _found: dict[QueryLayer, Heads] = field(default_factory=dict)

    def record(self) -> None:
        """Keep the queries of the next pass, as they are before any is replaced."""
        self._found, self._recording = {}, True

    def take(self, rows: Sequence[int]) -> dict[QueryLayer, Float[Tensor, "v _ _ _"]]:
        """The queries of some rows of the pass that was recorded, with their graph; they are kept no longer.

        Raises:
            InputError: no pass was recorded.
        """
        found, self._found, self._recording = self._found, {}, False
        if set(found) != set(self.layers.values()):
            raise InputError(f"queries of {len(found)} layers were recorded, not of {len(self.layers)}")
        return {layer: _grid(heads[list(rows)], layer.side) for layer, heads in found.items()}

    def reset(self) -> None:
        """Let go of everything."""
        self.replaced, self.rows, self.weights = None, (), None
        self._found, self._recording = {}, False

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Record, then replace."""
        mine = self.layers.get(layer)
        if mine is None:
            return q, k, v
        if self._recording:
            # As it is: under gradient checkpointing this runs again backwards, where it must do the same.
            self._found[mine] = q
        if self.replaced is not None:
            rows = torch.tensor(list(self.rows), device=q.device)
            given = self.replaced[mine].flatten(1, 2).unflatten(2, (q.shape[1], -1)).transpose(1, 2)
            given = given.to(q.device, q.dtype)
            if self.weights is not None:
                weight = token_weights(self.weights, mine.side).flatten(1)[:, None, :, None].to(q.device, q.dtype)
                given = q[rows] + weight * (given - q[rows])
            q = q.index_copy(0, rows, given)
        return q, k, v


def _grid(heads: Heads, side: int) -> Float[Tensor, "v side side c"]:
    return heads.transpose(1, 2).flatten(2).unflatten(1, (side, side))


class RunningStatistics:
    """Mean and deviation of each layer's channels over the tokens of views that come one after another.

    The same numbers as those of a store of all of them (:meth:`qnerf.store.QueryStore.statistics`), without keeping
    any.
    """

    def __init__(self) -> None:
        self._sums: dict[QueryLayer, tuple[float, Tensor, Tensor]] = {}

    def add(self, queries: Queries, masks: Float[Tensor, "v h w"] | None = None) -> None:
        """Take the queries of some views.

        Args:
            queries: of these views; their order matters for rounding only.
            masks: how much each token counts.
        """
        for layer, of_views in queries.items():
            values = of_views.detach().flatten(1, 2).float()
            weights = (
                torch.ones(values.shape[:2]) if masks is None else token_weights(masks, layer.side).flatten(1).cpu()
            )
            masses = weights.double().sum(1)
            shares = (weights / masses.clamp(min=1e-6)[:, None]).float().to(values.device)
            means = torch.einsum("vt,vtc->vc", shares, values)
            squares = torch.einsum("vt,vtc->vc", shares, (values - means[:, None]).square())
            # Views are joined in double precision, by their means, which loses no digits where these are far from zero.
            for mass, own, variance in zip(masses.tolist(), means.cpu().double(), squares.cpu().double(), strict=True):
                if mass == 0:
                    continue
                total, mean, before = self._sums.get(layer, (0.0, own, torch.zeros_like(own)))
                change, both = own - mean, total + mass
                self._sums[layer] = (
                    both,
                    mean + change * (mass / both),
                    before + mass * variance + change.square() * (total * mass / both),
                )

    def result(self) -> dict[QueryLayer, Statistics]:
        """Of all that was added.

        Raises:
            InputError: nothing was, or masks left no token.
        """
        if not self._sums:
            raise InputError("the masks leave no token of any view", fix="Give masks that cover the object.")
        return {
            layer: Statistics(mean.float(), (squares / total).sqrt().clamp(min=DEVIATION_FLOOR).float())
            for layer, (total, mean, squares) in self._sums.items()
        }


def standardised(
    queries: Queries, statistics: Mapping[QueryLayer, Statistics]
) -> dict[QueryLayer, Float[Tensor, "v _ _ _"]]:
    """Queries less their mean, over their deviation, in single precision."""
    return {
        layer: (values.float() - statistics[layer].mean.to(values.device))
        / statistics[layer].deviation.to(values.device)
        for layer, values in queries.items()
    }


def restored(
    queries: Queries, statistics: Mapping[QueryLayer, Statistics]
) -> dict[QueryLayer, Float[Tensor, "v _ _ _"]]:
    """The inverse of :func:`standardised`."""
    return {
        layer: values * statistics[layer].deviation.to(values.device) + statistics[layer].mean.to(values.device)
        for layer, values in queries.items()
    }
