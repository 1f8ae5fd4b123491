"""What heat maps are worth, on a network whose answer is known by construction: a bright ball beside the middle of its box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.networks import LesionNet
from LesionLib.sampling.volumes import IsotropicCubeSpec
from lesiontraining.runs.heat_maps import FORGETFUL, MIDDLE, MODEL, OCCLUSION, RANDOM, map_checks
from torch import nn

SPEC = IsotropicCubeSpec(
    edge_mm=32.0, voxels=16, windows_hu=((-1000.0, 1000.0),), margin_mm=(0.0, 0.0, 0.0), box_channel=True
)


class BrightnessNet(LesionNet):
    """Its second class is likely where much of the cube is bright. One weight: shuffling it changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1500.0))

    def features(self, x):
        return x[:, :1].clamp_min(0.0)

    def descriptor(self, f):
        return f.flatten(2).mean(dim=2)

    def head(self, f):
        bright = f.flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(bright), self.scale * bright - 3.0], dim=1)


def bright_ball(patient: int) -> tuple[str, CTVolume, LesionBox]:
    """A ball of 600 HU, 5 mm beside the middle of its box, in a CT of noisy air."""
    ijk = np.indices((40, 40, 40))[::-1]
    ball = sum((axis - center) ** 2 for axis, center in zip(ijk, (25, 20, 20 + patient % 2), strict=True)) <= 16
    noise = np.random.default_rng(patient).integers(-50, 50, ball.shape)
    hu = np.where(ball, 600, -900 + noise).astype(np.int16)
    segment = CTVolume(ball.astype(np.uint8), np.eye(4), name="ball")
    box = LesionBox(np.array([20.0, 20.0, 20.0]), np.array([20.0, 18.0, 18.0]), name=f"ball {patient}", segment=segment)
    return f"patient {patient}", CTVolume(hu, np.eye(4), name="ct"), box


def moved(box: LesionBox, rng: np.random.Generator) -> LesionBox:
    return box.jittered(rng, shift_mm=1.0)


@pytest.fixture(scope="module")
def checks():
    return map_checks(
        BrightnessNet().eval(), [bright_ball(n) for n in range(6)], SPEC, moved, ("dark", "bright"), draws=50
    )


def test_a_map_that_lies_on_the_lesion_beats_the_middle_of_the_box(checks):
    assert (checks.lesions, checks.patients) == (6, 6)
    assert checks.peak_inside[MODEL].value == 1
    assert checks.peak_inside[MIDDLE].value == 0
    assert checks.energy[MODEL].value > 0.5 > 5 * checks.chance.value


def test_taking_away_what_the_map_shows_costs_more_than_anything_else(checks):
    assert checks.fall[MODEL].value > 0.5
    assert set(checks.fall_gain) == {MIDDLE, RANDOM, OCCLUSION}
    assert all(checks.fall_gain[name].is_better() for name in (MIDDLE, RANDOM))


def test_a_map_that_hardly_moves_with_the_box_says_so(checks):
    assert 0.6 < checks.jittered.value < 1


def test_a_map_that_no_weight_changes_is_exposed(checks):
    assert checks.forgetful.value == pytest.approx(1)
    assert checks.energy[FORGETFUL].value == checks.energy[MODEL].value


def test_heat_in_one_place_is_told_from_heat_everywhere(checks):
    assert checks.gini.value > 0.9


def test_lesions_without_a_segment_give_no_figures():
    patient, volume, box = bright_ball(0)
    without = LesionBox(box.centerRAS, box.sizeMm, name="box")
    assert map_checks(BrightnessNet().eval(), [(patient, volume, without)], SPEC, moved, ("dark", "bright")) is None


def test_occlusion_of_every_third_lesion_stands_beside_the_map(checks):
    assert checks.occluded == 2
    assert checks.peak_inside[OCCLUSION].value == 1
    assert checks.energy[OCCLUSION].value > checks.chance.value
    assert checks.fall[OCCLUSION].value > checks.fall[RANDOM].value


def test_where_the_maps_lie_is_said_of_all_and_by_answer(checks):
    assert checks.heat["all"].peak_inside.n == 6
    assert sum(of.peak_inside.n for name, of in checks.heat.items() if name.startswith("answered")) == 6
