"""PLY files: the one writer, for points and for meshes, and a reader of points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from scene.errors import InputError
from scene.files import write_bytes

_NAMES = {"<f8": "double", "<f4": "float", "|u1": "uchar"}
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def encode_ply(
    vertices: Shaped[np.ndarray, "v"], faces: Int[np.ndarray, "f 3"] | None = None, comments: Sequence[str] = ()
) -> bytes:
    """A binary little-endian PLY.

    Args:
        vertices: a structured array whose fields are the vertices' properties, of types ``<f8``, ``<f4`` and ``u1``,
            such as ``x``, ``y``, ``z``, ``red``, ``green``, ``blue``.
        faces: triangles over the vertices; without them the file holds points.
        comments: lines for the header; what is not ASCII becomes a question mark.
    """
    layout = vertices.dtype
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {text}" for text in comments),
        f"element vertex {len(vertices)}",
        *(f"property {_NAMES[layout[name].str]} {name}" for name in layout.names or ()),
    ]
    body = vertices.tobytes()
    if faces is not None:
        rows = np.empty(len(faces), _FACE)
        rows["count"], rows["corners"] = 3, faces
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        body += rows.tobytes()
    return ("\n".join([*header, "end_header"]) + "\n").encode("ascii", "replace") + body


def xyz_table(points: Float[np.ndarray, "n 3"], kind: str = "<f4") -> Shaped[np.ndarray, "n"]:
    """Positions as :func:`encode_ply` takes them, of type ``<f4`` or ``<f8``."""
    return np.ascontiguousarray(points, kind).view([(axis, kind) for axis in "xyz"]).reshape(-1)


def write_points(path: Path, points: Float[np.ndarray, "n 3"]) -> None:
    """Write points as a PLY of doubles, the way nerfstudio keeps them beside a capture."""
    write_bytes(path, encode_ply(xyz_table(points, "<f8")))


def read_points(path: Path) -> Float[np.ndarray, "n 3"]:
    """The vertices of a PLY file, text or binary; those that are not finite are left out.

    Raises:
        InputError: the file is missing, truncated, or no PLY with vertices first.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=path)
    head, found, body = path.read_bytes().partition(b"end_header")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines() if line.strip()]
    if not found or not lines or lines[0] != ["ply"]:
        raise InputError("is not a PLY file", where=path)
    body = body[body.find(b"\n") + 1 :]
    try:
        kind = next(line[1] for line in lines if line[0] == "format")
        elements = [k for k, line in enumerate(lines) if line[0] == "element"]
        if lines[elements[0]][1] != "vertex":
            raise InputError("its first element is not vertex", where=path)
        count = int(lines[elements[0]][2])
        last = elements[1] if len(elements) > 1 else len(lines)
        properties = [line for line in lines[elements[0] : last] if line[0] == "property"]
        names = [line[2] for line in properties]
        columns = [names.index(axis) for axis in "xyz"]
        if kind == "ascii":
            rows = [line.split() for line in body.decode("ascii", "replace").splitlines() if line.strip()][:count]
            points = np.array([[float(row[k]) for k in columns] for row in rows]).reshape(-1, 3)
        else:
            order = {"binary_little_endian": "<", "binary_big_endian": ">"}[kind]
            layout = np.dtype([(line[2], order + _TYPES[line[1]]) for line in properties])
            if count < 0 or len(body) < count * layout.itemsize:
                raise InputError(f"is truncated: {count} points are promised", where=path)
            table = np.frombuffer(body, layout, count)
            points = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=-1)
    except (ValueError, LookupError, StopIteration, OverflowError) as error:
        raise InputError(f"cannot be read as points ({error!r})", where=path) from error
    if len(points) < count:
        raise InputError(f"is truncated: {count} points are promised, it has {len(points)}", where=path)
    return points[np.isfinite(points).all(axis=1)]
