"""A grey picture as a PNG inside a data URI, written with the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np


def png_data_uri(grey: np.ndarray) -> str:
    """``grey``: uint8 (height, width). PNG, second edition (ISO/IEC 15948): 8-bit greyscale, every row unfiltered."""
    height, width = grey.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with the number of its filter, 0
    rows[:, 1:] = grey
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
