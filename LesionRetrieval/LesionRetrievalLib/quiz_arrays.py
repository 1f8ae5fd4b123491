"""Arrays inside a JSON file: zlib and base64, unpacked only to the size that was announced and allowed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .quiz_schema import QuizError

Pack = Callable[[np.ndarray], dict[str, Any]]


def pack_array(array: np.ndarray) -> dict[str, Any]:
    """``array`` as ``{"dtype", "shape", "zlib"}``: little-endian C-order bytes, zlib, base64."""
    data = base64.b64encode(zlib.compress(_bytes(array), level=6)).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "zlib": data}


def digest_array(array: np.ndarray) -> dict[str, Any]:
    """The fingerprint of ``array`` in the place of its bytes: the same whichever zlib packed it."""
    return {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": hashlib.sha256(_bytes(array)).hexdigest()}


def unpack_array(packed: Mapping[str, Any], *, most: int, where: str) -> np.ndarray:
    """The array that `pack_array` packed, of at most ``most`` items. Raises `QuizError` naming ``where``.

    Never more than the announced bytes are unpacked, however much the packed ones would give.
    """
    dtype, shape = np.dtype(packed["dtype"]).newbyteorder("<"), tuple(packed["shape"])
    count = math.prod(shape)
    if not 0 < count <= most:
        msg = f"{where}: an array of {' x '.join(map(str, shape))} is larger than the {most} values that are allowed."
        raise QuizError(msg)
    size = count * dtype.itemsize
    try:
        decoder = zlib.decompressobj()
        content = decoder.decompress(base64.b64decode(packed["zlib"], validate=True), size + 1)
        whole = decoder.eof and not decoder.unused_data
    except (binascii.Error, zlib.error, ValueError):
        content, whole = b"", False
    if len(content) != size or not whole:
        msg = f"{where}: the packed values are damaged or of another size than announced; get the quiz again."
        raise QuizError(msg)
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
