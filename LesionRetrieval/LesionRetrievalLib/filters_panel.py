"""Which cases are searched: scope, answer, organ, attributes, and whose lesion it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import slicer
from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _

from .attribute_lines import conditions_from_text
from .owner_key import default_key_path
from .patient_identity import KnownIdentities, PatientIdentity
from .retrieval_actions import dicomDatabase, patientHash
from .search_plan import SearchPlan


class FiltersPanel:
    """``onChanged`` is called when the user has changed something. What is typed of a patient stays in this widget."""

    def __init__(self, ui, logic, *, onChanged: Callable[[], None]) -> None:
        self._ui, self._logic, self._onChanged = ui, logic, onChanged
        self._parameters = None
        self._filling = False
        self._identities = KnownIdentities()
        for scope, words in (
            ("all", _("all cases")), ("same-patient", _("the same patient")), ("cross-patient", _("other patients")),
        ):  # fmt: skip
            ui.scopeSelector.addItem(words)
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
        return patientHash(self.identity(), self._logic.keyPath)

    def whyNot(self) -> str:
        """Why this search cannot be made, in plain words; empty where it can."""
        try:
            self.plan().filters(self.patient())
        except LesionLensError as error:
            return str(error)
        return ""

    def words(self) -> str:
        """Whether cases of the same patient are left out."""
        try:
            has_key = (self._logic.keyPath or default_key_path()).exists()
            return self.plan().words(self.patient(), has_key=has_key)
        except LesionLensError as error:
            return str(error)

    def _showPatient(self) -> None:
        scope = self._ui.scopeSelector.itemData(self._ui.scopeSelector.currentIndex)
        self._ui.leaveOutCheckBox.enabled = scope == "all"
        hasVolume = self._parameters is not None and self._parameters.volume is not None
        self._ui.patientLabel.text = self.words() if hasVolume else ""

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
