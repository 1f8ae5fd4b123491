"""Tables of computed lesions on disk, as a user would bring one: what the phantom models learn from."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from LesionLib.geometry import CTVolume
from LesionLib.phantom.masses import MassKnobs, mass_ct

CREDIT = "Computed by LesionLens (LesionLib.phantom.masses); no patient, no scanner."
TABLE = "lesions.csv"
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class PhantomTable:
    """``classes``: the kind of `LesionLib.phantom.masses` by the class's name.

    ``lesions``: of each patient, one a CT, whose kinds are drawn by themselves; CTs of a patient share their style.
    """

    classes: dict[str, str]
    place: Literal["fat", "liver", "abdomen"]
    patients: int = 150
    lesions: int = 2
    seed: int = 0
    knobs: MassKnobs = field(default_factory=MassKnobs)


def write_phantom_table(folder: Path, asked: PhantomTable) -> Path:
    """``lesions.csv`` in ``folder``, and beside it the CTs; every class as often, to one. The same ``asked``, the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(asked.classes)
    count = asked.patients * asked.lesions
    order = np.random.default_rng((asked.seed, 3)).permutation(np.arange(count) % len(names))
    rows = []
    for number, index in enumerate(order):
        patient = number // asked.lesions
        mass = mass_ct(
            kind=asked.classes[names[index]],
            place=asked.place,
            seed=asked.seed * 1_000_003 + number,
            style_seed=asked.seed * 1_000_003 + patient,
            knobs=asked.knobs,
        )
        file = f"ct{number:04d}.mha"
        _write(mass.volume, folder / file)
        rows.append(
            {
                "volume": file, "frame": "RAS",
                **{f"center_{a}": f"{v:.4f}" for a, v in zip("xyz", mass.box.centerRAS, strict=True)},
                **{f"size_{a}": f"{v:.4f}" for a, v in zip("xyz", mass.box.sizeMm, strict=True)},
                "class": names[index], "patient": f"phantom {patient:04d}",
            }
        )  # fmt: skip
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / TABLE


def _write(volume: CTVolume, path: Path) -> None:
    to_lps = _TO_LPS @ volume.ijkToRAS
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))
