"""Quiz cases out of whole CTs: a table as every command takes it that works through many, a row a lesion."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from LesionLib.geometry import LesionBox
from LesionLib.io.volumes import read_ct, series_at
from LesionRetrievalLib.library.cases import Case
from LesionRetrievalLib.library.intake import identifying_values, require_anonymous
from LesionRetrievalLib.quiz.making import LabelledLesion
from LesionRetrievalLib.quiz.model import NOBODY, QuizError

from LesionLensApp.case_table import BatchCase, Reading, lesions_of, read_batch
from LesionLensApp.library.cases import is_burned_in, read_identity

_TEXTS = ("label", "label_source", "organ", "feedback")
_READING = Reading(margin_mm=None, split_parts=None, nifti_transform="sform")


class TableCases:
    """The rows of a CSV with ``name``, ``volume``, one of ``boxes``, ``segmentation``, ``mask``, and ``label``: a `QuizCaseSource`.

    Optional columns: ``box`` (which of several in the file, by its name), ``label_source``, ``organ``, ``feedback``, ``patient``,
    ``series``. ``defaults``: what stands for an empty ``label_source`` and ``organ``. ``patient_hash``: see
    `making.CaseFolder`. ``margin_mm``: how far boxes of segmentations and masks reach beyond them. Raises `CaseTableError`.
    """

    def __init__(
        self,
        table: Path,
        *,
        class_names: Sequence[str],
        defaults: argparse.Namespace,
        patient_hash: Callable[[str], str] | None = None,
        margin_mm: float = 0.0,
        keep: Sequence[str] = (),
    ) -> None:
        self._rows = read_batch(table)
        self._defaults, self._patient_hash, self._margin_mm, self._keep = defaults, patient_hash, margin_mm, tuple(keep)
        for row in self._rows:
            if row.values.get("label") not in class_names:
                msg = (
                    f"{row.where}: the label is {row.values.get('label') or 'empty'!r}; give one that the model knows: "
                    f"{', '.join(class_names)}."
                )
                raise QuizError(msg)

    def labels(self) -> Sequence[str]:
        return [row.values["label"] for row in self._rows]

    def patients(self) -> Sequence[str]:
        return [row.values.get("patient") or str(row.volume) for row in self._rows]

    def load(self, index: int) -> LabelledLesion:
        """See `QuizCaseSource`. Raises `QuizError` for a row of several lesions, or one that would name its patient."""
        row = self._rows[index]
        series = series_at(row.volume, row.series)
        if series is not None and is_burned_in(series):
            msg = (
                f"{row.where}: the CT says that text is burned into its images, which may be a name; take another case."
            )
            raise QuizError(msg)
        volume = read_ct(row.volume, series=series or row.series)
        boxes, _ = lesions_of(row, volume, series, _READING, self._margin_mm)
        texts = {name: row.values.get(name) or getattr(self._defaults, name, None) or "" for name in _TEXTS}
        patient = row.values.get("patient") or None
        identity = read_identity(argparse.Namespace(patient=patient, study=None, key=None), series)
        attributes = {name: row.values[name] for name in self._keep if row.values.get(name)}
        source = texts["label_source"] or "table of the teacher"
        case = Case(
            "case",
            texts["label"],
            source,
            texts["organ"] or "not stated",
            NOBODY,
            NOBODY,
            attributes,
            texts["feedback"],
        )
        try:
            require_anonymous(case, (*identity.texts, *identifying_values({**row.values, "name": ""})))
        except ValueError as error:
            msg = f"{row.where}: {error}"
            raise QuizError(msg) from error
        return LabelledLesion(
            volume=volume,
            box=_one_box(row, boxes),
            label=case.label,
            label_source=case.label_source,
            organ=case.organ,
            attributes=attributes,
            patient_hash=self._hash(row, patient or (series.patient_id if series is not None else "")),
            feedback=texts["feedback"],
        )

    def _hash(self, row: BatchCase, patient: str) -> str | None:
        if self._patient_hash is None:
            return None
        if not patient:
            msg = f"{row.where}: neither the file nor the column patient says whose it is; fill it in, or give --other-patients."
            raise QuizError(msg)
        return self._patient_hash(patient)


def _one_box(row: BatchCase, boxes: Sequence[LesionBox]) -> LesionBox:
    wanted = row.values.get("box")
    found = [box for box in boxes if not wanted or box.name == wanted]
    if len(found) != 1:
        names = ", ".join(box.name for box in boxes[:8])
        msg = f"{row.where}: one lesion is needed, and {len(found)} fit; name it in the column box (there are {names})."
        raise QuizError(msg)
    return found[0]
