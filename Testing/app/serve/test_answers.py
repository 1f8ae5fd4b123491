"""A session from the CT to the answer: the very one of ``lesionlens classify``."""

from __future__ import annotations

import gzip
import json
import os
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.io.image_files import read_image_file
from LesionLib.io.volumes import read_ct

MODEL = "lung-nodule-malignancy"


def second(box: dict) -> dict:
    """A box that is turned, a little beside the nodule."""
    turn = np.deg2rad(20)
    axes = [[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]]
    centre = [box["centerRAS"][0] + 1.7, box["centerRAS"][1] - 2.3, box["centerRAS"][2] + 0.9]
    return {"name": "L2 ☃", "centerRAS": centre, "sizeMm": [14.5, 16.25, 11.1], "axesRAS": axes}


def test_the_json_is_that_of_the_command_to_the_last_digit(served, visitor, box, shelf, run, tmp_path, pictured):
    visitor.got("PUT", "ct", {"path": "series"})
    visitor.got("PUT", "boxes", {"boxes": [box, second(box)]})
    answer = visitor.classified(boxJitter=2)
    markups = tmp_path / "boxes.mrk.json"
    markups.write_text(json.dumps(visitor.got("GET", "boxes.mrk.json")))
    library, out = pictured, tmp_path / "out"
    ran = run(
        "classify", shelf / "series", "--boxes", markups, "--model", MODEL, "--out", out, "--box-jitter", "2",
        "--library", library / "cases.lesionlib", "--key", library / "owner.key",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    for name in ("results.json", "results.csv", "similar.csv"):
        _, there, headers = served.ask("GET", f"/api/sessions/{visitor.id}/{name}")
        text = (out / name).read_text(encoding="utf-8")
        if name.endswith(".json"):
            assert there == json.loads(text)
        else:
            assert there.decode() == text
        assert headers["content-disposition"] == f'attachment; filename="{name}"'
    ours = tmp_path / "ours.nrrd"
    ours.write_bytes(visitor.got("GET", "maps/1/map.nrrd"))
    here, there = read_ct(out / "gradcam_1.nrrd"), read_ct(ours)
    assert np.array_equal(here.array, there.array)
    assert np.array_equal(here.ijkToRAS, there.ijkToRAS)
    assert [lesion["name"] for lesion in answer["lesions"]] == ["L1", "L2 ☃"]


def test_of_the_answers_of_a_session_only_the_last_has_files(served, visitor, box):
    folder = served.service.sessions.get(visitor.id).folder
    visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    visitor.got("PUT", "boxes", {"boxes": [box]})
    visitor.classified()
    (first,) = folder.glob("answer-*")
    visitor.classified()
    (second_,) = folder.glob("answer-*")
    assert first != second_
    assert visitor.got("GET", "results.json")["results"]
    visitor.got("PUT", "boxes", {"boxes": [{**box, "name": f"L{n}"} for n in range(60)]})
    visitor.got("POST", "job", {"boxJitter": 8})
    visitor.ask("DELETE", "job")
    assert visitor.waited()["state"] == "cancelled"
    assert list(folder.glob("answer-*")) == [second_]  # a cancelled question leaves the earlier answer
    visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    assert list(folder.glob("answer-*")) == []


def test_the_page_is_told_label_reliability_map_and_similar_cases(visitor, box):
    visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    visitor.got("PUT", "boxes", {"boxes": [box]})
    answer = visitor.classified(similar=3)
    (lesion,) = answer["lesions"]
    assert lesion["label"] in lesion["probabilities"]
    assert set(answer["colors"]) == set(lesion["probabilities"])
    assert any("hold the true class" in text for text in lesion["messages"])
    assert lesion["hasMap"]
    found = lesion["similar"]
    assert len(found["cases"]) == 3
    assert all(case["image"].startswith("data:image/png;base64,") for case in found["cases"])
    assert found["lesion"].startswith("data:image/png;base64,")
    assert "not for diagnosis" in answer["notice"]


def test_the_viewer_gets_the_voxels_where_they_lie(visitor, shelf, tmp_path, box):
    told = visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    path = tmp_path / "there.nii"
    path.write_bytes(visitor.got("GET", "ct/volume.nii"))
    here, there = read_ct(shelf / "patch.nrrd"), read_image_file(path)
    assert np.array_equal(here.array, there.array)
    assert np.allclose(there.header.ijkToRAS, here.ijkToRAS, atol=1e-5)
    assert told["sizeIJK"] == list(here.sizeIJK)
    visitor.got("PUT", "boxes", {"boxes": [box]})
    visitor.classified()
    path.write_bytes(visitor.got("GET", "maps/1/map.nii"))
    heat = read_image_file(path)
    middle = heat.header.ijkToRAS @ [*(np.array(heat.array.shape[::-1]) / 2), 1]
    assert np.linalg.norm(middle[:3] - box["centerRAS"]) < 15


def test_a_scene_of_slicer_brings_its_ct_and_its_boxes(visitor, shelf, lesion):
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.scene.lesions import addRoiNode
    from LesionClassifierLib.scene.tree import saveScene
    from LesionClassifierLib.scene.volumes import addVolumeNode

    scene, volume = startHeadlessSlicer().scene, read_ct(shelf / "patch.nrrd")
    scene.Clear(False)
    addVolumeNode(scene, volume)
    addRoiNode(scene, lesion)
    saveScene(scene, shelf / "saved.mrb")
    scene.Clear(False)
    told = visitor.got("PUT", "ct", {"path": "saved.mrb"})
    assert told["sizeIJK"] == list(volume.sizeIJK)
    (box,) = visitor.got("GET", "boxes")["boxes"]
    assert box["centerRAS"] == pytest.approx(lesion.centerRAS.tolist())


@pytest.mark.parametrize("inside", [None, "../../out.mrml", "/tmp/out.mrml", "empty.mrml"])
def test_a_scene_that_is_damaged_or_unpacks_elsewhere_is_refused(visitor, shelf, inside):
    here = os.getcwd()
    with zipfile.ZipFile(shelf / "broken.mrb", "w") as archive:
        archive.writestr(inside or "a", "<MRML/>")
    if inside is None:
        (shelf / "broken.mrb").write_bytes(b"no zip")
    status, refused = visitor.ask("PUT", "ct", {"path": "broken.mrb"})
    assert status == 422
    assert "broken.mrb" in refused["message"]
    assert str(shelf) not in refused["message"]
    assert os.getcwd() == here


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_file_that_is_dropped_is_read_as_one_of_the_disk(visitor, shelf, tmp_path, ending):
    path = tmp_path / f"dropped{ending}"
    sitk.WriteImage(sitk.ReadImage(str(shelf / "patch.nrrd")), str(path))
    visitor.drop(path)
    told = visitor.got("PUT", "ct", {})
    assert told["name"] == path.name
    assert told["sizeIJK"] == list(read_ct(path).sizeIJK)


def test_a_dicom_folder_is_dropped_file_by_file(visitor, shelf, box):
    for path in sorted((shelf / "series").iterdir()):
        visitor.drop(path)
    (series,) = visitor.got("GET", "series")["series"]
    assert series["images"] == len(list((shelf / "series").iterdir()))
    told = visitor.got("PUT", "ct", {"series": series["number"]})
    assert told["details"]["sliceThicknessMm"] == pytest.approx(1.25)
    visitor.got("PUT", "boxes", {"boxes": [box]})
    visitor.classified()
    for name, kind in (("results.dcm", "SR"), ("lesions.seg.dcm", "SEG")):
        assert visitor.got("GET", name)[128:132] == b"DICM", kind


def test_two_series_are_listed_and_one_has_to_be_chosen(visitor, patch, write_dicom, tmp_path):
    for number in (1, 2):
        folder = write_dicom(tmp_path / str(number), patch[0], series=f"1.2.3.{number}", number=number)
        for path in sorted(folder.iterdir()):
            visitor.drop(path)
    assert [one["number"] for one in visitor.got("GET", "series")["series"]] == ["1", "2"]
    status, refused = visitor.ask("PUT", "ct", {})
    assert (status, refused["error"]) == (422, "VolumeError")
    visitor.got("PUT", "ct", {"series": "2"})


def test_nothing_that_names_the_patient_leaves_the_server(visitor, box):
    told = [visitor.got("PUT", "ct", {"path": "series"}), visitor.got("GET", "series?path=series")]
    visitor.got("PUT", "boxes", {"boxes": [box]})
    told += [visitor.classified(), visitor.got("GET", "results.json")]
    text = json.dumps(told)
    for secret in ("Doe", "Jane", "HOSPITAL-4711", "19700102", "1.2.826.0.1.3680043.8.498"):
        assert secret not in text


def test_boxes_come_back_from_the_file_they_were_saved_in(visitor, box):
    visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    before = visitor.got("PUT", "boxes", {"boxes": [box, second(box)]})
    saved = json.dumps(visitor.got("GET", "boxes.mrk.json")).encode()
    visitor.got("PUT", "boxes", {"boxes": []})
    assert visitor.got("PUT", "boxes.mrk.json", saved, kind="text/plain") == before
    csv = "name,frame,center_x,center_y,center_z,size_x,size_y,size_z\nA,LPS,1,2,3,4,5,6\n"
    (loaded,) = visitor.got("PUT", "boxes.mrk.json", csv.encode(), kind="text/plain")["boxes"]
    assert loaded["centerRAS"] == [-1, -2, 3]


def test_a_file_that_does_not_say_its_frame_is_answered_with_a_warning(visitor, box):
    visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    visitor.got("PUT", "boxes", {"boxes": [box]})
    saved = visitor.got("GET", "boxes.mrk.json")
    del saved["markups"][0]["coordinateSystem"]
    visitor.got("PUT", "boxes.mrk.json", json.dumps(saved).encode(), kind="text/plain")
    assert any("LPS or RAS" in text for text in visitor.classified()["lesions"][0]["warnings"])


def test_a_box_outside_the_ct_is_refused_in_plain_words(visitor, box):
    visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    visitor.got("PUT", "boxes", {"boxes": [{**box, "centerRAS": [900, 0, 0]}]})
    visitor.got("POST", "job", {})
    job = visitor.waited()
    assert job["state"] == "failed"
    assert job["error"]["error"] == "BoxError"
    assert "outside the volume" in job["error"]["message"]


def test_the_voxels_are_what_they_are_packed_or_not(tmp_path, visitor, shelf):
    raw = tmp_path / "a.nii"
    sitk.WriteImage(sitk.ReadImage(str(shelf / "patch.nrrd")), str(raw))
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(raw.read_bytes()))
    visitor.drop(packed)
    told = visitor.got("PUT", "ct", {})
    assert told["sizeIJK"] == list(read_ct(raw).sizeIJK)
