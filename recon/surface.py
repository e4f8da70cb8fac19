"""A fitted surface: signed distances and colours on a grid, ready for extraction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from recon.specular import SpecularSH
from recon.surface_report import SurfaceReport
from scene.archives import npz_archive
from scene.documents import parse_json
from scene.errors import InputError
from scene.files import written_aside
from scene.voxel_grid import VoxelGrid


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted surface, ready for extraction.

    Args:
        sdf: signed distance at voxel centres, positive outside, world units.
        colour: sRGB in [0, 1] at voxel centres of a grid over the same box.
        low: the box's corner with the smallest coordinates, world frame.
        voxel: side of the cubic voxels, world units.
        report: how it was made.
        specular: what the object reflects of its surroundings, if that was found; not part of ``colour``.
    """

    sdf: Float[np.ndarray, "x y z"]
    colour: Float[np.ndarray, "cx cy cz 3"]
    low: Float[np.ndarray, "3"]
    voxel: float
    report: SurfaceReport = SurfaceReport()
    specular: SpecularSH | None = None

    @classmethod
    def cube(
        cls,
        sdf: Float[np.ndarray, "r r r"],
        colour: Float[np.ndarray, "cx cy cz 3"],
        half: float,
        report: SurfaceReport = SurfaceReport(),
    ) -> Surface:
        """A surface on the cube ``[-half, half]^3``."""
        return cls(sdf, colour, np.full(3, -half), 2 * half / sdf.shape[0], report)

    @property
    def box(self) -> VoxelGrid:
        """The grid."""
        x, y, z = self.sdf.shape
        return VoxelGrid(self.low, self.voxel, (x, y, z))

    def colours_at(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Model colour at world points."""
        middle, half = (self.low + self.box.high) / 2, (self.box.high - self.low) / 2
        local = np.ascontiguousarray(((points - middle) / half)[:, ::-1])
        grid = torch.from_numpy(local).float()[None, None, None]
        field = torch.from_numpy(np.ascontiguousarray(self.colour)).movedim(-1, 0)[None].float()
        return F.grid_sample(field, grid, padding_mode="border", align_corners=False)[0, :, 0, 0].T.numpy()

    def save(self, path: Path) -> None:
        """Write as ``.npz``; byte for byte the same for the same surface."""
        import json

        more = {} if self.specular is None else {"specular": self.specular.coefficients.astype(np.float32)}
        with written_aside(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                **more,  # type: ignore[arg-type]
                sdf=self.sdf.astype(np.float32),
                colour=np.round(self.colour * 255).astype(np.uint8),
                low=np.asarray(self.low, np.float64),
                voxel=np.float64(self.voxel),
                report=np.array(json.dumps(self.report.to_dict(), sort_keys=True)),
            )

    @classmethod
    def load(cls, path: Path) -> Surface:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, cut short or something else.
        """
        try:
            with npz_archive(path) as data:
                # Up to version 0.1 the report was called facts, and the specular part gloss.
                specular = next((name for name in ("specular", "gloss") if name in data.names), None)
                report = parse_json(data.text("report" if "report" in data.names else "facts"), path)
                return cls(
                    data.numbers("sdf", (None, None, None)),
                    data.numbers("colour", (None, None, None, 3), "u").astype(np.float32) / 255,
                    data.numbers("low", (3,)),
                    _positive(data.numbers("voxel", ())),
                    SurfaceReport.from_dict(report),
                    None if specular is None else SpecularSH(data.array(specular)),
                )
        except InputError as error:
            raise InputError(f"is not a stored surface ({error.what})", where=path) from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(f"is not a stored surface ({error})", where=path) from error


def _positive(voxel: np.ndarray) -> float:
    if not voxel > 0:
        raise ValueError(f"its voxels are {float(voxel)} wide")
    return float(voxel)
