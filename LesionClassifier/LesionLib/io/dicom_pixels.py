"""The voxels of DICOM files in HU, by whichever decoder is right for them.

ITK reads plain series. What it reads wrongly or not at all (MONOCHROME1, which it inverts; deflated files; files without the
128 bytes in front) is read by pydicom. Packed pixels (JPEG, JPEG 2000, JPEG-LS) go through native decoders that a damaged file
can crash, so these are asked in a process of their own: a quarter of a second for any series, and a crash becomes one line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from LesionLib.errors import VolumeError
from LesionLib.io.native_images import read_by_itk

_NATIVE_SECONDS = 1800
_INVERTED = "MONOCHROME1"


def read_series_pixels(paths: Sequence[Path], headers: Sequence[pydicom.Dataset], *, name: str) -> np.ndarray:
    """The images in the order given, (slice, row, column), rescaled to HU. Raises `VolumeError`."""
    syntaxes = [_syntax(header) for header in headers]
    is_inverted = [str(header.get("PhotometricInterpretation", "")) == _INVERTED for header in headers]
    if any(_is_packed(syntax) for syntax in syntaxes):
        array = _read_apart(paths, name=name)[0]
        for k, header in enumerate(headers):
            if is_inverted[k]:
                array[k] = _turned_back(array[k], header)
        return array
    by_hand = any(is_inverted) or any(
        syntax in (None, DeflatedExplicitVRLittleEndian) or not getattr(header, "preamble", None)
        for syntax, header in zip(syntaxes, headers, strict=True)
    )
    if by_hand or any(not _is_plain(path) for path in paths):
        return _by_hand(paths, name)
    return read_by_itk(paths)[0]


def read_multiframe(path: Path, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One file of many frames: its voxels (k, j, i) in HU, and its 4x4 from index to LPS mm. Raises `VolumeError`."""
    array, to_lps = _read_apart([path], name=name)
    return array, to_lps


def _syntax(header: pydicom.Dataset) -> UID | None:
    found = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    return None if found is None else UID(found)


def _is_packed(syntax: UID | None) -> bool:
    return syntax is not None and syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian


def _is_plain(path: Path) -> bool:
    """Whether a native reader can be given the name at all."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _by_hand(paths: Sequence[Path], name: str) -> np.ndarray:
    slices = []
    for path in paths:
        try:
            data = pydicom.dcmread(path, force=True)
            if _syntax(data) is None:
                data.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian
                )
            stored = data.pixel_array
        except Exception as error:  # whatever a damaged file makes of the decoder
            msg = f"{name}: the pixels of {path.name} cannot be read ({type(error).__name__}); export the series again."
            raise VolumeError(msg) from error
        slices.append(stored * _number(data, "RescaleSlope", 1.0) + _number(data, "RescaleIntercept", 0.0))
    array = np.stack(slices)
    whole = np.round(array)
    return whole.astype(np.int32) if np.array_equal(whole, array) else array.astype(np.float32)


def _number(data: pydicom.Dataset, keyword: str, default: float) -> float:
    value = data.get(keyword)
    return default if value in (None, "") else float(value)


def _turned_back(values: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """HU of an image whose stored values the native reader has turned round: v became highest + lowest - v."""
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    is_signed = int(header.get("PixelRepresentation") or 0) == 1
    turned = -1 if is_signed else 2 ** int(header.get("BitsStored") or 16) - 1
    stored = (values.astype(float) - intercept) / slope
    return ((turned - stored) * slope + intercept).astype(values.dtype)


def _read_apart(paths: Sequence[Path], *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """As `read_by_itk`, in a process whose end is not ours."""
    if "python" not in Path(sys.executable).name.lower():  # inside an application there is no second Python to start
        return _guarded(paths, name)
    with tempfile.TemporaryDirectory(prefix="lesionlens-") as folder:
        done = Path(folder, "voxels.npy")
        task = json.dumps({"paths": [str(path) for path in paths], "out": str(done)})
        command = [sys.executable, "-c", _CHILD, str(Path(__file__).parents[2])]
        try:
            ran = subprocess.run(
                command, input=task.encode(), capture_output=True, timeout=_NATIVE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            msg = (
                f"{name}: its images were not decoded within {_NATIVE_SECONDS // 60} minutes; export the series again."
            )
            raise VolumeError(msg) from error
        if ran.returncode != 0 or not done.is_file():
            what = "crashed" if ran.returncode < 0 else "failed"
            msg = f"{name}: the decoder of its packed images {what}; the files are damaged, export the series again."
            raise VolumeError(msg)
        return np.load(done), np.load(done.with_name("place.npy"))


_CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from LesionLib.io.native_images import run_child
run_child(json.load(sys.stdin))
"""


def _guarded(paths: Sequence[Path], name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        return read_by_itk(paths)
    except RuntimeError as error:
        msg = f"{name}: the images of the series cannot be read together; export the series again."
        raise VolumeError(msg) from error
