"""Frames between two processes: a JSON header and raw arrays. Nothing that arrives is ever executed.

A frame is four magic bytes, the length of the header (uint32, little endian), the header in UTF-8, then the bytes of
each array in the order in which the header's ``arrays`` lists their types and shapes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from itertools import chain, repeat
from math import prod
from typing import Any

import numpy as np

_MAGIC = b"LLW1"
_HEAD = struct.Struct("<4sI")
_LARGEST_HEADER = 16 * 1024**2
_LARGEST_ARRAY = 16 * 1024**3
_MOST_STRAY_BYTES = 1024**2


class WireError(Exception):
    """What arrived is not a frame."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One message: its header without ``arrays``, and the arrays."""

    header: dict[str, Any]
    arrays: list[np.ndarray]


def write_frame(stream: RawIOBase, header: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Send one message. Raises `OSError` where nobody reads any more, `WireError` for arrays that are not numbers."""
    contents = [np.ascontiguousarray(array) for array in arrays]
    described = [{"dtype": array.dtype.str, "shape": array.shape} for array in contents]
    for description in described:
        _checked_dtype(description["dtype"])
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
    if magic != _MAGIC or length > _LARGEST_HEADER:
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
        if skipped > _MOST_STRAY_BYTES:
            msg = f"no frame within the first {_MOST_STRAY_BYTES} bytes"
            raise WireError(msg)
    (length,) = struct.unpack("<I", _read_exactly(stream, 4))
    if length > _LARGEST_HEADER:
        msg = f"not a frame: {length} bytes of header"
        raise WireError(msg)
    return _rest_of_frame(stream, length)


def _rest_of_frame(stream: RawIOBase, length: int, allocate: Callable[..., np.ndarray] = np.empty) -> Frame:
    try:
        header = json.loads(_read_exactly(stream, length))
        described = [(_checked_dtype(a["dtype"]), tuple(int(n) for n in a["shape"])) for a in header.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"the header of a frame cannot be read: {error}"
        raise WireError(msg) from error
    ways = chain([allocate], repeat(np.empty))
    return Frame(header, [_read_array(stream, *one, way) for one, way in zip(described, ways, strict=False)])


def _read_array(
    stream: RawIOBase, dtype: np.dtype, shape: tuple[int, ...], allocate: Callable[..., np.ndarray]
) -> np.ndarray:
    if min(shape, default=1) < 0 or prod(shape) * dtype.itemsize > _LARGEST_ARRAY:
        msg = f"an array of shape {shape} is not accepted"
        raise WireError(msg)
    array = allocate(shape, dtype)
    _read_into(stream, memoryview(array.reshape(-1).view(np.uint8)))
    return array


def _checked_dtype(name: str) -> np.dtype:
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
