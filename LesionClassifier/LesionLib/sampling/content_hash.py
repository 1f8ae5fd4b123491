"""Which lesions a model learned from, as hashes of image content: recognised again, and nothing else can be read from them.

A lesion's hash is that of one small window of voxels, chosen by content (a minimizer: Roberts et al., Bioinformatics 2004).
All windows of 5 x 5 voxels of one slice whose middle lies in the lesion's box are hashed, and the smallest hash stands for
the lesion. Whoever asks about a box hashes all windows in it and 3 mm around and looks whether a known hash is among
them. So a box that is drawn a little differently, or larger, finds the lesion all the same.

Stable to the file format: values are whole HU (int16), the lattice is first turned so that its axes run towards R, A and S.
Neither spacing nor origin enters, for formats round them differently. A CT that was resampled, filtered, windowed or
compressed with loss is another content and is not recognised: no match is no proof that a lesion is new to a model.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from LesionLib.errors import BundleError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points

METHOD = "int16-window-5x5-minimizer-1"
_EDGE = 5  # voxels
_AROUND_MM = 3.0  # as far as two readers' boxes of one lesion differ
_FLATTEST_HU = 30  # windows with less between their values are air, padding or clipped: alike in many CTs
_MAX_WINDOWS = 8_000_000  # a box far larger than any lesion

CONTENT_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["method", "hashes"],
    "properties": {
        "method": {"type": "string", "pattern": r"^[a-z0-9-]{1,64}\Z"},
        "hashes": {
            "type": "string",
            "pattern": r"^[A-Za-z0-9+/]*={0,2}\Z",
            "maxLength": 16 * 1024**2,
            "description": "base64 of the lesions' hashes, uint64, little endian, ascending",
        },
    },
}


def window_hashes(volume: CTVolume, box: LesionBox, *, margin_mm: float = 0.0) -> np.ndarray:
    """The hashes of all windows whose middle lies in ``box`` and ``margin_mm`` around it, uint64, shape (n,).

    Empty where the box holds no whole window with any contrast, or is far larger than a lesion.
    """
    array, to_ras = _towards_ras(volume)
    corners = transformed_points(np.linalg.inv(to_ras), box.grown(margin_mm).cornersRAS)
    reach = np.array([_EDGE // 2, _EDGE // 2, 0])
    size = np.array(array.shape[::-1])
    low = np.maximum(np.ceil(corners.min(axis=0) - 1e-3).astype(int), reach) - reach
    high = np.minimum(np.floor(corners.max(axis=0) + 1e-3).astype(int), size - 1 - reach) + reach + 1
    shape = high - low
    if (shape < 2 * reach + 1).any() or np.prod(shape) > _MAX_WINDOWS:
        return np.empty(0, np.uint64)
    part = array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    limits = np.iinfo(np.int16)
    return _hashed(np.clip(np.rint(part), limits.min, limits.max).astype(np.int64))


def lesion_hash(volume: CTVolume, box: LesionBox) -> int | None:
    """The hash by which a model's training lesion is recognised; None where the box holds nothing to recognise it by."""
    found = window_hashes(volume, box)
    return int(found.min()) if found.size else None


@dataclass(frozen=True, eq=False)
class TrainingContent:
    """The hashes of the lesions that a model learned from, ascending, uint64, shape (n,)."""

    hashes: np.ndarray

    @classmethod
    def of(cls, hashes: Iterable[int | None]) -> TrainingContent:
        """Of `lesion_hash` of each; those that have none are left out."""
        known = sorted({value for value in hashes if value is not None})
        return cls(np.array(known, dtype=np.uint64))

    @classmethod
    def from_manifest(cls, section: Mapping[str, Any] | None) -> TrainingContent | None:
        """What `to_manifest` gave; None without one, or one by a method that is not known here. Raises `BundleError`."""
        if section is None or section["method"] != METHOD:
            return None
        try:
            raw = base64.b64decode(section["hashes"], validate=True)
            return cls(np.unique(np.frombuffer(raw, dtype="<u8").astype(np.uint64)))
        except (binascii.Error, ValueError) as error:
            msg = f"the list of the lesions that the model learned from cannot be read ({error}); get the model again."
            raise BundleError(msg) from error

    def to_manifest(self) -> dict[str, str]:
        """For the manifest's ``training_content``: eight bytes a lesion, in base64."""
        return {"method": METHOD, "hashes": base64.b64encode(self.hashes.astype("<u8").tobytes()).decode("ascii")}

    def holds(self, volume: CTVolume, box: LesionBox) -> bool:
        """Whether the box shows a lesion, or the edge of one, that the model learned from."""
        if not self.hashes.size:
            return False
        return bool(np.isin(window_hashes(volume, box, margin_mm=_AROUND_MM), self.hashes).any())


def _towards_ras(volume: CTVolume) -> tuple[np.ndarray, np.ndarray]:
    """The voxels as a view (s, a, r) whose axes run towards S, A and R as nearly as the lattice does, and its affine."""
    array, matrix = volume.array, np.array(volume.ijkToRAS, dtype=float)
    directions = np.abs(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0))
    order = [0, 1, 2]  # for R, A, S: which of i, j, k
    left = directions.copy()
    for _ in range(3):
        of_body, of_lattice = np.unravel_index(int(left.argmax()), left.shape)
        order[of_body] = int(of_lattice)
        left[of_body, :], left[:, of_lattice] = -1.0, -1.0
    array = array.transpose([2 - order[2], 2 - order[1], 2 - order[0]])
    matrix = matrix[:, [*order, 3]]
    for axis in range(3):
        if matrix[axis, axis] < 0:
            array = np.flip(array, axis=2 - axis)
            matrix[:3, 3] += matrix[:3, axis] * (array.shape[2 - axis] - 1)
            matrix[:3, axis] *= -1
    return array, matrix


def _hashed(values: np.ndarray) -> np.ndarray:
    """Of each window of (k, j, i) whole numbers a linear hash over the integers modulo 2**64, then mixed."""
    rows, columns = values.shape[1] - _EDGE + 1, values.shape[2] - _EDGE + 1
    raw = values.astype(np.uint64)  # negative numbers wrap round, as they should
    total = np.zeros((len(values), rows, columns), np.uint64)
    highest = np.full(total.shape, -(2**15), np.int64)
    lowest = np.full(total.shape, 2**15, np.int64)
    for place, (j, i) in enumerate(np.ndindex(_EDGE, _EDGE)):
        window = (slice(None), slice(j, j + rows), slice(i, i + columns))
        total += raw[window] * _FACTORS[place]
        np.maximum(highest, values[window], out=highest)
        np.minimum(lowest, values[window], out=lowest)
    return _mixed(total[highest - lowest >= _FLATTEST_HU])


def _mixed(values: np.ndarray) -> np.ndarray:
    """Steele, Lea and Flood's finaliser of SplitMix64 (OOPSLA 2014): every bit of the input moves half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# One odd factor for each voxel of a window; odd, so that no voxel's bits are lost.
_FACTORS = _mixed(np.arange(1, _EDGE**2 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
