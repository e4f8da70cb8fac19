"""NeuS-facto on a capture for so many seconds: the surface that others' code reaches with the same pictures and time.

The model, its losses, samplers and networks are nerfstudio's own; of the hash grids its torch version is used, which
has no smoothstep. Two sets of numbers. The fair one is for one object and a short run: positive outside, s from 20 on,
schedules as long as the run, smaller tables and networks, fewer rays and samples. The published one is nerfstudio's
method as it stands, for rooms and 20,001 steps on a GPU.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float, Int
from skimage import measure
from torch import Tensor, nn

from scene.camera import OBJECT_RADIUS
from scene.errors import InputError
from scene.ply import encode_ply, xyz_table
from scene.viewset import ViewSet

SCALE = 1 / (1.1 * OBJECT_RADIUS)
"""From the capture's world to the model's, where the object fills most of the box [-1, 1]."""


@dataclass(frozen=True)
class FactoSettings:
    """What the fair and the published runs differ in."""

    rays: int = 512
    proposal_samples: tuple[int, int] = (64, 32)
    samples: int = 24
    levels: int = 10
    finest: int = 512
    log2_size: int = 16
    hidden: int = 64
    features: int = 64
    inside_out: bool = False
    sharpness: float = 0.3
    """p of s = exp(10 p) at the start."""
    step: float = 2e-3
    """Of the field; the proposal networks have nerfstudio's 1e-2."""
    timed: bool = True
    """Schedules follow the share of the time that is used up, not nerfstudio's step numbers."""


FAIR = FactoSettings()
PUBLISHED = FactoSettings(2048, (256, 96), 48, 16, 2048, 19, 256, 256, True, 0.8, 5e-4, False)


class Pixels:
    """Pictures on black, their masks, and nerfstudio's rays through them."""

    def __init__(self, views: ViewSet) -> None:
        from nerfstudio.cameras.cameras import Cameras, CameraType
        from nerfstudio.model_components.ray_generators import RayGenerator

        if not views.has_masks:
            raise InputError("the baseline needs masks", fix="Give RGBA pictures, or mask files beside them.")
        cameras = [view.camera for view in views]
        if len({(camera.width, camera.height) for camera in cameras}) > 1:
            raise InputError("the baseline needs pictures of one size")
        rgba = torch.from_numpy(np.stack([view.rgba() for view in views]).astype(np.float32) / 255)
        self.rgba = rgba
        c2w = np.stack([camera.c2w[:3] for camera in cameras]).astype(np.float32)
        c2w[:, :, 3] *= SCALE
        self._rays = RayGenerator(
            Cameras(
                torch.from_numpy(c2w),
                *(torch.tensor([getattr(c, k) for c in cameras]).float()[:, None] for k in ("fx", "fy", "cx", "cy")),
                width=cameras[0].width,
                height=cameras[0].height,
                camera_type=CameraType.PERSPECTIVE,
            )
        )

    def draw(self, count: int) -> tuple[Any, dict[str, Tensor]]:
        """A ray bundle through random pixels, and the batch that belongs to it."""
        size = torch.tensor(self.rgba.shape[:3])
        index = (torch.rand(count, 3) * size).long().minimum(size - 1)
        rgba = self.rgba[tuple(index.T)]
        return self._rays(index), {"image": rgba[:, :3] * rgba[:, 3:], "fg_mask": (rgba[:, 3:] > 0.5).float()}


class _TorchGrid(nn.Module):
    """nerfstudio's torch hash grid in place of tiny-cuda-nn's encoding, which its SDF field asks for by name."""

    def __init__(self, n_input_dims: int, encoding_config: dict[str, Any]) -> None:
        from nerfstudio.field_components.encodings import HashEncoding

        super().__init__()
        levels, base = encoding_config["n_levels"], encoding_config["base_resolution"]
        self.encoding = HashEncoding(
            levels,
            base,
            round(base * encoding_config["per_level_scale"] ** (levels - 1)),
            encoding_config["log2_hashmap_size"],
            encoding_config["n_features_per_level"],
            implementation="torch",
        )
        self.n_output_dims = n_input_dims and self.encoding.get_out_dim()

    def forward(self, points: Tensor) -> Tensor:
        out: Tensor = self.encoding(points)
        return out


@contextlib.contextmanager
def _without_cuda_and_downloads() -> Iterator[None]:
    """While the model is built: no tiny-cuda-nn, and no perceptual metric, whose weights come from the network."""
    with (
        mock.patch("nerfstudio.fields.sdf_field.tcnn", SimpleNamespace(Encoding=_TorchGrid)),
        mock.patch("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", nn.Identity),
    ):
        yield


def build_model(settings: FactoSettings, views: int) -> Any:
    """NeuS-facto without a background model."""
    from nerfstudio.data.scene_box import SceneBox
    from nerfstudio.fields.sdf_field import SDFFieldConfig
    from nerfstudio.models.neus_facto import NeuSFactoModelConfig

    config = NeuSFactoModelConfig(
        sdf_field=SDFFieldConfig(
            use_grid_feature=True,
            num_layers=2,
            num_layers_color=2,
            hidden_dim=settings.hidden,
            hidden_dim_color=settings.hidden,
            geo_feat_dim=settings.features,
            bias=0.5,
            beta_init=settings.sharpness,
            inside_outside=settings.inside_out,
            num_levels=settings.levels,
            max_res=settings.finest,
            log2_hashmap_size=settings.log2_size,
            use_appearance_embedding=False,
        ),
        background_model="none",
        num_proposal_samples_per_ray=settings.proposal_samples,
        num_neus_samples_per_ray=settings.samples,
        proposal_net_args_list=[
            {"hidden_dim": 16, "log2_hashmap_size": min(settings.log2_size, 17), "num_levels": 5, "max_res": finest}
            | {"implementation": "torch"}
            for finest in (64, 256)
        ],
    )
    with _without_cuda_and_downloads():
        return config.setup(
            scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=views, metadata={}, device="cpu"
        )


class Schedule:
    """Learning rates and anneals of a step."""

    def __init__(self, model: Any, settings: FactoSettings) -> None:
        from nerfstudio.configs.method_configs import method_configs
        from nerfstudio.engine.callbacks import TrainingCallbackAttributes
        from nerfstudio.engine.optimizers import Optimizers

        groups = {
            name: params for name, params in model.get_param_groups().items() if any(p.requires_grad for p in params)
        }
        configs = {name: dict(method_configs["neus-facto"].optimizers[name]) for name in groups}
        self.model, self.settings = model, settings
        self.optimisers = Optimizers(configs, groups)
        self.callbacks = model.get_training_callbacks(TrainingCallbackAttributes(None, None, None, None))

    def before(self, step: int, share: float) -> None:
        """Set what depends on the step, or on the share of the time."""
        from nerfstudio.engine.callbacks import TrainingCallbackLocation

        if not self.settings.timed:
            for callback in self.callbacks:
                callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
            return
        # The anneal of proposal weights lasts a twentieth of the run, as in the original; that of cosines a quarter.
        self.model.field.set_cos_anneal_ratio(min(1.0, 4 * share))
        part = min(1.0, 20 * share)
        self.model.proposal_sampler.set_anneal(10 * part / (9 * part + 1))
        decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))
        rates = {"fields": self.settings.step * min(1.0, 50 * share + 0.02) * decay, "proposal_networks": 1e-2 * decay}
        for name, optimiser in self.optimisers.optimizers.items():
            for group in optimiser.param_groups:
                group["lr"] = rates[name]

    def after(self, step: int) -> None:
        """Move on."""
        from nerfstudio.engine.callbacks import TrainingCallbackLocation

        self.optimisers.optimizer_step_all()
        if not self.settings.timed:
            for scheduler in self.optimisers.schedulers.values():
                scheduler.step()
        for callback in self.callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)


def train(
    model: Any, pixels: Pixels, settings: FactoSettings, seconds: float, clock: Callable[[], float]
) -> dict[str, float]:
    """Optimise for a time; returns what was reached."""
    schedule = Schedule(model, settings)
    model.train()
    began, step = clock(), 0
    losses: dict[str, float] = {}
    while (spent := clock() - began) < seconds:
        schedule.before(step, spent / seconds)
        bundle, batch = pixels.draw(settings.rays)
        outputs = model(bundle)
        parts = model.get_loss_dict(outputs, batch)
        schedule.optimisers.zero_grad_all()
        torch.stack(list(parts.values())).sum().backward()
        schedule.after(step)
        losses, step = {name: float(value.detach()) for name, value in parts.items()}, step + 1
    sharpness = float(model.field.deviation_network.get_variance().detach())
    return {"seconds": clock() - began, "iterations": step, "sharpness": sharpness, **losses}


def psnr(model: Any, pixels: Pixels, count: int = 8192, chunk: int = 1024) -> float:
    """Of random pixels of the pictures that were fitted, on black."""
    model.eval()
    errors = []
    for _ in range(count // chunk):
        bundle, batch = pixels.draw(chunk)
        # The field takes gradients with respect to points even when nothing learns.
        found = model(bundle)["rgb"].detach()
        errors.append((found - batch["image"]).square().mean())
    return -10 * math.log10(float(torch.stack(errors).mean()))


def extract(model: Any, resolution: int) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Marching cubes over the box, in the capture's world; without faces where nothing is inside."""
    axis = torch.linspace(-1, 1, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    with torch.no_grad():
        sdf = torch.cat([model.field.forward_geonetwork(part)[:, 0] for part in points.split(1 << 15)])
    values = np.pad(sdf.reshape((resolution,) * 3).numpy(), 1, constant_values=1.0)
    if not values.min() < 0 < values.max():
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0)
    return ((vertices - 1) / (resolution - 1) * 2 - 1) / SCALE, faces.astype(np.int64)


def ply_bytes(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> bytes:
    """A binary PLY file."""
    return encode_ply(xyz_table(vertices), faces)
