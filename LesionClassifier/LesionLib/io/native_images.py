"""DICOM images by ITK's own decoders, here or in a process of their own, which imports nothing else: it starts for each series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk


def read_by_itk(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The images in the order given, (k, j, i) in HU, and the 4x4 from index to LPS mm; of a plain file, or of one of many frames.

    The 4x4 is 1 where several files are read. Raises RuntimeError; damaged packed images may end the process.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # uneven slices are a warning of ours
    if len(paths) == 1:
        image = sitk.ReadImage(str(paths[0]))
    else:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in paths])
        image = reader.Execute()
    to_lps = np.eye(4)
    if image.GetDimension() == 3:
        to_lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        to_lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), to_lps


def run_child(task: dict[str, Any]) -> None:
    """What the decoder's process does: read ``task["paths"]``, leave the voxels in ``task["out"]`` and their place beside it."""
    array, to_lps = read_by_itk([Path(path) for path in task["paths"]])
    np.save(Path(task["out"]).with_name("place.npy"), to_lps)
    np.save(task["out"], array)
