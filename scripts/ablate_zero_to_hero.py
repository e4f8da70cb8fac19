r"""What Zero-to-Hero is worth: ablations on known meshes, an upper bound, controls, the final mesh.

Protocol. Every mesh of the folder is normalised and photographed from 8 cameras, stratified in azimuth, elevations -10
to 50 degrees, radius 1.5, at the model's image size; cameras follow from the object's place in the sorted list. 12
ordered pairs of them (3 sources with 4 targets each, differences of azimuth stratified) or, with --full, all 56. The
true camera of the source is given. Scores are means over an object's pairs, then over objects, with 95 % bootstrap
intervals over objects; foreground_psnr and iou are those of scene.metrics.view_scores, iou_white compares pixels with a
channel below --mask-threshold on white, as the paper does. NFE counts passes of the loop; guidance and source rows are
not counted. Values are tuned on the pool's val split only. The file given as --out holds every object's scores; a run
goes on from it.

The bound:      python scripts/ablate_zero_to_hero.py --meshes DATA/meshes_eval --out z2h.json --parts bound
All rows:       ... --parts rows controls --joint on off
Three seeds:    ... --parts rows --rows uniform-50 all --full --seeds 0 1 2
Tuning:         ... --parts tune --pool DATA/meshes_train, then --parts rows --rows all-tuned
The rest:       ... --parts meshes pictures table

Time and memory of a pass are measured by scripts/time_zero_to_hero.py.
"""

from __future__ import annotations

import itertools
import json
import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from PIL import Image

from pipeline.diffusion.attention import AttentionHook, Step, hooked
from pipeline.diffusion.backbone import ViewDiffusion
from pipeline.diffusion.conditioning import Conditions
from pipeline.diffusion.filtering import MapOracle
from pipeline.diffusion.loop import RowNoise
from pipeline.diffusion.sample import coarse_volume, sample_views, view_conditions
from pipeline.diffusion.schedule import equivalent_timestep
from pipeline.diffusion.settings import SamplingSettings
from pipeline.jobs.settings import GENERATED_FIT, ViewsSettings
from pipeline.jobs.stages import ring_orbits, view_confidence
from pipeline.training.objects import ObjectPool
from pipeline.training.samples import heldout_mesh, source_view, to_bytes
from recon.fit import fit_surface
from recon.mesh import drop_specks, extract_mesh, taubin
from recon.metrics import compare_meshes
from scene.backends import pick_device
from scene.camera import DEFAULT_RADIUS, orbit_camera
from scene.errors import InputError
from scene.files import write_text, written_aside
from scene.mesh import ColouredMesh
from scene.metrics import mask_iou, view_scores
from scene.procedural import rotation
from scene.render import MeshRenderer
from scene.resources import default_weights
from scene.viewset import View, ViewSet
from scripts.benchmark_recon import load_glb
from scripts.evaluate_views import interval

Part = Literal["bound", "rows", "controls", "tune", "meshes", "pictures", "table"]
VIEWS = 8
PAIRS = ((0, (1, 3, 4, 6)), (3, (2, 4, 5, 7)), (5, (1, 3, 5, 6)))
"""Source, and how many of the stratified azimuths further its targets stand."""
KEYS = ("foreground_psnr", "ssim", "iou", "iou_white")


@dataclass(frozen=True)
class Arguments:
    """Measure Zero-to-Hero on known meshes."""

    meshes: Path
    """Folder with GLB files, searched through."""
    out: Path
    """Scores as JSON; continued if it is there."""
    parts: tuple[Part, ...] = ("table",)
    """What to run, in this order."""
    rows: tuple[str, ...] = ()
    """Rows of the part rows; all by default."""
    joint: tuple[Literal["on", "off"], ...] = ("on",)
    """With views that share attention, without, or both."""
    seeds: tuple[int, ...] = (0,)
    """Seeds."""
    full: bool = False
    """All 56 pairs of an object."""
    count: int | None = None
    """So many objects, spread evenly over the sorted names."""
    pool: Path | None = None
    """Folder of the object pool, for tuning on its val split."""
    tune_count: int = 16
    """Objects of the val split used."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    sampling: SamplingSettings = SamplingSettings(strength=1.0)
    """What all rows share. They start from noise by default: a start from the coarse picture skips early steps."""
    quick: bool = False
    """Three steps in place of all, which shows only that everything runs."""
    mask_threshold: float = 0.95
    """Foreground on white has a channel below this."""
    pictures: Path = Path("zero_to_hero.png")
    """Where the most changed cases are drawn."""
    device: str = "auto"
    """Where the model runs."""


@dataclass(frozen=True, eq=False)
class Case:
    """One source of an object with some targets."""

    source: UInt8[np.ndarray, "1 s s 4"]
    camera: Float[np.ndarray, "1 4"]
    orbits: Float[np.ndarray, "1 v 3"]
    truths: UInt8[np.ndarray, "v s s 4"]


@dataclass(frozen=True)
class Row:
    """A way to sample: settings, whether true maps are injected, how many samples are averaged."""

    settings: SamplingSettings
    oracle: bool = False
    samples: int = 1


class Results:
    """The JSON file: sections of named values, written after every change."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.held: dict[str, Any] = {"facts": facts}
        if path.is_file():
            self.held = json.loads(path.read_text(encoding="utf-8"))
            if self.held["facts"] != json.loads(json.dumps(facts)):
                raise InputError(
                    "holds results of other settings", where=path, fix="Give another --out, or the same settings."
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
    base = arguments.sampling
    quick = arguments.quick
    z2h = replace(base.zero_to_hero, counts=(1, 1, 1), passes=2) if quick else base.zero_to_hero
    rows = {f"uniform-{n}": Row(replace(base, steps=3 if quick else n, filtering="none")) for n in (25, 50, 66)}
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
    rows["oracle"] = Row(rows["uniform-50"].settings, oracle=True)
    guided = replace(rows["uniform-66"].settings, guidance=tuned.get("guidance", base.guidance))
    rows["best-guidance"] = Row(guided)
    rows["mean-of-3"] = Row(replace(guided, guidance=base.guidance, steps=2 if quick else 22), samples=3)
    return rows


# --- cases ------------------------------------------------------------------------------------------------------------


def cases(mesh: ColouredMesh, index: int, size: int, *, full: bool) -> Iterator[Case]:
    """The pairs of an object, by source; azimuths are turned so that the source stands at 0."""
    rng = np.random.default_rng([7, index])
    azimuths = (np.arange(VIEWS) + rng.uniform(0, 1, VIEWS)) * 2 * math.pi / VIEWS
    elevations = np.radians(rng.uniform(-10, 50, VIEWS))
    for source, further in ((k, tuple(range(1, VIEWS))) for k in range(VIEWS)) if full else PAIRS:
        turn = np.eye(4)
        turn[:3, :3] = rotation("z", -azimuths[source])
        turned = mesh.transformed(turn)
        renderer = MeshRenderer(turned)
        camera, description = source_view(turned, float(elevations[source]), DEFAULT_RADIUS, size)
        chosen = [(source + k) % VIEWS for k in further]
        orbits = np.array(
            [((azimuths[k] - azimuths[source]) % (2 * math.pi), elevations[k], DEFAULT_RADIUS) for k in chosen]
        )
        truths = np.stack([to_bytes(renderer.render(orbit_camera(*orbit, size=size)).rgba) for orbit in orbits])
        picture = to_bytes(renderer.render(camera).rgba)
        yield Case(picture[None], description[None].astype(np.float32), orbits[None].astype(np.float32), truths)


def glb_paths(arguments: Arguments) -> list[tuple[int, Path]]:
    """The meshes, with their place in the sorted list, which decides their cameras."""
    paths = list(enumerate(sorted(arguments.meshes.rglob("*.glb"))))
    if not paths:
        raise InputError("holds no GLB files", where=arguments.meshes)
    if arguments.count is None:
        return paths
    return [paths[round(k)] for k in np.linspace(0, len(paths) - 1, min(arguments.count, len(paths)))]


# --- sampling ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sampled(
    model: ViewDiffusion, case: Case, row: Row, seed: int
) -> tuple[Float[np.ndarray, "v s s 4"], dict[str, float]]:
    """Views of a case, and what they cost."""
    photo, source = torch.from_numpy(case.source), torch.from_numpy(case.camera).to(model.device)
    orbits = torch.from_numpy(case.orbits).to(model.device)
    volume = coarse_volume(model, photo, source)
    samples: list[np.ndarray] = []
    passes, begun = 0, time.perf_counter()

    def count(step: Step) -> None:
        nonlocal passes
        passes += step.passes

    for k in range(row.samples):
        settings = replace(row.settings, seed=seed + 1000 * k)
        hooks: list[AttentionHook] = []
        if row.oracle:
            hooks = [oracle(model, case, view_conditions(model, photo, source, orbits, volume), settings)]
        views = sample_views(model, photo, source, orbits, volume, settings, hooks=hooks, on_step=count)
        rgba = views[0].float().cpu().numpy()
        # Averages are those of premultiplied colour.
        samples.append(np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1))
    mean = np.mean(samples, 0)
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-3)
    return mean.clip(0, 1), {"nfe": passes, "seconds": time.perf_counter() - begun, "memory_gb": memory_gb(model)}


def oracle(model: ViewDiffusion, case: Case, given: Conditions, settings: SamplingSettings) -> AttentionHook:
    """The attention maps of the true views, noised as at the paper's timestep 5, for every later call."""
    hook = MapOracle()
    truth = model.codec.normalise(model.codec.encode_raw(torch.from_numpy(case.truths).to(model.device)))
    t = equivalent_timestep(model.schedule, 5, model.latent_size)
    noise = RowNoise.of(range(len(truth))).draw(truth.shape[1:], model.device)
    times = torch.full((1, len(truth)), t, device=model.device)
    z = model.schedule.add_noise(truth, noise, times[0])[None]
    sharing = model.shared_views(len(truth), joint=settings.joint)
    with hooked(model.unet, [*([] if sharing is None else [sharing]), hook], model.latent_size):
        for call, told in enumerate([given] if settings.guidance == 1 else [given, given.null()]):
            hook.begin_call(call)
            model.predict(z, times, told)
    hook.mode = "inject"
    return hook


def memory_gb(model: ViewDiffusion) -> float:
    """Most memory held so far: of the accelerator if there is one, else of the process."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def scored(
    views: Float[np.ndarray, "v s s 4"], truths: UInt8[np.ndarray, "v s s 4"], threshold: float
) -> list[dict[str, float]]:
    """Scores of each pair."""
    out = []
    for rgba, bytes_ in zip(views, truths, strict=True):
        truth = bytes_.astype(np.float32) / 255
        dark = [((x[..., :3] * x[..., 3:] + 1 - x[..., 3:]) < threshold).any(-1) for x in (rgba, truth)]
        out.append({**view_scores(rgba, truth), "iou_white": mask_iou(*dark)})
    return out


def run_rows(model: ViewDiffusion, arguments: Arguments, results: Results, names: Sequence[str]) -> None:
    """Score rows on all objects; what the file holds is not done again."""
    rows = rows_of(arguments, results["tuned"])
    for name in names:
        if name not in rows:
            raise InputError(f"there is no row {name}", fix=f"Rows: {', '.join(rows)} (all-tuned after tuning).")
    for index, path in glb_paths(arguments):
        keys = {
            f"{name}/joint-{joint}/{'56' if arguments.full else '12'}/seed-{seed}/{path.stem}": (name, joint, seed)
            for name, joint, seed in itertools.product(names, arguments.joint, arguments.seeds)
        }
        todo = {key: what for key, what in keys.items() if key not in results["scores"]}
        if not todo:
            continue
        given = list(cases(load_glb(path), index, model.image_size, full=arguments.full))
        for key, (name, joint, seed) in todo.items():
            row = replace(rows[name], settings=replace(rows[name].settings, joint=joint == "on"))
            pairs, costs = [], []
            for case in given:
                views, cost = sampled(model, case, row, seed)
                pairs += scored(views, case.truths, arguments.mask_threshold)
                costs.append(cost)
            value: dict[str, Any] = {k: float(np.mean([p[k] for p in pairs])) for k in pairs[0]}
            value["nfe"] = costs[0]["nfe"]
            value["seconds"] = float(sum(c["seconds"] for c in costs))
            value["memory_gb"] = max(c["memory_gb"] for c in costs)
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
    given = [next(cases(heldout_mesh(pool, int(k)), int(k), model.image_size, full=False)) for k in chosen]
    rows = rows_of(arguments, {})

    def score(settings: SamplingSettings, label: str) -> float:
        if label not in results["tuning"]:
            values = []
            for case in given:
                views, _ = sampled(model, case, Row(settings), 0)
                values += [s["foreground_psnr"] for s in scored(views, case.truths, arguments.mask_threshold)]
            results.put("tuning", label, float(np.mean(values)))
            print(label, round(results["tuning"][label], 3), flush=True)
        return float(results["tuning"][label])

    base = rows["uniform-66"].settings
    guidances = (1.0, 1.5, 2.0, 3.0, 5.0)
    best = max(guidances, key=lambda g: score(replace(base, guidance=g), f"base guidance={g}"))
    results.put("tuned", "guidance", best)
    grids: dict[str, tuple[Any, ...]] = {
        "alpha_current": (0.2, 0.35, 0.5, 0.7, 0.9),
        "msa_range": ((1000, 1000), (800, 1000), (700, 1000), (600, 1000)),
        "cross_step": ((800, 1000), (700, 1000), (600, 1000)),
        "passes": (5, 3, 2, 1),
        "pool": ("min", "mean", "ema"),
    }
    settings, changes = rows["all"].settings, dict[str, Any]()
    for name, values in grids.items():

        def candidate(value: Any, name: str = name) -> float:
            numbers = replace(settings.zero_to_hero, **{**changes, name: value})
            return score(replace(settings, zero_to_hero=numbers), f"all {json.dumps({**changes, name: value})}")

        changes[name] = max(values, key=candidate)
        results.put("tuned", "zero-to-hero", dict(changes))


# --- meshes -----------------------------------------------------------------------------------------------------------


def final_meshes(model: ViewDiffusion, arguments: Arguments, results: Results) -> None:
    """Fit the same surface to the base's and the method's views at the cameras that jobs use."""
    rows, views = rows_of(arguments, results["tuned"]), ViewsSettings()
    orbits = ring_orbits(views.rings)
    cameras = [orbit_camera(*orbit, size=model.image_size) for orbit in orbits]
    for index, path in glb_paths(arguments):
        for name in ("uniform-66", "all"):
            key = f"{name}/{path.stem}"
            if key in results["meshes"]:
                continue
            mesh = load_glb(path)
            elevation = math.radians(float(np.random.default_rng([9, index]).uniform(0, 40)))
            camera, description = source_view(mesh, elevation, DEFAULT_RADIUS, model.image_size)
            photo = to_bytes(MeshRenderer(mesh).render(camera).rgba)
            blank = np.zeros((len(orbits), *photo.shape), np.uint8)
            case = Case(photo[None], description[None].astype(np.float32), orbits[None].astype(np.float32), blank)
            rgba = to_bytes(sampled(model, case, rows[name], arguments.seeds[0])[0])
            weights = [view_confidence(views, orbit, elevation) for orbit in orbits]
            seen = [View(f"view_{k:02d}", c, rgba[k], weight=weights[k]) for k, c in enumerate(cameras)]
            surface = fit_surface(ViewSet((View("photo", camera, photo), *seen), True), GENERATED_FIT)
            vertices, faces = drop_specks(*extract_mesh(surface))
            scores = compare_meshes(taubin(vertices, faces), faces, mesh.vertices.astype(np.float64), mesh.faces)
            results.put("meshes", key, asdict(scores))
            print(key, {k: round(v, 4) for k, v in asdict(scores).items()}, flush=True)


# --- pictures and tables ----------------------------------------------------------------------------------------------


def pictures(model: ViewDiffusion, arguments: Arguments, results: Results) -> None:
    """The ten pairs changed most, five each way: source, truth, then base and method for each of three seeds."""
    rows = rows_of(arguments, results["tuned"])
    changes: list[tuple[float, int, Path, int]] = []
    for index, path in glb_paths(arguments):
        found = [
            results["scores"].get(f"{name}/joint-{arguments.joint[0]}/12/seed-{arguments.seeds[0]}/{path.stem}")
            for name in ("uniform-66", "all")
        ]
        if all(found):
            base, ours = (f["pairs"] for f in found if f)
            changes += [(b - a, index, path, k) for k, (a, b) in enumerate(zip(base, ours, strict=True))]
    if not changes:
        raise InputError("no scores of uniform-66 and all yet", fix="Run --parts rows first.")
    changes.sort(key=lambda change: change[0])
    shown = changes if len(changes) <= 10 else [*changes[:5], *changes[-5:]]
    sheet = []
    for gain, index, path, k in shown:
        case = list(cases(load_glb(path), index, model.image_size, full=False))[k // 4]
        tiles = [case.source[0] / 255, case.truths[k % 4] / 255]
        tiles += [
            sampled(model, case, rows[name], seed)[0][k % 4] for seed in range(3) for name in ("uniform-66", "all")
        ]
        sheet.append(np.concatenate([t[..., :3] * t[..., 3:] + 1 - t[..., 3:] for t in tiles], 1))
        print(f"{path.stem} pair {k}: {gain:+.2f} dB", flush=True)
    with written_aside(arguments.pictures) as partial:
        Image.fromarray(to_bytes(np.concatenate(sheet))).save(partial)


def table(results: Results) -> None:
    """Means over objects with bootstrap intervals, and gains over uniform-66 of the same objects."""
    groups: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key, value in results["scores"].items():
        name, joint, pairs, _, stem = key.split("/", 4)
        groups.setdefault(f"{name}, {joint}, {pairs} pairs", {}).setdefault(stem, []).append(value)

    def mean(values: list[dict[str, float]], key: str) -> float:
        return float(np.mean([v[key] for v in values]))

    print(f"| row | objects | {' | '.join(KEYS)} | gain in dB | NFE | s | GB |\n|{'---|' * (len(KEYS) + 6)}")
    for label, objects in sorted(groups.items()):
        cells = []
        for k in KEYS:
            values = np.array([mean(v, k) for v in objects.values()])
            cells.append("{:.3f} ({:.3f} to {:.3f})".format(values.mean(), *interval(values)))
        base = groups.get(", ".join(["uniform-66", *label.split(", ")[1:]]), {})
        both = [stem for stem in objects if stem in base]
        gain = np.array([mean(objects[s], KEYS[0]) - mean(base[s], KEYS[0]) for s in both])
        cells.append("{:+.2f} ({:+.2f} to {:+.2f})".format(gain.mean(), *interval(gain)) if len(gain) else "-")
        every = [v for values in objects.values() for v in values]
        cells += [f"{mean(every, k):.{d}f}" for k, d in (("nfe", 0), ("seconds", 1), ("memory_gb", 1))]
        print(f"| {label} | {len(objects)} | {' | '.join(cells)} |")
    for name in ("uniform-66", "all"):
        found = [v for k, v in results["meshes"].items() if k.startswith(f"{name}/")]
        if found:
            scores = {k: round(float(np.mean([f[k] for f in found])), 4) for k in found[0]}
            print(f"\nmeshes from {name} ({len(found)} objects): {scores}")


def main(arguments: Arguments) -> None:
    """Run the parts asked for."""
    facts = {
        "sampling": asdict(arguments.sampling),
        "weights": str(arguments.weights or "embedded"),
        "quick": arguments.quick,
        "mask_threshold": arguments.mask_threshold,
    }
    results = Results(arguments.out, facts)
    model = ViewDiffusion.from_pretrained(arguments.weights or default_weights()).to(pick_device(arguments.device))
    ours = [
        name for name in rows_of(arguments, results["tuned"]) if name not in ("oracle", "best-guidance", "mean-of-3")
    ]
    actions: dict[Part, Callable[[], None]] = {
        "bound": lambda: run_rows(model, arguments, results, ["uniform-50", "oracle"]),
        "rows": lambda: run_rows(model, arguments, results, arguments.rows or ours),
        "controls": lambda: run_rows(model, arguments, results, ["uniform-66", "best-guidance", "mean-of-3"]),
        "tune": lambda: tune(model, arguments, results),
        "meshes": lambda: final_meshes(model, arguments, results),
        "pictures": lambda: pictures(model, arguments, results),
        "table": lambda: table(results),
    }
    for part in arguments.parts:
        actions[part]()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
