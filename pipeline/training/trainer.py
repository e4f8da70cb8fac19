"""What all trainers share: budget and learning rate, moving average, precision, held-out curve, checkpoints."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from scene.backends import pick_device
from scene.errors import InputError, ViewloomError

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainSettings:
    """Settings common to all trainers. The run ends at whichever budget comes first; at least one is needed."""

    out: Path
    """Folder for checkpoints, curve.csv and curve.png."""
    resume: Path | None = None
    """Model folder to start from (for instance one under weights/); its training log continues, on new data."""
    minutes: float | None = None
    """Wall-clock budget of this run."""
    samples: int | None = None
    """Samples to see in this run."""
    batch: int = 16
    """Samples (objects for view training) per step."""
    lr: float = 3e-4
    """Peak learning rate."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """muon: kernels of convolutions and layers by Muon, at a rate that means the same; the rest by AdamW."""
    warmup: int = 200
    """Steps of linear warm-up."""
    decay: float = 0.3
    """Last share of the budget over which the rate falls to zero."""
    ema: int = 20_000
    """The moving average forgets half within this many samples (less early on)."""
    every_minutes: float = 5.0
    """Time between held-out measurements; each also writes a checkpoint."""
    device: str = "auto"
    """Device to train on."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast precision."""
    seed: int = 0
    """Seed of initialisation, data order and noise; a resumed run draws its own from it and from the samples seen."""
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's choice."""


@dataclass
class Progress:
    """How far a model has been trained, over all runs."""

    samples: int = 0
    minutes: float = 0.0

    @classmethod
    def of(cls, folder: Path | None) -> Progress:
        """Read from a model folder's ``training.json``; zero if there is none."""
        path = None if folder is None else folder / "training.json"
        if path is None or not path.is_file():
            return cls()
        held = json.loads(path.read_text(encoding="utf-8"))
        return cls(held["samples"], held["minutes"])

    def save(self, folder: Path, **facts: object) -> None:
        """Write ``training.json`` into a model folder."""
        text = json.dumps({"samples": self.samples, "minutes": round(self.minutes, 2), **facts}, indent=1)
        (folder / "training.json").write_text(text + "\n", encoding="utf-8")


class Ema:
    """Exponential moving average of weights, with a half-life counted in samples.

    Args:
        model: the model averaged.
        half_life: samples after which a weight's influence has halved.
        seen: samples seen before; the half-life never exceeds a tenth of the samples seen, so that early weights,
            which are far off, are forgotten.
    """

    def __init__(self, model: nn.Module, half_life: int, seen: int) -> None:
        self.model, self.half_life, self.seen = model, half_life, seen
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, samples: int) -> None:
        """Take in the current weights after a step of ``samples``."""
        self.seen += samples
        keep = 0.5 ** (samples / max(1.0, min(self.half_life, self.seen / 10)))
        state = self.model.state_dict()
        floating = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floating], [state[k] for k in floating], 1 - keep)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights within this block."""
        live = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(live)


class Optimiser:
    """AdamW for all parameters of a model, or Muon for its kernels and AdamW for the rest.

    torch's Muon takes matrices only, so a convolution's kernel is given to it as a matrix over the same memory, one row
    an output channel. Layers of fewer than 32 inputs or outputs stay with AdamW. Muon: Jordan et al. 2024; its rate is
    scaled to AdamW's size of step (Liu et al. 2025, section 2.2).

    Args:
        model: what is trained.
        settings: rate, and which of the two.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        kernels = [p for p in trained if settings.optimiser == "muon" and _is_kernel(p)]
        chosen = {id(p) for p in kernels}
        rest = [p for p in trained if id(p) not in chosen]
        self._kernels = [(p, nn.Parameter(p.detach().view(len(p), -1))) for p in kernels]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=settings.lr, weight_decay=1e-2, betas=(0.9, 0.98))
        ]
        if kernels:
            twins = [twin for _, twin in self._kernels]
            self._parts.append(
                torch.optim.Muon(twins, lr=settings.lr, weight_decay=1e-2, adjust_lr_fn="match_rms_adamw")
            )

    def set_rate(self, rate: float) -> None:
        """Use this learning rate from now on."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        """Change the parameters by their gradients."""
        for parameter, twin in self._kernels:
            twin.grad = None if parameter.grad is None else parameter.grad.view_as(twin)
        for part in self._parts:
            part.step()


def _is_kernel(parameter: nn.Parameter) -> bool:
    return parameter.ndim in (2, 4) and min(len(parameter), parameter[0].numel()) >= 32


@runtime_checkable
class Task(Protocol[Batch]):
    """What a trainer needs to know of one model."""

    def batches(self) -> Iterator[Batch]:
        """Endless training batches."""

    def loss(self, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        """Loss of a batch, how many samples it held, and numbers worth logging."""

    def evaluate(self) -> dict[str, float]:
        """Held-out numbers of the model as it stands."""

    def save(self, folder: Path) -> None:
        """Write the model as it stands into an empty folder."""


def begin(settings: TrainSettings) -> int:
    """Ready a run, before its model is built or loaded: seed torch, and put back a checkpoint that a kill left aside.

    Returns:
        The seed of this run's data and noise: ``settings.seed``, or one that follows from it and from the samples that
        the model resumed from has seen, so that a resumed run does not go through the same data again.
    """
    if settings.resume is not None:
        put_back(settings.resume)
    seen = Progress.of(settings.resume).samples
    seed = int(np.random.SeedSequence([settings.seed, seen]).generate_state(1)[0]) if seen else settings.seed
    torch.manual_seed(seed)
    return seed


def put_back(folder: Path) -> None:
    """Give a model folder its name again if a kill came between the two renames of :func:`replaced_at_once`."""
    if not folder.exists() and (old := folder.with_name(folder.name + ".old")).is_dir():
        old.replace(folder)


@contextlib.contextmanager
def replaced_at_once(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` that takes its place when the block ends without an error.

    A kill leaves ``folder`` as it was or as it should be, never a mixture; between two renames it is only to be found
    as ``<name>.old``, which :func:`put_back` and the next use put right. Other leftovers are removed by the next use.
    """
    partial, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    put_back(folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if folder.exists():
        folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def learning_rate(settings: TrainSettings, step: int, share: float) -> float:
    """Warm up, hold, and fall to zero linearly over the last part of the budget.

    Args:
        step: steps done in this run.
        share: share of the budget that is used up, in [0, 1].
    """
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    fall = min(1.0, max(0.0, (1 - share) / settings.decay)) if settings.decay > 0 else 1.0
    return settings.lr * warm * fall


def autocast(device: torch.device, precision: Literal["bf16", "fp32"]) -> torch.autocast:
    """Mixed precision for a device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def train(model: nn.Module, make_task: Callable[[torch.device], Task[Batch]], settings: TrainSettings) -> Progress:
    """Train until the budget is spent.

    At every measurement, writes the averaged weights to ``out/model``, which is replaced as a whole, and then
    ``out/curve.csv`` and, where matplotlib is, ``out/curve.png``. The optimiser's state is not kept.

    Returns:
        Progress over all runs.

    Raises:
        InputError: no budget was given.
        ViewloomError: the loss is not finite.
    """
    if (settings.minutes or 0) <= 0 and (settings.samples or 0) <= 0:
        raise InputError("training needs a budget", fix="Give --minutes or --samples.")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = pick_device(settings.device)
    begin(settings)
    model.to(device)
    task = make_task(device)
    done = Progress.of(settings.resume)
    before = Progress(done.samples, done.minutes)
    optimiser = Optimiser(model, settings)
    ema = Ema(model, settings.ema, done.samples)
    console = Console()
    curve = Curve(settings.out, settings.resume)
    start = measured = time.monotonic()
    logs = _Means()

    def measure() -> None:
        with ema.applied():
            model.eval()
            with torch.no_grad(), autocast(device, settings.precision):
                numbers = task.evaluate()
            with replaced_at_once(settings.out / "model") as folder:
                task.save(folder)
                done.save(folder, held_out=numbers)
        model.train()
        curve.add({"samples": done.samples, "minutes": round(done.minutes, 2), **logs.take(), **numbers})
        shown = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
        console.print(f"{done.samples:>9} samples  {done.minutes:7.1f} min  {shown}")

    model.train()
    for step, batch in enumerate(task.batches()):
        elapsed = (time.monotonic() - start) / 60
        share = max(
            elapsed / settings.minutes if settings.minutes else 0.0,
            (done.samples - before.samples) / settings.samples if settings.samples else 0.0,
        )
        if share >= 1:
            break
        optimiser.set_rate(learning_rate(settings, step, share))
        with autocast(device, settings.precision):
            loss, count, numbers = task.loss(batch)
        model.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not math.isfinite(float(norm)):
            raise ViewloomError(
                f"the gradient is not finite at step {step}", fix="Resume from the last checkpoint with a lower --lr."
            )
        optimiser.step()
        ema.update(count)
        done.samples += count
        done.minutes = before.minutes + (time.monotonic() - start) / 60
        logs.add({"loss": float(loss.detach()), **numbers})
        if time.monotonic() - measured > settings.every_minutes * 60:
            measure()
            measured = time.monotonic()
    if logs:
        measure()
    return done


class _Means:
    """Means of logged numbers since they were last taken, each over the steps that had it."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, numbers: dict[str, float]) -> None:
        for key, value in numbers.items():
            self._values.setdefault(key, []).append(value)

    def take(self) -> dict[str, float]:
        means = {k: sum(v) / len(v) for k, v in self._values.items()}
        self._values = {}
        return means


class Curve:
    """The held-out curve: ``curve.csv`` and a plot of it, continuing the one of the folder resumed from."""

    def __init__(self, out: Path, resume: Path | None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "curve.csv"
        self.rows: list[dict[str, str]] = []
        for earlier in (self.path, *([] if resume is None else [resume / "curve.csv", resume.parent / "curve.csv"])):
            if earlier.is_file():
                with earlier.open(newline="", encoding="utf-8") as file:
                    self.rows = list(csv.DictReader(file))
                break

    def add(self, row: Mapping[str, float | int]) -> None:
        """Append a row and redraw the plot."""
        self.rows.append({k: f"{v:.6g}" for k, v in row.items()})
        names = list(dict.fromkeys(k for r in self.rows for k in r))
        partial = self.path.with_suffix(".part")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.path)
        with contextlib.suppress(ImportError):  # the plot is a convenience of machines with matplotlib
            self._plot(names)

    def _plot(self, names: list[str]) -> None:
        import matplotlib.figure

        shown = [n for n in names if n not in ("samples", "minutes")]
        figure = matplotlib.figure.Figure(figsize=(4 * min(3, len(shown)), 2.6 * math.ceil(len(shown) / 3)))
        for k, name in enumerate(shown):
            axes = figure.add_subplot(math.ceil(len(shown) / 3), min(3, len(shown)), k + 1)
            points = [(float(r["samples"]), float(r[name])) for r in self.rows if r.get(name)]
            axes.plot(*zip(*points, strict=True), ".-")
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("samples", fontsize=8)
            axes.tick_params(labelsize=7)
        figure.tight_layout()
        figure.savefig(self.path.with_suffix(".png"), dpi=90)
