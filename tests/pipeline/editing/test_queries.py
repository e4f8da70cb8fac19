"""The probe: queries as the layers make them, with gradients, and replaced; statistics that stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.diffusion.modules.attention import hooked
from pipeline.editing.model import EditDiffusion
from pipeline.editing.queries import QueryProbe, RunningStatistics, query_layers, restored, standardised
from qnerf.store import QueryLayer, QueryStore
from scene.errors import InputError


def latents(rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(4))


def test_queries_are_what_the_layers_linear_maps_give(editor: EditDiffusion) -> None:
    """Heads side by side, tokens row by row."""
    layers = query_layers(editor)
    assert [(layer.side, layer.channels, layer.ordinal) for layer in layers.values()] == [
        (4, 32, 0),
        (4, 32, 1),
        (8, 16, 0),
        (8, 16, 1),
    ]
    met: list[torch.Tensor] = []
    module: Any = editor.unet.get_submodule("up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q")
    handle = module.register_forward_hook(lambda own, given, out: met.append(out))
    probe = QueryProbe(layers)
    with torch.no_grad(), hooked(editor.unet, [probe]):
        probe.record()
        editor.predict(latents(), 500)
        taken = probe.take([1, 0])
    handle.remove()
    assert torch.equal(taken[QueryLayer(8, 16, 1)], met[0].unflatten(1, (8, 8))[[1, 0]])


def test_only_the_pass_that_was_asked_for_is_kept(editor: EditDiffusion) -> None:
    probe = QueryProbe(query_layers(editor))
    with torch.no_grad(), hooked(editor.unet, [probe]):
        editor.predict(latents(), 500)
        with pytest.raises(InputError, match="queries of 0 layers"):
            probe.take([0])
        probe.record()
        editor.predict(latents(), 500)
        probe.take([0])
        with pytest.raises(InputError, match="queries of 0 layers"):
            probe.take([0])


def slope(editor: EditDiffusion) -> torch.Tensor:
    """Of the squared queries of row 1, by all rows' latents."""
    probe = QueryProbe(query_layers(editor))
    with hooked(editor.unet, [probe]):
        leaf = latents().requires_grad_()
        probe.record()
        editor.predict(leaf, 500)
        values = sum(q.square().mean() for q in probe.take([1]).values())
        assert isinstance(values, torch.Tensor)
        (found,) = torch.autograd.grad(values, leaf)
    return found


def test_gradients_reach_the_latents_of_the_row_and_no_other(editor: EditDiffusion) -> None:
    found = slope(editor)
    assert float(found[1].abs().max()) > 1e-5
    assert not found[0].any()


def test_gradients_are_the_same_without_kept_inner_results(editor: EditDiffusion) -> None:
    """Low memory runs the network again backwards, probe and all."""
    kept = slope(editor)
    assert torch.allclose(slope(editor.use_memory("low")), kept, rtol=1e-4, atol=1e-7)


def test_replaced_rows_get_what_is_given_and_others_their_own(editor: EditDiffusion) -> None:
    layers = query_layers(editor)
    probe = QueryProbe(layers)
    z = latents()
    with torch.no_grad(), hooked(editor.unet, [probe]):
        probe.record()
        plain = editor.predict(z, 500)
        own = probe.take([1])
        probe.replaced, probe.rows = own, [1]
        again = editor.predict(z, 500)
        probe.replaced = {layer: -q for layer, q in own.items()}
        other = editor.predict(z, 500)
    assert torch.allclose(again, plain, atol=1e-6)
    assert torch.equal(other[0], plain[0])
    assert not torch.allclose(other[1], plain[1], atol=1e-4)


def test_the_end_of_a_run_forgets_replacements(editor: EditDiffusion) -> None:
    probe = QueryProbe(query_layers(editor), {}, [0])
    with hooked(editor.unet, [probe]):
        pass
    assert probe.replaced is None
    assert probe.rows == ()


@pytest.mark.parametrize("masked", [False, True])
def test_streamed_statistics_are_those_of_the_whole_store(masked: bool) -> None:
    layer = QueryLayer(8, 5, 0)
    queries = torch.randn(3, 8, 8, 5) * torch.tensor([0.0, 1e-4, 1.0, 3.0, 20.0]) + 7
    masks = (torch.rand(3, 16, 16) > 0.6).float() if masked else None
    store = QueryStore.create(None, [layer], 3)
    running = RunningStatistics()
    for view, values in enumerate(queries):
        store.put(view, {layer: values})
        part = None if masks is None else masks[view : view + 1]
        running.add({layer: values.half()[None]}, part)
    mean, deviation = running.result()[layer]
    wanted = store.statistics(layer, masks)
    assert torch.allclose(mean, wanted.mean, atol=1e-5)
    assert torch.allclose(deviation, wanted.deviation, atol=1e-5)
    own = standardised({layer: queries}, {layer: wanted})[layer]
    assert torch.allclose(restored({layer: own}, {layer: wanted})[layer], queries, atol=1e-4)


def test_no_token_has_no_statistics() -> None:
    running = RunningStatistics()
    running.add({QueryLayer(2, 3, 0): torch.ones(1, 2, 2, 3)}, torch.zeros(1, 4, 4))
    with pytest.raises(InputError, match="no token"):
        running.result()


def test_the_nine_layers_of_stable_diffusion(
    make_unet: Callable[..., UNet2DConditionModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 512 pixels; on a device that holds no weights."""
    with torch.device("meta"):
        unet = make_unet(
            sample_size=64,
            layers_per_block=2,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
            cross_attention_dim=768,
            attention_head_dim=8,
            norm_num_groups=32,
        )
    model = object.__new__(EditDiffusion)
    model.unet = unet
    assert [(one.side, one.channels, one.ordinal) for one in query_layers(model).values()] == [
        *((16, 1280, ordinal) for ordinal in range(3)),
        *((32, 640, ordinal) for ordinal in range(3)),
        *((64, 320, ordinal) for ordinal in range(3)),
    ]
