"""What a model learned from, as content hashes: read off the CTs once more when a fold is fitted, or for a folder of cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from LesionLib.io.boxes import read_case_table
from LesionLib.sampling.content_hash import TrainingContent, lesion_hash

from lesiontraining.data.lesions import LesionRow
from lesiontraining.data.sources import SlicesSource, VolumeSource

Progress = Callable[[int, int], None]


def content_of_rows(rows: Iterable[LesionRow]) -> TrainingContent:
    """The hashes of these lesions of a table; photographs and stored cubes are no CTs and have none."""
    of_cts = [row for row in rows if isinstance(row.source, VolumeSource | SlicesSource)]
    return TrainingContent.of(_hashes(sorted(of_cts, key=lambda row: row.source.group)))


def content_of_folder(folder: Path, *, progress: Progress | None = None) -> TrainingContent:
    """Those of a folder of cases: one CSV table, ``image/`` and ``mask/``. Raises `CaseTableError`."""
    rows, hashes = read_case_table(folder, columns=[]), []
    for done, row in enumerate(rows, start=1):
        volume, box, _ = row.load()
        hashes.append(lesion_hash(volume, box))
        if progress is not None:
            progress(done, len(rows))
    return TrainingContent.of(hashes)


def _hashes(rows: list[LesionRow]) -> Iterator[int | None]:
    for _, lesions in groupby(rows, key=lambda row: row.source.group):
        volume = None
        for row in lesions:
            volume = row.source.read() if volume is None else volume
            yield lesion_hash(volume, row.source.lesion(volume, name=row.lesion_id))
