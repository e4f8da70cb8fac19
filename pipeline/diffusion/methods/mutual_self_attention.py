"""Mutual self-attention: early on, the views of an object read the source's keys and values in place of their own."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.diffusion.denoising.schedule import Span
from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer, Step
from scene.errors import InputError


@dataclass(eq=False)
class MutualSelfAttention(AttentionHook):
    """Rows of an object take the keys and values of its source, row 0 of each group of ``rows`` consecutive ones.

    The source so keeps its own. Runs after :class:`pipeline.diffusion.modules.attention.SharedViews`, whose first keys
    are the source's own too, and takes what that added away again: in these layers a view reads the source and nothing
    else.

    Args:
        rows: rows of an object, the source's among them.
        span: timesteps at which it happens.
        sides: sides of the decoder's token grids where it happens.
        calls: the calls of the U-Net in which it happens; None for all.

    Source: Zero-to-Hero (Sobol, Xu and Litany 2024), section 4; MasaCtrl (Cao et al. 2023).
    """

    rows: int
    span: Span
    sides: tuple[int, ...]
    calls: tuple[int, ...] | None = None
    active: bool = False
    _call: int = 0

    def begin_pass(self, step: Step) -> None:
        """Note whether this is the time."""
        self.active, self._call = step.t in self.span, 0

    def begin_call(self, call: int) -> None:
        """Note which call comes."""
        self._call = call

    def reset(self) -> None:
        """No step, no sharing."""
        self.active, self._call = False, 0

    def covers(self, layer: Layer) -> bool:
        """Whether it happens in this layer."""
        return layer.place == "decoder" and layer.resolution in self.sides

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Exchange keys and values."""
        if not self.active or not self.covers(layer) or (self.calls is not None and self._call not in self.calls):
            return q, k, v
        if len(q) % self.rows:
            raise InputError(f"{len(q)} rows are not whole groups of {self.rows}, a source and its views")
        return q, self._of_source(k, q.shape[2]), self._of_source(v, q.shape[2])

    def _of_source(self, x: Heads, tokens: int) -> Heads:
        first = x.unflatten(0, (-1, self.rows))[:, :1, :, :tokens]
        return first.expand(-1, self.rows, -1, -1, -1).flatten(0, 1)
