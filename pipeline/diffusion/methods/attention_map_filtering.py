"""Attention map filtering: scores of self-attention, steadied over the passes of a step and over steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from pipeline.diffusion.denoising.schedule import Span
from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer, Scores, Step
from pipeline.diffusion.settings import Pool
from scene.errors import InputError

Key = tuple[Layer, int, int]
"""Whose map: its layer, its call of the U-Net, its first head."""
_LARGEST_HALF = 65504.0


@dataclass(eq=False)
class MapFilter(AttentionHook):
    """Filters scores before the softmax: row by row, head by head, element by element.

    Within a step of several passes, the scores of a pass are pooled with those of the passes before. Over steps, they
    are blended with a history. At every step of the cross-step range, with ``H`` the history before it::

        pooled = pool(scores of this pass, maps of the passes before)
        map    = alpha_current * pooled + (1 - alpha_current) * H        what the softmax gets
        H'     = alpha_history * map + (1 - alpha_history) * H           after the last pass

    Maps are held for the ranges only, and dropped when the shape of the scores changes.

    Args:
        in_step: timesteps at which passes are pooled.
        cross_step: timesteps at which the history is blended in and kept.
        pool: how passes are pooled.
        blended: pool with the maps of the passes before; else with their pooled scores.
        alpha_current, alpha_history: as above.
        alpha_pool: weight of a pass's own scores where the pool is ema.
        sides: sides of the token grids that are filtered; None for all up to ``largest``.
        largest: side of the largest grid filtered where no sides are given.
        calls: the calls of the U-Net that are filtered; None for all.
        rows: which of so many rows are filtered; None for all.
        half: hold maps in half precision.
        heads: heads whose scores are made at a time; None for all.
        buffer_gb: memory that held maps may fill.

    Source: Zero-to-Hero (Sobol, Xu and Litany 2024), section 4 and appendix 8.5.
    """

    in_step: Span
    cross_step: Span
    pool: Pool = "min"
    blended: bool = True
    alpha_current: float = 0.2
    alpha_history: float = 0.5
    alpha_pool: float = 0.5
    sides: tuple[int, ...] | None = None
    largest: int = 32
    calls: tuple[int, ...] | None = None
    rows: Callable[[int], Int[Tensor, "n"]] | None = None
    half: bool = False
    heads: int | None = None
    buffer_gb: float = 8.0
    _step: Step | None = None
    _call: int = 0
    _head: int = 0
    _history: dict[Key, Tensor] = field(default_factory=dict)
    _passes: dict[Key, Tensor] = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        """Memory of all maps held now."""
        return sum(x.numel() * x.element_size() for held in (self._history, self._passes) for x in held.values())

    def begin_pass(self, step: Step) -> None:
        """Note where the loop is; let go of what no later step uses."""
        self._step, self._call = step, 0
        if step.pass_index == 0:
            self._passes.clear()
        if step.t not in self.cross_step:
            self._history.clear()

    def begin_call(self, call: int) -> None:
        """Note which call comes."""
        self._call = call

    def end_step(self, step: Step) -> None:
        """Let go of the passes' maps."""
        self._passes.clear()

    def reset(self) -> None:
        """Let go of everything."""
        self._history.clear()
        self._passes.clear()
        self._step, self._call = None, 0

    def forget(self, layers: Callable[[Layer], bool], calls: Sequence[int] | None = None) -> None:
        """Let go of the history of some layers, in some calls of the U-Net or all."""
        self._history = {
            (layer, call, head): held
            for (layer, call, head), held in self._history.items()
            if not layers(layer) or (calls is not None and call not in calls)
        }

    def keep_rows(self, rows: Callable[[int], Int[Tensor, "n"]]) -> None:
        """Go on with some rows of the U-Net's batch: the history of the others is dropped.

        Args:
            rows: which of so many rows.
        """
        self._history = {key: held[rows(len(held)).to(held.device)] for key, held in self._history.items()}

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Begin a layer: its first heads come next."""
        self._head = 0
        return q, k, v

    def wants_scores(self, layer: Layer) -> bool:
        """Inside the ranges, on the layers and calls that are filtered."""
        chosen = layer.resolution in self.sides if self.sides is not None else layer.resolution <= self.largest
        if not chosen or (self.calls is not None and self._call not in self.calls):
            return False
        return self._pooling() or self._crossing()

    def heads_at_once(self, layer: Layer) -> int | None:
        """As the field says."""
        return self.heads

    def scores(self, layer: Layer, scores: Scores) -> Scores:
        """Filter."""
        key = layer, self._call, self._head
        self._head += scores.shape[1]
        if self.rows is None:
            return self._filtered(key, scores)
        chosen = self.rows(len(scores)).to(scores.device)
        return scores.index_copy(0, chosen, self._filtered(key, scores[chosen]))

    def _pooling(self) -> bool:
        return self._step is not None and self._step.passes > 1 and self._step.t in self.in_step and self.pool != "none"

    def _crossing(self) -> bool:
        return self._step is not None and self._step.t in self.cross_step

    def _filtered(self, key: Key, scores: Scores) -> Scores:
        """The map of scores, which are overwritten."""
        assert self._step is not None
        last = self._step.pass_index == self._step.passes - 1
        before, history = self._matching(self._passes, key, scores), self._matching(self._history, key, scores)
        if before is not None:
            scores = self._pooled(scores, before)
        pooling = self._pooling() and not last
        if pooling and not self.blended:
            count = self._step.pass_index + 1
            self._hold(self._passes, key, scores * count if self.pool == "mean" else scores)
        if self._crossing() and history is not None:
            scores = scores.lerp_(history.to(scores.dtype), 1 - self.alpha_current)
        if pooling and self.blended:
            if before is None or self.pool == "ema":
                self._hold(self._passes, key, scores)
            elif self.pool == "min":
                self._hold(self._passes, key, torch.minimum(scores, before.to(scores.dtype)))
            else:
                self._hold(self._passes, key, scores + before)
        if last and self._crossing():
            if history is None:
                self._hold(self._history, key, scores)
            else:
                history.lerp_(self._stored(scores), self.alpha_history)
        return scores

    def _pooled(self, scores: Scores, before: Tensor) -> Scores:
        before = before.to(scores.dtype)
        if self.pool == "min":
            return torch.minimum(scores, before, out=scores)
        if self.pool == "mean":
            assert self._step is not None
            return scores.add_(before).div_(self._step.pass_index + 1)
        return scores.lerp_(before, 1 - self.alpha_pool)

    def _matching(self, held: dict[Key, Tensor], key: Key, scores: Scores) -> Tensor | None:
        """What is held for scores of this shape; other shapes are of other rows or keys, and dropped."""
        found = held.get(key)
        if found is not None and found.shape != scores.shape:
            del held[key]
            return None
        return found

    def _stored(self, scores: Tensor) -> Tensor:
        return scores.clamp(-_LARGEST_HALF, _LARGEST_HALF).half() if self.half else scores

    def _hold(self, held: dict[Key, Tensor], key: Key, scores: Tensor) -> None:
        """Hold a copy: scores may be written over later."""
        stored = self._stored(scores)
        if key in held and held[key].dtype == stored.dtype:
            held[key].copy_(stored)
            return
        held[key] = stored.clone() if stored is scores else stored
        # A step's first pass already tells how large the history will be that its last one leaves.
        to_come = self._passes.keys() - self._history.keys() if self._crossing() else set()
        needed = self.held_bytes + sum(self._passes[k].numel() * self._passes[k].element_size() for k in to_come)
        if needed > self.buffer_gb * 1e9:
            raise InputError(
                f"filtering attention maps of {len(scores)} rows needs more than {self.buffer_gb:g} GB for them",
                fix="Raise buffer_gb, keep maps in half precision (half), filter fewer amf_sides, or make fewer views.",
            )
