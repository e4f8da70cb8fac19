"""Objects made from a seed: solids, triangle meshes of primitives, patterns, named families of things.

:func:`generate` and :func:`generate_any` make the rich families of :data:`THINGS`, each one closed mesh;
:func:`random_object` makes the simple ones of :data:`FAMILIES`, of a few primitives that overlap.
"""

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, Painted, add, cut, paint
from pipeline.training.procedural.generate import THINGS, choose, generate, generate_any, meshed
from pipeline.training.procedural.polygonise import is_closed, polygonise
from pipeline.training.procedural.primitives import (
    Part,
    assemble,
    box,
    cylinder,
    lathe,
    moved,
    rotation,
    superellipsoid,
    torus,
)
from pipeline.training.procedural.simple import FAMILIES, random_object
from pipeline.training.procedural.textures import (
    Colour,
    Pattern,
    Recolour,
    Rng,
    random_axes,
    random_colour,
    random_pattern,
    random_recolour,
)

__all__ = [
    "FAMILIES",
    "THINGS",
    "Colour",
    "CsgModel",
    "CsgStep",
    "Material",
    "Painted",
    "Part",
    "Pattern",
    "Recolour",
    "Rng",
    "add",
    "assemble",
    "box",
    "choose",
    "cut",
    "cylinder",
    "generate",
    "generate_any",
    "is_closed",
    "lathe",
    "meshed",
    "moved",
    "paint",
    "polygonise",
    "random_axes",
    "random_colour",
    "random_object",
    "random_pattern",
    "random_recolour",
    "rotation",
    "superellipsoid",
    "torus",
]
