"""The stand-in for the parameter node wrapper: what it writes into the scene, and how it is tied to widgets."""

from __future__ import annotations

import enum
import pathlib
import sys
from typing import Annotated

import pytest
import slicer
import vtk
from repository import SLICER_STANDINS, WIDGET_STANDINS


class Target(enum.Enum):
    Answer = "answer"
    Malignant = "malignant"


@pytest.fixture
def a_wrapper(scene):
    """A parameter node of a class of annotated names."""

    def make(annotations, **values):
        from slicer.parameterNodeWrapper import parameterNodeWrapper

        wrapped = parameterNodeWrapper(type("Parameters", (), {"__annotations__": annotations, **values}))
        return wrapped(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))

    return make


def written(wrapper):
    names = wrapper.parameterNode.GetParameterNamesAsCommaSeparatedList()
    return {name: wrapper.parameterNode.GetParameter(name) for name in names.split(",") if name}


def test_what_is_written_is_slicers_own_format(a_wrapper, scene):
    kinds = {
        "text": str,
        "count": int,
        "share": float,
        "isOn": bool,
        "target": Target,
        "path": pathlib.Path,
        "names": list[str],
        "pair": tuple[int, str],
        "sizes": dict[str, float],
        "maybe": int | None,
        "node": slicer.vtkMRMLModelNode,
    }
    wrapper = a_wrapper(kinds, names=["a", "b"], pair=(4, "x"), sizes={"L1": 2.5}, share=0.5)
    model = scene.AddNewNodeByClass("vtkMRMLModelNode")
    wrapper.node, wrapper.isOn, wrapper.target, wrapper.maybe = model, True, Target.Malignant, 3
    assert written(wrapper) == {
        "text": "",
        "count": "0",
        "share": "0.5",
        "isOn": "True",
        "target": "Malignant",
        "path": ".",
        "names.len": "2",
        "names.0": "a",
        "names.1": "b",
        "pair.0": "4",
        "pair.1": "x",
        "sizes.len": "1",
        "sizes.0.0": "L1",
        "sizes.0.1": "2.5",
        "maybe.0": "3",
        "node": "",
    }
    assert wrapper.parameterNode.GetNodeReferenceID("node") == model.GetID()


def test_what_was_written_is_read_by_another_wrapper_of_the_same_node(a_wrapper):
    kinds = {"target": Target, "names": list[str], "maybe": int | None, "path": pathlib.Path}
    wrapper = a_wrapper(kinds)
    wrapper.names = ["x", "y"]
    wrapper.target, wrapper.maybe, wrapper.path = Target.Malignant, 5, pathlib.Path("/a/b")
    again = type(wrapper)(wrapper.parameterNode)
    assert (again.target, again.names, again.maybe, again.path) == (
        Target.Malignant,
        ["x", "y"],
        5,
        pathlib.Path("/a/b"),
    )


def test_a_list_is_watched_and_what_it_loses_leaves_the_node(a_wrapper):
    wrapper = a_wrapper({"rows": list[list[int]]})
    wrapper.rows = [[1], [2, 3]]
    wrapper.rows[0].append(9)
    assert wrapper.parameterNode.GetParameter("rows.0.1") == "9"
    del wrapper.rows[1]
    assert written(wrapper) == {"rows.len": "1", "rows.0.len": "2", "rows.0.0": "1", "rows.0.1": "9"}
    with pytest.raises(NotImplementedError):
        wrapper.rows + [[1]]


def test_a_value_of_another_type_or_out_of_its_range_is_refused_and_nothing_is_written(a_wrapper):
    from slicer.parameterNodeWrapper import Choice, Default, WithinRange

    wrapper = a_wrapper(
        {
            "share": Annotated[float, WithinRange(0, 1), Default(0.5)],
            "device": Annotated[str, Choice(["cpu", "cuda"]), Default("cpu")],
            "node": slicer.vtkMRMLModelNode,
            "maybe": int | None,
        }
    )
    with pytest.raises(TypeError, match="True"):
        wrapper.maybe = True
    with pytest.raises(ValueError, match=r"\[0, 1\], is 2"):
        wrapper.share = 2.0
    with pytest.raises(ValueError, match="cuda"):
        wrapper.device = "gpu"
    with pytest.raises(TypeError):
        wrapper.share = "much"
    with pytest.raises(TypeError):
        wrapper.node = slicer.vtkMRMLTextNode()
    assert (wrapper.share, wrapper.device, wrapper.node) == (0.5, "cpu", None)


def test_a_node_that_leaves_the_scene_leaves_the_parameter(a_wrapper, scene):
    wrapper = a_wrapper({"node": slicer.vtkMRMLModelNode})
    wrapper.node = scene.AddNewNodeByClass("vtkMRMLModelNode")
    scene.RemoveNode(wrapper.node)
    assert wrapper.node is None


def test_changes_between_start_and_end_are_told_once(a_wrapper):
    wrapper, told = a_wrapper({"a": int, "b": int}), []
    wrapper.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: told.append((wrapper.a, wrapper.b)))
    wasModifying = wrapper.StartModify()
    wrapper.a, wrapper.b = 1, 2
    assert told == []
    wrapper.EndModify(wasModifying)
    assert told == [(1, 2)]


def test_a_parameter_that_somebody_else_writes_is_read_anew(a_wrapper):
    wrapper = a_wrapper({"a": int})
    assert wrapper.isCached("a")
    wrapper.parameterNode.SetParameter("a", "41")
    assert wrapper.a == 41


def test_a_reserved_name_and_an_unknown_type_are_refused(a_wrapper):
    with pytest.raises(ValueError, match="connectGui"):
        a_wrapper({"connectGui": int})
    with pytest.raises(Exception, match="Unable to create serializer for .* member number") as caught:
        a_wrapper({"number": complex})
    assert type(caught.value) is Exception
    assert "Unable to create serializer for type: <class 'complex'>" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("kind", "className", "attribute", "before", "byUser", "byCode"),
    [
        (bool, "QCheckBox", "checked", False, True, False),
        (int, "QSpinBox", "value", 0, 7, 3),
        (float, "QDoubleSpinBox", "value", 0.0, 7.5, 0.25),
        (str, "QLineEdit", "text", "", "typed", "set"),
        (Target, "QComboBox", "currentIndex", Target.Answer, Target.Malignant, Target.Answer),
    ],
)
def test_a_widget_and_its_parameter_follow_each_other(a_wrapper, kind, className, attribute, before, byUser, byCode):
    import qt

    wrapper, widget = a_wrapper({"x": kind}), getattr(qt, className)()

    def shown(value):
        return list(Target).index(value) if kind is Target else value

    tag = wrapper.connectParametersToGui({"x": widget})
    assert getattr(widget, attribute) == shown(before)
    setattr(widget, attribute, shown(byUser))
    assert wrapper.x == byUser
    wrapper.x = byCode
    assert getattr(widget, attribute) == shown(byCode)
    wrapper.disconnectGui(tag)
    setattr(widget, attribute, shown(byUser))
    assert wrapper.x == byCode


def test_a_slider_takes_its_limits_from_the_annotation_and_needs_some(a_wrapper):
    import ctk
    from slicer.parameterNodeWrapper import Default, WithinRange

    slider = ctk.ctkSliderWidget()
    wrapper = a_wrapper({"share": Annotated[float, WithinRange(0, 1), Default(0.25)], "free": float})
    wrapper.connectParametersToGui({"share": slider})
    assert (slider.minimum, slider.maximum, slider.value) == (0, 1, 0.25)
    slider.value = 0.75
    assert wrapper.share == 0.75
    with pytest.raises(RuntimeError, match="Cannot have a connection to ctkSliderWidget .* unbounded"):
        wrapper.connectParametersToGui({"free": slider})


def test_a_disconnected_widget_leaves_no_observer_behind(a_wrapper):
    import qt

    wrapper, tags = a_wrapper({"count": int}), []
    wrapper.AddObserver = lambda *given: tags.append(wrapper.parameterNode.AddObserver(*given)) or tags[-1]
    tag = wrapper.connectParametersToGui({"count": qt.QSpinBox()})
    assert wrapper.parameterNode.HasObserver(vtk.vtkCommand.ModifiedEvent)
    assert [wrapper.parameterNode.GetCommand(each) is not None for each in tags] == [True]
    wrapper.disconnectGui(tag)
    assert [wrapper.parameterNode.GetCommand(each) for each in tags] == [None]


def test_a_selector_and_a_node_parameter_follow_each_other(a_wrapper, scene):
    wrapper = a_wrapper({"node": slicer.vtkMRMLModelNode})
    selector = slicer.qMRMLNodeComboBox()
    selector.noneEnabled = True
    selector.setMRMLScene(scene)
    wrapper.connectParametersToGui({"node": selector})
    assert selector.nodeTypes == ("vtkMRMLModelNode",)
    node = selector.addNode()
    assert wrapper.node is node
    wrapper.node = None
    assert selector.currentNode() is None


def test_a_text_box_and_a_derived_class_cannot_show_every_type(a_wrapper):
    import qt

    class MyComboBox(qt.QComboBox):
        pass

    wrapper = a_wrapper({"count": int, "target": Target})
    for name, widget in (("count", qt.QLineEdit()), ("target", MyComboBox())):
        with pytest.raises(RuntimeError, match="GUI connector"):
            wrapper.connectParametersToGui({name: widget})


def test_widgets_are_found_by_the_name_of_their_parameter(a_wrapper):
    import qt
    from slicer.parameterNodeWrapper import findChildWidgetForParameter

    wrapper, panel = a_wrapper({"count": int}), qt.QWidget()
    box = qt.QSpinBox(panel)
    box.setProperty("SlicerParameterName", "count")
    wrapper.connectGui(panel)
    box.value = 5
    assert wrapper.count == 5
    assert findChildWidgetForParameter(panel, "count") is box
    box.setProperty("SlicerParameterName", "number")
    with pytest.raises(ValueError, match="count"):
        wrapper.connectGui(panel)


@pytest.mark.parametrize("missing", ["qt", "ctk"])
@pytest.mark.parametrize("module", ["parameterNodeWrapper", "ScriptedLoadableModule"])
def test_a_module_s_base_classes_and_parameters_need_qt_and_ctk_as_in_slicer(module, missing):
    import subprocess

    code = (
        f"import sys, slicer; sys.path.append({str(WIDGET_STANDINS)!r}); sys.modules[{missing!r}] = None; "
        f"slicer.__path__.append({str(SLICER_STANDINS)!r}); import slicer.i18n\n"
        f"try:\n    import slicer.{module}\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.strip() == missing, ran.stderr
