"""Settings whose names have changed: the old ones work for one version, with a notice that names the new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

RENAMED = {
    "fit.step": "fit.sdf_lr",
    "fit.colour_step": "fit.colour_lr",
    "fit.light_step": "fit.shading_lr",
    "fit.eikonal": "fit.eikonal_weight",
    "fit.smooth": "fit.laplacian_weight",
    "fit.flat": "fit.albedo_tv_weight",
    "fit.keep": "fit.loss_trim_fraction",
    "fit.vote": "fit.hull_threshold",
    "fit.half": "fit.half_extent",
    "fit.sharpness": "fit.inv_s",
    "fit.view_colour": "fit.view_dependence",
    "fit.prior_shares": "fit.photo_view_weights",
}
"""Old to new names of settings, as keys of presets; flags are the same with hyphens."""

LAST_VERSION = "0.2"
"""The last version that knows the old names."""


def renamed_keys(content: dict[Any, Any], prefix: str = "") -> tuple[dict[Any, Any], tuple[str, ...]]:
    """A preset's content with new keys in place of old ones, and a notice for each.

    Args:
        content: nested keys and values.
        prefix: of its keys.
    """
    out, notices = dict[Any, Any](), list[str]()
    for key, value in content.items():
        full = f"{prefix}.{key}" if prefix else str(key)
        new = RENAMED.get(full)
        if new is not None:
            notices.append(_notice(full, new))
            out[new.rpartition(".")[2]] = value
        elif isinstance(value, dict):
            out[key], more = renamed_keys(value, full)
            notices += more
        else:
            out[key] = value
    return out, tuple(notices)


def renamed_flags(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """A command line with new flags in place of old ones, and a notice for each."""
    out, notices = list[str](), list[str]()
    for word in argv:
        flag, equals, value = word.partition("=")
        new = _renamed_flag(flag)
        if new is not None:
            notices.append(_notice(flag, new))
        out.append((new or flag) + equals + value)
    return out, tuple(notices)


def _renamed_flag(flag: str) -> str | None:
    if not flag.startswith("--"):
        return None
    parent, dot, name = flag[2:].replace("-", "_").rpartition(".")
    negated = name.startswith("no_")
    new = RENAMED.get(parent + dot + name.removeprefix("no_"))
    if new is None:
        return None
    parent, dot, name = new.rpartition(".")
    return "--" + (parent + dot + ("no_" if negated else "") + name).replace("_", "-")


def _notice(old: str, new: str) -> str:
    return f"{old} is called {new} now; the old name works up to version {LAST_VERSION}."
