"""The attention queries of all views, on disk or in memory: half precision, one array for each layer.

On disk a store is a folder: ``queries.json`` says which layers there are and how many views; the array of a layer is a
plain file of little-endian half floats ``[views, side, side, channels]``, mapped into memory. So a store may be larger
than memory, and rays gather their tokens from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from scene.documents import is_whole, read_object, shown
from scene.errors import InputError
from scene.files import reading, require_regular, unwritable, write_text

HEADER = "queries.json"
"""Name of the file that describes a store."""
DEVIATION_FLOOR = 1e-3
"""Least deviation of a channel, in units of queries: channels that hardly vary must not decide everything."""
_VERSION = 1
_DTYPE = np.dtype("<f2")
_LARGEST = float(np.finfo(np.float16).max)
_MOST_VIEWS, _MOST_LAYERS, _MOST_SIDE, _MOST_CHANNELS = 100_000, 64, 512, 16_384


@dataclass(frozen=True, order=True)
class QueryLayer:
    """Which self-attention layer of a decoder.

    Args:
        side: of its token grid.
        channels: of a query, all heads together.
        ordinal: number among the layers of the same side, from 0, in the order in which they run.
    """

    side: int
    channels: int
    ordinal: int

    def __post_init__(self) -> None:
        if not (
            is_whole(self.side, 1, _MOST_SIDE)
            and is_whole(self.channels, 1, _MOST_CHANNELS)
            and is_whole(self.ordinal, 0, _MOST_LAYERS)
        ):
            raise InputError(
                f"no layer has number {shown(self.ordinal)}, a grid of side {shown(self.side)} and "
                f"{shown(self.channels)} channels"
            )

    def __str__(self) -> str:
        return f"{self.ordinal} of side {self.side}"


class Statistics(NamedTuple):
    """What queries of a layer are standardised with, over all views."""

    mean: Float[Tensor, "c"]
    """Of each channel, units of queries."""
    deviation: Float[Tensor, "c"]
    """Of each channel, units of queries; never below :data:`DEVIATION_FLOOR`."""


class QueryStore:
    """Queries of all views; made by :meth:`create` or :meth:`open`.

    Args:
        layers: which layers there are.
        views: how many views.
        arrays: ``[views, side, side, channels]`` of each layer, half precision.
        folder: where they lie, or None for memory.
    """

    def __init__(
        self, layers: Sequence[QueryLayer], views: int, arrays: Mapping[QueryLayer, np.ndarray], folder: Path | None
    ) -> None:
        self.layers, self.views, self.folder, self._arrays = tuple(layers), views, folder, dict(arrays)
        self._writable = all(array.flags.writeable for array in self._arrays.values())

    @classmethod
    def create(cls, folder: Path | None, layers: Sequence[QueryLayer], views: int) -> QueryStore:
        """A store without queries; one that is there already is replaced.

        Args:
            folder: where to put it; None keeps it in memory.
            layers: which layers.
            views: how many views.

        Raises:
            InputError: there is no layer or no view, or two layers share side and number.
            OutputError: the folder cannot be written, or the disk is full.
        """
        _require_sizes(layers, views, folder)
        arrays: dict[QueryLayer, np.ndarray] = {}
        for layer in layers:
            shape = _shape(layer, views)
            if folder is None:
                arrays[layer] = np.zeros(shape, _DTYPE)
            else:
                path = folder / _name(layer)
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)  # an old store may be open, and keeps its own file
                    arrays[layer] = np.memmap(path, _DTYPE, "w+", shape=shape)
                except OSError as error:
                    raise unwritable(error, path) from error
            # The mark of a view that has not come yet.
            arrays[layer][:, 0, 0, 0] = np.nan
        if folder is not None:
            write_text(folder / HEADER, _header(layers, views))
        return cls(layers, views, arrays, folder)

    @classmethod
    def open(cls, folder: Path, *, writable: bool = False) -> QueryStore:
        """A store that :meth:`create` made.

        Args:
            folder: where it lies.
            writable: whether :meth:`put` may change it.

        Raises:
            InputError: it is missing or damaged, or a file is not as large as the header says.
        """
        layers, views = _read_header(folder / HEADER)
        arrays: dict[QueryLayer, np.ndarray] = {}
        for layer in layers:
            path, shape = folder / _name(layer), _shape(layer, views)
            promised = views * layer.side**2 * layer.channels * _DTYPE.itemsize
            with reading(path):
                require_regular(path)
                found = path.stat().st_size
                if found != promised:
                    raise InputError(
                        f"has {found:,} bytes where {HEADER} says {promised:,}",
                        where=path,
                        fix="Extract the queries anew.",
                    )
                arrays[layer] = np.memmap(path, _DTYPE, "r+" if writable else "r", shape=shape)
        return cls(layers, views, arrays, folder)

    def put(self, view: int, queries: Mapping[QueryLayer, Float[Tensor, "side side c"]]) -> None:
        """Take the queries of a view, of one layer or of several.

        Args:
            view: number of the view.
            queries: by layer, token rows first, on any device.

        Raises:
            InputError: the view or a layer is not of this store, a shape does not fit, or a value is not finite or
                beyond half precision. Nothing is written then.
        """
        self._require_view(view)
        if not self._writable:
            raise InputError("was opened for reading", where=self.folder, fix="Open it with writable=True.")
        halves: dict[QueryLayer, np.ndarray] = {}
        for layer, values in queries.items():
            array = self._array(layer)
            where = f"view {view}, layer {layer}"
            if tuple(values.shape) != array.shape[1:]:
                raise InputError(
                    f"queries have the shape {tuple(values.shape)}, not {array.shape[1:]}", where=self._where(where)
                )
            largest = float(values.detach().abs().max())
            # NaN is not below anything.
            if not largest <= _LARGEST:
                what = "are not finite" if not np.isfinite(largest) else f"reach {largest:g}, beyond half precision"
                raise InputError(
                    f"queries {what}",
                    where=self._where(where),
                    fix="Run the network in single precision, or with smaller guidance steps.",
                )
            halves[layer] = values.detach().to("cpu", torch.float16).numpy()
        for layer, half in halves.items():
            self._array(layer)[view] = half

    def get(self, layer: QueryLayer, view: int) -> Float[Tensor, "side side c"]:
        """The queries of a view, single precision, on the CPU.

        Raises:
            InputError: the view or the layer is not of this store, or its queries were never put.
        """
        self._require_view(view)
        found = self._array(layer)[view]
        if np.isnan(found[0, 0, 0]):
            raise InputError(f"view {view} has no queries of layer {layer}", where=self.folder, fix="Extract them.")
        return torch.from_numpy(found.astype(np.float32))

    def require_complete(self) -> None:
        """Raise unless every view has queries of every layer.

        Raises:
            InputError: one has none; it names the first.
        """
        for layer in self.layers:
            missing = np.flatnonzero(np.isnan(self._array(layer)[:, 0, 0, 0]))
            if len(missing):
                self.get(layer, int(missing[0]))

    def tokens(
        self, layer: QueryLayer, views: Int[Tensor, "n"], rows: Int[Tensor, "n"], columns: Int[Tensor, "n"]
    ) -> Float[Tensor, "n c"]:
        """Queries of single tokens, single precision, on the CPU."""
        array = self._array(layer)
        found = array[views.cpu().numpy(), rows.cpu().numpy(), columns.cpu().numpy()]
        return torch.from_numpy(found.astype(np.float32))

    def sampled(
        self, layer: QueryLayer, views: Int[Tensor, "n"], positions: Float[Tensor, "n 2"]
    ) -> Float[Tensor, "n c"]:
        """Queries between tokens, by bilinear interpolation; the outermost tokens reach to the picture's edge.

        Args:
            layer: which layer.
            views: number of each one's view.
            positions: (x, y) in the picture, from 0 at its left and upper edge to 1; token (i, j) of a grid of side h
                stands at ((j + 0.5) / h, (i + 0.5) / h).
        """
        place = (positions.cpu() * layer.side - 0.5).clamp(0, layer.side - 1)
        low = place.floor().clamp(max=max(0, layer.side - 2)).long()
        part = place - low
        high = (low + 1).clamp(max=layer.side - 1)
        out = torch.zeros(len(views), layer.channels)
        for rows, down in ((low[:, 1], 1 - part[:, 1]), (high[:, 1], part[:, 1])):
            for columns, right in ((low[:, 0], 1 - part[:, 0]), (high[:, 0], part[:, 0])):
                out += (down * right)[:, None] * self.tokens(layer, views, rows, columns)
        return out

    def statistics(self, layer: QueryLayer, masks: Float[Tensor, "views h w"] | None = None) -> Statistics:
        """Mean and deviation of each channel over the tokens of all views, read view by view.

        Args:
            layer: which layer.
            masks: how much each part of the pictures counts, in [0, 1], of any size; averaged to the token grid.

        Raises:
            InputError: a view has no queries, the masks are not one for each view, or nothing counts.
        """
        if masks is not None and len(masks) != self.views:
            raise InputError(f"there are {len(masks)} masks for {self.views} views", where=self.folder)
        total = 0.0
        mean = torch.zeros(layer.channels, dtype=torch.float64)
        squares = torch.zeros(layer.channels, dtype=torch.float64)
        for view in range(self.views):
            values = self.get(layer, view).flatten(0, 1).double()
            if masks is None:
                weight = torch.ones(len(values), 1, dtype=torch.float64)
            else:
                weight = token_weights(masks[view], layer.side).flatten()[:, None].cpu().double()
            mass = float(weight.sum())
            if mass == 0:
                continue
            # Parts are joined by their means, which loses no digits where these are far from zero.
            own = (weight * values).sum(0) / mass
            change = own - mean
            squares += (weight * (values - own).square()).sum(0) + change.square() * (total * mass / (total + mass))
            mean += change * (mass / (total + mass))
            total += mass
        if total == 0:
            raise InputError("the masks leave no token of any view", where=self.folder)
        deviation = (squares / total).sqrt().clamp(min=DEVIATION_FLOOR)
        return Statistics(mean.float(), deviation.float())

    def _array(self, layer: QueryLayer) -> np.ndarray:
        if layer not in self._arrays:
            raise InputError(f"there is no layer {layer} with {layer.channels} channels", where=self.folder)
        return self._arrays[layer]

    def _require_view(self, view: int) -> None:
        if not 0 <= view < self.views:
            raise InputError(f"there is no view {view}, only 0 to {self.views - 1}", where=self.folder)

    def _where(self, text: str) -> str:
        return text if self.folder is None else f"{self.folder}: {text}"


def token_weights(mask: Float[Tensor, "*v h w"], side: int) -> Float[Tensor, "*v side side"]:
    """Mean of a map over the part of the picture that each token of a grid stands for."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    return F.adaptive_avg_pool2d(flat, side).reshape(*mask.shape[:-2], side, side)


def _shape(layer: QueryLayer, views: int) -> tuple[int, int, int, int]:
    return views, layer.side, layer.side, layer.channels


def _name(layer: QueryLayer) -> str:
    return f"side{layer.side:03d}-{layer.ordinal}.f16"


def _header(layers: Sequence[QueryLayer], views: int) -> str:
    content = {"version": _VERSION, "views": views, "layers": [asdict(layer) for layer in layers]}
    return json.dumps(content, indent=1) + "\n"


def _read_header(path: Path) -> tuple[tuple[QueryLayer, ...], int]:
    content = read_object(path)
    if content.get("version") != _VERSION:
        raise InputError(f"version is {shown(content.get('version'))}, not {_VERSION}", where=path)
    views, entries = content.get("views"), content.get("layers")
    if not isinstance(views, int) or not isinstance(entries, list) or len(entries) > _MOST_LAYERS:
        raise InputError("does not say how many views and which layers there are", where=path)
    names = ("side", "channels", "ordinal")
    layers = []
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), int) for name in names):
            raise InputError(f"{shown(entry)} is no layer", where=path)
        try:
            layers.append(QueryLayer(*(entry[name] for name in names)))
        except InputError as error:
            raise InputError(error.what, where=path) from error
    _require_sizes(layers, views, path)
    return tuple(layers), views


def _require_sizes(layers: Sequence[QueryLayer], views: int, where: Path | None) -> None:
    if not is_whole(views, 1, _MOST_VIEWS):
        raise InputError(f"queries of {shown(views)} views cannot be kept", where=where, fix=f"1 to {_MOST_VIEWS}.")
    if not 1 <= len(layers) <= _MOST_LAYERS:
        raise InputError(f"queries of {len(layers)} layers cannot be kept", where=where, fix=f"1 to {_MOST_LAYERS}.")
    if len({(layer.side, layer.ordinal) for layer in layers}) < len(layers):
        raise InputError("two layers have the same side and number", where=where)
