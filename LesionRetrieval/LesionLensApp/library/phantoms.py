"""``lesionlens library phantom``: a case library of computed nodules, each with its truth."""

from __future__ import annotations

from pathlib import Path

from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.phantoms import TOTAL, phantom_cases, write_phantom_library
from LesionRetrievalLib.library.pseudonyms import pseudonymisation_key

from LesionLensApp.library.cases import require_free
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps


def build_phantom_library(
    model: ModelSession, out: Path, *, key_path: Path, steps: Steps, seed: int = 0, overwrite: bool = False
) -> int:
    """One case for every kind and size of nodule, with its CT; how many. Raises `OutputError` where ``out`` is in the way."""
    require_free(out, overwrite=overwrite)
    key = pseudonymisation_key(key_path)
    cases = phantom_cases(model.embed, key, seed=seed, with_patches=True)
    shown = steps.each(cases, f"Building a library of {TOTAL} phantoms", total=TOTAL)
    return write_phantom_library(out, ModelIdentity.of_model(model.described), shown, key=key, overwrite=overwrite)
