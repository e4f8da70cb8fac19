"""Known objects: where they come from, and which look alike from all around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.evaluation.subjects import near_symmetric, subjects
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import SampleSettings
from pipeline.training.procedural import box, lathe
from scene.errors import InputError
from scene.mesh import ColouredMesh


def test_objects_come_from_files_or_from_the_val_split(pool_folder: Path, tmp_path: Path) -> None:
    for k in range(3):
        trimesh.creation.box((1, 1 + k, 1)).export(tmp_path / f"box{k}.glb")
    files = list(subjects(pool_folder, [tmp_path], 2))
    assert [f.name for f in files] == ["box0", "box2"]
    assert [f.index for f in files] == [0, 2]
    sample = files[1].sample(SampleSettings(size=16, targets=3, volume=0))
    assert sample.targets.shape == (3, 16, 16, 4)
    pool = list(subjects(pool_folder, [], None))
    assert len(pool) == len(ObjectPool(pool_folder, "val"))
    with pytest.raises(InputError, match="no GLB files"):
        list(subjects(None, [pool_folder], None))
    with pytest.raises(InputError, match="no objects"):
        list(subjects(None, [], None))


def test_round_things_are_near_symmetric_and_bars_are_not() -> None:
    def mesh_of(shape: tuple[np.ndarray, np.ndarray]) -> ColouredMesh:
        return ColouredMesh(shape[0].astype(np.float32), shape[1].astype(np.int32)).normalised()

    profile = np.array([[0, -0.5], [0.3, -0.5], [0.4, 0.5], [0, 0.5]])
    assert near_symmetric(mesh_of(lathe(profile)))
    assert not near_symmetric(mesh_of(box((0.5, 0.2, 0.3))))
