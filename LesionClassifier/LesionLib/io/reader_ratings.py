"""What several readers of LIDC-IDRI said of a nodule, and the kind that most of them saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from LesionLib.io.boxes import CaseTableError, read_rows

RATINGS = "reader_ratings_train.csv"
KINDS = ("calcified", "solid", "subsolid")
_NO_CALCIFICATION, _SUBSOLID = 6, 3


def kind_of_ratings(texture: Sequence[int], calcification: Sequence[int]) -> str:
    """The kind by majority; "" for ties, and for nodules that the readers saw both with and without calcium.

    One number a reader, on the scales of LIDC. Calcified: most readers saw calcium. Subsolid: most rated the texture 1 to 3, none
    saw calcium. Solid: none rated the texture below 4, none saw calcium.
    """
    calcium = np.mean(np.array(calcification) != _NO_CALCIFICATION)
    if calcium > 0:
        return "calcified" if calcium > 0.5 else ""
    subsolid = np.mean(np.array(texture) <= _SUBSOLID)
    if subsolid > 0:
        return "subsolid" if subsolid > 0.5 else ""
    return "solid"


def kinds_by_file(folder: Path) -> dict[str, str]:
    """File name of a nodule to its kind, "" where it has none; only nodules whose readers were matched beyond doubt.

    ``folder`` holds ``reader_ratings_train.csv``, a row a reader. Raises `CaseTableError`.
    """
    table = Path(folder) / RATINGS
    texture: dict[str, list[int]] = {}
    calcification: dict[str, list[int]] = {}
    for line, row in read_rows(table, columns=("file", "match", "texture", "calcification")):
        if row["match"] != "yes":
            continue
        try:
            texture.setdefault(row["file"], []).append(int(float(row["texture"])))
            calcification.setdefault(row["file"], []).append(int(float(row["calcification"])))
        except ValueError as error:
            msg = f"{table.name}, line {line}: texture and calcification have to be ratings, whole numbers."
            raise CaseTableError(msg) from error
    return {name: kind_of_ratings(texture[name], calcification[name]) for name in texture}
