"""Where the models run: on this computer, or on a server that the user names. Its token is kept in memory alone."""

from __future__ import annotations

from collections.abc import Callable

import qt
from LesionLib.errors import LesionLensError
from LesionLib.inference.runner import InferenceRunner
from LesionLib.remote.runner import RemoteRunner, SwitchableRunner
from slicer.i18n import tr as _

from LesionClassifierLib.background import BackgroundRun

_ADDRESS, _CERTIFICATE = "LesionLens/ServerAddress", "LesionLens/ServerCertificate"
_HERE, _SERVER = 0, 1
_EVERY_MS = 40


class RunsOnPanel:
    """The rows *Runs on*, *Server*, *Certificate* of a panel. ``runner``: what is switched; another kind stays where it is.

    ``onChanged()`` is called when the models run elsewhere from now on. The settings keep address and certificate file, never
    the token; the scene keeps nothing of it.
    """

    def __init__(
        self, ui, runner: InferenceRunner, *, onChanged: Callable[[], None], onError: Callable[[str], None]
    ) -> None:
        self._ui, self._runner, self._onChanged, self._onError = ui, runner, onChanged, onError
        self._trying: tuple[RemoteRunner, BackgroundRun[list[str]]] | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_EVERY_MS)
        self._timer.connect("timeout()", self._poll)
        canSwitch = isinstance(runner, SwitchableRunner)
        ui.runsOnSelector.addItems([_("this computer"), _("server...")] if canSwitch else [_("this computer")])
        ui.runsOnSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.connectButton.connect("clicked()", self.connect)
        settings = qt.QSettings()
        ui.serverEdit.text = settings.value(_ADDRESS) or ""
        ui.certificateEdit.text = settings.value(_CERTIFICATE) or ""
        ui.serverFrame.visible = False

    @property
    def isServer(self) -> bool:
        """Whether a server is asked."""
        return isinstance(self._runner, SwitchableRunner) and self._runner.server is not None

    def connect(self) -> None:
        """Ask the server that is typed in which models it has; where it answers, the models run there from now on."""
        if self._trying is not None:
            return
        try:
            server = RemoteRunner(
                self._ui.serverEdit.text,
                certificate=self._ui.certificateEdit.text.strip() or None,
                sends_whole=self._ui.wholeCheckBox.checked,
            )
        except LesionLensError as error:
            self._refused(error)
            return
        self._ui.serverLabel.text = _("Connecting...")
        self._ui.connectButton.enabled = False
        self._trying = (server, BackgroundRun(server, lambda _run: server.models()))
        self._timer.start()

    def stop(self) -> None:
        """The module goes away."""
        self._timer.stop()
        self._trying = None

    def _chosen(self, index: int) -> None:
        self._ui.serverFrame.visible = index == _SERVER
        if index == _HERE and self.isServer:
            self._runner.use(None)
            self._ui.serverLabel.text = ""
            self._ui.deviceSelector.enabled = True
            self._onChanged()

    def _poll(self) -> None:
        if self._trying is None:
            self._timer.stop()
            return
        server, run = self._trying
        outcome = run.poll()
        if outcome is None:
            return
        self._timer.stop()
        self._trying = None
        self._ui.connectButton.enabled = True
        if outcome.error is not None:
            self._refused(outcome.error)
        elif self._ui.runsOnSelector.currentIndex == _SERVER:
            self._connected(server, outcome.value or [])

    def _connected(self, server: RemoteRunner, models: list[str]) -> None:
        self._runner.use(server)
        settings = qt.QSettings()
        settings.setValue(_ADDRESS, str(server.address))
        settings.setValue(_CERTIFICATE, self._ui.certificateEdit.text.strip())
        self._ui.serverEdit.text = str(server.address)  # the token is not shown again
        self._ui.serverLabel.text = _("Connected; {count} models are there.").format(count=len(models))
        self._ui.deviceSelector.enabled = False  # the server's own choice
        self._onChanged()

    def _refused(self, error: LesionLensError) -> None:
        self._ui.serverLabel.text = _("Not connected.")
        self._onError(str(error))
