"""What a case library may hold: cases, vectors, pictures and HU patches, checked on entry; and what every library can do."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from LesionLib.errors import CaseLibraryError
from LesionLib.metric import COSINE, METRICS, metric_of
from LesionLib.model.folder import same_embedding_as, segment_margin_of

from LesionRetrievalLib.library.patches import HuPatch
from LesionRetrievalLib.library.pseudonyms import is_pseudonym

if TYPE_CHECKING:
    from LesionLib.inference.messages import Embedding, ModelDescription
    from LesionLib.inference.results import RunInfo


PLANES = ("axial", "coronal", "sagittal")
MAX_THUMBNAIL_SIDE = 2048
MAX_DIMENSION = 65536
CASE_COLUMNS = (
    "case_id",
    "label",
    "label_source",
    "organ",
    "patient_hash",
    "study_hash",
    "attributes",
    "note",
)

_CASE_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")  # no leading dot: ids become file names on export
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_DICOM_UID = re.compile(r"(?<![\d.])(?:[0-2](?:\.\d+){4,}|2\.25\.\d{10,})(?![\d.])")
_IDENTIFYING_KEYS = {"patientid", "patientname", "patientbirthdate", "patientaddress", "otherpatientids"}
_IDENTIFYING_KEYS |= {"accessionnumber", "studyid", "studyinstanceuid", "seriesinstanceuid", "sopinstanceuid"}
_IDENTIFYING_KEYS |= {"frameofreferenceuid", "mrn", "dob", "birthdate", "dateofbirth", "fullname"}

CREDIT_PROPERTY = "credit"  # whom a library names, and under which licence
NEARLY_THE_SAME = 0.999
MAY_BE_THE_LESION = "may be this very lesion"
_UNIT_ROUNDING = 4 * float(np.finfo(np.float32).eps)
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made the vectors: name and version for people, the bundle's SHA-256 for certainty.

    ``segment_margin_mm``: how far the boxes of the cases' segments reach beyond them; None where a library does not say.
    ``same_embedding_as``: the SHA-256 of earlier models whose vectors are the same; a library does not say it. ``metric``: how
    vectors are compared, see `LesionLib.metric`; of a library's own models as it was stored with them.
    """

    name: str
    version: str
    sha256: str
    segment_margin_mm: float | None = field(default=None, compare=False)
    same_embedding_as: tuple[str, ...] = field(default=(), compare=False)
    metric: str = field(default=COSINE, compare=False)

    @classmethod
    def of(cls, run: RunInfo) -> ModelIdentity:
        """The model that answered."""
        return cls(run.model_name, run.model_version, run.model_sha256)

    @classmethod
    def of_embedding(cls, embedding: Embedding) -> ModelIdentity:
        """The model that embedded a lesion."""
        return replace(cls.of(embedding.info), same_embedding_as=embedding.same_embedding_as, metric=embedding.metric)

    @classmethod
    def of_model(cls, model: ModelDescription) -> ModelIdentity:
        """A model that is loaded."""
        manifest = getattr(model, "manifest", None)
        if manifest is None:
            return cls(model.name, model.version, model.sha256)
        same = same_embedding_as(manifest)
        return cls(model.name, model.version, model.sha256, segment_margin_of(manifest), same, metric_of(manifest))

    def __post_init__(self) -> None:
        """Refuse empty names and what is not a SHA-256 (`CaseLibraryError`)."""
        _checked_text(self.name, "model name", low=1, high=100)
        _checked_text(self.version, "model version", low=1, high=100)
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            msg = f"The model's sha256 is {self.sha256!r}; give 64 lower-case hexadecimal characters."
            raise CaseLibraryError(msg)
        if self.metric not in METRICS:
            msg = f"The model's vectors are compared by {self.metric!r}; known are {', '.join(METRICS)}. Update LesionLens."
            raise CaseLibraryError(msg)

    def __str__(self) -> str:
        return f"{self.name} {self.version} (sha256 {self.sha256[:12]}…)"


def indexed_as(library: CaseStore, model: ModelIdentity) -> str:
    """The SHA-256 under which the library holds vectors that can be compared with this model's: its own, or an earlier one's.

    Raises `CaseLibraryError` where there are none.
    """
    there = {indexed.identity.sha256 for indexed in library.models() if not indexed.unfinished}
    found = next((sha256 for sha256 in (model.sha256, *model.same_embedding_as) if sha256 in there), model.sha256)
    return library.require_model(found).sha256


_SAME_MARGIN_MM = 0.05


def is_same_margin(margin_mm: float, other_mm: float) -> bool:
    """Whether boxes that reach so far beyond their segments can stand in one library."""
    return abs(margin_mm - other_mm) <= _SAME_MARGIN_MM


def require_same_margin(one: ModelIdentity, other: ModelIdentity) -> None:
    """Refuse to bring together boxes that are drawn otherwise (`CaseLibraryError`), where both say how they are drawn."""
    margins = (one.segment_margin_mm, other.segment_margin_mm)
    if None not in margins and not is_same_margin(*margins):
        msg = (
            f"The boxes of segments reach {margins[0]:g} mm beyond them in one library and {margins[1]:g} mm in the other: the "
            "same lesion would not find itself. Build one of them again as the other. Nothing was written."
        )
        raise CaseLibraryError(msg)


@dataclass(frozen=True)
class Case:
    """One known lesion as it goes into a library, and comes back out. Malformed values: `CaseLibraryError`.

    ``case_id`` is chosen by us (1 to 64 of A-Z a-z 0-9 . _ -), never taken from a file name or an accession
    number; ``label`` is the diagnosis and ``label_source`` how it was established ("histology", "follow-up
    24 months"). ``patient_hash`` and ``study_hash`` come from `Pseudonymiser.hash`; anything else is refused,
    so that a raw identifier can't enter by mistake. ``attributes`` are free scalars: text up to 200
    characters, int, finite float, bool, None. ``note`` is free text up to 2000 characters.
    """

    case_id: str
    label: str
    label_source: str
    organ: str
    patient_hash: str
    study_hash: str
    attributes: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    note: str = ""

    def __post_init__(self) -> None:
        """Check every field; keep an own copy of the attributes with NumPy scalars made plain."""
        checked_case_id(self.case_id)
        for name in ("label", "label_source", "organ"):
            _checked_text(getattr(self, name), name, low=1, high=100)
        checked_hash(self.patient_hash, "patient_hash")
        checked_hash(self.study_hash, "study_hash")
        object.__setattr__(self, "attributes", _checked_attributes(self.attributes))
        _checked_text(self.note, "note", low=0, high=2000, lines=True)

    def as_row(self) -> tuple[str, ...]:
        """Return the values of `CASE_COLUMNS`, attributes as a JSON object."""
        attributes = json.dumps(self.attributes, allow_nan=False, ensure_ascii=False)
        return (*(str(getattr(self, name)) for name in CASE_COLUMNS[:6]), attributes, self.note)


ADDED, REMOVED, REINDEXED = "added", "removed", "reindexed by "
_CODE = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9._-]{1,16}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")


def checked_code(value: object) -> str:
    """The code of who changes a library, or "" for nobody; `CaseLibraryError`, without repeating it, for any other.

    A code has a digit and neither spaces nor commas, so that nobody's name is taken for one.
    """
    if value == "" or (isinstance(value, str) and _CODE.fullmatch(value)):
        return value
    msg = (
        "The code of who does this has a form that is not taken; give 1 to 16 of A-Z a-z 0-9 . _ -, with a digit among them, "
        "such as reader7: a code, and nobody's name."
    )
    raise CaseLibraryError(msg)


@dataclass(frozen=True)
class Change:
    """What was done to a library: ``what`` to ``case_id`` ("" for the library as a whole), by ``by`` (a code, "" where not
    said), at ``at``, UTC, as 2026-11-27T21:30:05.000000Z. Malformed values: `CaseLibraryError`.

    ``what`` names the fields that were changed, never what was or is in them.
    """

    case_id: str
    at: str
    by: str
    what: str

    def __post_init__(self) -> None:
        """Check every field: libraries are passed on."""
        if self.case_id != "":
            checked_case_id(self.case_id)
        checked_code(self.by)
        if not isinstance(self.at, str) or not _TIME.fullmatch(self.at):
            msg = "The time of a change is damaged; it must be UTC, as 2026-11-27T21:30:05.000000Z."
            raise CaseLibraryError(msg)
        _checked_text(self.what, "what was changed", low=1, high=500)

    @classmethod
    def now(cls, case_id: str, by: str, what: str) -> Change:
        """One that is made at this moment."""
        return cls(case_id, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), by, what)

    @property
    def when(self) -> str:
        """To the second, as people read it: 2026-11-27 21:30:05 UTC."""
        return f"{self.at[:10]} {self.at[11:19]} UTC"

    def __str__(self) -> str:
        return f"{self.when} {self.what}{f' by {self.by}' if self.by else ''}"


def changed_fields(before: Case, after: Case) -> str:
    """Which fields differ, for `Change.what`: "label, note, attribute size"; "" where none does. Raises `CaseLibraryError`.

    Whose the case is cannot be changed.
    """
    if (before.case_id, before.patient_hash, before.study_hash) != (
        after.case_id,
        after.patient_hash,
        after.study_hash,
    ):
        msg = (
            f"Case {before.case_id!r}: its id, patient and study stay what they are; remove the case and add it again."
        )
        raise CaseLibraryError(msg)
    names = [
        name.replace("_", " ")
        for name in ("label", "label_source", "organ", "note")
        if getattr(before, name) != getattr(after, name)
    ]
    missing = object()
    attributes = dict.fromkeys((*before.attributes, *after.attributes))
    names += [
        f"attribute {name}"
        for name in attributes
        if before.attributes.get(name, missing) != after.attributes.get(name, missing)
        or type(before.attributes.get(name)) is not type(after.attributes.get(name))
    ]
    text = ", ".join(names)
    return text if len(text) <= 500 else f"{len(names)} fields"


@dataclass(frozen=True)
class Neighbour:
    """One case found by a search, with the fields of `Case`.

    ``similarity`` is the cosine, -1 to 1; by a model of the Euclidean metric 1 / (1 + ``distance`` squared), above 0 to 1, and
    ``distance`` is that of the two points (None by cosine). Either way 1 is the same, and more is nearer.
    """

    case_id: str
    label: str
    similarity: float
    label_source: str
    organ: str
    patient_hash: str
    study_hash: str
    attributes: Mapping[str, Scalar] = field(hash=False)
    note: str
    distance: float | None = None

    @property
    def may_be_the_lesion(self) -> bool:
        """Whether it is so similar that it may be the very lesion that was asked about."""
        return self.similarity > NEARLY_THE_SAME


@dataclass(frozen=True)
class IndexedModel:
    """A model whose vectors a library holds: how long they are, of how many cases, and whether a reindex is unfinished."""

    identity: ModelIdentity
    dimension: int
    cases: int
    unfinished: bool


class CaseEntry(NamedTuple):
    """One item of `CaseLibrary.add_many`; plain tuples (case, vector[, pictures[, patch]]) will do.

    ``vector``: numbers, (dimension,). ``thumbnails``: plane -> uint8 grey (height, width).
    """

    case: Case
    vector: Any
    thumbnails: Mapping[str, np.ndarray] | None = None
    patch: HuPatch | None = None


def case_fields(row: tuple) -> dict[str, Any]:
    """Return a row of `CASE_COLUMNS` by name, attributes as a dict; `CaseLibraryError` if it is damaged."""
    fields = dict(zip(CASE_COLUMNS, row, strict=True))
    for name, value in fields.items():
        if not isinstance(value, str):
            raise damaged(fields["case_id"], f"{name.replace('_', ' ')} is no text")
    try:
        attributes = json.loads(fields["attributes"])
        if not all(_is_scalar(value) for value in attributes.values()):
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(fields["case_id"], "its attributes are damaged") from error
    return {**fields, "attributes": attributes}


def case_of(row: tuple) -> Case:
    """The case of a row of `CASE_COLUMNS`; `CaseLibraryError` naming it where it is damaged."""
    try:
        return Case(**case_fields(row))
    except CaseLibraryError as error:
        if str(row[0]) in str(error):
            raise
        raise damaged(row[0], str(error).rstrip(".")) from error


def damaged(case_id: object, what: str) -> CaseLibraryError:
    """The error for a case whose rows are not what was written."""
    return CaseLibraryError(f"Case {case_id!r}: {what}; remove the case, or restore the library from a copy.")


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def is_picture_shape(shape: object) -> bool:
    """Whether it is (height, width) of a picture that a library may hold."""
    return (
        isinstance(shape, list | tuple)
        and len(shape) == 2
        and all(isinstance(side, int) and 0 < side <= MAX_THUMBNAIL_SIDE for side in shape)
    )


def is_dimension(value: object) -> bool:
    """Whether it is how many numbers a vector of a library may have."""
    return isinstance(value, int) and 0 < value <= MAX_DIMENSION


def loaded_vector(case_id: str, numbers: Any, dimension: int) -> np.ndarray:
    """A stored vector, float32 (dimension,); `CaseLibraryError` where it is not of length 1 any more."""
    try:
        vector = np.frombuffer(numbers, "<f4") if isinstance(numbers, bytes) else np.asarray(numbers, np.float32)
    except (ValueError, TypeError) as error:
        raise damaged(case_id, "its vector is damaged") from error
    if vector.shape != (dimension,) or not abs(float(np.linalg.norm(vector.astype(np.float64))) - 1.0) < 1e-3:
        raise damaged(case_id, "its vector is damaged")
    return vector.astype(np.float32)


def checked_case_id(value: object) -> str:
    """Return ``value`` if it may be a case id; `CaseLibraryError`, without repeating it, otherwise."""
    if not isinstance(value, str) or not _CASE_ID.fullmatch(value):
        msg = "The case id has a form that is not taken; give 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front."
        raise CaseLibraryError(msg)
    _refuse_uid(value, "case_id")
    return value


def checked_hash(value: object, name: str) -> str:
    """Return ``value`` if it is a pseudonym; `CaseLibraryError` otherwise, without repeating the value."""
    if not is_pseudonym(value):
        msg = f"{name} is not a salted hash of 32 hex characters; make it by Pseudonymiser.hash."
        raise CaseLibraryError(msg)
    return str(value)


def checked_date(value: object) -> str:
    """Return ``value`` if it is a date, YYYY-MM-DD; `CaseLibraryError` otherwise."""
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError) as error:
        msg = "The date on which a case was entered must be YYYY-MM-DD."
        raise CaseLibraryError(msg) from error


def whole_number(value: object, name: str, *, high: int = 2**31) -> int:
    """Return ``value`` if it is a whole number from 1 to ``high``; `CaseLibraryError` for any other."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if not 1 <= number <= high:
        msg = f"{name} is {value!r}; give a whole number from 1 to {high}."
        raise CaseLibraryError(msg)
    return number


def unit_vector(vector: Any, dimension: int) -> np.ndarray:
    """Return ``vector`` as float64 of shape (dimension,) and length 1; `CaseLibraryError` if it can't be."""
    try:
        array = np.asarray(vector)
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"The vector cannot be read as numbers ({type(vector).__name__}); give {dimension} real numbers."
        raise CaseLibraryError(msg) from error
    if array.shape != (dimension,) or array.dtype.kind not in "fiu":
        msg = f"The vector is {array.dtype} of shape {array.shape}; give {dimension} real numbers."
        raise CaseLibraryError(msg)
    array = array.astype(np.float64)
    largest = np.abs(array).max()
    if not np.isfinite(largest) or largest == 0:
        fault = "all zero" if largest == 0 else "not finite"
        msg = f"The vector is {fault}; check the model and the crop it was given."
        raise CaseLibraryError(msg)
    # Scaled before squaring, so that very small and very large vectors neither underflow nor overflow.
    array /= largest
    return array / np.linalg.norm(array)


def stored_vector(vector: Any, dimension: int) -> np.ndarray:
    """`unit_vector` in the float32 that libraries keep; one that was kept already stays as it is, bit for bit."""
    unit = unit_vector(vector, dimension)
    if isinstance(vector, np.ndarray) and vector.dtype == np.float32:
        is_unit = abs(float(np.linalg.norm(vector.astype(np.float64))) - 1.0) <= _UNIT_ROUNDING
        return vector.astype("<f4") if is_unit else unit.astype("<f4")
    return unit.astype("<f4")


def checked_thumbnails(thumbnails: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Return the pictures, plane to uint8 grey of shape (height, width); `CaseLibraryError` for any other."""
    if not isinstance(thumbnails or {}, Mapping):
        msg = f"pictures is a {type(thumbnails).__name__}; give a mapping from plane to a uint8 grey image."
        raise CaseLibraryError(msg)
    for plane, thumbnail in (thumbnails or {}).items():
        if plane not in PLANES:
            msg = f"There is no plane {plane!r}; give one of {', '.join(PLANES)}."
            raise CaseLibraryError(msg)
        shape, dtype = getattr(thumbnail, "shape", ()), getattr(thumbnail, "dtype", type(thumbnail).__name__)
        if dtype != np.uint8 or len(shape) != 2 or not all(0 < side <= MAX_THUMBNAIL_SIDE for side in shape):
            msg = f"The {plane} picture is {dtype} {shape}; give uint8 (height, width)."
            raise CaseLibraryError(msg)
    return dict(thumbnails or {})


def _checked_attributes(attributes: object) -> dict[str, Scalar]:
    if not isinstance(attributes, Mapping):
        msg = f"attributes is a {type(attributes).__name__}; give a mapping from name to a single value."
        raise CaseLibraryError(msg)
    return {_checked_key(key): _checked_scalar(key, value) for key, value in attributes.items()}


def _checked_key(key: object) -> str:
    text = _checked_text(key, "attribute name", low=1, high=64)
    if re.sub(r"[^a-z]", "", text.lower()) in _IDENTIFYING_KEYS:
        msg = f"The attribute {text!r} would identify a patient; leave it out, or keep it outside the library."
        raise CaseLibraryError(msg)
    return text


def _checked_scalar(key: str, value: object) -> Scalar:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return _checked_text(value, f"attribute {key!r}", low=0, high=200)
    if value is None or isinstance(value, bool):
        return value
    if (isinstance(value, int) and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value)):
        return value
    kind = type(value).__name__
    msg = f"Attribute {key!r} cannot be kept ({kind}); give text, a finite number, bool or None."
    raise CaseLibraryError(msg)


def _checked_text(value: object, name: str, *, low: int, high: int, lines: bool = False) -> str:
    if not isinstance(value, str):
        msg = f"{name} is a {type(value).__name__}; give text."
        raise CaseLibraryError(msg)
    if not low <= len(value) <= high:
        msg = f"{name} has {len(value)} characters; give {low} to {high}."
        raise CaseLibraryError(msg)
    if _CONTROL.search(re.sub(r"[\n\t]", " ", value) if lines else value):
        msg = f"{name} has characters that cannot be shown; give plain text{'' if lines else ' on one line'}."
        raise CaseLibraryError(msg)
    _refuse_uid(value, name)
    return value


def _refuse_uid(value: str, name: str) -> None:
    if _DICOM_UID.search(value):
        msg = f"{name} contains a DICOM UID, which leads back to the patient; leave it out."
        raise CaseLibraryError(msg)


@runtime_checkable
class CaseStore(Protocol):
    """What every case library can do, wherever its cases lie; `CaseLibrary` keeps them in one file on this computer.

    Known lesions with their vectors, searched exactly by the metric of the model. Faults are `LesionLib.errors.CaseLibraryError`.
    """

    @property
    def model(self) -> ModelIdentity:
        """The model that its vectors are by; of several, the last."""

    def __len__(self) -> int:
        """How many cases it holds."""

    def models(self) -> list[IndexedModel]:
        """Every model it was indexed with."""

    def require_model(self, sha256: str) -> ModelIdentity:
        """The model ``sha256``, or an error naming those it can be searched with."""

    def add(
        self,
        case: Case,
        vector: Any,
        *,
        model_sha256: str,
        thumbnails: Mapping[str, np.ndarray] | None = None,
        patch: HuPatch | None = None,
        created: str | None = None,
        by: str | None = "",
    ) -> None:
        """Add one case, wholly or not at all; ``created``: its date, for one from another library.

        ``by``: the code of who adds it, kept with the time; None: not kept, for its history comes along.
        """

    def add_many(
        self,
        entries: Iterable[CaseEntry | tuple],
        *,
        model_sha256: str,
        created: Mapping[str, str] | None = None,
        by: str | None = "",
    ) -> int:
        """Add several cases, all or none; how many. ``created``: dates by case id, for cases from another library."""

    def update(self, case: Case, *, by: str = "") -> str:
        """Put other texts and attributes in the place of a case's; which they are, as `changed_fields` says it."""

    def remove(self, case_id: str, *, by: str | None = "") -> None:
        """Remove a case with all that belongs to it; that it was is kept with the code ``by`` and the time, with None not."""

    def remove_many(self, case_ids: Sequence[str], *, by: str = "") -> None:
        """Remove several cases; none where one of them is not there."""

    def changes(self, case_id: str | None = None) -> list[Change]:
        """What was done to a case ("": to the library as a whole), or to all of it, in the order of time."""

    def note_changes(self, changes: Iterable[Change]) -> None:
        """Keep what was done to cases where they were before; what is kept already is not kept twice."""

    def integrity_problems(self) -> tuple[str, ...]:
        """Read all of it; what is wrong, one line each."""

    def case(self, case_id: str) -> Case:
        """One case."""

    def cases(self) -> list[Case]:
        """All cases, ordered by case id."""

    def created(self) -> dict[str, str]:
        """The date on which each case was entered, by case id."""

    def contents(self) -> dict[str, tuple[str, ...]]:
        """What the cases have besides their fields, such as pictures, by case id."""

    def labels(self) -> dict[str, int]:
        """How many cases there are of each label."""

    def properties(self) -> dict[str, str]:
        """What is noted of the library as a whole, by name."""

    def set_property(self, name: str, value: str) -> None:
        """Note something of the library as a whole, in the place of what was noted under that name."""

    def thumbnails(self, case_id: str) -> dict[str, np.ndarray]:
        """The case's pictures, plane to uint8 grey (height, width)."""

    def patch(self, case_id: str) -> HuPatch | None:
        """The CT around the case's lesion, if it holds one."""

    def thumbnails_of(self, case_ids: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """The pictures of several cases, by case id."""

    def patches_of(self, case_ids: Sequence[str]) -> dict[str, HuPatch | None]:
        """The CTs around the lesions of several cases, by case id."""

    def vector(self, case_id: str, *, model_sha256: str) -> np.ndarray:
        """The case's vector by one model."""

    def vectors(self, case_ids: Sequence[str], *, model_sha256: str) -> dict[str, np.ndarray]:
        """Those of these cases' vectors by one model that there are, float32, by case id."""

    def search(self, vector: Any, *, k: int = 9, model_sha256: str, **filters: Any) -> list[Neighbour]:
        """The ``k`` most similar cases that the filters (fields of `SearchFilter`) leave, best first, ties by case id."""

    def __enter__(self) -> CaseStore:
        """Itself."""

    def __exit__(self, *exception: object) -> None:
        """Close it."""

    def close(self) -> None:
        """Let go of it."""


class OneByOne:
    """`CaseStore`'s questions about several cases, put for one after the other: in a file, each costs next to nothing."""

    def thumbnails_of(self, case_ids: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """The pictures of several cases, by case id."""
        return {case_id: self.thumbnails(case_id) for case_id in case_ids}

    def patches_of(self, case_ids: Sequence[str]) -> dict[str, HuPatch | None]:
        """The CTs around the lesions of several cases, by case id."""
        return {case_id: self.patch(case_id) for case_id in case_ids}
