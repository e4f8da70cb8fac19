"""Training data of the editor: one object in several states, seen from the same cameras, as latents with its controls.

A file holds some objects of one kind. Figures come in three poses, with skeletons and the depth of the posed surface as
controls; things that boxes edit in two states, with the depth of their boxes and of their surface.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.modules.latents import LatentCodec, vae_factor
from pipeline.editing.controls import box_mesh, depth_controls, skeleton_controls
from pipeline.training.data.samples import random_targets, to_bytes
from pipeline.training.procedural.edits import Family, box_edit
from pipeline.training.procedural.humanoid import humanoid
from pipeline.training.procedural.poses import fits, random_worlds
from pipeline.training.procedural.rigged import Figure, Worlds, pose_pair
from pipeline.training.procedural.textures import Rng
from scene.archives import read_npz
from scene.camera import Camera, orbit_camera
from scene.errors import InputError, ViewloomError
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.skeleton import Skeleton

HEADER = "edits.json"
"""Beside the files: whose latents they hold."""
STATES = 3
"""Poses of a figure; things edited by boxes have two."""
_TRIES = 24


@dataclass(frozen=True, eq=False)
class States:
    """One object in several states, normalised by the first.

    Args:
        meshes: one for each state.
        targets: a skeleton, or the frames of boxes, for each state.
    """

    meshes: Sequence[ColouredMesh]
    targets: Sequence[Skeleton | Float[np.ndarray, "b 4 4"]]


def figure_states(figure: Figure, rng: Rng, draw: Callable[[Rng], Worlds] | None = None, count: int = STATES) -> States:
    """A figure in several poses.

    Args:
        figure: the figure.
        rng: source of chance.
        draw: a pose of it; random ones within its joints' limits by default.
        count: of the poses.

    Raises:
        ViewloomError: too few poses stay within what views show.
    """
    pose: Callable[[Rng], Worlds] = draw or (lambda rng: random_worlds(figure, rng))
    for _ in range(4):
        first = pose(rng)
        found = []
        for _ in range(_TRIES):
            pair = pose_pair(figure, first, pose(rng))
            if fits(pair):
                found.append(pair)
            if len(found) == count - 1:
                return States(
                    [found[0].before, *(pair.after for pair in found)],
                    [found[0].skeleton_before, *(pair.skeleton_after for pair in found)],
                )
    raise ViewloomError(f"no {count} poses of a figure stay within its bounding sphere")


def box_states(family: Family, seed: int) -> States:
    """A thing before and after boxes change it."""
    edit = box_edit(family, seed)
    return States([edit.before, edit.after], [edit.boxes_before, edit.boxes_after])


@dataclass(frozen=True, eq=False)
class DrawnStates:
    """Pictures of an object's states, all from the same cameras.

    Args:
        pictures: straight alpha.
        controls: of the target: skeletons, or inverse depth of boxes.
        depths: inverse depth of the surface.
        cover: alpha, averaged over the places of latents.
    """

    pictures: UInt8[np.ndarray, "s v H W 4"]
    controls: UInt8[np.ndarray, "s v H W 3"]
    depths: UInt8[np.ndarray, "s v H W"]
    cover: UInt8[np.ndarray, "s v h w"]


def random_cameras(rng: Rng, count: int, size: int) -> list[Camera]:
    """Cameras as captures have them, stratified around the object."""
    return [orbit_camera(*map(float, orbit), size=size) for orbit in random_targets(rng, count)]


def draw_states(states: States, cameras: Sequence[Camera], latent_size: int) -> DrawnStates:
    """Render an object's states and their controls."""
    pictures, controls, depths = [], [], []
    for mesh, target in zip(states.meshes, states.targets, strict=True):
        renderer = MeshRenderer(mesh)
        pictures.append(to_bytes(np.stack([renderer.render(camera).rgba for camera in cameras])))
        if isinstance(target, Skeleton):
            drawn = skeleton_controls(target.positions, cameras)
        else:
            drawn = depth_controls(*box_mesh(target), cameras)[0]
        controls.append(to_bytes(np.stack(drawn)))
        depth = depth_controls(mesh.vertices, mesh.faces, cameras)[0]
        depths.append(to_bytes(np.stack(depth)[..., 0]))
    rgba = np.stack(pictures)
    side = rgba.shape[2] // latent_size
    alpha = rgba[..., 3].astype(np.float32)
    cover = alpha.reshape(*alpha.shape[:2], latent_size, side, latent_size, side).mean(axis=(3, 5))
    return DrawnStates(rgba, np.stack(controls), np.stack(depths), np.round(cover).astype(np.uint8))


@torch.no_grad()
def encoded(codec: LatentCodec, rgba: UInt8[np.ndarray, "s v H W 4"]) -> Float[np.ndarray, "s v c h w"]:
    """Normalised latents in half precision."""
    flat = torch.from_numpy(rgba.reshape(-1, *rgba.shape[2:]))
    latents = codec.normalise(codec.encode_raw(flat))
    return latents.half().numpy().reshape(*rgba.shape[:2], *latents.shape[1:])


def save_states(path: Path, drawn: Sequence[DrawnStates], codec: LatentCodec, skeletons: bool) -> None:
    """Write objects with equal numbers of states and cameras; aside first, then renamed."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            latents=np.stack([encoded(codec, one.pictures) for one in drawn]),
            controls=np.stack([one.controls for one in drawn]),
            depths=np.stack([one.depths for one in drawn]),
            cover=np.stack([one.cover for one in drawn]),
            skeletons=np.array(skeletons),
        )
    partial.replace(path)


def write_header(folder: Path, digest: str) -> None:
    """Note whose latents a folder holds.

    Raises:
        InputError: it holds those of another VAE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / HEADER
    if path.is_file():
        check_header(folder, digest)
    else:
        path.write_text(json.dumps({"vae": digest}) + "\n", encoding="utf-8")


def check_header(folder: Path, digest: str) -> None:
    """Whether a folder's latents are of a VAE.

    Raises:
        InputError: there is no header, or it names another one.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InputError("no rendered edits here", where=folder, fix="Make some with scripts/render_edits.py.")
    if json.loads(path.read_text(encoding="utf-8")).get("vae") != digest:
        raise InputError(
            "these latents are of another VAE", where=folder, fix="Render them with --weights of this one."
        )


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs of one object in two states, seen by one camera.

    Args:
        source, target: normalised latents.
        source_control, target_control: in [0, 1].
        source_cover, target_cover: alpha at the places of latents.
    """

    source: Float[Tensor, "b c h w"]
    target: Float[Tensor, "b c h w"]
    source_control: Float[Tensor, "b 3 H W"]
    target_control: Float[Tensor, "b 3 H W"]
    source_cover: Float[Tensor, "b h w"]
    target_cover: Float[Tensor, "b h w"]

    def __len__(self) -> int:
        return len(self.source)


class PairPool:
    """All files of folders, in memory; files that are added later are taken in by :meth:`reread`.

    Args:
        folders: of :func:`save_states` files.
        digest: of the VAE.
        figures: share of pairs that are figures; the rest are edits of boxes.
        depth_share: share of the figures' pairs whose control is depth.
        surface_share: share of the other pairs whose control is their surface's depth in place of the boxes'.

    Raises:
        InputError: a folder has no files, or latents of another VAE.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        digest: str,
        *,
        figures: float = 0.8,
        depth_share: float = 0.35,
        surface_share: float = 0.3,
    ) -> None:
        self.folders, self.figures = tuple(folders), figures
        self.depth_share = {True: depth_share, False: surface_share}
        self._files: dict[Path, dict[str, Any]] = {}
        self._kinds: dict[bool, list[Path]] = {True: [], False: []}
        for folder in folders:
            check_header(folder, digest)
        self.reread()
        if not self._files:
            raise InputError("no rendered edits here", where=folders[0], fix="Run scripts/render_edits.py.")

    def __len__(self) -> int:
        return sum(len(held["latents"]) for held in self._files.values())

    def reread(self) -> None:
        """Take in new files."""
        for folder in self.folders:
            for path in sorted(folder.glob("*.npz")):
                if path not in self._files:
                    held = read_npz(path, "rendered edits")
                    self._files[path] = held
                    self._kinds[bool(held["skeletons"])].append(path)

    def batch(self, rng: np.random.Generator, count: int, device: torch.device) -> PairBatch:
        """Random pairs."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in PairBatch.__dataclass_fields__}
        for _ in range(count):
            kind = bool(rng.random() < self.figures) if all(self._kinds.values()) else bool(self._kinds[True])
            held = self._files[self._kinds[kind][rng.integers(len(self._kinds[kind]))]]
            objects, states, views = held["latents"].shape[:3]
            at, view = rng.integers(objects), rng.integers(views)
            pair = rng.permutation(states)[:2]
            surface = rng.random() < self.depth_share[kind]
            for side, state in zip(("source", "target"), pair, strict=True):
                rows[side].append(held["latents"][at, state, view])
                drawn = held["depths" if surface else "controls"][at, state, view]
                rows[f"{side}_control"].append(np.repeat(drawn[..., None], 3, -1) if surface else drawn)
                rows[f"{side}_cover"].append(held["cover"][at, state, view])
        made = {name: torch.from_numpy(np.stack(values)).to(device).float() for name, values in rows.items()}
        for side in ("source", "target"):
            made[f"{side}_control"] = made[f"{side}_control"].permute(0, 3, 1, 2) / 255
            made[f"{side}_cover"] = made[f"{side}_cover"] / 255
        return PairBatch(**made)


def held_out_pairs(codec: LatentCodec, seeds: Sequence[int], size: int = 128) -> PairBatch:
    """One pair, from one camera, of a procedural figure of each seed, its control a skeleton."""
    rows: dict[str, list[Tensor]] = {name: [] for name in PairBatch.__dataclass_fields__}
    for seed in seeds:
        rng = np.random.default_rng([seed, 3])
        states = figure_states(humanoid(seed), rng, count=2)
        drawn = draw_states(states, random_cameras(rng, 1, size), size // vae_factor(codec.vae))
        latents = torch.from_numpy(encoded(codec, drawn.pictures)).float()
        for state, side in enumerate(("source", "target")):
            rows[side].append(latents[state, 0])
            control = torch.from_numpy(drawn.controls[state, 0]).float() / 255
            rows[f"{side}_control"].append(control.permute(2, 0, 1))
            rows[f"{side}_cover"].append(torch.from_numpy(drawn.cover[state, 0]).float() / 255)
    return PairBatch(**{name: torch.stack(values) for name, values in rows.items()})
