"""A network whose last columns are scores becomes a model folder that says so."""

from __future__ import annotations

import json

from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import MANIFEST
from LesionLib.sampling.resample import AxialStackSpec
from lesiontraining.commands.export import write_bundle
from scored_model import CLASSES, SCORES, scored_network


def test_scores_are_no_classes_to_the_golden_probabilities(tmp_path):
    network = scored_network()
    lesionlens = {
        "architecture": "mobilenet_v2",
        "arguments": {"classes": 7, "width": 0.1, "stem_stride": 1, "output_stride": 8},
        "classes": [{"name": name, "description": name, "colorRGB": [0.5, 0.5, 0.5]} for name in CLASSES],
        "scores": list(SCORES),
        "aggregation": "mean_slice_probability",
        "box_size_mm": [3.0, 40.0],
        "slice_distance_mm": [0.4, 3.0],
        "not_for_clinical_use": True,
    }
    head = {
        "name": "scored",
        "version": "1.0.0",
        "description": "d",
        "intended_use": "tests",
        "network_data_format": {},
    }
    write_bundle(
        tmp_path / "scored", head=head, lesionlens=lesionlens, network=network,
        spec=AxialStackSpec(size=32, spacing_mm=1.0, margin_mm=3.0, max_slices=4), calibration={}, card="#", license_text="x",
    )  # fmt: skip
    section = json.loads((tmp_path / "scored" / MANIFEST).read_text())["lesionlens"]
    assert len(section["golden_probabilities"]) == len(CLASSES)
    assert {len(row) for row in section["golden_logits"]} == {len(CLASSES) + len(SCORES)}
    assert [spec.name for spec in load_bundle(tmp_path / "scored").scores] == [entry["name"] for entry in SCORES]
