"""The item's folder shows the last run's asset in every format that was asked for, and no older one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.jobs.image2mesh import image2mesh, make_views
from pipeline.jobs.publishing import publish, unpublish, unpublishing
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.settings import Image2MeshSettings, ReconstructSettings
from pipeline.jobs.stages.asset import AssetStage
from pipeline.jobs.stages.prepare import PrepareStage
from pipeline.jobs.stages.surface import SurfaceStage
from pipeline.jobs.stages.views import ViewsStage
from pipeline.jobs.time_left import Work
from recon.export.glb_read import read_glb
from recon.profiles import FORMATS
from scene.errors import InputError, OutputError, ViewloomError
from scene.viewset import ViewSet

Done = Any
Heard = Any
Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def toy(done: Done, tmp_path: Path) -> Path:
    """The finished job's folder of the photo, in an output folder to go on with."""
    shutil.copytree(done.out, tmp_path / "out")
    return tmp_path / "out" / "toy"


def seeded(settings: Image2MeshSettings, seed: int = 1) -> Image2MeshSettings:
    return replace(settings, fit=replace(settings.fit, seed=seed))


def with_formats(settings: Any, *formats: Any) -> Any:
    return replace(settings, glb=replace(settings.glb, formats=formats))


# --- every format -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(done: Done, settings: Image2MeshSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job once more, in all formats; the GLB is not asked for and comes all the same."""
    out = tmp_path_factory.mktemp("everything")
    shutil.copytree(done.out / "toy", out / "toy")
    wanted = with_formats(settings, "usdz", "stl", "obj", "obj", "ply")
    (result,) = image2mesh([done.photo], out, wanted)
    assert result.error is None
    return out / "toy"


def test_every_format_is_written_checked_and_listed(everything: Path) -> None:
    asset = json.loads((everything / "manifest.json").read_text())["asset"]
    assert [made["file"] for made in asset["files"]] == [f"toy.{e}" for e in ("glb", "usdz", "stl", "obj", "ply")]
    listed = [name for made in asset["files"] for name in made["files"]]
    assert set(listed) == {*(f"toy.{ending}" for ending in FORMATS), "toy.mtl", "toy_texture.jpg"}
    for name in listed:
        assert (everything / name).read_bytes() == (everything / "asset" / name).read_bytes()
    for made in asset["files"]:
        assert made["bytes"] == sum((everything / name).stat().st_size for name in made["files"])
        if made["file"] == "toy.glb":
            assert (made["check"]["errors"], made["check"]["warnings"]) == (0, 0)
        else:
            assert "check" not in made
    assert asset == {
        **json.loads((everything / "asset" / "asset.json").read_text()),
        "file": asset["file"],
        "sha256": asset["sha256"],
    }


def test_the_report_links_every_format(everything: Path) -> None:
    page = (everything / "report.html").read_text(encoding="utf-8")
    for ending in FORMATS:
        assert f'<a href="toy.{ending}">toy.{ending}</a>' in page
    assert "<tr><td>profile standard</td><td>kept</td></tr>" in page
    assert " m</td></tr>" in page


def test_formats_that_are_no_longer_asked_for_go(
    everything: Path, done: Done, settings: Image2MeshSettings, tmp_path: Path, tree: Tree
) -> None:
    shutil.copytree(everything, tmp_path / "out" / "toy")
    image2mesh([done.photo], tmp_path / "out", settings)
    assert tree(tmp_path / "out") == tree(done.out)


def test_budgets_that_cannot_be_kept_are_said(
    done: Done, toy: Path, settings: Image2MeshSettings, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recon import profiles

    tight = {**profiles.PROFILES, "draft": replace(profiles.PROFILES["draft"], max_bytes=1000)}
    monkeypatch.setattr("pipeline.jobs.settings.PROFILES", tight)
    mesh = replace(settings.mesh, profile="draft")
    (result,) = image2mesh([done.photo], toy.parent, replace(settings, mesh=mesh), reporter=heard)
    assert result.error is None
    (note,) = [note for note in heard.notes if note.startswith("Over the profile draft: toy.glb has ")]
    assert note.endswith("bytes where 1,000 are allowed.")
    asset = json.loads((toy / "manifest.json").read_text())["asset"]
    assert asset["files"][0]["limits"]["bytes"]["held"] is False
    assert asset["broken_limits"][0] in (toy / "report.html").read_text()


# --- no older result --------------------------------------------------------------------------------------------------


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


STAGES = {"prepare", "views", "surface", "asset"}


def test_a_failed_photo_keeps_no_older_asset(
    done: Done, toy: Path, settings: Image2MeshSettings, monkeypatch: pytest.MonkeyPatch, tree: Tree
) -> None:
    (toy / "toy.obj").write_text("mine")
    (toy / "notes.txt").write_text("mine")

    def broken(*_: Any, **__: Any) -> None:
        raise ViewloomError("no mesh today")

    with monkeypatch.context() as patch:
        patch.setattr(AssetStage, "run", broken)
        (result,) = image2mesh([done.photo], toy.parent, seeded(settings))
    assert "no mesh today" in str(result.error)
    assert listing(toy) == STAGES | {"toy.obj", "notes.txt"}
    # The earlier asset is where its stage left it, and comes back with the earlier settings.
    assert (toy / "asset" / "toy.glb").read_bytes() == done.result.asset.read_bytes()
    (result,) = image2mesh([done.photo], toy.parent, settings)
    assert result.error is None
    (toy / "toy.obj").unlink()
    (toy / "notes.txt").unlink()
    assert tree(toy.parent) == tree(done.out)


@pytest.mark.parametrize("stage", [PrepareStage, ViewsStage, SurfaceStage])
def test_a_failure_of_an_earlier_stage_withdraws_it_too(
    done: Done, toy: Path, settings: Image2MeshSettings, monkeypatch: pytest.MonkeyPatch, stage: type
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise InputError("it is of no use")

    monkeypatch.setattr(stage, "run", broken)
    changed = replace(
        seeded(settings), prepare=replace(settings.prepare, fill=0.6), views=replace(settings.views, back_weight=0.1)
    )
    (result,) = image2mesh([done.photo], toy.parent, changed)
    assert "it is of no use" in str(result.error)
    assert not {"toy.glb", "report.html", "manifest.json"} & listing(toy)


def test_a_wrong_name_costs_nothing(done: Done, toy: Path, settings: Image2MeshSettings, tmp_path: Path) -> None:
    before = listing(toy)
    (result,) = image2mesh([tmp_path / "toy.png"], toy.parent, settings)
    assert "there is no such photo" in str(result.error)
    with pytest.raises(InputError, match="there is no such mask"):
        image2mesh([done.photo], toy.parent, settings, mask=tmp_path / "nope.png")
    with pytest.raises(InputError, match="is no file"):
        image2mesh([done.photo], toy.parent, settings, mask=tmp_path)
    assert listing(toy) == before


def test_while_stages_are_redone_there_is_no_old_asset(done: Done, toy: Path, settings: Image2MeshSettings) -> None:
    """A job that is killed now leaves none either."""
    seen = []

    class Looking:
        def item(self, name: str, work: Work = Work()) -> None: ...

        def stage(self, name: str, cached: bool) -> None:
            seen.append((name, cached, "toy.glb" in listing(toy)))

        def step(self, done: int, total: int) -> None: ...

        def note(self, text: str) -> None: ...

        def finished(self) -> None: ...

        def failed(self, text: str) -> None: ...

    image2mesh([done.photo], toy.parent, seeded(settings), reporter=Looking())
    assert seen == [("prepare", True, True), ("views", True, True), ("surface", False, False), ("asset", False, False)]
    assert "toy.glb" in listing(toy)


def test_new_views_withdraw_the_asset_of_the_old_ones(done: Done, toy: Path, settings: Image2MeshSettings) -> None:
    changed = replace(settings, views=replace(settings.views, sampling=replace(settings.views.sampling, seed=5)))
    make_views([done.photo], toy.parent, changed)
    assert listing(toy) == STAGES | {"report.html", "manifest.json"}
    assert "asset" not in json.loads((toy / "manifest.json").read_text())


def test_a_capture_that_fails_keeps_no_older_asset(
    done: Done, capture_settings: ReconstructSettings, tmp_path: Path, rendered: Callable[[int, int], ViewSet]
) -> None:
    rendered(6, 32).save(tmp_path / "toy")
    out = tmp_path / "out"
    result = reconstruct(tmp_path / "toy", out, with_formats(capture_settings, "usdz"))
    assert result.asset is not None
    assert read_glb(result.asset).world_from_asset is not None
    assert {"toy.glb", "toy.usdz"} <= listing(out)
    for path in (tmp_path / "toy" / "masks").iterdir():
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    with pytest.raises(InputError, match="empty"):
        reconstruct(tmp_path / "toy", out, with_formats(capture_settings, "usdz"))
    assert listing(out) <= STAGES


# --- the two steps by themselves --------------------------------------------------------------------------------------


def test_only_copies_are_withdrawn(tmp_path: Path) -> None:
    stage = tmp_path / "asset"
    stage.mkdir()
    for name in ("a.glb", "a.usdz", "turntable.webp"):
        (stage / name).write_bytes(name.encode())
    (stage / "asset.json").write_text(json.dumps({"files": [{"files": ["a.glb"]}, {"files": ["a.usdz"]}]}))
    publish(stage, ["a.glb", "a.usdz"], tmp_path)
    before = (tmp_path / "a.glb").stat().st_mtime_ns
    publish(stage, ["a.glb", "a.usdz"], tmp_path)
    assert (tmp_path / "a.glb").stat().st_mtime_ns == before
    (tmp_path / "a.usdz").write_bytes(b"changed by hand")
    shutil.copy(stage / "turntable.webp", tmp_path / "turntable.webp")
    (tmp_path / "manifest.json").write_text('{"versions": "of another program"}')
    (tmp_path / "report.html").write_text("mine")
    unpublish(tmp_path)
    assert listing(tmp_path) == {"asset", "a.usdz", "turntable.webp", "manifest.json", "report.html"}


def test_results_of_an_older_version_are_withdrawn(tmp_path: Path) -> None:
    """They list no files."""
    (tmp_path / "asset").mkdir()
    for path in (tmp_path / "asset" / "a.glb", tmp_path / "a.glb"):
        path.write_bytes(b"same")
    (tmp_path / "asset" / "asset.json").write_text('{"health": {}}')
    unpublish(tmp_path)
    assert listing(tmp_path) == {"asset"}


def test_nothing_to_withdraw(tmp_path: Path) -> None:
    unpublish(tmp_path / "none")
    heard: list[tuple[str, bool]] = []
    tell = unpublishing(tmp_path / "none", lambda name, cached: heard.append((name, cached)))
    tell("views", True)
    tell("asset", False)
    assert heard == [("views", True), ("asset", False)]


def test_what_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asset").mkdir()
    for path in (tmp_path / "asset" / "a.glb", tmp_path / "a.glb"):
        path.write_bytes(b"same")

    def closed(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", closed)
    with pytest.raises(OutputError, match=r"an earlier result cannot be removed \(Permission denied\)"):
        unpublish(tmp_path)
