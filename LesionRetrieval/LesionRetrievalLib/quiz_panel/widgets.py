"""What the panels of the teaching room share: lines for paths, tables, and the sentences of a quiz.

A line for a path has a button that asks for it. Tables are plain rows of text, several to be chosen. The sentences say what
to do at a step, what a case was, how the learner did: rich text, escaped here.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path

import qt
import slicer.util
from LesionLib.uncertainty.conformal import Proportion
from slicer.i18n import tr as _

from LesionRetrievalLib.quiz.attempt import LearnerAnswer, Step
from LesionRetrievalLib.quiz.model import Quiz
from LesionRetrievalLib.quiz.questions import FREE_TEXT, Question
from LesionRetrievalLib.quiz.report import Score
from LesionRetrievalLib.quiz.session import Feedback, QuizSession


def connectFile(edit, button, *, title: str, filters: str, onChosen: Callable[[], None] | None = None) -> None:
    """The button asks for a file that exists."""

    _connectPath(
        edit,
        button,
        lambda: qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, edit.text, filters),
        onChosen,
    )


def connectFolder(edit, button, *, onChosen: Callable[[], None] | None = None) -> None:
    """The button asks for a folder."""

    title = _("The folder with the answers")
    _connectPath(
        edit, button, lambda: qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, edit.text), onChosen
    )


def _connectPath(edit, button, ask: Callable[[], str], onChosen: Callable[[], None] | None) -> None:
    def choose() -> None:
        path = ask()
        if path:
            edit.text = path
            if onChosen is not None:
                onChosen()

    button.connect("clicked()", choose)


def withSuffix(path: str, suffix: str) -> Path:
    """``path`` ending so; some dialogs leave it out."""
    return Path(path) if path.endswith(suffix) else Path(path + suffix)


_READ_ONLY = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled


def prepareTable(table, heads: Sequence[str]) -> None:
    """Columns with these heads; the last one takes the room that is left."""
    table.setColumnCount(len(heads))
    table.setHorizontalHeaderLabels(list(heads))
    table.horizontalHeader().setStretchLastSection(True)
    table.verticalHeader().hide()


def fillTable(table, rows: Sequence[Sequence[str]], *, editable: int | None = None) -> None:
    """Show these rows; only the column ``editable`` can be written to."""
    table.setRowCount(len(rows))
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(f"<span>{html.escape(text)}</span>")  # never taken for rich text
            if column != editable:
                item.setFlags(_READ_ONLY)
            table.setItem(row, column, item)
    table.resizeColumnsToContents()
    for isStretched in (False, True):  # the header does so only when it is told anew
        table.horizontalHeader().setStretchLastSection(isStretched)


def selectedRows(table) -> list[int]:
    """The numbers of the chosen rows, from 0."""
    return sorted({index.row() for index in table.selectionModel().selectedRows()})


_GREEN, _RED = "#2a7a4e", "#b0433f"


def stepText(session: QuizSession) -> str:
    """What the learner does now."""
    if session.is_paused:
        return _("<b>Paused.</b> The clock stands and the case is hidden.")
    instruction = {
        Step.LOOK: _("Look at the case in the slice views."),
        Step.BOX: _("Place a box around the lesion."),
        Step.FIRST_ANSWER: _("What is it, and how sure are you?"),
        Step.REVEAL: _("This is what the model says. It may be wrong."),
        Step.SECOND_ANSWER: _("And now? The same answer, or another one."),
        Step.FEEDBACK: _("This is what it was."),
    }[session.step]
    if session.step is Step.BOX and session.quiz.boxes == "free":
        instruction += _(" Or be shown the teacher's.")
    text = f"<b>{instruction}</b>"
    if session.step is Step.LOOK and session.quiz.instructions:
        text = f"<i>{_lines(session.quiz.instructions)}</i><br>{text}"
    return text


def goOnText(session: QuizSession) -> str:
    """What the large button says."""
    if session.is_paused:
        return _("Go on")
    last = session.position == session.total
    return {
        Step.LOOK: _("I have seen it"),
        Step.BOX: _("Use this box"),
        Step.FIRST_ANSWER: _("Answer"),
        Step.REVEAL: _("Answer once more"),
        Step.SECOND_ANSWER: _("Answer"),
        Step.FEEDBACK: _("Finish") if last else _("Next case"),
    }[session.step]


_PICTURE_PX = 320


def feedbackText(feedback: Feedback, questions: Sequence[Question] = ()) -> str:
    """The truth, how it is known, both answers and the model's, the box, the teacher's questions, and what the teacher says."""
    known = feedback.known
    lines = [
        _("It is <b>{0}</b> (known by: {1}).").format(html.escape(known.label), html.escape(known.label_source)),
        _("Your first answer: {0}").format(_answered(feedback.first, feedback.first_is_right)),
        _("Your second answer: {0}").format(_answered(feedback.second, feedback.second_is_right)),
        _("The model: {0}, {1}").format(html.escape(feedback.predicted_label), _verdict(feedback.model_is_right))
        if feedback.predicted_label
        else _("The model has no answer for this case."),
    ]
    if feedback.box_overlap is not None:
        lines.append(
            _("Your box shares {0:.0%} with the teacher's (intersection over union).").format(feedback.box_overlap)
        )
    lines += [
        _questionLine(question, feedback)
        for question in questions
        if question.question_id in feedback.answers or question.question_id in known.answers
    ]
    if known.feedback:
        lines.append(f"<br>{_lines(known.feedback)}")
    teaching = known.teaching
    if teaching.picture:
        data = base64.b64encode(teaching.picture).decode("ascii")
        lines.append(f"<img width={_PICTURE_PX} src='data:image/{teaching.kind};base64,{data}'>")
        lines.append(f"<i>{_lines(teaching.description)}</i>")
    if teaching.link:
        lines.append(f"<a href='{html.escape(teaching.link)}'>{_('Read more')}</a>")
    return "<br>".join(lines)


def _questionLine(question: Question, feedback: Feedback) -> str:
    given, right = feedback.answers.get(question.question_id), feedback.known.answers.get(question.question_id)
    line = _("{0} You: {1}.").format(html.escape(question.text), _written(given) if given else _("no answer"))
    if right is None:
        return line
    line += _(" Teacher: {0}.").format(_written(right))
    isJudged = given is not None and question.kind != FREE_TEXT
    return f"{line} {_verdict(question.is_right(given, right))}" if isJudged else line


def _written(value: str | Sequence[str]) -> str:
    return html.escape(value if isinstance(value, str) else ", ".join(value))


def endText(score: Score, quiz: Quiz) -> str:
    """The learner's own score."""
    if score.summary is None:
        return _("Nothing is answered yet.")
    group, name = score.summary.everyone, score.learners[0]
    rows = [
        (_("right before the reveal"), _share(group.before.right)),
        (_("right after the reveal"), _share(group.after.right)),
        (_("the model"), _share(group.ai)),
        (_("changed to right"), str(sum(row.second_is_right and not row.first_is_right for row in score.rows))),
        (_("changed to wrong"), str(sum(row.first_is_right and not row.second_is_right for row in score.rows))),
        (_("mean confidence before"), f"{_mean([row.first_confidence for row in score.rows]):.0%}"),
        (_("time for a case (median)"), f"{group.median_total:.0f} s"),
    ]
    if group.median_overlap is not None:
        rows.append((_("box overlap (median)"), f"{group.median_overlap:.2f}"))
    table = "".join(f"<tr><td>{what}&nbsp;&nbsp;</td><td><b>{value}</b></td></tr>" for what, value in rows)
    head = _("{0}: all {1} cases of {2} are done. Thank you.").format(
        html.escape(name), len(quiz.cases), html.escape(quiz.title)
    )
    again = _("You may take it once more: start it with another code, such as {0}.2").format(html.escape(name))
    return f"<b>{head}</b><table>{table}</table>" + (again if quiz.repeat else "")


def _answered(answer: LearnerAnswer, isRight: bool) -> str:
    return _("{0}, {1:.0%} sure, {2}").format(html.escape(answer.label), answer.confidence, _verdict(isRight))


def _verdict(isRight: bool) -> str:
    color, text = (_GREEN, _("right")) if isRight else (_RED, _("wrong"))
    return f"<b style='color:{color}'>{text}</b>"


def _share(share: Proportion) -> str:
    return _("{0} of {1} ({2:.0%})").format(share.hits, share.n, share.value)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
