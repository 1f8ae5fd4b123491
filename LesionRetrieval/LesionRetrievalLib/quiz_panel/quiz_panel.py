"""The teaching room: take a quiz, make one, score a class; and what has to happen when scenes close."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LesionRetrievalLib.quiz_logic import QuizLogic
from LesionRetrievalLib.quiz_panel.learner import LearnerPanel
from LesionRetrievalLib.quiz_panel.practice import PracticePanel
from LesionRetrievalLib.quiz_panel.score import ScorePanel
from LesionRetrievalLib.quiz_panel.teacher import TeacherPanel

_UI = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Quiz.ui"
_TAKE, _MAKE, _SCORE = range(3)


class QuizPanel(VTKObservationMixin):
    """Fills ``container``, an empty widget with a layout. ``logic``: what the buttons call (None: one for Slicer's scene).

    Call `cleanup` before the widget goes away. While a learner is at work the other tabs are closed: they know the answers.
    """

    def __init__(self, *, container, logic: QuizLogic | None = None) -> None:
        VTKObservationMixin.__init__(self)
        self.logic = logic or QuizLogic(slicer.mrmlScene)
        self.widget = slicer.util.loadUI(str(_UI))
        container.layout().setContentsMargins(0, 0, 0, 0)
        container.layout().addWidget(self.widget)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.scene = self.logic.display.scene
        self.widget.setMRMLScene(self.scene)
        self.learner = LearnerPanel(self.ui, self.logic, onChanged=self._learnerChanged, onError=self._tellError)
        self.practice = PracticePanel(self.ui, self.logic, onReady=self._practiceReady, onError=self._tellError)
        self.teacher = TeacherPanel(self.ui, self.logic, onMade=self._quizMade, onError=self._tellError)
        self.score = ScorePanel(self.ui, self.logic, onError=self._tellError)
        self.ui.quizTabs.connect("currentChanged(int)", lambda _index: self._fitToTab())
        self._fitToTab()
        self.addObserver(self.scene, self.scene.StartCloseEvent, self._sceneCloses)
        self.addObserver(self.scene, self.scene.StartImportEvent, self._sceneLoads)

    def cleanup(self) -> None:
        """The module goes away: nothing of a quiz stays in the scene; the learner can resume it."""
        self.removeObservers()
        self.learner.close()
        self.practice.close()
        self.teacher.close()
        self.logic.stop()

    def _sceneCloses(self, _caller=None, _event=None) -> None:
        if self.logic.session is not None and not self.logic.session.is_paused:
            self.learner.pause(_("The scene was closed: the quiz is paused and nothing is lost. Press Go on."))

    def _sceneLoads(self, _caller=None, _event=None) -> None:
        """What is loaded brings its own views along, and a case must not lie in them."""
        if self.logic.session is not None and not self.logic.session.is_paused:
            self.learner.pause(_("A scene was loaded: the quiz is paused and nothing is lost. Press Go on."))

    def _learnerChanged(self) -> None:
        isAtWork = self.logic.session is not None
        for tab in (_MAKE, _SCORE):
            self.ui.quizTabs.setTabEnabled(tab, not isAtWork)

    def _fitToTab(self) -> None:
        """As high as the tab that is shown, not as the highest of them."""
        tabs = self.ui.quizTabs
        for index in range(tabs.count):
            page = tabs.widget(index)
            policy = qt.QSizePolicy.Preferred if index == tabs.currentIndex else qt.QSizePolicy.Ignored
            page.setSizePolicy(qt.QSizePolicy.Preferred, policy)
            page.updateGeometry()

    def _quizMade(self, path: Path) -> None:
        self.ui.quizPathEdit.text = self.ui.scoreQuizEdit.text = str(path)

    def _practiceReady(self, quiz: Path, answers: Path) -> None:
        self.ui.quizPathEdit.text, self.ui.answersPathEdit.text = str(quiz), str(answers)

    def _tellError(self, text: str) -> None:
        slicer.util.errorDisplay(text)
