"""Control pictures of one target in 3D, seen from every camera of a capture: body skeletons and inverse depth.

Skeletons are drawn in OpenPose's convention as controlnet-aux draws bodies, at 512 pixels along the shorter side, which
is what the public ControlNets were trained with; models of other sizes get that picture resampled. Depth is inverse,
near is bright, with one pair of bounds for all views, so that a surface point looks alike in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from recon.mesh.topology import edges_of
from scene.camera import Camera
from scene.errors import InputError
from scene.mesh import Faces, Vertices, signed_volume
from scene.raycast import RayCaster, mesh_caster
from scene.skeleton import DRAWN_LIMBS, FACE, INDEX, Joints

SIDE = 512
"""Shorter side at which skeletons are drawn, pixels."""
_STICK = 4
"""Half width of a limb and radius of a joint at that size, pixels."""
_DIM = 0.6
"""Of a limb's colour."""
_FAR = 2.0
"""Where inverse depth ends, as a multiple of the farthest point seen: the object stands out of the background."""
_FLAT = 1e-12
"""Volume of a box, relative to the product of its sides, up to which it has none."""

# fmt: off
COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)
# fmt: on
"""RGB of each joint, and of the limb of the same place in :data:`scene.skeleton.DRAWN_LIMBS`."""
"""Joints that detectors leave out on the far side of a head."""

ControlKind = Literal["skeleton", "depth"]
"""What a control shows."""
Pixels = Float[np.ndarray, "18 2"]
Present = Bool[np.ndarray, "18"]


class ControlError(InputError):
    """A skeleton, mesh or box that is to drive an edit cannot do so."""


class EmptyControlError(ControlError):
    """A control has no surface, or no joints."""


class OpenControlError(ControlError):
    """A control mesh has holes, or faces that look inward."""


class MissedControlError(ControlError):
    """A control lies where no camera looks, or away from the object."""


# --- skeletons ---------------------------------------------------------------------------------------------------


def project_joints(joints: Joints, camera: Camera) -> tuple[Pixels, Present]:
    """Where a camera sees the joints, and which of them are drawn.

    Left out are joints that are not known, behind the camera, farther outside the picture than it is large, and joints
    of the face on the far side of the head; the convention knows no other occlusion.

    Args:
        joints: world frame.
        camera: any pinhole camera.

    Returns:
        Pixel coordinates (NaN or infinite where they are not drawn, perhaps), and which joints are drawn.
    """
    pixels, depth = camera.project(joints)
    size = np.array([camera.width, camera.height])
    with np.errstate(invalid="ignore"):
        near = ((pixels >= -size) & (pixels <= 2 * size)).all(axis=1)
        present = near & (depth > 0) & np.isfinite(pixels).all(axis=1)
    return pixels, present & _facing(joints, camera)


def _facing(joints: Joints, camera: Camera) -> Present:
    """Whether the outward normal of each joint of the face looks towards the camera; true of all other joints.

    Outward is away from the middle of the head, which lies between the ears. Of a head with one ear, or none, nothing
    is known, and all of it is drawn.
    """
    facing = np.ones(len(joints), bool)
    middle = (joints[INDEX["right_ear"]] + joints[INDEX["left_ear"]]) / 2
    if np.isnan(middle).any():
        return facing
    for name in FACE:
        at = joints[INDEX[name]]
        # A joint that is not known compares as false, and a joint in the middle has no normal.
        facing[INDEX[name]] = not float((at - middle) @ (at - camera.centre)) > 0
    return facing


def draw_skeleton(pixels: Pixels, present: Present, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a body: limbs as ellipses, dimmed, then joints as discs, on black.

    Args:
        pixels: joints in pixels of this picture.
        present: which joints are drawn; a limb needs both of its ends.
        width, height: of the picture.

    Source: controlnet_aux, open_pose/util.py, ``draw_bodypose``; coordinates lose their fraction as there.
    """
    canvas = np.zeros((height, width, 3), np.uint8)
    for (start, end), colour in zip(DRAWN_LIMBS, COLOURS):
        if not (present[start] and present[end]):
            continue
        (x0, y0), (x1, y1) = pixels[start], pixels[end]
        middle = (int((x0 + x1) / 2), int((y0 + y1) / 2))
        turn = int(math.degrees(math.atan2(y0 - y1, x0 - x1)))
        half = int(((x0 - x1) ** 2 + (y0 - y1) ** 2) ** 0.5 / 2)
        outline = cv2.ellipse2Poly(middle, (half, _STICK), turn, 0, 360, 1)
        cv2.fillConvexPoly(canvas, outline, [int(channel * _DIM) for channel in colour])
    for (x, y), there, colour in zip(pixels, present, COLOURS):
        if there:
            cv2.circle(canvas, (int(x), int(y)), _STICK, colour, thickness=-1)
    return canvas


def skeleton_control(joints: Joints, camera: Camera) -> Float[np.ndarray, "h w 3"]:
    """A skeleton as one camera's control, RGB in [0, 1].

    Drawn at :data:`SIDE` pixels along the shorter side and brought to the camera's size: averaged over areas if that is
    smaller, since sticks of four pixels would cover whole limbs there and joints at whole pixels would jitter.
    """
    scale = SIDE / min(camera.width, camera.height)
    width, height = round(camera.width * scale), round(camera.height * scale)
    pixels, present = project_joints(joints, camera)
    drawn = draw_skeleton(pixels * (width / camera.width, height / camera.height), present, width, height)
    picture = drawn.astype(np.float32) / 255
    if (width, height) == (camera.width, camera.height):
        return picture
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (camera.width, camera.height), interpolation=how), np.float32)


def skeleton_controls(joints: Joints, cameras: Sequence[Camera]) -> list[Float[np.ndarray, "_h _w 3"]]:
    """The controls of all cameras.

    Raises:
        EmptyControlError: no joint is known.
        MissedControlError: no camera sees a joint.
    """
    if np.isnan(joints).any(axis=1).all():
        raise EmptyControlError("the skeleton has no joints", fix="Give positions in place of null.")
    if not any(_in_picture(joints, camera) for camera in cameras):
        raise MissedControlError(
            "no camera sees a joint of the skeleton", fix="Joints are in the capture's own world and unit."
        )
    return [skeleton_control(joints, camera) for camera in cameras]


def _in_picture(joints: Joints, camera: Camera) -> bool:
    return bool(camera.shows(*camera.project(joints)).any())


# --- inverse depth -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepthBounds:
    """z-depths between which inverse depth falls from 1 to 0, world units.

    Args:
        near: of the brightest point.
        far: of what is as dark as the background; infinite for plain inverse depth.
    """

    near: float
    far: float

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far:
            raise ControlError(f"bounds of depth are positive and in order, not {self.near} and {self.far}")

    def control(self, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
        """Inverse depth in [0, 1], three equal channels; 0 where the depth is 0, which is the background."""
        there = depth > 0
        inverse = 1 / np.where(there, depth, 1).astype(np.float64) - 1 / self.far
        value = np.where(there, np.clip(inverse / (1 / self.near - 1 / self.far), 0, 1), 0).astype(np.float32)
        return np.repeat(value[..., None], 3, axis=-1)


def depth_of(caster: RayCaster, camera: Camera) -> Float[np.ndarray, "h w"]:
    """z-depth along the optical axis at the centres of pixels, 0 where a ray meets nothing."""
    origins, directions = (rays.reshape(-1, 3) for rays in camera.rays())
    distance = caster.cast(origins, directions).distance
    depth = np.where(np.isfinite(distance), distance * (directions @ camera.forward), 0)
    return depth.reshape(camera.height, camera.width).astype(np.float32)


def depth_controls(
    vertices: Vertices,
    faces: Faces,
    cameras: Sequence[Camera],
    *,
    bounds: DepthBounds | None = None,
    object_masks: Sequence[Bool[np.ndarray, "_h _w"]] | None = None,
) -> tuple[list[Float[np.ndarray, "_h _w 3"]], DepthBounds]:
    """Inverse depth of a mesh from all cameras, RGB in [0, 1].

    Args:
        vertices, faces: the mesh, world frame; a closed one, see :func:`check_control_mesh`.
        cameras: of the views.
        bounds: one pair for all views; by default from the nearest point seen to twice the farthest one.
        object_masks: where the object is seen; the mesh must cover some of it in some view.

    Returns:
        The controls, and the bounds.

    Raises:
        MissedControlError: no camera sees the mesh, or it lies away from the object.
    """
    caster = mesh_caster(vertices, faces)
    depths = [depth_of(caster, camera) for camera in cameras]
    seen = [depth[depth > 0] for depth in depths]
    if not any(len(values) for values in seen):
        raise MissedControlError("no camera sees the control", fix="It is in the capture's own world and unit.")
    if object_masks is not None and not any(((d > 0) & m).any() for d, m in zip(depths, object_masks, strict=True)):
        raise MissedControlError("the control lies away from the object in all views", fix="Move it to the object.")
    if bounds is None:
        values = np.concatenate(seen)
        bounds = DepthBounds(float(values.min()), _FAR * float(values.max()))
    return [bounds.control(depth) for depth in depths], bounds


def check_control_mesh(vertices: Vertices, faces: Faces) -> None:
    """Whether a mesh can be a control: some surface, closed, looking outward.

    Vertices at one place count as one, since files cut meshes along seams of their textures.

    Raises:
        EmptyControlError: it has no faces, or no volume.
        OpenControlError: it has holes, or faces that disagree on what is outside.
    """
    if not len(faces):
        raise EmptyControlError("the control mesh has no faces")
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    size = float((high - low).max())
    if not size > 0:
        raise EmptyControlError("the control mesh is a single point")
    _, same = np.unique(np.round((vertices - low) / (1e-6 * size)).astype(np.int64), axis=0, return_inverse=True)
    welded = same.reshape(-1)[faces]
    welded = welded[(welded != np.roll(welded, 1, axis=1)).all(axis=1)]
    edges = edges_of(welded)
    balanced = (edges.orientation_sum == 0) & (edges.uses % 2 == 0)
    if not balanced.all():
        raise OpenControlError(
            f"the control mesh is open: {int((~balanced).sum())} of its edges do not join two faces that agree",
            fix="Close its holes and let all faces look outward.",
        )
    volume = signed_volume(vertices.astype(np.float64), faces)
    if abs(volume) < 1e-9 * size**3:
        raise EmptyControlError("the control mesh encloses nothing")
    if volume < 0:
        raise OpenControlError("the control mesh is inside out", fix="Reverse its faces.")


# --- boxes -------------------------------------------------------------------------------------------------------

Frames = Float[np.ndarray, "b 4 4"]
"""Boxes as affine frames: each brings the cube [-1, 1]^3 to its place in the world."""

# fmt: off
_CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_CUBE_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])
# fmt: on


def box_mesh(frames: Frames) -> tuple[Vertices, Faces]:
    """The mesh of some boxes, one beside the other; overlapping ones are left as they are.

    Raises:
        EmptyControlError: there is no box, or one without volume; its place in the list is named.
        ControlError: a frame is mirrored or not finite.
    """
    if not len(frames):
        raise EmptyControlError("there are no boxes")
    for index, frame in enumerate(frames):
        volume = float(np.linalg.det(frame[:3, :3])) if np.isfinite(frame).all() else math.nan
        # Of sides in one plane, rounding seldom leaves exactly nothing.
        if abs(volume) <= _FLAT * np.prod(np.linalg.norm(frame[:3, :3], axis=0)):
            raise EmptyControlError(f"box {index} encloses nothing")
        if not volume > 0:
            raise ControlError(f"the frame of box {index} is mirrored or not finite")
    vertices = np.concatenate([_CUBE @ frame[:3, :3].T + frame[:3, 3] for frame in frames])
    faces = np.concatenate([_CUBE_FACES + len(_CUBE) * k for k in range(len(frames))])
    return vertices, faces


def check_boxes_hit(frames: Frames, points: Float[np.ndarray, "n 3"]) -> None:
    """Whether every box of the original holds some of the object.

    Args:
        frames: the boxes as they are before the edit.
        points: of the object's surface, world frame.

    Raises:
        MissedControlError: a box is empty; its place in the list is named.
    """
    for index, frame in enumerate(frames):
        local = (points - frame[:3, 3]) @ np.linalg.inv(frame[:3, :3]).T
        if not (np.abs(local) <= 1).all(axis=1).any():
            raise MissedControlError(
                f"box {index} misses the object", fix="Boxes are in the capture's own world and unit."
            )
