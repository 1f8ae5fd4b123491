"""The stand-ins for ``qt`` and ``ctk`` behave as PythonQt and CTK do."""

from __future__ import annotations

import pytest


def test_a_property_is_an_attribute_and_no_method():
    import qt

    button = qt.QPushButton("Go")
    button.text = "Stop"
    button.enabled = False
    assert (button.text, button.enabled, button.toolTip) == ("Stop", False, "")
    with pytest.raises(TypeError, match="not callable"):
        button.text()


@pytest.mark.parametrize("name", ["tooltip", "click", "width"])
def test_a_mistyped_property_a_method_and_a_read_only_property_cannot_be_set(name):
    import ctk
    import qt

    for widget in (qt.QPushButton(), ctk.ctkCollapsibleButton()):
        with pytest.raises(AttributeError, match=name):
            setattr(widget, name, 3)


def test_a_class_written_in_python_may_have_attributes_of_its_own():
    import qt

    class Panel(qt.QWidget):
        def __init__(self):
            super().__init__()
            self.lesions = []

    panel = Panel()
    panel.visible = False
    assert panel.lesions == []
    assert not panel.visible


def test_a_slot_gets_what_the_signature_names_and_no_more_than_it_takes():
    import qt

    got = []
    box = qt.QCheckBox()
    assert box.connect("clicked(bool)", lambda checked: got.append(("one", checked)))
    assert box.connect("clicked(bool)", lambda: got.append(("none",)))
    assert box.connect("clicked()", lambda *values: got.append(("empty", values)))
    # PythonQt counts defaults too: the well-known trap of `lambda row=row:`.
    assert box.connect("clicked(bool)", lambda row=7: got.append(("default", row)))
    box.clicked.connect(lambda checked: got.append(("attribute", checked)))
    box.click()
    assert got == [("one", True), ("none",), ("empty", ()), ("default", True), ("attribute", True)]


def test_a_disconnected_slot_is_not_called_and_equal_methods_are_the_same_slot():
    import qt

    class Counter:
        count = 0

        def up(self):
            self.count += 1

    counter, button = Counter(), qt.QPushButton()
    button.connect("clicked()", counter.up)
    button.clicked.connect(counter.up)
    button.click()
    assert counter.count == 2
    assert button.disconnect("clicked()", counter.up)
    button.click()
    assert counter.count == 3
    assert button.clicked.disconnect(counter.up)
    assert not button.disconnect("clicked()", counter.up)
    button.click()
    assert counter.count == 3


@pytest.mark.parametrize("signature", ["cliked()", "clicked(QString)", "clicked"])
def test_a_signal_that_does_not_exist_is_not_connected_and_warned_of(signature, qt_warnings):
    import qt

    assert not qt.QPushButton().connect(signature, lambda: None)
    assert any(signature in text for text in qt_warnings)
    qt_warnings.clear()


def test_an_error_in_a_slot_is_seen(slot_errors):
    import qt

    def fail():
        raise ZeroDivisionError("in a slot")

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    button.click()
    assert [str(error) for error in slot_errors] == ["in a slot"]
    slot_errors.clear()


def test_enums_are_integers_and_found_where_pythonqt_has_them():
    import qt

    assert qt.Qt.Checked == 2
    assert int(qt.QMessageBox.Yes | qt.QMessageBox.No) == 0x4000 | 0x10000
    label = qt.QLabel("x")
    label.alignment = qt.Qt.AlignRight
    assert label.alignment & qt.Qt.AlignRight


def test_a_timer_is_a_function_on_the_class_and_a_property_on_the_object(spin):
    import qt

    said = []
    qt.QTimer.singleShot(10, lambda: said.append("late"))
    timer = qt.QTimer()
    timer.singleShot, timer.interval = True, 0
    timer.connect("timeout()", lambda: said.append("soon"))
    timer.start()
    assert spin(until=lambda: len(said) == 2, seconds=5)
    assert said == ["soon", "late"]


def test_settings_are_kept_through_one_test():
    import qt

    assert qt.QSettings().value("LesionLens/Model", "none") == "none"
    qt.QSettings().setValue("LesionLens/Model", "a")
    assert qt.QSettings().value("LesionLens/Model") == "a"


def test_settings_are_empty_for_the_next_test():
    import qt

    assert not qt.QSettings().contains("LesionLens/Model")


def test_a_dialog_that_nobody_answers_is_an_error_and_not_a_standstill():
    import qt

    with pytest.raises(RuntimeError, match=r"QFileDialog\.getOpenFileName"):
        qt.QFileDialog.getOpenFileName(None, "Open")


def test_a_dialog_is_answered_by_the_test():
    import qt

    box = qt.QMessageBox()
    box.setStandardButtons(qt.QMessageBox.Yes | qt.QMessageBox.No)
    qt.QTimer.singleShot(0, lambda: box.button(qt.QMessageBox.No).click())
    assert box.exec_() == qt.QMessageBox.No


def test_a_collapsible_button_hides_its_contents_and_nothing_that_was_hidden_comes_back(spin):
    import ctk
    import qt

    section = ctk.ctkCollapsibleButton("Inputs")
    layout = qt.QVBoxLayout(section)
    shown, hidden, late = qt.QLabel("shown"), qt.QLabel("hidden"), qt.QLabel("late")
    layout.addWidget(shown)
    layout.addWidget(hidden)
    hidden.visible = False
    said = []
    section.connect("contentsCollapsed(bool)", said.append)
    section.show()
    spin(0)
    high = section.sizeHint().height()
    section.collapsed = True
    layout.addWidget(late)
    late.visible = True
    spin(0)
    assert (section.checked, shown.visible, late.visible) == (False, False, False)
    assert section.sizeHint().height() < high
    section.click()
    spin(0)
    assert (section.collapsed, shown.visible, hidden.visible, late.visible) == (False, True, False, True)
    assert said == [True, False]


def test_a_slider_and_its_box_show_the_same_number_within_the_limits():
    import ctk
    import qt

    said = []
    slider = ctk.ctkSliderWidget()
    slider.minimum, slider.maximum, slider.singleStep = 0, 1, 0.05
    slider.connect("valueChanged(double)", said.append)
    slider.value = 0.3
    (box,) = slider.findChildren(qt.QDoubleSpinBox)
    assert box.value == 0.3
    box.value = 0.75
    slider.value = 7
    assert said == [0.3, 0.75, 1.0]


def test_a_range_keeps_its_ends_in_order_and_within_the_limits():
    import ctk

    said = []
    widget = ctk.ctkRangeWidget()
    widget.setRange(-10, 10)
    widget.connect("valuesChanged(double,double)", lambda *values: said.append(values))
    widget.setValues(4, -20)
    assert (widget.minimumValue, widget.maximumValue) == (-10, 4)
    widget.minimumValue = 6
    assert said == [(-10, 4), (6, 6)]


def test_a_path_is_typed_or_browsed_for(monkeypatch):
    import ctk
    import qt

    said = []
    edit = ctk.ctkPathLineEdit()
    edit.filters = ctk.ctkPathLineEdit.Dirs
    edit.connect("currentPathChanged(QString)", said.append)
    edit.currentPath = "/a"
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: "/b")
    edit.browse()
    assert said == ["/a", "/b"]


def test_several_items_of_a_checkable_combo_box_are_ticked():
    import ctk
    import qt

    said = []
    box = ctk.ctkCheckableComboBox()
    box.addItems(["a", "b", "c"])
    box.connect("checkedIndexesChanged()", lambda: said.append(len(box.checkedIndexes())))
    for row in (2, 0):
        box.setCheckState(box.model().index(row, 0), qt.Qt.Checked)
    assert [index.data() for index in box.checkedIndexes()] == ["a", "c"]
    assert said == [1, 2]


def test_a_message_that_is_not_to_be_shown_again_answers_as_it_did():
    import ctk
    import qt

    box = ctk.ctkMessageBox()
    box.dontShowAgainSettingsKey = "LesionLens/Notice"
    box.dontShowAgain = True
    again = ctk.ctkMessageBox()
    again.dontShowAgainSettingsKey = "LesionLens/Notice"
    assert again.exec_() == qt.QMessageBox.Ok
