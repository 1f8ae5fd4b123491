"""A table of lesions as images: cut by LesionLib as they are cut in use, in several processes, kept in a cache.

Cut lesions are on disk, so that the second run starts at once: one ``.npz`` a lesion, without pickle. The name of an entry is
the SHA-256 of all that decides it: the row's place, the sizes and times of its files, the input's section, the version and
the very source text of what cuts. What changed is therefore cut anew, and so is what is damaged.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import LesionLib
import numpy as np
import SimpleITK as sitk
from LesionLib import geometry
from LesionLib.errors import LesionLensError, OutputError, VolumeError
from LesionLib.io import volumes as readers
from LesionLib.sampling import inputs as sampling_kinds
from LesionLib.sampling import planes as sampling_planes
from LesionLib.sampling import resample as sampling
from LesionLib.sampling import statistics as lesion_statistics
from LesionLib.sampling import volumes as sampling_volumes

from lesiontraining.data import crops, sources
from lesiontraining.data.crops import InputSpec, LesionCrop, crop_row, input_section, misfit, value_range
from lesiontraining.data.lesions import UNKNOWN, LesionDataset, LesionRow, LesionTable
from lesiontraining.data.messages import Problem, bar, notify, one_problem, refuse
from lesiontraining.data.sources import StoredCube


def data_fingerprint(lesion_ids: Sequence[str], labels: Sequence[str], splits: Sequence[str]) -> str:
    """A short name of a set of lesions and its split, for manifests: the same data and split, the same 64 digits.

    SHA-256 of the sorted (lesion, label, split): the order of rows and where files lie make no difference.
    """
    rows = sorted([str(a), str(b), str(c)] for a, b, c in zip(lesion_ids, labels, splits, strict=True))
    return sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


_CODE = (
    geometry, lesion_statistics, readers, sampling, sampling_kinds, sampling_planes, sampling_volumes,
    crops, sources,
)  # fmt: skip
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def entry_key(row: LesionRow, spec: InputSpec) -> str:
    """The name of a lesion's entry, 64 hexadecimal digits. Raises OSError where a file of the row is missing."""
    text = {
        "source": _plain(row.source),
        "files": [_state(path) for path in row.source.files()],
        "input": input_section(spec),
        "code": _code(),
    }
    return sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()


def load_entry(folder: Path, key: str) -> LesionCrop | None:
    """The entry, None where there is none or it is damaged."""
    try:
        with _path(folder, key).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            lesion = LesionCrop(**{field.name: stored[field.name] for field in fields(LesionCrop)})
    except _DAMAGED:
        return None
    numbers = (lesion.volume_mm3, lesion.mean_hu)
    is_whole = lesion.images.dtype == np.float32 and lesion.images.ndim in (4, 5) and lesion.images.size > 0
    is_whole = is_whole and lesion.preview.dtype == np.uint8 and lesion.preview.ndim == 2
    shapes = [array.shape for array in (lesion.size_mm, lesion.spacing_mm, lesion.target, *numbers)]
    if not is_whole or shapes != [(3,), (3,), (4,), (), ()]:
        return None
    return LesionCrop(
        lesion.images, lesion.size_mm, *map(float, numbers), lesion.spacing_mm, lesion.target, lesion.preview
    )


def store_entry(folder: Path, key: str, lesion: LesionCrop) -> None:
    """Write the entry: whole or not at all, also where several processes write the same. Raises `OutputError`."""
    path = _path(folder, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **{field.name: getattr(lesion, field.name) for field in fields(LesionCrop)})
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
    if os.path.isdir(path):
        found = sorted((entry for entry in os.scandir(path) if entry.is_file()), key=lambda entry: entry.name)
        return [[entry.name, entry.stat().st_size, entry.stat().st_mtime_ns] for entry in found]
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


@cache
def _code() -> str:
    """The version is not enough while somebody works on what cuts."""
    text = b"".join(Path(module.__file__).read_bytes() for module in _CODE)
    return f"{LesionLib.__version__} {sha256(text).hexdigest()}"


_ROWS_AT_ONCE = 64  # lesions of one group that a process takes at once


@dataclass(frozen=True)
class _Piece:
    """Lesions of one CT: their places in the table, and their rows."""

    indices: tuple[int, ...]
    rows: tuple[LesionRow, ...]


def lesion_dataset(
    table: LesionTable,
    spec: InputSpec,
    *,
    folds: np.ndarray | None = None,
    workers: int = 0,
    cache: Path | None = None,
    progress: bool = True,
) -> LesionDataset:
    """Every lesion of the table, in its order. Raises `TableError` naming each row that cannot be cut.

    ``folds``: the fold that each lesion is held out in, else `UNKNOWN`. ``workers``: processes that read and cut, 0: this
    one. ``cache``: a folder for cut lesions. All images are kept in memory; how much that is, is said.
    """
    lesions = crop_lesions(table, spec, workers=workers, cache=cache, progress=progress)
    return as_dataset(table, lesions, spec, folds=folds)


def crop_lesions(
    table: LesionTable, spec: InputSpec, *, workers: int = 0, cache: Path | None = None, progress: bool = True
) -> list[LesionCrop]:
    """As `lesion_dataset`, but each lesion by itself, with the plane by which it would be recognised."""
    wrong = ((row, misfit(row.source, spec)) for row in table.rows)
    refuse(table.name, (Problem(row.line, text) for row, text in wrong if text))
    if not len(table):
        raise one_problem(table.name, "there is no lesion left to cut")
    lesions = _all_crops(table, spec, workers=workers, cache=cache, progress=progress)
    if progress:
        count = sum(lesion.images.nbytes for lesion in lesions)
        notify(
            f"{len(lesions)} lesions of {len(set(table.patients))} patients, {count / 1e6:.0f} MB of images in memory"
        )
    return lesions


def as_dataset(
    table: LesionTable, lesions: Sequence[LesionCrop], spec: InputSpec, *, folds: np.ndarray | None = None
) -> LesionDataset:
    """The table's rows and what was cut of them as ``spec`` says, in one order."""
    return LesionDataset(
        images=tuple(lesion.images for lesion in lesions),
        labels=table.labels,
        class_names=table.class_names,
        lesion_ids=table.lesion_ids,
        patients=table.patients,
        studies=table.studies,
        folds=np.full(len(table), UNKNOWN) if folds is None else np.asarray(folds, dtype=np.int64),
        size_mm=np.stack([lesion.size_mm for lesion in lesions]),
        volume_mm3=np.array([lesion.volume_mm3 for lesion in lesions]),
        mean_hu=np.array([lesion.mean_hu for lesion in lesions]),
        spacing_mm=np.stack([lesion.spacing_mm for lesion in lesions]),
        targets=np.stack([lesion.target for lesion in lesions]),
        value_range=value_range(spec),
    )


def _all_crops(
    table: LesionTable, spec: InputSpec, *, workers: int, cache: Path | None, progress: bool
) -> list[LesionCrop]:
    cropped: list[LesionCrop | None] = [None] * len(table)
    problems: list[Problem] = []
    with bar("cutting lesions", len(table), shown=progress) as shown:
        for piece, outcomes in _outcomes(list(_pieces(table.rows)), spec, workers, cache):
            for index, outcome in zip(piece.indices, outcomes, strict=True):
                if isinstance(outcome, Problem):
                    problems.append(outcome)
                else:
                    cropped[index] = outcome
            shown.advance(shown.task_ids[0], len(outcomes))
    refuse(table.name, problems)
    return [lesion for lesion in cropped if lesion is not None]


def _pieces(rows: Sequence[LesionRow]) -> Iterator[_Piece]:
    """Lesions of one CT together, so that it is read once."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.source.group, []).append(number)
    for numbers in groups.values():
        # An archive of cubes is read whole: it is not worth a second time.
        at_once = len(numbers) if isinstance(rows[numbers[0]].source, StoredCube) else _ROWS_AT_ONCE
        for start in range(0, len(numbers), at_once):
            chosen = tuple(numbers[start : start + at_once])
            yield _Piece(chosen, tuple(rows[index] for index in chosen))


def _outcomes(
    pieces: list[_Piece], spec: InputSpec, workers: int, cache: Path | None
) -> Iterator[tuple[_Piece, list[LesionCrop | Problem]]]:
    if workers <= 0 or len(pieces) == 1:
        for piece in pieces:
            yield piece, _crop_piece(piece, spec, cache)
        return
    # Not fork: torch's and SimpleITK's threads do not survive it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        waiting: dict[Future[list[LesionCrop | Problem]], _Piece] = {
            pool.submit(_crop_piece, piece, spec, cache): piece for piece in pieces
        }
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            msg = "a process that cuts lesions was ended from outside (out of memory?); give fewer workers."
            raise VolumeError(msg) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _crop_piece(piece: _Piece, spec: InputSpec, cache: Path | None) -> list[LesionCrop | Problem]:
    """One answer a row. The CT is only read where the cache does not have all of them."""
    read = None
    outcomes: list[LesionCrop | Problem] = []
    for row in piece.rows:
        try:
            key = None if cache is None or isinstance(row.source, StoredCube) else entry_key(row, spec)
            lesion = None if key is None else load_entry(cache, key)
            if lesion is None:
                read = row.source.read() if read is None else read
                lesion = crop_row(row, read, spec)
                if key is not None:
                    store_entry(cache, key, lesion)
            outcomes.append(lesion)
        except OutputError:
            raise  # the cache, not this row
        except OSError as error:
            outcomes.append(Problem(row.line, f"{error.filename}: {error.strerror}"))
        except LesionLensError as error:
            outcomes.append(Problem(row.line, str(error)))
    return outcomes
