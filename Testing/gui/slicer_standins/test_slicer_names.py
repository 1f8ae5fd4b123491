"""Every name of Slicer, CTK and Qt that the modules use or the stand-ins offer exists in Slicer."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from repository import ROOT, SLICER_STANDINS, WIDGET_STANDINS
from slicer_names.check import Checker
from slicer_names.index import Names
from slicer_names.trim_index import trimmed

MODULES = ("LesionClassifier", "LesionRetrieval")
# What the harness has beside what Slicer's application has.
_FOR_TESTS = {"completeStartup", "restarts", "customWidget"}
_STAND_FOR = {
    "GuiApplication": "qSlicerApplication",
    "HeadlessApplication": "qSlicerApplication",
    "LayoutManager": "qSlicerLayoutManager",
    "ModuleFactoryManager": "qSlicerModuleFactoryManager",
    "ModuleManager": "qSlicerModuleManager",
}
_PYTHON = {
    "ScriptedLoadableModule.py": "slicer.ScriptedLoadableModule",
    "SampleData.py": "SampleData",
    "i18n.py": "slicer.i18n",
    "testing.py": "slicer.testing",
}
_UI = """<ui version="4.0"><widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="l">
<item><widget class="{kind}" name="extra"><property name="{prop}"><number>3</number></property></widget></item>
<item><widget class="qMRMLNodeComboBox" name="selector"/></item>
</layout></widget><connections><connection><sender>Panel</sender><signal>{signal}</signal><receiver>selector</receiver>
<slot>{slot}</slot></connection></connections></ui>"""


def sources(folder):
    return [folder / f"{folder.name}.py", *sorted((folder / f"{folder.name}Lib").rglob("*.py"))]


def uiFiles(folder):
    return sorted((folder / "Resources" / "UI").glob("*.ui"))


@pytest.fixture(scope="module")
def names():
    return Names()


@pytest.fixture(scope="module")
def a_checker(names):
    """A checker that has read these files; functions and fields of one file are known in the others."""

    def make(code=(), ui=()):
        checker = Checker(names)
        for path in ui:
            checker.readWidgets(path)
        for path in (*code, *code):
            checker.readCode(path)
        return checker

    return make


@pytest.fixture
def wrong_in(a_checker, tmp_path):
    """The names found wrong in a piece of code, with a .ui file of a slider, a selector and a button beside it."""

    def check(code):
        ui, path = tmp_path / "Panel.ui", tmp_path / "panel.py"
        ui.write_text(
            '<ui version="4.0"><widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="l">'
            '<item><widget class="ctkSliderWidget" name="opacitySlider"/></item>'
            '<item><widget class="qMRMLNodeComboBox" name="selector"/></item>'
            '<item><widget class="QComboBox" name="modelSelector"/></item>'
            '<item><widget class="QPushButton" name="applyButton"/></item></layout></widget></ui>'
        )
        path.write_text(f"import ctk, qt, slicer, vtk\n{code}\n")
        checker = a_checker([path], [ui])
        return [(wrong.line - 1, wrong.name) for wrong in checker.checkCode(path)]

    return check


@pytest.mark.parametrize("module", MODULES)
def test_every_name_that_a_module_uses_exists_in_slicer(module, a_checker):
    # The retrieval module stands on the classifier's library; the widgets are only its own.
    code = [path for each in MODULES for path in sources(ROOT / each)]
    checker = a_checker(code, uiFiles(ROOT / module))
    wrong = [each for path in uiFiles(ROOT / module) for each in checker.checkUi(path)]
    wrong += [each for path in sources(ROOT / module) for each in checker.checkCode(path)]
    assert not wrong, "\n".join(str(each) for each in wrong)


def test_every_name_of_slicer_that_the_stand_ins_use_exists_in_slicer(a_checker):
    code = [
        path
        for folder in (WIDGET_STANDINS, SLICER_STANDINS)
        for path in sorted(folder.rglob("*.py"))
        if path.parent.name != "qt"
    ]
    checker = a_checker(code)
    wrong = [each for path in code for each in checker.checkCode(path, isPythonQt=False)]
    wrong = [each for each in wrong if each.name.rpartition(".")[2] not in _FOR_TESTS]
    assert not wrong, "\n".join(str(each) for each in wrong)


def test_no_stand_in_of_a_class_offers_what_the_class_has_not(a_checker):
    checker = a_checker()
    files = [*WIDGET_STANDINS.glob("ctk/*.py"), *WIDGET_STANDINS.glob("slicer_gui/*.py")]
    files.append(ROOT / "LesionClassifier" / "LesionClassifierLib" / "headless.py")
    wrong = [each for path in files for each in checker.checkOffered(path, _STAND_FOR)]
    wrong = [each for each in wrong if each.name.rpartition(".")[2] not in _FOR_TESTS]
    assert not wrong, "\n".join(str(each) for each in wrong)


@pytest.mark.parametrize("file", sorted(_PYTHON))
def test_no_stand_in_of_a_python_module_offers_what_the_module_has_not(file, names):
    (path,) = SLICER_STANDINS.rglob(file)
    wrong = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        owner = f"{_PYTHON[file]}.{node.name}" if isinstance(node, ast.ClassDef) else _PYTHON[file]
        for each in inside:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                real = names.function(f"{owner}.{each.name}")
                given = [one.arg for one in (*each.args.posonlyargs, *each.args.args, *each.args.kwonlyargs)]
                if real is None or [one.lstrip("_") for one in given] != real[: len(given)]:
                    wrong.append(f"{path.name}:{each.lineno}: {owner}.{each.name}({', '.join(given)}), Slicer: {real}")
    assert not wrong, "\n".join(wrong)


# Each rule finds a wrong name, and lets a right one pass.


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, []),
        ({"kind": "qMRMLPlotView", "prop": "minimumHeight"}, ["qMRMLPlotView"]),
        ({"kind": "QSpinBocks", "prop": "objectName"}, ["QSpinBocks", "QSpinBocks.objectName"]),
        ({"prop": "values"}, ["QSpinBox.values"]),
        ({"kind": "ctkSliderWidget", "prop": "steps"}, ["ctkSliderWidget.steps"]),
        ({"signal": "sceneChanged(vtkMRMLScene*)"}, ["qMRMLWidget.sceneChanged(vtkMRMLScene*)"]),
        ({"slot": "setScene(vtkMRMLScene*)"}, ["qMRMLNodeComboBox.setScene(vtkMRMLScene*)"]),
    ],
)
def test_a_wrong_name_in_a_ui_file_is_found(a_checker, tmp_path, change, wrong):
    right = {"kind": "QSpinBox", "prop": "value"}
    right |= {"signal": "mrmlSceneChanged(vtkMRMLScene*)", "slot": "setMRMLScene(vtkMRMLScene*)"}
    path = tmp_path / "Panel.ui"
    path.write_text(_UI.format(**{**right, **change}))
    assert [each.name for each in a_checker(ui=[path]).checkUi(path)] == wrong


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        # names of modules
        ("slicer.vtkMRMLSliceNode()", ""),
        ("slicer.vtkMRMLSlizeNode()", "slicer.vtkMRMLSlizeNode"),
        ("from slicer import vtkMRMLSlizeNode", "slicer.vtkMRMLSlizeNode"),
        ("vtk.vtkPoints()", ""),
        ("vtk.vtkPointses()", "vtk.vtkPointses"),
        ("qt.QLabel()", ""),
        ("qt.QLable()", "qt.QLable"),
        ("ctk.ctkSliderWidget()", ""),
        ("ctk.ctkSlider()", "ctk.ctkSlider"),
        ("qt.Qt.AlignCentre", "Qt.AlignCentre"),
        ("slicer.vtkMRMLScene.EndClosedEvent", "vtkMRMLScene.EndClosedEvent"),
        ("getattr(slicer, 'dicomDatabases', None)", "slicer.dicomDatabases"),
        # methods
        ("slicer.vtkMRMLSliceNode().SetFieldOfView(1, 1, 1)", ""),
        ("slicer.vtkMRMLSliceNode().SetFieldOfVue(1, 1, 1)", "vtkMRMLSliceNode.SetFieldOfVue"),
        ("slicer.mrmlScene.Clear(0)", ""),
        ("slicer.mrmlScene.ClearAll()", "vtkMRMLScene.ClearAll"),
        ("def f(node: slicer.vtkMRMLSliceNode | None): node.SetCentre()", "vtkMRMLSliceNode.SetCentre"),
        ("for node in (slicer.vtkMRMLSliceNode(),): node.SetCentre()", "vtkMRMLSliceNode.SetCentre"),
        ("def f():\n for x in (qt.QLabel(),): x.text = 'a'\n for x in (qt.QSpinBox(),): x.value = 3", ""),
        ("slicer.mrmlScene.AddNewNodeByClass('vtkMRMLSliceNode').SetCentre()", "vtkMRMLSliceNode.SetCentre"),
        ("def f(node): node.GetScene().GetNodeByIDs('x')", "GetNodeByIDs"),
        (
            "slicer.app.applicationLogic().GetInteractionNode().SwitchToPlaceMode()",
            "vtkMRMLInteractionNode.SwitchToPlaceMode",
        ),
        ("slicer.app.layoutManager().layoutLogic().GetLayoutNode().SetViewArrangement(2)", ""),
        ("slicer.app.layoutManager().layouts", "qSlicerLayoutManager.layouts"),
        ("def f(node: slicer.vtkMRMLNode): node.SetAndObserveTransformNodeID('x')", ""),
        ("def f(node: slicer.vtkMRMLNode): node.SetTransformNode('x')", "vtkMRMLNode.SetTransformNode"),
        # functions
        ("slicer.util.loadVolume('a', properties={})", ""),
        ("slicer.util.loadVolumes('a')", "slicer.util.loadVolumes"),
        ("slicer.util.loadVolume('a', property={})", "slicer.util.loadVolume(property=)"),
        ("slicer.util.mainWindow(1, 2, 3)", "slicer.util.mainWindow"),
        ("slicer.util.errorDisplay('a', detailedText='b')", ""),
        ("from slicer.util import loadVolumes", "slicer.util.loadVolumes"),
        ("import slicer.packaging; slicer.packaging.pip_ensure([], asker='x')", "slicer.packaging.pip_ensure(asker=)"),
        ("import SampleData; SampleData.SampleDataLogic.registerCustomSampleDataSource(uris='')", ""),
        (
            "import SampleData; r = SampleData.SampleDataLogic.registerCustomSampleDataSource; r(uri='')",
            "SampleData.SampleDataLogic.registerCustomSampleDataSource(uri=)",
        ),
        # signals
        ("def f(ui): ui.applyButton.connect('clicked(bool)', f)", ""),
        ("def f(ui): ui.applyButton.connect('cliked()', f)", "QPushButton.cliked()"),
        ("def f(ui): ui.applyButton.connect('clicked(QString)', f)", "QPushButton.clicked(QString)"),
        ("def f(ui): ui.applyButton.connect('clicked', f)", "clicked"),
        ("def f(ui): ui.selector.connect('currentNodeChanged(vtkMRMLNode*)', f)", ""),
        (
            "def f(ui): ui.selector.connect('currentNodeChanged(vtkMRMLScene*)', f)",
            "qMRMLNodeComboBox.currentNodeChanged(vtkMRMLScene*)",
        ),
        (
            "def f(ui):\n for b, s in ((ui.applyButton, f), (ui.modelSelector, f)): b.connect('activated(int)', s)",
            "QPushButton.activated(int)",
        ),
        ("def f(ui): ui.selector.currentNodeChanged.connect(f)", "qMRMLNodeComboBox.currentNodeChanged"),
        ("def f(ui): ui.modelSelector.currentIndexChanged.connect(f)", ""),
        ("def f(x): x.connect('noSuchSignal()', f)", "noSuchSignal()"),
        ("slicer.app.connect('startupCompleted()', print)", ""),
        ("slicer.app.connect('startupDone()', print)", "qSlicerApplication.startupDone()"),
        ("qt.QTimer().connect('timedOut()', print)", "QTimer.timedOut()"),
        # widgets
        ("def f(ui): ui.opacitySlider.value = 0.5", ""),
        ("def f(ui): ui.opacitySlyder.value = 0.5", "ui.opacitySlyder"),
        ("def f(ui): ui.opacitySlider.values", "ctkSliderWidget.values"),
        ("def f(ui): ui.opacitySlider.setRange(0, 1)", "ctkSliderWidget.setRange"),
        ("def f(ui): ui.selector.comboBox()", "qMRMLNodeComboBox.comboBox"),
        ("class P:\n def f(self): self.ui.applyButton.txt = 'x'", "QPushButton.txt"),
        (
            "def f(ui): ui.plot = slicer.qMRMLPlotView(); ui.plot.setMRMLScene(slicer.mrmlScene); ui.plot.minimumHeight = 9",
            "",
        ),
        ("def f(ui): ui.plot = slicer.qMRMLPlotView(); ui.plot.mrmlPlotViewNode()", "qMRMLPlotView.mrmlPlotViewNode"),
        # PythonQt's manners
        ("def f(ui): print(ui.applyButton.text)", ""),
        ("def f(ui): print(ui.applyButton.text())", "QPushButton.text"),
        ("def f(ui): ui.applyButton.click = 3", "QPushButton.click"),
        ("qt.QDialog().exec_()", ""),
        ("qt.QDialog().execute_()", "QDialog.execute_"),
    ],
)
def test_a_wrong_name_in_code_is_found_with_its_line_and_a_right_one_is_not(wrong_in, code, wrong):
    found = wrong_in(code)
    assert [name for _line, name in found] == ([wrong] if wrong else [])
    assert all(line == len(code.split("\n")) for line, _name in found)


def test_a_return_type_and_a_field_are_known_in_another_file(a_checker, tmp_path):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("import slicer\ndef box() -> slicer.vtkMRMLMarkupsROINode: ...\n")
    other.write_text(
        "from one import box\nclass Panel:\n    def __init__(self):\n        self._roi = box()\n"
        "    def f(self):\n        self._roi.SetCenter(1, 2, 3)\n        self._roi.SetCentre(1, 2, 3)\n"
    )
    checker = a_checker([one, other])
    assert [str(each) for each in checker.checkCode(other)] == [
        f"{other}:7: vtkMRMLMarkupsROINode.SetCentre: no such property or method"
    ]


def test_what_a_stand_in_offers_beyond_its_class_is_found(a_checker, tmp_path):
    path = tmp_path / "views.py"
    path.write_text(
        "class qMRMLTableView:\n    mrmlTable = 3\n    def mrmlTableNode(self): ...\n    def _own(self): ...\n"
        "    def __init__(self): self.cells = 1\n"
    )
    wrong = [each.name for each in a_checker().checkOffered(path)]
    assert wrong == ["qMRMLTableView.mrmlTable", "qMRMLTableView.cells"]


def test_the_names_say_which_slicer_they_are_of_and_where_each_stands(names):
    assert "5.12" in names.version
    assert names.classes["qMRMLPlotView"]["file"] == "Libs/MRML/Widgets/qMRMLPlotView.h"
    assert all(entry["file"].endswith(".h") for entry in names.classes.values())
    assert "qMRMLPlotView" not in names.withPlugin


def test_names_are_trimmed_to_the_named_classes_and_their_bases(names):
    entry = {"bases": [], "file": "a.h", "methods": []}
    index = {"python": {}, "qt_and_vtk": {"A": {**entry, "bases": ["B", "QWidget"]}, "B": entry, "C": entry}}
    assert list(trimmed(index, {"A", "Unknown"})["classes"]) == ["A", "B"]


def test_the_script_trims_an_index_to_what_is_kept_here(names, tmp_path):
    kept = json.loads((ROOT / "Testing" / "slicer_names" / "names.json").read_text(encoding="utf-8"))
    entry = {"bases": [], "file": "b.h", "methods": []}
    full, out = tmp_path / "full.json", tmp_path / "out.json"
    full.write_text(json.dumps({"python": kept["python"], "qt_and_vtk": {**kept["classes"], "unused": entry}}))
    script = ROOT / "Testing" / "slicer_names" / "trim_index.py"
    subprocess.run([sys.executable, str(script), str(full), str(out)], check=True, timeout=60)
    made = json.loads(out.read_text(encoding="utf-8"))
    assert made["classes"]["qMRMLNodeComboBox"] == kept["classes"]["qMRMLNodeComboBox"]
    assert made["python"] == kept["python"]
    assert "unused" not in made["classes"]


def test_a_line_by_hand_without_its_source_is_refused(names):
    with pytest.raises(ValueError, match="with a tab and the source file"):
        names._readByHand("vtkSegment.GetName")
