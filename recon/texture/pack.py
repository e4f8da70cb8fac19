"""Packing charts into a square: each falls onto the skyline of those before it, contour against contour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from recon.mesh.topology import edges_of
from recon.texture.charts import Charts
from scene.errors import InputError

_CELLS = 1024
"""Columns of the skyline of a large texture; small ones have one for each texel."""


@dataclass(frozen=True, eq=False)
class ChartContours:
    """Lower and upper border of each chart in each column of cells, one chart after the other.

    ``low`` and ``high`` are rows of cells, from the chart's own corner; ``start`` tells where a chart's columns begin.
    """

    low: Int[np.ndarray, "n"]
    high: Int[np.ndarray, "n"]
    start: Int[np.ndarray, "c"]
    width: Int[np.ndarray, "c"]
    height: Int[np.ndarray, "c"]


def pack_charts(
    charts: Charts, side: int, padding: int, guess: float | None = None
) -> tuple[Float[np.ndarray, "w 2"], float]:
    """Coordinates in [0, 1] for all charts at one scale, the largest that was found to fit.

    Args:
        charts: laid flat.
        side: texture side in texels.
        padding: least distance of charts, and of charts and the border, in texels.
        guess: the scale of nearly the same charts, if they were packed before: tried first, and gone down from.

    Returns:
        Coordinates, and the scale in texels a unit of length.

    Raises:
        InputError: there are more charts than the texture has room for.
    """
    whole = side / math.sqrt(_shadow(charts))  # the scale at which charts would fill the square without gaps
    low, high = (0.6 * whole, 0.95 * whole) if guess is None else (guess, guess)
    best = None
    for _ in range(60):
        # Halve the range while something fits; until then go down (thousands of charts are all gap).
        texels = low if best is None else math.sqrt(low * high)
        places = _fitted(charts, texels, side, padding)
        if places is not None:
            best, low = places, texels
        elif best is None:
            low, high = (0.8 if guess is None else 0.99) * low, low
        else:
            high = texels
        if best is not None and high <= 1.01 * low:
            break
    if best is None:
        raise InputError(
            f"{len(charts.size)} charts do not fit into a texture of {side} pixels", fix="Choose a larger texture."
        )
    origin, sign = best
    return (charts.flat * low * sign[charts.of_vertex, None] + origin[charts.of_vertex]) / side, low


def _shadow(charts: Charts) -> float:
    corners = charts.flat[charts.faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return float(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2) or 1.0


def _fitted(
    charts: Charts, texels: float, side: int, padding: int
) -> tuple[Float[np.ndarray, "c 2"], Int[np.ndarray, "c"]] | None:
    """Where each chart's origin comes to lie, in texels, and -1 if it stands on its head; None if they do not fit."""
    cells = min(side, _CELLS)
    cell = side / cells
    gap = int(np.ceil(padding / cell))
    contours = _contours(charts, texels / cell)
    skyline = np.full(cells, gap, np.int64)
    origin, sign = np.zeros((len(charts.size), 2)), np.ones(len(charts.size), np.int64)
    for chart in np.lexsort((-contours.width, -contours.height)):
        columns = slice(contours.start[chart], contours.start[chart] + contours.width[chart])
        low, high, height = contours.low[columns], contours.high[columns], contours.height[chart]
        borders = [(low, high), (height - high[::-1], height - low[::-1])]
        found = [_place(skyline, below, gap) for below, _ in borders]
        turned = found[1] < found[0]
        cost, x, y = found[turned]
        top = y + borders[turned][1] + gap
        if not np.isfinite(cost) or top.max() > cells:
            return None
        # As high as its columns within the gap, on both sides.
        under = skyline[x - gap : x + len(low) + gap]
        np.maximum(under, ndimage.maximum_filter1d(np.pad(top, gap), 2 * gap + 1), out=under)
        corner = np.array([x, y]) + (np.array([len(low), height]) if turned else 0)
        origin[chart], sign[chart] = corner * cell, -1 if turned else 1
    return origin, sign


def _place(skyline: Int[np.ndarray, "s"], low: Int[np.ndarray, "w"], gap: int) -> tuple[float, int, int]:
    """Cost, column and row of the place where a chart comes to lie low and covers little empty space."""
    width = len(low)
    columns = len(skyline) - width - gap
    if columns < gap:
        return np.inf, 0, 0
    starts = np.arange(gap, columns + 1, max(1, width // 24))  # a wide chart is not tried in every column
    windows = np.lib.stride_tricks.sliding_window_view(skyline, width)[starts]
    rows = (windows - low).max(axis=1)
    cost = rows + (rows[:, None] + low - windows).mean(axis=1)
    best = int(cost.argmin())
    return float(cost[best]), int(starts[best]), int(rows[best])


def _contours(charts: Charts, scale: float) -> ChartContours:
    """Contours at ``scale`` cells in a unit of length: all rows that an edge touches in a column, and no fewer."""
    size = np.floor(charts.size * scale).astype(np.int64) + 1
    start = np.cumsum(size[:, 0]) - size[:, 0]
    low, high = np.full(int(size[:, 0].sum()), 1 << 30, np.int64), np.zeros(int(size[:, 0].sum()), np.int64)
    edges = edges_of(charts.faces)
    ends = edges.ends[edges.uses == 1]  # the extremes of a column lie on the rim
    here, there = charts.flat[ends[:, 0]] * scale, charts.flat[ends[:, 1]] * scale
    first = np.floor(np.minimum(here[:, 0], there[:, 0])).astype(np.int64)
    last = np.floor(np.maximum(here[:, 0], there[:, 0])).astype(np.int64)
    number = last - first + 1
    edge = np.repeat(np.arange(len(ends)), number)
    column = first[edge] + np.arange(int(number.sum())) - np.repeat(np.cumsum(number) - number, number)
    run = there[edge, 0] - here[edge, 0]
    safe = np.where(np.abs(run) < 1e-12, 1.0, run)
    rows = []
    for border in (column, column + 1):
        along = np.clip((border - here[edge, 0]) / safe, 0, 1)
        rows.append(here[edge, 1] + along * (there[edge, 1] - here[edge, 1]))
    upright = np.abs(run) < 1e-12
    rows[0], rows[1] = np.where(upright, here[edge, 1], rows[0]), np.where(upright, there[edge, 1], rows[1])
    place = start[charts.of_vertex[ends[edge, 0]]] + np.minimum(column, size[charts.of_vertex[ends[edge, 0]], 0] - 1)
    np.minimum.at(low, place, np.floor(np.minimum(*rows)).astype(np.int64))
    np.maximum.at(high, place, np.floor(np.maximum(*rows)).astype(np.int64) + 1)
    return ChartContours(np.maximum(low, 0), high, start, size[:, 0], size[:, 1])
