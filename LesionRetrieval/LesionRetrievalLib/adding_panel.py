"""Adding the lesion to the library, and removing a case; neither in a library that was opened to read only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slicer.i18n import tr as _

from .attribute_lines import attributes_from_text
from .case_adding import NewCase
from .library import CaseLibrary


class AddingPanel:
    """The form is not kept in the scene. ``onAdd(case)`` and ``onRemove()`` are called when the user asks for it."""

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
        self._whyNotAdd = self._whyNotRemove = ""

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
            with_pictures=ui.picturesCheckBox.checked,
            with_patch=ui.patchCheckBox.checked,
        )

    def added(self) -> None:
        """Clear what belongs to one lesion only, so that it is not stored with the next one."""
        self._ui.newAttributesEdit.plainText = self._ui.newNoteEdit.plainText = ""
        self._ui.newLabelEdit.setCurrentText("")

    def update(self, library: CaseLibrary | None, *, whyNotSearch: str, hasChosen: bool) -> None:
        """Enable the buttons, or say why not. ``whyNotSearch``: why no lesion can be looked at now."""
        closed = _("Open a case library, or make a new one.") if library is None else ""
        closed = closed or (readOnly() if library.read_only else "")
        self._whyNotAdd = closed or whyNotSearch
        self._whyNotRemove = closed or ("" if hasChosen else _("Choose a case among those found."))
        self.show()

    def show(self) -> None:
        """Bring the buttons in line with the form."""
        ui = self._ui
        why = self._whyNotAdd
        if not why and not ui.newLabelEdit.currentText.strip():
            why = _("Say what the lesion is.")
        if not why and not ui.newSourceEdit.currentText.strip():
            why = _("Say how that was established.")
        ui.addCaseButton.enabled, ui.addCaseButton.toolTip = not why, why or _("Store the lesion with its answer.")
        why = self._whyNotRemove
        ui.removeCaseButton.enabled = not why
        ui.removeCaseButton.toolTip = why or _("Take the selected case out of the library, after a question.")


def readOnly() -> str:
    """Why nothing can be changed."""
    return _("The library was opened to read only: tick Allow changes above.")
