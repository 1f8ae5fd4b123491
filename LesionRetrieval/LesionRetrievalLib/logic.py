"""Every button of the retrieval panel as one call that a script can make. Light to import: torch comes with its use.

The functions before the class are what it does, on nodes: ask about a lesion, search, add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from LesionClassifierLib.background import BackgroundRun
from LesionClassifierLib.logic import RunnerLogic
from LesionClassifierLib.scene.lesions import lesionsFromNodes
from LesionClassifierLib.scene.volumes import volumeFromNode
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import require_overlap
from LesionLib.inference.messages import Embedding, EmbeddingRequest, RunOptions, describing_request
from LesionLib.inference.runner import InferenceRunner
from LesionLib.model.folder import DEFAULT_MODEL, segment_margin_mm
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene

from LesionRetrievalLib.library.cases import ModelIdentity, Neighbour, indexed_as
from LesionRetrievalLib.library.feedback import FeedbackLog, Query, query_fingerprint
from LesionRetrievalLib.library.intake import NewCase, Owner, PatientIdentity, add_case, require_no_burned_in_text
from LesionRetrievalLib.library.neighbours import NeighbourVote, nearest_other_class, neighbour_vote
from LesionRetrievalLib.library.ownership import (
    KeyState,
    key_for_adding,
    key_state,
    properties_to_note,
    stored_form,
)
from LesionRetrievalLib.library.pseudonyms import key_if_there
from LesionRetrievalLib.library.search.filters import SearchPlan
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.scene.annotations import loadAnnotations, saveAnnotations
from LesionRetrievalLib.scene.comparison import SideBySide, showSimilarity
from LesionRetrievalLib.scene.identity import DicomValues, hasBurnedInText, identityOfVolume

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


def patientHash(
    identity: PatientIdentity, keyPath: Path | None = None, library: CaseLibrary | None = None
) -> str | None:
    """The hash by which a library knows the patient; None where the patient or the key is not known. `CaseLibraryError`.

    ``library``: where one is open; the key has to be its own.
    """
    if not identity.is_known:
        return None
    key = key_if_there(keyPath)
    if key is None or (library is not None and key_state(library, key) is KeyState.FOREIGN):
        return None
    return identity.hashes(key)[0]


def searchLibrary(
    library: CaseLibrary, embedding: Embedding, plan: SearchPlan, patient: str | None, *, k: int = NEIGHBOURS
) -> list[Neighbour]:
    """The ``k`` most similar cases that the plan leaves, best first. Raises `CaseLibraryError`."""
    filters: dict[str, Any] = plan.filters(patient)
    sha256 = indexed_as(library, ModelIdentity.of_embedding(embedding))
    return library.search(embedding.vector, k=k, model_sha256=sha256, **filters)


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
    if new.with_thumbnails or new.with_patch:
        require_no_burned_in_text(hasBurnedInText(volumeNode, database))
    key = key_for_adding(library, keyPath)
    patient, study = identity.hashes(key)
    properties = properties_to_note(library, key, patient)
    owner = Owner(stored_form(library, patient), str(study), identifiers=identity.texts)
    volume, (box,) = volumeFromNode(volumeNode), lesionsFromNodes([roiNode])
    caseId = add_case(library, volume, box, embedding, new=new, owner=owner)
    for name, value in properties.items():
        library.set_property(name, value)
    return caseId


class RetrievalLogic(RunnerLogic):
    """``runner``: where models run (None: in this process). ``keyPath``: the owner's key (None: the usual place).

    Faults are `LesionLib.errors.LesionLensError` in plain English.
    """

    def __init__(self, *, runner: InferenceRunner | None = None, keyPath: Path | None = None) -> None:
        super().__init__(runner=runner)
        self.keyPath = keyPath
        self.library: CaseLibrary | None = None
        self._comparison: SideBySide | None = None

    @property
    def comparison(self) -> SideBySide | None:
        """What is shown side by side now; None where nothing is, also after a scene was loaded."""
        return self._comparison if self._comparison is not None and self._comparison.isShown else None

    def close(self) -> None:
        """Go back from a comparison, let go of the library and of the models."""
        self.hideSideBySide()
        self.closeLibrary()
        super().close()

    def openLibrary(self, path: str | Path, *, writable: bool = False) -> CaseLibrary:
        """Open a case library, to read only or to change it too; one that was open is closed."""
        library = CaseLibrary.open(path, read_only=not writable)
        self.closeLibrary()
        self.library = library
        return library

    def createLibrary(
        self, path: str | Path, *, model: str | Path = DEFAULT_MODEL, embedding: Embedding | None = None
    ) -> CaseLibrary:
        """Make an empty library for a model, and open it to be filled. ``embedding``: any of the model, where there is one."""
        embedding = embedding or self.runner.run(describing_request(str(model)))
        identity = replace(ModelIdentity.of_embedding(embedding), segment_margin_mm=segment_margin_mm(model))
        library = CaseLibrary.create(path, model=identity, dimension=len(embedding.vector))
        self.closeLibrary()
        self.library = library
        return library

    def startPracticeLibrary(self) -> BackgroundRun[Path]:
        """A library of computed nodules, made in the background in the user's data folder; one that is there is taken.

        Returns at once; the run ends with the library's path, for `openLibrary`.
        """
        from LesionRetrievalLib.practice import (
            LIBRARY_CASES,
            make_practice_library,
            practice_files,
        )  # late: needs scipy

        files, runner, keyPath = practice_files(), self.runner, self.keyPath

        def work(run: BackgroundRun[Path]) -> Path:
            return make_practice_library(files, runner, key_path=keyPath, progress=run.noteUnlessCancelled)

        return BackgroundRun(runner, work, total=LIBRARY_CASES)

    def closeLibrary(self) -> None:
        """Let go of the file."""
        if self.library is not None:
            self.library.close()
            self.library = None

    def embed(self, volumeNode, roiNode, *, model: str | Path = DEFAULT_MODEL, similarTo=None) -> Embedding:
        """Where the model sees a lesion among others, and its probabilities where the model knows classes."""
        return self.runner.run(embeddingRequest(volumeNode, roiNode, model, similarTo=similarTo))

    def addCase(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        roiNode: vtkMRMLMarkupsROINode,
        case: NewCase,
        *,
        model: str | Path = DEFAULT_MODEL,
        patient: str = "",
        embedding: Embedding | None = None,
    ) -> str:
        """Add the lesion to the library and return its case id. ``patient``: who it is, where the CT does not say; hashed."""
        library = requireLibrary(self.library)
        embedding = embedding or self.embed(volumeNode, roiNode, model=model)
        return addLesion(
            library, volumeNode, roiNode, case,
            embedding=embedding, patient=patient, keyPath=self.keyPath, database=dicomDatabase(),
        )  # fmt: skip

    def removeCase(self, caseId: str) -> None:
        """Remove a case with its vector, pictures and CT from the library."""
        requireLibrary(self.library).remove(caseId)

    def findSimilar(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        roiNode: vtkMRMLMarkupsROINode,
        libraryPath: str | Path | None = None,
        *,
        model: str | Path = DEFAULT_MODEL,
        k: int = 9,
        plan: SearchPlan | None = None,
        patient: str = "",
    ) -> list[Neighbour]:
        """The ``k`` most similar cases of the library (default: the open one), best first; the scene stays as it is.

        ``plan``: what is left out and kept (default: cases of the same patient are left out, where it is known).
        """
        embedding = self.embed(volumeNode, roiNode, model=model)
        if libraryPath is None:
            whose = self.patientHash(volumeNode, patient=patient)
            return searchLibrary(requireLibrary(self.library), embedding, plan or SearchPlan(), whose, k=k)
        with CaseLibrary.open(libraryPath) as library:
            whose = self.patientHash(volumeNode, patient=patient, library=library)
            return searchLibrary(library, embedding, plan or SearchPlan(), whose, k=k)

    def patientHash(
        self, volumeNode: vtkMRMLScalarVolumeNode, *, patient: str = "", library: CaseLibrary | None = None
    ) -> str | None:
        """How a library (default: the open one) knows this CT's patient; None where the patient or its key is not known."""
        identity = identityOfVolume(volumeNode, typed=patient, database=dicomDatabase())
        return patientHash(identity, self.keyPath, library or self.library)

    def neighbourVote(self, neighbours: Sequence[Neighbour]) -> NeighbourVote:
        """The share of each label among cases that were found, weighted by similarity."""
        return neighbour_vote(neighbours)

    def nearestOtherClass(
        self, embedding: Embedding, label: str, *, plan: SearchPlan | None = None, patientHash: str | None = None
    ) -> Neighbour | None:
        """The most similar case that is not ``label``: what else the lesion might be. ``plan``: that of the search."""
        filters = (plan or SearchPlan()).filters(patientHash)
        library = requireLibrary(self.library)
        sha256 = indexed_as(library, ModelIdentity.of_embedding(embedding))
        return nearest_other_class(library, embedding.vector, label, model_sha256=sha256, filters=filters)

    def similarityMap(
        self, volumeNode: vtkMRMLScalarVolumeNode, roiNode: vtkMRMLMarkupsROINode, caseId: str,
        *, model: str | Path = DEFAULT_MODEL,
    ) -> vtkMRMLScalarVolumeNode:  # fmt: skip
        """What in the lesion makes it resemble the case, as a volume over the CT in all slice views."""
        library = requireLibrary(self.library)
        vector = library.vector(caseId, model_sha256=library.model.sha256)
        embedding = self.embed(volumeNode, roiNode, model=model, similarTo=vector)
        identity = ModelIdentity.of_embedding(embedding)
        indexed_as(library, identity)
        return showSimilarity(volumeNode, roiNode, embedding.heat_map, caseId=caseId, model=identity)

    def showSideBySide(
        self, volumeNode: vtkMRMLScalarVolumeNode, roiNode: vtkMRMLMarkupsROINode, caseId: str
    ) -> SideBySide:
        """The lesion above and the case below, in linked slice views; an earlier comparison goes."""
        library = requireLibrary(self.library)
        case, patch = library.case(caseId), library.patch(caseId)
        self.hideSideBySide()
        self._comparison = SideBySide(volumeNode, roiNode, patch, caseId=caseId, label=case.label)
        return self._comparison

    def hideSideBySide(self) -> None:
        """Layout and views as they were, and the case out of the scene."""
        if self._comparison is not None:
            self._comparison.close()
            self._comparison = None

    def markNotSimilar(self, embedding: Embedding, caseId: str, *, isMarked: bool = True) -> Path:
        """Note that a case is not similar to the lesion, or take that back; returns the file it stands in."""
        log, query = self._feedback(embedding)
        return log.mark(query, caseId) if isMarked else log.withdraw(query, caseId)

    def notSimilar(self, embedding: Embedding) -> set[str]:
        """The ids of the cases that were marked for this lesion."""
        log, query = self._feedback(embedding)
        return log.marked(query)

    def _feedback(self, embedding: Embedding) -> tuple[FeedbackLog, Query]:
        path = requireLibrary(self.library).path
        return FeedbackLog(path), Query(query_fingerprint(embedding.vector), embedding.info.model_sha256, path.name)

    def saveAnnotations(self, path: str | Path, roiNodes: Sequence[vtkMRMLMarkupsROINode]) -> int:
        """Write boxes with their labels and attributes as .mrk.json, which Slicer opens; returns how many."""
        return saveAnnotations(Path(path), roiNodes)

    def loadAnnotations(self, scene: vtkMRMLScene, path: str | Path) -> list[vtkMRMLMarkupsROINode]:
        """The boxes of a .mrk.json file as lesions, with their labels and attributes."""
        return loadAnnotations(scene, Path(path))
