"""The phantom benchmark can be solved by who knows the recipe, not by size, not by chance, and not through the patient."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest
from lesion_tables import read_table
from LesionLib.phantom.retina import retina_photo
from lesiontraining.cli import main
from lesiontraining.data.phantom_tables import (
    BENCHMARK,
    PhantomLesion,
    PhantomTable,
    RetinaTable,
    _drawn_classes,
    harder,
    phantom_lesions,
    write_phantom_table,
)
from PIL import Image
from scipy import ndimage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CT_VARIANTS = tuple(name for name, asked in BENCHMARK.items() if isinstance(asked, PhantomTable))


COUNTS = {"adrenal5": 60, "liver5": 60, "binary-fluid": 40, "search8": 112}


@cache
def few(variant: str) -> tuple[PhantomLesion, ...]:
    """Some dozens of lesions, all classes as often."""
    asked = BENCHMARK[variant]
    patients = COUNTS[variant] // (asked.lesions * (1 + asked.follow_ups))
    return tuple(phantom_lesions(replace(asked, patients=patients, imbalance=1.0)))


@cache
def inside(lesion: PhantomLesion) -> np.ndarray:
    """What the recipe's parameters are seen by: rim, core and grain, each beside the mass's mean."""
    mass = lesion.mass
    if mass.box.segment is None:
        return np.zeros(6)
    mask = mass.box.segment.array > 0
    hu = mass.volume.array.astype(np.float64)
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=mass.volume.spacingMm[::-1])[1:-1, 1:-1, 1:-1]
    share = depth / depth.max()
    middle = hu[(share > 0.3) & (share < 0.55)].mean()
    flat = hu - ndimage.gaussian_filter(hu, 1.0 / np.array(mass.volume.spacingMm[::-1]))
    within = share > 0.3
    return np.array([
        hu[(share > 0.08) & (share < 0.22)].mean() - middle, hu[share > 0.8].mean() - middle,
        np.log(flat[within].std()), np.log(ndimage.gaussian_filter(hu, 2.0 / np.array(mass.volume.spacingMm[::-1]))[within].std()),
        np.log(hu[within].std()), 1.0,
    ])  # fmt: skip


@cache
def around(lesion: PhantomLesion) -> np.ndarray:
    """The surroundings of a mass."""
    mask = ndimage.binary_dilation(lesion.mass.box.segment.array > 0, iterations=3)
    return np.percentile(lesion.mass.volume.array[~mask], (2, 10, 25, 50, 75, 90, 98))


def balanced_accuracy(features: np.ndarray, names: list[str], patients: list[int]) -> float:
    """Of a linear model, over folds of whole patients."""
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    return balanced_accuracy_score(names, cross_val_predict(model, features, names, groups=patients, cv=GroupKFold(8)))


def told_by(look: Callable[[PhantomLesion], Any], lesions: Sequence[PhantomLesion], *, shuffled: bool = False) -> float:
    names = [x.name for x in lesions]
    if shuffled:
        names = list(np.random.default_rng(0).permutation(names))
    return balanced_accuracy(np.stack([look(x) for x in lesions]), names, [x.patient for x in lesions])


def diameter(lesion: PhantomLesion) -> np.ndarray:
    return lesion.mass.diameter_mm ** np.arange(1.0, 3.0)


@pytest.mark.parametrize("variant", CT_VARIANTS)
def test_who_knows_the_recipe_tells_the_classes_and_nothing_is_told_of_shuffled_ones(variant):
    look, chance = around if variant == "search8" else inside, 1 / len(BENCHMARK[variant].classes)
    assert told_by(look, few(variant)) >= 0.95
    assert told_by(look, few(variant), shuffled=True) == pytest.approx(chance, abs=0.16)


@pytest.mark.parametrize("variant", CT_VARIANTS)
def test_size_alone_tells_no_class(variant):
    chance = 1 / len(BENCHMARK[variant].classes)
    assert told_by(diameter, few(variant)) <= chance + 0.16


def test_with_the_size_confound_on_a_ruler_is_enough():
    confounded = harder(BENCHMARK["binary-fluid"], patients=10, size_confound=1.0)
    assert told_by(diameter, tuple(phantom_lesions(confounded))) >= 0.9


def test_fainter_patterns_make_classes_more_alike():
    alike = tuple(phantom_lesions(harder(BENCHMARK["binary-fluid"], patients=8, alike=1.0)))
    clear = tuple(phantom_lesions(harder(BENCHMARK["binary-fluid"], patients=8, alike=0.0)))
    rims = [[abs(inside(x)[0]) for x in lesions if x.name == "metastasis"] for lesions in (alike, clear)]
    assert np.mean(rims[0]) < 0.7 * np.mean(rims[1])


def test_modes_spread_the_mean_hu_within_a_class():
    def spread(variation: int) -> float:
        asked = harder(BENCHMARK["binary-fluid"], patients=15, variation=variation)
        asked = replace(asked, knobs=replace(asked.knobs, variation_hu=0.0))
        masses = [x.mass for x in phantom_lesions(asked) if x.name == "cyst"]
        return float(np.std([m.volume.array[m.box.segment.array > 0].mean() for m in masses]))

    assert spread(3) > 25
    assert spread(1) < 10


def test_the_first_class_comes_as_many_times_as_often_as_the_last_one_as_is_asked():
    names = list(BENCHMARK["adrenal5"].classes)
    asked = replace(harder(BENCHMARK["adrenal5"], imbalance=7.0), patients=500, lesions=4)
    counts = np.bincount(_drawn_classes(asked), minlength=len(names))
    assert counts.sum() == 2000
    assert counts[0] / counts[-1] == pytest.approx(7, rel=0.05)
    assert (np.diff(counts) < 0).all()


def test_no_two_lesions_are_one_and_the_patient_shows_in_the_picture():
    """A split that is not by patient would leak: lesions of one patient share their spacing."""
    lesions = few("adrenal5")
    assert len({x.mass.volume.array.tobytes() for x in lesions}) == len(lesions)
    spacings = {x.patient: tuple(x.mass.volume.spacingMm) for x in lesions}
    assert all(tuple(x.mass.volume.spacingMm) == spacings[x.patient] for x in lesions)
    assert len(set(spacings.values())) == len(spacings)


def test_a_follow_up_is_the_same_lesion_larger_on_another_ct():
    first, later = islice(phantom_lesions(BENCHMARK["search8"]), 2)
    assert (first.number, first.name, later.visit) == (later.number, later.name, 1)
    assert later.mass.diameter_mm == pytest.approx(1.1 * first.mass.diameter_mm)
    assert (later.mass.volume.array != first.mass.volume.array).mean() > 0.5


def spots(photo: np.ndarray) -> float:
    """Area of what is brighter than around it, without the disc, as a length."""
    green = photo[..., 1].astype(np.float64)
    smooth = ndimage.gaussian_filter(green, 8)
    row, column = np.unravel_index(smooth.argmax(), green.shape)
    y, x = np.mgrid[: green.shape[0], : green.shape[1]]
    middle = (green.shape[0] - 1) / 2
    seen = (np.hypot(y - row, x - column) > 32) & (np.hypot(y - middle, x - middle) < middle - 14)
    bright = (green - smooth > 25) & seen
    return float(np.sqrt(bright.sum()))


def test_grades_of_photographs_are_in_their_spots_and_in_no_colour():
    photos = [(retina_photo(n % 5, seed=n, style_seed=n // 2, left=bool(n % 2)), n % 5, n // 2) for n in range(40)]
    grades, patients = [grade for _, grade, _ in photos], [patient for _, _, patient in photos]
    by_spots = np.array([[spots(photo), spots(photo) ** 2] for photo, _, _ in photos])
    by_color = np.stack([photo.reshape(-1, 3).mean(axis=0) for photo, _, _ in photos])
    assert balanced_accuracy(by_spots, grades, patients) >= 0.95
    assert balanced_accuracy(by_color, grades, patients) <= 0.5
    assert np.corrcoef(by_spots[:, 0], grades)[0, 1] > 0.95


def test_the_eyes_of_a_patient_have_grades_next_to_each_other(tmp_path):
    table = write_phantom_table(tmp_path, RetinaTable(patients=10))
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 20
    assert all(abs(int(a["grade"]) - int(b["grade"])) <= 1 for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert len(read_table("image_folder", tmp_path, label="grade")) == 20
    with Image.open(tmp_path / rows[0]["image"]) as photo:
        assert photo.size == (256, 256)


def test_the_command_writes_a_table_and_never_into_a_folder_that_is_there(tmp_path, capsys):
    out = tmp_path / "set"
    given = ["phantom", "search8", "--patients", "1", "--out", str(out)]
    assert main(given) == 0
    table = read_table("table", out / "lesions.csv", label="class")
    assert (len(table), len(set(table.patients)), len({row.study for row in table.rows})) == (8, 1, 2)
    assert main(given) == 2
    assert "is there already; give a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["adrenal9"], "there is no phantom 'adrenal9'; known are adrenal5, liver5"),
        (["adrenal5", "--alike", "2"], "share of masses that are alike is 2.0; 0 to 1 is expected"),
        (["adrenal5", "--patients", "0"], "patients is 0; 1 to 100000 is expected"),
        (["retina5", "--alike", "1"], "photographs have no knobs but patients and seed"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_is_written(options, said, tmp_path, capsys):
    assert main(["phantom", *options, "--out", str(tmp_path / "set")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
