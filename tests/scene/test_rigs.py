"""Rigs: each family's names are found, and a rig's poses become skeletons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scene.errors import InputError
from scene.rigs import RIGS, names_of_rig, skeletons_of_rig
from scene.skeleton import INDEX
from tests.bodies import standing


@pytest.mark.parametrize("table", RIGS, ids=lambda table: table.family)
def test_a_family_is_found_by_its_own_names(table: object) -> None:
    names = [known[0] for known in table.joints.values()]  # type: ignore[attr-defined]
    assert len(set(names)) == 13  # left and right have names of their own
    family, found = names_of_rig(["root", *names, *names])
    assert family == table.family  # type: ignore[attr-defined]
    assert set(found) == {"head"} | {
        f"{s}_{p}" for s in ("left", "right") for p in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    }
    assert {names[k - 1] for k in found.values()} == set(names)  # the first of doubles


def test_an_unknown_rig_is_told_what_it_lacks() -> None:
    names = [known[0] for known in RIGS[0].joints.values() if known[0] != "mixamorig:LeftHand"]
    with pytest.raises(InputError, match="mixamo's would have mixamorig:LeftHand too"):
        names_of_rig(names)


def test_a_pose_of_a_rig_becomes_a_skeleton() -> None:
    body = standing()
    table = next(table for table in RIGS if table.family == "quaternius")
    names = [known[0] for known in table.joints.values()]
    world = np.tile(np.eye(4), (13, 1, 1))
    for number, joint in enumerate(table.joints):
        world[number, :3, 3] = (0, 0, 1.5) if joint == "head" else body.joint(joint)
    draw = np.random.default_rng(0)
    head = np.array([0, 0, 1.6]) + draw.uniform(-0.1, 0.1, (500, 3))
    rig = skeletons_of_rig(names, world, head)
    rest = rig.of(world)
    assert rest.known.all()
    limbs = [
        k for name, k in INDEX.items() if name.split("_")[0] in ("left", "right") and "e" not in name.split("_")[1][0]
    ]
    np.testing.assert_allclose(rest.positions[limbs], body.positions[limbs], atol=1e-12)
    np.testing.assert_allclose(rest.joint("neck"), [0, 0, 1.4], atol=1e-12)
    # The face looks forwards (+x), its left ear is on the left (+y), the eyes above the nose.
    assert rest.joint("nose") == pytest.approx([0.09, 0, 1.6], abs=0.01)
    assert rest.joint("left_ear")[1] > 0.08
    assert rest.joint("left_eye")[2] > rest.joint("nose")[2]
    # It goes with the head's joint.
    turned = world.copy()
    turned[list(table.joints).index("head"), :3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    assert rig.of(turned).joint("nose") == pytest.approx([0, 0.09, 1.6], abs=0.01)
    assert skeletons_of_rig(names, world).of(world).known.all()
