"""The retrieval module without a screen: every button is one call, on real MRML nodes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import slicer
from LesionClassifierLib.scene.lesions import addRoiNode, addSegmentationNode, boxFromRoi, lesionNodes
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.errors import BoxError, CaseLibraryError
from LesionLib.geometry import CTVolume
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.library.cases import Case
from LesionRetrievalLib.library.intake import NewCase
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.search.filters import SearchPlan
from LesionRetrievalLib.scene.annotations import annotate, annotationOf
from LesionRetrievalLib.scene.identity import identityOfVolume
from LesionRetrievalLib.scene.segments import lesionOfSegment
from repository import ROOT

SPHERE = NewCase("sphere", "a formula", organ="lung", with_thumbnails=True, with_patch=True)
UID = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture
def module(headless, slicers_python, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "LesionRetrieval"))
    return importlib.import_module("LesionRetrieval")


@pytest.fixture
def logic(module, runner, tmp_path, scene):
    made = module.LesionRetrievalLogic(runner=runner, keyPath=tmp_path / "pseudonym.key")
    yield made
    made.hideSideBySide()
    made.closeLibrary()
    for node in nodesOfClass(scene, "vtkMRMLScriptedModuleNode"):
        scene.RemoveNode(node)


@pytest.fixture
def nodes(scene):
    volume, box = golden_case()
    return addVolumeNode(scene, volume), addRoiNode(scene, replace(box, name="L1"))


@pytest.fixture
def filled(logic, nodes, tmp_path):
    """A library of the lesion itself and of three others, far from it, of which one is no sphere."""
    library = logic.createLibrary(tmp_path / "cases.lesionlib")
    logic.addCase(*nodes, replace(SPHERE, case_id="itself"), patient="P1")
    vector, key = library.vector("itself", model_sha256=library.model.sha256), Pseudonymiser.load(logic.keyPath)
    for number, label in enumerate(["sphere", "cube", "sphere"], start=2):
        case = Case(
            f"other-{number}",
            label,
            "a formula",
            "liver",
            key.hash(f"P{number}"),
            key.hash(f"S{number}", domain="study"),
        )
        library.add(case, np.roll(vector, number), model_sha256=library.model.sha256)
    return logic


class Database:
    """What Slicer's DICOM database says of one instance."""

    def __init__(self, **values):
        self._values = {"0010,0020": "4711", "0010,0010": "Doe^Jane", "0020,000d": "1.2.3.4.5", **values}

    def instanceValue(self, instance, tag):
        return self._values.get(tag, "") if instance == UID else ""


def test_a_case_that_was_added_is_found_with_its_pictures_and_ct(filled, nodes):
    found = filled.findSimilar(*nodes)
    assert (found[0].case_id, found[0].label) == ("itself", "sphere")
    assert found[0].similarity > 0.999
    assert len(found) == 4
    assert set(filled.library.thumbnails("itself")) == {"axial", "coronal", "sagittal"}
    patch = filled.library.patch("itself")
    assert patch.box.centerRAS == pytest.approx(boxFromRoi(nodes[1]).centerRAS, abs=1e-3)


def test_a_library_by_its_path_is_searched_as_before_and_left_closed(filled, nodes):
    path = filled.library.path
    filled.closeLibrary()
    assert next(n.case_id for n in filled.findSimilar(*nodes, path, k=2)) == "itself"
    assert filled.library is None


def test_the_same_patient_is_left_out_where_it_is_known(filled, nodes):
    assert "itself" not in [n.case_id for n in filled.findSimilar(*nodes, patient="P1")]
    (only,) = filled.findSimilar(*nodes, patient="P1", plan=SearchPlan(scope="same-patient"))
    assert only.case_id == "itself"
    assert "itself" in [n.case_id for n in filled.findSimilar(*nodes, patient="P9")]


def test_the_patient_of_a_dicom_ct_is_known_by_itself(filled, nodes, monkeypatch):
    nodes[0].SetAttribute("DICOM.instanceUIDs", UID)
    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    key = Pseudonymiser.load(filled.keyPath)
    assert filled.patientHash(nodes[0]) == key.hash("4711")
    with pytest.raises(CaseLibraryError, match="another than the CT's own"):
        filled.patientHash(nodes[0], patient="4712")
    filled.removeCase("itself")  # the very lesion would be refused
    caseId = filled.addCase(*nodes, replace(SPHERE, case_id=""))
    assert filled.library.case(caseId).study_hash == key.hash("1.2.3.4.5", domain="study")
    with pytest.raises(CaseLibraryError, match="name, number or date"):
        filled.addCase(*nodes, replace(SPHERE, note="Jane was seen again"))


def test_the_patient_of_a_saved_scene_is_known_from_its_tree(scene, nodes):
    tree = scene.GetSubjectHierarchyNode()
    patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Doe")
    tree.SetItemAttribute(patient, "DICOM.PatientID", "4711")
    study = tree.CreateStudyItem(patient, "CT")
    tree.SetItemAttribute(study, "DICOM.StudyInstanceUID", "1.2.3")
    tree.CreateItem(study, nodes[0])
    known = identityOfVolume(nodes[0])
    assert (known.patient, known.study) == ("4711", "1.2.3")
    assert "4711" not in repr(known)
    assert "4711" in known.texts


def test_a_lesion_of_nobody_is_not_added_and_makes_no_key(logic, nodes, tmp_path):
    logic.createLibrary(tmp_path / "cases.lesionlib")
    with pytest.raises(CaseLibraryError, match="does not say which patient"):
        logic.addCase(*nodes, SPHERE)
    assert not logic.keyPath.exists()
    assert len(logic.library) == 0


def test_nothing_of_the_patient_stands_in_library_or_scene(filled, nodes, tmp_path, scene):
    filled.removeCase("itself")  # the very lesion would be refused
    filled.addCase(*nodes, replace(SPHERE, case_id=""), patient="Zzyzx-4711")
    filled.closeLibrary()
    assert b"Zzyzx-4711" not in (tmp_path / "cases.lesionlib").read_bytes()
    saveScene(scene, tmp_path / "scene.mrb")
    assert b"Zzyzx-4711" not in (tmp_path / "scene.mrb").read_bytes()


def test_a_read_only_library_refuses_changes_in_plain_words(filled, nodes):
    path = filled.library.path
    filled.openLibrary(path)
    with pytest.raises(CaseLibraryError, match="opened to read"):
        filled.removeCase("itself")
    filled.openLibrary(path, writable=True)
    filled.removeCase("itself")
    assert "itself" not in [case.case_id for case in filled.library.cases()]


def test_without_a_library_it_says_what_to_do(logic, nodes):
    with pytest.raises(CaseLibraryError, match="open one, or make a new one"):
        logic.findSimilar(*nodes)


def test_the_vote_and_what_else_it_might_be(filled, nodes):
    vote = filled.neighbourVote(filled.findSimilar(*nodes))
    assert vote.top == "sphere"
    assert vote.counts == {"sphere": 3, "cube": 1}
    embedding = filled.embed(*nodes)
    assert filled.nearestOtherClass(embedding, vote.top).case_id == "other-3"


def test_why_similar_is_a_volume_over_the_ct_that_says_where_it_comes_from(filled, nodes, scene):
    node = filled.similarityMap(*nodes, "other-2")
    assert node.GetName() == "L1 similar to other-2"
    assert node.GetAttribute("LesionLens.ModelSha256") == filled.library.model.sha256
    assert node.GetNodeReference("referenceVolume") is nodes[0]
    assert slicer.util.arrayFromVolume(node).max() == pytest.approx(1)
    # Views of another layout, made by a comparison before, may still be there: they show something else.
    shown = {c.GetLayoutName(): c.GetForegroundVolumeID() for c in nodesOfClass(scene, "vtkMRMLSliceCompositeNode")}
    assert [shown[view] for view in ("Red", "Yellow", "Green")] == [node.GetID()] * 3
    filled.similarityMap(*nodes, "other-3")
    assert [n.GetName() for n in nodesOfClass(scene, "vtkMRMLScalarVolumeNode")] == [
        "golden case",
        "L1 similar to other-3",
    ]


def test_side_by_side_of_a_case_that_was_added(filled, nodes, scene):
    shown = filled.showSideBySide(*nodes, "itself")
    assert boxFromRoi(shown.roiNode).centerRAS == pytest.approx(boxFromRoi(nodes[1]).centerRAS, abs=1e-3)
    filled.similarityMap(*nodes, "other-2")
    case = [c for c in nodesOfClass(scene, "vtkMRMLSliceCompositeNode") if c.GetLayoutName() == "LesionLensAxial"]
    assert case[0].GetBackgroundVolumeID() == shown.volumeNode.GetID()
    with pytest.raises(CaseLibraryError, match="holds no CT of case other-2"):
        filled.showSideBySide(*nodes, "other-2")
    assert filled.comparison is None
    filled.hideSideBySide()


def test_feedback_is_about_a_lesion_and_can_be_taken_back(filled, nodes, tmp_path):
    embedding = filled.embed(*nodes)
    path = filled.markNotSimilar(embedding, "other-2")
    assert path == tmp_path / "cases.lesionlib.feedback.jsonl"
    assert filled.notSimilar(embedding) == {"other-2"}
    nodes[1].SetSize(30, 30, 30)
    assert filled.notSimilar(filled.embed(*nodes)) == set()
    filled.markNotSimilar(embedding, "other-2", isMarked=False)
    assert filled.notSimilar(embedding) == set()


def test_boxes_with_labels_and_attributes_go_to_a_file_and_come_back(logic, nodes, scene, tmp_path):
    annotate(nodes[1], "hamartoma", {"size": 12.5, "contrast": True})
    assert logic.saveAnnotations(tmp_path / "boxes.mrk.json", [nodes[1]]) == 1
    before = boxFromRoi(nodes[1])
    scene.Clear(False)
    (node,) = logic.loadAnnotations(scene, tmp_path / "boxes.mrk.json")
    assert lesionNodes(scene) == [node]
    back = annotationOf(node)
    assert (back.label, back.attributes, back.box.name) == ("hamartoma", {"size": 12.5, "contrast": True}, "L1")
    assert back.box.cornersRAS == pytest.approx(before.cornersRAS, abs=1e-3)


def test_a_file_that_is_no_markups_adds_nothing(logic, scene, tmp_path):
    (tmp_path / "x.mrk.json").write_text("{}")
    for name in ("x.mrk.json", "missing.mrk.json"):
        with pytest.raises(BoxError):
            logic.loadAnnotations(scene, tmp_path / name)
    assert lesionNodes(scene) == []


def test_a_segment_is_a_lesion_once_and_an_empty_one_is_refused(scene):
    _, box = golden_case()
    empty = CTVolume(np.zeros_like(box.segment.array), box.segment.ijkToRAS, name="empty")
    node = addSegmentationNode(scene, [box.segment, empty], name="S")
    first, second = node.GetSegmentation().GetSegmentIDs()
    roi = lesionOfSegment(node, first)
    assert lesionOfSegment(node, first, marginMm=5.0) is roi
    assert roi.GetSize()[0] == pytest.approx(12 + 10, abs=2)
    with pytest.raises(BoxError, match="holds no voxel"):
        lesionOfSegment(node, second)
    assert lesionNodes(scene) == [roi]


def test_parameters_survive_a_saved_scene(logic, nodes, scene, tmp_path):
    p = logic.getParameterNode()
    p.volume, p.lesion, p.scope, p.label, p.attributes, p.heatOpacity = (
        *nodes,
        "cross-patient",
        "cyst",
        "size=5..",
        0.25,
    )
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(False)
    for node in nodesOfClass(scene, "vtkMRMLScriptedModuleNode"):
        scene.RemoveNode(node)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    p = logic.getParameterNode()
    assert (p.volume.GetName(), p.lesion.GetName()) == ("golden case", "L1")
    assert (p.scope, p.label, p.attributes, p.heatOpacity, p.withPatch) == (
        "cross-patient",
        "cyst",
        "size=5..",
        0.25,
        False,
    )


def test_everything_but_the_models_loads_where_there_is_no_torch():
    names = "logic quiz_logic scene.comparison scene.annotations scene.segments"
    code = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors", "jsonschema", "monai"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
import slicer, importlib
sys.path[:0] = [{str(ROOT / "LesionClassifier")!r}, {str(ROOT / "LesionRetrieval")!r}]
for name in {names!r}.split():
    importlib.import_module("LesionRetrievalLib." + name)
print("loaded", "torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.strip().endswith("loaded False"), ran.stderr
