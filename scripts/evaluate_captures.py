"""Captures: how well views that the fit has not seen are drawn, and how near the surface is to a known one.

Protocol. A capture is read, checked and masked as `viewloom reconstruct` does; every n-th view (by name) is held out
before anything is fitted, and moves with the others. The held-out views are drawn from the textured mesh without light
(the texture holds it), at their own size up to 800 pixels. With masks: PSNR over the pixels of the true mask on white,
SSIM of the whole picture on white, IoU of the outlines. Without masks: PSNR over the pixels that the mesh covers, and
how much of the picture that is; a mesh that leaves the difficult parts out covers less. With a true mesh: distances to
triangles in % of its longest side, without registration.

Examples:
    python scripts/evaluate_captures.py DATA/captures/nerf_lego DATA/captures/fox
    python scripts/evaluate_captures.py DATA/captures/gso_chicken16 --truth DATA/meshes_eval/gso/chicken_nesting.glb
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console

from pipeline.evaluation.captures import HeldOutSettings, captures_table, score_capture
from pipeline.evaluation.script import run_script
from pipeline.jobs.presets import load_preset
from pipeline.jobs.settings import ReconstructSettings


@dataclass(frozen=True)
class Arguments:
    """Score reconstructions of captures."""

    captures: tyro.conf.Positional[tuple[Path, ...]]
    """Captures of any format."""
    hold: int = 8
    """Every n-th view is held out."""
    preset: str = "standard"
    """Of viewloom reconstruct."""
    truth: Path | None = None
    """True mesh of the only capture, in its world; a GLB's y up becomes z up."""
    ignore_maps: bool = False
    """Leave depth and normal maps out."""
    view_colour: bool = False
    """Tell gloss and exposures apart from the object's own colour."""
    fit_views: int | None = None
    """Fit the surface to so many photos at most; the preset's number by default."""
    texture_views: int | None = None
    """Make the texture from so many photos at most; the preset's number by default."""
    out: Path | None = None
    """Write the scores as JSON."""


def main(arguments: Arguments) -> None:
    """Run and print the table."""
    settings = load_preset(arguments.preset, ReconstructSettings()).settings
    settings = replace(settings, fit=replace(settings.fit, view_dependence=arguments.view_colour))
    if arguments.fit_views is not None:
        settings = replace(settings, fit=replace(settings.fit, max_views=arguments.fit_views))
    if arguments.texture_views is not None:
        settings = replace(settings, mesh=replace(settings.mesh, texture_views=arguments.texture_views))
    evaluated = HeldOutSettings(arguments.hold, arguments.ignore_maps, arguments.truth)
    console, done = Console(), dict[str, dict[str, float]]()
    for path in arguments.captures:
        done[path.name] = score_capture(path, settings, evaluated)
        console.print(path.name, done[path.name], highlight=False)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(done, indent=1) + "\n")
    console.print(captures_table(done))


if __name__ == "__main__":
    run_script(main, Arguments)
