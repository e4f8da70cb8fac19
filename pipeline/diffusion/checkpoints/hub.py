"""From what the user named to files on this machine; the only place that uses the network, and only for hub ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from pipeline.diffusion.checkpoints.weight_files import PICKLES, chosen_files
from scene.errors import CheckpointError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NOT_READ = ("safety_checker", "feature_extractor")
_CONTROL, _ENCODERS = "controlnet", ("text_encoder", "image_encoder", "vision_encoder")


def is_hub_id(source: Path | str) -> bool:
    """Whether something that is no path here has the form ``owner/name``."""
    text = source.as_posix() if isinstance(source, Path) else source
    return not Path(source).exists() and _ID.fullmatch(text) is not None and ".." not in text


def local_checkpoint(source: Path | str) -> Path:
    """The folder or file of a checkpoint; a hub id is downloaded, or taken from the hub's cache without a network.

    Raises:
        CheckpointError: there is no such path, and no such repository that can be reached.
    """
    return _local(source, wanted_files, "model_index.json")


def local_part(source: Path | str) -> Path:
    """The folder of one part, as a ControlNet; a hub id is downloaded, or taken from the hub's cache.

    Raises:
        CheckpointError: there is no such path, and no such repository that can be reached; or it is no part.
    """
    return _local(source, wanted_part_files, "config.json")


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files of a repository that loading reads: configs, one set of weights of each part, and never code.

    Raises:
        CheckpointError: nothing in it looks like a checkpoint, or several single files do.
    """
    names = sorted(names)
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, []).append(file)
    root = folders.get("", [])
    if "model_index.json" not in root:
        single = [name for name in root if name.endswith((*PICKLES, ".safetensors"))]
        if len(single) != 1:
            raise CheckpointError(
                f"holds {len(single)} single checkpoints: {', '.join(single)}"
                if single
                else "holds neither model_index.json nor a single checkpoint",
                fix="Download one of its files, and give that." if single else None,
            )
        return [name for name in ("README.md", single[0]) if name in root]
    wanted: list[str] = [name for name in root if name in ("README.md", "model_index.json")]
    # Only viewloom's own editors read a ControlNet that lies with them, and these have no encoder of text or pictures.
    public = any(folder.startswith(_ENCODERS) for folder in folders)
    not_read = (*_NOT_READ, _CONTROL) if public else _NOT_READ
    for folder, files in folders.items():
        if not folder or "/" in folder or folder.startswith(not_read):
            continue
        kept = [*chosen_files(files), *(f for f in files if PurePosixPath(f).suffix in (".json", ".txt"))]
        wanted += [f"{folder}/{file}" for file in kept]
    return sorted(wanted)


def wanted_part_files(names: Iterable[str]) -> list[str]:
    """The files of a repository of one part that loading reads: its config, one set of weights, its card, never code.

    Raises:
        CheckpointError: it is no such repository.
    """
    root = [name for name in names if "/" not in name]
    weights = chosen_files(root)
    if "model_index.json" in root or "config.json" not in root or not weights:
        raise CheckpointError(
            "is a whole checkpoint, not one part of it"
            if "model_index.json" in root
            else "does not hold config.json and weights of one part",
            fix="Give a repository that has config.json and diffusion_pytorch_model.safetensors at its root.",
        )
    return sorted([*weights, *(name for name in root if name in ("README.md", "config.json"))])


def _local(source: Path | str, wanted: Callable[[Iterable[str]], list[str]], mark: str) -> Path:
    """A path that exists as it is, or what is wanted of a repository.

    Args:
        source: a path, or a hub id.
        wanted: chooses from the names of a repository's files.
        mark: the file that an earlier download surely brought, if the repository has it at all.
    """
    path = Path(source)
    if path.exists():
        return path
    if not is_hub_id(source):
        raise CheckpointError(
            "there is no such checkpoint folder or file",
            where=path,
            fix="Give one that exists, or owner/name of the hub.",
        )
    return _downloaded(path.as_posix(), wanted, mark)


def _downloaded(name: str, wanted: Callable[[Iterable[str]], list[str]], mark: str) -> Path:
    # A folder that was mistyped looks like a hub id, too.
    nothing = f"there is no folder {name} here"
    files: list[str] | None = None
    try:
        files = huggingface_hub.HfApi().list_repo_files(name)
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted(files)))
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{nothing}, and the hub's repository is open only to those who accepted its licence",
            where=name,
            fix="Accept it on the repository's page, and log in with `hf auth login`.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{nothing}, and the hub has no public repository of that name",
            where=name,
            fix="Check the spelling; give a path that exists, or owner/name of the hub.",
        ) from error
    except CheckpointError as error:
        raise CheckpointError(error.what, where=f"{name} on the hub", fix=error.fix) from error
    except Exception as error:  # a network fails in many ways
        if files is None:
            return _cached(name, mark, nothing, error)
        # The hub was there a moment ago: an older copy in its place would hide that the disk is full.
        raise CheckpointError(
            f"the download broke off ({_first_line(error)})",
            where=f"{name} on the hub",
            fix="Run it again; it continues.",
        ) from error


def _cached(name: str, mark: str, nothing: str, error: Exception) -> Path:
    """What an earlier run downloaded."""
    try:
        # Newer huggingface-hubs want all files that are asked for to be there, and what is not read was not downloaded.
        # Which files those are cannot be told without the list; the loader names a part that is missing.
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[mark], local_files_only=True))
    except Exception:  # noqa: BLE001 - the first error is the one to tell
        said = _first_line(error)
        raise CheckpointError(
            f"{nothing}, and the hub cannot be reached ({said})",
            where=name,
            fix="Check the path or the network; or copy the repository's folder here and give its path.",
        ) from error


def _first_line(error: Any) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
