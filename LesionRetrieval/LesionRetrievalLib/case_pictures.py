"""Small grey pictures of a lesion in three planes, laid as radiologists see them."""

from __future__ import annotations

import numpy as np
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.sampling import resample

SIDE = 96
_SURROUNDINGS_MM = 10.0
# Columns and rows of the picture in RAS: patient's right on the left, feet down, nose to the left in sagittal.
_PLANES = {
    "axial": ((-1, 0, 0), (0, -1, 0)),
    "coronal": ((-1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, -1, 0), (0, 0, -1)),
}


def case_pictures(
    volume: CTVolume, box: LesionBox, *, window_hu: tuple[float, float] = (-1350.0, 150.0)
) -> dict[str, np.ndarray]:
    """Plane -> uint8 grey (96, 96) through the centre of the box; black where there is no CT.

    The picture holds the whole box with 10 mm around it. ``window_hu`` runs from black to white.
    """
    extent = np.ptp(box.cornersRAS, axis=0).max() + 2 * _SURROUNDINGS_MM
    pixel_mm = extent / SIDE
    pictures = {}
    for plane, (column, row) in _PLANES.items():
        to_ras = np.eye(4)
        to_ras[:3, 0], to_ras[:3, 1] = np.array(column) * pixel_mm, np.array(row) * pixel_mm
        to_ras[:3, 2] = np.cross(column, row)
        to_ras[:3, 3] = box.centerRAS - (to_ras[:3, 0] + to_ras[:3, 1]) * (SIDE - 1) / 2
        hu, inside = resample(volume, to_ras, (SIDE, SIDE, 1))
        grey = np.clip((hu[0] - window_hu[0]) / (window_hu[1] - window_hu[0]), 0, 1) * 255
        pictures[plane] = np.where(inside[0], grey, 0).astype(np.uint8)
    return pictures
