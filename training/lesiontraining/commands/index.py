"""``lesiontrain index``: a case library from a table of lesions, by a model folder.

The one place where training meets the case library: everything else here knows LesionLib only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from LesionLib.errors import LesionLensError, OutputError
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import Bundle
from LesionRetrievalLib.library.attributes import predicted_attributes
from LesionRetrievalLib.library.cases import CaseEntry, ModelIdentity
from LesionRetrievalLib.library.intake import NewCase, Owner, case_entry, write_library
from LesionRetrievalLib.library.ownership import KEY_PROPERTY
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser

from lesiontraining.data.lesions import LesionRow, LesionTable
from lesiontraining.data.sources import SlicesSource, VolumeSource

Progress = Callable[[int, int], None]


class CaseIndexError(LesionLensError):
    """A table that cannot become a case library."""


@dataclass(frozen=True)
class IndexPlan:
    """What goes into the library besides vectors; images and patches show the CT: only with the owner's leave."""

    label_source: str
    organ: str = "not stated"
    images: bool = False
    patches: bool = False


def index(
    table: LesionTable,
    bundle: Bundle,
    out: Path,
    *,
    plan: IndexPlan,
    key_path: Path,
    progress: Progress | None = None,
) -> int:
    """Embed every labelled lesion of ``table``; returns how many are in the library ``out``, which must not exist.

    ``key_path``: the owner's pseudonym key, made there at the first use. Case ids are the table's lines: nothing of a
    name. Raises `LesionLensError` for what cannot be read or embedded.
    """
    if out.exists():
        msg = f"{out} exists; give another name, or remove it first."
        raise OutputError(msg)
    rows = [row for row in table.rows if row.label]
    strange = next((row for row in rows if not isinstance(row.source, VolumeSource | SlicesSource)), None)
    if strange is not None:
        msg = f"{table.name}, line {strange.line}: a case library holds lesions of CTs; this row is none."
        raise CaseIndexError(msg)
    key = Pseudonymiser.load(key_path) if key_path.exists() else Pseudonymiser.create(key_path)
    entries = _entries(rows, bundle, plan, key, progress)
    identity = ModelIdentity.of_model(bundle)
    return write_library(out, identity, entries, properties={KEY_PROPERTY: key.fingerprint}, overwrite=False)


def _entries(
    rows: list[LesionRow], bundle: Bundle, plan: IndexPlan, key: Pseudonymiser, progress: Progress | None
) -> Iterator[CaseEntry]:
    done = 0
    # Lesions of one CT one after the other: it is read once.
    for _, group in groupby(sorted(rows, key=lambda row: row.source.group), key=lambda row: row.source.group):
        lesions = list(group)
        volume = lesions[0].source.read()
        classifier = Classifier(bundle, volume)
        for row in lesions:
            box = row.source.lesion(volume, name=f"line {row.line}", margin_mm=bundle.segment_margin_mm)
            owner = Owner(*key.hashes(row.patient, row.study))
            vector, predicted = classifier.embed(box), {}
            if bundle.scores:
                result, name = classifier.classify(box), f"{bundle.name} {bundle.version}"
                predicted = predicted_attributes(result.scores, model=name, warnings=result.warnings)
            yield case_entry(volume, box, vector, new=_new_case(row, plan), owner=owner, predicted=predicted)
            done += 1
            if progress is not None:
                progress(done, len(rows))


def _new_case(row: LesionRow, plan: IndexPlan) -> NewCase:
    return NewCase(
        case_id=f"line-{row.line:06d}",
        label=row.label,
        label_source=plan.label_source,
        organ=plan.organ,
        with_thumbnails=plan.images,
        with_patch=plan.patches,
    )
