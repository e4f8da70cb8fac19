"""A body of capsules around a skeleton: a closed surface whose parts and thicknesses are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.measure import marching_cubes

from scene.mesh import ColouredMesh
from scene.skeleton import MID_HIP, Skeleton

ARM, LEG = 0.055, 0.075
"""Radii, world units."""


def standing(arm: float = 0.3, spread: float = 90.0, width: float = 0.2) -> Skeleton:
    """A person upright, facing +x; z is up and the left is +y.

    Args:
        arm: length of upper and lower arm.
        spread: angle of the arms from hanging down, degrees: 90 is stretched sideways.
        width: half the width of the shoulders.
    """
    joints: dict[str, Any] = {
        "nose": (0.1, 0, 1.6),
        "neck": (0, 0, 1.4),
        "right_eye": (0.08, -0.03, 1.65),
        "left_eye": (0.08, 0.03, 1.65),
        "right_ear": (0, -0.08, 1.62),
        "left_ear": (0, 0.08, 1.62),
    }
    angle = np.radians(spread)
    for side, sign in (("left", 1), ("right", -1)):
        way = np.array([0, sign * np.sin(angle), -np.cos(angle)])
        shoulder = np.array([0, sign * width, 1.4])
        joints[f"{side}_shoulder"] = shoulder
        joints[f"{side}_elbow"] = shoulder + arm * way
        joints[f"{side}_wrist"] = shoulder + 2 * arm * way
        joints[f"{side}_hip"] = (0, sign * 0.1, 0.9)
        joints[f"{side}_knee"] = (0.02, sign * 0.1, 0.5)
        joints[f"{side}_ankle"] = (0, sign * 0.1, 0.1)
    return Skeleton.of(joints)


def body_of(skeleton: Skeleton, step: float = 0.02) -> ColouredMesh:
    """The closed surface of capsules around bones."""
    joint = skeleton.joint
    parts = [(joint("neck"), joint("nose") - [0.08, 0, 0], 0.06), (joint("nose") - [0.08, 0, 0], joint("nose"), 0.11)]
    parts += [(joint(MID_HIP), joint("neck") - [0, 0, 0.06], 0.13)]
    for side in ("left", "right"):
        parts += [(joint("neck") - [0, 0, 0.03], joint(f"{side}_shoulder"), 0.07)]
        parts += [
            (joint(f"{side}_{a}"), joint(f"{side}_{b}"), ARM) for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))
        ]
        parts += [(joint(MID_HIP), joint(f"{side}_hip"), 0.11)]
        parts += [(joint(f"{side}_{a}"), joint(f"{side}_{b}"), LEG) for a, b in (("hip", "knee"), ("knee", "ankle"))]
    return capsules(parts, step)


def capsules(parts: list[tuple[Any, Any, float]], step: float) -> ColouredMesh:
    """The union of capsules, given by two ends and a radius."""
    ends = np.array([[a, b] for a, b, _ in parts], np.float64)
    # Off round numbers: where the field is 0 on the lattice, vertices coincide.
    low, high = ends.min(axis=(0, 1)) - 0.20137, ends.max(axis=(0, 1)) + 0.2
    axes = [np.arange(low[k], high[k], step) for k in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    field = np.full(grid.shape[:3], np.inf)
    for a, b, radius in parts:
        bone = np.asarray(b, np.float64) - a
        along = np.clip(((grid - a) @ bone) / max(bone @ bone, 1e-12), 0, 1)
        gap = np.linalg.norm(grid - a - along[..., None] * bone, axis=-1) - radius
        field = np.minimum(field, gap)
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(step, step, step), gradient_direction="ascent")
    return ColouredMesh((vertices + low).astype(np.float64), faces.astype(np.int64))
