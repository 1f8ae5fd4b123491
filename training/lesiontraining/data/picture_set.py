"""What networks see of a set of lesions, and all that a figure about them needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Lesions as network input. All arrays have one entry a lesion, in one order.

    ``pictures``: a float32 array (picture, channel, [slice,] row, column) each, as `LesionLib.sampling_kinds.network_input`
    makes it. ``labels``: class index, `UNKNOWN` where there is none. ``folds``: the fold a lesion is held out in.
    ``size_mm``: box edges (n, 3), NaN for plain photographs, as ``volume_mm3``, ``mean_hu`` and ``spacing_mm`` (n, 3).
    ``targets``: the box in its pictures for localisation, (row, column, rows, columns) in pixels, NaN where not known.
    """

    pictures: tuple[np.ndarray, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    lesion_ids: np.ndarray
    patients: np.ndarray
    studies: np.ndarray
    folds: np.ndarray
    size_mm: np.ndarray
    volume_mm3: np.ndarray
    mean_hu: np.ndarray
    spacing_mm: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def at(self, rows: Sequence[int] | np.ndarray) -> PictureSet:
        """The lesions ``rows`` (indices or a boolean mask), in that order."""
        indices = np.arange(len(self))[np.asarray(rows)]
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("pictures", "class_names")}
        kept = {name: value[indices] for name, value in values.items()}
        return PictureSet(tuple(self.pictures[i] for i in indices), class_names=self.class_names, **kept)

    @property
    def diameter_mm(self) -> np.ndarray:
        """The longest edge of each box in mm, (n,)."""
        return self.size_mm.max(axis=1)
