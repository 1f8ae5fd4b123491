"""What goes into a runner and what comes out of it, and how both cross the border of a process.

Knows no torch, so that an interface can import it at once. Requests and answers travel as frames, field by field: what is
not named here does not cross the process border, and nothing that arrives is ever executed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import RawIOBase
from itertools import chain, repeat
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from LesionLib import errors
from LesionLib.errors import InputWarning, LesionLensError, WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.results import RGB, LesionResult, RunInfo
from LesionLib.metric import COSINE
from LesionLib.model.scores import ScoreSpec
from LesionLib.sampling.diameters import Diameters
from LesionLib.sampling.statistics import LesionStatistics
from LesionLib.uncertainty.reliability import Reliability

if TYPE_CHECKING:
    from LesionLib.sampling.inputs import Spec


Device = str  # "auto", "cpu", "cuda", or one of several GPUs: "cuda:1"
PrecisionChoice = Literal["auto", "float32"]
AcceleratorChoice = Literal["auto", "off"]
MapChoice = Literal["grad_cam", "occlusion", "none"]
MAP_CHOICES: tuple[MapChoice, ...] = ("grad_cam", "occlusion", "none")
Progress = Callable[[int, int, str], None]


class RunnerError(LesionLensError):
    """Inference could not be started, was refused, or its process came to an end."""


class RunnerCancelled(RunnerError):
    """The request was cancelled; there is no answer."""


@dataclass(frozen=True)
class RunOptions:
    """How to answer.

    ``class_name``: the class that the map explains (None: the one that the model chose, as a rule the one that is answered).
    ``box_jitter``: how many boxes drawn a little differently are asked too, for the spread of the answer. ``answer_anyway``:
    name the likeliest class, and explain it, also where the model abstains; without it such a lesion has no label.
    ``device``: "auto" is the GPU where there is one. ``precision``: "auto" measures once whether bfloat16 pays on this CPU,
    "float32" never does; None is the runner's own default ("auto" in a worker, "float32" in the process itself).
    ``accelerator``: "auto" has OpenVINO compute the costly part of a network on the CPU, where it is installed and has converted the
    model; "off" never does; None is the runner's own default, as for the precision.
    ``map_method``: how the map is made (None: as the model chose; "none": no map). Occlusion takes up to a minute a lesion.
    """

    class_name: str | None = None
    device: Device = "auto"
    precision: PrecisionChoice | None = None
    box_jitter: int = 0
    answer_anyway: bool = False
    map_method: MapChoice | None = None
    accelerator: AcceleratorChoice | None = None


@dataclass(frozen=True, eq=False)
class RunRequest:
    """The boxes of one CT for one model, given by its name or the path of its folder."""

    model: str
    volume: CTVolume
    boxes: Sequence[LesionBox]
    options: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True, eq=False)
class EmbeddingRequest:
    """One lesion of one CT for one model that may know no classes: where does it lie among others?

    Answered in float32 whatever the options say: a library's vectors were made so, and the last bits order close cases.
    ``similar_to``: the embedding (d,) of another lesion; the answer then shows what in this one makes it resemble that
    one. ``query_only``: the vector alone is wanted, no class probabilities.
    """

    model: str
    volume: CTVolume
    box: LesionBox
    options: RunOptions = field(default_factory=RunOptions)
    similar_to: np.ndarray | None = None
    query_only: bool = False


@dataclass(frozen=True)
class Precision:
    """What a network computes in, and why (milliseconds a batch, None where not measured); ``accelerator``: "" where torch does."""

    name: Literal["float32", "bfloat16"]
    reason: str
    float32_ms: float | None = None
    bfloat16_ms: float | None = None
    accelerator: str = ""


@dataclass(frozen=True, eq=False)
class RunResponse:
    """One result a box, in the order of the boxes, and what they share: enough to show them without the model."""

    results: list[LesionResult]
    info: RunInfo
    class_names: tuple[str, ...]
    class_colors: tuple[RGB, ...]
    precision: Precision


@dataclass(frozen=True, eq=False)
class ModelDescription:
    """A loaded model without its network: whoever keeps it keeps no memory of a GPU.

    ``sha256`` names the bundle. ``device``: how results name what it computes on. ``spec``: what of a CT it looks at.
    """

    name: str
    version: str
    sha256: str
    class_names: tuple[str, ...]
    class_colors: tuple[RGB, ...]
    spec: Spec
    manifest: Mapping[str, Any]
    folder: Path
    device: str
    scores: tuple[ScoreSpec, ...] = ()


@dataclass(frozen=True, eq=False)
class Embedding:
    """Where a model sees a lesion among others.

    ``vector``: L2-normalised float32, (d,). ``probabilities`` is empty where only the vector was asked for, and like
    ``class_colors`` for a model that only compares lesions. ``heat_map``: what in the lesion makes it resemble the one
    asked for; None where none was. ``warnings``: what is unusual about the lesion, and how it was computed, as on the CPU
    for want of GPU memory; with some of them probabilities and ``scores`` (empty for most models) are no answer, see
    `results.abstention_codes`. ``same_embedding_as``: the SHA-256 of earlier models with the same vectors. ``metric``: how the
    model's vectors are compared, see `LesionLib.metric`.
    """

    vector: np.ndarray
    probabilities: Mapping[str, float]
    class_colors: Mapping[str, RGB]
    heat_map: HeatMap | None
    info: RunInfo
    warnings: tuple[InputWarning, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    same_embedding_as: tuple[str, ...] = ()
    metric: str = COSINE


def describing_request(model: str, options: RunOptions | None = None) -> EmbeddingRequest:
    """Asks about a lesion made from a formula: the answer says who the model is and how long its vectors are."""
    from LesionLib.model.folder import golden_case

    return EmbeddingRequest(model, *golden_case(), options or RunOptions())


PARENT_VARIABLE = "LESIONLENS_PARENT"  # process id of the one who started a worker, for the worker to end with it
_MAGIC = b"LLW1"
_HEAD = struct.Struct("<4sI")
_MAX_HEADER = 16 * 1024**2
_MAX_ARRAY = 16 * 1024**3
_MAX_STRAY_BYTES = 1024**2


class WireError(Exception):
    """What arrived is not a frame."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One message between two processes: its JSON header without ``arrays``, and the raw arrays.

    A frame is four magic bytes, the length of the header (uint32, little endian), the header in UTF-8, then the bytes of
    each array in the order in which the header's ``arrays`` lists their types and shapes.
    """

    header: dict[str, Any]
    arrays: list[np.ndarray]


def write_frame(stream: RawIOBase, header: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Send one message. Raises `OSError` where nobody reads any more, `WireError` for arrays that are not numbers."""
    contents = [np.ascontiguousarray(array) for array in arrays]
    described = [{"dtype": array.dtype.str, "shape": array.shape} for array in contents]
    for description in described:
        plain_dtype(description["dtype"])
    text = json.dumps({**header, "arrays": described}).encode()
    _write_all(stream, memoryview(_HEAD.pack(_MAGIC, len(text)) + text))
    for array in contents:
        _write_all(stream, memoryview(array.reshape(-1).view(np.uint8)))


class ReusedMemory:
    """Memory for the first array of one frame at a time: it is valid until the next frame is read.

    The first touch of fresh memory costs several times the transfer itself, so a CT is read into the same place again.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of that shape and type, with whatever was there before in it."""
        size = prod(shape) * dtype.itemsize
        if size > self._bytes.size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype).reshape(shape)


def read_frame(stream: RawIOBase, allocate: Callable[..., np.ndarray] = np.empty) -> Frame:
    """Wait for one message. Raises `EOFError` where the other side is gone, `WireError` for what is not a frame.

    ``allocate(shape, dtype)`` gives the memory of the first array, as a rule the largest: the CT.
    """
    magic, length = _HEAD.unpack(_read_exactly(stream, _HEAD.size))
    if magic != _MAGIC or length > _MAX_HEADER:
        msg = f"not a frame: {magic!r}, {length} bytes of header"
        raise WireError(msg)
    return _rest_of_frame(stream, length, allocate)


def read_first_frame(stream: RawIOBase) -> Frame:
    """Like `read_frame`, but skips what was printed before the other side took hold of its output."""
    window = _read_exactly(stream, len(_MAGIC))
    skipped = 0
    while window != _MAGIC:
        window = window[1:] + _read_exactly(stream, 1)
        skipped += 1
        if skipped > _MAX_STRAY_BYTES:
            msg = f"no frame within the first {_MAX_STRAY_BYTES} bytes"
            raise WireError(msg)
    (length,) = struct.unpack("<I", _read_exactly(stream, 4))
    if length > _MAX_HEADER:
        msg = f"not a frame: {length} bytes of header"
        raise WireError(msg)
    return _rest_of_frame(stream, length)


def _rest_of_frame(stream: RawIOBase, length: int, allocate: Callable[..., np.ndarray] = np.empty) -> Frame:
    try:
        header = json.loads(_read_exactly(stream, length))
        described = [(plain_dtype(a["dtype"]), tuple(int(n) for n in a["shape"])) for a in header.pop("arrays")]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, SyntaxError, RecursionError) as error:
        msg = f"the header of a frame cannot be read: {error}"
        raise WireError(msg) from error
    ways = chain([allocate], repeat(np.empty))
    return Frame(header, [_read_array(stream, *one, way) for one, way in zip(described, ways, strict=False)])


def _read_array(
    stream: RawIOBase, dtype: np.dtype, shape: tuple[int, ...], allocate: Callable[..., np.ndarray]
) -> np.ndarray:
    if min(shape, default=1) < 0 or prod(shape) * dtype.itemsize > _MAX_ARRAY:
        msg = f"an array of shape {shape} is not accepted"
        raise WireError(msg)
    try:
        array = allocate(shape, dtype)
    except (ValueError, MemoryError, OverflowError) as error:
        msg = f"there is no room for an array of shape {shape}: {error}"
        raise WireError(msg) from error
    _read_into(stream, memoryview(array.reshape(-1).view(np.uint8)))
    return array


def plain_dtype(name: str) -> np.dtype:
    """The type of that name. Raises `WireError` for what is no plain number."""
    dtype = np.dtype(name)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        msg = f"arrays of type {name!r} are not sent; numbers of at most 8 bytes are"
        raise WireError(msg)
    return dtype


def _read_exactly(stream: RawIOBase, count: int) -> bytes:
    buffer = bytearray(count)
    _read_into(stream, memoryview(buffer))
    return bytes(buffer)


def _read_into(stream: RawIOBase, view: memoryview) -> None:
    while len(view):
        count = stream.readinto(view)
        if not count:
            msg = "the other side closed the pipe"
            raise EOFError(msg)
        view = view[count:]


def _write_all(stream: RawIOBase, view: memoryview) -> None:
    while len(view):
        view = view[stream.write(view) :]


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
    """The inverse of `question_to_frame`. Raises `VolumeError` or `BoxError` for what cannot be used.

    Raises `WireError` for what is no question.
    """
    try:
        return embedding_request_from_frame(frame) if frame.header["kind"] == "embed" else request_from_frame(frame)
    except errors.LesionLensError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration) as error:
        msg = f"the question cannot be read: {type(error).__name__}: {error}"
        raise WireError(msg) from error


def reply_to_frame(response: RunResponse | Embedding) -> Frame:
    """What was answered, of either kind."""
    return embedding_to_frame(response) if isinstance(response, Embedding) else response_to_frame(response)


def reply_from_frame(frame: Frame, request: RunRequest | EmbeddingRequest) -> RunResponse | Embedding:
    """The answer to ``request``. Raises `RunnerError` for what is no answer."""
    try:
        if isinstance(request, EmbeddingRequest):
            return embedding_from_frame(frame)
        return response_from_frame(frame, request)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        msg = f"the worker's answer cannot be read ({type(error).__name__}: {error}); please report this."
        raise RunnerError(msg) from error


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


def response_to_frame(response: RunResponse) -> Frame:
    """Header and the arrays of the results: of each its embedding, then its heat map where it has one."""
    header = {
        "results": [result_to_json(result) for result in response.results],
        "info": response.info.to_json(),
        "class_names": response.class_names,
        "class_colors": response.class_colors,
        "precision": asdict(response.precision),
    }
    return Frame(header, [array for result in response.results for array in _arrays_of(result)])


def response_from_frame(frame: Frame, request: RunRequest) -> RunResponse:
    """The answer to ``request``, whose own boxes are those of the results."""
    header, arrays = frame.header, iter(frame.arrays)
    pairs = zip(header["results"], request.boxes, strict=True)
    return RunResponse(
        results=[result_from_json(values, box, arrays) for values, box in pairs],
        info=RunInfo.from_json(header["info"]),
        class_names=tuple(header["class_names"]),
        class_colors=tuple(tuple(color) for color in header["class_colors"]),
        precision=Precision(**header["precision"]),
    )


def embedding_to_frame(embedding: Embedding) -> Frame:
    """The arrays are the vector, and the heat map where there is one."""
    heat_map = embedding.heat_map
    header = {
        "probabilities": dict(embedding.probabilities),
        **({"scores": dict(embedding.scores)} if embedding.scores else {}),
        "class_colors": dict(embedding.class_colors),
        "heat_map": _heat_map_to_json(heat_map),
        "info": embedding.info.to_json(),
        "warnings": _warnings_to_json(embedding.warnings),
        "same_embedding_as": embedding.same_embedding_as,
        **({} if embedding.metric == COSINE else {"metric": embedding.metric}),
    }
    return Frame(header, [embedding.vector] if heat_map is None else [embedding.vector, heat_map.array])


def embedding_from_frame(frame: Frame) -> Embedding:
    """The inverse of `embedding_to_frame`."""
    header, arrays = frame.header, iter(frame.arrays)
    return Embedding(
        vector=next(arrays),
        probabilities=header["probabilities"],
        scores=header.get("scores", {}),
        class_colors={name: tuple(color) for name, color in header["class_colors"].items()},
        heat_map=_heat_map_from_json(header["heat_map"], arrays),
        info=RunInfo.from_json(header["info"]),
        warnings=_warnings_from_json(header["warnings"]),
        same_embedding_as=tuple(header["same_embedding_as"]),
        metric=header.get("metric", COSINE),
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
        "slicesAtK": None if volume.slicesAtK is None else np.asarray(volume.slicesAtK, dtype=float).tolist(),
        "missingSlices": [list(pair) for pair in volume.missingSlices],
    }


def _volume_from_json(values: dict[str, Any], arrays: Iterator[np.ndarray]) -> CTVolume:
    warnings = _warnings_from_json(values["warnings"])
    at = values["slicesAtK"]
    return CTVolume(
        next(arrays),
        np.array(values["ijkToRAS"]),
        values["name"],
        warnings,
        slicesAtK=None if at is None else np.array(at, dtype=float),
        missingSlices=tuple((start, end) for start, end in values["missingSlices"]),
    )


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
        **({"scores": result.scores, "longest_mm": result.longest_mm} if result.scores else {}),
        "warnings": _warnings_to_json(result.warnings),
        "reliability": result.reliability.to_json(),
        "seen": [box_to_json(box) for box in result.model_input_boxes],
        "statistics": None if result.statistics is None else asdict(result.statistics),
        "heat_map": _heat_map_to_json(result.heat_map),
    }


def _heat_map_to_json(heat_map: HeatMap | None) -> dict[str, Any] | None:
    if heat_map is None:
        return None
    values = {"ijkToRAS": heat_map.ijkToRAS.tolist(), "peak": heat_map.peak, "class_name": heat_map.class_name}
    return values if heat_map.method == "grad_cam" else {**values, "method": heat_map.method}


def _heat_map_from_json(values: dict[str, Any] | None, arrays: Iterator[np.ndarray]) -> HeatMap | None:
    if values is None:
        return None
    return HeatMap(
        next(arrays),
        np.array(values["ijkToRAS"]),
        values["peak"],
        values["class_name"],
        values.get("method", "grad_cam"),
    )


def _statistics_from_json(values: dict[str, Any] | None) -> LesionStatistics | None:
    if values is None:
        return None
    known = {**values, "edges_mm": tuple(values["edges_mm"])}
    if known.get("diameters") is not None:
        ends = {name: tuple(map(tuple, known["diameters"][name])) for name in ("ends", "perpendicular_ends")}
        known["diameters"] = Diameters(**{**known["diameters"], **ends})
    return LesionStatistics(**known)


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
        scores={name: float(value) for name, value in values.get("scores", {}).items()},
        longest_mm=values.get("longest_mm"),
        embedding=embedding,
        heat_map=heat_map,
        warnings=_warnings_from_json(values["warnings"]),
        reliability=Reliability.from_json(values["reliability"]),
        model_input_boxes=tuple(box_from_json(box, iter(())) for box in values["seen"]),
        statistics=_statistics_from_json(values["statistics"]),
    )
