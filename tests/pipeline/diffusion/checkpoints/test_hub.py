"""From names to files: the network is for hub ids only, and code is never fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from pipeline.diffusion.checkpoints.hub import is_hub_id, local_checkpoint, local_part, wanted_files, wanted_part_files
from scene.errors import CheckpointError

STEM = "diffusion_pytorch_model"


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any use of the hub fails the test."""
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: pytest.fail("the network was used"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the network was used"))


def test_paths_never_reach_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch)
    (tmp_path / "a.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    for path in (tmp_path, tmp_path / "a.ckpt", "owner/name", Path("owner/name")):
        assert local_checkpoint(path) == Path(path)
        assert local_part(path) == Path(path)
    for wrong in (tmp_path / "none", "./owner/none", "../x/y", "a/b/c", "name", "model.ckpt", r"C:\a\b", "~/models"):
        for find in (local_checkpoint, local_part):
            with pytest.raises(CheckpointError, match="there is no such checkpoint"):
                find(wrong)


@pytest.mark.parametrize("name", ["kxic/zero123-xl", "stabilityai/stable-zero123", "sudo-ai/zero123plus-v1.2"])
def test_names_of_the_hub_are_recognised(name: str) -> None:
    assert is_hub_id(name)
    assert is_hub_id(Path(name))


def test_only_what_is_read_is_fetched_and_never_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        ".gitattributes",
        "README.md",
        "model_index.json",
        "pipeline.py",
        "feature_extractor/preprocessor_config.json",
    ]
    names += [
        "clip_camera_projection/zero123.py",
        "clip_camera_projection/config.json",
        "scheduler/scheduler_config.json",
    ]
    for part in ("unet", "vae", "clip_camera_projection"):
        names += [f"{part}/config.json", *(f"{part}/{STEM}{v}.safetensors" for v in ("", ".fp16", ".fp16_ema"))]
    names += ["image_encoder/config.json", "image_encoder/model.safetensors", "image_encoder/pytorch_model.bin"]
    names += ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    asked: dict[str, object] = {}

    def download(name: str, **how: object) -> str:
        asked.update(how, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda _, name: names)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert local_checkpoint("owner/name") == tmp_path
    wanted = asked["allow_patterns"]
    assert wanted == wanted_files(names)
    assert set(wanted) == {
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        *(f"{part}/config.json" for part in ("unet", "vae", "clip_camera_projection")),
        *(f"{part}/{STEM}.fp16_ema.safetensors" for part in ("unet", "vae", "clip_camera_projection")),
    }


def test_repositories_of_one_file_and_of_several() -> None:
    assert wanted_files([".gitattributes", "README.md", "stable_zero123.ckpt"]) == ["README.md", "stable_zero123.ckpt"]
    with pytest.raises(CheckpointError, match=r"2 single checkpoints: 105000\.ckpt, 165000\.ckpt.*Download one"):
        wanted_files(["105000.ckpt", "165000.ckpt", "README.md"])
    with pytest.raises(CheckpointError, match=r"neither model_index\.json nor a single checkpoint"):
        wanted_files(["README.md"])


def variants(part: str, stem: str, names: tuple[str, ...]) -> list[str]:
    """Weights in both formats."""
    return [f"{part}{stem}{name}.{ending}" for name in names for ending in ("bin", "safetensors")]


def test_of_stable_diffusion_its_parts_are_fetched_and_not_the_single_files_beside_them() -> None:
    singles = [f"v1-5-pruned{name}.{ending}" for name in ("", "-emaonly") for ending in ("ckpt", "safetensors")]
    tokenizer = [f"tokenizer/{name}" for name in ("merges.txt", "special_tokens_map.json", "vocab.json")]
    names = [".gitattributes", "README.md", "model_index.json", "v1-inference.yaml", *singles, *tokenizer]
    names += ["scheduler/scheduler_config.json", "feature_extractor/preprocessor_config.json"]
    names += [f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "safety_checker")]
    names += variants("unet/", STEM, ("", ".fp16", ".non_ema")) + variants("vae/", STEM, ("", ".fp16"))
    for part in ("text_encoder", "safety_checker"):
        names += [f"{part}/{kind}" for kind in ("pytorch_model.bin", "model.safetensors", "model.fp16.safetensors")]
    assert set(wanted_files(names)) == {
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        *tokenizer,
        *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
        *(f"{part}/{STEM}.safetensors" for part in ("unet", "vae")),
        "text_encoder/model.safetensors",
    }


def test_controlnets_are_fetched_with_editors_of_our_own_and_not_with_other_checkpoints() -> None:
    own = ["model_index.json", "scheduler/scheduler_config.json"]
    own += [f"{part}/{name}" for part in ("unet", "controlnet") for name in ("config.json", f"{STEM}.safetensors")]
    beside = [".gitattributes", "curve.csv", "training.json", "controlnet/train.py"]
    assert wanted_files([*own, *beside]) == sorted(own)
    for encoder in ("text_encoder", "image_encoder", "vision_encoder"):
        public = [*own, f"{encoder}/config.json", f"{encoder}/model.safetensors"]
        assert wanted_files(public) == sorted(name for name in public if not name.startswith("controlnet/"))


def test_of_a_repository_of_one_part_one_set_of_weights_is_fetched_and_never_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [".gitattributes", "README.md", "config.json", "control_net_open_pose.py", "images/control.png", "sd.png"]
    names += [*variants("", STEM, ("", ".fp16")), "images/config.json"]
    asked: dict[str, object] = {}

    def download(name: str, **how: object) -> str:
        asked.update(how, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda _, name: names)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert local_part("owner/name") == tmp_path
    assert asked == {"name": "owner/name", "allow_patterns": ["README.md", "config.json", f"{STEM}.safetensors"]}


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        (["diffusion_pytorch_model.bin"], ["diffusion_pytorch_model.bin"]),
        (variants("", STEM, (".fp16",)), [f"{STEM}.fp16.safetensors"]),
        ([f"{STEM}-0000{k}-of-00002.safetensors" for k in (1, 2)],) * 2,
    ],
    ids=["pickle", "half precision", "shards"],
)
def test_whatever_set_a_part_has_is_taken(weights: list[str], chosen: list[str]) -> None:
    assert wanted_part_files(["config.json", *weights]) == ["config.json", *sorted(chosen)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model_index.json", "unet/config.json"], "owner/name on the hub: is a whole checkpoint"),
        (["config.json", "README.md"], r"does not hold config\.json and weights of one part"),
        (["control_sd15_openpose.pth", f"{STEM}.safetensors"], r"does not hold config\.json and weights"),
    ],
)
def test_repositories_that_are_no_part_say_so(monkeypatch: pytest.MonkeyPatch, names: list[str], message: str) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_: names)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("it was fetched"))
    with pytest.raises(CheckpointError, match=message):
        local_part("owner/name")


class Answer:
    """As much of an answer of the hub as its errors need."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.request, self.status_code = None, 404


def failing(error: Exception) -> object:
    """A call that fails so."""

    def call(*_: object, **__: object) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled."),
            "cannot be reached .*offline mode",
        ),
        (ConnectionError("Name or service not known\nmore"), r"cannot be reached \(Name or service not known\)"),
        (TimeoutError(), r"cannot be reached \(TimeoutError\)"),
        (errors.RepositoryNotFoundError("404", response=Answer()), "no public repository of that name.*spelling"),  # type: ignore[arg-type]
        (errors.GatedRepoError("403", response=Answer()), "accepted its licence.*log in"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_fetched_says_why(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", failing(error))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(errors.LocalEntryNotFoundError("nothing cached")))
    with pytest.raises(CheckpointError, match=f"owner/name: there is no folder owner/name here, and .*{message}"):
        local_checkpoint("owner/name")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_cache(root: Path, held: list[str], listed: list[str]) -> Path:
    """A snapshot as the hub's library leaves it, with its list of all files of the repository; its folder."""
    store = root / "models--owner--name"
    for name in held:
        path = store / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    for folder in ("refs", "trees"):
        (store / folder).mkdir()
    (store / "refs" / "main").write_text(COMMIT)
    entries = {name: {"size": 2, "blob_id": "0" * 40} for name in (*held, *listed)}
    (store / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": entries}))
    return store / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("find", "held", "left_out"),
    [
        (local_checkpoint, ["model_index.json", "unet/config.json"], ["pipeline.py", "unet/other.bin", "config.json"]),
        (local_checkpoint, ["stable_zero123.ckpt"], [".gitattributes", "picture.png"]),
        (local_part, ["config.json", f"{STEM}.safetensors"], ["control.py", f"{STEM}.fp16.safetensors"]),
    ],
    ids=["folders", "a single file", "a part"],
)
def test_without_a_network_the_cache_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[[str], Path], held: list[str], left_out: list[str]
) -> None:
    """Not all of a repository is ever downloaded; what was is enough."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", failing(ConnectionError("no route")))
    snapshot = write_cache(tmp_path, held, left_out)
    assert find("owner/name").resolve() == snapshot.resolve()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (errors.LocalEntryNotFoundError("An error happened on the way\nmore"), "An error happened"),
    ],
)
def test_a_download_that_breaks_off_says_so_whatever_the_cache_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def download(_: str, *, local_files_only: bool = False, **__: object) -> str:
        if local_files_only:
            return str(tmp_path)
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_: ["model_index.json"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    message = rf"owner/name on the hub: the download broke off \(.*{said}.*\)\. Run it again; it continues\."
    with pytest.raises(CheckpointError, match=message):
        local_checkpoint("owner/name")


def test_a_licence_that_is_asked_for_at_the_download_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of such a repository can be listed by anyone."""
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_: ["model_index.json"])
    refused = errors.GatedRepoError("403", response=Answer())  # type: ignore[arg-type]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(refused))
    with pytest.raises(CheckpointError, match=r"accepted its licence.*log in"):
        local_checkpoint("owner/name")
