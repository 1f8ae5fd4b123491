"""The buttons that classify, and how far a run is: progress per lesion, elapsed time, cancel. The interface never waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from LesionLib.errors import LesionLensError
from LesionLib.runner_types import RunOptions
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene
from slicer.i18n import tr as _

from .background_run import BackgroundRun, Outcome
from .classification import requestFromNodes, showAnswer

_EVERY_MS = 40


class RunPanel:
    """One run at a time. Nodes are remembered by ID: they, or the scene, may be gone when the answer comes."""

    def __init__(self, ui, logic, *, onEnded: Callable[[Outcome], None], onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onEnded, self._onError = ui, logic, onEnded, onError
        self._run: BackgroundRun | None = None
        self.note = ""  # said when the run has ended, beside how it ended
        self._scene: vtkMRMLScene | None = None
        self._volumeId, self._roiIds = "", []
        self._colorSegments = True
        self.laysViews = False  # the panel says when its module is the one that is shown
        self._timer = qt.QTimer()
        self._timer.setInterval(_EVERY_MS)
        self._timer.connect("timeout()", self._look)
        ui.cancelButton.connect("clicked()", self.cancel)
        ui.progressBar.visible = False

    @property
    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None

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
            request = requestFromNodes(volumeNode, roiNodes, model, options)
            self._run = BackgroundRun(self._logic.runner, request)
        except LesionLensError as error:
            self._onError(str(error))
            return
        self._scene, self._volumeId = volumeNode.GetScene(), volumeNode.GetID()
        self._roiIds, self._colorSegments = [node.GetID() for node in roiNodes], colorSegments
        self._ui.progressBar.visible = True
        self._ui.progressBar.maximum = len(roiNodes)
        self._show()
        self._timer.start()

    def cancel(self) -> None:
        """Ask for the end of the run; answers that are there are kept."""
        if self._run is not None:
            self._ui.statusLabel.text = _("Cancelling...")
            self._run.cancel()

    def forget(self) -> None:
        """The scene closes: cancel, and show nothing of what may still come."""
        self._scene = None
        self.cancel()

    def stop(self) -> None:
        """The module goes away."""
        self.forget()
        self._timer.stop()
        self._run = None

    def _look(self) -> None:
        if self._run is None:
            self._timer.stop()
            return
        outcome = self._run.look()
        if outcome is None:
            self._show()
            return
        self._timer.stop()
        run, self._run = self._run, None
        self._ui.progressBar.visible = False
        self._ui.statusLabel.text = " ".join(part for part in (self._ending(run, outcome), self.note) if part)
        self.note = ""
        self._onEnded(outcome)
        if outcome.error is not None:
            self._onError(str(outcome.error))

    def _show(self) -> None:
        run = self._run
        self._ui.progressBar.value = run.done
        self._ui.statusLabel.text = _("{name}: lesion {number} of {total}, {seconds:.0f} s").format(
            name=run.name, number=min(run.done + 1, run.total), total=run.total, seconds=run.seconds
        )

    def _ending(self, run: BackgroundRun, outcome: Outcome) -> str:
        if outcome.error is not None:
            return ""  # it is told by the caller, once
        if outcome.was_cancelled:
            return _("Cancelled; nothing was changed.")
        kept = self._showAnswer(run, outcome)
        if kept is None:
            return _("The scene was closed meanwhile; the answer is not shown.")
        said = _("{count} answered in {seconds:.1f} s on {device}.").format(
            count=kept, seconds=run.seconds, device=outcome.answer.info.device
        )
        gone = len(self._roiIds) - kept
        return said + (_(" {0} were deleted meanwhile.").format(gone) if gone else "")

    def _showAnswer(self, run: BackgroundRun, outcome: Outcome) -> int | None:
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
                volumeNode, rois, run.request, outcome.answer,
                colorSegments=self._colorSegments, laysViews=self.laysViews,
            )  # fmt: skip
        return len(kept)
