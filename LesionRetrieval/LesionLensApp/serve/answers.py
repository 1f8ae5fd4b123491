"""From the boxes of a session to its answer: what ``lesionlens classify`` does, but for the scene and the report.

Runs on a thread of the jobs, each of which has the case library open for itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, local
from typing import Any

from LesionClassifierLib.dicom_results import REPORT_FILE, SEGMENTATION_FILE, DicomOutput, write_dicom
from LesionClassifierLib.scene.volumes import addScalarVolume, writeVolumeFile
from LesionLib.geometry import require_overlap
from LesionLib.inference.messages import MapChoice, RunOptions, RunRequest, RunResponse
from LesionLib.inference.results import LesionResult, RunInfo, color_by_class, css_color, heat_map_file
from LesionLib.io.private_files import private_folder, write_private
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.cases import CaseStore, ModelIdentity, Neighbour, indexed_as
from LesionRetrievalLib.library.neighbours import find_similar
from slicer import vtkMRMLScene

from LesionLensApp.classify import patient_hash, write_tables
from LesionLensApp.display_windows import window_around
from LesionLensApp.reading import warnings_of_box, with_reader_warnings
from LesionLensApp.serve.access import ApiError
from LesionLensApp.serve.jobs import Job, Queue
from LesionLensApp.serve.served_models import ServedModels
from LesionLensApp.serve.sessions import DrawnBox, OpenCT
from LesionLensApp.similar_cases import SIMILAR_CSV, SimilarCases, similar_cases, similar_columns, similar_csv

_WRITING = Lock()  # of what Slicer's libraries write: one at a time


@dataclass(frozen=True)
class Asked:
    """How a session asks: the options of ``lesionlens classify`` that the page has."""

    model: str
    similar: int = 9
    box_jitter: int = 0
    answer_anyway: bool = False
    map_method: MapChoice | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """``results``: as they stand in ``folder``, with their maps. ``similar``: of each, where there is a library; ``note``: what
    has to be said of that search.
    """

    ct: OpenCT
    run: RunInfo
    results: tuple[LesionResult, ...]
    colors: dict[str, str]
    folder: Path
    similar: tuple[SimilarCases, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """What the page shows."""
        shown = [self._lesion(number) for number in range(len(self.results))]
        model = {"name": self.run.model_name, "version": self.run.model_version, "sha256": self.run.model_sha256}
        return {
            "model": model, "device": self.run.device, "software": self.run.software, "colors": self.colors,
            "lesions": shown, "note": self.note, "isDicom": self.ct.series is not None,
            "notice": "Research use only, not for diagnosis.",
        }  # fmt: skip

    def _lesion(self, index: int) -> dict[str, Any]:
        result = self.results[index]
        window = window_around(self.ct.volume, result.box)
        rows = result.score_rows(self.run.scores)
        return {
            "number": index + 1,
            "name": result.name,
            "label": result.label,
            "probabilities": result.shown_probabilities,
            "messages": list(result.messages),
            "sentence": result.sentence(self.run.scores),
            "scores": [{"name": row.spec.name, "text": row.level_text, "onScale": row.on_scale} for row in rows],
            "warnings": [str(warning) for warning in result.warnings],
            "hasMap": result.heat_map is not None and not result.heat_map.is_empty,
            "centerRAS": result.box.centerRAS.tolist(),
            "windowHU": list(window.range_hu),
            "similar": _similar_to_json(self.similar[index]) if self.similar else None,
        }

    def remove(self) -> None:
        """Delete its files; nobody wants it any more."""
        with _WRITING:
            shutil.rmtree(self.folder, ignore_errors=True)

    def result(self, number: int) -> LesionResult:
        """The n-th, counted from 1. Raises `ApiError`."""
        if not 1 <= number <= len(self.results):
            raise ApiError(404, f"there is no result {number}; there are {len(self.results)}.")
        return self.results[number - 1]

    def map_path(self, number: int) -> Path:
        """The file of its map, as ``lesionlens classify`` writes it. Raises `ApiError`."""
        result, path = self.result(number), self.folder / heat_map_file(number)
        if result.heat_map is None:
            raise ApiError(404, f"{result.name} has no map.")
        with _WRITING:
            if not path.exists():
                scene = vtkMRMLScene()
                node = addScalarVolume(scene, result.heat_map.array, result.heat_map.ijkToRAS, name=path.name)
                writeVolumeFile(node, path)
        return path

    def dicom_path(self, name: str) -> Path:
        """The structured report or the segmentation. Raises `ApiError`, with the reason where it cannot be written."""
        if self.ct.series is None:
            raise ApiError(409, "the CT is no DICOM series, so there is no study that DICOM results could belong to.")
        folder = private_folder(self.folder / "dicom")
        with _WRITING:
            if not (folder / name).exists():
                wanted = DicomOutput(
                    self.ct.series.files, report=name == REPORT_FILE, segmentation=name == SEGMENTATION_FILE
                )
                warned = write_dicom(wanted, self.run, list(self.results), self.ct.volume, folder)
                if not (folder / name).exists():
                    raise ApiError(422, " ".join(w for w in warned[0].warnings if w not in self.results[0].warnings))
        return folder / name


def _similar_to_json(similar: SimilarCases) -> dict[str, Any]:
    cards = [
        {
            "caseId": card.case_id, "label": card.label, "similarity": card.similarity,
            "mayBeTheLesion": card.may_be_the_lesion, "labelSource": card.label_source,
            "attributes": [list(pair) for pair in card.attributes], "image": card.image, "toScale": card.to_scale,
        }
        for card in similar.cards
    ]  # fmt: skip
    scale = {"scaleMm": similar.scale_mm, "scalePercent": similar.scale_percent}
    return {"cases": cards, "lesion": similar.lesion, "vote": similar.vote, **scale}


class Answers:
    """Answers sessions with the models that are installed, and the one library of this server (None: there is none)."""

    def __init__(self, queue: Queue, models: ServedModels, *, library: Path | str | None, key: Path | None) -> None:
        self._queue, self._models, self._location, self._key = queue, models, library, key
        self._here = local()  # ``library``: open on this thread

    def classify(self, job: Job, asked: Asked, ct: OpenCT, drawn: Sequence[DrawnBox], out: Path) -> Answer:
        """Answer the boxes and leave tables in ``out``, which is deleted where it fails. Raises a `LesionLensError`."""
        try:
            return self._classified(job, asked, ct, drawn, private_folder(out))
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise

    def _classified(self, job: Job, asked: Asked, ct: OpenCT, drawn: Sequence[DrawnBox], out: Path) -> Answer:
        model, library = self._models.describe(asked.model), self._opened()
        boxes = [one.box for one in drawn]
        for box in boxes:
            require_overlap(ct.volume, box)
        indexed = None if library is None else indexed_as(library, ModelIdentity.of_model(model))
        options = RunOptions(
            precision="float32",
            box_jitter=asked.box_jitter,
            answer_anyway=asked.answer_anyway,
            map_method=asked.map_method,
        )
        response = self._queue.ask(job, RunRequest(str(model.folder), ct.volume, boxes, options))
        results = _with_warnings(response, ct, drawn)
        similar, note, neighbours = [], "", []
        if library is not None:
            patient, note = patient_hash(self._key, ct.series, library)
            results, neighbours = find_similar(
                results, library, model_sha256=indexed, k=asked.similar, exclude_patient=patient
            )
            similar = [_pictures(pair, library, ct) for pair in zip(results, neighbours, strict=True)]
            write_private(out / SIMILAR_CSV, similar_csv(similar_columns(results, neighbours, response.info)))
        write_tables(out, response.info, results, of_lesions=[ct.details] * len(results))
        colors = {name: css_color(color) for name, color in color_by_class(model).items()}
        return Answer(ct, response.info, tuple(results), colors, out, tuple(similar), note)

    def _opened(self) -> CaseStore | None:
        if self._location is None:
            return None
        if not hasattr(self._here, "library"):
            self._here.library = open_store(self._location)
        return self._here.library


def _with_warnings(response: RunResponse, ct: OpenCT, drawn: Sequence[DrawnBox]) -> list[LesionResult]:
    of_boxes = [warnings_of_box(ct.volume, one.box, frame=one.frame) for one in drawn]
    return with_reader_warnings(response.results, ct.volume.warnings, of_boxes)


def _pictures(pair: tuple[LesionResult, Sequence[Neighbour]], library: CaseStore, ct: OpenCT) -> SimilarCases:
    result, found = pair
    return similar_cases(result, found, library, ct.volume, window=window_around(ct.volume, result.box))
