"""Requests and answers as frames, field by field: what is not named here does not cross the process border."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from . import errors
from .geometry import CTVolume, LesionBox
from .heat_map import HeatMap
from .input_warning import InputWarning, WarningName
from .lesion_statistics import LesionStatistics
from .reliability import Reliability
from .results import LesionResult, RunInfo
from .runner_types import Embedding, EmbeddingRequest, Precision, RunAnswer, RunnerError, RunOptions, RunRequest
from .runner_wire import Frame

_ERRORS = {
    error.__name__: error
    for error in (
        errors.LesionLensError,
        errors.VolumeError,
        errors.BoxError,
        errors.BundleError,
        errors.CaseLibraryError,
        errors.OutputError,
        RunnerError,
    )
}


def question_to_frame(request: RunRequest | EmbeddingRequest) -> Frame:
    """A request of either kind, which its header's ``kind`` names. Raises `VolumeError`."""
    if isinstance(request, EmbeddingRequest):
        frame, kind = embedding_request_to_frame(request), "embed"
    else:
        frame, kind = request_to_frame(request), "run"
    return Frame({**frame.header, "kind": kind}, frame.arrays)


def question_from_frame(frame: Frame) -> RunRequest | EmbeddingRequest:
    """The inverse of `question_to_frame`. Raises `VolumeError` or `BoxError` for what cannot be used."""
    return embedding_request_from_frame(frame) if frame.header["kind"] == "embed" else request_from_frame(frame)


def reply_to_frame(answer: RunAnswer | Embedding) -> Frame:
    """What was answered, of either kind."""
    return embedding_to_frame(answer) if isinstance(answer, Embedding) else answer_to_frame(answer)


def reply_from_frame(frame: Frame, request: RunRequest | EmbeddingRequest) -> RunAnswer | Embedding:
    """The answer to ``request``."""
    return embedding_from_frame(frame) if isinstance(request, EmbeddingRequest) else answer_from_frame(frame, request)


def request_to_frame(request: RunRequest) -> Frame:
    """Header, the CT's array and those of the segments. Raises `VolumeError` for voxels that are not plain numbers."""
    return _question(request.model, request.volume, request.boxes, request.options)


def _question(model: str, volume: CTVolume, boxes: Sequence[LesionBox], options: RunOptions) -> Frame:
    if volume.array.dtype.kind not in "biuf" or volume.array.dtype.itemsize > 8:
        msg = f"{volume.name}: voxels of type {volume.array.dtype} cannot be used; convert them to int16 or float32."
        raise errors.VolumeError(msg)
    header = {
        "model": model,
        "volume": _volume_to_json(volume),
        "boxes": [box_to_json(box) for box in boxes],
        "options": asdict(options),
    }
    segments = [box.segment.array for box in boxes if box.segment is not None]
    return Frame(header, [volume.array, *segments])


def request_from_frame(frame: Frame) -> RunRequest:
    """The request. Raises `VolumeError` or `BoxError` for what cannot be used."""
    header, arrays = frame.header, iter(frame.arrays)
    volume = _volume_from_json(header["volume"], arrays)
    boxes = [box_from_json(box, arrays) for box in header["boxes"]]
    return RunRequest(header["model"], volume, boxes, RunOptions(**header["options"]))


def embedding_request_to_frame(request: EmbeddingRequest) -> Frame:
    """As `request_to_frame`; the last array is the other lesion's embedding, where there is one."""
    frame = _question(request.model, request.volume, [request.box], request.options)
    others = [] if request.similar_to is None else [np.asarray(request.similar_to, dtype=np.float32)]
    header = {**frame.header, "query_only": request.query_only, "compared": bool(others)}
    return Frame(header, [*frame.arrays, *others])


def embedding_request_from_frame(frame: Frame) -> EmbeddingRequest:
    """The inverse. Raises `VolumeError` or `BoxError` for what cannot be used."""
    plain = request_from_frame(frame)
    return EmbeddingRequest(
        model=plain.model,
        volume=plain.volume,
        box=plain.boxes[0],
        options=plain.options,
        similar_to=frame.arrays[-1] if frame.header["compared"] else None,
        query_only=frame.header["query_only"],
    )


def answer_to_frame(answer: RunAnswer) -> Frame:
    """Header and the arrays of the results: of each its embedding, then its heat map where it has one."""
    header = {
        "results": [result_to_json(result) for result in answer.results],
        "info": asdict(answer.info),
        "class_names": answer.class_names,
        "class_colors": answer.class_colors,
        "precision": asdict(answer.precision),
    }
    return Frame(header, [array for result in answer.results for array in _arrays_of(result)])


def answer_from_frame(frame: Frame, request: RunRequest) -> RunAnswer:
    """The answer to ``request``, whose own boxes are those of the results."""
    header, arrays = frame.header, iter(frame.arrays)
    pairs = zip(header["results"], request.boxes, strict=True)
    return RunAnswer(
        results=[result_from_json(values, box, arrays) for values, box in pairs],
        info=RunInfo(**header["info"]),
        class_names=tuple(header["class_names"]),
        class_colors=tuple(tuple(color) for color in header["class_colors"]),
        precision=Precision(**header["precision"]),
    )


def embedding_to_frame(embedding: Embedding) -> Frame:
    """The arrays are the vector, and the heat map where there is one."""
    heat_map = embedding.heat_map
    header = {
        "probabilities": dict(embedding.probabilities),
        "class_colors": dict(embedding.class_colors),
        "heat_map": _heat_map_to_json(heat_map),
        "info": asdict(embedding.info),
        "warnings": _warnings_to_json(embedding.warnings),
    }
    return Frame(header, [embedding.vector] if heat_map is None else [embedding.vector, heat_map.array])


def embedding_from_frame(frame: Frame) -> Embedding:
    """The inverse of `embedding_to_frame`."""
    header, arrays = frame.header, iter(frame.arrays)
    return Embedding(
        vector=next(arrays),
        probabilities=header["probabilities"],
        class_colors={name: tuple(color) for name, color in header["class_colors"].items()},
        heat_map=_heat_map_from_json(header["heat_map"], arrays),
        info=RunInfo(**header["info"]),
        warnings=_warnings_from_json(header["warnings"]),
    )


def error_to_json(error: errors.LesionLensError) -> dict[str, str]:
    """Kind and text of an error that a user can mend."""
    known = next(kind for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    return {"error": known.__name__, "message": str(error)}


def error_from_json(values: dict[str, str]) -> errors.LesionLensError:
    """The error as it was raised on the other side."""
    return _ERRORS.get(values["error"], RunnerError)(values["message"])


def _volume_to_json(volume: CTVolume) -> dict[str, Any]:
    return {
        "ijkToRAS": volume.ijkToRAS.tolist(),
        "name": volume.name,
        "warnings": _warnings_to_json(volume.warnings),
    }


def _volume_from_json(values: dict[str, Any], arrays: Iterator[np.ndarray]) -> CTVolume:
    warnings = _warnings_from_json(values["warnings"])
    return CTVolume(next(arrays), np.array(values["ijkToRAS"]), values["name"], warnings)


def box_to_json(box: LesionBox) -> dict[str, Any]:
    """All but the array of its segment."""
    return {
        "segment": None if box.segment is None else _volume_to_json(box.segment),
        "centerRAS": box.centerRAS.tolist(),
        "sizeMm": box.sizeMm.tolist(),
        "axesRAS": box.axesRAS.tolist(),
        "name": box.name,
    }


def box_from_json(values: dict[str, Any], arrays: Iterator[np.ndarray]) -> LesionBox:
    """The inverse of `box_to_json`; ``arrays`` gives that of the segment, where there is one."""
    segment = None if values["segment"] is None else _volume_from_json(values["segment"], arrays)
    return LesionBox(values["centerRAS"], values["sizeMm"], np.array(values["axesRAS"]), values["name"], segment)


def _warnings_to_json(warnings: tuple[InputWarning, ...]) -> list[list[str | None]]:
    return [[getattr(warning, "name", None), str(warning)] for warning in warnings]


def _warnings_from_json(pairs: list[list[str | None]]) -> tuple[InputWarning, ...]:
    return tuple(text if name is None else InputWarning(WarningName(name), text) for name, text in pairs)


def result_to_json(result: LesionResult) -> dict[str, Any]:
    """All but its box, and its arrays: the embedding, then the heat map where there is one."""
    return {
        "name": result.name,
        "label": result.label,
        "probabilities": result.probabilities,
        "warnings": _warnings_to_json(result.warnings),
        "reliability": result.reliability.to_json(),
        "seen": [box_to_json(box) for box in result.seen],
        "statistics": None if result.statistics is None else asdict(result.statistics),
        "heat_map": _heat_map_to_json(result.heat_map),
    }


def _heat_map_to_json(heat_map: HeatMap | None) -> dict[str, Any] | None:
    if heat_map is None:
        return None
    return {"ijkToRAS": heat_map.ijkToRAS.tolist(), "peak": heat_map.peak, "class_name": heat_map.class_name}


def _heat_map_from_json(values: dict[str, Any] | None, arrays: Iterator[np.ndarray]) -> HeatMap | None:
    if values is None:
        return None
    return HeatMap(next(arrays), np.array(values["ijkToRAS"]), values["peak"], values["class_name"])


def _statistics_from_json(values: dict[str, Any] | None) -> LesionStatistics | None:
    return None if values is None else LesionStatistics(**{**values, "edges_mm": tuple(values["edges_mm"])})


def _arrays_of(result: LesionResult) -> list[np.ndarray]:
    return [result.embedding] if result.heat_map is None else [result.embedding, result.heat_map.array]


def result_from_json(values: dict[str, Any], box: LesionBox, arrays: Iterator[np.ndarray]) -> LesionResult:
    """The inverse of `result_to_json`."""
    embedding, heat_map = next(arrays), _heat_map_from_json(values["heat_map"], arrays)
    return LesionResult(
        name=values["name"],
        box=box,
        label=values["label"],
        probabilities=values["probabilities"],
        embedding=embedding,
        heat_map=heat_map,
        warnings=_warnings_from_json(values["warnings"]),
        reliability=Reliability.from_json(values["reliability"]),
        seen=tuple(box_from_json(box, iter(())) for box in values["seen"]),
        statistics=_statistics_from_json(values["statistics"]),
    )
