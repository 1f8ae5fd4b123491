"""Arrays inside a JSON file: zlib and base64, unpacked only to the size that was announced and allowed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .packed_arrays import PackedArrayError, array_bytes, packed, unpacked
from .quiz_schema import QuizError

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
