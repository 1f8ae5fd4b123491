"""The three sets of an experiment looked through for leaks, with lesions named as the table names them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..evaluation.leaks import Leak, LeakReport, check_leaks, shared_pictures
from .picture_set import PictureSet
from .splits import Split

_FLAT = 2.5  # deviation in grey levels of 255 below which a plane shows nothing that could be recognised


def leaks_between_sets(pictures: PictureSet, split: Split, *, looks: Sequence[np.ndarray]) -> LeakReport:
    """Patients, studies and pictures on two sides of the split; lesions are named by their identifier.

    ``looks``: a plane (row, column) of each lesion, uint8, by which it would be recognised. Flat ones are left out: they
    are all alike and say nothing.
    """
    names = split.names(len(pictures))
    rows = np.flatnonzero(names != "")
    identifiers = {"patient": pictures.patients[rows], "study": pictures.studies[rows]}
    report = check_leaks(names[rows], identifiers=identifiers)
    shown = np.array([row for row in rows if looks[row].std() > _FLAT], dtype=int)
    if len(np.unique(names[shown])) < 2:
        return report
    found = shared_pictures([looks[row] for row in shown], names[shown])
    checked = (
        f"identical and near-identical pictures on both sides of a split ({len(shown)} of {len(rows)} show enough)"
    )
    named = tuple(_named(leak, pictures.lesion_ids[shown]) for leak in found)
    return LeakReport((*report.findings, *named), (*report.checked, checked))


def _named(leak: Leak, lesion_ids: np.ndarray) -> Leak:
    """Rows of the pictures that were compared as lesions."""
    named = (re.sub(r"\d+", lambda match: str(lesion_ids[int(match[0])]), text) for text in leak.examples)
    return replace(leak, examples=tuple(text.replace("rows ", "", 1) for text in named))
