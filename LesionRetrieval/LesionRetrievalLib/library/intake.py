"""A lesion as a case of a library, without whose it is: every library is made of what `case_entry` gives.

A folder of known lesions says of each the answer, whose it is, and which of its columns may be kept. Whose CT it is comes
from DICOM elements; a guard keeps a patient's name, number or dates out of the texts of a case.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import Embedding, ModelDescription
from LesionLib.io.boxes import CaseRow, CaseTableError
from LesionLib.io.reader_ratings import kinds_by_file
from LesionLib.io.tables import doubtful_labels
from LesionLib.model.folder import segment_margin_of

from LesionRetrievalLib.library.attributes import predicted_attributes, require_not_predicted
from LesionRetrievalLib.library.cases import (
    Case,
    CaseEntry,
    CaseStore,
    ModelIdentity,
    Scalar,
    indexed_as,
    is_same_margin,
)
from LesionRetrievalLib.library.duplicates import require_new
from LesionRetrievalLib.library.file import discard, place_of_new_library, put_in_place
from LesionRetrievalLib.library.patches import LUNG_WINDOW_HU, case_thumbnails, lesion_patch
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, forms_of
from LesionRetrievalLib.library.store import CaseLibrary

LABEL_COLUMNS = ("label", "malignant")
PATIENT_COLUMN = "patient_id"
KIND_COLUMN, READERS_SOURCE = "kind", "majority of the readers of LIDC-IDRI"
# A column that says by its name what its numbers mean, whatever classes the model has.
_CLASSES_OF_COLUMN = {"malignant": ("benign", "malignant")}
# Columns that name somebody or something: their values must not stand in what is kept either.
_IDENTIFIERS = re.compile(
    r"file|(patient|study|series|visit|admission)[ _-]?(id|no|nr|number|key)?|.*(uid|name|birth|dob|accession|mrn|physician|"
    r"doctor|address|phone|hospital|institution|identifier).*"
)
# And those that belong to an evaluation, not to the lesion.
_NEVER_KEPT = re.compile(rf"{_IDENTIFIERS.pattern}|.*(patient|study|series|subset|fold|split).*")
_LONGEST_TEXT = 200


def label_column(row: CaseRow, wanted: str | None) -> str:
    """The column with the answers: ``wanted``, or the first of `LABEL_COLUMNS` that is there. Raises `CaseTableError`."""
    names = (wanted,) if wanted else LABEL_COLUMNS
    for name in names:
        if name in row.values:
            return name
    msg = f"{row.where}: there is no column {' or '.join(names)}; name the one with the answers by --label-column."
    raise CaseTableError(msg)


def label_of(row: CaseRow, column: str, class_names: Sequence[str]) -> str:
    """The answer: a class number becomes the model's class name (of ``malignant`` benign or malignant), a name stays."""
    value, class_names = row.values[column], _CLASSES_OF_COLUMN.get(column, class_names)
    try:
        number = float(value)  # a spreadsheet writes 1 as 1.0
    except ValueError:
        return value
    is_class = number.is_integer() and 0 <= number < len(class_names)
    return class_names[int(number)] if is_class else value


def rated_rows(rows: Sequence[CaseRow], readers: Path) -> list[CaseRow]:
    """The rows whose nodule has a kind by most of its readers, with the kind as one more column (`KIND_COLUMN`).

    ``readers``: the folder with the readers' ratings, see `LesionLib.io.reader_ratings`. Raises `CaseTableError` where no row is
    left.
    """
    kinds = kinds_by_file(readers)
    rated = [
        replace(row, values={**row.values, KIND_COLUMN: kind})
        for row in rows
        if (kind := kinds.get(row.values["file"], ""))
    ]
    if not rated:
        msg = f"{readers} holds no ratings of the files in the table; give the folder with those of the same nodules."
        raise CaseTableError(msg)
    return rated


def require_clear_labels(rows: Sequence[CaseRow], column: str, class_names: Sequence[str]) -> None:
    """Refuse a table whose labels are missing, or one class in two spellings (`CaseTableError`), before anything starts."""
    for row in rows:
        if not row.values[column]:
            msg = f"{row.where}: {column} is empty; fill it, or leave the row out."
            raise CaseTableError(msg)
    doubts = doubtful_labels(enumerate(label_of(row, column, class_names) for row in rows))
    if doubts:
        more = f" And {len(doubts) - 1} more like it." if len(doubts) > 1 else ""
        place, text = doubts[0]
        table = rows[0].where.rsplit(", line ", 1)[0]
        text = re.sub(
            r"\(line (\d+)\)", lambda found: f"({rows[int(found[1])].where.removeprefix(table + ', ')})", text
        )
        msg = f"{rows[place].where}: {text}.{more}"
        raise CaseTableError(msg)


def require_columns(row: CaseRow, keep: Sequence[str]) -> None:
    """Refuse columns that are to be kept and are not there, or name somebody (`CaseTableError`)."""
    for name in keep:
        if name not in row.values:
            msg = f"{row.where}: there is no column {name!r} to keep; there are {', '.join(map(str, row.values))}."
            raise CaseTableError(msg)
        if columns_never_kept([name]):
            msg = (
                f"{row.where}: the column {name!r} tells whose a lesion is, or belongs to an evaluation; it cannot be kept. "
                "Where it does neither, give it another name."
            )
            raise CaseTableError(msg)


def attributes_of(row: CaseRow, keep: Sequence[str]) -> dict[str, Scalar]:
    """The columns that are kept, where they are not empty: numbers as float, texts cut to 200 characters."""
    kept: dict[str, Scalar] = {}
    for name in keep:
        value = row.values[name]
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if value:
            kept[name] = number if math.isfinite(number) else value[:_LONGEST_TEXT]
    return kept


def columns_left_out(row: CaseRow, label: str, keep: Sequence[str]) -> tuple[str, ...]:
    """The columns of the table that are not kept, in their order; the ``label`` is, as the answer."""
    return tuple(str(name) for name in row.values if name != label and name not in keep)


def identifiers_of(row: CaseRow) -> tuple[str, ...]:
    """What the table says of whose lesion it is: nothing of this may stand in what is kept."""
    return (*identifying_values(row.values), row.image_path.name.split(".")[0])


def identifying_values(values: Mapping[str, str]) -> list[str]:
    """What stands in those columns of a row that name somebody or something."""
    return [
        value
        for name, value in values.items()
        if value and isinstance(name, str) and _IDENTIFIERS.fullmatch(name.lower())
    ]


def columns_never_kept(names: Iterable[str]) -> list[str]:
    """Those that tell by their name whose a lesion is, or belong to an evaluation."""
    return [name for name in names if _NEVER_KEPT.fullmatch(name.lower())]


_MIN_LETTERS, _MIN_DIGITS = 2, 4
_DATE = re.compile(r"(\d{4})[-./]?(\d{2})[-./]?(\d{2})")

_PATIENT, _STUDY = "PatientID", "StudyInstanceUID"
# Names of persons (VR PN) at the top of an image's header; those inside sequences only a file tells.
_PERSON_NAMES = {
    "PatientName": "0010,0010",
    "OtherPatientNames": "0010,1001",
    "PatientBirthName": "0010,1005",
    "PatientMotherBirthName": "0010,1060",
    "ResponsiblePerson": "0010,2297",
    "ReferringPhysicianName": "0008,0090",
    "ConsultingPhysicianName": "0008,009c",
    "PhysiciansOfRecord": "0008,1048",
    "PerformingPhysicianName": "0008,1050",
    "NameOfPhysiciansReadingStudy": "0008,1060",
    "OperatorsName": "0008,1070",
    "RequestingPhysician": "0032,1032",
    "ScheduledPerformingPhysicianName": "0040,0006",
    "NamesOfIntendedRecipientsOfResults": "0040,1010",
    "OrderEnteredBy": "0040,2008",
    "HumanPerformerName": "0040,4037",
    "VerifyingObserverName": "0040,a075",
    "PersonName": "0040,a123",
    "ContentCreatorName": "0070,0084",
    "ReviewerName": "300e,0008",
    "InterpretationRecorder": "4008,0102",
    "InterpretationTranscriber": "4008,010a",
    "InterpretationAuthor": "4008,010c",
    "PhysicianApprovingInterpretation": "4008,0114",
    "DistributionName": "4008,0119",
}
# Keyword -> group,element of everything that tells whose a CT is: names, the texts (LO, SH) and dates of the patient and
# visit modules, and what leads to the examination. UIDs are refused in every text without being asked for. Not here: the
# descriptions of diagnoses, species and breeds, for an answer may say the same.
IDENTIFYING_ELEMENTS = {
    **_PERSON_NAMES,
    _PATIENT: "0010,0020",
    "IssuerOfPatientID": "0010,0021",
    "PatientBirthDate": "0010,0030",
    "PatientBirthDateInAlternativeCalendar": "0010,0033",
    "PatientDeathDateInAlternativeCalendar": "0010,0034",
    "OtherPatientIDs": "0010,1000",
    "PatientAddress": "0010,1040",
    "InsurancePlanIdentification": "0010,1050",
    "MilitaryRank": "0010,1080",
    "BranchOfService": "0010,1081",
    "MedicalRecordLocator": "0010,1090",
    "MedicalAlerts": "0010,2000",
    "Allergies": "0010,2110",
    "CountryOfResidence": "0010,2150",
    "RegionOfResidence": "0010,2152",
    "PatientTelephoneNumbers": "0010,2154",
    "EthnicGroup": "0010,2160",
    "Occupation": "0010,2180",
    "PatientReligiousPreference": "0010,21f0",
    "BreedRegistrationNumber": "0010,2295",
    "ResponsibleOrganization": "0010,2299",
    "ClinicalTrialSiteID": "0012,0030",
    "ClinicalTrialSiteName": "0012,0031",
    "ClinicalTrialSubjectID": "0012,0040",
    "ClinicalTrialSubjectReadingID": "0012,0042",
    "AdmissionID": "0038,0010",
    "IssuerOfAdmissionID": "0038,0011",
    "RouteOfAdmissions": "0038,0016",
    "ScheduledPatientInstitutionResidence": "0038,001e",
    "AdmittingDate": "0038,0020",
    "DischargeDate": "0038,0030",
    "SpecialNeeds": "0038,0050",
    "ServiceEpisodeID": "0038,0060",
    "IssuerOfServiceEpisodeID": "0038,0061",
    "ServiceEpisodeDescription": "0038,0062",
    "CurrentPatientLocation": "0038,0300",
    "PatientInstitutionResidence": "0038,0400",
    "PatientState": "0038,0500",
    "AccessionNumber": "0008,0050",
    "StudyID": "0020,0010",
    "StudyDate": "0008,0020",
    "SeriesDate": "0008,0021",
    "AcquisitionDate": "0008,0022",
    "ContentDate": "0008,0023",
    "InstitutionName": "0008,0080",
    "InstitutionAddress": "0008,0081",
    _STUDY: "0020,000d",
}
BURNED_IN_ELEMENT = "0028,0301"


@dataclass(frozen=True)
class PatientIdentity:
    """Whose a CT is. It lives in memory only, and is left out of ``repr``: a library gets hashes, a scene nothing.

    ``patient`` and ``study``: the identifiers, "" where not known. ``texts``: what must not be in a case's texts.
    """

    patient: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of_elements(cls, elements: Mapping[str, Iterable[str]]) -> PatientIdentity:
        """From the values of `IDENTIFYING_ELEMENTS` by keyword; some may be missing, one may have several values.

        Other keywords are those of persons' names inside sequences.
        """
        values = {
            name: [bare for value in several if (bare := value.strip(" \0"))] for name, several in elements.items()
        }
        texts = tuple(_as_name(name, value) for name, several in values.items() if name != _STUDY for value in several)
        return cls(*("".join(values.get(name, ())[:1]) for name in (_PATIENT, _STUDY)), texts)

    @property
    def is_known(self) -> bool:
        """Whether cases of the same patient can be told."""
        return bool(self.patient)

    def require(self) -> None:
        """Refuse a CT of nobody (`CaseLibraryError`)."""
        if not self.is_known:
            msg = (
                "The CT does not say which patient it is of; type any identifier that is the same for all CTs of the "
                "patient. Only its hash is stored."
            )
            raise CaseLibraryError(msg)

    def hashes(self, key: Pseudonymiser) -> tuple[str, str]:
        """Patient and study hash, see `Pseudonymiser.hashes`. Raises `CaseLibraryError` where the patient is not known."""
        self.require()
        return key.hashes(self.patient, self.study)


def _as_name(element: str, value: str) -> str:
    """A person's name with its parts set apart as DICOM does, also where somebody has typed spaces or commas."""
    is_name = element in _PERSON_NAMES or element not in IDENTIFYING_ELEMENTS
    return re.sub(r"[\s,]+", "^", value) if is_name and not re.search(r"[\^=]", value) else value


def require_no_burned_in_text(is_burned_in: bool) -> None:
    """Refuse to store what a CT shows where it says that text is burned into it (`CaseLibraryError`)."""
    if is_burned_in:
        msg = (
            "The CT says that text is burned into its images (BurnedInAnnotation), which may be the patient's name; add the "
            "lesion without pictures and patches, or look at the images first and then give --allow-burned-in."
        )
        raise CaseLibraryError(msg)


def require_anonymous(case: Case, identifiers: Iterable[str]) -> Case:
    """Return the case; `CaseLibraryError` if one of ``identifiers`` stands in a text of it, without repeating which.

    ``identifiers`` are values of DICOM elements of the same patient: names (``Doe^Jane``: each part counts), numbers,
    dates (``19700102``: as usually written, too). Whole words only, in capitals or not.
    """
    wanted = {_plain(form) for value in identifiers for form in _forms(value) if _tells(form)}
    if not wanted:
        return case
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(wanted, key=len, reverse=True)))})(?!\w)")
    for name, text in _texts(case):
        if pattern.search(_plain(text)):
            msg = f"The {name} holds a name, number or date of the patient; write it without, nothing was written."
            raise CaseLibraryError(msg)
    return case


_WORDS_TOGETHER = 4  # an identifier may be typed in parts


def require_not_the_patient(case: Case, texts: Iterable[str], key: Pseudonymiser) -> None:
    """Refuse ``texts`` in which the patient's or the study's identifier stands (`CaseLibraryError`), without repeating which.

    It is known by its hash: words, and up to four that follow each other, are hashed by the library's own ``key`` and compared
    with the case's.
    """
    for text in texts:
        words = [word for word in re.split(r"[\s,;:=()\[\]\"']+", text) if word]
        runs = {
            "".join(words[start:end])
            for start in range(len(words))
            for end in range(start + 1, min(start + _WORDS_TOGETHER, len(words)) + 1)
        }
        for run in filter(_tells, runs | {run.strip(".") for run in runs}):
            patient, study = key.hash(run), key.hash(run, domain="study")
            if case.patient_hash in forms_of(patient) or case.study_hash in forms_of(study):
                msg = "What you typed holds the identifier of the patient or study; write it without, nothing was written."
                raise CaseLibraryError(msg)


def _plain(text: str) -> str:
    # To a pattern of whole words an underscore is a letter; to people it is a space.
    return text.casefold().replace("_", " ")


def _tells(form: str) -> bool:
    """Whether it tells somebody from others: "7" may be a patient's number, and is many other things."""
    return len(form) >= (_MIN_DIGITS if form.isdigit() else _MIN_LETTERS)


def _texts(case: Case) -> Iterator[tuple[str, str]]:
    for name in ("case_id", "label", "label_source", "organ", "note"):
        yield name, getattr(case, name)
    for key, value in case.attributes.items():
        yield "name or value of an attribute", f"{key} {value if isinstance(value, str) else ''}"
        # A number may be an identifier, too: 4711.0 is what became of 4711.
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield "value of an attribute", f"{value:.0f}"


def _forms(value: str) -> Iterator[str]:
    bare = value.strip(" \0")
    yield bare
    if "^" in bare or "=" in bare:
        yield from (part.strip() for part in re.split(r"[\^=\s]+", bare))
    date = _DATE.fullmatch(bare)
    if date:
        year, month, day = date.groups()
        for parts in ((year, month, day), (day, month, year), (month, day, year)):
            yield from (sign.join(parts) for sign in "-./")
            yield from (sign.join(part.lstrip("0") for part in parts) for sign in "-./")


def library_margin_mm(library: CaseStore, model: ModelDescription) -> float:
    """How far the boxes of segments reach beyond them in a library, for the vectors of ``model``. Raises `CaseLibraryError`.

    A library of before this was stored has the boxes that its model was made for.
    """
    stored = library.require_model(indexed_as(library, ModelIdentity.of_model(model))).segment_margin_mm
    return segment_margin_of(model.manifest) if stored is None else stored


def require_margin(library: CaseStore, model: ModelDescription, margin_mm: float) -> None:
    """Refuse boxes of segments that are drawn otherwise than a library's own (`CaseLibraryError`).

    Measured on 806 lung nodules, 2 mm more keep half of the lesions from finding themselves (``lesiontrain box-margin``).
    """
    wanted = library_margin_mm(library, model)
    if not is_same_margin(margin_mm, wanted):
        msg = (
            f"--margin-mm is {margin_mm:g}, and the boxes of this library reach {wanted:g} mm beyond a segment, as its model was "
            "made for: the same lesion would not find itself. Leave --margin-mm out."
        )
        raise CaseLibraryError(msg)


@dataclass(frozen=True)
class NewCase:
    """What a person or a table says of a lesion, and what is kept of its CT.

    ``label_source``: how the label was established, as "histology". ``case_id`` "": one is made.
    ``window_hu``: black and white of the thumbnails.
    """

    label: str
    label_source: str
    organ: str = "not stated"
    attributes: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    note: str = ""
    with_thumbnails: bool = False
    with_patch: bool = False
    case_id: str = ""
    window_hu: tuple[float, float] = LUNG_WINDOW_HU


@dataclass(frozen=True)
class Owner:
    """Whose lesion it is, as hashes by the owner's key, and the identifiers that must not stand in its texts."""

    patient_hash: str
    study_hash: str
    identifiers: tuple[str, ...] = field(default=(), repr=False)


def new_case_id() -> str:
    """Never from the name of a box or segment: that may hold anything."""
    return f"case-{secrets.token_hex(4)}"


def checked_case(new: NewCase, owner: Owner) -> Case:
    """The case as it would be stored; `CaseLibraryError` for texts that are missing, too long, or name the patient.

    What a model says of it is no part of ``new``: attributes under such names are refused, too.
    """
    require_not_predicted(new.attributes)
    case = Case(
        case_id=new.case_id or new_case_id(),
        label=new.label,
        label_source=new.label_source,
        organ=new.organ,
        patient_hash=owner.patient_hash,
        study_hash=owner.study_hash,
        attributes=new.attributes,
        note=new.note,
    )
    return require_anonymous(case, owner.identifiers)


def case_entry(
    volume: CTVolume,
    box: LesionBox,
    vector: np.ndarray,
    *,
    new: NewCase,
    owner: Owner,
    predicted: Mapping[str, Scalar] | None = None,
    without_patch_if_too_large: bool = False,
) -> CaseEntry:
    """All that a library keeps of a lesion; ``vector``: the model's embedding of it, of shape (dimension,).

    ``predicted``: what the model said of it, see `attributes.predicted_attributes`. A segment of ``box`` goes into the HU
    patch. ``without_patch_if_too_large``: keep such a lesion all the same; a reindex will name it. Raises
    `CaseLibraryError`, also for a patch that is too large otherwise, or `BoxError`.
    """
    case = checked_case(new, owner)
    case = replace(case, attributes={**case.attributes, **(predicted or {})})
    thumbnails = case_thumbnails(volume, box, window_hu=new.window_hu) if new.with_thumbnails else None
    patch = None
    if new.with_patch:
        with suppress(CaseLibraryError) if without_patch_if_too_large else nullcontext():
            patch = lesion_patch(volume, box)
    return CaseEntry(case, vector, thumbnails, patch)


def predicted_by(embedding: Embedding) -> dict[str, Scalar]:
    """What a case keeps of the scores that its model gave it; nothing for most models."""
    model = f"{embedding.info.model_name} {embedding.info.model_version}"
    return predicted_attributes(embedding.scores, model=model, warnings=embedding.warnings)


def add_case(
    library: CaseLibrary, volume: CTVolume, box: LesionBox, embedding: Embedding, *, new: NewCase, owner: Owner
) -> str:
    """Store the lesion with its vector, and pictures and HU patch where asked for; returns the case's id. `LesionLensError`.

    A lesion that the library holds already is refused.
    """
    predicted, sha256 = predicted_by(embedding), indexed_as(library, ModelIdentity.of_embedding(embedding))
    entry = case_entry(volume, box, embedding.vector, new=new, owner=owner, predicted=predicted)
    require_new(library, [entry], model_sha256=sha256)
    library.add(entry.case, entry.vector, model_sha256=sha256, thumbnails=entry.thumbnails, patch=entry.patch)
    return entry.case.case_id


def write_library(
    out: Path,
    model: ModelIdentity,
    entries: Iterator[CaseEntry],
    *,
    properties: Mapping[str, str] | None = None,
    overwrite: bool = True,
) -> int:
    """A new library from cases as they come: the file appears when it is whole.

    Write the entries to a new library beside ``out`` and move it there when all are in; returns how many. ``properties``:
    what is noted of the library as a whole. Raises `CaseLibraryError` where there is no entry, or another program builds the
    same library; `OutputError` where the file cannot be written, or is there and may not be replaced.
    """
    partial = out.with_name(f".{out.name}.partial")
    with place_of_new_library(out, overwrite=overwrite):
        try:
            return _written(partial, out, model, entries, properties or {})
        finally:
            discard(partial)


def _written(
    partial: Path, out: Path, model: ModelIdentity, entries: Iterator[CaseEntry], properties: Mapping[str, str]
) -> int:
    first = next(entries, None)
    if first is None:
        msg = f"there is no case to put into {out}."
        raise CaseLibraryError(msg)
    discard(partial)
    with CaseLibrary.create(partial, model=model, dimension=len(first.vector)) as library:
        for name, value in properties.items():
            library.set_property(name, value)
        # As they come: with the CT around each lesion they would not all fit into memory.
        count = library.add_many(chain([first], entries), model_sha256=model.sha256)
    put_in_place(partial, out)
    return count
