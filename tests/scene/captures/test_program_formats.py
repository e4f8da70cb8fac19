"""Cameras of reconstruction programs and research code: written as their formats are described, read back as they were.

Each writer states the format's conventions by itself, without the readers' help.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from scene.camera import Camera, look_at, z_up_from_y_up
from scene.captures import load_capture
from scene.errors import InputError
from scene.lens import Lens
from scene.viewset import ViewSet

WIDTH, HEIGHT, FOCAL = 48, 32, 60.0
CX, CY = 25.0, 15.0
FLIP = np.diag([1.0, -1.0, -1.0])
"""Between OpenGL's and OpenCV's camera axes."""


def cameras(count: int = 5) -> dict[str, Camera]:
    """Cameras around the origin of a z-up world, at some height, by the name of their picture."""
    found = {}
    for k in range(count):
        angle = 2 * math.pi * k / count
        centre = np.array([3 * math.cos(angle), 3 * math.sin(angle), 1.0 + 0.2 * (k % 2)])
        found[f"IMG_{k:03d}"] = Camera(look_at(centre), FOCAL, FOCAL, CX, CY, WIDTH, HEIGHT)
    return found


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A folder with pictures in ``images/``."""
    (tmp_path / "toy" / "images").mkdir(parents=True)
    for k, name in enumerate(cameras()):
        picture(tmp_path / "toy" / "images" / f"{name}.jpg", 40 * k)
    return tmp_path / "toy"


def picture(path: Path, grey: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, 255 - grey, 90)).save(path)


def w2c(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera rotation and translation in OpenCV axes."""
    rotation = FLIP @ camera.c2w[:3, :3].T
    return rotation, -rotation @ camera.centre


def c2w_opencv(camera: Camera) -> np.ndarray:
    out = camera.c2w.copy()
    out[:3, :3] = out[:3, :3] @ FLIP
    return out


def y_up(matrix: np.ndarray) -> np.ndarray:
    """A pose in the world turned y up, as phones have it."""
    turn = np.eye(4)
    turn[:3, :3] = z_up_from_y_up(np.eye(3))  # rows are images of the axes: the inverse turn
    assert np.allclose(turn @ [0, 0, 1, 1], [0, 1, 0, 1])
    return turn @ matrix


def as_read(views: ViewSet, true: dict[str, Camera], *, principal: bool = True) -> None:
    """The set has these cameras, up to the similarity that its metadata name."""
    world = np.array(views.metadata.get("world_from_file", np.eye(4)))
    back = np.eye(4)
    if views.metadata["up"] == "given" and "world_from_file" in views.metadata:
        world, back = np.eye(4), np.eye(4)  # the true cameras are z up already
    assert [view.name for view in views] == sorted(true)
    scale = np.cbrt(np.linalg.det(world[:3, :3]))
    for view in views:
        camera = true[view.name]
        wanted = world @ back @ camera.c2w
        assert view.camera.centre == pytest.approx(wanted[:3, 3], abs=1e-5)
        assert view.camera.c2w[:3, :3] == pytest.approx(wanted[:3, :3] / scale, abs=1e-5)
        assert (view.camera.width, view.camera.height) == (WIDTH, HEIGHT)
        assert (view.camera.fx, view.camera.fy) == pytest.approx((FOCAL, FOCAL), rel=1e-4)
        if principal:
            assert (view.camera.cx, view.camera.cy) == pytest.approx((CX, CY), abs=1e-3)
    # However the file's world lay: cameras stand upright.
    assert np.mean([view.camera.c2w[2, 1] for view in views]) > 0.8


# --- writers ----------------------------------------------------------------------------------------------------------


def metashape(folder: Path, *, lens: str = "", drop: int | None = None, chunk: str = "") -> None:
    rows = []
    for k, (name, camera) in enumerate(cameras().items()):
        matrix = " ".join(map(repr, c2w_opencv(camera).reshape(-1).tolist()))
        inside = "" if k == drop else f"<transform>{matrix}</transform>"
        rows.append(f'<camera id="{k}" sensor_id="0" component_id="0" label="{name}">{inside}</camera>')
    (folder / "cameras.xml").write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<document version="2.0.0"><chunk label="Chunk 1" enabled="true">
<sensors next_id="1"><sensor id="0" label="unknown" type="frame"><resolution width="{WIDTH}" height="{HEIGHT}"/>
<calibration type="frame" class="initial"><resolution width="{WIDTH}" height="{HEIGHT}"/><f>11</f></calibration>
<calibration type="frame" class="adjusted"><resolution width="{WIDTH}" height="{HEIGHT}"/><f>{FOCAL}</f>
<cx>{CX - WIDTH / 2}</cx><cy>{CY - HEIGHT / 2}</cy>{lens}</calibration></sensor></sensors>
<components><component id="0">{chunk}</component></components>
<cameras next_id="9">{"".join(rows)}</cameras></chunk></document>"""
    )


def realitycapture_csv(folder: Path) -> None:
    """Heading clockwise from north, pitch from straight down, roll: in degrees; focal length of a 36 mm film."""
    with (folder / "cameras.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["#name", "x", "y", "alt", "heading", "pitch", "roll", "f", "px", "py", "k1", "k2", "k3", "k4", "t1", "t2"]
        )
        for name, camera in cameras().items():
            forward = camera.forward
            heading = math.degrees(math.atan2(forward[0], forward[1]))
            pitch = math.degrees(math.acos(-forward[2]))
            mm = 36 / WIDTH
            shift = [(CX - WIDTH / 2) * mm, (CY - HEIGHT / 2) * mm]
            rows.writerow([f"{name}.jpg", *camera.centre, heading, pitch, 0, FOCAL * mm, *shift, *[0] * 6])


def realitycapture_xmp(folder: Path) -> None:
    for name, camera in cameras().items():
        rotation = " ".join(map(repr, w2c(camera)[0].reshape(-1).tolist()))
        centre = " ".join(map(repr, camera.centre.tolist()))
        (folder / "images" / f"{name}.xmp").write_text(
            f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xcr:Version="3" xcr:PosePrior="initial" xcr:DistortionModel="brown3"
 xcr:FocalLength35mm="{FOCAL * 36 / WIDTH}" xcr:PrincipalPointU="{(CX - WIDTH / 2) / WIDTH}"
 xcr:PrincipalPointV="{(CY - HEIGHT / 2) / WIDTH}" xmlns:xcr="http://www.capturingreality.com/ns/xcr/1.1#">
<xcr:Rotation>{rotation}</xcr:Rotation><xcr:Position>{centre}</xcr:Position>
<xcr:DistortionCoeficients>0 0 0 0 0 0</xcr:DistortionCoeficients></rdf:Description></rdf:RDF></x:xmpmeta>"""
        )


def polycam(folder: Path) -> None:
    top = folder / "keyframes"
    top.mkdir()
    (folder / "images").rename(top / "images")
    (top / "cameras").mkdir()
    for name, camera in cameras().items():
        pose = y_up(camera.c2w)
        held = {f"t_{row}{column}": pose[row, column] for row in range(3) for column in range(4)}
        lens = {"fx": FOCAL, "fy": FOCAL, "cx": CX, "cy": CY, "width": WIDTH, "height": HEIGHT, "blur_score": 90.0}
        (top / "cameras" / f"{name}.json").write_text(json.dumps({**held, **lens}))


def record3d(folder: Path) -> None:
    (folder / "rgb").mkdir()
    poses = []
    for k, (name, camera) in enumerate(cameras().items()):
        pose = y_up(camera.c2w)
        poses.append([*Rotation.from_matrix(pose[:3, :3]).as_quat().tolist(), *pose[:3, 3].tolist()])
        (folder / "images" / f"{name}.jpg").rename(folder / "rgb" / f"{k}.jpg")
    k = np.array([[FOCAL, 0, CX], [0, FOCAL, CY], [0, 0, 1]]).T.reshape(-1).tolist()
    (folder / "metadata").write_text(json.dumps({"poses": poses, "K": k, "w": WIDTH, "h": HEIGHT, "fps": 60}))


def opensfm(folder: Path, *, split: bool = False) -> None:
    shots = {}
    for name, camera in cameras().items():
        rotation, translation = w2c(camera)
        turn = Rotation.from_matrix(rotation).as_rotvec().tolist()
        shots[f"{name}.jpg"] = {"rotation": turn, "translation": translation.tolist(), "camera": "c"}
    lens = {"projection_type": "brown", "width": WIDTH, "height": HEIGHT, **dict.fromkeys(("k1", "k2", "k3"), 0.0)}
    lens |= {"focal_x": FOCAL / WIDTH, "focal_y": FOCAL / WIDTH, "p1": 0, "p2": 0}
    lens |= {"c_x": (CX - WIDTH / 2) / WIDTH, "c_y": (CY - HEIGHT / 2) / WIDTH}
    points = {"1": {"coordinates": [0.1, 0.2, 0.3], "color": [1, 2, 3]}}
    parts = [{"cameras": {"c": lens}, "shots": shots, "points": points}]
    if split:
        parts.insert(0, {"cameras": {"c": lens}, "shots": {"lost.jpg": next(iter(shots.values()))}, "points": {}})
    (folder / "reconstruction.json").write_text(json.dumps(parts))


def meshroom(folder: Path, *, old: bool = False, drop: bool = False) -> None:
    views, poses = [], []
    for k, (name, camera) in enumerate(cameras().items()):
        path = f"/somewhere/else/{name}.jpg"
        views.append({"viewId": f"{k}", "poseId": f"{k}", "intrinsicId": "7", "path": path, "width": f"{WIDTH}"})
        rotation, _ = w2c(camera)
        numbers = {
            "rotation": [repr(float(v)) for v in rotation.T.reshape(-1)],  # column by column
            "center": [repr(float(v)) for v in camera.centre],
        }
        if not (drop and k == 0):
            poses.append({"poseId": f"{k}", "pose": {"transform": numbers, "locked": "0"}})
    lens: dict[str, Any] = {"intrinsicId": "7", "width": f"{WIDTH}", "height": f"{HEIGHT}", "type": "radial3"}
    if old:
        lens |= {"pxFocalLength": f"{FOCAL}", "principalPoint": [f"{CX}", f"{CY}"]}
    else:
        point = [f"{CX - WIDTH / 2}", f"{CY - HEIGHT / 2}"]
        lens |= {"focalLength": f"{FOCAL * 36 / WIDTH}", "sensorWidth": "36", "principalPoint": point}
    lens["distortionParams"] = ["0", "0", "0"]
    (folder / "cameras.sfm").write_text(
        json.dumps({"version": "1", "views": views, "intrinsics": [lens], "poses": poses})
    )


def openmvg(folder: Path) -> None:
    views, poses = [], []
    for k, (name, camera) in enumerate(cameras().items()):
        data = {"local_path": "/", "filename": f"{name}.jpg", "width": WIDTH, "height": HEIGHT, "id_view": k}
        data |= {"id_intrinsic": 0, "id_pose": k}
        views.append({"key": k, "value": {"polymorphic_id": 1073741824, "ptr_wrapper": {"id": k, "data": data}}})
        rotation, _ = w2c(camera)
        poses.append({"key": k, "value": {"rotation": rotation.tolist(), "center": camera.centre.tolist()}})
    base = {"width": WIDTH, "height": HEIGHT, "focal_length": FOCAL, "principal_point": [CX, CY]}
    lens = {"value0": base, "disto_k3": [0.0, 0.0, 0.0]}
    name = {"polymorphic_id": 2147483649, "polymorphic_name": "pinhole_radial_k3"}
    held = [{"key": 0, "value": {**name, "ptr_wrapper": {"id": 2147483660, "data": lens}}}]
    content = {"sfm_data_version": "0.3", "root_path": "/elsewhere", "views": views, "intrinsics": held}
    (folder / "sfm_data.json").write_text(json.dumps({**content, "extrinsics": poses, "structure": []}))


def sdfstudio(folder: Path) -> None:
    frames = []
    for name, camera in cameras().items():
        k = np.eye(4)
        k[:2, :3] = [[FOCAL, 0, CX], [0, FOCAL, CY]]
        pose = c2w_opencv(camera).tolist()
        frames.append({"rgb_path": f"images/{name}.jpg", "camtoworld": pose, "intrinsics": k.tolist()})
    box = {"aabb": [[-0.4, -0.4, -0.4], [0.4, 0.4, 0.4]], "near": 0.1, "far": 5.0}
    content = {"camera_model": "OPENCV", "height": HEIGHT, "width": WIDTH, "scene_box": box, "frames": frames}
    (folder / "meta_data.json").write_text(json.dumps(content))


def nvm(folder: Path, *, bend: float = 0.0) -> None:
    rows = []
    for name, camera in cameras().items():
        rotation, _ = w2c(camera)
        x, y, z, w = Rotation.from_matrix(rotation).as_quat()
        numbers = [FOCAL, w, x, y, z, *camera.centre, bend, 0]
        rows.append(f"images/{name}.jpg\t" + " ".join(map(repr, map(float, numbers))))
    point = "0.1 0.2 0.3 10 20 30 1 0 5 1.0 2.0"
    (folder / "model.nvm").write_text("\n".join(["NVM_V3", "", str(len(rows)), *rows, "", "1", point, "", "0"]))


def mvsnet(folder: Path, *, scale: float = 1.0) -> None:
    (folder / "cams").mkdir()
    for k, (name, camera) in enumerate(cameras().items()):
        rotation, translation = w2c(camera)
        rows = [*[[*row, t] for row, t in zip(rotation, translation, strict=True)], [0, 0, 0, 1]]
        extrinsic = "\n".join(" ".join(map(repr, map(float, row))) for row in rows)
        intrinsic = f"{FOCAL * scale} 0 {CX * scale}\n0 {FOCAL * scale} {CY * scale}\n0 0 1"
        text = f"extrinsic\n{extrinsic}\n\nintrinsic\n{intrinsic}\n\n2.0 0.01 192 5.0\n"
        (folder / "cams" / f"{k:08d}_cam.txt").write_text(text)
        (folder / "images" / f"{name}.jpg").rename(folder / "images" / f"{k:08d}.jpg")


def llff(folder: Path) -> None:
    rows = []
    for camera in cameras().values():
        right, up, back = camera.c2w[:3, :3].T
        lens = np.array([HEIGHT, WIDTH, FOCAL])
        rows.append([*np.stack([-up, right, back, camera.centre, lens], axis=1).reshape(-1), 1.0, 5.0])
    np.save(folder / "poses_bounds.npy", np.array(rows))


def predictions(folder: Path) -> None:
    """VGGT's demo, with pictures 56 wide of whole patches of 14; the world is the first camera's."""
    wide, high = 56, 42  # 32 * 56 / 48 = 37.3, which is nearer to 42 than to 28
    poses = [c2w_opencv(camera) for camera in cameras().values()]
    relative = [np.linalg.inv(pose) @ poses[0] for pose in poses]
    k = [[FOCAL * wide / WIDTH, 0, CX * wide / WIDTH], [0, FOCAL * high / HEIGHT, CY * high / HEIGHT], [0, 0, 1]]
    depth = np.full((len(poses), high, wide, 1), 3.0, np.float32)
    np.savez(
        folder / "predictions.npz",
        extrinsic=np.stack(relative)[:, :3].astype(np.float32),
        intrinsic=np.tile(np.array(k, np.float32), (len(poses), 1, 1)),
        depth=depth,
        depth_conf=depth[..., 0],
        pose_enc_list=np.array(None, object),  # as the program leaves it
    )


# --- what all have in common ------------------------------------------------------------------------------------------

NUMBERED = {f"{k:08d}": camera for k, camera in enumerate(cameras().values())}
PLAIN = {str(k): camera for k, camera in enumerate(cameras().values())}
FIRST = c2w_opencv(next(iter(cameras().values())))
IN_THE_FIRST = {
    name: Camera(np.linalg.inv(FIRST) @ camera.c2w, FOCAL, FOCAL, CX, CY, WIDTH, HEIGHT)
    for name, camera in cameras().items()
}
"""The cameras in the world of the first one, in OpenCV's axes."""
WRITERS: dict[str, tuple[Callable[[Path], None], dict[str, Camera], bool]] = {
    "metashape": (metashape, cameras(), True),
    "realitycapture": (realitycapture_csv, cameras(), True),
    "realitycapture_xmp": (realitycapture_xmp, cameras(), True),
    "polycam": (polycam, cameras(), True),
    "record3d": (record3d, PLAIN, True),
    "opensfm": (opensfm, cameras(), True),
    "meshroom": (meshroom, cameras(), True),
    "openmvg": (openmvg, cameras(), True),
    "sdfstudio": (sdfstudio, cameras(), True),
    "nvm": (nvm, cameras(), False),
    "mvsnet": (mvsnet, NUMBERED, True),
    "llff": (llff, cameras(), False),
    "predictions": (predictions, IN_THE_FIRST, True),
}
UNNAMED = {"llff", "predictions"}
"""Formats that name no pictures."""


@pytest.mark.parametrize("kind", WRITERS)
def test_cameras_come_back(kind: str, capture: Path) -> None:
    write, true, principal = WRITERS[kind]
    write(capture)
    views = load_capture(capture)
    assert kind.startswith(views.metadata["format"])
    as_read(views, true, principal=principal)
    as_read(load_capture(capture, kind=kind), true, principal=principal)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_picture_costs_itself_only(kind: str, capture: Path) -> None:
    write, true, principal = WRITERS[kind]
    write(capture)
    lost = sorted(capture.rglob("*.jpg"))[1]
    lost.unlink()
    if kind in UNNAMED:  # nothing says which is missing
        with pytest.raises(InputError, match=r"5 cameras, and (pictures: 4 in images|4 photos in images/)"):
            load_capture(capture)
        return
    views = load_capture(capture)
    as_read(views, {name: camera for name, camera in true.items() if name != lost.stem}, principal=principal)
    assert any("1 of 5" in note for note in views.metadata["notes"])


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files_are_refused_in_words(kind: str, capture: Path) -> None:
    """Cut anywhere, or with numbers that are none: a sentence, or fewer views, never another error."""
    WRITERS[kind][0](capture)
    known = {".jpg"}
    file = next(p for p in sorted(capture.rglob("*")) if p.is_file() and p.suffix not in known)
    whole = file.read_bytes()
    draw = np.random.default_rng(0)
    for k in range(24):
        at = int(draw.integers(1, len(whole)))
        if k % 3 == 0:
            changed = whole[:at]
        elif k % 3 == 1:
            changed = whole[:at] + bytes(draw.integers(32, 127, 6, dtype=np.uint8)) + whole[at + 6 :]
        else:
            changed = whole.replace(b"0", [b"nan", b"-", b"1e999", b"null", b'"'][k % 5], 3)
        file.write_bytes(changed)
        with contextlib.suppress(InputError):
            views = load_capture(capture, kind=kind)
            assert all(np.isfinite(view.camera.c2w).all() for view in views)


def test_formats_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """JSON, XML and CSV of other programs are no captures."""
    folder = tmp_path / "toy"
    for k in range(3):
        picture(folder / "images" / f"{k}.jpg", 40 * k)
    (folder / "report.xml").write_text("<document><other/></document>")
    (folder / "table.csv").write_text("name,x,y\na,1,2\n")
    (folder / "metadata.json").write_text('{"poses": "none"}')
    (folder / "images" / "0.xmp").write_text("<x:xmpmeta><crs:Exposure/></x:xmpmeta>")
    (folder / "reconstruction.json").write_text("[]")
    with pytest.raises(InputError, match="3 photos without poses"):
        load_capture(folder)


# --- each in particular -----------------------------------------------------------------------------------------------


def test_metashape_lenses_are_browns_with_the_tangential_terms_the_other_way_round(capture: Path) -> None:
    metashape(capture, lens="<k1>0.02</k1><k2>-0.01</k2><k4>0.001</k4><p1>0.003</p1><p2>-0.002</p2>")
    (one, *_) = load_capture(capture)
    assert one.undistortion is not None
    assert one.undistortion.lens == Lens(k1=0.02, k2=-0.01, p1=-0.002, p2=0.003, r8=0.001)


def test_metashape_cameras_that_were_not_aligned_are_told(capture: Path) -> None:
    metashape(capture, drop=2)
    views = load_capture(capture)
    assert len(views) == 4
    assert "1 of 5 cameras were not aligned and were left out" in views.metadata["notes"]


def test_metashape_chunks_have_a_scale_and_a_turn_of_their_own(capture: Path) -> None:
    turn = " ".join(map(repr, Rotation.from_euler("x", 70, degrees=True).as_matrix().reshape(-1).tolist()))
    where = "<translation>4e6 5e5 4.8e6</translation>"
    metashape(capture, chunk=f"<transform><rotation>{turn}</rotation>{where}<scale>2.5</scale></transform>")
    views = load_capture(capture)
    as_read(views, cameras())
    apart = np.linalg.norm(views.views[0].camera.centre - views.views[2].camera.centre)
    true = list(cameras().values())
    assert apart == pytest.approx(2.5 * np.linalg.norm(true[0].centre - true[2].centre))


def test_headings_are_clockwise_from_north(capture: Path) -> None:
    """A camera that looks level to the east: heading 90, pitch 90."""
    realitycapture_csv(capture)
    lines = (capture / "cameras.csv").read_text().splitlines()
    row = lines[1].split(",")
    row[4:7] = ["90", "90", "0"]
    (capture / "cameras.csv").write_text("\n".join([lines[0], ",".join(row), *lines[2:]]))
    (first, *_) = load_capture(capture)
    assert first.camera.forward == pytest.approx([1, 0, 0], abs=1e-9)
    assert first.camera.c2w[:3, 1] == pytest.approx([0, 0, 1], abs=1e-9)


def test_the_largest_of_several_reconstructions_counts(capture: Path) -> None:
    opensfm(capture, split=True)
    views = load_capture(capture)
    as_read(views, cameras())
    assert any("of 2 separate reconstructions the largest" in note for note in views.metadata["notes"])
    assert views.points == pytest.approx(np.array([[0.1, 0.2, 0.3]]))


def test_meshroom_of_older_and_newer_versions(capture: Path) -> None:
    meshroom(capture, old=True)
    as_read(load_capture(capture), cameras())
    meshroom(capture, drop=True)
    views = load_capture(capture)
    assert len(views) == 4
    assert "1 of 5 pictures have no pose and were left out" in views.metadata["notes"]


def test_the_box_of_sdfstudio_is_the_region(capture: Path) -> None:
    sdfstudio(capture)
    region = load_capture(capture).metadata["region"]
    assert region["centre"] == pytest.approx([0, 0, 0], abs=1e-9)
    assert region["radius"] == pytest.approx(0.4 * math.sqrt(3))


def test_masks_of_sdfstudio_lie_in_the_capture(capture: Path) -> None:
    sdfstudio(capture)
    content = json.loads((capture / "meta_data.json").read_text())
    for k, frame in enumerate(content["frames"]):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[8:24, 10:38] = 255
        Image.fromarray(mask).save(capture / f"mask{k}.png")
        frame["foreground_mask"] = f"mask{k}.png"
    (capture / "meta_data.json").write_text(json.dumps(content))
    views = load_capture(capture)
    assert views.has_masks
    assert np.array_equal(views.views[0].rgba()[..., 3] == 255, mask == 255)
    picture(capture.parent / "secret.png", 9)
    content["frames"][0]["foreground_mask"] = "../secret.png"
    (capture / "meta_data.json").write_text(json.dumps(content))
    views = load_capture(capture)
    assert len(views) == 4
    assert any("leaves the capture folder" in note for note in views.metadata["notes"])


@pytest.mark.parametrize("kind", ["meshroom", "openmvg", "opensfm"])
def test_keys_of_any_type_are_no_errors_of_ours(kind: str, capture: Path) -> None:
    """JSON has lists where these files have numbers."""
    WRITERS[kind][0](capture)
    (file,) = [path for path in capture.iterdir() if path.is_file()]
    text = file.read_text()
    changed = {"meshroom": '"poseId": "1"', "openmvg": '"id_pose": 1', "opensfm": '"camera": "c"'}[kind]
    file.write_text(text.replace(changed, changed.split(":")[0] + ": [1]", 1))
    views = load_capture(capture, kind=kind)
    assert len(views) == 4
    assert any("1 of 5" in note for note in views.metadata["notes"])


def test_counts_that_are_none_are_refused(capture: Path) -> None:
    nvm(capture)
    text = (capture / "model.nvm").read_text()
    for count in ("9" * 5000, "\u00b2", "-1", "x"):
        (capture / "model.nvm").write_text(text.replace("\n5\n", f"\n{count}\n"), encoding="utf-8")
        with pytest.raises(InputError, match="where a count should be"):
            load_capture(capture, kind="nvm")


def test_visualsfm_undoes_lenses_by_the_other_sign(capture: Path) -> None:
    nvm(capture, bend=0.04)
    views = load_capture(capture)
    assert views.views[0].undistortion is not None
    assert views.views[0].undistortion.lens == Lens(k1=-0.04)
    assert views.points is not None
    assert views.points.shape == (1, 3)


def test_calibrations_of_reduced_pictures_fit_larger_ones(capture: Path) -> None:
    mvsnet(capture, scale=0.25)
    views = load_capture(capture)
    as_read(views, NUMBERED)
    assert any("intrinsics were scaled by 4" in note for note in views.metadata["notes"])
