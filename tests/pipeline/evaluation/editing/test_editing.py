"""Scores of edits: analytic warps, distances that are 0 for the same, rows in their right order, the demos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from pipeline.diffusion.modules.conditioning import PhotoEncoder
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.editing.boxes import BoxTarget
from pipeline.evaluation.editing.cases import EditCase, TrueViews, cases, ring, true_views
from pipeline.evaluation.editing.rows import bound_truth, deformed, edits_table, original, through_vae, truth
from pipeline.evaluation.editing.scores import (
    as_pictures,
    edit_scores,
    features,
    kernel_distance,
    outer_chamfer,
    warp_error,
    warped,
)
from pipeline.training.procedural import superellipsoid
from scene.camera import orbit_camera
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.render import UNLIT, MeshRenderer
from scene.skeleton import Skeleton
from scene.viewset import ViewSet

DEMO = Path(__file__).parents[4] / "docs" / "demo"


@pytest.fixture(scope="module")
def encoder() -> PhotoEncoder:
    torch.manual_seed(0)
    return PhotoEncoder(16, 32).eval()


@pytest.fixture(scope="module")
def figure() -> TrueViews:
    return true_views(next(iter(cases(None, 1))), 8, 48)


def painted_ball() -> ColouredMesh:
    """A ball whose colours change slowly over space."""
    vertices, faces = superellipsoid(1.0, 1.0, (0.5, 0.5, 0.5), 40, 80)
    colours = np.round((vertices * 0.8 + 0.5) * 255).astype(np.uint8)
    return ColouredMesh(vertices.astype(np.float32), faces, vertex_colours=colours)


def test_a_warped_view_of_a_smooth_ball_is_its_neighbour() -> None:
    renderer = MeshRenderer(painted_ball(), UNLIT)
    cameras = [orbit_camera(a, 0.2, size=96) for a in (0.0, 0.4)]
    one, two = (renderer.render(camera, samples=1) for camera in cameras)
    drawn, mask = warped(one.rgba[..., :3], one.depth, cameras[0], two.depth, cameras[1])
    assert mask.sum() > 0.6 * two.mask.sum()
    # A pixel inside the outline, where no neighbour is background.
    inner = mask & (two.normal @ -cameras[0].forward > 0.55) & (two.normal @ -cameras[1].forward > 0.55)
    assert np.abs(drawn - two.rgba[..., :3])[inner].max() < 0.02
    # What the other camera does not see is left out.
    behind = two.normal @ -cameras[0].forward < -0.1
    assert not mask[behind & two.mask].any()


def test_warps_see_shifts(figure: TrueViews) -> None:
    pictures = as_pictures(figure.truths)
    least = warp_error(pictures, figure)
    shifted = pictures.copy()
    shifted[::2] = np.roll(shifted[::2], 2, axis=2)
    assert warp_error(shifted, figure) > 1.5 * least
    grey = pictures.copy()
    grey[..., :3] = 0.5
    grey[..., 3] = 1
    assert warp_error(grey, figure) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_unbiased_and_tells_distributions_apart() -> None:
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.normal(size=(2, 16, 8))) for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(300) + 1e-9
    other = [kernel_distance(rng.normal(size=(16, 8)), rng.normal(1.0, 1.0, size=(16, 8))) for _ in range(20)]
    assert min(other) > max(same)


def test_chamfer_is_zero_for_the_same_and_ignores_what_is_inside() -> None:
    vertices, faces = superellipsoid(1.0, 1.0, (0.5, 0.5, 0.5), 24, 48)
    ball = ColouredMesh(vertices.astype(np.float32), faces)
    assert outer_chamfer(ball, ball) < 1e-4
    both = np.concatenate([vertices, 0.4 * vertices]).astype(np.float32)
    hollow = ColouredMesh(both, np.concatenate([faces, faces + len(vertices)]))
    assert outer_chamfer(hollow, ball) < 1e-4
    larger = replace(ball, vertices=1.1 * ball.vertices)
    assert outer_chamfer(larger, ball) == pytest.approx(0.05, abs=0.004)


def test_rows_fall_in_their_order(figure: TrueViews, encoder: PhotoEncoder) -> None:
    rows = {"original": original, "deformed": deformed(bound_truth), "truth": truth}
    scores = {}
    for name, row in rows.items():
        edited = row(figure)
        scores[name] = edit_scores(edited.pictures, edited.mesh, figure, encoder)
    assert scores["truth"]["excess_warp_error"] == 0
    assert scores["truth"]["iou"] == 1
    assert scores["original"]["iou"] < scores["deformed"]["iou"]
    assert scores["original"]["foreground_psnr"] + 3 < scores["deformed"]["foreground_psnr"]
    assert scores["truth"]["chamfer"] < scores["deformed"]["chamfer"] < scores["original"]["chamfer"]
    table = edits_table({name: [found] for name, found in scores.items()})
    assert len(table.splitlines()) == 5
    without = {key: value for key, value in scores["truth"].items() if key != "chamfer"}
    assert edits_table({"truth": [without]}).splitlines()[-1].endswith("| – |")


def test_features_are_those_of_pictures_on_white(encoder: PhotoEncoder) -> None:
    empty = np.zeros((2, 32, 32, 4), np.float32)
    empty[1, ..., :3] = 0.7  # without alpha, colour is not seen
    first, second = features(encoder, empty)
    assert np.allclose(first, second)


def test_a_vae_keeps_size_and_range(figure: TrueViews) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=4, out_channels=4, latent_channels=4, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
    )  # fmt: skip
    pictures = through_vae(LatentCodec(vae.eval()))(figure).pictures
    assert pictures.shape == (8, 48, 48, 4)
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_cases_are_of_all_kinds_and_repeatable() -> None:
    found = list(cases(None, 2))
    assert [case.kind for case in found] == ["procedural figure"] * 2 + ["boxes"] * 2
    again = list(cases(None, 2))
    assert all(np.array_equal(a.after.vertices, b.after.vertices) for a, b in zip(found, again, strict=True))
    posed = bound_truth(found[2])
    assert outer_chamfer(posed, found[2].after) < outer_chamfer(found[2].before, found[2].after)
    with pytest.raises(InputError, match="at least one"):
        list(cases(None, 0))
    with pytest.raises(InputError, match="neither skeletons nor boxes"):
        bound_truth(EditCase("odd", "boxes", found[0].before, found[0].after))


def test_neighbours_in_the_ring_stand_side_by_side() -> None:
    centres = np.stack([camera.centre for camera in ring(16, 32)])
    steps = np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=1)
    assert np.allclose(steps, steps[0])


def test_the_demos_are_captures_with_their_targets() -> None:
    views = ViewSet.load(DEMO / "figure")
    assert len(views) == 24
    assert views.has_masks
    rest, target = (Skeleton.load(DEMO / "figure" / name) for name in ("skeleton.json", "target.json"))
    assert not target.compare_bones(rest)
    # Every joint of the figure as it stands is seen on it, or beside it by a pixel.
    pixels, _ = views.views[0].camera.project(rest.positions)
    alpha = views.views[0].rgba()[..., 3] > 0
    near = [alpha[max(int(y) - 1, 0) : int(y) + 2, max(int(x) - 1, 0) : int(x) + 2].any() for x, y in pixels]
    assert np.mean(near) > 0.85
    boxes = BoxTarget.load(DEMO / "boxes" / "boxes.json")
    assert len(boxes.before) == 4
    assert len(ViewSet.load(DEMO / "boxes")) == 24
    for folder in ("figure", "boxes"):
        kept = sorted(path.name for path in (DEMO / folder / "truth").iterdir())
        assert kept == ["00.png", "06.png", "12.png", "18.png", "after.ply", "before.ply"]
        assert sum(path.stat().st_size for path in (DEMO / folder).rglob("*") if path.is_file()) < 600_000
