"""Similar cases on the page: all at the lesion's scale, to the pixel; and words that can be read on every class's colour."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from LesionLensApp.display_windows import WINDOWS
from LesionLensApp.report import ink_on
from LesionLensApp.similar_cases import similar_cases, similar_columns, similar_csv
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.results import LesionResult, RunInfo
from LesionRetrievalLib.library.cases import Neighbour
from LesionRetrievalLib.library.patches import case_thumbnails, lesion_patch
from PIL import Image
from repository import ROOT

RUN = RunInfo("CT", "m", "1.0.0", "ab" * 32, "cpu")
LUNG = WINDOWS["lung"]


def ball(diameter: float, *, spacing: float = 1.0) -> tuple[CTVolume, LesionBox]:
    """A bright ball in dark lung, and its box."""
    count = round(90 / spacing)
    at = (np.arange(count) - (count - 1) / 2) * spacing
    away = np.sqrt(at[:, None, None] ** 2 + at[None, :, None] ** 2 + at[None, None, :] ** 2)
    array = np.where(away <= diameter / 2, 100, -1350).astype(np.int16)
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = at[0]
    return CTVolume(array, matrix), LesionBox([0, 0, 0], [diameter] * 3, name="ball")


def neighbour(case_id: str, **attributes) -> Neighbour:
    return Neighbour(case_id, "benign", 0.9, "histology", "lung", "0" * 32, "0" * 32, attributes, "")


class Library:
    """Cases by id: with the CT around them, or with small pictures only."""

    def __init__(self, patches, thumbnails=None) -> None:
        self.patches, self.pictures = patches, thumbnails or {}

    def patch(self, case_id):
        return self.patches.get(case_id)

    def thumbnails(self, case_id):
        return self.pictures.get(case_id, {})


def width_of_ball(uri: str) -> tuple[int, int]:
    """Bright pixels of the middle row, and the width of the picture."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    return int((pixels[len(pixels) // 2] > 127).sum()), pixels.shape[1]


def found_for(diameter: float, others: dict[str, float], thumbnails=None):
    volume, box = ball(diameter)
    result = LesionResult("L1", box, "benign", {"benign": 1.0}, np.ones(1, np.float32), None)
    patches = {name: lesion_patch(*ball(mm, spacing=0.7)) for name, mm in others.items()}
    names = [*others, *(thumbnails or {})]
    library = Library(patches, thumbnails)
    return similar_cases(result, [neighbour(name) for name in names], library, volume, window=LUNG)


def test_a_millimetre_is_as_long_in_the_lesion_as_in_every_case_and_as_long_as_the_bar_says():
    found = found_for(12.0, {"small": 6.0, "large": 24.0})
    assert [card.to_scale for card in found.cards] == [True, True]
    pixels, width = width_of_ball(found.lesion)
    bar_mm_per_pixel = found.scale_mm / (found.scale_percent / 100 * width)
    assert pixels * bar_mm_per_pixel == pytest.approx(12.0, abs=1.0)
    for card, mm in zip(found.cards, (6.0, 24.0), strict=True):
        assert width_of_ball(card.image)[0] * bar_mm_per_pixel == pytest.approx(mm, abs=1.2)


@pytest.mark.parametrize(("lesion", "case"), [(6.0, 40.0), (60.0, 6.0)])
def test_neither_a_large_case_nor_a_large_lesion_makes_the_other_too_small_to_look_at(lesion, case):
    found = found_for(lesion, {"other": case})
    small = found.lesion if lesion < case else found.cards[0].image
    pixels, width = width_of_ball(small)
    assert pixels / width > 0.12


def test_a_case_without_its_ct_keeps_its_picture_and_is_marked_as_not_to_scale():
    picture = case_thumbnails(*ball(20.0))
    found = found_for(12.0, {"with": 10.0}, {"without": picture, "bare": {}})
    assert [(card.case_id, card.to_scale, card.image is None) for card in found.cards] == [
        ("with", True, False), ("without", False, False), ("bare", False, True),
    ]  # fmt: skip
    assert found.has_scale
    assert found.has_own_scales
    assert not found_for(12.0, {}, {"without": picture}).has_scale


def test_a_damaged_ct_of_a_case_takes_no_answer_away():
    class Damaged(Library):
        def patch(self, case_id):
            raise CaseLibraryError(f"Case {case_id!r}: its HU patch is damaged.")

    volume, box = ball(12.0)
    result = LesionResult("L1", box, "benign", {"benign": 1.0}, np.ones(1, np.float32), None)
    library = Damaged({}, {"c1": case_thumbnails(*ball(20.0))})
    (card,) = similar_cases(result, [neighbour("c1")], library, volume, window=LUNG).cards
    assert (card.to_scale, card.image is None) == (False, False)


def test_attributes_have_columns_of_their_own_and_what_a_case_lacks_is_an_empty_cell():
    result = LesionResult("=L1", LesionBox([0, 0, 0], [1, 1, 1]), "", {"a": 1.0}, np.ones(1, np.float32), None)
    columns = similar_columns([result], [[neighbour("c1", size=3.5, contrast=True), neighbour("c2", lobe="RUL")]], RUN)
    header, first, second = similar_csv(columns).splitlines()
    assert header.endswith("model_sha256,attribute_size,attribute_contrast,attribute_lobe")
    assert first.startswith("'=L1,yes,1,c1,benign,0.9,no,histology,lung,m,1.0.0,")
    assert first.endswith(",3.5,True,")
    assert second.endswith(",,,RUL")
    assert len(similar_csv(similar_columns([result], [[]], RUN)).splitlines()) == 1


def contrast(ink: str, color: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    light = sorted([np.dot(linear, [0.2126, 0.7152, 0.0722]), {"#fff": 1.0, "#000": 0.0}[ink]])
    return (light[1] + 0.05) / (light[0] + 0.05)


def test_an_answer_can_be_read_on_the_colour_of_its_class_whatever_the_model():
    manifests = sorted((ROOT / "Resources" / "Models").glob("*/configs/metadata.json"))
    colors = [c["colorRGB"] for path in manifests for c in json.loads(path.read_text())["lesionlens"]["classes"]]
    assert len(colors) > 8
    for color in colors:
        assert contrast(ink_on(tuple(color)), color) >= 4.5
    assert (ink_on((1.0, 1.0, 1.0)), ink_on((0.0, 0.0, 0.0))) == ("#000", "#fff")
