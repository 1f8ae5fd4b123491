"""The sets of lesions that claims are tested on: computed ones, and real ones that whoever runs it has fetched.

Each is written as a table of its own into the working folder, with a column ``fold`` that no patient crosses, so that runs with
other seeds are measured on the same lesions. Nothing of real data leaves that folder.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from LesionLib.io.reader_ratings import kinds_by_file
from PIL import Image, ImageFilter

from lesiontraining.data.lesions import natural
from lesiontraining.data.phantom_tables import BENCHMARK, PHOTO_TABLE, TABLE, harder, write_phantom_table
from lesiontraining.data.readers.registry import read_with
from lesiontraining.data.splits import patient_folds
from lesiontraining.reproduce.plan import ReproductionError, Table, short_hash

Rows = list[dict[str, str]]
_FOLDS = 3
_STEP_HU = 256  # of a 16-bit slice of DeepLesion read as 8 bits: one grey value


def written_table(table: Table, budget: str, *, work: Path, data: Path | None) -> Path:
    """The table's file (of photographs its folder), made where it is not there yet.

    ``data``: the folder that holds the real sets by name. Raises `ReproductionError` where one is missing.
    """
    arguments = getattr(table, budget)
    folder = work / "tables" / f"{table.name}-{short_hash({'make': table.make, **arguments})}"
    sources = {name: _source(name, table, data) for name in table.needs}
    if not (folder / "done").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        MAKERS[table.make](folder, sources, **arguments)
        (folder / "done").touch()
    return folder if (folder / PHOTO_TABLE).is_file() else folder / TABLE


def _source(name: str, table: Table, data: Path | None) -> Path:
    if data is None or not (data / name).is_dir():
        msg = (
            f"{table.name} needs the folder {name}; give the folder that holds it as --data (training/README.md, Data)."
        )
        raise ReproductionError(msg)
    return (data / name).absolute()


def _phantom(
    folder: Path,
    sources: Mapping[str, Path],
    *,
    variant: str,
    eight_bit: bool = False,
    copies: bool = False,
    **knobs: Any,
) -> None:
    """A variant of the phantom benchmark, with the knobs of `harder`."""
    path = write_phantom_table(folder, harder(BENCHMARK[variant], **knobs))
    rows = _read(path)
    label = "grade" if path.name == PHOTO_TABLE else "class"
    if eight_bit:
        for row in rows:
            _write_eight_bit(folder / row["volume"], folder / row["volume"])
    if copies:
        rows = _with_copies(folder, rows, label)
    _write(path, rows, label)


def _nodules(
    folder: Path, sources: Mapping[str, Path], *, question: str, eight_bit: bool = False, lesions: int | None = None
) -> None:
    """Lung nodules by ``question``: "kind" (calcified, solid, subsolid by their readers) or "malignant".

    ``lesions``: at most so many, by whole patients in the order of the collection.
    """
    table = read_with("nodule_set", sources["lung_nodules"], label="malignant", classes=None)
    kinds = kinds_by_file(sources["lidc_readers"]) if question == "kind" else {}
    rows: Rows = []
    for row in table.rows:
        volume, mask = (Path(path).absolute() for path in row.source.files()[:2])
        label = kinds.get(volume.name, "") if question == "kind" else row.label
        if label:
            rows.append({"volume": str(volume), "mask": str(mask), "class": label, "patient": row.patient})
    rows = _first_patients(rows, lesions)
    if eight_bit:
        for row in rows:
            changed = folder / Path(row["volume"]).name
            _write_eight_bit(Path(row["volume"]), changed)
            row["volume"] = changed.name
    _write(folder / TABLE, rows, "class")


def _fundus(folder: Path, sources: Mapping[str, Path], *, size: int, copies: bool = False) -> None:
    """Photographs of the retina by grade, reduced to ``size`` rows of pixels."""
    table = read_with("image_folder", sources["fundus"], label="dr_grade", classes=None)
    rows: Rows = []
    for row in table.rows:
        name = f"{row.source.path.stem}.png"
        with Image.open(row.source.path) as photo:
            small = photo.convert("RGB")
            small.thumbnail((2 * size, size))
            small.save(folder / name)
        rows.append({"image": name, "grade": row.label, "patient": row.patient})
    if copies:
        rows = _with_copies(folder, rows, "grade")
    _write(folder / PHOTO_TABLE, rows, "grade")


MAKERS: Mapping[str, Callable[..., None]] = {"phantom": _phantom, "nodules": _nodules, "fundus": _fundus}


def _with_copies(folder: Path, rows: Rows, label: str) -> Rows:
    """All classes as large as the largest by changed copies, made before anything is divided: the leak that is to be sized.

    Copies are turned, mirrored and blurred, as the paper makes them (papers 1.5); each is a lesion of its own.
    """
    rng = np.random.default_rng(0)
    of_class = {name: [row for row in rows if row[label] == name] for name in sorted({row[label] for row in rows})}
    most = max(map(len, of_class.values()))
    made = list(rows)
    for members in of_class.values():
        for number in range(most - len(members)):
            row = members[number % len(members)]
            name = f"copy{len(made):05d}.png"
            with Image.open(folder / row["image"]) as photo:
                changed = photo.rotate(float(rng.uniform(0, 360)), resample=Image.Resampling.BILINEAR)
                if rng.uniform() < 0.5:
                    changed = changed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                changed.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1)))).save(folder / name)
            made.append({**row, "image": name})
    # Each a patient of its own: whoever divides such a pool by image does not know better.
    return [{**row, "patient": f"image {number:05d}"} for number, row in enumerate(made)]


def _first_patients(rows: Rows, lesions: int | None) -> Rows:
    if lesions is None or len(rows) <= lesions:
        return rows
    kept: dict[str, None] = {}
    for number, row in enumerate(rows):
        if row["patient"] in kept or number < lesions:
            kept[row["patient"]] = None
    return [row for row in rows if row["patient"] in kept]


def _write_eight_bit(source: Path, target: Path) -> None:
    """The CT as it comes out where 16-bit slices are read as 8 bits: steps of 256 HU."""
    image = sitk.ReadImage(str(source))
    hu = sitk.GetArrayFromImage(image).astype(np.int32)
    reduced = sitk.GetImageFromArray((np.floor_divide(hu, _STEP_HU) * _STEP_HU).astype(np.int16))
    reduced.CopyInformation(image)
    sitk.WriteImage(reduced, str(target))


def _read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _write(path: Path, rows: Rows, label: str) -> None:
    names = sorted({row[label] for row in rows}, key=natural)
    labels: Sequence[int] = [names.index(row[label]) for row in rows]
    folds = patient_folds([row["patient"] for row in rows], labels, folds=_FOLDS)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=[*rows[0], "fold"])
        writer.writeheader()
        writer.writerows({**row, "fold": f"fold {fold}"} for row, fold in zip(rows, folds, strict=True))
