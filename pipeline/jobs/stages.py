"""The stages of the jobs: each reads what earlier ones wrote and writes into the folder it is given."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from pipeline.diffusion.preparation.prepare import PreparedPhoto, prepare_photo
from pipeline.diffusion.settings import PrepareSettings
from pipeline.jobs.settings import MeshSettings, RingSettings, ViewsSettings
from recon.export.asset import to_asset_frame
from recon.export.export_mesh import export_mesh
from recon.fit import fit_surface, prior_surface
from recon.mesh.marching_cubes import asset_mesh
from recon.settings import FitSettings, GlbSettings
from recon.surface import Surface
from recon.texture.bake import TexturedMesh, bake
from recon.unmasked.radiance_fit import fit_unmasked
from scene.backends import pick_device
from scene.camera import DEFAULT_RADIUS
from scene.errors import InputError, ViewloomError
from scene.framing import Framing
from scene.view import View
from scene.viewset import ViewSet

if TYPE_CHECKING:
    import torch

    from pipeline.diffusion.view_models.zero123 import ViewDiffusion
    from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion

Progress = Callable[[int, int], None]


def ring_orbits(rings: RingSettings) -> Float[np.ndarray, "v 3"]:
    """(azimuth, elevation, radius) of all views of the rings, radians.

    Raises:
        InputError: the rings' lists have different lengths.
    """
    if not len(rings.views) == len(rings.elevations_deg) == len(rings.offsets_deg):
        raise InputError("rings need as many elevations and offsets as counts of views")
    rows = [
        (math.radians(offset + k * 360 / count), math.radians(elevation), DEFAULT_RADIUS)
        for count, elevation, offset in zip(rings.views, rings.elevations_deg, rings.offsets_deg, strict=True)
        for k in range(count)
    ]
    return np.array(rows)


def view_confidence(settings: ViewsSettings, orbit: Float[np.ndarray, "3"], photo_elevation: float) -> float:
    """Confidence in a generated view: falls with the angle between its camera and the photo's, seen from the object.

    Args:
        settings: confidences next to and opposite to the photo.
        orbit: (azimuth, elevation, radius) of the view; the photo stands at azimuth 0.
        photo_elevation: of the photo's camera, radians.
    """
    azimuth, elevation = float(orbit[0]), float(orbit[1])
    cosine = math.cos(azimuth) * math.cos(elevation) * math.cos(photo_elevation)
    cosine += math.sin(elevation) * math.sin(photo_elevation)
    return settings.front_weight + (settings.back_weight - settings.front_weight) * (1 - cosine) / 2


def prepare_stage(folder: Path, photo: Path, settings: PrepareSettings, mask: Path | None) -> None:
    """Write the cut-out, its mask and the framed cut-out."""
    prepared = prepare_photo(photo, settings, mask)
    Image.fromarray(prepared.cutout).save(folder / "cutout.png")
    Image.fromarray(prepared.mask).save(folder / "mask.png")
    Image.fromarray(prepared.framed).save(folder / "framed.png")
    facts = {
        "warnings": prepared.warnings,
        "scale": prepared.framing.scale,
        "offset": prepared.framing.offset,
        "side": prepared.framing.size,
    }
    (folder / "prepare.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def load_prepared(folder: Path) -> PreparedPhoto:
    """Read what :func:`prepare_stage` wrote."""
    facts = json.loads((folder / "prepare.json").read_text(encoding="utf-8"))
    framing = Framing(facts["scale"], tuple(facts["offset"]), facts["side"])
    return PreparedPhoto(
        np.array(Image.open(folder / "cutout.png")),
        np.array(Image.open(folder / "framed.png")),
        framing,
        tuple(facts["warnings"]),
    )


def views_stage(
    folder: Path,
    prepared: PreparedPhoto,
    model: ViewDiffusion | SixViewDiffusion,
    settings: ViewsSettings,
    on_step: Progress | None = None,
) -> None:
    """Write a capture folder with the photo and the generated views, and the coarse volume if there is one.

    Empty views are left out, with a warning in the capture's facts; the others keep their numbers.
    A model of six views has a rig of its own, which takes the place of the rings.
    """
    import torch

    from pipeline.diffusion.generate import generate_six_views, generate_views
    from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion

    photo, elevation = prepared.resized(model.image_size), settings.elevation_deg
    if isinstance(model, SixViewDiffusion):
        orbits = model.rig.orbits().double().numpy()
        generated = generate_six_views(model, photo, settings.sampling, elevation_deg=elevation, on_step=on_step)
    else:
        orbits = ring_orbits(settings.rings)
        generated = generate_views(
            model, photo, torch.from_numpy(orbits).float(), settings.sampling, elevation_deg=elevation, on_step=on_step
        )
    side = prepared.framed.shape[0]
    views = [View("photo", generated.photo_camera.resized(side, side), prepared.framed, weight=settings.photo_weight)]
    empty = []
    for k, (rgba, orbit) in enumerate(zip(generated.rgba, orbits, strict=True)):
        name = f"view_{k:02d}"
        if not (rgba[..., 3] >= 128).any():
            empty.append(name)
            continue
        weight = view_confidence(settings, orbit, generated.elevation)
        views.append(View(name, generated.cameras[k], rgba, weight=weight))
    if len(views) == 1:
        raise ViewloomError("the model generated empty views only", fix="Try another --views.sampling.seed.")
    facts: dict[str, Any] = {
        "source_elevation_deg": round(math.degrees(generated.elevation), 3),
        "normalised": True,
        "elevation": "given"
        if settings.elevation_deg is not None
        else "predicted"
        if generated.occupancy is not None
        else "assumed",
    }
    if empty:
        # As masks they would say that nothing is there, with the weight of a view.
        warning = f"{len(empty)} of {len(orbits)} generated views are empty and were left out: {', '.join(empty)}."
        facts["warnings"] = [f"{warning} Another --views.sampling.seed may fill them."]
    ViewSet(tuple(views), True, facts).save(folder)
    if generated.occupancy is not None and generated.colours is not None:
        with (folder / "coarse.npz").open("wb") as file:
            np.savez(
                file, occupancy=generated.occupancy.astype(np.float16), colours=generated.colours.astype(np.float16)
            )


def surface_stage(
    folder: Path,
    capture: Path,
    settings: FitSettings,
    on_step: Progress | None = None,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> None:
    """Fit a surface to a capture folder; falls back to the coarse volume if the views contradict each other wholly."""
    views = ViewSet.load(capture)
    if views.has_masks:
        surface = _masked_surface(views, capture / "coarse.npz", settings, on_step, pick_device(device), checkpoint)
    else:
        surface = fit_unmasked(views, settings, on_step=on_step, checkpoint=checkpoint)
    surface.save(folder / "surface.npz")
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _masked_surface(
    views: ViewSet,
    coarse: Path,
    settings: FitSettings,
    on_step: Progress | None,
    device: torch.device,
    checkpoint: Path | None,
) -> Surface:
    occupancy = colours = None
    if coarse.is_file():
        with np.load(coarse) as data:
            occupancy, colours = data["occupancy"].astype(np.float32), data["colours"].astype(np.float32)
    try:
        return fit_surface(views, settings, prior=occupancy, device=device, on_step=on_step, checkpoint=checkpoint)
    except InputError as error:
        if occupancy is None or colours is None:
            raise
        surface = prior_surface(occupancy, colours, settings)
        return replace(surface, report=replace(surface.report, reason=error.what))


def asset_stage(
    folder: Path,
    capture: Path,
    surface_path: Path,
    name: str,
    mesh: MeshSettings,
    glb: GlbSettings,
    extras: dict[str, Any],
    generator: str,
) -> None:
    """Write the GLB and the other formats that are asked for, all checked, the turntable and a summary."""
    surface = Surface.load(surface_path)
    views = ViewSet.load(capture)
    limits = mesh.limits
    vertices, faces = asset_mesh(surface, limits.max_faces, mesh.smoothing)
    textured = bake(vertices, faces, views, surface, limits.texture, specular=surface.specular)
    moved = views.metadata.get("normalised_from_world")
    world = None if moved is None else np.array(moved, np.float64)
    asset = to_asset_frame(textured, glb, extras, generator, world)
    # Once each, the GLB first: it is what the job promises.
    exported = [
        export_mesh(folder / f"{name}.{ending}", asset, glb, profile=limits, may_shrink=mesh.texture is None)
        for ending in dict.fromkeys(("glb", *glb.formats))
    ]
    save_turntable(folder / "turntable.webp", textured)
    made = exported[0]
    assert made.report is not None  # it is a GLB
    facts = {
        "summary": str(made),
        "health": asdict(made.health),
        "profile": mesh.profile,
        "bytes": made.size,
        "surface": surface.report.to_dict(),
        "validator": made.report.tool,
        "validator_errors": made.report.errors,
        "validator_warnings": made.report.warnings,
        "files": [one.to_dict() for one in exported],
        "broken_limits": [text for one in exported for text in one.broken_limits],
    }
    (folder / "asset.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def turntable_frames(
    mesh: TexturedMesh, frames: int = 24, size: int = 256, elevation_deg: float = 15.0
) -> Float[np.ndarray, "t s s 3"]:
    """The asset from all around, filling the frame, without shading (its texture holds the light), on white."""
    from scene.camera import orbit_camera
    from scene.render import UNLIT, MeshRenderer, over_white

    renderer = MeshRenderer(mesh.coloured().normalised(), UNLIT)
    return np.stack(
        [
            over_white(
                renderer.render(orbit_camera(k * 2 * math.pi / frames, math.radians(elevation_deg), size=size)).rgba
            )
            for k in range(frames)
        ]
    )


def save_turntable(path: Path, mesh: TexturedMesh) -> None:
    """An animated picture of the asset."""
    frames = [Image.fromarray(np.round(f * 255).astype(np.uint8)) for f in turntable_frames(mesh)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=90, loop=0, quality=80, method=4)
