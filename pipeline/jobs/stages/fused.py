"""The stage of several photos without cameras: a ring of views that they are fused into."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pipeline.diffusion.preparation.prepare import PreparedPhoto
from pipeline.diffusion.viewfusion.generate import FusedRing, fuse_views
from pipeline.jobs.fusion_model import JobFusionModel
from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import FusionSettings, settings_as_dict
from pipeline.jobs.stages.capture_folder import WEIGHTS_FILE, CaptureFolder
from pipeline.jobs.stages.prepare import PrepareStage
from scene.backends import pick_device
from scene.viewset import ViewSet

_SHOWN = 6
"""Views whose weights are shown."""
_MAP_SIDE = 128
_APART = 6.0
"""Most of the spread over rings that pictures show, in shares of the range of colours: 1 / 6 is white."""


@dataclass(frozen=True)
class NumberedPhoto:
    """The cut-out of one of several photos.

    Args:
        stage: of the photo.
        number: of it, from 0.
    """

    stage: PrepareStage
    number: int

    @property
    def name(self) -> str:
        """Of the stage's folder."""
        return f"photo-{self.number:02d}"

    @property
    def key(self) -> list[Any]:
        """That of the cut-out; its number does not matter."""
        return self.stage.key

    def run(self, folder: Path) -> None:
        """Write the cut-out."""
        self.stage.run(folder)

    def load(self, folder: Path) -> PreparedPhoto:
        """The cut-out as it was written."""
        return self.stage.load(folder)


@dataclass(frozen=True)
class FusedStage:
    """Cut-outs to a capture of the first photo and a ring of views.

    Args:
        photos: the cut-outs.
        model: loaded when it is first needed.
        settings: what is drawn.
        on_step: called with (done, total) steps.
    """

    name: ClassVar[str] = "views"
    version: ClassVar[int] = 1

    photos: tuple[StageRun[PreparedPhoto], ...]
    model: JobFusionModel
    settings: FusionSettings
    on_step: Callable[[int, int], None] | None = None

    @property
    def key(self) -> list[Any]:
        """The cut-outs in their order, the settings but for the weights' place, and the model."""
        plain = {name: value for name, value in settings_as_dict(self.settings).items() if name != "weights"}
        device = pick_device(self.model.device).type
        return ["fused", self.version, [one.key for one in self.photos], plain, self.model.digest, device]

    def run(self, folder: Path) -> None:
        """Draw the rings, and write the capture with pictures of weights and spread beside it."""
        s, model = self.settings, self.model.loaded
        photos = [one.result.resized(model.image_size) for one in self.photos]
        elevation = s.elevation_deg
        predicted = elevation is None
        if elevation is None:
            elevation = self.model.elevation_of(self.photos[0].result.resized(_MAP_SIDE))
        rings = []
        for k in range(s.seeds):
            sampling = replace(s.sampling, seed=s.sampling.seed + k)
            told = functools.partial(self._tell, k, s.seeds)
            rings.append(fuse_views(model, photos, s.views, sampling, elevation_deg=elevation, on_step=told))
        ring = rings[0]
        warnings = [*self.model.warnings]
        if ring.empty:
            warnings.append(
                f"{len(ring.empty)} of {s.views} views are empty and were left out: {', '.join(ring.empty)}."
            )
        facts = {**ring.views.metadata, "elevation": "predicted" if predicted else "given"}
        side = self.photos[0].result.framed.shape[0]
        views = [
            # The photo itself at its own size, for the texture.
            replace(view, camera=view.camera.resized(side, side), pixels=self.photos[0].result.framed)
            if view.name == "photo"
            else view
            for view in ring.views
        ]
        held = ViewSet(tuple(views), True, facts | ({"warnings": warnings} if warnings else {}))
        held.save(folder)
        _write_weights(folder, ring, rings)

    def load(self, folder: Path) -> CaptureFolder:
        """The capture."""
        return CaptureFolder(folder).looked_at()

    def _tell(self, ring: int, rings: int, done: int, steps: int) -> None:
        if self.on_step is not None:
            self.on_step(ring * steps + done, rings * steps)


def _write_weights(folder: Path, ring: FusedRing, rings: Sequence[FusedRing]) -> None:
    """Pictures of what each photo counts in some views, in the last of the steps that were kept, and of the spread."""
    names = [view.name for view in ring.views if view.name != "photo"]
    shown = [names[k * len(names) // min(_SHOWN, len(names))] for k in range(min(_SHOWN, len(names)))]
    listed: list[dict[str, Any]] = []
    for name in shown if len(ring.weights) else []:
        maps = ring.weights[-1, int(name.removeprefix("view_"))]
        files = [f"weights_{name}_{k:02d}.png" for k in range(len(maps))]
        for file, one in zip(files, maps, strict=True):
            _grey(one).save(folder / file)
        listed.append({"view": name, "files": files, "shares": [round(float(one.mean()), 4) for one in maps]})
    spreads = {}
    for name in shown if len(rings) > 1 else []:
        drawn = [view.rgba() for one in rings for view in one.views if view.name == name]
        spread = _spread(drawn)
        _grey(spread * _APART).save(folder / f"spread_{name}.png")
        spreads[name] = round(float(spread.mean()), 4)
    content = {"levels": [round(float(level), 6) for level in ring.levels], "weights": listed, "spread": spreads}
    (folder / WEIGHTS_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _spread(drawn: Sequence[UInt8[np.ndarray, "s s 4"]]) -> Float[np.ndarray, "s s"]:
    """Deviation over rings of a view's colours on white, the mean over channels, in [0, 1]."""
    rgba = np.stack(drawn).astype(np.float32) / 255
    white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    return white.std(axis=0).mean(axis=-1)


def _grey(values: Float[np.ndarray, "h w"]) -> Image.Image:
    """Numbers in [0, 1] as a picture, each a block."""
    picture = Image.fromarray(np.round(values.clip(0, 1) * 255).astype(np.uint8))
    return picture.resize((_MAP_SIDE, _MAP_SIDE), Image.Resampling.NEAREST)
