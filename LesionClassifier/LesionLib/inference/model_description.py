"""Who a loaded model is, as JSON: how it crosses the border of a process or a network. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from LesionLib.inference.messages import ModelDescription, RunnerError
from LesionLib.model.scores import scores_from_json


def description_to_json(description: ModelDescription) -> dict[str, Any]:
    """A model without what its manifest says anyway."""
    return {
        "name": description.name,
        "version": description.version,
        "sha256": description.sha256,
        "class_names": description.class_names,
        "class_colors": description.class_colors,
        "manifest": description.manifest,
        "folder": str(description.folder),
        "device": description.device,
        "scores": [spec.to_json() for spec in description.scores],
    }


def description_from_json(values: Mapping[str, Any]) -> ModelDescription:
    """The inverse of `description_to_json`. Raises `RunnerError` for what is none."""
    from LesionLib.sampling.inputs import spec_from_section  # needs jsonschema

    try:
        return ModelDescription(
            name=values["name"],
            version=values["version"],
            sha256=values["sha256"],
            class_names=tuple(values["class_names"]),
            class_colors=tuple(tuple(color) for color in values["class_colors"]),
            spec=spec_from_section(values["manifest"]["lesionlens"]["input"]),
            manifest=values["manifest"],
            folder=Path(values["folder"]),
            device=values["device"],
            scores=scores_from_json(values["scores"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        msg = f"what the worker says of the model cannot be read ({type(error).__name__}: {error}); please report this."
        raise RunnerError(msg) from error
