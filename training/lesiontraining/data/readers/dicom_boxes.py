"""A CSV of boxes beside DICOM folders: the project's own form, with the names that boxes of public sets often have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from LesionLib.io.boxes import MM_COLUMNS, VOXEL_COLUMNS

from lesiontraining.data.lesions import LesionTable, Rows, read_rows, table_from_rows
from lesiontraining.data.messages import Problem, one_problem, refuse

LICENCE = "Your own CTs and boxes: their licence and source are what you give as credit."
_ALIASES = {
    "series_uid": "series", "seriesuid": "series", "patient_id": "patient", "name": "lesion", "folder": "volume",
    "i0": "i_min", "j0": "j_min", "k0": "k_min", "i1": "i_max", "j1": "j_max", "k1": "k_max",
}  # fmt: skip


def read_dicom_boxes(
    path: Path, *, label: str | None = "label", classes: Sequence[str] | None = None, folder: str = "", credit: str = ""
) -> LesionTable:
    """The boxes of a CSV, each in a DICOM folder. Raises `TableError` with every bad row.

    The folder of a row is its column ``volume`` (or ``folder``), else ``folder`` with the row's patient in place of
    ``{patient}``, relative to the table. The box is in mm, in voxels, or as corners ``lps_min`` and ``lps_max``
    ("[x, y, z]" each). ``series_uid`` chooses among the series of a folder.
    """
    path = Path(path)
    header, rows = read_rows(path)
    names = {
        name: _ALIASES.get(name, name)
        for name in header
        if _ALIASES.get(name, name) not in header or name not in _ALIASES
    }
    renamed = [(line, {names[k]: v for k, v in values.items() if k in names}) for line, values in rows]
    columns = list(names.values())
    if label in _ALIASES:
        raise one_problem(path.name, f"the label cannot be the column {label!r}", line=1)
    if "volume" not in columns:
        if not folder:
            raise one_problem(path.name, "no row says where its CT is; give a column 'volume' or the option folder")
        columns.append("volume")
        renamed = [(n, {**v, "volume": folder.replace("{patient}", v.get("patient", ""))}) for n, v in renamed]
    columns, renamed = _with_corners(columns, renamed, path.name)
    return table_from_rows(
        columns, renamed, folder=path.parent, source=path.name, label=label, classes=classes, credit=credit or LICENCE
    )


def _with_corners(columns: list[str], rows: Rows, source: str) -> tuple[list[str], Rows]:
    """Corners as centre and size, where the table has no other box."""
    if not {"lps_min", "lps_max"} <= set(columns) or {"center_x", "i_min"} & set(columns):
        return columns, rows
    found, problems = [], []
    for line, values in rows:
        try:
            low, high = (_triple(values[name]) for name in ("lps_min", "lps_max"))
        except ValueError:
            problems.append(Problem(line, f"lps_min and lps_max are {values['lps_min']!r} and {values['lps_max']!r}"))
            continue
        center = [f"{(a + b) / 2:.6g}" for a, b in zip(low, high, strict=True)]
        size = [f"{b - a:.6g}" for a, b in zip(low, high, strict=True)]
        box = dict(zip(MM_COLUMNS, [*center, *size], strict=True))
        found.append((line, {**values, **box, "frame": "LPS", **dict.fromkeys(VOXEL_COLUMNS, "")}))
    refuse(source, problems)
    return [*columns, *MM_COLUMNS, "frame", *VOXEL_COLUMNS], found


def _triple(text: str) -> tuple[float, float, float]:
    x, y, z = (float(part) for part in text.strip("[]() ").replace(";", ",").split(","))
    return x, y, z
