"""Compiled inner loops of a radiance volume: densities and colours of a box, and of its contracted surroundings.

A density finds hollows and depth from any start, which a surface that can only creep cannot; its level set then starts
the surface. Positions are in the box's grid coordinates (voxels); densities are per voxel.

Source: DVGO (Sun et al. 2022) for direct voxel optimisation with a softplus; mip-NeRF 360 (Barron et al. 2022),
equation 10, for the contraction; gradients derived by hand and tested against automatic differentiation.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np

from recon.sdf_grid.kernels import LANES, grid_span, pixel_ray

INSIDE, OUTSIDE, LAST = 0, 1, 2
"""Where a sample is: in the box, in the surroundings, or the one that is opaque since something is always behind."""


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _softplus(x):  # pragma: no cover - compiled
    return x if x > 15 else np.float32(math.log1p(math.exp(x)))


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _locate(x, y, z, frame, side):  # pragma: no cover - compiled
    """Outer-grid coordinates of a point: contracted about the box's middle. frame: middle and radius (voxels)."""
    a, b, c = (x - frame[0]) / frame[3], (y - frame[1]) / frame[3], (z - frame[2]) / frame[3]
    norm = math.sqrt(a * a + b * b + c * c)
    if norm > 1:
        k = (2 - 1 / norm) / norm
        a, b, c = a * k, b * k, c * k
    half = np.float32(0.25) * (side - 1.02)
    mid = np.float32(0.5) * (side - 1)
    return a * half + mid, b * half + mid, c * half + mid


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _gather(grid, x, y, z):  # pragma: no cover - compiled
    """Four channels, trilinear: raw density and colour."""
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for di in range(2):
        wu = u if di else 1 - u
        for dj in range(2):
            wv = wu * (v if dj else 1 - v)
            for dk in range(2):
                ww = wv * (w if dk else 1 - w)
                a += ww * grid[i + di, j + dj, k + dk, 0]
                b += ww * grid[i + di, j + dj, k + dk, 1]
                c += ww * grid[i + di, j + dj, k + dk, 2]
                d += ww * grid[i + di, j + dj, k + dk, 3]
    return a, b, c, d


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _scatter(grid, x, y, z, a, b, c, d):  # pragma: no cover - compiled
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    for di in range(2):
        wu = u if di else 1 - u
        for dj in range(2):
            wv = wu * (v if dj else 1 - v)
            for dk in range(2):
                ww = wv * (w if dk else 1 - w)
                grid[i + di, j + dj, k + dk, 0] += ww * a
                grid[i + di, j + dj, k + dk, 1] += ww * b
                grid[i + di, j + dj, k + dk, 2] += ww * c
                grid[i + di, j + dj, k + dk, 3] += ww * d


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _most(inner, step, before, beyond):  # pragma: no cover - compiled
    """Samples that a ray can have."""
    a, b, c, _ = inner.shape
    return before + beyond + int(math.sqrt(a * a + b * b + c * c) / step) + 2


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _march(
    inner, outer, frame, shift, ray, step, jitter, before, beyond, empty, where, pos, raw, alpha
):  # pragma: no cover - compiled
    """Samples of a ray: in front of the box, inside it (unless ``empty``), beyond it. Returns their number."""
    o0, o1, o2, d0, d1, d2 = ray
    side = outer.shape[0]
    near, far = grid_span(o0, o1, o2, d0, d1, d2, inner.shape[0], inner.shape[1], inner.shape[2])
    hit = near < far
    m0, m1, m2 = frame[0] - o0, frame[1] - o1, frame[2] - o2
    closest = max(m0 * d0 + m1 * d1 + m2 * d2, np.float32(0))
    distance = math.sqrt(m0 * m0 + m1 * m1 + m2 * m2)
    if not hit:
        near = far = max(closest, np.float32(0.3) * distance)
    n = 0
    transmittance = np.float32(1)
    if before > 0:
        start = np.float32(0.3) * near
        length = (near - start) / before
        for s in range(before):
            t = start + (s + jitter) * length
            x, y, z = _locate(o0 + t * d0, o1 + t * d1, o2 + t * d2, frame, side)
            raw[n, 0], raw[n, 1], raw[n, 2], raw[n, 3] = _gather(outer, x, y, z)
            a = 1 - np.float32(math.exp(-_softplus(raw[n, 0] + shift) * length))
            where[n], pos[n, 0], pos[n, 1], pos[n, 2], pos[n, 3], alpha[n] = OUTSIDE, x, y, z, length, a
            transmittance *= 1 - a
            n += 1
    if hit and not empty:
        t = near + jitter * step
        while t < far and transmittance > 1e-3 and n < alpha.shape[0] - beyond:
            x, y, z = o0 + t * d0, o1 + t * d1, o2 + t * d2
            raw[n, 0], raw[n, 1], raw[n, 2], raw[n, 3] = _gather(inner, x, y, z)
            a = 1 - np.float32(math.exp(-_softplus(raw[n, 0] + shift) * step))
            where[n], pos[n, 0], pos[n, 1], pos[n, 2], pos[n, 3], alpha[n] = INSIDE, x, y, z, step, a
            transmittance *= 1 - a
            n += 1
            t += step
    if beyond > 0 and transmittance > 1e-3:
        far = max(far, np.float32(0.1) * frame[3])
        for s in range(beyond):
            # Evenly spaced in inverse distance, out to fifty times the box.
            fraction = (s + jitter) / beyond
            t = far / max(1 - fraction, np.float32(0.02))
            nxt = far / max(1 - (s + 1 + jitter) / beyond, np.float32(0.02))
            length = max(nxt - t, np.float32(1e-3))
            # Lengths are contracted like the space that they cross.
            length = length * (far / t) * (far / t)
            x, y, z = _locate(o0 + t * d0, o1 + t * d1, o2 + t * d2, frame, side)
            raw[n, 0], raw[n, 1], raw[n, 2], raw[n, 3] = _gather(outer, x, y, z)
            where[n], pos[n, 0], pos[n, 1], pos[n, 2], pos[n, 3] = OUTSIDE, x, y, z, length
            alpha[n] = 1 - np.float32(math.exp(-_softplus(raw[n, 0] + shift) * length))
            if s == beyond - 1:  # something is always behind
                where[n], alpha[n] = LAST, 1
            n += 1
    return n


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def density_step(
    inner, outer, frame, shift, cams, view, px, py, target, weight, jitter, step, before, beyond, grad_inner, grad_outer
):  # pragma: no cover - compiled
    """Render rays through the volume and add the gradients of the squared colour error to the lanes.

    Args:
        inner: [x y z 4] raw density and sRGB of the box.
        outer: [s s s 4] the same of the contracted surroundings (ignored if before and beyond are 0).
        frame: [4] middle of the box and the contraction's radius, voxels; shift: added to raw densities.
        cams, view, px, py, weight, jitter: as in ``kernels.fit_step``; target: [n 3] sRGB.
        step: sample spacing in the box, voxels; before, beyond: samples in front of and behind it.
        grad_inner: [LANES, x y z 4], grad_outer: [LANES, s s s 4]: added to.
    """
    count = view.shape[0]
    most = _most(inner, step, before, beyond)
    for lane in numba.prange(LANES):
        gi, go = grad_inner[lane], grad_outer[lane]
        where = np.empty(most, np.int8)
        pos = np.empty((most, 4), np.float32)
        raw = np.empty((most, 4), np.float32)
        alpha = np.empty(most, np.float32)
        before_it = np.empty(most, np.float32)
        for r in range(lane * count // LANES, (lane + 1) * count // LANES):
            ray = pixel_ray(cams, view[r], px[r], py[r])
            n = _march(inner, outer, frame, shift, ray, step, jitter[r], before, beyond, False, where, pos, raw, alpha)
            c0, c1, c2, transmittance = np.float32(0), np.float32(0), np.float32(0), np.float32(1)
            for s in range(n):
                before_it[s] = transmittance
                w = alpha[s] * transmittance
                transmittance *= 1 - alpha[s]
                c0 += w * raw[s, 1]
                c1 += w * raw[s, 2]
                c2 += w * raw[s, 3]
            k = 2 * weight[r] / (3 * np.float32(count))
            q0, q1, q2 = k * (c0 - target[r, 0]), k * (c1 - target[r, 1]), k * (c2 - target[r, 2])
            behind = np.float32(0)
            for back in range(n):
                s = n - 1 - back
                w = alpha[s] * before_it[s]
                own = q0 * raw[s, 1] + q1 * raw[s, 2] + q2 * raw[s, 3]
                d_raw = np.float32(0)
                if where[s] != LAST:
                    logit = min(max(raw[s, 0] + shift, np.float32(-40)), np.float32(40))
                    sigmoid = 1 / (1 + np.float32(math.exp(-logit)))
                    # What the sample would add of its own, less what it would hide; no division, for opaque samples.
                    d_raw = ((1 - alpha[s]) * before_it[s] * own - behind) * pos[s, 3] * sigmoid
                grad = gi if where[s] == INSIDE else go
                _scatter(grad, pos[s, 0], pos[s, 1], pos[s, 2], d_raw, w * q0, w * q1, w * q2)
                behind += w * own


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def volume_step(
    grid, before, grads, moments, step, rate_density, rate_colour, density_tv
):  # pragma: no cover - compiled
    """Adam on a volume [x y z 4]; sums and clears the lanes. Voxels without gradient stay.

    ``density_tv`` draws densities to their neighbours' (total variation) as these were ``before`` [x y z].
    """
    n0, n1, n2 = grid.shape[0], grid.shape[1], grid.shape[2]
    fix1, fix2 = np.float32(1 / (1 - 0.9**step)), np.float32(1 / (1 - 0.99**step))
    for i in numba.prange(n0):
        for j in range(n1):
            for k in range(n2):
                for c in range(4):
                    g = np.float32(0)
                    for lane in range(LANES):
                        g += grads[lane, i, j, k, c]
                        grads[lane, i, j, k, c] = 0
                    if g == 0:
                        continue
                    if c == 0 and density_tv > 0 and 0 < i < n0 - 1 and 0 < j < n1 - 1 and 0 < k < n2 - 1:
                        f = before[i, j, k]
                        for axis in range(3):
                            a, b, e = int(axis == 0), int(axis == 1), int(axis == 2)
                            low = f - before[i - a, j - b, k - e]
                            high = f - before[i + a, j + b, k + e]
                            g += density_tv * low / (abs(low) + np.float32(0.1))
                            g += density_tv * high / (abs(high) + np.float32(0.1))
                    m = np.float32(0.9) * moments[i, j, k, c, 0] + np.float32(0.1) * g
                    v = np.float32(0.99) * moments[i, j, k, c, 1] + np.float32(0.01) * g * g
                    moments[i, j, k, c, 0], moments[i, j, k, c, 1] = m, v
                    rate = rate_density if c == 0 else rate_colour
                    value = grid[i, j, k, c] - rate * m * fix1 / (math.sqrt(v * fix2) + 1e-12)
                    grid[i, j, k, c] = value if c == 0 else min(max(value, np.float32(0)), np.float32(1))


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def render_density(
    inner, outer, frame, shift, cams, view, px, py, step, before, beyond, empty, out
):  # pragma: no cover - compiled
    """Colour, opacity of the box, distance (voxels) where transmittance falls below a half, and opacity before the box.

    Written to ``out`` [n 6]; the distance is infinite where that is not in the box. ``empty`` leaves out what the box
    holds.
    """
    count = view.shape[0]
    most = _most(inner, step, before, beyond)
    for lane in numba.prange(64):
        where = np.empty(most, np.int8)
        pos = np.empty((most, 4), np.float32)
        raw = np.empty((most, 4), np.float32)
        alpha = np.empty(most, np.float32)
        for r in range(lane * count // 64, (lane + 1) * count // 64):
            ray = pixel_ray(cams, view[r], px[r], py[r])
            n = _march(
                inner, outer, frame, shift, ray, step, np.float32(0.5), before, beyond, empty, where, pos, raw, alpha
            )
            transmittance, passed = np.float32(1), False
            for c in range(6):
                out[r, c] = 0
            out[r, 4] = np.float32(np.inf)
            for s in range(n):
                w = alpha[s] * transmittance
                transmittance *= 1 - alpha[s]
                for c in range(3):
                    out[r, c] += w * raw[s, c + 1]
                if where[s] == INSIDE:
                    out[r, 3] += w
                    if not passed and transmittance < 0.5:
                        passed = True
                        x, y, z = pos[s, 0] - ray[0], pos[s, 1] - ray[1], pos[s, 2] - ray[2]
                        out[r, 4] = math.sqrt(x * x + y * y + z * z)
                elif s < before:
                    out[r, 5] += w
                    if transmittance < 0.5:
                        passed = True
