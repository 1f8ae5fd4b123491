"""A module's file is loaded, shown, left and closed as Slicer does it."""

from __future__ import annotations

import struct
import sys

import pytest
import slicer

_MODULE = """
import slicer, vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin

class {name}(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("A module")
        slicer.app.connect("startupCompleted()", lambda: calls.append("started"))

calls = []

@parameterNodeWrapper
class Parameters:
    model: slicer.vtkMRMLModelNode
    count: int = 3

class {name}Widget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/{name}.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, lambda *_: calls.append("closed"))
        self.parameters = Parameters({name}Logic().getParameterNode())
        self.guiTag = self.parameters.connectGui(self.ui)
        calls.append("setup")

    def enter(self): calls.append("enter")
    def exit(self): calls.append("exit")

    def cleanup(self):
        self.parameters.disconnectGui(self.guiTag)
        self.removeObservers()
        calls.append("cleanup")

class {name}Logic(ScriptedLoadableModuleLogic):
    pass
"""
_UI = """<ui version="4.0"><class>P</class><widget class="qMRMLWidget" name="P"><layout class="QVBoxLayout" name="l">
<item><widget class="QSpinBox" name="countSpinBox">
<property name="SlicerParameterName" stdset="0"><string>count</string></property></widget></item>
<item><widget class="QLabel" name="wideLabel"><property name="text"><string>Research use only</string></property>
</widget></item></layout></widget></ui>"""


@pytest.fixture
def a_module(tmp_path):
    """The path of a small module's file; each name is for one test, since Python loads a module once."""

    def make(name):
        folder = tmp_path / name
        (folder / "Resources" / "UI").mkdir(parents=True)
        (folder / "Resources" / "UI" / f"{name}.ui").write_text(_UI)
        (folder / f"{name}.py").write_text(_MODULE.format(name=name))
        made.append(name)
        return folder / f"{name}.py"

    made = []
    make.names = made
    return make


@pytest.fixture
def calls():
    return lambda name: sys.modules[name].calls


@pytest.fixture(autouse=True)
def every_panel_is_left_and_cleaned_up_in_the_end(a_module, calls):
    yield
    for name in a_module.names:
        assert calls(name)[-1] == "cleanup"
        assert calls(name).count("enter") == calls(name).count("exit")


@pytest.mark.parametrize("name", ["ShownModule"])
def test_a_module_is_set_up_entered_left_and_entered_again(name, a_module, module_widget, calls, leave, return_to):
    panel = module_widget(a_module(name), size=(300, 200))
    assert calls(name) == ["setup", "enter"]
    assert panel.parent.isEntered
    assert panel.parent.window().width == 300
    leave(panel)
    assert not panel.parent.isEntered
    return_to(panel)
    assert calls(name) == ["setup", "enter", "exit", "enter"]


def test_of_two_panels_one_is_entered_and_the_other_is_left_first(a_module, module_widget, calls, leave, return_to):
    one = module_widget(a_module("FirstOfTwo"))
    other = module_widget(a_module("SecondOfTwo"))
    assert (one.parent.isEntered, other.parent.isEntered) == (False, True)
    assert (one.parent.visible, other.parent.visible) == (False, True)
    assert (calls("FirstOfTwo"), calls("SecondOfTwo")) == (["setup", "enter", "exit"], ["setup", "enter"])
    return_to(one)
    return_to(one)
    assert (one.parent.isEntered, other.parent.isEntered) == (True, False)
    leave(other)
    assert one.parent.isEntered
    leave(one)
    assert calls("FirstOfTwo") == ["setup", "enter", "exit", "enter", "exit"]
    assert calls("SecondOfTwo") == ["setup", "enter", "exit"]


def test_the_panel_that_is_left_hears_of_it_before_the_next_is_entered(a_module, module_widget, return_to):
    one, other = module_widget(a_module("LeftFirst")), module_widget(a_module("EnteredThen"), enter=False)
    order = []
    one.exit = lambda: order.append("exit")
    enterOther = other.enter
    other.enter = lambda: (order.append("enter"), enterOther())
    return_to(other)
    assert order == ["exit", "enter"]
    sys.modules["LeftFirst"].calls.append("exit")


def test_a_panel_that_nobody_opened_is_set_up_and_not_entered(a_module, module_widget, calls):
    panel = module_widget(a_module("NeverOpened"), enter=False)
    assert not panel.parent.isEntered
    assert calls("NeverOpened") == ["setup"]


@pytest.mark.parametrize("name", ["ParameterModule"])
def test_its_parameter_node_is_the_scenes_and_a_closed_scene_is_told(name, a_module, module_widget, calls, scene):
    panel = module_widget(a_module(name))
    panel.ui.countSpinBox.value = 8
    node = scene.GetSingletonNode(name, "vtkMRMLScriptedModuleNode")
    assert node.GetParameter("count") == "8"
    assert node.GetAttribute("ModuleName") == name
    scene.Clear(0)
    assert calls(name)[-1] == "closed"


@pytest.mark.parametrize("name", ["PictureModule"])
def test_a_picture_of_the_panel_goes_to_the_folder_of_the_environment(name, a_module, module_widget, screenshot):
    panel = module_widget(a_module(name), size=(310, 150))
    picture = screenshot(panel, "the panel")
    assert picture.name == "the_panel.png"
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert width == panel.parent.width <= 310
    assert height == panel.parent.height


@pytest.mark.parametrize("name", ["StartedModule"])
def test_the_applications_start_is_told_once(name, a_module, module_widget, calls):
    module_widget(a_module(name))
    slicer.app.completeStartup()
    slicer.app.completeStartup()
    assert calls(name).count("started") == 1


def test_a_module_that_is_not_there_is_an_error(module_widget):
    with pytest.raises(FileNotFoundError, match="NoSuchModule"):
        module_widget("NoSuchModule")
