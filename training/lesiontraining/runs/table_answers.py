"""The lesions of a table as rows of `Predictions`: what is measured of each, and what a model says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.sampling.statistics import lesion_statistics

from lesiontraining.data.lesions import LesionTable
from lesiontraining.evaluation.predictions import Predictions


@dataclass(eq=False)
class LesionMeasures:
    """Of each lesion: box edges and voxel edges in mm, volume in mm3, mean HU, in the order in which they were added."""

    size_mm: list[np.ndarray] = field(default_factory=list)
    spacing_mm: list[tuple[float, float, float]] = field(default_factory=list)
    volume_mm3: list[float] = field(default_factory=list)
    mean_hu: list[float] = field(default_factory=list)

    def add(self, volume: CTVolume, box: LesionBox) -> None:
        """Measure one more. Raises `BoxError` where nothing of it lies in the CT."""
        measured = lesion_statistics(volume, box)
        self.size_mm.append(box.sizeMm)
        self.spacing_mm.append(volume.spacingMm)
        self.volume_mm3.append(1000.0 * measured.volume_ml)
        self.mean_hu.append(measured.hu_mean)


def table_predictions(
    table: LesionTable,
    measures: LesionMeasures,
    *,
    embeddings: np.ndarray,
    probabilities: np.ndarray | None = None,
    folds: np.ndarray | None = None,
) -> Predictions:
    """All lesions of the table as tested ones, named by their line.

    ``embeddings``: (n, d), L2-normalised; ``probabilities``: (n, class), equal shares where only embeddings are asked;
    ``folds``: (n,), the fold in which each was held out, else one for all.
    """
    n, classes = len(table), max(2, len(table.class_names))
    return Predictions(
        class_names=table.class_names,
        lesion_ids=np.array([f"line {row.line}" for row in table.rows]),
        patients=table.patients,
        studies=table.studies,
        folds=np.zeros(n, dtype=int) if folds is None else folds,
        split=np.full(n, "test"),
        labels=table.labels,
        probabilities=np.full((n, classes), 1 / classes) if probabilities is None else probabilities,
        embeddings=np.asarray(embeddings, dtype=np.float64),
        size_mm=np.stack(measures.size_mm),
        volume_mm3=np.array(measures.volume_mm3),
        mean_hu=np.array(measures.mean_hu),
        spacing_mm=np.stack(measures.spacing_mm),
    )
