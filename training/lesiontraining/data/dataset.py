"""A table of lesions as pictures: cut by LesionLib as they are cut in use, in several processes, kept in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from LesionLib.errors import LesionLensError, OutputError, VolumeError

from .console import bar, say
from .cutting import CutLesion, cut_row
from .lesion_row import LesionRow, LesionTable
from .picture_cache import entry_key, load_entry, store_entry
from .picture_kinds import PictureSpec, misfit
from .picture_set import UNKNOWN, PictureSet
from .problems import Problem, one_problem, refuse
from .sources import StoredCube

_ROWS_AT_ONCE = 64  # lesions of one group that a process takes at once


@dataclass(frozen=True)
class _Piece:
    """Lesions of one CT: their places in the table, and their rows."""

    places: tuple[int, ...]
    rows: tuple[LesionRow, ...]


def picture_set(
    table: LesionTable,
    spec: PictureSpec,
    *,
    folds: np.ndarray | None = None,
    workers: int = 0,
    cache: Path | None = None,
    progress: bool = True,
) -> PictureSet:
    """Every lesion of the table, in its order. Raises `TableError` naming each row that cannot be cut.

    ``folds``: the fold that each lesion is held out in, else `UNKNOWN`. ``workers``: processes that read and cut, 0: this
    one. ``cache``: a folder for cut lesions. All pictures are kept in memory; how much that is, is said.
    """
    lesions = cut_lesions(table, spec, workers=workers, cache=cache, progress=progress)
    return as_picture_set(table, lesions, folds=folds)


def cut_lesions(
    table: LesionTable, spec: PictureSpec, *, workers: int = 0, cache: Path | None = None, progress: bool = True
) -> list[CutLesion]:
    """As `picture_set`, but each lesion by itself, with the plane by which it would be recognised."""
    wrong = ((row, misfit(row.source, spec)) for row in table.rows)
    refuse(table.name, (Problem(row.line, text) for row, text in wrong if text))
    if not len(table):
        raise one_problem(table.name, "there is no lesion left to cut")
    lesions = _all_cut(table, spec, workers=workers, cache=cache, progress=progress)
    if progress:
        held = sum(lesion.pictures.nbytes for lesion in lesions)
        say(f"{len(lesions)} lesions of {len(set(table.patients))} patients, {held / 1e6:.0f} MB of pictures in memory")
    return lesions


def as_picture_set(table: LesionTable, lesions: Sequence[CutLesion], *, folds: np.ndarray | None = None) -> PictureSet:
    """The table's rows and what was cut of them, in one order."""
    return PictureSet(
        pictures=tuple(lesion.pictures for lesion in lesions),
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
    )


def _all_cut(
    table: LesionTable, spec: PictureSpec, *, workers: int, cache: Path | None, progress: bool
) -> list[CutLesion]:
    cut: list[CutLesion | None] = [None] * len(table)
    problems: list[Problem] = []
    with bar("cutting lesions", len(table), shown=progress) as shown:
        for piece, answers in _answers(list(_pieces(table.rows)), spec, workers, cache):
            for place, answer in zip(piece.places, answers, strict=True):
                if isinstance(answer, Problem):
                    problems.append(answer)
                else:
                    cut[place] = answer
            shown.advance(shown.task_ids[0], len(answers))
    refuse(table.name, problems)
    return [lesion for lesion in cut if lesion is not None]


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
            yield _Piece(chosen, tuple(rows[place] for place in chosen))


def _answers(
    pieces: list[_Piece], spec: PictureSpec, workers: int, cache: Path | None
) -> Iterator[tuple[_Piece, list[CutLesion | Problem]]]:
    if workers <= 0 or len(pieces) == 1:
        for piece in pieces:
            yield piece, _cut_piece(piece, spec, cache)
        return
    # Not fork: torch's and SimpleITK's threads do not survive it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        waiting: dict[Future[list[CutLesion | Problem]], _Piece] = {
            pool.submit(_cut_piece, piece, spec, cache): piece for piece in pieces
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


def _cut_piece(piece: _Piece, spec: PictureSpec, cache: Path | None) -> list[CutLesion | Problem]:
    """One answer a row. The CT is only read where the cache does not have all of them."""
    read = None
    answers: list[CutLesion | Problem] = []
    for row in piece.rows:
        try:
            key = None if cache is None or isinstance(row.source, StoredCube) else entry_key(row, spec)
            lesion = None if key is None else load_entry(cache, key)
            if lesion is None:
                read = row.source.read() if read is None else read
                lesion = cut_row(row, read, spec)
                if key is not None:
                    store_entry(cache, key, lesion)
            answers.append(lesion)
        except OutputError:
            raise  # the cache, not this row
        except OSError as error:
            answers.append(Problem(row.line, f"{error.filename}: {error.strerror}"))
        except LesionLensError as error:
            answers.append(Problem(row.line, str(error)))
    return answers
