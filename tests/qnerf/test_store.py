"""Stores of queries: what is put comes back, on disk and in memory; what is damaged or no query is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qnerf.store import DEVIATION_FLOOR, HEADER, QueryLayer, QueryStore, token_weights
from scene.errors import InputError, OutputError

FINE, COARSE = QueryLayer(4, 6, 0), QueryLayer(2, 3, 1)
LAYERS = (FINE, COARSE)


def drawn(seed: int) -> dict[QueryLayer, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Whole numbers come through half precision as they are.
    return {
        layer: torch.randint(-50, 50, (layer.side, layer.side, layer.channels), generator=generator).float()
        for layer in LAYERS
    }


def filled(folder: Path | None, views: int = 3) -> QueryStore:
    store = QueryStore.create(folder, LAYERS, views)
    for view in range(views):
        store.put(view, drawn(view))
    return store


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_put_comes_back(on_disk: bool, tmp_path: Path) -> None:
    store = filled(tmp_path / "queries" if on_disk else None)
    again = QueryStore.open(tmp_path / "queries") if on_disk else store
    assert again.layers == LAYERS
    assert again.views == 3
    for view in range(3):
        for layer, values in drawn(view).items():
            assert torch.equal(again.get(layer, view), values)
    assert again.get(FINE, 0).dtype == torch.float32


def test_files_are_plain_half_floats_in_the_order_of_views(tmp_path: Path) -> None:
    filled(tmp_path)
    raw = np.fromfile(tmp_path / "side004-0.f16", "<f2").reshape(3, 4, 4, 6)
    assert np.array_equal(raw[2], drawn(2)[FINE].numpy().astype(np.float16))
    assert {path.name for path in tmp_path.iterdir()} == {HEADER, "side004-0.f16", "side002-1.f16"}


def test_values_are_rounded_to_half_precision_and_no_further() -> None:
    store = QueryStore.create(None, LAYERS, 1)
    values = torch.randn(4, 4, 6)
    store.put(0, {FINE: values})
    assert torch.equal(store.get(FINE, 0), values.half().float())


def test_views_that_have_not_come_are_not_zero(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        store = QueryStore.create(folder, LAYERS, 2)
        store.put(0, drawn(0))
        store.put(1, {FINE: drawn(1)[FINE]})
        with pytest.raises(InputError, match="view 1 has no queries of layer 1 of side 2"):
            store.get(COARSE, 1)
        with pytest.raises(InputError, match="view 1 has no queries"):
            store.require_complete()
        with pytest.raises(InputError, match="view 1 has no queries"):
            store.statistics(COARSE)
        store.put(1, drawn(1))
        store.require_complete()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 70_000.0, -66_000.0])
def test_queries_that_are_no_halves_are_refused_and_change_nothing(bad: float) -> None:
    store = filled(None)
    queries = drawn(7)
    queries[COARSE][1, 0, 2] = bad
    with pytest.raises(InputError, match=r"view 1, layer 1 of side 2: queries (are not finite|reach .*half precision)"):
        store.put(1, queries)
    assert torch.equal(store.get(FINE, 1), drawn(1)[FINE])


def test_other_views_layers_and_shapes_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(InputError, match="no view 3"):
        store.put(3, drawn(0))
    with pytest.raises(InputError, match="no view -1"):
        store.get(FINE, -1)
    with pytest.raises(InputError, match="no layer 1 of side 4"):
        store.put(0, {QueryLayer(4, 6, 1): torch.zeros(4, 4, 6)})
    with pytest.raises(InputError, match=r"shape \(2, 2, 3\), not \(4, 4, 6\)"):
        store.put(0, {FINE: torch.zeros(2, 2, 3)})


def test_stores_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="0 views"):
        QueryStore.create(None, LAYERS, 0)
    with pytest.raises(InputError, match="0 layers"):
        QueryStore.create(None, (), 1)
    with pytest.raises(InputError, match="same side and number"):
        QueryStore.create(None, (FINE, QueryLayer(4, 8, 0)), 1)
    with pytest.raises(InputError, match="no layer has"):
        QueryLayer(0, 6, 0)


def test_a_new_store_replaces_an_old_one_and_leaves_its_readers_alone(tmp_path: Path) -> None:
    old = filled(tmp_path)
    new = QueryStore.create(tmp_path, LAYERS, 1)
    with pytest.raises(InputError, match="has no queries"):
        new.get(FINE, 0)
    assert torch.equal(old.get(FINE, 2), drawn(2)[FINE])


def test_only_stores_opened_for_it_are_changed(tmp_path: Path) -> None:
    filled(tmp_path)
    QueryStore.open(tmp_path, writable=True).put(0, drawn(9))
    assert torch.equal(QueryStore.open(tmp_path).get(FINE, 0), drawn(9)[FINE])
    with pytest.raises(InputError, match="opened for reading"):
        QueryStore.open(tmp_path).put(0, drawn(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version is 2"),
        ({"views": 2}, r"has 576 bytes where queries\.json says 384"),
        ({"views": 10**12}, "views cannot be kept"),
        ({"views": "3"}, "does not say"),
        ({"layers": None}, "does not say"),
        ({"layers": [{"side": 4, "channels": 6}]}, "is no layer"),
        ({"layers": [{"side": 4, "channels": True, "ordinal": 0}]}, "no layer has"),
        ({"layers": [{"side": 10**9, "channels": 6, "ordinal": 0}]}, "no layer has"),
        ({"layers": [{"side": 8, "channels": 6, "ordinal": 0}]}, r"side008-0\.f16.*cannot be read"),
    ],
)
def test_headers_that_do_not_fit_are_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    filled(tmp_path)
    content = json.loads((tmp_path / HEADER).read_text())
    (tmp_path / HEADER).write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=said):
        QueryStore.open(tmp_path)


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"queries\.json: cannot be read"):
        QueryStore.open(tmp_path)
    filled(tmp_path)
    path = tmp_path / "side002-1.f16"
    data = path.read_bytes()
    for spoilt in (data[:-2], data + b"\0\0", b""):
        path.write_bytes(spoilt)
        with pytest.raises(InputError, match=r"side002-1\.f16: has .* bytes"):
            QueryStore.open(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"side002-1\.f16: cannot be read"):
        QueryStore.open(tmp_path)
    (tmp_path / HEADER).write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        QueryStore.open(tmp_path)


def test_a_file_where_the_folder_must_go_is_said(tmp_path: Path) -> None:
    (tmp_path / "queries").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        QueryStore.create(tmp_path / "queries", LAYERS, 1)


def test_tokens_are_gathered_by_view_row_and_column() -> None:
    store = filled(None)
    views, rows, columns = torch.tensor([2, 0]), torch.tensor([1, 3]), torch.tensor([0, 2])
    found = store.tokens(FINE, views, rows, columns)
    assert torch.equal(found, torch.stack([drawn(2)[FINE][1, 0], drawn(0)[FINE][3, 2]]))


def test_samples_at_token_centres_are_the_tokens() -> None:
    store = filled(None)
    rows, columns = (one.flatten() for one in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    views = torch.ones(16, dtype=torch.long)
    positions = (torch.stack([columns, rows], -1) + 0.5) / 4
    assert torch.allclose(store.sampled(FINE, views, positions), drawn(1)[FINE].flatten(0, 1), atol=1e-4)


def test_samples_are_bilinear_between_tokens_and_constant_beyond() -> None:
    layer = QueryLayer(8, 2, 0)
    store = QueryStore.create(None, [layer], 1)
    centres = (torch.arange(8) + 0.5) / 8
    store.put(0, {layer: torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)})
    positions = torch.rand(100, 2)
    found = store.sampled(layer, torch.zeros(100, dtype=torch.long), positions)
    assert torch.allclose(found, positions.clamp(1 / 16, 15 / 16), atol=1e-3)


def test_a_grid_of_one_token_is_the_same_everywhere() -> None:
    layer = QueryLayer(1, 2, 0)
    store = QueryStore.create(None, [layer], 1)
    store.put(0, {layer: torch.tensor([[[3.0, -1.0]]])})
    found = store.sampled(layer, torch.zeros(5, dtype=torch.long), torch.rand(5, 2))
    assert torch.equal(found, torch.tensor([[3.0, -1.0]]).expand(5, 2))


def test_statistics_are_those_of_all_tokens() -> None:
    store = filled(None)
    values = torch.cat([drawn(view)[FINE].flatten(0, 1) for view in range(3)])
    mean, deviation = store.statistics(FINE)
    assert torch.allclose(mean, values.mean(0), atol=1e-4)
    assert torch.allclose(deviation, values.std(0, correction=0), atol=1e-4)


def test_statistics_keep_small_deviations_far_from_zero_and_have_a_floor() -> None:
    layer = QueryLayer(2, 2, 0)
    store = QueryStore.create(None, [layer], 2)
    first = torch.tensor([[[2048.0, 5.0], [2050.0, 5.0]], [[2048.0, 5.0], [2050.0, 5.0]]])
    store.put(0, {layer: first})
    store.put(1, {layer: first + torch.tensor([2.0, 0.0])})
    mean, deviation = store.statistics(layer)
    assert mean.tolist() == pytest.approx([2050, 5])
    assert deviation.tolist() == pytest.approx([2**0.5, DEVIATION_FLOOR])


def test_statistics_of_masked_tokens_ignore_the_others() -> None:
    store = filled(None)
    masks = torch.zeros(3, 4, 4)
    masks[0, 1:3, 1:3] = 1
    masks[2, 0, 3] = 1
    values = torch.cat([drawn(0)[FINE][1:3, 1:3].flatten(0, 1), drawn(2)[FINE][0, 3][None]])
    mean, deviation = store.statistics(FINE, masks)
    assert torch.allclose(mean, values.mean(0), atol=1e-4)
    assert torch.allclose(deviation, values.std(0, correction=0), atol=1e-4)
    # On a coarser grid a token counts as far as it is covered.
    coarse = torch.stack([drawn(0)[COARSE][0, 0], drawn(2)[COARSE][0, 1]])
    expected = (drawn(0)[COARSE].flatten(0, 1).sum(0) + coarse[1]) / 5
    assert torch.allclose(store.statistics(COARSE, masks).mean, expected, atol=1e-4)


def test_masks_must_fit_and_leave_something() -> None:
    store = filled(None)
    with pytest.raises(InputError, match="2 masks for 3 views"):
        store.statistics(FINE, torch.ones(2, 4, 4))
    with pytest.raises(InputError, match="no token"):
        store.statistics(FINE, torch.zeros(3, 4, 4))


def test_weights_of_tokens_are_means_of_their_part() -> None:
    mask = torch.rand(2, 12, 12)
    found = token_weights(mask, 3)
    assert found.shape == (2, 3, 3)
    assert float(found[1, 2, 0]) == pytest.approx(float(mask[1, 8:12, 0:4].mean()))
