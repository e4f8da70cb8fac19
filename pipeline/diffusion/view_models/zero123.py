"""The view model: U-Net, VAE, photo encoder, pose projection and, if trained with one, the coarse volume."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.diffusion.aligned_decoder import AlignedLayers, require_decoder
from pipeline.diffusion.checkpoints.clip_encoder import ClipPhotoEncoder
from pipeline.diffusion.checkpoints.configs import conditioning_of, sampling_of
from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.layouts import (
    INDEX,
    Layout,
    LdmFile,
    NanoFolder,
    Zero123PlusFolder,
    find_layout,
    licence_in,
    load_ldm_file,
    load_zero123_folder,
    scheduler_config,
)
from pipeline.diffusion.checkpoints.parts import load_part, quiet_diffusers, save_part
from pipeline.diffusion.denoising.schedule import NoiseSchedule
from pipeline.diffusion.modules.attention import HookedAttention, SharedViews, use_one_token_attention
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import CoarseMap, Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.modules.latents import LatentCodec, save_decoder_memory, vae_factor
from pipeline.diffusion.modules.symmetry import SymmetryHead
from pipeline.diffusion.settings import Memory, PoseEntry, SamplingPlan
from scene.errors import CheckpointError

_PARTS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "image_encoder": PhotoEncoder,
    "cc_projection": PoseProjection,
    "coarse": CoarseVolumeModel,
    "coarse_map": CoarseMap,
    "symmetry": SymmetryHead,
    "aligned": AlignedLayers,
}
_OPTIONAL = ("coarse", "coarse_map", "symmetry", "aligned")
_ALWAYS_SINGLE = ("cc_projection", "coarse", "coarse_map", "symmetry", "aligned")
"""Small, and poses and coordinates need the digits."""
_LARGEST = 4096
"""Pixels of a generated picture's side."""


@dataclass(eq=False)
class ViewDiffusion:
    """A Zero123-type view model.

    Args:
        unet: denoises latents; its input channels are those of ``conditioning``.
        vae: images to latents and back.
        image_encoder: photo to embedding.
        cc_projection: embedding and pose to token.
        conditioning: which conditions the U-Net was trained with.
        scheduler: config of the noise process, in diffusers' terms.
        coarse: photo to coarse volume; needed if the conditioning has its renders.
        coarse_map: the linear map of its renders; needed if the U-Net predicts what that leaves.
        symmetry: where the object's symmetry plane is, read off the coarse volume's trunk.
        aligned: layers of the aligned decoder, hung into the VAE's when a surface is known.
        licence: of the weights.
        sampling: how it asks to be sampled, if it does.
        rows_at_once: views that go through the U-Net together, where views do not read each other; None for all.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    image_encoder: PhotoEncoder | ClipPhotoEncoder
    cc_projection: PoseProjection
    conditioning: Conditioning
    scheduler: dict[str, object]
    coarse: CoarseVolumeModel | None = None
    coarse_map: CoarseMap | None = None
    symmetry: SymmetryHead | None = None
    aligned: AlignedLayers | None = None
    licence: str = "unknown"
    sampling: SamplingPlan | None = None
    rows_at_once: int | None = None

    def __post_init__(self) -> None:
        self.codec = LatentCodec(self.vae)
        latents, made = self.codec.latents, self.unet.config["out_channels"]
        if made < latents:
            raise CheckpointError(f"the U-Net makes latents of {made} channels, the VAE has {latents}")
        wanted, found = self.conditioning.channels(latents), self.unet.config["in_channels"]
        if wanted != found:
            raise CheckpointError(
                f"the U-Net has {found} input channels, its conditioning needs {wanted} with the {latents} of the VAE"
            )
        if self.conditioning.residual and self.coarse_map is None:
            raise CheckpointError("the U-Net was trained beside a linear map, but the checkpoint has no coarse_map")
        if self.conditioning.coarse and self.coarse is None:
            raise CheckpointError(
                "the U-Net was trained with renders of a coarse volume, but the checkpoint has no coarse volume"
            )
        if self.aligned is not None:
            require_decoder(self.vae, self.aligned)
        if not 16 <= self.image_size <= _LARGEST:
            raise CheckpointError(f"its pictures would be {self.image_size} pixels wide", fix="Copy its configs again.")
        self.schedule = NoiseSchedule.of_config(self.scheduler)
        use_one_token_attention(self.unet)

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
        """Side of the images."""
        return self.latent_size * vae_factor(self.vae)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> ViewDiffusion:
        """Move every part, in place; pose projection and coarse volume stay in single precision."""
        with quiet_diffusers():
            for name in _PARTS:
                part = getattr(self, name)
                if part is not None:
                    kept = torch.float32 if name in _ALWAYS_SINGLE else dtype
                    part.to(device=device, dtype=kept).eval().requires_grad_(False)
        return self

    def use_memory(self, memory: Memory) -> ViewDiffusion:
        """Trade time for memory, in place.

        ``low`` runs view by view and decodes in tiles, ``normal`` four views at once, ``high`` all. Models whose views
        read each other, as the nano models' do, always run all views together.
        """
        c = self.conditioning
        meet = c.source_row or bool(c.joint)
        self.rows_at_once = None if meet or memory == "high" else 4 if memory == "normal" else 1
        save_decoder_memory(self.vae, memory)
        return self

    @classmethod
    def from_pretrained(
        cls, source: Path | str, *, dtype: torch.dtype = torch.float32, pose: PoseEntry = "auto"
    ) -> ViewDiffusion:
        """Load a checkpoint onto the CPU, in any layout that makes one view per row.

        Args:
            source: a folder in diffusers layout (viewloom's own, or Zero123's), a file of the original code, or the
                ``owner/name`` of such a repository on the hub. The network is used for the last only.
            dtype: of U-Net, VAE and image encoder.
            pose: fourth number of Zero123's poses; by default inferred from the checkpoint's name.

        Raises:
            CheckpointError: the checkpoint is missing, unreadable, incomplete, or of another kind.
            MissingBackendError: the checkpoint needs transformers, which is not installed.
        """
        return cls.of_layout(find_layout(local_checkpoint(source)), dtype=dtype, pose=pose)

    @classmethod
    def of_layout(cls, found: Layout, *, dtype: torch.dtype = torch.float32, pose: PoseEntry = "auto") -> ViewDiffusion:
        """Load what :func:`pipeline.diffusion.checkpoints.layouts.find_layout` found; as :meth:`from_pretrained`."""
        if isinstance(found, Zero123PlusFolder):
            raise CheckpointError(
                "is Zero123++, which makes six views at once",
                where=found.path,
                fix="Load it with load_view_model, or with SixViewDiffusion.from_pretrained.",
            )
        if isinstance(found, NanoFolder):
            model = cls._of_nano(found)
            return model if dtype == torch.float32 else model.to(torch.device("cpu"), dtype)
        load = (
            load_ldm_file(found, dtype, pose) if isinstance(found, LdmFile) else load_zero123_folder(found, dtype, pose)
        )
        return cls(
            unet=load.unet,
            vae=load.vae,
            image_encoder=load.image_encoder,
            cc_projection=load.cc_projection,
            conditioning=load.conditioning,
            scheduler=load.scheduler,
            licence=load.licence,
        )

    @classmethod
    def _of_nano(cls, found: NanoFolder) -> ViewDiffusion:
        folder = found.path
        try:
            conditioning = conditioning_of(found.index, folder / INDEX)
            sampling = sampling_of(found.index, folder / INDEX)
        except CheckpointError as error:
            raise CheckpointError(f"cannot be read ({error.what})", where=folder / INDEX) from error
        scheduler = scheduler_config(folder)
        parts = {
            name: load_part(kind, folder / name)
            for name, kind in _PARTS.items()
            if name not in _OPTIONAL or (folder / name).is_dir()
        }
        return cls(
            conditioning=conditioning, scheduler=scheduler, licence=licence_in(found.index), sampling=sampling, **parts
        )

    def save_pretrained(self, folder: Path, *, max_shard: str = "14MB", dtype: torch.dtype = torch.float16) -> None:
        """Write the checkpoint in diffusers layout, part by part: over an older one, a kill can leave a mixture.

        Raises:
            CheckpointError: the image encoder is CLIP, which viewloom's own layout does not hold.
        """
        if isinstance(self.image_encoder, ClipPhotoEncoder):
            raise CheckpointError("public checkpoints are loaded, not written", fix="Keep the files it came from.")
        folder.mkdir(parents=True, exist_ok=True)
        index: dict[str, object] = {"_class_name": "ViewDiffusion"}
        for name in _PARTS:
            part = getattr(self, name)
            if part is not None:
                save_part(part, folder / name, max_shard=max_shard, dtype=dtype)
                library = "diffusers" if name in ("unet", "vae") else "viewloom"
                index[name] = [library, type(part).__name__]
        index["scheduler"] = ["diffusers", "DDIMScheduler"]
        own: dict[str, object] = {"conditioning": asdict(self.conditioning), "licence": self.licence}
        index["viewloom"] = own if self.sampling is None else {**own, "sampling": asdict(self.sampling)}
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
        self, z: Float[Tensor, "o v c h w"], t: Int[Tensor, "o v"], conditions: Conditions
    ) -> Float[Tensor, "o v c h w"]:
        """The U-Net's raw prediction for the views of each object; hooks must be installed by the caller.

        Args:
            z: noisy normalised latents.
            t: timestep of every row.
            conditions: of the same views.
        """
        objects, views = z.shape[:2]
        c = self.conditioning
        source, coarse = self._scaled(conditions.source), conditions.coarse
        planes: list[Tensor] = [z, source[:, None].expand(-1, views, -1, -1, -1)]
        first: list[Tensor] = [conditions.source_clean, source]
        if c.coarse:
            if coarse is None or conditions.visible is None:
                raise CheckpointError("this model needs the coarse render of every view")
            planes += [self._scaled(coarse.flatten(0, 1)).unflatten(0, coarse.shape[:2]), conditions.visible]
            # The source row sees its own latents where other rows see the coarse render's.
            first += [source, torch.ones_like(conditions.visible[:, 0])]
        if c.pluecker:
            if conditions.rays is None or conditions.source_rays is None:
                raise CheckpointError("this model needs the rays of every view")
            planes.append(conditions.rays)
            first.append(conditions.source_rays)
        rows, tokens, times = torch.cat(planes, 2), conditions.tokens, t
        if c.source_row:
            rows = torch.cat([torch.cat(first, 1)[:, None], rows], 1)
            tokens = torch.cat([conditions.source_token[:, None], tokens], 1)
            times = torch.cat([torch.zeros_like(t[:, :1]), t], 1)
        dtype = self.unet.dtype
        flat = rows.flatten(0, 1).to(dtype), times.flatten(), tokens.flatten(0, 1)[:, None].to(dtype)
        count = len(flat[0]) if self.rows_at_once is None or self._rows_meet() else self.rows_at_once
        passes = zip(*(part.split(count) for part in flat), strict=True)
        outs = [self.unet(*one).sample for one in passes]
        out = outs[0] if len(outs) == 1 else torch.cat(outs)
        out = out.float().unflatten(0, (objects, -1))[:, int(c.source_row) :, : z.shape[2]]
        return out if self.coarse_map is None else out - self._mapped(t, conditions)

    def _scaled(self, raw: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Latents that are conditions, as the U-Net was trained to see them; zeros, which mean none, stay zeros."""
        if not self.conditioning.normalised:
            return raw
        given = (raw != 0).flatten(1).any(1).view(-1, 1, 1, 1)
        return torch.where(given, self.codec.normalise(raw), raw)

    def _mapped(self, t: Int[Tensor, "o v"], conditions: Conditions) -> Float[Tensor, "o v c h w"]:
        """What the linear map takes off a v-prediction: with ``v = v_net - sigma m`` the clean estimate is
        ``alpha z - sigma v = alpha z - sigma v_net + sigma^2 m``, the map alone where there is only noise.
        """
        raw, visible = conditions.coarse, conditions.visible
        if self.coarse_map is None or raw is None or visible is None:
            raise CheckpointError("this model needs the coarse render of every view")
        normalised = self._scaled(raw.flatten(0, 1)).unflatten(0, raw.shape[:2])
        sigma = (1 - self.schedule.alphas_cumprod.to(t.device)[t]).sqrt()[..., None, None, None]
        return sigma * self.coarse_map(normalised, visible)

    def _rows_meet(self) -> bool:
        """Whether a row's prediction may depend on other rows: hooks can read across them, and they are installed."""
        return any(isinstance(processor, HookedAttention) for processor in self.unet.attn_processors.values())
