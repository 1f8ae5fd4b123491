"""Every button of the teaching room as one call that a script can make, in Slicer and without it; it knows no widget.

A learner by script::

    logic = QuizLogic(scene)
    logic.start("quiz.json", "answers", "L07")
    while logic.session.step is not Step.DONE:
        logic.finishLooking()                 # where the box is given, it is taken at once
        logic.answer("benign", 0.7)
        print(logic.session.model_prediction.probabilities)
        logic.finishReveal()
        logic.answer("malignant", 0.8)
        logic.nextCase()
    logic.stop()
    logic.writeScore("quiz.json", "answers", "score")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from LesionClassifierLib.background import BackgroundRun
from LesionClassifierLib.scene.lesions import boxFromRoi, lesionsFromNodes
from LesionClassifierLib.scene.volumes import volumeFromNode
from LesionLib.geometry import require_overlap
from LesionLib.inference.runner import InferenceRunner, WorkerRunner
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene

from LesionRetrievalLib.library.cases import Case
from LesionRetrievalLib.library.intake import require_anonymous
from LesionRetrievalLib.library.ownership import require_key
from LesionRetrievalLib.library.pseudonyms import key_if_there
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.logic import dicomDatabase, patientHash
from LesionRetrievalLib.practice import make_practice_quiz, practice_files
from LesionRetrievalLib.quiz.attempt import CASE_STEPS, Step, read_attempts
from LesionRetrievalLib.quiz.file import load_quiz, require_unsealed
from LesionRetrievalLib.quiz.making import LabelledLesion, choose_per_label
from LesionRetrievalLib.quiz.model import NOBODY, Quiz, QuizError
from LesionRetrievalLib.quiz.questions import Answers
from LesionRetrievalLib.quiz.report import Score, score_of, write_score
from LesionRetrievalLib.quiz.requests import LibraryCases, QuizRequest, quiz_of_request
from LesionRetrievalLib.quiz.session import Feedback, QuizSession
from LesionRetrievalLib.scene.identity import identityOfVolume
from LesionRetrievalLib.scene.quiz_cases import CaseDisplay
from LesionRetrievalLib.scene.views import COMPARISON, heldBy


def makeInBackground(request: QuizRequest, runner: InferenceRunner) -> BackgroundRun[Quiz]:
    """A quiz being made in the background.

    Ask the model about every case and write the quiz; returns at once. A quiz that is written when cancelled stays.

    ``runner`` is this run's own and is closed when it has ended. Touches no MRML.
    """

    def work(run: BackgroundRun[Quiz]) -> Quiz:
        try:
            return quiz_of_request(request, runner, progress=run.noteUnlessCancelled)
        finally:
            runner.close()

    return BackgroundRun(runner, work, total=len(request.cases) + len(request.lesions), keepsLateResult=True)


class QuizLogic:
    """``scene``: where cases are shown. ``makeRunner``: a fresh place for the model to run, for each quiz that is made.
    ``keyPath``: the owner's pseudonym key (None: the usual place).

    Faults are `LesionLib.errors.LesionLensError` in plain English. Only making a quiz needs torch, in the runner.
    """

    def __init__(
        self,
        scene: vtkMRMLScene,
        *,
        makeRunner: Callable[[], InferenceRunner] = WorkerRunner,
        keyPath: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._makeRunner, self._keyPath, self._clock = makeRunner, keyPath, clock
        self.display = CaseDisplay(scene)
        self.session: QuizSession | None = None

    # --- the teacher

    def libraryCases(self, path: str | Path, *, classNames: Sequence[str] | None = None) -> list[Case]:
        """The cases of a library that can be asked: those with their CT, and an answer among ``classNames``."""
        with CaseLibrary.open(path) as library:
            return LibraryCases(library, class_names=classNames).cases

    def drawCases(
        self, path: str | Path, *, perLabel: int, seed: int = 0,
        labels: Sequence[str] | None = None, classNames: Sequence[str] | None = None,
    ) -> list[str]:  # fmt: skip
        """Case ids, ``perLabel`` of each label, drawn by ``seed``; a second case of a patient only if no other is left."""
        with CaseLibrary.open(path) as library:
            source = LibraryCases(library, class_names=classNames)
            indices = choose_per_label(source, perLabel, seed=seed, labels=labels)
            return [source.cases[index].case_id for index in indices]

    def lesionFromScene(
        self, volumeNode: vtkMRMLScalarVolumeNode, roiNode: vtkMRMLMarkupsROINode, label: str,
        *, labelSource: str, organ: str = "not stated", feedback: str = "",
    ) -> LabelledLesion:  # fmt: skip
        """A box on a CT of the scene with its typed truth, as a case. The CT is not copied: leave it alone until it is made.

        Cases of the same patient, where the CT says who that is, will not be among the similar ones. Raises `BoxError` for a
        box outside the CT, `CaseLibraryError` for a text that names the patient.
        """
        volume, (box,) = volumeFromNode(volumeNode), lesionsFromNodes([roiNode])
        require_overlap(volume, box)
        identity = identityOfVolume(volumeNode, database=dicomDatabase())
        require_anonymous(Case("case", label, labelSource, organ, NOBODY, NOBODY, {}, feedback), identity.texts)
        return LabelledLesion(
            volume, box, label, labelSource, organ, patient_hash=patientHash(identity, self._keyPath), feedback=feedback
        )

    def makeQuiz(self, request: QuizRequest) -> Quiz:
        """Ask the model about every case and write the quiz; returns when that is done."""
        self._requireKey(request)
        runner = self._makeRunner()
        try:
            return quiz_of_request(request, runner)
        finally:
            runner.close()

    def startMaking(self, request: QuizRequest) -> BackgroundRun[Quiz]:
        """The same on a thread of its own; returns at once."""
        self._requireKey(request)
        return makeInBackground(request, self._makeRunner())

    def startPractice(self) -> BackgroundRun[Path]:
        """A quiz of computed nodules, made in the background in the user's data folder; one that is there is taken.

        Returns at once; the run ends with the quiz's path. Its place and that of its answers: `practice.practice_files`.
        """
        files, runner, keyPath = practice_files(), self._makeRunner(), self._keyPath

        def work(run: BackgroundRun[Path]) -> Path:
            try:
                return make_practice_quiz(files, runner, key_path=keyPath, progress=run.noteUnlessCancelled)
            finally:
                runner.close()

        return BackgroundRun(runner, work, total=files.total, keepsLateResult=True)

    def _requireKey(self, request: QuizRequest) -> None:
        """Refuse lesions whose own cases could not be left out of the similar ones: hashed by another key than the library's."""
        key = key_if_there(self._keyPath)
        if key is not None and request.library is not None and any(lesion.patient_hash for lesion in request.lesions):
            with CaseLibrary.open(request.library) as library:
                require_key(library, key)

    def checkQuiz(self, path: str | Path) -> Quiz:
        """Read a quiz with every check there is; `QuizError` says what is wrong with it."""
        return load_quiz(path)

    # --- the learner

    def start(self, quiz: Quiz | str | Path, folder: str | Path, learner: str) -> QuizSession:
        """Begin, or resume where this learner stopped, and show the case at hand. An earlier session is ended."""
        if not isinstance(quiz, Quiz):
            quiz = load_quiz(quiz)
        self._requireViews()
        session = QuizSession.open(quiz, folder, learner=learner, clock=self._clock)
        self.stop()
        self.session = session
        self.show()
        return session

    def show(self) -> None:
        """Bring the scene in line with the session: no more than the learner may see now."""
        session = self.session
        if session is None or session.is_paused or session.step is Step.DONE:
            self.display.clear()
            return
        self.display.showCase(session.attempt.record.case_id, session.volume, windowHU=session.quiz.window_hu)
        self.display.hideBoxes()
        box = session.box
        own = session.attempt.record.box
        if box is not None:
            self.display.showBox(box, isOwn=own is not None)
        if _isRevealed(session.step):
            if own is not None:
                self.display.showBox(session.teacher_box)
            self.display.showHeat(session.model_prediction.heat_map)

    def finishLooking(self) -> None:
        """On to the box; one that is given is taken at once."""
        session = self._running()
        session.finish_looking()
        if session.quiz.boxes == "given":
            session.take_box()
        self.show()

    def takeBox(self) -> None:
        self._running().take_box()
        self.show()

    def startPlacing(self) -> vtkMRMLMarkupsROINode:
        """Let the learner draw a box; returns it."""
        session = self._running()
        if session.step is not Step.BOX or session.quiz.boxes == "given":
            msg = f"No box is drawn now: {session.step.advice}."
            raise QuizError(msg)
        return self.display.startPlacing()

    def useBox(self, roiNode: vtkMRMLMarkupsROINode | None = None) -> None:
        """Keep the learner's box: ``roiNode``, or the one that was drawn after `startPlacing`. Raises `BoxError` too."""
        self._running().place_box(self.display.placedBox() if roiNode is None else boxFromRoi(roiNode))
        self.show()

    def answer(self, label: str, confidence: float, answers: Answers | None = None) -> None:
        """The first or second answer; after the first one the reveal is shown. ``answers``: to the teacher's own questions."""
        self._running().answer(label, confidence, answers)
        self.show()

    def finishReveal(self) -> None:
        """On to the second answer; what was revealed stays to be seen."""
        self._running().finish_reveal()

    def nextCase(self) -> Step:
        """The feedback was read: the next case, or the end."""
        step = self._running().next_case()
        self.show()
        return step

    def pause(self) -> None:
        """Stop the clock and take the case out of the scene."""
        if self.session is not None:
            self.session.pause()
        self.show()

    def resume(self) -> None:
        """Go on after `pause`. Raises `QuizError` while a comparison has the slice views."""
        if self.session is not None:
            self._requireViews()
            self.session.resume()
        self.show()

    def stop(self) -> None:
        """End the session; the learner can resume it at any time, at the step that was reached."""
        self.session = None
        self.display.clear()

    @property
    def feedback(self) -> Feedback:
        """The truth of the case, when both answers are given."""
        return self._running().feedback

    # --- the score

    def learners(self, quiz: Quiz | str | Path, folder: str | Path) -> dict[str, tuple[int, int]]:
        """Who has begun: code -> cases with both answers, of how many."""
        quiz = quiz if isinstance(quiz, Quiz) else load_quiz(quiz)
        return {
            attempt.learner: (sum(record.is_answered for record in attempt.records), len(attempt.order))
            for attempt in read_attempts(quiz, folder)
        }

    def ownScore(self) -> Score:
        """What the learner of this session has done so far."""
        session = self._running()
        return score_of(session.answered_quiz, [session.attempt])

    def writeScore(
        self, quiz: Quiz | str | Path, folder: str | Path, out: str | Path, *, learners: Sequence[str] | None = None
    ) -> Score:
        """``score.csv`` and, where jinja2 is there, ``summary.html`` of ``learners`` (None: all in ``folder``).

        An earlier score is replaced.
        """
        if not isinstance(quiz, Quiz):
            quiz = load_quiz(quiz)
        require_unsealed(quiz)
        attempts = read_attempts(quiz, folder)
        there = {attempt.learner for attempt in attempts}
        if missing := sorted(set(learners or ()) - there):
            msg = f"{folder} holds no answers of {missing[0]!r}; there are {', '.join(sorted(there))}."
            raise QuizError(msg)
        score = score_of(quiz, [one for one in attempts if learners is None or one.learner in learners])
        write_score(Path(out), quiz, score.rows, score.summary)
        return score

    def _requireViews(self) -> None:
        if heldBy(self.display.scene) == COMPARISON:
            msg = "The slice views show a comparison of two lesions; press Back there, then go on with the quiz."
            raise QuizError(msg)

    def _running(self) -> QuizSession:
        if self.session is None:
            msg = "No quiz is under way; start one."
            raise QuizError(msg)
        return self.session


def _isRevealed(step: Step) -> bool:
    return step in CASE_STEPS and CASE_STEPS.index(step) >= CASE_STEPS.index(Step.REVEAL)
