"""Where a run stands between two intervals, on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.editing.task import IntervalReport, StepReport
from qnerf.store import QueryLayer, Statistics
from scene.files import written_aside

_FILE = "edit.safetensors"


@dataclass(frozen=True, eq=False)
class Progress:
    """What the rest of a run follows from.

    Args:
        latents: of all views, with which the next interval begins.
        statistics: of queries, by the index of the step that they are of.
        field: the field's state; empty without one.
        intervals: how those that are done went.
    """

    latents: Float[Tensor, "n c h w"]
    statistics: Mapping[int, Mapping[QueryLayer, Statistics]]
    field: Mapping[str, Tensor]
    intervals: tuple[IntervalReport, ...]

    def save(self, folder: Path, digest: str) -> None:
        """Write it aside and rename it.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        tensors = {"latents": self.latents} | {f"field.{name}": values for name, values in self.field.items()}
        for step, of_layers in self.statistics.items():
            for number, (mean, deviation) in enumerate(of_layers.values()):
                tensors[f"statistics.{step}.{number}"] = torch.stack([mean, deviation])
        reports = json.dumps([asdict(report) for report in self.intervals])
        with written_aside(folder / _FILE) as partial:
            save_file(
                {name: values.detach().cpu().contiguous() for name, values in tensors.items()},
                partial,
                {"digest": digest, "intervals": reports},
            )

    @classmethod
    def load(cls, folder: Path, digest: str, layers: Sequence[QueryLayer]) -> Progress | None:
        """What :meth:`save` wrote, or None: there is nothing, it is of something else, or it is damaged."""
        try:
            with safe_open(folder / _FILE, "pt") as file:
                told = file.metadata() or {}
                if told.get("digest") != digest:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (SafetensorError, OSError):
            return None
        statistics: dict[int, dict[QueryLayer, Statistics]] = {}
        for name in sorted(tensors, key=lambda name: (len(name), name)):
            if name.startswith("statistics."):
                step, number = (int(word) for word in name.split(".")[1:])
                statistics.setdefault(step, {})[layers[number]] = Statistics(*tensors[name])
        reports = tuple(
            IntervalReport(**{**report, "guided": tuple(StepReport(**step) for step in report["guided"])})
            for report in json.loads(told["intervals"])
        )
        field = {name.removeprefix("field."): values for name, values in tensors.items() if name.startswith("field.")}
        return cls(tensors["latents"], statistics, field, reports)
