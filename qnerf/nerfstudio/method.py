"""What nerfstudio finds through the entry point ``nerfstudio.method_configs``: the method ``qnerf``.

It fits a query field to the store in the folder ``queries`` of a capture. Checkpoints hold tensors and plain numbers
only, so that torch loads them with ``weights_only``, its default: hence no schedule, since nerfstudio's leave numpy
numbers in them.
"""

from __future__ import annotations

from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from qnerf.nerfstudio.data import QueryDataManagerConfig
from qnerf.nerfstudio.model import QueryModelConfig
from qnerf.settings import FieldTrainingSettings
from scene.backends import pick_device
from scene.camera import OBJECT_RADIUS

_STEPS = 500


def query_field_method() -> MethodSpecification:
    """The method; also for the environment variable ``NERFSTUDIO_METHOD_CONFIGS``."""
    found, settings = pick_device().type, FieldTrainingSettings()
    parser = NerfstudioDataParserConfig(
        # Queries go with the capture's own cameras.
        orientation_method="none",
        center_method="none",
        auto_scale_poses=False,
        downscale_factor=1,
        eval_mode="interval",
        scene_scale=1.1 * OBJECT_RADIUS,
    )
    config = TrainerConfig(
        method_name="qnerf",
        machine=MachineConfig(device_type=found if found in ("cuda", "mps") else "cpu"),
        max_num_iterations=_STEPS,
        steps_per_eval_batch=100,
        steps_per_eval_image=100,
        steps_per_eval_all_images=_STEPS,
        steps_per_save=_STEPS,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(
            datamanager=QueryDataManagerConfig(
                dataparser=parser, train_num_rays_per_batch=settings.rays, eval_num_rays_per_batch=settings.rays
            ),
            model=QueryModelConfig(),
        ),
        optimizers={
            name: {"optimizer": AdamOptimizerConfig(lr=rate, eps=1e-15), "scheduler": None}
            # Without a decay, a third of the steps of a fit that ends with a tenth of them.
            for name, rate in (("grid", settings.grid_rate / 3), ("networks", settings.network_rate / 3))
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 12, quit_on_train_completion=True),
        # nerfstudio's default would log in to a service.
        vis="tensorboard",
    )
    return MethodSpecification(config, "Attention queries of all views of a capture as one radiance field.")


query_field = query_field_method()
