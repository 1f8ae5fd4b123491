"""The buttons that classify, and how far a run is: progress per lesion, elapsed time, cancel. The interface never waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from LesionLib.errors import LesionLensError
from LesionLib.runner_types import RunAnswer, RunOptions, RunRequest
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene
from slicer.i18n import tr as _

from .background_run import BackgroundRun, Outcome, runInBackground
from .classification import requestFromNodes, showAnswer
from .run_timer import RunTimer


class RunPanel:
    """One run at a time. Nodes are remembered by ID: they, or the scene, may be gone when the answer comes."""

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
