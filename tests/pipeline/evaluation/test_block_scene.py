"""Photos of blocks: true in perspective, with masks of the blocks, from every side."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.block_scene import BlockScene, ring_cameras
from scene.raycast import mesh_caster

SIZE = (240, 180)


def test_photos_show_what_rays_hit() -> None:
    """The mask is where rays meet the blocks, and one point has one colour in all photos that see it."""
    scene = BlockScene.of_seed(1)
    corners = np.concatenate([panel.corners for panel in scene.blocks])
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(len(scene.blocks))])
    caster = mesh_caster(corners, faces)
    panel = scene.blocks[4]  # the lower block's top
    points = panel.corner + np.linspace(0.05, 0.15, 5)[:, None] * panel.across + 0.1 * panel.down
    colours = []
    for camera in ring_cameras(6, SIZE, 220.0):
        photo, mask = scene.photo(camera)
        origins, directions = camera.rays()
        hit = np.isfinite(caster.cast(origins.reshape(-1, 3), directions.reshape(-1, 3)).distance)
        assert ((mask > 0) != hit.reshape(mask.shape)).mean() < 0.01
        towards = points - camera.centre
        free = caster.cast(np.tile(camera.centre, (5, 1)), towards / np.linalg.norm(towards, axis=1)[:, None]).distance
        seen = np.abs(free - np.linalg.norm(towards, axis=1)) < 1e-3
        x, y = camera.project(points)[0].astype(int).T
        colours.append(np.where(seen[:, None], photo[y, x].astype(float), np.nan))
    spread = np.nanstd(np.stack(colours), axis=0)
    assert np.isfinite(np.stack(colours)).any(axis=2).sum() >= 6
    assert np.nanmean(spread) < 40  # the texture varies by twice as much within a few pixels


def test_the_room_leaves_no_hole() -> None:
    for camera in ring_cameras(3, SIZE, 220.0):
        photo, _ = BlockScene.of_seed(0).photo(camera)
        assert (photo.sum(axis=-1) == 0).mean() < 0.01


def test_a_seed_gives_the_same_photos() -> None:
    camera = next(iter(ring_cameras(1, SIZE, 220.0)))
    one, other, third = (BlockScene.of_seed(seed).photo(camera)[0] for seed in (3, 3, 4))
    assert (one == other).all()
    assert (one != third).any()
