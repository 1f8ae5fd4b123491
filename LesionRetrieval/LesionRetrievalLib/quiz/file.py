"""The quiz file: a quiz as one JSON text, and back with every byte of it distrusted.

Arrays inside it are zlib and base64, unpacked only to the size that was announced and allowed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume
from LesionLib.io.boxes import box_from_json, box_to_json
from LesionLib.model.scores import ScoreSpec, scores_from_json
from LesionLib.uncertainty.reliability import Reliability

from LesionRetrievalLib.library.arrays import PackedArrayError, array_bytes, packed, unpacked
from LesionRetrievalLib.quiz.model import (
    FORMAT,
    MAX_PIXELS,
    MAX_VOXELS,
    NOTICE,
    QUIZ_SCHEMA,
    SCHEMA_VERSION,
    Diagnosis,
    ModelPrediction,
    Quiz,
    QuizCase,
    QuizClass,
    QuizError,
    QuizNeighbour,
    checked_json,
)

Pack = Callable[[np.ndarray], dict[str, Any]]


def pack_array(array: np.ndarray) -> dict[str, Any]:
    """``array`` as ``{"dtype", "shape", "zlib"}``: little-endian C-order bytes, zlib, base64."""
    data = base64.b64encode(packed(array)).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "zlib": data}


def digest_array(array: np.ndarray) -> dict[str, Any]:
    """The fingerprint of ``array`` in the place of its bytes: the same whichever zlib packed it."""
    digest = hashlib.sha256(array_bytes(array)).hexdigest()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": digest}


def unpack_array(document: Mapping[str, Any], *, most: int, where: str) -> np.ndarray:
    """The array that `pack_array` packed, of at most ``most`` items. Raises `QuizError` naming ``where``."""
    try:
        content = base64.b64decode(document["zlib"], validate=True)
        return unpacked(content, dtype=document["dtype"], shape=tuple(document["shape"]), most=most)
    except PackedArrayError as error:
        msg = f"{where}: {error} Get the quiz again."
        raise QuizError(msg) from error
    except ValueError as error:
        msg = f"{where}: the packed values are damaged; get the quiz again."
        raise QuizError(msg) from error


_MAX_FILE = 1024**3


def quiz_sha256(quiz: Quiz) -> str:
    """The quiz's fingerprint: its content, whichever way it was packed. A learner's answers belong to it."""
    text = json.dumps(_document(quiz, digest_array), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save_quiz(quiz: Quiz, path: str | Path, *, overwrite: bool = False) -> None:
    """Write the quiz to ``path``; the file appears when it is whole. Raises `QuizError`."""
    path = Path(path)
    require_free_path(path, overwrite=overwrite)
    text = json.dumps(_document(quiz, pack_array), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    checked_json(text, QUIZ_SCHEMA, where="the quiz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(partial).chmod(0o644)  # mkstemp keeps it to its owner; a class reads it
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place."
        raise QuizError(msg) from error


def require_free_path(path: Path, *, overwrite: bool) -> None:
    """Refuse early what could not be written later (`QuizError`); only a quiz is ever overwritten."""
    if os.path.exists(path) and not overwrite:
        msg = f"{path} exists; give another name, or --overwrite to replace the quiz."
        raise QuizError(msg)
    if os.path.exists(path) and not _looks_like_a_quiz(path):
        msg = f"{path} is not a quiz; it is not overwritten. Give another name."
        raise QuizError(msg)


def load_quiz(path: str | Path) -> Quiz:
    """Read a quiz and check all of it. Raises `QuizError` saying where it is not what it should be."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_FILE:
            msg = f"{path} is larger than {_MAX_FILE // 1024**3} GiB; this is not a quiz of ours."
            raise QuizError(msg)
        text = path.read_text(encoding="utf-8")
    except QuizError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        msg = f"{path} cannot be read ({reason}); give a quiz that `lesionlens quiz make` wrote."
        raise QuizError(msg) from error
    document = checked_json(text, QUIZ_SCHEMA, where=path.name)
    try:
        return _from_document(document)
    except LesionLensError as error:
        msg = f"{path.name}: {error}"
        raise QuizError(msg) from error


def _document(quiz: Quiz, pack: Pack) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        "notice": NOTICE,
        "title": quiz.title,
        "instructions": quiz.instructions,
        "boxes": quiz.boxes,
        "seed": quiz.seed,
        "windowHU": [float(value) for value in quiz.window_hu],
        "model": dict(zip(("name", "version", "sha256"), quiz.model, strict=True)),
        "classes": [
            {"name": c.name, "description": c.description, "colorRGB": [float(v) for v in c.color]}
            for c in quiz.classes
        ],
        "cases": [_case_document(case, pack) for case in quiz.cases],
        **({"scores": [spec.to_json() for spec in quiz.scores]} if quiz.scores else {}),
    }


def _case_document(case: QuizCase, pack: Pack) -> dict[str, Any]:
    heat, known = case.prediction.heat_map, case.known
    return {
        "id": case.case_id,
        "patch": {"hu": pack(case.volume.array), "ijkToRAS": case.volume.ijkToRAS.tolist()},
        "box": box_to_json(case.box),
        "known": {
            "label": known.label,
            "labelSource": known.label_source,
            "organ": known.organ,
            "attributes": dict(known.attributes),
            **({"feedback": known.feedback} if known.feedback else {}),
        },
        "answer": {
            "label": case.prediction.label,
            "probabilities": dict(case.prediction.probabilities),
            "reliability": case.prediction.reliability.to_json(),
            "warnings": list(case.prediction.warnings),
            "heatMap": None if heat is None else _heat_document(heat, pack),
            **_scores_document(case.prediction),
        },
        "similar": [_similar_document(neighbour, pack) for neighbour in case.prediction.similar],
    }


def _scores_document(prediction: ModelPrediction) -> dict[str, Any]:
    if not prediction.scores:
        return {}
    return {"scores": dict(prediction.scores), "sentence": prediction.sentence}


def _heat_document(heat: HeatMap, pack: Pack) -> dict[str, Any]:
    return {
        "values": pack(np.round(np.clip(heat.array, 0, 1) * 255).astype(np.uint8)),
        "ijkToRAS": np.asarray(heat.ijkToRAS, dtype=float).tolist(),
        "peak": float(heat.peak),
        "className": heat.class_name,
    }


def _similar_document(neighbour: QuizNeighbour, pack: Pack) -> dict[str, Any]:
    return {
        "caseId": neighbour.case_id,
        "label": neighbour.label,
        "similarity": float(neighbour.similarity),
        "labelSource": neighbour.label_source,
        "organ": neighbour.organ,
        "attributes": dict(neighbour.attributes),
        "pictures": {plane: pack(thumbnail) for plane, thumbnail in neighbour.thumbnails.items()},
    }


def _from_document(document: Mapping[str, Any]) -> Quiz:
    return Quiz(
        title=document["title"],
        instructions=document["instructions"],
        boxes=document["boxes"],
        seed=document["seed"],
        window_hu=tuple(document["windowHU"]),
        model=tuple(document["model"][key] for key in ("name", "version", "sha256")),
        classes=tuple(QuizClass(c["name"], c["description"], tuple(c["colorRGB"])) for c in document["classes"]),
        cases=tuple(_case(case) for case in document["cases"]),
        scores=_scales(document.get("scores", ())),
    )


def _scales(entries: Sequence[Mapping[str, Any]]) -> tuple[ScoreSpec, ...]:
    try:
        return scores_from_json(entries)
    except ValueError as error:
        msg = f"{error}; make the quiz again."
        raise QuizError(msg) from error


def _case(document: Mapping[str, Any]) -> QuizCase:
    case_id, known, patch = document["id"], document["known"], document["patch"]
    where = f"case {case_id}"
    hu = unpack_array(patch["hu"], most=MAX_VOXELS, where=f"{where}, patch")
    return QuizCase(
        case_id=case_id,
        volume=CTVolume(hu, np.array(patch["ijkToRAS"]), name=case_id),
        box=box_from_json(document["box"], name=case_id),
        known=Diagnosis(
            known["label"], known["labelSource"], known["organ"], known["attributes"], known.get("feedback", "")
        ),
        prediction=_prediction(document["answer"], document["similar"], where),
    )


def _prediction(document: Mapping[str, Any], similar: Sequence[Mapping[str, Any]], where: str) -> ModelPrediction:
    heat = document["heatMap"]
    return ModelPrediction(
        label=document["label"],
        probabilities=document["probabilities"],
        reliability=Reliability.from_json(document["reliability"]),
        warnings=tuple(document["warnings"]),
        heat_map=None if heat is None else _heat_map(heat, where),
        similar=tuple(_neighbour(one, where) for one in similar),
        scores=document.get("scores", {}),
        sentence=document.get("sentence", ""),
    )


def _heat_map(document: Mapping[str, Any], where: str) -> HeatMap:
    values = unpack_array(document["values"], most=MAX_VOXELS, where=f"{where}, heat map")
    array = values.astype(np.float32) / np.float32(255)
    return HeatMap(array, np.array(document["ijkToRAS"]), document["peak"], document["className"])


def _neighbour(document: Mapping[str, Any], where: str) -> QuizNeighbour:
    thumbnails = {
        plane: unpack_array(thumbnail, most=MAX_PIXELS, where=f"{where}, picture of {document['caseId']}")
        for plane, thumbnail in document["pictures"].items()
    }
    return QuizNeighbour(
        case_id=document["caseId"],
        label=document["label"],
        similarity=document["similarity"],
        label_source=document["labelSource"],
        organ=document["organ"],
        attributes=document["attributes"],
        thumbnails=thumbnails,
    )


def _looks_like_a_quiz(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return f'"format": "{FORMAT}"' in file.read(200)
    except (OSError, UnicodeDecodeError):
        return False
