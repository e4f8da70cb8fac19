"""The view model: U-Net, VAE, photo encoder, pose projection and, if trained with one, the coarse volume."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import logging
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.diffusion.attention import SharedViews
from pipeline.diffusion.coarse import CoarseVolumeModel
from pipeline.diffusion.conditioning import LATENTS, Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.latents import LatentCodec
from pipeline.diffusion.schedule import NoiseSchedule
from scene.errors import CheckpointError

_PARTS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "image_encoder": PhotoEncoder,
    "cc_projection": PoseProjection,
    "coarse": CoarseVolumeModel,
}


@dataclass(eq=False)
class ViewDiffusion:
    """A Zero123-type view model.

    Args:
        unet: denoises latents; its input channels are those of ``conditioning``.
        vae: pictures to latents and back.
        image_encoder: photo to embedding.
        cc_projection: embedding and pose to token.
        conditioning: what the U-Net was trained to be told.
        scheduler: config of the noise process, in diffusers' terms.
        coarse: photo to coarse volume; needed if the conditioning has a coarse picture.
        licence: of the weights.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    image_encoder: PhotoEncoder
    cc_projection: PoseProjection
    conditioning: Conditioning
    scheduler: dict[str, object]
    coarse: CoarseVolumeModel | None = None
    licence: str = "unknown"

    def __post_init__(self) -> None:
        wanted, found = self.conditioning.channels, self.unet.config["in_channels"]
        if wanted != found:
            raise CheckpointError(f"the U-Net has {found} input channels, its conditioning needs {wanted}")
        if self.conditioning.coarse and self.coarse is None:
            raise CheckpointError(
                "the U-Net was trained with a coarse picture, but the checkpoint has no coarse volume"
            )
        self.codec = LatentCodec(self.vae)
        self.schedule = NoiseSchedule.of_config(self.scheduler)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    @property
    def latent_size(self) -> int:
        """Side of the latents."""
        return int(self.unet.config["sample_size"])

    @property
    def image_size(self) -> int:
        """Side of the pictures."""
        return self.latent_size * 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> ViewDiffusion:
        """Move every part, in place."""
        with _quiet_diffusers():
            for name in _PARTS:
                part = getattr(self, name)
                if part is not None:
                    part.to(device=device, dtype=dtype).eval().requires_grad_(False)
        return self

    @classmethod
    def from_pretrained(cls, folder: Path) -> ViewDiffusion:
        """Load a checkpoint folder in diffusers layout, in single precision on the CPU.

        Raises:
            CheckpointError: a part is missing, unreadable or incomplete.
        """
        index_path = folder / "model_index.json"
        if not index_path.is_file():
            raise CheckpointError(
                "no model_index.json here", where=folder, fix="Point --views.weights at a folder in diffusers layout."
            )
        try:
            index = json.loads(index_path.read_text(encoding="utf-8"))
            facts = index.get("viewloom", {})
            held: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in facts.get("conditioning", {}).items()
            }
            conditioning = Conditioning(**held)
            scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"cannot be read ({error})", where=index_path) from error
        parts = {
            name: load_part(kind, folder / name)
            for name, kind in _PARTS.items()
            if name != "coarse" or (folder / name).is_dir()
        }
        return cls(conditioning=conditioning, scheduler=scheduler, licence=facts.get("licence", "unknown"), **parts)

    def save_pretrained(self, folder: Path, *, max_shard: str = "14MB", dtype: torch.dtype = torch.float16) -> None:
        """Write the checkpoint in diffusers layout, part by part: over an older one, a kill can leave a mixture."""
        folder.mkdir(parents=True, exist_ok=True)
        index: dict[str, object] = {"_class_name": "ViewDiffusion"}
        for name in _PARTS:
            part = getattr(self, name)
            if part is not None:
                save_part(part, folder / name, max_shard=max_shard, dtype=dtype)
                library = "diffusers" if name in ("unet", "vae") else "viewloom"
                index[name] = [library, type(part).__name__]
        index["scheduler"] = ["diffusers", "DDIMScheduler"]
        index["viewloom"] = {"conditioning": asdict(self.conditioning), "licence": self.licence}
        (folder / "scheduler").mkdir(exist_ok=True)
        for path, content in (
            (folder / "scheduler" / "scheduler_config.json", self.scheduler),
            (folder / "model_index.json", index),
        ):
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def tokens(self, embedding: Float[Tensor, "o d"], poses: Float[Tensor, "o v 4"]) -> Float[Tensor, "o v d"]:
        """Image-and-pose tokens of views."""
        return self.cc_projection(embedding[:, None].expand(-1, poses.shape[1], -1), poses)

    def shared_views(self, views: int, *, joint: bool) -> SharedViews | None:
        """The hook that this model's rows need, for objects with ``views`` views each; None for plain Zero123."""
        c = self.conditioning
        resolutions = c.joint if joint else ()
        if not c.source_row and not resolutions:
            return None
        return SharedViews(views + int(c.source_row), c.source_row, resolutions)

    def predict(
        self, z: Float[Tensor, "o v c h w"], t: Int[Tensor, "o v"], given: Conditions
    ) -> Float[Tensor, "o v c h w"]:
        """The U-Net's raw prediction for the views of each object; hooks must be installed by the caller.

        Args:
            z: noisy normalised latents.
            t: timestep of every row.
            given: the conditions.
        """
        objects, views = z.shape[:2]
        c = self.conditioning
        wide = given.source[:, None].expand(-1, views, -1, -1, -1)
        planes: list[Tensor] = [z, wide]
        first: list[Tensor] = [given.source_clean, given.source]
        if c.coarse:
            if given.coarse is None or given.visible is None:
                raise CheckpointError("this model needs the coarse picture of every view")
            planes += [given.coarse, given.visible]
            # The source row sees its own latents where other rows see the coarse picture's.
            first += [given.source, torch.ones_like(given.visible[:, 0])]
        if c.pluecker:
            if given.rays is None or given.source_rays is None:
                raise CheckpointError("this model needs the rays of every view")
            planes.append(given.rays)
            first.append(given.source_rays)
        rows, tokens, times = torch.cat(planes, 2), given.tokens, t
        if c.source_row:
            rows = torch.cat([torch.cat(first, 1)[:, None], rows], 1)
            tokens = torch.cat([given.source_token[:, None], tokens], 1)
            times = torch.cat([torch.zeros_like(t[:, :1]), t], 1)
        dtype = self.unet.dtype
        out = self.unet(rows.flatten(0, 1).to(dtype), times.flatten(), tokens.flatten(0, 1)[:, None].to(dtype)).sample
        return out.float().unflatten(0, (objects, -1))[:, int(c.source_row) :, :LATENTS]


@contextlib.contextmanager
def _quiet_diffusers() -> Iterator[None]:
    """Silence diffusers' remarks and bars about loading; errors still raise."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def load_part(kind: type[ModelMixin], folder: Path) -> ModelMixin:
    """Load one part of a checkpoint in single precision, whatever precision it was stored in.

    Raises:
        CheckpointError: the folder is missing, a file is damaged, or keys are missing.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            "a part of the checkpoint is missing", where=folder, fix="Copy the whole checkpoint folder again."
        )
    try:
        with _quiet_diffusers():
            part, report = kind.from_pretrained(
                str(folder), low_cpu_mem_usage=False, local_files_only=True, output_loading_info=True
            )
    except Exception as error:
        raise CheckpointError(
            f"cannot be loaded ({error})", where=folder, fix="Copy the whole checkpoint folder again."
        ) from error
    missing = report["missing_keys"]
    if missing:
        raise CheckpointError(
            f"lacks {len(missing)} weights, among them {sorted(missing)[:3]}",
            where=folder,
            fix="Copy the whole checkpoint folder again.",
        )
    broken = [name for name, value in part.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"holds weights that are not finite: {broken[:3]}", where=folder)
    with _quiet_diffusers():
        return part.float().eval()


def save_part(part: ModelMixin, folder: Path, *, max_shard: str = "14MB", dtype: torch.dtype = torch.float16) -> None:
    """Write one part without touching the live weights.

    An error while writing leaves the folder as it was. A kill while the written files are moved into it does not.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    twin = type(part).from_config(part.config)
    twin.load_state_dict(part.state_dict())
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        with _quiet_diffusers():
            twin.to(dtype).save_pretrained(partial, max_shard_size=max_shard)
        # diffusers notes where a model was loaded from: a path of this machine.
        config = Path(partial) / "config.json"
        facts = json.loads(config.read_text(encoding="utf-8"))
        facts.pop("_name_or_path", None)
        config.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for old in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
            old.unlink()
        for path in Path(partial).iterdir():
            path.replace(folder / path.name)
