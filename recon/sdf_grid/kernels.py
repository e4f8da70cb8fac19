"""Compiled inner loops of the surface fit on the CPU: rays through a narrow-band SDF, and their gradients.

Distances are in voxels and positions in grid coordinates (a voxel's centre has integer coordinates), so one ``inv_s``
means the same at every resolution. Gradients are summed in a fixed number of lanes, whatever the number of threads:
the same rays give the same bytes on every machine with the same instruction set.

No function here has annotations: numba infers types, and could not compile what checks annotations at run time.

Source: NeuS (Wang et al. 2021), equations 10 to 13, with interval ends evaluated; gradients derived by hand and tested
against automatic differentiation.
"""

from __future__ import annotations

import math
from typing import NamedTuple, no_type_check

import numba
import numpy as np

LANES = 4
"""Gradient buffers; rays are dealt to them in contiguous parts."""
MAX_INTERVALS = 64
"""Intervals stored for one ray; a ray that would need more ends there."""


class Field(NamedTuple):
    """What is rendered: arrays of a :class:`~recon.sdf_grid.narrow_band.NarrowBandSDF`.

    Args:
        grid: signed distances [x y z], voxels.
        slot: of each voxel in the band; voxels outside the band have the last slot, whose gradients are not used.
        colour: [slots + 1, 3] albedo, sRGB, of the band's voxels.
        shading: [3] Lambertian shading: colours are albedo times ``1 + shading . normal``.
    """

    grid: np.ndarray
    slot: np.ndarray
    colour: np.ndarray
    shading: np.ndarray


class Rays(NamedTuple):
    """Rays through pixels.

    Args:
        cameras: [v, 16] see :func:`~recon.sdf_grid.narrow_band.camera_rows`.
        view, x, y: [n] camera and pixel of each ray.
    """

    cameras: np.ndarray
    view: np.ndarray
    x: np.ndarray
    y: np.ndarray


class Sampling(NamedTuple):
    """Where rays are evaluated, all single precision.

    Args:
        inv_s: inverse deviation of the density, per voxel.
        step: length of an interval, voxels.
        truncation: signed distance at which intervals begin, voxels.
    """

    inv_s: np.float32
    step: np.float32
    truncation: np.float32


class Target(NamedTuple):
    """What rays should show.

    Args:
        rgb: [n 3] straight sRGB; alpha: [n] mask in [0, 1].
        weight: [n] of each ray, mean 1.
        backdrop: [n 3] sRGB behind the grid.
        jitter: [n] in [0, 1): offset of the first interval, in steps.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    weight: np.ndarray
    backdrop: np.ndarray
    jitter: np.ndarray


class Loss(NamedTuple):
    """Terms of the loss, all single precision.

    Args:
        mask_weight: of the mask's cross-entropy; negative if the views have no masks.
        colour_limit, mask_limit: larger errors are contradictions and get no gradient.
        colour_pull: share of the colour loss's gradient that reaches the distances; all of it reaches the colours.
    """

    mask_weight: np.float32
    colour_limit: np.float32
    mask_limit: np.float32
    colour_pull: np.float32


class Gradients(NamedTuple):
    """Where gradients go.

    Args:
        sdf: [LANES, slots + 1], colour: [LANES, slots + 1, 3], shading: [LANES, 3]: added to.
        backdrop: [n 3] written.
    """

    sdf: np.ndarray
    colour: np.ndarray
    shading: np.ndarray
    backdrop: np.ndarray


@numba.njit(inline="always", fastmath=True)
@no_type_check
def interpolate(grid, x, y, z):  # pragma: no cover - compiled
    """Trilinear value at grid coordinates inside the grid."""
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    a = grid[i, j, k] * (1 - w) + grid[i, j, k + 1] * w
    b = grid[i, j + 1, k] * (1 - w) + grid[i, j + 1, k + 1] * w
    c = grid[i + 1, j, k] * (1 - w) + grid[i + 1, j, k + 1] * w
    d = grid[i + 1, j + 1, k] * (1 - w) + grid[i + 1, j + 1, k + 1] * w
    return (a * (1 - v) + b * v) * (1 - u) + (c * (1 - v) + d * v) * u


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _sigmoid(x):  # pragma: no cover - compiled
    if x > 30:
        return np.float32(1)
    if x < -30:
        return np.float32(0)
    return np.float32(1 / (1 + math.exp(-x)))


@numba.njit(inline="always", fastmath=True)
@no_type_check
def grid_span(o0, o1, o2, d0, d1, d2, n0, n1, n2):  # pragma: no cover - compiled
    """Where a ray is inside the grid, with a small rim so that all eight corners exist."""
    near, far = np.float32(0), np.float32(1e9)
    for axis in range(3):
        o = o0 if axis == 0 else (o1 if axis == 1 else o2)
        d = d0 if axis == 0 else (d1 if axis == 1 else d2)
        n = n0 if axis == 0 else (n1 if axis == 1 else n2)
        low, high = np.float32(0.01), np.float32(n - 1.01)
        if abs(d) < 1e-8:
            if o < low or o > high:
                return np.float32(1), np.float32(0)
            continue
        a, b = (low - o) / d, (high - o) / d
        near, far = max(near, min(a, b)), min(far, max(a, b))
    return near, far


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _intervals(grid, o0, o1, o2, d0, d1, d2, inv_s, step, truncation, jitter, t_of, f_of, g_of):  # pragma: no cover
    """March a ray: long steps far from the surface (sphere tracing), short ones near it.

    Fills interval starts, and signed distances at starts and ends; returns the number of intervals and the
    transmittance of them all.
    """
    near, far = grid_span(o0, o1, o2, d0, d1, d2, grid.shape[0], grid.shape[1], grid.shape[2])
    count = 0
    transmittance = np.float32(1)
    t = near + jitter * step
    if t >= far:
        return count, transmittance
    f = interpolate(grid, o0 + t * d0, o1 + t * d1, o2 + t * d2)
    while t < far and count < MAX_INTERVALS:
        if f > truncation:
            t += max(f - truncation, step) + np.float32(1e-3)
            if t >= far:
                break
            f = interpolate(grid, o0 + t * d0, o1 + t * d1, o2 + t * d2)
            continue
        end = t + step
        if end >= far:
            break
        g = interpolate(grid, o0 + end * d0, o1 + end * d1, o2 + end * d2)
        t_of[count], f_of[count], g_of[count] = t, f, g
        before, after = _sigmoid(inv_s * f), _sigmoid(inv_s * g)
        alpha = (before - after) / (before + np.float32(1e-5))
        if alpha > 0:
            transmittance *= 1 - alpha
        count += 1
        if transmittance < 3e-3 or f < -truncation:
            break
        t, f = end, g
    return count, transmittance


@numba.njit(inline="always", fastmath=True)
@no_type_check
def pixel_ray(cams, view, x, y):  # pragma: no cover - compiled
    """Origin and unit direction, grid coordinates. A row of cams: centre, rotation, fx, fy, cx, cy."""
    c = cams[view]
    a, b = (x - c[14]) / c[12], -(y - c[15]) / c[13]
    d0 = c[3] * a + c[4] * b - c[5]
    d1 = c[6] * a + c[7] * b - c[8]
    d2 = c[9] * a + c[10] * b - c[11]
    norm = 1 / math.sqrt(d0 * d0 + d1 * d1 + d2 * d2)
    return c[0], c[1], c[2], np.float32(d0 * norm), np.float32(d1 * norm), np.float32(d2 * norm)


@numba.njit(inline="always", fastmath=True)
@no_type_check
def ahead_of_depth(depth, cam, i, j, k):  # pragma: no cover - compiled
    """What a depth map [h w] (voxels along rays) says at a voxel, and how far in front of that the voxel is.

    (0, 0) where the camera does not see the voxel; the first is 0 where the map does not know.
    """
    a, b, c = i - cam[0], j - cam[1], k - cam[2]
    x = cam[3] * a + cam[6] * b + cam[9] * c
    y = cam[4] * a + cam[7] * b + cam[10] * c
    z = -(cam[5] * a + cam[8] * b + cam[11] * c)
    if z < 1e-6:
        return np.float32(0), np.float32(0)
    u, v = cam[14] + cam[12] * x / z, cam[15] - cam[13] * y / z
    if u < 0 or v < 0 or u >= depth.shape[1] or v >= depth.shape[0]:
        return np.float32(0), np.float32(0)
    seen = depth[int(v), int(u)]
    return seen, seen - np.float32(math.sqrt(x * x + y * y + z * z))


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _gather(grid, index, colour, x, y, z):  # pragma: no cover - compiled
    """Trilinear albedo at grid coordinates, and the gradient of the trilinear signed distance (not of unit length)."""
    i, j, k = int(x), int(y), int(z)
    u, v, q = x - i, y - j, z - k
    c0, c1, c2 = np.float32(0), np.float32(0), np.float32(0)
    n0, n1, n2 = np.float32(0), np.float32(0), np.float32(0)
    for di in range(2):
        wu = u if di else 1 - u
        for dj in range(2):
            wv = v if dj else 1 - v
            for dk in range(2):
                wq = q if dk else 1 - q
                ww = wu * wv * wq
                slot = index[i + di, j + dj, k + dk]
                c0 += ww * colour[slot, 0]
                c1 += ww * colour[slot, 1]
                c2 += ww * colour[slot, 2]
                value = grid[i + di, j + dj, k + dk]
                n0 += wv * wq * (value if di else -value)
                n1 += wu * wq * (value if dj else -value)
                n2 += wu * wv * (value if dk else -value)
    return c0, c1, c2, n0, n1, n2


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _scatter(index, x, y, z, w, bright, q0, q1, q2, m0, m1, m2, sdf, colour):  # pragma: no cover - compiled
    """The adjoint of :func:`_gather`: add gradients of an albedo and of a gradient to the eight corners' slots.

    Args:
        index: slot of each voxel; x, y, z: grid coordinates.
        w, bright, q0, q1, q2: the albedo's gradient is ``w * bright * q``.
        m0, m1, m2: gradient with respect to the gradient of the signed distance.
        sdf: [slots + 1], colour: [slots + 1, 3]: added to.
    """
    i, j, k = int(x), int(y), int(z)
    u, v, q = x - i, y - j, z - k
    for di in range(2):
        wu = u if di else 1 - u
        for dj in range(2):
            wv = v if dj else 1 - v
            for dk in range(2):
                wq = q if dk else 1 - q
                ww = wu * wv * wq * w * bright
                slot = index[i + di, j + dj, k + dk]
                colour[slot, 0] += ww * q0
                colour[slot, 1] += ww * q1
                colour[slot, 2] += ww * q2
                sdf[slot] += (
                    wv * wq * (m0 if di else -m0) + wu * wq * (m1 if dj else -m1) + wu * wv * (m2 if dk else -m2)
                )


@numba.njit(inline="always", fastmath=True)
@no_type_check
def scatter_value(index, x, y, z, amount, out):  # pragma: no cover - compiled
    """The adjoint of :func:`interpolate`: add a gradient to the eight corners' slots."""
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    for di in range(2):
        wu = u if di else 1 - u
        for dj in range(2):
            wv = wu * (v if dj else 1 - v)
            for dk in range(2):
                out[index[i + di, j + dj, k + dk]] += wv * (w if dk else 1 - w) * amount


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def fit_step(field, rays, sampling, target, loss, gradients, error):  # pragma: no cover - compiled
    """Render rays and add the gradients of the loss to the lanes.

    A ray of n intervals has the colour ``C = sum_s w_s c_s + T_n b`` and the opacity ``O = 1 - T_n``, with weights
    ``w_s = alpha_s T_s``, transmittances ``T_s = prod_{j<s} (1 - alpha_j)``, colours ``c_s = albedo_s (1 + l . n_s)``
    and backdrop b. Its loss is ``weight / n_rays * (mean over channels of huber(C - target) + mask_weight *
    cross_entropy(O, mask))``.

    Args:
        field, rays, sampling, target, loss, gradients: see there.
        error: [n 3] written: colour error, cross-entropy, opacity.
    """
    grid, index, colour, shading = field
    cameras, view, px, py = rays
    inv_s, step, truncation = sampling
    rgb_of, alpha_of, weight, backdrop, jitter = target
    mask_weight, colour_limit, mask_limit, pull = loss
    grad_sdf, grad_colour, grad_shading, grad_backdrop = gradients
    count = view.shape[0]
    scale = np.float32(1 / count)
    for lane in numba.prange(LANES):
        gs, gc, gl = grad_sdf[lane], grad_colour[lane], grad_shading[lane]
        l0, l1, l2 = shading[0], shading[1], shading[2]
        normal = np.empty((MAX_INTERVALS, 5), np.float32)  # unit normal, length of the gradient, 1 + l . n
        t_of = np.empty(MAX_INTERVALS, np.float32)
        f_of = np.empty(MAX_INTERVALS, np.float32)
        g_of = np.empty(MAX_INTERVALS, np.float32)
        w_of = np.empty(MAX_INTERVALS, np.float32)
        rgb = np.empty((MAX_INTERVALS, 3), np.float32)
        for r in range(lane * count // LANES, (lane + 1) * count // LANES):
            # --- forward, from the camera on
            o0, o1, o2, d0, d1, d2 = pixel_ray(cameras, view[r], px[r], py[r])
            n, transmittance = _intervals(
                grid, o0, o1, o2, d0, d1, d2, inv_s, step, truncation, jitter[r], t_of, f_of, g_of
            )
            red, green, blue = np.float32(0), np.float32(0), np.float32(0)
            passed = np.float32(1)
            for s in range(n):
                # NeuS, equation 13: alpha = (Phi(f) - Phi(g)) / Phi(f) with the logistic distribution Phi.
                before, after = _sigmoid(inv_s * f_of[s]), _sigmoid(inv_s * g_of[s])
                alpha = max(np.float32(0), (before - after) / (before + np.float32(1e-5)))
                w = alpha * passed
                passed *= 1 - alpha
                w_of[s] = w
                if w <= 1e-6:  # not worth looking up
                    rgb[s, 0] = rgb[s, 1] = rgb[s, 2] = 0
                    continue
                t = t_of[s] + step / 2
                c0, c1, c2, n0, n1, n2 = _gather(grid, index, colour, o0 + t * d0, o1 + t * d1, o2 + t * d2)
                norm = math.sqrt(n0 * n0 + n1 * n1 + n2 * n2 + 1e-6)
                n0, n1, n2 = n0 / norm, n1 / norm, n2 / norm
                bright = 1 + l0 * n0 + l1 * n1 + l2 * n2
                normal[s, 0], normal[s, 1], normal[s, 2], normal[s, 3], normal[s, 4] = n0, n1, n2, norm, bright
                c0, c1, c2 = c0 * bright, c1 * bright, c2 * bright
                rgb[s, 0], rgb[s, 1], rgb[s, 2] = c0, c1, c2
                red += w * c0
                green += w * c1
                blue += w * c2

            # --- the loss, and its gradients with respect to the ray's colour (q) and opacity (p)
            a = alpha_of[r]
            masked = mask_weight >= 0
            # With a mask both sides stand on white, so that colours and outlines do not pull against each other.
            b0, b1, b2 = backdrop[r, 0], backdrop[r, 1], backdrop[r, 2]
            e0 = red + transmittance * b0 - (rgb_of[r, 0] * a + (1 - a) * b0)
            e1 = green + transmittance * b1 - (rgb_of[r, 1] * a + (1 - a) * b1)
            e2 = blue + transmittance * b2 - (rgb_of[r, 2] * a + (1 - a) * b2)
            size = (abs(e0) + abs(e1) + abs(e2)) / 3
            opacity = min(max(1 - transmittance, np.float32(1e-3)), np.float32(1 - 1e-3))
            entropy = np.float32(0)
            if masked:
                entropy = -np.float32(a * math.log(opacity) + (1 - a) * math.log(1 - opacity))
            error[r, 0], error[r, 1], error[r, 2] = size, entropy, 1 - transmittance
            of_colour = weight[r] * scale
            if size > colour_limit or (masked and a <= 0.5):
                of_colour = np.float32(0)
            # Huber: quadratic below 0.02, so that small differences do not make noise.
            h = np.float32(1 / 0.02)
            q0 = of_colour / 3 * min(max(e0 * h, np.float32(-1)), np.float32(1))
            q1 = of_colour / 3 * min(max(e1 * h, np.float32(-1)), np.float32(1))
            q2 = of_colour / 3 * min(max(e2 * h, np.float32(-1)), np.float32(1))
            grad_backdrop[r, 0] = transmittance * q0
            grad_backdrop[r, 1] = transmittance * q1
            grad_backdrop[r, 2] = transmittance * q2
            p = np.float32(0)
            if masked and entropy <= mask_limit:
                # The cross-entropy's slope, (O - a) / (O (1 - O)), grows to 1000 where a sure ray is wrong: cut at ten.
                p = mask_weight * weight[r] * scale * (opacity - a) / (opacity * (1 - opacity))
                p = min(max(p, -10 * mask_weight * scale), 10 * mask_weight * scale)

            # --- backward, from the last interval to the camera
            # alpha_s shows what its interval has and hides what is behind:
            #   dL/dalpha_s = T_s q . c_s - (sum_{j>s} w_j q . c_j + T_n q . b - T_n p) / (1 - alpha_s)
            # The sum in brackets is what is behind; dO/dalpha_s = T_n / (1 - alpha_s) gives its last term.
            # What reaches the distances of the colour's part is ``pull`` of it.
            behind = transmittance * (pull * (q0 * b0 + q1 * b1 + q2 * b2) - p)
            for back in range(n):
                s = n - 1 - back
                w = w_of[s]
                own = q0 * rgb[s, 0] + q1 * rgb[s, 1] + q2 * rgb[s, 2]
                before, after = _sigmoid(inv_s * f_of[s]), _sigmoid(inv_s * g_of[s])
                alpha = (before - after) / (before + np.float32(1e-5))
                if alpha > 0:
                    left = max(1 - alpha, np.float32(1e-4))  # an opaque interval hides all, by a finite gradient
                    in_front = w / max(alpha, np.float32(1e-9))  # T_s
                    d_alpha = in_front * pull * own - behind / left
                    # With Phi' = inv_s Phi (1 - Phi), at the interval's end and at its start.
                    bottom = before + np.float32(1e-5)
                    d_after = -inv_s * after * (1 - after) / bottom * d_alpha
                    d_before = inv_s * before * (1 - before) * (after + np.float32(1e-5)) / (bottom * bottom) * d_alpha
                    t = t_of[s]
                    scatter_value(index, o0 + t * d0, o1 + t * d1, o2 + t * d2, d_before, gs)
                    t = t + step
                    scatter_value(index, o0 + t * d0, o1 + t * d1, o2 + t * d2, d_after, gs)
                    if w > 1e-6:
                        t = t_of[s] + step / 2
                        n0, n1, n2 = normal[s, 0], normal[s, 1], normal[s, 2]
                        norm, bright = normal[s, 3], normal[s, 4]
                        d_bright = w * own / bright
                        gl[0] += d_bright * n0
                        gl[1] += d_bright * n1
                        gl[2] += d_bright * n2
                        # Of the unit normal, then of the gradient: only what turns it counts, (l - (l . n) n) / |grad|.
                        along = l0 * n0 + l1 * n1 + l2 * n2
                        m0 = pull * d_bright * (l0 - along * n0) / norm
                        m1 = pull * d_bright * (l1 - along * n1) / norm
                        m2 = pull * d_bright * (l2 - along * n2) / norm
                        x, y, z = o0 + t * d0, o1 + t * d1, o2 + t * d2
                        _scatter(index, x, y, z, w, bright, q0, q1, q2, m0, m1, m2, gs, gc)
                behind += pull * w * own


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def render_rays(field, rays, sampling, out):  # pragma: no cover - compiled
    """Colour (premultiplied), opacity and distance (voxels, of what is opaque) of rays, written to ``out`` [n 5]."""
    grid, index, colour, shading = field
    cameras, view, px, py = rays
    inv_s, step, truncation = sampling
    for lane in numba.prange(64):
        t_of = np.empty(MAX_INTERVALS, np.float32)
        f_of = np.empty(MAX_INTERVALS, np.float32)
        g_of = np.empty(MAX_INTERVALS, np.float32)
        count = view.shape[0]
        for r in range(lane * count // 64, (lane + 1) * count // 64):
            o0, o1, o2, d0, d1, d2 = pixel_ray(cameras, view[r], px[r], py[r])
            n, transmittance = _intervals(
                grid, o0, o1, o2, d0, d1, d2, inv_s, step, truncation, np.float32(0.5), t_of, f_of, g_of
            )
            passed = np.float32(1)
            for c in range(5):
                out[r, c] = 0
            for s in range(n):
                before, after = _sigmoid(inv_s * f_of[s]), _sigmoid(inv_s * g_of[s])
                alpha = max(np.float32(0), (before - after) / (before + np.float32(1e-5)))
                w = alpha * passed
                passed *= 1 - alpha
                if w <= 1e-6:
                    continue
                t = t_of[s] + step / 2
                c0, c1, c2, n0, n1, n2 = _gather(grid, index, colour, o0 + t * d0, o1 + t * d1, o2 + t * d2)
                norm = math.sqrt(n0 * n0 + n1 * n1 + n2 * n2 + 1e-6)
                bright = w * (1 + (shading[0] * n0 + shading[1] * n1 + shading[2] * n2) / norm)
                out[r, 0] += bright * c0
                out[r, 1] += bright * c1
                out[r, 2] += bright * c2
                out[r, 4] += w * t
            out[r, 3] = 1 - transmittance
            out[r, 4] = out[r, 4] / max(1 - transmittance, np.float32(1e-6))


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def vote_masks(alpha, known, cam, weight, whole, votes, total):  # pragma: no cover - compiled
    """Add one view's votes: the mask's value at every voxel's projection.

    What :meth:`recon.views.ray_set.RaySet.votes` says of points, compiled for grids of any box.

    Args:
        alpha: [h w] mask in [0, 1]; known: [h w] whether it tells anything there, or [1 1] if everywhere.
        cam: [16] its row of ``camera_rows`` (grid coordinates); weight: of the view.
        whole: the view shows the whole object, so what lies beside the picture is outside.
        votes, total: [x y z], added to.
    """
    height, width = alpha.shape
    n0, n1, n2 = votes.shape
    for i in numba.prange(n0):
        for j in range(n1):
            for k in range(n2):
                a, b, c = i - cam[0], j - cam[1], k - cam[2]
                x = cam[3] * a + cam[6] * b + cam[9] * c
                y = cam[4] * a + cam[7] * b + cam[10] * c
                depth = -(cam[5] * a + cam[8] * b + cam[11] * c)
                value, seen, silent = np.float32(0), False, False
                if depth > 1e-6:
                    u = cam[14] + cam[12] * x / depth
                    v = cam[15] - cam[13] * y / depth
                    if u >= 0 and v >= 0 and u <= width and v <= height:
                        seen = True
                        u = min(max(u - 0.5, 0.0), width - 1.001)
                        v = min(max(v - 0.5, 0.0), height - 1.001)
                        p, q = int(u), int(v)
                        u, v = u - p, v - q
                        p1, q1 = min(p + 1, width - 1), min(q + 1, height - 1)
                        top = alpha[q, p] * (1 - u) + alpha[q, p1] * u
                        low = alpha[q1, p] * (1 - u) + alpha[q1, p1] * u
                        value = np.float32(top * (1 - v) + low * v)
                        if known.size > 1:
                            silent = not (known[q, p] and known[q, p1] and known[q1, p] and known[q1, p1])
                if (seen or whole) and not silent:
                    votes[i, j, k] += weight * value
                    total[i, j, k] += weight
