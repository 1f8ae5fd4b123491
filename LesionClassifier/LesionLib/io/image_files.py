"""NIfTI, NRRD and MetaImage files as arrays with their place: the header is read and checked before any voxel is.

All of it is Python and numpy: a damaged or malicious file ends in one line (`VolumeError`), never in the process that a native
reader takes down with it, and a size that the file cannot hold is refused before memory is asked for.
"""

from __future__ import annotations

import bz2
import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from LesionLib.errors import VolumeError
from LesionLib.io.image_headers import (
    ImageHeader,
    meta_image_header,
    nifti_header,
    nrrd_header,
    readable_name,
    shown_path,
    unreadable,
)

MAX_VOXELS = 2**31  # 4 GB of 16-bit voxels: no CT is larger
_MAX_PACKING = 1100  # no deflated byte becomes more than 1032
_MAX_HEADER = 2**22


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The voxels of a file: shape (k, j, i) or (k, j, i, component), values rescaled where the header says so."""

    header: ImageHeader
    array: np.ndarray


def looks_like_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, or begins like one without the 128 bytes in front."""
    try:
        with path.open("rb") as handle:
            first = handle.read(132)
    except (OSError, ValueError):  # missing, or a name that no file can have
        return False
    return first[128:] == b"DICM" or _begins_with_an_element(first)


def _begins_with_an_element(first: bytes) -> bool:
    """The elements 0002,0000 or 0008,0000 to 0008,0018 are the first of an image."""
    group, element = int.from_bytes(first[:2], "little"), int.from_bytes(first[2:4], "little")
    return len(first) >= 16 and ((group == 2 and element <= 2) or (group == 8 and element <= 0x18))


def read_header(path: Path, *, nifti_transform: str = "sform") -> ImageHeader:
    """The header of a NIfTI, NRRD or MetaImage file, by its content, whatever its ending.

    ``nifti_transform``: "sform" or "qform", which of a NIfTI's two places counts. Raises `VolumeError` for what is none of
    these, for a header that contradicts itself, and for sizes that the file cannot hold.
    """
    try:
        first = _beginning(path)
        header = _parsed(path, first, nifti_transform)
    except OSError as error:
        raise unreadable(path, error.strerror or "damaged") from error
    except (EOFError, zlib.error) as error:
        raise unreadable(path, "damaged") from error
    except (struct.error, ValueError, KeyError, IndexError, OverflowError) as error:
        if isinstance(error, VolumeError):
            raise
        raise unreadable(path, f"its header is damaged: {_one_line(error)}") from error
    _require_possible(header)
    return header


def read_voxels(header: ImageHeader) -> ImageFile:
    """The voxels that belong to a header. Raises `VolumeError` for a file that is cut short or damaged."""
    name = shown_path(header.path)
    try:
        raw = _unpacked(header)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        msg = f"{name} is cut short or damaged; copy it again."
        raise VolumeError(msg) from error
    except MemoryError as error:
        msg = f"{name} takes {header.voxel_bytes / 1e9:.1f} GB of memory, more than there is; crop it first."
        raise VolumeError(msg) from error
    axes = list(header.size)
    if header.components > 1:
        axes.insert(header.component_axis, header.components)
    array = raw.view(header.dtype).reshape(axes[::-1])
    if header.components > 1:
        array = np.moveaxis(array, len(axes) - 1 - header.component_axis, -1)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return ImageFile(header, _rescaled(array, header.slope, header.intercept))


def read_image_file(path: Path, *, nifti_transform: str = "sform") -> ImageFile:
    """Header and voxels of a 3-D file. Raises `VolumeError`."""
    header = read_header(path, nifti_transform=nifti_transform)
    require_3d(header)
    return read_voxels(header)


def require_3d(header: ImageHeader) -> None:
    """Refuse flat images and series of volumes (`VolumeError`)."""
    if header.ijkToRAS is None:
        msg = (
            f"{readable_name(header.path)}: the image has {len(header.size)} dimensions; a CT volume has 3. "
            "Give one 3-D volume."
        )
        raise VolumeError(msg)


def _rescaled(array: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0 or (slope == 1 and intercept == 0):
        return array
    is_whole = array.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer() and array.dtype.itemsize <= 4
    if is_whole and abs(slope) * 2.0 ** (8 * array.dtype.itemsize) + abs(intercept) < 2**62:
        ends = [int(array.min()) * int(slope), int(array.max()) * int(slope)] if array.size else [0, 0]
        reached = [*ends, *(end + int(intercept) for end in ends), int(slope), int(intercept)]
        found = array.astype(_holding(min(reached), max(reached)), copy=False)
        found *= int(slope)  # in place: of a long CT a second copy does not fit everywhere
        found += int(intercept)
        return found
    kind = np.float32 if array.dtype.itemsize <= 2 else np.float64
    return array.astype(kind) * kind(slope) + kind(intercept)


def _holding(low: int, high: int) -> type[np.integer]:
    """The smallest of the signed integers that hold both."""
    kinds = (np.int16, np.int32, np.int64)
    return next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


def smallest_integers(array: np.ndarray) -> np.ndarray:
    """Whole numbers in 16 bits where that loses nothing, else in 32, else as double: viewers have no 64-bit voxels."""
    if array.dtype.kind not in "iu" or array.size == 0 or array.dtype in (np.int16, np.uint8, np.int8):
        return array
    low, high = int(array.min()), int(array.max())
    for kind in (np.int16, np.int32):
        if low >= np.iinfo(kind).min and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array.astype(np.float64)


# --- which format, and whether it can be true


def _beginning(path: Path) -> bytes:
    """The first bytes, unpacked where the whole file is packed."""
    with path.open("rb") as handle:
        first = handle.read(_MAX_HEADER)
    if not first.startswith(b"\x1f\x8b"):
        return first
    with gzip.open(path) as handle:
        return handle.read(1024)


def _parsed(path: Path, first: bytes, nifti_transform: str) -> ImageHeader:
    if first[:4] == b"NRRD":
        return nrrd_header(path, first)
    if len(first) >= 348 and {first[:4]} & {struct.pack(e + "i", n) for e in "<>" for n in (348, 540)}:
        return nifti_header(path, first, nifti_transform)
    if path.name.lower().endswith(".img") and os.path.isfile(path.with_suffix(".hdr")):
        return nifti_header(path.with_suffix(".hdr"), _beginning(path.with_suffix(".hdr")), nifti_transform)
    if b"NDims" in first[:4096] and b"=" in first[:4096]:
        return meta_image_header(path, first)
    raise unreadable(path)


def _require_possible(header: ImageHeader) -> None:
    """The sizes of a header against the file itself: nothing is allocated for what cannot be there."""
    name = readable_name(header.path)
    size = " x ".join(map(str, header.size))
    if min(header.size) < 1 or not 1 <= header.components <= 2**20:
        msg = f"{name}: its header says {size} voxels of {header.components} values; the image is empty or damaged."
        raise VolumeError(msg)
    if math.prod(header.size) * header.components > MAX_VOXELS:
        gigabytes = header.voxel_bytes / 1e9
        msg = f"{name}: its header says {size} voxels ({gigabytes:,.0f} GB), more than any CT has; it is damaged."
        raise VolumeError(msg)
    if not os.path.isfile(header.data):
        msg = f"{name}: the file with its voxels, {readable_name(header.data)}, is missing; copy both."
        raise VolumeError(msg)
    offset, is_whole = max(header.offset, 0), header.encoding == "whole-gzip"
    there = header.data.stat().st_size - (0 if is_whole else offset)
    could_hold = there * (1 if header.encoding in ("raw", "ascii", "hex") else _MAX_PACKING) - (
        offset if is_whole else 0
    )
    if header.encoding == "ascii":
        could_hold = (there + 1) // 2 * header.dtype.itemsize
    elif header.encoding == "hex":
        could_hold = there // 2
    if could_hold < header.voxel_bytes:
        msg = (
            f"{name} is cut short or damaged: its header says {size} voxels ({header.voxel_bytes:,} bytes), and the file "
            f"holds {max(there, 0):,} bytes; copy it again."
        )
        raise VolumeError(msg)


def _unpacked(header: ImageHeader) -> np.ndarray:
    """The voxels' bytes, exactly as many as there must be."""
    needed = header.voxel_bytes
    if header.encoding in ("ascii", "hex"):
        return _from_text(header, needed)
    if header.encoding == "raw" and header.offset < 0:
        offset = header.data.stat().st_size - needed
        return np.fromfile(header.data, np.uint8, needed, offset=offset)
    buffer = np.empty(needed, np.uint8)
    with _opened(header) as handle:
        _fill(handle, memoryview(buffer))
        if header.encoding != "raw" and handle.read(1) == b"":
            return buffer  # the end of the packed stream was checked on the way
    return buffer


def _opened(header: ImageHeader) -> IO[bytes]:
    handle = header.data.open("rb")
    if header.encoding == "whole-gzip":  # the header is packed, too
        handle.close()
        packed = gzip.open(header.data)  # noqa: SIM115 - handed over to be closed by the caller
        packed.seek(header.offset)  # piece by piece
        return packed
    handle.seek(max(header.offset, 0))
    _skip_lines(handle, header.line_skip)
    if header.encoding == "gzip":
        return _closing(gzip.GzipFile(fileobj=handle), handle)
    if header.encoding == "bzip2":
        return _closing(bz2.BZ2File(handle), handle)
    if header.encoding == "zlib":
        return _Inflated(handle)
    return handle


def _skip_lines(handle: IO[bytes], count: int) -> None:
    for _ in range(count):
        if not handle.readline():
            raise EOFError


def _closing(packed: Any, handle: IO[bytes]) -> IO[bytes]:
    close = packed.close

    def both() -> None:
        close()
        handle.close()

    packed.close = both
    return packed


class _Inflated:
    """A zlib stream as a file to read from."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle, self._inflate = handle, zlib.decompressobj()

    def __enter__(self) -> _Inflated:
        return self

    def __exit__(self, *_error: object) -> None:
        self._handle.close()

    def read(self, count: int) -> bytes:
        found = b""
        while len(found) < count and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._handle.read(2**20)
            if not packed:
                break
            found += self._inflate.decompress(packed, count - len(found))
        return found


def _fill(handle: IO[bytes], view: memoryview) -> None:
    done = 0
    while done < len(view):
        part = handle.read(min(2**24, len(view) - done))
        if not part:
            raise EOFError
        view[done : done + len(part)] = part
        done += len(part)


def _from_text(header: ImageHeader, needed: int) -> np.ndarray:
    with header.data.open("rb") as handle:
        handle.seek(max(header.offset, 0))
        _skip_lines(handle, header.line_skip)
        text = handle.read()
    if header.encoding == "hex":
        found = np.frombuffer(bytes.fromhex(text.decode("ascii")), np.uint8)
    else:
        numbers = [float(part) for part in text.decode("ascii").replace(",", " ").split()]
        found = np.array(numbers).astype(header.dtype).view(np.uint8)
    if len(found) < needed:
        raise EOFError
    return found[:needed].copy()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
