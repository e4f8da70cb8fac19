"""Training data of ViewFusion: objects at their canonical heading, seen by a ring of views, as latents.

Fronts face +x, and view ``k`` of ``n`` stands at azimuth ``2 pi k / n`` in the object's own frame. Stored rings hold
latents and cameras only; held-out ones their true pictures and depth too, and which surfaces other views see.

Source: the data of Spiegl et al. 2024, ViewFusion (arXiv 2402.02906), are ShapeNet objects with 24 views each; the
families, latents and jitter are ours.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Bool, Float, Int, UInt8
from rich.progress import track
from torch import Tensor

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.epipolar import Pixels, shown, surface_points
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.diffusion.modules.poses import Poses
from pipeline.training.data.chunks import ChunkStore
from pipeline.training.data.edit_pairs import encoded
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import to_bytes
from pipeline.training.data.streams import SeededStream
from pipeline.training.procedural import Rng, generate, rotation
from pipeline.training.trainer import autocast
from scene.camera import DEFAULT_RADIUS, Camera, orbit_camera
from scene.errors import InputError, ViewloomError
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer

FAMILIES = ("chair", "car", "sofa", "shoe", "lamp", "house")
"""Of :func:`pipeline.training.procedural.generate`: those with a front, which faces +x."""

LIKE_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "race-car": "car",
        "sports-sedan": "car",
        "ambulance": "car",
        "truck-flat": "car",
        "chair_A": "chair",
        "stool": "chair",
        "couch_pillows": "sofa",
        "2Story_Balcony_Mat": "house",
        "building_home_A_green": "house",
    }
)
"""Objects of the pool's val split that are of a family's kind, and the family; all face -y there."""

BEHIND = 0.02
"""World units by which a point may lie behind the surface that a view shows."""

HELD_OUT = 2**31
"""Seeds of held-out objects start here; those of training objects lie below."""


@dataclass(frozen=True)
class FusionRingSettings:
    """How rings are rendered.

    Args:
        size: side of the views in pixels.
        views: of a ring.
        families: of the objects, all drawn alike.
        elevation_deg: range of an object's elevation.
        elevation_jitter: half range of what a view's elevation is off that, in degrees.
        distance_jitter: half range of what a view's distance is off the default radius, as a share of it.
        faces: of an object, about.
        samples: rays of a pixel at edges.
    """

    size: int = 128
    views: int = 24
    families: tuple[str, ...] = FAMILIES
    elevation_deg: tuple[float, float] = (0.0, 30.0)
    elevation_jitter: float = 3.0
    distance_jitter: float = 0.04
    faces: int = 6000
    samples: int = 4

    def exact(self, elevation_deg: float = 20.0) -> FusionRingSettings:
        """The same with one elevation and one distance, as the published data have."""
        one = (elevation_deg, elevation_deg)
        return replace(self, elevation_deg=one, elevation_jitter=0.0, distance_jitter=0.0)


def ring_azimuths(views: int) -> Float[np.ndarray, "v"]:
    """Azimuths of a ring's views in the object's frame, radians in [0, 2 pi)."""
    return 2 * np.pi * np.arange(views) / views


def random_ring(settings: FusionRingSettings, rng: Rng) -> Float[np.ndarray, "v 3"]:
    """Azimuth, elevation (radians) and radius of a ring's views."""
    count = settings.views
    jitter = settings.elevation_jitter
    elevation = rng.uniform(*settings.elevation_deg) + rng.uniform(-jitter, jitter, count)
    distance = 1 + rng.uniform(-settings.distance_jitter, settings.distance_jitter, count)
    return np.stack([ring_azimuths(count), np.radians(elevation), DEFAULT_RADIUS * distance], axis=1)


@dataclass(frozen=True, eq=False)
class DrawnRing:
    """An object seen by a ring of cameras.

    Args:
        views: straight alpha.
        depths: z-depth, 0 for background.
        cameras: of the views.
    """

    views: UInt8[np.ndarray, "v s s 4"]
    depths: Float[np.ndarray, "v s s"]
    cameras: tuple[Camera, ...]


def draw_ring(mesh: ColouredMesh, orbits: Float[np.ndarray, "v 3"], size: int, samples: int = 4) -> DrawnRing:
    """Render a normalised object, front towards +x, from (azimuth, elevation, radius) of views."""
    renderer = MeshRenderer(mesh)
    cameras = tuple(orbit_camera(*map(float, orbit), size=size) for orbit in orbits)
    drawn = [renderer.render(camera, samples=samples) for camera in cameras]
    return DrawnRing(to_bytes(np.stack([one.rgba for one in drawn])), np.stack([one.depth for one in drawn]), cameras)


@dataclass(frozen=True, eq=False)
class RingLatents:
    """One stored object.

    Args:
        latents: normalised, in half precision.
        orbits: azimuth, elevation (radians), radius of the views.
        family: its place among the settings' families.
    """

    latents: Float[np.ndarray, "v c h w"]
    orbits: Float[np.ndarray, "v 3"]
    family: int


@dataclass(frozen=True, eq=False)
class RingBatch:
    """Objects as the networks take them.

    Args:
        latents: normalised.
        azimuths: of the views in the object's frame, radians in [0, 2 pi).
        elevations: radians.
        family: place among the settings' families.
    """

    latents: Float[Tensor, "b v c h w"]
    azimuths: Float[Tensor, "b v"]
    elevations: Float[Tensor, "b v"]
    family: Int[Tensor, "b"]


def ring_key(digest: str, settings: FusionRingSettings, seed: int) -> str:
    """Names the VAE that rings were encoded by, and how they were drawn.

    Args:
        digest: :func:`pipeline.diffusion.checkpoints.digests.latent_digest`.
        settings, seed: of the rings.
    """
    return json.dumps({"vae": digest, "seed": seed, **asdict(settings)}, sort_keys=True)


_STAMP = "rings.json"
_NAMES = ("latents", "orbits", "family")


class FusionStore:
    """Rings as latents, in memory-mapped files that may grow while they are read.

    Args:
        folder: where they are kept.
        key: of :func:`ring_key`.

    Raises:
        InputError: the folder holds rings of another VAE, or drawn otherwise.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._held = ChunkStore(folder, _STAMP, key, _NAMES, "holds rings of another VAE, or drawn otherwise")
        self.folder = folder
        self.digest: str = json.loads(key)["vae"]
        self.families: tuple[str, ...] = tuple(json.loads(key)["families"])

    def __len__(self) -> int:
        return len(self._held)

    def reread(self) -> None:
        """Take in rings that have been added, by this process or by another."""
        self._held.reread()

    def append(self, rings: Sequence[RingLatents]) -> None:
        """Add rings as one chunk, written aside and renamed."""
        self._held.append(
            {
                "latents": np.stack([ring.latents for ring in rings]),
                "orbits": np.stack([ring.orbits for ring in rings]).astype(np.float32),
                "family": np.array([ring.family for ring in rings], np.int64),
            }
        )

    def of_families(self, names: Sequence[str]) -> Int[np.ndarray, "n"]:
        """Numbers of the rings of some families, for :meth:`batch`."""
        wanted = [k for k, name in enumerate(self.families) if name in names]
        return np.nonzero(np.isin(self._held.column("family"), wanted))[0]

    def batch(self, rng: np.random.Generator, count: int, among: Int[np.ndarray, "n"] | None = None) -> RingBatch:
        """Random rings.

        Args:
            rng: chooses them.
            count: how many.
            among: numbers of those that are drawn from; all by default.
        """
        if among is None:
            return self.of(np.sort(rng.integers(len(self), size=count)))
        return self.of(np.sort(rng.choice(among, count)))

    def of(self, index: Int[np.ndarray, "b"]) -> RingBatch:
        """The rings of these numbers."""
        rows = {name: torch.from_numpy(row) for name, row in self._held.rows(index).items()}
        orbits = rows["orbits"]
        return RingBatch(rows["latents"].float(), orbits[..., 0], orbits[..., 1], rows["family"])


def open_fusion_store(folder: Path, digest: str | None = None) -> FusionStore:
    """Rings that were rendered before, or are being rendered.

    Args:
        folder: of ``scripts/render_fusion.py``.
        digest: of the VAE that they have to be of.

    Raises:
        InputError: there are none, or they are of another VAE.
    """
    path = folder / _STAMP
    if not path.is_file():
        raise InputError("no rendered rings here", where=folder, fix="Make some with scripts/render_fusion.py.")
    store = FusionStore(folder, json.loads(path.read_text(encoding="utf-8")))
    if digest not in (None, store.digest):
        raise InputError("these latents are of another VAE", where=folder, fix="Render them with --weights of it.")
    if not len(store):
        raise InputError("no rendered rings here yet", where=folder, fix="Wait for the first ones.")
    return store


class RingLatentsStream(SeededStream[RingLatents]):
    """An endless stream of training rings, rendered and encoded by worker processes or in this one.

    Args:
        vae: folder of the VAE.
        settings: how rings are rendered.
        seed, workers: see :class:`pipeline.training.data.streams.SeededStream`.
    """

    def __init__(self, vae: Path, settings: FusionRingSettings, *, seed: int = 0, workers: int = 0) -> None:
        super().__init__(_encoder, (vae, settings), seed=seed, salt=(20,), workers=workers)


def _object(family: str, rng: Rng, start: int, faces: int) -> ColouredMesh:
    """An object of a family, of a seed from ``start`` on."""
    while True:
        # Few models have no closed surface on any grid.
        with contextlib.suppress(ViewloomError):
            return generate(family, start + int(rng.integers(HELD_OUT)), faces=faces)


def _encoder(vae: Path, settings: FusionRingSettings) -> Callable[[Rng], RingLatents]:
    # Workers share the cores among themselves.
    torch.set_num_threads(1)
    codec = LatentCodec(cast(AutoencoderKL, load_part(AutoencoderKL, vae)))

    def draw(rng: Rng) -> RingLatents:
        family = int(rng.integers(len(settings.families)))
        mesh = _object(settings.families[family], rng, 0, settings.faces)
        orbits = random_ring(settings, rng)
        drawn = draw_ring(mesh, orbits, settings.size, settings.samples)
        # Twice as fast, at an error of a hundredth of the latents' spread.
        with autocast(torch.device("cpu"), "bf16"):
            latents = encoded(codec, drawn.views[None])[0]
        return RingLatents(latents, orbits, family)

    return draw


def extend_rings(
    folder: Path,
    vae: Path,
    settings: FusionRingSettings,
    count: int,
    *,
    seed: int = 0,
    workers: int = 0,
    chunk: int = 64,
) -> FusionStore:
    """Render and encode rings up to a number, with a progress bar; those that are held already stay as they are.

    Args:
        folder: of the store.
        vae: folder of the VAE.
        settings, seed: of the rings.
        count: how many there are to be.
        workers: processes; 0 works in this one.
        chunk: rings of a folder of the store: what a kill may cost.

    Raises:
        InputError: the folder holds rings of another VAE, or drawn otherwise.
    """
    digest = latent_digest(cast(AutoencoderKL, load_part(AutoencoderKL, vae)))
    store = FusionStore(folder, ring_key(digest, settings, seed))
    missing = max(0, count - len(store))
    stream = RingLatentsStream(vae, settings, seed=seed, workers=workers).read(len(store), len(store) + missing)
    waiting: list[RingLatents] = []
    for ring in track(stream, "rendering", total=missing):
        waiting.append(ring)
        if len(waiting) == chunk:
            store.append(waiting)
            waiting = []
    if waiting:
        store.append(waiting)
    return store


@dataclass(frozen=True, eq=False)
class HeldOutRing:
    """A held-out object, all that is true of it.

    Args:
        name: of the object.
        family: whose kind it is.
        views: straight alpha.
        depths: z-depth, 0 for background.
        cameras: of the views.
        latents: of the views, normalised.
        azimuths, elevations: of the views, radians.
        visible: of target ``t`` and view ``v``; see :func:`visibility`.
    """

    name: str
    family: str
    views: UInt8[np.ndarray, "v s s 4"]
    depths: Float[np.ndarray, "v s s"]
    cameras: tuple[Camera, ...]
    latents: Float[Tensor, "v c h w"]
    azimuths: Float[Tensor, "v"]
    elevations: Float[Tensor, "v"]
    visible: Float[Tensor, "v v h w"] = field(repr=False)


def seen_pixels(
    poses: Poses, depths: Float[Tensor, "v s s"], target: int
) -> tuple[Pixels, Float[Tensor, "v n 2"], Bool[Tensor, "v n"]]:
    """Foreground pixels of a target view, their places in all views, and which views see their surface."""
    pixels = Pixels.of(depths[target])
    places, seen = shown(poses, depths, surface_points(poses[target], pixels), BEHIND)
    return pixels, places, seen


def visibility(
    poses: Poses, depths: Float[Tensor, "v s s"], side: int, targets: Sequence[int] | None = None
) -> Float[Tensor, "t v h w"]:
    """The share of a target's foreground pixels in each latent cell whose surface a view sees, by depth test.

    Args:
        poses, depths: of the views.
        side: of the latents.
        targets: numbers of the targets; all views by default.

    Returns:
        Shares in [0, 1]; 0 where a cell of the target has no foreground.
    """
    size, rows = depths.shape[-1], []
    for target in range(len(depths)) if targets is None else targets:
        pixels, _, seen = seen_pixels(poses, depths, target)
        maps = torch.zeros(len(depths) + 1, size * size)
        maps[:-1, pixels.index] = seen.float()
        maps[-1, pixels.index] = 1.0
        pooled = F.avg_pool2d(maps.view(-1, 1, size, size), size // side)[:, 0]
        rows.append(pooled[:-1] / torch.where(pooled[-1] > 0, pooled[-1], 1.0))
    return torch.stack(rows)


def held_out_ring(
    mesh: ColouredMesh, codec: LatentCodec, settings: FusionRingSettings, rng: Rng, name: str, family: str
) -> HeldOutRing:
    """All that is true of an object.

    Args:
        mesh: normalised, its front towards +x.
        codec: gives latents.
        settings: how it is rendered.
        rng: of the cameras.
        name, family: of the object.
    """
    orbits = random_ring(settings, rng)
    drawn = draw_ring(mesh, orbits, settings.size, settings.samples)
    latents = torch.from_numpy(encoded(codec, drawn.views[None])[0]).float()
    angles = torch.from_numpy(orbits).float()
    visible = visibility(Poses.of(drawn.cameras), torch.from_numpy(drawn.depths), latents.shape[-1])
    return HeldOutRing(
        name, family, drawn.views, drawn.depths, drawn.cameras, latents, angles[:, 0], angles[:, 1], visible
    )


def held_out_rings(
    codec: LatentCodec, seed: int, count: int, settings: FusionRingSettings = FusionRingSettings()
) -> Iterator[HeldOutRing]:
    """New objects of the families, in turns.

    Args:
        codec: gives latents.
        seed: objects and cameras follow from it and their number.
        count: how many.
        settings: how they are rendered.
    """
    for k in range(count):
        family = settings.families[k % len(settings.families)]
        rng = np.random.default_rng([seed, k, 21])
        mesh = _object(family, rng, HELD_OUT, settings.faces)
        yield held_out_ring(mesh, codec, settings, rng, f"{family}-{k}", family)


def pool_rings(
    codec: LatentCodec, pool: ObjectPool, settings: FusionRingSettings = FusionRingSettings()
) -> Iterator[HeldOutRing]:
    """Objects of :data:`LIKE_KINDS`, turned so that their fronts face +x.

    Args:
        codec: gives latents.
        pool: its val split.
        settings: how they are rendered.
    """
    turn = np.eye(4)
    turn[:3, :3] = rotation("z", np.pi / 2)
    for k, entry in enumerate(pool.entries):
        if entry.name in LIKE_KINDS:
            mesh = pool.load(k).transformed(turn).normalised()
            family = LIKE_KINDS[entry.name]
            yield held_out_ring(mesh, codec, settings, np.random.default_rng([k, 22]), entry.name, family)
