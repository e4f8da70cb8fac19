"""What all trainers share: budget and learning rate, moving average, precision, held-out curve, checkpoints."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

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
    """Model folder to start from (for instance one under weights/); its training log continues, on new data. If the
    run's state lies beside it (``state.pt``, written with every checkpoint), the optimiser goes on too."""
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
    """Steps of linear warm-up of a fresh optimiser."""
    decay: float = 0.0
    """Last fraction of the budget over which the rate falls to zero. 0 keeps it: a run that may go on. To ship, branch
    a short run off with ``--resume RUN/model --decay 1``."""
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

    def state_dict(self) -> list[dict[str, Any]]:
        """State of both optimisers, in order."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Go on from a state.

        Raises:
            InputError: it is another optimiser's, or another model's.
        """
        try:
            if len(state) != len(self._parts):
                raise ValueError("another optimiser")
            for part, held in zip(self._parts, state, strict=True):
                part.load_state_dict(held)
        except ValueError as error:
            raise InputError(
                f"the optimiser's state does not fit ({error})",
                fix="Use the --optimiser of the run before, or delete its state.pt for a fresh one.",
            ) from error

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

    def state(self) -> dict[str, Any]:
        """What a run that goes on must know besides weights and optimiser, numbers and texts only; nothing here."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from such a state.

        Raises:
            InputError: the run before trained something else, for instance on other fixed parts.
        """
        return None


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
        step: steps that the optimiser has done, over all runs that share its state.
        share: fraction of this run's budget that is used up, in [0, 1].
    """
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    fall = min(1.0, max(0.0, (1 - share) / settings.decay)) if settings.decay > 0 else 1.0
    return settings.lr * warm * fall


def autocast(device: torch.device, precision: Literal["bf16", "fp32"]) -> torch.autocast:
    """Mixed precision for a device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


STATE = "state.pt"
"""Beside ``model/``: live weights, their average, the optimiser and counts; not shipped."""


@dataclass
class RunState:
    """All that changes while a model is trained.

    Args:
        model: live weights.
        optimiser, ema: what goes with them.
        task: its own state.
        done: over all runs.
        steps: of this optimiser.
    """

    model: nn.Module
    optimiser: Optimiser
    ema: Ema
    task: Task[Any]
    done: Progress
    steps: int = 0

    def save(self, path: Path) -> None:
        """Write aside and rename: a kill or a full disk leaves the state before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        held = {
            "model": self.model.state_dict(),
            "ema": self.ema.average,
            "optimiser": self.optimiser.state_dict(),
            "task": self.task.state(),
            "samples": self.done.samples,
            "minutes": self.done.minutes,
            "steps": self.steps,
        }
        try:
            torch.save(held, partial)
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
            partial.unlink(missing_ok=True)
            raise ViewloomError(
                f"the training state cannot be written ({error}); the checkpoint before it is whole",
                where=path,
                fix="Make room on the disk and go on with --resume.",
            ) from error

    def load(self, path: Path) -> bool:
        """Go on from the state beside the checkpoint that was resumed from; False if there is none, or an older one.

        Raises:
            InputError: it is damaged, or belongs to another model or optimiser.
        """
        if not path.is_file():
            return False
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
            samples = held["samples"]
        except Exception as error:
            raise InputError(
                f"the training state cannot be read ({error})", where=path, fix="Delete it for a fresh optimiser."
            ) from error
        if samples < self.done.samples:
            return False
        self.task.load_state(held["task"])
        try:
            self.model.load_state_dict(held["model"])
        except RuntimeError as error:
            raise InputError(
                f"the training state is of another model ({error})", where=path, fix="Delete it for a fresh optimiser."
            ) from error
        self.ema.average = {k: v.to(self.ema.average[k].device) for k, v in held["ema"].items()}
        self.ema.seen = samples
        self.optimiser.load_state_dict(held["optimiser"])
        self.done.samples, self.done.minutes, self.steps = samples, held["minutes"], held["steps"]
        return True


class _Terminated:
    """Notes SIGTERM within a ``with`` block instead of dying of it, where signals can be caught at all."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> _Terminated:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.asked = True

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def train(model: nn.Module, make_task: Callable[[torch.device], Task[Batch]], settings: TrainSettings) -> Progress:
    """Train until the budget is spent or SIGTERM asks to stop.

    At every measurement, writes the averaged weights to ``out/model``, which is replaced as a whole, the state of the
    run to ``out/state.pt``, and then ``out/curve.csv`` and, where matplotlib is, ``out/curve.png``. SIGTERM writes the
    state and the averaged weights without measuring, and ends the run as a spent budget does.

    Returns:
        Progress over all runs.

    Raises:
        InputError: no budget was given, or the state beside the checkpoint resumed from does not fit.
        ViewloomError: the loss is not finite, or the state cannot be written.
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
    run = RunState(model, Optimiser(model, settings), Ema(model, settings.ema, done.samples), task, done)
    console = Console()
    if settings.resume is not None and not run.load(settings.resume.parent / STATE):
        console.print(f"no training state of this checkpoint beside {settings.resume}: the optimiser starts fresh")
    before = Progress(done.samples, done.minutes)
    curve = Curve(settings.out, settings.resume)
    start = measured = time.monotonic()
    logs = _Means()

    def checkpoint(*, measured: bool) -> None:
        numbers: dict[str, float] = {}
        run.save(settings.out / STATE)  # first, so that it is never behind the weights beside it
        with run.ema.applied():
            model.eval()
            if measured:
                with torch.no_grad(), autocast(device, settings.precision):
                    numbers = task.evaluate()
            with replaced_at_once(settings.out / "model") as folder:
                task.save(folder)
                done.save(folder, **({"held_out": numbers} if measured else {}))
        model.train()
        if measured:
            curve.add({"samples": done.samples, "minutes": round(done.minutes, 2), **logs.take(), **numbers})
        shown = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items()) if measured else "stopped, checkpoint written"
        console.print(f"{done.samples:>9} samples  {done.minutes:7.1f} min  {shown}")

    model.train()
    with _Terminated() as terminated:
        for batch in task.batches():
            elapsed = (time.monotonic() - start) / 60
            share = max(
                elapsed / settings.minutes if settings.minutes else 0.0,
                (done.samples - before.samples) / settings.samples if settings.samples else 0.0,
            )
            if share >= 1 or terminated.asked:
                break
            run.optimiser.set_rate(learning_rate(settings, run.steps, share))
            with autocast(device, settings.precision):
                loss, count, numbers = task.loss(batch)
            model.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if not math.isfinite(float(norm)):
                raise ViewloomError(
                    f"the gradient is not finite at step {run.steps}",
                    fix="Resume from the last checkpoint with a lower --lr.",
                )
            run.optimiser.step()
            run.ema.update(count)
            run.steps += 1
            done.samples += count
            done.minutes = before.minutes + (time.monotonic() - start) / 60
            logs.add({"loss": float(loss.detach()), **numbers})
            if time.monotonic() - measured > settings.every_minutes * 60:
                checkpoint(measured=True)
                measured = time.monotonic()
    if logs or terminated.asked:
        checkpoint(measured=not terminated.asked)
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
