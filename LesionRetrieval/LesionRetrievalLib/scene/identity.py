"""Whose CT it is, as Slicer knows it. It stays in memory: a library gets hashes, a scene nothing."""

from __future__ import annotations

from typing import Protocol

from LesionLib.errors import CaseLibraryError
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSubjectHierarchyNode

from LesionRetrievalLib.library.intake import BURNED_IN_ELEMENT, IDENTIFYING_ELEMENTS, PatientIdentity

_INSTANCES = "DICOM.instanceUIDs"


class DicomValues(Protocol):
    """The part of Slicer's DICOM database that is asked."""

    def instanceValue(self, instanceUID: str, tag: str) -> str:
        """One element of one instance; empty where it is not known."""


def identityOfVolume(
    volumeNode: vtkMRMLScalarVolumeNode | None, *, typed: str = "", database: DicomValues | None = None
) -> PatientIdentity:
    """From Slicer's DICOM database, else from the subject hierarchy, else what the user has typed.

    Raises `CaseLibraryError` where what was typed is not what the CT itself says.
    """
    stored = PatientIdentity() if volumeNode is None else _fromDatabase(volumeNode, database)
    return _completed(volumeNode, stored, typed)


def hasBurnedInText(volumeNode: vtkMRMLScalarVolumeNode, database: DicomValues | None) -> bool:
    """Whether the CT says that text is burned into its images; its first, middle and last one are asked."""
    instances = (volumeNode.GetAttribute(_INSTANCES) or "").split()
    if not instances or database is None:
        return False
    asked = {instances[place] for place in (0, len(instances) // 2, -1)}
    return any((database.instanceValue(uid, BURNED_IN_ELEMENT) or "").strip().upper() == "YES" for uid in sorted(asked))


class IdentityCache:
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
    values = {name: database.instanceValue(instances[0], tag) or "" for name, tag in IDENTIFYING_ELEMENTS.items()}
    return PatientIdentity.of_elements({name: value.split("\\") for name, value in values.items()})


def _fromHierarchy(volumeNode: vtkMRMLScalarVolumeNode) -> PatientIdentity:
    """A saved scene keeps the DICOM attributes of patient and study in its tree."""
    tree = volumeNode.GetScene().GetSubjectHierarchyNode() if volumeNode.GetScene() is not None else None
    item = tree.GetItemByDataNode(volumeNode) if tree is not None else 0
    attributes: dict[str, str] = {}
    while item:
        attributes = {**_dicomAttributes(tree, item), **attributes}
        parent = tree.GetItemParent(item)
        item = parent if parent != item and parent != tree.GetSceneItemID() else 0
    return PatientIdentity.of_elements({name: [value] for name, value in attributes.items()})


def _dicomAttributes(tree: vtkMRMLSubjectHierarchyNode, item: int) -> dict[str, str]:
    return {name: value for name in IDENTIFYING_ELEMENTS if (value := tree.GetItemAttribute(item, f"DICOM.{name}"))}
