"""``lesiontrain retrieval``: how well a model folder finds lesions with the same answer, beside chance and beside size."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from LesionLib.inference.classifier import Classifier
from LesionLib.metric import COSINE
from LesionLib.model.bundle import Bundle

from lesiontraining.data.lesions import LesionTable, ct_lesions
from lesiontraining.evaluation.baselines import size_as_angle
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.reporting.figures import FIGURES, RULES, SearchRow, search_rows
from lesiontraining.reporting.model_card import signed
from lesiontraining.runs.table_answers import LesionMeasures, table_predictions

SIZE = "size alone"
_SHOWN = ("ap_a", "p_at_1", "p_at_k")


def embedded(table: LesionTable, bundle: Bundle, *, progress: Callable[[int, int], None] | None = None) -> Predictions:
    """Every lesion of a table of CTs by ``bundle``; probabilities are left at equal shares, for only embeddings are asked."""
    vectors, measures = [], LesionMeasures()
    for done, (_, volume, box) in enumerate(ct_lesions(table, margin_mm=bundle.segment_margin_mm), start=1):
        vectors.append(Classifier(bundle, volume).embed(box))
        measures.add(volume, box)
        if progress is not None:
            progress(done, len(table))
    return replace(table_predictions(table, measures, embeddings=np.stack(vectors)), metric=bundle.metric)


def retrieval_rows(model: Predictions, name: str, *, draws: int = 2000, seed: int = 0) -> list[SearchRow]:
    """The model and the size alone, under every patient rule."""
    size = replace(model, embeddings=size_as_angle(model.volume_mm3), metric=COSINE)
    rows, _ = search_rows({name: model, SIZE: size}, draws=draws, seed=seed)
    return rows


def as_text(rows: list[SearchRow], label: str, counts: dict[str, int]) -> str:
    """A Markdown table with intervals, chance beside every figure."""
    lesions = ", ".join(f"{count} {name}" for name, count in counts.items())
    head = f"Same {label} is relevant ({lesions}). In brackets: 95 % interval, patients drawn; chance: a random order."
    names = " | ".join(f"{FIGURES[f]} | chance" for f in _SHOWN)
    lines = [
        head,
        "",
        f"| searched | by | queries | {names} | model minus this, mAP@10 |",
        "|---" * (4 + 2 * len(_SHOWN)) + "|",
    ]
    for row in rows:
        cells = " | ".join(f"{row.figures[f]} | {row.chance[f]:.3f}" for f in _SHOWN)
        against = "" if row.against is None else signed(row.against)
        lines.append(f"| {RULES[row.rule]} | {row.method} | {row.queries} | {cells} | {against} |")
    return "\n".join(lines)


def write_rows(rows: dict[str, list[SearchRow]], out: Path) -> None:
    """All of it as JSON, by label."""
    values = {label: [row.as_json() for row in of] for label, of in rows.items()}
    out.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
