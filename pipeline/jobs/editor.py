"""The editor of a job: known by its files before any work, loaded when a stage first needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.weight_files import PICKLES
from pipeline.editing.controls import ControlKind
from pipeline.editing.load import load_editor
from pipeline.editing.model import EditDiffusion
from pipeline.jobs.progress import LoggingReporter, Reporter
from pipeline.jobs.runner import digest_of_folder
from pipeline.jobs.settings import EditorSettings
from scene.backends import pick_device
from scene.files import reading
from scene.resources import default_editor, default_weights

_ENDINGS = (".json", ".safetensors", *PICKLES)


@dataclass(eq=False)
class JobEditor:
    """A checkpoint that a job draws edited views with.

    Args:
        settings: which, and how it is loaded.
        device: where it runs.
        reporter: told what is loaded.

    Raises:
        CheckpointError: nothing is there.
    """

    settings: EditorSettings
    device: str
    reporter: Reporter = field(default_factory=LoggingReporter)
    path: Path = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = local_checkpoint(self.settings.weights or default_editor())
        with reading(self.path):
            self.digest = digest_of_folder(self.path, _ENDINGS)
            if not (self.path / "vae").is_dir():
                self.digest += digest_of_folder(default_weights() / "vae", _ENDINGS)

    @property
    def key(self) -> list[Any]:
        """What the views depend on, of all that is not a setting of the method."""
        plain = self.settings
        others = [plain.skeleton_net, plain.depth_net, plain.prompt, plain.dtype, plain.memory == "low"]
        return [self.digest, *others, pick_device(self.device).type]

    @cached_property
    def loaded(self) -> EditDiffusion:
        """The model on its device.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        plain = self.settings
        dtype, device = getattr(torch, plain.dtype), pick_device(self.device)
        given: dict[ControlKind, str | None] = {"skeleton": plain.skeleton_net, "depth": plain.depth_net}
        controls = {kind: net for kind, net in given.items() if net is not None}
        model = load_editor(self.path, controls or None, prompt=plain.prompt, dtype=dtype)
        self.reporter.note(f"Editor {self.path.name}: {model.image_size} pixels, licence {model.licence}.")
        return model.to(device, dtype).use_memory(plain.memory)
