"""Seeded ways to spoil a folder of sound files."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-300, 1e300, 1e9, -1e9, 2**31, 2**63, 2**64, 10**40, 10**400,
    float("nan"), float("inf"), float("-inf"), "", "x", "0", "nan", "..", "../x", "/etc/passwd", "a\0b", "n" * 5000,
    [], {}, [[]], [None], ["x"], [0] * 3, [1, "2"], [[1, 2], [3]], [[0.0] * 4] * 4, np.eye(3).tolist(),
    (np.eye(4) * 5).tolist(), {"a": {"b": []}}, [1] * 2000,
]  # fmt: skip
WORDS = ["nan", "inf", "-1", "0", "1e400", "-1e400", "9" * 30, "9" * 5000, "x", "", "0x7f", "1,5", "..", "\0", "é", "#"]
YAMLS = [
    "!!python/object/apply:os.getcwd []",
    "&a [*a]",
    "2024-99-99",
    "*none",
    "{? [1] : 2}",
    "[" * 400,
    "1:" * 50 + "1",
]


def spoiled(folder: Path, rng: random.Random) -> str:
    """Spoil one file of a folder; returns what was done, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice(files)
    ways: list[Callable[[Path, random.Random], str]] = [_bytes, _bytes, _place]
    if path.suffix == ".json":
        ways = [_json, _json, _json, _json, _bytes, _text, _place]
    elif path.suffix in (".txt", ".out", ".yaml"):
        ways = [_text, _text, _text, _bytes, _place]
    elif path.suffix == ".npz":
        ways = [_npz, _npz, _bytes, _place]
    elif path.suffix == ".safetensors":
        ways = [_header, _header, _bytes, _zeros]
    elif path.suffix == ".glb":
        ways = [_glb, _glb, _glb, _bytes]
    way = rng.choice(ways)
    return f"{path.relative_to(folder)}: {way(path, rng)}"


def _bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "cut", "zero", "double", "insert", "extreme", "empty"))
    at = rng.randrange(len(data) + 1)
    if kind == "flip":
        for _ in range(rng.choice((1, 2, 8, 64))):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "zero":
        end = min(len(data), at + rng.choice((1, 16, 4096)))
        data[at:end] = bytes(end - at)
    elif kind == "double":
        data[at:at] = data[at : at + rng.choice((1, 16, 512))]
    elif kind == "insert":
        data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    elif kind == "extreme":
        data[at : at + 8] = rng.choice((b"\xff" * 8, b"\x7f" + b"\xff" * 7, struct.pack("<d", float("nan")), bytes(8)))
    else:
        data.clear()
    path.write_bytes(data)
    return f"{kind} at {at}"


def _place(path: Path, rng: random.Random) -> str:
    kind = rng.choice(("gone", "folder", "pipe", "dangling", "loop", "exchanged"))
    others = [other for other in path.parent.iterdir() if other.is_file() and other != path]
    if kind == "exchanged" and others:
        shutil.copyfile(rng.choice(others), path)
        return kind
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    return kind


def _changed(content: Any, rng: random.Random) -> str:
    """Change one value of a nested one, in place."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any, depth: int) -> None:
        if depth > 6:
            return
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, inner in items[:200]:
            places.append((value, key))
            if isinstance(inner, dict | list):
                walk(inner, depth + 1)

    walk(content, 0)
    if not places:
        return "nothing"
    holder, key = rng.choice(places)
    if rng.random() < 0.2:
        del holder[key]
        return f"without {key}"
    holder[key] = rng.choice(VALUES)
    return f"{key} is {type(holder[key])!s} {str(holder[key])[:40] if holder[key] != 10**400 else 'huge'}"


def _json(path: Path, rng: random.Random) -> str:
    content = json.loads(path.read_text())
    said = [_changed(content, rng) for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.15 and isinstance(content, dict):
        key = rng.choice(("region", "warnings", "world_from_file"))
        content["viewloom"] = {"normalised": rng.choice(VALUES), key: rng.choice(VALUES)}
        said.append("own keys")
    path.write_text(json.dumps(content))
    return "; ".join(said)


def _text(path: Path, rng: random.Random) -> str:
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    kind = rng.choice(("word", "word", "word", "without", "twice", "mixed", "yaml", "deep"))
    at = rng.randrange(len(lines))
    if kind == "word":
        words = lines[at].split(" ")
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        lines[at] = " ".join(words)
    elif kind == "without":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "mixed":
        rng.shuffle(lines)
    elif kind == "yaml":
        lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(YAMLS)}"
    else:
        lines[at] = rng.choice("[{") * 100_000
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    return f"{kind} in line {at}"


def _npz(path: Path, rng: random.Random) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        return _bytes(path, rng)
    name = rng.choice(sorted(name for name, data in members.items() if b"'|O'" not in data[:128]))
    kind = rng.choice(("without", "shape", "objects", "odd", "huge", "head", "compression", "text"))
    data = members.pop(name)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    made: Any = {
        "shape": array.reshape(-1)[: rng.randrange(1, 5)],
        "objects": np.array([None, 1], object),
        "odd": np.full(array.shape, rng.choice((np.nan, np.inf, -1e300, 7.0))),
        "text": np.array("x"),
    }.get(kind)
    if made is not None:
        out = io.BytesIO()
        np.save(out, made)
        members[name] = out.getvalue()
    elif kind == "huge":
        sides = rng.choice((b"(99999999999, 9999)", b"(-1,)", b"(100000000000000000000,)"))
        head = (b"{'descr': '<f8', 'fortran_order': False, 'shape': " + sides + b"}").ljust(117) + b"\n"
        members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(16)
    elif kind == "head":
        members[name] = data[: rng.randrange(len(data))]
    elif kind == "compression":
        members[name] = data
    way = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)) if kind == "compression" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", way) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return f"{name} {kind}"


def _header(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.2:
        path.write_bytes(struct.pack("<Q", rng.choice((0, 7, 2**31, 2**63, 2**64 - 1))) + data[8:])
        return "length"
    said = _changed(header, rng)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return said


def _zeros(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    at = rng.randrange(start, len(data))
    path.write_bytes(data[:at] + bytes(len(data) - at))
    return f"zeros from {at}"


def _glb(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    content = json.loads(data[20 : 20 + size])
    said = _changed(content, rng)
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + data[20 + size :]
    path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body)
    return said
