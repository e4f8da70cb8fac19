"""The benchmark of fits: what is rendered, what can be reached, medians and gains over the hull."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from pipeline.evaluation.reconstruction import SIZE, medians_table, reachable, rendered_views
from pipeline.training.procedural import box, lathe
from scene.mesh import ColouredMesh


def mesh_of(shape: tuple[np.ndarray, np.ndarray]) -> ColouredMesh:
    return ColouredMesh(shape[0].astype(np.float32), shape[1].astype(np.int32)).normalised()


def test_a_third_of_the_views_is_held_out() -> None:
    train, held = rendered_views(mesh_of(box((0.5, 0.4, 0.3))), 6)
    assert [view.name for view in train] == ["000", "002", "003", "005"]
    assert [view.name for view in held] == ["001", "004"]
    assert train.views[0].rgba().shape == (SIZE, SIZE, 4)


def test_all_of_a_box_can_be_seen_and_not_all_of_a_bottle() -> None:
    whole = reachable(mesh_of(box((0.5, 0.4, 0.3))), 24, samples=2000)
    assert whole["seen"] > 0.99
    assert whole["F"] == pytest.approx(1)
    # A deep jar with a narrow neck: its inside is hidden.
    profile = [(0.5, -0.5), (0.5, 0.4), (0.06, 0.5), (0.05, 0.49), (0.45, 0.38), (0.45, -0.45), (0.0, -0.45)]
    jar = reachable(mesh_of(lathe(np.array([(0.0, -0.5), *profile]))), 24, samples=2000)
    assert jar["seen"] < 0.8
    assert jar["near"] < 0.9
    assert jar["F"] == pytest.approx(2 * jar["near"] / (1 + jar["near"]))


def test_medians_and_gains_over_the_hull() -> None:
    done = {
        "cup/hull": {"chamfer": 0.02, "seconds": 1.0},
        "cup/draft": {"chamfer": 0.01, "seconds": 4.0},
        "duck/hull": {"chamfer": 0.04, "seconds": 3.0},
        "duck/draft": {"chamfer": 0.03, "seconds": 8.0},
        "gnu/draft": {"chamfer": 0.03, "seconds": 9.0},
    }
    console = Console(width=100, record=True)
    console.print(medians_table(done))
    lines = {
        line.split("│")[1].strip(): line.split("│")[2:4] for line in console.export_text().splitlines() if "│" in line
    }
    cells = {name: [cell.strip() for cell in values] for name, values in lines.items()}
    assert cells["objects"] == ["3", "2"]
    assert cells["seconds"] == ["8.000", "2.000"]
    assert cells["Chamfer"] == ["3.000", "3.000"]
    assert cells["below hull"] == ["38 %", "0 %"]
    assert cells["concave below hull"] == ["50 %", "0 %"]
    assert cells["PSNR"] == ["-", "-"]
