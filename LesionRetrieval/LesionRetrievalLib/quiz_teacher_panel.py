"""Making a quiz in the panel: what the teacher decides, the model asked in the background, and a look at a finished quiz."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import qt
import slicer.util
from LesionClassifierLib.background_run import BackgroundRun, Outcome
from LesionClassifierLib.run_timer import RunTimer
from LesionClassifierLib.setup_step import missingPackages
from LesionLib.bundle_folder import class_names, find_bundle, installed_bundles
from LesionLib.errors import BundleError, LesionLensError
from slicer.i18n import tr as _

from .quiz_case_choice import CaseChoice
from .quiz_logic import QuizLogic
from .quiz_making import QuizPlan
from .quiz_model import Quiz
from .quiz_paths import withSuffix
from .quiz_request import QuizRequest

_BOXES = ("given", "placed", "free")


class TeacherPanel:
    """``onMade(path)`` is called with a new quiz. ``missing``: what a model would need and this computer has not."""

    def __init__(
        self, ui, logic: QuizLogic, *, onMade: Callable[[Path], None], onError: Callable[[str], None],
        missing=missingPackages,
    ) -> None:  # fmt: skip
        self._ui, self._logic, self._onMade, self._onError, self._missing = ui, logic, onMade, onError, missing
        self._out = Path()  # where the quiz that is being made goes
        self._timer = RunTimer(onProgress=self._show, onEnded=self._ended)
        ui.boxesSelector.addItems([_("given by me"), _("placed by the learner"), _("as the learner likes")])
        ui.makeProgress.visible = False
        self.cases = CaseChoice(ui, logic, onChanged=self._update, onError=onError)
        ui.quizModelSelector.connect("currentIndexChanged(int)", lambda _index: self._modelChosen())
        ui.quizModelSelector.addItems(sorted(installed_bundles()))
        ui.titleEdit.connect("textChanged(QString)", lambda _text: self._update())
        for button, slot in (
            (ui.makeQuizButton, self._make), (ui.cancelMakeButton, self.cancel), (ui.checkQuizButton, self._check),
        ):  # fmt: skip
            button.connect("clicked()", slot)
        self._update()

    @property
    def isMaking(self) -> bool:
        """Whether the model is being asked."""
        return self._timer.isRunning

    def cancel(self) -> None:
        """Stop; nothing is written."""
        if self._timer.cancel():
            self._ui.makeLabel.text = _("Cancelling...")

    def close(self) -> None:
        """The module goes away: end what runs."""
        self._timer.stop()

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
        if self.isMaking or self._whyNot():
            return
        self._out, run = out, self._logic.startMaking(self.request(out))
        self._ui.makeProgress.maximum, self._ui.makeProgress.value = run.total, 0
        self._ui.makeProgress.visible = True
        self._timer.start(run)
        self._update()

    def _make(self) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Write the quiz"), "quiz.json", _("Quizzes (*.json)")
        )
        if path:
            self.make(withSuffix(path, ".json"))

    def _show(self, run: BackgroundRun[Quiz]) -> None:
        self._ui.makeProgress.value = run.done
        self._ui.makeLabel.text = _("Case {0} of {1}, {2:.0f} s").format(
            min(run.done + 1, run.total), run.total, run.seconds
        )

    def _ended(self, _run: BackgroundRun[Quiz], made: Outcome[Quiz]) -> None:
        self._ui.makeProgress.visible = False
        if made.answer is not None:
            warning = _("It holds the answers: keep it from curious learners.")
            self._ui.makeLabel.text = f"{described(made.answer, self._out)}<br>{warning}"
            self._onMade(self._out)
        elif made.error is not None:
            self._ui.makeLabel.text = _("Nothing was written.")
            self._onError(str(made.error))
        else:
            self._ui.makeLabel.text = _("Cancelled; nothing was written.")
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

    def _whyNot(self) -> str:
        ui = self._ui
        missing = [package.name for package in self._missing()]
        for hinders, words in (
            (missing, _("Making a quiz asks a model, for which {0} is missing.").format(", ".join(missing))),
            (not ui.quizModelSelector.currentText, _("There is no model: install one above.")),
            (not ui.titleEdit.text.strip(), _("Give the quiz a title.")),
            (not self.cases.chosen, _("Choose some cases.")),
        ):
            if hinders:
                return words
        return ""

    def _update(self) -> None:
        if not hasattr(self, "cases"):
            return  # the choice of cases is just being built
        ui, why = self._ui, self._whyNot()
        ui.makeQuizButton.enabled = not why and not self.isMaking
        ui.makeQuizButton.toolTip = why or _("Ask the model about every case and write the quiz file.")
        ui.cancelMakeButton.enabled = self.isMaking


def described(quiz: Quiz, path: Path) -> str:
    """What a quiz holds that has passed every check."""
    counts = Counter(case.known.label for case in quiz.cases)
    labels = ", ".join(f"{html.escape(label)} {count}" for label, count in sorted(counts.items()))
    similar = sum(bool(case.answer.similar) for case in quiz.cases)
    told = sum(bool(case.known.feedback) for case in quiz.cases)
    right = sum(case.answer.label == case.known.label for case in quiz.cases)
    size = path.stat().st_size / 1e6
    lines = [
        _("<b>{0}</b>: {1}, {2:.1f} MB, every check passed").format(
            html.escape(quiz.title), html.escape(path.name), size
        ),
        _("{0} cases: {1}; boxes: {2}").format(len(quiz.cases), labels, quiz.boxes),
        _("{0} with similar cases, {1} with words for the learner").format(similar, told),
        _("the model {0} {1} is right in {2}").format(html.escape(quiz.model[0]), html.escape(quiz.model[1]), right),
    ]
    return "<br>".join(lines)
