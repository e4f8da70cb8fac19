"""The named families of objects, and objects made from a name and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pipeline.training.procedural import craft, creatures, furniture, plants, things, tools, vehicles, vessels
from pipeline.training.procedural.csg import CsgModel, Painted
from pipeline.training.procedural.polygonise import polygonise
from pipeline.training.procedural.solids import Real
from pipeline.training.procedural.textures import Rng
from scene.errors import InputError
from scene.mesh import ColouredMesh

Family = Callable[[Rng], CsgModel]

THINGS: dict[str, Family] = {
    "chair": furniture.chair,
    "sofa": furniture.sofa,
    "table": furniture.table,
    "cabinet": furniture.cabinet,
    "lamp": furniture.lamp,
    "mug": vessels.mug,
    "bottle": vessels.bottle,
    "vase": vessels.vase,
    "bowl": vessels.bowl,
    "teapot": vessels.teapot,
    "barrel": vessels.barrel,
    "shoe": things.shoe,
    "car": vehicles.car,
    "truck": vehicles.truck,
    "plane": craft.plane,
    "boat": craft.boat,
    "rocket": craft.rocket,
    "plant": plants.plant,
    "tree": plants.tree,
    "figure": creatures.figure,
    "animal": creatures.animal,
    "bird": creatures.bird,
    "fish": creatures.fish,
    "house": things.house,
    "hammer": tools.hammer,
    "tool": tools.tool,
    "blob": things.blob,
    "composition": things.composition,
}


def generate(name: str, seed: int, *, faces: int = 14_000) -> ColouredMesh:
    """An object of a family, the same for the same seed.

    Args:
        name: a key of :data:`THINGS`.
        seed: any non-negative integer.
        faces: about how many faces.

    Returns:
        A closed, normalised mesh (bounding sphere 0.6, z up, front towards +x) whose colours are a solid texture.

    Raises:
        InputError: no family of this name.
    """
    if name not in THINGS:
        raise InputError(f"no family of objects is called {name!r}", fix=f"Families are {', '.join(THINGS)}.")
    return meshed(THINGS[name](np.random.default_rng([seed, *name.encode()])), faces)


def generate_any(seed: int, weights: Mapping[str, Real] | None = None, *, faces: int = 14_000) -> ColouredMesh:
    """An object of a family that the seed chooses.

    Args:
        seed: any non-negative integer.
        weights: how often each family is chosen, relative to the others; by default all of :data:`THINGS` alike.
        faces: about how many faces.

    Raises:
        InputError: a weight is of no family or negative, or all are zero.
    """
    return generate(choose(seed, weights), seed, faces=faces)


def choose(seed: int, weights: Mapping[str, Real] | None = None) -> str:
    """The family that a seed chooses; see :func:`generate_any`."""
    weights = dict.fromkeys(THINGS, 1.0) if weights is None else weights
    unknown = set(weights) - set(THINGS)
    if unknown:
        raise InputError(f"no family of objects is called {min(unknown)!r}", fix=f"Families are {', '.join(THINGS)}.")
    names = sorted(weights)
    shares = np.array([weights[name] for name in names], float)
    if not len(shares) or not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise InputError("the weights of families must not be negative, and not all zero")
    return names[int(np.random.default_rng(seed).choice(len(names), p=shares / shares.sum()))]


def meshed(model: CsgModel, faces: int = 14_000) -> ColouredMesh:
    """The normalised mesh of a model, coloured by it."""
    vertices, triangles = polygonise(model, faces)
    paint = Painted(model)
    grey = np.full(vertices.shape, 0.7, np.float32)
    colours = np.round(paint(vertices.astype(np.float32), grey) * 255).astype(np.uint8)
    mesh = ColouredMesh(vertices.astype(np.float32), triangles.astype(np.int32), colours, solid=(paint,))
    return mesh.normalised()
