"""The report of one item: a single HTML file with every picture inside, that opens without a server."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from pipeline.jobs.runner import Runner
from pipeline.jobs.stages.capture_folder import WEIGHTS_FILE
from pipeline.jobs.stages.edit import ORIGINALS, EditedViews
from recon.texture.evidence import COLOURS, KINDS
from scene.files import write_text
from scene.viewset import ViewSet

_MOST_VIEWS = 48
_COMPARED = 8
"""Most views that are shown before and after an edit."""


@dataclass(frozen=True)
class _Picture:
    """A picture of the page: its data URL and caption."""

    url: str
    name: str


@dataclass(frozen=True)
class _Section:
    """A row of pictures under a heading."""

    title: str
    pictures: list[_Picture]


@dataclass(frozen=True)
class _Turntable:
    """All frames on one sheet; the page shows one at a time and turns with the pointer."""

    sheet: str
    frames: int
    columns: int
    side: int
    name: str


@dataclass(frozen=True)
class _Share:
    """A kind of evidence, its colour in pictures, and its part of the surface."""

    kind: str
    colour: str
    share: str


def write_report(runner: Runner, name: str, asset: Path | None) -> Path:
    """Write ``report.html`` from what the stages left behind.

    Args:
        runner: of the item, after its stages ran.
        name: of the item.
        asset: its GLB, if it has one.
    """
    folder = runner.folder
    stages = {run.name: run.folder for run in runner.runs}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    sections = []
    if "prepare" in stages:
        sections.append(_Section("Photo and cut-out", _cutout(stages["prepare"])))
    inputs = [name for name in stages if name.startswith("photo-")]
    if inputs:
        sections.append(_Section("Photos", [_Picture(_thumb(stages[name] / "framed.png"), name) for name in inputs]))
    views = ViewSet.load(stages["views"])
    shown = [_Picture(_encode(Image.fromarray(v.reduced(256)), side=128), v.name) for v in list(views)[:_MOST_VIEWS]]
    sections.append(_Section(f"{len(views)} views", shown))
    sections += _weights(stages["views"], views)
    if "aligned" in stages:
        aligned = _pairs(views, ViewSet.load(stages["aligned"]))
        sections.append(_Section("Each view by itself, and aligned", aligned))
    others = [made["file"] for made in manifest.get("asset", {}).get("files", [])[1:]]
    edit = manifest.get("edit")
    if edit is not None:
        others = [*(made["file"] for made in edit["files"]), *others]
    if edit is not None and "edited-views" in stages:
        compared = _before_and_after(views, EditedViews(stages["edited-views"]))
        sections.insert(0, _Section("Before, target, after", compared))
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            name=name,
            links=[] if asset is None else [asset.name, *others],
            warnings=manifest.get("warnings", []),
            verdict=None if asset is None else manifest["asset"]["verdict"],
            turntables=[]
            if asset is None
            else _turntables(stages["asset"], None if edit is None else stages.get("edited-asset", stages.get("edit"))),
            evidence=[] if asset is None else _shares(manifest["asset"]["evidence"]),
            sections=sections,
            timings=[(run.name, "kept" if run.cached else f"{run.seconds:.1f} s") for run in runner.runs],
            facts=[*_edit_facts(edit), *_facts(manifest)],
            manifest=json.dumps(manifest, indent=1, sort_keys=True),
        )
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["urlencode_path"] = quote  # jinja2's own leaves no slash unquoted in names
    return environment


def _cutout(folder: Path) -> list[_Picture]:
    came_cut_out = json.loads((folder / "prepare.json").read_text(encoding="utf-8"))["came_cut_out"]
    with Image.open(folder / "cutout.png") as cutout:
        # Else the photo as it was, background included.
        whole = _encode(cutout if came_cut_out else cutout.convert("RGB"), 256)
    rest = {"cut-out": "framed.png", "mask": "mask.png"}
    return [_Picture(whole, "photo"), *(_Picture(_thumb(folder / file), name) for name, file in rest.items())]


def _weights(folder: Path, views: ViewSet) -> list[_Section]:
    """What each photo counts in some views, and how rings of other seeds differ, where photos were fused."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    drawn = {view.name: _encode(Image.fromarray(view.reduced(256)), side=128) for view in views}
    sections = [
        _Section(
            f"What each photo counts in {one['view']}",
            [
                _Picture(drawn[one["view"]], one["view"]),
                *(
                    _Picture(_thumb(folder / file), f"photo-{k:02d}: {share:.0%}")
                    for k, (file, share) in enumerate(zip(one["files"], one["shares"], strict=True))
                ),
            ],
        )
        for one in content["weights"]
    ]
    spread = [_Picture(_thumb(folder / f"spread_{name}.png"), name) for name in content["spread"]]
    return [*sections, *([_Section("Where rings of other seeds differ", spread)] if spread else [])]


def _shares(evidence: dict[str, float]) -> list[_Share]:
    return [
        _Share(kind, "#{:02x}{:02x}{:02x}".format(*colour), f"{evidence[kind]:.0%}")
        for kind, colour in zip(KINDS, COLOURS, strict=True)
        if evidence[kind] > 0
    ]


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    asset = manifest.get("asset")
    if not asset:
        return []
    health, surface = asset["health"], asset["surface"]
    rows = {
        "triangles": health["faces"],
        "vertices": health["vertices"],
        "watertight": "yes" if health["watertight"] else f"no, {health['boundary_edges']} open edges",
        "pieces": health["components"],
        "handles": "-" if health["genus"] is None else health["genus"],
        "size": " x ".join(f"{side:.3g}" for side in health["size"]) + " m",
        **{made["file"]: f"{made['bytes'] / 1e6:.2f} MB{_packed(made)}" for made in asset["files"]},
        f"profile {asset['profile']}": "; ".join(asset["broken_limits"]) or "kept",
        "glTF check": f"{asset['validator_errors']} errors, {asset['validator_warnings']} warnings",
        "checked by": asset["validator"],
        "seen by photos": f"{asset['evidence']['seen']:.0%} of the surface",
        "silhouette's overlap at the photos": f"{asset['measures']['iou']:.3f}",
        "colours at the photos": f"{asset['measures']['psnr']:.1f} dB",
        "mirrored photo": _mirrored(manifest.get("symmetry")),
        "agreement of the masks": surface.get("mask_consistency", "-"),
        "surface": surface.get("kept", "-"),
        "photos for the surface": _used(surface.get("views")),
        "photos for the texture": _used(asset["texture_views"]),
        "weights' licence": manifest.get("weights", {}).get("licence", "-"),
    }
    return [(name, str(value)) for name, value in rows.items()]


def _edit_facts(edit: dict[str, Any] | None) -> list[tuple[str, str]]:
    if edit is None:
        return []
    return [
        ("edited by", edit["method"]),
        *_drawn_facts(edit),
        *(
            []
            if edit["method"] == "consolidate"
            else [("moved", "; ".join(edit["moved"]) or "nothing"), ("cut apart", f"{edit['cuts']} rings")]
        ),
        *((made["file"], f"{made['bytes'] / 1e6:.2f} MB{_packed(made)}") for made in edit["files"]),
    ]


def _drawn_facts(edit: dict[str, Any]) -> list[tuple[str, str]]:
    """Of views that were drawn anew: by which model, and how well the fields fitted."""
    if "editor" not in edit:
        return []
    editor, misfits = edit["editor"], [one["misfit"] for one in edit["intervals"] if one["misfit"] is not None]
    fitted = f"{misfits[0]:.2f} to {misfits[-1]:.2f} deviations in {len(misfits)} intervals" if misfits else "-"
    return [
        ("views drawn by", f"{editor['name']}, licence {editor['licence']}"),
        ("fields' distance from queries", fitted),
    ]


def _pairs(plain: ViewSet, aligned: ViewSet) -> list[_Picture]:
    """Generated views, each as one picture: decoded by itself, and along the draft."""
    after = {view.name: view for view in aligned if view.origin == "generated"}
    some = [view for view in plain if view.name in after][:_MOST_VIEWS]
    pairs = [(view.name, [Image.fromarray(v.rgba()) for v in (view, after[view.name])]) for view in some]
    return [_Picture(_data_url(_strip(pair, 128)), name) for name, pair in pairs]


def _before_and_after(views: ViewSet, edited: EditedViews) -> list[_Picture]:
    """Some views, each as one picture: as it was, the control, and as it is after the edit."""
    after = {view.name: view for view in edited.views}
    some = [view for view in views if view.name in after]
    some = some[:: max(1, math.ceil(len(some) / _COMPARED))]
    pictures = []
    for view in some:
        with Image.open(edited.control(view.name)) as control:
            framed = edited.path / ORIGINALS / f"{view.name}.png"
            shown = [
                _opened(framed) if framed.is_file() else Image.fromarray(view.reduced(512)),
                control.convert("RGB"),
                Image.fromarray(after[view.name].rgba()),
            ]
        pictures.append(_Picture(_data_url(_strip(shown, 192)), view.name))
    return pictures


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def _strip(images: list[Image.Image], height: int) -> Image.Image:
    """Pictures beside each other, on white."""
    tiles = [_on_white(image).resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    strip = Image.new("RGB", (sum(tile.width for tile in tiles), height), "white")
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width
    return strip


def _used(views: dict[str, Any] | None) -> str:
    """How many photos were used, and why not the others."""
    return "all" if views is None else f"{views['used']} of {views['given']}, which show enough"


def _mirrored(symmetry: dict[str, Any] | None) -> str:
    """Whether the photo was mirrored, and in which plane, or why not."""
    if symmetry is None:
        return "-"
    if not symmetry["used"]:
        return f"none: {symmetry['reason']}"
    return (
        f"plane {symmetry['reason']} at {symmetry['heading_deg']:.0f} degrees, confidence {symmetry['confidence']:.2f}"
    )


def _packed(made: dict[str, Any]) -> str:
    """How a file's texture is packed, and what the check of the file found."""
    texture = f", texture {made['texture']}" if made["texture"] else ""
    quality = f" at quality {made['jpeg_quality']}" if made["jpeg_quality"] else ""
    check = made.get("check")
    found = f", {check['errors']} errors, {check['warnings']} warnings" if check else ""
    return f"{texture}{quality}{found}"


def _thumb(path: Path, side: int = 256) -> str:
    with Image.open(path) as image:
        return _encode(image, side)


def _encode(image: Image.Image, side: int) -> str:
    image = _on_white(image)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _data_url(image)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _data_url(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=85, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _turntables(folder: Path, edit: Path | None) -> list[_Turntable]:
    """The asset, the edited one if there is one, and where the asset's surface comes from."""
    edited = [] if edit is None else [_turntable(edit / "turntable.webp", "edited")]
    return [_turntable(folder / "turntable.webp", "asset"), *edited, _turntable(folder / "evidence.webp", "evidence")]


def _turntable(path: Path, name: str) -> _Turntable:
    with Image.open(path) as animation:
        count, side = animation.n_frames, animation.height  # type: ignore[attr-defined]
        columns = math.ceil(math.sqrt(count))  # one row would be wider than pictures may be
        sheet = Image.new("RGB", (columns * side, math.ceil(count / columns) * side), "white")
        for k in range(count):
            animation.seek(k)
            sheet.paste(animation.convert("RGB"), (k % columns * side, k // columns * side))
    return _Turntable(_data_url(sheet), count, columns, side, name)
