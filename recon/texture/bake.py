"""A texture for a mesh: colours projected from the views with visibility, one view's detail on each part."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage, sparse

from recon.mesh.topology import edges_of
from recon.specular import SpecularSH
from recon.texture.blend import choose_views, detail_weights, smooth_offsets, view_gains, view_trust
from recon.texture.choice import choose_for_texture
from recon.texture.evidence import KINDS
from recon.texture.layers import SurfaceGraph, agreement, coverage, matched_gain, matching_shift
from recon.texture.projected_view import ProjectedView, read_view
from recon.texture.rasterise import rasterise
from recon.texture.unwrap import unwrap
from recon.texture.visibility import HIDDEN, WHOLE, Visibility, compute_visibility, subdivided, visible
from scene.mesh import ColouredMesh, Faces, Vertices, face_areas, vertex_normals
from scene.raycast import RayCaster, mesh_caster
from scene.view import LARGE, Origin, View
from scene.viewset import ViewSet

_LOG = logging.getLogger("viewloom")
_TEXELS = 300
"""Most texels a face has on average where views are chosen: larger faces are divided for that."""
_MODEL_WEIGHT = 0.004
"""Weight of the model's colour beside the views', so that it fades in where these see the surface at grazing angles."""

_BLOTCH = 0.03
"""World units over which the colours of generated views are averaged: finer detail of theirs is not the object's."""
_HELD_PIXELS = 300_000_000
"""Most pixels of all views that are kept in memory."""
_PIXELS_A_TEXEL = 2.0
"""Least pixels along a texel that pictures keep when those of a capture are too many to be held and are reduced."""
_COMPARED_SIDE = 800
"""Longest side, pixels, at which large pictures are read to be compared only."""


@runtime_checkable
class ColourModel(Protocol):
    """Anything that has a colour everywhere."""

    def colours_at(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB in [0, 1] at world points."""


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A mesh with one texture, world units.

    Args:
        vertices: positions; those on chart borders appear once per chart.
        faces: vertex indices.
        normals: unit vertex normals, continuous over chart borders.
        uv: in [0, 1], v measured down from the image's top row (glTF's way).
        texture: sRGB.
        evidence: where each vertex's colour comes from, in rows that add up to 1; see
            :data:`recon.texture.evidence.KINDS`.
        left_out: names of views that were not used, since enough others show the same better.
    """

    vertices: Vertices
    faces: Faces
    normals: Vertices
    uv: Float[np.ndarray, "v 2"]
    texture: UInt8[np.ndarray, "s s 3"]
    evidence: Float[np.ndarray, "v 4"] | None = None
    left_out: tuple[str, ...] = ()

    def coloured(self) -> ColouredMesh:
        """As the renderer takes it; to be drawn without light."""
        return ColouredMesh(
            self.vertices.astype(np.float32), self.faces, uv=self.uv.astype(np.float32), texture=self.texture
        )


def bake(
    vertices: Vertices,
    faces: Faces,
    views: ViewSet,
    surface: ColourModel,
    side: int = 1024,
    *,
    cosine_power: float = 4.0,
    match_brightness: bool = True,
    specular: SpecularSH | None = None,
    photo_is_reference: bool = True,
    most_views: int | None = None,
) -> TexturedMesh:
    """Unwrap a mesh and colour it from its views; the model's colour fills what no view sees.

    Photos among views of other origin are the texture as they are, wherever they see the surface squarely enough; the
    others are matched to them (:mod:`recon.texture.layers`). Views of one origin are equals: every part takes its
    detail from the view that sees it best, and borders between such parts are blended over the width of a face. Coarse
    colours are the mean of all views that see a point; a view that shows something else there than most do (an
    occluder, a misalignment) is left out.

    Args:
        vertices, faces: the mesh, in the frame of the views.
        views: pictures, used at full size; where they are too many to be held, large ones as finely as texels are.
        surface: its colour is the fallback.
        side: texture side in pixels.
        cosine_power: power of the cosine between normal and view in a view's weight.
        match_brightness: make up for different exposure and white balance of the views.
        specular: what the views show reflected; it is taken off.
        photo_is_reference: switched off, photos and generated views are equals too.
        most_views: photos that are used; among more, those that together show the mesh best. None for all.
    """
    times = [time.monotonic()]
    normals = vertex_normals(vertices, faces)
    source, new_faces, uv = unwrap(vertices, faces, side)
    times.append(time.monotonic())
    # Views are chosen by face, so large faces are divided first; both meshes alike, so that faces correspond.
    points, fine, flat, flat_faces = vertices, faces, uv, new_faces
    while side * side / len(fine) > _TEXELS and len(fine) < 100_000:
        points, fine = subdivided(points, fine)
        flat, flat_faces = subdivided(flat, flat_faces)
    face_of, bary = rasterise(flat, flat_faces, side)
    row, column = np.nonzero(face_of >= 0)
    order = np.argsort(face_of[row, column], kind="stable")
    row, column = row[order], column[order]
    texels = _Texels.of(face_of[row, column], bary[row, column], points, fine)
    caster = mesh_caster(vertices, faces)
    left_out: tuple[str, ...] = ()
    if most_views is not None and all(view.origin == "photo" for view in views):
        kept = set(choose_for_texture(vertices, faces, views.views, caster, most_views, cosine_power))
        left_out = tuple(view.name for k, view in enumerate(views) if k not in kept)
        views = replace(views, views=tuple(view for k, view in enumerate(views) if k in kept))
    sides = _reading_sides(views.views, vertices.mean(axis=0), (len(row) / face_areas(vertices, faces).sum()) ** 0.5)
    scene = _Scene.of(texels, points, fine, views, sides, caster, cosine_power, match_brightness, specular)
    times.append(time.monotonic())
    layered = photo_is_reference and len(_layers_of(views.views)) > 1
    colours, evidence = _layered_colours(scene, surface) if layered else _equal_colours(scene, surface)
    times.append(time.monotonic())
    _LOG.debug(
        "texture: %d pixels, %d faces, %d texels, %d views %s: charts in %.1f s, views in %.1f s, colours in %.1f s",
        side,
        len(faces),
        len(row),
        len(views),
        "in layers" if layered else "as equals",
        *np.diff(times),
    )
    texture = np.zeros((side, side, 3), np.float32)
    texture[row, column] = colours
    # Every empty texel takes the nearest chart's colour, so that no filter or mip level mixes in a background.
    nearest = ndimage.distance_transform_edt(face_of < 0, return_distances=False, return_indices=True)
    texture = texture[nearest[0], nearest[1]]
    return TexturedMesh(
        vertices[source],
        new_faces,
        normals[source],
        uv.astype(np.float64),
        np.round(np.clip(texture, 0, 1) * 255).astype(np.uint8),
        evidence[: len(vertices)][source],  # dividing faces keeps their corners, in front
        left_out,
    )


def _reading_sides(
    views: Sequence[View], middle: Float[np.ndarray, "3"], texels_a_unit: float
) -> tuple[int | None, ...]:
    """The longest side at which each picture is read, None for all of it: as finely as the texture's texels lie.

    Only captures of more pixels than are held are reduced, by powers of two, at which JPEG files are decoded.
    """
    if sum(view.camera.width * view.camera.height for view in views) <= _HELD_PIXELS:
        return (None,) * len(views)
    sides = list[int | None]()
    for view in views:
        pixels = view.camera.fx / max(float(np.linalg.norm(view.camera.centre - middle)), 1e-9)
        spare = pixels / (_PIXELS_A_TEXEL * texels_a_unit)
        part = max((n for n in (1, 2, 4, 8) if n <= spare), default=1)
        longest = max(view.camera.width, view.camera.height)
        sides.append(None if part == 1 else -(-longest // part))
    return tuple(sides)


@dataclass(frozen=True, eq=False)
class _Texels:
    """Texels that a mesh covers, in the order of its faces: on which face they are, where on it, and in the world."""

    face: Int[np.ndarray, "n"]
    corners: Int[np.ndarray, "n 3"]
    barycentric: Float[np.ndarray, "n 3"]
    place: Float[np.ndarray, "n 3"]

    @classmethod
    def of(
        cls, face: Int[np.ndarray, "n"], weight: Float[np.ndarray, "n 2"], vertices: Vertices, faces: Faces
    ) -> _Texels:
        barycentric = np.stack([1 - weight.sum(-1), weight[:, 0], weight[:, 1]], -1).astype(np.float32)
        corners = faces[face].astype(np.int32)
        place = _interpolated(vertices.astype(np.float32), corners, barycentric)
        return cls(face.astype(np.int32), corners, barycentric, place)

    def on(self, faces: Bool[np.ndarray, "f"]) -> Int[np.ndarray, "m"]:
        """Which texels lie on the marked faces."""
        return np.nonzero(np.repeat(faces, np.bincount(self.face, minlength=len(faces))))[0]

    def __getitem__(self, index: Int[np.ndarray, "m"]) -> _Texels:
        return _Texels(self.face[index], self.corners[index], self.barycentric[index], self.place[index])


def _interpolated(
    values: np.ndarray, corners: Int[np.ndarray, "n 3"], barycentric: Float[np.ndarray, "n 3"]
) -> np.ndarray:
    """Values of vertices, interpolated within faces."""
    weights = barycentric.T if values.ndim == 1 else barycentric.T[..., None]
    out = values[corners[:, 0]] * weights[0]
    for k in (1, 2):
        out += values[corners[:, k]] * weights[k]
    return out


@dataclass(frozen=True, eq=False)
class _Scene:
    """All that the colours of texels are made from.

    Args:
        texels: what is coloured.
        vertices, faces, normals: the mesh that views are chosen on.
        caster: of it.
        views: in order.
        sides: longest side at which each is read, None for all its pixels.
        projected: their pictures, at that size only if ``held``.
        held: whether they are; else they are read once more.
        masked: whether alpha tells object from background.
        ignored: whether alpha tells what is to be looked at.
        visibility: what each view sees.
        adjacency, graph: which vertices share an edge.
        pairs: which faces do.
        match_brightness: make up for exposure and white balance.
        reflected: what each view shows reflected at each vertex.
    """

    texels: _Texels
    vertices: Vertices
    faces: Faces
    normals: Vertices
    caster: RayCaster
    views: tuple[View, ...]
    sides: tuple[int | None, ...]
    projected: list[ProjectedView]
    held: bool
    masked: bool
    ignored: bool
    visibility: Visibility
    adjacency: sparse.csr_array
    pairs: Int[np.ndarray, "p 2"]
    match_brightness: bool
    reflected: Float[np.ndarray, "views _v 3"]

    @classmethod
    def of(
        cls,
        texels: _Texels,
        vertices: Vertices,
        faces: Faces,
        views: ViewSet,
        sides: tuple[int | None, ...],
        caster: RayCaster,
        cosine_power: float,
        match_brightness: bool,
        specular: SpecularSH | None,
    ) -> _Scene:
        def read(view: View, side: int | None) -> ProjectedView:
            return read_view(view, views.has_masks, caster, ignored=views.has_ignored, max_side=side)

        def read_small(view: View, side: int | None) -> ProjectedView:
            small = read(view, _COMPARED_SIDE if side is None else min(side, _COMPARED_SIDE))
            return replace(small, sharp=np.zeros((1, 1, 3), np.uint8))

        # Captures that are large even so are read twice rather than held.
        held = sum(map(_pixels_read, views, sides)) <= _HELD_PIXELS
        with ThreadPoolExecutor(2) as pool:  # decoding and filtering leave the interpreter's lock alone
            projected = list(pool.map(read if held else read_small, views, sides))
        normals = vertex_normals(vertices, faces)
        confidence = [view.weight for view in views]
        visibility = compute_visibility(vertices, faces, normals, projected, confidence, caster, cosine_power)
        reflected = np.zeros((len(projected), 1, 3), np.float32)
        if specular is not None:
            reflected = np.stack([specular.seen_from(p.camera, vertices, normals) for p in projected]).astype(
                np.float32
            )
        edges = edges_of(faces)
        return cls(
            texels,
            vertices,
            faces,
            normals,
            caster,
            views.views,
            sides,
            projected,
            held,
            views.has_masks,
            views.has_ignored,
            visibility,
            _adjacency(edges.ends, len(vertices)),
            edges.pairs(),
            match_brightness,
            reflected,
        )

    def pictures(self) -> Iterator[ProjectedView]:
        """The views' pictures at the size at which they are read, in order; the next one is read meanwhile."""
        if self.held:
            yield from self.projected
            return
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(self._read, 0)
            for k in range(len(self.views)):
                view = following.result()
                if k + 1 < len(self.views):
                    following = pool.submit(self._read, k + 1)
                yield view

    def _read(self, k: int) -> ProjectedView:
        return read_view(self.views[k], self.masked, self.caster, ignored=self.ignored, max_side=self.sides[k])

    def only(self, kept: Sequence[int]) -> _Scene:
        """The same with some of the views."""
        index = np.asarray(kept)
        v = self.visibility
        visibility = Visibility(v.weight[index], v.colour[index], v.extent[index])
        return replace(
            self,
            views=tuple(self.views[k] for k in kept),
            sides=tuple(self.sides[k] for k in kept),
            projected=[self.projected[k] for k in kept],
            visibility=visibility,
            reflected=self.reflected[index],
        )


def _pixels_read(view: View, side: int | None) -> float:
    pixels = float(view.camera.width * view.camera.height)
    if side is None or pixels < LARGE:
        return pixels
    return pixels * min(1.0, side / max(view.camera.width, view.camera.height)) ** 2


@dataclass(frozen=True, eq=False)
class _Blend:
    """Views blended as equals.

    Args:
        colour: of each texel; 0 where no view sees it.
        found: which texels some view sees.
        trusted: how well, and how believably, the views see each vertex together.
        low: their mean colour at each vertex, weighted so; 0 where none sees it.
    """

    colour: Float[np.ndarray, "n 3"]
    found: Bool[np.ndarray, "n"]
    trusted: Float[np.ndarray, "v"]
    low: Float[np.ndarray, "v 3"]


def _blended(scene: _Scene, *, detail: bool = True) -> _Blend:
    """Blend the views of a scene as equals: what captures of photos need.

    Args:
        scene: see there.
        detail: project their pictures; else only the mean colours at vertices are made.
    """
    texels, faces = scene.texels, scene.faces
    gains = view_gains(scene.visibility) if scene.match_brightness else np.ones((len(scene.projected), 3))
    colour = (scene.visibility.colour / gains[:, None] - scene.reflected).astype(np.float32)
    visibility = replace(scene.visibility, colour=colour)
    trust = view_trust(visibility, scene.adjacency)
    trusted = visibility.weight * trust
    total, sums = np.zeros(len(texels.face), np.float32), np.zeros((len(texels.face), 3), np.float32)
    if detail:
        chosen = choose_views(visibility, trust, faces, scene.pairs)
        offsets = smooth_offsets(visibility, trust, scene.adjacency)
        mix = detail_weights(visibility, trust, faces, chosen, offsets, scene.adjacency)
        offsets -= scene.reflected
        for k, view in enumerate(scene.pictures()):
            extent = visibility.extent[k]
            _add_view(texels, faces, view, mix[k], extent, gains[k], offsets[k], scene.caster, total, sums)
    found = total > 0
    sums[found] /= total[found, None]
    weight = trusted.sum(axis=0)
    low = np.einsum("kv,kvc->vc", trusted, colour) / np.maximum(weight, 1e-9)[:, None]
    return _Blend(sums, found, weight, low.astype(np.float32))


def _equal_colours(scene: _Scene, surface: ColourModel) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "v 4"]]:
    """Colours of texels and evidence of vertices from views that are equals.

    The model's colour fades in where views look at the surface at a grazing angle.
    """
    blend, texels = _blended(scene), scene.texels
    trusted = _interpolated(blend.trusted, texels.corners, texels.barycentric)
    believed = np.where(blend.found, trusted, 0)[:, None]
    model = surface.colours_at(texels.place.astype(np.float64))
    covered = blend.trusted / (blend.trusted + _MODEL_WEIGHT)
    evidence = np.zeros((len(covered), 4))
    evidence[:, KINDS.index("invented")] = 1 - covered
    seen_by_photos = np.mean([view.origin == "photo" for view in scene.views])
    evidence[:, KINDS.index("seen")] = covered * seen_by_photos
    evidence[:, KINDS.index("generated")] = covered * (1 - seen_by_photos)
    return (believed * blend.colour + _MODEL_WEIGHT * model) / (believed + _MODEL_WEIGHT), evidence


def _layered_colours(scene: _Scene, surface: ColourModel) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "v 4"]]:
    """Colours of texels and evidence of vertices, in layers.

    Photos are taken as they are; where they see nothing, mirrored photos are; else what generated views say.

    Generated views give broad colours only: their detail is not the object's.
    """
    texels, layers = scene.texels, _layers_of(scene.views)
    edges = edges_of(scene.faces)
    graph = SurfaceGraph.of(scene.vertices, scene.faces, edges.ends, scene.adjacency)
    model = surface.colours_at(scene.vertices.astype(np.float64))
    base, cover = model.astype(np.float32), np.zeros(len(model), np.float32)
    agreed = np.zeros(len(model))
    if generated := layers.get("generated"):
        blend = _blended(scene.only(generated), detail=False)
        # Beside a large photo small views weigh little: here they are compared with each other only.
        known = (blend.trusted / max(float(np.max(blend.trusted)), 1e-9))[:, None]
        base = ((known * blend.low + _MODEL_WEIGHT * model) / (known + _MODEL_WEIGHT)).astype(np.float32)
        agreed = agreement(scene.only(generated).visibility)
    base = graph.spread(base, _BLOTCH)
    above, evidence = np.zeros_like(base), np.zeros((len(model), 4))
    found: list[tuple[_Blend, np.ndarray, np.ndarray]] = []
    for origin in ("photo", "mirrored"):
        kept = layers.get(origin)
        if not kept:
            continue
        blend = _blended(scene.only(kept))
        own = coverage(graph, scene.normals, scene.visibility, kept, scene.projected)
        shift = matching_shift(graph, blend.low, above, cover * (own > 0)) if found else np.zeros_like(base)
        found.append((blend, own, shift))
        evidence[:, KINDS.index("seen" if origin == "photo" else "mirrored")] = (1 - cover) * own
        both = cover + (1 - cover) * own
        mixed = cover[:, None] * above + ((1 - cover) * own)[:, None] * (blend.low + shift)
        above, cover = np.where(both[:, None] > 0, mixed / np.maximum(both, 1e-6)[:, None], 0), both
    base = base * matched_gain(base, above, cover).astype(np.float32)
    base = np.clip(base + matching_shift(graph, base, above, cover), 0, 1)
    colour = _interpolated(base, texels.corners, texels.barycentric)
    for blend, own, shift in reversed(found):
        weight = np.where(blend.found, _interpolated(own, texels.corners, texels.barycentric), 0)[:, None]
        detail = blend.colour + _interpolated(shift, texels.corners, texels.barycentric)
        colour = weight * detail + (1 - weight) * colour
    evidence[:, KINDS.index("generated")] = (1 - cover) * agreed
    evidence[:, KINDS.index("invented")] = (1 - cover) * (1 - agreed)
    return colour, evidence


def _layers_of(views: Sequence[View]) -> dict[Origin, list[int]]:
    """Numbers of the views of each origin."""
    layers: dict[Origin, list[int]] = {}
    for k, view in enumerate(views):
        layers.setdefault(view.origin, []).append(k)
    return layers


def _add_view(
    texels: _Texels,
    faces: Faces,
    view: ProjectedView,
    weight: Float[np.ndarray, "v"],
    extent: UInt8[np.ndarray, "f"],
    gain: Float[np.ndarray, "3"],
    offset: Float[np.ndarray, "v 3"],
    caster: RayCaster,
    total: Float[np.ndarray, "n"],
    colour: Float[np.ndarray, "n 3"],
) -> None:
    """Add one view's colours to the texels it sees, by the weights of their corners."""
    index = texels.on((extent != HIDDEN) & (weight > 0)[faces].any(axis=1))
    part = texels[index]
    doubtful = (extent != WHOLE)[part.face]
    if doubtful.any():
        free = np.nonzero(~doubtful | visible(view.camera, part.place, doubtful, caster))[0]
        index, part = index[free], part[free]
    mix = _interpolated(weight, part.corners, part.barycentric)
    pixels, _ = view.camera.project(part.place)
    found = view.sharp_at(pixels) / gain.astype(np.float32) + _interpolated(offset, part.corners, part.barycentric)
    total[index] += mix
    colour[index] += mix[:, None] * found


def _adjacency(ends: Int[np.ndarray, "e 2"], count: int) -> sparse.csr_array:
    """Which vertices share an edge, each with itself, as ones."""
    one, other = np.concatenate([ends, ends[:, ::-1], np.repeat(np.arange(count), 2).reshape(-1, 2)]).T
    return sparse.csr_array((np.ones(len(one), np.float32), (one, other)), shape=(count, count))
