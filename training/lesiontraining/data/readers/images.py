"""2-D images with a table of labels: photographs of the retina, skin, and the like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from lesiontraining.data.lesions import LesionTable, read_rows, table_from_rows
from lesiontraining.data.messages import Problem, one_problem, refuse

LICENCE = "Your own images: their licence and source are what you give as credit."
IDRID = "IDRiD (Porwal et al., Data 2018, doi:10.3390/data3030025), licence CC BY 4.0."
_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


def read_image_folder(
    path: Path,
    *,
    label: str | None = "label",
    classes: Sequence[str] | None = None,
    table: str = "labels.csv",
    images: str = "",
    credit: str = "",
) -> LesionTable:
    """The images of ``table`` in the folder ``path``; its column ``image`` has their names, with or without ending.

    Pictures lie beside the table, in ``images``, or in a folder named as the row's ``split``. Without a column ``patient``
    each image is a patient of its own, with a warning; copies of one image (in IDRiD there are two) are one patient then.
    Raises `TableError` with every bad row.
    """
    folder = Path(path)
    header, rows = read_rows(folder / table)
    if "image" not in header:
        raise one_problem(table, "there is no column 'image' with the images' names", line=1)
    found, problems = [], []
    for line, values in rows:
        location = _image(folder, images, values.get("split", ""), values["image"])
        if location is None:
            problems.append(Problem(line, f"there is no image {values['image']!r} ({', '.join(_ENDINGS)})"))
            continue
        found.append((line, {**values, "image": str(location), "lesion": values.get("lesion") or values["image"]}))
    refuse(table, problems)
    read = table_from_rows(
        [*header, *({"lesion"} - set(header))], found, folder=folder, source=table, label=label, classes=classes,
        credit=credit or (IDRID if "IDRiD" in rows[0][1]["image"] else LICENCE), own_patients=True,
    )  # fmt: skip
    return read if "patient" in header else _copies_as_one_patient(read)


def _copies_as_one_patient(table: LesionTable) -> LesionTable:
    """The same file under two names would otherwise be learned from and measured on."""
    first: dict[str, str] = {}
    rows = []
    for row in table.rows:
        digest = sha256(row.source.path.read_bytes()).hexdigest()
        rows.append(replace(row, patient=first.setdefault(digest, row.patient)))
    if len(first) == len(rows):
        return table
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row.patient, set()).add(row.label)
    unlike = sum(len(theirs) > 1 for theirs in labels.values())
    text = f"{len(rows) - len(first)} image(s) are copies of another under a second name; they count as its patient."
    text += f" {unlike} of them have another label than their copy." if unlike else ""
    return replace(table, rows=tuple(rows), warnings=(*table.warnings, text))


def _image(folder: Path, images: str, split: str, name: str) -> Path | None:
    """Where the image is, relative to the folder."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or not name.isprintable():
        return None
    for part in dict.fromkeys((images, split, "")):
        if part and (Path(part).is_absolute() or ".." in Path(part).parts):
            continue
        for candidate in (name, *(name + ending for ending in _ENDINGS)):
            if os.path.isfile(folder / part / candidate):
                return Path(part, candidate)
    return None
