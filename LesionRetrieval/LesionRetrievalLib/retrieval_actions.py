"""What the module's logic does, on nodes: ask about a lesion, search, add, explain, put side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from LesionClassifierLib.lesion_nodes import lesionsFromNodes
from LesionClassifierLib.volume_nodes import volumeFromNode
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import require_overlap
from LesionLib.runner_types import Embedding, EmbeddingRequest, RunOptions
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from .case_adding import NewCase, Owner, add_case
from .library import CaseLibrary, Neighbour
from .owner_key import key_if_there, owner_key
from .patient_identity import DicomValues, PatientIdentity, identityOfVolume
from .search_plan import SearchPlan

if TYPE_CHECKING:
    import numpy as np

NEIGHBOURS = 9


def embeddingRequest(
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNode: vtkMRMLMarkupsROINode,
    model: str | Path,
    options: RunOptions | None = None,
    *,
    similarTo: np.ndarray | None = None,
) -> EmbeddingRequest:
    """What a runner is asked; the box is checked against the CT. Raises `VolumeError` or `BoxError`."""
    volume, (box,) = volumeFromNode(volumeNode), lesionsFromNodes([roiNode])
    require_overlap(volume, box)
    return EmbeddingRequest(str(model), volume, box, options or RunOptions(), similar_to=similarTo)


def patientHash(identity: PatientIdentity, keyPath: Path | None = None) -> str | None:
    """The hash by which a library knows the patient; None where the patient or the key is not known. `CaseLibraryError`."""
    if not identity.is_known:
        return None
    key = key_if_there(keyPath)
    return None if key is None else identity.hashes(key)[0]


def searchLibrary(
    library: CaseLibrary, embedding: Embedding, plan: SearchPlan, patient: str | None, *, k: int = NEIGHBOURS
) -> list[Neighbour]:
    """The ``k`` most similar cases that the plan leaves, best first. Raises `CaseLibraryError`."""
    filters: dict[str, Any] = plan.filters(patient)
    return library.search(embedding.vector, k=k, model_sha256=embedding.info.model_sha256, **filters)


def dicomDatabase() -> DicomValues | None:
    """Slicer's; None where it is not open."""
    return getattr(slicer, "dicomDatabase", None)


def requireLibrary(library: CaseLibrary | None) -> CaseLibrary:
    """The open library; `CaseLibraryError` where there is none."""
    if library is None:
        msg = "No case library is open; open one, or make a new one."
        raise CaseLibraryError(msg)
    return library


def addLesion(
    library: CaseLibrary,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNode: vtkMRMLMarkupsROINode,
    new: NewCase,
    *,
    embedding: Embedding,
    patient: str = "",
    keyPath: Path | None = None,
    database: DicomValues | None = None,
) -> str:
    """Store an embedded lesion; returns its case id. The owner's key is made at the first use. `LesionLensError`."""
    identity = identityOfVolume(volumeNode, typed=patient, database=database)
    identity.require()  # before a key is made
    owner = Owner(*identity.hashes(owner_key(keyPath)), identifiers=identity.texts)
    volume, (box,) = volumeFromNode(volumeNode), lesionsFromNodes([roiNode])
    return add_case(library, volume, box, embedding, new=new, owner=owner)
