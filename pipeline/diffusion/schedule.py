"""Noise schedules and the DDIM update between any two timesteps."""

from __future__ import annotations

import itertools
import math
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
    """A discrete diffusion process ``z_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps``.

    Args:
        abar: cumulative product of alphas, one entry per training timestep.
        prediction: what the network predicts.
        final_abar: signal level after the last step: 1, or ``abar[0]`` as Zero123 has it.
    """

    abar: Float[Tensor, "t"]
    prediction: Prediction
    final_abar: float = 1.0

    @classmethod
    def of_config(cls, config: dict[str, object]) -> NoiseSchedule:
        """From the config of a diffusers scheduler (``beta_schedule``, ``rescale_betas_zero_snr``, ...).

        Raises:
            InputError: the beta schedule or the prediction type is not supported.
        """
        count = int(config.get("num_train_timesteps", 1000))  # type: ignore[call-overload]
        low, high = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))  # type: ignore[arg-type]
        kind = config.get("beta_schedule", "linear")
        if kind == "scaled_linear":
            betas = torch.linspace(low**0.5, high**0.5, count, dtype=torch.float64) ** 2
        elif kind == "linear":
            betas = torch.linspace(low, high, count, dtype=torch.float64)
        else:
            raise InputError(f"beta schedule {kind!r} is not supported", fix="Use linear or scaled_linear.")
        abar = torch.cumprod(1 - betas, 0)
        if config.get("rescale_betas_zero_snr"):
            # Common Diffusion Noise Schedules and Sample Steps are Flawed, algorithm 1.
            root = abar.sqrt()
            abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise InputError(f"prediction type {prediction!r} is not supported", fix="Use epsilon or v_prediction.")
        if prediction == "epsilon" and float(abar[-1]) == 0:
            raise InputError(
                "a schedule with zero terminal SNR cannot be run with epsilon prediction: its first step would "
                "divide by zero",
                fix="Use v_prediction.",
            )
        final = 1.0 if config.get("set_alpha_to_one", True) else float(abar[0])
        return cls(abar.float(), prediction, final)

    def __len__(self) -> int:
        return len(self.abar)

    def at(self, t: int) -> float:
        """Signal level at a timestep; :data:`FINAL` is the clean end."""
        return self.final_abar if t == FINAL else float(self.abar[t])

    def log_snr(self, t: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Logarithm of the signal-to-noise ratio at timesteps."""
        abar = self.abar.to(t.device)[t]
        return (abar.clamp(min=1e-12) / (1 - abar)).log()

    def add_noise(
        self, clean: Float[Tensor, "b *s"], noise: Float[Tensor, "b *s"], t: Int[Tensor, "b"]
    ) -> Float[Tensor, "b *s"]:
        """The forward process at a timestep per row."""
        abar = self._rows(t, clean)
        return abar.sqrt() * clean + (1 - abar).sqrt() * noise

    def target(
        self, clean: Float[Tensor, "b *s"], noise: Float[Tensor, "b *s"], t: Int[Tensor, "b"]
    ) -> Float[Tensor, "b *s"]:
        """What the network should predict."""
        if self.prediction == "epsilon":
            return noise
        abar = self._rows(t, clean)
        return abar.sqrt() * noise - (1 - abar).sqrt() * clean

    def split(
        self, prediction: Float[Tensor, "b *s"], z: Float[Tensor, "b *s"], t: int
    ) -> tuple[Float[Tensor, "b *s"], Float[Tensor, "b *s"]]:
        """A prediction at timestep ``t`` as (clean, noise)."""
        a = self.at(t)
        signal, sigma = math.sqrt(a), math.sqrt(1 - a)
        if self.prediction == "epsilon":
            return (z - sigma * prediction) / signal, prediction
        return signal * z - sigma * prediction, sigma * z + signal * prediction

    def noise_of(self, z: Float[Tensor, "b *s"], clean: Float[Tensor, "b *s"], t: int) -> Float[Tensor, "b *s"]:
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
        return self.abar.to(like.device)[t].view(-1, *([1] * (like.ndim - 1)))


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
