"""Names that no file can have, as a damaged or foreign table, header or link holds them: refused in one line of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from LesionLib.errors import BundleError, LesionLensError, VolumeError
from LesionLib.io.boxes import CaseTableError, read_boxes_csv, read_case_table
from LesionLib.io.segmentations import read_label_map, read_segments
from LesionLib.io.volumes import read_ct, read_image, series_at, volume_without_voxels
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import find_bundle
from LesionRetrievalLib.quiz.file import load_quiz

NAMES = {"of 3,000 letters": "x" * 3000, "with a NUL": "a\0b", "with half a letter": "a\ud800b"}
READERS = {
    "a CT": read_ct,
    "an image": read_image,
    "the place of a CT": volume_without_voxels,
    "a label map": read_label_map,
    "masks": read_segments,
    "boxes": read_boxes_csv,
    "a model": load_bundle,
    "a quiz": load_quiz,
}


@pytest.fixture(params=NAMES.values(), ids=NAMES.keys())
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("what", READERS)
def test_every_reader_refuses_a_path_that_no_file_can_have(what, name, tmp_path):
    with pytest.raises(LesionLensError):
        READERS[what](tmp_path / f"{name}.nrrd")


def test_a_series_is_looked_for_in_folders_only(name, tmp_path):
    assert series_at(tmp_path / name, None) is None


def test_a_model_of_such_a_path_is_unknown(name, tmp_path):
    for path in (tmp_path / name, f"./{name}", name):
        with pytest.raises(BundleError, match="unknown model"):
            find_bundle(path)


def test_a_row_of_a_case_table_that_names_such_a_file_is_named_with_its_line(name, tmp_path):
    content = f"file,malignant\n{name}.nrrd,1\n".encode("utf-8", "surrogatepass")
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(CaseTableError, match=r"cases\.csv"):
        read_case_table(tmp_path, columns=["malignant"])


@pytest.mark.parametrize(
    ("ending", "head"),
    [
        (
            "nhdr",
            "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nspacings: 1 1 1\nencoding: raw\ndata file: {}\n\n",
        ),
        (
            "mhd",
            "NDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_SHORT\nElementDataFile = {}\n",
        ),
    ],
)
def test_a_header_that_names_such_a_file_for_its_voxels_is_refused(ending, head, name, tmp_path):
    path = Path(tmp_path, f"ct.{ending}")
    path.write_bytes(head.format(name).encode("utf-8", "surrogatepass"))
    with pytest.raises(VolumeError, match="missing|cannot be read|outside its folder"):
        read_ct(path)
