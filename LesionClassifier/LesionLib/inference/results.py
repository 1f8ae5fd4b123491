"""What is said of one lesion, and how it is written down: JSON and CSV with stable keys.

A model abstains where a lesion is outside what it can answer: then there is no label, the reason is a code, and what the
network computed is kept in the details only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from LesionLib.errors import InputWarning, WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import LesionBox
from LesionLib.inference.description import ScoreRow, description_sentence, score_notes, score_rows
from LesionLib.io.boxes import box_to_json
from LesionLib.io.tables import csv_text
from LesionLib.model.codes import DicomCode, code_from_json
from LesionLib.model.scores import ScoreSpec, scores_from_json
from LesionLib.sampling.diameters import Diameters
from LesionLib.sampling.statistics import LesionStatistics
from LesionLib.uncertainty.reliability import Reliability

RGB = tuple[float, float, float]

# With one of these there is no answer: of such lesions the model's training and its figures say nothing.
ABSTENTION_CODES = (WarningName.BOX_SIZE, WarningName.OUT_OF_DISTRIBUTION)
NO_ANSWER = "no answer"
TRAINING_LESION_TEXT = (
    "The model learned from this lesion, or from one at its edge: that it answers well here says nothing of how it answers "
    "lesions that it does not know."
)
_REASONS = {
    WarningName.BOX_SIZE: "its size is outside what the model was trained on",
    WarningName.OUT_OF_DISTRIBUTION: "it looks unlike the lesions the model learned from",
}


def abstention_codes(warnings: Sequence[str]) -> tuple[WarningName, ...]:
    """Why there is no answer, as codes: those warnings with which a model abstains. Empty where it answers."""
    names = {getattr(warning, "name", None) for warning in warnings}
    return tuple(code for code in ABSTENTION_CODES if code in names)


def abstention_sentence(codes: Sequence[WarningName]) -> str:
    """The same for people; "" without a code."""
    if not codes:
        return ""
    return f"The model has no answer for this lesion: {' and '.join(_REASONS[code] for code in codes)}."


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

    ``label`` is empty where the model abstains, see `abstention`; ``probabilities`` are then details that no display shows
    unasked: it shows `shown_probabilities`. ``model_input_boxes``: what the model really looked at, padding left out.

    ``scores``: by name, each on its scale (`RunInfo.scores`), empty for most models; without a label they are details, too, and
    `shown_scores` is empty. ``longest_mm``: how long the lesion is, for a model with scores.
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
    model_input_boxes: tuple[LesionBox, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    longest_mm: float | None = None

    @property
    def abstention(self) -> tuple[WarningName, ...]:
        """Why the model has no answer, as codes; empty where it has one."""
        return abstention_codes(self.warnings)

    @property
    def usable(self) -> bool:
        """Whether the lesion is one that the model can answer."""
        return not self.abstention

    @property
    def shown_probabilities(self) -> dict[str, float]:
        """Those to show: empty where there is no label."""
        return dict(self.probabilities) if self.label else {}

    @property
    def shown_scores(self) -> dict[str, float]:
        """Those to show: empty where there is no label."""
        return dict(self.scores) if self.label else {}

    def score_rows(self, scores: Sequence[ScoreSpec]) -> tuple[ScoreRow, ...]:
        """The scores as they are shown, on these scales; none where there is no label."""
        return score_rows(scores, self.shown_scores, self.reliability.spread)

    def sentence(self, scores: Sequence[ScoreSpec]) -> str:
        """The lesion in one sentence, see `description.description_sentence`; "" for a model without scores."""
        return description_sentence(
            self.label, scores, self.shown_scores, longest_mm=self.longest_mm, statistics=self.statistics
        )

    def score_notes(self, scores: Sequence[ScoreSpec]) -> tuple[str, ...]:
        """Of which of the shown scores the model errs more than a reader does."""
        return score_notes(scores, self.shown_scores)

    @property
    def answered_anyway(self) -> LesionResult:
        """With the likeliest class as its label, usable or not: for those who ask what the network computed all the same."""
        return replace(self, label=max(self.probabilities, key=self.probabilities.__getitem__))

    @property
    def without_abstained(self) -> LesionResult:
        """Without a label and its explanation where the model abstains: also an answer of before models abstained."""
        return self if self.usable else replace(self, label="", heat_map=None)

    @property
    def messages(self) -> tuple[str, ...]:
        """How far to rely on it, in plain words; without a label only why there is none."""
        reason = abstention_sentence(self.abstention)
        if not self.label:
            return (reason,)
        classes = tuple(self.probabilities)
        if not reason:
            return self.reliability.messages(classes)
        # The coverage of a prediction set is that of lesions like those of the calibration: here there is none.
        rest = replace(self.reliability, prediction_set=None).messages(classes)
        return (f"{reason} Its class and probabilities were asked for all the same.", *rest)


@dataclass(frozen=True)
class RunInfo:
    """What all results of a run share. ``software``: what computed them, with versions. ``scores``: the scales of their scores.

    ``finding_site``: where in the body the model's lesions lie; None where it does not say.
    """

    volume: str
    model_name: str
    model_version: str
    model_sha256: str
    device: str
    software: str = ""
    scores: tuple[ScoreSpec, ...] = ()
    finding_site: DicomCode | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the inverse of `from_json`; a model without scores or a finding site has no key for them."""
        values = asdict(replace(self, scores=(), finding_site=None))
        del values["scores"], values["finding_site"]
        if self.scores:
            values["scores"] = [spec.to_json() for spec in self.scores]
        if self.finding_site is not None:
            values["finding_site"] = self.finding_site.to_json()
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunInfo:
        """What `to_json` wrote, also before there were scores and sites. Raises TypeError, ValueError or LookupError."""
        scores, site = scores_from_json(values.get("scores", ())), code_from_json(values.get("finding_site"))
        return cls(**{**values, "scores": scores, "finding_site": site})


HEAT_MAP_FORMATS = ("nrrd", "nii.gz")


def heat_map_file(number: int, ending: str = "nrrd") -> str:
    """File name of the Grad-CAM volume of the n-th result, counted from 1."""
    return f"gradcam_{number}.{ending}"


def as_json(run: RunInfo, results: Sequence[LesionResult], *, heat_map_format: str = "nrrd") -> dict:
    """The content of ``results.json``. ``heat_map_format``: of `HEAT_MAP_FORMATS`, as the maps are written."""
    return {
        "volume": run.volume,
        "model": {"name": run.model_name, "version": run.model_version, "sha256": run.model_sha256},
        "device": run.device,
        "software": run.software,
        **({"scores": [spec.to_json() for spec in run.scores]} if run.scores else {}),
        "results": [
            _result_as_json(run, result, heat_map_file(number, heat_map_format) if result.heat_map else None)
            for number, result in enumerate(results, start=1)
        ],
        "notice": "Research use only, not for diagnosis.",
    }


def as_csv(run: RunInfo, results: Sequence[LesionResult], *, heat_map_format: str = "nrrd") -> str:
    """The content of ``results.csv``: one row a lesion, one column a class and a score. ``heat_map_format``: see `as_json`.

    Some cells hold several texts (warnings, their codes, a prediction set); the last columns say the same with one yes or no each.
    """
    classes = list(results[0].probabilities) if results else []  # also of a lesion without an answer
    scores = [spec.name for spec in run.scores]
    header = ["name", "label", *(f"p_{name}" for name in classes), *(f"score_{name}" for name in scores)]
    header += ["center_r", "center_a", "center_s", "size_x", "size_y", "size_z", "grad_cam", "warnings"]
    header += [*_reliability_columns(None), *_statistics_columns(None)]
    header += ["volume", "model", "model_version", "model_sha256", "device", "software", "usable", "warning_codes"]
    header += ["sentence"] if scores else []
    header += [*_diameter_columns(None), *_yes_or_no_columns(None, classes)]
    rows = [header]
    for number, result in enumerate(results, start=1):
        shown = result.shown_probabilities
        numbers = [f"{shown[name]:.6f}" if name in shown else "" for name in classes]
        of_scores = result.shown_scores
        numbers += [f"{of_scores[name]:.3f}" if name in of_scores else "" for name in scores]
        numbers_of_box = [f"{value:.3f}" for value in (*result.box.centerRAS, *result.box.sizeMm)]
        map_file = heat_map_file(number, heat_map_format) if result.heat_map else ""
        shared = [run.volume, run.model_name, run.model_version, run.model_sha256, run.device, run.software]
        shared += [_yes(result.usable), " | ".join(_codes(result))]
        shared += [result.sentence(run.scores)] if scores else []
        shared += [*_diameter_columns(result.statistics).values(), *_yes_or_no_columns(result, classes).values()]
        trust = [*_reliability_columns(result).values(), *_statistics_columns(result.statistics).values()]
        warnings = " | ".join(result.warnings)
        rows.append([result.name, result.label, *numbers, *numbers_of_box, map_file, warnings, *trust, *shared])
    return csv_text(rows)


def _reliability_columns(result: LesionResult | None) -> dict[str, str]:
    """Always the same columns; empty where the model or the run does not measure."""
    known = Reliability() if result is None else result.reliability
    numbers = {
        "set_coverage": known.target_coverage,
        "distance": known.distance,
        "usual_distance": known.distance_threshold,
        "heat_inside": known.energy_inside,
        "redrawn_min": None,
        "redrawn_max": None,
        "redrawn_same_answer": None,
    }
    is_shown = result is not None and bool(result.label)
    if is_shown and known.spread is not None and known.spread.answered:
        spread = known.spread
        numbers["redrawn_min"], numbers["redrawn_max"] = spread.minimum[spread.label], spread.maximum[spread.label]
        numbers["redrawn_same_answer"] = spread.share_keeping
    written = {name: "" if value is None else f"{value:.6f}" for name, value in numbers.items()}
    names = known.prediction_set if is_shown else None
    return {"prediction_set": " | ".join(names or ()), **written}


def _yes_or_no_columns(result: LesionResult | None, classes: Sequence[str]) -> dict[str, str]:
    """For each class whether it is in the prediction set (empty where there is none), for each kind of warning whether it stands.

    Always the same columns for a model's classes.
    """
    codes = set() if result is None else set(_codes(result))
    kept = result.reliability.prediction_set if result is not None and result.label else None
    in_set = {f"in_set_{name}": "" if kept is None else _yes(name in kept) for name in classes}
    return in_set | {f"warns_{code.replace('-', '_')}": _yes(code in codes) for code in map(str, WarningName)}


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _codes(result: LesionResult) -> list[str]:
    return [str(getattr(warning, "name", "")) for warning in result.warnings]


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


def _diameter_columns(known: LesionStatistics | None) -> dict[str, str]:
    """Always the same columns, mm; empty where there is no segment."""
    found = None if known is None else known.diameters
    lengths = (None,) * 3 if found is None else (found.longest_mm, found.perpendicular_mm, found.mean_mm)
    names = ("longest_axial_diameter_mm", "perpendicular_diameter_mm", "mean_diameter_mm")
    return {name: "" if mm is None else f"{mm:.2f}" for name, mm in zip(names, lengths, strict=True)}


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
        "diameters": None if known.diameters is None else _diameters_as_json(known.diameters),
    }


def _diameters_as_json(known: Diameters) -> dict:
    return {
        "longestAxialMm": round(known.longest_mm, 2),
        "perpendicularMm": round(known.perpendicular_mm, 2),
        "meanMm": round(known.mean_mm, 2),
        "longestAxialEndsRAS": [list(point) for point in known.ends],
        "perpendicularEndsRAS": [list(point) for point in known.perpendicular_ends],
    }


def _result_as_json(run: RunInfo, result: LesionResult, map_file: str | None) -> dict:
    described = {}
    if run.scores:
        described = {"scores": _rounded_scores(result.shown_scores), "sentence": result.sentence(run.scores)}
    return {
        "name": result.name,
        "box": {key: _rounded(values) for key, values in box_to_json(result.box).items()},
        "label": result.label,
        "probabilities": _rounded_probabilities(result.shown_probabilities),
        **described,
        "statistics": None if result.statistics is None else _statistics_as_json(result.statistics),
        "reliability": _reliability_as_json(result),
        "warnings": [str(warning) for warning in result.warnings],
        "warningNames": [str(warning.name) for warning in result.warnings],
        "gradCam": map_file,
        "similarCases": [
            {"caseId": case.case_id, "label": case.label, "similarity": round(case.similarity, 6)}
            for case in result.similar_cases
        ],
        "usable": result.usable,
        "noAnswer": [str(code) for code in result.abstention],
        "details": None if result.label else _details(result),
    }


def _reliability_as_json(result: LesionResult) -> dict:
    """Without a label nothing that names a class."""
    known = result.reliability.to_json()
    return known if result.label else {**known, "predictionSet": None, "boxSpread": None}


def _details(result: LesionResult) -> dict:
    """What the network computed where there is no answer: no diagnosis, and nothing that its figures speak of."""
    known = result.reliability.to_json()
    return {
        "probabilities": _rounded_probabilities(result.probabilities),
        "predictionSet": known["predictionSet"],
        "boxSpread": known["boxSpread"],
        **({"scores": _rounded_scores(result.scores)} if result.scores else {}),
    }


def _rounded_scores(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def _rounded_probabilities(probabilities: dict[str, float]) -> dict[str, float]:
    return {name: round(p, 6) for name, p in probabilities.items()}


def _rounded(values: np.ndarray) -> list:
    return np.round(values, 6).tolist()
