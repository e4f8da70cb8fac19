"""The attention hook: nothing changed by hooks that do nothing, layers named right, sharing that shares no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from pipeline.diffusion.modules.attention import (
    AttentionHook,
    Heads,
    HookedAttention,
    Layer,
    OneTokenAttention,
    Scores,
    SharedViews,
    hooked,
    self_attention_layers,
    use_one_token_attention,
)
from scene.errors import InputError

EVERYWHERE = (16, 8, 4, 2, 1)


class Idle(AttentionHook):
    """Does nothing."""


class Scored(AttentionHook):
    """Asks for scores and gives them back, on some layers or all."""

    def __init__(self, place: str | None = None) -> None:
        self.place, self.seen = place, 0

    def wants_scores(self, layer: Layer) -> bool:
        return self.place in (None, layer.place)

    def scores(self, layer: Layer, scores: Scores) -> Scores:
        self.seen += 1
        return scores


class Recorder(AttentionHook):
    """Writes down the layers in the order they run, and the tokens they see."""

    def __init__(self) -> None:
        self.calls: list[tuple[Layer, int]] = []
        self.outputs: list[tuple[Layer, int]] = []
        self.resets = 0

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        self.calls.append((layer, q.shape[2]))
        return q, k, v

    def output(self, layer: Layer, out: torch.Tensor) -> torch.Tensor:
        self.outputs.append((layer, out.shape[1]))
        return out

    def reset(self) -> None:
        self.resets += 1


class Scaled(AttentionHook):
    """Scales queries, scores or the output."""

    def __init__(self, q: float = 1.0, scores: float = 1.0, output: float = 1.0) -> None:
        self.by = q, scores, output

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        return q * self.by[0], k, v

    def wants_scores(self, layer: Layer) -> bool:
        return self.by[1] != 1

    def scores(self, layer: Layer, scores: Scores) -> Scores:
        return scores * self.by[1]

    def output(self, layer: Layer, out: torch.Tensor) -> torch.Tensor:
        return out * self.by[2]


def three_levels(size: int = 8) -> UNet2DConditionModel:
    """As the shipped model: attention on every level."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(8, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def four_levels(size: int = 16) -> UNet2DConditionModel:
    """As Stable Diffusion: none on the lowest level, so that up_blocks.0 has no attention."""
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(32, 64, 64, 64),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=16,
        attention_head_dim=8,
    ).eval()


Network = Callable[[], UNet2DConditionModel]
NETWORKS = [three_levels, four_levels]


def run(
    unet: UNet2DConditionModel,
    rows: torch.Tensor,
    hooks: list[AttentionHook] | None = None,
    tokens: torch.Tensor | None = None,
) -> torch.Tensor:
    """The network's output for rows at timestep 300; every row has a token of its own position unless given."""
    if tokens is None:
        tokens = torch.linspace(-1, 1, 16).expand(len(rows), 1, 16)
    with torch.no_grad(), hooked(unet, hooks or [], rows.shape[-1]):
        return unet(rows, 300, tokens).sample


def some_rows(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Random latents."""
    return torch.randn(count, 4, size, size, generator=torch.Generator().manual_seed(seed))


# --- hooks that do nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "hooks",
    [[], [Idle()], [Scored()], [Idle(), Scored("mid"), Idle()], [Scaled(2.0), Scaled(0.5)]],
    ids=["none", "idle", "scores", "several", "undone"],
)
def test_hooks_that_do_nothing_equal_diffusers_own_processor(network: Network, hooks: list[AttentionHook]) -> None:
    unet = network()
    rows = some_rows(3, unet.config["sample_size"])
    with torch.no_grad():
        plain = unet(rows, 300, torch.linspace(-1, 1, 16).expand(3, 1, 16)).sample
    assert plain.std() > 0.05
    assert (run(unet, rows, hooks) - plain).abs().max() <= 1e-5


@pytest.mark.parametrize("hook", [Scaled(q=0.2), Scaled(scores=0.2), Scaled(output=0.2)])
def test_each_moment_reaches_the_output(hook: AttentionHook) -> None:
    unet = four_levels()
    rows = some_rows(1, 16)
    assert (run(unet, rows, [hook]) - run(unet, rows)).abs().max() > 1e-4


def test_scaling_queries_scales_scores() -> None:
    unet = four_levels()
    rows = some_rows(2, 16)
    assert torch.allclose(run(unet, rows, [Scaled(q=0.3)]), run(unet, rows, [Scaled(scores=0.3)]), atol=1e-5)


def test_scores_are_only_made_where_wanted() -> None:
    hook = Scored("mid")
    run(three_levels(), some_rows(1, 8), [hook])
    assert hook.seen == 1


def test_attention_is_softmax_of_scaled_products() -> None:
    """One layer, by hand."""
    torch.manual_seed(0)
    attn = Attention(query_dim=8, heads=2, dim_head=4)
    x = torch.randn(3, 5, 8)
    q, k, v = (w(x).view(3, 5, 2, 4).transpose(1, 2) for w in (attn.to_q, attn.to_k, attn.to_v))
    heads = torch.softmax(q @ k.transpose(-1, -2) / 4**0.5, -1) @ v
    expected = attn.to_out[0](heads.transpose(1, 2).reshape(3, 5, 8))
    for hooks in ([], [Scored()]):
        assert torch.allclose(HookedAttention(Layer("mid", 1, 0), hooks)(attn, x), expected, atol=1e-6)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("factor", [1, 2])
def test_layers_run_in_the_order_and_at_the_resolution_of_their_names(network: Network, factor: int) -> None:
    """Also on latents of another size than the config's."""
    unet, recorder = network(), Recorder()
    size = factor * unet.config["sample_size"]
    run(unet, some_rows(1, size), [recorder])
    assert [layer for layer, _ in recorder.calls] == list(self_attention_layers(unet, size).values())
    assert all(tokens == layer.resolution**2 for layer, tokens in recorder.calls)
    assert recorder.outputs == recorder.calls


def test_names_of_three_levels() -> None:
    layers = list(self_attention_layers(three_levels()).values())
    assert layers == [
        *(Layer("encoder", size, k) for size in (8, 4, 2) for k in (0, 1)),
        Layer("mid", 2, 0),
        *(Layer("decoder", size, k) for size in (2, 4, 8) for k in (0, 1, 2)),
    ]


def test_names_of_stable_diffusion() -> None:
    names = self_attention_layers(four_levels(), 32)
    assert list(names.values()) == [
        *(Layer("encoder", size, k) for size in (32, 16, 8) for k in (0, 1)),
        Layer("mid", 4, 0),
        *(Layer("decoder", size, k) for size in (8, 16, 32) for k in (0, 1, 2)),
    ]
    assert names["up_blocks.1.attentions.2.transformer_blocks.0.attn1.processor"] == Layer("decoder", 8, 2)
    assert len(names) == sum(name.endswith("attn1.processor") for name in four_levels().attn_processors)


# --- installing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_processors_are_restored_and_hooks_reset(fails: bool) -> None:
    unet, recorder = three_levels(), Recorder()
    before = dict(unet.attn_processors)

    def within() -> None:
        with hooked(unet, [recorder]):
            assert sum(isinstance(p, HookedAttention) for p in unet.attn_processors.values()) == 16
            assert all(
                isinstance(p, HookedAttention) == name.endswith("attn1.processor")
                for name, p in unet.attn_processors.items()
            )
            if fails:
                raise RuntimeError("within the block")

    if fails:
        with pytest.raises(RuntimeError, match="within the block"):
            within()
    else:
        within()
    assert unet.attn_processors == before
    assert recorder.resets == 1


def test_hooks_fit_plain_self_attention_only() -> None:
    attn, x = Attention(query_dim=8, heads=2, dim_head=4), torch.randn(1, 3, 8)
    processor = HookedAttention(Layer("mid", 2, 1), [])
    for arguments in ({"encoder_hidden_states": x}, {"attention_mask": torch.ones(1, 3)}):
        with pytest.raises(InputError, match=r"plain self-attention only.*mid"):
            processor(attn, x, **arguments)
    with pytest.raises(InputError, match="plain self-attention only"):
        processor(attn, x[0])


# --- shared views -----------------------------------------------------------------------------------------------------

ATOL = 1e-5


@pytest.mark.parametrize("network", NETWORKS)
class TestSharedViews:
    """Rows: a source and two views of one object, then the same of another."""

    def rows(self, unet: UNet2DConditionModel) -> torch.Tensor:
        return some_rows(6, unet.config["sample_size"])

    def changed(self, rows: torch.Tensor, row: int) -> torch.Tensor:
        other = rows.clone()
        other[row] = some_rows(1, rows.shape[-1], seed=9)[0]
        return other

    def test_the_source_row_is_as_if_alone(self, network: Network) -> None:
        unet = network()
        rows = self.rows(unet)
        shared = run(unet, rows, [SharedViews(3)])
        assert torch.allclose(shared[[0, 3]], run(unet, rows[[0, 3]]), atol=ATOL)

    def test_views_read_their_source_and_nothing_else(self, network: Network) -> None:
        unet = network()
        rows = self.rows(unet)
        shared = run(unet, rows, [SharedViews(3)])
        assert (shared[1] - run(unet, rows[1:2])[0]).abs().max() > 1e-3
        assert (run(unet, self.changed(rows, 0), [SharedViews(3)])[1] - shared[1]).abs().max() > 1e-3
        for other in (2, 3, 4):
            assert torch.allclose(run(unet, self.changed(rows, other), [SharedViews(3)])[1], shared[1], atol=ATOL)

    def test_one_view_gives_the_same_alone_or_among_others(self, network: Network) -> None:
        unet = network()
        rows = self.rows(unet)
        shared = run(unet, rows, [SharedViews(3)])
        assert torch.allclose(run(unet, rows[[0, 2]], [SharedViews(2)])[1], shared[2], atol=ATOL)

    @pytest.mark.parametrize("source_row", [False, True])
    def test_joint_rows_that_are_identical_equal_separate_ones(self, network: Network, source_row: bool) -> None:
        unet = network()
        rows = self.rows(unet)[[0, 0, 0, 1, 1, 1]]
        joint = run(unet, rows, [SharedViews(3, source_row=source_row, joint=EVERYWHERE)])
        assert torch.allclose(joint, run(unet, rows), atol=ATOL)

    def test_joint_rows_read_all_rows_of_their_object(self, network: Network) -> None:
        unet = network()
        rows, hook = self.rows(unet), SharedViews(3, source_row=False, joint=EVERYWHERE)
        joint = run(unet, rows, [hook])
        for other in (1, 2):
            assert (run(unet, self.changed(rows, other), [hook])[0] - joint[0]).abs().max() > 1e-4
        for other in (3, 4, 5):
            assert torch.allclose(run(unet, self.changed(rows, other), [hook])[0], joint[0], atol=ATOL)

    def test_joint_rows_have_no_order(self, network: Network) -> None:
        unet = network()
        rows, hook, order = self.rows(unet), SharedViews(3, source_row=False, joint=EVERYWHERE), [2, 0, 1, 3, 5, 4]
        assert torch.allclose(run(unet, rows[order], [hook]), run(unet, rows, [hook])[order], atol=ATOL)

    def test_joint_sharing_is_confined_to_its_resolutions(self, network: Network) -> None:
        unet = network()
        rows, lowest = self.rows(unet), unet.config["sample_size"] // 2 ** (len(unet.config["block_out_channels"]) - 1)
        nowhere = run(unet, rows, [SharedViews(3, source_row=False, joint=(999,))])
        assert torch.allclose(nowhere, run(unet, rows), atol=ATOL)
        deep = run(unet, rows, [SharedViews(3, source_row=False, joint=(lowest,))])
        everywhere = run(unet, rows, [SharedViews(3, source_row=False, joint=EVERYWHERE)])
        assert (deep - nowhere).abs().max() > 1e-5
        assert (everywhere - deep).abs().max() > 1e-4


def test_keys_and_values_are_widened_by_the_source_or_by_all() -> None:
    """Rows of two objects, counted: what each row reads, in which order."""
    layer = Layer("mid", 4, 0)
    k = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 3, 5)
    v = k + 100
    q, wide_k, wide_v = SharedViews(3).project(layer, k, k, v)
    assert torch.equal(q, k)
    read = torch.tensor([[0, 0], [1, 0], [2, 0], [3, 3], [4, 3], [5, 3]]).repeat_interleave(3, 1)
    assert torch.equal(wide_k[:, 0, :, 0], read)
    assert torch.equal(wide_v[:, 1, :, 4], read + 100)
    _, joint_k, joint_v = SharedViews(3, joint=(4,)).project(layer, k, k, v)
    everything = torch.tensor([[0, 1, 2]] * 3 + [[3, 4, 5]] * 3).repeat_interleave(3, 1)
    assert torch.equal(joint_k[:, 1, :, 0], everything)
    assert torch.equal(joint_v[:, 0, :, 0], everything + 100)


def test_rows_must_come_in_whole_groups() -> None:
    with pytest.raises(InputError, match="5 rows are not whole groups of 3 views"):
        run(three_levels(), some_rows(5, 8), [SharedViews(3)])


# --- one token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 2])
def test_cross_attention_on_one_token_is_a_linear_map_of_it(tokens: int) -> None:
    unet = three_levels()
    rows, t, words = some_rows(3, 8), torch.tensor([5, 500, 900]), torch.randn(3, tokens, 16)
    with torch.no_grad():
        before = unet(rows, t, words).sample
        use_one_token_attention(unet)
        after = unet(rows, t, words).sample
    assert torch.allclose(after, before, atol=1e-6)
    names = {name: type(processor) for name, processor in unet.attn_processors.items()}
    assert {kind for name, kind in names.items() if "attn2" in name} == {OneTokenAttention}
    assert OneTokenAttention not in {kind for name, kind in names.items() if "attn1" in name}
