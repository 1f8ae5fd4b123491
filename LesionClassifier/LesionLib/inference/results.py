"""What is said of one lesion, and how it is written down: JSON and CSV with stable keys."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from LesionLib.errors import InputWarning
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import LesionBox
from LesionLib.io.boxes import box_to_json
from LesionLib.io.csv_cells import csv_cell
from LesionLib.sampling.statistics import LesionStatistics
from LesionLib.uncertainty.reliability import Reliability

RGB = tuple[float, float, float]


class ColoredClasses(Protocol):
    """What knows classes and their colours: a model, its description, an answer. ``class_colors``: 0 ... 1, in the same order."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def class_colors(self) -> tuple[RGB, ...]: ...


def color_by_class(model: ColoredClasses) -> dict[str, RGB]:
    """The colour of each class, by its name."""
    return dict(zip(model.class_names, model.class_colors, strict=True))


def color_bytes(color: RGB) -> tuple[int, int, int]:
    """A colour, 0 ... 1, as Qt takes it: 0 ... 255."""
    red, green, blue = (round(255 * part) for part in color)
    return red, green, blue


def css_color(color: RGB) -> str:
    """A colour, 0 ... 1, as a page or a label in rich text takes it."""
    return "rgb({},{},{})".format(*color_bytes(color))


@dataclass(frozen=True)
class SimilarCase:
    """A case of the library and its cosine similarity to the lesion."""

    case_id: str
    label: str
    similarity: float


@dataclass(frozen=True, eq=False)
class LesionResult:
    """The answer for one box. ``embedding`` is L2-normalised float32, (d,); ``heat_map`` explains ``label``.

    ``seen``: what the model really looked at, padding left out.
    """

    name: str
    box: LesionBox
    label: str
    probabilities: dict[str, float]
    embedding: np.ndarray
    heat_map: HeatMap | None
    warnings: tuple[InputWarning, ...] = ()
    similar_cases: tuple[SimilarCase, ...] = field(default=())
    reliability: Reliability = field(default_factory=Reliability)
    statistics: LesionStatistics | None = None
    seen: tuple[LesionBox, ...] = ()


@dataclass(frozen=True)
class RunInfo:
    """What all results of a run share. ``software``: what computed them, with versions."""

    volume: str
    model_name: str
    model_version: str
    model_sha256: str
    device: str
    software: str = ""


def heat_map_file(number: int) -> str:
    """File name of the Grad-CAM volume of the n-th result, counted from 1."""
    return f"gradcam_{number}.nrrd"


def as_json(run: RunInfo, results: Sequence[LesionResult]) -> dict:
    """The content of ``results.json``."""
    return {
        "volume": run.volume,
        "model": {"name": run.model_name, "version": run.model_version, "sha256": run.model_sha256},
        "device": run.device,
        "software": run.software,
        "results": [_result_as_json(number, result) for number, result in enumerate(results, start=1)],
        "notice": "Research use only, not for diagnosis.",
    }


def as_csv(run: RunInfo, results: Sequence[LesionResult]) -> str:
    """The content of ``results.csv``: one row a lesion, one column a class."""
    classes = list(results[0].probabilities) if results else []
    header = ["name", "label", *(f"p_{name}" for name in classes)]
    header += ["center_r", "center_a", "center_s", "size_x", "size_y", "size_z", "grad_cam", "warnings"]
    header += [*_reliability_columns(None), *_statistics_columns(None)]
    header += ["volume", "model", "model_version", "model_sha256", "device", "software"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, header))
    for number, result in enumerate(results, start=1):
        numbers = [f"{p:.6f}" for p in result.probabilities.values()]
        place = [f"{value:.3f}" for value in (*result.box.centerRAS, *result.box.sizeMm)]
        picture = heat_map_file(number) if result.heat_map else ""
        shared = [run.volume, run.model_name, run.model_version, run.model_sha256, run.device, run.software]
        trust = [*_reliability_columns(result).values(), *_statistics_columns(result.statistics).values()]
        warnings = " | ".join(result.warnings)
        row = [result.name, result.label, *numbers, *place, picture, warnings, *trust, *shared]
        writer.writerow(map(csv_cell, row))
    return text.getvalue()


def _reliability_columns(result: LesionResult | None) -> dict[str, str]:
    """Always the same columns; empty where the model or the run does not measure."""
    known = Reliability() if result is None else result.reliability
    numbers = {
        "set_coverage": known.promised,
        "distance": known.distance,
        "usual_distance": known.usual_distance,
        "heat_inside": known.heat_inside,
        "redrawn_min": None,
        "redrawn_max": None,
        "redrawn_same_answer": None,
    }
    if known.spread is not None and known.spread.answered:
        spread = known.spread
        numbers["redrawn_min"], numbers["redrawn_max"] = spread.minimum[spread.label], spread.maximum[spread.label]
        numbers["redrawn_same_answer"] = spread.share_keeping
    written = {name: "" if value is None else f"{value:.6f}" for name, value in numbers.items()}
    return {"prediction_set": " | ".join(known.prediction_set or ()), **written}


def _statistics_columns(known: LesionStatistics | None) -> dict[str, str]:
    """Always the same columns; empty where nothing was measured."""
    if known is None:
        names = (
            "measured_in",
            "longest_edge_mm",
            "volume_ml",
            "hu_mean",
            "hu_sd",
            "hu_minimum",
            "hu_median",
            "hu_maximum",
        )
        return dict.fromkeys(names, "")
    hu = (known.hu_mean, known.hu_sd, known.hu_minimum, known.hu_median, known.hu_maximum)
    numbers = [
        known.measured_in,
        f"{known.edges_mm[0]:.3f}",
        f"{known.volume_ml:.4f}",
        *(f"{value:.1f}" for value in hu),
    ]
    return dict(zip(_statistics_columns(None), numbers, strict=True))


def _statistics_as_json(known: LesionStatistics) -> dict:
    return {
        "measuredIn": known.measured_in,
        "edgesMm": [round(edge, 3) for edge in known.edges_mm],
        "volumeMl": round(known.volume_ml, 4),
        "hu": {
            "mean": round(known.hu_mean, 2),
            "sd": round(known.hu_sd, 2),
            "minimum": round(known.hu_minimum, 2),
            "median": round(known.hu_median, 2),
            "maximum": round(known.hu_maximum, 2),
        },
    }


def _result_as_json(number: int, result: LesionResult) -> dict:
    return {
        "name": result.name,
        "box": {key: _rounded(values) for key, values in box_to_json(result.box).items()},
        "label": result.label,
        "probabilities": {name: round(p, 6) for name, p in result.probabilities.items()},
        "statistics": None if result.statistics is None else _statistics_as_json(result.statistics),
        "reliability": result.reliability.to_json(),
        "warnings": [str(warning) for warning in result.warnings],
        "warningNames": [str(warning.name) for warning in result.warnings],
        "gradCam": heat_map_file(number) if result.heat_map else None,
        "similarCases": [
            {"caseId": case.case_id, "label": case.label, "similarity": round(case.similarity, 6)}
            for case in result.similar_cases
        ],
    }


def _rounded(values: np.ndarray) -> list:
    return np.round(values, 6).tolist()
