"""A model that looks at whole slices looks at each once, however many boxes lie in it; every box has the answer it has alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.results import LesionResult
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.sampling import planes

MODEL = "phantom-liver5"
SLICE, NEXT = 12, 13


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(MODEL)


@pytest.fixture
def looked_at(bundle, monkeypatch) -> dict[str, int]:
    """How many patches the network was shown, and how many planes were resampled."""
    counted = {"patches": 0, "planes": 0}
    features, resample = type(bundle.network).features_of_lesions, planes.resample

    def noted_features(self, x, counts):
        counted["patches"] += len(x)
        return features(self, x, counts)

    def noted_resample(*arguments):
        counted["planes"] += 1
        return resample(*arguments)

    monkeypatch.setattr(type(bundle.network), "features_of_lesions", noted_features)
    monkeypatch.setattr(planes, "resample", noted_resample)
    return counted


def tilted_ct() -> CTVolume:
    """Slices 2.5 mm apart, turned, so that places are no round numbers."""
    rng = np.random.default_rng(5)
    array = rng.normal(60, 40, (24, 96, 96)).astype(np.int16)
    array[10:15, 30:42, 40:55] += 90
    c, s = np.cos(0.13), np.sin(0.13)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([0.83, 0.83, 2.5])
    matrix[:3, 3] = [-140.3, -211.7, 803.1]
    return CTVolume(array, matrix)


def boxes_in(ct: CTVolume, k: int, count: int) -> list[LesionBox]:
    rng = np.random.default_rng(k)
    ijk = np.column_stack([rng.uniform(15, 80, (count, 2)), rng.uniform(k - 0.4, k + 0.4, count)])
    sizes = rng.uniform(6, 25, (count, 3))
    places = transformed_points(ct.ijkToRAS, ijk)
    return [LesionBox(at, size, name=f"{k}.{n}") for n, (at, size) in enumerate(zip(places, sizes, strict=True))]


def assert_same(here: LesionResult, there: LesionResult) -> None:
    assert here.name == there.name
    assert here.label == there.label
    assert here.probabilities == there.probabilities
    assert np.array_equal(here.embedding, there.embedding)
    assert np.array_equal(here.heat_map.array, there.heat_map.array)
    assert np.array_equal(here.heat_map.ijkToRAS, there.heat_map.ijkToRAS)
    assert list(map(str, here.warnings)) == list(map(str, there.warnings))
    assert here.reliability.to_json() == there.reliability.to_json()
    assert here.statistics == there.statistics


def test_twenty_boxes_in_a_slice_are_one_look_and_each_is_answered_as_it_is_alone(bundle, looked_at):
    ct = tilted_ct()
    classifier, boxes = Classifier(bundle, ct), boxes_in(ct, SLICE, 20)
    together = list(classifier.classify_all(boxes, answer_anyway=True))
    assert looked_at == {"patches": 1, "planes": 3}
    assert len({result.statistics for result in together}) == 20
    for box, result in zip(boxes, together, strict=True):
        assert_same(result, *classifier.classify_all([box], answer_anyway=True))
    assert looked_at == {"patches": 21, "planes": 63}


def test_two_slices_are_two_looks_in_the_order_of_the_boxes_and_have_their_neighbours_in_common(bundle, looked_at):
    ct = tilted_ct()
    classifier = Classifier(bundle, ct)
    mixed = [box for pair in zip(boxes_in(ct, SLICE, 15), boxes_in(ct, NEXT, 15), strict=True) for box in pair]
    together = list(classifier.classify_all(mixed, answer_anyway=True))
    assert looked_at == {"patches": 2, "planes": 4}
    assert [result.name for result in together] == [box.name for box in mixed]
    for box, result in list(zip(mixed, together, strict=True))[:4]:
        (alone,) = classifier.classify_all([box], answer_anyway=True)
        assert result.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert np.abs(result.embedding - alone.embedding).max() < 1e-5
        assert np.abs(result.heat_map.array - alone.heat_map.array).max() < 1e-3
    assert not np.array_equal(together[0].embedding, together[1].embedding)


def test_each_slice_of_the_boxes_is_resampled_once_and_boxes_of_the_same_slices_are_one_look(bundle, looked_at):
    ct = tilted_ct()
    every = replace(bundle, spec=replace(bundle.spec, slices="every"))
    first = boxes_in(ct, SLICE, 1)[0]
    same = [replace(first, centerRAS=first.centerRAS + [2.0 * n, 0, 0], name=str(n)) for n in range(5)]
    classifier = Classifier(every, ct)
    together = list(classifier.classify_all(same, answer_anyway=True))
    shared = dict(looked_at)
    for box, result in zip(same, together, strict=True):
        assert_same(result, *classifier.classify_all([box], answer_anyway=True))
    assert looked_at["patches"] == 6 * shared["patches"]
    assert looked_at["planes"] == 6 * shared["planes"]


def test_a_ct_that_has_changed_since_is_looked_at_again(bundle, looked_at):
    ct = tilted_ct()
    classifier, box = Classifier(bundle, ct), boxes_in(ct, SLICE, 1)[0]
    (before,) = classifier.classify_all([box], answer_anyway=True)
    ct.array[:] = ct.array[::-1, ::-1].copy()
    (after,) = classifier.classify_all([box], answer_anyway=True)
    assert looked_at == {"patches": 2, "planes": 6}
    assert not np.array_equal(before.embedding, after.embedding)
