"""A mesh as the target of an edit: what the object's depth shall be from all cameras, after the edit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.editing.controls import ControlError, check_control_mesh
from recon.export.glb_read import read_glb
from scene.backends import import_failure, optional_module
from scene.camera import Mat4
from scene.errors import InputError, MissingBackendError
from scene.files import require_regular
from scene.mesh import Faces, Vertices

_ENDINGS = (".glb", ".obj", ".ply", ".stl")


@dataclass(frozen=True, eq=False)
class DepthTarget:
    """A closed surface where the object's shall be after an edit; it may be loose.

    Args:
        vertices, faces: in the capture's own world; faces look outward.

    Raises:
        ControlError: it has no faces, holes, or is inside out.
    """

    vertices: Vertices
    faces: Faces

    def __post_init__(self) -> None:
        check_control_mesh(self.vertices, self.faces)

    def transformed(self, matrix: Mat4) -> DepthTarget:
        """The surface under a similarity of the world."""
        return DepthTarget(self.vertices @ matrix[:3, :3].T + matrix[:3, 3], self.faces)

    @classmethod
    def load(cls, path: Path) -> DepthTarget:
        """Read a mesh.

        A GLB that viewloom wrote says itself where it stands in its capture's world; the coordinates of all other files
        are taken as they are.

        Raises:
            InputError: the file cannot be read, or its mesh cannot be a control.
            MissingBackendError: it is none of viewloom's, and trimesh, which reads others, is not installed.
        """
        if path.suffix.lower() not in _ENDINGS:
            raise InputError(
                f"is no mesh that is read ({path.suffix or 'no ending'})",
                where=path,
                fix=f"Give {', '.join(_ENDINGS)}.",
            )
        vertices, faces = _own(path) or _any(path)
        try:
            return cls(vertices, faces)
        except ControlError as error:
            raise type(error)(error.what, where=path, fix=error.fix) from None


def _own(path: Path) -> tuple[Vertices, Faces] | None:
    """The mesh of a GLB that viewloom wrote, in its capture's world; None of any other file."""
    if path.suffix.lower() != ".glb":
        return None
    try:
        asset = read_glb(path)
    except InputError:
        return None
    if asset.world_from_asset is None:
        return None
    matrix = asset.world_from_asset
    return asset.vertices.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3], asset.faces.astype(np.int64)


def _any(path: Path) -> tuple[Vertices, Faces]:
    """The mesh of any file, its parts side by side."""
    try:
        require_regular(path)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"the control mesh cannot be read ({said})", where=path) from error
    library: Any = optional_module("trimesh")
    if library is None:
        broken = import_failure("trimesh")
        raise MissingBackendError(
            "control meshes of other programs are read by trimesh"
            + ("" if broken is None else f", and the one that is installed cannot load ({broken})"),
            fix="pip install viewloom[edit]",
        )
    try:
        mesh = library.load_mesh(path, process=False)
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    except Exception as error:
        said = next(iter(str(error).split("\n")), "") or type(error).__name__
        raise InputError(f"the control mesh cannot be read ({said})", where=path) from error
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or not np.isfinite(vertices).all():
        raise InputError("the control mesh has vertices that are no finite numbers", where=path)
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise InputError("the control mesh has faces of vertices that are not there", where=path)
    return vertices, faces.reshape(-1, 3)
