"""Worlds of captures: turning them z up where nothing says what is up, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from scene.camera import Camera, Mat4
from scene.viewset import ViewSet


def stood_up(views: ViewSet, matrix: Mat4 | None = None) -> ViewSet:
    """The set in a world that is z up as far as its cameras tell, with the facts that say so.

    Args:
        views: the set in its file's world.
        matrix: a similarity that is applied before, from the file's world.
    """
    before = np.eye(4) if matrix is None else matrix
    moved = views.transformed(before)
    up, told_by = estimated_up([view.camera for view in moved])
    turn = np.eye(4)
    turn[:3, :3] = rotation_to_z(up)
    facts = {**views.facts, "up": "estimated", "up_from": told_by, "world_from_file": (turn @ before).tolist()}
    moved = moved.transformed(turn)
    return ViewSet(moved.views, moved.has_masks, facts, moved.points)


def world_from_original(facts: dict[str, Any]) -> Mat4:
    """The similarity from the world in which a capture was made to that of its view set; its inverse leads back.

    It is ``world_from_file`` after nerfstudio's ``applied_transform`` and ``applied_scale``; what is not in the facts
    was not done.
    """
    world, applied = (
        np.array(facts.get(key, np.eye(4)), dtype=np.float64) for key in ("world_from_file", "applied_transform")
    )
    scale = np.diag([*[float(facts.get("applied_scale", 1.0))] * 3, 1.0])
    return world @ scale @ applied


def estimated_up(cameras: list[Camera]) -> tuple[Float[np.ndarray, "3"], str]:
    """What is probably up, a unit vector, and what tells so.

    A camera that is held upright, or turned by a quarter for tall objects, has one image axis level: up is what is
    square to all level axes. The mean of the cameras' up vectors begins the search, decides where few directions leave
    it open, and tells up from down; where those vectors cancel out, cameras are taken to look down.
    """
    x, y = (np.array([camera.c2w[:3, axis] for camera in cameras]) for axis in (0, 1))
    mean = y.mean(axis=0)
    held = bool(np.linalg.norm(mean) > 0.5)
    up = mean / np.linalg.norm(mean) if held else _most_level(x, y)
    for _ in range(10):
        level = np.where((np.abs(x @ up) <= np.abs(y @ up))[:, None], x, y)
        weights = 1 / np.maximum(np.abs(level @ up), 0.1)  # a camera held askew counts less
        spread = (level * weights[:, None]).T @ level / weights.sum()
        _, axes = np.linalg.eigh(spread - (0.05 * np.outer(mean, mean) if held else 0))
        up = axes[:, 0] * (1 if axes[:, 0] @ up >= 0 else -1)
    if held:
        return (up if up @ mean >= 0 else -up), "cameras' up vectors"
    looks = np.mean([camera.forward for camera in cameras], axis=0)
    return (-up if up @ looks > 0 else up), "cameras' level axes, looking down"


def _most_level(x: Float[np.ndarray, "n 3"], y: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """Of directions spread over a half sphere, the one to which most cameras have an image axis square."""
    count = 1000
    z = (np.arange(count) + 0.5) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    around = np.sqrt(1 - z * z)
    directions = np.stack([around * np.cos(turn), around * np.sin(turn), z], axis=1)
    off = np.minimum(np.abs(x @ directions.T), np.abs(y @ directions.T))
    return directions[np.argmin(np.minimum(off, 0.3).sum(axis=0))]


def rotation_to_z(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that takes a unit vector to +z."""
    x, y, z = (float(v) for v in up)
    if z < -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0.0]])  # of up x z, the axis times the angle's sine
    return np.eye(3) + cross + cross @ cross / (1 + z)
