"""The case library in the panel: open or make one, what it holds, which of its cases are searched, add and remove."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import qt
import slicer
import slicer.util
from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _

from LesionRetrievalLib.library.attributes import attributes_from_text, conditions_from_text
from LesionRetrievalLib.library.intake import NewCase, PatientIdentity
from LesionRetrievalLib.library.ownership import KeyState, key_state
from LesionRetrievalLib.library.pseudonyms import default_key_path, key_if_there
from LesionRetrievalLib.library.search.filters import SearchPlan
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.logic import dicomDatabase, patientHash
from LesionRetrievalLib.scene.identity import IdentityCache


class AddingPanel:
    """Adding the lesion to the library, and removing a case; neither in a library that was opened to read only.

    The form is not kept in the scene. ``onAdd(case)`` and ``onRemove()`` are called when the user asks for it.
    """

    def __init__(self, ui, *, onAdd: Callable[[], None], onRemove: Callable[[], None]) -> None:
        self._ui = ui
        ui.newSourceEdit.addItems(
            [_("histology"), _("follow-up of 24 months"), _("expert reading"), _("typical appearance")]
        )
        for edit in (ui.newLabelEdit, ui.newOrganEdit, ui.newSourceEdit):
            edit.setCurrentText("")
            edit.connect("currentTextChanged(QString)", lambda _text: self.show())
        for edit in (ui.newAttributesEdit, ui.newNoteEdit):
            edit.maximumHeight = 62
        ui.addCaseButton.connect("clicked()", onAdd)
        ui.removeCaseButton.connect("clicked()", onRemove)
        self._addDisabledReason = self._removeDisabledReason = ""

    def fill(self, labels: Sequence[str], organs: Sequence[str]) -> None:
        """Offer answers and organs; what was typed stays."""
        for edit, values in ((self._ui.newLabelEdit, labels), (self._ui.newOrganEdit, organs)):
            typed = edit.currentText
            edit.clear()
            edit.addItems(values)
            edit.setCurrentText(typed)

    def newCase(self) -> NewCase:
        """What the form says. Raises `CaseLibraryError` for attributes that cannot be read."""
        ui = self._ui
        return NewCase(
            label=ui.newLabelEdit.currentText.strip(),
            label_source=ui.newSourceEdit.currentText.strip(),
            organ=ui.newOrganEdit.currentText.strip() or "not stated",
            attributes=attributes_from_text(ui.newAttributesEdit.plainText),
            note=ui.newNoteEdit.plainText.strip(),
            with_thumbnails=ui.picturesCheckBox.checked,
            with_patch=ui.patchCheckBox.checked,
        )

    def added(self) -> None:
        """Clear what belongs to one lesion only, so that it is not stored with the next one."""
        self._ui.newAttributesEdit.plainText = self._ui.newNoteEdit.plainText = ""
        self._ui.newLabelEdit.setCurrentText("")

    def update(self, library: CaseLibrary | None, *, searchDisabledReason: str, hasChosen: bool) -> None:
        """Enable the buttons, or say why not. ``searchDisabledReason``: why no lesion can be looked at now."""
        closed = _("Open a case library, or make a new one.") if library is None else ""
        closed = closed or (readOnly() if library.read_only else "")
        self._addDisabledReason = closed or searchDisabledReason
        self._removeDisabledReason = closed or ("" if hasChosen else _("Choose a case among those found."))
        self.show()

    def show(self) -> None:
        """Bring the buttons in line with the form."""
        ui = self._ui
        reason = self._addDisabledReason
        if not reason and not ui.newLabelEdit.currentText.strip():
            reason = _("Say what the lesion is.")
        if not reason and not ui.newSourceEdit.currentText.strip():
            reason = _("Say how that was established.")
        ui.addCaseButton.enabled, ui.addCaseButton.toolTip = (
            not reason,
            reason or _("Store the lesion with its answer."),
        )
        reason = self._removeDisabledReason
        ui.removeCaseButton.enabled = not reason
        ui.removeCaseButton.toolTip = reason or _("Take the selected case out of the library, after a question.")


def readOnly() -> str:
    """Why nothing can be changed."""
    return _("The library was opened to read only: tick Allow changes above.")


class FiltersPanel:
    """Which cases are searched: scope, answer, organ, attributes, and whose lesion it is.

    ``onChanged`` is called when the user has changed something. What is typed of a patient stays in this widget.
    """

    def __init__(self, ui, logic, *, onChanged: Callable[[], None]) -> None:
        self._ui, self._logic, self._onChanged = ui, logic, onChanged
        self._parameters = None
        self._filling = False
        self._identities = IdentityCache()
        for scope, text in (
            ("all", _("all cases")), ("same-patient", _("the same patient")), ("cross-patient", _("other patients")),
        ):  # fmt: skip
            ui.scopeSelector.addItem(text)
            ui.scopeSelector.setItemData(ui.scopeSelector.count - 1, scope)
        for selector in (ui.scopeSelector, ui.labelSelector, ui.organSelector):
            selector.connect("currentIndexChanged(int)", self._chosen)
        ui.patientEdit.connect("textChanged(QString)", lambda _text: self._changed())
        ui.keyLabel.text = str(logic.keyPath or default_key_path())

    def setParameters(self, parameters) -> None:
        """Show the scene's parameters; None between two scenes."""
        self._parameters = parameters
        self._ui.patientEdit.clear()
        self._identities.forget()
        self.show()

    def fill(self, labels: Sequence[str], organs: Sequence[str]) -> None:
        """Offer the answers and organs that the library holds."""
        self._filling = True
        for selector, values in ((self._ui.labelSelector, labels), (self._ui.organSelector, organs)):
            selector.clear()
            selector.addItem(_("any"))
            selector.setItemData(0, "")
            for value in values:
                selector.addItem(value)
                selector.setItemData(selector.count - 1, value)
        self._filling = False
        self.show()

    def show(self) -> None:
        """Bring the widgets in line with the parameters; an answer that the library lacks is shown as any."""
        if self._parameters is None:
            return
        self._filling = True
        for selector, value in (
            (self._ui.scopeSelector, self._parameters.scope),
            (self._ui.labelSelector, self._parameters.label),
            (self._ui.organSelector, self._parameters.organ),
        ):
            values = [selector.itemData(i) for i in range(selector.count)]
            selector.setCurrentIndex(values.index(value) if value in values else 0)
        self._filling = False
        self._showPatient()

    def plan(self) -> SearchPlan:
        """What is asked for. Raises `CaseLibraryError` for attributes that cannot be read."""
        ui = self._ui
        return SearchPlan(
            scope=ui.scopeSelector.itemData(ui.scopeSelector.currentIndex) or "all",
            label=ui.labelSelector.itemData(ui.labelSelector.currentIndex) or "",
            organ=ui.organSelector.itemData(ui.organSelector.currentIndex) or "",
            attributes=conditions_from_text(ui.attributesEdit.text),
            leave_out_patient=ui.leaveOutCheckBox.checked,
        )

    def identity(self) -> PatientIdentity:
        """Whose CT it is, as far as known. Raises `CaseLibraryError` where two sources differ."""
        volume = None if self._parameters is None else self._parameters.volume
        return self._identities.ofVolume(volume, typed=self._ui.patientEdit.text, database=dicomDatabase())

    def patient(self) -> str | None:
        """The hash of the patient; None where it is not known. Raises `CaseLibraryError`."""
        return patientHash(self.identity(), self._logic.keyPath, self._logic.library)

    def disabledReason(self) -> str:
        """Why this search cannot be made, in plain words; empty where it can."""
        try:
            self.plan().filters(self.patient())
        except LesionLensError as error:
            return str(error)
        return ""

    def text(self) -> str:
        """Whether cases of the same patient are left out."""
        try:
            key, library = key_if_there(self._logic.keyPath), self._logic.library
            isForeign = library is not None and key_state(library, key) is KeyState.FOREIGN
            return self.plan().text(self.patient(), has_key=key is not None, has_foreign_key=isForeign)
        except LesionLensError as error:
            return str(error)

    def _showPatient(self) -> None:
        scope = self._ui.scopeSelector.itemData(self._ui.scopeSelector.currentIndex)
        self._ui.leaveOutCheckBox.enabled = scope == "all"
        hasVolume = self._parameters is not None and self._parameters.volume is not None
        self._ui.patientLabel.text = self.text() if hasVolume else ""

    def _chosen(self, _index: int) -> None:
        if self._filling or self._parameters is None:
            return
        ui = self._ui
        with slicer.util.NodeModify(self._parameters.parameterNode):
            self._parameters.scope = ui.scopeSelector.itemData(ui.scopeSelector.currentIndex) or "all"
            self._parameters.label = ui.labelSelector.itemData(ui.labelSelector.currentIndex) or ""
            self._parameters.organ = ui.organSelector.itemData(ui.organSelector.currentIndex) or ""
        self._changed()

    def _changed(self) -> None:
        self._showPatient()
        self._onChanged()


SUFFIX = ".lesionlib"
_RECENT_KEY, _MAX_RECENT = "LesionRetrieval/recentLibraries", 8
_MAX_LABELS = 8


class LibraryPanel:
    """The case library in the panel: open, make, the ones open lately, and what it holds.

    ``onOpened`` is called when another library is open, or none; ``onNew(path)`` when the user wants a new one.
    """

    def __init__(
        self, ui, logic, *, onOpened: Callable[[], None], onNew: Callable[[Path], None], onError: Callable[[str], None]
    ) -> None:
        self._ui, self._logic = ui, logic
        self._onOpened, self._onNew, self._onError = onOpened, onNew, onError
        self._filling = False
        ui.openLibraryButton.connect("clicked()", self._askToOpen)
        ui.newLibraryButton.connect("clicked()", self._askForNew)
        ui.librarySelector.connect("currentIndexChanged(int)", self._chosen)
        ui.writableCheckBox.connect("toggled(bool)", self._writableChanged)
        self._fillRecent()
        self.show()

    @property
    def path(self) -> str:
        """Of the open library; "" where none is open."""
        return "" if self._logic.library is None else str(self._logic.library.path)

    def open(self, path: str | Path, *, writable: bool = False, isAsked: bool = True) -> bool:
        """Open a library; what is wrong is told, and the one that was open stays. Whether it worked.

        ``isAsked``: the user waits for it. Slicer's wait cursor lets events through, which must not be while a scene is loaded.
        """
        try:
            with slicer.util.WaitCursor(show=isAsked):
                self._logic.openLibrary(path, writable=writable)
                self.opened()
        except LesionLensError as error:
            self.show()
            self._onError(str(error))
            return False
        return True

    def opened(self) -> None:
        """Another library is open."""
        self._remember(self.path)
        self.show()
        self._onOpened()

    def close(self) -> None:
        """No library any more."""
        self._logic.closeLibrary()
        self.show()
        self._onOpened()

    def show(self) -> None:
        """Say what the open library holds."""
        library: CaseLibrary | None = self._logic.library
        self._filling = True
        try:
            self._fillRecent()
            self._ui.writableCheckBox.enabled = library is not None
            self._ui.writableCheckBox.checked = library is not None and not library.read_only
            self._ui.libraryLabel.text = _("No library is open.") if library is None else describedLibrary(library)
            self._ui.libraryLabel.toolTip = self.path
        except LesionLensError as error:
            self._ui.libraryLabel.text = html.escape(str(error))
        finally:
            self._filling = False

    def _askToOpen(self) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Open a case library"), "", _filter())
        if path:
            self.open(path)

    def _askForNew(self) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Make a case library"), f"cases{SUFFIX}", _filter()
        )
        if path:
            self._onNew(Path(path) if Path(path).suffix else Path(path + SUFFIX))

    def _chosen(self, index: int) -> None:
        path = self._ui.librarySelector.itemData(index) if index >= 0 else None
        if not self._filling and path and path != self.path:
            self.open(path)

    def _writableChanged(self, isWritable: bool) -> None:
        if not self._filling and self.path and isWritable == self._logic.library.read_only:
            self.open(self.path, writable=isWritable)

    def _remember(self, path: str) -> None:
        settings = qt.QSettings()
        settings.setValue(_RECENT_KEY, [path, *(p for p in self._recent() if p != path)][:_MAX_RECENT])

    def _recent(self) -> list[str]:
        known = qt.QSettings().value(_RECENT_KEY)
        return [known] if isinstance(known, str) else list(known or ())

    def _fillRecent(self) -> None:
        selector = self._ui.librarySelector
        was, self._filling = self._filling, True
        selector.clear()
        for path in [p for p in self._recent() if p != self.path and os.path.isfile(p)]:
            _addPath(selector, path)
        if self.path:
            selector.insertItem(0, Path(self.path).name)
            selector.setItemData(0, self.path)
        selector.setCurrentIndex(0 if self.path else -1)
        selector.enabled = selector.count > 0
        self._filling = was


def describedLibrary(library: CaseLibrary) -> str:
    """How many cases, which answers, which model, and whether it can be changed."""
    counts = sorted(library.labels().items(), key=lambda item: -item[1])
    labels = ", ".join(f"{html.escape(label)} {count}" for label, count in counts[:_MAX_LABELS])
    if len(counts) > _MAX_LABELS:
        labels += _(" and {0} more").format(len(counts) - _MAX_LABELS)
    state = _("opened <b>to read only</b>") if library.read_only else _("opened <b>to be changed</b>")
    head = _("{count} cases{labels}").format(count=len(library), labels=f": {labels}" if labels else "")
    return f"{head}<br>" + _("made with {model}; {state}").format(model=html.escape(str(library.model)), state=state)


def _filter() -> str:
    return _("Case libraries (*.lesionlib *.sqlite);;All files (*)")


def _addPath(selector, path: str) -> None:
    selector.addItem(Path(path).name)
    selector.setItemData(selector.count - 1, path)
    selector.setItemData(selector.count - 1, path, qt.Qt.ToolTipRole)
