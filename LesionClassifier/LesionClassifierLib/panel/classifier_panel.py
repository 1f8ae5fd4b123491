"""The panel of Lesion Classifier: its parts, what passes between them, and the buttons that classify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import qt
import slicer.util
from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import RunAnswer, RunOptions, RunRequest
from LesionLib.model.folder import segment_margin_mm, user_model_root
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene
from slicer.i18n import tr as _

from LesionClassifierLib.background import BackgroundRun, Outcome, runInBackground
from LesionClassifierLib.classification import requestFromNodes, showAnswer
from LesionClassifierLib.panel.lesions import LesionsPanel
from LesionClassifierLib.panel.models import ModelsPanel
from LesionClassifierLib.panel.observers import RunTimer, SceneWatch, offerOnlyCts
from LesionClassifierLib.panel.results import ExplanationPanel, ResultPanel
from LesionClassifierLib.scene.lesions import addLesionAt, isDrawn
from LesionClassifierLib.scene.placing import BoxPlacing
from LesionClassifierLib.setup import explain, install, missingPackages


class RunPanel:
    """The buttons that classify, and how far a run is: progress per lesion, elapsed time, cancel. The interface never waits.

    One run at a time. Nodes are remembered by ID: they, or the scene, may be gone when the answer comes.
    """

    def __init__(self, ui, logic, *, onEnded: Callable[[Outcome], None], onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onEnded, self._onError = ui, logic, onEnded, onError
        self._request: RunRequest | None = None
        self._scene: vtkMRMLScene | None = None
        self._volumeId, self._roiIds = "", []
        self._colorSegments = True
        self.note = ""  # said when the run has ended, beside how it ended
        self.laysViews = False  # the panel says when its module is the one that is shown
        self._timer = RunTimer(onProgress=self._show, onEnded=self._ended)
        ui.cancelButton.connect("clicked()", self.cancel)
        ui.progressBar.visible = False

    @property
    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self._timer.isRunning

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
            run = runInBackground(self._logic.runner, self._request)
        except LesionLensError as error:
            self._onError(str(error))
            return
        self._scene, self._volumeId = volumeNode.GetScene(), volumeNode.GetID()
        self._roiIds, self._colorSegments = [node.GetID() for node in roiNodes], colorSegments
        self._ui.progressBar.visible = True
        self._ui.progressBar.maximum = len(roiNodes)
        self._timer.start(run)

    def cancel(self) -> None:
        """Ask for the end of the run; answers that are there are kept."""
        if self._timer.cancel():
            self._ui.statusLabel.text = _("Cancelling...")

    def forget(self) -> None:
        """The scene closes: cancel, and show nothing of what may still come."""
        self._scene = None
        self.cancel()

    def stop(self) -> None:
        """The module goes away."""
        self.forget()
        self._timer.stop()

    def _ended(self, run: BackgroundRun[RunAnswer], outcome: Outcome[RunAnswer]) -> None:
        self._ui.progressBar.visible = False
        self._ui.statusLabel.text = " ".join(part for part in (self._ending(run, outcome), self.note) if part)
        self.note = ""
        self._onEnded(outcome)
        if outcome.error is not None:
            self._onError(str(outcome.error))

    def _show(self, run: BackgroundRun[RunAnswer]) -> None:
        self._ui.progressBar.value = run.done
        self._ui.statusLabel.text = _("{name}: lesion {number} of {total}, {seconds:.0f} s").format(
            name=run.name, number=min(run.done + 1, run.total), total=run.total, seconds=run.seconds
        )

    def _ending(self, run: BackgroundRun[RunAnswer], outcome: Outcome[RunAnswer]) -> str:
        if outcome.error is not None:
            return ""  # it is told by the caller, once
        if outcome.was_cancelled:
            return _("Cancelled; nothing was changed.")
        kept = self._showAnswer(outcome)
        if kept is None:
            return _("The scene was closed meanwhile; the answer is not shown.")
        said = _("{count} answered in {seconds:.1f} s on {device}.").format(
            count=kept, seconds=run.seconds, device=outcome.answer.info.device
        )
        gone = len(self._roiIds) - kept
        return said + (_(" {0} were deleted meanwhile.").format(gone) if gone else "")

    def _showAnswer(self, outcome: Outcome[RunAnswer]) -> int | None:
        """Show what still has its nodes; how many that are, or None where the scene or the CT is gone."""
        volumeNode = self._scene.GetNodeByID(self._volumeId) if self._scene is not None else None
        if volumeNode is None:
            return None
        nodes = [self._scene.GetNodeByID(roiId) for roiId in self._roiIds]
        kept = [index for index, node in enumerate(nodes) if node is not None]
        if kept:
            outcome.answer.results[:] = [outcome.answer.results[index] for index in kept]
            rois = [nodes[index] for index in kept]
            showAnswer(
                volumeNode, rois, self._request, outcome.answer,
                colorSegments=self._colorSegments, laysViews=self.laysViews,
            )  # fmt: skip
        return len(kept)


class ClassifierPanel:
    """The whole panel: its parts, and what passes between them. All it does is a call on the logic or on a Lib function.

    ``ui``: the widgets of LesionClassifier.ui by name; ``parameters`` is the parameter node, None between two scenes.
    """

    def __init__(self, ui, logic, *, requirements: Path, missing=missingPackages) -> None:
        self._ui, self._logic, self._requirements, self._missing = ui, logic, requirements, missing
        self.parameters = None
        self._isEntered = False
        self.placing = BoxPlacing()
        self._scene: vtkMRMLScene | None = None
        self.models = ModelsPanel(ui, onChosen=self._modelChosen, onError=self._tellError)
        self.result = ResultPanel(ui, onCard=self.models.showCard)
        self.explanation = ExplanationPanel(ui, onAsk=self._explain)
        self.run = RunPanel(ui, logic, onEnded=self._ended, onError=self._tellError)
        self.lesions = LesionsPanel(
            ui.lesionTable, onChanged=self._showCurrent, onSelected=self._currentChosen, onError=self._tellError
        )
        self.watch = SceneWatch(self._sceneChanged)
        for button, slot in (
            (ui.placeButton, self._place), (ui.jumpButton, self.lesions.jump), (ui.deleteButton, self._delete),
            (ui.addSegmentsButton, self._addSegments), (ui.classifyButton, self.classifyAll),
            (ui.classifySelectedButton, self.classifySelected), (ui.exportCsvButton, self._exportCsv),
            (ui.exportReportButton, self._exportReport), (ui.restartButton, self._restart),
            (ui.setupButton, self._setUp), (ui.setupOfflineButton, self._setUpOffline),
        ):  # fmt: skip
            button.connect("clicked()", slot)
        self.models.showDevice(_("decided at the first answer"), _("The GPU where there is one, else the CPU."))
        self.checkSetup()

    def setScene(self, scene: vtkMRMLScene | None, parameters) -> None:
        """Show a scene and its parameter node; None for both while scenes change."""
        isAnother = scene is not self._scene
        self._scene, self.parameters = scene, parameters
        if scene is None:
            self.run.forget()
            self.placing.stop()
        if parameters is not None:
            self.models.choose(parameters.model, parameters.device)
        self.watch.setScene(scene if self._isEntered else None)
        self.result.setScene(scene)
        self.lesions.setScene(scene)
        if scene is not None:
            self._hideMaps()
            if isAnother:
                self.adoptViews()

    def setEntered(self, isEntered: bool) -> None:
        """Whether this module is the one that is shown. While it is not, neither views nor scene are touched or watched."""
        self._isEntered = self.run.laysViews = isEntered
        self.watch.setScene(self._scene if isEntered else None)
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

    def checkSetup(self) -> None:
        """Show the set-up step where something is missing."""
        missing = self._missing()
        self._ui.setupFrame.visible = bool(missing)
        if missing:
            self._ui.setupLabel.text = explain(missing, user_model_root())

    def warmUp(self) -> None:
        """Start the worker with the chosen model, so that the first answer comes soon."""
        start = getattr(self._logic.runner, "start", None)
        if not self._missing() and self.models.model and start is not None and not self.run.isRunning:
            try:
                start(self.models.model, self._options())
            except LesionLensError as error:
                self._ui.statusLabel.text = str(error)

    def close(self) -> None:
        """The module goes away: end what runs."""
        self.watch.setScene(None)
        self.placing.stop()
        self.run.stop()

    def whyNot(self) -> str:
        """Why nothing can be classified now, in plain words; empty where it can."""
        if self._missing():
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
        reason = self.whyNot() or ("" if roiNodes else _("Select a lesion."))
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
        self.run.start(p.volume, drawn, self.models.model, self._options(className), colorSegments=p.colorSegments)
        if undrawn and self.run.isRunning:
            self.run.note = _("Left out, because not drawn yet: {0}.").format(", ".join(undrawn))
        self._updateButtons()

    def _options(self, className: str | None = None) -> RunOptions:
        jitter = self.parameters.redrawnBoxes if self.parameters is not None else 0
        return RunOptions(class_name=className, device=self._ui.deviceSelector.currentText or "auto", box_jitter=jitter)

    def _explain(self, className: str) -> None:
        current = self.lesions.current
        if current is not None:
            self._classify([current], className)

    def _ended(self, outcome: Outcome) -> None:
        if outcome.answer is not None:
            info, precision = outcome.answer.info, outcome.answer.precision
            self.models.showDevice(info.device, f"{info.software}; {precision.reason}")
        self.lesions.refresh()
        self._layViews()

    def _sceneChanged(self) -> None:
        self._hideMaps()
        self.lesions.refresh()

    def _hideMaps(self) -> None:
        """Grad-CAM volumes are no CT to choose."""
        offerOnlyCts(self._ui.volumeSelector, self._scene)

    def _showCurrent(self) -> None:
        """After a change of the scene: the widgets follow, the views stay."""
        current = self.lesions.current
        self.result.show(current, answerAnyway=self._answersAnyway)
        if self.parameters is not None:
            self.explanation.show(current, self.parameters, laysViews=False)
        self._updateButtons()

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

    def _updateButtons(self) -> None:
        ui, reason = self._ui, self.whyNot()
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
        ui.exportCsvButton.enabled = ui.exportReportButton.enabled = isAnswered
        if reason and not self.run.isRunning and not ui.statusLabel.text:
            ui.statusLabel.text = reason

    def _modelChosen(self, model: str, device: str) -> None:
        if self.parameters is not None:
            if model and model != self.parameters.model:
                self.parameters.marginMm = segment_margin_mm(model)
            self.parameters.model, self.parameters.device = model, device
        self.warmUp()
        self._updateButtons()

    def _place(self) -> None:
        self.placing.start(self._scene, self._placed, onGivenUp=self._placingGivenUp)
        self._ui.statusLabel.text = _(
            "Click the middle of the lesion in a slice view: a box of {0:.0f} mm appears."
        ).format(self.parameters.boxSizeMm)

    def _placed(self, centerRAS: np.ndarray) -> None:
        node = addLesionAt(self._scene, centerRAS, sizeMm=self.parameters.boxSizeMm)
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
        try:
            with slicer.util.WaitCursor():
                nodes = self._logic.addSegments(self.parameters.segmentation, marginMm=self.parameters.marginMm)
        except LesionLensError as error:
            self._tellError(str(error))
            return
        self.lesions.refresh()
        self._ui.statusLabel.text = _("{0} segments are lesions now.").format(len(nodes)) + self._otherMargin()

    def _otherMargin(self) -> str:
        """Said where the boxes of segments are not those that the model was made for."""
        wanted, margin = segment_margin_mm(self.models.model) if self.models.model else None, self.parameters.marginMm
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
            self._tryTo(
                lambda: _("{0} lesions written.").format(
                    self._logic.exportReport(path, self.lesions.lesions, answerAnyway=self._answersAnyway)
                )
            )

    def _tryTo(self, action) -> None:
        try:
            with slicer.util.WaitCursor():
                self._ui.statusLabel.text = action()
        except LesionLensError as error:
            self._tellError(str(error))

    def _restart(self) -> None:
        self.run.cancel()
        self._logic.restartRunner()
        self.warmUp()
        self._ui.statusLabel.text = _("The worker was restarted.")

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
            self._tellError(str(error))
        self.checkSetup()
        self.warmUp()
        self._updateButtons()

    def _tellError(self, text: str) -> None:
        """Once: the pop-up says it, no label repeats it."""
        self._ui.statusLabel.text = ""
        slicer.util.errorDisplay(text)
