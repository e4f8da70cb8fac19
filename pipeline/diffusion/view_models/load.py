"""Any checkpoint that makes views of a photo: what it is, known before it is loaded; and loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.diffusion.checkpoints.configs import conditioning_of, read_config
from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.layouts import (
    INDEX,
    LdmFile,
    NanoFolder,
    Zero123PlusFolder,
    find_layout,
    folder_parameters,
    fourth_entry,
    ldm_parameters,
    licence_in,
    licence_of,
    part_config,
    scheduler_config,
)
from pipeline.diffusion.settings import Memory, PoseEntry, Precision
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion, ramp_of

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_NANO_PARTS = ("unet", "vae", "image_encoder", "cc_projection")
_PLUS_PARTS = ("unet", "vae", "vision_encoder", "text_encoder")


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is, read off its files without loading weights.

    Args:
        layout: in words.
        licence: of the weights, or ``unknown``.
        parameters: numbers in each part.
        remarks: what was decided about it, in words.
        row_gb: what the U-Net holds for a view in single precision; measured at full size.
        image_gb: what the decoder holds for an image in single precision; the same.
        rows: views (or passes) that go together with low, normal and high memory.
    """

    layout: str
    licence: str
    parameters: dict[str, int]
    remarks: tuple[str, ...] = ()
    row_gb: float = 0.1
    image_gb: float = 0.3
    rows: tuple[int, int, int] = (1, 4, 16)

    def line(self, dtype: Precision, memory: Memory) -> str:
        """One line for the user."""
        total = sum(self.parameters.values())
        words = [
            f"{self.layout}: {_millions(total)} parameters (U-Net {_millions(self.parameters['unet'])})",
            *self.remarks,
            f"licence {self.licence}",
            f"about {self.gigabytes(dtype, memory):.1f} GB in {dtype}",
        ]
        return "; ".join(words)

    def gigabytes(self, dtype: Precision, memory: Memory) -> float:
        """Estimated memory while views are made: the weights, and what the U-Net and the decoder hold on the way."""
        rows = dict(zip(("low", "normal", "high"), self.rows, strict=True))[memory]
        held = max(self.row_gb * rows, self.image_gb * (1 if memory == "low" else rows)) / 4
        return (sum(self.parameters.values()) / 1e9 + held) * _BYTES[dtype]

    def as_dict(self) -> dict[str, object]:
        """Plain values for manifests."""
        return {
            "layout": self.layout,
            "licence": self.licence,
            "parameters": dict(self.parameters),
            "remarks": list(self.remarks),
        }


def checkpoint_info(path: Path, pose: PoseEntry = "auto") -> CheckpointInfo:
    """What a folder or file holds; reads configs and the heads of weight files only.

    Raises:
        CheckpointError: it is no checkpoint of a known layout, a part is missing, its noise process is not
            supported, or its files are cut off.
    """
    found = find_layout(path)
    if not isinstance(found, LdmFile):
        scheduler_config(found.path)
    if isinstance(found, NanoFolder):
        conditioning = conditioning_of(found.index, path / INDEX)
        needed = ("coarse",) if conditioning.coarse else ()
        more = [name for name in ("coarse", "symmetry", "aligned") if (path / name).is_dir() or name in needed]
        parts = (*_NANO_PARTS, *more)
        for part in parts:
            read_config(part_config(path / part))
        parameters = folder_parameters(path, parts)
        return CheckpointInfo("viewloom", licence_in(found.index), parameters, (), 0.02, 0.02, (16, 16, 16))
    if isinstance(found, Zero123PlusFolder):
        version = "1.1" if float(ramp_of(found)[0]) == 0 else "1.2"
        return CheckpointInfo(
            f"Zero123++ v{version}, six views",
            licence_of(path),
            folder_parameters(path, _PLUS_PARTS),
            (),
            0.9,
            2.8,
            (1, 2, 2),
        )
    polar = fourth_entry(found, pose) == "polar"
    kind = "Stable Zero123" if polar else "Zero123"
    if isinstance(found, LdmFile):
        parameters, averaged = ldm_parameters(found.path)
        average = "averaged weights" if averaged else "no averaged weights in it"
        return CheckpointInfo(f"{kind}, original layout", "unknown", parameters, (average,))
    parts = ("unet", "vae", "image_encoder", found.projection)
    return CheckpointInfo(
        f"{kind}, diffusers layout with {found.projection}", licence_of(path), folder_parameters(path, parts)
    )


def load_view_model(
    source: Path | str, *, dtype: torch.dtype = torch.float32, pose: PoseEntry = "auto"
) -> ViewDiffusion | SixViewDiffusion:
    """Load a view model of any layout, from a folder, a file, or a hub id, onto the CPU.

    Args:
        source: as in :meth:`pipeline.diffusion.view_models.zero123.ViewDiffusion.from_pretrained`.
        dtype: of the large parts.
        pose: fourth number of Zero123's poses; by default inferred from the checkpoint's name.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged, or of another kind.
        MissingBackendError: it needs transformers, which is not installed.
    """
    found = find_layout(local_checkpoint(source))
    if isinstance(found, Zero123PlusFolder):
        return SixViewDiffusion.of_layout(found, dtype=dtype)
    return ViewDiffusion.of_layout(found, dtype=dtype, pose=pose)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"
