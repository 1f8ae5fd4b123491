"""``lesiontrain embed-bench``: encoders side by side on one table, beside size and density, patient by patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LesionLib.geometry import LesionBox
from LesionLib.uncertainty.stability import jittered_boxes, lies_inside

from lesiontraining.data.lesions import LesionTable, ct_lesions
from lesiontraining.data.splits import cross_validation_folds
from lesiontraining.evaluation.baselines import baseline_features
from lesiontraining.evaluation.classification import macro_auc
from lesiontraining.evaluation.embedding_protocols import (
    NEIGHBOURS,
    SHOTS,
    Lesions,
    few_shot_scores,
    jitter_stability,
    neighbour_scores,
    probe_scores,
)
from lesiontraining.evaluation.intervals import Difference, Estimate, PatientDraws, difference, interval, over
from lesiontraining.evaluation.predictions import PredictionsError
from lesiontraining.reporting.model_card import markdown_table, signed
from lesiontraining.runs.encoders import Encoder
from lesiontraining.runs.table_answers import LesionMeasures

SIZE, SIZE_AND_HU = "size alone", "size and mean HU"
PROTOCOLS = (f"{NEIGHBOURS} neighbours", "linear probe", *(f"{n}-shot" for n in SHOTS))
STABILITY = ("cosine when the box is drawn otherwise", "finds itself then")
JITTER_MM = 2.0
_SEED = 0


@dataclass(frozen=True, eq=False)
class BenchRow:
    """One method. ``figures``: macro AUC by protocol; ``against``: that minus size and mean HU's, patients drawn.

    ``training_note``: what is known of the lesions that the network learned from.
    ``stability``: by `STABILITY`, empty for size and density, which have no box of their own to be drawn otherwise.
    """

    method: str
    figures: dict[str, Estimate]
    against: dict[str, Difference]
    stability: dict[str, Estimate]
    training_note: str = ""

    def as_json(self) -> dict:
        """For the JSON file."""
        return {
            "method": self.method,
            "training": self.training_note,
            "auc": {name: e.as_json() for name, e in self.figures.items()},
            "minus size and mean HU": {name: d.as_json() for name, d in self.against.items()},
            "stability": {name: e.as_json() for name, e in self.stability.items()},
        }


def embed_bench(
    table: LesionTable,
    encoders: Sequence[Encoder],
    *,
    folds: int | str = 5,
    drawings: int = 4,
    draws: int = 2000,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[BenchRow]:
    """Every encoder, then size alone, then size and mean HU, on the labelled lesions of ``table``.

    ``folds``: a number, or a column with names of folds; ``drawings``: how often each box is drawn otherwise. Raises
    `TableError`, `SplitError`, or `PredictionsError` where there are fewer than two classes.
    """
    known = table.where(lambda row: bool(row.label))
    if len(known.class_names) < 2:
        msg = f"{table.name} has {len(known.class_names)} class(es) with a lesion; two are needed."
        raise PredictionsError(msg)
    numbers, _ = cross_validation_folds(known, folds, seed=_SEED)
    lesions = Lesions(known.labels, known.patients, numbers, len(known.class_names))
    drawn = PatientDraws(known.patients, draws=draws, seed=_SEED)
    methods, stability, notes = {}, {}, {}
    measures = LesionMeasures()
    for encoder in encoders:
        name = f"{encoder.name} {encoder.version}"
        measures = LesionMeasures()
        methods[name], others, learned = _embedded(known, encoder, measures, drawings, progress)
        notes[name] = _training_note(learned)
        if others:
            found = jitter_stability(methods[name], others)
            means = (over(np.mean, values) for values in (found.cosine, found.found_itself))
            stability[name] = {key: interval(mean, drawn) for key, mean in zip(STABILITY, means, strict=True)}
    methods |= _without_images(measures)
    scores = {name: _scores(embeddings, lesions) for name, embeddings in methods.items()}
    return [_row(name, scores, lesions, drawn, stability.get(name, {}), notes.get(name, "")) for name in methods]


def _training_note(learned: Sequence[bool | None]) -> str:
    if None in learned:
        return "does not say what it learned from: where these lesions were among it, its figures are too good."
    if any(learned):
        return f"learned from {sum(map(bool, learned))} of these lesions: its figures are too good."
    return ""


def _embedded(
    table: LesionTable,
    encoder: Encoder,
    measures: LesionMeasures,
    drawings: int,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[np.ndarray, list[np.ndarray], list[bool | None]]:
    learned: list[bool | None] = []
    vectors: list[np.ndarray] = []
    others: list[list[np.ndarray]] = [[] for _ in range(drawings)]
    for done, (row, volume, box) in enumerate(ct_lesions(table, margin_mm=encoder.margin_mm), start=1):
        vectors.append(encoder.embed(volume, box))
        measures.add(volume, box)
        learned.append(encoder.learned_from(volume, box))
        for of_drawing, other in zip(others, _drawn_otherwise(box, drawings, row.line), strict=True):
            of_drawing.append(encoder.embed(volume, other if lies_inside(volume, other) else box))
        if progress is not None:
            progress(encoder.name, done, len(table))
    return np.stack(vectors), [np.stack(of_drawing) for of_drawing in others], learned


def _drawn_otherwise(box: LesionBox, drawings: int, seed: int) -> list[LesionBox]:
    return list(jittered_boxes(box, n=drawings, shift_mm=JITTER_MM, size_mm=JITTER_MM, seed=seed))


def _without_images(measures: LesionMeasures) -> dict[str, np.ndarray]:
    """Standardised, so that neighbours by cosine and shots have a middle to look from."""
    volume, hu = np.array(measures.volume_mm3), np.array(measures.mean_hu)
    return {
        SIZE: _on_circle(_standardised(baseline_features(volume_mm3=volume))),
        SIZE_AND_HU: _on_circle(_standardised(baseline_features(volume_mm3=volume, mean_hu=hu))),
    }


def _standardised(features: np.ndarray) -> np.ndarray:
    return (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-12)


def _on_circle(features: np.ndarray) -> np.ndarray:
    """Each number as a point of a quarter circle: those near each other have a cosine near 1. (n, 2 d), L2-normalised."""
    angles = np.pi / 4 * (1 + np.tanh(features / 2))
    vectors = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _scores(embeddings: np.ndarray, lesions: Lesions) -> dict[str, list[np.ndarray]]:
    """By protocol, one (n, class) for each repeat."""
    found = {PROTOCOLS[0]: [neighbour_scores(embeddings, lesions)], PROTOCOLS[1]: [probe_scores(embeddings, lesions)]}
    return found | {f"{n}-shot": few_shot_scores(embeddings, lesions, shots=n, seed=_SEED) for n in SHOTS}


def _row(
    name: str,
    scores: Mapping[str, Mapping[str, list[np.ndarray]]],
    lesions: Lesions,
    drawn: PatientDraws,
    stability: dict[str, Estimate],
    training_note: str,
) -> BenchRow:
    def of(method: str, protocol: str) -> list:
        return [over(macro_auc, lesions.labels, one) for one in scores[method][protocol]]

    figures = {protocol: interval(of(name, protocol), drawn) for protocol in PROTOCOLS}
    against = {}
    if name != SIZE_AND_HU:
        against = {protocol: difference(of(name, protocol), of(SIZE_AND_HU, protocol), drawn) for protocol in PROTOCOLS}
    return BenchRow(name, figures, against, stability, training_note)


def as_text(rows: Sequence[BenchRow], table: LesionTable) -> str:
    """A Markdown table, every figure with its interval."""
    known = [row.label for row in table.rows if row.label]
    counts = ", ".join(f"{known.count(name)} {name}" for name in table.class_names)
    patients = len({row.patient for row in table.rows if row.label})
    about = (
        f"{len(known)} lesions of {patients} patients ({counts}). Macro AUC over folds of whole patients; in brackets the 95 % "
        "interval, patients drawn. Research use only, not for diagnosis."
    )
    notes = [f"{row.method} {row.training_note}" for row in rows if row.training_note]
    lines: list[Sequence[str]] = []
    for row in rows:
        stability = [str(row.stability[name]) if name in row.stability else "" for name in STABILITY]
        lines.append([row.method, *map(str, row.figures.values()), *stability])
        if row.against:
            lines.append(["minus size and mean HU", *map(signed, row.against.values()), *[""] * len(STABILITY)])
    return "\n".join([about, *notes, "", markdown_table(["", *PROTOCOLS, *STABILITY], lines)])


def write_rows(rows: Sequence[BenchRow], out: Path) -> None:
    """All of it as JSON."""
    text = json.dumps([row.as_json() for row in rows], indent=2, allow_nan=False)
    out.write_text(text + "\n", encoding="utf-8")
