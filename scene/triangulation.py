"""Joints in 3D from joints in several posed views: robust against views that are wrong about some of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from scene.camera import Camera, c2w_to_opencv
from scene.errors import InputError
from scene.skeleton import INDEX, JOINTS, Skeleton

_MOST_PAIRS = 400
"""Pairs of views that are tried for a joint; of more, an even choice."""
_ROUNDS = 10
"""Of reweighted least squares."""
_TURNS = 4
"""How often views are asked whether they take left for right."""
_OTHER_SIDE = [
    INDEX[name.replace("left_", "right_") if "left_" in name else name.replace("right_", "left_")] for name in JOINTS
]
"""The same joint on the other side of the body."""


@dataclass(frozen=True, eq=False)
class TriangulatedSkeleton:
    """What several views say of a body.

    Args:
        skeleton: world frame of the cameras; joints on which too few views agree are not known.
        agreeing: how many views agree on each joint.
        seen: how many views tell a joint at all.
        error: root mean square distance, in pixels, of the joint from where the agreeing views see it; NaN if there
            are none.
    """

    skeleton: Skeleton
    agreeing: Int[np.ndarray, "18"]
    seen: Int[np.ndarray, "18"]
    error: Float[np.ndarray, "18"]


def triangulate_skeleton(
    cameras: Sequence[Camera],
    pixels: Float[np.ndarray, "n 18 2"],
    confidences: Float[np.ndarray, "n 18"],
    *,
    tolerance: float = 0.015,
    least_confidence: float = 0.3,
    least_views: int = 2,
) -> TriangulatedSkeleton:
    """Triangulate each joint: the point on which most confidence agrees, then least squares over those views.

    Pairs of views propose a point each (RANSAC, exhaustive up to 400 pairs); the proposal with most confidence within
    the tolerance is refined by Gauss-Newton on reprojection errors, reweighted after Geman and McClure.

    Args:
        cameras: at least two.
        pixels: of the joints in each view, in the order of COCO-18; NaN for those that are not seen.
        confidences: in [0, 1].
        tolerance: distance at which a view still agrees, as a share of its picture's longer side.
        least_confidence: what a view is less sure of, it does not tell.
        least_views: that must agree.

    Raises:
        InputError: there are fewer than two views, or not one set of joints for each camera.
    """
    if len(cameras) < 2:
        raise InputError(f"joints are triangulated from two views or more, got {len(cameras)}")
    if len(cameras) != len(pixels) or len(pixels) != len(confidences):
        raise InputError(f"{len(cameras)} cameras need as many sets of joints, got {len(pixels)}")
    told = np.isfinite(pixels).all(axis=2) & (confidences >= least_confidence)
    places = np.full((len(JOINTS), 3), np.nan)
    agreeing, error = np.zeros(len(JOINTS), np.int64), np.full(len(JOINTS), np.nan)
    for joint in range(len(JOINTS)):
        use = np.nonzero(told[:, joint])[0].tolist()
        bundle = _Bundle.of([cameras[k] for k in use], pixels[use, joint], confidences[use, joint], tolerance)
        found = bundle.locate()
        if found is None:
            continue
        agree = bundle.agrees(found)
        if agree.sum() >= max(2, least_views):
            places[joint], agreeing[joint] = found, agree.sum()
            error[joint] = float(np.sqrt((bundle.gaps(found)[0][agree] ** 2).sum(axis=1).mean()))
    return TriangulatedSkeleton(Skeleton(places), agreeing, told.sum(axis=0), error)


def triangulate_detections(
    cameras: Sequence[Camera],
    pixels: Float[np.ndarray, "n 18 2"],
    confidences: Float[np.ndarray, "n 18"],
    *,
    tolerance: float = 0.04,
    least_views: int = 2,
) -> TriangulatedSkeleton:
    """Triangulate what a detector found, which in some views, mostly from behind, takes left for right.

    A view that sees the skeleton of all views better with its sides exchanged gets them exchanged, and all is
    triangulated anew, until none changes. What most views say is taken as it is.

    Args:
        cameras, pixels, confidences: see :func:`triangulate_skeleton`.
        tolerance: as there; detectors miss joints by more than people who mark them do.
        least_views: that must agree on a joint.

    Raises:
        InputError: see :func:`triangulate_skeleton`.
    """
    pixels, confidences = pixels.copy(), confidences.copy()
    for _ in range(_TURNS):
        found = triangulate_skeleton(cameras, pixels, confidences, tolerance=tolerance, least_views=least_views)
        crossed = [
            k
            for k, camera in enumerate(cameras)
            if _misses(camera, found.skeleton, pixels[k, _OTHER_SIDE], confidences[k, _OTHER_SIDE], tolerance)
            < _misses(camera, found.skeleton, pixels[k], confidences[k], tolerance)
        ]
        if not crossed:
            break
        pixels[crossed] = pixels[crossed][:, _OTHER_SIDE]
        confidences[crossed] = confidences[crossed][:, _OTHER_SIDE]
    return found


def _misses(
    camera: Camera,
    skeleton: Skeleton,
    pixels: Float[np.ndarray, "18 2"],
    confidences: Float[np.ndarray, "18"],
    tolerance: float,
) -> float:
    """How far a view is from a skeleton, in confidence times pixels; what is far off counts like what just is."""
    gaps = np.linalg.norm(camera.project(skeleton.positions)[0] - pixels, axis=1)
    most = 2 * tolerance * max(camera.width, camera.height)
    return float((confidences * np.minimum(np.nan_to_num(gaps, nan=most), most)).sum())


@dataclass(frozen=True, eq=False)
class _Bundle:
    """What views say of one joint."""

    pixels: Float[np.ndarray, "n 2"]
    weights: Float[np.ndarray, "n"]
    limits: Float[np.ndarray, "n"]  # pixels at which a view still agrees
    lenses: Float[np.ndarray, "n 3 4"]  # world to homogeneous pixels, the last of them the depth
    starts: Float[np.ndarray, "n 3"]
    directions: Float[np.ndarray, "n 3"]

    @classmethod
    def of(cls, cameras: list[Camera], pixels: np.ndarray, weights: np.ndarray, tolerance: float) -> _Bundle:
        rays = [camera.rays(place[None]) for camera, place in zip(cameras, pixels, strict=True)]
        starts = np.array([start[0] for start, _ in rays]).reshape(-1, 3)
        directions = np.array([way[0] for _, way in rays]).reshape(-1, 3)
        limits = np.array([tolerance * max(camera.width, camera.height) for camera in cameras])
        lenses = np.array([_lens(camera) for camera in cameras]).reshape(-1, 3, 4)
        return cls(pixels, weights, limits, lenses, starts, directions)

    def locate(self) -> Float[np.ndarray, "3"] | None:
        """The point on which most confidence agrees, refined; None if no pair of rays meets before its cameras."""
        best, most = None, 0.0
        pairs = list(itertools.combinations(range(len(self.pixels)), 2))
        for index in sorted(set(np.linspace(0, len(pairs) - 1, _MOST_PAIRS).round().astype(int))) if pairs else ():
            point = self._nearest(list(pairs[index]))
            if point is None:
                continue
            score = float(self.weights[self.agrees(point)].sum())
            if score > most:
                best, most = point, score
        return None if best is None else self._refined(best)

    def gaps(self, point: Float[np.ndarray, "3"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
        """Where views see a point less where they say it is, pixels; and its depths."""
        seen = self.lenses[:, :, :3] @ point + self.lenses[:, :, 3]
        depth = np.where(seen[:, 2] == 0, np.nan, seen[:, 2])
        return seen[:, :2] / depth[:, None] - self.pixels, depth

    def agrees(self, point: Float[np.ndarray, "3"]) -> Bool[np.ndarray, "n"]:
        """Views that see a point near where they say it is, before them."""
        gaps, depths = self.gaps(point)
        return np.asarray((depths > 0) & (np.linalg.norm(gaps, axis=1) <= self.limits))

    def _nearest(self, which: list[int]) -> Float[np.ndarray, "3"] | None:
        """The point nearest to some rays; None where they are parallel."""
        way = self.directions[which]
        across = np.eye(3) - way[:, :, None] * way[:, None, :]
        matrix = across.sum(axis=0)
        if np.linalg.svd(matrix, compute_uv=False)[-1] < 1e-5:
            return None
        return np.asarray(np.linalg.solve(matrix, np.einsum("nij,nj->i", across, self.starts[which])))

    def _refined(self, point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        for _ in range(_ROUNDS):
            gaps, _ = self.gaps(point)
            scale = self.limits / 2
            weight = self.weights * (scale**2 / (scale**2 + (gaps**2).sum(axis=1))) ** 2
            weight = np.where(self.agrees(point), weight, 0)
            slopes = self._slopes(point)
            use = weight > 0
            left = np.einsum("n,nki,nkj->ij", weight[use], slopes[use], slopes[use])
            right = np.einsum("n,nki,nk->i", weight[use], slopes[use], gaps[use])
            if np.linalg.cond(left) > 1e12:
                break
            step = np.linalg.solve(left, right)
            if not np.isfinite(step).all():
                break
            point = point - step
            if np.linalg.norm(step) < 1e-10:
                break
        return point

    def _slopes(self, point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 2 3"]:
        """How the point's pixels change with the point."""
        seen = self.lenses[:, :, :3] @ point + self.lenses[:, :, 3]
        depth = seen[:, 2, None, None]
        way = self.lenses[:, :, :3]
        return np.asarray((way[:, :2] - seen[:, :2, None] / depth * way[:, 2:]) / depth)


def _lens(camera: Camera) -> Float[np.ndarray, "3 4"]:
    """K [R|t] with OpenCV axes."""
    return np.asarray(camera.intrinsics @ np.linalg.inv(c2w_to_opencv(camera.c2w))[:3])
