"""What is written down: keys and columns that programs can rely on."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from LesionLib.errors import InputWarning, WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import LesionBox
from LesionLib.inference.results import (
    LesionResult,
    RunInfo,
    SimilarCase,
    as_csv,
    as_json,
    color_by_class,
    color_bytes,
    css_color,
    heat_map_file,
)
from LesionLib.sampling.statistics import LesionStatistics
from LesionLib.uncertainty.reliability import Reliability
from LesionLib.uncertainty.stability import Stability

# One box was answered: its deviation cannot be computed.
SPREAD = Stability(*(np.array([0.2, 0.8]),) * 3, np.full(2, np.nan), 1, 1, 1, 2, 2.0, 2.0)
RUN = RunInfo('chest, "CT" 1', "lung-nodule-malignancy", "1.2.3", "ab" * 32, "cpu", "LesionLens 0.1.0, torch 2.13.0")
COLUMNS = [
    "name", "label", "p_benign", "p_malignant", "center_r", "center_a", "center_s", "size_x", "size_y", "size_z",
    "grad_cam", "warnings", "prediction_set", "set_coverage", "distance", "usual_distance", "heat_inside", "redrawn_min",
    "redrawn_max", "redrawn_same_answer", "measured_in", "longest_edge_mm", "volume_ml", "hu_mean", "hu_sd", "hu_minimum",
    "hu_median", "hu_maximum", "volume", "model", "model_version", "model_sha256", "device", "software", "usable",
    "warning_codes", "longest_axial_diameter_mm", "perpendicular_diameter_mm", "mean_diameter_mm",
    "in_set_benign", "in_set_malignant", *(f"warns_{code.replace('-', '_')}" for code in map(str, WarningName)),
]  # fmt: skip


@pytest.fixture
def results() -> list[LesionResult]:
    heat = HeatMap(np.ones((2, 3, 4), np.float32), np.eye(4), 0.7, "malignant")
    angle = np.deg2rad(30)
    axes = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    embedding = np.full(4, 0.5, np.float32)
    return [
        LesionResult(
            name="L1",
            box=LesionBox([1.23456789, -2, 3], [4, 5, 6], axes, name="L1"),
            label="malignant",
            probabilities={"benign": 0.12345678, "malignant": 0.87654322},
            embedding=embedding,
            heat_map=heat,
            warnings=(
                InputWarning(WarningName.BOX_SIZE, "The box is large, see there."),
                InputWarning(WarningName.FEW_SLICES, "Only one slice."),
            ),
            reliability=Reliability(("malignant", "benign"), 0.9, 3.5, 4.0, SPREAD, 0.75),
            statistics=LesionStatistics("segment", (6.0, 5.0, 4.0), 0.061, -12.3, 40.0, -200.0, 0.0, 90.5),
            similar_cases=(SimilarCase("case-7", "benign", 0.98765432), SimilarCase("case-9", "malignant", 0.5)),
        ),
        LesionResult(
            name='two, "quoted"\nlines',
            box=LesionBox([0, 0, 0], [1, 1, 1]),
            label="benign",
            probabilities={"benign": 1.0, "malignant": 0.0},
            embedding=embedding,
            heat_map=None,
        ),
    ]


def test_the_json_has_exactly_these_keys(results):
    written = json.loads(json.dumps(as_json(RUN, results)))
    assert list(written) == ["volume", "model", "device", "software", "results", "notice"]
    assert written["model"] == {"name": "lung-nodule-malignancy", "version": "1.2.3", "sha256": "ab" * 32}
    for result in written["results"]:
        assert list(result) == [
            "name", "box", "label", "probabilities", "statistics", "reliability", "warnings", "warningNames", "gradCam",
            "similarCases", "usable", "noAnswer", "details",
        ]  # fmt: skip
        assert list(result["box"]) == ["centerRAS", "sizeMm", "axesRAS"]
    assert written["notice"] == "Research use only, not for diagnosis."


def test_the_json_holds_the_values_to_six_digits(results):
    first, second = json.loads(json.dumps(as_json(RUN, results)))["results"]
    assert first["box"]["centerRAS"] == [1.234568, -2.0, 3.0]
    np.testing.assert_allclose(first["box"]["axesRAS"], results[0].box.axesRAS, atol=1e-6)
    assert first["probabilities"] == {"benign": 0.123457, "malignant": 0.876543}
    assert first["warnings"] == ["The box is large, see there.", "Only one slice."]
    assert first["warningNames"] == ["box-size", "few-slices"]
    assert first["gradCam"] == heat_map_file(1) == "gradcam_1.nrrd"
    assert first["similarCases"][0] == {"caseId": "case-7", "label": "benign", "similarity": 0.987654}
    assert (second["gradCam"], second["similarCases"], second["warnings"]) == (None, [], [])


def test_the_csv_has_stable_columns_and_as_many_in_every_row(results):
    header, *rows = csv.reader(io.StringIO(as_csv(RUN, results), newline=""), strict=True)
    assert header == COLUMNS
    assert [len(row) for row in rows] == [len(COLUMNS)] * 2
    first, second = (dict(zip(header, row, strict=True)) for row in rows)
    assert first["p_malignant"] == "0.876543"
    assert [first[f"center_{axis}"] for axis in "ras"] == ["1.235", "-2.000", "3.000"]
    assert first["warnings"] == "The box is large, see there. | Only one slice."
    assert first["grad_cam"] == "gradcam_1.nrrd"
    assert second["grad_cam"] == ""
    assert (first["prediction_set"], first["set_coverage"]) == ("malignant | benign", "0.900000")
    assert (first["measured_in"], first["volume_ml"], first["hu_minimum"]) == ("segment", "0.0610", "-200.0")
    assert second["volume_ml"] == ""
    assert (first["redrawn_min"], first["redrawn_same_answer"]) == ("0.800000", "1.000000")
    assert {second[name] for name in ("prediction_set", "set_coverage", "distance", "heat_inside", "redrawn_max")} == {
        ""
    }
    assert second["name"] == 'two, "quoted"\nlines'
    assert first["volume"] == RUN.volume


def test_json_and_csv_agree(results):
    written = as_json(RUN, results)["results"]
    rows = list(csv.DictReader(io.StringIO(as_csv(RUN, results), newline="")))
    for result, row in zip(written, rows, strict=True):
        assert (result["name"], result["label"]) == (row["name"], row["label"])
        assert float(row["p_benign"]) == result["probabilities"]["benign"]
        np.testing.assert_allclose([float(row[f"size_{axis}"]) for axis in "xyz"], result["box"]["sizeMm"], atol=5e-4)


def test_a_run_without_lesions_is_still_written():
    assert as_json(RUN, [])["results"] == []
    (header,) = csv.reader(io.StringIO(as_csv(RUN, [])))
    assert header == [name for name in COLUMNS if not name.startswith(("p_", "in_set_"))]


def test_what_shares_a_cell_has_columns_of_its_own_with_one_yes_or_no_each(results):
    first, second = csv.DictReader(io.StringIO(as_csv(RUN, results), newline=""))
    assert {name for name, value in first.items() if name.startswith("warns_") and value == "yes"} == {
        "warns_box_size", "warns_few_slices",
    }  # fmt: skip
    assert {value for name, value in second.items() if name.startswith("warns_")} == {"no"}
    assert (first["in_set_benign"], first["in_set_malignant"]) == ("yes", "yes")
    assert (second["in_set_benign"], second["in_set_malignant"]) == ("", "")  # none was made
    part = replace(results[0], reliability=Reliability(("malignant",), 0.9))
    (row,) = csv.DictReader(io.StringIO(as_csv(RUN, [part]), newline=""))
    assert (row["in_set_benign"], row["in_set_malignant"]) == ("no", "yes")
    (silent,) = csv.DictReader(io.StringIO(as_csv(RUN, [replace(part, label="")]), newline=""))
    assert (silent["in_set_benign"], silent["in_set_malignant"]) == ("", "")


def test_a_class_is_found_by_its_name_and_its_colour_is_the_same_in_qt_and_on_a_page():
    model = SimpleNamespace(class_names=("benign", "malignant"), class_colors=((0.0, 0.6, 0.2), (1.0, 0.499, 0.0)))
    colors = color_by_class(model)
    assert list(colors) == ["benign", "malignant"]
    assert color_bytes(colors["malignant"]) == (255, 127, 0)
    assert css_color(colors["benign"]) == "rgb(0,153,51)"


def test_a_model_with_a_colour_too_few_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        color_by_class(SimpleNamespace(class_names=("benign", "malignant"), class_colors=((0.0, 0.6, 0.2),)))
