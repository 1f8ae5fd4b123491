"""Both modules open at once, as in Slicer: neither takes the slice views of the other, and nothing moves by itself."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
from LesionClassifierLib.classification import classifyNodes
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.library.pseudonyms import pseudonymisation_key
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz_logic import QuizLogic
from quiz_cases import phantom_quiz

MODEL = "lung-nodule-malignancy"
CASE_VIEWS = ("LesionLensAxial", "LesionLensCoronal", "LesionLensSagittal")


@pytest.fixture
def library_path(embedding, tmp_path):
    """One case with its CT."""
    path, key, (volume, box) = tmp_path / "one.lesionlib", pseudonymisation_key(), golden_case()
    with CaseLibrary.create(path, model=ModelIdentity.of(embedding.info), dimension=len(embedding.vector)) as library:
        hashes = (key.hash("somebody"), key.hash("a study", domain="study"))
        case = Case("case-1", "benign", "histology", "lung", *hashes, {}, "")
        library.add(case, embedding.vector, model_sha256=embedding.info.model_sha256, patch=lesion_patch(volume, box))
    return path


@pytest.fixture
def classifier(module_widget, a_case, spin, in_process):
    """Lesion Classifier with an answered lesion that is current, left for another module."""
    classifyNodes(in_process, a_case[0], [a_case[1]], MODEL)
    panel = module_widget("LesionClassifier", size=(480, 900))
    panel.initializeParameterNode()
    spin(0.5)
    assert panel.panel.lesions.current is a_case[1]
    return panel


@pytest.fixture
def retrieval(module_widget, a_case, library_path):
    """Lesion Retrieval with CT, lesion and library."""
    panel = module_widget("LesionRetrieval", size=(600, 1200))
    assert panel.panel.library.open(library_path)
    return panel


@pytest.fixture
def somebody_works(scene, spin):
    """The scene changes as in any work of a user, and a second goes by."""

    def work() -> None:
        volume, box = golden_case()
        addRoiNode(scene, box)
        addVolumeNode(scene, replace(volume, name="PET"))
        spin(1.0)

    return work


def backgrounds(scene) -> dict[str, tuple[str, str | None]]:
    """Per view: the name of the volume that is shown, and the ID of what lies over it."""
    return {
        node.GetLayoutName(): (
            scene.GetNodeByID(node.GetBackgroundVolumeID()).GetName(),
            node.GetForegroundVolumeID(),
        )
        for node in nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
        if node.GetBackgroundVolumeID()
    }


@pytest.mark.parametrize("isLeft", [False, True])
def test_the_views_of_a_compared_case_stay_with_the_case(
    classifier, retrieval, a_case, scene, somebody_works, leave, isLeft
):
    if isLeft:
        leave(retrieval)
    shown = retrieval.logic.showSideBySide(*a_case, "case-1")
    somebody_works()
    layers = backgrounds(scene)
    for name in CASE_VIEWS:
        assert layers[name] == (shown.volumeNode.GetName(), None)
    retrieval.logic.hideSideBySide()
    held = [n.GetAttribute("LesionLens.HeldBy") for n in nodesOfClass(scene, "vtkMRMLSliceCompositeNode")]
    assert set(held) == {None}


def test_the_views_of_a_quiz_stay_with_its_case(classifier, scene, somebody_works, tmp_path):
    logic = QuizLogic(scene)
    logic.start(phantom_quiz(), tmp_path / "answers", "L1")
    shown = logic.display.volumeNode.GetName()
    somebody_works()
    assert set(backgrounds(scene).values()) == {(shown, None)}
    logic.stop()
    somebody_works()
    assert shown not in {name for name, _over in backgrounds(scene).values()}


class CountingDatabase:
    """Slicer's DICOM database, as far as asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def instanceValue(self, instanceUID: str, tag: str) -> str:
        self.asked.append(tag)
        return {"0010,0020": "PAT-1", "0020,000d": "1.2.3"}.get(tag, "")


@pytest.fixture
def counted(retrieval, scene, monkeypatch):
    """How often the panel refreshes and how many nodes come into the scene, from now on."""
    counts = {"refreshes": 0, "nodes": 0}
    update = retrieval.panel.update

    def counting() -> None:
        counts["refreshes"] += 1
        update()

    def added(*_) -> None:
        counts["nodes"] += 1

    monkeypatch.setattr(retrieval.panel, "update", counting)
    tag = scene.AddObserver(scene.NodeAddedEvent, added)
    yield counts
    scene.RemoveObserver(tag)


def test_an_idle_panel_rests(classifier, retrieval, counted, spin, return_to):
    return_to(retrieval)
    spin(1.0)
    counted.update(refreshes=0, nodes=0)
    spin(3.0)
    assert counted == {"refreshes": 0, "nodes": 0}


def test_the_dicom_database_is_asked_once_for_a_ct_however_often_the_panel_refreshes(
    retrieval, a_case, spin, monkeypatch
):
    database = CountingDatabase()
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    a_case[0].SetAttribute("DICOM.instanceUIDs", "1.2.3.4 1.2.3.5")
    retrieval.panel.update()
    assert database.asked.count("0010,0020") == 1
    for _time in range(5):
        retrieval.panel.update()
        a_case[1].SetSize(*(np.array(a_case[1].GetSize()) + 1))
        spin(0.3)
    assert database.asked.count("0010,0020") == 1
    assert retrieval.panel.filters.identity().patient == "PAT-1"
    a_case[0].SetAttribute("DICOM.instanceUIDs", "9.9")
    retrieval.panel.update()
    assert database.asked.count("0010,0020") == 2


def test_while_another_module_is_shown_the_panel_does_nothing_and_at_the_return_it_is_up_to_date(
    retrieval, counted, a_case, scene, spin, leave, return_to, somebody_works
):
    retrieval.logic.showSideBySide(*a_case, "case-1")
    leave(retrieval)
    spin(0.5)
    counted.update(refreshes=0)
    somebody_works()
    retrieval._parameterNode.label = "benign"
    assert counted["refreshes"] == 0
    assert retrieval.logic.comparison is not None
    scene.RemoveNode(a_case[1])
    return_to(retrieval)
    assert counted["refreshes"] > 0
    assert retrieval.logic.comparison is not None


def test_a_map_that_comes_while_another_module_is_shown_is_painted_at_the_return(
    retrieval, scene, spin, leave, return_to
):
    retrieval.ui.findButton.click()
    spin(until=lambda: not retrieval.panel.run.isRunning, seconds=60)
    retrieval.panel.found._why(retrieval.panel.found.gallery.cards[0].neighbour)
    leave(retrieval)
    spin(until=lambda: not retrieval.panel.run.isRunning, seconds=60)
    maps = lambda: [n for n in nodesOfClass(scene, "vtkMRMLScalarVolumeNode") if n.GetAttribute("LesionLens.SimilarTo")]  # noqa: E731
    assert maps() == []
    assert "as soon as you come back" in retrieval.ui.statusLabel.text
    return_to(retrieval)
    assert len(maps()) == 1 or "Nothing in the lesion" in retrieval.ui.comparisonLabel.text
    assert retrieval.ui.comparisonLabel.text


def test_a_layout_that_slicer_has_kept_from_a_comparison_is_replaced_at_its_start(module_widget, scene, gui):
    module_widget("LesionRetrieval")
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(62011)
    gui.completeStartup()
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView


def test_maps_are_offered_as_a_ct_in_neither_module(classifier, retrieval, a_case, spin, return_to):
    spin(0.5)
    return_to(classifier)
    spin(0.5)
    for panel in (classifier, retrieval):
        selector = panel.ui.volumeSelector
        assert [selector.nodeFromIndex(row) for row in range(selector.nodeCount())][-1] is a_case[0]
        assert "Grad-CAM" not in " ".join(
            selector.nodeFromIndex(row).GetName() for row in range(1, selector.nodeCount())
        )


def test_reload_reads_the_library_folders_anew_too(classifier, monkeypatch):
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget

    reloaded = []
    monkeypatch.setattr(ScriptedLoadableModuleWidget, "onReload", lambda self: reloaded.append(self.moduleName))
    before = dict(sys.modules)
    try:
        classifier.onReload()
        left = {name.partition(".")[0] for name in sys.modules}
    finally:
        sys.modules.update(before)
    assert reloaded == ["LesionClassifier"]
    assert not left & {"LesionLib", "LesionClassifierLib"}
    assert "LesionRetrievalLib" in left
