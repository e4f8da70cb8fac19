"""Worlds of captures: turning them z up where nothing says what is up, and the way back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from scene.camera import Camera, Mat4
from scene.viewset import ViewSet

Up = Literal["auto", "+x", "-x", "+y", "-y", "+z", "-z"]
_LEANS_DEG = 10.0
"""From what angle on a world leans: hands and estimates are off by less."""
_CLEAR = 0.06
"""By how much less cameras are off level, on average, for what they say to be believed."""
_FEWEST = 5
"""Cameras below which agreement means nothing."""


def align_up(views: ViewSet, matrix: Mat4 | None = None) -> ViewSet:
    """The set in a world that is z up as far as its cameras tell, with the metadata that say so.

    Args:
        views: the set in its file's world.
        matrix: a similarity that is applied before, from the file's world.
    """
    before = np.eye(4) if matrix is None else matrix
    moved = views.transformed(before)
    up, told_by = estimated_up([view.camera for view in moved])
    turn = np.eye(4)
    turn[:3, :3] = rotation_to_z(up)
    metadata = {**views.metadata, "up": "estimated", "up_from": told_by, "world_from_file": (turn @ before).tolist()}
    moved = moved.transformed(turn)
    return ViewSet(moved.views, moved.has_masks, metadata, moved.points)


def turned_up(views: ViewSet, up: Up = "auto", *, trusted: bool = False) -> ViewSet:
    """The set in a world that is z up, where the one it has is not.

    A world whose file is to say what is up is believed unless its cameras agree on another direction: more than
    10 degrees away, and far nearer to what is square to their level axes.

    Args:
        views: the set.
        up: the axis of the file's world that points up; ``auto`` is what the file says, as far as it is believed.
        trusted: whether ``auto`` believes what the file says in any case.
    """
    if views.metadata.get("normalised"):
        return views
    before = np.array(views.metadata.get("world_from_file", np.eye(4)), dtype=np.float64)
    if up != "auto":
        axis = np.zeros(3)
        axis["xyz".index(up[-1])] = 1 if up[0] == "+" else -1
        direction = before[:3, :3] @ axis
        turn = rotation_to_z(direction / np.linalg.norm(direction))
        if np.allclose(turn, np.eye(3), atol=1e-12):
            return replace(views, metadata={**views.metadata, "up": "given"})
        return _turned(views, turn, before, {"up": "given"})
    if trusted or views.metadata.get("up") != "given" or len(views) < _FEWEST:
        return views
    cameras = [view.camera for view in views]
    direction, told_by = estimated_up(cameras)
    lean = math.degrees(math.acos(float(np.clip(direction[2], -1, 1))))
    if lean < _LEANS_DEG or not _agreed(direction, cameras):
        return views
    how = "is upside down" if lean > 180 - _LEANS_DEG else f"leans by {lean:.0f} degrees"
    note = f"the file's world {how} against the {told_by}: it was turned upright (--up +z leaves it as it is)"
    return with_notes(_turned(views, rotation_to_z(direction), before, {"up": "estimated", "up_from": told_by}), [note])


def _agreed(up: Float[np.ndarray, "3"], cameras: list[Camera]) -> bool:
    """Whether cameras agree on what is up, and not with +z."""
    x, y = (np.array([camera.c2w[:3, axis] for camera in cameras]) for axis in (0, 1))
    mean = y.mean(axis=0)
    if abs(up[2]) > math.cos(math.radians(_LEANS_DEG)):  # one axis, whose direction the up vectors alone tell
        return bool(np.linalg.norm(mean) > 0.5 and (y @ up > 0).mean() > 0.9)
    found, stated = _off_level(up, x, y), _off_level(np.array([0, 0, 1.0]), x, y)
    return bool(found < 0.5 * stated and stated - found > _CLEAR)


def _turned(views: ViewSet, turn: Float[np.ndarray, "3 3"], before: Mat4, said: dict[str, Any]) -> ViewSet:
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    metadata = {**views.metadata, **said, "world_from_file": (matrix @ before).tolist()}
    if isinstance(region := metadata.get("region"), dict):
        metadata["region"] = {**region, "centre": (turn @ np.array(region["centre"], float)).tolist()}
    return replace(views.transformed(matrix), metadata=metadata)


def with_notes(views: ViewSet, notes: Iterable[str]) -> ViewSet:
    """The set with further notes in its metadata."""
    both = list(dict.fromkeys([*views.metadata.get("notes", []), *notes]))
    return replace(views, metadata={**views.metadata, "notes": both}) if both else views


def world_from_original(metadata: dict[str, Any]) -> Mat4:
    """The similarity from the world in which a capture was made to that of its view set; its inverse leads back.

    It is ``world_from_file`` after nerfstudio's ``applied_transform`` and ``applied_scale``; what is not in the
    metadata was not done.
    """
    world, applied = (
        np.array(metadata.get(key, np.eye(4)), dtype=np.float64) for key in ("world_from_file", "applied_transform")
    )
    scale = np.diag([*[float(metadata.get("applied_scale", 1.0))] * 3, 1.0])
    return world @ scale @ applied


def estimated_up(cameras: list[Camera]) -> tuple[Float[np.ndarray, "3"], str]:
    """What is probably up, a unit vector, and what tells so.

    A camera that is held upright, or turned by a quarter for tall objects, has one image axis level: up is what is
    square to all level axes. The cameras' mean up vector decides where few directions leave that open, and tells up
    from down; where up vectors cancel out, cameras are taken to look down.
    """
    x, y = (np.array([camera.c2w[:3, axis] for camera in cameras]) for axis in (0, 1))
    mean = y.mean(axis=0)
    up = _levelled(_most_level(x, y), x, y, np.zeros(3))
    if np.linalg.norm(mean) > 0.5:
        by_mean = _levelled(mean / np.linalg.norm(mean), x, y, mean)
        # Some cameras may be turned by a quarter: then the mean is a slanted direction, to which hardly any is level.
        up = by_mean if _off_level(by_mean, x, y) < _off_level(up, x, y) + 0.02 else up
    if abs(up @ mean) > 0.3:
        return up * np.sign(up @ mean), "cameras' up vectors"
    looks = np.mean([camera.forward for camera in cameras], axis=0)
    return (-up if up @ looks > 0 else up), "cameras' level axes, looking down"


def _levelled(
    up: Float[np.ndarray, "3"], x: Float[np.ndarray, "n 3"], y: Float[np.ndarray, "n 3"], mean: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    """The direction near ``up`` that is square to every camera's level axis; ``mean`` decides between several."""
    for _ in range(10):
        level = np.where((np.abs(x @ up) <= np.abs(y @ up))[:, None], x, y)
        weights = 1 / np.maximum(np.abs(level @ up), 0.1)  # a camera held askew counts less
        spread = (level * weights[:, None]).T @ level / weights.sum()
        (least, second, _), axes = np.linalg.eigh(spread)
        if second - least < 0.05:  # cameras side by side
            _, axes = np.linalg.eigh(spread - 0.01 * np.outer(mean, mean))
        up = axes[:, 0] * (1 if axes[:, 0] @ up >= 0 else -1)
    return up


def _off_level(
    directions: Float[np.ndarray, "*n 3"], x: Float[np.ndarray, "m 3"], y: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "*n"]:
    """How far, on average, cameras' image axes are from square to a direction; outliers count little."""
    off = np.minimum(np.abs(directions @ x.T), np.abs(directions @ y.T))
    return np.asarray(np.minimum(off, 0.3).mean(axis=-1))


def _most_level(x: Float[np.ndarray, "n 3"], y: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """Of directions spread over a half sphere, the one to which most cameras have an image axis square."""
    count = 1000
    z = (np.arange(count) + 0.5) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    around = np.sqrt(1 - z * z)
    directions = np.stack([around * np.cos(turn), around * np.sin(turn), z], axis=1)
    return directions[np.argmin(_off_level(directions, x, y))]


def rotation_to_z(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that takes a unit vector to +z."""
    x, y, z = (float(v) for v in up)
    if z < -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0.0]])  # of up x z, the axis times the angle's sine
    return np.eye(3) + cross + cross @ cross / (1 + z)
