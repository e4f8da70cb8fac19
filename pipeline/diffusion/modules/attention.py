"""The one attention hook that every method uses: it sees self-attention at three moments.

:class:`HookedAttention` is installed on the ``attn1`` layers of any diffusers U-Net and gives every
:class:`AttentionHook`

1. queries, keys and values after projection (:meth:`AttentionHook.project`),
2. the scores before the softmax, but only if it asks for them (:meth:`AttentionHook.scores`),
3. the layer's output (:meth:`AttentionHook.output`).

Without a hook that wants scores, fused attention runs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor

from scene.errors import InputError

Place = Literal["encoder", "mid", "decoder"]
Heads = Float[Tensor, "rows heads _ dim"]
"""Tokens are not named: hooks may widen keys and values."""
Scores = Float[Tensor, "rows heads queries keys"]


@dataclass(frozen=True)
class Layer:
    """Which self-attention layer: its part of the U-Net, side of its token grid, and number within both.

    Never named by block index: networks with other numbers of levels would be hit at the wrong layer silently.
    """

    place: Place
    resolution: int
    ordinal: int


@dataclass(frozen=True)
class Step:
    """Where the denoising loop is: step ``index`` of ``count`` at timestep ``t``, pass ``pass_index`` of ``passes``."""

    index: int
    count: int
    t: int
    pass_index: int = 0
    passes: int = 1


class AttentionHook:
    """A method that watches or changes self-attention; override what it uses. Every default does nothing."""

    def begin_pass(self, step: Step) -> None:
        """Called before every pass of the U-Net."""

    def begin_call(self, call: int) -> None:
        """Called before every call of the U-Net in a pass: guidance makes two, call 0 with conditions, call 1 without.

        Nobody need call it where a pass has one call only.
        """

    def end_step(self, step: Step) -> None:
        """Called after the last pass of every step."""

    def reset(self) -> None:
        """Called when a run ends: drop whatever was kept from it."""

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Change queries, keys and values."""
        return q, k, v

    def wants_scores(self, layer: Layer) -> bool:
        """Whether :meth:`scores` is to be called; if any hook says so the scores are materialised."""
        return False

    def heads_at_once(self, layer: Layer) -> int | None:
        """How many heads' scores to hold at a time where this hook wants scores; None for all."""
        return None

    def scores(self, layer: Layer, scores: Scores) -> Scores:
        """Change the scaled scores before the softmax, in place or not.

        Called after :meth:`project` of the same layer, once for every group of heads, in order.
        """
        return scores

    def output(self, layer: Layer, out: Float[Tensor, "rows tokens channels"]) -> Float[Tensor, "rows tokens channels"]:
        """Change the layer's output, after its output projection."""
        return out


class HookedAttention:
    """Attention processor that runs hooks, in order, on one self-attention layer."""

    def __init__(self, layer: Layer, hooks: Sequence[AttentionHook]) -> None:
        self.layer, self.hooks = layer, hooks

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Self-attention of ``hidden_states`` ``[rows, tokens, channels]``."""
        if encoder_hidden_states is not None or attention_mask is not None or hidden_states.ndim != 3:
            raise InputError(f"attention hooks fit plain self-attention only, not layer {self.layer}")
        rows, tokens, _ = hidden_states.shape

        def split(x: Tensor) -> Tensor:
            return x.view(rows, tokens, attn.heads, -1).transpose(1, 2)

        q, k, v = split(attn.to_q(hidden_states)), split(attn.to_k(hidden_states)), split(attn.to_v(hidden_states))
        if attn.norm_q is not None:
            q = attn.norm_q(q)
        if attn.norm_k is not None:
            k = attn.norm_k(k)
        for hook in self.hooks:
            q, k, v = hook.project(self.layer, q, k, v)
        wanting = [hook for hook in self.hooks if hook.wants_scores(self.layer)]
        if wanting:
            out = self._scored(wanting, q * attn.scale, k, v)
        else:
            out = F.scaled_dot_product_attention(q, k, v, scale=attn.scale)
        out = out.transpose(1, 2).reshape(rows, -1, q.shape[1] * q.shape[3]).to(hidden_states.dtype)
        out = attn.to_out[1](attn.to_out[0](out))
        if attn.residual_connection:
            out = out + hidden_states
        out = out / attn.rescale_output_factor
        for hook in self.hooks:
            out = hook.output(self.layer, out)
        return out

    def _scored(self, wanting: Sequence[AttentionHook], q: Heads, k: Heads, v: Heads) -> Heads:
        """Attention whose scores hooks see; a few heads at a time, if a hook asks for that."""
        limits = [limit for hook in wanting if (limit := hook.heads_at_once(self.layer)) is not None]
        outs = []
        for few_q, few_k, few_v in zip(*(x.split(min(limits, default=x.shape[1]), 1) for x in (q, k, v)), strict=True):
            scores = few_q @ few_k.transpose(-1, -2)
            for hook in wanting:
                scores = hook.scores(self.layer, scores)
            outs.append(scores.float().softmax(dim=-1).to(v.dtype) @ few_v)
        return outs[0] if len(outs) == 1 else torch.cat(outs, 1)


class OneTokenAttention:
    """Attention processor for cross-attention on a single token, as in Zero123: a softmax over one score is 1.

    What is left of the layer is a linear map of the token, the same for every place, to rounding; queries and keys do
    not matter. Several tokens go through the ordinary processor.
    """

    def __init__(self) -> None:
        self._ordinary = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Cross-attention of ``hidden_states`` ``[rows, tokens, channels]``."""
        token = encoder_hidden_states
        if token is None or token.shape[1] != 1 or attention_mask is not None or attn.norm_cross is not None:
            out: Tensor = self._ordinary(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return out
        out = attn.to_out[1](attn.to_out[0](attn.to_v(token))).expand_as(hidden_states)
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor


def use_one_token_attention(unet: UNet2DConditionModel | ControlNetModel) -> None:
    """Give all cross-attention layers of a U-Net or ControlNet the short way for one token, in place."""
    unet.set_attn_processor(
        {
            name: OneTokenAttention() if name.endswith("attn2.processor") else processor
            for name, processor in unet.attn_processors.items()
        }
    )


def self_attention_layers(unet: UNet2DConditionModel, latent_size: int | None = None) -> dict[str, Layer]:
    """The self-attention layers of a U-Net: processor name to layer, in the order of computation.

    Args:
        unet: any number of levels, with or without attention on each.
        latent_size: side of the latents it will run on; by default the size in its config.
    """
    size = int(latent_size or unet.config["sample_size"])
    levels = len(unet.config["block_out_channels"])
    found: list[tuple[int, str, Place, int]] = []
    for name in unet.attn_processors:
        if not name.endswith("attn1.processor"):
            continue
        block = re.match(r"(down|up)_blocks\.(\d+)\.", name)
        if block is None:
            found.append((levels, name, "mid", size >> (levels - 1)))
        elif block[1] == "down":
            found.append((int(block[2]), name, "encoder", size >> int(block[2])))
        else:
            found.append((levels + 1 + int(block[2]), name, "decoder", size >> (levels - 1 - int(block[2]))))
    counts: dict[tuple[Place, int], int] = {}
    layers = {}
    for _, name, place, resolution in sorted(found, key=lambda item: item[0]):
        ordinal = counts.get((place, resolution), 0)
        counts[place, resolution] = ordinal + 1
        layers[name] = Layer(place, resolution, ordinal)
    return layers


@contextlib.contextmanager
def hooked(
    unet: UNet2DConditionModel, hooks: Sequence[AttentionHook], latent_size: int | None = None
) -> Iterator[None]:
    """Run hooks on every self-attention layer of a U-Net within this block; restores its processors afterwards."""
    before = dict(unet.attn_processors)
    if hooks:
        layers = self_attention_layers(unet, latent_size)
        unet.set_attn_processor(
            {
                name: HookedAttention(layers[name], hooks) if name in layers else processor
                for name, processor in before.items()
            }
        )
    try:
        yield
    finally:
        if hooks:
            unet.set_attn_processor(before)
        for hook in hooks:
            hook.reset()


@dataclass(frozen=True)
class SharedViews(AttentionHook):
    """Rows of one object read each other's keys and values.

    Rows come in groups of ``rows`` consecutive ones per object. With ``source_row``, row 0 of a group is the clean
    source: every row also reads it, at every resolution. At the resolutions in ``joint``, every row reads all rows of
    its group.

    Args:
        rows: rows of an object.
        source_row: whether row 0 of each group is a source.
        joint: sides of token grids at which all rows are shared.
    """

    rows: int
    source_row: bool = True
    joint: tuple[int, ...] = ()

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Widen keys and values."""
        if layer.resolution in self.joint:
            return q, self._all(k), self._all(v)
        if self.source_row and self.rows > 1:
            # The source row meets its own keys twice, which leaves its softmax average as it was.
            return q, torch.cat([k, self._first(k)], 2), torch.cat([v, self._first(v)], 2)
        return q, k, v

    def _grouped(self, x: Heads) -> Float[Tensor, "objects views heads tokens dim"]:
        if x.shape[0] % self.rows:
            raise InputError(f"{x.shape[0]} rows are not whole groups of {self.rows} views")
        return x.unflatten(0, (-1, self.rows))

    def _first(self, x: Heads) -> Heads:
        groups = self._grouped(x)
        return groups[:, :1].expand_as(groups).flatten(0, 1)

    def _all(self, x: Heads) -> Heads:
        groups = self._grouped(x)
        merged = groups.transpose(1, 2).flatten(2, 3)
        return merged[:, None].expand(-1, self.rows, -1, -1, -1).flatten(0, 1)
