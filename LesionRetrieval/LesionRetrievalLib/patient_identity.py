"""Whose CT it is, as Slicer knows it. It stays in memory: a library gets hashes, a scene nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from LesionLib.errors import CaseLibraryError
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSubjectHierarchyNode

from .pseudonyms import Pseudonymiser

_INSTANCES = "DICOM.instanceUIDs"
_PATIENT_ID, _STUDY_UID = "0010,0020", "0020,000d"
# Names, numbers and dates that must not stand in a case's texts.
_IDENTIFYING = (
    "0010,0010", "0010,0020", "0010,0030", "0010,1000", "0010,1001", "0010,1040", "0008,0020", "0008,0021", "0008,0050",
    "0008,0080", "0008,0090", "0008,1070", "0020,0010",
)  # fmt: skip


class DicomValues(Protocol):
    """The part of Slicer's DICOM database that is asked."""

    def instanceValue(self, instanceUID: str, tag: str) -> str:
        """One element of one instance; empty where it is not known."""


@dataclass(frozen=True)
class PatientIdentity:
    """``patient`` and ``study``: the identifiers, "" where not known. ``texts``: what must not be in a case's texts."""

    patient: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)

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
        """Patient and study hash; the patient's identifier stands in for a study that is not known. `CaseLibraryError`."""
        self.require()
        return key.hash(self.patient), key.hash(self.study or self.patient, domain="study")


def identityOfVolume(
    volumeNode: vtkMRMLScalarVolumeNode | None, *, typed: str = "", database: DicomValues | None = None
) -> PatientIdentity:
    """From Slicer's DICOM database, else from the subject hierarchy, else what the user has typed.

    Raises `CaseLibraryError` where what was typed is not what the CT itself says.
    """
    stored = PatientIdentity() if volumeNode is None else _fromDatabase(volumeNode, database)
    return _completed(volumeNode, stored, typed)


class KnownIdentities:
    """`identityOfVolume` for a panel that asks at every change: the database is asked once for each state of a CT.

    It is kept in memory until `forget`, under the node's ID.
    """

    def __init__(self) -> None:
        self._stored: dict[str, tuple[tuple, PatientIdentity]] = {}

    def ofVolume(
        self, volumeNode: vtkMRMLScalarVolumeNode | None, *, typed: str = "", database: DicomValues | None = None
    ) -> PatientIdentity:
        """As `identityOfVolume`."""
        if volumeNode is None:
            return identityOfVolume(None, typed=typed)
        state = (volumeNode.GetAttribute(_INSTANCES), volumeNode.GetMTime(), id(database))
        known, stored = self._stored.get(volumeNode.GetID(), (None, PatientIdentity()))
        if known != state:
            stored = _fromDatabase(volumeNode, database)
            self._stored[volumeNode.GetID()] = (state, stored)
        return _completed(volumeNode, stored, typed)

    def forget(self) -> None:
        """Another scene, or a good moment to ask anew."""
        self._stored.clear()


def _completed(volumeNode: vtkMRMLScalarVolumeNode | None, stored: PatientIdentity, typed: str) -> PatientIdentity:
    known = stored if stored.is_known or volumeNode is None else _fromHierarchy(volumeNode)
    typed = typed.strip()
    if not typed:
        return known
    if known.is_known and typed != known.patient:
        msg = "The patient that was typed is another than the CT's own; leave it empty, or check that this is the right CT."
        raise CaseLibraryError(msg)
    return PatientIdentity(typed, known.study, (*known.texts, typed))


def _fromDatabase(volumeNode: vtkMRMLScalarVolumeNode, database: DicomValues | None) -> PatientIdentity:
    instances = (volumeNode.GetAttribute(_INSTANCES) or "").split()
    if not instances or database is None:
        return PatientIdentity()
    values = {
        tag: (database.instanceValue(instances[0], tag) or "").strip(" \0") for tag in (*_IDENTIFYING, _STUDY_UID)
    }
    texts = tuple(value for tag, value in values.items() if value and tag != _STUDY_UID)
    return PatientIdentity(values[_PATIENT_ID], values[_STUDY_UID], texts)


def _fromHierarchy(volumeNode: vtkMRMLScalarVolumeNode) -> PatientIdentity:
    """A saved scene keeps the DICOM attributes of patient and study in its tree."""
    tree = volumeNode.GetScene().GetSubjectHierarchyNode() if volumeNode.GetScene() is not None else None
    item = tree.GetItemByDataNode(volumeNode) if tree is not None else 0
    attributes: dict[str, str] = {}
    while item:
        attributes = {**_dicomAttributes(tree, item), **attributes}
        parent = tree.GetItemParent(item)
        item = parent if parent != item and parent != tree.GetSceneItemID() else 0
    patient = attributes.get("DICOM.PatientID", "")
    study = attributes.get("DICOM.StudyInstanceUID", "")
    texts = tuple(v for name, v in attributes.items() if v and _isIdentifying(name))
    return PatientIdentity(patient, study, texts)


def _isIdentifying(name: str) -> bool:
    return any(part in name for part in ("PatientID", "PatientName", "PatientBirthDate", "StudyID", "StudyDate"))


def _dicomAttributes(tree: vtkMRMLSubjectHierarchyNode, item: int) -> dict[str, str]:
    names = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "StudyID", "StudyDate")
    return {f"DICOM.{name}": value for name in names if (value := tree.GetItemAttribute(item, f"DICOM.{name}"))}
