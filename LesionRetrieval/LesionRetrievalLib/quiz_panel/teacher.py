"""Making a quiz in the panel: the choice of cases, what the teacher decides, the model asked, a look at a finished quiz."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import qt
import slicer.util
from LesionClassifierLib.background import BackgroundRun, Outcome
from LesionClassifierLib.panel.base import PanelRun
from LesionClassifierLib.setup import missingPackages
from LesionLib.errors import BundleError, LesionLensError
from LesionLib.model.folder import DEFAULT_MODEL, class_names, find_bundle, installed_bundles
from slicer.i18n import tr as _

from LesionRetrievalLib.library.cases import Case
from LesionRetrievalLib.quiz.making import LabelledLesion, QuizPlan
from LesionRetrievalLib.quiz.model import Quiz
from LesionRetrievalLib.quiz.requests import QuizRequest
from LesionRetrievalLib.quiz_logic import QuizLogic
from LesionRetrievalLib.quiz_panel.widgets import connectFile, fillTable, prepareTable, selectedRows, withSuffix

_FEEDBACK_COLUMN = 2


@dataclass(frozen=True, eq=False)
class ChosenCase:
    """A case of the quiz to be. ``caseId``: in the library, or the box's name; ``lesion``: None for one of the library."""

    caseId: str
    label: str
    feedback: str = ""
    lesion: LabelledLesion | None = None

    def withFeedback(self) -> LabelledLesion:
        """The lesion of the scene with what is told of it."""
        return replace(self.lesion, feedback=self.feedback)


class CaseChoice:
    """Which cases a quiz gets: picked or drawn from a library, or lesions of the scene; and what the learner is told of each.

    ``onChanged`` is called when the choice has changed. Several selected rows count together.
    """

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
        return path if self._cases and os.path.isfile(path) else None

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
            text = _("Choose a library, or take lesions of the scene below.")
        else:
            try:
                self._cases = self._logic.libraryCases(path, classNames=self._classNames)
                text = _("{0} cases can be asked: those with their CT and an answer of the model.").format(
                    len(self._cases)
                )
            except LesionLensError as error:
                text = str(error)
        ui.caseLibraryLabel.text = text
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
        notes = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        self._ui.chosenLabel.text = (
            _("{0} cases: {1}").format(len(self.chosen), notes) if self.chosen else _("No case yet.")
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


class MakingRun(PanelRun[Quiz]):
    """A quiz being made: progress per case."""

    def __init__(self, ui, *, onEnded: Callable[[Outcome[Quiz]], None], onError: Callable[[str], None]) -> None:
        super().__init__(ui.makeProgress, ui.makeLabel, ui.cancelMakeButton, onEnded=onEnded, onError=onError)
        self.out = Path()  # where the quiz goes

    def start(self, run: BackgroundRun[Quiz], out: Path) -> None:
        """Look after a quiz that is written to ``out``."""
        self.out = out
        self._begin(run)

    def _progressText(self, run: BackgroundRun[Quiz]) -> str:
        return _("Case {0} of {1}, {2:.0f} s").format(min(run.done + 1, run.total), run.total, run.seconds)

    def _answered(self, run: BackgroundRun[Quiz], answer: Quiz) -> str:
        warning = _("It holds the answers: keep it from curious learners.")
        return f"{described(answer, self.out)}<br>{warning}"

    def _errorText(self, error: LesionLensError) -> str:
        return _("Nothing was written.")

    def _cancelledText(self) -> str:
        return _("Cancelled; nothing was written.")


_BOXES = ("given", "placed", "free")


class TeacherPanel:
    """Making a quiz in the panel: what the teacher decides, the model asked in the background, and a look at a finished quiz.

    ``onMade(path)`` is called with a new quiz. ``missing``: what a model would need and this computer has not.
    """

    def __init__(
        self, ui, logic: QuizLogic, *, onMade: Callable[[Path], None], onError: Callable[[str], None],
        missing=missingPackages,
    ) -> None:  # fmt: skip
        self._ui, self._logic, self._onMade, self._onError, self._missing = ui, logic, onMade, onError, missing
        self.run = MakingRun(ui, onEnded=self._ended, onError=onError)
        ui.boxesSelector.addItems([_("given by me"), _("placed by the learner"), _("as the learner likes")])
        self.cases = CaseChoice(ui, logic, onChanged=self._update, onError=onError)
        ui.quizModelSelector.connect("currentIndexChanged(int)", lambda _index: self._modelChosen())
        # A quiz asks for a class: a model that only compares lesions has no question.
        models = [name for name, folder in sorted(installed_bundles().items()) if class_names(folder)]
        ui.quizModelSelector.addItems(models)
        if DEFAULT_MODEL in models:
            ui.quizModelSelector.setCurrentText(DEFAULT_MODEL)
        ui.titleEdit.connect("textChanged(QString)", lambda _text: self._update())
        for button, slot in (
            (ui.makeQuizButton, self._make), (ui.checkQuizButton, self._check),
        ):  # fmt: skip
            button.connect("clicked()", slot)
        self._update()

    @property
    def isMaking(self) -> bool:
        """Whether the model is being asked."""
        return self.run.isRunning

    def close(self) -> None:
        """The module goes away: end what runs."""
        self.run.stop()

    def request(self, out: Path) -> QuizRequest:
        """What the form asks for."""
        ui, chosen = self._ui, self.cases.chosen
        plan = QuizPlan(
            title=ui.titleEdit.text.strip(),
            instructions=ui.instructionsEdit.plainText.strip(),
            boxes=_BOXES[ui.boxesSelector.currentIndex],
            seed=ui.seedSpinBox.value,
            window_hu=(float(ui.windowLowSpinBox.value), float(ui.windowHighSpinBox.value)),
            similar=ui.similarSpinBox.value,
        )
        return QuizRequest(
            out=out,
            plan=plan,
            model=ui.quizModelSelector.currentText,
            library=self.cases.libraryPath,
            cases=tuple(one.caseId for one in chosen if one.lesion is None),
            lesions=tuple(one.withFeedback() for one in chosen if one.lesion is not None),
            feedback={one.caseId: one.feedback for one in chosen if one.lesion is None and one.feedback},
            overwrite=True,  # the dialog has asked
        )

    def make(self, out: Path) -> None:
        """Ask the model about every case and write ``out``; returns at once."""
        if self.isMaking or self._disabledReason():
            return
        self.run.start(self._logic.startMaking(self.request(out)), out)
        self._update()

    def _make(self) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Write the quiz"), "quiz.json", _("Quizzes (*.json)")
        )
        if path:
            self.make(withSuffix(path, ".json"))

    def _ended(self, outcome: Outcome[Quiz]) -> None:
        if outcome.value is not None:
            self._onMade(self.run.out)
        self._update()

    def _check(self) -> None:
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Check a quiz"), self._ui.quizPathEdit.text, _("Quizzes (*.json)")
        )
        if path:
            try:
                with slicer.util.WaitCursor():
                    self._ui.makeLabel.text = described(self._logic.checkQuiz(path), Path(path))
            except LesionLensError as error:
                self._ui.makeLabel.text = ""
                self._onError(str(error))

    def _modelChosen(self) -> None:
        try:
            names = class_names(find_bundle(self._ui.quizModelSelector.currentText))
        except BundleError:
            names = []
        self.cases.setClassNames(names)
        self._update()

    def _disabledReason(self) -> str:
        ui = self._ui
        missing = [package.name for package in self._missing()]
        for hinders, text in (
            (missing, _("Making a quiz asks a model, for which {0} is missing.").format(", ".join(missing))),
            (not ui.quizModelSelector.currentText, _("There is no model: install one above.")),
            (not ui.titleEdit.text.strip(), _("Give the quiz a title.")),
            (not self.cases.chosen, _("Choose some cases.")),
        ):
            if hinders:
                return text
        return ""

    def _update(self) -> None:
        if not hasattr(self, "cases"):
            return  # the choice of cases is just being built
        ui, reason = self._ui, self._disabledReason()
        ui.makeQuizButton.enabled = not reason and not self.isMaking
        ui.makeQuizButton.toolTip = reason or _("Ask the model about every case and write the quiz file.")
        ui.cancelMakeButton.enabled = self.isMaking


def described(quiz: Quiz, path: Path) -> str:
    """What a quiz holds that has passed every check."""
    counts = Counter(case.known.label for case in quiz.cases)
    labels = ", ".join(f"{html.escape(label)} {count}" for label, count in sorted(counts.items()))
    similar = sum(bool(case.prediction.similar) for case in quiz.cases)
    notes = sum(bool(case.known.feedback) for case in quiz.cases)
    right = sum(case.prediction.label == case.known.label for case in quiz.cases)
    size = path.stat().st_size / 1e6
    lines = [
        _("<b>{0}</b>: {1}, {2:.1f} MB, every check passed").format(
            html.escape(quiz.title), html.escape(path.name), size
        ),
        _("{0} cases: {1}; boxes: {2}").format(len(quiz.cases), labels, quiz.boxes),
        _("{0} with similar cases, {1} with words for the learner").format(similar, notes),
        _("the model {0} {1} is right in {2}").format(html.escape(quiz.model[0]), html.escape(quiz.model[1]), right),
    ]
    if silent := sum(not case.prediction.label for case in quiz.cases):
        lines[-1] += _(", without an answer in {0}").format(silent)
    return "<br>".join(lines)
