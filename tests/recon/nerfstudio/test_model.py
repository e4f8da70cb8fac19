"""The model on its own: what it draws of the first sphere, its losses, its parameters."""

from __future__ import annotations

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from recon.nerfstudio.model import HashSurfaceModel, HashSurfaceModelConfig

BOX = torch.tensor([[-1.0] * 3, [1.0] * 3])


def build(**settings: object) -> HashSurfaceModel:
    small = {"levels": 4, "finest": 32, "log2_size": 10, "probes": 48, "intervals": 48, "radius": 0.25}
    config = HashSurfaceModelConfig(**{**small, **settings})
    return config.setup(scene_box=SceneBox(BOX), num_train_data=4, metadata={}, device="cpu")


def bundle(x: list[float]) -> RayBundle:
    """Rays along -z, so far aside."""
    count = len(x)
    origins = torch.tensor([[value, 0.0, 2.0] for value in x])
    directions = torch.tensor([[0.0, 0.0, -1.0]]).expand(count, 3).contiguous()
    return RayBundle(origins, directions, pixel_area=torch.ones(count, 1))


def batch(count: int, alpha: float = 1.0) -> dict[str, Tensor]:
    return {"image": torch.cat([torch.rand(count, 3), torch.full((count, 1), alpha)], -1)}


@pytest.mark.parametrize("directional", [False, True])
def test_the_first_sphere_is_drawn_where_it_is(directional: bool) -> None:
    model = build(variance=0.6, directional=directional).eval()
    out = model(bundle([0.0, 0.3, 0.9]))
    assert out["depth"][:2, 0].detach().numpy() == pytest.approx([1.5, 2 - (0.25 - 0.09) ** 0.5], abs=0.01)
    assert out["accumulation"][:, 0].detach().numpy() == pytest.approx([1, 1, 0], abs=0.01)
    # Normals are shown as colours: towards the camera is blue.
    assert out["normal"][0].detach().numpy() == pytest.approx([0.5, 0.5, 1], abs=0.05)
    # What is not hit shows the background.
    assert out["rgb"][2].detach().numpy() == pytest.approx(1, abs=0.01)
    assert build(background="black").eval()(bundle([0.9]))["rgb"].detach().numpy() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("p", [0.3, 0.5, 0.7])
def test_depth_does_not_depend_on_how_sharp_the_density_is(p: float) -> None:
    model = build(variance=p).eval()
    assert float(model(bundle([0.0]))["depth"].detach()) == pytest.approx(1.5, abs=0.003)


def test_losses_tell_right_outlines_from_wrong_ones() -> None:
    model = build(variance=0.6)
    hit, miss = [0.0, 0.1, 0.2], [0.8, 0.9, 0.95]
    right = model.get_loss_dict(model(bundle(hit)), batch(3)), model.get_loss_dict(model(bundle(miss)), batch(3, 0.0))
    wrong = model.get_loss_dict(model(bundle(hit)), batch(3, 0.0)), model.get_loss_dict(model(bundle(miss)), batch(3))
    for good, bad in zip(right, wrong, strict=True):
        assert good.keys() == {"colour", "mask", "eikonal", "curvature"}
        assert float(good["mask"].detach()) < 0.05 < 2 < float(bad["mask"].detach())
    # A sphere is a distance already.
    assert float(right[0]["eikonal"].detach()) < 0.005


def test_colours_are_compared_on_the_background_they_were_drawn_on() -> None:
    model = build(variance=0.6)
    out = model(bundle([0.9, 0.95]))
    assert "background" in out
    assert float(model.get_loss_dict(out, batch(2, 0.0))["colour"].detach()) < 0.01


def test_every_parameter_has_a_group_and_learns() -> None:
    model = build(directional=True)
    groups = model.get_param_groups()
    assert groups.keys() == {"table", "networks", "variance"}
    grouped = {id(p) for params in groups.values() for p in params}
    assert grouped == {id(p) for p in model.parameters()} - {id(model.device_indicator_param)}
    with torch.no_grad():
        # The features of the grid count for nothing at first.
        model.field.sdf_hidden.weight.add_(0.05 * torch.randn_like(model.field.sdf_hidden.weight))
    rays = torch.linspace(-0.6, 0.6, 32).tolist()
    sum(model.get_loss_dict(model(bundle(rays)), batch(32)).values()).backward()
    for name, params in groups.items():
        assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in params), name


def test_no_weights_come_from_the_network() -> None:
    assert not [name for name, _ in build().named_modules() if "lpips" in name.lower()]
