"""The LIDC-IDRI nodule set, cut-out CTs with masks, readers' ratings, patient-wise folds; and how the frozen trunk sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.io.boxes import CaseRow, read_case_table
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.sampling.batches import cut_lesion, stacked
from LesionLib.sampling.inputs import Spec

COLUMNS = ("patient_id", "luna16_subset", "diameter_mm", "malignant", "volume_mm3")


@dataclass(frozen=True, eq=False)
class Nodule:
    """One nodule: its CT cut-out, the tight box of its mask with the mask itself, and what the table says of it.

    ``mean_hu`` is taken inside the mask; ``malignant`` is true where at least two readers rated above 3.
    """

    volume: CTVolume
    box: LesionBox
    patient: str
    fold: int
    malignant: bool
    diameter_mm: float
    volume_mm3: float
    mean_hu: float


def read_nodules(folder: Path) -> list[Nodule]:
    """Every nodule of the folder's table, folds as in ``luna16_subset``. Raises `CaseTableError` naming the line."""
    return [_nodule(row) for row in read_case_table(folder, columns=COLUMNS)]


def patientwise(nodules: list[Nodule]) -> tuple[list[Nodule], tuple[str, ...]]:
    """The nodules with every patient in one fold, and the patients that had to be moved.

    The published subsets are per series; a patient scanned twice can stand in two. Such a patient goes whole to the lowest.
    """
    folds_of: dict[str, set[int]] = {}
    for nodule in nodules:
        folds_of.setdefault(nodule.patient, set()).add(nodule.fold)
    moved = tuple(sorted(patient for patient, folds in folds_of.items() if len(folds) > 1))
    return [replace(nodule, fold=min(folds_of[nodule.patient])) for nodule in nodules], moved


def _nodule(row: CaseRow) -> Nodule:
    volume, box, mask = row.load()
    return Nodule(
        volume=volume,
        box=box,
        patient=row.values["patient_id"],
        fold=int(row.number("luna16_subset")),
        malignant=row.number("malignant") > 0,
        diameter_mm=row.number("diameter_mm"),
        volume_mm3=row.number("volume_mm3"),
        mean_hu=float(volume.array[mask].mean()),
    )


@dataclass(frozen=True)
class Looseness:
    """How another reader's box may differ from the tight one: moved, grown a side, turned about the body axis."""

    shift_mm: float = 2.0
    grow_mm: float = 3.0
    turn_degrees: float = 15.0

    def boxes(self, nodules: Sequence[Nodule], seed: int) -> list[LesionBox]:
        """One loose box a nodule; the same seed, the same boxes."""
        rng = np.random.default_rng(seed)
        how = {"shift_mm": self.shift_mm, "grow_mm": self.grow_mm, "turn_degrees": self.turn_degrees}
        return [nodule.box.jittered(rng, **how) for nodule in nodules]


def slice_descriptors(
    network: LesionNet, nodules: Sequence[Nodule], boxes: Sequence[LesionBox], spec: Spec
) -> list[np.ndarray]:
    """The frozen trunk's view of every nodule: its slices' descriptors, for the tight box and for looser drawings.

    Descriptors (slice, d) of each nodule, float32, cut as they are cut in use.
    """
    found = []
    with torch.inference_mode():
        for nodule, box in zip(nodules, boxes, strict=True):
            pictures = stacked([cut_lesion(nodule.volume, box, spec)], device_of(network))
            features = network.features(pictures)
            found.append(network.descriptor(features).float().cpu().numpy())
    return found
