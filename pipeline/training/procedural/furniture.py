"""Chairs, sofas, tables, cabinets and lamps. Fronts face +x, feet stand on z = 0."""

from __future__ import annotations

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, add, cut, paint
from pipeline.training.procedural.outlines import Extrusion, Lathe, curved, cylinder, oval, rod, smooth_profile
from pipeline.training.procedural.palette import between, chance, cloth, dark, metal, mostly, pick, plain, wild, wood
from pipeline.training.procedural.solids import Box, Real, Solid, Union
from pipeline.training.procedural.textures import Rng


def block(low: tuple[Real, Real, Real], high: tuple[Real, Real, Real], rounding: Real = 0.0) -> Solid:
    """A box between two corners."""
    x, y, z = ((b - a) / 2 for a, b in zip(low, high, strict=True))
    middle = ((a + b) / 2 for a, b in zip(low, high, strict=True))
    return Box((x, y, z), min(rounding, 0.95 * min(x, y, z))).moved(*middle)


def _legs(rng: Rng, x: Real, y: Real, height: Real, thick: Real, rung: Real | None = None) -> Solid:
    """Two legs on the side of positive y: square, round, or splayed; perhaps joined by rungs at a height."""
    style, splay = pick(rng, ["square", "round", "splayed"]), between(rng, 0.03, 0.1)
    legs: list[Solid] = []
    for side in (-1, 1):
        if style == "square":
            legs.append(block((side * x - thick, y - thick, 0), (side * x + thick, y + thick, height), 0.3 * thick))
        elif style == "round":
            legs.append(cylinder(thick, height, rounding=0.2 * thick).moved(side * x, y))
        else:
            foot, top = (side * (x + splay), y + splay, 0.9 * thick), (side * (x - thick), y - thick, height - thick)
            legs.append(rod(foot, top, 0.9 * thick, 1.3 * thick))
    if rung is not None:
        out = splay - (splay + thick) * rung / height if style == "splayed" else 0.0
        legs.append(rod((-x - out, y + out, rung), (x + out, y + out, rung), 0.02))
        legs.append(rod((0, 0, rung), (0, y + out, rung), 0.02))
    return Union(tuple(legs))


def _pedestal(rng: Rng, reach: Real, height: Real) -> Solid:
    """A column on a disc or on a star of feet."""
    column = between(rng, 0.03, 0.06)
    stem = cylinder(column, height)
    if chance(rng, 0.5):
        return stem | cylinder(reach, between(rng, 0.03, 0.06), 0.7 * reach if chance(rng, 0.4) else None)
    feet = int(rng.integers(3, 6))
    return stem | rod((0, 0, 0.09), (reach, 0, 0.028), 0.03, 0.028).around(feet)


def chair(rng: Rng) -> CsgModel:
    """A chair, armchair or stool."""
    frame, seat = mostly(rng, pick(rng, [wood, wood, metal, plain])(rng)), mostly(rng, pick(rng, [cloth, wood])(rng))
    x, y = between(rng, 0.2, 0.28), between(rng, 0.2, 0.3)
    back = pick(rng, ["slab", "slats", "ladder", "hoop", "shell", "none"])
    height = between(rng, 0.38, 0.5) if back != "none" else between(rng, 0.4, 0.75)
    thick, leg = between(rng, 0.03, 0.07), between(rng, 0.02, 0.035)
    round_seat = chance(rng, 0.35)
    if round_seat:
        y = x
    slab: Solid = block((-x, -y, height), (x, y, height + thick), between(rng, 0.005, 0.03))
    if round_seat:
        slab = cylinder(x, thick, rounding=0.3 * thick).moved(z=height)
    steps: list[CsgStep] = [add(slab, seat)]
    inset = 0.68 if round_seat else 1.0
    support = pick(rng, ["legs", "legs", "legs", "pedestal", "sled"])
    if support == "pedestal":
        steps.append(add(_pedestal(rng, between(rng, 0.2, 0.27), height + 0.01), frame))
    elif support == "sled":
        bars: Solid = rod((-x + leg, y - leg, leg), (x - leg, y - leg, leg), leg)
        for side in (-1, 1):
            end = side * (x - leg)
            bars = bars | rod((end, y - leg, leg), (end * inset, (y - leg) * inset, height + 0.01), leg)
        steps.append(add(bars, frame))
    else:
        rung = between(rng, 0.12, 0.25) if chance(rng, 0.35) else None
        steps.append(add(_legs(rng, (x - leg) * inset, (y - leg) * inset, height + 0.01, leg, rung), frame))
    if back == "shell" and not round_seat:
        back = "slab"
    if round_seat and back != "shell":
        steps += _back(rng, back, 0.72 * x, 0.68 * y, height + thick, leg, frame, seat)
    else:
        steps += _back(rng, back, x, y, height + thick, leg, frame, seat)
    if back != "none" and not round_seat and chance(rng, 0.35):
        arm = height + thick + between(rng, 0.16, 0.25)
        rest = block((-x, y - 0.02, arm), (0.8 * x, y + 0.05, arm + 0.045), 0.015)
        post = rod((0.6 * x, y, height + 0.5 * thick), (0.6 * x, y + 0.01, arm + 0.01), 0.022)
        steps += [add(rest | post, frame), add(rod((-x + 0.02, y, height), (-x + 0.02, y, arm), 0.025), frame)]
    if chance(rng, 0.3):
        pad = Box((0.85 * x, 0.85 * y, 0.035), 0.034).moved(0.02, 0, height + thick)
        steps.append(
            add(cylinder(0.85 * x, 0.06, rounding=0.028).moved(z=height + thick) if round_seat else pad, wild(rng))
        )
    return CsgModel(tuple(steps), mirror=True)


def _back(
    rng: Rng, kind: str, x: Real, y: Real, level: Real, leg: Real, frame: Material, seat: Material
) -> list[CsgStep]:
    """A backrest above the rear edge of a seat."""
    if kind == "none":
        return []
    tall, tilt = between(rng, 0.3, 0.6), -between(rng, 0.02, 0.25)
    thick = between(rng, 0.02, 0.035)

    def leaning(solid: Solid) -> Solid:
        return solid.turned("y", tilt).moved(-x + thick, 0, level - 0.02)

    if kind == "slab":
        start = pick(rng, [0.0, 0.0, 0.15])
        slab = block((-thick, -y, start), (thick, y, tall), thick * between(rng, 0.2, 0.9))
        post = block((-thick, 0.5 * y, -0.03), (thick, 0.5 * y + 0.06, start + 0.03))
        return [add(leaning(slab), seat), add(leaning(post), frame)]
    if kind == "shell":
        reach = min(x, y) + 0.02
        ring = Lathe(
            ((reach - 0.05, 0), (reach, 0), (reach * 1.08, tall * 0.7), (reach * 1.08 - 0.05, tall * 0.7)), 0.01
        )
        keep = block((-2, -2, -1), (-0.1 * x, 2, 2))
        return [add((ring & keep).moved(z=level - 0.025), seat)]
    if kind == "hoop":
        hoop = curved(
            [(0, y - leg, -0.02), (0, y - leg, 0.6 * tall), (0, 0.6 * y, tall), (0, -0.1, tall * 1.04)], [0.024], 10
        )
        steps = [add(leaning(hoop), frame)]
        for k in range(int(rng.integers(1, 4))):
            side = 0.25 * y * k
            steps.append(add(leaning(rod((0, side, -0.02), (0, 1.4 * side, 0.93 * tall), 0.018)), frame))
        return steps
    posts = rod((0, y - leg, -0.03), (0, y - leg, tall), 1.1 * leg)
    steps = [add(leaning(posts), frame)]
    if kind == "slats":
        rail = block((-0.02, -y + leg, 0.84 * tall), (0.02, y - leg, tall), 0.015)
        steps.append(add(leaning(rail), frame))
        count = int(rng.integers(2, 5))
        for k in range(count):
            side = (k + 0.25) / count * (y - 2 * leg)
            steps.append(add(leaning(block((-0.018, side - 0.018, -0.03), (0.018, side + 0.018, 0.9 * tall))), frame))
        return steps
    count = int(rng.integers(2, 5))
    for k in range(count):
        z = tall * (k + 1) / count - 0.04
        steps.append(add(leaning(block((-0.018, -y + leg, z - 0.035), (0.018, y - leg, z + 0.035), 0.012)), seat))
    return steps


def sofa(rng: Rng) -> CsgModel:
    """A sofa, armchair or bench seat with cushions."""
    fabric = mostly(rng, cloth(rng))
    x, y = between(rng, 0.3, 0.4), between(rng, 0.35, 0.9)
    low, seat, arm = between(rng, 0.06, 0.14), between(rng, 0.3, 0.4), between(rng, 0.08, 0.18)
    top, soft = seat + between(rng, 0.25, 0.45), between(rng, 0.02, 0.07)
    rest = seat + between(rng, 0.1, 0.25)
    steps = [
        add(block((-x, -y, low), (x, y, seat - 0.08), soft), fabric),
        add(block((-x, -y, low), (-x + 0.18, y, top), soft), fabric),
    ]
    if chance(rng, 0.85):
        if chance(rng, 0.4):
            steps.append(add(block((-x, y - 0.4 * arm, low), (x, y + 0.6 * arm, rest), soft), fabric))
            steps.append(add(rod((-x, y + 0.1 * arm, rest), (x - 0.05, y + 0.1 * arm, rest), 0.75 * arm), fabric))
        else:
            steps.append(add(block((-x, y - 0.4 * arm, low), (x, y + 0.6 * arm, rest), soft), fabric))
    cover = cloth(rng) if chance(rng, 0.4) else fabric
    count = max(1, round(y / 0.3))
    wide = 2 * (y - 0.42 * arm) / count
    for k in range((count + 1) // 2):
        # Cushions count from the middle outwards; the mirror makes the others.
        middle = (k + (0.0 if count % 2 else 0.5)) * wide
        half = wide / 2 + 0.003
        steps.append(
            add(block((-x + 0.1, middle - half, seat - 0.12), (x + 0.02, middle + half, seat + 0.05), 0.05), cover)
        )
        if chance(rng, 0.7):
            pillow = Box((0.09, half, between(rng, 0.12, 0.18)), 0.07).turned("y", -0.2)
            steps.append(add(pillow.moved(-x + 0.22, middle, seat + 0.17), cover))
    steps.append(add(_legs(rng, x - 0.07, y - 0.05, low + 0.05, 0.03), pick(rng, [wood, metal, dark])(rng)))
    return CsgModel(tuple(steps), mirror=True)


def table(rng: Rng) -> CsgModel:
    """A table or desk: round or square, on legs, a pedestal or panels, with a shelf or drawers."""
    top, frame = mostly(rng, wood(rng)), pick(rng, [wood, metal, plain])(rng)
    frame = top if chance(rng, 0.4) else frame
    x, y, height = between(rng, 0.25, 0.45), between(rng, 0.25, 0.7), between(rng, 0.28, 0.75)
    thick, leg = between(rng, 0.035, 0.08), between(rng, 0.022, 0.05)
    shape, support = pick(rng, ["square", "square", "round", "oval"]), pick(rng, ["legs", "legs", "pedestal", "panels"])
    inset = 1.0
    if shape == "square":
        board = block((-x, -y, height - thick), (x, y, height), between(rng, 0.002, 0.03))
    else:
        y = x if shape == "round" else y
        board = Extrusion(oval(x, y, 1.0 if shape == "round" else 0.6, 32), thick / 2).moved(z=height - thick / 2)
        inset = 0.62
    steps = [add(board, top)]
    if support == "pedestal":
        reach = 0.75 * min(x, y)
        if chance(rng, 0.5):
            profile = smooth_profile(
                [(reach, 0.0), (0.3 * reach, 0.1), (0.06, 0.3 * height), (0.11, 0.55 * height), (0.05, height - thick)]
            )
            steps.append(add(Lathe(((0, 0), *profile, (0, height - 0.5 * thick))), frame))
        else:
            steps.append(add(_pedestal(rng, reach, height - 0.5 * thick), frame))
    elif support == "panels":
        side = inset * (y - 0.06)
        steps.append(
            add(
                block((-0.85 * x * inset, side - 0.025, 0), (0.85 * x * inset, side + 0.025, height - 0.5 * thick)),
                frame,
            )
        )
        steps.append(add(block((-0.025, -side, 0.3 * height), (0.025, side, 0.55 * height)), frame))
    else:
        shelf = between(rng, 0.1, 0.5) * height if chance(rng, 0.35) else None
        legs = _legs(rng, inset * (x - 1.5 * leg), inset * (y - 1.5 * leg), height - 0.5 * thick, leg, shelf)
        steps.append(add(legs, frame))
        if chance(rng, 0.5):
            rim = block(
                (-inset * (x - leg), -inset * (y - leg), height - thick - 0.06),
                (inset * (x - leg), inset * (y - leg), height - 0.5 * thick),
            )
            steps.append(add(rim, frame))
        if shelf is not None:
            # On the rungs between the legs.
            a, b = inset * x - leg, inset * y - leg
            steps.append(add(block((-a, -b, shelf - 0.01), (a, b, shelf + 0.03)), top))
        elif shape == "square" and chance(rng, 0.5):
            wide, deep = between(rng, 0.4, 0.9) * y, between(rng, 0.12, 0.6) * height
            steps.append(add(block((-x + 0.03, y - wide, height - deep), (x - 0.02, y - 0.02, height - 0.01)), frame))
            knob = rod(
                (x - 0.03, y - 0.5 * wide, height - 0.5 * deep), (x + 0.015, y - 0.5 * wide, height - 0.5 * deep), 0.022
            )
            steps.append(add(knob, metal(rng)))
    return CsgModel(tuple(steps), mirror=True)


def cabinet(rng: Rng) -> CsgModel:
    """A cupboard, chest of drawers or open shelf."""
    body, front = mostly(rng, wood(rng)), mostly(rng, pick(rng, [wood, plain])(rng))
    x, y, height = between(rng, 0.14, 0.28), between(rng, 0.22, 0.5), between(rng, 0.45, 1.2)
    foot = pick(rng, [0.0, 0.0, between(rng, 0.06, 0.15)])
    steps = [add(block((-x, -y, foot), (x, y, foot + height), pick(rng, [0.0, 0.015])), body)]
    rows, wall = int(rng.integers(2, 6)), between(rng, 0.03, 0.045)
    columns = int(rng.integers(1, 3))
    step, inner = (height - wall) / rows, y - wall
    knob = metal(rng)
    is_open = chance(rng, 0.45)
    for k in range(rows):
        low, high = foot + wall + k * step, foot + (k + 1) * step
        left = wall / 2 if columns == 2 else -inner
        if is_open and chance(rng, 0.8):
            steps.append(cut(block((-x + wall, left, low), (x + 0.1, inner, high)), front))
            continue
        steps.append(add(block((x - 0.02, left, low), (x + 0.02, inner, high), 0.01), front))
        handle = 0.5 * (left + inner) if columns == 2 else 0.0
        grip = rod((x, handle, 0.5 * (low + high)), (x + 0.04, handle, 0.5 * (low + high)), 0.02)
        steps.append(add(grip, knob))
    if foot:
        steps.append(add(_legs(rng, x - 0.045, y - 0.05, foot + 0.02, 0.03), body))
    if chance(rng, 0.3):
        steps.append(
            add(block((-x - 0.02, -y - 0.03, foot + height - 0.01), (x + 0.04, y + 0.03, foot + height + 0.035)), front)
        )
    return CsgModel(tuple(steps), mirror=True)


def _shade(rng: Rng, low: Real, top: Real, tall: Real) -> tuple[Solid, Solid]:
    """A hollow cone or bell, open below and at the origin's height: the shell, and the inside to cut."""
    wall = 0.03
    if chance(rng, 0.35):
        line = smooth_profile(
            [(low, 0.0), (0.8 * low, 0.35 * tall), (0.75 * top + 0.25 * low, 0.8 * tall), (top, tall)]
        )
    else:
        line = ((low, 0.0), (top, tall))
    shell = Lathe(((0, 0), *line, (0, tall)))
    inner = tuple((max(r - wall, 0.01), z - wall) for r, z in line)
    return shell, Lathe(((0, -0.1), (inner[0][0], -0.1), *inner, (0, tall - wall)))


def lamp(rng: Rng) -> CsgModel:
    """A table, floor or desk lamp."""
    body, stand = mostly(rng, pick(rng, [plain, metal, wood, cloth])(rng)), pick(rng, [metal, wood, dark, plain])(rng)
    hat = mostly(rng, cloth(rng))
    kind = pick(rng, ["table", "table", "floor", "desk"])
    low = between(rng, 0.18, 0.32)
    tall = between(rng, 0.2, 0.38)
    shell, inside = _shade(rng, low, between(rng, 0.3, 1.0) * low, tall)
    if kind == "desk":
        base, reach = between(rng, 0.14, 0.22), between(rng, 0.1, 0.3)
        elbow, end = (-reach, 0.0, between(rng, 0.35, 0.5)), (between(rng, 0.1, 0.35), 0.0, between(rng, 0.6, 0.85))
        tilt = -between(rng, 0.1, 0.7)
        tip = (end[0] + 0.03, 0.0, end[2])

        def hung(solid: Solid) -> Solid:
            return solid.stretched(0.7, 0.7, 0.8).moved(z=0.02 - 0.8 * tall).turned("y", tilt).moved(*tip)

        arm = (
            rod((0, 0, 0.03), elbow, 0.022)
            | rod(elbow, end, 0.022)
            | rod((-reach, -0.04, elbow[2]), (-reach, 0.04, elbow[2]), 0.032)
        )
        bulb = curved([(0, 0, tall), (0, 0, 0.35 * tall)], [0.03, 0.08], 4)
        parts = [
            add(cylinder(base, 0.05, rounding=0.015), body),
            add(arm, stand),
            add(hung(shell), hat),
            cut(hung(inside), plain(rng)),
        ]
        return CsgModel((*parts, add(hung(bulb), wild(rng))), mirror=True)
    height = between(rng, 1.0, 1.5) if kind == "floor" else between(rng, 0.35, 0.6)
    # The shade first: hollowing it out must not touch the stand.
    steps = [add(shell.moved(z=height), hat), cut(inside.moved(z=height), wild(rng))]
    steps.append(add(cylinder(0.026, height + tall - 0.01), stand))
    if kind == "floor":
        foot = cylinder(between(rng, 0.15, 0.25), 0.05, rounding=0.012)
        tripod = rod((0, 0, 0.35), (0.25, 0, 0.03), 0.03).around(3)
        steps.append(add(tripod if chance(rng, 0.4) else foot, stand))
    else:
        radii = [between(rng, 0.05, 0.17) for _ in range(4)]
        base_line = [(between(rng, 0.1, 0.18), 0.0), *((r, height * (k + 1) / 5) for k, r in enumerate(radii))]
        profile = smooth_profile([*base_line, (0.03, height)], 18)
        steps.append(add(Lathe(((0, 0), *profile, (0, height))), body))
        if chance(rng, 0.3):
            steps.append(paint(block((-1, -1, 0.4 * height), (1, 1, 0.6 * height)), plain(rng)))
    return CsgModel(tuple(steps), mirror=True)
