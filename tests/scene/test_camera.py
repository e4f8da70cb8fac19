"""Cameras: the axioms of the one convention, and round trips to every other."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scene.camera import (
    OBJECT_RADIUS,
    ZERO123_FOV,
    Camera,
    apply_transform,
    c2w_from_colmap,
    c2w_from_opencv,
    c2w_to_opencv,
    camera_from_zero123,
    colmap_from_c2w,
    gltf_from_world,
    look_at,
    normalising_transform,
    orbit_camera,
    orbit_of,
    y_up_from_z_up,
    z_up_from_y_up,
    zero123_pose,
)
from scene.errors import InputError

azimuths = st.floats(-3.1, 3.1)
elevations = st.floats(-1.5, 1.5)
radii = st.floats(0.7, 4.0)
clouds = arrays(np.float64, (5, 3), elements=st.floats(-0.5, 0.5))


def quaternion_rotation(w: float, x: float, y: float, z: float) -> np.ndarray:
    """Rotation matrix of a quaternion of any length but zero."""
    w, x, y, z = np.array([w, x, y, z]) / math.sqrt(w * w + x * x + y * y + z * z)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@st.composite
def poses(draw: st.DrawFn) -> np.ndarray:
    """Any rigid camera-to-world matrix near the origin."""
    part = st.floats(-1, 1)
    quaternion = draw(st.tuples(part, part, part, part).filter(lambda q: sum(v * v for v in q) > 0.01))
    c2w = np.eye(4)
    c2w[:3, :3] = quaternion_rotation(*quaternion)
    c2w[:3, 3] = draw(arrays(np.float64, 3, elements=st.floats(-3, 3)))
    return c2w


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    """Any pinhole camera, square or not, principal point anywhere."""
    width, height = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    focal = st.floats(20, 500)
    return Camera(
        draw(poses()), draw(focal), draw(focal), draw(st.floats(-50, 450)), draw(st.floats(-50, 450)), width, height
    )


def in_front(camera: Camera, cloud: np.ndarray) -> np.ndarray:
    """Points of a cloud moved to between 0.5 and 1.5 before the camera."""
    return apply_transform(camera.c2w, cloud - np.array([0, 0, 1]))


# --- the convention -----------------------------------------------------------------------------------------------


def test_camera_axes_are_opengl() -> None:
    camera = Camera(np.eye(4), 100.0, 50.0, 30.0, 20.0, 64, 48)
    pixels, depth = camera.project(np.array([[0, 0, -2.0], [0.5, 0, -2], [0, 0.5, -2], [0, 0, 2]]))
    assert depth == pytest.approx([2, 2, 2, -2])  # looks along -z
    assert pixels[:3] == pytest.approx(np.array([[30, 20], [30 + 25, 20], [30, 20 - 12.5]]))  # x right, y up
    assert camera.forward == pytest.approx([0, 0, -1])
    assert camera.centre == pytest.approx([0, 0, 0])


def test_azimuth_zero_stands_on_the_x_side_with_y_to_the_right_and_z_up() -> None:
    camera = orbit_camera(0.0, 0.0, 1.5, size=100)
    assert camera.centre == pytest.approx([1.5, 0, 0])
    pixels, _ = camera.project(np.array([[0, 0.1, 0], [0, 0, 0.1]]))
    assert pixels[0, 0] > 50
    assert pixels[0, 1] == pytest.approx(50)
    assert pixels[1, 0] == pytest.approx(50)
    assert pixels[1, 1] < 50


@given(azimuths, elevations, radii)
def test_orbit_cameras_look_at_the_origin_upright(azimuth: float, elevation: float, radius: float) -> None:
    camera = orbit_camera(azimuth, elevation, radius, size=128)
    pixel, depth = camera.project(np.zeros(3))
    assert pixel == pytest.approx([64, 64], abs=1e-9)
    assert depth == pytest.approx(radius)
    assert np.linalg.det(camera.c2w[:3, :3]) == pytest.approx(1)
    assert camera.c2w[2, 0] == pytest.approx(0)  # the horizon is level
    assert camera.c2w[2, 1] > 0  # and the sky is up


@given(azimuths, elevations, radii)
def test_orbit_of_inverts_orbit_camera(azimuth: float, elevation: float, radius: float) -> None:
    assert orbit_of(orbit_camera(azimuth, elevation, radius)) == pytest.approx((azimuth, elevation, radius), abs=1e-7)


@given(azimuths, st.floats(-math.pi / 2, math.pi / 2), st.floats(1.5, 2.2))
def test_the_object_sphere_is_never_cropped(azimuth: float, elevation: float, radius: float) -> None:
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(500, 3))
    sphere *= OBJECT_RADIUS / np.linalg.norm(sphere, axis=1, keepdims=True)
    pixels, _ = orbit_camera(azimuth, elevation, radius, size=128).project(sphere)
    assert pixels.min() > 0
    assert pixels.max() < 128


def test_field_of_view_is_that_of_zero123() -> None:
    assert math.degrees(ZERO123_FOV) == pytest.approx(49.134, abs=1e-3)
    edge = math.tan(ZERO123_FOV / 2)
    pixel, _ = Camera(np.eye(4), *[orbit_camera(0.0, 0.0, size=256).fx] * 2, 128.0, 128.0, 256, 256).project(
        np.array([edge, 0, -1])
    )
    assert pixel == pytest.approx([256, 128])


@pytest.mark.parametrize("pole", [-1, 1])
@given(azimuth=azimuths)
def test_poles_are_the_limit_along_the_azimuth(pole: int, azimuth: float) -> None:
    at = orbit_camera(azimuth, pole * math.pi / 2)
    near = orbit_camera(azimuth, pole * (math.pi / 2 - 1e-7))
    assert at.c2w == pytest.approx(near.c2w, abs=1e-6)
    assert at.forward == pytest.approx([0, 0, -pole])
    beyond = orbit_camera(azimuth, float(np.float32(pole * math.pi / 2)))  # single precision rounds past the pole
    assert beyond.c2w == pytest.approx(at.c2w, abs=1e-6)


@given(azimuths, elevations, radii)
def test_looking_at_the_origin_is_the_orbit_camera(azimuth: float, elevation: float, radius: float) -> None:
    camera = orbit_camera(azimuth, elevation, radius)
    assert look_at(camera.centre) == pytest.approx(camera.c2w, abs=1e-9)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_looking_straight_down_or_up_has_the_heading_of_azimuth_zero(side: float) -> None:
    assert look_at(np.array([0, 0, side])) == pytest.approx(orbit_camera(0.0, side * math.pi / 2, 1.0).c2w, abs=1e-9)


@given(arrays(np.float64, 3, elements=st.floats(-2, 2)), arrays(np.float64, 3, elements=st.floats(3, 5)))
def test_look_at_any_target(centre: np.ndarray, target: np.ndarray) -> None:
    camera = Camera(look_at(centre, target), 100.0, 100.0, 50.0, 50.0, 100, 100)
    pixel, depth = camera.project(target)
    assert pixel == pytest.approx([50, 50], abs=1e-6)
    assert depth == pytest.approx(np.linalg.norm(target - centre))


# --- projection ---------------------------------------------------------------------------------------------------


@given(cameras(), clouds)
def test_unproject_inverts_project_before_and_behind_the_camera(camera: Camera, cloud: np.ndarray) -> None:
    for points in (in_front(camera, cloud), apply_transform(camera.c2w, cloud + np.array([0, 0, 1]))):
        assert camera.unproject(*camera.project(points)) == pytest.approx(points, abs=1e-8)


@given(cameras(), st.floats(-0.3, 1.3), st.floats(-0.3, 1.3))
def test_a_camera_shows_what_is_before_it_and_within_its_borders(camera: Camera, across: float, down: float) -> None:
    pixel = np.array([across * camera.width, down * camera.height])
    expected = 0 <= across < 1 and 0 <= down < 1
    for depth, before in ((2.0, True), (-2.0, False)):
        shown = camera.shows(pixel, np.array(depth))
        assert bool(shown) == (expected and before)


def test_what_has_no_pixel_is_not_shown() -> None:
    camera = orbit_camera(0.3, 0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert camera.shows(np.array([[np.nan, 1], [np.inf, 1], [4, 4]]), np.array([1.0, 0.0, 1.0])).tolist() == [
            False,
            False,
            True,
        ]


@given(cameras(), clouds)
def test_rays_pass_through_the_points_whose_pixels_they_start_from(camera: Camera, cloud: np.ndarray) -> None:
    points = in_front(camera, cloud)
    origins, directions = camera.rays(camera.project(points)[0])
    assert np.linalg.norm(directions, axis=-1) == pytest.approx(1)
    reach = np.linalg.norm(points - origins, axis=-1, keepdims=True)
    assert origins + reach * directions == pytest.approx(points, abs=1e-8)


@given(cameras())
def test_default_rays_go_through_pixel_centres(camera: Camera) -> None:
    origins, directions = camera.rays()
    assert directions.shape == origins.shape == (camera.height, camera.width, 3)
    row, column = camera.height - 1, camera.width // 2
    pixel, depth = camera.project(origins[row, column] + 2 * directions[row, column])
    assert pixel == pytest.approx([column + 0.5, row + 0.5], abs=1e-6)
    assert depth > 0


@given(cameras(), clouds)
def test_intrinsics_and_colmap_pose_project_as_the_camera_does(camera: Camera, cloud: np.ndarray) -> None:
    points = in_front(camera, cloud)
    rotation, translation = colmap_from_c2w(camera.c2w)
    image = (points @ rotation.T + translation) @ camera.intrinsics.T
    pixels, depth = camera.project(points)
    assert image[:, :2] / image[:, 2:] == pytest.approx(pixels, abs=1e-6)
    assert image[:, 2] == pytest.approx(depth)


@given(cameras(), clouds, st.integers(1, 900), st.integers(1, 900))
def test_resizing_commutes_with_projection(camera: Camera, cloud: np.ndarray, width: int, height: int) -> None:
    points = in_front(camera, cloud)
    resized = camera.resized(width, height)
    scale = [width / camera.width, height / camera.height]
    assert resized.project(points)[0] == pytest.approx(camera.project(points)[0] * scale, rel=1e-9, abs=1e-6)
    assert (resized.width, resized.height) == (width, height)


@given(cameras(), clouds, st.floats(0.1, 8), st.tuples(st.floats(-300, 300), st.floats(-300, 300)))
def test_cropping_commutes_with_projection(
    camera: Camera, cloud: np.ndarray, scale: float, offset: tuple[float, float]
) -> None:
    points = in_front(camera, cloud)
    cropped = camera.cropped(scale, offset, 77)
    assert cropped.project(points)[0] == pytest.approx(camera.project(points)[0] * scale + offset, rel=1e-9, abs=1e-6)
    assert (cropped.width, cropped.height) == (77, 77)


def test_points_in_the_camera_plane_are_at_infinity_without_a_warning() -> None:
    camera = Camera(np.eye(4), 100.0, 100.0, 50.0, 50.0, 100, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels, depth = camera.project(np.array([[1.0, 1.0, 0.0]]))
    assert np.isinf(pixels).all()
    assert depth == pytest.approx([0])


# --- other conventions --------------------------------------------------------------------------------------------


@given(poses())
def test_opencv_axes_are_right_down_forward_and_back(c2w: np.ndarray) -> None:
    opencv = c2w_to_opencv(c2w)
    assert opencv[:3, 0] == pytest.approx(c2w[:3, 0])
    assert opencv[:3, 1] == pytest.approx(-c2w[:3, 1])
    assert opencv[:3, 2] == pytest.approx(-c2w[:3, 2])
    assert opencv[:3, 3] == pytest.approx(c2w[:3, 3])
    assert c2w_from_opencv(opencv) == pytest.approx(c2w)


@given(poses())
def test_colmap_round_trip(c2w: np.ndarray) -> None:
    assert c2w_from_colmap(*colmap_from_c2w(c2w)) == pytest.approx(c2w, abs=1e-9)


def test_colmap_identity_looks_along_positive_z_with_y_down() -> None:
    camera = Camera(c2w_from_colmap(np.eye(3), np.zeros(3)), 10.0, 10.0, 0.0, 0.0, 8, 8)
    pixel, depth = camera.project(np.array([1.0, 2.0, 4.0]))
    assert depth == pytest.approx(4)
    assert pixel == pytest.approx([2.5, 5.0])


@pytest.mark.parametrize(
    ("up_deg", "right_deg", "away", "pose"),
    [
        (30, 90, 0, [-0.523599, 1, 0, 0]),
        (0, 180, 0, [0, 0, -1, 0]),
        (0, 0, 0, [0, 0, 1, 0]),
        (-20, -90, 0.3, [math.radians(20), -1, 0, 0.3]),
    ],
)
def test_zero123_vectors(up_deg: float, right_deg: float, away: float, pose: list[float]) -> None:
    """The demo's inputs: x = -30 is 30 degrees from above, y = 90 is the view from the right."""
    source = orbit_camera(0.4, 0.1, 1.5)
    target = orbit_camera(0.4 + math.radians(right_deg), 0.1 + math.radians(up_deg), 1.5 + away)
    assert zero123_pose(source, target) == pytest.approx(pose, abs=1e-6)


@given(azimuths, st.floats(-0.7, 0.7), st.floats(0.05, 0.7), st.floats(0.05, 3.0), radii)
def test_zero123_signs_as_the_source_camera_sees_them(
    azimuth: float, elevation: float, up: float, right: float, radius: float
) -> None:
    source = orbit_camera(azimuth, elevation, radius)
    raised = orbit_camera(azimuth, elevation + up, radius)
    assert zero123_pose(source, raised)[0] < 0
    assert (raised.centre - source.centre) @ source.c2w[:3, 1] > 0
    moved = orbit_camera(azimuth + right, elevation, radius)
    assert zero123_pose(source, moved)[1] > 0
    assert (moved.centre - source.centre) @ source.c2w[:3, 0] > 0


@given(azimuths, elevations, radii, azimuths, elevations, radii)
def test_zero123_round_trip(a: float, e: float, r: float, target_a: float, target_e: float, target_r: float) -> None:
    source = orbit_camera(a, e, r, size=96, fov=0.5)
    target = orbit_camera(target_a, target_e, target_r, size=96, fov=0.5)
    back = camera_from_zero123(source, zero123_pose(source, target))
    assert back.c2w == pytest.approx(target.c2w, abs=1e-6)
    assert (back.fx, back.fy, back.cx, back.cy, back.width, back.height) == pytest.approx(
        (target.fx, target.fy, target.cx, target.cy, 96, 96)
    )


@given(azimuths)
def test_gltf_front_faces_z_and_up_is_y(azimuth: float) -> None:
    matrix = gltf_from_world(azimuth)
    front = np.array([math.cos(azimuth), math.sin(azimuth), 0])
    assert apply_transform(matrix, front) == pytest.approx([0, 0, 1], abs=1e-12)
    assert apply_transform(matrix, np.array([0.0, 0, 1])) == pytest.approx([0, 1, 0])
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


@given(clouds)
def test_y_up_and_z_up_are_inverse_rotations(cloud: np.ndarray) -> None:
    assert y_up_from_z_up(z_up_from_y_up(cloud)) == pytest.approx(cloud)
    assert z_up_from_y_up(y_up_from_z_up(cloud)) == pytest.approx(cloud)
    # Handedness survives: the image of a cross product is the cross product of the images.
    a, b = cloud[:1], cloud[1:2]
    assert z_up_from_y_up(np.cross(a, b)) == pytest.approx(np.cross(z_up_from_y_up(a), z_up_from_y_up(b)), abs=1e-12)
    assert z_up_from_y_up(np.array([0.0, 1.0, 0.0])) == pytest.approx([0, 0, 1])


# --- normalisation ------------------------------------------------------------------------------------------------


@given(poses(), poses(), clouds)
def test_transforms_compose(first: np.ndarray, second: np.ndarray, cloud: np.ndarray) -> None:
    at_once = apply_transform(second @ first, cloud)
    assert at_once == pytest.approx(apply_transform(second, apply_transform(first, cloud)), abs=1e-9)


spread_clouds = clouds.filter(lambda c: np.ptp(c, axis=0).max() > 0.01)


@given(spread_clouds)
def test_normalised_points_fill_the_sphere_about_their_box(cloud: np.ndarray) -> None:
    points = apply_transform(normalising_transform(cloud), cloud)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(OBJECT_RADIUS)
    assert points.min(axis=0) == pytest.approx(-points.max(axis=0), abs=1e-9)


@given(spread_clouds, st.floats(0.1, 50), arrays(np.float64, 3, elements=st.floats(-5, 5)))
def test_normalisation_forgets_scale_and_place(cloud: np.ndarray, scale: float, shift: np.ndarray) -> None:
    first = apply_transform(normalising_transform(cloud), cloud)
    moved = cloud * scale + shift
    assert apply_transform(normalising_transform(moved), moved) == pytest.approx(first, abs=1e-6)


# --- errors -------------------------------------------------------------------------------------------------------


def broken(change: dict[tuple[int, int], float]) -> np.ndarray:
    """The identity with some entries replaced."""
    matrix = np.eye(4)
    for place, value in change.items():
        matrix[place] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (broken({(0, 0): -1}), "mirrored"),
        (broken({(0, 1): 0.2}), "not orthonormal"),
        (broken({(0, 0): 1.01}), "not orthonormal"),
        (2 * np.eye(4), "Remove scale or shear"),
        (broken({(0, 3): math.nan}), "finite 4x4"),
        (broken({(2, 2): math.inf}), "finite 4x4"),
        (np.eye(3), "finite 4x4"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_poses_that_are_not_rigid_motions_are_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Camera(matrix, 100.0, 100.0, 50.0, 50.0, 100, 100)


@pytest.mark.parametrize("change", [{"width": 0}, {"height": -3}, {"fx": 0.0}, {"fy": -1.0}, {"fx": math.nan}])
def test_empty_pictures_and_focal_lengths_are_refused(change: dict[str, float]) -> None:
    values = {"fx": 100.0, "fy": 100.0, "cx": 50.0, "cy": 50.0, "width": 100, "height": 100, **change}
    with pytest.raises(InputError, match="positive size and focal length"):
        Camera(np.eye(4), **values)


def test_single_precision_poses_are_accepted() -> None:
    pose = orbit_camera(0.3, 0.2).c2w.astype(np.float32)
    assert Camera(pose, 1.0, 1.0, 0.0, 0.0, 1, 1).c2w.dtype == np.float64


def test_a_camera_cannot_stand_at_its_target() -> None:
    with pytest.raises(InputError, match="cannot stand at the point"):
        look_at(np.ones(3), np.ones(3))


@pytest.mark.parametrize("orbit", [(math.nan, 0.0, 1.0), (0.0, math.nan, 1.0), (0.0, 0.0, math.nan)])
def test_orbits_that_are_not_finite_are_refused(orbit: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="finite"):
        orbit_camera(*orbit)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((0, 3)), "without finite points"),
        (np.array([[0, 0, math.nan]]), "without finite points"),
        (np.ones((4, 3)), "single point"),
    ],
)
def test_nothing_to_normalise(points: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalising_transform(points)
