"""The report of one item: a single HTML file with every picture inside, that opens without a server."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from pipeline.jobs.runner import Runner
from scene.files import write_text
from scene.viewset import ViewSet

_TEMPLATE = Path(__file__).with_name("report_template.html")


def write_report(runner: Runner, name: str, asset: Path | None) -> Path:
    """Write ``report.html`` from what the stages left behind.

    Args:
        runner: of the item, after its stages ran.
        name: of the item.
        asset: its GLB, if it has one.
    """
    folder = runner.folder
    stages = {run.name: run for run in runner.runs}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    sections = []
    if "prepare" in stages:
        prepared = stages["prepare"].folder
        sections.append(
            _section(
                "Photo and cut-out",
                _figure(_thumb(prepared / "cutout.png", flatten=False), "photo")
                + _figure(_thumb(prepared / "framed.png"), "cut-out")
                + _figure(_thumb(prepared / "mask.png"), "mask"),
            )
        )
    views = ViewSet.load(stages["views"].folder)
    shown = list(views)[:48]
    sections.append(
        _section(
            f"{len(views)} views",
            "".join(_figure(_encode(Image.fromarray(view.rgba()), side=128), view.name) for view in shown),
        )
    )
    table = "".join(
        f"<tr><td>{html.escape(run.name)}</td><td>{'kept' if run.cached else f'{run.seconds:.1f} s'}</td></tr>"
        for run in runner.runs
    )
    turntable = ""
    if asset is not None:
        turntable = _turntable(stages["asset"].folder / "turntable.webp")
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=html.escape(name),
        sections="".join(sections),
        turntable=turntable,
        timings=table,
        facts=_facts(manifest),
        warnings="".join(f"<li>{html.escape(w)}</li>" for w in manifest.get("warnings", [])),
        manifest=html.escape(json.dumps(manifest, indent=1, sort_keys=True)),
        asset=_links(asset, manifest) if asset is not None else "views only",
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _links(asset: Path, manifest: dict[str, Any]) -> str:
    """Links to the asset in every format it was written in, the GLB first."""
    others = [made["file"] for made in manifest.get("asset", {}).get("files", [])[1:]]
    return " ".join(f'<a href="{quote(name)}">{html.escape(name)}</a>' for name in [asset.name, *others])


def _facts(manifest: dict[str, Any]) -> str:
    asset = manifest.get("asset")
    if not asset:
        return ""
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
        "agreement of the masks": surface.get("mask_consistency", "-"),
        "surface": surface.get("kept", "-"),
        "weights' licence": manifest.get("weights", {}).get("licence", "-"),
    }
    return "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())


def _packed(made: dict[str, Any]) -> str:
    """How a file's texture is packed, and what the check found if the file is a GLB."""
    texture = f", texture {made['texture']}" if made["texture"] else ""
    quality = f" at quality {made['jpeg_quality']}" if made["jpeg_quality"] else ""
    check = made.get("check")
    found = "" if check is None else f", {check['errors']} errors, {check['warnings']} warnings"
    return f"{texture}{quality}{found}"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2><div class='row'>{body}</div></section>"


def _figure(source: str, caption: str) -> str:
    text = html.escape(caption)
    return f"<figure><img src='{source}' alt='{text}'><figcaption>{text}</figcaption></figure>"


def _thumb(path: Path, side: int = 256, *, flatten: bool = True) -> str:
    image: Image.Image = Image.open(path)
    if not flatten and image.mode == "RGBA":
        image = image.convert("RGB")  # the photo as it was, background included
    return _encode(image, side)


def _encode(image: Image.Image, side: int) -> str:
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _data_url(image)


def _data_url(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=85, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _turntable(path: Path) -> str:
    """One strip of all frames; the page shows one at a time and turns with the pointer."""
    with Image.open(path) as animation:
        frames = []
        for k in range(animation.n_frames):  # type: ignore[attr-defined]
            animation.seek(k)
            frames.append(np.asarray(animation.convert("RGB")))
    strip = Image.fromarray(np.concatenate(frames, axis=1))
    side = frames[0].shape[0]
    return (
        f"<section><h2>Asset</h2><div id='turn' data-frames='{len(frames)}' style='width:{side}px;height:{side}px;"
        f"background-image:url({_data_url(strip)})' title='drag to turn'></div></section>"
    )
