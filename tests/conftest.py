"""What every test shares: few threads, fixed seeds, reproducible property tests."""

from __future__ import annotations

import os
import random
import runpy
from pathlib import Path

import hypothesis
import numba
import numpy as np
import pytest
import torch

# Property tests draw the same examples every time: a red run can be repeated. Timing is left to pytest-timeout.
hypothesis.settings.register_profile("viewloom", derandomize=True, deadline=None)
hypothesis.settings.load_profile("viewloom")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores. numba's pool keeps its size, so that tests of the number of threads still have two.
    numba.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """Every test begins with the same seeds and one thread of torch, whatever ran before it.

    Tests are small: more threads cost more in handing over work than they win, and change the order of sums. numba's
    pool, when it starts, raises the number for torch as well.
    """
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with every condition and random weights; its views are noise all over the picture."""
    tiny = runpy.run_path(str(Path(__file__).parent / "pipeline" / "diffusion" / "conftest.py"))
    model = tiny["build_model"](tiny["FULL"])
    with torch.no_grad():
        model.vae.decoder.conv_out.weight.mul_(0.2)
        model.vae.decoder.conv_out.bias.copy_(torch.tensor([0.3, 0.0, -0.3, 2.0]))
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder
