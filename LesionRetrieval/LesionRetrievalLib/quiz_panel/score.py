"""The score in the panel: who has answered, and the sheet and the page of one learner, some, or all."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from pathlib import Path

import qt
import slicer.util
from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _

from LesionRetrievalLib.quiz.report import PAGE, PAGE_REQUIREMENT, SHEET, Score, page_can_be_made
from LesionRetrievalLib.quiz_logic import QuizLogic
from LesionRetrievalLib.quiz_panel.widgets import connectFile, connectFolder, fillTable, prepareTable, selectedRows


class ScorePanel:
    """Reads the answers when asked; nothing of them is changed."""

    def __init__(self, ui, logic: QuizLogic, *, onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onError = ui, logic, onError
        self._learners: list[str] = []
        self._page: Path | None = None
        prepareTable(ui.learnersTable, (_("Learner"), _("Answered"), _("Of")))
        connectFile(
            ui.scoreQuizEdit, ui.scoreQuizBrowseButton,
            title=_("Choose a quiz"), filters=_("Quizzes (*.json)"), onChosen=self._update,
        )  # fmt: skip
        connectFolder(ui.scoreAnswersEdit, ui.scoreAnswersBrowseButton, onChosen=self.refresh)
        for edit in (ui.scoreQuizEdit, ui.scoreAnswersEdit):
            edit.connect("textChanged(QString)", lambda _text: self._forget())
        for button, slot in (
            (ui.refreshLearnersButton, self.refresh), (ui.writeScoreButton, self._write),
            (ui.openSummaryButton, self._open),
        ):  # fmt: skip
            button.connect("clicked()", slot)
        self._forget()

    def refresh(self) -> None:
        try:
            with slicer.util.WaitCursor():
                counts = self._logic.learners(self._ui.scoreQuizEdit.text, self._ui.scoreAnswersEdit.text)
        except LesionLensError as error:
            self._forget()
            self._ui.scoreLabel.text = html.escape(str(error))
            return
        self._learners = list(counts)
        rows = [[name, str(done), str(of)] for name, (done, of) in counts.items()]
        fillTable(self._ui.learnersTable, rows)
        self._ui.scoreLabel.text = _("{0} learners; {1} have answered every case.").format(
            len(rows), sum(done == of for done, of in counts.values())
        )
        self._update()

    def write(self, out: Path) -> None:
        """Write the score of the chosen learners, or of all where none is chosen."""
        chosen = [self._learners[row] for row in selectedRows(self._ui.learnersTable)] or None
        try:
            with slicer.util.WaitCursor():
                score = self._logic.writeScore(
                    self._ui.scoreQuizEdit.text, self._ui.scoreAnswersEdit.text, out, learners=chosen
                )
        except LesionLensError as error:
            self._onError(str(error))
            return
        page = out / PAGE
        self._page = page if os.path.isfile(page) else None
        self._ui.scoreLabel.text = scoreText(score, out)
        self._update()

    def _write(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("A folder for the score"))
        if not folder:
            return
        out = Path(folder)
        question = _("There is a score in {0} already. Replace it?").format(out)
        if not any(os.path.exists(out / name) for name in (SHEET, PAGE)) or slicer.util.confirmOkCancelDisplay(
            question
        ):
            self._bringPageMaker()
            self.write(out)

    def _bringPageMaker(self) -> None:
        """Offer to install what the page needs; the sheet is written either way."""
        question = _(
            "The page {0} needs the Python package jinja2 (0.3 MB), which this Slicer does not have. Install it now? "
            "Without it only the sheet {1} is written."
        ).format(PAGE, SHEET)
        if page_can_be_made() or not slicer.util.confirmYesNoDisplay(question):
            return
        try:
            slicer.util.pip_install(PAGE_REQUIREMENT)
        except Exception as error:  # whatever pip raises must reach the user as a sentence
            self._onError(_("jinja2 could not be installed ({0}); check the network.").format(error))

    def _open(self) -> None:
        if self._page is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._page)))

    def _forget(self) -> None:
        self._learners, self._page = [], None
        fillTable(self._ui.learnersTable, [])
        self._ui.scoreLabel.text = _("Choose the quiz and the folder with the answers, then press Look.")
        self._update()

    def _update(self) -> None:
        ui = self._ui
        hasBoth = os.path.isfile(ui.scoreQuizEdit.text) and os.path.isdir(ui.scoreAnswersEdit.text)
        ui.refreshLearnersButton.enabled = hasBoth
        ui.writeScoreButton.enabled = bool(self._learners)
        ui.writeScoreButton.toolTip = (
            _("{0} and {1} into a folder.").format(SHEET, PAGE) if self._learners else _("Press Look first.")
        )
        ui.openSummaryButton.enabled = self._page is not None


def scoreText(score: Score, out: Path) -> str:
    """The three figures that matter, and where the rest is."""
    where = html.escape(str(out))
    if score.summary is None:
        return _("Nobody of {0} has answered a case yet; {1} in {2} has no rows.").format(
            len(score.learners), SHEET, where
        )
    everyone = score.summary.everyone
    rows = [
        (_("right before the reveal"), everyone.before.right),
        (_("right after the reveal"), everyone.after.right),
        (_("the model"), everyone.ai),
    ]
    cells = "".join(
        f"<tr><td>{what}&nbsp;&nbsp;</td><td><b>{share.value:.0%}</b> ({share.hits}/{share.n})</td></tr>"
        for what, share in rows
    )
    head = _("{0} learners, {1} answered cases").format(len(score.summary.learners), everyone.n)
    if os.path.isfile(out / PAGE):
        files = _("{0} and {1} are in {2}.").format(SHEET, PAGE, where)
    else:
        files = _("{0} is in {1}. The page {2} needs the Python package jinja2, which is missing here.").format(
            SHEET, where, PAGE
        )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in score.notes)
    return f"{head}<table>{cells}</table>{files}{notes}"
