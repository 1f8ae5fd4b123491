"""Phantom nodules on disk with masks: what readers of data sets are tested with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.sampling.resample import lattice_points

SPACING_MM = (1.0, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A nodule in a CT file with its mask file, and the truth."""

    volume_path: Path
    mask_path: Path
    volume: CTVolume
    mask: np.ndarray
    box: LesionBox
    kind: str
    patient: str


def write_volume(array: np.ndarray, ijkToRAS: np.ndarray, path: Path) -> Path:
    """An array (k, j, i) as an image file in its place."""
    image = sitk.GetImageFromArray(array)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijkToRAS
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_cases(folder: Path, *, patients: int = 6, of_each: int = 1) -> list[PhantomCase]:
    """``image/`` and ``mask/`` with round and spiculated nodules by turns of patients; 32 mm cubes far from the origin."""
    cases = []
    for number in range(patients * of_each):
        patient = number // of_each
        kind = ("round", "spiculated")[patient % 2]
        volume, truth = nodule_patch(
            kind=kind, diameter_mm=7 + number % 4, seed=number, spacing_mm=SPACING_MM, size_mm=32
        )
        to_ras = volume.ijkToRAS.copy()
        to_ras[:3, 3] += (60.0, -40.0, 100.0)
        box = LesionBox(truth.box.centerRAS + (60.0, -40.0, 100.0), truth.box.sizeMm)
        volume = CTVolume(volume.array, to_ras)
        points = transformed_points(to_ras, lattice_points(volume.sizeIJK))
        in_box = (np.abs(points - box.centerRAS) <= box.sizeMm / 2).all(axis=-1)  # a vessel passes beside the nodule
        mask = ((volume.array > -400) & in_box).astype(np.uint8)
        name = f"case{number}.nii.gz"
        paths = write_volume(volume.array, to_ras, folder / "image" / name), folder / "mask" / name
        write_volume(mask, to_ras, paths[1])
        cases.append(PhantomCase(*paths, volume, mask, box, kind, f"P{patient}"))
    return cases
