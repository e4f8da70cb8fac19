"""People, four-legged animals, birds and fish. Faces look along +x."""

from __future__ import annotations

import math

import numpy as np

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, add, cut, paint
from pipeline.training.procedural.furniture import block
from pipeline.training.procedural.outlines import Lathe, curved, cylinder, rod
from pipeline.training.procedural.palette import (
    any_colour,
    bark,
    between,
    chance,
    cloth,
    dark,
    fur,
    metal,
    mostly,
    neutral,
    pick,
    plain,
    shade,
    skin,
    vivid,
)
from pipeline.training.procedural.solids import Ball, Blend, Box, Real, Solid, Superquadric, Triple
from pipeline.training.procedural.textures import Rng


def _eyes(head: Triple, size: Real, ahead: Real, apart: Real, up: Real) -> list[CsgStep]:
    """Dark spots on the front of a head, on both sides."""
    spot = Ball(0.2 * size).moved(head[0] + ahead * size, apart * size, head[2] + up * size)
    return [paint(spot.mirrored("y"), Material((0.05, 0.05, 0.06)))]


def figure(rng: Rng) -> CsgModel:
    """A standing person, robot or snowman."""
    kind = pick(rng, ["person", "person", "person", "person", "robot", "snowman"])
    if kind == "snowman":
        return _snowman(rng)
    if kind == "robot":
        return _robot(rng)
    flesh = skin(rng) if chance(rng, 0.85) else plain(rng)
    shirt, trousers, shoes = (
        mostly(rng, cloth(rng)),
        mostly(rng, cloth(rng)),
        dark(rng) if chance(rng, 0.6) else plain(rng),
    )
    girth, childish = between(rng, 0.85, 1.3), between(rng, 0.0, 1.0)
    leg, torso, head = 0.5 - 0.14 * childish, 0.34, 0.08 + 0.05 * childish
    hip, shoulder = 0.06 * girth, 0.12 * girth
    waist, neck = leg + 0.04, leg + torso
    steps: list[CsgStep] = []
    stride, apart = (between(rng, 0.0, 0.13) if chance(rng, 0.5) else 0.0), between(rng, 0.0, 0.06)
    for side in (-1, 1):
        foot = (side * stride, side * (hip + apart), 0.045)
        knee = (0.5 * side * stride + 0.02, side * (hip + 0.6 * apart), 0.5 * leg)
        limb = curved([(0, side * hip, leg), knee, foot], [0.065 * girth, 0.055, 0.042], 6)
        steps.append(add(limb, trousers if chance(rng, 0.8) else flesh))
        shoe = Superquadric((0.085, 0.042, 0.045), 0.7, 0.8).moved(foot[0] + 0.035, foot[1], 0.042)
        steps.append(add(shoe & block((-1, -1, 0), (1, 1, 1)), shoes))
    trunk = Blend(
        (
            rod((0, -hip, waist), (0, hip, waist), 0.075 * girth),
            rod((0, -shoulder + 0.03, neck - 0.06), (0, shoulder - 0.03, neck - 0.06), 0.062 * girth),
            rod((0.01, 0, waist), (0, 0, neck - 0.08), 0.08 * girth),
        ),
        0.06,
    )
    steps += [add(trunk, shirt), paint(block((-1, -1, 0), (1, 1, waist - 0.01)), trousers)]
    pose = pick(rng, ["down", "down", "out", "up", "hips", "wave"])
    for side in (-1, 1):
        joint = (0.0, side * (shoulder + 0.01), neck - 0.06)
        now = "down" if pose == "wave" and side < 0 else ("up" if pose == "wave" else pose)
        swing = -0.6 * side * stride
        elbow, hand = {
            "down": (
                (-0.02 + swing, side * (shoulder + 0.07), neck - 0.2),
                (0.03 + swing, side * (shoulder + 0.09), neck - 0.34),
            ),
            "out": ((0, side * (shoulder + 0.15), neck - 0.07), (0, side * (shoulder + 0.3), neck - 0.06)),
            "up": ((0, side * (shoulder + 0.13), neck + 0.0), (0.03, side * (shoulder + 0.17), neck + 0.15)),
            "hips": ((-0.03, side * (shoulder + 0.14), neck - 0.18), (0.02, side * (hip + 0.08), waist + 0.03)),
        }[now]
        steps.append(
            add(curved([joint, elbow, hand], [0.045 * girth, 0.036, 0.03], 6), shirt if chance(rng, 0.75) else flesh)
        )
        steps.append(add(Ball(0.042).moved(*hand), flesh))
    if chance(rng, 0.25):
        hem = between(rng, 0.25, 0.85) * leg
        skirt = Lathe(
            ((0, hem), (between(rng, 0.14, 0.22) + 0.6 * stride, hem), (0.08 * girth, waist + 0.04), (0, waist + 0.05))
        )
        steps.append(add(skirt, cloth(rng)))
    top = neck + 0.04 + head
    steps += [
        add(rod((0, 0, neck - 0.04), (0, 0, neck + 0.05), 0.035), flesh),
        add(Superquadric((0.95 * head, 0.85 * head, 1.1 * head)).moved(0.005, 0, top), flesh),
        *_eyes((0, 0, top), head, 0.9, 0.35, 0.15),
        add(Ball(0.22 * head).moved(0.95 * head, 0, top - 0.05 * head), flesh),
    ]
    hair = Material(shade(any_colour(rng), between(rng, 0.2, 1.0)))
    style = pick(rng, ["short", "long", "hat", "cap", "bald", "bun"])
    if style in ("short", "long", "bun"):
        scalp = Superquadric((1.02 * head, 0.95 * head, 1.15 * head)).moved(-0.12 * head, 0, top + 0.1 * head)
        steps.append(add(scalp - block((0.25 * head, -1, 0), (1, 1, top + 0.45 * head)), hair))
        if style == "long":
            steps.append(add(rod((-0.5 * head, 0, top), (-0.6 * head, 0, neck - 0.08), 0.75 * head, 0.6 * head), hair))
        elif style == "bun":
            steps.append(add(Ball(0.45 * head).moved(-0.6 * head, 0, top + 1.05 * head), hair))
    elif style != "bald":
        brim = 1.6 * head if style == "hat" else 0.9 * head
        felt = plain(rng)
        steps.append(
            add(
                cylinder(brim, 0.035, rounding=0.01).moved(0.0 if style == "hat" else 0.5 * head, 0, top + 0.35 * head),
                felt,
            )
        )
        steps.append(
            add(cylinder(0.98 * head, between(rng, 0.7, 1.3) * head, 0.75 * head).moved(z=top + 0.35 * head), felt)
        )
    return CsgModel(tuple(steps))


def _robot(rng: Rng) -> CsgModel:
    """A robot of boxes and cylinders."""
    shell, joint, face = mostly(rng, pick(rng, [metal, plain])(rng)), metal(rng), plain(rng)
    leg, torso, wide = between(rng, 0.2, 0.4), between(rng, 0.25, 0.4), between(rng, 0.13, 0.22)
    deep, soft = between(rng, 0.1, 0.16), between(rng, 0.005, 0.04)
    head = between(rng, 0.08, 0.13)
    top = leg + torso
    steps = [
        add(block((-deep, -wide, leg), (deep, wide, top), soft), shell),
        add(rod((0, 0.55 * wide, 0.05), (0, 0.55 * wide, leg + 0.02), between(rng, 0.035, 0.06)), joint),
        add(block((-0.08, 0.55 * wide - 0.06, 0), (0.13, 0.55 * wide + 0.06, 0.08), 0.5 * soft), shell),
        add(cylinder(0.05, 0.1).moved(z=top - 0.02), joint),
    ]
    where = top + 0.05
    skull = Box((head, 1.15 * head, head), min(soft, 0.5 * head)) if chance(rng, 0.6) else Ball(1.15 * head)
    steps.append(add(skull.moved(z=where + head), shell))
    eye = Ball(0.25 * head).moved(head, 0.5 * head, where + 1.2 * head)
    steps.append(add(eye, Material(vivid(rng))))
    steps.append(paint(Box((0.05, 0.5 * head, 0.1 * head)).moved(head, 0, where + 0.5 * head), dark(rng)))
    if chance(rng, 0.6):
        steps.append(add(rod((0, 0, where + head), (0, 0, where + 2.7 * head), 0.02), joint))
        steps.append(add(Ball(0.035).moved(0, 0, where + 2.7 * head), Material(vivid(rng))))
    elbow = (0.0, wide + 0.09, top - between(rng, 0.0, 0.2))
    hand = (between(rng, 0.0, 0.2), wide + 0.1, elbow[2] - between(rng, 0.05, 0.2))
    steps.append(add(rod((0, wide - 0.02, top - 0.07), elbow, 0.038) | rod(elbow, hand, 0.034), joint))
    steps.append(add(Ball(0.055).moved(*hand), shell))
    steps.append(
        paint(block((deep - 0.02, -0.6 * wide, leg + 0.3 * torso), (deep + 0.02, 0.6 * wide, top - 0.2 * torso)), face)
    )
    for k in range(int(rng.integers(0, 3))):
        steps.append(add(Ball(0.028).moved(deep, 0.3 * wide * k, leg + 0.5 * torso), Material(vivid(rng))))
    return CsgModel(tuple(steps), mirror=True)


def _snowman(rng: Rng) -> CsgModel:
    """Balls on top of each other, with a nose, buttons and a hat."""
    white = Material((0.95, 0.96, 0.98)) if chance(rng, 0.7) else plain(rng)
    size, z = between(rng, 0.24, 0.34), 0.0
    steps: list[CsgStep] = []
    for _ in range(int(rng.integers(2, 4))):
        steps.append(add(Ball(size).moved(z=z + 0.85 * size) & block((-1, -1, 0), (1, 1, 3)), white))
        z += 1.55 * size
        last, size = size, size * between(rng, 0.65, 0.8)
        steps.append(paint(Ball(0.03).moved(last * 0.97, 0, z - 0.75 * last), dark(rng)))
    head = z - 0.7 * last
    steps += _eyes((0, 0, head), last, 0.85, 0.35, 0.3)
    steps.append(
        add(rod((0.9 * last, 0, head), (last + 0.13, 0, head - 0.01), 0.04, 0.015), Material((0.95, 0.5, 0.1)))
    )
    if chance(rng, 0.7):
        felt = dark(rng) if chance(rng, 0.5) else plain(rng)
        brim = cylinder(1.05 * last, 0.04).moved(z=head + 0.65 * last)
        steps += [add(brim, felt), add(cylinder(0.7 * last, 1.1 * last).moved(z=head + 0.65 * last), felt)]
    if chance(rng, 0.6):
        scarf = Lathe(((0.4 * last, -0.04), (0.85 * last, -0.04), (0.85 * last, 0.05), (0.4 * last, 0.05)), 0.015)
        steps.append(add(scarf.moved(z=head - 0.8 * last), cloth(rng)))
    low = head - 1.5 * last
    steps.append(add(rod((0, 0.5 * last, low), (0, 2.3 * last, low + 0.25), 0.022), bark(rng)))
    return CsgModel(tuple(steps), mirror=True)


def animal(rng: Rng) -> CsgModel:
    """A four-legged animal between cat, dog, cow, horse, elephant, giraffe and pig."""
    coat = mostly(rng, fur(rng))
    other = fur(rng) if chance(rng, 0.4) else coat
    length, girth = between(rng, 0.2, 0.36), between(rng, 0.1, 0.19)
    leg, thick = between(rng, 0.16, 0.48), between(rng, 0.032, 0.075)
    head = between(rng, 0.08, 0.14)
    neck = between(rng, 0.02, 0.28) if chance(rng, 0.75) else between(rng, 0.3, 0.6)
    back = leg + 0.75 * girth
    crown = (length + 0.25 * neck + 0.5 * head, 0.0, back + 0.25 * girth + neck)
    body = Blend(
        (
            Superquadric((0.62 * length, 0.95 * girth, girth)).moved(0.42 * length, 0, back),
            Superquadric((0.62 * length, girth, 0.92 * girth)).moved(-0.42 * length, 0, back),
            rod(
                (0.75 * length, 0, back + 0.2 * girth), (crown[0] - 0.3 * head, 0, crown[2]), 0.55 * girth, 0.55 * head
            ),
        ),
        0.1,
    )
    steps: list[CsgStep] = [add(body, coat)]
    if chance(rng, 0.35):
        steps.append(paint(block((-2, -1, 0), (2, 1, leg + 0.3 * girth)), other))
    lift = between(rng, -0.04, 0.06)
    for x, bend in ((0.7 * length, 0.03), (-0.72 * length, -0.05)):
        y = 0.55 * girth
        limb = curved(
            [(x, y, back), (x + bend, y, 0.5 * leg), (x + lift * np.sign(x), y, 0.9 * thick)],
            [1.5 * thick, thick, 0.9 * thick],
            6,
        )
        steps.append(add(limb, coat))
        hoof = Superquadric((1.4 * thick, 1.15 * thick, 0.8 * thick), 0.7).moved(
            x + lift * np.sign(x) + 0.4 * thick, y, 0.72 * thick
        )
        steps.append(add(hoof, other if chance(rng, 0.6) else dark(rng)))
    snout = between(rng, 0.5, 1.9) * head
    steps += [
        add(Superquadric((head, 0.85 * head, 0.9 * head)).moved(*crown), coat),
        add(
            rod(crown, (crown[0] + snout, 0, crown[2] - 0.35 * head), 0.65 * head, between(rng, 0.35, 0.6) * head),
            other,
        ),
        paint(Ball(0.3 * head).moved(crown[0] + snout + 0.5 * head, 0, crown[2] - 0.25 * head), dark(rng)),
        *_eyes(crown, head, 0.62, 0.62, 0.38),
    ]
    ears = pick(rng, ["up", "flop", "round", "wide"])
    at = (crown[0] - 0.2 * head, 0.6 * head, crown[2] + 0.65 * head)
    if ears == "up":
        steps.append(
            add(rod(at, (at[0], at[1] + 0.15 * head, at[2] + between(rng, 0.5, 1.6) * head), 0.36 * head, 0.022), other)
        )
    elif ears == "flop":
        steps.append(
            add(Superquadric((0.4 * head, 0.24 * head, 0.85 * head)).moved(at[0], 0.95 * head, crown[2]), other)
        )
    elif ears == "round":
        steps.append(add(Superquadric((0.25 * head, 0.45 * head, 0.45 * head)).moved(*at), other))
    else:
        steps.append(
            add(
                Superquadric((0.24 * head, 0.8 * head, 0.7 * head)).moved(
                    at[0] - 0.2 * head, 1.3 * head, crown[2] + 0.15 * head
                ),
                other,
            )
        )
    if chance(rng, 0.2):
        tusk = curved(
            [
                (crown[0] + 0.5 * snout, 0, crown[2] - 0.4 * head),
                (crown[0] + snout + 0.6 * head, 0, crown[2] - head),
                (crown[0] + snout + 0.5 * head, 0, max(0.12, crown[2] - 3 * head)),
            ],
            [0.45 * head, 0.35 * head, 0.25 * head],
            8,
        )
        steps.append(add(tusk, coat))
    elif chance(rng, 0.25):
        horn = curved(
            [
                (at[0], 0.4 * head, at[2]),
                (at[0] + 0.1 * head, head, at[2] + 0.6 * head),
                (at[0], 0.9 * head, at[2] + 1.4 * head),
            ],
            [0.03, 0.02],
            6,
        )
        steps.append(add(horn, Material(neutral(rng))))
    if chance(rng, 0.3) and neck > 0.12:
        mane = rod((0.6 * length, 0, back + girth), (crown[0] - 0.7 * head, 0, crown[2] + 0.7 * head), 0.4 * head)
        steps.append(add(mane, dark(rng) if chance(rng, 0.5) else other))
    rear = (-0.95 * length, 0.0, back + 0.4 * girth)
    drop, out = between(rng, -0.3, 0.25), between(rng, 0.06, 0.2)
    tail = [rear, (rear[0] - 0.7 * out, 0, rear[2] + 0.3 * drop), (rear[0] - out, 0, max(rear[2] + drop, 0.08))]
    steps.append(add(curved(tail, [between(rng, 0.024, 0.05), between(rng, 0.02, 0.055)], 8), other))
    return CsgModel(tuple(steps), mirror=True)


def bird(rng: Rng) -> CsgModel:
    """A standing bird: sparrow, duck, flamingo, penguin, owl and between."""
    plumage, second = mostly(rng, fur(rng)) if chance(rng, 0.4) else mostly(rng, plain(rng)), plain(rng)
    bill = Material((0.95, 0.6, 0.1)) if chance(rng, 0.5) else dark(rng)
    length, girth, tilt = between(rng, 0.2, 0.32), between(rng, 0.12, 0.2), between(rng, 0.1, 1.3)
    leg, head = between(rng, 0.07, 0.45), between(rng, 0.08, 0.13)
    neck = between(rng, 0.0, 0.1) if chance(rng, 0.6) else between(rng, 0.15, 0.4)
    reach = math.hypot(length * math.sin(tilt), girth * math.cos(tilt))
    back = leg + reach - 0.02
    chest = (0.75 * length * math.cos(tilt), 0.0, back + 0.75 * length * math.sin(tilt))
    crown = (chest[0] + 0.06 + 0.2 * neck, 0.0, chest[2] + 0.07 + neck)

    def posed(solid: Solid) -> Solid:
        return solid.turned("y", -tilt).moved(z=back)

    body = Blend(
        (
            posed(Superquadric((length, girth, girth))),
            rod(chest, crown, 0.55 * girth, 0.7 * head),
            Ball(head).moved(*crown),
        ),
        0.07,
    )
    steps: list[CsgStep] = [add(body, plumage)]
    if chance(rng, 0.5):
        steps.append(
            paint(posed(Superquadric((0.95 * length, 0.7 * girth, girth)).moved(0.1, 0, -0.55 * girth)), second)
        )
    wing = posed(
        Superquadric((0.75 * length, 0.05, 0.65 * girth), 0.8)
        .turned("x", -0.25)
        .moved(-0.1 * length, 0.95 * girth, 0.1 * girth)
    )
    if chance(rng, 0.2):
        wing = posed(
            Superquadric((0.45 * length, 0.3, 0.03), 0.8).turned("x", 0.35).moved(0, girth + 0.15, 0.3 * girth)
        )
    steps.append(add(wing, second if chance(rng, 0.6) else plumage))
    fan = posed(Superquadric((0.16, between(rng, 0.04, 0.1), 0.026), 0.6).moved(-length - 0.06, 0, 0.03))
    steps.append(add(fan, second))
    beak = between(rng, 0.06, 0.2)
    tip = (crown[0] + head + beak, 0, crown[2] - between(rng, 0.0, 0.06))
    shape: Solid = rod((crown[0] + 0.6 * head, 0, crown[2]), tip, 0.045, 0.02)
    if chance(rng, 0.25):
        shape = Superquadric((0.5 * beak + 0.03, 0.06, 0.028)).moved(crown[0] + head + 0.35 * beak, 0, crown[2] - 0.02)
    steps += [add(shape, bill), *_eyes(crown, head, 0.55, 0.68, 0.35)]
    if chance(rng, 0.3):
        steps.append(
            add(
                rod((crown[0], 0, crown[2] + 0.8 * head), (crown[0] - 0.09, 0, crown[2] + 1.6 * head), 0.03, 0.02),
                second,
            )
        )
    foot = 0.45 * girth
    steps.append(add(rod((0, foot, 0.03), (-0.01, foot, back), 0.022), bill))
    steps.append(add(Superquadric((0.08, 0.055, 0.028), 0.7).moved(0.035, foot, 0.026), bill))
    return CsgModel(tuple(steps), mirror=True)


def fish(rng: Rng) -> CsgModel:
    """A fish, upright on its belly fins, or a whale."""
    scales, second = mostly(rng, plain(rng)), plain(rng)
    length, tall, wide = between(rng, 0.32, 0.5), between(rng, 0.1, 0.26), between(rng, 0.08, 0.14)
    level = tall + 0.05
    body = Superquadric((length, wide, tall), 1.0, between(rng, 0.9, 1.2)).moved(z=level)
    tail = rod((-0.75 * length, 0, level), (-length - 0.1, 0, level), 0.45 * wide, 0.03)
    steps: list[CsgStep] = [add(Blend((body, tail), 0.05), scales)]
    if chance(rng, 0.6):
        steps.append(paint(block((-2, -1, 0), (2, 1, level - 0.3 * tall)), second))
    fluke = Superquadric((0.05, 0.024, between(rng, 0.13, 0.24)), 0.8)
    for side in (-1, 1):
        steps.append(add(fluke.turned("y", side * 0.6).moved(-length - 0.12, 0, level + side * 0.07), second))
    fin = Superquadric((between(rng, 0.1, 0.28), 0.024, between(rng, 0.07, 0.16)), 0.9)
    steps.append(add(fin.turned("y", -0.3).moved(-0.05, 0, level + tall), second))
    steps.append(add(fin.stretched(0.4, 1, 0.5).moved(0.0, 0.4 * wide, 0.07 + 0.25 * tall).turned("x", -0.2), second))
    side_fin = Superquadric((0.12, 0.08, 0.024)).turned("z", 0.6).turned("x", -0.5)
    steps.append(add(side_fin.moved(0.3 * length, wide + 0.01, level - 0.2 * tall), second))
    eye = (0.68 * length, 0.0, level + 0.25 * tall)
    steps.append(add(Ball(0.035).moved(eye[0], 0.72 * wide, eye[2]), Material(neutral(rng))))
    steps.append(paint(Ball(0.03).moved(eye[0] + 0.01, 0.72 * wide + 0.04, eye[2]), dark(rng)))
    steps.append(cut(Box((0.09, 1, 0.012)).turned("y", 0.2).moved(length, 0, level - 0.12 * tall), dark(rng)))
    return CsgModel(tuple(steps), mirror=True)
