"""The very module files that Slicer loads, on slicer-core."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from LesionClassifierLib.headless import startHeadlessSlicer

ROOT = Path(__file__).resolve().parents[2]
STANDINS = Path(__file__).with_name("slicer_standins")
NAMES = ("LesionClassifier", "LesionRetrieval")


@pytest.fixture(scope="module", params=NAMES)
def module(request):
    startHeadlessSlicer()
    slicer.__path__.append(str(STANDINS))
    sys.path.append(str(ROOT / request.param))
    yield importlib.import_module(request.param)
    sys.path.remove(str(ROOT / request.param))
    slicer.__path__.remove(str(STANDINS))


def test_the_module_says_what_it_is_and_that_it_is_for_research(module):
    parent = SimpleNamespace()
    getattr(module, module.__name__)(parent)
    assert parent.title.startswith("Lesion ")
    assert parent.contributors
    assert "Research use only, not for diagnosis" in parent.helpText


def test_its_own_self_test_passes(module):
    getattr(module, f"{module.__name__}Test")().runTest()


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_where_there_is_no_torch(name):
    code = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors", "jsonschema", "monai"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
import slicer
slicer.__path__.append({str(STANDINS)!r})
sys.path[:0] = [{str(ROOT / "LesionClassifier")!r}, {str(ROOT / "LesionRetrieval")!r}]
import {name}
import LesionClassifierLib.classification, LesionClassifierLib.nodes
print("loaded", "torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.strip().endswith("loaded False"), ran.stderr


def test_the_classifier_s_self_test_leaves_out_what_needs_torch_and_says_so(monkeypatch):
    startHeadlessSlicer()
    monkeypatch.syspath_prepend(str(ROOT / "LesionClassifier"))
    slicer.__path__.append(str(STANDINS))
    from LesionClassifierLib import setup_step

    without = setup_step.missingPackages(lambda name: name != "torch")
    monkeypatch.setattr(setup_step, "missingPackages", lambda: without)
    test = importlib.import_module("LesionClassifier").LesionClassifierTest()
    said = []
    test.delayDisplay = said.append
    test.runTest()
    assert said == ["Left out, because torch is missing: everything that answers."]
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0


def test_the_retrieval_module_names_its_data_and_links_to_its_documentation(monkeypatch):
    startHeadlessSlicer()
    monkeypatch.syspath_prepend(str(ROOT / "LesionRetrieval"))
    monkeypatch.setattr(slicer, "__path__", [*slicer.__path__, str(STANDINS)])
    parent = SimpleNamespace()
    importlib.import_module("LesionRetrieval").LesionRetrieval(parent)
    assert "LIDC-IDRI (CC BY 3.0)" in parent.acknowledgementText
    assert "https://github.com/LesionLens/SlicerLesionLens" in parent.helpText


def test_on_the_dashboard_what_needs_torch_is_skipped_where_there_is_none(monkeypatch):
    startHeadlessSlicer()
    monkeypatch.syspath_prepend(str(ROOT / "LesionRetrieval"))
    monkeypatch.setattr(slicer, "__path__", [*slicer.__path__, str(STANDINS)])
    from LesionClassifierLib import setup_step

    without = setup_step.missingPackages(lambda name: name != "torch")
    monkeypatch.setattr(setup_step, "missingPackages", lambda: without)
    case = importlib.import_module("LesionRetrieval").LesionRetrievalTest
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.wasSuccessful(), [*result.errors, *result.failures]
    assert result.testsRun == 2
    assert [reason for _test, reason in result.skipped] == [
        "Left out, because torch is missing: everything that asks a model."
    ]


def test_every_text_of_the_retrieval_module_is_one_that_translators_can_see():
    hidden = []
    for path in sorted((ROOT / "LesionRetrieval").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            isText = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"
            if isText and not (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)):
                hidden.append(f"{path.name}:{node.lineno}")
    assert hidden == []
