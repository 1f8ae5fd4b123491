"""The very module files that Slicer loads, on slicer-core."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from repository import ROOT, SLICER_STANDINS, WIDGET_STANDINS

NAMES = ("LesionClassifier", "LesionRetrieval")
_NEED_TORCH = ("torch", "safetensors", "jsonschema", "monai")
# A fresh Python with what Slicer gives to its modules; {hidden} are packages that it does not have.
_SLICER = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {hidden} else super().find_spec(name, path, target)
sys.meta_path[:] = [Finder if each is importlib.machinery.PathFinder else each for each in sys.meta_path]
sys.path[:0] = {modules}
sys.path.append({qt!r})
import slicer
slicer.__path__.append({standins!r})
"""
_CTEST = """
from LesionClassifierLib.headless import startHeadlessSlicer
startHeadlessSlicer()
import slicer.testing
slicer.testing.runUnitTest([{folder!r}], {name!r})
"""


def inSlicer(code: str, *, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Run Python where ``import slicer`` brings what it brings in Slicer, and these packages are not installed."""
    modules = [str(ROOT / name) for name in NAMES]
    start = _SLICER.format(hidden=without, modules=modules, qt=str(WIDGET_STANDINS), standins=str(SLICER_STANDINS))
    command = [sys.executable, "-c", start + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def asCTest(folder: Path, name: str, *, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Run a module's own tests as `slicer_add_python_unittest` does."""
    return inSlicer(_CTEST.format(folder=str(folder), name=name), without=without)


@pytest.fixture(params=NAMES)
def module(request, headless, slicers_python, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / request.param))
    return importlib.import_module(request.param)


@pytest.fixture
def parent(module):
    return SimpleNamespace(path=str(ROOT / module.__name__ / f"{module.__name__}.py"))


def test_the_module_says_what_it_is_and_that_it_is_for_research(module, parent):
    getattr(module, module.__name__)(parent)
    assert parent.title.startswith("Lesion ")
    assert parent.contributors == ["The LesionLens developers"]
    assert "Research use only, not for diagnosis" in parent.helpText


def test_the_module_s_icon_is_found_beside_its_file(module, parent):
    getattr(module, module.__name__)(parent)
    assert not parent.icon.isNull()


def test_the_module_s_texts_are_no_longer_the_template_s_and_none_is_empty(module, parent):
    getattr(module, module.__name__)(parent)
    assert "template" not in parent.helpText + parent.acknowledgementText
    assert parent.helpText
    assert parent.acknowledgementText


def test_a_module_without_a_file_is_not_loaded(module):
    with pytest.raises(AttributeError, match="path"):
        getattr(module, module.__name__)(SimpleNamespace())


def test_its_own_self_test_passes(module, parent, scene):
    getattr(module, module.__name__)(parent)
    slicer.selfTests[module.__name__](msec=1)


@pytest.mark.parametrize("name", NAMES)
def test_its_tests_pass_one_by_one_as_slicer_s_ctest_runs_them(name, slicers_python):
    ran = asCTest(ROOT / name, name)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count(f"({name}.{name}Test.test_") == 2
    assert "skipped" not in ran.stderr


@pytest.fixture(scope="module", params=NAMES)
def without_torch(request) -> subprocess.CompletedProcess:
    """A module's tests as ctest runs them where there is no torch, after the module was loaded there."""
    load = f"""
import {request.param}
import LesionClassifierLib.classification, LesionClassifierLib.scene.results
print("loaded", "torch" in sys.modules, flush=True)
"""
    code = load + _CTEST.format(folder=str(ROOT / request.param), name=request.param)
    return inSlicer(code, without=_NEED_TORCH)


def test_it_loads_where_there_is_no_torch(without_torch, slicers_python):
    assert without_torch.stdout.startswith("loaded False\n"), without_torch.stderr


def test_where_there_is_no_torch_ctest_leaves_out_what_needs_it_and_says_so(without_torch, slicers_python):
    assert without_torch.returncode == 0, without_torch.stderr
    assert "OK (skipped=1)" in without_torch.stderr
    assert "torch" in without_torch.stderr


def test_ctest_fails_with_a_failing_test_method_and_never_calls_run_test(tmp_path, slicers_python):
    (tmp_path / "OwnTests.py").write_text(
        "from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest\n"
        "class OwnTests(ScriptedLoadableModuleTest):\n"
        "    def setUp(self): print('set up')\n"
        "    def runTest(self): print('run test')\n"
        "    def test_one(self): print('one')\n"
        "    def test_two(self): self.fail('two is wrong')\n"
    )
    ran = asCTest(tmp_path, "OwnTests")
    assert ran.returncode == 1
    assert ran.stdout.split("\n")[:3] == ["set up", "one", "set up"]
    assert "run test" not in ran.stdout
    assert "two is wrong" in ran.stderr


def test_the_classifier_s_self_test_leaves_out_what_needs_torch_and_says_so(
    headless, slicers_python, monkeypatch, scene
):
    monkeypatch.syspath_prepend(str(ROOT / "LesionClassifier"))
    from LesionClassifierLib import setup as setup_step

    without = setup_step.missingPackages(lambda name: name != "torch")
    monkeypatch.setattr(setup_step, "missingPackages", lambda: without)
    test = importlib.import_module("LesionClassifier").LesionClassifierTest()
    said = []
    test.delayDisplay = said.append
    test.runTest()
    assert said == ["Left out, because torch is missing: everything that answers."]
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0


def test_the_retrieval_module_names_its_data_and_links_to_its_documentation(headless, slicers_python, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "LesionRetrieval"))
    parent = SimpleNamespace(path=str(ROOT / "LesionRetrieval" / "LesionRetrieval.py"))
    importlib.import_module("LesionRetrieval").LesionRetrieval(parent)
    assert "LIDC-IDRI (CC BY 3.0)" in parent.acknowledgementText
    assert "https://github.com/LesionLens/SlicerLesionLens" in parent.helpText


@pytest.mark.parametrize("name", NAMES)
def test_every_text_of_a_module_is_one_that_translators_can_see(name):
    hidden = []
    for path in sorted((ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            isText = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"
            if isText and not (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)):
                hidden.append(f"{path.name}:{node.lineno}")
    assert hidden == []
