"""The editor of a job: known by its files, and checked, before any work; on its device when a stage first needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.layouts import INDEX, licence_in, licence_of, read_json
from pipeline.diffusion.checkpoints.weight_files import PICKLES
from pipeline.editing.controls import ControlKind
from pipeline.editing.load import CONTROLS, check_kind, load_editor
from pipeline.editing.model import EditDiffusion
from pipeline.jobs.progress import LoggingReporter, Reporter
from pipeline.jobs.runner import digest_of_folder
from pipeline.jobs.settings import EditorSettings
from scene.backends import pick_device
from scene.errors import CheckpointError
from scene.files import reading
from scene.resources import default_editor, default_weights

_ENDINGS = (".json", ".safetensors", *PICKLES)


@dataclass(eq=False)
class JobEditor:
    """A checkpoint that a job draws edited views with.

    Args:
        settings: which, and how it is loaded.
        kind: of the controls that it is given.
        device: where it runs.
        reporter: told what is loaded.

    Raises:
        CheckpointError: nothing is there, or it is no editor.
    """

    settings: EditorSettings
    kind: ControlKind
    device: str
    reporter: Reporter = field(default_factory=LoggingReporter)
    path: Path = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = local_checkpoint(self.settings.weights or default_editor())
        if not (self.path / INDEX).is_file():
            raise CheckpointError(
                f"is no folder with a {INDEX}", where=self.path, fix="Give an editor's folder to --editor.weights."
            )
        with reading(self.path):
            self.digest = digest_of_folder(self.path, _ENDINGS)
            if self.is_own and not (self.path / "vae").is_dir():
                self.digest += digest_of_folder(default_weights() / "vae", _ENDINGS)

    def check(self) -> None:
        """Raise for files that cannot draw this edit, before any work is done.

        Viewloom's own editors are small, and loaded; of others the index is looked at.

        Raises:
            CheckpointError: parts are missing or damaged, it is of another kind, or was not trained for such controls.
            InputError: it takes no prompt, or no other ControlNet.
        """
        if not self.is_own:
            check_kind(self._index, self.path)
        elif self.kind not in self._on_cpu.controlnets:
            known = ", ".join(sorted(self._on_cpu.controlnets)) or "none"
            raise CheckpointError(
                f"the editor has no ControlNet for {self.kind}", where=self.path, fix=f"It has: {known}."
            )

    @property
    def is_own(self) -> bool:
        """Whether it is an editor of viewloom's own, with a ControlNet of its own."""
        return bool(self._index.get("_class_name") == EditDiffusion.__name__)

    @property
    def key(self) -> list[Any]:
        """What the views depend on, of all that is not a setting of the method."""
        plain, net = self.settings, self._net
        if net is not None and Path(net).is_dir():
            with reading(Path(net)):
                net = digest_of_folder(Path(net), _ENDINGS)
        return [self.digest, net, plain.prompt, plain.dtype, plain.memory == "low", pick_device(self.device).type]

    @property
    def facts(self) -> dict[str, str]:
        """Name, digest and licence, for manifests."""
        licence = licence_in(self._index) if self.is_own else licence_of(self.path)
        return {"name": self.path.resolve().name, "sha256": self.digest, "licence": licence}

    @cached_property
    def loaded(self) -> EditDiffusion:
        """The model on its device.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        model = self._on_cpu
        self.reporter.note(f"Editor {self.path.resolve().name}: {model.image_size} pixels, licence {model.licence}.")
        return model.to(pick_device(self.device), self._dtype).use_memory(self.settings.memory)

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.settings.dtype)
        return found

    @cached_property
    def _index(self) -> dict[str, Any]:
        return read_json(self.path / INDEX)

    @property
    def _net(self) -> str | None:
        """The ControlNet that is named for these controls, or is the default; None of editors that have their own."""
        given: dict[ControlKind, str | None] = {
            "skeleton": self.settings.skeleton_net,
            "depth": self.settings.depth_net,
        }
        return given[self.kind] or (None if self.is_own else CONTROLS[self.kind])

    @cached_property
    def _on_cpu(self) -> EditDiffusion:
        controls: dict[ControlKind, Path | str] = {} if self._net is None else {self.kind: self._net}
        return load_editor(self.path, controls or None, prompt=self.settings.prompt, dtype=self._dtype)
