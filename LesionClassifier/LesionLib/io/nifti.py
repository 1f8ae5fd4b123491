"""A volume as a NIfTI file, for viewers in a browser: written by hand, for its affine may be sheared (a tilted gantry)."""

from __future__ import annotations

import struct

import numpy as np

_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "i1": 256, "u2": 512, "u4": 768}
_HEADER_BYTES, _OFFSET = 348, 352
_SCANNER, _MM = 1, 2


def nifti_parts(array: np.ndarray, ijkToRAS: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The bytes before the voxels, and the voxels as they follow (contiguous, little endian).

    ``array``: (k, j, i), whole numbers or real ones; those of 8 bytes become float32. ``ijkToRAS``: 4x4, mm; NIfTI is RAS, too.
    """
    kind = np.dtype(array.dtype).str[1:]
    voxels = np.ascontiguousarray(array, dtype="<" + (kind if kind in _CODES else "f4"))
    code, bits = _CODES[voxels.dtype.str[1:]], 8 * voxels.dtype.itemsize
    spacing = np.linalg.norm(ijkToRAS[:3, :3], axis=0)
    header = bytearray(_OFFSET)
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, *array.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1.0, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, _OFFSET, 1.0, 0.0)  # where the voxels begin, slope, intercept
    header[123] = _MM
    struct.pack_into("<2h", header, 252, 0, _SCANNER)  # no qform: it cannot hold a shear
    struct.pack_into("<12f", header, 280, *np.asarray(ijkToRAS, dtype=float)[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header), voxels


def nifti_bytes(array: np.ndarray, ijkToRAS: np.ndarray) -> bytes:
    """The same as one file."""
    header, voxels = nifti_parts(array, ijkToRAS)
    return header + voxels.tobytes()
