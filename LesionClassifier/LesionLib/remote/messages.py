"""What travels between a `RemoteRunner` and a server: the part of a CT that a model looks at, and the proof that it arrived whole.

A CT is not sent as it is, but as the part around its boxes, with its place in the whole. The server puts it there again and
leaves the rest empty, so that every index, and with it every digit of the answer, is the one of the whole CT. Knows no torch.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from math import prod, sqrt
from typing import Any

import numpy as np

from LesionLib.errors import VolumeError, WarningName
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.input_checks import volume_warnings
from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    Frame,
    RunRequest,
    RunResponse,
    WireError,
    question_from_frame,
    question_to_frame,
    read_frame,
    write_frame,
)
from LesionLib.sampling.inputs import Reach

API_VERSION = "1"
VERSION_HEADER, API_HEADER, DIGEST_HEADER = "LesionLens-Version", "LesionLens-API", "Content-Digest"
FRAME_TYPE = "application/x-lesionlens-frame"
_BEYOND_MM, _BEYOND_VOXELS = 16.0, 3.0  # boxes drawn a little differently, and what is looked up around a lesion
_LONGER_MM = 8.0
_MAX_WHOLE = 2**30  # voxels


def digest_of(content: bytes) -> str:
    """The value of `DIGEST_HEADER` (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode('ascii')}:"


def bytes_of_frame(frame: Frame) -> bytes:
    """A frame as one message."""
    stream = io.BytesIO()
    write_frame(stream, frame.header, frame.arrays)
    return stream.getvalue()


def frame_of_bytes(content: bytes) -> Frame:
    """The inverse. Raises `WireError` for what is not one whole frame."""
    stream = io.BytesIO(content)
    try:
        frame = read_frame(stream)
    except EOFError as error:
        msg = "the message is cut short"
        raise WireError(msg) from error
    if stream.read(1):
        msg = "something stands behind the message"
        raise WireError(msg)
    return frame


def question_to_bytes(request: RunRequest | EmbeddingRequest, reach: Reach | None) -> bytes:
    """A request with the part of its CT that a model of this reach looks at; None: with the whole CT. Raises `VolumeError`."""
    frame = question_to_frame(request)
    boxes = [request.box] if isinstance(request, EmbeddingRequest) else request.boxes
    volume = request.volume
    if reach is not None:
        part = needed_part(volume, boxes, reach)
        within = {"start": [one.start for one in part], "shape": list(volume.array.shape)}
        header = {**frame.header, "volume": {**frame.header["volume"], "within": within}}
        frame = Frame(header, [volume.array[part], *frame.arrays[1:]])
    return bytes_of_frame(frame)


def question_from_bytes(content: bytes) -> RunRequest | EmbeddingRequest:
    """The request, its CT as large as it was. Raises `WireError`, `VolumeError` or `BoxError`."""
    frame = frame_of_bytes(content)
    values = frame.header.get("volume")
    within = values.pop("within", None) if isinstance(values, dict) else None
    if within is not None and frame.arrays:
        frame = Frame(frame.header, [_whole_again(frame.arrays[0], within), *frame.arrays[1:]])
    return question_from_frame(frame)


def needed_part(volume: CTVolume, boxes: Sequence[LesionBox], reach: Reach) -> tuple[slice, slice, slice]:
    """The indices (k, j, i) of all that a model of this reach can look at around the boxes: at least one voxel."""
    size = np.array(volume.sizeIJK)
    low, high = size - 1, np.zeros(3, int)
    ras_to_ijk = volume.rasToIJK
    for box in boxes:
        longest_mm = float(box.sizeMm.max()) + _LONGER_MM
        radius_mm = sqrt(3) / 2 * max(reach.edge_mm, longest_mm + 2 * reach.margin_mm)
        radius_mm += _BEYOND_MM + _BEYOND_VOXELS * float(volume.spacingMm.max())
        middle = transformed_points(ras_to_ijk, box.centerRAS)
        away = radius_mm * np.linalg.norm(ras_to_ijk[:3, :3], axis=1)
        low = np.minimum(low, np.floor(middle - away))
        high = np.maximum(high, np.ceil(middle + away))
    first = np.clip(low, 0, size - 1).astype(int)
    last = np.clip(high, first, size - 1).astype(int)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(first[::-1], last[::-1], strict=True))


def _whole_again(part: np.ndarray, within: Any) -> np.ndarray:
    """``part`` in its place among zeros, which take no memory until they are looked at."""
    try:
        start, shape = [int(n) for n in within["start"]], [int(n) for n in within["shape"]]
    except (TypeError, LookupError, ValueError) as error:
        msg = "where the part of the CT belongs cannot be read"
        raise WireError(msg) from error
    fits = len(start) == len(shape) == part.ndim == 3 and all(
        first >= 0 and first + length <= whole for first, length, whole in zip(start, part.shape, shape, strict=True)
    )
    if not fits or prod(shape) > _MAX_WHOLE:
        msg = f"a part of {part.shape} voxels at {start} does not lie in a CT of {shape}, or that is larger than is taken here."
        raise VolumeError(msg)
    whole = np.zeros(shape, part.dtype)
    whole[tuple(slice(first, first + length) for first, length in zip(start, part.shape, strict=True))] = part
    return whole


def with_warnings_of(volume: CTVolume, answer: RunResponse | Embedding) -> RunResponse | Embedding:
    """The answer with what is to be said of the whole CT, of which the server saw a part."""
    own = volume_warnings(volume)

    def warned(warnings: tuple) -> tuple:
        rest = (w for w in warnings if getattr(w, "name", None) is not WarningName.NOT_HU)
        return (*own, *(w for w in rest if w not in volume.warnings))

    if isinstance(answer, Embedding):
        return replace(answer, warnings=warned(answer.warnings))
    return replace(answer, results=[replace(result, warnings=warned(result.warnings)) for result in answer.results])
