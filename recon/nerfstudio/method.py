"""What nerfstudio finds through the entry point ``nerfstudio.method_configs``: the method ``viewloom-surface``.

Its checkpoints hold tensors and plain numbers only, so that torch loads them with ``weights_only``, its default: hence
the schedule below, since nerfstudio's leave numpy numbers in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from recon.nerfstudio.data import CaptureDataManagerConfig
from recon.nerfstudio.model import HashSurfaceModelConfig
from scene.backends import pick_device
from scene.camera import OBJECT_RADIUS

_STEPS = 3000


@dataclass
class DecayConfig(SchedulerConfig):
    """Exponential decay of the step."""

    _target: type = field(default_factory=lambda: Decay)
    final: float = 0.1
    """Fraction of the step that is left at the end."""
    steps: int = _STEPS
    """When the end is; afterwards the step stays."""


class Decay(Scheduler):
    """Exponential decay in plain numbers."""

    config: DecayConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        """The schedule of one optimiser."""
        return LambdaLR(optimizer, lambda step: self.config.final ** min(1.0, step / self.config.steps))


def _optimisers(steps: int) -> dict[str, dict[str, object]]:
    rates = {"table": 1e-2, "networks": 1e-3, "variance": 1e-3}
    return {
        name: {
            "optimizer": AdamOptimizerConfig(lr=rate, eps=1e-15),
            # The variance has a long way to go, and nothing to settle on.
            "scheduler": None if name == "variance" else DecayConfig(steps=steps),
        }
        for name, rate in rates.items()
    }


def surface_method() -> MethodSpecification:
    """The method; also for the environment variable ``NERFSTUDIO_METHOD_CONFIGS``."""
    found = pick_device().type
    parser = NerfstudioDataParserConfig(
        # The capture's own frame, scale and size: what is generated, textured or measured must stay where it is.
        orientation_method="none",
        center_method="none",
        auto_scale_poses=False,
        downscale_factor=1,
        eval_mode="interval",
        scene_scale=1.1 * OBJECT_RADIUS,
    )
    config = TrainerConfig(
        method_name="viewloom-surface",
        machine=MachineConfig(device_type=found if found in ("cuda", "mps") else "cpu"),
        max_num_iterations=_STEPS,
        steps_per_eval_batch=500,
        steps_per_eval_image=500,
        steps_per_eval_all_images=_STEPS,
        steps_per_save=1000,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(
            datamanager=CaptureDataManagerConfig(
                dataparser=parser, train_num_rays_per_batch=1024, eval_num_rays_per_batch=1024
            ),
            model=HashSurfaceModelConfig(),
        ),
        optimizers=_optimisers(_STEPS),
        viewer=ViewerConfig(num_rays_per_chunk=1 << 12, quit_on_train_completion=True),
        # nerfstudio's default would log in to a service.
        vis="tensorboard",
    )
    return MethodSpecification(config, "Signed distances on hash grids from masked pictures; also without a GPU.")


viewloom_surface = surface_method()
