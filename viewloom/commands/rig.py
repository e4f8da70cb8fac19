"""``viewloom rig``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scene.errors import InputError
from scene.files import is_same_place
from viewloom.commands.output import Shown, ShownFlags, Switch, started
from viewloom.commands.parsing import GivenPath, OwnOut

if TYPE_CHECKING:
    import numpy as np

    from recon.export.asset import Asset


@dataclass(frozen=True)
class Rig:
    """Bind a GLB to a skeleton: a rig that viewers and engines can pose.

    The GLB is one that image2mesh or reconstruct wrote, of a closed surface. Parts that were glued together (an arm on
    a hip) are cut apart and closed.
    """

    mesh: tyro.conf.Positional[Path]
    """The GLB, as image2mesh or reconstruct wrote it."""
    skeleton: Path
    """Skeleton as JSON, in the pose of the GLB: the 18 joints of COCO by name, null for those not known."""
    out: OwnOut = None
    """Output file, a .glb; NAME-rig.glb beside the GLB by default."""
    poses: GivenPath = None
    """List of poses as JSON, which becomes a clip."""
    fit_bones: Switch = False
    """Take only the directions of the poses' bones, and the lengths of the skeleton's."""
    frame: Annotated[Literal["capture", "file"], tyro.conf.arg(help_behavior_hint="(default: capture)")] = "capture"
    """Frame of skeletons: the world of the capture that the GLB came from, or the GLB itself (metres, +Y up)."""
    allow_open: Switch = False
    """Take a GLB with holes too, and guess what is inside."""
    shown: ShownFlags = Shown()
    """How much is said."""

    def run(self) -> int:
        """Bind, write the file, and print where it is."""
        target = self._target()
        with started("rig", self.shown) as reporter:
            from recon.export.glb_read import read_glb
            from recon.export.rig import make_rig, require_same_bones, write_rig
            from scene.skeleton import Motion, Skeleton

            reporter.item(f"{self.mesh} -> {target}")
            skeleton = Skeleton.load(self.skeleton)
            motion = None if self.poses is None else Motion.load(self.poses)
            asset = read_glb(self.mesh)
            matrix = self._asset_from_given(asset)
            skeleton = skeleton.transformed(matrix)
            if motion is not None:
                motion = motion.transformed(matrix)
                motion = motion.with_bones_of(skeleton) if self.fit_bones else motion
                if self.poses is not None:
                    require_same_bones(motion, skeleton, self.poses)
            rig = make_rig(asset, skeleton, motion, allow_open=self.allow_open)
            report = write_rig(target, rig)
            reporter.note(
                f"{rig.parts} joints, {len(rig.asset.faces):,} triangles, "
                f"{'closed' if rig.report.is_closed else 'open'}; checked by {report.tool}"
            )
            if rig.report.cuts:
                reporter.note(f"Parts that were glued together were cut apart along {rig.report.cuts} rings.")
            if rig.report.left_open:
                reporter.note(f"Cuts of {rig.report.left_open} edges could not be closed, since they run into holes.")
        print(target)
        return 0

    def _target(self) -> Path:
        if not self.mesh.stem:  # a folder such as . or /
            raise InputError("is no GLB", where=str(self.mesh), fix="Give a file that viewloom wrote.")
        target = self.mesh.with_name(f"{self.mesh.stem}-rig.glb") if self.out is None else self.out
        if target.suffix.lower() != ".glb":
            raise InputError("a rig is written as GLB only", where=target, fix="Give a name that ends in .glb.")
        for path in (self.mesh, self.skeleton, self.poses):
            if path is not None and is_same_place(target, path):
                raise InputError("would replace the file that is read", where=path, fix="Give another file with -o.")
        return target

    def _asset_from_given(self, asset: Asset) -> np.ndarray:
        import numpy as np

        if self.frame == "file" or asset.world_from_asset is None:
            return np.eye(4)
        return np.asarray(np.linalg.inv(asset.world_from_asset))
