"""NeuS and IDR captures: ``cameras*.npz`` with ``image/`` and perhaps ``mask/``.

``world_mat_i`` projects the world of the scan, ``scale_mat_i`` takes the unit sphere around the object to it. Pixels
are counted from the first one's centre, as NeuS casts its rays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from scene.archives import npz_archive
from scene.camera import Mat4
from scene.captures.folders import numbered, pictures_in, subfolder
from scene.captures.projections import decomposed, factor_notes, fitting_factor, intrinsics_of
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame
from scene.maps import picture_head
from scene.viewset import ViewSet


def read_neus(path: Path) -> ViewSet:
    """Read a NeuS capture: its folder, or its ``cameras*.npz``.

    The object's sphere becomes the unit sphere at the origin, and the world is turned z up as the cameras tell. Of
    several camera files ``cameras_sphere.npz`` counts, else the one whose principal points fit the pictures best.

    Raises:
        InputError: files are missing or damaged, or cameras and pictures do not belong together.
    """
    folder = path if path.is_dir() else path.parent
    images = subfolder(folder, ("image", "images", "rgb"))
    if images is None:
        raise InputError("no folder image/ with pictures here", where=folder)
    pictures = pictures_in(images)
    if not pictures:
        raise InputError("holds no pictures", where=images)
    files = [path] if path.is_file() else sorted(folder.glob("cameras*.npz"))
    if not files:
        raise InputError("no cameras*.npz here", where=folder)
    sphere = [file for file in files if file.name == "cameras_sphere.npz"]
    sizes = [picture_head(picture).size for picture in pictures]
    read = {file: _matrices(file, pictures) for file in sphere or files}

    def misfit(file: Path) -> float:
        points = [k[:2, 2] for k, _ in read[file][0]]
        return float(np.abs(np.median(np.array(points) / sizes, axis=0) - 0.5).max())

    file = min(read, key=misfit)
    cameras, scale = read[file]
    factor = fitting_factor([k for k, _ in cameras], sizes, where=file)
    masks = subfolder(folder, ("mask", "masks"))
    mask_files = {} if masks is None else {mask.stem: mask for mask in pictures_in(masks)}
    if masks is not None and len(mask_files) == len(pictures) and not {p.stem for p in pictures} <= set(mask_files):
        mask_files = {picture.stem: mask for picture, mask in zip(pictures, pictures_in(masks))}
    frames = [
        Frame(
            picture,
            f"{file}, camera {k}",
            c2w,
            intrinsics_of(calibration, size, factor, first_centre=0.0),
            mask=mask_files.get(picture.stem),
        )
        for k, (picture, size, (calibration, c2w)) in enumerate(zip(pictures, sizes, cameras))
    ]
    metadata = {
        "format": "neus",
        "cameras": file.name,
        "notes": factor_notes(factor),
        "region": {"centre": [0.0, 0.0, 0.0], "radius": 1.0},
    }
    return align_up(ViewSet.of_frames(frames, file, metadata), np.linalg.inv(scale))


def _matrices(file: Path, pictures: list[Path]) -> tuple[list[tuple[Float[np.ndarray, "3 3"], Mat4]], Mat4]:
    """Calibration and pose (in the scan's world) of every picture, and the first ``scale_mat``."""
    with npz_archive(file, "cameras") as content:
        count = sum(key.startswith("world_mat_") and "inv" not in key for key in content.names)
        indices = numbered(pictures, count, file)
        table = {}
        for key in [f"world_mat_{k}" for k in indices] + ["scale_mat_0"]:
            stored = content.array(key)
            if stored.shape not in ((4, 4), (3, 4)) or stored.dtype.kind not in "fiu" or not np.isfinite(stored).all():
                raise InputError(f"{key} is not a finite 4x4 matrix", where=file)
            table[key] = stored.astype(np.float64)
    scale = table.pop("scale_mat_0")
    size = float(np.abs(np.diag(scale)[:3]).mean()) if scale.shape == (4, 4) else 0.0
    if size == 0 or np.abs(scale[:3, :3] / size - np.eye(3)).max() > 1e-3 or scale[0, 0] < 0:
        raise InputError("scale_mat_0 is not a scale and a shift", where=file)
    return [decomposed(matrix[:3], f"{file}, {key}") for key, matrix in table.items()], scale
