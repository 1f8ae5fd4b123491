"""``lesiontrain box-margin``: what a margin around segments does to answers and similar cases, and what a user gets by default.

Lesions with masks are put into a library as a model was made for, and asked for again with several margins, the model's own
first: what a user gets who changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LesionLib.inference.classifier import Classifier
from LesionLib.io.boxes import read_case_table
from LesionLib.model.bundle import Bundle

from lesiontraining.evaluation.intervals import Estimate, PatientDraws, interval, over

NINE = 9
FIGURES = {
    "itself_first": "the lesion itself comes first",
    "class_changes": "the likeliest class is another",
    "no_answer": "no answer",
    "same_nine": "of the nine, those that the library's own box finds too",
    "same_label": "of the nine, those with the lesion's label",
}


@dataclass(frozen=True, eq=False)
class AskedLesions:
    """Every lesion asked for with each of ``margins_mm``, the first of which its library has.

    ``embeddings``: (margin, lesion, d), of length 1. ``answers``: the likeliest class, and ``usable``: whether the model has an
    answer, (margin, lesion) each. ``labels`` and ``patients``: (lesion,).
    """

    margins_mm: tuple[float, ...]
    embeddings: np.ndarray
    answers: np.ndarray
    usable: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


def asked(
    folder: Path,
    bundle: Bundle,
    *,
    margins_mm: Sequence[float],
    label: str,
    progress: Callable[[int, int], None] | None = None,
) -> AskedLesions:
    """Ask ``bundle`` about every lesion of a folder of cases, with its own margin and with each of ``margins_mm``.

    Raises `CaseTableError`, or `BundleError` for a model without classes.
    """
    rows = read_case_table(folder, columns=["patient_id", label])
    own = bundle.segment_margin_mm
    margins = (own, *(mm for mm in margins_mm if mm != own))
    embeddings, answers, usable = [], [], []
    for done, row in enumerate(rows, start=1):
        volume, tight, _ = row.load()
        classifier = Classifier(bundle, volume)
        results = [classifier.classify(tight.grown(margin)) for margin in margins]
        embeddings.append([result.embedding for result in results])
        answers.append([result.answered_anyway.label for result in results])
        usable.append([result.usable for result in results])
        if progress is not None:
            progress(done, len(rows))
    return AskedLesions(
        margins_mm=margins,
        embeddings=np.swapaxes(np.array(embeddings), 0, 1),
        answers=np.array(answers).T,
        usable=np.array(usable).T,
        labels=np.array([row.values[label] for row in rows]),
        patients=np.array([row.values["patient_id"] for row in rows]),
    )


def compared(lesions: AskedLesions, *, draws: int = 2000) -> dict[float, dict[str, Estimate]]:
    """By margin and figure (`FIGURES`) the share of lesions, with the interval of a bootstrap over patients.

    The nine are of other patients, as a user's are who knows whose the CT is.
    """
    drawn = PatientDraws(lesions.patients, draws=draws)
    library = lesions.embeddings[0]
    is_other = lesions.patients[:, None] != lesions.patients[None, :]
    theirs = _nearest(library @ library.T, is_other)
    found = {}
    for index, margin in enumerate(lesions.margins_mm):
        similarity = lesions.embeddings[index] @ library.T
        nine = _nearest(similarity, is_other)
        shares = {
            "itself_first": similarity.argmax(axis=1) == np.arange(len(library)),
            "class_changes": lesions.answers[index] != lesions.answers[0],
            "no_answer": ~lesions.usable[index],
            "same_nine": np.array([np.isin(a, b).mean() for a, b in zip(nine, theirs, strict=True)]),
            "same_label": (lesions.labels[nine] == lesions.labels[:, None]).mean(axis=1),
        }
        found[margin] = {name: interval(over(np.mean, values.astype(float)), drawn) for name, values in shares.items()}
    return found


def as_text(found: dict[float, dict[str, Estimate]]) -> str:
    """A Markdown table: a row a margin, the model's own first."""
    (own, first), *_ = found.items()
    some = first["itself_first"]
    head = (
        f"{some.lesions} lesions of {some.patients} patients, in a library with boxes {own:g} mm beyond their segments. "
        f"In brackets: 95 % interval over {some.draws} bootstrap samples of patients."
    )
    lines = [
        head,
        "",
        "| margin of the query | " + " | ".join(FIGURES.values()) + " |",
        "|---" * (1 + len(FIGURES)) + "|",
    ]
    for margin, figures in found.items():
        cells = " | ".join(_percent(figures[name]) for name in FIGURES)
        lines.append(f"| {margin:g} mm{' (default)' if margin == own else ''} | {cells} |")
    return "\n".join(lines)


def write_comparison(found: dict[float, dict[str, Estimate]], out: Path) -> None:
    """All of it as JSON, by margin."""
    values = {f"{margin:g}": {name: e.as_json() for name, e in figures.items()} for margin, figures in found.items()}
    out.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _nearest(similarity: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The nine most similar of those allowed, best first, (lesion, 9)."""
    return np.argsort(-np.where(allowed, similarity, -np.inf), axis=1, kind="stable")[:, :NINE]


def _percent(figure: Estimate) -> str:
    return f"{figure.value:.1%} ({figure.low:.1%}-{figure.high:.1%})"
