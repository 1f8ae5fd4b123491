"""The set-up step: says what is missing, installs it without moving what must stay, works from a folder of wheels."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
import slicer.util
from LesionClassifierLib import setup as setup_step
from LesionClassifierLib.setup import SetupError, explain, install, missingPackages, offerAccelerator
from repository import ROOT

REQUIREMENTS = ROOT / "LesionClassifier" / "Resources" / "requirements.txt"
WITHOUT_TORCH = missingPackages(lambda name: name != "torch")
WITHOUT_WHEELS = missingPackages(lambda name: name == "torch")


@pytest.fixture
def packaging(monkeypatch):
    """Slicer's own packaging, which is not here: it notes what it is asked, and reads the constraints while they are there."""
    calls = []

    def pip_ensure(requirements, *, constraints, requester):
        calls.append((requirements, Path(constraints).read_text().split(), requester))

    fake = SimpleNamespace(
        pip_ensure=pip_ensure, load_requirements=lambda path: Path(path).read_text().split(), calls=calls
    )
    monkeypatch.setitem(sys.modules, "slicer.packaging", fake)
    monkeypatch.setattr(slicer, "packaging", fake, raising=False)
    return fake


@pytest.fixture
def pytorch(monkeypatch):
    """The PyTorch extension: notes the questions, and answers as it is told."""
    fake = SimpleNamespace(asked=[], answer=object())

    class PyTorchUtilsLogic:
        def installTorch(self, **given):
            fake.asked.append(given)
            return fake.answer

    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic))
    return fake


def test_nothing_is_missing_where_everything_is_there():
    assert missingPackages() == []
    assert missingPackages(lambda _name: True) == []


def test_what_is_missing_is_named_with_its_purpose_and_size():
    text = explain(missingPackages(lambda _name: False), Path("/models"))
    for said in ("torch", "safetensors", "runs the models", "200 MB", "/models", "left as they are"):
        assert said in text


def test_torch_comes_through_the_pytorch_extension(packaging, pytorch):
    install(WITHOUT_TORCH, requirements=REQUIREMENTS)
    assert pytorch.asked == [{"askConfirmation": True, "torchVersionRequirement": ">=2.6"}]


def test_a_missing_pytorch_extension_is_said_with_what_to_do(packaging):
    with pytest.raises(SetupError, match="Extensions Manager, install 'PyTorch'"):
        install(WITHOUT_TORCH, requirements=REQUIREMENTS)


def test_a_declined_torch_is_said(packaging, pytorch):
    pytorch.answer = None
    with pytest.raises(SetupError, match="torch was not installed"):
        install(WITHOUT_TORCH, requirements=REQUIREMENTS)


def test_the_rest_is_installed_under_constraints_that_hold_torch_numpy_and_simpleitk(packaging):
    install(WITHOUT_WHEELS, requirements=REQUIREMENTS)
    ((requirements, constraints, requester),) = packaging.calls
    assert requirements == ["safetensors>=0.4.5", "jsonschema>=4.20", "monai>=1.5"]
    assert requester == "LesionClassifier"
    assert set(constraints) == {f"{name}=={version(name)}" for name in ("torch", "numpy", "SimpleITK")}


def test_a_folder_of_wheels_needs_no_network(packaging, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(slicer.util, "pip_install", asked.append)
    (tmp_path / "safetensors-1-py3-none-any.whl").touch()
    install(WITHOUT_WHEELS, requirements=REQUIREMENTS, wheelFolder=tmp_path)
    ((first, *rest),) = asked
    assert first == "--no-index"
    assert rest[:2] == ["--find-links", str(tmp_path)]
    assert "torch" not in rest
    assert packaging.calls == []


def test_a_folder_without_wheels_is_refused_with_how_to_fill_it(tmp_path):
    with pytest.raises(SetupError, match=r"holds no \.whl file; .* pip download"):
        install(WITHOUT_WHEELS, requirements=REQUIREMENTS, wheelFolder=tmp_path)


def test_whatever_pip_raises_reaches_the_user_as_a_sentence(packaging, monkeypatch):
    def fail(*_args, **_given):
        raise RuntimeError("User declined installation")

    monkeypatch.setattr(packaging, "pip_ensure", fail)
    with pytest.raises(SetupError, match="did not succeed: User declined installation"):
        install(WITHOUT_WHEELS, requirements=REQUIREMENTS)


def test_what_is_still_missing_afterwards_is_named(packaging, monkeypatch):
    monkeypatch.setattr(setup_step, "missingPackages", lambda: WITHOUT_TORCH)
    with pytest.raises(SetupError, match="still missing after the installation: torch"):
        install(WITHOUT_WHEELS, requirements=REQUIREMENTS)


def test_an_accelerator_is_offered_after_the_rest_and_moves_nothing(packaging):
    assert "openvino is installed" in offerAccelerator(lambda name: name != "openvino")
    ((requirements, constraints, _requester),) = packaging.calls
    assert requirements == ["openvino>=2025.0"]
    assert set(constraints) == {f"{name}=={version(name)}" for name in ("torch", "numpy", "SimpleITK")}


def test_an_accelerator_that_is_there_or_declined_is_no_error(packaging, monkeypatch):
    assert offerAccelerator(lambda _name: True) == ""
    assert offerAccelerator(lambda _name: False) == ""
    assert packaging.calls == []

    def decline(*_args, **_given):
        raise RuntimeError("User declined package installation")

    monkeypatch.setattr(packaging, "pip_ensure", decline)
    said = offerAccelerator(lambda name: name != "openvino")
    assert said == "openvino was not installed (User declined package installation); lesions are answered without it."


def test_nothing_heavy_is_imported_at_file_scope_by_what_slicer_loads_first():
    root = REQUIREMENTS.parents[1]
    heavy = {"torch", "monai", "safetensors", "jsonschema", "sklearn", "lightning", "highdicom", "pydicom"}
    files = [root / "LesionClassifier.py", *(root / "LesionClassifierLib").glob("*.py")]
    for path in files:
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not {name.split(".")[0] for name in names} & heavy, path.name
