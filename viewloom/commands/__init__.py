"""The commands of ``viewloom``, a module each; none is imported before it is asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Command(Protocol):
    """A parsed command line: a dataclass whose fields are its arguments."""

    def run(self) -> int:
        """Do it; returns the exit code."""


@dataclass(frozen=True)
class CommandInfo:
    """A command that is not imported yet.

    Args:
        kind: name of its class in ``viewloom.commands.<name>``.
        summary: first line of the class's docstring.
    """

    kind: str
    summary: str


COMMANDS = {
    "image2mesh": CommandInfo("Image2Mesh", "Turn photos into textured GLB files."),
    "views": CommandInfo("Views", "Turn photos into posed views: captures that nerfstudio opens."),
    "fuse": CommandInfo("Fuse", "Turn a few photos of one object, without cameras, into posed views."),
    "reconstruct": CommandInfo("Reconstruct", "Turn a capture of any format into a textured GLB."),
    "skeleton": CommandInfo("Skeleton", "Find the joints of a captured person, with which edit and rig begin."),
    "edit": CommandInfo("Edit", "Pose or reshape the object of a capture, by a skeleton, boxes or a mesh."),
    "pose": CommandInfo("Pose", "Find the cameras of photos of one object, and write a capture."),
    "check": CommandInfo("Check", "Say what is wrong with a capture: blur, exposure, masks, coverage."),
    "export": CommandInfo("Export", "Write a GLB as .glb, .obj, .ply, .stl or .usdz."),
    "rig": CommandInfo("Rig", "Bind a GLB to a skeleton: a rig that viewers and engines can pose."),
    "doctor": CommandInfo("Doctor", "Say what this installation can do, and how to get what is missing."),
}


def command_class(name: str) -> type[Command]:
    """The class of a command."""
    kind: type[Command] = getattr(importlib.import_module(f"viewloom.commands.{name}"), COMMANDS[name].kind)
    return kind
