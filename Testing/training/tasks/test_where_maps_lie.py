"""Where DADRN's heat maps lie is measured on slices with a lesion, beside what chance would reach, and stands in the card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LesionLib.explain.localisation import LocalisationCase, map_box
from lesiontraining.commands.export import _localised
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.reporting.examples import maps_chart
from lesiontraining.tasks import CrossEntropyTask, DADRNTask
from lesiontraining.tasks.base import TrainingError

LABELS = ([0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2, 2])
CLASSES = ["nothing", "rim"]
SIZE = 48


def slices(labels: list[int], *, seed: int) -> LesionDataset:
    """One slice a lesion, noise with a bright square of a quarter of the edge where its box is."""
    rng = np.random.default_rng(seed)
    n, nan, names = len(labels), np.full(len(labels), np.nan), np.array([f"l{i}" for i in range(len(labels))])
    images = [rng.normal(0, 0.1, (1, 3, SIZE, SIZE)).astype(np.float32) for _ in labels]
    targets = np.array([[*rng.integers(0, SIZE - 12, 2), 12, 12] for _ in labels], float)
    for image, (row, column, rows, columns) in zip(images, targets.astype(int), strict=True):
        image[0, :, row : row + rows, column : column + columns] += 0.8
    return LesionDataset(
        tuple(images), np.array(labels), tuple(CLASSES), names, names, names, np.zeros(n, int), np.ones((n, 3)), nan, nan,
        np.ones((n, 3)), targets, (-1.0, 1.0),
    )  # fmt: skip


def task(**options) -> DADRNTask:
    made = DADRNTask(class_names=CLASSES, arguments={"width": "tiny"}, **options)
    made.network.eval()
    return made


def test_slices_without_a_lesion_are_no_case_and_chance_is_the_share_of_the_box():
    val, test = slices([0, 1, 1], seed=0), slices([0, 0, 1, 1, 1], seed=1)
    everything = task().figures(val, test)["localisation"]
    lesions = task(without_lesion=["nothing"]).figures(val, test)["localisation"]
    assert everything["pointing"]["n"] == 5
    assert lesions["pointing"]["n"] == lesions["gt_known_iou_50"]["n"] == 3
    assert lesions["pointing_by_chance"] == pytest.approx((12 / SIZE) ** 2)


def test_a_comparator_leaves_out_the_same_slices():
    made = CrossEntropyTask(
        class_names=CLASSES, arguments={"width": "tiny", "depth": 18}, localises=True, without_lesion=["nothing"]
    )
    made.network.eval()
    found = made.figures(slices([0, 1, 1], seed=0), slices([0, 0, 1, 1, 1], seed=1))["localisation"]
    assert found["pointing"]["n"] == 3
    with pytest.raises(TrainingError, match="without_lesion names normal"):
        CrossEntropyTask(class_names=CLASSES, arguments={"width": "tiny", "depth": 18}, without_lesion=["normal"])


def test_every_lesion_class_has_its_own_share_and_slices_called_normal_have_none():
    names = ["Normal", "rim", "spot"]
    val, test = (replace(slices(labels, seed=seed), class_names=tuple(names)) for seed, labels in enumerate(LABELS))
    made = DADRNTask(class_names=names, arguments={"width": "tiny"})
    made.network.eval()
    found = made.figures(val, test)["localisation"]
    assert list(found["classes"]) == ["rim", "spot"]
    for figure in ("gt_known_iou_50", "gt_known_iou_30", "top_1", "pointing"):
        assert [of[figure]["n"] for of in found["classes"].values()] == [2, 3]
        assert found[figure]["n"] == 5
        assert found[figure]["hits"] == sum(of[figure]["hits"] for of in found["classes"].values())
    shown = made.examples(test, {"localisation": found})
    assert shown["label"].tolist() == ["rim", "spot", "rim", "spot", "spot"]
    np.testing.assert_array_equal(shown["truth"], test.targets[shown["lesion"]])


def test_the_box_of_a_map_stands_beside_the_truth_in_a_picture():
    cam = np.zeros((6, 6), np.float32)
    cam[1:3, 2:4] = 1.0
    truth = np.zeros((48, 48), bool)
    truth[8:24, 16:32] = True
    low, high = map_box(LocalisationCase(cam, truth, "rim", "rim"), threshold=0.5)
    assert low.tolist() == [8, 16]
    assert high.tolist() == [24, 32]
    of = {
        "image": np.zeros((1, 48, 48)), "cam": cam[None], "truth": np.array([[8.0, 16, 16, 16]]),
        "box": np.array([[*low, *(high - low)]], float), "label": np.array(["rim"]), "predicted": np.array(["rim"]),
        "lesion": np.array(["line 2"]),
    }  # fmt: skip
    chart = maps_chart({"dadrn": of, "drn": {**of, "box": np.full((1, 4), np.nan)}})
    picture, ours, theirs = chart.figure.axes
    assert [len(axes.patches) for axes in (picture, ours, theirs)] == [1, 2, 1]
    assert [p.get_bbox().bounds for p in ours.patches] == [(15.5, 7.5, 16.0, 16.0)] * 2
    assert maps_chart({"dadrn": of, "drn": {**of, "lesion": np.array(["line 9"])}}) is None


def test_a_class_that_there_is_not_is_refused():
    with pytest.raises(TrainingError, match="without_lesion names normal; the classes are nothing, rim"):
        task(without_lesion=["normal"])


def test_the_card_says_how_often_the_hottest_place_lies_in_the_lesion():
    share = {"hits": 30, "n": 40, "low": 0.6, "high": 0.86}
    text = _localised(
        {"localisation": {"pointing": share, "gt_known_iou_50": {**share, "hits": 10}, "pointing_by_chance": 0.04}}
    )
    assert "in 30, 75.0% (95 % interval 60.0% to 86.0%); by chance it would in 4.0%" in text
    assert _localised({}) == _localised({"localisation": "not measured: no box is known"}) == ""
