"""Ray casters against a plain reference: every triangle tried for every ray."""

from __future__ import annotations

import numpy as np
import pytest

from scene import raycast
from scene.errors import MissingBackendError
from scene.raycast import EmbreeCaster, Hits, Open3DCaster, RayCaster, mesh_caster, unoccluded


def reference_hits(vertices: np.ndarray, faces: np.ndarray, origins: np.ndarray, directions: np.ndarray) -> Hits:
    """Moeller and Trumbore's intersection of every ray with every triangle."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64)[None] for k in range(3))
    o, d = origins[:, None].astype(np.float64), directions[:, None].astype(np.float64)
    p = np.cross(d, c - a)
    inverse = 1 / ((b - a) * p).sum(-1)
    u = ((o - a) * p).sum(-1) * inverse
    q = np.cross(o - a, b - a)
    v = (d * q).sum(-1) * inverse
    t = ((c - a) * q).sum(-1) * inverse
    t = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, np.inf)
    face = t.argmin(axis=1)
    row = np.arange(len(origins))
    distance = t[row, face]
    return Hits(np.where(np.isfinite(distance), face, -1), distance, np.stack([u[row, face], v[row, face]], 1))


@pytest.fixture(params=["embree", "open3d"])
def caster_kind(request: pytest.FixtureRequest) -> type[RayCaster]:
    """Each caster that is installed."""
    if request.param == "open3d":
        pytest.importorskip("open3d", reason="open3d, an optional ray caster, is not installed")
        return Open3DCaster
    pytest.importorskip("embreex", reason="embreex has no wheel for this machine: open3d casts the rays")
    return EmbreeCaster


def soup(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random triangles about the origin."""
    vertices = np.random.default_rng(1).uniform(-1, 1, (3 * count, 3)).astype(np.float32)
    return vertices, np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def test_casters_agree_with_the_reference(caster_kind: type[RayCaster]) -> None:
    vertices, faces = soup(60)
    rng = np.random.default_rng(2)
    origins = rng.uniform(-2, 2, (800, 3))
    directions = rng.uniform(-1, 1, (800, 3)) - origins
    truth = reference_hits(vertices, faces, origins, directions)
    hits = caster_kind(vertices, faces).cast(origins, directions)
    same = hits.face == truth.face
    assert same.mean() > 0.99  # rays through an edge may go either way
    assert 0.3 < (truth.face >= 0).mean() < 1  # the scene has both hits and misses
    hit = same & (truth.face >= 0)
    assert hits.distance[hit] == pytest.approx(truth.distance[hit], rel=1e-3)
    assert hits.bary[hit] == pytest.approx(truth.bary[hit], abs=1e-3)
    assert np.isinf(hits.distance[hits.face < 0]).all()


def test_distance_is_in_units_of_the_direction(caster_kind: type[RayCaster]) -> None:
    vertices = np.array([[-5, -5, 2], [5, -5, 2], [0, 5, 2]], np.float32)
    caster = caster_kind(vertices, np.array([[0, 1, 2]]))
    hits = caster.cast(np.zeros((3, 3)), np.array([[0, 0, 1], [0, 0, 0.5], [0, 0, -1.0]]))
    assert hits.distance == pytest.approx([2, 4, np.inf])
    assert hits.face.tolist() == [0, 0, -1]


def test_without_a_caster_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raycast, "optional_module", lambda name: None)
    with pytest.raises(MissingBackendError, match="pip install embreex"):
        mesh_caster(*soup(1))


SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32), np.array([[0, 1, 2], [0, 2, 3]])


def test_what_a_wall_stands_before_is_hidden(caster_kind: type[RayCaster]) -> None:
    caster = caster_kind(*SQUARE)
    ends = np.array([[0.1, 0.2, -1], [0.1, 0.2, 0.5], [3.0, 0, -1], [0.3, -0.1, -0.01]])
    eye = np.array([0.0, 0, 2])
    assert unoccluded(caster, eye, ends).tolist() == [False, True, True, False]
    # The other way round it is the same, and one end may be a single point.
    assert unoccluded(caster, ends, eye).tolist() == [False, True, True, False]
    assert unoccluded(caster, np.broadcast_to(eye, (4, 3)), ends).tolist() == [False, True, True, False]


def test_tolerances_let_points_on_the_surface_be_seen(caster_kind: type[RayCaster]) -> None:
    caster = caster_kind(*SQUARE)
    rng = np.random.default_rng(0)
    on = np.concatenate([rng.uniform(-0.9, 0.9, (500, 2)), np.zeros((500, 1))], axis=1)
    eye = np.array([0.3, 0.4, 2.0])
    assert unoccluded(caster, eye, on, relative=1e-3).all()
    assert unoccluded(caster, eye, on, absolute=2e-3).all()
    behind = on - [0, 0, 0.1]
    assert not unoccluded(caster, eye, behind, absolute=2e-3).any()
    assert unoccluded(caster, eye, behind, absolute=0.3).all()
    assert unoccluded(caster, eye, behind, relative=0.1).all()


def test_points_agree_with_the_reference(caster_kind: type[RayCaster]) -> None:
    vertices, faces = soup(40)
    start, end = np.random.default_rng(5).uniform(-2, 2, (2, 600, 3))
    truth = reference_hits(vertices, faces, start, end - start).distance > 1
    found = unoccluded(caster_kind(vertices, faces), start, end)
    assert (found == truth).mean() > 0.99
    assert 0.1 < truth.mean() < 0.95
