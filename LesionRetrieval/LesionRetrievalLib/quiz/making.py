"""A quiz from known lesions: patches cut out, the model asked once, similar cases looked up, nothing left of the patient.

The lesions come from a folder, are computed phantoms, or whatever is handed over.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from LesionLib.errors import BoxError, CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap, transformed_points
from LesionLib.inference.results import LesionResult
from LesionLib.io.boxes import read_case_table
from LesionLib.io.image_files import read_header
from LesionLib.model.scores import ScoreSpec
from LesionLib.phantom.nodules import NATURES

from LesionRetrievalLib.library import intake as case_folder
from LesionRetrievalLib.library.cases import Case, ModelIdentity, Neighbour, Scalar, indexed_as
from LesionRetrievalLib.library.intake import PATIENT_COLUMN
from LesionRetrievalLib.library.patches import LUNG_WINDOW_HU
from LesionRetrievalLib.library.phantoms import phantom_nodule
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.model import (
    LONGEST_TITLE,
    MAX_CASES,
    MAX_SIMILAR,
    MAX_VOXELS,
    NOBODY,
    Diagnosis,
    ModelPrediction,
    Quiz,
    QuizCase,
    QuizClass,
    QuizError,
    QuizNeighbour,
)
from LesionRetrievalLib.quiz.schema import LONGEST_TEXT

PHANTOM_NOTE = (
    "The nodules here are computed; the model learned from real ones, so that its answers are examples, not evidence."
)
# By what the model knows. The sizes are the same for all labels: they are not to tell the answer.
_PHANTOM_SHAPES = (NATURES, {"benign": ("round", "calcified"), "malignant": ("spiculated", "lobulated")})
_PHANTOM_MM = ((6.5, 11.5), (8.0, 20.0))


@dataclass(frozen=True, eq=False)
class LabelledLesion:
    """A lesion whose diagnosis is known. ``patient_hash``: as a case library has it, to leave that patient's cases out of
    the similar ones; it does not enter the quiz, nor do the names of the volume and the box.
    """

    volume: CTVolume
    box: LesionBox
    label: str
    label_source: str
    organ: str = "not stated"
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    patient_hash: str | None = None
    feedback: str = ""


class QuizCaseSource(Protocol):
    """A collection of known lesions to choose from."""

    def labels(self) -> Sequence[str]:
        """The diagnosis of each lesion, without reading its CT."""

    def patients(self) -> Sequence[str]:
        """Something that is the same for two lesions of the same patient; it stays inside this program."""

    def load(self, index: int) -> LabelledLesion:
        """The lesion at ``index`` of `labels`."""


class CaseFolder:
    """The folder that ``lesionlens library build`` reads: one CSV table, ``image/`` and ``mask/``.

    A class number in the table becomes the name in ``class_names``. ``patient_hash``: from an identifier to the hash that
    the case library has, None where no library is asked. ``margin_mm``: how far the boxes reach beyond the masks, as the model
    was made for. ``keep``: columns that learners are shown at the end of a case. ``readers``: see `intake.rated_rows`. Raises
    `CaseTableError`.
    """

    def __init__(  # noqa: PLR0913 - all but the first by name, and most of them optional
        self,
        folder: Path,
        *,
        class_names: Sequence[str],
        label_column: str | None = None,
        label_source: str | None = None,
        organ: str = "not stated",
        patient_hash: Callable[[str], str] | None = None,
        margin_mm: float = 0.0,
        keep: Sequence[str] = (),
        readers: Path | None = None,
    ) -> None:
        self._rows = read_case_table(folder, columns=[PATIENT_COLUMN])
        if readers is not None:
            self._rows, label_column = case_folder.rated_rows(self._rows, readers), case_folder.KIND_COLUMN
            label_source = label_source or case_folder.READERS_SOURCE
        self._column = case_folder.label_column(self._rows[0], label_column)
        self._class_names = tuple(class_names)
        case_folder.require_clear_labels(self._rows, self._column, self._class_names)
        self._label_source = label_source or f"table of the collection, column {self._column}"
        self._organ = organ
        self._patient_hash, self._margin_mm = patient_hash, margin_mm
        case_folder.require_columns(self._rows[0], keep)
        self._keep = tuple(keep)

    def labels(self) -> Sequence[str]:
        return [case_folder.label_of(row, self._column, self._class_names) for row in self._rows]

    def patients(self) -> Sequence[str]:
        return [row.values[PATIENT_COLUMN] for row in self._rows]

    def slices(self) -> Sequence[int]:
        """How many slices the CT of each lesion has, by the headers of their files. Raises `VolumeError`."""
        return [read_header(row.image_path).size[2] for row in self._rows]

    def load(self, index: int) -> LabelledLesion:
        row = self._rows[index]
        label = case_folder.label_of(row, self._column, self._class_names)
        attributes = case_folder.attributes_of(row, self._keep)
        case = Case("case", label, self._label_source, self._organ, NOBODY, NOBODY, attributes)
        try:
            case_folder.require_anonymous(case, case_folder.identifiers_of(row))
        except CaseLibraryError as error:
            msg = f"{row.where}: {error}"
            raise QuizError(msg) from error
        volume, box, _ = row.load(margin_mm=self._margin_mm)
        return LabelledLesion(
            volume=volume,
            box=box,
            label=label,
            label_source=self._label_source,
            organ=self._organ,
            attributes=attributes,
            patient_hash=self._patient_hash(row.values[PATIENT_COLUMN]) if self._patient_hash else None,
        )


class PhantomNodules:
    """Computed nodules, as many as wanted, of the kinds calcified, solid and subsolid; for a model that knows only benign and
    malignant, round and calcified ones stand for benign, ragged ones for malignant.
    """

    def __init__(self, count: int, *, seed: int, class_names: Sequence[str]) -> None:
        known = [place for place, shapes in enumerate(_PHANTOM_SHAPES) if set(shapes) <= set(class_names)]
        if not known:
            wanted = " or ".join(", ".join(shapes) for shapes in _PHANTOM_SHAPES)
            msg = f"Phantoms are {wanted}, and the model knows {', '.join(class_names)}; take cases with --from."
            raise QuizError(msg)
        self._shapes, self._mm = _PHANTOM_SHAPES[known[0]], _PHANTOM_MM[known[0]]
        labels = sorted(self._shapes)
        self._labels = [labels[index % len(labels)] for index in range(count)]
        self._seed = seed

    def labels(self) -> Sequence[str]:
        return self._labels

    def patients(self) -> Sequence[str]:
        """See `QuizCaseSource`: each is its own."""
        return [str(index) for index in range(len(self._labels))]

    def load(self, index: int) -> LabelledLesion:
        label = self._labels[index]
        chance = random.Random(f"{self._seed} {index}")
        shape, diameter = chance.choice(self._shapes[label]), round(chance.uniform(*self._mm), 1)
        volume, box = phantom_nodule(shape=shape, diameter_mm=diameter, seed=chance.randrange(2**31))
        return LabelledLesion(
            volume=volume,
            box=box,
            label=label,
            label_source="computed phantom: its shape decides, no patient was examined",
            organ="lung",
            attributes={"shape": shape, "diameter_mm": diameter},
        )


def choose_cases(source: QuizCaseSource, count: int, *, seed: int) -> list[int]:
    """``count`` places of the source, drawn by ``seed``: the diagnoses in turn, a second lesion of a patient only when no
    other is left. The same seed gives the same choice on every machine. Raises `QuizError` where there are too few.
    """
    labels, patients = source.labels(), source.patients()
    if not 1 <= count <= len(labels):
        msg = f"{count} cases are wanted and there are {len(labels)}; give a number from 1 to {len(labels)}."
        raise QuizError(msg)

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{index}".encode()).digest()

    waiting = {label: sorted((p for p, of in enumerate(labels) if of == label), key=draw) for label in set(labels)}
    order = sorted(waiting, key=lambda label: hashlib.sha256(f"{seed}\0{label}".encode()).digest())
    chosen: list[int] = []
    seen: set[str] = set()
    while len(chosen) < count:
        for label in order:
            left = waiting[label]
            if left and len(chosen) < count:
                index = next((p for p in left if patients[p] not in seen), left[0])
                left.remove(index)
                seen.add(patients[index])
                chosen.append(index)
    return sorted(chosen, key=draw)


def choose_per_label(
    source: QuizCaseSource, count: int, *, seed: int, labels: Sequence[str] | None = None
) -> list[int]:
    """``count`` places of each of ``labels`` (None: all there are), drawn as `choose_cases` does, in a mixed order.

    Raises `QuizError` naming the label that has too few.
    """
    there = source.labels()
    wanted = sorted(set(there)) if labels is None else list(labels)
    for label in wanted:
        if not 1 <= count <= there.count(label):
            msg = f"{count} cases of {label!r} are wanted and there are {there.count(label)}; take fewer."
            raise QuizError(msg)
    kept = [index for index, label in enumerate(there) if label in wanted]
    chosen = choose_cases(_Part(source, kept), count * len(wanted), seed=seed)
    return [kept[index] for index in chosen]


def with_context(source: CaseFolder, slices: int) -> QuizCaseSource:
    """Those of a folder whose CT has at least so many slices, to look through. Raises `QuizError` where there are none."""
    kept = [index for index, count in enumerate(source.slices()) if count >= slices]
    if not kept:
        msg = f"No case has {slices} slices of CT; the most is {max(source.slices())}. Take fewer."
        raise QuizError(msg)
    return _Part(source, kept)


@dataclass(frozen=True)
class _Part:
    """Some places of a source."""

    source: QuizCaseSource
    indices: Sequence[int]

    def labels(self) -> Sequence[str]:
        labels = self.source.labels()
        return [labels[index] for index in self.indices]

    def patients(self) -> Sequence[str]:
        patients = self.source.patients()
        return [patients[index] for index in self.indices]

    def load(self, index: int) -> LabelledLesion:
        return self.source.load(self.indices[index])


# Two CTs of different lesions never embed that alike: it is the case itself, and it would tell its own answer.
_SAME_LESION = 0.99995
_MAX_OFFSET = 0.6  # of the margin

Answer = Callable[[CTVolume, LesionBox], LesionResult]


@dataclass(frozen=True)
class QuizPlan:
    """What the teacher decides. ``margin_mm``: how much CT is packed around the box; unevenly where the learner has to find it.

    ``boxes``: see `model.Quiz`.
    """

    title: str
    instructions: str = ""
    boxes: str = "given"
    seed: int = 0
    margin_mm: float = 25.0
    window_hu: tuple[float, float] = LUNG_WINDOW_HU
    similar: int = 9


def make_quiz(
    lesions: Iterable[LabelledLesion],
    *,
    plan: QuizPlan,
    model: ModelIdentity,
    classes: Sequence[QuizClass],
    answer: Answer,
    library: CaseLibrary | None = None,
    scores: Sequence[ScoreSpec] = (),
) -> Quiz:
    """Ask the model about every lesion and pack the quiz.

    ``answer`` is asked with the whole CT and the box: ``lambda ct, box: Classifier(bundle, ct).classify(box)``, or a
    runner. With ``library``, made by the same model, each case gets its most similar ones, without those of its patient
    and without itself. ``scores``: the scales of a model that scores lesions. Raises `QuizError` or whatever ``answer`` raises.
    """
    require_plan(plan)
    if library is not None:
        indexed_as(library, model)
    cases = []
    for number, lesion in enumerate(lesions, start=1):
        if number > MAX_CASES:
            msg = f"A quiz has at most {MAX_CASES} cases; take fewer."
            raise QuizError(msg)
        cases.append(_case(f"case-{number:02d}", lesion, plan, model, answer, library, scores))
    return Quiz(
        title=plan.title,
        instructions=plan.instructions,
        boxes=plan.boxes,
        seed=plan.seed,
        window_hu=plan.window_hu,
        model=(model.name, model.version, model.sha256),
        classes=tuple(classes),
        cases=tuple(cases),
        scores=tuple(scores),
    )


def quiz_classes(manifest: Mapping[str, Any]) -> list[QuizClass]:
    """The answers that can be given: the classes of the model with this manifest."""
    return [QuizClass(c["name"], c["description"], tuple(c["colorRGB"])) for c in manifest["lesionlens"]["classes"]]


def require_plan(plan: QuizPlan) -> None:
    """Refuse at once what a quiz cannot be, before the model is asked (`QuizError`)."""
    if not (0 <= plan.similar <= MAX_SIMILAR and 0 <= plan.margin_mm <= 200):
        msg = f"similar is {plan.similar} (0 to {MAX_SIMILAR}) and the margin {plan.margin_mm:g} mm (0 to 200)."
        raise QuizError(msg)
    if not (1 <= len(plan.title) <= LONGEST_TITLE and len(plan.instructions) <= LONGEST_TEXT):
        msg = (
            f"The title has {len(plan.title)} characters (1 to {LONGEST_TITLE}) and the instructions have "
            f"{len(plan.instructions)} (at most {LONGEST_TEXT})."
        )
        raise QuizError(msg)
    if not plan.window_hu[0] < plan.window_hu[1]:
        msg = f"The window runs from {plan.window_hu[0]:g} to {plan.window_hu[1]:g} HU; give the lower value first."
        raise QuizError(msg)


def crop_patch(volume: CTVolume, box: LesionBox, *, margin_mm: float, name: str = "patch") -> CTVolume:
    """The part of ``volume`` with the box and ``margin_mm`` around it, int16 HU, on the same lattice.

    Raises `BoxError` for a box outside, `QuizError` for a patch that is too large for a quiz.
    """
    require_overlap(volume, box)
    ijk = transformed_points(volume.rasToIJK, box.grown(margin_mm).cornersRAS)
    size = np.array(volume.sizeIJK)
    low = np.clip(np.floor(ijk.min(axis=0)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(ijk.max(axis=0)).astype(int) + 1, low + 1, size)
    if np.prod(high - low) > MAX_VOXELS:
        msg = f"The patch would have {np.prod(high - low):,} voxels, more than {MAX_VOXELS:,}; take a smaller margin."
        raise QuizError(msg)
    part = volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    limits = np.iinfo(np.int16)
    ijk_to_ras = volume.ijkToRAS.copy()
    ijk_to_ras[:3, 3] = transformed_points(volume.ijkToRAS, low)
    # An own copy under an own name: nothing of the CT around it, and nothing of what its file was called.
    return CTVolume(np.clip(np.round(part), limits.min, limits.max).astype(np.int16), ijk_to_ras, name=name)


def _case(
    case_id: str,
    lesion: LabelledLesion,
    plan: QuizPlan,
    model: ModelIdentity,
    answer: Answer,
    library: CaseLibrary | None,
    scores: Sequence[ScoreSpec],
) -> QuizCase:
    volume = replace(lesion.volume, name=case_id)
    box = replace(lesion.box, name=case_id)
    result = answer(volume, box)
    similar = _similar(result, library, plan, model, lesion.patient_hash) if library is not None else ()
    return QuizCase(
        case_id=case_id,
        volume=crop_patch(volume, _aimed_at(volume, box, plan), margin_mm=plan.margin_mm, name=case_id),
        box=replace(box, segment=None),
        known=Diagnosis(lesion.label, lesion.label_source, lesion.organ, dict(lesion.attributes), lesion.feedback),
        prediction=ModelPrediction(
            label=result.label,
            probabilities={name: min(max(float(p), 0.0), 1.0) for name, p in result.probabilities.items()},
            reliability=result.reliability,
            warnings=tuple(str(warning) for warning in result.warnings),
            heat_map=result.heat_map,
            similar=similar,
            scores={name: float(value) for name, value in result.scores.items()},
            sentence=result.sentence(scores),
        ),
    )


def with_less_around(quiz: Quiz, margin_mm: float) -> Quiz:
    """The same cases with at most so much CT around each box, unevenly where the learner has to find the lesion."""
    plan = QuizPlan(quiz.title, boxes=quiz.boxes, seed=quiz.seed, margin_mm=margin_mm)
    cases = (
        replace(
            case,
            volume=crop_patch(
                case.volume, _aimed_at(case.volume, case.box, plan), margin_mm=margin_mm, name=case.case_id
            ),
        )
        for case in quiz.cases
    )
    return replace(quiz, cases=tuple(cases))


def _aimed_at(volume: CTVolume, box: LesionBox, plan: QuizPlan) -> LesionBox:
    """What the patch is cut around: the box, or where the learner has to find the lesion a place beside it.

    In the middle of every patch the lesion would be found without looking. At least 0.4 margins stay on each side of it.
    """
    if plan.boxes == "given":
        return box
    chance = random.Random(f"{plan.seed} {box.name}")
    offset = np.array([chance.uniform(-_MAX_OFFSET, _MAX_OFFSET) for _ in range(3)]) * plan.margin_mm
    moved = replace(box, centerRAS=box.centerRAS + box.axesRAS @ offset, segment=None)
    try:
        require_overlap(volume, moved)
    except BoxError:  # a lesion at the edge of the CT
        return box
    return moved


def _similar(
    result: LesionResult, library: CaseLibrary, plan: QuizPlan, model: ModelIdentity, patient_hash: str | None
) -> tuple[QuizNeighbour, ...]:
    if plan.similar == 0:
        return ()
    found = library.search(
        result.embedding, k=2 * plan.similar, model_sha256=indexed_as(library, model), exclude_patient=patient_hash
    )
    others = [neighbour for neighbour in found if neighbour.similarity < _SAME_LESION][: plan.similar]
    return tuple(_neighbour(neighbour, library) for neighbour in others)


def _neighbour(neighbour: Neighbour, library: CaseLibrary) -> QuizNeighbour:
    return QuizNeighbour(
        case_id=neighbour.case_id,
        label=neighbour.label,
        similarity=neighbour.similarity,
        label_source=neighbour.label_source,
        organ=neighbour.organ,
        attributes=dict(neighbour.attributes),
        thumbnails=library.thumbnails(neighbour.case_id),
    )
