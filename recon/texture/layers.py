"""Photos among generated views: a texture in layers, the photo on top as it is, what lies below matched to it.

A photo is the truth where it sees the surface; a generated view is a guess that knows the object's broad colours.
Blended as equals, as :mod:`recon.texture.blend` does with photos of a capture, sixteen guesses outvote the photo. So
each origin is a layer of its own: photos, mirrored photos, generated views. A layer covers the surface where its views
look at it squarely and fades out over a width along the surface; the layer below is shifted in colour so that it
continues what it meets at the border.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse import csgraph

from recon.texture.projected_view import ProjectedView
from recon.texture.visibility import Visibility, facing_cosine
from scene.mesh import Faces, Vertices

LEAST_COSINE = 0.15
"""Of the angle between a normal and the direction to a photo that may colour the surface there: 81 degrees."""
_FADE = 0.02
"""World units over which a photo fades out towards what it does not see; the object has a radius of about 0.6."""
_THIN_FADE = 0.3
"""The same on parts that are narrower than this leaves whole, as a fraction of half their width: a leg, a handle."""
_ISLAND = 0.012
"""Radius below which an unseen patch within a seen region is an island, around which the photo fades out at once."""
_SPECK = 0.025
"""Radius, as the photo shows it, below which a seen patch within an unseen region is left out."""
_RIM_REACH = 0.03
"""Fraction of the picture's side within which clean pixels take over from those of a rim."""
_MATCH = 0.12
"""World units within which a layer is shifted in colour to continue the one above it."""
_UNMATCHED = 0.02
"""Influence of the layer above, relative to its middle, at which half of the shift is left."""
_ALIKE, _ENOUGH = 0.1, 3
"""Difference of colours, sRGB, within which views agree; and how many that do are evidence."""
_GAIN_LIMIT = (0.6, 1.6)


@dataclass(frozen=True, eq=False)
class SurfaceGraph:
    """The vertices of a mesh as a graph: for distances and for smoothing along the surface.

    Args:
        vertices: positions.
        lengths: edge lengths, as a symmetric matrix.
        mean: takes every vertex to the mean of itself and its neighbours.
        area: of the surface that belongs to each vertex.
    """

    vertices: Vertices
    lengths: sparse.csr_array
    mean: sparse.csr_array
    area: Float[np.ndarray, "v"]

    @classmethod
    def of(
        cls, vertices: Vertices, faces: Faces, ends: Int[np.ndarray, "e 2"], adjacency: sparse.csr_array
    ) -> SurfaceGraph:
        """The graph of a mesh.

        Args:
            vertices, faces: the mesh.
            ends: of its edges.
            adjacency: which vertices share an edge, with ones on the diagonal.
        """
        span = np.maximum(np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1), 1e-9)
        one, other = np.concatenate([ends, ends[:, ::-1]]).T
        lengths = sparse.csr_array((np.tile(span, 2), (one, other)), shape=(len(vertices),) * 2)
        weights = sparse.diags_array((1 / adjacency.sum(axis=1)).astype(np.float32))
        a, b, c = vertices[faces].transpose(1, 0, 2)
        third = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
        area = np.bincount(faces.ravel(), np.repeat(third, 3), minlength=len(vertices))
        return cls(vertices, lengths, sparse.csr_array(weights @ adjacency.astype(np.float32)), area)

    def rounds(self, width: float) -> int:
        """Rounds of averaging that spread a value over about a width (a standard deviation, world units)."""
        edge = float(np.median(self.lengths.data)) if len(self.lengths.data) else width
        # One round is a step of a random walk that stays with the chance 1 / 7: its variance is 6 / 7 of an edge's
        # square, half of it along each direction of the surface.
        return int(np.clip(np.ceil(2 * width**2 / max(0.86 * edge**2, 1e-12)), 1, 600))

    def spread(self, values: Float[np.ndarray, "v *c"], width: float) -> Float[np.ndarray, "v *c"]:
        """Values averaged over a width along the surface."""
        for _ in range(self.rounds(width)):
            values = self.mean @ values
        return values

    def largest(self, values: Float[np.ndarray, "v"], width: float) -> Float[np.ndarray, "v"]:
        """The largest value within about a width along edges."""
        edge = float(np.median(self.lengths.data)) if len(self.lengths.data) else width
        for _ in range(int(np.clip(np.ceil(width / max(edge, 1e-9)), 1, 60))):
            values = np.maximum.reduceat(values[self.mean.indices], self.mean.indptr[:-1])
        return values

    def distance(self, sources: Bool[np.ndarray, "v"], limit: float) -> Float[np.ndarray, "v"]:
        """Length of the way along edges to the nearest source; infinite beyond the limit."""
        index = np.nonzero(sources)[0]
        if not len(index):
            return np.full(len(self.vertices), np.inf)
        found: np.ndarray = csgraph.dijkstra(self.lengths, indices=index, min_only=True, limit=limit)
        return found

    def large_parts(
        self, inside: Bool[np.ndarray, "v"], radius: float, cosine: Float[np.ndarray, "v"] | float = 1.0
    ) -> Bool[np.ndarray, "v"]:
        """Which of the marked vertices hang together in a part of at least the area of a disc of this radius.

        Args:
            inside: the marked vertices.
            radius: of the disc.
            cosine: foreshortening of each vertex's area.
        """
        index = np.nonzero(inside)[0]
        if not len(index):
            return inside.copy()
        _, label = csgraph.connected_components(self.lengths[index][:, index], directed=False)
        area = np.bincount(label, (self.area * cosine)[index])
        out = np.zeros_like(inside)
        out[index] = area[label] >= np.pi * radius**2
        return out


def coverage(
    graph: SurfaceGraph,
    normals: Vertices,
    visibility: Visibility,
    views: Sequence[int],
    projected: Sequence[ProjectedView],
) -> Float[np.ndarray, "v"]:
    """How far some views cover each vertex: 1 where one of them looks at it squarely, 0 where none sees it.

    It rises over :data:`_FADE` along the surface from the border of what they see, less on narrow parts, so that the
    border between layers follows the surface and has no corners. Around small unseen patches it rises at once.

    Args:
        graph, normals: of the mesh.
        visibility: of all views.
        views: the numbers of those that count.
        projected: all views.
    """
    seen, squarely = np.zeros(len(normals), bool), np.zeros(len(normals))
    for k in views:
        cosine = facing_cosine(projected[k].camera, graph.vertices, normals)
        mine = (visibility.weight[k] > 0) & (cosine > LEAST_COSINE)
        seen |= mine & ~_beside_the_rim(graph, mine, projected[k])
        squarely = np.maximum(squarely, cosine)
    # A speck of what is seen amid what is not is as good as unseen; those on a flank come out as stretched spots.
    seen = graph.large_parts(seen, _SPECK, squarely)
    unseen = graph.large_parts(~seen, _ISLAND)
    reach = 2 * _FADE
    inside = np.minimum(graph.distance(unseen, reach), reach)
    width = np.clip(_THIN_FADE * graph.largest(inside, reach), 1e-9, _FADE)
    fade = np.minimum(inside / width, 1)
    smooth = fade**2 * (3 - 2 * fade)
    return np.where(seen, smooth, 0).astype(np.float32)


def _beside_the_rim(graph: SurfaceGraph, seen: Bool[np.ndarray, "v"], view: ProjectedView) -> Bool[np.ndarray, "v"]:
    """Vertices whose pixels are mixed with the background, near others whose pixels are not.

    Parts that are thinner than the rim have no others, and keep what they have.
    """
    clean = np.zeros_like(seen)
    index = np.nonzero(seen)[0]
    clean[index] = view.clean_at(view.camera.project(graph.vertices[index])[0]) > 0.5
    if not clean.any():
        return clean
    away = float(np.linalg.norm(view.camera.centre - graph.vertices[clean].mean(axis=0)))
    width = _RIM_REACH * max(view.camera.width, view.camera.height) * away / view.camera.fx
    return seen & ~clean & np.isfinite(graph.distance(clean, width))


def agreement(visibility: Visibility) -> Float[np.ndarray, "v"]:
    """How far views agree on each vertex: the fraction of :data:`_ENOUGH` views that show the median colour of all.

    Args:
        visibility: of the views.
    """
    seen = visibility.weight > 0
    colour = np.where(seen[..., None], visibility.colour, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of vertices that no view sees
        middle = np.nanmedian(colour, axis=0)
    alike = seen & (np.abs(visibility.colour - middle).max(axis=-1) < _ALIKE)
    return np.minimum(alike.sum(axis=0) / _ENOUGH, 1.0)


def matched_gain(
    below: Float[np.ndarray, "v 3"], above: Float[np.ndarray, "v 3"], weight: Float[np.ndarray, "v"]
) -> Float[np.ndarray, "3"]:
    """Factors that take the colours of a layer to those of the layer above it, where both are known: robust medians."""
    gain = np.ones(3)
    for channel in range(3):
        low, high = below[:, channel], above[:, channel]
        # Black says nothing about brightness, and white may be cut off.
        use = (weight > 0.5) & (low > 0.05) & (high > 0.05) & (high < 0.97)
        if use.sum() >= 20:
            gain[channel] = np.exp(np.median(np.log(high[use]) - np.log(low[use])))
    return np.clip(gain, *_GAIN_LIMIT)


def matching_shift(
    graph: SurfaceGraph, below: Float[np.ndarray, "v 3"], above: Float[np.ndarray, "v 3"], cover: Float[np.ndarray, "v"]
) -> Float[np.ndarray, "v 3"]:
    """What to add to a layer so that it continues the one above it, and is itself far away from it.

    Normalised convolution of the difference, over :data:`_MATCH` along the surface, from where the layer above covers.
    """
    known = np.concatenate([(above - below) * cover[:, None], cover[:, None]], axis=1).astype(np.float32)
    known = graph.spread(known, _MATCH)
    return known[:, :3] / (known[:, 3:] + np.float32(_UNMATCHED))
