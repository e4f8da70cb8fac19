"""What can be measured of a finished asset: whether it hangs together, stands, is solid, and looks like its photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull, QhullError

from recon.checks.image_quality import reduced
from recon.mesh.topology import edges_of, face_components
from recon.texture.evidence import EvidenceShares
from scene.camera import Camera
from scene.mesh import ColouredMesh, Faces, Vertices, face_areas, signed_volume
from scene.metrics import mask_iou, psnr
from scene.raycast import RayCaster, mesh_caster
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet

_SIDE = 256
"""Longest side, pixels, of the pictures that are compared."""
_MOST_VIEWS = 8
"""Most of each origin that are looked from."""
_PIECE = 0.002
"""Fraction of the area that a piece has at least; the mesh comes without smaller ones, but for accidents."""
_SURFACES = 24
"""Most surfaces that a ray is followed through."""
_THIN = 0.04
_GROUND = 0.02
"""Fractions of the longest side: thinner is a sheet; what is lower touches the ground."""


@dataclass(frozen=True)
class AssetMeasures:
    """Numbers of an asset; fractions are in [0, 1].

    Args:
        pieces: how many hang together in themselves only; cavities inside of others do not count.
        loose: fraction of the area that belongs to others than the largest.
        handles: holes through it.
        open_edges: edges with one face.
        hollow: fraction of the lines of sight that cross more air than solid between front and back.
        thin: fraction of those that cross a thin sheet only.
        depth: extent along the photo's line of sight over the larger one across it; None with several photos.
        contact: area on which it stands, over that of its outline from above.
        overhang: distance from the foot point of its centre of mass to that area, over the longest side.
        iou: of silhouettes, at the photos' cameras, in the mean.
        psnr: of unlit colours within the photos' masks, there.
        drawn: IoU of silhouettes at the cameras of generated views, in the mean; None without any.
        convex: volume over that of the convex hull.
        seen, invented: fractions of the surface; see :class:`recon.texture.evidence.EvidenceShares`.
        cutout: confidence in the cut-out; 1 where it was given.
    """

    pieces: int
    loose: float
    handles: int
    open_edges: int
    hollow: float
    thin: float
    depth: float | None
    contact: float
    overhang: float
    iou: float
    psnr: float
    drawn: float | None
    convex: float
    seen: float
    invented: float
    cutout: float


def measure_asset(
    vertices: Vertices,
    faces: Faces,
    coloured: ColouredMesh,
    evidence: EvidenceShares,
    views: ViewSet,
    cutout: float = 1.0,
) -> AssetMeasures:
    """Measure an asset in the world of its views (z up).

    Args:
        vertices, faces: its mesh, not yet cut into charts.
        coloured: the same surface with its colours.
        evidence: where they come from.
        views: with a photo at least, whose cameras are looked from.
        cutout: confidence in the photo's mask.
    """
    photos = _some([view for view in views if view.origin == "photo"] or list(views))
    drawn = _some([view for view in views if view.origin == "generated"])
    size = float((vertices.max(axis=0) - vertices.min(axis=0)).max())
    edges = edges_of(faces)
    label = face_components(faces, len(vertices))
    area = np.bincount(label, face_areas(vertices, faces))
    volume = np.array([signed_volume(vertices, faces[label == k]) for k in range(len(area))])
    outer = (volume >= 0) & (area > _PIECE * area.sum())
    genus = len(area) - (len(vertices) - len(edges.ends) + len(faces)) // 2
    caster = mesh_caster(coloured.vertices, coloured.faces)
    solid = np.concatenate([_lines_of_sight(caster, view.camera) for view in photos])
    renderer = MeshRenderer(coloured, UNLIT, caster=caster)
    likeness = [_likeness(renderer, view, views.has_masks, views.has_ignored) for view in photos]
    iou, error = np.mean(likeness, axis=0) if likeness else (0.0, 1.0)
    contact, overhang = _stand(vertices, faces, size)
    return AssetMeasures(
        pieces=max(1, int(outer.sum())),
        loose=float(1 - area[outer].max(initial=0) / max(area[outer].sum(), 1e-12)) if outer.any() else 0.0,
        handles=max(0, genus),
        open_edges=int((edges.uses == 1).sum()),
        hollow=float((solid[:, 0] < 0.5 * solid[:, 1]).mean()) if len(solid) else 0.0,
        thin=float((solid[:, 1] < _THIN * size).mean()) if len(solid) else 0.0,
        depth=_depth(vertices, photos[0].camera) if len(photos) == 1 else None,
        contact=contact,
        overhang=overhang,
        iou=float(iou),
        psnr=float(-10 * np.log10(max(error, 1e-6))),
        drawn=float(np.mean([_outline_iou(caster, view) for view in drawn])) if drawn and views.has_masks else None,
        convex=_convexity(vertices, faces),
        seen=evidence.seen,
        invented=evidence.invented,
        cutout=cutout,
    )


def _some(views: list[View]) -> list[View]:
    """At most eight of some views, spread evenly."""
    if len(views) <= _MOST_VIEWS:
        return views
    return [views[k] for k in np.linspace(0, len(views) - 1, _MOST_VIEWS).round().astype(int)]


def _outline_iou(caster: RayCaster, view: View) -> float:
    """IoU of the mesh's silhouette and a view's mask, at about 64 pixels."""
    scale = min(1.0, 64 / max(view.camera.width, view.camera.height))
    width, height = (max(1, round(scale * n)) for n in (view.camera.width, view.camera.height))
    origins, directions = view.camera.resized(width, height).rays()
    hit = np.isfinite(caster.cast(origins.reshape(-1, 3), directions.reshape(-1, 3)).distance)
    mask = reduced(view.reduced(2 * _SIDE), width, height)[..., 3] >= 128
    return mask_iou(hit.reshape(height, width) & _known(view, width, height), mask)


def _convexity(vertices: Vertices, faces: Faces) -> float:
    try:
        hull = ConvexHull(vertices).volume
    except (QhullError, ValueError):
        return 0.0
    return float(np.clip(abs(signed_volume(vertices, faces)) / max(hull, 1e-12), 0, 1))


def _lines_of_sight(caster: RayCaster, camera: Camera) -> Float[np.ndarray, "n 2"]:
    """How much solid each line of sight that hits the mesh crosses, and how far it is from front to back."""
    small = camera.resized(64, max(1, round(64 * camera.height / camera.width)))
    origins, directions = (values.reshape(-1, 3) for values in small.rays())
    where = np.zeros(len(origins))
    first, last = np.full(len(origins), np.inf), np.zeros(len(origins))
    solid = np.zeros(len(origins))
    active = np.arange(len(origins))
    for k in range(_SURFACES):
        start = origins[active] + where[active, None] * directions[active]
        step = caster.cast(start, directions[active]).distance.astype(np.float64)
        hit = np.isfinite(step)
        active, step = active[hit], step[hit]
        if not len(active):
            break
        if k % 2:
            solid[active] += step
        where[active] += step
        first[active] = np.minimum(first[active], where[active])
        last[active] = where[active]
        where[active] += 1e-4
    met = np.isfinite(first)
    return np.stack([solid[met], last[met] - first[met]], axis=1)


def _likeness(renderer: MeshRenderer, view: View, masked: bool, ignored: bool) -> tuple[float, float]:
    """IoU of silhouettes, and the mean squared error of colours within the photo's."""
    scale = min(1.0, _SIDE / max(view.camera.width, view.camera.height))
    width, height = (max(1, round(scale * n)) for n in (view.camera.width, view.camera.height))
    photo = reduced(view.reduced(2 * _SIDE), width, height).astype(np.float32) / 255
    drawn = renderer.render(view.camera.resized(width, height), samples=1)
    # Without masks, the photo shows more than the object.
    mask = photo[..., 3] >= 0.5 if masked else drawn.mask
    both = mask & drawn.mask & (photo[..., 3] >= 0.99) if ignored else mask & drawn.mask
    error = 1.0 if not both.any() else 10 ** (-psnr(drawn.rgba[..., :3], photo[..., :3], both) / 10)
    return mask_iou(drawn.mask & _known(view, width, height), mask), error


def _known(view: View, width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """Where a view's mask tells anything."""
    unknown = view.unknown((width, height))
    return np.ones((height, width), bool) if unknown is None else unknown == 0


def _depth(vertices: Vertices, camera: Camera) -> float:
    """Extent along the horizontal line of sight over the larger one across it."""
    ahead = camera.forward * (1, 1, 0)
    if np.linalg.norm(ahead) < 1e-6:
        ahead = np.array([1.0, 0, 0])
    ahead = ahead / np.linalg.norm(ahead)
    across = np.array([-ahead[1], ahead[0], 0])
    width = np.ptp(vertices @ across)
    return float(np.ptp(vertices @ ahead) / max(width, np.ptp(vertices[:, 2]), 1e-9))


def _stand(vertices: Vertices, faces: Faces, size: float) -> tuple[float, float]:
    """Area of contact over that of the outline from above, and how far the centre of mass stands outside of it."""
    low = vertices[vertices[:, 2] < vertices[:, 2].min() + _GROUND * size, :2]
    foot, outline = _hull(low), _hull(vertices[:, :2])
    if foot is None or outline is None:
        return 0.0, 0.0
    a, b, c = vertices[faces].transpose(1, 0, 2)
    volume = np.einsum("fc,fc->f", a, np.cross(b, c))
    total = volume.sum()
    centre = ((a + b + c) * volume[:, None]).sum(axis=0) / (4 * total) if abs(total) > 1e-9 else vertices.mean(axis=0)
    beyond = float((foot.equations[:, :2] @ centre[:2] + foot.equations[:, 2]).max())
    return float(foot.volume / max(outline.volume, 1e-12)), max(0.0, beyond) / max(size, 1e-9)


def _hull(points: Float[np.ndarray, "n 2"]) -> ConvexHull | None:
    try:
        return ConvexHull(points)
    except (QhullError, ValueError):  # fewer than three points, or all on one line
        return None
