"""viewloom: one photo, a few photos or a posed capture in; consistent views and a textured GLB out.

The names below are the public interface; they are imported when first used, so that ``import viewloom`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.diffusion.align import align_views
    from pipeline.diffusion.generate import GeneratedViews, generate_views
    from pipeline.diffusion.preparation.prepare import PreparedPhoto, prepare_photo
    from pipeline.diffusion.settings import AlignSettings, FusionSampling, PrepareSettings, SamplingSettings
    from pipeline.diffusion.view_models.load import load_view_model
    from pipeline.diffusion.view_models.zero123 import ViewDiffusion
    from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion
    from pipeline.diffusion.viewfusion.generate import FusedRing, fuse_views
    from pipeline.diffusion.viewfusion.model import ViewFusionModel
    from pipeline.editing.boxes import BoxTarget
    from pipeline.editing.depth_target import DepthTarget
    from pipeline.editing.load import load_editor
    from pipeline.editing.model import EditDiffusion
    from pipeline.editing.redraw import edit_capture
    from pipeline.editing.settings import ConsolidateSettings
    from pipeline.editing.target import SkeletonTarget
    from pipeline.jobs.edit import edit
    from pipeline.jobs.fuse import fuse
    from pipeline.jobs.image2mesh import image2mesh, make_views
    from pipeline.jobs.item_result import ItemResult
    from pipeline.jobs.posing.pose import pose
    from pipeline.jobs.reconstruct import reconstruct
    from pipeline.jobs.settings import (
        EditSettings,
        FuseSettings,
        FusionSettings,
        Image2MeshSettings,
        MeshSettings,
        ReconstructSettings,
        RingSettings,
        ViewsSettings,
    )
    from recon.checks.capture import CaptureReport, check_capture
    from recon.export.export_mesh import export_mesh
    from recon.export.glb import write_glb
    from recon.export.validate import GlbReport, validate_glb
    from recon.fit import fit_surface
    from recon.mesh.marching_cubes import extract_mesh
    from recon.mesh.metrics import MeshScores, compare_meshes
    from recon.settings import FitSettings, GlbSettings
    from recon.surface import Surface
    from recon.texture.bake import TexturedMesh, bake
    from scene.camera import Camera, look_at, orbit_camera
    from scene.captures import load_capture
    from scene.errors import InputError, ViewloomError
    from scene.skeleton import Motion, Skeleton
    from scene.view import View
    from scene.viewset import ViewSet

__version__ = "0.1.0"

_HOMES = {
    "pipeline.diffusion.view_models.zero123": ("ViewDiffusion",),
    "pipeline.diffusion.view_models.load": ("load_view_model",),
    "pipeline.diffusion.align": ("align_views",),
    "pipeline.diffusion.generate": ("GeneratedViews", "generate_views"),
    "pipeline.diffusion.preparation.prepare": ("PreparedPhoto", "prepare_photo"),
    "pipeline.diffusion.settings": ("AlignSettings", "FusionSampling", "PrepareSettings", "SamplingSettings"),
    "pipeline.diffusion.view_models.zero123plus": ("SixViewDiffusion",),
    "pipeline.diffusion.viewfusion.generate": ("FusedRing", "fuse_views"),
    "pipeline.diffusion.viewfusion.model": ("ViewFusionModel",),
    "pipeline.editing.boxes": ("BoxTarget",),
    "pipeline.editing.depth_target": ("DepthTarget",),
    "pipeline.editing.load": ("load_editor",),
    "pipeline.editing.model": ("EditDiffusion",),
    "pipeline.editing.redraw": ("edit_capture",),
    "pipeline.editing.settings": ("ConsolidateSettings",),
    "pipeline.editing.target": ("SkeletonTarget",),
    "pipeline.jobs.item_result": ("ItemResult",),
    "pipeline.jobs.edit": ("edit",),
    "pipeline.jobs.fuse": ("fuse",),
    "pipeline.jobs.image2mesh": ("image2mesh", "make_views"),
    "pipeline.jobs.posing.pose": ("pose",),
    "pipeline.jobs.reconstruct": ("reconstruct",),
    "pipeline.jobs.settings": (
        "EditSettings",
        "FuseSettings",
        "FusionSettings",
        "Image2MeshSettings",
        "MeshSettings",
        "ReconstructSettings",
        "RingSettings",
        "ViewsSettings",
    ),
    "recon.checks.capture": ("CaptureReport", "check_capture"),
    "recon.export.export_mesh": ("export_mesh",),
    "recon.surface": ("Surface",),
    "recon.fit": ("fit_surface",),
    "recon.export.glb": ("write_glb",),
    "recon.mesh.marching_cubes": ("extract_mesh",),
    "recon.mesh.metrics": ("MeshScores", "compare_meshes"),
    "recon.settings": ("FitSettings", "GlbSettings"),
    "recon.texture.bake": ("TexturedMesh", "bake"),
    "recon.export.validate": ("GlbReport", "validate_glb"),
    "scene.camera": ("Camera", "look_at", "orbit_camera"),
    "scene.captures": ("load_capture",),
    "scene.errors": ("InputError", "ViewloomError"),
    "scene.skeleton": ("Motion", "Skeleton"),
    "scene.view": ("View",),
    "scene.viewset": ("ViewSet",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    """Import a public name from its room on first use."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'viewloom' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
