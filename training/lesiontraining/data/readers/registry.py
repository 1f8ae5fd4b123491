"""The readers by name: what a recipe's ``reader`` may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from LesionLib.errors import LesionLensError

from lesiontraining.data.lesions import LesionTable, read_lesion_table
from lesiontraining.data.readers import deeplesion, dicom_boxes, medmnist3d
from lesiontraining.data.readers import images as image_folder
from lesiontraining.data.readers import lidc as nodule_set
from lesiontraining.data.readers import volumes as mask_folder


@dataclass(frozen=True)
class Reader:
    """``read(path, label=..., classes=..., **options)`` gives a table; ``description``: what it reads, in a line."""

    read: Callable[..., LesionTable]
    description: str


READERS: dict[str, Reader] = {
    "table": Reader(read_lesion_table, "a CSV or parquet table of lesions in LesionLens' own form"),
    "nodule_set": Reader(nodule_set.read_nodule_set, "lung nodules cut from LIDC-IDRI, with masks and ratings"),
    "deeplesion": Reader(deeplesion.read_deeplesion, "DeepLesion as released: 16-bit PNG slices and DL_info.csv"),
    "medmnist3d": Reader(medmnist3d.read_medmnist3d, "an archive of MedMNIST-3D"),
    "mask_folder": Reader(mask_folder.read_mask_folder, "a folder of CTs and a folder of masks with the same names"),
    "dicom_boxes": Reader(dicom_boxes.read_dicom_boxes, "a CSV of boxes beside DICOM folders"),
    "image_folder": Reader(image_folder.read_image_folder, "2-D images with a table of labels"),
}


def read_with(name: str, path: Path, *, label: str | None, classes: list[str] | None, **options: Any) -> LesionTable:
    """The table that the reader ``name`` makes of ``path``. Raises `TableError`, `LesionLensError` for an unknown reader."""
    if name not in READERS:
        listed = "; ".join(f"{known}: {reader.description}" for known, reader in READERS.items())
        msg = f"there is no reader {name!r}; known are {listed}."
        raise LesionLensError(msg)
    try:
        return READERS[name].read(Path(path), label=label, classes=classes, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        msg = f"the reader {name!r} has no option {str(error).rsplit(' ', 1)[-1]}; see its documentation."
        raise LesionLensError(msg) from error
