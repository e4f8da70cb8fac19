"""CLIP's text encoder: a prompt is embedded once, and the encoder is let go of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.checkpoints.clip_encoder import IGNORED, meta_built, transformers, with_positions
from pipeline.diffusion.checkpoints.configs import read_config
from pipeline.diffusion.checkpoints.layouts import part_config
from pipeline.diffusion.checkpoints.weight_files import fill, read_part
from scene.errors import CheckpointError, InputError


def embed_prompt(root: Path, prompt: str, tokens: int | None = None) -> Float[Tensor, "n d"]:
    """What a checkpoint's text encoder makes of a prompt: its last hidden state, after the final norm.

    Args:
        root: folder with ``text_encoder`` and ``tokenizer``.
        prompt: the text; padded as the tokenizer pads.
        tokens: length, start and end included; by default all that the encoder reads (77).

    Raises:
        CheckpointError: the text encoder or the tokenizer is missing or damaged, or one does not fit the other.
        InputError: the prompt is too long.
        MissingBackendError: transformers is not installed.
    """
    library, folder = transformers(), root / "text_encoder"
    stated = read_config(part_config(folder))
    encoder = meta_built(library.CLIPTextModel, library.CLIPTextConfig, stated, folder)
    config = encoder.config
    ids = _token_ids(library, root / "tokenizer", prompt, tokens or int(config.max_position_embeddings))
    if int(ids.max()) >= int(config.vocab_size):
        raise CheckpointError(
            f"its tokens go up to {int(ids.max())}, the text encoder knows {config.vocab_size}",
            where=root / "tokenizer",
            fix="Copy the whole checkpoint folder again.",
        )
    weights = read_part(folder)
    if not any(key.startswith("text_model.") for key in encoder.state_dict()):
        # Newer releases of the library have one level less.
        weights = {key.removeprefix("text_model."): value for key, value in weights.items()}
    encoder = with_positions(fill(encoder, weights, folder, torch.float32, IGNORED))
    with torch.no_grad():
        embedded: Tensor = encoder(ids).last_hidden_state[0]
    return embedded


def _token_ids(library: Any, folder: Path, prompt: str, tokens: int) -> Tensor:
    """Exactly so many tokens, as a batch of one."""
    try:
        tokenizer = library.CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        ids: Tensor = tokenizer(prompt, padding="max_length", max_length=tokens, return_tensors="pt").input_ids
    except Exception as error:
        raise CheckpointError(f"cannot be used ({error})", where=folder) from error
    if ids.shape[1] > tokens:
        raise InputError(
            f"the prompt is {ids.shape[1] - 2} tokens long, the text encoder reads {tokens - 2}", fix="Shorten it."
        )
    return ids
