"""What the logics of both modules have in common: the runner that they own."""

from __future__ import annotations

from LesionLib.inference.runner import InferenceRunner, InProcessRunner


class RunnerLogic:
    """``runner``: where the models run, closed with the logic; None is in this very process, when it is first needed."""

    def __init__(self, *, runner: InferenceRunner | None = None) -> None:
        self._runner = runner

    @property
    def runner(self) -> InferenceRunner:
        """Where the models run."""
        if self._runner is None:
            self._runner = InProcessRunner()
        return self._runner

    def restartRunner(self) -> None:
        """Let go of all models and begin afresh; what runs is cancelled."""
        self.runner.restart()

    def close(self) -> None:
        """End the process or free the memory of the models."""
        if self._runner is not None:
            self._runner.close()
