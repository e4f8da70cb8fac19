"""MediaPipe's network of body landmarks, run by LiteRT where that package is installed; its file is the user's.

The network sees a square around one body and tells 33 landmarks, of which COCO-18 are taken, and two points that say
where the body lies: the middle of the hips, and how far it reaches from there and which way is up. From these the
square is set anew, as MediaPipe does from frame to frame. Source: Bazarevsky et al., "BlazePose: On-device Real-time
Body Pose Tracking", 2020; sizes and ranges of the published ``pose_landmark_*.tflite``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from scene.backends import required_module
from scene.errors import InputError
from scene.files import reading, require_regular
from scene.openpose import BodyJoints
from scene.skeleton import JOINTS

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""
_SIDE = 256
"""Of the square that the network sees, pixels."""
_LANDMARKS = (1, 195)
"""39 times x, y (pixels of the square), z, visibility and presence (logits)."""
_PRESENCE = (1, 1)
"""Whether there is a body, in [0, 1]."""
_HIPS, _REACH = 33, 34
"""The points that say where the body lies."""
_MARGIN = 1.25
_PASSES = 3
"""Of the network over a picture, each with a square from the landmarks of the one before."""
_LEAST_PRESENCE = 0.5
_LANDMARK = {
    "nose": 0,
    "left_eye": 2,
    "right_eye": 5,
    "left_ear": 7,
    "right_ear": 8,
    "left_shoulder": 11,
    "right_shoulder": 12,
    "left_elbow": 13,
    "right_elbow": 14,
    "left_wrist": 15,
    "right_wrist": 16,
    "left_hip": 23,
    "right_hip": 24,
    "left_knee": 25,
    "right_knee": 26,
    "left_ankle": 27,
    "right_ankle": 28,
}
"""Which of MediaPipe's landmarks is a joint."""
_FILE, _PART = "pose_landmark_full.tflite", "pose_landmarks_detector.tflite"
"""The network in a folder of models, and in MediaPipe's bundle."""
_MOST_BYTES = 200_000_000
_IDENTIFIER = b"TFL3"
_ADVICE = (
    "Give pose_landmark_full.tflite (or _lite, _heavy) of the npm package @mediapipe/pose, or MediaPipe's "
    "pose_landmarker.task."
)


@dataclass(frozen=True)
class BodyNetwork:
    """The network, ready to run.

    Args:
        run: from a square in [0, 1] to 39 landmarks (x and y in pixels of the square, z, visibility and presence as
            logits) and whether there is a body, in [0, 1].
    """

    run: Callable[[Float32[np.ndarray, "256 256 3"]], tuple[Float32[np.ndarray, "39 5"], float]]

    @classmethod
    def load(cls, path: Path) -> BodyNetwork:
        """Read the network.

        Args:
            path: its ``.tflite`` file, a bundle ``pose_landmarker.task`` that holds it, or a folder with
                ``pose_landmark_full.tflite``, such as that of the npm package ``@mediapipe/pose``.

        Raises:
            MissingBackendError: LiteRT is not installed.
            InputError: the file cannot be read, or is of another network.
        """
        content = _network_in(path)
        required_module("ai_edge_litert", "finding joints in pictures")
        from ai_edge_litert.interpreter import Interpreter

        try:
            with _silenced():  # it tells what it computes on
                interpreter: Any = Interpreter(model_content=content, num_threads=1)
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise InputError("is a damaged network", where=path, fix=_ADVICE) from error
        given, made = interpreter.get_input_details(), interpreter.get_output_details()
        outputs = {tuple(each["shape"].tolist()): each["index"] for each in made}
        shapes = [tuple(each["shape"].tolist()) for each in given]
        if shapes != [(1, _SIDE, _SIDE, 3)] or not {_LANDMARKS, _PRESENCE} <= outputs.keys():
            raise InputError("is not MediaPipe's network of body landmarks", where=path, fix=_ADVICE)

        def run(square: Float32[np.ndarray, "256 256 3"]) -> tuple[Float32[np.ndarray, "39 5"], float]:
            interpreter.set_tensor(given[0]["index"], square[None])
            interpreter.invoke()
            presence = float(interpreter.get_tensor(outputs[_PRESENCE]).ravel()[0])
            return interpreter.get_tensor(outputs[_LANDMARKS]).reshape(39, 5), presence

        return cls(run)

    def find(self, rgb: UInt8[np.ndarray, "h w 3"], box: Box) -> BodyJoints:
        """The joints of the body in a box.

        Args:
            rgb: the picture.
            box: around the body, roughly.
        """
        left, top, right, bottom = box
        size = _MARGIN * max(right - left, bottom - top)
        reduce = min(1.0, 2 * _SIDE / size)  # the square is sampled without a filter
        width, height = max(1, round(rgb.shape[1] * reduce)), max(1, round(rgb.shape[0] * reduce))
        picture = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA) if reduce < 1 else rgb
        scale = np.array([width / rgb.shape[1], height / rgb.shape[0]])
        centre, up = np.array([left + right, top + bottom]) / 2 * scale, np.array([0.0, -1.0])
        size *= reduce
        for _ in range(_PASSES):
            places, seen, presence = self._look(picture, centre, size, up)
            reach = places[_REACH] - places[_HIPS]
            length = float(np.linalg.norm(reach))
            if presence < _LEAST_PRESENCE or length < 1:
                return BodyJoints.unseen()
            centre, up, size = places[_HIPS], reach / length, 2 * _MARGIN * length
        return _coco(places / scale, seen * presence)

    def _look(
        self,
        picture: UInt8[np.ndarray, "h w 3"],
        centre: Float[np.ndarray, "2"],
        size: float,
        up: Float[np.ndarray, "2"],
    ) -> tuple[Float[np.ndarray, "39 2"], Float[np.ndarray, "39"], float]:
        """Landmarks in pixels of the picture, how visible they are, and whether there is a body; from one square."""
        axes = np.stack([[-up[1], up[0]], -up], axis=1) * (size / _SIDE)  # of the square's pixels in the picture
        corner = centre - axes @ np.array([_SIDE / 2, _SIDE / 2])
        # OpenCV counts from the centre of the first pixel.
        shift = corner + axes @ np.array([0.5, 0.5]) - 0.5
        square = cv2.warpAffine(
            picture,
            np.column_stack([axes, shift]),
            (_SIDE, _SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        told, presence = self.run(np.asarray(square, np.float32) / np.float32(255))
        visible = 1 / (1 + np.exp(-np.clip(told[:, 3].astype(np.float64), -50, 50)))
        return told[:, :2].astype(np.float64) @ axes.T + corner, visible, presence


def _coco(places: Float[np.ndarray, "39 2"], seen: Float[np.ndarray, "39"]) -> BodyJoints:
    """COCO-18 of the landmarks; the neck is the middle of the shoulders, and as sure as the less sure of them."""
    shoulders = [_LANDMARK["left_shoulder"], _LANDMARK["right_shoulder"]]
    where = {name: (places[k], seen[k]) for name, k in _LANDMARK.items()}
    where["neck"] = (places[shoulders].mean(axis=0), seen[shoulders].min())
    return BodyJoints(
        np.stack([where[name][0] for name in JOINTS]), np.array([float(where[name][1]) for name in JOINTS])
    )


def _network_in(path: Path) -> bytes:
    """The network's file, out of a bundle or a folder."""
    file = path / _FILE if path.is_dir() else path
    with reading(file):
        require_regular(file)
        if file.stat().st_size > _MOST_BYTES:
            raise InputError("is too large for a network of landmarks", where=file, fix=_ADVICE)
        content = file.read_bytes()
    if zipfile.is_zipfile(file):
        try:
            with zipfile.ZipFile(file) as bundle:
                if bundle.getinfo(_PART).file_size > _MOST_BYTES:
                    raise InputError("holds a network that is too large", where=file, fix=_ADVICE)
                content = bundle.read(_PART)
        except (KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise InputError("is not MediaPipe's bundle of a pose landmarker", where=file, fix=_ADVICE) from error
    if content[4:8] != _IDENTIFIER:
        raise InputError("is no network of TensorFlow Lite", where=file, fix=_ADVICE)
    return content


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """A block whose lines on the process's standard error, from compiled code, are dropped."""
    sys.stderr.flush()
    with contextlib.ExitStack() as undo, open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        undo.callback(os.close, kept)
        undo.callback(os.dup2, kept, 2)
        os.dup2(nowhere.fileno(), 2)
        yield
