"""Cut-outs by a network that tells red from the rest, by the shipped one, and who is asked in which order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.diffusion.preparation import cutout
from pipeline.diffusion.preparation.cutout import (
    CutOut,
    cut_out,
    cut_out_by_rembg,
    find_object,
    finder_files,
    fitted_to_edges,
    load_segmenter,
    object_probability,
    rembg_model,
    segmenter_folder,
)
from pipeline.diffusion.preparation.segmenter import SegmenterModel
from scene.errors import CheckpointError, InputError, MissingBackendError, ViewloomError
from scene.metrics import mask_iou

GREY = (90, 120, 110)


class RedIsObject(SegmenterModel):
    """Stands in for a trained network."""

    def __init__(self, sureness: float = 60.0) -> None:
        super().__init__(image_size=64, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), fine_channels=4)
        self.sureness, self.calls = sureness, 0

    def forward(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        redness = rgb[:, :1] - rgb[:, 1:].amax(dim=1, keepdim=True)
        return (redness - 0.2) * self.sureness, rgb[:, :1, ::8, ::8]


def disc(height: int, width: int, radius: float, centre: tuple[float, float]) -> np.ndarray:
    """Pixels within a radius of a centre (row, column)."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) < radius


def painted(mask: np.ndarray, noise: float = 4.0) -> np.ndarray:
    """A red object on grey, with grain."""
    rng = np.random.default_rng(0)
    picture = np.where(mask[..., None], (210, 40, 35), GREY) + rng.normal(0, noise, (*mask.shape, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(300, 420), (700, 500), (90, 64)])
def test_the_alpha_has_the_size_and_the_outline_of_the_photo(shape: tuple[int, int]) -> None:
    truth = disc(*shape, 0.3 * min(shape), (0.55 * shape[0], 0.4 * shape[1]))
    found = cut_out(painted(truth), RedIsObject())
    assert found.alpha.shape == shape
    assert found.alpha.dtype == np.uint8
    assert mask_iou(found.alpha >= 128, truth) > 0.97
    assert found.warnings == ()
    assert 0.9 < found.confidence <= 1


def test_the_same_photo_gives_the_same_alpha() -> None:
    picture = painted(disc(120, 160, 40, (60, 80)))
    assert np.array_equal(cut_out(picture, RedIsObject()).alpha, cut_out(picture, RedIsObject()).alpha)


def test_small_objects_are_looked_at_twice_and_large_ones_once() -> None:
    small, large = RedIsObject(), RedIsObject()
    truth = disc(400, 400, 30, (120, 280))
    found = object_probability(painted(truth), small)
    object_probability(painted(disc(400, 400, 190, (200, 200))), large)
    assert (small.calls, large.calls) == (2, 1)
    # One look at 64 pixels has 6 photo pixels to each of its own.
    assert mask_iou(found > 0.5, truth) > 0.9


def test_a_blurred_mask_is_drawn_to_the_edge() -> None:
    truth = disc(400, 400, 120, (200, 200))
    soft = cv2.GaussianBlur(cv2.resize(truth.astype(np.float32), (200, 200), interpolation=cv2.INTER_AREA), (0, 0), 3)
    mask = fitted_to_edges(soft, painted(truth))
    plain = cv2.resize(soft, (400, 400))
    assert mask.shape == truth.shape
    assert np.abs(mask - truth).mean() < 0.3 * np.abs(plain - truth).mean()


def test_specks_and_pinholes_go_and_holes_stay() -> None:
    truth = disc(300, 300, 100, (150, 150)) & ~disc(300, 300, 30, (150, 150))
    dirty = truth | disc(300, 300, 4, (20, 20))
    dirty &= ~disc(300, 300, 2, (150, 215))
    mask = cutout._tidied(dirty.astype(np.float32))
    assert np.array_equal(mask > 0.5, truth)


def test_several_objects_are_kept() -> None:
    truth = disc(200, 300, 40, (100, 80)) | disc(200, 300, 45, (100, 220))
    found = cut_out(painted(truth), RedIsObject())
    assert mask_iou(found.alpha >= 128, truth) > 0.95


def test_letterbox_bars_are_left_out() -> None:
    """Red bars: what looks like the object there is none of the picture."""
    truth = disc(200, 300, 60, (100, 140))
    picture = painted(truth)
    wide = np.zeros((280, 300, 3), np.uint8)
    wide[:] = (210, 40, 35)
    wide[40:240] = picture
    found = cut_out(wide, RedIsObject())
    assert found.alpha.shape == (280, 300)
    assert not found.alpha[:40].any()
    assert not found.alpha[240:].any()
    assert mask_iou(found.alpha[40:240] >= 128, truth) > 0.97


def test_objects_at_the_border_are_cut_there() -> None:
    truth = disc(200, 200, 80, (200, 100))
    found = cut_out(painted(truth), RedIsObject())
    assert mask_iou(found.alpha >= 128, truth) > 0.97
    assert (found.alpha[-1, 30:170] > 200).all()


def test_an_unsure_model_says_so() -> None:
    truth = disc(200, 200, 60, (100, 100))
    sure, unsure = (cut_out(painted(truth), RedIsObject(s)) for s in (60.0, 2.0))
    assert unsure.confidence < cutout.UNSURE < sure.confidence
    assert len(unsure.warnings) == 1
    assert "uncertain" in unsure.warnings[0]


@pytest.mark.parametrize(
    "picture",
    [
        np.full((1, 1, 3), 200, np.uint8),
        np.full((300, 2, 3), 200, np.uint8),
        np.full((60, 60, 3), 90, np.uint8),
        np.broadcast_to(np.array((210, 40, 35), np.uint8), (60, 60, 3)).copy(),
    ],
    ids=["one pixel", "a line", "nothing", "nothing else"],
)
def test_photos_without_an_object_are_refused(picture: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"no object stands out.*--mask"):
        cut_out(picture, RedIsObject())


# --- who is asked -----------------------------------------------------------------------------------------------------

PHOTO_TRUTH = disc(100, 120, 30, (50, 60))
PHOTO = painted(PHOTO_TRUTH)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """All three ways are there, and leave their own mark in the alpha; an error in place of a mark is raised."""
    marks: dict[str, int | Exception] = {"rembg": 11, "nano": 22, "grabcut": 33}

    def made(name: str) -> np.ndarray:
        mark = marks[name]
        if isinstance(mark, Exception):
            raise mark
        return np.full((100, 120), mark, np.uint8)

    state = SimpleNamespace(marks=marks, model="u2net", folder=tmp_path)
    monkeypatch.setattr(cutout, "rembg_model", lambda: state.model)
    monkeypatch.setattr(cutout, "segmenter_folder", lambda: state.folder)
    monkeypatch.setattr(cutout, "load_segmenter", lambda _: RedIsObject())
    monkeypatch.setattr(cutout, "cut_out_by_rembg", lambda *_: CutOut(made("rembg"), 1.0, ()))
    monkeypatch.setattr(cutout, "cut_out", lambda *_: CutOut(made("nano"), 0.5, ("Its own warning.",)))
    monkeypatch.setattr(cutout, "segment_object", lambda *_: made("grabcut"))
    return state


def test_the_best_way_that_is_there_is_taken(ways: SimpleNamespace) -> None:
    for mark, said in ((11, "rembg (u2net)"), (22, "the nano segmenter"), (33, "by colour (GrabCut)")):
        found = find_object(PHOTO)
        assert (found.alpha == mark).all()
        assert said in found.warnings[0]
        assert "--mask" in found.warnings[0]
        if mark == 11:
            ways.model = None
        else:
            assert ("Its own warning." in found.warnings) == (mark == 22)
            ways.folder = None


@pytest.mark.parametrize(("way", "mark"), [("rembg", 11), ("nano", 22), ("grabcut", 33)])
def test_a_way_that_was_asked_for_is_taken(ways: SimpleNamespace, way: str, mark: int) -> None:
    assert (find_object(PHOTO, way).alpha == mark).all()  # type: ignore[arg-type]


def test_ways_that_fail_are_passed_over_and_told(ways: SimpleNamespace) -> None:
    ways.marks["rembg"] = ViewloomError("rembg failed with its model u2net (no memory)")
    found = find_object(PHOTO)
    alpha, warnings = found.alpha, found.warnings
    assert (alpha == 22).all()
    assert any("rembg was passed over: rembg failed" in line for line in warnings)
    ways.marks["nano"] = InputError("no object stands out")
    found = find_object(PHOTO)
    alpha, warnings = found.alpha, found.warnings
    assert (alpha == 33).all()
    assert "GrabCut" in warnings[0]
    assert "The nano segmenter found no object." in warnings
    ways.marks["grabcut"] = InputError("no object stands out from the background")
    with pytest.raises(InputError, match="no object stands out from the background"):
        find_object(PHOTO)


@pytest.mark.parametrize("way", ["rembg", "nano"])
def test_ways_that_were_asked_for_fail_loudly(ways: SimpleNamespace, way: str) -> None:
    ways.marks[way] = InputError("no object stands out")
    with pytest.raises(InputError, match="no object stands out"):
        find_object(PHOTO, way)  # type: ignore[arg-type]


def test_missing_ways_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cutout, "rembg_model", lambda: None)
    monkeypatch.setattr(cutout, "shipped", lambda _: tmp_path)
    with pytest.raises(MissingBackendError, match=r"rembg.*--prepare\.cutout"):
        find_object(PHOTO, "rembg")
    with pytest.raises(CheckpointError):
        find_object(PHOTO, "nano")
    assert segmenter_folder() is None
    assert finder_files("auto") == (None, [])
    found = find_object(PHOTO)
    alpha, warnings = found.alpha, found.warnings
    assert mask_iou(alpha >= 128, PHOTO_TRUTH) > 0.95
    assert len(warnings) == 1


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without models of rembg."""
    for name in ("U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def touched(path: Path) -> Path:
    """A file that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_rembg_is_used_with_a_model_on_the_disk_only(monkeypatch: pytest.MonkeyPatch, no_models: Path) -> None:
    monkeypatch.setenv("U2NET_HOME", str(no_models))
    monkeypatch.setattr(cutout, "optional_module", lambda _: SimpleNamespace())
    assert rembg_model() is None
    touched(no_models / "u2netp.onnx")
    assert rembg_model() == "u2netp"
    touched(no_models / "u2net.onnx")
    assert rembg_model() == "u2net"
    monkeypatch.setattr(cutout, "optional_module", lambda _: None)
    assert rembg_model() is None


@pytest.mark.parametrize(
    ("home", "place"),
    [
        ({}, ".u2net/u2net.onnx"),
        ({}, ".rembg/models/u2net/u2net.onnx"),
        ({"XDG_DATA_HOME": "~/data"}, "data/.u2net/u2net.onnx"),
        ({"XDG_DATA_HOME": "~/data"}, "data/rembg/models/u2net/u2net.onnx"),
        ({"REMBG_HOME": "~/here"}, "here/models/u2net/u2net.onnx"),
        ({"REMBG_HOME": "~/here"}, ".u2net/u2net.onnx"),
        ({"U2NET_HOME": "~/there", "REMBG_HOME": "~/here"}, "there/u2net.onnx"),
        ({"U2NET_HOME": "~/there", "REMBG_HOME": "~/here"}, "there/models/u2net/u2net.onnx"),
    ],
)
def test_models_are_found_where_old_and_new_releases_of_rembg_keep_them(
    monkeypatch: pytest.MonkeyPatch, no_models: Path, home: dict[str, str], place: str
) -> None:
    for name, value in home.items():
        monkeypatch.setenv(name, value)
    assert cutout._rembg_file("u2net") is None
    path = touched(no_models / place)
    assert cutout._rembg_file("u2net") == path


class U2net:
    """As much of a session of rembg as is used; reads the file that it is told of."""

    def __init__(self, name: str, options: SimpleNamespace) -> None:
        assert (name, options.intra_op_num_threads) == ("u2net", torch.get_num_threads())
        self.path = Path(self.download_models())
        if self.path.read_bytes() != b"whole":
            raise ValueError("Protobuf parsing failed")

    @classmethod
    def name(cls) -> str:
        return "u2net"

    @classmethod
    def download_models(cls) -> str:
        """What rembg does with a file of another checksum."""
        raise AssertionError("the network was used")


@pytest.fixture
def rembg(monkeypatch: pytest.MonkeyPatch, no_models: Path) -> Path:
    """rembg is there, and a model of it; the model's file."""

    def remove(image: Image.Image, *, session: U2net, only_mask: bool) -> Image.Image:
        assert (session.path, only_mask, image.size) == (model, True, (120, 100))
        if np.asarray(image).std() < 1:
            raise RuntimeError("no memory")
        return Image.fromarray(np.where(PHOTO_TRUTH, 255, 0).astype(np.uint8))

    model = no_models / ".u2net" / "u2net.onnx"
    touched(model).write_bytes(b"whole")
    modules = {
        "rembg": SimpleNamespace(
            remove=remove,
            new_session=lambda name: U2net(name, SimpleNamespace(intra_op_num_threads=torch.get_num_threads())),
            sessions=SimpleNamespace(sessions_class=[SimpleNamespace(name=lambda: "isnet"), U2net]),
        ),
        "onnxruntime": SimpleNamespace(SessionOptions=lambda: SimpleNamespace(intra_op_num_threads=0)),
    }
    monkeypatch.setattr(cutout, "optional_module", modules.get)
    return model


def test_rembg_is_asked_for_a_mask(rembg: Path) -> None:
    found = cut_out_by_rembg(PHOTO, "u2net")
    assert np.array_equal(found.alpha >= 128, PHOTO_TRUTH)
    assert found.confidence == 1
    with pytest.raises(ViewloomError, match=r"model u2net \(no memory\)"):
        cut_out_by_rembg(np.zeros_like(PHOTO), "u2net")


def test_a_damaged_model_of_rembg_is_passed_over_and_not_downloaded_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rembg: Path
) -> None:
    rembg.write_bytes(b"who")
    monkeypatch.setattr(cutout, "shipped", lambda _: tmp_path)
    found = find_object(PHOTO)
    alpha, warnings = found.alpha, found.warnings
    assert mask_iou(alpha >= 128, PHOTO_TRUTH) > 0.95
    assert "GrabCut" in warnings[0]
    assert "rembg was passed over: rembg failed with its model u2net (Protobuf parsing failed)." in warnings
    with pytest.raises(ViewloomError, match="Protobuf parsing failed"):
        find_object(PHOTO, "rembg")


# --- the shipped weights ----------------------------------------------------------------------------------------------

shipped_only = pytest.mark.skipif(segmenter_folder() is None, reason="no segmenter is shipped")


@shipped_only
@pytest.mark.parametrize("colour", [(190, 50, 40), (40, 90, 160), (235, 200, 60)])
def test_the_shipped_weights_cut_out_an_easy_photo(colour: tuple[int, int, int]) -> None:
    """A shaded ball on a light table with its shadow."""
    height, width = 300, 360
    truth = disc(height, width, 85, (160, 180))
    y, x = np.mgrid[:height, :width]
    shade = np.clip(1.1 - 0.003 * np.hypot(y - 110, x - 140), 0.35, 1.1)
    picture = np.full((height, width, 3), (228, 226, 222), np.float32)
    shadow = cv2.GaussianBlur(((x - 190) ** 2 / 90**2 + (y - 242) ** 2 / 14**2 < 1).astype(np.float32), (0, 0), 8)
    picture *= (1 - 0.5 * shadow)[..., None]
    picture[truth] = (np.array(colour) * shade[..., None])[truth]
    folder = segmenter_folder()
    assert folder is not None
    found = cut_out(np.clip(picture, 0, 255).astype(np.uint8), load_segmenter(folder))
    assert mask_iou(found.alpha >= 128, truth) > 0.9


@shipped_only
def test_the_shipped_segmenter_is_what_cut_outs_depend_on() -> None:
    rembg, files = finder_files("nano")
    assert rembg is None
    assert [path.name for path in files] == ["diffusion_pytorch_model.safetensors"]
    assert finder_files("grabcut") == (None, [])


@shipped_only
def test_the_shipped_weights_cut_objects_at_the_border_and_keep_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout, "rembg_model", lambda: None)
    at_border = disc(300, 400, 120, (240, 200))
    several = disc(300, 400, 60, (150, 110)) | disc(300, 400, 60, (150, 290))
    for truth, places in ((at_border, ((295, 200), (240, 90), (240, 310))), (several, ((150, 110), (150, 290)))):
        found = find_object(painted(truth))
        alpha, warnings = found.alpha, found.warnings
        assert mask_iou(alpha >= 128, truth) > 0.9
        assert all(alpha[place] > 200 for place in places)
        assert "the nano segmenter" in warnings[0]


@shipped_only
@pytest.mark.parametrize("kind", ["one pixel", "a line", "plain", "noise"])
def test_no_way_finds_an_object_where_there_is_none(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout, "rembg_model", lambda: None)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    shapes = {"one pixel": (1, 1, 3), "a line": (3, 400, 3), "plain": (300, 400, 3)}
    with pytest.raises(InputError, match=r"no object stands out.*--mask"):
        find_object(noise if kind == "noise" else np.full(shapes[kind], 150, np.uint8))
