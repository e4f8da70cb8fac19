"""The object pool and what is drawn from it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.training.data.objects import ObjectMix, ObjectPool, ObjectSource
from pipeline.training.procedural import is_closed, random_object
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError


def test_a_pool_lists_one_split(pool_folder: Path) -> None:
    train, val = ObjectPool(pool_folder, "train"), ObjectPool(pool_folder / "objects.zip", "val")
    assert [entry.kind for entry in train.entries] == ["texture", "vcolor", "geometry"]
    assert [entry.name for entry in val.entries] == ["d", "e"]
    assert (len(train), len(val)) == (3, 2)
    assert train.entries[0].licence == "CC0"


def test_meshes_are_z_up_with_the_colours_of_their_kind(pool_folder: Path) -> None:
    pool = ObjectPool(pool_folder, "train")
    textured, coloured, bare = (pool.load(k) for k in range(3))
    for mesh in (textured, coloured, bare):
        assert np.ptp(mesh.vertices, axis=0) == pytest.approx([0.4, 0.2, 1.0], abs=1e-3)  # y was the tall axis
        assert np.abs(mesh.vertices.mean(axis=0)).max() < 1e-3
    assert textured.texture is not None
    assert textured.texture.tolist() == [[[0, 255, 0], [255, 255, 0]]]
    assert np.array_equal(coloured.vertex_colours[:, 0] == 255, coloured.vertices[:, 0] > 0)
    assert bare.vertex_colours is bare.texture is None


def test_a_pool_needs_both_files(pool_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"objects\.zip: the object pool needs this file"):
        ObjectPool(tmp_path, "train")
    zipfile.ZipFile(tmp_path / "objects.zip", "w").close()
    with pytest.raises(InputError, match=r"manifest\.csv: the object pool needs this file"):
        ObjectPool(tmp_path, "train")


@pytest.mark.parametrize("procedural", [0.0, 1.0])
def test_the_same_seed_draws_the_same_object(pool_folder: Path, procedural: float) -> None:
    source = ObjectSource(ObjectPool(pool_folder, "train"), ObjectMix(procedural=procedural))
    for seed in range(6):
        (mesh, light), (again, light_again) = (source.draw(np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(mesh.vertices, again.vertices)
        assert np.array_equal(mesh.faces, again.faces)
        face, middle = np.arange(len(mesh.faces)), np.full((len(mesh.faces), 2), 1 / 3)
        assert np.array_equal(mesh.colours_at(face, middle), again.colours_at(face, middle))
        assert light == light_again
        other, _ = source.draw(np.random.default_rng(seed + 100))
        assert mesh.vertices.shape != other.vertices.shape or not np.allclose(mesh.vertices, other.vertices)


def test_procedural_objects_are_named_things_or_simple_shapes() -> None:
    things, shapes = (ObjectSource(None, ObjectMix(things=share, faces=2000)) for share in (1.0, 0.0))
    for seed in range(5):
        thing, shape = (source.draw(np.random.default_rng(seed))[0] for source in (things, shapes))
        assert is_closed(thing.faces)
        assert 800 < len(thing.faces) < 6000
        assert thing.faces.shape != shape.faces.shape or not np.array_equal(thing.faces, shape.faces)


def test_drawn_objects_are_normalised_and_lit_within_range(pool_folder: Path) -> None:
    source = ObjectSource(ObjectPool(pool_folder, "train"))
    for seed in range(20):
        mesh, light = source.draw(np.random.default_rng(seed))
        assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(OBJECT_RADIUS, rel=1e-4)
        assert light.ambient + light.diffuse == pytest.approx(1)
        assert light.direction[2] > 0


def test_colours_stay_with_the_surface_when_objects_are_stretched_and_turned() -> None:
    """Solid textures live in the space that the object was built in."""
    seen = 0
    for seed in range(12):
        mesh, _ = ObjectSource(None, ObjectMix(things=0.0)).draw(np.random.default_rng(seed))
        built = random_object(int(np.random.default_rng(seed).integers(2**31)))
        seen += bool(mesh.solid)
        face = np.arange(len(mesh.faces))
        bary = np.full((len(face), 2), 0.3)
        assert not np.allclose(mesh.vertices, built.vertices, atol=0.01)
        assert mesh.colours_at(face, bary) == pytest.approx(built.colours_at(face, bary), abs=1e-5)
    assert seen > 3


def test_textured_objects_are_drawn_more_often(pool_folder: Path) -> None:
    source = ObjectSource(ObjectPool(pool_folder, "train"), ObjectMix(procedural=0.0, textured_weight=4.0))
    rng = np.random.default_rng(0)
    textured = sum(source.draw(rng)[0].texture is not None for _ in range(150))
    assert textured / 150 == pytest.approx(4 / 6, abs=0.12)


def test_the_mix_decides_between_pool_and_procedural_objects(pool_folder: Path) -> None:
    pool, rng = ObjectPool(pool_folder, "train"), np.random.default_rng(0)
    boxes = [
        sum(len(ObjectSource(pool, ObjectMix(procedural=share)).draw(rng)[0].vertices) == 8 for _ in range(60))
        for share in (0.0, 0.5, 1.0)
    ]
    assert boxes[0] == 60
    assert 15 < boxes[1] < 45
    assert boxes[2] < 15
