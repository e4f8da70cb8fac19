"""The coarse volume: what the frustum holds lands where it should, and pictures of it are those of the solid."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.diffusion.modules.coarse_volume import (
    CoarseVolume,
    CoarseVolumeModel,
    flattened,
    grid_points,
    render_coarse_volume,
    render_volume,
)
from pipeline.diffusion.modules.poses import Poses
from scene.camera import DEFAULT_RADIUS, OBJECT_RADIUS, Camera, orbit_camera
from scene.voxels import voxel_centres

CPU = torch.device("cpu")
IMAGE, RESOLUTION = 32, 8
Description = tuple[float, float, float, float]
SOURCES: list[Description] = [(0.0, 1.1, 0.5, 0.5), (0.6, 1.1, 0.5, 0.5), (-0.2, 1.3, 0.45, 0.56)]


def small_model(seed: int = 0) -> CoarseVolumeModel:
    """An untrained model."""
    torch.manual_seed(seed)
    return CoarseVolumeModel(image_size=IMAGE, resolution=RESOLUTION, channels=(16, 16, 16), fine_channels=8).eval()


def camera_of(description: Description, size: int) -> Camera:
    """The camera of a source description."""
    elevation, focal, cx, cy = description
    return Camera(
        orbit_camera(0.0, elevation, DEFAULT_RADIUS).c2w, focal * size, focal * size, cx * size, cy * size, size, size
    )


def frustum_positions(camera: Camera) -> np.ndarray:
    """World positions of the frustum's cells ``[depth, y, x]``."""
    xs, ys = np.meshgrid(np.arange(IMAGE) + 0.5, np.arange(IMAGE) + 0.5)
    depths = DEFAULT_RADIUS + ((np.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 - 1) * OBJECT_RADIUS
    pixels = np.broadcast_to(np.stack([xs, ys], -1), (RESOLUTION, IMAGE, IMAGE, 2))
    return camera.unproject(pixels, np.broadcast_to(depths[:, None, None], pixels.shape[:-1]))


def filled(model: CoarseVolumeModel, frustum: np.ndarray) -> None:
    """Make the model's head say ``[5, depth, y, x]`` whatever the photo."""
    values = torch.from_numpy(frustum.reshape(1, 5 * RESOLUTION, IMAGE, IMAGE)).float()
    model.head.register_forward_hook(lambda module, inputs, output: values.expand(len(output), -1, -1, -1))


# --- placement --------------------------------------------------------------------------------------------------------


def test_grid_points_are_voxel_centres() -> None:
    assert grid_points(5, CPU).numpy() == pytest.approx(voxel_centres(5), abs=1e-6)


@pytest.mark.parametrize("description", SOURCES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_frustum_is_placed_where_its_camera_looks(description: Description, axis: int) -> None:
    """A coordinate written at every cell of the frustum is read back at every voxel that the camera sees."""
    model, camera = small_model(), camera_of(description, IMAGE)
    frustum = np.zeros((5, RESOLUTION, IMAGE, IMAGE))
    frustum[0] = frustum_positions(camera)[..., axis]
    filled(model, frustum)
    with torch.no_grad():
        logits, _, _ = model(torch.zeros(1, 4, IMAGE, IMAGE), torch.tensor([description]))
    points = voxel_centres(RESOLUTION)
    pixels, depth = camera.project(points)
    cell = OBJECT_RADIUS / RESOLUTION
    seen = ((pixels > 1) & (pixels < IMAGE - 1)).all(-1) & (np.abs(depth - DEFAULT_RADIUS) < OBJECT_RADIUS - cell)
    assert seen.mean() > 0.4
    assert logits[0].numpy()[seen] == pytest.approx(points[..., axis][seen], abs=0.01)


def test_copied_colours_are_those_of_the_photo_pixel_behind_which_a_voxel_lies() -> None:
    model, description = small_model(), SOURCES[2]
    camera = camera_of(description, IMAGE)
    frustum = np.zeros((5, RESOLUTION, IMAGE, IMAGE))
    frustum[1] = 20  # copy everywhere
    filled(model, frustum)
    photo = torch.zeros(1, 4, IMAGE, IMAGE)
    photo[0, 0] = torch.linspace(-1, 1, IMAGE)  # red grows to the right
    photo[0, 1] = torch.linspace(-1, 1, IMAGE)[:, None]  # green grows downwards
    with torch.no_grad():
        _, colours, _ = model(photo, torch.tensor([description]))
    pixels, _ = camera.project(voxel_centres(RESOLUTION))
    seen = ((pixels > 1) & (pixels < IMAGE - 1)).all(-1)
    expected = (pixels[seen] - 0.5) / (IMAGE - 1)
    assert pytest.approx(expected, abs=1e-3) == colours[0, :2].numpy()[:, seen].T


def test_own_colours_are_the_heads() -> None:
    model = small_model()
    frustum = np.full((5, RESOLUTION, IMAGE, IMAGE), -20.0)
    frustum[3] = 20
    filled(model, frustum)
    with torch.no_grad():
        colours = model(torch.zeros(1, 4, IMAGE, IMAGE), torch.tensor([SOURCES[0]]))[1]
    assert torch.allclose(colours[0].flatten(1).T, torch.tensor([0.0, 1.0, 0.0]), atol=1e-4)


def test_without_a_camera_the_predicted_one_places_the_frustum() -> None:
    model, photo = small_model(), torch.rand(2, 4, IMAGE, IMAGE) * 2 - 1
    with torch.no_grad():
        logits, colours, predicted = model(photo)
        again = model(photo, predicted)
    assert torch.allclose(logits, again[0], atol=1e-5)
    assert torch.allclose(colours, again[1], atol=1e-5)
    volume = model.predict(photo)
    assert torch.equal(volume.source, predicted)
    assert torch.allclose(volume.occupancy, logits.sigmoid())
    source = torch.tensor([SOURCES[1]] * 2)
    assert torch.equal(model.predict(photo, source).source, source)
    assert model.predict(photo)[1:].occupancy.shape == (1, RESOLUTION, RESOLUTION, RESOLUTION)


def test_sharpness_spreads_what_is_predicted_and_keeps_the_level() -> None:
    photo = torch.rand(2, 4, IMAGE, IMAGE) * 2 - 1
    soft = small_model()
    sharp = CoarseVolumeModel(**{**soft.settings, "sharpness": 3.0})
    sharp.load_state_dict(soft.state_dict())
    sharp.eval()
    a, b = soft.predict(photo).occupancy, sharp.predict(photo).occupancy
    assert torch.equal(a > 0.5, b > 0.5)
    assert torch.allclose(b, (3 * torch.logit(a)).sigmoid(), atol=1e-5)
    with torch.no_grad():
        assert torch.equal(soft(photo)[0], sharp(photo)[0])  # what is trained is not


def test_photos_are_flattened_within_their_outline() -> None:
    """Half-covered pixels too: what is not the object stays white, and its mean colour stays what it is."""
    own, alpha = torch.rand(1, 3, 8, 8), (torch.rand(1, 1, 8, 8) * 3 - 1).clamp(0, 1)
    photo = torch.cat([own * alpha + 1 - alpha, alpha], 1) * 2 - 1
    mean = ((own * alpha).sum((2, 3)) / alpha.sum((2, 3)))[..., None, None]
    for contrast in (1.0, 0.5, 0.0):
        wanted = contrast * own + (1 - contrast) * mean
        found = (flattened(photo, contrast) + 1) / 2
        assert torch.allclose(found, torch.cat([wanted * alpha + 1 - alpha, alpha], 1), atol=1e-5)
    nothing = torch.cat([torch.ones(1, 3, 4, 4), -torch.ones(1, 1, 4, 4)], 1)
    assert torch.allclose(flattened(nothing, 0.5), nothing)


def test_contrast_changes_the_shape_alone() -> None:
    photo = torch.rand(2, 4, IMAGE, IMAGE) * 2 - 1
    full = small_model()
    less = CoarseVolumeModel(**{**full.settings, "contrast": 0.5})
    less.load_state_dict(full.state_dict())
    less.eval()
    a, b = full.predict(photo), less.predict(photo)
    assert not torch.allclose(a.occupancy, b.occupancy)
    assert torch.equal(a.colours, b.colours)
    assert torch.equal(a.source, b.source)
    with torch.no_grad():
        assert torch.allclose(b.occupancy, full(flattened(photo, 0.5), a.source)[0].sigmoid())


def test_a_camera_elsewhere_turns_the_volume() -> None:
    """A quarter turn of the camera in the grid's frame is a quarter turn of what it sees, about the upright axis."""
    model, photo = small_model(), torch.rand(2, 4, IMAGE, IMAGE) * 2 - 1
    source = torch.tensor([SOURCES[2], SOURCES[1]])
    with torch.no_grad():
        still = model(photo, source)
        turned = model(photo, source, torch.tensor([0.0, math.pi / 2]))
    for one, other in zip(still[:2], turned[:2], strict=True):
        assert torch.allclose(other[0], one[0], atol=1e-5)
        assert torch.allclose(other[1], one[1].rot90(1, (-3, -2)), atol=1e-4)
        assert not torch.allclose(other[1], one[1], atol=1e-4)


def test_a_model_grows_a_camera_map_without_effect_at_first() -> None:
    model, photo = small_model(), torch.rand(2, 4, IMAGE, IMAGE) * 2 - 1
    grown = model.grown(3)
    assert grown.config["camera_channels"] == 3
    assert not grown.training
    with torch.no_grad():
        for one, other in zip(model(photo), grown(photo), strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    grown.train()
    grown(photo)[2].square().sum().backward()
    assert float(grown.camera[0].weight.grad[:, 16:].abs().sum()) > 0  # but it learns


def test_the_camera_map_keeps_places() -> None:
    """Two halves of a picture that change places give the same mean and another camera."""
    torch.manual_seed(0)
    model = CoarseVolumeModel(
        image_size=IMAGE, resolution=RESOLUTION, channels=(16, 16, 16), fine_channels=8, camera_channels=4
    ).eval()
    x3 = torch.randn(1, 16, 4, 4)
    model.middle = torch.nn.Sequential()
    found = []
    for features in (x3, x3.roll(2, 3)):
        model.down3.register_forward_hook(lambda *_, features=features: features)
        with torch.no_grad():
            found.append(model(torch.zeros(1, 4, IMAGE, IMAGE))[2])
    assert not torch.allclose(found[0], found[1], atol=1e-4)


def test_photos_of_other_sizes_are_reduced() -> None:
    model, photo = small_model(), torch.rand(1, 4, 3 * IMAGE, 3 * IMAGE) * 2 - 1
    reduced = torch.nn.functional.interpolate(photo, (IMAGE, IMAGE), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.allclose(model(photo)[0], model(reduced)[0], atol=1e-5)


# --- pictures ---------------------------------------------------------------------------------------------------------

CENTRE, RADIUS = np.array([0.1, -0.15, 0.12]), 0.33
VOXEL = 2 * OBJECT_RADIUS / 32
VIEWS = torch.tensor([[0.0, 0.0, 1.5], [1.2, 0.5, 1.5], [-2.5, -0.3, 2.0], [3.0, 1.2, 1.8], [0.4, math.pi / 2, 1.5]])
SIZE = 48


def ball(colour: Callable[[np.ndarray], np.ndarray], source: Description = SOURCES[0]) -> CoarseVolume:
    """A sphere beside the origin, with a soft rim of one voxel."""
    points = voxel_centres(32)
    occupancy = np.clip((RADIUS - np.linalg.norm(points - CENTRE, axis=-1)) / VOXEL + 0.5, 0, 1)
    return CoarseVolume(
        torch.from_numpy(occupancy[None]).float(),
        torch.from_numpy(np.moveaxis(colour(points), -1, 0)[None]).float(),
        torch.tensor([source]),
    )


def grey(points: np.ndarray) -> np.ndarray:
    """The same grey everywhere."""
    return np.full_like(points, 0.5)


def by_place(points: np.ndarray) -> np.ndarray:
    """The position as a colour."""
    return points / (2 * OBJECT_RADIUS) + 0.5


def exact_hits(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Distance along the ray to the sphere (0 where it misses), and the point hit."""
    origins, directions = camera.rays()
    offset = origins - CENTRE
    along = (offset * directions).sum(-1)
    inside = along**2 - (offset**2).sum(-1) + RADIUS**2
    distance = np.where(inside > 0, -along - np.sqrt(np.maximum(inside, 0)), 0)
    return distance, origins + distance[..., None] * directions


@pytest.mark.parametrize("k", range(len(VIEWS)))
def test_pictures_of_a_sphere_show_its_outline_distance_and_colours(k: int) -> None:
    pictures = render_volume(ball(by_place), Poses.of_orbits(VIEWS)[k : k + 1].reshape(1, 1), SIZE)
    azimuth, elevation, radius = (float(v) for v in VIEWS[k])
    camera = orbit_camera(azimuth, elevation, radius, size=SIZE)
    distance, points = exact_hits(camera)
    alpha = pictures.alpha[0, 0, 0].numpy()
    # The outline lies within a voxel of the truth (opacity of the soft rim adds up along grazing rays).
    origins, directions = camera.rays()
    miss = np.linalg.norm(np.cross(origins - CENTRE, directions), axis=-1)
    assert alpha[miss < RADIUS - 0.5 * VOXEL].min() > 0.9
    assert alpha[miss > RADIUS + 1.5 * VOXEL].max() < 0.05
    outline = np.abs(alpha - 0.5) < 0.25
    assert np.abs(miss - RADIUS)[outline].max() < 1.2 * VOXEL
    core = miss < RADIUS - VOXEL
    assert np.abs(pictures.distance[0, 0, 0].numpy() - distance)[core].max() < 1.5 * VOXEL
    assert np.abs(pictures.distance[0, 0, 0].numpy() - distance)[core].mean() < 0.7 * VOXEL
    colour = pictures.colour[0, 0].numpy()[:, core].T / alpha[core][:, None]
    assert colour == pytest.approx(by_place(points)[core], abs=2 * VOXEL)
    assert (pictures.distance[0, 0, 0].numpy()[alpha < 0.01] == 0).all()


def test_rays_through_two_thin_surfaces_keep_their_colour() -> None:
    """Their mean depth lies in the empty space between."""
    points = voxel_centres(32)
    sheets = np.isclose(np.abs(points[..., 0]), 8.5 * VOXEL) * 0.1
    volume = CoarseVolume(
        torch.from_numpy(sheets[None]).float(), torch.full((1, 3, 32, 32, 32), 0.8), torch.tensor([SOURCES[0]])
    )
    pictures = render_volume(volume, Poses.of_orbits(torch.tensor([[[0.0, 0.0, 1.5]]])), SIZE)
    alpha = pictures.alpha[0, 0, 0]
    seen = alpha > 0.2
    assert seen.sum() > 100
    assert float(((pictures.colour[0, 0] / alpha.clamp(min=1e-4))[:, seen] - 0.8).abs().max()) < 0.01


def test_volumes_and_views_of_a_batch_do_not_mix() -> None:
    one, two = ball(by_place), ball(grey)
    two = CoarseVolume(two.occupancy.flip(1), two.colours, two.source)
    batch = CoarseVolume(*(torch.cat([getattr(v, n) for v in (one, two)]) for n in ("occupancy", "colours", "source")))
    poses = Poses.of_orbits(VIEWS[:4]).reshape(2, 2)
    together = render_volume(batch, poses, 16)
    for k, volume in enumerate((one, two)):
        alone = render_volume(volume, poses[k : k + 1], 16)
        for name in ("colour", "alpha", "distance"):
            assert torch.allclose(getattr(together, name)[k], getattr(alone, name)[0], atol=1e-5), name


def test_an_empty_volume_gives_an_empty_picture() -> None:
    volume = CoarseVolume(torch.zeros(1, 8, 8, 8), torch.rand(1, 3, 8, 8, 8), torch.tensor([SOURCES[0]]))
    pictures = render_coarse_volume(volume, torch.ones(1, 4, 32, 32), Poses.of_orbits(VIEWS[None]), 16)
    for name in ("colour", "alpha", "distance", "visible"):
        assert torch.equal(getattr(pictures, name), torch.zeros_like(getattr(pictures, name))), name


def photo_of(volume: CoarseVolume, colour: torch.Tensor, size: int = 96) -> torch.Tensor:
    """What the volume's own camera sees, painted with ``[3, size, size]`` or a single colour, on white with alpha."""
    alpha = render_volume(volume, Poses.of_sources(volume.source).reshape(1, 1), size).alpha[:, 0]
    white = colour.expand(1, 3, size, size) * alpha + 1 - alpha
    return torch.cat([white, alpha], 1) * 2 - 1


RED = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1)


@pytest.mark.parametrize("source", SOURCES)
def test_the_photo_paints_the_side_it_sees(source: Description) -> None:
    volume = ball(grey, source)
    elevation = source[0]
    towards = np.array([math.cos(elevation), 0, math.sin(elevation)]) * DEFAULT_RADIUS - CENTRE
    towards /= np.linalg.norm(towards)
    for azimuth, tilt in ((0.0, elevation), (math.pi / 2, 0.2), (math.pi, -elevation)):
        camera = orbit_camera(azimuth, tilt, 1.5, size=SIZE)
        pictures = render_coarse_volume(volume, photo_of(volume, RED), Poses.of([camera]).reshape(1, 1), SIZE)
        distance, points = exact_hits(camera)
        core = (distance > 0) & (pictures.alpha[0, 0, 0].numpy() > 0.98)
        colour = pictures.colour[0, 0].numpy() / np.maximum(pictures.alpha[0, 0].numpy(), 1e-6)
        facing = (points - CENTRE) / RADIUS @ towards
        lit, hidden = core & (facing > 0.5), core & (facing < -0.2)
        assert lit.sum() + hidden.sum() > 100
        assert np.abs(colour[:, lit] - RED[:, :, 0].numpy()).max(initial=0) < 0.05
        assert np.abs(colour[:, hidden] - 0.5).max(initial=0) < 0.05
        visible = pictures.visible[0, 0, 0].numpy()
        assert visible[lit].min(initial=1) > 0.9
        assert visible[hidden].max(initial=0) < 0.1


def test_from_its_own_camera_the_picture_is_the_photo() -> None:
    """Also when the camera does not look at the middle: left and right, up and down stay where they are."""
    volume = ball(grey, SOURCES[2])
    ramp = torch.linspace(0, 1, 96)
    photo = photo_of(volume, torch.stack([ramp.expand(96, 96), ramp[:, None].expand(96, 96), torch.zeros(96, 96)]))
    pictures = render_coarse_volume(volume, photo, Poses.of_sources(volume.source).reshape(1, 1), SIZE)
    seen = torch.nn.functional.interpolate(photo, (SIZE, SIZE), mode="area")
    white = (pictures.colour + 1 - pictures.alpha)[0]
    core, outside = pictures.alpha[0, 0, 0] > 0.98, pictures.alpha[0, 0, 0] < 0.01
    assert float((white[0] - (seen[0, :3] + 1) / 2)[:, core].abs().max()) < 0.05
    assert float(white[0][:, outside].min()) > 0.98  # and not NaN, though background rays begin at the same point


def test_half_covered_photo_pixels_do_not_paint_white_rims() -> None:
    """A red ball in front of white, photographed and painted with its photo, is red up to its edge."""

    def red(points: np.ndarray) -> np.ndarray:
        return np.broadcast_to(RED[:, 0, 0].numpy(), points.shape).copy()

    volume = ball(red)
    poses = Poses.of_sources(volume.source).reshape(1, 1)
    pictures = render_coarse_volume(volume, photo_of(volume, RED, size=24), poses, SIZE)
    alpha = pictures.alpha[0, 0, 0]
    assert ((alpha > 0.3) & (alpha < 0.95)).sum() > 50
    colour = (pictures.colour[0, 0] / alpha.clamp(min=1e-4))[:, alpha > 0.3]
    assert float((colour - RED[:, :, 0]).abs().max()) < 0.06


def test_what_hides_behind_the_first_surface_is_not_painted() -> None:
    """Two plates one behind the other: the far one keeps its own colour."""
    points = voxel_centres(32)
    plates = (np.abs(np.abs(points[..., 0]) - 0.3) < 0.05) & (np.abs(points[..., 1:]) < 0.4).all(-1)
    volume = CoarseVolume(
        torch.from_numpy(plates[None]).float(), torch.full((1, 3, 32, 32, 32), 0.5), torch.tensor([SOURCES[0]])
    )
    side = orbit_camera(0.9, 0.5, 1.6, size=SIZE)
    pictures = render_coarse_volume(volume, photo_of(volume, RED), Poses.of([side]).reshape(1, 1), SIZE)
    origins, directions = side.rays()
    points = origins + pictures.distance[0, 0, 0].numpy()[..., None] * directions
    core = pictures.alpha[0, 0, 0].numpy() > 0.95
    inner = core & (np.abs(points[..., 1:]) < 0.3).all(-1)
    near, far = inner & (points[..., 0] > 0.25), inner & (points[..., 0] < -0.15)
    assert near.sum() > 20
    assert far.sum() > 20
    visible = pictures.visible[0, 0, 0].numpy()
    assert visible[near].mean() > 0.8
    assert visible[far].max() < 0.1
