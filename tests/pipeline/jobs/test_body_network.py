"""MediaPipe's network: squares and landmarks are undone exactly, files of something else are refused, and it runs."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.jobs.body_network import BodyNetwork
from scene.backends import optional_module
from scene.errors import InputError, MissingBackendError
from scene.photo import load_rgba
from scene.skeleton import INDEX

MODELS = Path(os.environ.get("VIEWLOOM_BODY_MODELS", Path(__file__).parents[3] / "tools" / "body-joints"))
"""A folder in which the npm package @mediapipe/pose is installed."""
PACKAGE = MODELS / "node_modules" / "@mediapipe" / "pose"
needs_network = pytest.mark.skipif(
    optional_module("ai_edge_litert") is None or not PACKAGE.is_dir(),
    reason="ai-edge-litert or MediaPipe's network is not installed: run `make body`",
)


class Marks:
    """Stands for the network: finds a mark of pure colour for each of three landmarks, and says the rest is there too.

    Args:
        presence: what it says.
    """

    def __init__(self, presence: float = 1.0) -> None:
        self.presence, self.squares = presence, list[np.ndarray]()

    def __call__(self, square: np.ndarray) -> tuple[np.ndarray, float]:
        self.squares.append(square)
        out = np.zeros((39, 5), np.float32)
        for channel, numbers in enumerate(((33, 23, 24), (34, 0), (15,))):
            others = square[..., [c for c in range(3) if c != channel]].max(axis=2)
            y, x = np.nonzero(square[..., channel] - others > 0.5)
            if len(x):
                out[list(numbers), :2] = x.mean() + 0.5, y.mean() + 0.5
        out[15, 3] = -2
        return out, self.presence


def marked(width: int, height: int, places: list[tuple[int, int]], radius: int = 6) -> np.ndarray:
    """A grey picture with a disc in each colour."""
    rgb = np.full((height, width, 3), 127, np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    for channel, place in enumerate(places):
        rgb[(x - place[0]) ** 2 + (y - place[1]) ** 2 < radius**2] = np.eye(3, dtype=np.uint8)[channel] * 255
    return rgb


@pytest.mark.parametrize(
    ("places", "zoom"),
    [
        ([(100, 150), (100, 80), (130, 120)], 1),
        ([(150, 100), (80, 90), (120, 130)], 1),
        ([(90, 150), (95, 70), (60, 120)], 6),
    ],
    ids=["upright", "lying", "large"],
)
def test_landmarks_are_told_in_pixels_of_the_picture(places: list[tuple[int, int]], zoom: int) -> None:
    picture = marked(240 * zoom, 200 * zoom, [(x * zoom, y * zoom) for x, y in places], 6 * zoom)
    network = Marks()
    found = BodyNetwork(network).find(picture, (20.0 * zoom, 20.0 * zoom, 220.0 * zoom, 190.0 * zoom))
    for name, place in (("left_hip", places[0]), ("nose", places[1]), ("left_wrist", places[2])):
        np.testing.assert_allclose(found.pixels[INDEX[name]], np.array(place) * zoom, atol=0.6 * zoom)
    assert found.confidences[INDEX["nose"]] == pytest.approx(0.5)
    assert found.confidences[INDEX["left_wrist"]] == pytest.approx(1 / (1 + np.exp(2)))
    # The last square stands on the hips, with the body upright in it, and reaches a quarter beyond.
    (said, _), middle = network(network.squares[-1]), 128
    np.testing.assert_allclose(said[33, :2], [middle, middle], atol=2)
    np.testing.assert_allclose(said[34, :2], [middle, middle - 128 / 1.25], atol=2)


def test_where_it_sees_no_body_nothing_is_told() -> None:
    found = BodyNetwork(Marks(0.2)).find(marked(99, 99, [(50, 50), (50, 20), (30, 30)]), (10.0, 10.0, 90.0, 90.0))
    assert (found.confidences == 0).all()
    assert np.isnan(found.pixels).all()
    blind = BodyNetwork(Marks()).find(
        np.zeros((50, 50, 3), np.uint8), (0.0, 0.0, 50.0, 50.0)
    )  # all landmarks in one place
    assert (blind.confidences == 0).all()


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.tflite").write_bytes(bytes(100))
    with zipfile.ZipFile(tmp_path / "other.task", "w") as bundle:
        bundle.writestr("hand_detector.tflite", b"TFL3" * 9)
    for name, said in (
        ("junk.tflite", "is no network of TensorFlow Lite"),
        ("other.task", "is not MediaPipe's bundle of a pose landmarker"),
        ("gone.tflite", "gone.tflite"),
        (".", "pose_landmark_full.tflite"),
    ):
        with pytest.raises(InputError, match=said):
            BodyNetwork.load(tmp_path / name)


@pytest.mark.skipif(optional_module("ai_edge_litert") is not None, reason="ai-edge-litert is installed")
def test_without_litert_it_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"    TFL3" + bytes(100))
    with pytest.raises(MissingBackendError, match=r"needs the package ai-edge-litert.*pip install ai-edge-litert"):
        BodyNetwork.load(tmp_path / "a.tflite")


@pytest.mark.skipif(optional_module("ai_edge_litert") is None, reason="ai-edge-litert is not installed")
def test_damaged_networks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"    TFL3" + bytes(100))
    with pytest.raises(InputError, match="is a damaged network"):
        BodyNetwork.load(tmp_path / "a.tflite")


@needs_network
def test_it_sees_the_demo_figure_from_the_front(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rgba = load_rgba(Path(__file__).parents[3] / "docs" / "demo" / "figure" / "images" / "01.png")
    with zipfile.ZipFile(tmp_path / "a.task", "w") as bundle:
        bundle.write(PACKAGE / "pose_landmark_lite.tflite", "pose_landmarks_detector.tflite")
    for path in (PACKAGE, tmp_path / "a.task"):
        found = BodyNetwork.load(path).find(rgba[..., :3], (30.0, 5.0, 100.0, 125.0))
        assert found.confidences.min() > 0.5
        assert found.pixels[INDEX["nose"], 1] < found.pixels[INDEX["neck"], 1] < found.pixels[INDEX["left_hip"], 1]
        assert found.pixels[INDEX["left_hip"], 1] < found.pixels[INDEX["left_ankle"], 1]
    assert capfd.readouterr().err == ""
