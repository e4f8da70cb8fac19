"""Presets: strict reading, and settings that survive being written down."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.diffusion.settings import (
    ALIGN_RANGES,
    FILTER_RANGES,
    AlignSettings,
    PrepareSettings,
    SamplingSettings,
    ZeroToHeroSettings,
)
from pipeline.jobs.presets import settings_from_yaml
from pipeline.jobs.settings import (
    Image2MeshSettings,
    MeshSettings,
    ReconstructSettings,
    RingSettings,
    ViewsSettings,
    settings_as_dict,
)
from recon.settings import FIT_RANGES, FitSettings, GlbSettings
from scene.errors import SettingsError
from scene.resources import shipped

PRESETS = sorted(shipped("configs").glob("*.yaml"))


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Image2MeshSettings]:
    """Settings of a preset with this text."""

    def go(text: str) -> Image2MeshSettings:
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return settings_from_yaml(path, Image2MeshSettings()).settings

    return go


Read = Callable[[str], Image2MeshSettings]


# --- what a preset may say --------------------------------------------------------------------------------------------


def test_a_preset_changes_what_it_names_and_nothing_else(read: Read) -> None:
    default = Image2MeshSettings()
    got = read(
        "views:\n  sampling: {steps: 7, guidance: 2}\n  rings: {views: [4, 2, 3]}\nmesh: {texture: 64}\ndevice: cpu\n"
    )
    assert got.views.sampling == dataclasses.replace(default.views.sampling, steps=7, guidance=2.0)
    assert isinstance(got.views.sampling.guidance, float)
    assert got.views.rings == dataclasses.replace(default.views.rings, views=(4, 2, 3))
    assert got.mesh == dataclasses.replace(default.mesh, texture=64)
    assert (got.prepare, got.fit, got.glb, got.device) == (default.prepare, default.fit, default.glb, "cpu")
    assert default == Image2MeshSettings()


def test_a_preset_builds_on_the_settings_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("fit: {rays: 32}")
    start = ReconstructSettings(glb=dataclasses.replace(ReconstructSettings().glb, longest_side=2.0))
    got = settings_from_yaml(tmp_path / "a.yaml", start).settings
    assert (got.fit.rays, got.glb.longest_side) == (32, 2.0)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "null"])
def test_an_empty_preset_is_the_default(read: Read, text: str) -> None:
    assert read(text) == Image2MeshSettings()


def test_optional_values_paths_and_nothing(read: Read) -> None:
    got = read("views: {weights: some/folder, elevation_deg: 12}\nfit: {hull_threshold: null}")
    assert got.views.weights == Path("some/folder")
    assert got.views.elevation_deg == 12.0
    assert got.fit.hull_threshold is None


def test_keys_of_other_jobs_are_passed_over_at_the_top_only(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("views: {sampling: {steps: 3}}\ndevice: cpu\nfit: {image_side: 32}\n")
    assert settings_from_yaml(path, ReconstructSettings()).settings.fit.image_side == 32
    path.write_text("fit: {device: cpu}")
    with pytest.raises(SettingsError, match=r"unknown key fit\.device"):
        settings_from_yaml(path, ReconstructSettings())


@pytest.mark.parametrize(
    ("own", "other", "default"),
    [("photos", "captures", Image2MeshSettings()), ("captures", "photos", ReconstructSettings())],
    ids=["photos", "captures"],
)
def test_values_for_the_other_kind_of_input_never_apply(own: str, other: str, default: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{other}: {{fit: {{rays: 32}}, mesh: {{texture: 64}}, device: cpu, nonsense: 1}}")
    assert settings_from_yaml(path, default).settings == default
    path.write_text(f"{other}: {{fit: {{rays: 32}}}}\n{own}: {{fit: {{rays: 48}}, mesh: {{texture: 128}}}}")
    got = settings_from_yaml(path, default).settings
    assert (got.fit.rays, got.mesh.texture) == (48, 128)
    assert got == dataclasses.replace(
        default, fit=dataclasses.replace(default.fit, rays=48), mesh=dataclasses.replace(default.mesh, texture=128)
    )


def test_a_section_is_laid_over_what_stands_outside(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "photos: {mesh: {texture: 64}, fit: {step: 0.5}}\n"
        "mesh: {texture: 32, smoothing: 1}\nviews: {elevation_deg: 5}\n"
    )
    photo = settings_from_yaml(path, Image2MeshSettings())
    assert (photo.settings.mesh.texture, photo.settings.mesh.smoothing) == (64, 1)
    assert (photo.settings.views.elevation_deg, photo.settings.fit.sdf_lr) == (5, 0.5)
    assert ["fit.sdf_lr" in notice for notice in photo.notices] == [True]
    capture = settings_from_yaml(path, ReconstructSettings())
    assert (capture.settings.mesh.texture, capture.settings.mesh.smoothing, capture.notices) == (32, 1, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photos: {fit: {image_sied: 3}}", r"unknown key photos\.fit\.image_sied\. Did you mean image_side\?"),
        ("photos: {capture: {}}", r"unknown key photos\.capture"),
        ("photos: 3", "photos must hold keys and values, not int"),
        ("photos: {mesh: {texture: 15}}", r"photos\.mesh: a texture of 15 pixels holds nothing"),
        ("photos: {photos: {}}", r"unknown key photos\.photos"),
        ("fit: {photos: {}}", r"unknown key fit\.photos"),
    ],
)
def test_sections_are_read_as_strictly(read: Read, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(text)


# --- what it may not say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit: {image_sied: 3}", r"unknown key fit\.image_sied\. Did you mean image_side\?"),
        ("zzz: 1", r"unknown key zzz\. Known keys: align, aligning, captures, .*, photos, prepare, views\."),
        ("photo: {}", r"unknown key photo\. Did you mean photos\?"),
        ("1: 2", "unknown key 1"),
        ("views: {sampling: {step: 1}}", r"unknown key views\.sampling\.step\. Did you mean steps\?"),
        ("fit: {image_side: many}", r"fit\.image_side has a wrong value 'many'"),
        ("fit: {image_side: '64'}", r"fit\.image_side has a wrong value '64'"),
        ("fit: {image_side: 1.5}", r"fit\.image_side has a wrong value 1\.5"),
        ("fit: {image_side: true}", r"fit\.image_side has a wrong value True"),
        ("fit: {levels: 32}", r"fit\.levels has a wrong value 32"),
        ("fit: {levels: [32, x]}", r"fit\.levels has a wrong value \[32, 'x'\]"),
        ("fit: {inv_s: [1, 2, 3]}", r"fit\.inv_s has a wrong value"),
        ("fit: {sdf_lr: .nan}", r"fit\.sdf_lr has a wrong value nan"),
        ("fit: {sdf_lr: -.inf}", r"fit\.sdf_lr has a wrong value -inf"),
        ("fit: {sdf_lr: null}", r"fit\.sdf_lr has a wrong value None"),
        ("fit: {sdf_lr: 2026-01-01}", r"fit\.sdf_lr has a wrong value"),
        ("fit: {levels: &a [*a]}", "within itself"),
        ("views: {sampling: {joint: 1}}", r"views\.sampling\.joint has a wrong value 1"),
        ("views: {sampling: {joint: 'yes'}}", r"views\.sampling\.joint has a wrong value 'yes'"),
        ("views: {weights: 3}", r"views\.weights has a wrong value 3"),
        ("device: [cpu]", r"device has a wrong value \['cpu'\]"),
        ("fit: {levels: [32]}", r"fit: the fit has 1 levels and 3 numbers of iterations\. Give each level"),
        ("glb: {longest_side: 0}", r"glb: an asset cannot be 0\.0 m long"),
        ("mesh: {texture: 15}", r"mesh: a texture of 15 pixels holds nothing\. Give 16"),
        ("mesh: {max_faces: 3}", "mesh: a solid cannot have 3 triangles"),
        ("mesh: {texture: 1000}", "mesh: a texture of 1000 pixels is no power of two.*Give 512 or 1024"),
        ("glb: {jpeg_quality: 0}", "glb: JPEG has no quality 0"),
        ("mesh: {smoothing: -1}", "mesh: a mesh cannot be smoothed -1 times"),
        ("prepare: {side: 15}", "prepare: a frame of 15 pixels holds nothing"),
        ("prepare: {fill: 0}", r"prepare: an object cannot fill 0\.0 of its frame"),
        ("prepare: {fill: 1.01}", r"prepare: an object cannot fill 1\.01 of its frame"),
        ("views: {sampling: {steps: 0}}", r"views\.sampling: views cannot be sampled in 0 steps"),
        ("views: {sampling: {guidance: -1}}", r"views\.sampling: a guidance of -1\.0 means nothing"),
        ("views: {sampling: {strength: 0}}", r"views\.sampling: a strength of 0\.0 means nothing"),
        ("views: {sampling: {strength: 1.1}}", r"views\.sampling: a strength of 1\.1 means nothing"),
        ("views: {sampling: {eta: -0.1}}", r"views\.sampling: an eta of -0\.1 means nothing"),
        ("views: {sampling: {eta: 1.1}}", r"views\.sampling: an eta of 1\.1 means nothing"),
        (
            "views: {rings: {views: [4, 2]}}",
            r"views\.rings: there are 2 rings with 3 elevations and 3 offsets\. Give each",
        ),
        ("views: {rings: {views: [], elevations_deg: [], offsets_deg: []}}", r"views\.rings: there are 0 rings"),
        ("views: {rings: {views: [8, 0, 2]}}", r"views\.rings: a ring cannot have 0 views"),
        ("views: {elevation_deg: 90.5}", r"views: a camera cannot stand 90\.5 degrees above.*from -90 to 90"),
        ("views: {elevation_deg: -500}", r"views: a camera cannot stand -500 degrees above"),
        ("views: {photo_weight: -0.1}", r"views: photo_weight -0\.1 is no weight\. Give 0 or more"),
        ("views: {front_weight: -1}", r"views: front_weight -1 is no weight"),
        ("views: {back_weight: -1}", r"views: back_weight -1 is no weight"),
        ("- fit", "the file must hold keys and values, not list"),
        ("draft", "the file must hold keys and values, not str"),
        ("0", "the file must hold keys and values, not int"),
        ("fit: 3", "fit must hold keys and values, not int"),
        ("fit:", "fit must hold keys and values, not NoneType"),
        ("views: {rings: {elevations_deg: [10, 40, -91]}}", r"rings cannot stand at \(10\.0, 40\.0, -91\.0\) degrees"),
        ("views: {rings: [1]}", r"views\.rings must hold keys and values, not list"),
        ("fit: [", "cannot be read"),
        ("fit: !!python/object:os.system {}", "cannot be read"),
        ("? [a]\n: 1", "cannot be read"),
        ("a: 1\n\x00", "cannot be read"),
    ],
)
def test_wrong_presets_name_the_file_and_the_key(read: Read, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        read(text)
    assert str(caught.value.where).endswith("my.yaml")
    assert caught.value.exit_code == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: there is no such preset"):
        settings_from_yaml(tmp_path / "none.yaml", Image2MeshSettings())
    with pytest.raises(SettingsError, match="cannot be read"):
        settings_from_yaml(tmp_path, Image2MeshSettings())
    (tmp_path / "latin.yaml").write_bytes(b"device: \xfcber")
    with pytest.raises(SettingsError, match=r"latin\.yaml: cannot be read"):
        settings_from_yaml(tmp_path / "latin.yaml", Image2MeshSettings())


# --- shipped presets --------------------------------------------------------------------------------------------------


def test_the_presets_that_the_help_names_are_shipped() -> None:
    assert {"draft", "standard", "high"} <= {path.stem for path in PRESETS}


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_shipped_presets_load_for_every_job(path: Path) -> None:
    whole = settings_from_yaml(path, Image2MeshSettings()).settings
    part = settings_from_yaml(path, ReconstructSettings()).settings
    assert part.glb == whole.glb
    # What makes a photo's fit follow the coarse volume is kept, and captures do not get it.
    photos, captures = Image2MeshSettings().fit, ReconstructSettings().fit
    for name in ("prior_weight", "photo_view_weights", "laplacian_weight", "shading_lr", "colour_pull"):
        assert getattr(whole.fit, name) == getattr(photos, name) != getattr(captures, name), name
        assert getattr(part.fit, name) == getattr(captures, name), name
    assert (whole == Image2MeshSettings()) == (part == ReconstructSettings()) == (path.stem == "standard")
    for fit in (whole.fit, part.fit):
        assert len(fit.levels) == len(fit.iterations)
    rings = whole.views.rings
    assert len(rings.views) == len(rings.elevations_deg) == len(rings.offsets_deg)


def test_standard_is_the_default_and_draft_is_less_work() -> None:
    default = Image2MeshSettings()
    assert settings_from_yaml(shipped("configs") / "standard.yaml", default).settings == default
    draft = settings_from_yaml(shipped("configs") / "draft.yaml", default).settings
    assert draft.views.sampling == default.views.sampling
    assert sum(draft.fit.iterations) < sum(default.fit.iterations)
    assert math.prod(draft.mesh.turntable) < math.prod(default.mesh.turntable)
    assert draft.fit.levels[-1] < default.fit.levels[-1]
    assert draft.mesh.limits.max_faces < default.mesh.limits.max_faces
    assert draft.mesh.limits.texture < default.mesh.limits.texture


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_photo_and_a_capture_have_budgets_of_their_own() -> None:
    photo, capture = Image2MeshSettings().mesh.limits, ReconstructSettings().mesh.limits
    assert (photo.max_faces, photo.texture) == (12_000, 1024)
    assert (capture.max_faces, capture.texture, capture.max_bytes) == (50_000, 2048, 5_000_000)
    assert MeshSettings() == ReconstructSettings().mesh


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("lite", (20_000, 1024, 3_000_000)),
        ("standard", (50_000, 2048, 5_000_000)),
        ("high", (100_000, 2048, 10_000_000)),
    ],
)
def test_a_profile_sets_what_is_not_given(profile: Any, expected: tuple[int, int, int], read: Read) -> None:
    def numbers(settings: MeshSettings) -> tuple[int, int, int]:
        return (settings.limits.max_faces, settings.limits.texture, settings.limits.max_bytes)

    assert numbers(MeshSettings(profile)) == expected
    assert numbers(MeshSettings(profile, max_faces=300)) == (300, *expected[1:])
    assert numbers(MeshSettings(profile, texture=64)) == (expected[0], 64, expected[2])
    assert numbers(read(f"mesh: {{profile: {profile}}}").mesh) == expected
    assert numbers(read(f"mesh: {{texture: 64, profile: {profile}}}").mesh) == (expected[0], 64, expected[2])


def test_a_section_without_lines_changes_nothing(read: Read) -> None:
    assert read("photos:\ncaptures:\n") == read("")


def test_unknown_profiles_and_formats_are_refused(read: Read) -> None:
    with pytest.raises(SettingsError, match=r"mesh\.profile has a wrong value 'huge' .*'draft', .* or 'high'"):
        read("mesh: {profile: huge}")
    with pytest.raises(SettingsError, match=r"glb\.formats has a wrong value \['fbx'\]"):
        read("glb: {formats: [fbx]}")
    assert read("glb: {formats: [usdz, obj]}").glb.formats == ("usdz", "obj")


# --- there and back ---------------------------------------------------------------------------------------------------


RANGES: dict[type, Any] = {
    FitSettings: FIT_RANGES,
    AlignSettings: ALIGN_RANGES,
    ZeroToHeroSettings: {**FILTER_RANGES, "msa_levels": (0, 16)},
    GlbSettings: {"longest_side": (1e-3, 1e6), "front_azimuth_deg": (-3600, 3600), "jpeg_quality": (1, 100)},
    MeshSettings: {"max_faces": (4, 5_000_000), "smoothing": (0, 1000), "texture_views": (3, 100_000)},
    PrepareSettings: {"side": (16, 4096)},
    SamplingSettings: {"steps": (1, 1000), "guidance": (0, 1000), "seed": (-(2**63), 2**63 - 1)},
    ViewsSettings: dict.fromkeys(("photo_weight", "front_weight", "back_weight"), (0, 1e6)),
}
"""What numbers may be."""


def within(hint: Any, least: float, most: float) -> st.SearchStrategy[Any]:
    """Values of a setting's type within a range."""
    if hint is int:
        return st.integers(math.ceil(least), math.floor(most))
    if hint is float:
        return st.floats(least, most)
    if hint is type(None):
        return st.none()
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        one = within(parts[0], least, most)
        return st.lists(one).map(tuple) if parts[1] is ... else st.tuples(*[one] * len(parts))
    return st.one_of(*[within(part, least, most) for part in parts])


def beyond() -> list[tuple[type, str, Any]]:
    """Values just beyond each end, and those that are no numbers."""
    found: list[tuple[type, str, Any]] = []
    for kind, ranges in RANGES.items():
        for name, (least, most) in ranges.items():
            usual = () if name == "amf_sides" else getattr(kind(), name)
            values: list[Any] = [math.nextafter(least, -math.inf), most * 1.01, math.nan, math.inf, -math.inf]
            if "int" in str(typing.get_type_hints(kind)[name]):
                values = [math.ceil(least) - 1, math.floor(most) + 1, 10**400]
            found += [(kind, name, (v,) * max(len(usual), 1) if isinstance(usual, tuple) else v) for v in values]
    return found


@pytest.mark.parametrize(("kind", "name", "value"), beyond(), ids=lambda v: str(v)[:30])
def test_numbers_beyond_their_ends_are_refused_from_python_and_the_command_line(
    kind: type, name: str, value: Any
) -> None:
    with pytest.raises(SettingsError):
        kind(**{name: value})


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a setting's type."""
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        str: st.text(),
        type(None): st.none(),
        Path: st.text("abc/. ä", min_size=1).map(Path),
    }
    if hint in plain:
        return plain[hint]
    if dataclasses.is_dataclass(hint):
        return settings_of(hint)  # type: ignore[arg-type]
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(parts)
    if typing.get_origin(hint) is tuple:
        return st.lists(values_of(parts[0])).map(tuple) if parts[1] is ... else st.tuples(*map(values_of, parts))
    return st.one_of(*map(values_of, parts))


def settings_of(kind: type) -> st.SearchStrategy[dict[str, Any]]:
    """Any values of the right types for settings, not yet made into them."""
    values = {name: values_of(hint) for name, hint in typing.get_type_hints(kind).items()}
    ranges = RANGES.get(kind, {})
    for name, (least, most) in ranges.items():
        hint = typing.get_type_hints(kind)[name]
        values[name] = within(hint, least, most)
    if kind is ViewsSettings:
        values["symmetry"] = st.sampled_from(["auto", "none"]) | st.floats(0, 179)
        values["elevation_deg"] = st.none() | st.floats(-90, 90)
    if kind is FitSettings:
        values["levels"] = st.tuples(st.integers(8, 512), st.integers(8, 512))
        values["iterations"] = st.tuples(st.integers(0, 1000), st.integers(0, 1000))
        values["loss_trim_fraction"] = st.floats(0, 1, exclude_min=True)
        values["photo_view_weights"] = st.tuples(st.floats(0, 1e6, exclude_min=True), st.floats(0, 1e6))
    if kind is MeshSettings:
        values["texture"] = st.none() | st.integers(4, 13).map(lambda power: 2**power)
        values["turntable"] = st.tuples(st.integers(32, 2048), st.integers(2, 2048))
    if kind is PrepareSettings:
        values["fill"] = st.floats(0, 1, exclude_min=True)
    if kind is SamplingSettings:
        values["eta"] = st.floats(0, 1)
        values["strength"] = st.none() | st.floats(0, 1, exclude_min=True)
    if kind is ZeroToHeroSettings:
        span = st.tuples(*[st.integers(0, 100_000)] * 2).map(sorted).map(tuple)
        values |= dict.fromkeys(("resample", "in_step", "cross_step", "msa_range"), span)
        values["bounds"] = st.sets(st.integers(0, 100_000), min_size=4, max_size=4).map(sorted).map(tuple)
        values["counts"] = st.tuples(*[st.integers(1, 1000)] * 3)
        values["timesteps"] = st.none() | st.sets(st.integers(), min_size=1).map(lambda t: tuple(sorted(t)[::-1]))
    if kind is RingSettings:
        angles, turns = st.floats(-90, 90), st.floats(-3600, 3600)
        values = {"views": st.tuples(*[st.integers(1, 128)] * 2)}
        values |= {"elevations_deg": st.tuples(angles, angles), "offsets_deg": st.tuples(turns, turns)}
    return st.fixed_dictionaries(values)


def made(kind: type, values: dict[str, Any]) -> Any:
    """Settings of values."""
    hints = typing.get_type_hints(kind)
    return kind(**{k: made(hints[k], v) if dataclasses.is_dataclass(hints[k]) else v for k, v in values.items()})


@pytest.mark.parametrize("name", ["elevations_deg", "offsets_deg"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_angles_of_rings_are_finite(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=r"rings cannot"):
        RingSettings(**{name: (0.0, value, 0.0)})


@pytest.mark.parametrize("name", ["elevation_deg", "photo_weight", "front_weight", "back_weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_elevations_and_weights_are_finite(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=r"is no weight|cannot stand"):
        ViewsSettings(**{name: value})


@given(settings_of(Image2MeshSettings))
def test_settings_written_as_a_preset_are_read_back(values: dict[str, Any]) -> None:
    settings = made(Image2MeshSettings, values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "written.yaml"
        path.write_text(yaml.safe_dump(settings_as_dict(settings)), encoding="utf-8", newline="\n")
        assert settings_from_yaml(path, Image2MeshSettings()).settings == settings


def test_settings_as_dict_are_plain_and_tell_settings_apart() -> None:
    settings = Image2MeshSettings(views=dataclasses.replace(Image2MeshSettings().views, weights=Path("w")))
    plain = settings_as_dict(settings)
    assert plain["views"]["weights"] == "w"
    assert plain["fit"]["levels"] == [24, 48, 80]
    assert plain["views"]["sampling"]["seed"] == 0
    assert settings_as_dict(Image2MeshSettings()) != plain
