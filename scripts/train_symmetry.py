"""Train the symmetry head on a coarse volume's trunk, on a CPU or a GPU; the options are those of train_vae.py.

Example: python scripts/train_symmetry.py --objects DATA/meshes_train --samples-dir SAMPLES --out OUT --minutes 60
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.symmetry import SymmetryHead
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.open_data import held_out_store
from pipeline.training.data.samples import heldout_mesh
from pipeline.training.data.store import SampleStore
from pipeline.training.data.symmetry import SymmetryLabels, reflection_errors
from pipeline.training.tasks.symmetry import HeldOutPhotos, SymmetryTask
from pipeline.training.trainer import TrainSettings, begin, train


@dataclass(frozen=True)
class Arguments:
    """Train the symmetry head."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    objects: Path
    """Folder of the object pool; its val split is the held-out set."""
    samples_dir: Path
    """Samples of scripts/render_samples.py with labels of scripts/label_symmetry.py."""
    coarse: Path = Path("weights/nano/coarse")
    """The coarse volume whose trunk is read; a head fits no other."""


def main(arguments: Arguments) -> None:
    """Build or load the head, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    coarse = CoarseVolumeModel.from_pretrained(arguments.coarse, low_cpu_mem_usage=False).float()
    model = SymmetryHead.beside(coarse)
    if settings.resume is not None:
        model = SymmetryHead.from_pretrained(settings.resume, low_cpu_mem_usage=False).float()
    store, labels = SampleStore.open(arguments.samples_dir), SymmetryLabels.open(arguments.samples_dir)
    pool = ObjectPool(arguments.objects, "val")
    errors = [reflection_errors(heldout_mesh(pool, k), np.random.default_rng(k))[0] for k in range(len(pool))]
    held_out = HeldOutPhotos.of(held_out_store(arguments.objects).batch_all(), np.array(errors))

    def make_task(device: torch.device) -> SymmetryTask:
        return SymmetryTask(model, coarse, store, labels, held_out, settings.batch, device, seed=seed)

    train(model, make_task, settings)


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
