"""Computed masses are the same every time, their truth is true, and neither size nor mean HU gives a texture away."""

from __future__ import annotations

import numpy as np
import pytest
from LesionLib.phantom.masses import KINDS, NOTHING, PATTERNS, MassKnobs, mass_ct

STEADY = MassKnobs(variation_hu=0.0, noise_hu=(1.0, 1.0))
TEXTURES = ("homogeneous", "fine", "coarse", "rim", "scar")


def hu_inside(mass) -> np.ndarray:
    return mass.volume.array[mass.box.segment.array > 0]


def test_the_same_seeds_give_the_same_bytes_and_others_do_not():
    first, again = (mass_ct(kind="rim", place="fat", seed=3, style_seed=1) for _ in range(2))
    assert first.volume.array.tobytes() == again.volume.array.tobytes()
    assert (first.box.centerRAS == again.box.centerRAS).all()
    other = mass_ct(kind="rim", place="fat", seed=4, style_seed=1)
    assert (first.volume.spacingMm == other.volume.spacingMm).all()  # a patient's style
    assert (first.volume.array != other.volume.array).mean() > 0.5


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != NOTHING])
def test_the_box_is_tight_around_its_segment(kind):
    mass = mass_ct(kind=kind, place="liver", seed=0, style_seed=0)
    where = np.argwhere(mass.box.segment.array)
    edges = (np.ptp(where, axis=0)[::-1] + 1) * np.array(mass.volume.spacingMm)
    assert mass.box.sizeMm == pytest.approx(edges)
    assert 0.7 * mass.diameter_mm < mass.box.sizeMm.max() < 1.6 * mass.diameter_mm


@pytest.mark.parametrize("kind", [kind for kind, pattern in PATTERNS.items() if not pattern.shift_hu])
def test_mean_hu_tells_no_texture(kind):
    means = [hu_inside(mass_ct(kind=kind, place="fat", seed=n, style_seed=n, knobs=STEADY)).mean() for n in range(4)]
    assert np.mean(means) == pytest.approx(STEADY.mean_hu, abs=14)  # the blurred edge takes some of the fat in


def test_textures_look_as_they_are_named():
    spread = {
        kind: hu_inside(mass_ct(kind=kind, place="fat", seed=2, style_seed=2, knobs=STEADY)).std() for kind in TEXTURES
    }
    assert min(spread["fine"], spread["coarse"]) > 1.1 * spread["homogeneous"]
    scar = mass_ct(kind="scar", place="fat", seed=2, style_seed=2, knobs=STEADY)
    k, j, i = np.round(np.argwhere(scar.box.segment.array).mean(axis=0)).astype(int)
    assert scar.volume.array[k, j, i] < hu_inside(scar).mean() - 30


@pytest.mark.parametrize(
    ("kind", "core_is_brighter"), [("rim", False), ("halo", True), ("scar", False), ("nidus", True)]
)
def test_rims_and_cores_are_darker_or_brighter_as_they_are_named(kind, core_is_brighter):
    mass = mass_ct(kind=kind, place="abdomen", seed=3, style_seed=3, knobs=MassKnobs(diameter_mm=(50.0, 50.0)))
    where = np.argwhere(mass.box.segment.array)
    middle = where.mean(axis=0)
    depth = np.linalg.norm((where - middle) * np.array(mass.volume.spacingMm)[::-1], axis=1) / 25.0
    hu = hu_inside(mass)
    assert (hu[depth < 0.3].mean() > hu[(depth > 0.8) & (depth < 0.95)].mean() + 20) == core_is_brighter


def test_without_contrast_a_scar_is_a_homogeneous_mass():
    flat = MassKnobs(contrast_hu=0.0)
    scar, plain = (mass_ct(kind=k, place="fat", seed=5, style_seed=5, knobs=flat) for k in ("scar", "homogeneous"))
    assert (scar.volume.array == plain.volume.array).all()


def test_a_place_without_a_lesion_has_a_box_and_no_segment():
    nothing = mass_ct(kind=NOTHING, place="abdomen", seed=1, style_seed=1)
    assert nothing.box.segment is None
    assert 16 <= nothing.diameter_mm <= 36
    k, j, i = np.round(nothing.volume.rasToIJK @ [*nothing.box.centerRAS, 1.0]).astype(int)[2::-1]
    assert 50 < nothing.volume.array[k, j, i] < 180  # liver


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind is 'cancer'; it must be one of"):
        mass_ct(kind="cancer", place="fat", seed=0, style_seed=0)
