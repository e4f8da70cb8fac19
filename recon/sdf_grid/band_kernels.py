"""Compiled inner loops on a sparse signed distance band between renderings: regularisation, optimiser steps, distances.

Slots, lanes and units as in :mod:`recon.sdf_grid.kernels`; no function has annotations, for the reason given there.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np

from recon.sdf_grid.kernels import LANES


@numba.njit(parallel=True, cache=True)
@no_type_check
def find_neighbours(index, cells, out):  # pragma: no cover - compiled
    """Band slots of the six neighbours of each cell (the last slot if outside the band): -x +x -y +y -z +z."""
    for s in numba.prange(cells.shape[0]):
        i, j, k = cells[s, 0], cells[s, 1], cells[s, 2]
        out[s, 0], out[s, 1] = index[i - 1, j, k], index[i + 1, j, k]
        out[s, 2], out[s, 3] = index[i, j - 1, k], index[i, j + 1, k]
        out[s, 4], out[s, 5] = index[i, j, k - 1], index[i, j, k + 1]


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def add_regularity(grid, cells, near, eikonal, laplacian, slope, bend, grad):  # pragma: no cover - compiled
    """Add gradients of the eikonal and thin-plate energies (means over the band) to one lane.

    Args:
        grid: as in :class:`recon.sdf_grid.kernels.Field`.
        cells: [slots 3] voxel of each slot; none on the grid's border. near: [slots 6] see :func:`find_neighbours`.
        eikonal, laplacian: weights.
        slope: [slots + 1, 3], bend: [slots + 1]: scratch; the last slot stays 0.
        grad: [slots + 1], added to.
    """
    count = cells.shape[0]
    e, b = np.float32(2 * eikonal / count), np.float32(2 * laplacian / count)
    slope[count, 0], slope[count, 1], slope[count, 2], bend[count] = 0, 0, 0, 0
    for s in numba.prange(count):
        i, j, k = cells[s, 0], cells[s, 1], cells[s, 2]
        f = grid[i, j, k]
        x0, x1 = grid[i - 1, j, k], grid[i + 1, j, k]
        y0, y1 = grid[i, j - 1, k], grid[i, j + 1, k]
        z0, z1 = grid[i, j, k - 1], grid[i, j, k + 1]
        g0, g1, g2 = (x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2
        norm = math.sqrt(g0 * g0 + g1 * g1 + g2 * g2 + 1e-12)
        factor = e * (1 - 1 / norm) if norm > 0.05 else np.float32(0)
        slope[s, 0], slope[s, 1], slope[s, 2] = factor * g0 / 2, factor * g1 / 2, factor * g2 / 2
        bend[s] = b * (x0 + x1 + y0 + y1 + z0 + z1 - 6 * f)
    for s in numba.prange(count):
        x0, x1, y0, y1, z0, z1 = near[s, 0], near[s, 1], near[s, 2], near[s, 3], near[s, 4], near[s, 5]
        total = slope[x0, 0] - slope[x1, 0] + slope[y0, 1] - slope[y1, 1] + slope[z0, 2] - slope[z1, 2]
        total += bend[x0] + bend[x1] + bend[y0] + bend[y1] + bend[z0] + bend[z1] - 6 * bend[s]
        grad[s] += total


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def sum_lanes(grad_sdf, total):  # pragma: no cover - compiled
    """Sum the lanes of the distance gradient into ``total`` [slots + 1] and clear them; the last slot gets 0."""
    count = total.shape[0] - 1
    for s in numba.prange(count + 1):
        g = np.float32(0)
        for lane in range(LANES):
            g += grad_sdf[lane, s]
            grad_sdf[lane, s] = 0
        total[s] = g if s < count else np.float32(0)


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def blur_band(near, source, target):  # pragma: no cover - compiled
    """One pass of a small blur over the band: half the value, half the mean of the six neighbours (outside: 0)."""
    for s in numba.prange(near.shape[0]):
        total = source[near[s, 0]] + source[near[s, 1]] + source[near[s, 2]]
        total += source[near[s, 3]] + source[near[s, 4]] + source[near[s, 5]]
        target[s] = np.float32(0.5) * source[s] + total / 12


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def move_band(grid, cells, gradient, moments, step, rate, floor, limit):  # pragma: no cover - compiled
    """Move distances along smoothed gradients.

    The second moment of each voxel has a floor shared by all: where there is next to no signal next to nothing moves,
    while Adam alone would turn noise into bumps.
    """
    beta1, beta2 = np.float32(0.9), np.float32(0.97)
    fix1, fix2 = np.float32(1 / (1 - 0.9**step)), np.float32(1 / (1 - 0.97**step))
    for s in numba.prange(cells.shape[0]):
        g = gradient[s]
        m = beta1 * moments[s, 0] + (1 - beta1) * g
        v = beta2 * moments[s, 1] + (1 - beta2) * g * g
        moments[s, 0], moments[s, 1] = m, v
        change = rate * m * fix1 / math.sqrt(v * fix2 + floor)
        grid[cells[s, 0], cells[s, 1], cells[s, 2]] -= min(max(change, -limit), limit)


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def add_albedo_tv(near, colour, weight, edge, grad_colour):  # pragma: no cover - compiled
    """Add the gradient of an edge-keeping smoothness of the band's colours (mean over the band) to one lane.

    Args:
        near: as in :func:`add_regularity`.
        weight: of the term; edge: differences well above it are edges, and are let be.
        grad_colour: [slots + 1, 3], added to.
    """
    count = near.shape[0]
    scale = np.float32(weight * edge / count)
    for s in numba.prange(count):
        c0, c1, c2 = colour[s, 0], colour[s, 1], colour[s, 2]
        for n in range(6):
            t = near[s, n]
            if t < count:
                d0, d1, d2 = c0 - colour[t, 0], c1 - colour[t, 1], c2 - colour[t, 2]
                size = scale / (d0 * d0 + d1 * d1 + d2 * d2 + edge * edge)
                grad_colour[s, 0] += size * d0
                grad_colour[s, 1] += size * d1
                grad_colour[s, 2] += size * d2


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def colour_step(cells, colour, grad_colour, moments, step, rate):  # pragma: no cover - compiled
    """One Adam step of the colours; sums and clears the lanes. Colours that no ray touched stay as they are."""
    beta1, beta2 = np.float32(0.9), np.float32(0.95)
    fix1, fix2 = np.float32(1 / (1 - 0.9**step)), np.float32(1 / (1 - 0.95**step))
    for s in numba.prange(cells.shape[0]):
        for c in range(3):
            g = np.float32(0)
            for lane in range(LANES):
                g += grad_colour[lane, s, c]
                grad_colour[lane, s, c] = 0
            if g != 0:
                m = beta1 * moments[s, c, 0] + (1 - beta1) * g
                v = beta2 * moments[s, c, 1] + (1 - beta2) * g * g
                moments[s, c, 0], moments[s, c, 1] = m, v
                value = colour[s, c] - rate * m * fix1 / (math.sqrt(v * fix2) + 1e-12)
                colour[s, c] = min(max(value, np.float32(0)), np.float32(1))


@numba.njit(fastmath=True, cache=True)
@no_type_check
def spread_distance(distance):  # pragma: no cover - compiled
    """Complete a partly known distance map (unknown: large) in place by two sweeps over 26 neighbours.

    Each voxel remembers the known one its distance comes from and measures from there: lengths of paths from neighbour
    to neighbour are up to an eighth too long, and rays that trust them step over thin parts.
    """
    n0, n1, n2 = distance.shape
    known = distance.copy()
    origin = np.empty((n0, n1, n2, 3), np.int16)
    for i in range(n0):
        for j in range(n1):
            for k in range(n2):
                origin[i, j, k, 0], origin[i, j, k, 1], origin[i, j, k, 2] = i, j, k
    for direction in range(2):
        sign = 1 if direction == 0 else -1
        for a in range(n0):
            i = a if direction == 0 else n0 - 1 - a
            for b in range(n1):
                j = b if direction == 0 else n1 - 1 - b
                for c in range(n2):
                    k = c if direction == 0 else n2 - 1 - c
                    best = distance[i, j, k]
                    for di in range(-1, 1):
                        for dj in range(-1, 2):
                            if di == 0 and dj > 0:
                                break
                            for dk in range(-1, 2):
                                if di == 0 and dj == 0 and dk >= 0:
                                    break
                                x, y, z = i + sign * di, j + sign * dj, k + sign * dk
                                if x < 0 or y < 0 or z < 0 or x >= n0 or y >= n1 or z >= n2:
                                    continue
                                if distance[x, y, z] >= best:
                                    continue
                                p, q, r = origin[x, y, z, 0], origin[x, y, z, 1], origin[x, y, z, 2]
                                u, v, w = i - p, j - q, k - r
                                d = known[p, q, r] + math.sqrt(np.float32(u * u + v * v + w * w))
                                if d < best:
                                    best = d
                                    origin[i, j, k, 0], origin[i, j, k, 1], origin[i, j, k, 2] = p, q, r
                    distance[i, j, k] = best
