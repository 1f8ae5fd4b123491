"""The stand-ins for Slicer's own widgets, on a real scene."""

from __future__ import annotations

import pytest
import slicer
import slicer.util

_UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Panel</class><widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="l">
<item><widget class="qMRMLNodeComboBox" name="volumeSelector">
<property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
<property name="addEnabled"><bool>false</bool></property><property name="removeEnabled"><bool>false</bool></property>
<property name="SlicerParameterName" stdset="0"><string>volume</string></property></widget></item>
<item><widget class="{extra}" name="extra"/></item>
<item><widget class="QCheckBox" name="moreCheckBox"/></item><item><widget class="QLabel" name="moreLabel"/></item>
</layout></widget>
<customwidgets><customwidget><class>qMRMLWidget</class><extends>QWidget</extends><header>q.h</header></customwidget>
<customwidget><class>qMRMLNodeComboBox</class><extends>QWidget</extends><header>q.h</header></customwidget>
<customwidget><class>qSlicerNoSuchWidget</class><extends>QWidget</extends><header>q.h</header></customwidget>
<customwidget><class>qMRMLSegmentEditorWidget</class><extends>QWidget</extends><header>q.h</header></customwidget>
<customwidget><class>ctkMessageBox</class><extends>QFrame</extends><header>q.h</header></customwidget>
<customwidget><class>qMRMLPlotView</class><extends>QWidget</extends><header>q.h</header></customwidget></customwidgets>
<connections><connection><sender>moreCheckBox</sender><signal>toggled(bool)</signal><receiver>moreLabel</receiver>
<slot>setVisible(bool)</slot></connection>{connection}</connections></ui>"""
_SCENE_CONNECTION = """<connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>volumeSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>"""


@pytest.fixture
def a_panel(scene, tmp_path):
    """The widgets of a small .ui file, with its scene set."""

    def make(*, connection=_SCENE_CONNECTION, extra="QLabel"):
        path = tmp_path / "Panel.ui"
        path.write_text(_UI.format(connection=connection, extra=extra))
        widget = slicer.util.loadUI(str(path))
        made.append(widget)
        widget.setMRMLScene(scene)
        return slicer.util.childWidgetVariables(widget)

    made = []
    yield make
    for widget in made:
        widget.deleteLater()


@pytest.fixture
def a_selector(scene):
    """A node selector of models, with properties as wanted."""

    def make(**properties):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLModelNode"]
        for name, value in properties.items():
            setattr(selector, name, value)
        selector.setMRMLScene(scene)
        said = []
        selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: said.append(node and node.GetName()))
        return selector, said

    return make


def comboBoxIn(selector):
    import qt

    return selector.findChildren(qt.QComboBox)[0]


def listed(selector):
    return tuple(selector.nodeFromIndex(place) for place in range(selector.nodeCount()))


def add(scene, *names):
    nodes = [scene.AddNewNodeByClass("vtkMRMLModelNode", name) for name in names]
    return nodes[0] if len(nodes) == 1 else nodes


def test_the_scene_reaches_a_selector_through_the_connection_in_the_file(a_panel, scene):
    ui = a_panel()
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    assert ui.volumeSelector.enabled
    assert ui.volumeSelector.currentNode() is node


def test_without_the_connection_a_selector_stays_empty_and_disabled(a_panel, scene):
    ui = a_panel(connection="")
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    assert not ui.volumeSelector.enabled
    assert ui.volumeSelector.nodeCount() == 0


def test_connections_between_qts_own_widgets_are_made_once(a_panel):
    ui = a_panel()
    ui.moreCheckBox.checked = True
    assert not ui.moreLabel.isHidden()
    ui.moreCheckBox.checked = False
    assert ui.moreLabel.isHidden()


def test_a_connection_to_a_widget_that_is_not_there_is_warned_of(a_panel, qt_warnings):
    a_panel(connection=_SCENE_CONNECTION.replace("volumeSelector", "volumeSelektor"))
    assert any("volumeSelektor" in text for text in qt_warnings)
    qt_warnings.clear()


def test_a_widget_class_without_stand_in_is_named(a_panel):
    with pytest.raises(NotImplementedError, match="qMRMLSegmentEditorWidget"):
        a_panel(extra="qMRMLSegmentEditorWidget")


@pytest.mark.parametrize(
    ("named", "extends"),
    [("qMRMLPlotView", "QWidget"), ("ctkMessageBox", "QFrame"), ("qSlicerNoSuchWidget", "QWidget")],
)
def test_a_class_without_designer_plug_in_becomes_a_plain_object_of_the_class_it_extends(a_panel, named, extends):
    import qt

    extra = a_panel(extra=named).extra
    assert type(extra) is getattr(qt, extends)
    assert extra.className() == extends
    assert not hasattr(extra, "setMRMLPlotViewNode")


def test_a_connection_to_a_slot_that_a_plain_widget_lacks_is_warned_of(a_panel, qt_warnings):
    a_panel(connection=_SCENE_CONNECTION.replace("volumeSelector", "extra"), extra="qMRMLPlotView")
    assert any("No such slot QWidget::setMRMLScene" in text for text in qt_warnings)
    qt_warnings.clear()


def test_a_stand_in_of_a_class_without_designer_plug_in_cannot_be_offered_to_a_ui_file():
    import qt

    class qMRMLMarkupsPlaceWidget(qt.QWidget):
        pass

    with pytest.raises(ValueError, match="no Designer plug-in for qMRMLMarkupsPlaceWidget"):
        qt.customWidget(qMRMLMarkupsPlaceWidget)


def test_a_plot_view_made_in_code_shows_its_node_and_lets_go_of_one_of_another_scene(scene):
    import qt

    place = qt.QWidget()
    layout = qt.QVBoxLayout(place)
    view = slicer.qMRMLPlotView()
    layout.addWidget(view)
    view.minimumHeight = 140
    view.setMRMLScene(scene)
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    chart.SetTitle("Probabilities")
    node = scene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    node.SetPlotChartNodeID(chart.GetID())
    view.setMRMLPlotViewNode(node)
    place.resize(300, 200)
    place.show()
    withTitle = view.grab().toImage()
    said = []
    view.connect("mrmlSceneChanged(vtkMRMLScene*)", said.append)
    other = slicer.vtkMRMLScene()
    view.setMRMLScene(other)
    assert said == [other]
    withoutTitle = view.grab().toImage()
    assert withTitle.width() == withoutTitle.width() > 100
    assert withoutTitle != withTitle


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="file not found"):
        slicer.util.loadUI(str(tmp_path / "None.ui"))


def test_the_first_node_is_selected_unless_none_may_be(a_selector, scene):
    first = add(scene, "a")
    add(scene, "b")
    assert a_selector()[0].currentNode() is first
    assert a_selector(noneEnabled=True)[0].currentNode() is None


@pytest.mark.parametrize(("canAdd", "selected"), [(True, False), (False, True)])
def test_a_node_that_comes_to_an_empty_list_is_selected_only_where_there_is_no_item_to_make_one(
    a_selector, scene, canAdd, selected
):
    selector, _said = a_selector(addEnabled=canAdd, removeEnabled=False)
    add(scene, "a")
    assert (selector.currentNode() is not None) == selected


def test_the_selection_stays_when_nodes_come_and_goes_one_up_when_its_node_goes(a_selector, scene):
    selector, said = a_selector(noneEnabled=True)
    a, b, c = add(scene, "a", "b", "c")
    selector.setCurrentNode(c)
    scene.RemoveNode(a)
    assert selector.currentNodeID == c.GetID()
    scene.RemoveNode(c)
    assert selector.currentNode() is b
    scene.RemoveNode(b)
    assert selector.currentNode() is None
    assert said == ["c", "b", None]


def test_a_new_name_is_shown_and_said(a_selector, scene):
    node = add(scene, "a")
    selector, said = a_selector()
    node.SetName("renamed")
    assert comboBoxIn(selector).currentText == "renamed"
    assert said == ["renamed"]


def test_a_scene_that_is_closed_leaves_nothing_selected(a_selector, scene):
    add(scene, "a", "b")
    selector, said = a_selector()
    scene.Clear(0)
    assert selector.nodeCount() == 0
    assert selector.currentNodeID == ""
    assert said[-1] is None


def test_only_nodes_of_the_types_that_are_not_hidden_and_have_the_attribute_are_listed(a_selector, scene):
    selector, _said = a_selector()
    a, b = add(scene, "a", "b")
    scene.AddNewNodeByClass("vtkMRMLTextNode", "text")
    a.SetHideFromEditors(True)
    a.Modified()
    assert listed(selector) == (b,)
    selector.addAttribute("vtkMRMLModelNode", "Role", "lesion")
    assert listed(selector) == ()
    b.SetAttribute("Role", "lesion")
    assert listed(selector) == (b,)


def test_a_node_chosen_before_there_is_a_scene_is_selected_with_it(scene):
    add(scene, "a")
    node = add(scene, "b")
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLModelNode"]
    selector.setCurrentNodeID(node.GetID())
    assert selector.currentNode() is None
    selector.setMRMLScene(scene)
    assert selector.currentNode() is node


def test_the_user_makes_renames_and_deletes_nodes_in_the_list(a_selector, scene, monkeypatch):
    import qt

    selector, _said = a_selector(renameEnabled=True, baseName="Lesion")

    def press(start):
        box = comboBoxIn(selector)
        row = next(row for row in range(box.count) if box.itemText(row).startswith(start))
        box.activated.emit(row)

    press("Create new")
    assert selector.currentNode().GetName() == "Lesion"
    monkeypatch.setattr(qt.QInputDialog, "getText", lambda *_: "L7")
    press("Rename current")
    assert selector.currentNode().GetName() == "L7"
    press("Delete current")
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0


def test_a_selector_that_is_deleted_lets_go_of_the_scene(a_selector, scene, spin):
    import qt

    selector, said = a_selector(addEnabled=False, removeEnabled=False)
    selector.deleteLater()
    qt.QApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
    add(scene, "a")
    assert said == []


def test_placing_puts_the_scenes_interaction_node_into_place_mode(scene):
    said = []
    place = slicer.qSlicerMarkupsPlaceWidget()
    place.setMRMLScene(scene)
    place.connect("activeMarkupsPlaceModeChanged(bool)", said.append)
    assert not place.placeButton().enabled
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "L1")
    place.setCurrentNode(roi)
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    place.placeButton().click()
    assert place.placeModeEnabled
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID() == roi.GetID()
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert not place.placeButton().checked
    assert said == [True, False]


def test_the_boxes_of_a_roi_and_the_roi_follow_each_other(scene):
    import qt

    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "L1")
    roi.SetCenter(1, 2, 3)
    roi.SetSize(10, 20, 30)
    widget = slicer.qMRMLMarkupsROIWidget()
    widget.setMRMLMarkupsNode(roi)
    boxes = widget.findChildren(qt.QDoubleSpinBox)
    assert [box.value for box in boxes] == [1, 2, 3, 10, 20, 30]
    boxes[0].value = -5
    assert tuple(roi.GetCenter()) == (-5, 2, 3)
    roi.SetSize(11, 20, 30)
    assert boxes[3].value == 11


def test_a_table_view_shows_the_columns_names_and_cells(scene):
    import vtk

    table = scene.AddNewNodeByClass("vtkMRMLTableNode", "Answers")
    column = vtk.vtkStringArray()
    column.SetName("class")
    column.InsertNextValue("benign")
    table.AddColumn(column)
    view = slicer.qMRMLTableView()
    view.setMRMLTableNode(table)
    assert [view.model().index(row, 0).data() for row in range(2)] == ["class", "benign"]


def test_segments_are_listed_and_selected(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segments")
    view = slicer.qMRMLSegmentsTableView()
    view.setSegmentationNode(node)
    first, second = (node.GetSegmentation().AddEmptySegment("", name) for name in ("one", "two"))
    assert view.segmentCount() == 2
    view.setSelectedSegmentIDs([second])
    node.GetSegmentation().GetSegment(first).SetName("eins")
    assert view.tableWidget().item(0, 0).text() == "eins"
    assert view.selectedSegmentIDs() == (second,)


def test_what_the_user_is_told_is_recorded_and_questions_are_answered(told):
    told.answers = [False]
    assert not slicer.util.confirmOkCancelDisplay("Remove?")
    assert slicer.util.confirmYesNoDisplay("Sure?")
    slicer.util.warningDisplay("careful")
    slicer.util.showStatusMessage("done", 100)
    with pytest.raises(ValueError, match="no box"), slicer.util.tryWithErrorDisplay("Failed.", waitCursor=True):
        raise ValueError("no box")
    assert told.of("question") == ["Remove?", "Sure?"]
    assert told.of("warning") == ["careful"]
    assert told.of("error") == ["Failed.\n\nno box"]
    assert "done" in told


def test_there_is_no_main_window():
    assert slicer.util.mainWindow() is None
