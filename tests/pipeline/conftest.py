"""A pool of a few made-up objects, which training and evaluation read."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.training.procedural import box


def object_file(kind: str, size: tuple[float, float, float]) -> bytes:
    """A box in the pool's format: positions as 16-bit integers, y up."""
    vertices, faces = box(size)
    arrays: dict[str, np.ndarray] = {
        "v": np.round((vertices + 0.5) * 65535).astype(np.uint16),
        "f": faces.astype(np.uint16),
    }
    if kind == "vcolor":
        arrays["c"] = np.where(vertices[:, :1] > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    if kind == "texture":
        stream = io.BytesIO()
        Image.fromarray(np.array([[[0, 255, 0], [255, 255, 0]]], np.uint8)).save(stream, "PNG")
        arrays["tex"] = np.frombuffer(stream.getvalue(), np.uint8)
        arrays["uv"] = np.round((vertices[:, :2] + 0.5) * 65535).astype(np.uint16)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.fixture(scope="session")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training objects of every kind, and two to evaluate on; y is the tall axis of each."""
    folder = tmp_path_factory.mktemp("pool")
    rows = [
        ("train/a.npz", "texture", "train"),
        ("train/b.npz", "vcolor", "train"),
        ("train/c.npz", "geometry", "train"),
        ("val/d.npz", "vcolor", "val"),
        ("val/e.npz", "geometry", "val"),
    ]
    with zipfile.ZipFile(folder / "objects.zip", "w") as archive:
        for file, kind, _ in rows:
            archive.writestr(file, object_file(kind, (0.2, 0.5, 0.1)))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "name", "kind", "licence", "split"])
        writer.writerows((name, name[-5], kind, "CC0", split) for name, kind, split in rows)
    return folder
