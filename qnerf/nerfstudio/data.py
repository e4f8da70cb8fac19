"""Captures with a store of queries beside them, for nerfstudio: each ray brings the queries of its pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from qnerf.principal import PrincipalAxes, principal_axes
from qnerf.store import QueryLayer, QueryStore, Statistics
from scene.errors import InputError
from scene.viewset import ViewSet

SOURCE = "query_source"
"""Key of the data set's metadata under which the model finds its :class:`QuerySource`."""
_MOST_VIEWS = 16
"""Views that decide colours."""


@dataclass(frozen=True, eq=False)
class QuerySource:
    """Standardised queries of a capture's pictures; view k of the store is frame k of the capture file.

    Args:
        store: the queries.
        numbers: view of each picture, by its path.
        statistics: of each layer, over all views.
        shown: the layer that is drawn as colours, the first of the finest.
        axes: of its colours, the same for all views.
    """

    store: QueryStore
    numbers: dict[Path, int]
    statistics: dict[QueryLayer, Statistics]
    shown: QueryLayer
    axes: PrincipalAxes

    @classmethod
    def open(cls, capture: Path, folder: Path) -> QuerySource:
        """The queries of a capture.

        Args:
            capture: its folder, or its ``transforms.json``.
            folder: of the store.

        Raises:
            InputError: one of them is damaged, they are not of the same views, or a picture is not square.
        """
        store, views = QueryStore.open(folder), ViewSet.load(capture)
        if store.views != len(views):
            raise InputError(f"has queries of {store.views} views, the capture has {len(views)}", where=folder)
        store.require_complete()
        numbers = {}
        for number, view in enumerate(views):
            if view.camera.width != view.camera.height:
                raise InputError(
                    f"queries of a picture of {view.camera.width}x{view.camera.height} pixels have no square grid",
                    where=view.image_path,
                )
            if view.image_path is not None:
                numbers[view.image_path.resolve()] = number
        statistics = {layer: store.statistics(layer) for layer in store.layers}
        shown = max(store.layers, key=lambda layer: (layer.side, -layer.ordinal))
        mean, deviation = statistics[shown]
        some = range(0, store.views, max(1, -(-store.views // _MOST_VIEWS)))
        tokens = torch.cat([store.get(shown, view).flatten(0, 1) for view in some])
        return cls(store, numbers, statistics, shown, principal_axes((tokens - mean) / deviation))

    def view(self, picture: Path) -> int:
        """The view of a picture.

        Raises:
            InputError: the capture has no such picture.
        """
        try:
            return self.numbers[picture.resolve()]
        except KeyError:
            raise InputError("is no picture of the capture", where=picture) from None

    def queries(self, views: Int[Tensor, "r"], positions: Float[Tensor, "r 2"]) -> tuple[Float[Tensor, "r c"], ...]:
        """Standardised queries of every layer; see :meth:`qnerf.store.QueryStore.sampled`."""
        return tuple(
            (self.store.sampled(layer, views, positions) - self.statistics[layer].mean)
            / self.statistics[layer].deviation
            for layer in self.store.layers
        )

    def picture(self, view: int, width: int, height: int) -> Float[Tensor, "height width 3"]:
        """A view's own queries as colours in [0, 1]."""
        mean, deviation = self.statistics[self.shown]
        colours = self.axes.colours((self.store.get(self.shown, view) - mean) / deviation)
        return F.interpolate(colours.movedim(-1, 0)[None], (height, width), mode="bilinear")[0].movedim(0, -1)


class QueryDataset(InputDataset):
    """Pictures with their queries as colours, under ``principal``.

    Masks are left out: nerfstudio would draw no rays outside them, and queries are everywhere.
    """

    source: QuerySource

    def attach(self, source: QuerySource) -> None:
        """Take the queries."""
        self.source = source
        self.metadata[SOURCE] = source

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """One picture."""
        data: dict[str, Any] = super().get_data(image_idx, image_type)
        data.pop("mask", None)
        height, width = data["image"].shape[:2]
        data["principal"] = self.source.picture(self.view(image_idx), width, height)
        return data

    def view(self, image_idx: int) -> int:
        """The store's number of a picture; nerfstudio has an order of its own."""
        return self.source.view(self.image_filenames[image_idx])


class QueryDataManager(VanillaDataManager[QueryDataset]):
    """nerfstudio's single-process data manager, whose batches have ``queries``: a tensor ``[r, c]`` for each layer."""

    config: QueryDataManagerConfig

    def create_train_dataset(self) -> QueryDataset:
        """The training pictures; opens the store."""
        capture = Path(self.config.dataparser.data)
        folder = capture if capture.is_dir() else capture.parent
        self.source = QuerySource.open(capture, folder / self.config.queries)
        return self._attached(super().create_train_dataset())

    def create_eval_dataset(self) -> QueryDataset:
        """The pictures that are held out."""
        return self._attached(super().create_eval_dataset())

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays and what their pixels say."""
        bundle, batch = super().next_train(step)
        return bundle, self._with_queries(batch, self.train_dataset)

    def next_eval(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays of held-out pictures."""
        bundle, batch = super().next_eval(step)
        return bundle, self._with_queries(batch, self.eval_dataset)

    def _attached(self, dataset: QueryDataset) -> QueryDataset:
        dataset.attach(self.source)
        return dataset

    def _with_queries(self, batch: dict[str, Any], dataset: QueryDataset) -> dict[str, Any]:
        picture, row, column = batch["indices"].cpu().long().unbind(-1)
        numbers = torch.tensor([dataset.view(k) for k in range(len(dataset))])
        size = torch.cat([dataset.cameras.width, dataset.cameras.height], -1).cpu()[picture]
        positions = (torch.stack([column, row], -1) + 0.5) / size
        return batch | {"queries": self.source.queries(numbers[picture], positions)}


@dataclass
class QueryDataManagerConfig(VanillaDataManagerConfig):
    """Settings of nerfstudio's single-process data manager, and where the queries are."""

    _target: type = field(default_factory=lambda: QueryDataManager)
    queries: Path = Path("queries")
    """Folder of the queries, from the capture's folder."""
