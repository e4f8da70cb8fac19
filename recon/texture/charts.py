"""Cutting a mesh into charts: pieces that, seen along one direction, show every face once and from outside."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from recon.mesh.topology import edges_of
from recon.texture.rasterise import covered_texels
from scene.mesh import Faces, Vertices, area_normals

_SLANT = 0.15
"""Least cosine between a face and the direction its chart is seen along: flatter faces would be squeezed to nothing."""
_ROUNDS = 10
"""Rounds in which faces take the direction that most of their neighbours have."""


@dataclass(frozen=True, eq=False)
class Charts:
    """A mesh cut into charts, each laid flat at its own scale and place.

    Args:
        source: the vertex of the mesh that each chart vertex comes from.
        faces: over chart vertices, in the order of the mesh's faces.
        flat: positions in the plane, world units, the second running down, not mirrored; each chart has its area on the
            mesh and lies at (0, 0), turned upright.
        of_vertex: the chart of each chart vertex.
        size: of each chart's bounding box, at most as wide as high.
    """

    source: Int[np.ndarray, "w"]
    faces: Faces
    flat: Float[np.ndarray, "w 2"]
    of_vertex: Int[np.ndarray, "w"]
    size: Float[np.ndarray, "c 2"]


class ChartCutter:
    """Cuts a mesh into charts, and further where faces of one chart turn out to lie over each other."""

    def __init__(self, vertices: Vertices, faces: Faces) -> None:
        self.vertices, self.faces = vertices, faces
        normals = area_normals(vertices, faces)
        self._area = np.linalg.norm(normals, axis=1)
        self._unit = normals / np.maximum(self._area, 1e-30)[:, None]
        edges = edges_of(faces)
        self._pairs = edges.pairs()
        length = np.linalg.norm(vertices[edges.ends[:, 0]] - vertices[edges.ends[:, 1]], axis=1)[edges.uses == 2]
        self._label = _directions(self._unit, self._area, self._pairs, length)
        self._layer = np.zeros(len(faces), np.int64)

    @property
    def area(self) -> float:
        """Area of the mesh."""
        return float(self._area.sum() / 2)

    def charts(self) -> Charts:
        """The charts as they are cut now."""
        chart = _pieces(self._label, self._layer, self._pairs)
        return _lay_flat(self.vertices, self.faces, self._unit, self._area, chart, self._label)

    def part_hidden(self, charts: Charts, places: Float[np.ndarray, "w 2"]) -> bool:
        """Take faces that lie under another face of their chart, at some texel's centre, out of that chart.

        They get a chart of their own, with their neighbours down there.

        Args:
            charts: the charts as they are cut now.
            places: their vertices in texels.

        Returns:
            Whether there were any; the charts must then be made again.
        """
        chart = charts.of_vertex[charts.faces[:, 0]]
        count = len(charts.size)
        low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        np.minimum.at(low, charts.of_vertex, places)
        np.maximum.at(high, charts.of_vertex, places)
        cells = np.floor(high).astype(np.int64) - np.floor(low).astype(np.int64) + 1
        start = np.cumsum(cells[:, 0] * cells[:, 1]) - cells[:, 0] * cells[:, 1]
        face, x, y, bary = covered_texels(places - np.floor(low)[charts.of_vertex], charts.faces, slack=-1e-9)
        texel = start[chart[face]] + y * cells[chart[face], 0] + x
        crowded = np.nonzero(np.bincount(texel, minlength=1)[texel] > 1)[0]
        face, texel, bary = face[crowded], texel[crowded], bary[crowded]
        weights = np.concatenate([1 - bary.sum(axis=1, keepdims=True), bary], axis=1)
        height = np.einsum(
            "nk,nkc,nc->n", weights, self.vertices[self.faces[face]], DIRECTIONS[self._label[face]], optimize=True
        )
        order = np.lexsort((-height, texel))
        under = np.concatenate([[False], np.diff(texel[order]) == 0])[: len(order)]
        hidden = np.unique(face[order[under]])
        self._layer[hidden] += 1
        return len(hidden) > 0


def _directions(
    unit: Float[np.ndarray, "f 3"],
    area: Float[np.ndarray, "f"],
    pairs: Int[np.ndarray, "p 2"],
    length: Float[np.ndarray, "p"],
) -> Int[np.ndarray, "f"]:
    """Which of :data:`DIRECTIONS` each face is seen along: near its normal, and as its neighbours."""
    count = len(unit)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    weight = np.concatenate([length, length])
    graph = sparse.csr_array((weight, (both[:, 0], both[:, 1])), shape=(count, count))
    graph = sparse.diags_array(1 / np.maximum(graph.sum(axis=1), 1e-30)) @ graph
    smooth = unit * area[:, None]
    for _ in range(6):
        smooth = 0.5 * smooth + 0.5 * (graph @ smooth)
    smooth = smooth / np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-30)
    allowed = unit @ DIRECTIONS.T > _SLANT
    flat = ~allowed.any(axis=1)  # faces without area
    score = np.where(allowed, smooth @ DIRECTIONS.T, -np.inf)
    score[flat] = 0
    label = score.argmax(axis=1)
    for k in range(_ROUNDS):
        one_hot = np.zeros((count, len(DIRECTIONS)))
        one_hot[np.arange(count), label] = 1
        wanted = (score + 0.8 * (graph @ one_hot)).argmax(axis=1)
        # Half of the faces at a time: all at once, neighbours could swap for ever.
        turn = (np.arange(count) * 40503 >> 3) % 2 == k % 2
        label = np.where(turn, wanted, label)
    return _absorbed(label, area, pairs, length, allowed)


def _absorbed(
    label: Int[np.ndarray, "f"],
    area: Float[np.ndarray, "f"],
    pairs: Int[np.ndarray, "p 2"],
    length: Float[np.ndarray, "p"],
    allowed: Bool[np.ndarray, "f d"],
) -> Int[np.ndarray, "f"]:
    """Let small charts go over to a neighbour, face by face, where that neighbour's direction sees them."""
    label = label.copy()
    both = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.argsort(np.concatenate([length, length]), kind="stable")
    both = both[order]
    for fraction in (2e-4, 5e-4, 1e-3, 2e-3):
        for _ in range(6):
            piece = _pieces(label, np.zeros_like(label), pairs)
            total = np.bincount(piece, area)
            small = total < fraction * area.sum()
            mine, other = both.T
            use = small[piece[mine]] & (total[piece[other]] > total[piece[mine]]) & allowed[mine, label[other]]
            use &= label[mine] != label[other]
            if not use.any():
                break
            taken = label.copy()
            taken[mine[use]] = label[other[use]]  # the longest edge is last, and decides
            label = taken
    return label


def _pieces(
    label: Int[np.ndarray, "f"], layer: Int[np.ndarray, "f"], pairs: Int[np.ndarray, "p 2"]
) -> Int[np.ndarray, "f"]:
    """Connected faces of one direction and layer."""
    same = (label[pairs[:, 0]] == label[pairs[:, 1]]) & (layer[pairs[:, 0]] == layer[pairs[:, 1]])
    joined = pairs[same]
    graph = sparse.coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(len(label), len(label)))
    return sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def _lay_flat(
    vertices: Vertices,
    faces: Faces,
    unit: Float[np.ndarray, "f 3"],
    area: Float[np.ndarray, "f"],
    chart: Int[np.ndarray, "f"],
    label: Int[np.ndarray, "f"],
) -> Charts:
    count = int(chart.max()) + 1
    mean = np.stack([np.bincount(chart, unit[:, k] * area, minlength=count) for k in range(3)], -1)
    mean = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-30)
    # The mean normal squeezes least, where it sees all faces from outside; the common direction always does.
    least = np.full(count, np.inf)
    seen = area > 0
    np.minimum.at(least, chart[seen], np.einsum("fc,fc->f", unit, mean[chart])[seen])
    common = np.zeros(count, np.int64)
    common[chart] = label
    axis = np.where(((least > _SLANT) & (least <= 2))[:, None], mean, DIRECTIONS[common])
    _, first, index = np.unique(
        (chart[:, None] * len(vertices) + faces).reshape(-1), return_index=True, return_inverse=True
    )
    source, of_vertex = faces.reshape(-1)[first], np.repeat(chart, 3)[first]
    right, down = _frame(axis)
    points = vertices[source]
    flat = np.stack([np.einsum("vc,vc->v", points, side[of_vertex]) for side in (right, down)], -1)
    new_faces = index.reshape(faces.shape).astype(np.int64)
    corners = flat[new_faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    shadow = np.bincount(chart, np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]), minlength=count)
    true = np.bincount(chart, area, minlength=count)
    flat = flat * np.sqrt(true / np.maximum(shadow, 1e-30)).clip(1, 10)[of_vertex, None]
    flat, size = _upright(flat, of_vertex, count)
    return Charts(source, new_faces, flat, of_vertex, size)


def _frame(axis: Float[np.ndarray, "c 3"]) -> tuple[Float[np.ndarray, "c 3"], Float[np.ndarray, "c 3"]]:
    """Right and down in a picture seen from the side that ``axis`` points to."""
    helper = np.eye(3)[np.abs(axis).argmin(axis=1)]
    right = np.cross(helper, axis)
    right = right / np.linalg.norm(right, axis=1, keepdims=True)
    return right, np.cross(right, axis)


def _upright(
    flat: Float[np.ndarray, "w 2"], of_vertex: Int[np.ndarray, "w"], count: int
) -> tuple[Float[np.ndarray, "w 2"], Float[np.ndarray, "c 2"]]:
    """Each chart turned into its smallest box, standing on the short side, from (0, 0) on."""
    order = np.argsort(of_vertex, kind="stable")
    bounds = np.searchsorted(of_vertex[order], np.arange(count + 1))
    turn = np.zeros((count, 2, 2))
    for k in range(count):
        points = flat[order[bounds[k] : bounds[k + 1]]]
        (_, (width, height), degrees) = cv2.minAreaRect((points - points[0]).astype(np.float32))
        angle = np.radians(degrees + (90 if width > height else 0))
        turn[k] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    flat = np.einsum("vij,vj->vi", turn[of_vertex], flat)
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, of_vertex, flat)
    np.maximum.at(high, of_vertex, flat)
    return flat - low[of_vertex], high - low


def _all_directions() -> Float[np.ndarray, "d 3"]:
    """The faces, edges and corners of a cube as directions."""
    steps = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) != (0, 0, 0)])
    return steps / np.linalg.norm(steps, axis=1, keepdims=True)


DIRECTIONS = _all_directions()
"""Directions that charts are seen along."""
