"""Views fused from several pictures of a held-out object: scores by number of inputs and by angle, and bounds.

A row makes the picture of a target from inputs. Rows share targets and inputs: what is an input at some number is one
at every larger number. Scores are means over objects of means over their targets. :func:`input_rows` need no training;
:func:`bound_rows` know the true depth and silhouette of the target and how much of it each input sees.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from rich.progress import track
from torch import Tensor

from pipeline.diffusion.epipolar import lookup, masked_lookup
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.diffusion.modules.poses import Poses
from pipeline.evaluation.statistics import mean_and_interval
from pipeline.evaluation.tables import markdown_table
from pipeline.training.data.fusion_rings import HeldOutRing, seen_pixels
from pipeline.training.data.samples import to_bytes
from scene.metrics import psnr, view_scores
from scene.render import over_white

Picture = Float[np.ndarray, "s s 4"]
"""Straight alpha in [0, 1]."""


@dataclass(frozen=True, eq=False)
class FusionTarget:
    """A view to be drawn, and views to draw it from.

    Args:
        ring: the object.
        number: of the object, over which intervals are taken.
        target: number of the view.
        order: all other views; the first ``n`` are the inputs at ``n``.
    """

    ring: HeldOutRing
    number: int
    target: int
    order: Int[np.ndarray, "m"]

    @property
    def truth(self) -> Picture:
        """The true picture."""
        return _picture(self.ring, self.target)

    def angles(self, inputs: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Azimuths between the target and inputs, degrees in [0, 180]."""
        azimuths = self.ring.azimuths.double().numpy()
        turn = np.degrees(azimuths[inputs] - azimuths[self.target]) % 360
        # Rounded, so that views on either side are equally far and the first of them counts.
        return np.minimum(turn, 360 - turn).round(3)

    def by_angle(self, inputs: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Inputs from the nearest to the farthest."""
        return inputs[np.argsort(self.angles(inputs), kind="stable")]


def draw_targets(rings: Sequence[HeldOutRing], count: int, seed: int = 0) -> list[FusionTarget]:
    """Targets spread over objects, each view of an object at most once, with inputs in random order."""
    targets = []
    for number, ring in enumerate(rings):
        rng = np.random.default_rng([seed, number, 20])
        of_ring = count // len(rings) + (number < count % len(rings))
        for target in rng.permutation(len(ring.views))[:of_ring]:
            others = np.delete(np.arange(len(ring.views)), target)
            targets.append(FusionTarget(ring, number, int(target), rng.permutation(others)))
    return targets


Row = Callable[[FusionTarget, Int[np.ndarray, "n"]], Picture]
"""Draws a target from the views of these numbers."""
Fuse = Callable[[Float[Tensor, "n c h w"], Float[Tensor, "n"], float], Float[Tensor, "c h w"]]
"""Draws a target's normalised latents from latents and azimuths of inputs, and the target's azimuth (radians)."""


def fused(codec: LatentCodec, fuse: Fuse) -> Row:
    """The row of something that draws latents from latents."""

    def draw(target: FusionTarget, inputs: Int[np.ndarray, "n"]) -> Picture:
        ring = target.ring
        azimuth = float(ring.azimuths[target.target])
        return _decoded(codec, fuse(ring.latents[inputs], ring.azimuths[inputs], azimuth)[None])[0]

    return draw


def _picture(ring: HeldOutRing, view: int) -> Picture:
    return ring.views[view].astype(np.float32) / 255


@torch.no_grad()
def _decoded(codec: LatentCodec, latents: Float[Tensor, "b c h w"]) -> Float[np.ndarray, "b s s 4"]:
    return codec.decode(latents.to(codec.vae.device)).float().cpu().numpy()


def input_rows(codec: LatentCodec) -> dict[str, Row]:
    """The nearest input as it is, the mean of the inputs' pictures, and the true view through the VAE."""

    def mean(target: FusionTarget, inputs: Int[np.ndarray, "n"]) -> Picture:
        rgba = np.stack([_picture(target.ring, int(view)) for view in inputs])
        alpha = rgba[..., 3:].mean(axis=0)
        colour = (rgba[..., :3] * rgba[..., 3:]).mean(axis=0) / np.maximum(alpha, 1e-6)
        return np.concatenate([colour, alpha], axis=-1)

    return {
        "nearest input as it is": lambda target, inputs: _picture(target.ring, int(target.by_angle(inputs)[0])),
        "mean of the inputs": mean,
        "true view through the VAE": lambda target, inputs: _decoded(codec, target.ring.latents[[target.target]])[0],
    }


@dataclass(frozen=True, eq=False)
class Warped:
    """What all views of an object show of one target's surface, moved to where the target has it by true depth.

    Args:
        colours: on white, at foreground pixels of the target.
        seen: whether the view sees the pixel's surface.
        index: of those pixels in the flattened picture.
        latents: of each view, moved by what the surface of a cell moves in the mean; nothing where unseen.
        shares: of a cell's foreground pixels that the view sees.
        covered: whether a cell of the target has foreground.
    """

    colours: Float[Tensor, "v n 3"]
    seen: Float[Tensor, "v n"]
    index: Int[Tensor, "n"]
    latents: Float[Tensor, "v k c"]
    shares: Float[Tensor, "v k"]
    covered: Float[Tensor, "k"]


def warped(ring: HeldOutRing, target: int) -> Warped:
    """Move what all views show of a target's surface to where the target has it."""
    poses, depths = Poses.of(ring.cameras), torch.from_numpy(ring.depths)
    pixels, places, seen = seen_pixels(poses, depths, target)
    views = torch.from_numpy(over_white(ring.views.astype(np.float32) / 255)).movedim(-1, 1)
    colours, _ = masked_lookup(views, (depths > 0).float(), places)
    size, side = depths.shape[-1], ring.latents.shape[-1]
    # Of a cell, the mean move of the pixels that the view sees.
    sums = torch.zeros(len(depths), 4, size * size)
    moves = (places - pixels.places) * seen[..., None]
    sums[:, :2, pixels.index] = moves.movedim(-1, 1)
    sums[:, 2, pixels.index] = seen.float()
    sums[:, 3, pixels.index] = 1.0
    cells = F.avg_pool2d(sums.view(-1, 4, size, size), size // side).flatten(2)
    move = cells[:, :2] / cells[:, 2:3].clamp(min=1e-9)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centres = (torch.stack([column, row], -1).reshape(-1, 2).float() + 0.5) / side
    # The borders' own values lie beyond the borders, not zeros.
    at = (centres + move.mT).clamp(0.5 / side, 1 - 0.5 / side)
    shares = ring.visible[target].flatten(1)
    return Warped(colours, seen.float(), pixels.index, lookup(ring.latents, at), shares, (cells[0, 3] > 0).float())


def composed(
    values: Float[Tensor, "n k c"], shares: Float[Tensor, "n k"], costs: Float[Tensor, "n #k"], enough: float = 0.5
) -> Float[Tensor, "k c"]:
    """Each place from the view of least cost among those that see it; the mean of what is seen where none does.

    Args:
        values: of views.
        shares: how much of each place they see, in [0, 1].
        costs: of taking a place from a view.
        enough: share from which a view sees a place; where none has so much, the largest share will do.
    """
    usable = shares >= shares.amax(0).clamp(max=enough)
    first = torch.where(usable, costs, torch.inf).argmin(0)
    chosen = values[first, torch.arange(values.shape[1])]
    seen = (shares > 0).any(0)
    blind = chosen[seen].mean(0) if seen.any() else values.mean((0, 1))
    return torch.where(seen[:, None], chosen, blind)


@dataclass(frozen=True, eq=False)
class _Bound:
    """Draws a target from what groups of its views truly show.

    Args:
        codec: of the latents.
        space: what is moved: latents, or colours of pixels that then go through the VAE.
        told: of the views that see a place, take the one that is most like the truth, not the nearest.
        shown: gives :func:`warped` of a target.
    """

    codec: LatentCodec
    space: Literal["latents", "picture"]
    told: bool
    shown: Callable[[FusionTarget], Warped]

    @torch.no_grad()
    def __call__(self, target: FusionTarget, groups: Sequence[Int[np.ndarray, "n"]]) -> Float[np.ndarray, "b s s 4"]:
        of = self.shown(target)
        ranks = torch.full((len(target.ring.views), 1), torch.inf)
        ranks[target.by_angle(target.order), 0] = torch.arange(len(target.order), dtype=torch.float32)
        if self.space == "latents":
            true = target.ring.latents[target.target].flatten(1).mT
            costs = (of.latents - true).square().sum(-1) if self.told else ranks
            made = [composed(of.latents[g], of.shares[g] * of.covered, costs[g]) for g in groups]
            blank = self._blank(target).flatten(1).mT
            whole = torch.where(of.covered[:, None] > 0, torch.stack(made), blank)
            return _decoded(self.codec, whole.mT.unflatten(-1, target.ring.latents.shape[-2:]))
        truth = torch.from_numpy(target.truth)
        true = torch.from_numpy(over_white(target.truth)).flatten(0, 1)[of.index]
        costs = (of.colours - true).square().sum(-1) if self.told else ranks
        made = [composed(of.colours[g], of.seen[g], costs[g]) for g in groups]
        colours = torch.stack(made).mean(1, keepdim=True).repeat(1, truth[..., 0].numel(), 1)
        # Edges that no pixel's centre covers keep the mean colour.
        colours[:, of.index] = torch.stack(made)
        alpha = truth[..., 3:].expand(len(groups), -1, -1, -1)
        rgba = torch.cat([colours.unflatten(1, truth.shape[:2]), alpha], -1)
        raw = self.codec.encode_raw(torch.from_numpy(to_bytes(rgba.numpy())))
        return _decoded(self.codec, self.codec.normalise(raw))

    def _blank(self, target: FusionTarget) -> Float[Tensor, "c h w"]:
        """Latents of an empty picture."""
        size = target.ring.views.shape[1]
        return self.codec.normalise(self.codec.encode_raw(torch.zeros(1, size, size, 4, dtype=torch.uint8)))[0]


def bound_rows(codec: LatentCodec, most: int) -> dict[str, Row]:
    """Oracles that know the target's depth and silhouette, beside the best single input under the same rules.

    In latents, each of the target's is that of an input that sees its surface, moved by true depth; latents know
    nothing of turns and of shifts within a cell, so that this falls short. In pictures, each pixel is looked up in an
    input that sees it, and the picture goes through the VAE. What no input sees has the mean of the rest. Oracles take
    the nearest input that sees a place or, told the truth, the one that is most like it; the best single input is
    chosen by its foreground PSNR.

    Args:
        codec: of the latents.
        most: inputs that are ever given, in the order of the target.
    """

    def as_they_are(target: FusionTarget, groups: Sequence[Int[np.ndarray, "n"]]) -> Float[np.ndarray, "b s s 4"]:
        return np.stack([_picture(target.ring, int(group[0])) for group in groups])

    def best(draw: Callable[..., Float[np.ndarray, "b s s 4"]]) -> Row:
        # All numbers of inputs of one target come one after the other.
        @functools.lru_cache(maxsize=1)
        def singles(target: FusionTarget) -> tuple[Float[np.ndarray, "b s s 4"], Float[np.ndarray, "b"]]:
            drawn, truth = draw(target, list(target.order[:most, None])), target.truth
            mask = truth[..., 3] >= 0.5
            return drawn, np.array([psnr(over_white(one), over_white(truth), mask) for one in drawn])

        def row(target: FusionTarget, inputs: Int[np.ndarray, "n"]) -> Picture:
            drawn, scores = singles(target)
            place = np.nonzero(np.isin(target.order[:most], inputs))[0]
            return drawn[place[scores[place].argmax()]]

        return row

    def oracle(draw: _Bound) -> Row:
        return lambda target, inputs: draw(target, [inputs])[0]

    @functools.lru_cache(maxsize=1)
    def of_target(target: FusionTarget) -> Warped:
        return warped(target.ring, target.target)

    rows: dict[str, Row] = {"best single input as it is": best(as_they_are)}
    for space in ("latents", "picture"):
        plain, told = (_Bound(codec, space, told, of_target) for told in (False, True))
        rows[f"best single input, warped {space}"] = best(plain)
        rows[f"oracle, warped {space}"] = oracle(plain)
        rows[f"oracle, warped {space}, told the truth"] = oracle(told)
    return rows


Scores = Mapping[int, Sequence[Mapping[str, float]]]
"""Of one row: by number of inputs, a dictionary for each target."""


def score_row(row: Row, name: str, targets: Sequence[FusionTarget], counts: Sequence[int]) -> Scores:
    """Scores of :func:`scene.metrics.view_scores` and ``seconds`` for every target and number of inputs."""
    scores: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for target in track(targets, name):
        truth = target.truth
        for count in counts:
            begun = time.perf_counter()
            picture = row(target, target.order[:count])
            seconds = time.perf_counter() - begun
            scores[count].append(view_scores(picture, truth) | {"seconds": seconds})
    return scores


COLUMNS: Mapping[str, tuple[str, str]] = {
    "foreground_psnr": ("foreground PSNR (dB)", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "iou": ("mask IoU", ".3f"),
}
"""What is shown of scores: title and format."""

BINS: Mapping[str, tuple[float, float]] = {
    "15": (0, 20),
    "30": (20, 35),
    "45": (35, 50),
    "60 to 90": (50, 95),
    "105 to 180": (95, 181),
}
"""Degrees to the nearest input."""


def _over_objects(values: Sequence[float], numbers: Sequence[int]) -> Float[np.ndarray, "n"]:
    """The mean of each object's values."""
    found, of = np.asarray(values, np.float64), np.asarray(numbers)
    return np.array([found[of == number].mean() for number in np.unique(of)])


def counts_table(rows: Mapping[str, Scores], targets: Sequence[FusionTarget], key: str) -> str:
    """One score of all rows by number of inputs, with 95 % intervals over objects, in Markdown."""
    counts, numbers, (title, form) = list(next(iter(rows.values()))), [t.number for t in targets], COLUMNS[key]
    lines = [
        [name, *(mean_and_interval(_over_objects([s[key] for s in row[n]], numbers), form) for n in counts)]
        for name, row in rows.items()
    ]
    return markdown_table([f"{title}, inputs:", *counts], lines)


def angles_table(rows: Mapping[str, Scores], targets: Sequence[FusionTarget], key: str) -> str:
    """One score of all rows by angle to the nearest input, over all numbers of inputs, in Markdown."""
    title, form = COLUMNS[key]
    lines = []
    for name, row in rows.items():
        # Targets in their order, for each number of inputs.
        angle = [float(t.angles(t.order[:count]).min()) for count in row for t in targets]
        values = [score[key] for scores in row.values() for score in scores]
        numbers = [t.number for _ in row for t in targets]
        cells = []
        for low, high in BINS.values():
            use = [k for k, degrees in enumerate(angle) if low <= degrees < high]
            found = _over_objects([values[k] for k in use], [numbers[k] for k in use])
            cells.append(mean_and_interval(found, form) if len(found) else "–")
        lines.append([name, *cells])
    return markdown_table([f"{title}, degrees to the nearest input:", *BINS], lines)


def gains_table(
    gains: Mapping[str, tuple[Sequence[Mapping[str, float]], Sequence[Mapping[str, float]]]],
    targets: Sequence[FusionTarget],
) -> str:
    """Paired gains in foreground PSNR (dB), of all objects and of each family, with 95 % intervals, in Markdown.

    Args:
        gains: by name, scores of each target after and before.
        targets: what was drawn.
    """
    families = list(dict.fromkeys(t.ring.family for t in targets))
    lines = []
    for name, (after, before) in gains.items():
        gain = [a["foreground_psnr"] - b["foreground_psnr"] for a, b in zip(after, before, strict=True)]
        cells = []
        for family in (None, *families):
            use = [k for k, t in enumerate(targets) if family in (None, t.ring.family)]
            cells.append(
                mean_and_interval(_over_objects([gain[k] for k in use], [targets[k].number for k in use]), ".2f")
            )
        lines.append([name, *cells])
    return markdown_table(["gain in foreground PSNR (dB)", "all", *families], lines)


def coverage_table(targets: Sequence[FusionTarget], counts: Sequence[int]) -> str:
    """How much of the target's surface inputs see, with 95 % intervals over objects, in Markdown."""
    numbers = [t.number for t in targets]
    found: dict[str, list[list[float]]] = {name: [[] for _ in counts] for name in ("best single input", "all inputs")}
    for target in track(targets, "coverage"):
        ring = target.ring
        _, _, seen = seen_pixels(Poses.of(ring.cameras), torch.from_numpy(ring.depths), target.target)
        for k, count in enumerate(counts):
            given = seen[target.order[:count]].float()
            found["best single input"][k].append(float(given.mean(1).max()))
            found["all inputs"][k].append(float(given.amax(0).mean()))
    lines = [
        [name, *(mean_and_interval(_over_objects(values, numbers), ".3f") for values in row)]
        for name, row in found.items()
    ]
    return markdown_table(["share of the target's foreground that is seen, inputs:", *counts], lines)
