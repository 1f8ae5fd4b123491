"""The scene without the application: `slicer.util` works, the terminal stays clean, the process ends well."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from LesionClassifierLib.headless import startHeadlessSlicer


def _run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_starting_twice_gives_the_same_scene(headless):
    assert startHeadlessSlicer() is headless
    assert slicer.mrmlScene is headless.scene
    assert slicer.app.mrmlScene() is headless.scene
    assert Path(slicer.app.temporaryPath).is_dir()


def test_modules_are_found_by_name(headless):
    assert slicer.modules.markups.logic().IsA("vtkSlicerMarkupsLogic")
    assert headless.applicationLogic.GetModuleLogic("Volumes") is slicer.modules.volumes.logic()


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz"])
def test_a_saved_volume_comes_back(scene, tmp_path, ending):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert slicer.util.saveNode(slicer.util.addVolumeFromArray(array, name="A"), str(tmp_path / f"A.{ending}"))
    again = slicer.util.loadVolume(str(tmp_path / f"A.{ending}"), {"name": "B"})
    assert again.GetName() == "B"
    assert np.array_equal(slicer.util.arrayFromVolume(again), array)


def test_a_saved_segmentation_comes_back(scene, tmp_path):
    volume = slicer.util.addVolumeFromArray(np.zeros((8, 9, 10), np.int16))
    mask = np.zeros((8, 9, 10), np.uint8)
    mask[2:5, 3:6, 4:7] = 1
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("lesion")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
    assert slicer.util.saveNode(segmentation, str(tmp_path / "S.seg.nrrd"))
    again = slicer.util.loadSegmentation(str(tmp_path / "S.seg.nrrd"))
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(again, segment, volume), mask)


@pytest.mark.parametrize("target", ["scene.mrb", "a folder"])
def test_a_saved_scene_comes_back(scene, tmp_path, target):
    slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16), name="kept")
    assert slicer.util.saveScene(str(tmp_path / target))
    scene.Clear(False)
    saved = tmp_path / target
    slicer.util.loadScene(str(saved if saved.is_file() else next(saved.glob("*.mrml"))))
    assert slicer.util.array("kept").sum() == 8


def test_a_text_and_a_table_come_back(scene, tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert slicer.util.loadText(str(tmp_path / "note.txt")).GetText() == "hello"
    assert slicer.util.loadTable(str(tmp_path / "t.csv")).GetNumberOfColumns() == 2


def test_loading_a_missing_file_says_which(scene):
    with pytest.raises(RuntimeError, match=r"there is no file .*nowhere\.nrrd"):
        slicer.util.loadVolume("/nowhere.nrrd")


def test_loading_a_file_of_the_wrong_kind_is_refused(scene, tmp_path):
    (tmp_path / "A.nrrd").write_text("this is no volume")
    with pytest.raises(RuntimeError, match="cannot be read as VolumeFile"):
        slicer.util.loadVolume(str(tmp_path / "A.nrrd"))


def test_errors_of_vtk_are_logged_and_not_printed(headless, caplog, capfd):
    reader = vtk.vtkXMLImageDataReader()
    reader.SetFileName("/nowhere.vti")
    with caplog.at_level(logging.ERROR, logger="LesionLens.vtk"):
        reader.Update()
    assert "/nowhere.vti" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_process_ends_quietly_and_leaves_no_folder_behind():
    code = (
        "import numpy, slicer; from LesionClassifierLib.headless import startHeadlessSlicer;"
        "h = startHeadlessSlicer(); import slicer.util;"
        "v = slicer.util.addVolumeFromArray(numpy.zeros((2, 2, 2))); print(h.temporaryPath)"
    )
    done = _run(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(done.stdout.strip()).exists()


def test_inside_slicer_it_refuses_to_start():
    done = _run(
        "import slicer; slicer.app = object()\n"
        "from LesionClassifierLib.headless import startHeadlessSlicer\n"
        "try: startHeadlessSlicer()\nexcept RuntimeError as error: print(error)"
    )
    assert "Slicer application is running" in done.stdout
