"""Rigs: the skinned GLB is sound, at rest it is the static mesh, and viewers pose it as it was meant."""

from __future__ import annotations

import http.server
import json
import os
import queue
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from recon.export.asset import Asset, to_asset_frame
from recon.export.glb import glb_of
from recon.export.glb_check import examine_glb
from recon.export.rig import Rig, make_rig, require_same_bones, write_rig
from recon.export.validate import find_khronos_validator, find_node
from recon.texture.bake import TexturedMesh
from scene.errors import InputError
from scene.mesh import vertex_normals
from scene.skeleton import Motion, Skeleton
from scene.skinning.motion import PARTS, part_motions
from scene.skinning.pose import posed_vertices
from scene.skinning.weights import Weights
from tests.bodies import body_of, standing

needs_khronos = pytest.mark.skipif(
    find_khronos_validator() is None, reason="the Khronos validator is not installed: run `make validator`"
)
TOOLS = Path(__file__).parents[3] / "tools" / "three-pose"
THREE = Path(os.environ.get("VIEWLOOM_THREE", TOOLS))
"""A folder in which the npm package three is installed."""
CHROMIUM = os.environ.get("VIEWLOOM_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome", "chrome"))), None
)


def textured(step: float = 0.04) -> tuple[Asset, Skeleton]:
    """A body as an asset with a texture, and its skeleton in the asset's frame."""
    body, skeleton = body_of(standing(), step), standing()
    uv = np.random.default_rng(0).random((len(body.vertices), 2))
    texture = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    evidence = np.tile([0.25, 0.25, 0.25, 0.25], (len(uv), 1))
    mesh = TexturedMesh(
        body.vertices, body.faces, vertex_normals(body.vertices, body.faces), uv, texture, evidence=evidence
    )
    asset = to_asset_frame(mesh)
    assert asset.world_from_asset is not None
    return asset, skeleton.transformed(np.linalg.inv(asset.world_from_asset))


@pytest.fixture(scope="module")
def rig() -> Rig:
    asset, skeleton = textured()
    return make_rig(asset, skeleton, motion_of(skeleton))


def motion_of(skeleton: Skeleton) -> Motion:
    turn = Rotation.from_euler("z", 80, degrees=True).as_matrix()  # in the asset's frame, about its front
    nod = Rotation.from_euler("xyz", [20, 40, 10], degrees=True).as_matrix()
    other = skeleton.posed({"left_elbow": turn, "neck": nod, "spine": nod}, np.array([0.01, 0.02, -0.03]))
    return Motion((0.0, 0.5, 1.0), (skeleton, skeleton.posed({"left_shoulder": turn}), other))


def arrays_of(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray], Any]:
    glb = examine_glb(data)
    attributes = glb.content["meshes"][0]["primitives"][0]["attributes"]
    return glb.content, {name: glb.arrays[index] for name, index in attributes.items()}, glb.arrays


def matrix_of(node: dict[str, Any], turn: np.ndarray | None, shift: np.ndarray | None) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = node["translation"] if shift is None else shift
    if turn is not None:
        out[:3, :3] = Rotation.from_quat(turn).as_matrix()
    return out


def posed_as_viewers_do(data: bytes, frame: int | None) -> np.ndarray:
    """Vertices by the glTF specification (3.7.3.2): linear blend of joints' matrices times inverse bind matrices."""
    content, attributes, arrays = arrays_of(data)
    skin, nodes = content["skins"][0], content["nodes"]
    turns: dict[int, np.ndarray] = {}
    shifts: dict[int, np.ndarray] = {}
    if frame is not None:
        clip = content["animations"][0]
        for channel in clip["channels"]:
            target, values = channel["target"], arrays[clip["samplers"][channel["sampler"]]["output"]]
            (turns if target["path"] == "rotation" else shifts)[target["node"]] = values[frame]
    world: dict[int, np.ndarray] = {}
    todo = [(skin["joints"][0], np.eye(4))]
    while todo:
        number, above = todo.pop()
        world[number] = above @ matrix_of(nodes[number], turns.get(number), shifts.get(number))
        todo += [(child, world[number]) for child in nodes[number].get("children", [])]
    inverse = arrays[skin["inverseBindMatrices"]].reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
    motions = np.stack([world[joint] for joint in skin["joints"]]) @ inverse
    weights = Weights(attributes["JOINTS_0"].astype(np.int64), attributes["WEIGHTS_0"])
    return posed_vertices(attributes["POSITION"].astype(np.float64), weights, motions, "linear")


def test_at_rest_a_rig_is_the_static_mesh(rig: Rig) -> None:
    asset, _ = textured()
    data = glb_of(rig.asset, b"", rig.skin)
    np.testing.assert_allclose(posed_as_viewers_do(data, None), rig.asset.vertices, atol=1e-5)
    np.testing.assert_array_equal(rig.asset.vertices[rig.asset.faces[: len(asset.faces)]], asset.vertices[asset.faces])


def test_a_clip_poses_as_its_skeletons_stand(rig: Rig) -> None:
    _, skeleton = textured()
    data = glb_of(rig.asset, b"", rig.skin)
    skin = Weights(rig.skin.joints.astype(np.int64), rig.skin.weights)
    for number, pose in enumerate(motion_of(skeleton).poses):
        wanted = posed_vertices(rig.asset.vertices.astype(np.float64), skin, part_motions(skeleton, pose), "linear")
        np.testing.assert_allclose(posed_as_viewers_do(data, number), wanted, atol=1e-5)
        if number:
            assert np.abs(wanted - rig.asset.vertices).max() > 0.05


def test_attributes_and_texture_stay(rig: Rig) -> None:
    asset, _ = textured()
    content, attributes, _ = arrays_of(glb_of(rig.asset, b"", rig.skin))
    assert set(attributes) >= {"POSITION", "NORMAL", "TEXCOORD_0", "JOINTS_0", "WEIGHTS_0"}
    assert (rig.asset.evidence is None) == (asset.evidence is None)
    np.testing.assert_array_equal(rig.asset.uv[rig.asset.faces[: len(asset.faces)]], asset.uv[asset.faces])
    np.testing.assert_array_equal(rig.asset.texture, asset.texture)
    assert [content["nodes"][k]["name"] for k in content["skins"][0]["joints"]] == list(PARTS)
    assert content["asset"]["extras"]["world_from_asset"] == asset.world_from_asset.tolist()  # type: ignore[union-attr]
    assert rig.parts == len(PARTS)


def test_a_rig_is_sound_for_our_own_check(rig: Rig, tmp_path: Path) -> None:
    report = write_rig(tmp_path / "a.glb", rig, khronos=False)
    assert (report.errors, report.warnings) == (0, 0)
    assert (tmp_path / "a.glb").read_bytes() == glb_of(rig.asset, _jpeg(rig), rig.skin)


def _jpeg(rig: Rig) -> bytes:
    from recon.export.asset import jpeg_of

    return jpeg_of(rig.asset, 90, 32)


@needs_khronos
@pytest.mark.parametrize("moving", [False, True])
def test_khronos_finds_nothing(rig: Rig, tmp_path: Path, moving: bool) -> None:
    made = rig if moving else replace(rig, skin=replace(rig.skin, clip=None))
    report = write_rig(tmp_path / "a.glb", made, khronos=True)
    assert (report.errors, report.warnings) == (0, 0), report.messages


@pytest.mark.skipif(
    find_node() is None or not (THREE / "node_modules" / "three").is_dir(),
    reason="three is not installed: run `make three`",
)
def test_three_loads_and_poses_it(rig: Rig, tmp_path: Path) -> None:
    write_rig(tmp_path / "a.glb", rig, khronos=False)
    command = [str(find_node()), str(TOOLS / "pose.mjs"), str(tmp_path / "a.glb"), "0.5", str(THREE)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bones"] == list(PARTS)
    data = (tmp_path / "a.glb").read_bytes()
    np.testing.assert_allclose(said["rest"], rig.asset.vertices, atol=1e-5)
    np.testing.assert_allclose(said["posed"], posed_as_viewers_do(data, 1), atol=1e-5)


class _Page(http.server.BaseHTTPRequestHandler):
    """Serves a page, three.js and a rig, and keeps what the page reports."""

    rig: Path
    reports: queue.Queue[dict[str, Any]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = {"/": TOOLS / "pose.html", "/rig.glb": self.rig}
        file = files.get(path, THREE / "node_modules" / path.lstrip("/"))
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        self.send_response(200)
        kinds = {".js": "text/javascript", ".html": "text/html"}
        self.send_header("Content-Type", kinds.get(file.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def reported_by_a_browser(glb: Path, seconds: float, profile: Path) -> dict[str, Any]:
    """What a page says of a rig, opened by a Chromium without a window."""
    page = type("Page", (_Page,), {"rig": glb, "reports": queue.Queue()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flags = [
            "--headless",
            "--no-sandbox",
            "--no-first-run",
            "--enable-unsafe-swiftshader",
            "--use-angle=swiftshader",
        ]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={profile}"]
        address = f"http://127.0.0.1:{server.server_port}/?seconds={seconds}"
        with subprocess.Popen([str(CHROMIUM), *flags, address], stderr=subprocess.DEVNULL) as browser:
            try:
                said: dict[str, Any] = page.reports.get(timeout=240)
            finally:
                browser.terminate()
                server.shutdown()
    assert "error" not in said, said
    return said


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None or not (THREE / "node_modules" / "three").is_dir(),
    reason="no Chromium is installed (VIEWLOOM_CHROMIUM names one), or three is not: run `make three`",
)
def test_a_browser_draws_it_where_it_is_posed(rig: Rig, tmp_path: Path) -> None:
    write_rig(tmp_path / "a.glb", rig, khronos=False)
    said = reported_by_a_browser(tmp_path / "a.glb", 0.5, tmp_path / "profile")
    data = (tmp_path / "a.glb").read_bytes()
    assert said["texture"] == [32, 32]
    drawn = {}
    for state, wanted in (("rest", rig.asset.vertices), ("posed", posed_as_viewers_do(data, 1))):
        np.testing.assert_allclose(said[state]["vertices"], wanted, atol=1e-5)
        side = said["side"]
        drawn[state] = np.array(said[state]["covered"], bool).reshape(side, side)
        # A vertex is a corner of what is drawn, so that one of the pixels around it is covered.
        near = binary_dilation(drawn[state], np.ones((3, 3)))
        x, y = np.floor((wanted[:, :2] - said["corner"]) / said["width"] * side).astype(int).T
        assert near[y, x].all()
    changed = drawn["rest"] ^ drawn["posed"]
    assert changed.sum() > 0.05 * drawn["rest"].sum() > 20


def test_joints_that_are_not_known_stay_where_their_parents_are() -> None:
    asset, skeleton = textured()
    places = skeleton.positions.copy()
    places[[3, 4]] = np.nan  # the right elbow and wrist
    rig = make_rig(asset, Skeleton(places))
    elbow = PARTS.index("right_elbow")
    np.testing.assert_array_equal(rig.skin.pivots[elbow], rig.skin.pivots[PARTS.index("right_shoulder")])
    assert not (rig.skin.weights[rig.skin.joints == elbow] > 0).any()


def test_what_cannot_be_rigged_is_refused(rig: Rig, tmp_path: Path) -> None:
    asset, skeleton = textured()
    opened = replace(asset, faces=asset.faces[:-30])
    with pytest.raises(InputError, match="the mesh is open"):
        make_rig(opened, skeleton)
    assert not make_rig(opened, skeleton, allow_open=True).report.was_closed
    with pytest.raises(InputError, match="misses the surface"):
        make_rig(asset, standing())
    with pytest.raises(InputError, match="written as GLB"):
        write_rig(tmp_path / "a.obj", rig)
    longer = standing(arm=0.5)
    with pytest.raises(
        InputError, match=r"pose 1 has bones of other lengths: right_shoulder to right_elbow 1\.67 times"
    ):
        require_same_bones(Motion((0.0, 1.0), (standing(), longer)), standing(), Path("p.json"))
