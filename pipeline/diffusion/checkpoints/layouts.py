"""Layouts of view models: found from the files themselves, and loaded part by part; code in repositories never runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import logging
from torch import Tensor

from pipeline.diffusion.checkpoints import ldm
from pipeline.diffusion.checkpoints.clip_encoder import ClipPhotoEncoder, build_tower
from pipeline.diffusion.checkpoints.configs import read_config
from pipeline.diffusion.checkpoints.weight_files import PICKLES, entries, fill, part_files, read_part, read_state, some
from pipeline.diffusion.denoising.schedule import NoiseSchedule
from pipeline.diffusion.modules.conditioning import Conditioning, FourthEntry, PoseProjection
from pipeline.diffusion.settings import PoseEntry
from scene.documents import read_object
from scene.errors import CheckpointError, InputError

INDEX = "model_index.json"
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class NanoFolder:
    """viewloom's own layout: ``viewloom`` in the index says which conditions the U-Net was trained with."""

    path: Path
    index: dict[str, Any]


@dataclass(frozen=True)
class Zero123Folder:
    """Zero123 in diffusers' parts, with a pose projection of its own in ``projection``."""

    path: Path
    index: dict[str, Any]
    projection: str


@dataclass(frozen=True)
class Zero123PlusFolder:
    """Zero123++ in diffusers' parts."""

    path: Path
    index: dict[str, Any]


@dataclass(frozen=True)
class LdmFile:
    """One file of the original code."""

    path: Path


Layout = NanoFolder | Zero123Folder | Zero123PlusFolder | LdmFile


@dataclass(frozen=True, eq=False)
class Parts:
    """What a Zero123-type view model is made of."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    image_encoder: ClipPhotoEncoder
    cc_projection: PoseProjection
    conditioning: Conditioning
    scheduler: dict[str, object]
    licence: str


def find_layout(path: Path) -> Layout:
    """Which layout a folder or file has.

    Raises:
        CheckpointError: it is none that is known, or cannot be read.
    """
    if path.is_file():
        return _single_file(path)
    if not (path / INDEX).is_file():
        files = sorted(p for p in path.glob("*") if p.suffix in (*PICKLES, ".safetensors"))
        if len(files) == 1:
            return _single_file(files[0])
        if files:
            raise CheckpointError(
                f"holds {len(files)} files of weights: {', '.join(p.name for p in files[:4])}",
                where=path,
                fix="Point --views.weights at one of them.",
            )
        raise CheckpointError(
            f"no {INDEX} here", where=path, fix="Point --views.weights at a folder in diffusers layout."
        )
    index = read_json(path / INDEX)
    if "viewloom" in index or index.get("_class_name") == "ViewDiffusion":
        return NanoFolder(path, index)
    if "ramping_coefficients" in index:
        return Zero123PlusFolder(path, index)
    for projection in ("cc_projection", "clip_camera_projection"):
        if projection in index or (path / projection).is_dir():
            return Zero123Folder(path, index, projection)
    raise CheckpointError(
        f"is a checkpoint of another kind ({index.get('_class_name', 'of no named class')})",
        where=path,
        fix="Zero123, Stable Zero123, Zero123++ and viewloom's own load: those with a pose projection or a ramp.",
    )


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
        CheckpointError: the file is missing, unreadable, or holds something else.
    """
    return read_object(path, CheckpointError, finite=True)


def scheduler_config(root: Path) -> dict[str, object]:
    """The config of a folder's noise process.

    Raises:
        CheckpointError: it is missing, unreadable, or of a process that is not supported.
    """
    path = root / "scheduler" / "scheduler_config.json"
    config: dict[str, object] = read_json(path)
    try:
        NoiseSchedule.of_config(config)
    except InputError as error:
        raise CheckpointError(error.what, where=path, fix=error.fix) from error
    return config


def fourth_entry(found: Layout, pose: PoseEntry) -> FourthEntry:
    """What the fourth number of a pose is; no layout says so, hence by default its name decides.

    Args:
        found: a layout of Zero123.
        pose: what the user says.
    """
    if pose != "auto":
        return pose
    names = [found.path.name]
    # A folder may hold files of several models: its name counts only for a file that does not say which it is.
    if isinstance(found, LdmFile) and re.search(r"zero[-_ ]?1[-_ ]?(2|to)", found.path.name, re.IGNORECASE) is None:
        names.append(found.path.parent.name)
    names += [part for part in found.path.parts if part.startswith("models--")]  # of the hub's cache
    if isinstance(found, Zero123Folder):
        names.append(str(found.index.get("_name_or_path", "")))
    return "polar" if any(re.search(r"stable[-_ ]?zero[-_]?123", name, re.IGNORECASE) for name in names) else "radius"


def licence_in(index: Mapping[str, Any]) -> str:
    """The licence that viewloom's own index states, or ``unknown``."""
    own = index.get("viewloom")
    licence = own.get("licence") if isinstance(own, dict) else None
    return licence if isinstance(licence, str) else "unknown"


def licence_of(folder: Path) -> str:
    """The licence that the model card states in its head, or ``unknown``."""
    try:
        head = re.match(r"---\s*\n(.*?)\n---", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    except (OSError, UnicodeDecodeError):
        return "unknown"
    if head is None:
        return "unknown"
    lines = re.findall(r"^(license(?:_name)?):[ \t]*[\"']?([^\"'\n]+?)[\"']?[ \t]*$", head[1], re.MULTILINE)
    fields: dict[str, str] = dict(lines)
    licence = fields.get("license", "unknown")
    return fields.get("license_name", licence) if licence == "other" else licence


def load_zero123_folder(found: Zero123Folder, dtype: torch.dtype, pose: PoseEntry) -> Parts:
    """Load the layouts of kxic, bennyguo and ashawkey, which differ in the names around the pose projection.

    Raises:
        CheckpointError: a part is missing, damaged or of other sizes.
        MissingBackendError: transformers is not installed.
    """
    root = found.path
    encoder = root / "image_encoder"
    scheduler = scheduler_config(root)
    projection = projection_from(read_part(root / found.projection), root / found.projection)
    tower = build_tower(read_config(part_config(encoder)), read_part(encoder), encoder, dtype)
    return _checked(
        Parts(
            load_unet(root / "unet", dtype),
            load_vae(root / "vae", dtype),
            tower,
            projection,
            Conditioning(fourth=fourth_entry(found, pose)),
            scheduler,
            licence_of(root),
        ),
        root,
    )


def load_ldm_file(found: LdmFile, dtype: torch.dtype, pose: PoseEntry) -> Parts:
    """Load one file of the original code, averaged weights if it holds them.

    Raises:
        CheckpointError: weights are missing, damaged or of other sizes.
        MissingBackendError: transformers is not installed.
    """
    where = found.path
    state = read_state(where)
    ldm.check_noise(state, NoiseSchedule.of_config(ldm.SCHEDULER).alphas_cumprod, where)
    projection = projection_from(ldm.part(state, ldm.POSE), where)
    try:
        clip = ldm.part(state, ldm.CLIP)
        clip_config, clip_weights = ldm.clip_config(clip), ldm.clip_weights(clip)
        unet = ldm.unet_part(state, where)[0]
        unet_config = ldm.unet_config(unet)
        unet_weights = ldm.unet_weights(unet, unet_config)
        vae = ldm.part(state, ldm.VAE)
        vae_config = ldm.vae_config(vae)
        vae_weights = ldm.vae_weights(vae, vae_config)
    except (KeyError, ValueError, IndexError, StopIteration) as error:
        said = f"{error}" if isinstance(error, KeyError) else "a whole block"
        raise CheckpointError(
            f"lacks weights, among them {said}", where=where, fix="It is partial: download or copy it again."
        ) from error
    tower = build_tower(clip_config, clip_weights, where, dtype)
    return _checked(
        Parts(
            fill(on_meta(UNet2DConditionModel, unet_config, where), unet_weights, where, dtype),
            fill(on_meta(AutoencoderKL, vae_config, where), vae_weights, where, dtype),
            tower,
            projection,
            Conditioning(fourth=fourth_entry(found, pose)),
            dict(ldm.SCHEDULER),
            "unknown",
        ),
        where,
    )


def load_unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    """The U-Net of a folder."""
    config = read_config(part_config(folder))
    return fill(on_meta(UNet2DConditionModel, config, folder), read_part(folder), folder, dtype)


def load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE of a folder; old releases called its attention's layers otherwise."""
    config = read_config(part_config(folder))
    weights = {_modern(key): value for key, value in read_part(folder).items()}
    return fill(on_meta(AutoencoderKL, config, folder), weights, folder, dtype)


def part_config(folder: Path) -> Path:
    """The config of a part.

    Raises:
        CheckpointError: the part is missing.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            "a part of the checkpoint is missing", where=folder, fix="Copy the whole checkpoint folder again."
        )
    return folder / "config.json"


def on_meta(kind: type[ModelMixin], config: Mapping[str, Any], where: Path) -> Any:
    """A model of its config, without memory of its own.

    Raises:
        CheckpointError: the config is not one of such a model.
    """
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # configs of other releases hold keys that this one has no use for
    try:
        with torch.device("meta"):
            return kind.from_config(dict(config))
    except Exception as error:
        raise CheckpointError(f"its config cannot be used ({error})", where=where) from error
    finally:
        logging.set_verbosity(before)


def projection_from(weights: MutableMapping[str, Tensor], where: Path) -> PoseProjection:
    """The pose projection under any of its names: ``projection``, ``proj``, ``cc_projection``, or none.

    It stays in single precision: poses differ by little.

    Raises:
        CheckpointError: it has other weights, or other sizes.
    """
    bare = {re.sub(r"^(cc_projection\.)?((projection|proj)\.)?", "", key): value for key, value in weights.items()}
    shape = tuple(bare["weight"].shape) if "weight" in bare else ()
    if len(shape) == 2 and shape[1] != shape[0] + 4:
        raise CheckpointError(
            f"its pose projection is {list(shape)}: not an embedding and four numbers of a pose", where=where
        )
    width = shape[0] if len(shape) == 2 else 768
    named = {f"projection.{key}": value for key, value in bare.items()}
    return fill(PoseProjection(width=width), named, where, torch.float32)


def ldm_parameters(path: Path) -> tuple[dict[str, int], bool]:
    """Numbers in each part of a file of the original code, and whether it holds averages.

    Raises:
        CheckpointError: a part is missing, or the file cannot be read.
    """
    sizes = entries(path)
    parts = {"unet": ldm.UNET, "vae": ldm.VAE, "image_encoder": ldm.CLIP + "visual.", "cc_projection": ldm.POSE}
    counts = {
        part: sum(e.count for k, e in sizes.items() if k.startswith(prefix) and not k.startswith(ldm.VAE + "loss."))
        for part, prefix in parts.items()
    }
    missing = [prefix for part, prefix in parts.items() if not counts[part]]
    if missing:
        raise CheckpointError(
            f"lacks weights: none is called {some(f'{prefix}*' for prefix in missing)}",
            where=path,
            fix="It is partial: download or copy it again.",
        )
    return counts, any(key.startswith(ldm.EMA + "diffusion_model") for key in sizes)


def folder_parameters(root: Path, parts: Iterable[str]) -> dict[str, int]:
    """Numbers in each part of a folder.

    Raises:
        CheckpointError: a part or its weights are missing, or a file is cut off.
    """
    counts = {}
    for part in parts:
        held = [item for file in part_files(root / part) for item in entries(file).items()]
        counts[part] = sum(entry.count for key, entry in held if "position_ids" not in key)
    return counts


def _single_file(path: Path) -> LdmFile:
    if not ldm.is_ldm(set(entries(path))):
        raise CheckpointError(
            "is no single-file checkpoint of Zero-1-to-3 (it has no model.diffusion_model or no cc_projection)",
            where=path,
            fix="Give such a file, or the whole folder of a checkpoint in diffusers layout.",
        )
    return LdmFile(path)


def _modern(key: str) -> str:
    if ".attentions." not in key:
        return key
    head, name, kind = key.rsplit(".", 2)
    return f"{head}.{_OLD_ATTENTION.get(name, name)}.{kind}"


def _checked(parts: Parts, where: Path) -> Parts:
    """The parts, if one fits the next."""
    embedding, token = parts.image_encoder.width, parts.cc_projection.projection.out_features
    read = int(parts.unet.config["cross_attention_dim"])
    if not embedding == token == read:
        raise CheckpointError(
            f"its parts do not fit: embeddings of {embedding}, tokens of {token}, a U-Net that reads {read}",
            where=where,
        )
    return parts
