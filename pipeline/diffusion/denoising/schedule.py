"""Noise schedules and the DDIM update between any two timesteps."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene.errors import InputError

Prediction = Literal["epsilon", "v_prediction"]
FINAL = -1
"""The step after the last timestep."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete diffusion process ``z_t = sqrt(a_t) x0 + sqrt(1 - a_t) eps`` with ``a`` the cumulative alphas.

    Args:
        alphas_cumprod: cumulative product of alphas, one entry per training timestep.
        prediction: what the network predicts.
        final_alpha_cumprod: signal level after the last step: 1, or ``alphas_cumprod[0]`` as Zero123 has it.
    """

    alphas_cumprod: Float[Tensor, "t"]
    prediction: Prediction
    final_alpha_cumprod: float = 1.0

    @classmethod
    def of_config(cls, config: dict[str, object]) -> NoiseSchedule:
        """From the config of a diffusers scheduler (``beta_schedule``, ``rescale_betas_zero_snr``, ...).

        Raises:
            InputError: the beta schedule or the prediction type is not supported, or its numbers make no schedule.
        """
        count = int(_number(config, "num_train_timesteps", 1000.0, 1.0, 1e5))
        low, high = (
            _number(config, name, usual, 0.0, 1.0) for name, usual in (("beta_start", 1e-4), ("beta_end", 0.02))
        )
        kind = config.get("beta_schedule", "linear")
        if kind == "scaled_linear":
            betas = torch.linspace(low**0.5, high**0.5, count, dtype=torch.float64) ** 2
        elif kind == "linear":
            betas = torch.linspace(low, high, count, dtype=torch.float64)
        else:
            raise InputError(f"beta schedule {kind!r} is not supported", fix="Use linear or scaled_linear.")
        alphas_cumprod = torch.cumprod(1 - betas, 0)
        if config.get("rescale_betas_zero_snr"):
            # Common Diffusion Noise Schedules and Sample Steps are Flawed, algorithm 1.
            root = alphas_cumprod.sqrt()
            alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        if not torch.isfinite(alphas_cumprod).all():
            raise InputError("the numbers of its betas make no noise schedule", fix="Copy its config again.")
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise InputError(f"prediction type {prediction!r} is not supported", fix="Use epsilon or v_prediction.")
        if prediction == "epsilon" and float(alphas_cumprod[-1]) == 0:
            raise InputError(
                "a schedule with zero terminal SNR cannot be run with epsilon prediction: its first step would "
                "divide by zero",
                fix="Use v_prediction.",
            )
        final = 1.0 if config.get("set_alpha_to_one", True) else float(alphas_cumprod[0])
        return cls(alphas_cumprod.float(), prediction, final)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether the last timestep holds no signal, so that sampling must begin there."""
        return float(self.alphas_cumprod[-1]) < 1e-4

    def at(self, t: int) -> float:
        """Signal level at a timestep; :data:`FINAL` is the clean end."""
        return self.final_alpha_cumprod if t == FINAL else float(self.alphas_cumprod[t])

    def log_snr(self, t: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Logarithm of the signal-to-noise ratio at timesteps."""
        alphas_cumprod = self.alphas_cumprod.to(t.device)[t]
        return (alphas_cumprod.clamp(min=1e-12) / (1 - alphas_cumprod)).log()

    def add_noise(
        self, clean: Float[Tensor, "b *s"], noise: Float[Tensor, "b *s"], t: Int[Tensor, "b"]
    ) -> Float[Tensor, "b *s"]:
        """The forward process at a timestep per row."""
        alphas_cumprod = self._rows(t, clean)
        return alphas_cumprod.sqrt() * clean + (1 - alphas_cumprod).sqrt() * noise

    def target(
        self, clean: Float[Tensor, "b *s"], noise: Float[Tensor, "b *s"], t: Int[Tensor, "b"]
    ) -> Float[Tensor, "b *s"]:
        """What the network should predict."""
        if self.prediction == "epsilon":
            return noise
        alphas_cumprod = self._rows(t, clean)
        return alphas_cumprod.sqrt() * noise - (1 - alphas_cumprod).sqrt() * clean

    def predict_x0_eps(
        self, prediction: Float[Tensor, "b *s"], z: Float[Tensor, "b *s"], t: int
    ) -> tuple[Float[Tensor, "b *s"], Float[Tensor, "b *s"]]:
        """A prediction at timestep ``t`` as (clean, noise)."""
        a = self.at(t)
        signal, sigma = math.sqrt(a), math.sqrt(1 - a)
        if self.prediction == "epsilon":
            return (z - sigma * prediction) / signal, prediction
        return signal * z - sigma * prediction, sigma * z + signal * prediction

    def predict_x0(
        self, prediction: Float[Tensor, "b *s"], z: Float[Tensor, "b *s"], t: Int[Tensor, "b"]
    ) -> Float[Tensor, "b *s"]:
        """The clean estimate of predictions at a timestep per row."""
        alphas_cumprod = self._rows(t, z)
        signal, sigma = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
        return (z - sigma * prediction) / signal if self.prediction == "epsilon" else signal * z - sigma * prediction

    def eps_from_x0(self, z: Float[Tensor, "b *s"], clean: Float[Tensor, "b *s"], t: int) -> Float[Tensor, "b *s"]:
        """The noise that makes ``z`` of a clean estimate at timestep ``t``."""
        a = self.at(t)
        return (z - math.sqrt(a) * clean) / math.sqrt(1 - a)

    def ddim(
        self,
        clean: Float[Tensor, "b *s"],
        noise: Float[Tensor, "b *s"],
        t: int,
        t_next: int,
        eta: float = 0.0,
        fresh: Float[Tensor, "b *s"] | None = None,
    ) -> Float[Tensor, "b *s"]:
        """DDIM from ``t`` to the lower ``t_next`` (Denoising Diffusion Implicit Models, equation 12)."""
        a, b = self.at(t), self.at(t_next)
        # With zero terminal SNR a may be 0; sigma's limit is the same expression.
        sigma = eta * math.sqrt(max(0.0, (1 - b) / (1 - a) * (1 - a / b)))
        out = math.sqrt(b) * clean + math.sqrt(max(0.0, 1 - b - sigma**2)) * noise
        return out if sigma == 0 or fresh is None else out + sigma * fresh

    def renoise(
        self, z: Float[Tensor, "b *s"], t_low: int, t_high: int, fresh: Float[Tensor, "b *s"]
    ) -> Float[Tensor, "b *s"]:
        """The forward process from ``t_low`` up to ``t_high``."""
        ratio = self.at(t_high) / self.at(t_low)
        return math.sqrt(ratio) * z + math.sqrt(1 - ratio) * fresh

    def _rows(self, t: Tensor, like: Tensor) -> Tensor:
        return self.alphas_cumprod.to(like.device)[t].view(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True)
class Span:
    """Timesteps ``low <= t < high``."""

    low: int
    high: int

    def __contains__(self, t: object) -> bool:
        return isinstance(t, int) and self.low <= t < self.high


@functools.cache
def reference_schedule() -> NoiseSchedule:
    """Stable Diffusion's and Zero123's process, in whose timesteps papers state their ranges."""
    return NoiseSchedule.of_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})


def equivalent_timestep(schedule: NoiseSchedule, t: int, latent_size: int, reference_size: int = 32) -> int:
    """The timestep that means for a model what ``t`` means for Zero123 at latents of the reference size.

    Equal means an equal signal-to-noise ratio over areas that show the same fraction of the image: noise that is drawn
    per pixel averages out four times as much on twice the side (simple diffusion, Hoogeboom et al. 2023, equation 4).
    The first and the last timestep stay the first and the last.

    Args:
        schedule: of the model.
        t: timestep of :func:`reference_schedule`, from 0 to its length.
        latent_size: side of the model's latents.
        reference_size: side of the latents for which ``t`` is stated.

    Returns:
        The smallest timestep that is at least as noisy; the schedule's length if none is.
    """
    reference = reference_schedule()
    if t <= 0:
        return 0
    if t >= len(reference):
        return len(schedule)
    steps = torch.arange(len(schedule))
    wanted = reference.log_snr(torch.tensor(t)).double() + 2 * math.log(reference_size / latent_size)
    return int((schedule.log_snr(steps).double() > wanted).sum())


def hourglass(
    bounds: Sequence[int] = (0, 200, 800, 1000),
    counts: Sequence[int] = (10, 6, 10),
    offset: int = 1,
    *,
    trailing: bool = False,
) -> list[int]:
    """Falling timesteps, evenly spaced within each stage, denser in some stages than in others.

    Args:
        bounds: ends of the stages, rising; the last is the number of timesteps.
        counts: timesteps in each stage.
        offset: added to all timesteps, as in :func:`leading_timesteps`.
        trailing: begin each stage at its noisiest timestep, as zero-terminal-SNR models need; no offset then.

    Raises:
        InputError: stages and counts do not fit.
    """
    stages = list(itertools.pairwise(bounds))
    if len(stages) != len(counts) or not all(0 <= a < b for a, b in stages):
        raise InputError(f"{len(counts)} counts and bounds {tuple(bounds)} make no stages of an hourglass")
    if any(not 0 <= n <= high - low for n, (low, high) in zip(counts, stages, strict=True)) or sum(counts) == 0:
        raise InputError(f"stages with bounds {tuple(bounds)} cannot hold {tuple(counts)} timesteps")
    steps = []
    for n, (low, high) in zip(counts, stages, strict=True):
        if trailing:
            steps += [high - 1 - k * (high - low) // n for k in reversed(range(n))]
        else:
            steps += [low + k * (high - low) // n + offset for k in range(n)]
    if steps[-1] >= bounds[-1] or steps[0] < 0:
        raise InputError(f"an offset of {offset} leads out of the {bounds[-1]} timesteps")
    return steps[::-1]


def timestep_pairs(timesteps: list[int]) -> list[tuple[int, int]]:
    """``(t, t_next)`` pairs of a falling list; the last ends at :data:`FINAL`.

    Raises:
        InputError: the list does not fall strictly.
    """
    if not timesteps or any(a <= b for a, b in itertools.pairwise(timesteps)):
        raise InputError(f"timesteps must fall strictly, got {timesteps}")
    return list(zip(timesteps, [*timesteps[1:], FINAL], strict=True))


def trailing_timesteps(steps: int, count: int = 1000) -> list[int]:
    """``steps`` evenly spaced timesteps that begin at the noisiest, as zero-terminal-SNR models need."""
    if not 1 <= steps <= count:
        raise InputError(f"the number of steps must lie in 1..{count}, got {steps}")
    return [round(count - k * count / steps) - 1 for k in range(steps)]


def leading_timesteps(steps: int, count: int = 1000, offset: int = 1) -> list[int]:
    """Zero123's spacing in diffusers: multiples of ``count // steps`` plus an offset, from the top."""
    if not 1 <= steps <= count - offset:
        raise InputError(f"the number of steps must lie in 1..{count - offset}, got {steps}")
    stride = count // steps
    return [k * stride + offset for k in reversed(range(steps))]


def _number(config: dict[str, object], name: str, usual: float, low: float, high: float) -> float:
    """A number of a config, which other tools or hands may have written.

    Raises:
        InputError: it is none, or out of its range.
    """
    value = config.get(name, usual)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r}, not a number", fix="Copy its config again.") from error
    if not low <= number <= high:
        raise InputError(f"{name} is {value!r}, not within {low:g} and {high:g}", fix="Copy its config again.")
    return number
