"""``viewloom skeleton``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from viewloom.commands.output import Shown, ShownFlags, Switch, started
from viewloom.commands.parsing import GivenPath, OwnOut


@dataclass(frozen=True)
class Skeleton:
    """Find the joints of a captured person, with which edit and rig begin.

    Joints in the views are read from OpenPose's files, or found by MediaPipe's network, and triangulated; views that
    are wrong about some, or take left for right, are outvoted.
    """

    capture: tyro.conf.Positional[Path]
    """Folder of the capture, or its camera file."""
    joints: GivenPath = None
    """Folder of OpenPose's JSON files, NAME_keypoints.json for the view NAME."""
    model: GivenPath = None
    """MediaPipe's network: pose_landmark_full.tflite of the npm package @mediapipe/pose, or pose_landmarker.task; needs
    the package ai-edge-litert."""
    out: OwnOut = None
    """File to write; skeleton.json in the capture's folder by default, where edit looks for it."""
    overwrite: Switch = False
    """Replace a file that is there."""
    shown: ShownFlags = Shown()
    """How much is said."""

    def run(self) -> int:
        """Find, write the file, and print where it is."""
        with started("skeleton", self.shown) as reporter:
            from pipeline.jobs.skeleton import find_skeleton

            found = find_skeleton(
                self.capture,
                self.out,
                joints=self.joints,
                model=self.model,
                overwrite=self.overwrite,
                reporter=reporter,
            )
        print(f"{found.file}  ({found.summary})")
        return 0
