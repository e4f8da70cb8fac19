"""Parts of a checkpoint in diffusers' layout: loaded with checks, and written without touching the live weights."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import logging

from pipeline.diffusion.checkpoints.configs import read_config
from pipeline.diffusion.checkpoints.layouts import on_meta, part_config
from pipeline.diffusion.checkpoints.weight_files import AGAIN, entries, part_files, some, unfilled_end
from scene.errors import CheckpointError


@contextlib.contextmanager
def quiet_diffusers() -> Iterator[None]:
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
    config = read_config(part_config(folder))
    try:
        files = [entries(path) for path in part_files(folder)]
    except CheckpointError as error:
        raise CheckpointError(
            f"cannot be loaded ({error.what})", where=folder, fix="Copy the whole checkpoint folder again."
        ) from error
    # A model of the config's sizes may be larger than memory: its shapes are compared before it is built.
    described = on_meta(kind, config, folder).state_dict()
    held = {key: entry for file in files for key, entry in file.items()}
    for key, value in described.items():
        if key in held and held[key].shape != tuple(value.shape):
            raise CheckpointError(
                f"cannot be loaded ({key} is {list(held[key].shape)}, the config makes it {list(value.shape)})",
                where=folder,
                fix="Copy the whole checkpoint folder again.",
            )
    try:
        with quiet_diffusers():
            part, report = kind.from_pretrained(
                str(folder), low_cpu_mem_usage=False, local_files_only=True, output_loading_info=True
            )
    except Exception as error:
        raise CheckpointError(
            f"cannot be loaded ({error})", where=folder, fix="Copy the whole checkpoint folder again."
        ) from error
    missing, extra = report["missing_keys"], report["unexpected_keys"]
    if missing:
        raise CheckpointError(
            f"lacks {len(missing)} weights, among them {sorted(missing)[:3]}",
            where=folder,
            fix="Copy the whole checkpoint folder again.",
        )
    if extra:
        raise CheckpointError(
            f"holds {len(extra)} weights that the model has no place for: {some(extra)}",
            where=folder,
            fix="Its config.json does not belong to its weights.",
        )
    broken = [name for name, value in part.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"holds weights that are not finite: {broken[:3]}", where=folder)
    empty = [name for file in files for name in unfilled_end(file, part.state_dict())]
    if empty:
        raise CheckpointError(f"holds nothing but zeros in {some(empty)}: it was not filled", where=folder, fix=AGAIN)
    with quiet_diffusers():
        return part.float().eval()


def save_part(part: ModelMixin, folder: Path, *, max_shard: str = "14MB", dtype: torch.dtype = torch.float16) -> None:
    """Write one part without touching the live weights.

    An error while writing leaves the folder as it was. A kill while the written files are moved into it does not.
    """
    twin = type(part).from_config(part.config)
    twin.load_state_dict(part.state_dict())
    write_part(twin.to(dtype), folder, max_shard=max_shard)


def write_part(part: ModelMixin, folder: Path, *, max_shard: str = "14MB") -> None:
    """Write one part as it is; see :func:`save_part`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        with quiet_diffusers():
            part.save_pretrained(partial, max_shard_size=max_shard)
        # diffusers notes where a model was loaded from: a path of this machine.
        config = Path(partial) / "config.json"
        content = json.loads(config.read_text(encoding="utf-8"))
        content.pop("_name_or_path", None)
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for old in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
            old.unlink()
        for path in Path(partial).iterdir():
            path.replace(folder / path.name)
