"""A quiz from known lesions: patches cut out, the model asked once, similar cases looked up, nothing left of the patient."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap, transformed_points
from LesionLib.results import LesionResult

from .library import CaseLibrary, ModelIdentity, Neighbour
from .quiz_model import KnownTruth, Quiz, QuizAnswer, QuizCase, QuizClass, QuizNeighbour
from .quiz_schema import LONGEST_TEXT, LONGEST_TITLE, MOST_CASES, MOST_SIMILAR, MOST_VOXELS, QuizError
from .quiz_sources import KnownLesion

# Two CTs of different lesions never embed that alike: it is the case itself, and it would tell its own answer.
_SAME_LESION = 0.99995
_LARGEST_OFFSET = 0.6  # of the margin

Answer = Callable[[CTVolume, LesionBox], LesionResult]


@dataclass(frozen=True)
class QuizPlan:
    """What the teacher decides. ``margin_mm``: how much CT is packed around the box; unevenly where the learner has to find it.

    ``boxes``: see `quiz_model.Quiz`.
    """

    title: str
    instructions: str = ""
    boxes: str = "given"
    seed: int = 0
    margin_mm: float = 25.0
    window_hu: tuple[float, float] = (-1350.0, 150.0)
    similar: int = 9


def make_quiz(
    lesions: Iterable[KnownLesion],
    *,
    plan: QuizPlan,
    model: ModelIdentity,
    classes: Sequence[QuizClass],
    answer: Answer,
    library: CaseLibrary | None = None,
) -> Quiz:
    """Ask the model about every lesion and pack the quiz.

    ``answer`` is asked with the whole CT and the box: ``lambda ct, box: Classifier(bundle, ct).classify(box)``, or a
    runner. With ``library``, made by the same model, each case gets its most similar ones, without those of its patient
    and without itself. Raises `QuizError` or whatever ``answer`` raises.
    """
    require_plan(plan)
    if library is not None:
        library.require_model(model.sha256)
    cases = []
    for number, lesion in enumerate(lesions, start=1):
        if number > MOST_CASES:
            msg = f"A quiz has at most {MOST_CASES} cases; take fewer."
            raise QuizError(msg)
        cases.append(_case(f"case-{number:02d}", lesion, plan, model, answer, library))
    return Quiz(
        title=plan.title,
        instructions=plan.instructions,
        boxes=plan.boxes,
        seed=plan.seed,
        window_hu=plan.window_hu,
        model=(model.name, model.version, model.sha256),
        classes=tuple(classes),
        cases=tuple(cases),
    )


def require_plan(plan: QuizPlan) -> None:
    """Refuse at once what a quiz cannot be, before the model is asked (`QuizError`)."""
    if not (0 <= plan.similar <= MOST_SIMILAR and 0 <= plan.margin_mm <= 200):
        msg = f"similar is {plan.similar} (0 to {MOST_SIMILAR}) and the margin {plan.margin_mm:g} mm (0 to 200)."
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


def cut_patch(volume: CTVolume, box: LesionBox, *, margin_mm: float, name: str = "patch") -> CTVolume:
    """The part of ``volume`` with the box and ``margin_mm`` around it, int16 HU, on the same lattice.

    Raises `BoxError` for a box outside, `QuizError` for a patch that is too large for a quiz.
    """
    require_overlap(volume, box)
    ijk = transformed_points(volume.rasToIJK, box.grown(margin_mm).cornersRAS)
    size = np.array(volume.sizeIJK)
    low = np.clip(np.floor(ijk.min(axis=0)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(ijk.max(axis=0)).astype(int) + 1, low + 1, size)
    if np.prod(high - low) > MOST_VOXELS:
        msg = f"The patch would have {np.prod(high - low):,} voxels, more than {MOST_VOXELS:,}; take a smaller margin."
        raise QuizError(msg)
    part = volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    limits = np.iinfo(np.int16)
    ijk_to_ras = volume.ijkToRAS.copy()
    ijk_to_ras[:3, 3] = transformed_points(volume.ijkToRAS, low)
    # An own copy under an own name: nothing of the CT around it, and nothing of what its file was called.
    return CTVolume(np.clip(np.round(part), limits.min, limits.max).astype(np.int16), ijk_to_ras, name=name)


def _case(
    case_id: str,
    lesion: KnownLesion,
    plan: QuizPlan,
    model: ModelIdentity,
    answer: Answer,
    library: CaseLibrary | None,
) -> QuizCase:
    volume = replace(lesion.volume, name=case_id)
    box = replace(lesion.box, name=case_id)
    result = answer(volume, box)
    similar = _similar(result, library, plan, model, lesion.patient_hash) if library is not None else ()
    return QuizCase(
        case_id=case_id,
        volume=cut_patch(volume, _aimed_at(volume, box, plan), margin_mm=plan.margin_mm, name=case_id),
        box=replace(box, segment=None),
        known=KnownTruth(lesion.label, lesion.label_source, lesion.organ, dict(lesion.attributes), lesion.feedback),
        answer=QuizAnswer(
            label=result.label,
            probabilities={name: min(max(float(p), 0.0), 1.0) for name, p in result.probabilities.items()},
            reliability=result.reliability,
            warnings=tuple(str(warning) for warning in result.warnings),
            heat_map=result.heat_map,
            similar=similar,
        ),
    )


def _aimed_at(volume: CTVolume, box: LesionBox, plan: QuizPlan) -> LesionBox:
    """What the patch is cut around: the box, or where the learner has to find the lesion a place beside it.

    In the middle of every patch the lesion would be found without looking. At least 0.4 margins stay on each side of it.
    """
    if plan.boxes == "given":
        return box
    chance = random.Random(f"{plan.seed} {box.name}")
    offset = np.array([chance.uniform(-_LARGEST_OFFSET, _LARGEST_OFFSET) for _ in range(3)]) * plan.margin_mm
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
        result.embedding, k=2 * plan.similar, model_sha256=model.sha256, exclude_patient=patient_hash
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
        pictures=library.pictures(neighbour.case_id),
    )
