"""What an ablation has found: tables with intervals, and the pairs that change most."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.evaluation.meshes import load_glb
from pipeline.evaluation.results import ResultFile
from pipeline.evaluation.statistics import mean_and_interval, paired_gains
from pipeline.evaluation.tables import markdown_table
from pipeline.evaluation.zero_to_hero.pairs import KEYS, PAIRS, Case, EncodedCase, cases
from pipeline.evaluation.zero_to_hero.rows import OWN_COLOURS, shuffled_meshes, with_joint
from pipeline.evaluation.zero_to_hero.runs import Ablation, sampled
from pipeline.training.data.samples import to_bytes
from scene.errors import InputError
from scene.files import written_aside

_FORMS = {"foreground_psnr": ".2f", "ssim": ".3f", "iou": ".3f", "iou_white": ".3f"}
_MESH_KEYS = ("chamfer", "f_score_1", "f_score_5", "iou")


def most_changed(ablation: Ablation, path: Path, shown: int) -> None:
    """Draw the pairs changed most, half each way: source, truth, then base and method for each seed.

    Args:
        ablation: with scores of its base row and of ``all``.
        path: the picture to write.
        shown: how many pairs.

    Raises:
        InputError: there are no such scores yet.
    """
    settings, model = ablation.settings, ablation.model
    rows, names = ablation.rows(), (settings.base, "all")
    changes: list[tuple[float, int, Path, int]] = []
    for index, mesh in shuffled_meshes(settings):
        scene = f"joint-{settings.joint[0]}/{settings.pairs}/seed-{settings.seeds[0]}/{mesh.stem}"
        found = [ablation.results["scores"].get(f"{name}/{scene}") for name in names]
        if all(found):
            base, ours = (f["pairs"] for f in found if f)
            changes += [(b - a, index, mesh, k) for k, (a, b) in enumerate(zip(base, ours, strict=True))]
    if not changes:
        raise InputError(f"no scores of {' and '.join(names)} yet", fix="Run --parts rows first.")
    changes.sort(key=lambda change: -change[0])
    half = shown // 2
    chosen = changes if len(changes) <= 2 * half else [*changes[:half], *changes[-half:]]

    @functools.cache
    def drawn(index: int, mesh: Path, k: int) -> tuple[Case, list[np.ndarray]]:
        case = list(cases(load_glb(mesh), index, model.image_size, settings.pairs))[k]
        encoded = EncodedCase.of(model, case)
        shared = [with_joint(rows[name], settings.joint[0]) for name in names]
        return case, [sampled(model, encoded, row, seed)[0] for seed in settings.seeds for row in shared]

    sheet = []
    for gain, index, mesh, k in chosen:
        number, view = divmod(k, len(PAIRS[settings.pairs][0][1]))
        case, samples = drawn(index, mesh, number)
        tiles = [case.source[0] / 255, case.truths[view] / 255, *(views[view] for views in samples)]
        sheet.append(np.concatenate([t[..., :3] * t[..., 3:] + 1 - t[..., 3:] for t in tiles], 1))
        ablation.report(f"{mesh.stem} pair {k}: {gain:+.2f} dB")
    with written_aside(path) as partial:
        Image.fromarray(to_bytes(np.concatenate(sheet))).save(partial, quality=85)


def rows_table(results: ResultFile, base: str) -> str:
    """Means over objects, and gains over the base row on the same pairs, with bootstrap intervals."""
    groups: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for key, value in results["scores"].items():
        name, joint, pairs, seed, stem = key.split("/", 4)
        groups.setdefault(f"{name}, {joint}, {pairs} pairs", {}).setdefault(stem, {})[seed] = value
    lines = []
    for label, objects in groups.items():
        cells = [
            mean_and_interval(np.array([np.mean([v[k] for v in o.values()]) for o in objects.values()]), _FORMS[k])
            for k in KEYS
        ]
        name, rest = label.split(", ", 1)
        own = groups.get(f"{OWN_COLOURS[0] if name in OWN_COLOURS else base}, {rest}", {})
        for k in ("foreground_psnr", "iou_white"):
            gain = paired_gains(objects, own, k)
            cells.append(mean_and_interval(gain, "+" + _FORMS[k]) if len(gain) else "-")
        every = [v for values in objects.values() for v in values.values()]
        cells += [f"{np.mean([v[k] for v in every]):.{d}f}" for k, d in (("nfe", 0), ("seconds", 1))]
        lines.append([label, len(objects), *cells])
    return markdown_table(["row", "objects", *KEYS, "gain in dB", "gain in IoU", "NFE", "s"], lines)


def meshes_table(results: ResultFile) -> str:
    """Means over the objects that were fitted, and gains over the first row; empty if there are none."""
    meshes: dict[str, dict[str, dict[str, Any]]] = {}
    for key, value in results["meshes"].items():
        name, joint, seed, stem = key.split("/", 3)
        meshes.setdefault(f"{name}, {joint}, {seed}", {})[stem] = value
    if not meshes:
        return ""
    first, lines = next(iter(meshes.values())), []
    for name, found in meshes.items():
        cells = [mean_and_interval(np.array([v[k] for v in found.values()]), ".4f") for k in _MESH_KEYS]
        gain = np.array([v["iou"] - first[stem]["iou"] for stem, v in found.items() if stem in first])
        lines.append([name, len(found), *cells, mean_and_interval(gain, "+.4f")])
    return markdown_table(["meshes from", "objects", *_MESH_KEYS, "gain in IoU"], lines)
