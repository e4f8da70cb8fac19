"""Files of weights: read without running code, checked for being whole, and put into modules key by key."""

from __future__ import annotations

import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from scene.documents import is_whole, parse_json
from scene.errors import CheckpointError

Module = TypeVar("Module", bound=nn.Module)

AGAIN = "Download or copy it again."
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_LONGEST_HEADER = 100_000_000
_MOST_SIDES = 16
_MOST_BYTES = 1 << 50
"""What a header may speak of; larger numbers would run over."""
_NAME = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model|model)(\.(?P<variant>\w+))?(?P<shard>-\d+-of-\d+)?"
    r"(?P<ending>\.safetensors|\.bin)"
)
_PREFERRED_VARIANTS = ("fp16_ema", "ema", None, "fp32", "fp16", "bf16")
"""Averaged weights are what the models were judged with. Variants that are not named here, as non_ema, are not used."""


@dataclass(frozen=True)
class Entry:
    """A tensor as a file's header describes it; ``start`` is its place in the file, if the header tells."""

    shape: tuple[int, ...]
    bytes: int
    start: int = -1

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


def chosen_files(names: Iterable[str]) -> list[str]:
    """The files, of those in a part's folder, that hold its weights: one, or all shards of one.

    Averaged weights go before others and safetensors before pickles; nothing fitting gives an empty list.
    """
    found: dict[tuple[int, bool], list[str]] = {}
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is None or match["variant"] not in _PREFERRED_VARIANTS:
            continue
        rank = (_PREFERRED_VARIANTS.index(match["variant"]), match["ending"] == ".bin")
        found.setdefault(rank, []).append(name)
    if not found:
        return []
    best = found[min(found)]
    whole = [name for name in best if _NAME.fullmatch(name)["shard"] is None]  # type: ignore[index]
    return whole[:1] or best


def part_files(folder: Path) -> list[Path]:
    """The weight files of one part in diffusers or transformers layout.

    Raises:
        CheckpointError: there are none, or shards are missing.
    """
    if not folder.is_dir():
        raise CheckpointError(
            "a part of the checkpoint is missing", where=folder, fix="Copy the whole checkpoint folder again."
        )
    names = chosen_files(path.name for path in folder.iterdir() if path.is_file())
    if not names:
        raise CheckpointError("holds no weights", where=folder, fix="Copy the whole checkpoint folder again.")
    total = re.search(r"-of-(\d+)", names[0])
    if total is not None and len(names) != int(total[1]):
        raise CheckpointError(
            f"is half-downloaded: {len(names)} of {int(total[1])} shards are here", where=folder, fix=AGAIN
        )
    return [folder / name for name in names]


def read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file or of a pickle, whose code is never run; they stay in the file until used.

    Raises:
        CheckpointError: the file is cut off, damaged, or no file of weights.
    """
    if path.suffix == ".safetensors":
        _safetensors_header(path)
        return _reading(path, lambda: safetensors.torch.load_file(path))
    if path.suffix not in PICKLES:
        raise CheckpointError(
            "is no file of weights", where=path, fix=f"Known endings: .safetensors, {', '.join(PICKLES)}."
        )
    _refuse_cut_pickle(path)
    content = _reading(path, lambda: _unpickled(path))
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, not named tensors", where=path)
    return {key: value for key, value in content.items() if isinstance(key, str)}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a single file, which training code may have put under ``state_dict``.

    Raises:
        CheckpointError: the file is cut off, damaged, or no file of weights.
    """
    content = read_weights(path)
    held = content.get("state_dict", content)
    if not isinstance(held, dict):
        raise CheckpointError(f"its state_dict is a {type(held).__name__}, not named tensors", where=path)
    return {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}


def read_part(folder: Path) -> dict[str, Tensor]:
    """All weights of one part."""
    weights: dict[str, Tensor] = {}
    for path in part_files(folder):
        weights.update({key: value for key, value in read_weights(path).items() if isinstance(value, Tensor)})
    return weights


def entries(path: Path) -> dict[str, Entry]:
    """What tensors a file holds, without reading them."""
    if path.suffix == ".safetensors":
        header = _safetensors_header(path)
        return {
            key: Entry(tuple(entry["shape"]), end - start, start)
            for key, entry in header.items()
            if key != "__metadata__"
            for start, end in [entry["data_offsets"]]
        }
    return {
        key: Entry(tuple(value.shape), value.numel() * value.element_size()) for key, value in read_state(path).items()
    }


def fill(
    module: Module, weights: MutableMapping[str, Tensor], where: Path, dtype: torch.dtype, ignored: str = ""
) -> Module:
    """Put weights into a module that was built on the meta device; frozen, in evaluation mode, on the CPU.

    Args:
        module: without memory of its own.
        weights: emptied on the way, so that no weight is held twice for long.
        where: for messages.
        dtype: that weights are kept in.
        ignored: pattern of keys that older libraries stored and nothing reads.

    Raises:
        CheckpointError: keys are missing or left over, shapes differ, or numbers are not finite or all zero.
    """
    if ignored:
        for key in [key for key in weights if re.fullmatch(ignored, key)]:
            del weights[key]
    wanted = module.state_dict()
    _compare(wanted, weights, where)
    filled = {}
    for key in wanted:
        stored = weights.pop(key)
        if is_unfilled(stored):
            raise CheckpointError(f"holds nothing but zeros in {key}: it was not filled", where=where, fix=AGAIN)
        kept = stored.to(dtype) if stored.is_floating_point() else stored
        if not torch.isfinite(kept).all():
            if torch.isfinite(stored).all():
                raise CheckpointError(
                    f"{key} holds numbers too large for {str(dtype).removeprefix('torch.')}",
                    where=where,
                    fix="Use --dtype bfloat16 or float32.",
                )
            raise CheckpointError(f"holds weights that are not finite: {[key]}", where=where, fix=AGAIN)
        filled[key] = kept
    module.load_state_dict(filled, assign=True)
    return module.eval().requires_grad_(False)


def is_unfilled(stored: Tensor) -> bool:
    """Whether a tensor is one that a broken-off download left without its numbers.

    Downloaders may reserve the whole file at once; where they broke off, it has its full size and zeros to its end. The
    end alone does not tell: numbers may well be zero there, and biases all zero. But a whole matrix of zeros is in no
    trained model, not even where training began with it; and since the last one of a file is small beside a file, few
    of such ends have none.
    """
    return stored.ndim > 1 and stored.numel() > 1 and not bool(stored.any())


def unfilled_end(held: Mapping[str, Entry], state: Mapping[str, Tensor]) -> list[str]:
    """Matrices of nothing but zeros at the end of a file.

    Unlike :func:`is_unfilled` this passes models whose training has only begun, where some layers start at zero.

    Args:
        held: the file's tensors.
        state: their numbers.
    """
    found: list[str] = []
    for name in sorted(held, key=lambda key: held[key].start, reverse=True):
        if name not in state or state[name].any():
            break
        if is_unfilled(state[name]):
            found.append(name)
    return found


def some(names: Iterable[str]) -> str:
    """A few of many names."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], where: Path) -> None:
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing:
        left_over = f"; {len(extra)} it holds have no place: {some(extra)}" if extra else ""
        raise CheckpointError(
            f"lacks {len(missing)} of {len(wanted)} weights: {some(missing)}{left_over}",
            where=where,
            fix="It is partial, or a checkpoint of another model.",
        )
    if extra:
        raise CheckpointError(
            f"holds {len(extra)} weights that the model has no place for: {some(extra)}",
            where=where,
            fix="It is a checkpoint of another model.",
        )
    wrong = [
        f"{key} is {list(found[key].shape)}, not {list(value.shape)}"
        for key, value in wanted.items()
        if found[key].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(
            f"has {len(wrong)} weights of other shapes: {some(wrong)}",
            where=where,
            fix="Its config.json does not belong to its weights.",
        )


def check_whole(path: Path) -> None:
    """Look at a file's ends only.

    Raises:
        CheckpointError: the file is cut off, or a pointer of git-lfs.
    """
    if path.suffix == ".safetensors":
        _safetensors_header(path)
    elif path.suffix in PICKLES:
        _refuse_cut_pickle(path)


def _safetensors_header(path: Path) -> dict[str, Any]:
    """The JSON header, after a look at whether all the bytes it names are there."""
    _refuse_pointer(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(length) if length < _LONGEST_HEADER else b""
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=path) from error
    if len(start) < 8 or (length > 0 and len(text) < length < _LONGEST_HEADER):
        raise CheckpointError(f"is half-downloaded: its header ends after {size:,} bytes", where=path, fix=AGAIN)
    try:
        header = parse_json(text, path, CheckpointError, finite=True)
    except CheckpointError as error:
        raise CheckpointError("is no safetensors file", where=path, fix=AGAIN) from error
    if not isinstance(header, dict):
        raise CheckpointError("is no safetensors file", where=path, fix=AGAIN)
    tensors = {key: value for key, value in header.items() if key != "__metadata__"}
    odd = next((key for key, value in tensors.items() if not _is_entry(value)), None)
    if odd is not None:
        raise CheckpointError(f"is no safetensors file: its header does not describe {odd[:80]}", where=path, fix=AGAIN)
    end = 8 + length + max((value["data_offsets"][1] for value in tensors.values()), default=0)
    if size != end:
        kind = "half-downloaded" if size < end else "damaged"
        raise CheckpointError(f"is {kind}: {size:,} bytes of {end:,}", where=path, fix=AGAIN)
    return header


def _is_entry(entry: object) -> bool:
    """Whether a header's entry is one: a type, sides, and as many bytes as these need."""
    if not isinstance(entry, dict):
        return False
    shape, place, kind = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if not isinstance(shape, list) or not isinstance(place, list) or not isinstance(kind, str) or len(place) != 2:
        return False
    if len(shape) > _MOST_SIDES or not all(is_whole(number, 0, _MOST_BYTES) for number in (*shape, *place)):
        return False
    bits = re.search(r"\d+", kind)
    needed = None if bits is None else math.prod(shape) * int(bits[0]) // 8
    return place[0] <= place[1] and needed in (None, place[1] - place[0])


def _refuse_cut_pickle(path: Path) -> None:
    _refuse_pointer(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
        # The directory of a zip stands at its end.
        if (start[:2] == b"PK" and not zipfile.is_zipfile(path)) or not start:
            size = path.stat().st_size
            raise CheckpointError(
                f"is half-downloaded: {size:,} bytes, and the end of the archive is missing", where=path, fix=AGAIN
            )
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=path) from error


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        pointer = file.read(24).startswith(b"version https://git-lfs")
    if pointer:
        raise CheckpointError("is a pointer of git-lfs, not the weights", where=path, fix="Run `git lfs pull` there.")


class _Inert:
    """Stands for every class of a pickle that is no tensor: takes what it is given and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def append(self, _: object) -> None:
        """Dropped."""

    def extend(self, _: object) -> None:
        """Dropped."""


def _unpickled(path: Path) -> Any:
    """A pickle's tensors; objects of training libraries become stand-ins, since none of their code may run."""
    if not zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    # A class of its own for each: the reader tells them apart by identity.
    stand_ins: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in foreign]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except CheckpointError:
        raise
    except Exception as error:
        # torch's own advice in these cases is to let the file do as it likes.
        if "call reduce" in str(error) or "Unsupported global" in str(error):
            raise CheckpointError(
                "would run code when it is read, and is refused", where=path, fix="Take its weights as safetensors."
            ) from error
        if "Weights only load failed" in str(error):
            raise CheckpointError("cannot be read (it holds more than tensors)", where=path, fix=AGAIN) from error
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(f"cannot be read ({said})", where=path, fix=AGAIN) from error
