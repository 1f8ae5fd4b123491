"""A case library from a folder of lesions with known answers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from LesionLib.bundle import Bundle
from LesionLib.case_table import CaseRow, CaseTableError, read_case_table
from LesionLib.classify import Classifier
from LesionLib.errors import CaseLibraryError, OutputError
from LesionLib.geometry import CTVolume, LesionBox
from LesionRetrievalLib.case_pictures import case_pictures
from LesionRetrievalLib.library import Case, CaseEntry, CaseLibrary, ModelIdentity
from LesionRetrievalLib.library_patch import HuPatch, lesion_patch
from LesionRetrievalLib.pseudonyms import Pseudonymiser

from .console import Steps

_LABEL_COLUMNS = ("label", "malignant")
_PATIENT_COLUMN = "patient_id"
# Columns that name somebody or something, or belong to an evaluation and not to the lesion.
_LEFT_OUT = re.compile(r"file|.*(patient|study|series|uid|subset|fold|split).*")


@dataclass(frozen=True)
class LibraryPlan:
    """What goes into a library besides the vectors. ``label_column`` None: ``label`` or ``malignant``."""

    label_column: str | None = None
    label_source: str | None = None
    organ: str = "not stated"
    with_pictures: bool = False
    with_patches: bool = False


def default_key_path() -> Path:
    """Where the owner's pseudonym key lies: one for all libraries, so that the same patient is recognised."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "lesionlens" / "pseudonym.key"


def owner_key(path: Path) -> Pseudonymiser:
    """The key at ``path``; made there at the first use."""
    if path.exists():
        return Pseudonymiser.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Pseudonymiser.create(path)


def build_library(
    folder: Path, bundle: Bundle, out: Path, *, plan: LibraryPlan, key_path: Path, steps: Steps, overwrite: bool = False
) -> int:
    """Embed every case of ``folder`` and write the library to ``out``; returns how many cases it holds.

    The file appears when it is whole. Raises `CaseTableError`, `CaseLibraryError` or `OutputError`.
    """
    if out.exists() and not overwrite:
        msg = f"{out} exists; give another name, or --overwrite to replace the library."
        raise OutputError(msg)
    if out.exists():
        CaseLibrary.open(out).close()  # only a library is ever overwritten
    rows = read_case_table(folder, columns=[_PATIENT_COLUMN])
    column = _label_column(rows[0], plan)
    key = owner_key(key_path)
    entries = (_entry(row, place, column, bundle, plan, key) for place, row in enumerate(rows, start=1))
    shown = steps.each(entries, f"Embedding {len(rows)} cases with {bundle.name} {bundle.version}", total=len(rows))
    return write_library(out, bundle, shown)


def write_library(out: Path, bundle: Bundle, entries: Iterator[CaseEntry]) -> int:
    """Write the entries to a new library beside ``out`` and move it there when all are in."""
    partial = out.with_name(f".{out.name}.partial")
    model = ModelIdentity(bundle.name, bundle.version, bundle.sha256)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        first = next(entries, None)
        if first is None:
            msg = f"there is no case to put into {out}."
            raise CaseTableError(msg)
        partial.unlink(missing_ok=True)
        with CaseLibrary.create(partial, model=model, dimension=len(first.vector)) as library:
            # As they come: with the CT around each lesion they would not all fit into memory.
            count = library.add_many(chain([first], entries), model_sha256=bundle.sha256)
        os.replace(partial, out)
        return count
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}); choose another place with --out."
        raise OutputError(msg) from error
    finally:
        partial.unlink(missing_ok=True)


def _label_column(row: CaseRow, plan: LibraryPlan) -> str:
    wanted = (plan.label_column,) if plan.label_column else _LABEL_COLUMNS
    for name in wanted:
        if name in row.values:
            return name
    msg = f"{row.where}: there is no column {' or '.join(wanted)}; name the one with the answers by --label-column."
    raise CaseTableError(msg)


def _entry(row: CaseRow, place: int, column: str, bundle: Bundle, plan: LibraryPlan, key: Pseudonymiser) -> CaseEntry:
    volume, box, _ = row.load()
    patient = row.values[_PATIENT_COLUMN]
    case = Case(
        case_id=f"case-{place:05d}",
        label=_label(row.values[column], bundle),
        label_source=plan.label_source or f"table of the collection, column {column}",
        organ=plan.organ,
        patient_hash=key.hash(patient),
        # The collection names no studies: the patient's identifier stands in, in the studies' own hash domain.
        study_hash=key.hash(row.values.get("study_id") or patient, domain="study"),
        attributes=_attributes(row, column),
    )
    pictures = case_pictures(volume, box) if plan.with_pictures else None
    patch = _patch(volume, box) if plan.with_patches else None
    return CaseEntry(case, Classifier(bundle, volume).embed(box), pictures, patch)


def _patch(volume: CTVolume, box: LesionBox) -> HuPatch | None:
    """None for a lesion too large for a library: it is kept all the same, and a reindex will name it."""
    with suppress(CaseLibraryError):
        return lesion_patch(volume, box)
    return None


def _label(value: str, bundle: Bundle) -> str:
    """A class number becomes the model's class name; a name stays."""
    is_number = value.isdecimal() and int(value) < len(bundle.class_names)
    return bundle.class_names[int(value)] if is_number else value


def _attributes(row: CaseRow, label_column: str) -> dict[str, str | float]:
    kept = {}
    for name, value in row.values.items():
        if name == label_column or not value or _LEFT_OUT.fullmatch(name.lower()):
            continue
        try:
            kept[name] = float(value)
        except ValueError:
            kept[name] = value[:200]
    return kept
