"""Each lesion is shown with a window in which it can be seen, and its picture says which, where and how large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLensApp.display_windows import WINDOWS, paired_window, parsed_window, window_around
from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox
from slice_views import SliceRenderer

TURNED = np.array([[-1.0, 0, 0, 20], [0, -1.0, 0, 20], [0, 0, 1.0, 0], [0, 0, 0, 1]])


def filled(hu, lesion_hu=40.0):
    """A cube of 40 mm with a lesion of 8 mm in its middle."""
    array = np.full((40, 40, 40), hu, np.int16)
    array[16:24, 16:24, 16:24] = lesion_hu
    box = LesionBox((TURNED @ [19.5, 19.5, 19.5, 1])[:3], [8, 8, 8], name="L")
    return CTVolume(array, TURNED, name="ct"), box


@pytest.mark.parametrize(
    ("around", "lesion", "name"),
    [(-850, 40, "lung"), (60, 20, "soft-tissue"), (-100, 120, "soft-tissue"), (700, 100, "bone")],
)
def test_the_window_fits_what_lies_around_the_lesion(around, lesion, name):
    assert window_around(*filled(around, lesion)) is WINDOWS[name]


@pytest.mark.parametrize(
    ("around", "lesion", "shown", "pair"),
    [
        (-850, 40, "lung", "soft-tissue"),
        (-850, 40, "soft-tissue", "lung"),
        (-850, -600, "lung", None),  # nothing of it is seen in a soft-tissue window
        (60, 20, "soft-tissue", None),
        (-850, 40, "bone", None),
    ],
)
def test_a_second_window_is_shown_where_one_does_not_show_all(around, lesion, shown, pair):
    assert paired_window(*filled(around, lesion), WINDOWS[shown]) is WINDOWS.get(pair)


def test_a_box_at_the_rim_or_outside_has_a_window_too():
    volume, box = filled(-850)
    for shift in (18.0, 400.0):
        assert window_around(volume, LesionBox(box.centerRAS + shift, box.sizeMm)).width > 0


@pytest.mark.parametrize("text", ["lungs", "400", "400;40", "0,40", "400,40,1", "", "nan,0", "1e3,0"])
def test_a_window_that_is_none_is_refused_with_what_there_is(text):
    with pytest.raises(LesionLensError, match="soft-tissue"):
        parsed_window(text)


@given(st.integers(1, 9999), st.integers(-2000, 2000))
def test_any_width_and_level_can_be_given(width, level):
    window = parsed_window(f"{width},{level}")
    assert (window.width, window.level) == (width, level)


def test_a_picture_is_drawn_with_its_window_and_the_volume_keeps_its_own():
    volume, box = filled(-850, 40)
    running = startHeadlessSlicer()
    running.scene.Clear(False)
    node = addVolumeNode(running.scene, volume)
    before = (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel())
    view = {"centerRAS": box.centerRAS, "fieldOfViewMm": 30.0, "volumeNode": node, "ruler": False}
    with SliceRenderer(running, size=(60, 60)) as renderer:
        soft = renderer.render("Axial", window=(400, 40), **view)
        lung = renderer.render("Axial", window=(1500, -600), **view)
        edges = {}
        for plane in ("Axial", "Coronal", "Sagittal"):
            renderer.render(plane, **view)
            edges[plane] = renderer.edges(plane)
    assert soft[30, 30, 0] == pytest.approx(127, abs=3)
    assert soft[5, 5, 0] == 0
    assert lung[5, 5, 0] == pytest.approx(255 * (-850 + 1350) / 1500, abs=3)
    assert lung[30, 30, 0] == pytest.approx(255 * (40 + 1350) / 1500, abs=3)
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == before
    assert edges["Axial"] == ("R", "L", "A", "P")
    assert edges["Coronal"] == ("R", "L", "S", "I")
    assert edges["Sagittal"] == ("A", "P", "S", "I")
