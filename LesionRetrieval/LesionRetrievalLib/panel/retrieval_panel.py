"""The panel of Lesion Retrieval: its parts, what passes between them, and the work that it begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qt
import slicer.util
from LesionClassifierLib.background import BackgroundRun, runInBackground
from LesionClassifierLib.panel.base import ModulePanel, PanelRun
from LesionClassifierLib.panel.observers import offerOnlyCts
from LesionClassifierLib.scene.lesions import DEFAULT_BOX_MM, addLesionAt, lesionNodes, markAsLesion
from LesionClassifierLib.setup import missingPackages
from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import Embedding, EmbeddingRequest, RunOptions, describing_request
from LesionLib.inference.runner import InferenceRunner
from LesionLib.model.folder import user_data_folder
from slicer import vtkMRMLScene
from slicer.i18n import tr as _

from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.logic import embeddingRequest
from LesionRetrievalLib.panel.library import AddingPanel, FiltersPanel, LibraryPanel
from LesionRetrievalLib.panel.practice import PracticeRun, practiceText
from LesionRetrievalLib.panel.results import FoundPanel
from LesionRetrievalLib.scene.segments import SegmentChoice
from LesionRetrievalLib.scene.views import showInAllViews

Answered = Callable[[Embedding], str]


class EmbeddingRun(PanelRun[Embedding]):
    """One lesion being embedded; how far that is cannot be told."""

    def __init__(
        self, ui, runner: InferenceRunner, *, onEnded: Callable[[], None], onError: Callable[[str], None]
    ) -> None:
        super().__init__(
            ui.progressBar, ui.statusLabel, ui.cancelButton,
            onEnded=lambda _outcome: onEnded(), onError=onError, isCounted=False,
        )  # fmt: skip
        self._runner = runner
        self._onAnswer: Answered | None = None
        self._doing = ""

    def start(self, request: EmbeddingRequest, doing: str, answered: Answered) -> None:
        """Ask; returns at once. ``answered`` is called on the main thread and returns what to say."""
        if not self.isRunning:
            self._doing, self._onAnswer = doing, answered
            self._begin(runInBackground(self._runner, request))

    def _progressText(self, run: BackgroundRun[Embedding]) -> str:
        return _("{doing} ... {seconds:.0f} s").format(doing=self._doing, seconds=run.seconds)

    def _answered(self, run: BackgroundRun[Embedding], answer: Embedding) -> str:
        return self._onAnswer(answer)

    def _errorText(self, error: LesionLensError) -> str:
        return _("No answer: {0}").format(error)


class PanelWork:
    """What the panel does to libraries and files: make one, add and remove cases, save and load boxes.

    One button each. ``panel``: whose parts it uses.
    """

    def __init__(self, panel: RetrievalPanel, ui, logic, *, onError: Callable[[str], None]) -> None:
        self._panel, self._ui, self._logic, self._onError = panel, ui, logic, onError
        self.adding = AddingPanel(ui, onAdd=self._add, onRemove=self._remove)
        ui.saveAnnotationsButton.connect("clicked()", self._save)
        ui.loadAnnotationsButton.connect("clicked()", self._load)

    def update(self, askDisabledReason: str) -> None:
        """Enable the buttons, or say why not."""
        scene = self._panel.scene
        self.adding.update(
            self._logic.library, searchDisabledReason=askDisabledReason, hasChosen=self._panel.found.chosen is not None
        )
        self._ui.saveAnnotationsButton.enabled = scene is not None and bool(lesionNodes(scene))
        self._ui.loadAnnotationsButton.enabled = scene is not None

    def libraryChanged(self) -> None:
        """Another library, or other cases in it."""
        library = self._logic.library
        labels = [] if library is None else list(library.labels())
        organs = [] if library is None else sorted({case.organ for case in library.cases()})
        self._panel.library.show()
        self._panel.filters.fill(labels, organs)
        self.adding.fill(list(dict.fromkeys([*labels, *self._panel.models.classNames()])), organs)

    def newLibrary(self, path: Path) -> None:
        """Make an empty library for the chosen model, once the model has said who it is."""
        isRunning = self._panel.run.isRunning or self._panel.practice.isRunning
        if self._panel.isSetUp is False or not self._panel.models.model or isRunning:
            self._onError(_("A new library needs a model that can run, and no other run under way."))
            return
        if os.path.exists(path):
            self._onError(_("{0} exists; give another name.").format(path))
            return

        model = self._panel.models.model

        def answered(embedding: Embedding) -> str:
            try:
                self._logic.createLibrary(path, model=model, embedding=embedding)
            except LesionLensError as error:
                self._onError(str(error))
                return _("No library was made.")
            self._panel.library.opened()
            return _("{0} is made: add cases to it.").format(path.name)

        self._panel.run.start(
            describing_request(self._panel.models.model, self._panel.options()), _("Asking the model"), answered
        )
        self._panel.update()

    def _add(self) -> None:
        p = self._panel.parameters
        try:
            new, patient = self.adding.newCase(), self._panel.filters.identity()
            patient.require()
        except LesionLensError as error:
            self._onError(str(error))
            return
        scene, volumeId, roiId, typed = self._panel.scene, p.volume.GetID(), p.lesion.GetID(), self._ui.patientEdit.text

        def answered(embedding: Embedding) -> str:
            volumeNode, roiNode = scene.GetNodeByID(volumeId), scene.GetNodeByID(roiId)
            if volumeNode is None or roiNode is None:
                return _("The lesion was deleted meanwhile; nothing was added.")
            try:
                with slicer.util.WaitCursor():
                    caseId = self._logic.addCase(volumeNode, roiNode, new, patient=typed, embedding=embedding)
                    self.libraryChanged()
            except LesionLensError as error:
                self._onError(str(error))
                return _("Nothing was added.")
            self.adding.added()
            return _("{name} is in the library as {caseId}.").format(name=roiNode.GetName(), caseId=caseId)

        self._panel.ask(p.volume, p.lesion, _("Adding {0}").format(p.lesion.GetName()), answered)

    def _remove(self) -> None:
        chosen = self._panel.found.chosen
        question = _("Remove {0} ({1}) from the library? This cannot be undone.")
        if chosen is None or not slicer.util.confirmOkCancelDisplay(question.format(chosen.case_id, chosen.label)):
            return
        try:
            self._logic.removeCase(chosen.case_id)
        except LesionLensError as error:
            self._onError(str(error))
            return
        self.libraryChanged()
        self._panel.found.searchAgain()
        self._ui.statusLabel.text = _("{0} was removed.").format(chosen.case_id)

    def _save(self) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save the lesions' boxes"), "lesions.mrk.json", _("Markups (*.mrk.json)")
        )
        if path:
            self._tryTo(
                lambda: _("{0} boxes written.").format(
                    self._logic.saveAnnotations(path, lesionNodes(self._panel.scene))
                )
            )

    def _load(self) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Load boxes"), "", _("Markups (*.mrk.json)"))
        if path:
            self._tryTo(
                lambda: _("{0} boxes loaded.").format(len(self._logic.loadAnnotations(self._panel.scene, path)))
            )

    def _tryTo(self, action) -> None:
        try:
            self._ui.statusLabel.text = action()
        except LesionLensError as error:
            self._onError(str(error))


class RetrievalPanel(ModulePanel):
    """The panel of Lesion Retrieval: its parts, and what passes between them. All it does is one call on the logic or a function."""

    def __init__(self, ui, logic, *, missing=missingPackages) -> None:
        super().__init__(ui, logic, missing=missing)
        self._searchedIn = self._hint = ""
        self._isReady = False
        self.segments = SegmentChoice(ui, onLesion=self._lesionMade, onError=self._showError)
        self.filters = FiltersPanel(ui, logic, onChanged=self.update)
        self.run = EmbeddingRun(ui, logic.runner, onEnded=self.update, onError=self._showError)
        self.work = PanelWork(self, ui, logic, onError=self._showError)
        self.found = FoundPanel(ui, logic, onChanged=self.update, onError=self._showError, ask=self.ask)
        self.library = LibraryPanel(
            ui, logic, onOpened=self._libraryOpened, onNew=self.work.newLibrary, onError=self._showError
        )
        self.practice = PracticeRun(
            ui.progressBar, ui.statusLabel, ui.cancelButton,
            readyText=_("The practice library is open: computed nodules, no patient is in it."),
            onReady=self.library.open, onEnded=self.update, onError=self._showError,
        )  # fmt: skip
        ui.practiceLibraryButton.connect("clicked()", self._makePractice)
        ui.findButton.connect("clicked()", self.find)
        ui.setupButton.connect("clicked()", lambda: slicer.util.selectModule("LesionClassifier"))
        self._isReady = True

    def setScene(self, scene: vtkMRMLScene | None, parameters) -> None:
        """Show a scene and its parameter node; None for both while scenes change."""
        self.scene, self.parameters = scene, parameters
        if scene is None:
            self.run.forget()
            self.placing.stop()
            self.found.forget()
        elif self._logic.comparison is None:
            showInAllViews(scene)  # it may have been saved in the middle of a comparison
        self.segments.setParameters(parameters)
        self.filters.setParameters(parameters)
        self._watchScene()
        if scene is not None:
            offerOnlyCts(self._ui.volumeSelector, scene)
        if parameters is not None:
            self.models.choose(parameters.model, parameters.device)
            if parameters.libraryPath and parameters.libraryPath != self.library.path:
                self._openOfScene(parameters.libraryPath)
            elif self.library.path:
                parameters.libraryPath = self.library.path
        self.update()

    def setEntered(self, isEntered: bool) -> None:
        """Whether the module is the one that is shown. Where it is not, the panel leaves views and scene alone.

        A comparison or a quiz that is on stays as it is, and a search goes on.
        """
        self._isEntered = isEntered
        self._watchScene()
        if not isEntered:
            self.placing.stop()
        self.found.setEntered(isEntered)

    def parametersChanged(self) -> None:
        """A parameter was changed, here or by a script."""
        if self.parameters is not None and self._isEntered:
            self.models.choose(self.parameters.model, self.parameters.device)
            self.segments.show()
            self.filters.show()
            self.found.setOpacity(self.parameters.heatOpacity)
            self.update()

    def close(self) -> None:
        """The module goes away: end what runs, and leave the comparison."""
        super().close()
        self.practice.stop()
        self.found.forget()

    def askDisabledReason(self) -> str:
        """Why no lesion can be looked at now, in plain words; empty where it can."""
        p = self.parameters
        for hinders, text in (
            (not self.isSetUp, _("Something is missing: see above.")),
            (self.run.isRunning, _("A search is under way.")),
            (self.practice.isRunning, _("The practice library is being made.")),
            (p is None or p.volume is None, _("Choose a CT.")),
            (p is None or p.lesion is None, _("Choose a lesion: place a box around it, or use a segment.")),
            (not self.models.model, _("There is no model: install one from a file.")),
            (self._logic.library is None, _("Open a case library, or make a new one.")),
        ):
            if hinders:
                return text
        names = [each.identity.name for each in self._logic.library.models()]
        if self.models.model in names:
            return ""
        return _("This library was made with {0}: choose that model.").format(_(" or ").join(names))

    def findDisabledReason(self) -> str:
        """Why nothing can be searched for now."""
        reason = self.askDisabledReason()
        if not reason and not len(self._logic.library):
            reason = _("The library is empty: add cases to it.")
        return reason or self.filters.disabledReason()

    def find(self) -> None:
        """Search for the chosen lesion."""
        reason = self.findDisabledReason()
        if reason:
            self._ui.statusLabel.text = reason
            return
        p = self.parameters
        try:
            plan, patient, text = self.filters.plan(), self.filters.patient(), self.filters.text()
        except LesionLensError as error:
            self._ui.statusLabel.text = str(error)
            return
        volumeNode, roiNode = p.volume, p.lesion
        scene, volumeId, roiId = self.scene, volumeNode.GetID(), roiNode.GetID()

        def answered(embedding: Embedding) -> str:
            self.models.showDevice(embedding.info.device, str(ModelIdentity.of(embedding.info)))
            nodes = (scene.GetNodeByID(volumeId), scene.GetNodeByID(roiId))
            return self.found.search(embedding, plan, patient, nodes, text)

        self.ask(volumeNode, roiNode, _("Searching for {0}").format(roiNode.GetName()), answered)

    def update(self) -> None:
        """Bring buttons and words in line with everything."""
        if not self._isReady:
            return
        ui = self._ui
        reason = self._safely(self.findDisabledReason)
        ui.findButton.enabled = not reason
        ui.findButton.toolTip = reason or _("Search the library for the selected lesion. (Ctrl+Return)")
        isRunning = self.run.isRunning or self.practice.isRunning
        ui.cancelButton.enabled = isRunning
        ui.practiceLibraryButton.visible = self._logic.library is None
        ui.practiceLibraryButton.enabled = self.isSetUp and not isRunning
        ui.practiceLibraryButton.toolTip = practiceText(
            _("Nothing at hand yet? Computed nodules of three kinds, with their truth, kept in {0}.").format(
                user_data_folder() / "practice"
            ),
            [package.name for package in self._missing()],
        )
        ui.placeButton.enabled = self.scene is not None
        askDisabledReason = self._safely(self.askDisabledReason)
        self.found.update(askDisabledReason)
        self.work.update(askDisabledReason)
        if not isRunning and ui.statusLabel.text in ("", self._hint):
            # A hint gives way to the next one; what was said about a run stays.
            ui.statusLabel.text = self._hint = reason

    def _makePractice(self) -> None:
        try:
            self.practice.start(self._logic.startPracticeLibrary())
        except LesionLensError as error:
            self._showError(str(error))
        self.update()

    def ask(self, volumeNode, roiNode, doing: str, answered, similarTo=None) -> None:
        """Have the model embed a lesion; ``answered(embedding)`` says what to say. What is wrong with the input is told."""
        try:
            request = embeddingRequest(volumeNode, roiNode, self.models.model, self.options(), similarTo=similarTo)
        except LesionLensError as error:
            self._showError(str(error))
            return
        self.run.start(request, doing, answered)
        self.update()

    def options(self) -> RunOptions:
        """How the model is to run; a library's vectors are float32."""
        return RunOptions(device=self._ui.deviceSelector.currentText or "auto", precision="float32")

    def _libraryOpened(self) -> None:
        library = self._logic.library
        if self.parameters is not None:
            self.parameters.libraryPath = self.library.path
        if library is not None:
            self.models.choose(library.model.name, self._ui.deviceSelector.currentText)
            self._modelChosen(self.models.model, self._ui.deviceSelector.currentText)
        self.work.libraryChanged()
        if self.library.path != self._searchedIn:  # the same one, opened to be changed, keeps what was found in it
            self._searchedIn = self.library.path
            self.found.clear()
        self.update()

    def _openOfScene(self, path: str) -> None:
        """A scene may come from another computer: a library that is not here is said, not complained about."""
        if os.path.isfile(path):
            self.library.open(path, isAsked=False)
            return
        self.parameters.libraryPath = self.library.path
        self._ui.statusLabel.text = _("The library of this scene, {0}, is not on this computer.").format(
            Path(path).name
        )

    def _place(self) -> None:
        self._startPlacing(DEFAULT_BOX_MM, self._placed)

    def _placed(self, centerRAS: np.ndarray) -> None:
        self.parameters.lesion = addLesionAt(self.scene, centerRAS, sizeMm=DEFAULT_BOX_MM)
        self._ui.statusLabel.text = _("Pull the handles of the box until it fits the lesion.")

    def _lesionMade(self, roiNode) -> None:
        self.parameters.lesion = markAsLesion(roiNode)

    def _sceneChanged(self) -> None:
        offerOnlyCts(self._ui.volumeSelector, self.scene)
        self.segments.show()
        self.update()

    @staticmethod
    def _safely(reason) -> str:
        """A library that is damaged or gone must not end a slot."""
        try:
            return reason()
        except LesionLensError as error:
            return str(error)

    def _showError(self, text: str) -> None:
        """What the user asked for did not work: said once, in a window, and not again in the line of the panel."""
        if text in self._ui.statusLabel.text:
            self._ui.statusLabel.text = ""
            self.update()
        slicer.util.errorDisplay(text)
