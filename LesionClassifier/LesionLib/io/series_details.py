"""What a DICOM series says of how it was taken, and which of its images lies where: for people; no answer needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from LesionLib.geometry import LPS_TO_RAS

if TYPE_CHECKING:
    from pydicom import Dataset

    from LesionLib.io.volumes import DicomSeries

_REACH = 0.75  # of the distance between slices: how far from a point its slice may lie
_MAX_LETTERS = 64


@dataclass(frozen=True, eq=False)
class SeriesDetails:
    """Empty, or None, is what the headers do not say, or not all of them alike.

    ``study_date`` (YYYY-MM-DD) and ``description`` may tell whose CT it is: they are shown to those only who ask for them.
    ``normalRAS``: across the slices, (3,); ``depths_mm``: where along it each lies, ascending, (n,); ``instance_numbers``: of the
    same slices, all different; both are empty where it is not known which is which.
    """

    thickness_mm: float | None = None
    kernel: str = ""
    study_date: str = ""
    description: str = ""
    normalRAS: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    depths_mm: np.ndarray = field(default_factory=lambda: np.zeros(0))
    instance_numbers: tuple[int, ...] = ()

    def instance_at(self, pointRAS: Sequence[float]) -> int | None:
        """The instance number of the slice in which a point (RAS mm) lies; None where there is none, or it is not known."""
        if not len(self.depths_mm):
            return None
        away = np.abs(self.depths_mm - float(self.normalRAS @ np.asarray(pointRAS, dtype=float)))
        nearest = int(away.argmin())
        gaps = np.diff(self.depths_mm)
        step = float(np.median(gaps)) if len(gaps) else self.thickness_mm or 1.0
        return self.instance_numbers[nearest] if away[nearest] <= _REACH * step else None

    def to_json(self, *, identifying: bool) -> dict[str, Any]:
        """For ``results.json``. ``identifying``: with date and description."""
        values: dict[str, Any] = {"sliceThicknessMm": self.thickness_mm, "kernel": self.kernel}
        return {**values, "studyDate": self.study_date, "description": self.description} if identifying else values


def series_details(series: DicomSeries) -> SeriesDetails:
    """Of the headers that were read already; what is damaged there is as good as not there."""
    headers = [one.header for one in series.slices]
    thickness = _common([_number(header, "SliceThickness") for header in headers])
    where = _positions(headers)
    return SeriesDetails(
        thickness if thickness and thickness > 0 else None,
        _common([_text(header, "ConvolutionKernel") for header in headers]) or "",
        _common([_date(header) for header in headers]) or "",
        _common([_text(header, "SeriesDescription") for header in headers]) or "",
        *(where or ()),
    )


def _positions(headers: Sequence[Dataset]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]] | None:
    """Normal, depths and instance numbers, from the lowest slice on; None where the headers do not tell all of them apart."""
    numbers = [_number(header, "InstanceNumber") for header in headers]
    if len(set(numbers)) < len(numbers) or any(number is None or number != int(number) for number in numbers):
        return None
    try:
        row, column = np.array(headers[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
        positions = np.array([header.ImagePositionPatient for header in headers], dtype=float).reshape(-1, 3)
    except (ValueError, TypeError, AttributeError):
        return None
    normal = LPS_TO_RAS[:3, :3] @ np.cross(row, column)
    depths = positions @ LPS_TO_RAS[:3, :3] @ normal
    order = np.argsort(depths, kind="stable")
    return normal, depths[order], tuple(int(numbers[index] or 0) for index in order)


def _common(values: Sequence[Any]) -> Any:
    """The value that all have; None where they differ."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _value(header: Dataset, keyword: str) -> Any:
    try:
        return header.get(keyword)
    except Exception:  # what a damaged element makes of the parser can be anything
        return None


def _number(header: Dataset, keyword: str) -> float | None:
    try:
        number = float(_value(header, keyword))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _text(header: Dataset, keyword: str) -> str:
    """One line; of several values all, with a blank between."""
    value = _value(header, keyword)
    parts = [] if value is None else [value] if isinstance(value, str) else list(value)
    letters = "".join(letter if letter.isprintable() else " " for letter in " ".join(map(str, parts)))
    return " ".join(letters.split())[:_MAX_LETTERS]


def _date(header: Dataset) -> str:
    """YYYY-MM-DD; "" for what is no date."""
    digits = _text(header, "StudyDate").replace(".", "")  # with dots in files of before 1993
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).isoformat() if len(digits) == 8 else ""
    except ValueError:
        return ""
