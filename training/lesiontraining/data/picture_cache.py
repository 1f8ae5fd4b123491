"""Cut lesions on disk, so that the second run starts at once: one ``.npz`` a lesion, without pickle.

The name of an entry is the SHA-256 of all that decides it: the row's place, the sizes and times of its files, the input's
section, the version and the very source text of what cuts. What changed is therefore cut anew, and so is what is damaged.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from dataclasses import asdict, fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import LesionLib
import numpy as np
from LesionLib import geometry, lesion_statistics, readers, sampling, sampling_kinds, sampling_planes, sampling_volumes
from LesionLib.errors import OutputError

from . import cutting, photographs, places, sources
from .cutting import CutLesion
from .lesion_row import LesionRow
from .picture_kinds import PictureSpec, picture_section

_CODE = (
    geometry, lesion_statistics, readers, sampling, sampling_kinds, sampling_planes, sampling_volumes,
    cutting, photographs, places, sources,
)  # fmt: skip
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def entry_key(row: LesionRow, spec: PictureSpec) -> str:
    """The name of a lesion's entry, 64 hexadecimal digits. Raises OSError where a file of the row is missing."""
    said = {
        "source": _plain(row.source),
        "files": [_state(path) for path in row.source.files()],
        "input": picture_section(spec),
        "code": _code(),
    }
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load_entry(folder: Path, key: str) -> CutLesion | None:
    """The entry, None where there is none or it is damaged."""
    try:
        with _path(folder, key).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            lesion = CutLesion(**{field.name: stored[field.name] for field in fields(CutLesion)})
    except _DAMAGED:
        return None
    numbers = (lesion.volume_mm3, lesion.mean_hu)
    is_whole = lesion.pictures.dtype == np.float32 and lesion.pictures.ndim in (4, 5) and lesion.pictures.size > 0
    is_whole = is_whole and lesion.look.dtype == np.uint8 and lesion.look.ndim == 2
    shapes = [array.shape for array in (lesion.size_mm, lesion.spacing_mm, lesion.target, *numbers)]
    if not is_whole or shapes != [(3,), (3,), (4,), (), ()]:
        return None
    return CutLesion(
        lesion.pictures, lesion.size_mm, *map(float, numbers), lesion.spacing_mm, lesion.target, lesion.look
    )


def store_entry(folder: Path, key: str, lesion: CutLesion) -> None:
    """Write the entry: whole or not at all, also where several processes write the same. Raises `OutputError`."""
    path = _path(folder, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **{field.name: getattr(lesion, field.name) for field in fields(CutLesion)})
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        msg = f"the cache {folder} cannot be written: {error.strerror or error}; free space there, or give another folder."
        raise OutputError(msg) from error


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.npz"


def _plain(source: Any) -> dict[str, Any]:
    values = asdict(source)
    return {"kind": type(source).__name__, **json.loads(json.dumps(values, default=lambda path: str(path.resolve())))}


def _state(path: Path) -> list[Any]:
    """Size and time of a file, or of everything in a DICOM folder."""
    if path.is_dir():
        found = sorted((entry for entry in os.scandir(path) if entry.is_file()), key=lambda entry: entry.name)
        return [[entry.name, entry.stat().st_size, entry.stat().st_mtime_ns] for entry in found]
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


@cache
def _code() -> str:
    """The version is not enough while somebody works on what cuts."""
    text = b"".join(Path(module.__file__).read_bytes() for module in _CODE)
    return f"{LesionLib.__version__} {sha256(text).hexdigest()}"
