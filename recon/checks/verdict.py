"""One line and a score for a finished asset: would a person keep it, and if not, what is wrong and what to do.

The score is a logistic model of a few measures. Its weights are fitted on one person's judgements of the assets of the
core photos (``tests/recon/checks/judged.csv``, by ``scripts/fit_verdict.py``; agreement in ``docs/results.md``): would
one keep this for a scene that is seen from a few metres? Faults that those assets hardly have, since the mesh is
cleaned before it is written, cost what :data:`_FAULTS` says; that is set by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from recon.checks.asset import AssetMeasures

Word = Literal["good", "fair", "poor"]
Weight = tuple[float, float, float]
"""Of a feature: its middle and its scale on the core photos, and what one scale counts."""

GOOD, POOR = 0.6, 0.35
"""Scores from which an asset is good, and below which it is poor."""
_MOST_FINDINGS = 3

FEATURES: tuple[tuple[str, Callable[[AssetMeasures], float], int], ...] = (
    ("drawn", lambda m: min(max(m.iou if m.drawn is None else m.drawn, 0.7), 0.93), 1),
    ("outline", lambda m: max(m.iou, 0.9), 1),
)
"""What the verdict looks at: a name, the value, and 1 where more is better or -1 where less is."""
_WEIGHTS: tuple[Weight, ...] = ((0.0, 1.0, -0.1535), (0.8449, 0.06394, 0.7831), (0.9692, 0.02978, 0.582))
"""Of the constant, then of the features."""

_FAULTS: tuple[tuple[Callable[[AssetMeasures], float], float], ...] = (
    (lambda m: float(m.open_edges > 0), 2.0),
    (lambda m: min(1.0, max(0.0, 0.9 - m.iou) / 0.2), 3.0),
    (lambda m: min(1.0, 10 * m.loose), 3.0),
    (lambda m: min(1.0, max(0.0, m.hollow - 0.1) / 0.2), 2.0),
    (lambda m: min(1.0, max(0.0, m.thin - 0.5) / 0.4), 2.0),
    (lambda m: min(1.0, max(0.0, 22 - m.psnr) / 10), 2.0),
)
"""How bad a fault is, from 0 to 1, and the log odds that the worst costs."""


@dataclass(frozen=True)
class Verdict:
    """What a person would probably say.

    Args:
        score: how likely a person would keep the asset, in [0, 1].
        word: the score as a word.
        findings: what is wrong, each with what to do.
    """

    score: float
    word: Word
    findings: tuple[str, ...]

    @property
    def line(self) -> str:
        """One line."""
        said = " ".join(self.findings) or "Nothing to complain about."
        return f"{self.word} ({self.score:.2f}). {said}"


def judge(measures: AssetMeasures) -> Verdict:
    """The verdict on what was measured, with the worst findings first."""
    score = 1 / (1 + math.exp(-_log_odds(measures)))
    word: Word = "good" if score >= GOOD else "fair" if score >= POOR else "poor"
    found = [(_badness(value, fine, bad), text) for value, fine, bad, text in _looked_at(measures)]
    worst = sorted((one for one in found if one[0] > 0), key=lambda one: -one[0])
    return Verdict(round(score, 3), word, tuple(text for _, text in worst[:_MOST_FINDINGS]))


def _log_odds(m: AssetMeasures) -> float:
    total = _WEIGHTS[0][2]
    for (_, value, _), (middle, scale, weight) in zip(FEATURES, _WEIGHTS[1:], strict=True):
        total += weight * (value(m) - middle) / scale
    return total - sum(cost * fault(m) for fault, cost in _FAULTS)


def _badness(value: float | int, fine: float | int, bad: float | int) -> float:
    """0 up to a value that is fine, 1 at one that is bad, and more beyond."""
    return (value - fine) / (bad - fine)


def _looked_at(m: AssetMeasures) -> list[tuple[float | int, float | int, float | int, str]]:
    """What can be wrong: a value, the last one that is fine, one that is bad, and what is said of it."""
    one_photo = m.depth is not None
    another = "A photo from another angle" if one_photo else "Photos from more angles"
    seen: list[tuple[float | int, float | int, float | int, str]] = [
        (m.open_edges, 0, 50, f"The surface is open along {m.open_edges} edges. {another} may close it."),
        (
            m.loose if m.pieces > 1 else 0.0,
            0.005,
            0.05,
            f"It is in {m.pieces} pieces, some of them afloat. {another}, or a mask (--mask), may join them.",
        ),
        (m.hollow, 0.08, 0.25, f"{m.hollow:.0%} of it is a hollow shell. {another} shows where it is solid."),
        (m.thin, 0.4, 0.7, f"{m.thin:.0%} of it is as thin as a sheet. {another}, from the side, gives it depth."),
        (m.handles, 4, 12, f"{m.handles} holes go through it. If it has fewer, give a mask without gaps (--mask)."),
        (
            -m.iou,
            -0.93,
            -0.8,
            f"Its outline is off the photo's (IoU {m.iou:.2f}): thin parts are lost or swollen. "
            + ("A larger, cleaner photo or a mask (--mask) helps." if one_photo else "Check poses and masks."),
        ),
        (-m.psnr, -22, -16, f"Its colours differ from the photo's ({m.psnr:.0f} dB). Look at the cut-out and poses."),
        (
            -m.cutout,
            -0.75,
            -0.4,
            f"The cut-out is uncertain ({m.cutout:.0%}). Look at cutout.png, and give a mask (--mask) if it is wrong.",
        ),
        (
            m.invented,
            0.3,
            0.7,
            f"{m.invented:.0%} of its surface is invented. {another} or a capture shows what is there.",
        ),
        (
            -m.contact,
            -0.02,
            0.02,
            "It stands on next to nothing. If the photo looks down or up at it, say so (--elevation).",
        ),
        (m.overhang, 0.08, 0.25, "It would tip over. If the photo looks down or up at it, say so (--elevation)."),
    ]
    if m.depth is not None:
        flat = (
            f"It is flat: {m.depth:.0%} as deep as wide or high. A photo from the side, or a capture, gives it depth."
        )
        deep = f"It is {m.depth:.1f} times as deep as wide or high. A photo from the side shows its true depth."
        seen += [(-m.depth, -0.35, -0.15, flat), (m.depth, 1.3, 2.5, deep)]
    if m.drawn is not None:
        apart = f"The views drawn of it disagree on its shape ({m.drawn:.0%}). {another}, or a capture, settles it."
        seen.append((-m.drawn, -0.85, -0.65, apart))
    return seen
