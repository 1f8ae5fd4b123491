"""Arrays as bytes on disk and back: little-endian C order, packed by zlib; what comes back is of the announced size."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

_MAX_SIDES = 16
_LEVEL = 3  # of the noise of a CT the usual 6 saves one byte in a hundred more, and takes four times as long


class PackedArrayError(ValueError):
    """Bytes that are not what was announced; whoever knows which file it is says so."""


def array_bytes(array: np.ndarray) -> bytes:
    """The values alone, little-endian, in C order: the same on every machine."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def array_from_bytes(content: bytes, *, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """The inverse of `array_bytes`, in this machine's byte order and writable. Raises `PackedArrayError`."""
    kind = np.dtype(dtype).newbyteorder("<")
    if not _is_shape(shape) or len(content) != math.prod(shape) * kind.itemsize:
        msg = f"{len(content)} bytes are no {dtype} array of {' x '.join(map(str, shape))}."
        raise PackedArrayError(msg)
    return np.frombuffer(content, kind).reshape(shape).astype(dtype)


def _is_shape(shape: Sequence[object]) -> bool:
    """Whether numpy would take it as it stands: two negative sides multiply to a length that may well be there."""
    return len(shape) <= _MAX_SIDES and all(isinstance(side, int) and side >= 0 for side in shape)


def packed(array: np.ndarray) -> bytes:
    """The values, packed."""
    return zlib.compress(array_bytes(array), _LEVEL)


def unpacked(content: bytes, *, dtype: str, shape: Sequence[int], most: int) -> np.ndarray:
    """The inverse of `packed`, of 1 to ``most`` values. Raises `PackedArrayError`.

    Never more than the announced bytes are unpacked: a few kilobytes can be made to unpack to any size.
    """
    count = math.prod(shape) if _is_shape(shape) else 0
    if not 0 < count <= most:
        msg = f"an array of {' x '.join(map(str, shape))} is larger than the {most} values that are allowed."
        raise PackedArrayError(msg)
    size = count * np.dtype(dtype).itemsize
    inflating = zlib.decompressobj()
    try:
        values = inflating.decompress(content, size + 1)
    except zlib.error as error:
        msg = "the packed values are damaged."
        raise PackedArrayError(msg) from error
    if not inflating.eof or inflating.unused_data or len(values) != size:
        msg = "the packed values are damaged or of another size than announced."
        raise PackedArrayError(msg)
    return array_from_bytes(values, dtype=dtype, shape=shape)
