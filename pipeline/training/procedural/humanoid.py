"""People from a seed: proportions, clothes, hair, hats, capes, backpacks and things in their hands, with their rig.

Limbs are rigid tubes that share a ball at each joint, so that every pose is exact. Trunk, skirts and capes blend
between the parts that carry them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural import wardrobe
from pipeline.training.procedural.csg import Material
from pipeline.training.procedural.palette import (
    any_colour,
    between,
    chance,
    cloth,
    dark,
    mostly,
    pick,
    plain,
    shade,
    skin,
)
from pipeline.training.procedural.poses import random_pair
from pipeline.training.procedural.primitives import Part, moved, superellipsoid
from pipeline.training.procedural.rigged import PARTS, Coat, Figure, Piece, PosePair, figure_of
from pipeline.training.procedural.solids import Box, Solid
from pipeline.training.procedural.textures import Rng
from pipeline.training.procedural.wardrobe import Head, Worn, face, limb, loft
from scene.skeleton import INDEX

Share = Callable[[Float[np.ndarray, "v 3"]], Float[np.ndarray, "v j"]]

_PARENT = {
    "pelvis": None, "spine": "pelvis", "neck": "spine",
    "arm": "spine", "forearm": "arm", "hand": "forearm", "thigh": "pelvis", "shin": "thigh", "foot": "shin",
}  # fmt: skip


@dataclass(frozen=True)
class Build:
    """Proportions of a body of height 1.

    Args:
        girth: thickness of trunk and limbs, 1 is usual.
        leg: height of the hips.
        neck: height at which the neck begins; the head turns about the middle of the shoulders below it.
        head: radius of the head.
        hips, shoulders: half the distance of those joints.
        arm: length of upper arm and forearm together.
    """

    girth: float
    leg: float
    neck: float
    head: float
    hips: float
    shoulders: float
    arm: float

    @property
    def places(self) -> dict[str, tuple[float, float, float]]:
        """Where each part begins, arms hanging down."""
        middle = {"pelvis": self.leg + 0.02, "spine": self.leg + 0.1, "neck": self.neck - 0.05}
        places = {name: (0.0, 0.0, z) for name, z in middle.items()}
        shoulder = self.neck - 0.05
        for side, sign in (("right", -1), ("left", 1)):
            for name, y, z in (
                ("arm", self.shoulders, shoulder), ("forearm", self.shoulders, shoulder - 0.52 * self.arm),
                ("hand", self.shoulders, shoulder - self.arm), ("thigh", self.hips, self.leg),
                ("shin", self.hips, 0.53 * self.leg), ("foot", self.hips, 0.05),
            ):  # fmt: skip
                places[f"{side}_{name}"] = (0.0, sign * y, z)
        return places


@dataclass(frozen=True)
class Clothes:
    """What the parts of a body are made of.

    Args:
        flesh, hair, shirt, trousers, shoes, gloves: materials.
        sleeve, leg: how far sleeves and trousers reach, 0 to 2: upper and lower part of the limb.
        boots: height of boots above the ground.
        loose: how much wider than the limbs the clothes are.
    """

    flesh: Material
    hair: Material
    shirt: Material
    trousers: Material
    shoes: Material
    gloves: Material
    sleeve: float
    leg: float
    boots: float
    loose: float


def random_build(rng: Rng) -> Build:
    """Proportions between child and adult, thin and stout."""
    girth, childish = between(rng, 0.85, 1.35), between(rng, 0.0, 1.0) ** 1.5
    leg, head = 0.5 - 0.14 * childish, 0.075 + 0.05 * childish
    trunk = 0.335 + between(rng, -0.02, 0.02)
    return Build(
        girth,
        leg,
        leg + trunk,
        head,
        hips=0.058 * girth,
        shoulders=between(rng, 0.105, 0.14) * (0.6 + 0.4 * girth),
        arm=between(rng, 0.29, 0.34) * (1 - 0.2 * childish),
    )


def random_clothes(rng: Rng) -> Clothes:
    """Clothes of all kinds."""
    flesh = skin(rng) if chance(rng, 0.85) else plain(rng)
    shirt = mostly(rng, cloth(rng))
    return Clothes(
        flesh,
        Material(shade(any_colour(rng), between(rng, 0.2, 1.0))),
        shirt,
        shirt if chance(rng, 0.15) else mostly(rng, cloth(rng)),
        dark(rng) if chance(rng, 0.6) else plain(rng),
        plain(rng) if chance(rng, 0.2) else flesh,
        pick(rng, [0.0, between(rng, 0.4, 0.9), between(rng, 0.9, 1.9), 2.0, 2.0]),
        pick(rng, [between(rng, 0.4, 0.95), 2.0, 2.0, 2.0]),
        pick(rng, [0.0, 0.0, between(rng, 0.1, 0.22)]),
        between(rng, 0.0, 0.25),
    )


def humanoid(seed: int) -> Figure:
    """A rigged person, the same for the same seed; about 1 high, standing on z = 0, facing +x, arms hanging down."""
    rng = np.random.default_rng([seed, *b"humanoid"])
    return _Body(random_build(rng), random_clothes(rng)).dressed(rng)


def humanoid_pair(seed: int) -> PosePair:
    """A rigged person in two poses, the same for the same seed; see :func:`~.poses.random_pair`."""
    return random_pair(humanoid(seed), np.random.default_rng([seed, *b"poses"]))


def _smooth(t: Float[np.ndarray, "v"]) -> Float[np.ndarray, "v"]:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


class _Body:
    """Collects the parts of one person."""

    def __init__(self, build: Build, clothes: Clothes) -> None:
        self.build, self.clothes = build, clothes
        self.places = build.places
        self.pieces: list[Piece] = []

    def dressed(self, rng: Rng) -> Figure:
        """The figure with all that it wears."""
        self._legs(rng)
        self._trunk(rng)
        self._arms(rng)
        self._head(rng)
        self._extras(rng)
        return self._figure()

    def _put(self, part: Part, coat: Coat, share: str | Share) -> None:
        if callable(share):
            shares = share(part[0])
        else:
            shares = np.zeros((len(part[0]), len(PARTS)))
            shares[:, PARTS.index(share)] = 1
        self.pieces.append(Piece(part[0], part[1], coat, shares))

    def _put_all(self, worn: Sequence[Worn], share: str | Share) -> None:
        for part, coat in worn:
            self._put(part, coat, share)

    # --- what moves with what ---

    def _along_spine(self, points: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v j"]:
        """From the pelvis to the spine, smoothly about the waist."""
        shares = np.zeros((len(points), len(PARTS)))
        up = _smooth((points[:, 2] - self.places["spine"][2] + 0.06) / 0.12)
        shares[:, PARTS.index("spine")], shares[:, PARTS.index("pelvis")] = up, 1 - up
        return shares

    def _with_legs(self, points: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v j"]:
        """From the pelvis to both thighs, the more the lower."""
        shares = np.zeros((len(points), len(PARTS)))
        down = 0.9 * _smooth((self.build.leg + 0.03 - points[:, 2]) / 0.2)
        left = _smooth(points[:, 1] / (2 * self.build.hips) + 0.5)
        shares[:, PARTS.index("left_thigh")] = down * left
        shares[:, PARTS.index("right_thigh")] = down * (1 - left)
        shares[:, PARTS.index("pelvis")] = 1 - down
        return shares

    # --- parts ---

    def _legs(self, rng: Rng) -> None:
        b, c = self.build, self.clothes
        wide = (1 + c.loose) if c.leg > 1 else 1.0
        thigh, knee, ankle = 0.062 * b.girth * wide, 0.046 * (0.5 + 0.5 * b.girth) * wide, 0.034 * wide
        calf = 1.05 * knee
        flared = 1.3 if c.leg == 2.0 and chance(rng, 0.25) else 1.0
        shoe_size = (between(rng, 0.075, 0.095), 0.04 + 0.004 * b.girth, 0.042)
        sole = (self._below(0.016), dark(rng))
        for side in ("right", "left"):
            hip, at, foot = (self.places[f"{side}_{name}"] for name in ("thigh", "shin", "foot"))
            bare = self._above(hip[2] - c.leg * (hip[2] - at[2]))
            upper = Coat(c.trousers) if c.leg >= 1 else Coat(c.flesh, ((bare, c.trousers),))
            end = at[2] - (c.leg - 1) * (at[2] - foot[2])
            lower = Coat(c.trousers if c.leg >= 2 else c.flesh, () if c.leg <= 1 else ((self._above(end), c.trousers),))
            if c.boots:
                lower = Coat(lower.base, (*lower.paints, (self._below(c.boots), c.shoes)))
            here = (0.0, hip[1], 0.0)
            self._put(moved(limb(hip[2], at[2], (thigh, 0.9 * thigh, knee)), here), upper, f"{side}_thigh")
            shin = limb(at[2], foot[2], (knee, calf, 0.8 * calf, ankle * flared))
            self._put(moved(shin, here), lower, f"{side}_shin")
            shoe = moved(superellipsoid(0.6, 0.75, shoe_size, 10, 18), (0.032, hip[1], shoe_size[2]))
            self._put(shoe, Coat(c.shoes, (sole,)), f"{side}_foot")

    def _trunk(self, rng: Rng) -> None:
        b, c = self.build, self.clothes
        g, waist = b.girth, self.places["spine"][2]
        hips, deep, chest = b.hips + 0.06 * g, 0.062 * g, b.shoulders - 0.008
        belly = between(rng, 0.8, 1.1) * (0.75 + 0.25 * g)
        self.deep = 1.12 * deep
        sections = [
            (b.leg - 0.055, 0.45 * deep, 0.5 * hips, 0.0), (b.leg - 0.02, 0.9 * deep, 0.92 * hips, 0.0),
            (b.leg + 0.03, 1.1 * deep, hips, 0.0), (waist, 1.0 * deep * belly, 0.86 * hips * belly, 0.006),
            (waist + 0.05, 1.02 * deep * belly, 0.5 * (0.86 * hips + chest) * (0.5 + 0.5 * belly), 0.006),
            (b.neck - 0.1, 1.12 * deep, chest, 0.004), (b.neck - 0.055, 1.0 * deep, chest, 0.0),
            (b.neck - 0.02, 0.8 * deep, 0.78 * chest, 0.0), (b.neck + 0.005, 0.5 * deep, 0.4 * chest, 0.0),
        ]  # fmt: skip
        fine = np.asarray(sections)
        heights = np.linspace(fine[0, 0], fine[-1, 0], 22)
        columns = [np.interp(heights, fine[:, 0], fine[:, k]).tolist() for k in (1, 2, 3)]
        sections = list(zip(heights.tolist(), *columns, strict=True))
        self.waist_half = (1.04 * deep * max(belly, 1.0), 0.9 * hips * max(belly, 1.0))
        paints: list[tuple[Solid, Material]] = [(self._below(waist - 0.03), c.trousers)]
        if chance(rng, 0.35):
            # An open jacket: what is under it shows in front.
            half = between(rng, 0.012, 0.05)
            paints.append((Box((1.0, half, 0.5)).moved(1.0, 0.0, waist + 0.47), plain(rng)))
        if chance(rng, 0.3):
            stripe = Box((9.0, 9.0, between(rng, 0.01, 0.03))).moved(z=b.neck - between(rng, 0.1, 0.2))
            paints.append((stripe, plain(rng)))
        if chance(rng, 0.5):
            paints.append((Box((9.0, 9.0, 0.013)).moved(z=waist - 0.025), dark(rng)))
        self.trunk_paints = paints
        self.trunk_part = loft(sections, 28, between(rng, 0.75, 1.0))

    def _finish_trunk(self) -> None:
        self._put(self.trunk_part, Coat(self.clothes.shirt, tuple(self.trunk_paints)), self._along_spine)

    def _arms(self, rng: Rng) -> None:
        b, c = self.build, self.clothes
        wide = (1 + c.loose) if c.sleeve > 1 else 1.0
        top, elbow, wrist = 0.045 * (0.4 + 0.6 * b.girth), 0.034 * (0.5 + 0.5 * b.girth) * wide, 0.026 * wide
        for side, sign in (("right", -1), ("left", 1)):
            at, mid, end = (self.places[f"{side}_{name}"] for name in ("arm", "forearm", "hand"))
            here = (0.0, at[1], 0.0)
            cuff = self._above(at[2] - c.sleeve * (at[2] - mid[2]))
            upper = Coat(c.shirt) if c.sleeve >= 1 else Coat(c.flesh, ((cuff, c.shirt),) if c.sleeve else ())
            cuff = self._above(mid[2] - (c.sleeve - 1) * (mid[2] - end[2]))
            lower = Coat(c.shirt) if c.sleeve >= 2 else Coat(c.flesh, ((cuff, c.shirt),) if c.sleeve > 1 else ())
            self._put(moved(limb(at[2], mid[2], (top, 0.95 * top, elbow)), here), upper, f"{side}_arm")
            forearm = limb(mid[2], end[2], (elbow, 1.02 * elbow, wrist))
            self._put(moved(forearm, here), lower, f"{side}_forearm")
            palm = moved(superellipsoid(0.8, 0.8, (0.03, 0.02, 0.042), 10, 14), (0.0, at[1], end[2] - 0.032))
            thumb = superellipsoid(1.0, 1.0, (0.012, 0.012, 0.026), 6, 10)
            thumb = moved(thumb, (0.03, at[1] - sign * 0.006, end[2] - 0.022))
            self._put(palm, Coat(c.gloves), f"{side}_hand")
            self._put(thumb, Coat(c.gloves), f"{side}_hand")

    def _head(self, rng: Rng) -> None:
        b, c = self.build, self.clothes
        self.head = Head(b.head, b.neck + 0.035 + 0.9 * b.head)
        s, z = self.head.size, self.head.z
        neck = limb(b.neck + 0.04, b.neck - 0.03, (0.032 + 0.1 * s, 0.034 + 0.1 * s), 12)
        self._put(neck, Coat(c.flesh), "neck")
        skull = loft(
            [(z - 1.08 * s, 0.3 * s, 0.3 * s, 0.1 * s), (z - 0.95 * s, 0.6 * s, 0.52 * s, 0.08 * s),
             (z - 0.6 * s, 0.82 * s, 0.72 * s, 0.04 * s), (z - 0.2 * s, 0.93 * s, 0.82 * s, 0.0),
             (z + 0.25 * s, 0.97 * s, 0.86 * s, 0.0), (z + 0.65 * s, 0.85 * s, 0.76 * s, -0.02 * s),
             (z + 0.92 * s, 0.58 * s, 0.52 * s, -0.03 * s), (z + 1.08 * s, 0.2 * s, 0.2 * s, -0.03 * s)], 22,
        )  # fmt: skip
        self._put(skull, face(rng, self.head, c.flesh, c.hair), "neck")
        nose = moved(superellipsoid(1.0, 1.0, (0.2 * s, 0.12 * s, 0.2 * s), 6, 10), (0.95 * s, 0.0, z - 0.08 * s))
        self._put(nose, Coat(c.flesh), "neck")
        for sign in (-1, 1):
            ear = moved(superellipsoid(1.0, 1.0, (0.16 * s, 0.08 * s, 0.22 * s), 6, 10), (0.0, sign * 0.86 * s, z))
            self._put(ear, Coat(c.flesh), "neck")
        hatted = chance(rng, 0.45)
        self._put_all(wardrobe.hair(rng, self.head, c.hair), "neck")
        if hatted:
            self._put_all(wardrobe.hat(rng, self.head), "neck")

    def _extras(self, rng: Rng) -> None:
        b, c = self.build, self.clothes
        waist = self.places["spine"][2]
        if chance(rng, 0.25):
            hem = between(rng, 0.25, 0.8) * b.leg
            cloth_of = c.shirt if chance(rng, 0.5) else cloth(rng)
            part, coat = wardrobe.skirt(rng, waist - 0.015, hem, self.waist_half, cloth_of)
            self._put(part, coat, self._with_legs)
        back = -self.deep
        worn = pick(rng, ["none", "none", "cape", "backpack"])
        if worn == "cape":
            hem = between(rng, 0.12, 0.55)
            part, coat = wardrobe.cape(rng, b.neck - 0.01, hem, 0.85 * b.shoulders, back)
            self._put(part, coat, self._along_spine)
        elif worn == "backpack":
            low, high = waist + 0.0, b.neck - between(rng, 0.0, 0.05)
            self._put_all(wardrobe.backpack(rng, back, low, high, b.shoulders), "spine")
            strap = dark(rng)
            for sign in (-1, 1):
                band = Box((9.0, 0.016, 0.12)).moved(0.0, sign * 0.6 * b.shoulders, b.neck - 0.1)
                self.trunk_paints.append((band, strap))
        self._finish_trunk()
        for side in ("right", "left"):
            if chance(rng, 0.3):
                x, y, z = self.places[f"{side}_hand"]
                self._put_all(wardrobe.held(rng, (x + 0.01, y, z - 0.045)), f"{side}_hand")

    # --- helpers ---

    @staticmethod
    def _above(z: float) -> Solid:
        return Box((9.0, 9.0, 5.0)).moved(z=z + 5.0)

    @staticmethod
    def _below(z: float) -> Solid:
        return Box((9.0, 9.0, 5.0)).moved(z=z - 5.0)

    def _figure(self) -> Figure:
        parents = []
        for name in PARTS:
            side, _, kind = name.rpartition("_")
            above = _PARENT[kind]
            own = f"{side}_{above}"
            parents.append(-1 if above is None else PARTS.index(own if own in PARTS else above))
        places = np.array([self.places[name] for name in PARTS])
        landmarks, carriers = self._landmarks()
        return figure_of(self.pieces, places, parents, {name: k for k, name in enumerate(PARTS)}, landmarks, carriers)

    def _landmarks(self) -> tuple[Float[np.ndarray, "18 3"], np.ndarray]:
        """COCO's joints and the parts they move with."""
        s, z = self.head.size, self.head.z
        at: dict[str, tuple[tuple[float, float, float], str]] = {
            "nose": ((1.05 * s, 0.0, z - 0.08 * s), "neck"),
            "neck": ((0.0, 0.0, self.places["right_arm"][2]), "spine"),
        }
        for side, sign in (("right", -1), ("left", 1)):
            at[f"{side}_eye"] = ((0.88 * s, sign * 0.36 * s, z + 0.15 * s), "neck")
            at[f"{side}_ear"] = ((0.0, sign * 0.86 * s, z), "neck")
            for joint, part, carrier in (
                ("shoulder", "arm", "spine"), ("elbow", "forearm", "arm"), ("wrist", "hand", "forearm"),
                ("hip", "thigh", "pelvis"), ("knee", "shin", "thigh"), ("ankle", "foot", "shin"),
            ):  # fmt: skip
                owner = carrier if carrier in ("spine", "pelvis") else f"{side}_{carrier}"
                at[f"{side}_{joint}"] = (self.places[f"{side}_{part}"], owner)
        landmarks, carriers = np.zeros((len(INDEX), 3)), np.zeros(len(INDEX), int)
        for name, index in INDEX.items():
            landmarks[index], carriers[index] = at[name][0], PARTS.index(at[name][1])
        return landmarks, carriers
