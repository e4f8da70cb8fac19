"""Train the segmenter, on a CPU or a GPU, on photos composed while it trains.

Example: python scripts/train_segmenter.py --objects DATA/meshes_train --foregrounds FOREGROUNDS --out OUT --minutes 60
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.diffusion.preparation.segmenter import SegmenterModel
from pipeline.training.data.backdrops import TEXTURES, Paint, Patches
from pipeline.training.data.foregrounds import ForegroundStore
from pipeline.training.data.objects import ObjectPool
from pipeline.training.tasks.segmenter import SegmenterLoss, SegmenterTask, held_out_photos
from pipeline.training.trainer import TrainSettings, begin, train


@dataclass(frozen=True)
class Arguments:
    """Train the segmenter."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    objects: Path
    """Folder of the object pool; its textures serve as surroundings, its val split is the held-out set."""
    foregrounds: Path
    """Objects rendered before (scripts/render_foregrounds.py)."""
    fresh: float = 0.5
    """Share of each batch that is composed for it; the rest are earlier photos again."""
    held_out: int = 256
    """Photos to measure on."""
    loss: SegmenterLoss = SegmenterLoss()
    """Weights of the loss."""


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    model = SegmenterModel()
    if settings.resume is not None:
        model = SegmenterModel.from_pretrained(settings.resume, low_cpu_mem_usage=False).float()
    store = ForegroundStore.open(arguments.foregrounds)
    patches = Patches.of_pool(ObjectPool(arguments.objects, "train"))
    # What was photographed once is as frequent as any two of the painted kinds.
    paints: list[Paint] = [*TEXTURES, *([patches, patches] if patches.pictures else [])]
    held_out = held_out_photos(arguments.objects, arguments.held_out)
    train(
        model,
        lambda device: SegmenterTask(
            model, store, paints, held_out, settings.batch, device, arguments.loss, seed, fresh=arguments.fresh
        ),
        settings,
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
