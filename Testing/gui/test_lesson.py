"""One lesson with both modules: a CT and a PET, classify, side by side, a quiz, and back; the slice views drawn at each step."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from LesionClassifierLib.sample_data import addPhantom
from LesionClassifierLib.scene.heatmaps import setLayers
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi, lesionNodes
from LesionClassifierLib.scene.volumes import addVolumeNode, volumeFromNode
from LesionLib.geometry import LesionBox
from LesionLib.inference.messages import EmbeddingRequest, describing_request
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.intake import NewCase, Owner, add_case
from LesionRetrievalLib.library.pseudonyms import pseudonymisation_key
from LesionRetrievalLib.library.store import CaseLibrary
from phantoms import whole_phantom
from PIL import Image
from quiz_cases import phantom_quiz
from slice_views import SliceRenderer, SliceView

LONG = 120
MODEL = "lung-nodule-malignancy"
PIXELS = 240
ROWS = (("Red", "Green", "Yellow"), ("LesionLensAxial", "LesionLensCoronal", "LesionLensSagittal"))
ORIENTATIONS = ("Axial", "Coronal", "Sagittal")


@pytest.fixture
def draw(headless, tmp_path, spin):
    """A picture of all slice views as they are, as PNG in the folder of artefacts; returns its pixels by the view's name."""
    folder = Path(os.environ.get("LESIONLENS_TEST_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(step: str) -> dict[str, np.ndarray]:
        there = {node.GetLayoutName(): node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")}
        pictures = {}
        for row in ROWS:
            for name, orientation in zip(row, ORIENTATIONS, strict=True):
                if name not in there or not _isShown(headless.scene, name):
                    continue
                there[name].SetDimensions(PIXELS, PIXELS, 1)
                view = SliceView(headless, orientation, (PIXELS, PIXELS), layoutName=name)
                pictures[name] = view.grab()
                view.close()
        rows = [np.concatenate([pictures[n] for n in row], axis=1) for row in ROWS if all(n in pictures for n in row)]
        Image.fromarray(np.concatenate(rows, axis=0)).save(folder / f"lesson-{step}.png")
        return pictures

    with SliceRenderer(headless):  # it sees to OpenGL
        yield take


def _isShown(scene, name: str) -> bool:
    composites = {c.GetLayoutName(): c for c in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    return name in composites and bool(composites[name].GetBackgroundVolumeID())


def layers(scene) -> dict[str, tuple[str, str]]:
    """Background and foreground by the name of the view."""

    def name(nodeId):
        return scene.GetNodeByID(nodeId).GetName() if nodeId else ""

    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {c.GetLayoutName(): (name(c.GetBackgroundVolumeID()), name(c.GetForegroundVolumeID())) for c in composites}


def look_at(scene, centerRAS, fieldMm=120.0) -> None:
    for name, orientation in zip(ROWS[0], ORIENTATIONS, strict=True):
        node = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLSliceNode")
            node.UnRegister(None)
            node.SetLayoutName(name)
            node.SetSingletonTag(name)
            node = scene.AddNode(node)
        node.SetOrientation(orientation)
        node.SetDimensions(PIXELS, PIXELS, 1)
        node.SetFieldOfView(fieldMm, fieldMm, 1.0)
        node.JumpSliceByCentering(*map(float, centerRAS))


@pytest.fixture
def library_path(tmp_path, phantom_once, in_process):
    """Two nodules of another phantom, with their CT."""
    path, key = tmp_path / "phantoms.lesionlib", pseudonymisation_key()
    phantom = whole_phantom(seed=1)
    first = in_process.run(describing_request(MODEL))
    with CaseLibrary.create(path, model=ModelIdentity.of(first.info), dimension=len(first.vector)) as library:
        for nodule in phantom.nodules[:2]:
            box = nodule.box.grown(1.5)
            new = NewCase(nodule.kind, "the phantom's recipe", organ="lung", with_thumbnails=True, with_patch=True)
            embedding = in_process.run(EmbeddingRequest(MODEL, phantom.volume, box))
            add_case(library, phantom.volume, box, embedding, new=new, owner=Owner(*key.hashes("phantom 1")))
    return path


def test_a_lesson_goes_through_both_modules_and_every_view_shows_what_it_should(  # noqa: PLR0915 - one walk, step by step
    module_widget, scene, spin, draw, library_path, leave, return_to, tmp_path
):
    (ct,) = addPhantom()
    volume = volumeFromNode(ct)
    pet = addVolumeNode(scene, replace(volume, array=-volume.array, name="PET"), windowHU=1500.0, levelHU=600.0)
    roi = next(node for node in lesionNodes(scene) if "lobulated" in node.GetName())  # the model has an answer
    center = boxFromRoi(roi).centerRAS
    setLayers(scene, background=ct)
    look_at(scene, center)
    classifier = module_widget("LesionClassifier", size=(560, 1500))
    classifier._parameterNode.volume = ct
    classifier.ui.modelSelector.setCurrentText(MODEL)  # the one that the library was made with
    spin(0.5)
    loaded = draw("1-loaded")
    assert {layers(scene)[name] for name in ROWS[0]} == {(ct.GetName(), "")}

    classifier.panel.lesions.select(roi)
    classifier.panel.classifySelected()
    spin(until=lambda: not classifier.panel.run.isRunning, seconds=LONG)
    classified = draw("2-classified")
    assert all(layers(scene)[name][1].startswith(f"{roi.GetName()} Grad-CAM") for name in ROWS[0])
    assert _colored(classified["Red"]) > _colored(loaded["Red"]) + 300  # the map, on the nodule and little else

    leave(classifier)
    setLayers(scene, background=pet)
    addRoiNode(scene, LesionBox(center, [5.0, 5.0, 5.0], name="somebody's crop"))
    spin(1.0)
    with_pet = draw("3-pet-in-another-module")
    assert {layers(scene)[name] for name in ROWS[0]} == {("PET", "")}
    assert np.abs(with_pet["Red"].astype(int) - loaded["Red"]).mean() > 20

    retrieval = module_widget("LesionRetrieval", size=(560, 1190))
    retrieval._parameterNode.volume, retrieval._parameterNode.lesion = ct, roi
    retrieval.panel.library.open(library_path)
    retrieval.ui.findButton.click()
    spin(until=lambda: not retrieval.panel.run.isRunning, seconds=LONG)
    retrieval.ui.sideBySideButton.click()
    case = retrieval.logic.comparison.volumeNode.GetName()
    addRoiNode(scene, LesionBox(center, [6.0, 6.0, 6.0], name="another crop"))
    spin(1.0)
    beside = draw("4-side-by-side")
    assert {layers(scene)[name][0] for name in ROWS[0]} == {ct.GetName()}
    assert {layers(scene)[name] for name in ROWS[1]} == {(case, "")}
    assert all(beside[name].std() > 10 for name in (*ROWS[0], *ROWS[1]))
    retrieval.ui.backButton.click()
    spin(0.3)
    assert {layers(scene)[name][0] for name in ROWS[0]} == {"PET"}

    quiz = retrieval.quiz.logic
    quiz.start(phantom_quiz(), tmp_path / "answers", "learner-1")
    addRoiNode(scene, LesionBox(center, [7.0, 7.0, 7.0], name="a third crop"))
    spin(1.0)
    in_quiz = draw("5-quiz")
    assert all(background.startswith("Quiz ") and not heat for background, heat in (layers(scene)[n] for n in ROWS[0]))
    assert _colored(in_quiz["Red"]) < _colored(classified["Red"])
    quiz.stop()

    return_to(classifier)
    spin(0.5)
    assert {layers(scene)[name][0] for name in ROWS[0]} == {"PET"}  # as the user left it
    classifier.ui.heatOpacitySlider.value = 0.7
    spin(0.3)
    back = draw("6-back")
    assert all(layers(scene)[name][1].startswith(f"{roi.GetName()} Grad-CAM") for name in ROWS[0])
    assert _colored(back["Red"]) > 50


def _colored(picture: np.ndarray) -> int:
    """How many pixels are not grey."""
    return int((np.ptp(picture.astype(int), axis=2) > 25).sum())
