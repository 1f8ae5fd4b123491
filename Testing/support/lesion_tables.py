"""A small table of computed lesions on disk, as a user would bring one: CTs, boxes, labels, patients."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from lesiontraining.data.lesions import LesionTable
from lesiontraining.data.readers.registry import read_with

CLASSES = ("bright", "hollow")


def write_lesion_table(folder: Path, *, patients: int = 12, lesions: int = 2, seed: int = 0) -> Path:
    """``lesions.csv`` with ``lesions`` spheres in the CT of each patient, NIfTI; all lesions of a patient are of one class.

    "bright" is full, "hollow" a shell: size and place say nothing of the class.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in range(patients):
        kind = patient % len(CLASSES)
        hu = rng.normal(-700, 20, (24, 40, 24 + 28 * lesions)).astype(np.float32)
        k, j, i = np.indices(hu.shape)
        for number in range(lesions):
            center = np.array([24 + 28 * number, 20, 12]) + rng.uniform(-1, 1, 3)
            radius = rng.uniform(5, 8)
            distance = np.sqrt((i - center[0]) ** 2 + (j - center[1]) ** 2 + (k - center[2]) ** 2)
            inside = distance < radius if kind == 0 else (distance < radius) & (distance > radius - 3)
            hu[inside] = rng.normal(40, 20, int(inside.sum()))
            edge = 2 * radius
            rows.append(
                {
                    "volume": f"ct{patient}.nii.gz", "frame": "LPS",
                    **dict(zip(("center_x", "center_y", "center_z"), center.round(3), strict=True)),
                    **dict.fromkeys(("size_x", "size_y", "size_z"), round(edge, 3)),
                    "kind": CLASSES[kind], "patient": f"Secret^Name{patient}", "study": f"1.2.840.{patient}",
                }
            )  # fmt: skip
        sitk.WriteImage(sitk.GetImageFromArray(hu.astype(np.int16)), str(folder / f"ct{patient}.nii.gz"))
    return write_rows(folder / "lesions.csv", rows)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A CSV with the columns of the first row."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_table(reader: str, path: Path, *, label: str, classes: Sequence[str] | None = None, **options) -> LesionTable:
    """By this reader; no class is left out unless ``classes`` are named."""
    return read_with(reader, path, label=label, classes=classes, **options)
