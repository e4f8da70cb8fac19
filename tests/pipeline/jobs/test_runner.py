"""Stages with a memory: what is kept, what is redone, and what a killed job leaves behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.item_lock import owner
from pipeline.jobs.runner import Runner, digest_of, digest_of_file, digest_of_folder
from pipeline.jobs.settings import Image2MeshSettings, settings_as_dict
from scene.errors import InputError, OutputError

KILLED = Path(__file__).with_name("killed.py")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
Tree = Callable[[Path], dict[str, bytes]]


def write(text: str) -> Callable[[Path], None]:
    """A stage that writes two files."""

    def action(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "deep" / "b.txt").write_text(text * 2)

    return action


@dataclass(frozen=True)
class Made:
    """A stage made of a name, a key and an action; its result is its first file."""

    name: str
    key: Any
    run: Callable[[Path], None]

    def load(self, folder: Path) -> str:
        return (folder / "a.txt").read_text()


def must_not_run(folder: Path) -> None:
    raise AssertionError("a kept stage ran")


# --- keeping ----------------------------------------------------------------------------------------------------------


def test_a_stage_is_run_once(tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    first = Runner(tmp_path, lambda name, cached: told.append((name, cached)))
    run = first.run(Made("one", [1, "x"], write("hello")))
    assert (run.folder, run.cached) == (tmp_path / "one", False)
    assert run.seconds > 0
    assert (tmp_path / "one" / "deep" / "b.txt").read_text() == "hellohello"
    again = Runner(tmp_path, lambda name, cached: told.append((name, cached)))
    kept = again.run(Made("one", [1, "x"], must_not_run))
    assert (kept.folder, kept.key, kept.seconds, kept.cached) == (run.folder, run.key, 0.0, True)
    assert again.runs == [kept]
    assert told == [("one", False), ("one", True)]


@pytest.mark.parametrize("parts", [[2, "x"], ["1", "x"], [1], [1, "x", None], {"1": "x"}])
def test_another_key_redoes_the_stage(tmp_path: Path, parts: Any) -> None:
    old = Runner(tmp_path).run(Made("one", [1, "x"], write("old")))
    (old.folder / "more.txt").write_text("of the old result")
    new = Runner(tmp_path).run(Made("one", parts, write("new")))
    assert not new.cached
    assert new.key != old.key
    assert (new.folder / "a.txt").read_text() == "new"
    assert not (new.folder / "more.txt").exists()


def test_stages_with_the_same_parts_have_different_keys(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    assert runner.run(Made("one", [1], write("1"))).key != runner.run(Made("two", [1], write("2"))).key


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "stage.json").write_text(""),
        lambda folder: (folder / "stage.json").write_text("[]"),
        lambda folder: (folder / "stage.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "stage.json").write_text((folder / "stage.json").read_text()[:-20]),
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / "a.txt").write_text(""),
        lambda folder: (folder / "deep" / "b.txt").write_text("oldolD"),
    ],
    ids=["no stamp", "list", "bytes", "half stamp", "file gone", "file empty", "one letter"],
)
def test_a_damaged_result_is_redone(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    Runner(tmp_path).run(Made("one", [1], write("old")))
    damage(tmp_path / "one")
    run = Runner(tmp_path).run(Made("one", [1], write("old")))
    assert not run.cached
    assert (tmp_path / "one" / "a.txt").read_text() == "old"
    assert (tmp_path / "one" / "deep" / "b.txt").read_text() == "oldold"
    assert Runner(tmp_path).run(Made("one", [1], must_not_run)).cached


def test_files_that_others_add_do_not_matter(tmp_path: Path) -> None:
    Runner(tmp_path).run(Made("one", [1], write("old")))
    (tmp_path / "one" / "thumbnails.db").write_text("x")
    assert Runner(tmp_path).run(Made("one", [1], must_not_run)).cached


# --- failing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [InputError("no"), RuntimeError("no"), KeyboardInterrupt()])
def test_a_failing_stage_leaves_the_old_result_and_nothing_else(
    tmp_path: Path, error: BaseException, tree: Tree
) -> None:
    Runner(tmp_path).run(Made("one", [1], write("old")))
    before = tree(tmp_path)

    def fail(folder: Path) -> None:
        write("half")(folder)
        raise error

    runner = Runner(tmp_path)
    with pytest.raises(type(error)):
        runner.run(Made("one", [2], fail))
    assert runner.runs == []
    assert tree(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"one: cannot be written \(No space left.*Check free space"):
        Runner(tmp_path).run(Made("one", [1], fail))


@pytest.mark.parametrize("as_bytes", [False, True], ids=["text", "bytes"])
def test_a_file_elsewhere_that_cannot_be_read_is_not_the_output_folders_fault(tmp_path: Path, as_bytes: bool) -> None:
    weights = tmp_path / "elsewhere" / "weights.bin"

    def fail(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", os.fsencode(weights) if as_bytes else str(weights))

    with pytest.raises(InputError, match=r"weights\.bin: cannot be read \(Permission denied\)") as caught:
        Runner(tmp_path / "out").run(Made("one", [1], fail))
    assert caught.value.where == str(weights)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", [".one.ME.part/deep/a.txt", ".one.ME.part", "one/a.txt", ".one.ME.old", ""])
def test_a_file_of_the_stage_that_cannot_be_written_is(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out" / name.replace("ME", owner())))

    with pytest.raises(OutputError, match=r"one: cannot be written \(Permission denied\)"):
        Runner(Path("out")).run(Made("one", [1], fail))


def test_a_full_disk_elsewhere_is_named(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "cache" / "x"))

    with pytest.raises(OutputError, match=r"cache.x: cannot be written \(No space left"):
        Runner(tmp_path / "out").run(Made("one", [1], fail))


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        Runner(tmp_path / "taken").run(Made("one", [1], write("x")))
    with pytest.raises(OutputError, match="cannot be written"):
        Runner(tmp_path).run(Made("taken", [1], write("x")))
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_folder_that_no_stage_wrote_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"views: holds files of another origin\. Choose another output folder"):
        Runner(tmp_path).run(Made("views", [1], must_not_run))
    assert (tmp_path / "views" / "mine.txt").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert Runner(tmp_path).run(Made("empty", [1], write("x"))).folder == tmp_path / "empty"


# --- tampered with ----------------------------------------------------------------------------------------------------


def stamped(folder: Path, files: dict[str, str]) -> None:
    """The stamp with other files."""
    stamp = json.loads((folder / "stage.json").read_text())
    (folder / "stage.json").write_text(json.dumps({**stamp, "files": files}))


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_link(path: Path) -> None:
    target = path.parent.parent / "elsewhere.txt"
    path.rename(target)
    path.symlink_to(target)


DIGEST = hashlib.sha256(b"old").hexdigest()
TAMPERED: dict[str, Callable[[Path], None]] = {
    "no files in the stamp": lambda folder: stamped(folder, {}),
    "a list of files": lambda folder: stamped(folder, ["a.txt"]),  # type: ignore[arg-type]
    "a file that leads outside": lambda folder: stamped(folder, {"../one/a.txt": DIGEST}),
    "a file of the root": lambda folder: stamped(folder, {str(folder / "a.txt"): DIGEST}),
    "a deep stamp": lambda folder: (folder / "stage.json").write_text("[" * 100_000) and None,
    "a folder for a file": lambda folder: replaced_by_a_folder(folder / "a.txt"),
    "a folder for the stamp": lambda folder: replaced_by_a_folder(folder / "stage.json"),
    "a pipe for a file": lambda folder: replaced_by_a_pipe(folder / "a.txt"),
    "a pipe for the stamp": lambda folder: replaced_by_a_pipe(folder / "stage.json"),
    "a link to elsewhere": lambda folder: replaced_by_a_link(folder / "a.txt"),
    "exchanged files": lambda folder: (folder / "a.txt").write_text("oldold") and None,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("damage", TAMPERED.values(), ids=TAMPERED)
def test_a_folder_that_was_tampered_with_is_made_again_or_refused(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    Runner(tmp_path).run(Made("one", [1], write("old")))
    damage(tmp_path / "one")
    try:
        run = Runner(tmp_path).run(Made("one", [1], write("old")))
    except OutputError as error:
        assert "holds files of another origin" in str(error)  # noqa: PT017 - only a stamp that is gone ends so
        assert not (tmp_path / "one" / "stage.json").is_file()
    else:
        assert not run.cached
        assert (tmp_path / "one" / "a.txt").read_text() == "old"
        assert not (tmp_path / "one" / "a.txt").is_symlink()


def test_a_result_that_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    class Read(Made):
        def load(self, folder: Path) -> str:
            if (folder / "a.txt").read_text() == "old":
                raise AttributeError("what a file of an odd kind ends in")
            return "new"

    Runner(tmp_path).run(Made("one", [1], write("old")))
    assert Runner(tmp_path).run(Read("one", [1], write("new"))).result == "new"
    kept = Runner(tmp_path).run(Read("one", [1], must_not_run))
    assert (kept.cached, kept.result) == (True, "new")


def test_half_written_folders_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    host, me = owner().rpartition("-")[0], os.getpid()
    dead = [f".one.{host}-{ended.pid}.part", f".one.{host}-{ended.pid}.old", ".one.part", f".one.{owner()}.part"]
    living = [f".one.{host}-{os.getppid()}.part", ".one.elsewhere-7.part", f".two.{host}-{ended.pid}.part"]
    for name in dead + living:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
    (tmp_path / ".one.forgotten-7.part").mkdir()
    os.utime(tmp_path / ".one.forgotten-7.part", (1, 1))
    Runner(tmp_path).run(Made("one", [1], write("old")))
    assert me > 0
    assert {path.name for path in tmp_path.iterdir()} == {"one", *living}


# --- digests ----------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_digests_tell_plain_values_apart(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest_of(one) == digest_of(other)) is same
    assert digest_of(one) == digest_of(json.loads(json.dumps(one)))


def test_the_order_of_keys_does_not_matter() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of([1, 2]) != digest_of([2, 1])


def test_digests_of_folders_see_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "sub" / "b.bin").write_text("2")
    whole, some = digest_of_folder(tmp_path), digest_of_folder(tmp_path, (".json",))
    assert whole != some
    (tmp_path / "sub" / "b.bin").write_text("3")
    assert digest_of_folder(tmp_path) != whole
    assert digest_of_folder(tmp_path, (".json",)) == some
    (tmp_path / "a.json").rename(tmp_path / "c.json")
    assert digest_of_folder(tmp_path, (".json",)) != some
    assert digest_of_file(tmp_path / "c.json") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


def test_files_are_digested_piece_by_piece_on_every_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hashlib, "file_digest", raising=False)  # Python 3.10 has none
    content = np.random.default_rng(0).bytes(9_000_001)
    (tmp_path / "a.ckpt").write_bytes(content)
    tracemalloc.start()
    try:
        found = digest_of_file(tmp_path / "a.ckpt")
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert found == hashlib.sha256(content).hexdigest()


# --- being killed -----------------------------------------------------------------------------------------------------


def run_killed(*arguments: str | Path) -> None:
    """Start the killing script and insist that its children only die where they shall."""
    done = subprocess.run([sys.executable, KILLED, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@needs_fork
def test_killed_at_any_file_operation_a_rerun_gives_the_same_bytes(tmp_path: Path, tree: Tree) -> None:
    run_killed("toy", tmp_path)
    trees = [tree(folder) for folder in sorted(tmp_path.iterdir())]
    assert len(trees) > 40  # every operation of two stages
    assert set(trees[-1]) == {f"{s}/{n}" for s in ("first", "second") for n in ("a.txt", "deep/b.txt", "stage.json")}
    assert trees[-1]["second/a.txt"] == b"NEW"
    for moment, found in enumerate(trees):
        assert found == trees[-1], f"killed at operation {moment}"
    assert not list(tmp_path.glob("*/.*"))


@needs_fork
@pytest.mark.slow
def test_a_photos_job_killed_again_and_again_gives_the_same_bytes(
    photo: Path, settings: Image2MeshSettings, tmp_path: Path, tree: Tree
) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(settings_as_dict(settings)))
    base = tmp_path / "base"
    base.mkdir()
    run_killed("photo", photo, preset, base)
    events = json.loads((base / "events.json").read_text())
    kinds = {(event.split()[0], event.split()[1]) for event in events}
    assert kinds >= {
        (stage, kind) for stage in ("prepare", "views", "surface", "asset") for kind in ("begins", "rename")
    }
    assert {("views", "step"), ("surface", "step")} <= kinds
    assert json.loads((base / "deaths.json").read_text()) == events
    undisturbed, killed = tree(base / "undisturbed"), tree(base / "killed")
    assert {"toy/toy.glb", "toy/manifest.json", "toy/views/transforms.json"} <= set(undisturbed)
    assert sorted(killed) == sorted(undisturbed)
    assert [name for name in killed if killed[name] != undisturbed[name]] == []
