"""One line and a score for a finished asset: would a person keep it, and if not, what is wrong and what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from recon.checks.asset import AssetMeasures

Word = Literal["good", "fair", "poor"]

GOOD, POOR = 0.6, 0.35
"""Scores from which an asset is good, and below which it is poor."""


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


_WEIGHTS: tuple[tuple[str, float, float, float], ...] = ()


def judge(measures: AssetMeasures) -> Verdict:
    """The verdict on what was measured."""
    score = 1 / (1 + math.exp(-_evidence(measures)))
    word: Word = "good" if score >= GOOD else "fair" if score >= POOR else "poor"
    return Verdict(round(score, 3), word, tuple(_findings(measures)))


def _evidence(m: AssetMeasures) -> float:
    return 0.0


def _findings(m: AssetMeasures) -> list[str]:
    """What is wrong, the worst first."""
    said = []
    if m.open_edges:
        said.append(f"The surface is open at {m.open_edges} edges: look at the fit, or give more views.")
    if m.pieces > 1 and m.loose > 0.01:
        said.append(f"It is in {m.pieces} pieces: a photo from another angle, or a mask (--mask), may join them.")
    return said
