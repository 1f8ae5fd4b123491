"""A case library from a folder of lesions with known answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from LesionLib.case_table import CaseRow, read_case_table
from LesionLib.errors import OutputError
from LesionRetrievalLib.case_adding import NewCase, Owner, case_entry
from LesionRetrievalLib.case_folder import PATIENT_COLUMN, attributes_of, label_column, label_of
from LesionRetrievalLib.library import CaseEntry, CaseLibrary, ModelIdentity
from LesionRetrievalLib.library_writing import write_library
from LesionRetrievalLib.owner_key import owner_key
from LesionRetrievalLib.pseudonyms import Pseudonymiser

from .asked_model import AskedModel
from .console import Steps


@dataclass(frozen=True)
class LibraryPlan:
    """What goes into a library besides the vectors. ``label_column`` None: ``label`` or ``malignant``."""

    label_column: str | None = None
    label_source: str | None = None
    organ: str = "not stated"
    with_pictures: bool = False
    with_patches: bool = False


def build_library(
    folder: Path,
    model: AskedModel,
    out: Path,
    *,
    plan: LibraryPlan,
    key_path: Path,
    steps: Steps,
    overwrite: bool = False,
) -> int:
    """Embed every case of ``folder`` and write the library to ``out``; returns how many cases it holds.

    The file appears when it is whole. Raises `CaseTableError`, `CaseLibraryError` or `OutputError`.
    """
    if out.exists() and not overwrite:
        msg = f"{out} exists; give another name, or --overwrite to replace the library."
        raise OutputError(msg)
    if out.exists():
        CaseLibrary.open(out).close()  # only a library is ever overwritten
    rows = read_case_table(folder, columns=[PATIENT_COLUMN])
    column = label_column(rows[0], plan.label_column)
    key = owner_key(key_path)
    entries = (_entry(row, place, column, model, plan, key) for place, row in enumerate(rows, start=1))
    who = model.described
    shown = steps.each(entries, f"Embedding {len(rows)} cases with {who.name} {who.version}", total=len(rows))
    return write_library(out, ModelIdentity.of_model(who), shown)


def _entry(
    row: CaseRow, place: int, column: str, model: AskedModel, plan: LibraryPlan, key: Pseudonymiser
) -> CaseEntry:
    volume, box, _ = row.load()
    patient = row.values[PATIENT_COLUMN]
    new = NewCase(
        case_id=f"case-{place:05d}",
        label=label_of(row, column, model.described.class_names),
        label_source=plan.label_source or f"table of the collection, column {column}",
        organ=plan.organ,
        attributes=attributes_of(row, column),
        with_pictures=plan.with_pictures,
        with_patch=plan.with_patches,
    )
    owner = Owner(*key.hashes(patient, row.values.get("study_id")))
    return case_entry(volume, box, model.embed(volume, box), new=new, owner=owner, without_patch_if_too_large=True)
