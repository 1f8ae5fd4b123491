"""Where a file lies is where 3D Slicer's own reader puts it; and a markups file that says two things is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from LesionClassifierLib.scene.lesions import loadRoiNodes
from LesionLib.errors import BoxError, WarningName
from LesionLib.io.volumes import read_volume

SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "scanner-xyz")
DIRECTIONS = "space directions: (0.8,0,0) (0,0.6,0) (0,0.1,2)"


def nrrd(path: Path, *lines: str) -> Path:
    head = ["NRRD0004", "type: short", "dimension: 3", "sizes: 8 9 10", "endian: little", "encoding: raw"]
    path.write_bytes("\n".join([*head, *lines, "", ""]).encode() + bytes(2 * 8 * 9 * 10))
    return path


def place_in_slicer(path: Path) -> np.ndarray:
    node, storage, matrix = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLNRRDStorageNode(), vtk.vtkMatrix4x4()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@pytest.mark.parametrize(
    ("lines", "is_guess"),
    [
        *[((f"space: {space}", DIRECTIONS, "space origin: (1,2,3)"), False) for space in SPACES],
        ((f"space: {SPACES[0]}", DIRECTIONS), True),
        (("spacings: 0.8 0.8 2",), True),
        (("space dimension: 3", DIRECTIONS, "space origin: (1,2,3)"), True),
    ],
)
def test_an_nrrd_lies_where_slicer_puts_it_and_a_guess_is_said_to_be_one(scene, tmp_path, lines, is_guess):
    path = nrrd(tmp_path / "ct.nrrd", *lines)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.ijkToRAS, place_in_slicer(path), atol=1e-5)
    assert [warning.name for warning in volume.warnings] == [WarningName.NO_GEOMETRY] * is_guess


def markups(path: Path, **values: object) -> Path:
    point = {"id": "1", "label": "R-1", "position": [10.0, 20.0, 30.0], "positionStatus": "defined"}
    roi = {
        "type": "ROI", "coordinateSystem": "LPS", "coordinateUnits": "mm", "roiType": "Box", "center": [10.0, 20.0, 30.0],
        "orientation": [-1, 0, 0, 0, -1, 0, 0, 0, 1], "size": [8, 8, 8], "controlPoints": [point],
    }  # fmt: skip
    path.write_text(json.dumps({"markups": [{**roi, **values}]}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"coordinateUnits": "cm"}, "coordinateUnits is 'cm'; only mm"),
        ({"orientation": [2, 0, 0, 0, 2, 0, 0, 0, 2]}, "its orientation scales by 2, 2, 2"),
        ({"center": [10.0, 25.0, 30.0]}, "5.0 mm from it; Slicer takes the control point"),
        ({"roiType": "BoundingBox"}, "this ROI is a 'BoundingBox'; draw a box"),
    ],
)
def test_a_markups_file_that_says_two_things_is_refused_with_both(scene, tmp_path, values, said):
    assert len(loadRoiNodes(scene, markups(tmp_path / "sound.mrk.json"))) == 1
    with pytest.raises(BoxError, match=said):
        loadRoiNodes(scene, markups(tmp_path / "b.mrk.json", **values))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_markups_file_in_another_encoding_is_named_as_such(scene, tmp_path, encoding):
    path = markups(tmp_path / "b.mrk.json")
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    with pytest.raises(BoxError, match="in another encoding than Slicer's"):
        loadRoiNodes(scene, path)


def test_a_markups_file_nested_without_end_is_one_line(scene, tmp_path):
    path = tmp_path / "b.mrk.json"
    path.write_text('{"markups":' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(BoxError, match="not a Slicer markups file"):
        loadRoiNodes(scene, path)
