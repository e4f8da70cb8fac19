"""How a surface was made, for manifests, reports and files: plain values in named fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kept = Literal["fit", "hull", "stereo", "coarse volume"]


@dataclass(frozen=True)
class MapReport:
    """Depth and normal maps of the views.

    Args:
        depth, normal: how many were used.
        left_out: names of the views whose depth map contradicts the others.
        ignored: whether the fit has no use for maps at all, as on devices other than the CPU.
    """

    depth: int = 0
    normal: int = 0
    left_out: tuple[str, ...] = ()
    ignored: bool = False


@dataclass(frozen=True)
class ViewsReport:
    """How many of a large capture's views were used.

    Args:
        used: how many.
        given: of how many.
    """

    used: int
    given: int


@dataclass(frozen=True)
class SurfaceReport:
    """How a surface was made; what does not apply is None or empty.

    Args:
        kept: what the surface is: a photometric fit; stereo's depth maps, fused; the visual hull; or the coarse volume.
        masked: whether the views had masks.
        hull_threshold: fraction of the masks that had to agree on the hull.
        mask_consistency: how well the masks fit one solid: mean IoU of a hull's silhouettes with them, in [0, 1].
        fit_silhouette_iou, hull_silhouette_iou: of the fitted surface and of the hull that it started from.
        losses: at the end of the fit, by term: ``colour``, ``mask``.
        shading: Lambertian shading that was found: brightness is ``1 + shading . normal``.
        specular: root mean square of the specular reflection, sRGB.
        exposures: smallest and largest exposure of a view, relative to the mean.
        maps: depth and normal maps, if views have any.
        depth_fraction: fraction of the pixels for which stereo, or a map, knows the depth.
        flat_base: whether what hangs below the lowest point that a view sees was cut flat.
        reason: why there is no fit.
        views: of how many views it was made, if not of all.
    """

    kept: Kept = "fit"
    masked: bool = True
    hull_threshold: float | None = None
    mask_consistency: float | None = None
    fit_silhouette_iou: float | None = None
    hull_silhouette_iou: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    shading: tuple[float, ...] = ()
    specular: float | None = None
    exposures: tuple[float, ...] = ()
    maps: MapReport | None = None
    depth_fraction: float | None = None
    flat_base: bool = False
    reason: str | None = None
    views: ViewsReport | None = None

    @property
    def fell_back(self) -> bool:
        """Whether the surface is what a fit would have started from, since there is no fit or it has lost parts."""
        return self.kept in ("hull", "coarse volume")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without what does not apply; :meth:`from_dict` reads them."""
        values = asdict(self)
        if self.maps is not None:
            values["maps"] = {"depth": self.maps.depth, "normal": self.maps.normal}
            values["maps"] |= {"left_out": list(self.maps.left_out)} if self.maps.left_out else {}
            values["maps"] |= {"ignored": True} if self.maps.ignored else {}
        lists = {name: list(values[name]) for name in ("shading", "exposures")}
        shown = {**values, **lists, "losses": dict(self.losses)}
        return {name: value for name, value in shown.items() if value not in (None, [], {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SurfaceReport:
        """Read what :meth:`to_dict` gave, or what versions up to 0.1 wrote; keys that are not known are left out.

        Raises:
            TypeError, ValueError: a value is of another type.
        """
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        for old, new in _OLD_NAMES.items():
            if old in values:
                known[new] = values[old]
        if "masks" in values:
            known["masked"] = False
        if "base" in values:
            known["flat_base"] = True
        losses = {name[5:]: value for name, value in values.items() if name.startswith("loss_")}
        known["losses"] = {str(name): float(value) for name, value in (losses or known.get("losses", {})).items()}
        for name in ("shading", "exposures"):
            known[name] = tuple(float(value) for value in known.get(name, ()))
        known["maps"] = _maps(values)
        views = values.get("views")
        known["views"] = ViewsReport(int(views["used"]), int(views["given"])) if isinstance(views, Mapping) else None
        return cls(**known)


_OLD_NAMES = {
    "vote": "hull_threshold",
    "mask_agreement": "mask_consistency",
    "fit_outline_iou": "fit_silhouette_iou",
    "hull_outline_iou": "hull_silhouette_iou",
    "light": "shading",
    "gloss": "specular",
    "known": "depth_fraction",
}
"""Names of fields up to version 0.1."""


def _maps(values: Mapping[str, Any]) -> MapReport | None:
    found = values.get("maps")
    if isinstance(found, Mapping):
        left_out = tuple(str(name) for name in found.get("left_out", ()))
        return MapReport(int(found["depth"]), int(found["normal"]), left_out, bool(found.get("ignored", False)))
    if found is not None:  # up to version 0.1: a sentence that maps are not used
        return MapReport(ignored=True)
    if not {"depth_maps", "normal_maps", "depth_maps_left_out"} & set(values):
        return None
    left_out = tuple(str(name) for name in values.get("depth_maps_left_out", ()))
    return MapReport(int(values.get("depth_maps", 0)), int(values.get("normal_maps", 0)), left_out)
