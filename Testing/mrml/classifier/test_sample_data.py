"""Sample data: registered under the rules of Slicer's Sample Data module, and the phantom comes with its lesions."""

from __future__ import annotations

import subprocess
import sys

import pytest
import slicer
from LesionClassifierLib.sample_data import CATEGORY, registerSampleData
from LesionClassifierLib.scene.lesions import lesionNodes, lesionsFromNodes
from LesionClassifierLib.scene.volumes import volumeFromNode
from LesionLib.geometry import require_overlap
from repository import ROOT, SLICER_STANDINS, WIDGET_STANDINS


@pytest.fixture
def sample_data(scene, slicers_python, monkeypatch):
    """Slicer's Sample Data module, with nothing registered yet."""
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    monkeypatch.setattr(slicer.modules, "sampleDataSourceCategories", {}, raising=False)
    import SampleData

    return SampleData


@pytest.fixture
def register(sample_data):
    return sample_data.SampleDataLogic.registerCustomSampleDataSource


@pytest.fixture
def registered(sample_data):
    """What the module registers."""
    registerSampleData()
    return sample_data.SampleDataLogic.sampleDataSourcesByCategory(CATEGORY)


def test_a_source_without_an_address_is_refused_even_if_it_brings_its_own_downloader(register):
    with pytest.raises(TypeError, match=r"object of type 'NoneType' has no len\(\)"):
        register(category="C", sampleName="computed", customDownloader=lambda _source: [])


def test_a_text_as_address_makes_every_field_a_list_of_one(register, sample_data):
    register(category="C", sampleName="a", uris="", fileNames="a.nrrd", nodeNames="A", checksums="SHA256:0")
    (source,) = sample_data.SampleDataLogic.sampleDataSourcesByCategory("C")
    fields = (source.uris, source.fileNames, source.nodeNames, source.checksums, source.loadFiles, source.loadFileTypes)
    assert fields == ([""], ["a.nrrd"], ["A"], ["SHA256:0"], [None], [None])


def test_fields_of_unequal_length_are_refused_and_named(register):
    with pytest.raises(ValueError, match=r"must have the same length(?s:.*)len\(uris\): 2(?s:.*)len\(fileNames\): 1"):
        register(category="C", sampleName="two", uris=["u", "v"], fileNames=["u.nrrd"])


def test_two_names_of_the_same_argument_and_an_unknown_one_are_refused(register):
    with pytest.raises(ValueError, match="cannot be specified at the same time"):
        register(uris="u", fileNames="f", loadFileType="VolumeFile", loadFileTypes="VolumeFile")
    with pytest.raises(TypeError, match="downloader"):
        register(uris="u", fileNames="f", downloader=print)


def test_the_same_source_is_registered_once_and_a_category_has_a_title(register, sample_data):
    logic = sample_data.SampleDataLogic
    for _again in range(2):
        register(category="C", sampleName="a", uris="u", fileNames="f")
    assert len(logic.sampleDataSourcesByCategory("C")) == 1
    assert logic.sampleDataSourcesByCategory("D") == []
    assert logic.categoryTitle("C") == "C"
    logic.registerCustomSampleDataCategory("C", "Cases")
    assert logic.categoryTitle("C") == "Cases"


def test_a_source_s_own_downloader_is_called_with_the_source_when_its_button_is_pressed(register, sample_data):
    import qt

    asked = []
    register(category="C", sampleName="computed", uris="", fileNames="f", nodeNames="N", customDownloader=asked.append)
    place = qt.QWidget()
    layout = qt.QVBoxLayout(place)
    sources = sample_data.SampleDataLogic.sampleDataSourcesByCategory()
    sample_data.SampleDataWidget.setCategoriesFromSampleDataSources(layout, sources, sample_data.SampleDataLogic)
    place.findChildren(qt.QToolButton)[0].click()
    assert asked == sources["C"]


def test_only_the_phantom_is_registered_since_slicer_lists_its_own_cts_itself(registered):
    (phantom,) = registered
    assert phantom.customDownloader is not None
    assert (phantom.uris, phantom.checksums) == ([""], [None])


def test_nothing_of_scipy_is_imported_when_slicer_starts():
    """Both module files and what they do at ``startupCompleted``, in a Python of their own."""
    code = f"""
import sys, types
import slicer
slicer.__path__.append({str(SLICER_STANDINS)!r})
sys.path[:0] = [{str(ROOT / "LesionClassifier")!r}, {str(ROOT / "LesionRetrieval")!r}, {str(WIDGET_STANDINS)!r}]
source = types.SimpleNamespace(registerCustomSampleDataSource=lambda **given: print("registered", given["sampleName"]))
sys.modules["SampleData"] = types.SimpleNamespace(SampleDataLogic=source)
import LesionClassifier, LesionRetrieval
LesionClassifier.registerSampleData()
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("scipy", "torch", "SimpleITK")))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.splitlines()[-2:] == ["registered LesionLensChestPhantom", "[]"], ran.stderr


def test_the_phantom_is_computed_here_with_a_lesion_around_each_nodule(registered, scene, phantom_once):
    (phantom,) = [source for source in registered if source.customDownloader is not None]
    (volumeNode,) = phantom.customDownloader(phantom)
    volume = volumeFromNode(volumeNode)
    boxes = lesionsFromNodes(lesionNodes(scene))
    assert len(boxes) == 5
    for box in boxes:
        require_overlap(volume, box)
