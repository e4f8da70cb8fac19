"""The trainer on a straight line: budgets, averages, resuming."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.training.trainer import (
    STATE,
    Curve,
    Ema,
    Optimiser,
    Progress,
    Task,
    TrainSettings,
    begin,
    learning_rate,
    put_back,
    replaced_at_once,
    train,
)
from scene.errors import InputError, ViewloomError


class Line(Task[torch.Tensor]):
    """Fit y = 3 x - 1."""

    def __init__(
        self, model: nn.Linear, batch: int = 8, spoil: bool = False, seen: list[torch.Tensor] | None = None
    ) -> None:
        self.model, self.batch, self.spoil = model, batch, spoil
        self.seen: list[torch.Tensor] = [] if seen is None else seen

    def batches(self) -> Iterator[torch.Tensor]:
        while True:
            yield torch.rand(self.batch, 1)

    def loss(self, batch: torch.Tensor) -> tuple[torch.Tensor, int, dict[str, float]]:
        self.seen.append(batch)
        error = (self.model(batch) - (3 * batch - 1)).square().mean()
        return error * (float("nan") if self.spoil else 1.0), len(batch), {"half": 0.5} if len(self.seen) % 2 else {}

    def evaluate(self) -> dict[str, float]:
        x = torch.linspace(0, 1, 5)[:, None]
        return {"error": float((self.model(x) - (3 * x - 1)).square().mean())}

    def save(self, folder: Path) -> None:
        torch.save(self.model.state_dict(), folder / "line.pt")


def settings_for(out: Path, **changes: object) -> TrainSettings:
    """Small, exact, on the CPU."""
    plain = TrainSettings(out, samples=800, lr=0.05, warmup=5, ema=50, device="cpu", precision="fp32")
    return replace(plain, **changes)  # type: ignore[arg-type]


def fit(settings: TrainSettings, model: nn.Linear | None = None, **options: object) -> tuple[nn.Linear, Progress]:
    """Train a line."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1) if model is None else model
    return model, train(model, lambda device: Line(model, **options), settings)  # type: ignore[arg-type]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_spends_its_samples_and_learns(tmp_path: Path) -> None:
    _, done = fit(settings_for(tmp_path))
    assert done.samples == 800
    rows = rows_of(tmp_path / "curve.csv")
    assert rows[-1]["samples"] == "800"
    assert float(rows[-1]["error"]) < 0.05
    assert {"samples", "minutes", "loss", "half", "error"} <= rows[0].keys()
    assert float(rows[-1]["half"]) == 0.5  # over the steps that had it, which is every other one
    held = json.loads((tmp_path / "model" / "training.json").read_text())
    assert held["samples"] == 800
    assert held["held_out"]["error"] == pytest.approx(float(rows[-1]["error"]), rel=1e-4)


def network() -> nn.Sequential:
    """A first layer, a kernel, a matrix and a last layer."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(32, 48, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 40),
        nn.Linear(40, 2),
    )


def test_muon_takes_kernels_and_adamw_the_rest(tmp_path: Path) -> None:
    """Muon's step is orthogonal: all singular values of a kernel's change are about alike."""
    steps = {}
    for name in ("adamw", "muon"):
        model = network()
        before = {k: v.detach().clone() for k, v in model.named_parameters()}
        optimiser = Optimiser(model, settings_for(tmp_path, optimiser=name))
        optimiser.set_rate(0.01)
        torch.manual_seed(2)
        for parameter in model.parameters():  # gradients of very unequal singular values
            sizes = torch.linspace(1, 0.05, len(parameter)).reshape(-1, *[1] * (parameter.ndim - 1))
            parameter.grad = torch.randn_like(parameter) * sizes
        optimiser.step()
        steps[name] = {k: v.detach() - before[k] for k, v in model.named_parameters()}
    for name in ("0.bias", "1.bias", "5.weight"):
        assert torch.equal(steps["adamw"][name], steps["muon"][name])
    for name in ("1.weight", "4.weight"):
        change = steps["muon"][name].flatten(1)
        singular = torch.linalg.svdvals(change)
        assert singular.min() > 0.3 * singular.max()
        assert float(change.square().mean().sqrt()) == pytest.approx(0.002, rel=0.35)  # 0.2 of the rate


def test_muon_learns_and_leaves_frozen_layers_alone(tmp_path: Path) -> None:
    model = network()
    model[1].requires_grad_(False)
    frozen = model[1].weight.clone()
    optimiser = Optimiser(model, settings_for(tmp_path, optimiser="muon"))
    x = torch.randn(8, 3, 8, 8)
    y = torch.stack([x.mean((1, 2, 3)), x[:, 0].mean((1, 2))], 1)
    losses = []
    for _ in range(80):
        model.zero_grad(set_to_none=True)
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert torch.equal(frozen, model[1].weight)


def test_a_run_stops_at_the_minutes(tmp_path: Path) -> None:
    _, done = fit(settings_for(tmp_path, samples=None, minutes=0.01))
    assert 0.008 <= done.minutes < 0.1
    assert done.samples > 8


def test_measurements_come_at_intervals(tmp_path: Path) -> None:
    fit(settings_for(tmp_path, samples=80, every_minutes=0.0))
    assert [int(row["samples"]) for row in rows_of(tmp_path / "curve.csv")] == list(range(8, 81, 8))


def test_the_average_is_measured_and_saved_and_the_live_weights_go_on(tmp_path: Path) -> None:
    model, _ = fit(settings_for(tmp_path, samples=80, ema=10**6, decay=0.0))
    saved = torch.load(tmp_path / "model" / "line.pt")
    assert float((saved["weight"] - model.weight.detach()).abs()) > 1e-3
    again = nn.Linear(1, 1)
    again.load_state_dict(saved)
    error = float(rows_of(tmp_path / "curve.csv")[-1]["error"])
    with torch.no_grad():
        assert error == pytest.approx(Line(again).evaluate()["error"], rel=1e-3)


def test_resuming_continues_counts_and_curve(tmp_path: Path) -> None:
    _, first = fit(settings_for(tmp_path / "a"))
    model = nn.Linear(1, 1)
    model.load_state_dict(torch.load(tmp_path / "a" / "model" / "line.pt"))
    _, done = fit(settings_for(tmp_path / "b", samples=400, resume=tmp_path / "a" / "model", warmup=0), model)
    assert done.samples == 1200
    rows = rows_of(tmp_path / "b" / "curve.csv")
    assert [row["samples"] for row in rows] == ["800", "1200"]
    assert float(rows[1]["error"]) < 2 * float(rows[0]["error"]) + 1e-3
    held = json.loads((tmp_path / "b" / "model" / "training.json").read_text())
    assert held["samples"] == 1200
    assert done.minutes > first.minutes > 0


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    one, _ = fit(settings_for(tmp_path / "a", samples=80))
    two, _ = fit(settings_for(tmp_path / "b", samples=80))
    other, _ = fit(settings_for(tmp_path / "c", samples=80, seed=1))
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, other.weight)


def test_a_resumed_run_sees_new_data_and_repeats(tmp_path: Path) -> None:
    first, second, again = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
    fit(settings_for(tmp_path / "a", samples=80), seen=first)
    resumed = settings_for(tmp_path / "b", samples=80, resume=tmp_path / "a" / "model")
    fit(resumed, seen=second)
    fit(replace(resumed, out=tmp_path / "c"), seen=again)
    assert not {float(v) for batch in first for v in batch} & {float(v) for batch in second for v in batch}
    assert all(torch.equal(one, two) for one, two in zip(second, again, strict=True))


def test_the_seed_of_a_run_follows_from_the_settings_and_the_samples_seen(tmp_path: Path) -> None:
    seeds = [begin(settings_for(tmp_path / "x", seed=seed)) for seed in (0, 1)]
    for samples in (80, 81):
        Progress(samples, 1.0).save(tmp_path)
        seeds.append(begin(settings_for(tmp_path / "x", resume=tmp_path)))
        assert begin(settings_for(tmp_path / "y", resume=tmp_path)) == seeds[-1]
    assert len(set(seeds)) == 4


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    class Dying(Line):
        def save(self, folder: Path) -> None:
            if len(self.seen) == 5:
                (folder / "line.pt").write_bytes(b"half a")
                raise Killed
            super().save(folder)

    with pytest.raises(Killed):
        train(model := nn.Linear(1, 1), lambda device: Dying(model), settings_for(tmp_path, every_minutes=0.0))
    assert torch.load(tmp_path / "model" / "line.pt").keys() == {"weight", "bias"}
    assert Progress.of(tmp_path / "model").samples == 32
    assert torch.load(tmp_path / STATE)["samples"] == 40  # written first: the next run goes on from there
    fit(settings_for(tmp_path, samples=80, resume=tmp_path / "model"))
    assert Progress.of(tmp_path / "model").samples == 120
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["model"]


def test_a_kill_between_the_renames_is_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, renamed, replace_path = tmp_path / "model", list[str](), Path.replace
    with replaced_at_once(model) as folder:
        Progress(8, 1.0).save(folder)

    def replace_once(path: Path, target: Path) -> Path:
        if renamed:
            raise Killed
        renamed.append(path.name)
        return replace_path(path, target)

    monkeypatch.setattr(Path, "replace", replace_once)
    with pytest.raises(Killed), replaced_at_once(model) as folder:
        Progress(16, 1.0).save(folder)
    monkeypatch.undo()
    assert renamed == ["model"]
    assert not model.exists()
    begin(settings_for(tmp_path, resume=model))
    assert Progress.of(model).samples == 8
    # Without a resumed run in between, the next use keeps it in the same way until it has something better.
    model.replace(tmp_path / "model.old")
    with pytest.raises(Killed), replaced_at_once(model):
        raise Killed
    assert Progress.of(model).samples == 8
    (tmp_path / "model.old").mkdir()  # of a kill after both renames
    put_back(model)
    assert Progress.of(model).samples == 8


def test_mixed_precision_trains_too(tmp_path: Path) -> None:
    _, done = fit(settings_for(tmp_path, precision="bf16"))
    assert done.samples == 800
    assert float(rows_of(tmp_path / "curve.csv")[-1]["error"]) < 0.1


@pytest.mark.parametrize("budget", [{}, {"samples": 0}, {"minutes": 0.0}, {"minutes": -1.0, "samples": 0}])
def test_a_run_needs_a_budget(tmp_path: Path, budget: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"needs a budget.*--minutes or --samples"):
        fit(replace(settings_for(tmp_path), **{"samples": None, "minutes": None, **budget}))


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ViewloomError, match=r"gradient is not finite at step 0.*lower --lr"):
        fit(settings_for(tmp_path), spoil=True)


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_learning_rate_warms_up_holds_and_falls() -> None:
    settings = TrainSettings(Path("x"), lr=2.0, warmup=10, decay=0.25)
    rates: Callable[[int, float], float] = lambda step, share: learning_rate(settings, step, share)  # noqa: E731
    assert [rates(k, 0.0) for k in (0, 4, 9, 10, 500)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0])
    assert [rates(500, s) for s in (0.5, 0.75, 0.875, 1.0, 1.2)] == pytest.approx([2.0, 2.0, 1.0, 0.0, 0.0])
    assert learning_rate(replace(settings, warmup=0, decay=0.0), 0, 0.99) == 2.0


@given(st.integers(1, 64), st.integers(200, 2000))
def test_the_average_forgets_half_within_its_half_life(step: int, half_life: int) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = Ema(model, half_life, seen=10**9)
    nn.init.ones_(model.weight)
    steps = math.ceil(half_life / step)
    for _ in range(steps):
        ema.update(step)
    assert float(ema.average["weight"]) == pytest.approx(1 - 0.5 ** (steps * step / half_life), abs=1e-3)
    assert float(model.weight) == 1


def test_early_weights_are_forgotten_sooner() -> None:
    averages = []
    for seen in (0, 10**9):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        ema = Ema(model, 20_000, seen)
        nn.init.ones_(model.weight)
        for _ in range(50):
            ema.update(16)
        averages.append(float(ema.average["weight"]))
    assert averages[0] > 0.95
    assert averages[1] < 0.05


def test_averages_are_applied_for_a_block_only() -> None:
    model = nn.Linear(2, 2)
    ema = Ema(model, 10, 100)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        model.weight += 1
    live = model.weight.detach().clone()

    def fail_within() -> None:
        with ema.applied():
            assert torch.equal(model.weight, before["weight"])
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail_within()
    assert torch.equal(model.weight, live)


def test_progress_is_read_and_written(tmp_path: Path) -> None:
    assert Progress.of(None) == Progress.of(tmp_path) == Progress()
    Progress(70, 1.25).save(tmp_path, held_out={"a": 1})
    assert Progress.of(tmp_path) == Progress(70, 1.25)


def test_curves_take_new_columns_and_go_on_where_they_were(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "run", None)
    curve.add({"samples": 1, "a": 0.5})
    curve.add({"samples": 2, "a": 0.25, "b": 3.0})
    expected = [{"samples": "1", "a": "0.5", "b": ""}, {"samples": "2", "a": "0.25", "b": "3"}]
    assert rows_of(tmp_path / "run" / "curve.csv") == expected
    again = Curve(tmp_path / "run", None)
    again.add({"samples": 3, "b": 2.0})
    assert rows_of(tmp_path / "run" / "curve.csv")[:2] == expected
    for resumed in (tmp_path / "run", tmp_path / "run" / "model"):
        assert len(Curve(tmp_path / resumed.name / "next", resumed).rows) == 3
    assert not list((tmp_path / "run").glob("*.part"))


def test_curves_are_drawn_where_matplotlib_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="curves are drawn only where matplotlib is installed")
    curve = Curve(tmp_path, None)
    curve.add({"samples": 1, "minutes": 0.1, "a": 0.5, "late": float("nan")})
    curve.add({"samples": 2, "minutes": 0.2, "a": 0.3, "b": 1.0, "c": 2.0, "d": 3.0})
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
