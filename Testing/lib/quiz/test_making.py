"""From known lesions to a quiz: whose cases, which patch, whose answers, which similar ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from LesionLib.errors import BoxError, CaseLibraryError, InputWarning, WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.results import LesionResult
from LesionLib.phantom.nodules import NATURES
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.making import LabelledLesion, PhantomNodules, QuizPlan, choose_cases, crop_patch, make_quiz
from LesionRetrievalLib.quiz.model import QuizClass, QuizError, box_overlap
from scipy.spatial.transform import Rotation

MODEL = ModelIdentity("nodules", "1.0.0", "a" * 64)
CLASSES = (QuizClass("benign", "", (0, 1, 0)), QuizClass("malignant", "", (1, 0, 0)))
PLAN = QuizPlan(title="Quiz", margin_mm=5.0, similar=3)


def a_volume(name="Doe^Jane") -> CTVolume:
    """A tilted, left-handed CT whose values tell their place."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (12, -8, 20), degrees=True).as_matrix() * [0.8, 0.9, -2.0]
    matrix[:3, 3] = [-30, 15, 40]
    return CTVolume(np.arange(30 * 50 * 60, dtype=np.float32).reshape(30, 50, 60) % 3001, matrix, name=name)


def a_lesion(label="benign", **changes) -> LabelledLesion:
    volume = a_volume()
    center = transformed_points(volume.ijkToRAS, [30, 25, 15])
    return replace(LabelledLesion(volume, LesionBox(center, [8, 8, 8], name="Doe^Jane"), label, "histology"), **changes)


def a_model(asked: list | None = None):
    def answer(volume: CTVolume, box: LesionBox) -> LesionResult:
        if asked is not None:
            asked.append((volume, box))
        heat = HeatMap(np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4), volume.ijkToRAS, 0.5, "benign")
        warning = InputWarning(WarningName.BOX_SIZE, "The box is small.")
        embedding = np.array([1.0, 0, 0, 0], np.float32)
        return LesionResult(box.name, box, "benign", {"benign": 0.6, "malignant": 0.4}, embedding, heat, (warning,))

    return answer


def make(lesions, *, plan=PLAN, **changes):
    return make_quiz(lesions, plan=plan, model=MODEL, classes=CLASSES, answer=a_model(), **changes)


@pytest.fixture
def library(tmp_path):
    """Vectors at growing angles from the model's: the lesion itself first, two of its patient."""
    with CaseLibrary.create(tmp_path / "l.lesionlib", model=MODEL, dimension=4) as library:
        for place, angle in enumerate((0.0, 0.1, 0.2, 0.3, 0.4)):
            patient = "1" * 32 if place in (1, 2) else "2" * 32
            case = Case(f"lib-{place}", "benign", "histology", "lung", patient, "3" * 32, {"place": place})
            thumbnail = {"axial": np.full((4, 4), place, np.uint8)}
            library.add(case, [np.cos(angle), np.sin(angle), 0, 0], model_sha256=MODEL.sha256, thumbnails=thumbnail)
        yield library


# --- the patch


def test_the_patch_is_the_part_of_the_ct_around_the_box_at_the_same_place():
    lesion = a_lesion()
    patch = crop_patch(lesion.volume, lesion.box, margin_mm=5)
    assert patch.array.dtype == np.int16
    assert patch.array.size < lesion.volume.array.size / 5
    for kji in ((0, 0, 0), tuple(n - 1 for n in patch.array.shape)):
        ras = transformed_points(patch.ijkToRAS, kji[::-1])
        i, j, k = np.round(transformed_points(lesion.volume.rasToIJK, ras)).astype(int)
        assert patch.array[kji] == lesion.volume.array[k, j, i]
    inside = transformed_points(patch.rasToIJK, lesion.box.grown(5).cornersRAS)
    assert (inside > -0.5).all()
    assert (inside < np.array(patch.sizeIJK) - 0.5).all()
    assert patch.array.base is None or patch.array.base.size < lesion.volume.array.size


def test_a_patch_ends_where_the_ct_ends_and_values_beyond_int16_are_clipped():
    volume = CTVolume(np.full((4, 5, 6), 1e6), np.eye(4))
    patch = crop_patch(volume, LesionBox([0, 0, 0], [2, 2, 2]), margin_mm=100)
    assert patch.array.shape == (4, 5, 6)
    assert (patch.array == 32767).all()
    with pytest.raises(BoxError, match="outside"):
        crop_patch(volume, LesionBox([90, 0, 0], [2, 2, 2]), margin_mm=100)


def test_a_patch_that_is_too_large_for_a_quiz_is_refused():
    volume = CTVolume(np.zeros((1, 1, 1), np.int16), np.eye(4))
    huge = np.lib.stride_tricks.as_strided(volume.array, (300, 300, 300), (0, 0, 0))
    with pytest.raises(QuizError, match="smaller margin"):
        crop_patch(CTVolume(huge, np.eye(4)), LesionBox([150, 150, 150], [299, 299, 299]), margin_mm=1)


# --- the quiz


def middle(volume: CTVolume) -> np.ndarray:
    return transformed_points(volume.ijkToRAS, (np.array(volume.sizeIJK) - 1) / 2)


@pytest.mark.parametrize("boxes", ["placed", "free"])
def test_where_the_learner_has_to_find_the_lesion_it_is_not_in_the_middle_of_its_patch(boxes):
    lesion = a_lesion()
    (given,) = make([lesion]).cases
    quizzes = [make([lesion] * 2, plan=replace(PLAN, boxes=boxes, seed=seed)) for seed in (1, 1, 2)]
    assert np.linalg.norm(middle(given.volume) - given.box.centerRAS) < 2  # a voxel
    away = [middle(case.volume) - case.box.centerRAS for quiz in quizzes for case in quiz.cases]
    assert min(np.linalg.norm(offset) for offset in away) > 0.5
    assert np.allclose(away[0], away[2])  # the same seed
    assert not np.allclose(away[0], away[1])
    assert not np.allclose(away[0], away[4])
    for case in (case for quiz in quizzes for case in quiz.cases):
        around = case.box.grown(0.4 * PLAN.margin_mm)
        ijk = transformed_points(case.volume.rasToIJK, around.cornersRAS)
        assert (ijk > -1).all()
        assert (ijk < np.array(case.volume.sizeIJK)).all()


def test_a_lesion_at_the_edge_of_the_ct_can_be_asked_too():
    volume = a_volume()
    corner = LesionBox(transformed_points(volume.ijkToRAS, [0, 0, 0]), [1, 1, 1])
    quiz = make([a_lesion(box=corner)] * 8, plan=replace(PLAN, boxes="placed"))
    assert len(quiz.cases) == 8


def test_the_model_sees_the_whole_ct_and_no_name():
    asked = []
    make_quiz([a_lesion()], plan=PLAN, model=MODEL, classes=CLASSES, answer=a_model(asked))
    ((volume, box),) = asked
    assert volume.array.shape == (30, 50, 60)
    assert (volume.name, box.name) == ("case-01", "case-01")


def test_what_the_model_said_and_what_is_known_are_packed():
    quiz = make([a_lesion(), a_lesion("malignant", attributes={"size": 8.5}, organ="lung")])
    case = quiz.cases[1]
    assert (case.case_id, case.known.label, case.known.label_source) == ("case-02", "malignant", "histology")
    assert (case.known.organ, case.known.attributes) == ("lung", {"size": 8.5})
    assert (case.prediction.label, case.prediction.probabilities) == ("benign", {"benign": 0.6, "malignant": 0.4})
    assert case.prediction.warnings == ("The box is small.",)
    assert case.prediction.similar == ()
    assert quiz.model == ("nodules", "1.0.0", "a" * 64)


def test_similar_cases_are_neither_the_lesion_itself_nor_of_its_patient(library):
    (case,) = make([a_lesion(patient_hash="1" * 32)], library=library).cases
    assert [n.case_id for n in case.prediction.similar] == ["lib-3", "lib-4"]
    (case,) = make([a_lesion()], library=library).cases
    assert [n.case_id for n in case.prediction.similar] == ["lib-1", "lib-2", "lib-3"]
    assert case.prediction.similar[0].attributes == {"place": 1}
    assert (case.prediction.similar[0].thumbnails["axial"] == 1).all()
    assert case.prediction.similar[0].similarity == pytest.approx(np.cos(0.1))


def test_a_library_of_another_model_is_refused(tmp_path):
    other = ModelIdentity("other", "1.0.0", "b" * 64)
    with (
        CaseLibrary.create(tmp_path / "o.lesionlib", model=other, dimension=4) as library,
        pytest.raises(CaseLibraryError, match="was made with"),
    ):
        make([a_lesion()], library=library)


def test_a_truth_that_the_model_has_no_class_for_is_refused():
    with pytest.raises(QuizError, match="'granuloma' is no class"):
        make([a_lesion("granuloma")])


@pytest.mark.parametrize("changes", [{"similar": 51}, {"similar": -1}, {"margin_mm": -1}, {"margin_mm": 1000}])
def test_a_plan_beyond_its_limits_is_refused(changes):
    with pytest.raises(QuizError, match="margin"):
        make([a_lesion()], plan=replace(PLAN, **changes))


# --- the choice


@dataclass(frozen=True)
class GivenLesions:
    """Lesions at hand as a source; each counts as another patient unless its hash says otherwise."""

    lesions: Sequence[LabelledLesion]

    def labels(self) -> Sequence[str]:
        return [lesion.label for lesion in self.lesions]

    def patients(self) -> Sequence[str]:
        return [lesion.patient_hash or f"lesion {place}" for place, lesion in enumerate(self.lesions)]

    def load(self, place: int) -> LabelledLesion:
        return self.lesions[place]


def given(labels: str, patients: str | None = None) -> GivenLesions:
    hashes = patients or [None] * len(labels)
    return GivenLesions([a_lesion(label, patient_hash=p) for label, p in zip(labels, hashes, strict=True)])


def test_the_diagnoses_come_in_equal_numbers_as_far_as_they_go():
    source = given("a" * 20 + "b" * 5 + "c")
    chosen = choose_cases(source, 9, seed=0)
    assert Counter(source.labels()[place] for place in chosen) == {"a": 4, "b": 4, "c": 1}
    assert len(set(chosen)) == 9


def test_another_seed_gives_other_cases_and_the_same_seed_the_same():
    source = given("ab" * 30)
    assert choose_cases(source, 8, seed=1) == choose_cases(source, 8, seed=1)
    assert set(choose_cases(source, 8, seed=1)) != set(choose_cases(source, 8, seed=2))


def test_where_a_case_stands_does_not_tell_its_diagnosis():
    source = given("ab" * 30)
    orders = {tuple(source.labels()[p] for p in choose_cases(source, 6, seed=seed)) for seed in range(12)}
    assert len(orders) > 4


def test_a_patient_comes_twice_only_when_no_other_is_left():
    source = given("a" * 8, "11111123")
    patients = [source.patients()[place] for place in choose_cases(source, 3, seed=3)]
    assert sorted(patients) == ["1", "2", "3"]
    assert len(choose_cases(source, 8, seed=3)) == 8


@pytest.mark.parametrize("count", [0, 5, -1])
def test_more_cases_than_there_are_is_refused(count):
    with pytest.raises(QuizError, match="there are 4"):
        choose_cases(given("abab"), count, seed=0)


def test_phantoms_are_what_they_are_called_and_the_same_for_the_same_seed():
    source = PhantomNodules(4, seed=5, class_names=("benign", "malignant"))
    assert Counter(source.labels()) == {"benign": 2, "malignant": 2}
    one, again = source.load(1), PhantomNodules(4, seed=5, class_names=("benign", "malignant")).load(1)
    assert np.array_equal(one.volume.array, again.volume.array)
    assert one.label == source.labels()[1]
    assert (
        one.attributes["shape"]
        in {"benign": ("round", "calcified"), "malignant": ("spiculated", "lobulated")}[one.label]
    )
    with pytest.raises(QuizError, match="the model knows benign, other"):
        PhantomNodules(4, seed=5, class_names=("benign", "other"))


def test_phantoms_for_a_model_of_kinds_are_as_many_of_each_kind_and_size_tells_nothing():
    source = PhantomNodules(6, seed=5, class_names=("calcified", "solid", "subsolid"))
    assert Counter(source.labels()) == {"calcified": 2, "solid": 2, "subsolid": 2}
    for index, label in enumerate(source.labels()):
        lesion = source.load(index)
        assert (lesion.label, lesion.attributes["shape"] in NATURES[label]) == (label, True)
        assert 6.5 <= lesion.attributes["diameter_mm"] <= 11.5


# --- how well two boxes agree


def test_overlap_is_exact_for_parallel_boxes_whichever_axis_is_called_x():
    a = LesionBox([0, 0, 0], [4, 2, 6])
    swapped = LesionBox([1, 0, 0], [2, 4, 6], np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]))
    assert box_overlap(a, swapped) == pytest.approx(3 / 5)
    assert box_overlap(a, a) == 1
    assert box_overlap(a, LesionBox([9, 0, 0], [1, 1, 1])) == 0


def test_overlap_of_turned_boxes_is_that_of_plane_geometry():
    turned = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    a, b = LesionBox([0, 0, 0], [2, 2, 2]), LesionBox([0, 0, 0], [2, 2, 2], turned)
    octagon = 8 * 2 * (np.sqrt(2) - 1)  # the square of edge 2 and the same turned by 45 degrees, times the height
    assert box_overlap(a, b) == pytest.approx(octagon / (16 - octagon), rel=1e-6)
    small = LesionBox([0, 0, 0], [0.5, 0.5, 0.5], turned)
    assert box_overlap(a, small) == pytest.approx(0.125 / 8, rel=1e-6)
    assert box_overlap(a, LesionBox([5, 5, 5], [2, 2, 2], turned)) == 0


def test_overlap_of_any_two_boxes_is_that_counted_on_points():
    rng = np.random.default_rng(4)
    points = rng.uniform(-20, 20, (400_000, 3)) + [100, -50, 20]
    for _ in range(12):
        boxes = [
            LesionBox(
                rng.uniform(-5, 5, 3) + [100, -50, 20],
                rng.uniform(4, 20, 3),
                Rotation.random(random_state=rng).as_matrix(),
            )
            for _ in range(2)
        ]
        inside = [(np.abs((points - b.centerRAS) @ b.axesRAS) <= b.sizeMm / 2).all(axis=1) for b in boxes]
        counted = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
        assert box_overlap(*boxes) == pytest.approx(counted, abs=0.03)
        assert box_overlap(*boxes) == pytest.approx(box_overlap(*boxes[::-1]), rel=1e-6)


@pytest.mark.parametrize("degrees", [1e-7, 1e-5, 1e-3, 0.1, 90 - 1e-5])
def test_overlap_of_nearly_parallel_boxes_is_nearly_that_of_parallel_ones(degrees):
    turned = Rotation.from_euler("xyz", [degrees, 0, degrees], degrees=True).as_matrix()
    a, b = LesionBox([10, 20, 30], [4, 4, 4]), LesionBox([12, 20, 30], [4, 4, 4], turned)
    assert box_overlap(a, b) == pytest.approx(1 / 3, abs=0.01)
