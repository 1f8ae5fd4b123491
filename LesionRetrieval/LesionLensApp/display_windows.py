"""With which window a lesion is shown: the one that was asked for, else one that fits what lies around it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox, voxels_around

AUTO = "auto"
_AROUND_MM = 15.0
_LUNG_HU = (-950.0, -500.0)
_SOFT_HU, _SOFT_SHARE = -160.0, 0.05
_LUNG_SHARE, _BONE_HU, _BONE_SHARE = 0.2, 300.0, 0.4


@dataclass(frozen=True)
class DisplayWindow:
    """``width`` and ``level`` (its middle), HU."""

    name: str
    width: float
    level: float

    @property
    def range_hu(self) -> tuple[float, float]:
        """Black and white."""
        return self.level - self.width / 2, self.level + self.width / 2

    def __str__(self) -> str:
        """As it is printed under a picture."""
        return f"{self.name} window, W {self.width:g} L {self.level:g}"


WINDOWS = {
    window.name: window
    for window in (
        DisplayWindow("lung", 1500, -600),
        DisplayWindow("soft-tissue", 400, 40),
        DisplayWindow("liver", 150, 90),
        DisplayWindow("bone", 2000, 400),
        DisplayWindow("brain", 80, 40),
    )
}


def parsed_window(text: str) -> DisplayWindow | None:
    """A name of `WINDOWS`, or "WIDTH,LEVEL" in HU; None for "auto". Raises `LesionLensError`."""
    if text == AUTO:
        return None
    if text in WINDOWS:
        return WINDOWS[text]
    numbers = re.fullmatch(r"(\d{1,5}(?:\.\d+)?),(-?\d{1,5}(?:\.\d+)?)", text)
    if numbers is None or float(numbers[1]) < 1:
        msg = f"--window is {text!r}; give {AUTO}, {', '.join(WINDOWS)}, or WIDTH,LEVEL in HU, such as 400,40."
        raise LesionLensError(msg)
    return DisplayWindow("own", float(numbers[1]), float(numbers[2]))


def window_around(volume: CTVolume, box: LesionBox) -> DisplayWindow:
    """By content: lung where a fifth of what lies in and around the box is lung, bone where most is dense, else soft tissue."""
    around = voxels_around(volume, box.grown(_AROUND_MM))
    if not around.size:
        return WINDOWS["soft-tissue"]
    if ((around > _LUNG_HU[0]) & (around < _LUNG_HU[1])).mean() >= _LUNG_SHARE:
        return WINDOWS["lung"]
    return WINDOWS["bone" if (around > _BONE_HU).mean() >= _BONE_SHARE else "soft-tissue"]


def paired_window(volume: CTVolume, box: LesionBox, shown: DisplayWindow) -> DisplayWindow | None:
    """The other one of lung and soft tissue, where a box has both in and around it; None where one window shows all."""
    around, inside = voxels_around(volume, box.grown(_AROUND_MM)), voxels_around(volume, box)
    if shown.name not in ("lung", "soft-tissue") or not inside.size:
        return None
    is_lung = ((around > _LUNG_HU[0]) & (around < _LUNG_HU[1])).mean() >= _LUNG_SHARE
    is_soft = (inside > _SOFT_HU).mean() >= _SOFT_SHARE
    return WINDOWS["soft-tissue" if shown.name == "lung" else "lung"] if is_lung and is_soft else None
