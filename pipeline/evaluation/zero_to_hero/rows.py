"""The rows of the ablation: ways to get views, and what all of them share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.diffusion.settings import SamplingSettings
from pipeline.evaluation.meshes import glb_files
from pipeline.evaluation.zero_to_hero.pairs import Pairs

OWN_COLOURS = ("plain-25", "oracle", "true-coarse", "true-start-0.7", "true-start-0.35")
"""Rows whose views keep the model's own low-frequency colours; gains are those over the first."""
BOUND = (*OWN_COLOURS, "coarse", "vae")
CONTROLS = ("uniform-66", "best-guidance", "all-guided", "mean-of-3", "ancestral")
PAPER = (*(f"uniform-{n}" for n in (25, 50, 66)), "hourglass", "resample", "amf", "msa", "all")


@dataclass(frozen=True, kw_only=True)
class AblationSettings:
    """What all rows of an ablation share."""

    meshes: tuple[Path, ...]
    """Folders with GLB files, searched through."""
    joint: tuple[Literal["on", "off"], ...] = ("on",)
    """With views that share attention, without, or both."""
    seeds: tuple[int, ...] = (0,)
    """Seeds."""
    pairs: Pairs = 12
    """Pairs of an object."""
    count: int | None = None
    """So many objects; all by default."""
    base: str = "uniform-66"
    """The row over which gains are counted."""
    sampling: SamplingSettings = SamplingSettings(strength=1.0)
    """What all rows share. They start from noise by default: a start from the coarse picture skips early steps."""
    quick: bool = False
    """Three steps in place of all, which shows only that everything runs."""
    mask_threshold: float = 0.95
    """Foreground on white has a channel below this."""


@dataclass(frozen=True)
class Row:
    """A way to get views.

    Args:
        settings: of the sampler.
        maps: whether the true views' attention maps are injected.
        told: the coarse render that the model is conditioned on: its own, or the true view.
        shown: what is scored: samples, that coarse render, or the true views through the VAE.
        samples: how many are averaged.
    """

    settings: SamplingSettings
    maps: bool = False
    told: Literal["coarse", "truth"] = "coarse"
    shown: Literal["samples", "coarse", "vae"] = "samples"
    samples: int = 1

    @property
    def digest(self) -> str:
        """Tells rows apart whose scores differ."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def rows_of(ablation: AblationSettings, tuned: dict[str, Any]) -> dict[str, Row]:
    """The rows of the ablation; each of the paper's adds one part to that above, but for msa, which lacks filtering.

    Args:
        ablation: what they share.
        tuned: what tuning has found so far; rows that need it are left out before.
    """
    base, quick = ablation.sampling, ablation.quick
    z2h = replace(base.zero_to_hero, counts=(1, 1, 1), passes=2) if quick else base.zero_to_hero

    def uniform(steps: int) -> SamplingSettings:
        return replace(base, steps=min(steps, 3) if quick else steps, filtering="none")

    rows = {f"uniform-{n}": Row(uniform(n)) for n in sorted({base.plan().steps, 25, 50, 66})}
    parts: dict[str, dict[str, Any]] = {
        "hourglass": {"passes": 1, "amf": False, "msa": False},
        "resample": {"amf": False, "msa": False},
        "amf": {"msa": False},
        "msa": {"amf": False},
        "all": {},
    }
    for name, changes in parts.items():
        rows[name] = Row(replace(base, filtering="zero-to-hero", zero_to_hero=replace(z2h, **changes)))
    if "zero-to-hero" in tuned:
        changes = {k: tuple(v) if isinstance(v, list) else v for k, v in tuned["zero-to-hero"].items()}
        rows["all-tuned"] = Row(replace(rows["all"].settings, zero_to_hero=replace(z2h, **changes)))
    # The coarse volume's low-frequency colours would hide what the model makes of the truth.
    own = replace(uniform(25), coarse_colours=False)
    rows["plain-25"] = Row(own)
    rows["oracle"] = Row(own, maps=True)
    rows["true-coarse"] = Row(own, told="truth")
    for strength in (0.7, 0.35):
        # The condition is also what a start below full strength begins with.
        rows[f"true-start-{strength}"] = Row(replace(own, steps=uniform(14).steps, strength=strength), told="truth")
    rows["coarse"] = Row(uniform(1), shown="coarse")
    rows["vae"] = Row(uniform(1), shown="vae")
    if "guidance" in tuned:
        rows["best-guidance"] = Row(replace(uniform(66), guidance=tuned["guidance"]))
        rows["all-guided"] = Row(replace(rows["all"].settings, guidance=tuned["guidance"]))
    rows["mean-of-3"] = Row(uniform(22), samples=3)
    rows["ancestral"] = Row(replace(uniform(66), eta=1.0))
    return rows


def with_joint(row: Row, joint: str) -> Row:
    """The row with views that share attention, or not."""
    return replace(row, settings=replace(row.settings, joint=joint == "on"))


def shuffled_meshes(ablation: AblationSettings, *, every: bool = False) -> list[tuple[int, Path]]:
    """The meshes with their place in the sorted list, which decides their cameras; shuffled, so that some are fair.

    Raises:
        InputError: there are none.
    """
    paths = list(enumerate(glb_files(ablation.meshes)))
    chosen = np.random.default_rng(0).permutation(len(paths))
    return [paths[k] for k in chosen[: None if every else ablation.count]]
