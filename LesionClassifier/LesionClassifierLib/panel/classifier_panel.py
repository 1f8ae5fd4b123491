"""The panel of Lesion Classifier: its parts, what passes between them, and the buttons that classify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import qt
import slicer.util
from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import RunOptions, RunRequest, RunResponse
from LesionLib.inference.runner import InferenceRunner
from LesionLib.model.folder import map_method, segment_margin_mm
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene
from slicer.i18n import tr as _

from LesionClassifierLib.background import BackgroundRun, Outcome, runInBackground
from LesionClassifierLib.classification import requestFromNodes, showResponse
from LesionClassifierLib.panel.base import ModulePanel, PanelRun
from LesionClassifierLib.panel.lesions import LesionsPanel
from LesionClassifierLib.panel.observers import offerOnlyCts
from LesionClassifierLib.panel.results import ExplanationPanel, ResultPanel
from LesionClassifierLib.scene.lesions import addLesionAt, isDrawn, segmentationOfParts
from LesionClassifierLib.setup import install, missingPackages, offerAccelerator


class RunPanel(PanelRun[RunResponse]):
    """The run that the buttons which classify begin: progress per lesion.

    Nodes are remembered by ID: they, or the scene, may be gone when the answer comes.
    """

    def __init__(
        self, ui, runner: InferenceRunner, *, onEnded: Callable[[Outcome], None], onError: Callable[[str], None]
    ) -> None:
        super().__init__(ui.progressBar, ui.statusLabel, ui.cancelButton, onEnded=onEnded, onError=onError)
        self._runner = runner
        self._request: RunRequest | None = None
        self._scene: vtkMRMLScene | None = None
        self._volumeId, self._roiIds = "", []
        self._colorSegments = True
        self.note = ""  # said when the run has ended, beside how it ended
        self.laysViews = False  # the panel says when its module is the one that is shown

    def start(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        roiNodes: Sequence[vtkMRMLMarkupsROINode],
        model: str,
        options: RunOptions,
        *,
        colorSegments: bool,
    ) -> None:
        """Ask about these lesions; returns at once. What is wrong with the input is told and nothing is started."""
        if self.isRunning:
            return
        try:
            self._request = requestFromNodes(volumeNode, roiNodes, model, options)
            run = runInBackground(self._runner, self._request)
        except LesionLensError as error:
            self._onError(str(error))
            return
        self._scene, self._volumeId = volumeNode.GetScene(), volumeNode.GetID()
        self._roiIds, self._colorSegments = [node.GetID() for node in roiNodes], colorSegments
        self._begin(run)

    def _endText(self, run: BackgroundRun[RunResponse], outcome: Outcome[RunResponse]) -> str:
        note, self.note = self.note, ""
        return " ".join(part for part in (super()._endText(run, outcome), note) if part)

    def _progressText(self, run: BackgroundRun[RunResponse]) -> str:
        return _("{name}: lesion {number} of {total}, {seconds:.0f} s").format(
            name=run.name, number=min(run.done + 1, run.total), total=run.total, seconds=run.seconds
        )

    def _answered(self, run: BackgroundRun[RunResponse], answer: RunResponse) -> str:
        kept = self._showPrediction(answer)
        if kept is None:
            return self._goneText()
        text = _("{count} answered in {seconds:.1f} s on {device}.").format(
            count=kept, seconds=run.seconds, device=answer.info.device
        )
        gone = len(self._roiIds) - kept
        return text + (_(" {0} were deleted meanwhile.").format(gone) if gone else "")

    def _showPrediction(self, answer: RunResponse) -> int | None:
        """Show what still has its nodes; how many that are, or None where the CT is gone."""
        volumeNode = self._scene.GetNodeByID(self._volumeId)
        if volumeNode is None:
            return None
        nodes = [self._scene.GetNodeByID(roiId) for roiId in self._roiIds]
        kept = [index for index, node in enumerate(nodes) if node is not None]
        if kept:
            answer.results[:] = [answer.results[index] for index in kept]
            rois = [nodes[index] for index in kept]
            showResponse(
                volumeNode, rois, self._request, answer,
                colorSegments=self._colorSegments, laysViews=self.laysViews,
            )  # fmt: skip
        return len(kept)


class ClassifierPanel(ModulePanel):
    """The panel of Lesion Classifier: its parts, and what passes between them. All it does is one call on the logic or a function."""

    def __init__(self, ui, logic, *, requirements: Path, missing=missingPackages) -> None:
        super().__init__(ui, logic, missing=missing)
        self._requirements = requirements
        self.result = ResultPanel(ui, onCard=self.models.showCard)
        self.explanation = ExplanationPanel(ui, onAsk=self._explain)
        self.run = RunPanel(ui, logic.runner, onEnded=self._ended, onError=self._showError)
        self.lesions = LesionsPanel(
            ui.lesionTable, onChanged=self._showCurrent, onSelected=self._currentChosen, onError=self._showError
        )
        for button, slot in (
            (ui.jumpButton, self.lesions.jump), (ui.deleteButton, self._delete),
            (ui.addSegmentsButton, self._addSegments), (ui.classifyButton, self.classifyAll),
            (ui.classifySelectedButton, self.classifySelected), (ui.exportCsvButton, self._exportCsv),
            (ui.exportReportButton, self._exportReport), (ui.exportDicomButton, self._exportDicom),
            (ui.setupButton, self._setUp), (ui.setupOfflineButton, self._setUpOffline),
        ):  # fmt: skip
            button.connect("clicked()", slot)

    def setScene(self, scene: vtkMRMLScene | None, parameters) -> None:
        """Show a scene and its parameter node; None for both while scenes change."""
        isAnother = scene is not self.scene
        self.scene, self.parameters = scene, parameters
        if scene is None:
            self.run.forget()
            self.placing.stop()
        if parameters is not None:
            self.models.choose(parameters.model, parameters.device)
        self._watchScene()
        self.result.setScene(scene)
        self.lesions.setScene(scene)
        if scene is not None:
            self._hideMaps()
            if isAnother:
                self.adoptViews()

    def setEntered(self, isEntered: bool) -> None:
        """Whether this module is the one that is shown. While it is not, neither views nor scene are touched or watched."""
        self._isEntered = self.run.laysViews = isEntered
        self._watchScene()
        if isEntered:
            self._sceneChanged()
            self._layViews()
        else:
            self.placing.stop()

    def adoptViews(self) -> None:
        """The slice views of a scene that was opened or imported stay as they were saved."""
        if self.parameters is not None:
            self.explanation.adopt(self.lesions.current, self.parameters)

    def parametersChanged(self) -> None:
        """A parameter was changed, here or by a script."""
        if self.parameters is not None:
            self.models.choose(self.parameters.model, self.parameters.device)
            self._currentChosen()

    def disabledReason(self) -> str:
        """Why nothing can be classified now, in plain words; empty where it can."""
        if not self.isSetUp:
            return _("Something is missing: see the set-up step above.")
        if self.run.isRunning:
            return _("A run is under way.")
        if self.parameters is None or self.parameters.volume is None:
            return _("Choose a CT.")
        if not self.lesions.lesions:
            return _("Place a box around a lesion, or add the segments of a segmentation.")
        if not self.models.model:
            return _("There is no model: install one from a file.")
        return ""

    def classifyAll(self) -> None:
        """Answer all lesions."""
        self._classify(self.lesions.lesions)

    def classifySelected(self) -> None:
        """Answer the selected lesions."""
        self._classify(self.lesions.selected)

    def _classify(self, roiNodes, className: str | None = None) -> None:
        reason = self.disabledReason() or ("" if roiNodes else _("Select a lesion."))
        if reason:
            self._ui.statusLabel.text = reason
            return
        drawn = [node for node in roiNodes if isDrawn(node)]
        undrawn = [node.GetName() for node in roiNodes if not isDrawn(node)]
        if not drawn:
            self._ui.statusLabel.text = _("{0}: not drawn yet; place a box around the lesion.").format(
                ", ".join(undrawn)
            )
            return
        p = self.parameters
        self.run.start(p.volume, drawn, self.models.model, self.options(className), colorSegments=p.colorSegments)
        if undrawn and self.run.isRunning:
            self.run.note = _("Left out, because not drawn yet: {0}.").format(", ".join(undrawn))
        self.update()

    def options(self, className: str | None = None) -> RunOptions:
        """How the model is to run. ``className``: the class that the map explains (None: the one that the model chose).

        A map that takes seconds is made on demand only: for a class that was chosen.
        """
        jitter = self.parameters.redrawnBoxes if self.parameters is not None else 0
        method = self.explanation.method
        if className is None and (method or _mapMethodOf(self.models.model)) != "grad_cam":
            method = "none"
        return RunOptions(
            class_name=className, device=self._ui.deviceSelector.currentText or "auto", box_jitter=jitter,
            map_method=method,
        )  # fmt: skip

    def _explain(self, className: str) -> None:
        current = self.lesions.current
        if current is not None:
            self._classify([current], className)

    def _ended(self, outcome: Outcome) -> None:
        if outcome.value is not None:
            info, precision = outcome.value.info, outcome.value.precision
            self.models.showDevice(info.device, f"{info.software}; {precision.reason}")
        self.lesions.refresh()
        self._layViews()

    def _sceneChanged(self) -> None:
        self._hideMaps()
        self.lesions.refresh()

    def _hideMaps(self) -> None:
        """Grad-CAM volumes are no CT to choose."""
        offerOnlyCts(self._ui.volumeSelector, self.scene)

    def _showCurrent(self) -> None:
        """After a change of the scene: the widgets follow, the views stay."""
        current = self.lesions.current
        self.result.show(current, answerAnyway=self._answersAnyway)
        if self.parameters is not None:
            self.explanation.show(current, self.parameters, laysViews=False)
        self.update()

    @property
    def _answersAnyway(self) -> bool:
        """Whether the user wants to see what the network computed also where the model has no answer."""
        return self.parameters is not None and self.parameters.answerAnyway

    def _currentChosen(self) -> None:
        """After a choice of the user: the views follow too."""
        self._showCurrent()
        self._layViews()

    def _layViews(self) -> None:
        if self._isEntered and self.parameters is not None:
            self.explanation.show(self.lesions.current, self.parameters, laysViews=True)

    def update(self) -> None:
        """Bring buttons and words in line with everything."""
        ui, reason = self._ui, self.disabledReason()
        selected = bool(self.lesions.selected)
        ui.classifyButton.enabled = not reason
        ui.classifyButton.toolTip = reason or _("Answer all lesions. (Ctrl+Return)")
        ui.classifySelectedButton.enabled = not reason and selected
        ui.classifySelectedButton.toolTip = reason or (
            _("Answer the selected lesions.") if selected else _("Select a lesion.")
        )
        ui.cancelButton.enabled = self.run.isRunning
        ui.jumpButton.enabled, ui.deleteButton.enabled = self.lesions.current is not None, selected
        ui.placeButton.enabled = self.parameters is not None
        ui.addSegmentsButton.enabled = self.parameters is not None and self.parameters.segmentation is not None
        isAnswered = any(node.GetAttribute("LesionLens.Result") for node in self.lesions.lesions)
        for button in (ui.exportCsvButton, ui.exportReportButton, ui.exportDicomButton):
            button.enabled = isAnswered
        if reason and not self.run.isRunning and not ui.statusLabel.text:
            ui.statusLabel.text = reason

    def _modelChosen(self, model: str, device: str) -> None:
        if self.parameters is not None and model != self.parameters.model:
            margin = _marginOf(model)
            self.parameters.marginMm = self.parameters.marginMm if margin is None else margin
        super()._modelChosen(model, device)

    def _place(self) -> None:
        self._startPlacing(self.parameters.boxSizeMm, self._placed, onGivenUp=self._placingGivenUp)

    def _placed(self, centerRAS: np.ndarray) -> None:
        node = addLesionAt(self.scene, centerRAS, sizeMm=self.parameters.boxSizeMm)
        self.lesions.refresh()
        self.lesions.select(node)
        self._ui.statusLabel.text = _("{0}: pull the handles of the box until it fits the lesion.").format(
            node.GetName()
        )

    def _placingGivenUp(self) -> None:
        self._ui.statusLabel.text = _("No box was placed.")

    def _delete(self) -> None:
        self.lesions.deleteSelected()

    def _addSegments(self) -> None:
        p = self.parameters
        try:
            with slicer.util.WaitCursor():
                segmentation, warnings = segmentationOfParts(p.segmentation) if p.splitParts else (p.segmentation, ())
                nodes = self._logic.addSegments(segmentation, marginMm=p.marginMm)
        except LesionLensError as error:
            self._showError(str(error))
            return
        self.lesions.refresh()
        text = _("{0} segments are lesions now.").format(len(nodes)) + self._otherMargin()
        self._ui.statusLabel.text = " ".join([text, *warnings])

    def _otherMargin(self) -> str:
        """Said where the boxes of segments are not those that the model was made for."""
        wanted, margin = _marginOf(self.models.model), self.parameters.marginMm
        if wanted is None or abs(margin - wanted) < 0.05:
            return ""
        return _(" Their boxes reach {0:g} mm beyond them; the model was made for {1:g} mm.").format(margin, wanted)

    def _exportCsv(self) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Export the answers"), "lesions.csv", _("CSV (*.csv)")
        )
        if path:
            self._tryTo(
                lambda: _("{0} lesions written.").format(
                    self._logic.exportCsv(path, self.lesions.lesions, answerAnyway=self._answersAnyway)
                )
            )

    def _exportReport(self) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Export a DICOM structured report"), "lesions.dcm", _("DICOM (*.dcm)")
        )
        if path:
            self._tryTo(lambda: self._reportTo(path))

    def _exportDicom(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), _("A folder for the lesions, their heat maps and their report as DICOM")
        )
        if folder:
            self._tryTo(lambda: self._exported(self._logic.exportDicom, folder))

    def _reportTo(self, path: str) -> str:
        return self._exported(self._logic.exportReport, path)

    def _exported(self, export: Callable[..., int], path: str) -> str:
        """What was written, and what could not be."""
        gaps: list[str] = []
        count = export(path, self.lesions.lesions, answerAnyway=self._answersAnyway, warn=gaps.append)
        return " ".join([_("{0} lesions written.").format(count), *gaps])

    def _tryTo(self, action) -> None:
        try:
            with slicer.util.WaitCursor():
                self._ui.statusLabel.text = action()
        except LesionLensError as error:
            self._showError(str(error))

    def _setUp(self) -> None:
        self._install(None)

    def _setUpOffline(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("A folder of .whl files"))
        if folder:
            self._install(Path(folder))

    def _install(self, wheelFolder: Path | None) -> None:
        try:
            install(self._missing(), requirements=self._requirements, wheelFolder=wheelFolder)
        except LesionLensError as error:
            self._showError(str(error))
        offered = offerAccelerator() if wheelFolder is None else ""
        self.checkSetup()
        self.warmUp()
        self.update()
        if offered:
            self._ui.statusLabel.text = offered

    def _showError(self, text: str) -> None:
        """Once: the pop-up says it, no label repeats it."""
        self._ui.statusLabel.text = ""
        slicer.util.errorDisplay(text)


def _marginOf(model: str) -> float | None:
    """How far the boxes of segments reach beyond them for a model; None without one, or where its folder cannot be read."""
    try:
        return segment_margin_mm(model) if model else None
    except LesionLensError:
        return None


def _mapMethodOf(model: str) -> str:
    """How a model's maps are made, unverified; Grad-CAM where its folder cannot be read."""
    try:
        return map_method(model) if model else "grad_cam"
    except LesionLensError:
        return "grad_cam"
