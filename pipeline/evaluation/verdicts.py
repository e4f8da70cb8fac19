"""Verdicts on assets against a person's: the table of both, the fit of the weights, and how well they agree."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from recon.checks.asset import AssetMeasures
from recon.checks.verdict import FEATURES, Weight
from scene.errors import InputError
from scene.files import write_text


@dataclass(frozen=True)
class Judged:
    """An asset that a person has judged.

    Args:
        group: ``core``, which the weights are fitted on, or ``other``.
        photo: it was made of.
        keep: would the person keep it.
        why: in a few words.
        measures: of it; None while they are not known.
    """

    group: str
    photo: str
    keep: bool
    why: str
    measures: AssetMeasures | None


_COLUMNS = ["group", "photo", "keep", "why", *(field.name for field in fields(AssetMeasures))]
_WHOLE = "pieces", "handles", "open_edges"


def read_judged(path: Path) -> list[Judged]:
    """The judgements in a table.

    Raises:
        InputError: the file has other columns.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"group", "photo", "keep", "why"} <= rows[0].keys():
        raise InputError("is no table of judgements", where=path, fix="Columns are group, photo, keep, why.")
    return [Judged(r["group"], r["photo"], r["keep"] == "1", r["why"], _measures_of(r)) for r in rows]


def write_judged(path: Path, judged: Sequence[Judged]) -> None:
    """Write a table of judgements with their measures."""
    lines = [",".join(_COLUMNS)]
    for one in judged:
        known = {} if one.measures is None else asdict(one.measures)
        cells = [one.group, one.photo, str(int(one.keep)), f'"{one.why}"', *(_cell(known.get(k)) for k in _COLUMNS[4:])]
        lines.append(",".join(cells))
    write_text(path, "\n".join(lines) + "\n")


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _measures_of(row: dict[str, str]) -> AssetMeasures | None:
    if not row.get("iou"):
        return None
    values = {name: None if row[name] == "" else float(row[name]) for name in _COLUMNS[4:]}
    return AssetMeasures(**{k: int(v) if k in _WHOLE and v is not None else v for k, v in values.items()})  # type: ignore[arg-type]


def features_of(judged: Sequence[Judged]) -> Float[np.ndarray, "n f"]:
    """What the verdict looks at, of each asset."""
    return np.array([[value(one.measures) for _, value, _ in FEATURES] for one in judged if one.measures is not None])


def fit_weights(features: Float[np.ndarray, "n f"], keep: Bool[np.ndarray, "n"], ridge: float = 4.0) -> list[Weight]:
    """Logistic regression on standardised features, each weight of the sign that makes sense.

    Args:
        features: of judged assets.
        keep: the judgements.
        ridge: penalty on the squares of the weights, in units of one asset's log likelihood.

    Returns:
        The weights in the order of :data:`recon.checks.verdict.FEATURES`, behind that of the constant.
    """
    middle, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    inputs = np.concatenate([np.ones((len(features), 1)), (features - middle) / scale], axis=1)
    sign = np.where(keep, 1.0, -1.0)

    def loss(w: Float[np.ndarray, "g"]) -> tuple[float, Float[np.ndarray, "g"]]:
        margin = sign * (inputs @ w)
        value = np.logaddexp(0, -margin).sum() + 0.5 * ridge * (w[1:] ** 2).sum()
        slope = -(sign / (1 + np.exp(np.clip(margin, -50, 50)))) @ inputs
        return float(value), slope + ridge * np.concatenate([[0], w[1:]])

    bounds = [(None, None), *((0, None) if good > 0 else (None, 0) for _, _, good in FEATURES)]
    found = minimize(loss, np.zeros(inputs.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return [(0.0, 1.0, float(found[0])), *((float(m), float(s), float(w)) for m, s, w in zip(middle, scale, found[1:]))]


def scores_of(features: Float[np.ndarray, "n f"], weights: Sequence[Weight]) -> Float[np.ndarray, "n"]:
    """Scores in [0, 1]."""
    middle, scale, weight = np.array(weights).T
    return 1 / (1 + np.exp(-(weight[0] + (features - middle[1:]) / scale[1:] @ weight[1:])))


def leave_one_out(features: Float[np.ndarray, "n f"], keep: Bool[np.ndarray, "n"], ridge: float = 4.0) -> np.ndarray:
    """The score of each asset by weights that are fitted on all others."""
    rows = np.arange(len(features))
    return np.concatenate(
        [scores_of(features[[k]], fit_weights(features[rows != k], keep[rows != k], ridge)) for k in rows]
    )
