"""Several processes at once on one output folder, killed at random moments and started again: one result comes of it.

Each round gives one folder to several jobs, some that wait for each other, some that give up when it is busy. They are
killed (SIGKILL) at random moments, and others start in their place. Whenever the asset lies in the folder, it is that
of an undisturbed run; after the last kill one job more is run, and all bytes but those of the report, which tells
times, are as they are without any of this, with nothing left beside them.

Example: python -m tests.fuzz.crowd --jobs 4 --rounds 50
"""

from __future__ import annotations

import argparse
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.jobs import item_lock
from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.item_lock import FolderBusyError
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.settings import Busy, Image2MeshSettings, ReconstructSettings
from scene.errors import ViewloomError
from tests.pipeline.jobs import conftest as small

DONE, FAILED, BUSY = 0, 1, 3
MOST_SECONDS = 180.0
"""After which a round hangs."""
Job = Callable[[Path, Busy, int], None]
"""Makes the result in a folder; the number is the seed of its settings."""


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Args:
        name: of it.
        job: runs it.
        asset: that it delivers, within its folder.
        item: folder in which it writes, within that.
    """

    name: str
    job: Job
    asset: str
    item: str = "."


@dataclass
class Told:
    """What happened in the rounds."""

    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def kinds(place: Path) -> list[Kind]:
    """A photo's and a capture's job of a second each; what they need is written, in a process of its own."""
    waited(forked(lambda: _write_inputs(place)))
    tiny = place / "checkpoint"

    def photo(out: Path, busy: Busy, seed: int) -> None:
        views = small.ViewsSettings(
            weights=tiny, rings=small.RingSettings((3,), (10.0,), (45.0,)), sampling=small.SamplingSettings(steps=2)
        )
        prepare = small.PrepareSettings(side=64, cutout="grabcut")
        settings = Image2MeshSettings(
            prepare=prepare, views=views, fit=small.SMALL_FIT, mesh=small.SMALL_MESH, device="cpu"
        )
        settings = replace(settings, fit=replace(settings.fit, seed=seed))
        (result,) = image2mesh([place / "toy.png"], out, settings, busy=busy, reporter=lambda _: None)
        if result.error is not None:
            raise result.error

    def capture(out: Path, busy: Busy, seed: int) -> None:
        settings = ReconstructSettings(fit=replace(small.SMALL_FIT, seed=seed), mesh=small.SMALL_MESH)
        reconstruct(place / "ring", out, settings, busy=busy, reporter=lambda _: None)

    return [Kind("photo", photo, "toy/toy.glb", "toy"), Kind("capture", capture, "ring.glb")]


def _write_inputs(place: Path) -> None:
    import torch

    tiny = runpy.run_path(str(Path(__file__).resolve().parent.parent / "pipeline" / "diffusion" / "conftest.py"))
    torch.manual_seed(0)
    model = tiny["build_model"](tiny["FULL"])
    with torch.no_grad():
        model.vae.decoder.conv_out.weight.mul_(0.2)
        model.vae.decoder.conv_out.bias.copy_(torch.tensor([0.3, 0.0, -0.3, 2.0]))
    model.save_pretrained(place / "checkpoint")
    small.ring_of_views(5, 64).save(place / "ring")
    small.Image.fromarray(np.ascontiguousarray(small.ring_of_views(1, 64).views[0].rgba())).save(place / "toy.png")


# --- processes --------------------------------------------------------------------------------------------------------


def forked(action: Callable[[], object]) -> int:
    """The process of a child that does something and ends: with 0, with 3 if a folder is busy, with 1 if it fails."""
    pid = os.fork()
    if pid:
        return pid
    code = FAILED
    item_lock._PAUSE = 0.02  # half a second is for people
    try:
        action()
        code = DONE
    except FolderBusyError:
        code = BUSY
    except ViewloomError as error:
        sys.stderr.write(f"{error}\n{traceback.format_exc()}")
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        traceback.print_exc()
    os._exit(code)


def waited(pid: int) -> int:
    """A child's exit status, once it has ended; its signal, negative, if one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ended(pid: int) -> int | None:
    """A child's exit status if it has ended."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


@contextmanager
def none_left(children: dict[int, Busy]) -> Iterator[None]:
    """A block after which no child runs."""
    try:
        yield
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            waited(pid)


# --- rounds -----------------------------------------------------------------------------------------------------------


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files, hidden ones as well, but for the report."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: path.read_bytes() for name, path in files.items() if not name.endswith("report.html")}


def differences(found: dict[str, bytes], true: dict[str, bytes]) -> list[str]:
    """What is not as it should be."""
    lost = [f"{name} is missing" for name in sorted(true.keys() - found.keys())]
    more = [f"{name} was left" for name in sorted(found.keys() - true.keys())]
    return lost + more + [f"{name} differs" for name in sorted(true.keys() & found.keys()) if true[name] != found[name]]


def one_round(
    kind: Kind, out: Path, jobs: int, rng: random.Random, true: dict[str, bytes], seconds: float, told: Told
) -> None:
    """Jobs on a folder, killed and started again.

    Args:
        kind: of the jobs.
        out: folder, with an earlier result of other settings or without.
        jobs: how many at a time.
        rng: draws the moments.
        true: what an undisturbed run leaves.
        seconds: that such a run takes.
        told: gets what happened.
    """
    children: dict[int, Busy] = {}
    left = rng.randint(jobs, 3 * jobs)
    with none_left(children):

        def start(busy: Busy) -> None:
            children[forked(lambda: kind.job(out, busy, 1))] = busy

        def look() -> None:
            if kind.asset in true and (asset := out / kind.asset).is_file():
                told.seen["looks at the asset"] += 1
                content = asset.read_bytes()
                if content not in (true[kind.asset], earlier):
                    told.faults.append(f"{kind.asset} was another one before the end")
            for pid in list(children):
                code = ended(pid)
                if code is not None:
                    busy = children.pop(pid)
                    told.seen[{DONE: "done", BUSY: "gave up"}.get(code, "failed")] += 1
                    if code not in (DONE, BUSY) or (code == BUSY and busy == "wait"):
                        told.faults.append(f"a job that was to {busy} ended with {code}")

        earlier = (out / kind.asset).read_bytes() if (out / kind.asset).is_file() else b""
        for _ in range(jobs):
            start(rng.choice(("wait", "wait", "refuse")))
        while left:
            time.sleep(rng.random() ** 2 * seconds)
            look()
            if children:
                pid = rng.choice(sorted(children))
                os.kill(pid, signal.SIGKILL)
                waited(pid)
                del children[pid]
                told.seen["killed"] += 1
                left -= 1
            while len(children) < jobs:
                start(rng.choice(("wait", "wait", "refuse")))
                time.sleep(rng.random() * 0.05)
        start("wait")
        end = time.monotonic() + MOST_SECONDS
        while children and time.monotonic() < end:
            time.sleep(0.02)
            look()
        if children:
            told.faults.append(f"{len(children)} jobs did not end within {MOST_SECONDS:.0f} s")
            return
    told.faults += differences(bytes_of(out), true)


def run(jobs: int, rounds: int, seed: int, only: str | None = None, say: Callable[[str], None] = print) -> Told:
    """So many rounds, of each kind in turn; every other one over the result of other settings."""
    told = Told()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        chosen = [kind for kind in kinds(place) if only in (None, kind.name)]
        true: dict[str, dict[str, bytes]] = {}
        seconds: dict[str, float] = {}
        for kind in chosen:
            for number in (0, 1):
                start = time.monotonic()
                if waited(forked(lambda: kind.job(place / f"{kind.name}{number}", "refuse", number))) != DONE:  # noqa: B023
                    told.faults.append(f"an undisturbed {kind.name} failed")
                    return told
                seconds[kind.name] = time.monotonic() - start
            true[kind.name] = bytes_of(place / f"{kind.name}1")
            if not differences(bytes_of(place / f"{kind.name}0"), true[kind.name]):
                told.faults.append("other settings give the same result: the rounds would tell nothing")
        for number in range(rounds):
            kind, rng = chosen[number % len(chosen)], random.Random(f"{seed} {jobs} {number}")
            out = place / "out"
            if number // len(chosen) % 2:
                shutil.copytree(place / f"{kind.name}0", out)
            before = len(told.faults)
            one_round(kind, out, jobs, rng, true[kind.name], seconds[kind.name], told)
            for fault in told.faults[before:]:
                say(f"round {number} ({kind.name}): {fault}")
            shutil.rmtree(out)
    return told


def main() -> int:
    """Run, print what must not be, and say what happened how often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("photo", "capture"), help="kind of job")
    chosen = parser.parse_args()
    start = time.monotonic()
    told = run(chosen.jobs, chosen.rounds, chosen.seed, chosen.only)
    happened = ", ".join(f"{what} {count}" for what, count in sorted(told.seen.items()))
    print(f"{chosen.rounds} rounds of {chosen.jobs} jobs: {happened}")  # noqa: T201
    print(f"{len(told.faults)} faults, {time.monotonic() - start:.0f} s")  # noqa: T201
    return int(bool(told.faults))


if __name__ == "__main__":
    sys.exit(main())
