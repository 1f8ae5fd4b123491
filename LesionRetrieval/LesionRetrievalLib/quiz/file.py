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
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.description import score_rows
from LesionLib.io.boxes import box_from_json, box_to_json
from LesionLib.model.scores import ScoreSpec, scores_from_json
from LesionLib.uncertainty.reliability import Reliability

from LesionRetrievalLib.library.arrays import PackedArrayError, array_bytes, packed, unpacked
from LesionRetrievalLib.quiz.model import (
    FORMAT,
    KNOWN_SCHEMA,
    LEARNER_SCHEMA,
    MAX_PIXELS,
    MAX_VOXELS,
    NOTICE,
    PREDICTION_SCHEMA,
    QUIZ_SCHEMA,
    SCHEMA_VERSION,
    Diagnosis,
    ModelPrediction,
    Quiz,
    QuizCase,
    QuizClass,
    QuizError,
    QuizNeighbour,
    confidence_levels,
    require_sound,
)
from LesionRetrievalLib.quiz.questions import Question, Teaching
from LesionRetrievalLib.quiz.schema import checked_json
from LesionRetrievalLib.quiz.sealing import (
    LEARNER_FORMAT,
    LEARNER_VERSION,
    SealedCase,
    reveal_secret,
    sealed_part,
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
    """The quiz's fingerprint: its content, whichever way it was packed. A learner's answers belong to it.

    Of a quiz for learners: that of the teacher's, which the answers to both belong to.
    """
    if quiz.sealed_from:
        return quiz.sealed_from
    text = json.dumps(_document(quiz, digest_array), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save_quiz(quiz: Quiz, path: str | Path, *, overwrite: bool = False) -> None:
    """Write the quiz to ``path``; the file appears when it is whole. Raises `QuizError`."""
    _save(_document(quiz, pack_array), QUIZ_SCHEMA, Path(path), overwrite=overwrite)


def save_learner_quiz(quiz: Quiz, path: str | Path, *, overwrite: bool = False) -> None:
    """Write the quiz for learners to ``path``: the same, its answers sealed. Raises `QuizError`."""
    _save(learner_document(quiz), LEARNER_SCHEMA, Path(path), overwrite=overwrite)


def _save(document: Mapping[str, Any], schema: dict[str, Any], path: Path, *, overwrite: bool) -> None:
    require_free_path(path, overwrite=overwrite)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    checked_json(text, schema, where="the quiz")
    write_for_a_class(path, text)


def write_for_a_class(path: Path, text: str) -> None:
    """Write what a class opens; the file appears when it is whole. Raises `QuizError`."""
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
    require_replaceable(path, _looks_like_a_quiz, overwrite=overwrite, whole="the quiz", kind="a quiz")


def require_replaceable(
    path: Path, looks_right: Callable[[Path], bool], *, overwrite: bool, whole: str, kind: str
) -> None:
    """Refuse a path that is taken: without ``overwrite`` of ``whole``, and by what is not of this ``kind`` (`QuizError`)."""
    if os.path.exists(path) and not overwrite:
        msg = f"{path} exists; give another name, or --overwrite to replace {whole}."
        raise QuizError(msg)
    if os.path.exists(path) and not looks_right(path):
        msg = f"{path} is not {kind}; it is not overwritten. Give another name."
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
    is_sealed = f'"{LEARNER_FORMAT}"' in text[:200]
    document = checked_json(text, LEARNER_SCHEMA if is_sealed else QUIZ_SCHEMA, where=path.name)
    try:
        return _from_document(document)
    except LesionLensError as error:
        msg = f"{path.name}: {error}"
        raise QuizError(msg) from error


def _document(quiz: Quiz, pack: Pack) -> dict[str, Any]:
    require_unsealed(quiz)
    return {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        **_common_document(quiz),
        "cases": [_case_document(case, pack) for case in quiz.cases],
    }


def require_unsealed(quiz: Quiz) -> None:
    """Refuse a quiz for learners where the teacher's is needed (`QuizError`)."""
    if quiz.sealed_from:
        msg = f"The quiz {quiz.title!r} is the one for learners, its answers sealed; give the teacher's quiz."
        raise QuizError(msg)


def learner_document(quiz: Quiz, *, truth: bool = True, fingerprint: str = "") -> dict[str, Any]:
    """The quiz for learners as JSON, see `sealing`. ``truth``: whether it is in there, sealed, or stays with the teacher.

    ``fingerprint``: of the teacher's quiz, where ``quiz`` is that with less CT around the lesions.
    """
    require_unsealed(quiz)
    sha256 = fingerprint or quiz_sha256(quiz)
    return {
        "format": LEARNER_FORMAT,
        "version": LEARNER_VERSION,
        "quiz": sha256,
        **_common_document(quiz),
        "confidence": confidence_levels(len(quiz.classes)),
        "cases": [_sealed_document(case, quiz, sha256, truth=truth) for case in quiz.cases],
    }


def _sealed_document(case: QuizCase, quiz: Quiz, sha256: str, *, truth: bool) -> dict[str, Any]:
    whole = _case_document(case, pack_array)
    # Where the learner has to find the lesion, the box is part of what is told later.
    hidden = {"box": whole["box"]} if quiz.boxes == "placed" else {}
    content = {"answer": whole["answer"], "similar": whole["similar"], "shown": _shown(case, quiz), **hidden}
    secret, names = reveal_secret(sha256, case.case_id), quiz.class_names
    model, key = sealed_part(content, secret=secret, labels=names, context=f"{case.case_id} model")
    sealed = {"id": case.case_id, "patch": whole["patch"], "model": model}
    if not hidden:
        sealed["box"] = whole["box"]
    if truth:
        sealed["truth"], _ = sealed_part(whole["known"], secret=key, labels=names, context=f"{case.case_id} truth")
    return sealed


def _shown(case: QuizCase, quiz: Quiz) -> dict[str, Any]:
    """What a panel makes of the answer, in words: a page has only these."""
    answer = case.prediction
    rows = score_rows(quiz.scores, answer.scores, answer.reliability.spread) if answer.label else ()
    return {
        "messages": list(answer.reliability.messages(quiz.class_names)) if answer.label else [],
        "notes": [row.spec.note for row in rows if row.spec.note],
        "scores": [[row.spec.name, row.dots_text, f"{row.level_text} ({row.value:.1f})"] for row in rows],
    }


def _common_document(quiz: Quiz) -> dict[str, Any]:
    return {
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
        **({"scores": [spec.to_json() for spec in quiz.scores]} if quiz.scores else {}),
        **({"questions": [question.to_json() for question in quiz.questions]} if quiz.questions else {}),
        **({"order": quiz.order} if quiz.order != "random" else {}),
        **({"repeat": True} if quiz.repeat else {}),
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
            **known.teaching.to_json(),
            **({"answers": dict(known.answers)} if known.answers else {}),
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
    sealed = document["format"] == LEARNER_FORMAT
    return Quiz(
        title=document["title"],
        instructions=document["instructions"],
        boxes=document["boxes"],
        seed=document["seed"],
        window_hu=tuple(document["windowHU"]),
        model=tuple(document["model"][key] for key in ("name", "version", "sha256")),
        classes=tuple(QuizClass(c["name"], c["description"], tuple(c["colorRGB"])) for c in document["classes"]),
        cases=tuple(_sealed_case(case, document) if sealed else _case(case) for case in document["cases"]),
        sealed_from=document["quiz"] if sealed else "",
        scores=_scales(document.get("scores", ())),
        questions=tuple(Question.from_json(one) for one in document.get("questions", ())),
        order=document.get("order", "random"),
        repeat=document.get("repeat", False),
    )


def _scales(entries: Sequence[Mapping[str, Any]]) -> tuple[ScoreSpec, ...]:
    try:
        return scores_from_json(entries)
    except ValueError as error:
        msg = f"{error}; make the quiz again."
        raise QuizError(msg) from error


def _sealed_case(document: Mapping[str, Any], quiz: Mapping[str, Any]) -> SealedCase:
    case_id, where = document["id"], f"case {document['id']}"
    names, scales = tuple(one["name"] for one in quiz["classes"]), _scales(quiz.get("scores", ()))
    if "truth" not in document:
        msg = f"{where}: the truth is not in this quiz, which was made for a page; give one that `quiz seal` wrote."
        raise QuizError(msg)
    volume = _volume(document, where)
    box = box_from_json(document["box"], name=case_id) if "box" in document else None

    def read_prediction(content: Mapping[str, Any]) -> tuple[ModelPrediction, LesionBox | None]:
        checked = checked_json(json.dumps(content), PREDICTION_SCHEMA, where=where)
        hidden = box_from_json(checked["box"], name=case_id) if "box" in checked else box
        prediction = _prediction(checked["answer"], checked["similar"], where)
        label = prediction.label or names[0]
        require_sound(
            QuizCase(case_id, volume, hidden, Diagnosis(label, "sealed", "sealed"), prediction), names, scales
        )
        return prediction, hidden

    def read_known(content: Mapping[str, Any]) -> Diagnosis:
        return _diagnosis(checked_json(json.dumps(content), KNOWN_SCHEMA, where=where))

    return SealedCase(case_id, volume, quiz["quiz"], document, read_prediction, read_known, box)


def _volume(document: Mapping[str, Any], where: str) -> CTVolume:
    patch = document["patch"]
    hu = unpack_array(patch["hu"], most=MAX_VOXELS, where=f"{where}, patch")
    return CTVolume(hu, np.array(patch["ijkToRAS"]), name=document["id"])


def _case(document: Mapping[str, Any]) -> QuizCase:
    case_id, known = document["id"], document["known"]
    where = f"case {case_id}"
    return QuizCase(
        case_id=case_id,
        volume=_volume(document, where),
        box=box_from_json(document["box"], name=case_id),
        known=_diagnosis(known),
        prediction=_prediction(document["answer"], document["similar"], where),
    )


def _diagnosis(known: Mapping[str, Any]) -> Diagnosis:
    return Diagnosis(
        known["label"], known["labelSource"], known["organ"], known["attributes"], known.get("feedback", ""),
        Teaching.from_json(known), known.get("answers", {}),
    )  # fmt: skip


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
            start = file.read(200)
        return any(f'"format": "{name}"' in start for name in (FORMAT, LEARNER_FORMAT))
    except (OSError, UnicodeDecodeError):
        return False
