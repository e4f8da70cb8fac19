r"""What Zero-to-Hero is worth: ablations on known meshes, an upper bound, controls, the final mesh.

Protocol. Every mesh of the folders is photographed as in pipeline/training/data/pairs.py, at the model's image size; 12
ordered pairs of cameras an object, 3 or 6 where time is short, or all 56. The true camera of the source is given.
Scores are means over an object's pairs, then over objects, with 95 % bootstrap intervals over objects; gains are those
over the base row on the same pairs. foreground_psnr and iou are those of scene.metrics.view_scores, iou_white compares
pixels with a channel below --mask-threshold on white, as the paper does. NFE counts passes of the loop; guidance and
source rows are not counted. Values are tuned on the pool's val split only, by foreground PSNR and a fifth of a decibel
for every point of IoU, which is about how the paper's gains go together. Rows of the bound keep the model's own broad
colours, and count gains over 25 plain steps that do so too. The file given as --out holds every object's scores; a run
goes on from it, and scores of rows whose settings have changed are taken again.

The bound:      python scripts/ablate_zero_to_hero.py --meshes DATA/meshes_eval --out z2h.json --parts bound
All rows:       ... --parts rows controls --joint on off
Three seeds:    ... --parts rows --rows uniform-50 all --pairs 56 --seeds 0 1 2
Tuning:         ... --parts tune --pool DATA/meshes_train, then --parts rows --rows all-tuned all-guided best-guidance
The rest:       ... --parts meshes pictures table

Time and memory of a pass are measured by scripts/time_zero_to_hero.py.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pipeline.diffusion.methods.oracle import true_maps
from pipeline.diffusion.modules.attention import Step
from pipeline.diffusion.sample import decode_views, sample_latents, with_broad_colours
from pipeline.diffusion.settings import Precision, SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.jobs.runner import digest_of_folder
from pipeline.jobs.settings import GENERATED_FIT, ViewsSettings
from pipeline.jobs.stages import ring_orbits, view_confidence
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.pairs import KEYS, PAIRS, Case, Pairs, Told, cases, scored
from pipeline.training.data.samples import heldout_mesh, source_view, to_bytes
from recon.fit import fit_surface
from recon.mesh.marching_cubes import extract_mesh, taubin
from recon.mesh.metrics import compare_meshes
from recon.mesh.topology import remove_small_components
from scene.backends import pick_device
from scene.camera import DEFAULT_RADIUS, orbit_camera
from scene.errors import InputError
from scene.files import write_text, written_aside
from scene.render import MeshRenderer
from scene.resources import default_weights
from scene.view import View
from scene.viewset import ViewSet
from scripts.benchmark_recon import load_glb
from scripts.evaluate_views import interval

Scores = dict[str, dict[str, dict[str, float]]]
"""Of a row: by object and seed."""
Part = Literal["bound", "rows", "controls", "tune", "meshes", "pictures", "table"]
OWN_COLOURS = ("plain-25", "oracle", "true-coarse", "true-start-0.7", "true-start-0.35")
BOUND = (*OWN_COLOURS, "coarse", "vae")
CONTROLS = ("uniform-66", "best-guidance", "all-guided", "mean-of-3", "ancestral")
GUIDANCES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
GRIDS: dict[str, tuple[Any, ...]] = {
    "msa_range": ((600, 1000), (800, 1000), (1000, 1000)),
    "msa_cfg": ("both", "cond"),
    "alpha_current": (0.2, 0.5, 0.8),
    "cross_step": ((600, 1000), (800, 1000)),
    "pool": ("min", "mean"),
    "passes": (5, 3),
}
"""What tuning tries, one after the other; the paper's value first."""


@dataclass(frozen=True)
class Arguments:
    """Measure Zero-to-Hero on known meshes."""

    meshes: tuple[Path, ...]
    """Folders with GLB files, searched through."""
    out: Path
    """Scores as JSON; continued if it is there."""
    parts: tuple[Part, ...] = ("table",)
    """What to run, in this order."""
    rows: tuple[str, ...] = ()
    """Rows of the part rows (by default the paper's), or those of which the part meshes compares meshes."""
    joint: tuple[Literal["on", "off"], ...] = ("on",)
    """With views that share attention, without, or both."""
    seeds: tuple[int, ...] = (0,)
    """Seeds."""
    pairs: Pairs = 12
    """Pairs of an object."""
    count: int | None = None
    """So many objects; all by default."""
    base: str = "uniform-66"
    """The row over which gains are counted."""
    pool: Path | None = None
    """Folder of the object pool, for tuning on its val split."""
    tune_count: int = 16
    """Objects of the val split used."""
    grids: tuple[str, ...] = tuple(GRIDS)
    """Numbers that are tuned; the base's guidance always is."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    sampling: SamplingSettings = SamplingSettings(strength=1.0)
    """What all rows share. They start from noise by default: a start from the coarse picture skips early steps."""
    quick: bool = False
    """Three steps in place of all, which shows only that everything runs."""
    mask_threshold: float = 0.95
    """Foreground on white has a channel below this."""
    pictures: Path = Path("zero_to_hero.jpg")
    """Where the most changed pairs are drawn, for all seeds."""
    shown: int = 10
    """How many."""
    device: str = "auto"
    """Where the model runs."""
    precision: Precision = "float32"
    """Of the U-Net."""


@dataclass(frozen=True)
class Row:
    """A way to get views.

    Args:
        settings: of the sampler.
        maps: whether the true views' attention maps are injected.
        told: the coarse picture that the model is told: its own, or the true view.
        shown: what is scored: samples, that coarse picture, or the true views through the VAE.
        samples: how many are averaged.
    """

    settings: SamplingSettings
    maps: bool = False
    told: Literal["coarse", "truth"] = "coarse"
    shown: Literal["samples", "coarse", "vae"] = "samples"
    samples: int = 1

    @property
    def digest(self) -> str:
        """Tells rows apart whose scores differ."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


class Results:
    """The JSON file: sections of named values, written after every change."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.held: dict[str, Any] = {"facts": facts}
        if path.is_file():
            self.held = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name in facts if self.held["facts"].get(name) != json.loads(json.dumps(facts[name]))]
            if other:
                raise InputError(
                    f"holds results of other settings ({', '.join(other)})",
                    where=path,
                    fix="Give another --out, or the same settings.",
                )

    def __getitem__(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self.held.setdefault(section, {})
        return found

    def put(self, section: str, key: str, value: Any) -> None:
        """Add a value."""
        self[section][key] = value
        write_text(self.path, json.dumps(self.held, indent=1) + "\n")


def rows_of(arguments: Arguments, tuned: dict[str, Any]) -> dict[str, Row]:
    """The rows of the ablation; each of the paper's adds one part to that above, but for msa, which lacks filtering."""
    base, quick = arguments.sampling, arguments.quick
    z2h = replace(base.zero_to_hero, counts=(1, 1, 1), passes=2) if quick else base.zero_to_hero

    def uniform(steps: int) -> SamplingSettings:
        return replace(base, steps=min(steps, 3) if quick else steps, filtering="none")

    rows = {f"uniform-{n}": Row(uniform(n)) for n in sorted({base.steps, 25, 50, 66})}
    parts: dict[str, dict[str, Any]] = {
        "hourglass": {"passes": 1, "amf": False, "msa": False},
        "resample": {"amf": False, "msa": False},
        "amf": {"msa": False},
        "msa": {"amf": False},
        "all": {},
    }
    for name, changes in parts.items():
        rows[name] = Row(replace(base, filtering="zero-to-hero", zero_to_hero=replace(z2h, **changes)))
    if "zero-to-hero" in tuned:
        changes = {k: tuple(v) if isinstance(v, list) else v for k, v in tuned["zero-to-hero"].items()}
        rows["all-tuned"] = Row(replace(rows["all"].settings, zero_to_hero=replace(z2h, **changes)))
    # The coarse volume's broad colours would hide what the model makes of the truth.
    own = replace(uniform(25), coarse_colours=False)
    rows["plain-25"] = Row(own)
    rows["oracle"] = Row(own, maps=True)
    rows["true-coarse"] = Row(own, told="truth")
    for share in (0.7, 0.35):
        # What is told is also what a start below full strength begins with.
        rows[f"true-start-{share}"] = Row(replace(own, steps=uniform(14).steps, strength=share), told="truth")
    rows["coarse"] = Row(uniform(1), shown="coarse")
    rows["vae"] = Row(uniform(1), shown="vae")
    if "guidance" in tuned:
        rows["best-guidance"] = Row(replace(uniform(66), guidance=tuned["guidance"]))
        rows["all-guided"] = Row(replace(rows["all"].settings, guidance=tuned["guidance"]))
    rows["mean-of-3"] = Row(uniform(22), samples=3)
    rows["ancestral"] = Row(replace(uniform(66), eta=1.0))
    return rows


def with_joint(row: Row, joint: str) -> Row:
    """The row with views that share attention, or not."""
    return replace(row, settings=replace(row.settings, joint=joint == "on"))


def glb_paths(arguments: Arguments, *, every: bool = False) -> list[tuple[int, Path]]:
    """The meshes with their place in the sorted list, which decides their cameras; shuffled, so that some are fair."""
    paths = list(enumerate(sorted(path for folder in arguments.meshes for path in folder.rglob("*.glb"))))
    if not paths:
        raise InputError("hold no GLB files", where=", ".join(map(str, arguments.meshes)))
    chosen = np.random.default_rng(0).permutation(len(paths))
    return [paths[k] for k in chosen[: None if every else arguments.count]]


# --- sampling ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sampled(
    model: ViewDiffusion, told: Told, row: Row, seed: int
) -> tuple[Float[np.ndarray, "v s s 4"], dict[str, float]]:
    """Views of a case; the number of passes, and seconds."""
    samples: list[np.ndarray] = []
    passes, begun = 0, time.perf_counter()

    def count(step: Step) -> None:
        nonlocal passes
        passes += step.passes

    given = told.given
    if row.told == "truth":
        assert given.visible is not None
        given = replace(given, coarse=_true_latents(model, told.case)[None], visible=torch.ones_like(given.visible))
    for k in range(row.samples):
        settings = replace(row.settings, seed=seed + 1000 * k)
        if row.shown == "coarse":
            assert told.guides is not None
            views = told.guides
        elif row.shown == "vae":
            views = decode_views(model, model.codec.normalise(_true_latents(model, told.case))[None])
        else:
            hooks = [true_maps(model, _true_latents(model, told.case), given, settings)] if row.maps else []
            latents = sample_latents(model, given, settings, hooks=hooks, on_step=count)
            views = decode_views(model, latents)
            if told.guides is not None and settings.coarse_colours:
                views = with_broad_colours(views, told.guides)
        rgba = views[0].float().cpu().numpy()
        # Averages are those of premultiplied colour.
        samples.append(np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1))
    mean = np.mean(samples, 0)
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-3)
    return mean.clip(0, 1), {"nfe": passes, "seconds": time.perf_counter() - begun}


def _true_latents(model: ViewDiffusion, case: Case) -> Float[Tensor, "v c h w"]:
    return model.codec.encode_raw(torch.from_numpy(case.truths).to(model.device))


def run_rows(model: ViewDiffusion, arguments: Arguments, results: Results, names: Sequence[str]) -> None:
    """Score rows on all objects; what the file holds is not done again."""
    rows = rows_of(arguments, results["tuned"])
    for name in names:
        if name not in rows:
            known = f"Rows: {', '.join(rows)}; after --parts tune also best-guidance, all-guided and all-tuned."
            raise InputError(f"there is no row {name}", fix=known)
    for index, path in glb_paths(arguments):
        keys = {
            f"{name}/joint-{joint}/{arguments.pairs}/seed-{seed}/{path.stem}": (name, joint, seed)
            for name, joint, seed in itertools.product(names, arguments.joint, arguments.seeds)
        }
        todo = {
            key: (name, joint, seed)
            for key, (name, joint, seed) in keys.items()
            if results["scores"].get(key, {}).get("row") != rows[name].digest
        }
        if not todo:
            continue
        given = [Told.of(model, case) for case in cases(load_glb(path), index, model.image_size, arguments.pairs)]
        for key, (name, joint, seed) in todo.items():
            row = with_joint(rows[name], joint)
            pairs, costs = [], []
            for told in given:
                views, cost = sampled(model, told, row, seed)
                pairs += scored(views, told.case.truths, arguments.mask_threshold)
                costs.append(cost)
            value: dict[str, Any] = {k: float(np.mean([p[k] for p in pairs])) for k in pairs[0]}
            value["nfe"] = costs[0]["nfe"]
            value["seconds"] = float(sum(c["seconds"] for c in costs))
            value["row"] = rows[name].digest
            value["pairs"] = [p["foreground_psnr"] for p in pairs]
            results.put("scores", key, value)
            print(key, {k: round(value[k], 3) for k in (*KEYS, "nfe", "seconds")}, flush=True)


# --- tuning -----------------------------------------------------------------------------------------------------------


def tune(model: ViewDiffusion, arguments: Arguments, results: Results) -> None:
    """Choose values on the val split, one after the other, by foreground PSNR; and the base's own best guidance."""
    if arguments.pool is None:
        raise InputError("tuning needs the object pool", fix="Give --pool.")
    pool = ObjectPool(arguments.pool, "val")
    chosen = np.linspace(0, len(pool) - 1, min(arguments.tune_count, len(pool))).round().astype(int)
    given = [
        Told.of(model, next(cases(heldout_mesh(pool, int(k)), int(k), model.image_size, arguments.pairs)))
        for k in chosen
    ]
    rows = rows_of(arguments, {})

    def score(settings: SamplingSettings, label: str) -> float:
        label = f"{len(given)} of {len(pool)} val objects, {arguments.pairs} pairs: {label}"
        if label not in results["tuning"]:
            found = [
                s
                for told in given
                for s in scored(sampled(model, told, Row(settings), 0)[0], told.case.truths, arguments.mask_threshold)
            ]
            results.put("tuning", label, {k: float(np.mean([s[k] for s in found])) for k in KEYS})
            print(label, {k: round(v, 3) for k, v in results["tuning"][label].items()}, flush=True)
        found = results["tuning"][label]
        return float(found["foreground_psnr"] + 20 * found["iou_white"])

    base = rows["uniform-25"].settings
    best = max(GUIDANCES, key=lambda g: score(replace(base, guidance=g), f"uniform-25, guidance {g}"))
    results.put("tuned", "guidance", best)
    settings, changes = rows["all"].settings, dict(results["tuned"].get("zero-to-hero", {}))
    for name, values in GRIDS.items():
        if name not in arguments.grids:
            continue
        changes.pop(name, None)

        def candidate(value: Any, name: str = name, first: Any = values[0]) -> float:
            tried = {**changes, name: value} if value != first else changes
            return score(
                replace(settings, zero_to_hero=replace(settings.zero_to_hero, **tried)), f"all {json.dumps(tried)}"
            )

        value = max(values, key=candidate)
        if value != values[0]:
            changes[name] = value
        results.put("tuned", "zero-to-hero", dict(changes))


# --- meshes -----------------------------------------------------------------------------------------------------------


def final_meshes(model: ViewDiffusion, arguments: Arguments, results: Results) -> None:
    """Fit the same surface to the views of some rows, at the cameras and with the votes that jobs use."""
    rows, views = rows_of(arguments, results["tuned"]), ViewsSettings()
    orbits = ring_orbits(views.rings)
    cameras = [orbit_camera(*orbit, size=model.image_size) for orbit in orbits]
    for index, path in glb_paths(arguments):
        keys = {
            f"{name}/joint-{joint}/seed-{seed}/{path.stem}": (name, joint, seed)
            for name in arguments.rows or (arguments.base, "all")
            for joint, seed in itertools.product(arguments.joint, arguments.seeds)
        }
        todo = {key: what for key, what in keys.items() if key not in results["meshes"]}
        if not todo:
            continue
        mesh = load_glb(path)
        elevation = math.radians(float(np.random.default_rng([9, index]).uniform(0, 40)))
        camera, description = source_view(mesh, elevation, DEFAULT_RADIUS, model.image_size)
        photo = to_bytes(MeshRenderer(mesh).render(camera).rgba)
        blank = np.zeros((len(orbits), *photo.shape), np.uint8)
        case = Case(photo[None], description[None].astype(np.float32), orbits[None].astype(np.float32), blank)
        told = Told.of(model, case)
        prior = None if told.volume is None else told.volume.occupancy[0].cpu().numpy()
        for key, (name, joint, seed) in todo.items():
            rgba = to_bytes(sampled(model, told, with_joint(rows[name], joint), seed)[0])
            weights = [view_confidence(views, orbit, elevation) for orbit in orbits]
            seen = [View(f"view_{k:02d}", c, rgba[k], weight=weights[k]) for k, c in enumerate(cameras)]
            surface = fit_surface(ViewSet((View("photo", camera, photo), *seen), True), GENERATED_FIT, prior=prior)
            vertices, faces = remove_small_components(*extract_mesh(surface))
            scores = compare_meshes(taubin(vertices, faces), faces, mesh.vertices.astype(np.float64), mesh.faces)
            results.put("meshes", key, asdict(scores))
            print(key, {k: round(v, 4) for k, v in asdict(scores).items()}, flush=True)


# --- pictures and tables ----------------------------------------------------------------------------------------------


def pictures(model: ViewDiffusion, arguments: Arguments, results: Results) -> None:
    """The pairs changed most, half each way: source, truth, then base and method for each seed."""
    rows = rows_of(arguments, results["tuned"])
    shown_rows = (arguments.base, "all")
    changes: list[tuple[float, int, Path, int]] = []
    for index, path in glb_paths(arguments):
        scene = f"joint-{arguments.joint[0]}/{arguments.pairs}/seed-{arguments.seeds[0]}/{path.stem}"
        found = [results["scores"].get(f"{name}/{scene}") for name in shown_rows]
        if all(found):
            base, ours = (f["pairs"] for f in found if f)
            changes += [(b - a, index, path, k) for k, (a, b) in enumerate(zip(base, ours, strict=True))]
    if not changes:
        raise InputError(f"no scores of {' and '.join(shown_rows)} yet", fix="Run --parts rows first.")
    changes.sort(key=lambda change: -change[0])
    half = arguments.shown // 2
    shown = changes if len(changes) <= 2 * half else [*changes[:half], *changes[-half:]]

    @functools.cache
    def drawn(index: int, path: Path, k: int) -> tuple[Case, list[np.ndarray]]:
        case = list(cases(load_glb(path), index, model.image_size, arguments.pairs))[k]
        told = Told.of(model, case)
        shared = [with_joint(rows[name], arguments.joint[0]) for name in shown_rows]
        return case, [sampled(model, told, row, seed)[0] for seed in arguments.seeds for row in shared]

    sheet = []
    for gain, index, path, k in shown:
        number, view = divmod(k, len(PAIRS[arguments.pairs][0][1]))
        case, samples = drawn(index, path, number)
        tiles = [case.source[0] / 255, case.truths[view] / 255, *(views[view] for views in samples)]
        sheet.append(np.concatenate([t[..., :3] * t[..., 3:] + 1 - t[..., 3:] for t in tiles], 1))
        print(f"{path.stem} pair {k}: {gain:+.2f} dB", flush=True)
    with written_aside(arguments.pictures) as partial:
        Image.fromarray(to_bytes(np.concatenate(sheet))).save(partial, quality=85)


def spread(values: np.ndarray, form: str) -> str:
    """Mean and its interval."""
    return "{} ({} to {})".format(*(format(x, form) for x in (values.mean(), *interval(values))))


def gains(ours: Scores, base: Scores, key: str) -> np.ndarray:
    """Of every object that both rows have, the mean gain over the seeds that both have."""
    found = []
    for stem in ours:
        seeds = ours[stem].keys() & base.get(stem, {}).keys()
        if seeds:
            found.append(np.mean([ours[stem][s][key] - base[stem][s][key] for s in seeds]))
    return np.array(found)


def table(arguments: Arguments, results: Results) -> None:
    """Means over objects, and gains over the base row on the same pairs, with bootstrap intervals."""
    groups: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for key, value in results["scores"].items():
        name, joint, pairs, seed, stem = key.split("/", 4)
        groups.setdefault(f"{name}, {joint}, {pairs} pairs", {}).setdefault(stem, {})[seed] = value
    forms = {"foreground_psnr": ".2f", "ssim": ".3f", "iou": ".3f", "iou_white": ".3f"}
    print(f"| row | objects | {' | '.join(KEYS)} | gain in dB | gain in IoU | NFE | s |\n|{'---|' * (len(KEYS) + 6)}")
    for label, objects in groups.items():
        cells = [
            spread(np.array([np.mean([v[k] for v in o.values()]) for o in objects.values()]), forms[k]) for k in KEYS
        ]
        name, rest = label.split(", ", 1)
        base = groups.get(f"{OWN_COLOURS[0] if name in OWN_COLOURS else arguments.base}, {rest}", {})
        for k in ("foreground_psnr", "iou_white"):
            gain = gains(objects, base, k)
            cells.append(spread(gain, "+" + forms[k]) if len(gain) else "-")
        every = [v for values in objects.values() for v in values.values()]
        cells += [f"{np.mean([v[k] for v in every]):.{d}f}" for k, d in (("nfe", 0), ("seconds", 1))]
        print(f"| {label} | {len(objects)} | {' | '.join(cells)} |")
    meshes: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in results["meshes"].items():
        name, joint, seed, stem = key.split("/", 3)
        meshes.setdefault(f"{name}, {joint}, {seed}", {})[stem] = value
    keys = ("chamfer", "f_score_1", "f_score_5", "iou")
    if meshes:
        print(f"\n| meshes from | objects | {' | '.join(keys)} | gain in IoU |\n|{'---|' * 7}")
    for name, found in meshes.items():
        cells = [spread(np.array([v[k] for v in found.values()]), ".4f") for k in keys]
        first = next(iter(meshes.values()))
        gain = np.array([v["iou"] - first[stem]["iou"] for stem, v in found.items() if stem in first])
        print(f"| {name} | {len(found)} | {' | '.join(cells)} | {spread(gain, '+.4f')} |")


def main(arguments: Arguments) -> None:
    """Run the parts asked for."""
    weights = arguments.weights or default_weights()
    facts = {
        "sampling": asdict(arguments.sampling),
        "weights": digest_of_folder(weights, (".json", ".safetensors")) if weights.is_dir() else str(weights),
        "meshes": hashlib.sha256(
            "/".join(p.name for _, p in sorted(glb_paths(arguments, every=True))).encode()
        ).hexdigest(),
        "quick": arguments.quick,
        "mask_threshold": arguments.mask_threshold,
        "precision": arguments.precision,
    }
    results = Results(arguments.out, facts)
    model = ViewDiffusion.from_pretrained(weights).to(pick_device(arguments.device))
    model.unet.to(getattr(torch, arguments.precision))
    paper = [*(f"uniform-{n}" for n in (25, 50, 66)), "hourglass", "resample", "amf", "msa", "all"]
    actions: dict[Part, Callable[[], None]] = {
        "bound": lambda: run_rows(model, arguments, results, BOUND),
        "rows": lambda: run_rows(model, arguments, results, arguments.rows or paper),
        "controls": lambda: run_rows(model, arguments, results, CONTROLS),
        "tune": lambda: tune(model, arguments, results),
        "meshes": lambda: final_meshes(model, arguments, results),
        "pictures": lambda: pictures(model, arguments, results),
        "table": lambda: table(arguments, results),
    }
    for part in arguments.parts:
        actions[part]()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
