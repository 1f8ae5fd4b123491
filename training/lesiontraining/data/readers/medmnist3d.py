"""A ``.npz`` of MedMNIST-3D: small cubes with the official split, of grey values or of binary shapes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lesiontraining.data.lesions import SPLITS, LesionRow, LesionTable
from lesiontraining.data.messages import Problem, TableError, one_problem, refuse
from lesiontraining.data.sources import StoredCube

LICENCE = "MedMNIST v2 (Yang et al., Scientific Data 2023, doi:10.1038/s41597-022-01721-8), licence CC BY 4.0."
PATIENTS_NOT_KNOWN = (
    "MedMNIST does not say which cubes are of one patient: each counts as a patient of its own. Keep to the official split; "
    "folds made anew could divide a patient (the two adrenal glands, for instance)."
)
_EDGE_MM = {"adrenalmnist3d": 64.0}  # of the cubes, where the set's paper says it
_CLASSES = {
    "adrenalmnist3d": ("normal", "mass or hyperplasia"),
    "nodulemnist3d": ("benign", "malignant"),
    "vesselmnist3d": ("vessel", "aneurysm"),
}


def read_medmnist3d(
    path: Path,
    *,
    label: str | None = "label",
    classes: Sequence[str] | None = None,
    edge_mm: float | None = None,
    centred: bool = False,
    measure_on_val: bool = False,
    is_xyz: bool = False,
) -> LesionTable:
    """The cubes of an archive. Raises `TableError`. Nothing in the archive is unpickled.

    ``classes``: names of the labels 0, 1, ...; known for some sets. ``edge_mm``: length of a cube, where the set's name
    does not tell it; without it lesions have no size in mm. ``centred``: shapes are moved by whole voxels until the middle of
    their box is that of the cube, where a model finds a segment in use; the set has their centre of mass there.
    ``measure_on_val``: the official val is the test part, and official test cubes are left out: for an archive without them,
    or to keep them for later. ``is_xyz``: the cubes' axes are x, y, z instead of slice, row, column; no set says which.
    """
    archive = Path(path)
    known = next((name for name in _EDGE_MM | _CLASSES if archive.name.lower().startswith(name)), "")
    edge = edge_mm if edge_mm is not None else _EDGE_MM.get(known, float("nan"))
    parts = _parts(archive)
    highest = max(int(labels.max()) for _, labels, _ in parts.values())
    names = tuple(classes or _CLASSES.get(known, ())) or tuple(str(n) for n in range(highest + 1))
    if highest >= len(names):
        raise one_problem(archive.name, f"labels go up to {highest}, but there are {len(names)} classes")
    rows = []
    for official, (shape, labels, is_mask) in parts.items():
        if measure_on_val and official == "test":
            continue
        split = "test" if measure_on_val and official == "val" else official
        for index in range(shape[0]):
            name = f"{official}-{index:05d}"
            source = StoredCube(archive, f"{official}_images", index, is_mask, edge, centred=centred, is_xyz=is_xyz)
            text = "" if label is None else names[int(labels[index])]
            rows.append(LesionRow(len(rows) + 1, name, name, source, text, split=split))
    return LesionTable(tuple(rows), names, archive.name, LICENCE, (PATIENTS_NOT_KNOWN,))


def _parts(archive: Path) -> dict[str, tuple[tuple[int, ...], np.ndarray, bool]]:
    """Shape of the cubes, labels (cube,) and whether the cubes are shapes, for each split in the archive."""
    found: dict[str, tuple[tuple[int, ...], np.ndarray, bool]] = {}
    try:
        with archive.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            for split in SPLITS:
                if f"{split}_images" in stored and f"{split}_labels" in stored:
                    images, labels = stored[f"{split}_images"], stored[f"{split}_labels"]
                    refuse(archive.name, _wrong(split, images, labels))
                    found[split] = (images.shape, labels.reshape(-1), _is_shape(images))
    except (OSError, EOFError, zipfile.BadZipFile, KeyError, TypeError) as error:
        raise one_problem(str(archive), "no archive of MedMNIST-3D can be read here; download it again") from error
    except ValueError as error:
        if isinstance(error, TableError):
            raise
        raise one_problem(str(archive), "the archive holds pickled objects or is damaged; download it again") from error
    if "train" not in found:
        raise one_problem(archive.name, "the archive lacks train_images and train_labels")
    return found


def _is_shape(images: np.ndarray) -> bool:
    return all(np.isin(cube, (0, 255)).all() for cube in images)


def _wrong(split: str, images: np.ndarray, labels: np.ndarray) -> list[Problem]:
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images) or len(set(images.shape[1:])) != 1:
        what = f"{images.dtype} of shape {images.shape}"
        return [Problem(0, f"{split}_images is {what}; cubes (n, voxels, voxels, voxels) of uint8 are expected")]
    if labels.reshape(-1).shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
        return [
            Problem(0, f"{split}_labels has shape {labels.shape} for {len(images)} cubes; one class each is expected")
        ]
    return []
