"""Where the files that come with the project lie: beside the rooms in a checkout, inside the package when installed."""

from __future__ import annotations

from pathlib import Path

from scene.errors import CheckpointError

_ROOT = Path(__file__).resolve().parent.parent


def shipped(name: str) -> Path:
    """The folder ``weights`` or ``configs`` of this installation; it may be missing."""
    installed = _ROOT / "viewloom" / name
    return installed if installed.is_dir() else _ROOT / name


def default_weights() -> Path:
    """The embedded nano checkpoint.

    Raises:
        CheckpointError: this installation came without it.
    """
    folder = shipped("weights") / "nano"
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(
            "the embedded weights are missing",
            where=folder,
            fix="Install the complete package, or name a checkpoint with --views.weights.",
        )
    return folder


def default_editor() -> Path:
    """The embedded editor, which works on the latents of the nano checkpoint.

    Raises:
        CheckpointError: this installation came without it.
    """
    folder = shipped("weights") / "editor"
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(
            "the embedded editor is missing",
            where=folder,
            fix="Install the complete package, name a checkpoint with --editor.weights, or use --method deform.",
        )
    return folder
