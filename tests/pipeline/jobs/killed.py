"""Runs jobs in children that kill themselves (SIGKILL) at chosen moments; started by the tests of the runner.

``killed.py toy FOLDER`` kills two small stages at every file operation, each time in another folder.
``killed.py photo PHOTO SETTINGS FOLDER`` kills a photo's whole job at every event, again and again in one folder.
Every child is forked from a process that has imported the packages and not used them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any


def in_child(action: Callable[[], object]) -> bool:
    """Run in a forked child; True if it was killed, False if it finished. Ends this process if it failed."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - a child must not go on as its parent
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    if status:
        sys.exit("a child failed")
    return False


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def toy(base: Path) -> None:
    """Replace the result of other settings, killed at the n-th operation; then run undisturbed."""
    from pipeline.jobs.runner import Runner

    @dataclass(frozen=True)
    class Made:
        name: str
        key: list[str]
        run: Callable[[Path], None]

        def load(self, folder: Path) -> str:
            return (folder / "a.txt").read_text()

    def job(folder: Path, word: str) -> None:
        def write(target: Path, text: str) -> None:
            (target / "deep").mkdir()
            (target / "a.txt").write_text(text)
            (target / "deep" / "b.txt").write_text(text * 2)

        runner = Runner(folder)
        first = runner.run(Made("first", [word], lambda target: write(target, word)))
        runner.run(Made("second", [first.key], lambda target: write(target, first.result.upper())))

    def killed_job(folder: Path, moment: int) -> None:
        left = [moment]

        def hook(event: str, _: Any) -> None:
            if event == "open" or event.startswith(("os.", "shutil.")):
                left[0] -= 1
                if left[0] == -1:
                    die()

        sys.addaudithook(hook)
        job(folder, "new")

    killed, moment = True, 0
    while killed:
        folder = base / f"{moment:03d}"
        in_child(partial(job, folder, "old"))
        killed = in_child(partial(killed_job, folder, moment))
        in_child(partial(job, folder, "new"))
        moment += 1


class Dying:
    """A reporter that names the events of a job and dies at one of them."""

    def __init__(self, at: str | None, heard: list[str]) -> None:
        self.at, self.heard, self.running = at, heard, "start"
        sys.addaudithook(self.hook)

    def event(self, kind: str) -> None:
        name = f"{self.running} {kind}"
        self.heard.append(name)
        if name == self.at:
            die()

    def hook(self, event: str, arguments: Any) -> None:
        if event == "os.rename":
            # Scratch names carry the process, which is another one each time.
            self.event("rename " + re.sub(r"-\d+\.(part|old)", r".\1", "/".join(Path(arguments[1]).parts[-2:])))

    def item(self, name: str, work: Any = None) -> None:
        pass

    def stage(self, name: str, cached: bool) -> None:
        self.running = name
        if not cached:
            self.event("begins")

    def step(self, done: int, total: int) -> None:
        self.event(f"step {done}")

    def note(self, text: str) -> None:
        pass

    def finished(self) -> None:
        pass

    def failed(self, text: str) -> None:
        pass


def photo(path: Path, preset: Path, base: Path) -> None:
    """Kill the job at every event of an undisturbed run, one after the other, in one folder."""
    from pipeline.diffusion.view_models.zero123 import ViewDiffusion  # noqa: F401 - imported once, for all children
    from pipeline.jobs.image2mesh import image2mesh
    from pipeline.jobs.presets import settings_from_yaml
    from pipeline.jobs.settings import Image2MeshSettings

    settings = settings_from_yaml(preset, Image2MeshSettings()).settings

    def job(out: Path, at: str | None = None, names: Path | None = None) -> None:
        import torch

        torch.set_num_threads(1)
        heard: list[str] = []
        for result in image2mesh([path], out, settings, reporter=Dying(at, heard)):
            if result.error is not None:
                raise result.error
        if names is not None:
            names.write_text(json.dumps(heard))

    in_child(lambda: job(base / "undisturbed", names=base / "events.json"))
    events = json.loads((base / "events.json").read_text())
    deaths = [event for event in events if in_child(partial(job, base / "killed", event))]
    in_child(lambda: job(base / "killed"))
    (base / "deaths.json").write_text(json.dumps(deaths))


if __name__ == "__main__":
    if sys.argv[1] == "toy":
        toy(Path(sys.argv[2]))
    else:
        photo(*(Path(argument) for argument in sys.argv[2:]))
