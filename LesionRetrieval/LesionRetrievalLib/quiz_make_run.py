"""A quiz being made in the background."""

from __future__ import annotations

from LesionClassifierLib.background_run import BackgroundRun
from LesionLib.runner import InferenceRunner

from .quiz_model import Quiz
from .quiz_request import QuizRequest, answer_request


def makeInBackground(request: QuizRequest, runner: InferenceRunner) -> BackgroundRun[Quiz]:
    """Ask the model about every case and write the quiz; returns at once. A quiz that is written when cancelled stays.

    ``runner`` is this run's own and is closed when it has ended. Touches no MRML.
    """

    def work(run: BackgroundRun[Quiz]) -> Quiz:
        def progress(done: int, total: int) -> None:
            run.note(done, total)
            run.stopIfCancelled()

        try:
            return answer_request(request, runner, progress=progress)
        finally:
            runner.close()

    return BackgroundRun(runner, work, total=len(request.cases) + len(request.lesions), keepsLateAnswer=True)
