"""Budgets of assets: how many triangles, how large a texture, how many bytes; light to import, as settings use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["glb", "obj", "ply", "stl", "usdz"]
ProfileName = Literal["draft", "photo", "lite", "standard", "high"]

FORMATS: tuple[Format, ...] = ("glb", "obj", "ply", "stl", "usdz")
BUDGETED: tuple[Format, ...] = ("glb", "usdz")
"""The formats that viewers load over a network: the limit of bytes is about these. The others are for programs."""


@dataclass(frozen=True)
class Profile:
    """What an asset may cost.

    Args:
        name: of the profile.
        max_faces: triangles at most.
        texture: texture side in pixels at most.
        max_bytes: size of a file at most.
    """

    name: ProfileName
    max_faces: int
    texture: int
    max_bytes: int


# lite, standard and high are advice for AR viewers: the Khronos 3D Commerce guidelines ask for 3 MB, the Khronos asset
# auditor for 5 MB and 100,000 triangles, Scene Viewer for 10 MB. A photo's generated views hold no more than "photo".
PROFILES: Mapping[ProfileName, Profile] = {
    "draft": Profile("draft", 6_000, 512, 1_000_000),
    "photo": Profile("photo", 12_000, 1024, 3_000_000),
    "lite": Profile("lite", 20_000, 1024, 3_000_000),
    "standard": Profile("standard", 50_000, 2048, 5_000_000),
    "high": Profile("high", 100_000, 2048, 10_000_000),
}


@dataclass(frozen=True)
class LimitCheck:
    """A limit, and whether a file keeps it.

    Args:
        what: the quantity.
        limit: its greatest value.
        value: what the file has.
    """

    what: Literal["triangles", "texture pixels", "bytes"]
    limit: int
    value: int

    @property
    def held(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.value:,} {self.what} where {self.limit:,} are allowed"


def limit_checks(
    profile: Profile, format: Format, faces: int, texture: int | None, size: int
) -> tuple[LimitCheck, ...]:
    """Compare a file with a profile.

    Args:
        profile: the limits.
        format: of the file; bytes are limited in those of :data:`BUDGETED` only.
        faces: triangles of the file.
        texture: the longer side of its texture in pixels, if it has one.
        size: bytes of the file and what belongs to it.
    """
    checks = [LimitCheck("triangles", profile.max_faces, faces)]
    if texture is not None:
        checks.append(LimitCheck("texture pixels", profile.texture, texture))
    if format in BUDGETED:
        checks.append(LimitCheck("bytes", profile.max_bytes, size))
    return tuple(checks)


def packings(quality: int, texture: int, profile: Profile | None, may_shrink: bool) -> list[tuple[int, int]]:
    """(JPEG quality, texture side) to try in turn until a file is small enough.

    Quality goes down to 80 first, which is hard to see; then the texture is halved, though not below 1024 pixels.

    Args:
        quality: as set.
        texture: longer side as baked.
        profile: whose limit of bytes is to be kept; without one there is nothing to try.
        may_shrink: whether the texture's size may change.
    """
    tries = [(quality, texture)]
    if profile is None:
        return tries
    if quality > 80:
        tries.append((80, texture))
    while may_shrink and texture >= 2048:
        texture //= 2
        tries.append((min(quality, 80), texture))
    return tries
