"""Skinning by a skeleton alone against figures' own rigs: silhouettes, vertices and seconds, on true rest skeletons.

A figure's rest pose is bound to its COCO-18 rest skeleton, posed by the skeletons of its clips (of turned joints where
it has none), and compared with what the rig's own weights make of the same pose.

Example: python scripts/evaluate_skinning.py --figures DATA/figures --sheets SHEETS
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.evaluation.script import run_script
from pipeline.evaluation.sheets import Tile, tile, write_sheet
from pipeline.evaluation.skinning import DEVELOP, HELD_OUT, Figure, load_figure, score_figure
from pipeline.evaluation.tables import markdown_table
from scene.camera import orbit_camera
from scene.mesh import ColouredMesh
from scene.render import render_mesh
from scene.skinning.bind import SkinnedMesh
from scene.skinning.pose import Method
from scene.skinning.weights import WeightSettings


@dataclass(frozen=True)
class Arguments:
    """Measure skinning by a skeleton."""

    figures: Path
    """Folder with posed/NAME.npz."""
    held_out: bool = False
    """The figures that nothing is tuned on, in place of the others."""
    names: tuple[str, ...] = ()
    """Figures to take in place of either list."""
    method: Method = "dual_quaternion"
    """How vertices are blended."""
    weights: WeightSettings = WeightSettings()
    """How weights are made."""
    poses: int = 8
    """Poses of each figure, spread evenly over its clips."""
    sheets: Path | None = None
    """Folder for pictures: for each pose the rig's own surface and the one that was posed."""


def main(arguments: Arguments) -> None:
    """Measure, and print a table."""
    names = arguments.names or (HELD_OUT if arguments.held_out else DEVELOP)
    rows = []
    for name in names:
        figure = load_figure(arguments.figures / "posed" / f"{name}.npz", arguments.poses)
        bound, scores, binding = score_figure(figure, arguments.weights, arguments.method)
        rows.append(
            (
                name,
                f"{len(figure.mesh.faces):,}",
                len(scores),
                f"{np.mean([s.unedited for s in scores]):.3f}",
                f"{np.mean([s.iou for s in scores]):.3f}",
                f"{min(s.iou for s in scores):.3f}",
                f"{np.mean([s.error for s in scores]):.2%}",
                bound.report.cuts,
                f"{binding:.2f}",
                f"{np.mean([s.seconds for s in scores]):.3f}",
                f"{np.mean([len(s.bones) for s in scores]):.1f}",
            )
        )
        if arguments.sheets is not None:
            write_sheet(list(sheet(figure, bound, arguments.method)), arguments.sheets / f"{name}.jpg")
    head = (
        "figure",
        "faces",
        "poses",
        "IoU unedited",
        "IoU",
        "least",
        "vertex error",
        "cuts",
        "bind s",
        "pose s",
        "odd bones",
    )
    print(markdown_table(head, rows))


def sheet(figure: Figure, bound: SkinnedMesh, method: Method) -> list[list[Tile]]:
    """A row for each pose: the rig's own surface from two sides, then the posed one."""
    rows = []
    for _, skeleton, truth in figure.poses:
        posed = bound.posed_to(figure.rest, skeleton, method)
        own = ColouredMesh(truth, figure.mesh.faces, figure.mesh.vertex_colours)
        rows.append([picture(mesh, turn) for turn in (-np.pi / 2, -np.pi / 5) for mesh in (own, posed)])
    return rows


def picture(mesh: ColouredMesh, azimuth: float) -> Tile:
    """A mesh from one side."""
    rgba = render_mesh(mesh, orbit_camera(azimuth, 0.1, 2.2, size=192)).rgba
    return tile(Image.fromarray((rgba * 255).astype(np.uint8)), 192)


if __name__ == "__main__":
    run_script(main, Arguments)
