"""What both panels are built on: they ask the runner they were given, say how a run ended once, and never show what came too late."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest
from LesionClassifierLib.background import BackgroundRun, Outcome
from LesionClassifierLib.scene.lesions import addRoiNode, markAsLesion
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.inference.messages import RunnerCancelled, RunnerError
from LesionLib.model.folder import golden_case


class CannedRunner:
    """An `InferenceRunner` without a model: notes what it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.warmed, self.asked, self.restarts, self.isClosed = [], [], 0, False
        self.mayAnswer, self._isCancelled = Event(), False

    def start(self, model=None, options=None) -> None:
        self.warmed.append(model)

    def run(self, request, *, progress=None):
        self.asked.append(request)
        assert self.mayAnswer.wait(20)
        if self._isCancelled:
            raise RunnerCancelled
        msg = "the canned runner has no model."
        raise RunnerError(msg)

    def cancel(self) -> bool:
        self._isCancelled = True
        self.mayAnswer.set()
        return True

    def restart(self) -> None:
        self.restarts += 1

    def close(self) -> None:
        self.isClosed = True
        self.mayAnswer.set()


@pytest.fixture
def runner() -> CannedRunner:
    return CannedRunner()


@pytest.fixture(params=["LesionClassifier", "LesionRetrieval"])
def panel(request, module_widget, runner):
    return module_widget(request.param, runner=runner)


@pytest.fixture
def classifier(module_widget, runner, scene, spin):
    """Lesion Classifier with a CT and a box, ready to classify."""
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    markAsLesion(addRoiNode(scene, replace(box, name="L1")))
    panel = module_widget("LesionClassifier", runner=runner)
    spin(until=lambda: panel.ui.classifyButton.enabled, seconds=5)
    return panel


def test_the_runner_that_a_panel_was_given_is_warmed_restarted_and_closed(panel, runner):
    model = panel.ui.modelSelector.currentText
    assert runner.warmed == [model]
    panel.ui.restartButton.click()
    assert (runner.restarts, runner.warmed) == (1, [model, model])
    assert panel.ui.statusLabel.text == "The worker was restarted."
    panel.cleanup()
    assert runner.isClosed


def test_a_panel_without_what_models_need_warms_nothing_and_shows_the_set_up_step(panel, runner):
    from LesionClassifierLib.setup import missingPackages

    panel.panel._missing = lambda: missingPackages(lambda name: name != "torch")
    runner.warmed.clear()
    panel.panel.checkSetup()
    panel.panel.warmUp()
    assert panel.ui.setupFrame.visible
    assert "torch" in panel.ui.setupLabel.text
    assert runner.warmed == []


def test_a_run_that_fails_is_told_once_and_the_next_may_start(classifier, runner, spin, told):
    runner.mayAnswer.set()
    for count in (1, 2):
        classifier.ui.classifyButton.click()
        assert spin(until=lambda: not classifier.panel.run.isRunning, seconds=10)
        assert told.of("error") == ["the canned runner has no model."] * count
    assert len(runner.asked) == 2
    assert not classifier.ui.progressBar.visible
    assert classifier.ui.classifyButton.enabled


def test_a_second_run_meanwhile_is_not_started_and_cancel_ends_the_first(classifier, runner, spin, told):
    classifier.ui.classifyButton.click()
    spin(until=lambda: runner.asked, seconds=10)
    classifier.panel.classifyAll()
    assert classifier.ui.statusLabel.text == "A run is under way."
    assert classifier.ui.progressBar.visible
    classifier.ui.cancelButton.click()
    assert classifier.ui.statusLabel.text == "Cancelling..."
    assert spin(until=lambda: not classifier.panel.run.isRunning, seconds=10)
    assert classifier.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert len(runner.asked) == 1
    assert told.of("error") == []


@pytest.fixture
def counted(gui, runner):
    """A run of three items on plain widgets: its bar, its label, what it told when it ended."""
    import qt
    from LesionClassifierLib.panel.base import PanelRun

    class Counting(PanelRun[str]):
        def start(self, work, **options) -> None:
            self._begin(BackgroundRun(runner, work, total=3, **options))

        def _progressText(self, run) -> str:
            return f"{run.done} of {run.total}"

        def _answered(self, run, answer: str) -> str:
            return answer

    widgets = qt.QProgressBar(), qt.QLabel(), qt.QPushButton()
    ended: list[Outcome] = []
    run = Counting(*widgets, onEnded=ended.append, onError=ended.append)
    yield run, *widgets, ended
    run.stop()


def test_bar_and_line_follow_the_run_and_the_answer_is_said_at_its_end(counted, spin):
    run, bar, label, _button, ended = counted
    goOn = Event()

    def work(background) -> str:
        background.note(2, 3)
        assert goOn.wait(10)
        return "three lesions"

    run.start(work)
    assert spin(until=lambda: label.text == "2 of 3", seconds=10)
    assert (bar.maximum, bar.value, run.isRunning) == (3, 2, True)
    goOn.set()
    assert spin(until=lambda: not run.isRunning, seconds=10)
    assert label.text == "three lesions"
    assert [outcome.value for outcome in ended] == ["three lesions"]


def test_an_answer_to_a_scene_that_was_closed_is_not_shown_though_it_counts(counted, spin):
    run, _bar, label, _button, ended = counted
    goOn = Event()

    def work(_background) -> str:
        assert goOn.wait(10)
        return "three lesions"

    run.start(work, keepsLateResult=True)
    run.forget()
    goOn.set()
    assert spin(until=lambda: not run.isRunning, seconds=10)
    assert label.text == "The scene was closed meanwhile; the answer is not shown."
    run.start(work)
    assert spin(until=lambda: not run.isRunning, seconds=10)
    assert label.text == "three lesions"
    assert len(ended) == 2
