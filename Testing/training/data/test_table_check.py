"""The checker finds what was put in, names its row, says all at once, and leaves a sound table in peace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.io.boxes import MmBox, VoxelBox
from lesiontraining.data.checks import check_table, volume_without_voxels
from lesiontraining.data.lesions import LesionRow, LesionTable
from lesiontraining.data.messages import TableError
from lesiontraining.data.sources import Photograph, SlicesSource, VolumeSource
from phantom_cases import write_cases, write_volume
from PIL import Image


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("cases"), patients=6)


@pytest.fixture
def table(cases):
    rows = []
    for line, case in enumerate(cases, start=2):
        place = MmBox("RAS", tuple(case.box.centerRAS), tuple(case.box.sizeMm))
        rows.append(LesionRow(line, f"L{line}", case.patient, VolumeSource(case.volume_path, place), case.kind))
    return LesionTable(tuple(rows), ("round", "spiculated"), "lesions.csv")


def changed(table, place, **values):
    rows = list(table.rows)
    rows[place] = replace(rows[place], **values)
    return replace(table, rows=tuple(rows))


def problems_of(table, **options):
    with pytest.raises(TableError) as caught:
        check_table(table, progress=False, **options)
    return [str(problem) for problem in caught.value.problems]


def test_a_sound_table_passes(table):
    check_table(table, folds=3, progress=False)


def test_the_header_gives_the_same_place_as_the_whole_file(cases):
    volume = volume_without_voxels(cases[0].volume_path)
    assert volume.sizeIJK == cases[0].volume.sizeIJK
    assert np.allclose(volume.ijkToRAS, cases[0].volume.ijkToRAS, atol=1e-4)
    assert volume.array.strides == (0, 0, 0)


def test_a_box_in_the_wrong_frame_is_guessed(table):
    box = table.rows[1].source.location
    wrong = changed(table, 1, source=replace(table.rows[1].source, location=replace(box, frame="LPS")))
    (text,) = problems_of(wrong)
    assert text.startswith("line 3: the box lies outside case1.nii.gz by ")
    assert text.endswith("it would lie inside if its frame were RAS, not LPS")


def test_a_box_of_another_ct_is_outside_in_both_frames(table):
    far = replace(table.rows[1].source.location, center=(0.0, 0.0, 9000.0))
    (text,) = problems_of(changed(table, 1, source=replace(table.rows[1].source, location=far)))
    assert "does it belong to this CT?" in text


def test_a_voxel_box_beyond_the_volume_is_outside(table):
    source = replace(table.rows[0].source, location=VoxelBox((500, 500, 500), (510, 510, 510)))
    (text,) = problems_of(changed(table, 0, source=source))
    assert "line 2: the box lies outside case0.nii.gz" in text


def test_missing_files_and_files_that_are_no_volume_are_named(table, tmp_path):
    (tmp_path / "text.nii.gz").write_text("not a volume")
    wrong = changed(table, 0, source=replace(table.rows[0].source, volume=tmp_path / "nowhere.nii.gz"))
    wrong = changed(wrong, 2, source=replace(table.rows[2].source, volume=tmp_path / "text.nii.gz"))
    first, second = problems_of(wrong)
    assert "line 2: the volume" in first
    assert "nowhere.nii.gz is missing" in first
    assert "line 4" in second
    assert "text.nii.gz cannot be read as an image" in second


def test_an_empty_mask_and_a_label_it_does_not_hold_say_what_it_holds(table, cases, tmp_path):
    empty = write_volume(np.zeros_like(cases[0].mask), cases[0].volume.ijkToRAS, tmp_path / "empty.nii.gz")
    wrong = changed(table, 0, source=VolumeSource(cases[0].volume_path, mask=empty))
    wrong = changed(wrong, 1, source=VolumeSource(cases[1].volume_path, mask=cases[1].mask_path, mask_value=7))
    first, second = problems_of(wrong)
    assert "the mask empty.nii.gz has no voxel above 0" in first
    assert "no voxel equal to 7 (it holds 0, 1)" in second


def test_a_mask_of_another_lesion_than_the_box_is_found(table, cases, tmp_path):
    elsewhere = np.zeros_like(cases[0].mask)
    elsewhere[0, 0, 0] = 1
    mask = write_volume(elsewhere, cases[0].volume.ijkToRAS, tmp_path / "corner.nii.gz")
    (text,) = problems_of(changed(table, 0, source=replace(table.rows[0].source, mask=mask)))
    assert "do not meet" in text


def test_the_same_box_and_the_same_name_twice_are_doubles(table):
    wrong = changed(table, 3, source=table.rows[0].source)
    wrong = changed(wrong, 4, lesion_id="L3")
    first, second = problems_of(wrong)
    assert first == "line 5: the same place in the same file stands in line 2 already"
    assert second == "line 6: the lesion 'L3' stands in line 3 already"


def test_a_patient_on_two_sides_is_named_with_both_lines(table):
    divided = replace(table, rows=tuple(replace(r, split=("train", "test")[r.line % 2]) for r in table.rows))
    check_table(divided, split_column="split", progress=False)
    (text,) = problems_of(changed(divided, 3, patient="p0 "), split_column="split")
    assert text == "line 5: the patient 'p0' is on several sides of the split: 'train' (line 2), 'test' (line 5)"


def test_too_few_patients_of_a_class_for_the_folds_are_counted(table):
    texts = problems_of(table, folds=4)
    assert len(texts) == 2
    assert "the class 'round' has 3 patient(s), too few for 4 folds" in texts[0]


def test_empty_labels_empty_classes_and_a_single_class_are_problems(table):
    assert problems_of(changed(table, 0, label=""))[0].startswith("line 2: the label is empty")
    assert (
        "no lesion is of the class 'lobulated'"
        in problems_of(replace(table, class_names=("round", "spiculated", "lobulated")))[0]
    )
    only = replace(table, rows=table.rows[::2], class_names=("round",))
    assert "there is only the class 'round'" in problems_of(only)[0]
    check_table(changed(table, 0, label=""), labelled=False, progress=False)


def test_every_problem_is_said_at_once(table, tmp_path):
    wrong = changed(table, 0, source=replace(table.rows[0].source, volume=tmp_path / "a.nii"))
    wrong = changed(wrong, 1, label="oval")
    wrong = changed(wrong, 2, lesion_id="L2")
    assert [text.split(":")[0] for text in problems_of(wrong)] == ["line 2", "line 3", "line 4"]


def test_pictures_and_slices_are_looked_at_too(tmp_path):
    Image.new("I;16", (20, 20)).save(tmp_path / "deep.png")
    Image.new("L", (20, 20)).save(tmp_path / "007.png")
    Image.new("I;16", (20, 20)).save(tmp_path / "008.png")
    (tmp_path / "text.jpg").write_text("no image")
    box, outside, spacing = (2.0, 2.0, 8.0, 8.0), (30.0, 2.0, 40.0, 8.0), (1.0, 1.0, 5.0)
    sources = [
        Photograph(tmp_path / "deep.png"), Photograph(tmp_path / "text.jpg"), Photograph(tmp_path / "no.jpg"),
        SlicesSource(tmp_path, 7, box, spacing), SlicesSource(tmp_path, 8, outside, spacing),
        SlicesSource(tmp_path, 9, box, spacing), SlicesSource(tmp_path, 8, box, spacing),
    ]  # fmt: skip
    rows = tuple(LesionRow(line, f"L{line}", f"P{line}", s, "ab"[line % 2]) for line, s in enumerate(sources, start=1))
    texts = problems_of(LesionTable(rows, ("a", "b"), "t"))
    for text, words in zip(
        texts, ("more than 8 bits", "cannot be read", "is missing", "mode L", "outside 20 x 20", "missing"), strict=True
    ):
        assert words in text


def test_voxels_are_not_read(table, monkeypatch):
    monkeypatch.setattr(sitk, "ReadImage", lambda *_: pytest.fail("voxels were read"))
    check_table(table, progress=False)


def test_a_name_no_disk_can_hold_is_a_problem_of_its_row(table):
    source = replace(table.rows[0].source, volume=table.rows[0].source.volume.with_name("x" * 5000))
    assert problems_of(changed(table, 0, source=source))[0].startswith("line 2")


@pytest.mark.parametrize("name", ["x" * 3000, "a\0b", "a\ud800b"], ids=["too long", "NUL", "half a letter"])
def test_a_mask_or_an_image_that_no_disk_can_hold_is_a_problem_of_its_row(table, tmp_path, name):
    source = replace(table.rows[0].source, mask=tmp_path / name)
    assert problems_of(changed(table, 0, source=source))[0].startswith("line 2: the mask")
    slices = SlicesSource(tmp_path / name, 30, (1.0, 1.0, 9.0, 9.0), (0.8, 0.8, 5.0))
    for row, what in ((slices, "the key slice"), (Photograph(tmp_path / name), "the image")):
        assert problems_of(changed(table, 0, source=row))[0].startswith(f"line 2: {what}")


def test_a_mask_is_read_anew_when_its_file_changed(cases, tmp_path):
    path = write_volume(cases[0].mask, cases[0].volume.ijkToRAS, tmp_path / "mask.nii.gz")
    before = VolumeSource(cases[0].volume_path, mask=path).lesion(cases[0].volume, name="a").sizeMm
    smaller = np.zeros_like(cases[0].mask)
    smaller[7, 15, 15] = 1
    write_volume(smaller, cases[0].volume.ijkToRAS, path)
    after = VolumeSource(cases[0].volume_path, mask=path).lesion(cases[0].volume, name="a").sizeMm
    assert after.tolist() == [1, 1, 2]
    assert (before > after).any()
