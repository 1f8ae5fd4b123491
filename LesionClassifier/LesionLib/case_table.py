"""A folder of lesions with known answers: one CSV table, ``image/`` and ``mask/`` with the files it names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import LesionLensError
from .geometry import CTVolume, LesionBox
from .readers import read_image, read_sitk
from .segments import boxes_from_label_array


class CaseTableError(LesionLensError):
    """The folder, its table or a row of it is not what it should be; the text names the file and line."""


@dataclass(frozen=True, eq=False)
class CaseRow:
    """One row: its ``values`` by column, and where its CT cut-out and mask lie. ``where`` names it in errors."""

    values: dict[str, str]
    image_path: Path
    mask_path: Path
    where: str

    def load(self) -> tuple[CTVolume, LesionBox, np.ndarray]:
        """The CT, the tight box of the mask with the mask as its ``segment``, and the mask (bool, shape as the CT).

        Raises `CaseTableError`.
        """
        volume = read_image(self.image_path)
        mask = sitk.GetArrayFromImage(read_sitk(self.mask_path)) > 0
        if mask.shape != volume.array.shape or not mask.any():
            msg = f"{self.where}: the mask is empty or of another size than the image {self.image_path.name}."
            raise CaseTableError(msg)
        box = boxes_from_label_array(mask.astype(np.uint8), volume.ijkToRAS, {1: "lesion"})[0]
        return volume, box, mask

    def number(self, column: str) -> float:
        """The column as a number. Raises `CaseTableError` naming the line and what stands there."""
        try:
            return float(self.values[column])
        except ValueError as error:
            msg = f"{self.where}: {column} is {self.values[column]!r}; a number is needed."
            raise CaseTableError(msg) from error


def read_case_table(folder: Path, *, columns: Sequence[str]) -> list[CaseRow]:
    """The rows of the folder's only CSV table; it must have ``file`` and ``columns``, and every file must exist."""
    tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        msg = f"{folder} must hold one CSV table beside image/ and mask/; found: {found}."
        raise CaseTableError(msg)
    try:
        with tables[0].open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restval="")
            rows = [(reader.line_num, values) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{tables[0]} cannot be read as a CSV table in UTF-8; save it as such."
        raise CaseTableError(msg) from error
    missing = [name for name in ("file", *columns) if not rows or name not in rows[0][1]]
    if missing:
        msg = f"{tables[0]} has no rows or lacks the column(s) {', '.join(missing)}."
        raise CaseTableError(msg)
    return list(_checked(folder, tables[0].name, rows))


def _checked(folder: Path, table: str, rows: list[tuple[int, dict[str, str]]]) -> Iterator[CaseRow]:
    seen: dict[str, int] = {}
    for line, values in rows:
        where, name = f"{table}, line {line}", values["file"]
        if name in seen:
            msg = f"{where}: {name} stands in line {seen[name]} already."
            raise CaseTableError(msg)
        seen[name] = line
        image, mask = folder / "image" / name, folder / "mask" / name
        for path in (image, mask):
            if Path(name).name != name or not path.is_file():
                msg = f"{where}: {path} is missing."
                raise CaseTableError(msg)
        yield CaseRow(values, image, mask, where)
