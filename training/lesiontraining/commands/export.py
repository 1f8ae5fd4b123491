"""``lesiontrain export``: one fold's fitted network as a verified model folder, its card from what was measured."""

from __future__ import annotations

import colorsys
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from LesionLib.batches import cut_lesion
from LesionLib.bundle import TEMPERATURE
from LesionLib.errors import LesionLensError
from LesionLib.golden import golden_case
from LesionLib.manifest_schema import CLASS_NAME_PATTERN
from LesionLib.sampling_kinds import KINDS, Spec

from .evaluate_command import REPORT_FOLDER
from .export import write_bundle
from .fitted_model import FittedModel
from .fold_reliability import fold_reliability
from .run_card import card
from .run_folder import FoldFolder, RunFolder

METRICS = "metrics.json"
# Okabe and Ito's palette, without black and yellow: told apart by colour-blind eyes, and seen on grey.
_COLORS = (
    (0.0, 0.45, 0.70), (0.84, 0.37, 0.0), (0.0, 0.62, 0.45), (0.80, 0.47, 0.65), (0.34, 0.71, 0.91), (0.90, 0.62, 0.0),
)  # fmt: skip
_CLASS_NAME = re.compile(CLASS_NAME_PATTERN)


class ExportError(LesionLensError):
    """A run that cannot become a model folder."""


@dataclass(frozen=True)
class ExportPlan:
    """What a model folder says that no run knows."""

    name: str
    version: str
    description: str
    intended_use: str
    license_text: str


def export(run: Path, out: Path, plan: ExportPlan, *, fold: int | None = None) -> str:
    """Write the model folder ``out`` from ``fold`` of ``run`` (default: the first finished); returns its SHA-256.

    Raises `ExportError` where the run was not evaluated, so that no model travels without its figures.
    """
    folder = _fold(run, fold)
    metrics = _metrics(run, folder)
    model, network = FittedModel.load(folder.path)
    if model.input["kind"] not in KINDS:
        msg = (
            f"pictures of kind {model.input['kind']} are no CT, and a model folder answers lesions on CT only; the run and its "
            "report can be used as they are."
        )
        raise ExportError(msg)
    for name in model.class_names:
        if not _CLASS_NAME.fullmatch(name):
            msg = f"{name!r} cannot be the name of a class: letters, digits, spaces, - and _, up to 64. Rename it in the table."
            raise ExportError(msg)
    reliability = fold_reliability(folder.predictions(), classifies=bool(model.class_names))
    calibration = {TEMPERATURE: torch.tensor([model.temperature]), **reliability.tensors()}
    return write_bundle(
        out,
        head=_head(plan, model),
        lesionlens={
            "architecture": model.architecture,
            "arguments": model.arguments,
            "classes": [
                {"name": name, "description": "", "colorRGB": list(color)}
                for name, color in zip(model.class_names, _colors(len(model.class_names)), strict=True)
            ],
            "aggregation": "mean_slice_probability",
            "box_size_mm": list(model.box_size_mm),
            "slice_distance_mm": list(model.slice_distance_mm),
            "training": {
                "fold": folder.number,
                **folder.facts,
                "reliability": reliability.as_json(),
                "metrics": metrics,
            },
            "not_for_clinical_use": True,
        },
        network=network,
        spec=model.spec,
        calibration=calibration,
        card=card(plan, model, folder, metrics, reliability),
        license_text=plan.license_text,
    )


def _fold(run: Path, number: int | None) -> FoldFolder:
    finished = RunFolder(run).finished_folds()
    if number is None:
        return finished[0]
    chosen = [fold for fold in finished if fold.number == number]
    if not chosen:
        msg = f"fold {number} of {run} is not finished; finished are {', '.join(str(f.number) for f in finished)}."
        raise ExportError(msg)
    return chosen[0]


def _metrics(run: Path, fold: FoldFolder) -> dict[str, Any]:
    for path in (run / REPORT_FOLDER / METRICS, run / REPORT_FOLDER / f"split-{fold.number}" / METRICS):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    msg = f"{run} was not evaluated, and no model travels without its figures; run lesiontrain evaluate {run} first."
    raise ExportError(msg)


def _head(plan: ExportPlan, model: FittedModel) -> dict[str, Any]:
    return {
        "name": plan.name,
        "version": plan.version,
        "description": plan.description,
        "intended_use": plan.intended_use,
        "data_source": model.facts["data"]["credit"],
        "network_data_format": {
            "inputs": {"image": _input_format(model.spec)},
            "outputs": {"pred": _output_format(model.class_names)},
        },
    }


def _input_format(spec: Spec) -> dict[str, Any]:
    _, channels, *shape = cut_lesion(*golden_case(), spec).pictures.shape
    return {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "is_patch_data": True,
    }


def _output_format(class_names: tuple[str, ...]) -> dict[str, Any]:
    if not class_names:
        return {"type": "embedding"}
    names = {str(place): name for place, name in enumerate(class_names)}
    return {"type": "probabilities", "num_channels": len(names), "channel_def": names}


def _colors(count: int) -> list[tuple[float, float, float]]:
    if count <= len(_COLORS):
        return list(_COLORS[:count])
    return [tuple(round(c, 2) for c in colorsys.hsv_to_rgb(i / count, 0.75, 0.85)) for i in range(count)]
