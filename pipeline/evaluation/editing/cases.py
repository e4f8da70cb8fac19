"""Known edits: figures in two poses, things before and after their boxes change, and true views of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.training.data.rigged_files import clip_pair, load_rigged
from pipeline.training.data.samples import to_bytes
from pipeline.training.procedural.edits import FAMILIES, box_edit
from pipeline.training.procedural.humanoid import humanoid_pair
from pipeline.training.procedural.poses import random_pair
from pipeline.training.procedural.rigged import PosePair
from scene.camera import Camera, orbit_camera
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.skeleton import Skeleton

Kind = Literal["procedural figure", "held-out rig", "boxes"]
HELD_OUT = ("quaternius_knight", "quaternius_man_casual", "quaternius_man_worker", "quaternius_woman_casual")
"""Rigs that nothing is trained or tuned on."""
DEVELOPMENT = ("cesium_man", "kaykit_knight", "quaternius_robot", "rigged_figure")
"""Rigs that methods are tuned on."""
FIRST_SEED = 4_000_000_000
"""Of evaluation; training takes smaller seeds."""
DEVELOPMENT_SEED = 3_950_000_000
"""Of figures and things that methods are tuned on, and nothing is trained on."""
_ELEVATION = 0.25
"""Of all cameras, radians."""


@dataclass(frozen=True, eq=False)
class EditCase:
    """An object, a target in 3D, and what the object becomes; normalised by the original.

    Args:
        name: of the case.
        kind: what it is.
        before, after: the true meshes.
        skeletons: landmarks before and after; None of boxes.
        boxes: frames before and after; None of figures.
    """

    name: str
    kind: Kind
    before: ColouredMesh
    after: ColouredMesh
    skeletons: tuple[Skeleton, Skeleton] | None = None
    boxes: tuple[Float[np.ndarray, "b 4 4"], Float[np.ndarray, "b 4 4"]] | None = None


@dataclass(frozen=True, eq=False)
class TrueViews:
    """A case as cameras around it see it.

    Args:
        cameras: in a ring, neighbours side by side.
        originals, truths: pictures before and after the edit, straight alpha.
        depths: z-depth after the edit, 0 where there is nothing.
    """

    case: EditCase
    cameras: tuple[Camera, ...]
    originals: UInt8[np.ndarray, "n s s 4"]
    truths: UInt8[np.ndarray, "n s s 4"]
    depths: Float[np.ndarray, "n s s"]


def cases(
    figures: Path | None, each: int = 4, names: Sequence[str] = HELD_OUT, first_seed: int = FIRST_SEED
) -> Iterator[EditCase]:
    """All cases: procedural figures of new seeds, held-out rigs if there is a folder of them, and box edits.

    Args:
        figures: folder with ``posed/NAME.npz``.
        each: procedural figures, and edits of boxes.
        names: of the rigs.
        first_seed: of the procedural ones.

    Raises:
        InputError: a file of a rig cannot be read.
    """
    if each < 1:
        raise InputError(f"at least one case of each kind is needed, not {each}")
    for k in range(each):
        yield _posed(f"figure {k}", "procedural figure", humanoid_pair(first_seed + k))
    for name in names if figures is not None else ():
        assert figures is not None
        rigged = load_rigged(figures / "posed" / f"{name}.npz")
        rng = np.random.default_rng([first_seed, *name.encode()])
        pair = clip_pair(rigged, rng) if len(rigged.clips) > 1 else random_pair(rigged.figure, rng)
        yield _posed(name, "held-out rig", pair)
    for k in range(each):
        family = FAMILIES[k % len(FAMILIES)]
        edit = box_edit(family, first_seed + k)
        boxes = (edit.boxes_before, edit.boxes_after)
        yield EditCase(f"{family} {k}", "boxes", edit.before, edit.after, boxes=boxes)


def _posed(name: str, kind: Kind, pair: PosePair) -> EditCase:
    return EditCase(name, kind, pair.before, pair.after, (pair.skeleton_before, pair.skeleton_after))


def ring(count: int, size: int) -> tuple[Camera, ...]:
    """Cameras in a ring about the origin at the default radius."""
    return tuple(orbit_camera(k * 2 * np.pi / count, _ELEVATION, size=size) for k in range(count))


def true_views(case: EditCase, count: int = 16, size: int = 128) -> TrueViews:
    """Render a case before and after its edit."""
    cameras = ring(count, size)
    before = drawn(case.before, cameras)
    renderer = MeshRenderer(case.after)
    after = [renderer.render(camera) for camera in cameras]
    return TrueViews(
        case, cameras, before, to_bytes(np.stack([r.rgba for r in after])), np.stack([r.depth for r in after])
    )


def drawn(mesh: ColouredMesh, cameras: Sequence[Camera]) -> UInt8[np.ndarray, "n s s 4"]:
    """Pictures of a mesh under the light of all evaluation."""
    renderer = MeshRenderer(mesh)
    return to_bytes(np.stack([renderer.render(camera).rgba for camera in cameras]))
