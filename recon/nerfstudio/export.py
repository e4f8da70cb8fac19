"""From a finished run of the method to a textured GLB that knows the way back into the capture's own coordinates.

Example: python -m recon.nerfstudio.export --config outputs/NAME/viewloom-surface/TIME/config.yml --out asset.glb
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from recon.export.glb import write_glb
from recon.hash_sdf.field import HashField
from recon.mesh.decimate import decimate
from recon.mesh.marching_cubes import extract_mesh, taubin
from recon.mesh.topology import remove_small_components
from recon.nerfstudio.run_config import read_run_config
from recon.settings import GlbSettings
from recon.surface import Surface
from recon.texture.bake import bake
from scene.camera import Camera, Mat4
from scene.documents import is_number, read_object, shown
from scene.errors import CheckpointError, InputError
from scene.metadata import affine
from scene.view import View
from scene.viewset import ViewSet


def load_pipeline(config: Path, device: torch.device = torch.device("cpu")) -> Any:
    """The pipeline of a finished run, with its newest checkpoint.

    Args:
        config: ``config.yml`` that ``ns-train`` wrote; see :mod:`recon.nerfstudio.run_config`.
        device: where to compute.

    Raises:
        CheckpointError: there is no checkpoint beside it, or it belongs to other settings.
    """
    if not config.is_file():
        raise InputError("there is no such run", where=config, fix="Give the config.yml that ns-train wrote.")
    content = read_run_config(config)
    checkpoints = sorted((config.parent / content.relative_model_dir).glob("step-*.ckpt"))
    if not checkpoints:
        raise CheckpointError("the run has no checkpoint", where=config.parent, fix="Train it first.")
    state = torch.load(checkpoints[-1], map_location=device, weights_only=True)
    pipeline = content.pipeline.setup(device=device, test_mode="inference")
    try:
        # nerfstudio's own way takes what fits and leaves out the rest.
        pipeline.model.update_to_step(state["step"])
        pipeline.load_state_dict(state["pipeline"], strict=True)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"does not fit its settings ({str(error).splitlines()[0]})", where=checkpoints[-1]
        ) from error
    pipeline.eval()
    return pipeline


def training_from_original(transforms: Path) -> Mat4:
    """The similarity from the capture's original world to the one that nerfstudio trained in.

    Args:
        transforms: ``dataparser_transforms.json``: a rigid motion, after which everything is scaled.
    """
    content = read_object(transforms)
    scale = content.get("scale")
    if not is_number(scale, 1e-9, 1e9):
        raise InputError(f"scale is {shown(scale)}, not a positive number", where=transforms)
    matrix = affine(content.get("transform"), "transform", transforms)
    matrix[:3] *= scale
    return matrix


def field_surface(field: HashField, resolution: int, colour_resolution: int = 96) -> Surface:
    """Distances and head-on colours of a field on grids over its box.

    Raises:
        InputError: the box is no cube about the origin.
    """
    half = float(field.high[0])
    if not torch.allclose(field.high, field.high.new_tensor(half)) or not torch.allclose(field.low, -field.high):
        raise InputError("the scene box is no cube about the origin")
    sdf = field.dense((resolution,) * 3)
    axis = ((torch.arange(colour_resolution, device=sdf.device) + 0.5) / colour_resolution * 2 - 1) * half
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    with torch.no_grad():
        colour = torch.stack([field.rgb(plane) for plane in points])
    return Surface.cube(sdf.cpu().numpy(), colour.cpu().numpy(), half)


def parsed_views(parser: Any) -> ViewSet:
    """The pictures that nerfstudio parsed, in its training world; those of distorting lenses are left out."""
    views: dict[Path, View] = {}
    for split in ("train", "val"):
        parsed = parser.get_dataparser_outputs(split=split)
        for k, path in enumerate(parsed.image_filenames):
            camera = parsed.cameras[k]
            distorted = camera.distortion_params is not None and bool((camera.distortion_params != 0).any())
            # With few pictures, or on request, both splits hold the same ones.
            if distorted or path in views:
                continue
            mask = parsed.mask_filenames[k] if parsed.mask_filenames else None
            views[path] = View(f"{len(views):05d}", _pinhole(camera), image_path=path, mask_path=mask)
    return ViewSet(tuple(views.values()), has_masks=True)


def _pinhole(camera: Any) -> Camera:
    c2w = np.eye(4)
    c2w[:3] = camera.camera_to_worlds.numpy()
    # What single precision has left of a rotation.
    u, _, v = np.linalg.svd(c2w[:3, :3])
    c2w[:3, :3] = u @ v
    fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    return Camera(c2w, fx, fy, cx, cy, int(camera.width), int(camera.height))


def export_run(
    config: Path,
    out: Path,
    *,
    resolution: int = 192,
    faces: int = 20_000,
    texture: int = 1024,
    glb: GlbSettings = GlbSettings(),
) -> None:
    """Write the surface of a finished run as a textured GLB.

    ``world_from_asset`` in the file's extras leads from the asset back into the capture's original coordinates,
    whatever nerfstudio's parser did to them.

    Args:
        config: the run's ``config.yml``, with ``dataparser_transforms.json`` beside it.
        out: the GLB.
        resolution: voxels along each side of the box for marching cubes.
        faces: most faces of the mesh.
        texture: side of the texture in pixels.
        glb: placement and packing.

    Raises:
        InputError: the run is not there, not trained, or holds an empty surface.
    """
    pipeline = load_pipeline(config)
    if pipeline.datamanager.dataparser.config.orientation_method == "pca":
        # Version 1.1.5 turns two cameras instead of two axes, and stores a transform that belongs to neither.
        raise InputError("the way back from nerfstudio's pca orientation is not known", fix="Train with another one.")
    surface = field_surface(pipeline.model.field, resolution)
    vertices, triangles = remove_small_components(*extract_mesh(surface))
    vertices, triangles = decimate(taubin(vertices, triangles), triangles, faces)
    mesh = bake(vertices, triangles, parsed_views(pipeline.datamanager.dataparser), surface, texture)
    write_glb(
        out, mesh, glb, normalised_from_world=training_from_original(config.parent / "dataparser_transforms.json")
    )


if __name__ == "__main__":
    tyro.cli(export_run)
