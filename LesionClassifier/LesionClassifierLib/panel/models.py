"""The model in the panel: which there are, the card of the chosen one, a new one from a file, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer.util
from LesionLib.errors import BundleError, LesionLensError
from LesionLib.model.folder import CARD, class_names, find_bundle, installed_bundles, unchecked_manifest
from slicer.i18n import tr as _

DEVICES = ("auto", "cpu", "cuda")


class ModelsPanel:
    """Model and device selectors; ``onChosen(model, device)`` is called when the user has chosen."""

    def __init__(self, ui, *, onChosen: Callable[[str, str], None], onError: Callable[[str], None]) -> None:
        self._ui, self._onChosen, self._onError = ui, onChosen, onError
        self._filling = False
        self.cardDialog = None
        ui.deviceSelector.addItems(list(DEVICES))
        self.refresh()
        ui.modelSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.modelCardButton.connect("clicked()", self.showCard)
        ui.installModelButton.connect("clicked()", self._install)

    @property
    def model(self) -> str:
        """Name of the chosen model; empty where there is none."""
        return self._ui.modelSelector.currentText

    def refresh(self, chosen: str = "") -> None:
        """List the models anew."""
        chosen = chosen or self.model
        self._filling = True
        try:
            self._ui.modelSelector.clear()
            for name, folder in sorted(installed_bundles().items()):
                self._ui.modelSelector.addItem(name)
                self._ui.modelSelector.setItemData(
                    self._ui.modelSelector.count - 1, _description(folder), qt.Qt.ToolTipRole
                )
            self.choose(chosen, self._ui.deviceSelector.currentText)
        finally:
            self._filling = False
        self._ui.modelSelector.toolTip = _description_of(self.model)

    def choose(self, model: str, device: str) -> None:
        """Show a choice made elsewhere; an unknown one leaves what is shown."""
        was, self._filling = self._filling, True
        for selector, text in ((self._ui.modelSelector, model), (self._ui.deviceSelector, device)):
            index = selector.findText(text)
            if index >= 0:
                selector.setCurrentIndex(index)
        self._filling = was

    def classNames(self) -> list[str]:
        """The classes of the chosen model."""
        try:
            return class_names(find_bundle(self.model))
        except BundleError:
            return []

    def showCard(self) -> None:
        """The model's card: what it is for, its figures, its limits."""
        try:
            text = (find_bundle(self.model) / CARD).read_text(encoding="utf-8")
        except (OSError, LesionLensError) as error:
            self._onError(_("The card cannot be read: {0}").format(error))
            return
        self.cardDialog = qt.QDialog(slicer.util.mainWindow())
        self.cardDialog.windowTitle = self.model
        layout = qt.QVBoxLayout(self.cardDialog)
        browser = qt.QTextBrowser()
        browser.setMarkdown(text)
        browser.openExternalLinks = True
        layout.addWidget(browser)
        self.cardDialog.resize(820, 640)
        self.cardDialog.show()

    def showDevice(self, device: str, reason: str) -> None:
        """What is used, and on hovering why."""
        self._ui.deviceLabel.text, self._ui.deviceLabel.toolTip = device, reason

    def installFrom(self, path: Path) -> str:
        """Install a model from a .zip file, verified, and choose it. Raises `BundleError`."""
        from LesionLib.model.install import install_bundle

        folder = install_bundle(path)
        self.refresh(folder.name)
        self._chosen()
        return folder.name

    def _install(self) -> None:
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("A model as a .zip file"), "", _("Models (*.zip)")
        )
        if not path:
            return
        try:
            self.installFrom(Path(path))
        except (LesionLensError, ImportError) as error:
            self._onError(str(error))

    def _chosen(self, _index: int = 0) -> None:
        self._ui.modelSelector.toolTip = _description_of(self.model)
        if not self._filling:
            self._onChosen(self.model, self._ui.deviceSelector.currentText)


def _description_of(model: str) -> str:
    try:
        return _description(find_bundle(model))
    except BundleError as error:
        return str(error)


def _description(folder: Path) -> str:
    try:
        manifest = unchecked_manifest(folder)
        return f"{manifest['description']} (version {manifest['version']})"
    except (BundleError, KeyError) as error:
        return str(error)
