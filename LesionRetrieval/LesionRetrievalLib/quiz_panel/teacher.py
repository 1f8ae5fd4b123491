"""Which cases a quiz gets: picked or drawn from a library, or lesions of the scene; and what the learner is told of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _

from .library import Case
from .quiz_logic import QuizLogic
from .quiz_paths import connectFile
from .quiz_sources import KnownLesion
from .quiz_tables import fillTable, prepareTable, selectedRows

_FEEDBACK_COLUMN = 2


@dataclass(frozen=True, eq=False)
class ChosenCase:
    """A case of the quiz to be. ``caseId``: in the library, or the box's name; ``lesion``: None for one of the library."""

    caseId: str
    label: str
    feedback: str = ""
    lesion: KnownLesion | None = None

    def withFeedback(self) -> KnownLesion:
        """The lesion of the scene with what is told of it."""
        return replace(self.lesion, feedback=self.feedback)


class CaseChoice:
    """``onChanged`` is called when the choice has changed. Several selected rows count together."""

    def __init__(self, ui, logic: QuizLogic, *, onChanged: Callable[[], None], onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onChanged, self._onError = ui, logic, onChanged, onError
        self.chosen: list[ChosenCase] = []
        self._cases: list[Case] = []
        self._classNames: list[str] = []
        self._filling = False
        self._pathRead = ""
        prepareTable(ui.libraryTable, (_("Case"), _("Answer"), _("Known by"), _("Organ")))
        prepareTable(ui.chosenTable, (_("Case"), _("Answer"), _("Told at the end")))
        connectFile(
            ui.caseLibraryEdit, ui.caseLibraryBrowseButton,
            title=_("Choose a case library"), filters=_("Case libraries (*.lesionlib)"), onChosen=self.readLibrary,
        )  # fmt: skip
        ui.caseLibraryEdit.connect("editingFinished()", self._pathEdited)
        ui.quizLabelSelector.connect("currentIndexChanged(int)", lambda _index: self._filling or self._fillLibrary())
        ui.libraryTable.connect("itemSelectionChanged()", self._updateButtons)
        ui.chosenTable.connect("itemSelectionChanged()", self._updateButtons)
        ui.chosenTable.connect("itemChanged(QTableWidgetItem*)", self._edited)
        for selector in (ui.sceneVolumeSelector, ui.sceneLesionSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._updateButtons())
        for button, slot in (
            (ui.addCasesButton, self._addSelected), (ui.drawButton, self._draw),
            (ui.addSceneButton, self._addFromScene), (ui.removeCaseFromQuizButton, self._remove),
        ):  # fmt: skip
            button.connect("clicked()", slot)
        self._show()

    @property
    def libraryPath(self) -> Path | None:
        """The library, None where none is given."""
        path = Path(self._ui.caseLibraryEdit.text)
        return path if self._cases and path.is_file() else None

    def setClassNames(self, names: Sequence[str]) -> None:
        """Another model: other answers."""
        self._classNames = list(names)
        self._ui.sceneLabelSelector.clear()
        self._ui.sceneLabelSelector.addItems(self._classNames)
        self.readLibrary()

    def readLibrary(self) -> None:
        """List the cases of the library that can be asked."""
        ui, path = self._ui, self._ui.caseLibraryEdit.text.strip()
        self._cases, self._pathRead = [], path
        if not path:
            said = _("Choose a library, or take lesions of the scene below.")
        else:
            try:
                self._cases = self._logic.libraryCases(path, classNames=self._classNames)
                said = _("{0} cases can be asked: those with their CT and an answer of the model.").format(
                    len(self._cases)
                )
            except LesionLensError as error:
                said = str(error)
        ui.caseLibraryLabel.text = said
        self._filling = True
        ui.quizLabelSelector.clear()
        ui.quizLabelSelector.addItem(_("all answers"))
        ui.quizLabelSelector.addItems(sorted({case.label for case in self._cases}))
        self._filling = False
        self._fillLibrary()

    def _pathEdited(self) -> None:
        if self._ui.caseLibraryEdit.text.strip() != self._pathRead:  # also told when the line only loses the focus
            self.readLibrary()

    def _fillLibrary(self) -> None:
        rows = [[case.case_id, case.label, case.label_source, case.organ] for case in self._shownCases()]
        fillTable(self._ui.libraryTable, rows)
        self._updateButtons()

    def _shownCases(self) -> list[Case]:
        label = self._label()
        return [case for case in self._cases if label is None or case.label == label]

    def _label(self) -> str | None:
        return self._ui.quizLabelSelector.currentText if self._ui.quizLabelSelector.currentIndex > 0 else None

    def _addSelected(self) -> None:
        shown = self._shownCases()
        self._add([shown[row] for row in selectedRows(self._ui.libraryTable)])

    def _draw(self) -> None:
        ui, label = self._ui, self._label()
        try:
            drawn = self._logic.drawCases(
                ui.caseLibraryEdit.text, perLabel=ui.perLabelSpinBox.value, seed=ui.seedSpinBox.value,
                labels=None if label is None else [label], classNames=self._classNames,
            )  # fmt: skip
        except LesionLensError as error:
            self._onError(str(error))
            return
        self._add([case for case in self._cases if case.case_id in drawn])

    def _add(self, cases: Sequence[Case]) -> None:
        there = {one.caseId for one in self.chosen if one.lesion is None}
        self.chosen += [ChosenCase(case.case_id, case.label) for case in cases if case.case_id not in there]
        self._show()

    def _addFromScene(self) -> None:
        ui = self._ui
        roiNode = ui.sceneLesionSelector.currentNode()
        try:
            lesion = self._logic.lesionFromScene(
                ui.sceneVolumeSelector.currentNode(), roiNode, ui.sceneLabelSelector.currentText,
                labelSource=ui.sceneSourceEdit.text.strip(), organ=ui.sceneOrganEdit.text.strip() or "not stated",
            )  # fmt: skip
        except LesionLensError as error:
            self._onError(str(error))
            return
        self.chosen.append(ChosenCase(roiNode.GetName(), lesion.label, lesion=lesion))
        self._show()

    def _remove(self) -> None:
        gone = set(selectedRows(self._ui.chosenTable))
        self.chosen = [one for row, one in enumerate(self.chosen) if row not in gone]
        self._show()

    def _edited(self, item) -> None:
        if not self._filling and item.column() == _FEEDBACK_COLUMN:
            row = item.row()
            self.chosen[row] = replace(self.chosen[row], feedback=item.text().strip())

    def _show(self) -> None:
        self._filling = True
        rows = [[one.caseId, one.label, one.feedback] for one in self.chosen]
        fillTable(self._ui.chosenTable, rows, editable=_FEEDBACK_COLUMN)
        self._filling = False
        counts = {one.label: sum(other.label == one.label for other in self.chosen) for one in self.chosen}
        told = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        self._ui.chosenLabel.text = (
            _("{0} cases: {1}").format(len(self.chosen), told) if self.chosen else _("No case yet.")
        )
        self._updateButtons()
        self._onChanged()

    def _updateButtons(self) -> None:
        ui = self._ui
        ui.addCasesButton.enabled = bool(selectedRows(ui.libraryTable))
        ui.drawButton.enabled = bool(self._cases)
        ui.removeCaseFromQuizButton.enabled = bool(selectedRows(ui.chosenTable))
        hasBoth = ui.sceneVolumeSelector.currentNode() is not None and ui.sceneLesionSelector.currentNode() is not None
        ui.addSceneButton.enabled = hasBoth and bool(self._classNames)
        ui.addSceneButton.toolTip = (
            _("Take the lesion into the quiz. Nothing that names the patient goes along.")
            if hasBoth
            else _("Choose a CT and a box on it.")
        )
