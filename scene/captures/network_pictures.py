"""How photos lie in the small pictures that a network was given, and which photo each of these was made of.

Programs bring photos to one small size in manners of their own, told by their public source:

* cropped (VGGT): as wide as the picture; the height follows, rounded to a multiple of 14, its middle is kept, and where
  photos differ in shape the lower ones are padded.
* padded (VGGT): the longer side fills a square, the other is rounded to a multiple of 14 and padded.
* squared (VGGT's COLMAP demo): padded to a square first, then reduced.
* covering (MapAnything): enlarged or reduced evenly until the picture is covered, of which the middle is kept.
* stretched (Depth Anything 3): both sides brought to those of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8

from scene.errors import InputError
from scene.frames import FEWEST
from scene.maps import picture_head
from scene.photo import Picture, read_picture
from scene.pictures.turns import as_stored

Program = Literal["VGGT", "MapAnything", "Depth Anything 3"]
Manner = Literal["cropped", "padded", "squared", "covering", "stretched"]
Size = tuple[int, int]
"""Width and height."""

MANNERS: dict[Program, tuple[Manner, ...]] = {
    "VGGT": ("cropped", "padded", "squared", "stretched", "covering"),
    "MapAnything": ("covering", "stretched", "cropped", "padded", "squared"),
    "Depth Anything 3": ("stretched", "covering", "cropped", "padded", "squared"),
}
"""What each program may have done, the likeliest first."""
_PATCH = 14
"""Sides of the networks' pictures are multiples of this."""
_FINE, _COARSE = 192, 48
"""Longest sides at which pictures are compared."""
_ALIKE, _AS_GOOD = 0.8, 0.002
"""Correlation from which on a photo may be the one of a picture, and how much less counts as the same."""
_CLEARLY = 0.7
"""How much less of the difference another manner must leave to be believed against the usual one."""
_OPAQUE = 250


class Way(NamedTuple):
    """From a photo's pixels to the network's, counted from the first one's corner: factors, then the shift."""

    sx: float
    sy: float
    left: float = 0.0
    top: float = 0.0


class Photo(NamedTuple):
    """A photo's file, whose size depends on who looks at it."""

    path: Path

    def size(self, *, shown: bool) -> Size:
        """Width and height of the pixels as stored, or as the EXIF data ask to show them.

        Raises:
            InputError: the file is no picture.
        """
        head = picture_head(self.path)
        return head.upright if shown else head.size


class Laid(NamedTuple):
    """A photo in a network's picture.

    Args:
        place: of the picture among them.
        photo: that it was made of.
        way: how it lies there.
        shown: whether it was turned as its EXIF data ask for before.
    """

    place: int
    photo: Photo
    way: Way
    shown: bool


@dataclass(frozen=True, eq=False)
class NetworkPicture:
    """A network's picture, reduced: in steps of :data:`_FINE` and :data:`_COARSE`."""

    fine: Float32[np.ndarray, "h w 3"]
    coarse: Float32[np.ndarray, "h2 w2 3"]

    @classmethod
    def of(cls, pixels: Shaped[np.ndarray, "h w 3"]) -> NetworkPicture:
        """Reduce a picture of any range."""
        size = (pixels.shape[1], pixels.shape[0])
        sound = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
        fine = cv2.resize(sound, _within(size, _FINE), interpolation=cv2.INTER_AREA)
        return cls(fine, cv2.resize(sound, _within(size, _COARSE), interpolation=cv2.INTER_AREA))


def way_of(manner: Manner, photo: Size, picture: Size) -> Way | None:
    """How a photo of one size lies in a network's picture of another; None if the manner does not lead there."""
    (w, h), (width, height) = photo, picture
    if manner == "stretched":
        return Way(width / w, height / h)
    if manner == "covering":
        # The program adds this little so that rounding down never misses the picture's size.
        scale = max(width / w, height / h) + 1e-8
        wide, high = math.floor(w * scale), math.floor(h * scale)
        return Way(wide / w, high / h, -float((wide - width) // 2), -float((high - height) // 2))
    if manner == "cropped":
        high = max(_PATCH, round(h * (width / w) / _PATCH) * _PATCH)
        cut = (high - width) // 2 if high > width else 0
        seen = min(high, width)
        return None if seen > height else Way(width / w, high / h, 0.0, float((height - seen) // 2 - cut))
    if width != height:
        return None
    if manner == "squared":
        longest = max(w, h)
        scale = width / longest
        return Way(scale, scale, (longest - w) // 2 * scale, (longest - h) // 2 * scale)
    scale = width / max(w, h)
    wide, high = (width if side == max(w, h) else round(side * scale / _PATCH) * _PATCH for side in (w, h))
    if min(wide, high) < 1:
        return None
    return Way(wide / w, high / h, float((width - wide) // 2), float((height - high) // 2))


def laid_in_order(
    program: Program, photos: Sequence[Photo], picture: Size, where: Path
) -> tuple[list[Laid], list[str]]:
    """Each photo in the picture of its place, in the manner of a program that leads to pictures of this size.

    Args:
        program: that made the pictures.
        photos: one for each picture.
        picture: size of the network's pictures.
        where: for errors.

    Raises:
        InputError: no manner leads there.
    """
    shown = program == "MapAnything"
    sizes = _sizes(photos, shown)
    if not sizes:
        raise InputError("none of the photos can be read", where=where)
    manner = _fitting(program, sizes, picture)
    if manner is None:
        (w, h), (width, height) = sizes[0], picture
        raise InputError(
            f"{program} does not make pictures of {width}x{height} from photos like {photos[0].path.name} ({w}x{h})",
            where=where,
            fix="Leave the photos as the network was given them.",
        )
    return _laid(manner, shown, enumerate(photos), picture), _told(program, manner, shown)


def laid_by_looks(
    program: Program,
    pictures: Sequence[NetworkPicture],
    photos: Sequence[Photo],
    picture: Size,
    where: Path,
    *,
    in_order: bool = False,
) -> tuple[list[Laid], list[str]]:
    """The photo of each picture, and the manner, as they look.

    Photos whose order is that of the pictures, as far as one can see, are taken in it. Pictures that look like no photo
    are left out.

    Args:
        program: that made the pictures.
        pictures: of the network.
        photos: in order of their names, or, if ``in_order``, those of the pictures.
        picture: size of the network's pictures.
        where: for errors.
        in_order: whether it is known which photo belongs to which picture.

    Raises:
        InputError: too few pictures look like a photo.
    """
    usual = program == "MapAnything"
    ways = [usual, not usual] if any(_turned(photo) for photo in photos) else [usual]
    alike = _alike(ways, pictures, photos, picture)
    tried = {shown: _matches(program, alike, _sizes(photos, shown), picture, shown) for shown in ways}
    shown = max(ways, key=lambda way: float(np.median(tried[way].max(axis=1))) + _AS_GOOD * (way == usual))
    pairs = list(enumerate(range(len(photos)))) if in_order else _pairs(tried[shown])
    flat = all(float(np.ptp(one.coarse)) < 1e-6 for one in pictures)
    notes = []
    if len(pairs) < min(FEWEST, len(pictures)) and not (flat and len(photos) == len(pictures)):
        raise InputError(
            f"of the {len(pictures)} pictures that the network saw, {len(pairs)} look like one of {len(photos)} photos",
            where=where,
            fix="Put the photos there that it was made of.",
        )
    if flat and len(photos) == len(pictures):
        pairs = list(enumerate(range(len(photos))))
        if not in_order:
            notes.append("the network's pictures are plain: photos were paired in order of their names")
    if lost := len(pictures) - len(pairs):
        notes.append(f"{lost} of {len(pictures)} of the network's pictures look like no photo here and were left out")
    if not in_order and [p for _, p in pairs] != sorted(p for _, p in pairs):
        notes.append("photos were paired with cameras by what they show: the order of their names is another")
    chosen = [(k, photos[p]) for k, p in pairs]
    manner = _seen_manner(program, pictures, chosen, picture, shown)
    return _laid(manner, shown, chosen, picture), notes + _told(program, manner, shown)


def _laid(manner: Manner, shown: bool, pairs: Iterable[tuple[int, Photo]], picture: Size) -> list[Laid]:
    found = []
    for k, photo in pairs:
        size = _size(photo, shown)
        way = None if size is None else way_of(manner, size, picture)
        found.append(Laid(k, photo, way or Way(1.0, 1.0), shown))  # of a photo that is none nothing is used
    return found


def _told(program: Program, manner: Manner, shown: bool) -> list[str]:
    """What was assumed, where it is not what the program does by itself."""
    notes = []
    if manner != MANNERS[program][0]:
        notes.append(f"the network's pictures were taken to be {manner} photos: not what {program} does by itself")
    if shown != (program == "MapAnything"):
        notes.append(f"the network saw the photos {'turned as their EXIF data say' if shown else 'as they are stored'}")
    return notes


def _size(photo: Photo, shown: bool) -> Size | None:
    try:
        return photo.size(shown=shown)
    except InputError:
        return None


def _sizes(photos: Sequence[Photo], shown: bool) -> list[Size]:
    """Sizes of the photos that can be read."""
    return [size for photo in photos if (size := _size(photo, shown)) is not None]


def _turned(photo: Photo) -> bool:
    try:
        return picture_head(photo.path).turned
    except InputError:
        return False


def _fitting(program: Program, sizes: Sequence[Size], picture: Size) -> Manner | None:
    """The first manner that makes pictures of this size of all these photos."""
    return next((manner for manner in MANNERS[program] if sizes and _fits(manner, sizes, picture)), None)


def _fits(manner: Manner, sizes: Sequence[Size], picture: Size) -> bool:
    ways = [way_of(manner, size, picture) for size in sizes]
    if None in ways:
        return False
    if manner == "cropped":  # the highest of them decides the height
        return any(way is not None and way.top <= 0 and _reaches(way, size, picture) for way, size in zip(ways, sizes))
    if manner == "stretched":
        lost = min(0.1, _PATCH / min(picture))
        return all(abs(w / h / (picture[0] / picture[1]) - 1) <= lost for w, h in sizes)
    if manner == "covering":  # of several shapes it takes the nearest: less than 60 % is of another photo
        return all(way is not None and way.left >= -picture[0] / 3 and way.top >= -picture[1] / 3 for way in ways)
    return True


def _reaches(way: Way, photo: Size, picture: Size) -> bool:
    return round(photo[1] * way.sy + way.top) >= picture[1]


Likeness = dict[tuple[Manner, bool], Float[np.ndarray, "pictures photos"]]
"""Correlations by manner, and by whether photos were turned as their EXIF data ask for."""


def _matches(
    program: Program, alike: Likeness, sizes: Sequence[Size], picture: Size, shown: bool
) -> Float[np.ndarray, "pictures photos"]:
    """How alike pictures and photos are, in the first manner in which they are alike at all, or else the best."""
    usual = _fitting(program, sizes, picture)
    manners = sorted(MANNERS[program], key=lambda manner: manner != usual)
    found = [alike[manner, shown] for manner in manners]
    good = [float(np.median(one.max(axis=1))) for one in found]
    first = next((k for k, value in enumerate(good) if value >= _ALIKE), None)
    return found[int(np.argmax(good)) if first is None else first]


def _alike(
    ways: Sequence[bool], pictures: Sequence[NetworkPicture], photos: Sequence[Photo], picture: Size
) -> Likeness:
    """Correlations of the colours of pictures and photos; -1 of photos that do not get there. Each is read once."""
    seen = np.stack([one.coarse.reshape(-1) for one in pictures]).astype(np.float64)
    keys = [(manner, shown) for manner in MANNERS["VGGT"] for shown in ways]
    found = {key: np.full((len(pictures), len(photos)), -1.0) for key in keys}
    for p, photo in enumerate(photos):
        read = _reduced(photo)
        if read is None:
            continue
        for manner, shown in keys:
            looks = _looks(read, manner, picture, shown)
            if looks is not None:
                colours, known = (
                    cv2.resize(one, _within(picture, _COARSE), interpolation=cv2.INTER_AREA) for one in looks
                )
                found[manner, shown][:, p] = _correlations(seen, colours.reshape(-1), np.repeat(known.reshape(-1), 3))
    return found


def _correlations(
    seen: Float[np.ndarray, "k n"], colours: Float32[np.ndarray, "n"], known: Float32[np.ndarray, "n"]
) -> Float[np.ndarray, "k"]:
    """Correlation of one row of colours with each of several, where it is known; 0 where one has no structure."""
    weight = (known > 0.99).astype(np.float64)
    total = max(float(weight.sum()), 1.0)
    own = (colours - colours @ weight / total) * weight
    means = seen @ weight / total
    spread = np.sqrt(np.maximum(seen**2 @ weight - total * means**2, 0)) * np.linalg.norm(own)
    return np.where(spread > 1e-9, seen @ own / np.maximum(spread, 1e-9), 0.0)


def _pairs(alike: Float[np.ndarray, "pictures photos"]) -> list[tuple[int, int]]:
    """Pictures with their photos, each photo once."""
    best = alike.argmax(axis=1)
    if alike.shape[0] == alike.shape[1]:
        own = np.diagonal(alike)
        best = np.where(own >= alike.max(axis=1) - _AS_GOOD, np.arange(len(alike)), best)
    taken: dict[int, int] = {}
    for k in sorted(range(len(alike)), key=lambda k: -alike[k, best[k]]):
        if alike[k, best[k]] >= _ALIKE:
            taken.setdefault(int(best[k]), k)
    return sorted((k, p) for p, k in taken.items())


def _seen_manner(
    program: Program, pictures: Sequence[NetworkPicture], pairs: Sequence[tuple[int, Photo]], picture: Size, shown: bool
) -> Manner:
    """The manner that brings the photos where the network saw them; the usual one unless another is clearly better."""
    sizes = _sizes([photo for _, photo in pairs], shown)
    usual = _fitting(program, sizes, picture)
    probed = [(k, read) for k, photo in pairs[:: max(1, len(pairs) // 8)] if (read := _reduced(photo)) is not None]
    off: dict[Manner, float] = {}
    for manner in MANNERS[program]:
        if any(way_of(manner, size, picture) is None for size in sizes):
            continue
        lost = []
        for k, read in probed:
            looks = _looks(read, manner, picture, shown)
            if looks is not None:
                seen = pictures[k].fine.reshape(1, -1).astype(np.float64)
                known = np.repeat(looks[1].reshape(-1), 3)
                lost.append(1 - float(_correlations(seen, looks[0].reshape(-1), known)[0]))
        off[manner] = float(np.median(lost)) if lost else 1.0
    best = min(off, key=lambda manner: off[manner])
    return best if usual not in off or off[best] < _CLEARLY * off[usual] else usual


def _reduced(photo: Photo) -> Picture | None:
    try:
        return read_picture(photo.path, 2 * _FINE)
    except InputError:
        return None


def _looks(
    read: Picture, manner: Manner, picture: Size, shown: bool
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]] | None:
    """A photo as it would lie in a network's picture, reduced, and 1 where it is known; None if that is nowhere."""
    rgba: UInt8[np.ndarray, "h w 4"] = read.rgba if shown else as_stored(read.rgba, read.orientation)
    size = read.size if shown or read.orientation < 5 else read.size[::-1]
    way = way_of(manner, size, picture)
    if way is None:
        return None
    width, height = _within(picture, _FINE)
    # From the reduced photo's pixels to the reduced picture's, both counted from the first one's centre.
    across, down = size[0] / rgba.shape[1] * way.sx, size[1] / rgba.shape[0] * way.sy
    ratio = (width / picture[0], height / picture[1])
    matrix = np.array(
        [
            [across * ratio[0], 0, (0.5 * across + way.left) * ratio[0] - 0.5],
            [0, down * ratio[1], (0.5 * down + way.top) * ratio[1] - 0.5],
        ]
    )
    laid = cv2.warpAffine(rgba.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.ascontiguousarray(laid[..., :3]), (laid[..., 3] >= _OPAQUE).astype(np.float32)


def _within(size: Size, side: int) -> Size:
    """A size reduced to a longest side."""
    scale = side / max(size)
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))) if scale < 1 else size
