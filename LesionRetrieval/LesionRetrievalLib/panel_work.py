"""What the panel does to libraries and files: make one, add and remove cases, save and load boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer.util
from LesionClassifierLib.lesion_nodes import lesionNodes
from LesionLib.errors import LesionLensError
from LesionLib.runner_types import Embedding, describing_request
from slicer.i18n import tr as _

from .adding_panel import AddingPanel

if TYPE_CHECKING:
    from .retrieval_panel import RetrievalPanel


class PanelWork:
    """One button each. ``panel``: whose parts it uses."""

    def __init__(self, panel: RetrievalPanel, ui, logic, *, tell: Callable[[str], None]) -> None:
        self._panel, self._ui, self._logic, self._tellError = panel, ui, logic, tell
        self.adding = AddingPanel(ui, onAdd=self._add, onRemove=self._remove)
        ui.saveAnnotationsButton.connect("clicked()", self._save)
        ui.loadAnnotationsButton.connect("clicked()", self._load)

    def update(self, whyNotLook: str) -> None:
        """Enable the buttons, or say why not."""
        scene = self._panel.scene
        self.adding.update(self._logic.library, whyNotSearch=whyNotLook, hasChosen=self._panel.found.chosen is not None)
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
        if self._panel.isSetUp is False or not self._panel.models.model or self._panel.run.isRunning:
            self._tellError(_("A new library needs a model that can run, and no other run under way."))
            return
        if path.exists():
            self._tellError(_("{0} exists; give another name.").format(path))
            return

        def answered(embedding: Embedding) -> str:
            try:
                self._logic.createLibrary(path, embedding=embedding)
            except LesionLensError as error:
                self._tellError(str(error))
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
            self._tellError(str(error))
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
                self._tellError(str(error))
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
            self._tellError(str(error))
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
            self._tellError(str(error))
