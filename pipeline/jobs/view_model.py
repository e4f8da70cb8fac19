"""The view model of a job: known by its files before any work, loaded when a stage first needs it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.weight_files import PICKLES
from pipeline.diffusion.settings import Memory, PoseEntry, Precision
from pipeline.diffusion.view_models.load import CheckpointInfo, checkpoint_info, load_view_model
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion
from pipeline.jobs.progress import LoggingReporter, Reporter
from pipeline.jobs.runner import digest_of_file, digest_of_folder
from scene.backends import pick_device
from scene.files import reading

_LOG = logging.getLogger("viewloom")


@dataclass(eq=False)
class JobViewModel:
    """A checkpoint that a job draws views with.

    Args:
        weights: folder, file or hub id.
        device, dtype, memory, pose: how it is loaded.
        reporter: told what is loaded, if ``announced``.

    Raises:
        CheckpointError: nothing is there.
    """

    weights: Path
    device: str
    dtype: Precision = "float32"
    memory: Memory = "normal"
    pose: PoseEntry = "auto"
    reporter: Reporter = field(default_factory=LoggingReporter)
    announced: bool = True
    path: Path = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = local_checkpoint(self.weights)
        with reading(self.path):
            self.digest = (
                digest_of_file(self.path)
                if self.path.is_file()
                else digest_of_folder(self.path, (".json", ".safetensors", *PICKLES))
            )

    def check(self) -> None:
        """Raise for files that cannot be loaded, before any work is done.

        Raises:
            CheckpointError: parts are missing or damaged.
        """
        self.info.line(self.dtype, self.memory)

    @cached_property
    def info(self) -> CheckpointInfo:
        """What the files say of themselves."""
        return checkpoint_info(self.path, self.pose)

    @property
    def has_aligned_decoder(self) -> bool:
        """Whether layers of an aligned decoder lie beside the model's other parts."""
        return (self.path / "aligned").is_dir()

    @property
    def key(self) -> list[str]:
        """What the views depend on besides weights and device, where it is not as usual."""
        usual = {"dtype": "float32", "memory": "normal", "pose": "auto"}
        return [f"{name} {getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]

    @cached_property
    def loaded(self) -> ViewDiffusion | SixViewDiffusion:
        """The model on its device."""
        dtype = getattr(torch, self.dtype)
        if self.announced:
            self.reporter.note(self.info.line(self.dtype, self.memory))
        since, device = time.monotonic(), pick_device(self.device)
        model = load_view_model(self.path, dtype=dtype, pose=self.pose).to(device, dtype).use_memory(self.memory)
        millions = sum(self.info.parameters.values()) / 1e6
        seconds = time.monotonic() - since
        _LOG.debug("view model: %.1f M parameters as %s on %s in %.1f s", millions, self.dtype, device, seconds)
        return model
