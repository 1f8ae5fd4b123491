"""A quiz of phantoms, a library to make one from, and a model that answers at once: what tests of the teaching room share."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume
from LesionLib.inference.messages import Precision, RunnerCancelled, RunRequest, RunResponse
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.uncertainty.reliability import Reliability
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.patches import case_thumbnails, lesion_patch
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.file import save_quiz
from LesionRetrievalLib.quiz.model import Diagnosis, ModelPrediction, Quiz, QuizCase, QuizClass, QuizNeighbour

MODEL = ModelIdentity("lung-nodule-malignancy", "1.0.0", "a" * 64)
CLASSES = (QuizClass("benign", "a benign nodule", (0.2, 0.6, 0.3)), QuizClass("malignant", "a cancer", (0.8, 0.2, 0.2)))
_KINDS = (("round", 0.1), ("spiculated", 0.8), ("lobulated", 0.3))  # with the probability of malignant


def phantom_quiz(*, boxes: str = "given", title: str = "Nodules") -> Quiz:
    """Three nodules, benign, malignant, malignant; the model is wrong about the third. Their voxels can't be written to."""
    cases = tuple(_case(number, kind, said) for number, (kind, said) in enumerate(_KINDS, start=1))
    model = (MODEL.name, MODEL.version, MODEL.sha256)
    return Quiz(title, "Nodules of 12 mm.", boxes, 3, (-1350.0, 150.0), model, CLASSES, cases)


def write_phantom_quiz(path: Path, *, boxes: str = "given") -> Path:
    """The file of `phantom_quiz`, packed once for all tests of a process."""
    path.write_bytes(_quiz_file(boxes))
    return path


@cache
def _quiz_file(boxes: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "quiz.json"
        save_quiz(phantom_quiz(boxes=boxes), path)
        return path.read_bytes()


@cache
def _case(number: int, kind: str, malignant: float) -> QuizCase:
    volume, nodule = nodule_patch(kind=kind, diameter_mm=12.0, seed=number, size_mm=48.0)
    patch = CTVolume(np.round(volume.array).astype(np.int16), volume.ijkToRAS, name=f"case-{number:02d}")
    patch.array.setflags(write=False)
    box = replace(nodule.box, name=patch.name)
    heat, to_ras = np.zeros((12, 12, 12), np.float32), np.diag([2.0, 2.0, 2.0, 1.0])
    heat[4:8, 4:8, 4:8] = 1.0
    heat.setflags(write=False)
    to_ras[:3, 3] = box.centerRAS - 11
    label = "malignant" if malignant > 0.5 else "benign"
    thumbnails = case_thumbnails(patch, box)
    similar = tuple(
        QuizNeighbour(
            f"lib-{n}",
            ("benign", "malignant")[n % 2],
            0.95 - 0.02 * n,
            "histology",
            "lung",
            {"mm": 9.0 + n},
            thumbnails,
        )
        for n in range(1, 6)
    )
    told = "Look at its margin:\nit is <spiculated>." if kind == "spiculated" else ""
    return QuizCase(
        case_id=patch.name,
        volume=patch,
        box=box,
        known=Diagnosis("benign" if kind == "round" else "malignant", "histology", "lung", {"diameter_mm": 12.0}, told),
        prediction=ModelPrediction(
            label=label,
            probabilities={"benign": 1 - malignant, "malignant": malignant},
            reliability=Reliability((label,), 0.9, 1.0, 2.0, None, 0.7),
            warnings=("The box is small.",) if number == 3 else (),
            heat_map=HeatMap(heat, to_ras, 0.4, label),
            similar=similar,
        ),
    )


def write_library(path: Path) -> Path:
    """Nine cases of six patients, the last one without its CT; their vectors at growing angles from `CannedRunner`'s."""
    path.write_bytes(_library())
    return path


@cache
def _library() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cases.lesionlib"
        _write_library(path)
        return path.read_bytes()


def _write_library(path: Path) -> None:
    with CaseLibrary.create(path, model=MODEL, dimension=4) as library:
        for number in range(9):
            kind, label = (("round", "benign"), ("spiculated", "malignant"))[number % 2]
            volume, nodule = nodule_patch(kind=kind, diameter_mm=9.0, seed=number, size_mm=40.0)
            case = Case(
                f"case-{number}", label, "histology", "lung", f"{number % 6:032x}", f"{number:032x}",
                {"diameter_mm": 9.0}, "a note of the owner",
            )  # fmt: skip
            library.add(
                case,
                np.array([1.0, 0.2 * (number + 1), 0.0, 0.0]),
                model_sha256=MODEL.sha256,
                thumbnails=case_thumbnails(volume, nodule.box),
                patch=lesion_patch(volume, nodule.box) if number < 8 else None,
            )


class CannedRunner:
    """An `InferenceRunner` that says benign, 0.6, of everything. ``waits``: as long as nobody cancels."""

    def __init__(self, sha256: str = MODEL.sha256, *, waits: bool = False) -> None:
        self._sha256, self._waits = sha256, waits
        self.asked: list[str] = []
        self.is_cancelled = self.is_closed = False

    def run(self, request: RunRequest, *, progress: object = None) -> RunResponse:
        while self._waits and not self.is_cancelled:
            time.sleep(0.005)
        if self.is_cancelled:
            msg = "the request was cancelled."
            raise RunnerCancelled(msg)
        (box,) = request.boxes
        self.asked.append(box.name)
        heat = HeatMap(np.full((3, 3, 3), 0.5, np.float32), request.volume.ijkToRAS, 0.3, "benign")
        embedding = np.array([1.0, 0, 0, 0], np.float32)
        result = LesionResult(box.name, box, "benign", {"benign": 0.6, "malignant": 0.4}, embedding, heat, ())
        info = RunInfo("CT", MODEL.name, MODEL.version, self._sha256, "cpu")
        colors = tuple(one.color for one in CLASSES)
        return RunResponse([result], info, ("benign", "malignant"), colors, Precision("float32", "canned"))

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True

    def close(self) -> None:
        self.is_closed = True


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
