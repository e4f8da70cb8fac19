"""What this installation can do: packages, devices, weights, and how to get what is missing."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from scene.backends import BACKENDS, import_failure, optional_module, version_of
from scene.errors import ViewloomError
from scene.resources import default_editor, default_weights


@dataclass(frozen=True)
class Finding:
    """One line of the report: a name, whether it is there, and what to know about it."""

    name: str
    found: bool
    detail: str


def examine() -> list[Finding]:
    """Look at everything that a job may use; imports the heavy packages."""
    import torch

    findings = [
        Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("viewloom", True, version_of("viewloom") or "not installed, run from its sources"),
        *_foreign_packages(),
        Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} CPU threads"),
    ]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        findings.append(Finding("accelerator", False, "none; the CPU is used"))
    else:
        # Not every kind of accelerator can tell its name.
        name_of = getattr(torch.get_device_module(accelerator), "get_device_name", None)
        findings.append(Finding("accelerator", True, accelerator.type if name_of is None else str(name_of())))
    try:
        weights = default_weights()
        size = sum(p.stat().st_size for p in weights.rglob("*.safetensors")) / 1e6
        findings.append(Finding("weights", True, f"{size:.0f} MB in {weights}"))
    except ViewloomError as error:
        findings.append(Finding("weights", False, str(error)))
    try:
        findings.append(Finding("editor", True, f"of views, in {default_editor()}"))
    except ViewloomError as error:
        findings.append(Finding("editor", False, str(error)))
    for backend in BACKENDS:
        module = optional_module(backend.module)
        if module is not None:
            findings.append(Finding(backend.module, True, version_of(backend.distribution) or "found"))
            continue
        broken = import_failure(backend.module)
        lack = backend.purpose if broken is None else f"installed, but: {broken}"
        findings.append(Finding(backend.module, False, f"{lack}; {backend.without}. {backend.install}"))
    from recon.export.validate import find_khronos_validator

    validator = find_khronos_validator()
    findings.append(
        Finding(
            "glTF validator",
            validator is not None,
            "Khronos validator" if validator is not None else "the built-in structural check is used",
        )
    )
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    findings.append(Finding("disk", free > 2, f"{free:.0f} GB free here"))
    return findings


def _foreign_packages() -> list[Finding]:
    """A line for each of viewloom's packages that another project's of the same name hides, such as ``scene``.

    Checkouts of Gaussian splatting have a package called so; run from inside of one, Python takes that.
    """
    import pipeline
    import qnerf
    import recon
    import scene

    def home(module: ModuleType) -> Path:
        return Path(str(module.__file__)).resolve().parent.parent

    return [
        Finding(
            module.__name__,
            False,
            f"is another project's, from {home(module)}: run viewloom from another folder, or without PYTHONPATH",
        )
        for module in (qnerf, recon, scene)
        if home(module) != home(pipeline)
    ]
