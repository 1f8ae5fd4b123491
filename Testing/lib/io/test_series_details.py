"""What the headers of a DICOM series tell people: which image lies where, how thick, by which kernel, of which day."""

from __future__ import annotations

import numpy as np
import pytest
from foreign_dicom import FIRST_LPS, write_ct, write_enhanced_ct
from LesionLib.io.series_details import SeriesDetails, series_details
from LesionLib.io.volumes import choose_series, even_slices, read_volume


def details_of(folder, change=None, **given) -> SeriesDetails:
    write_ct(folder, change=change, **given)
    return series_details(choose_series(folder, None))


def point_at(height: float) -> list[float]:
    return [-FIRST_LPS[0] - 5.0, -FIRST_LPS[1] - 7.0, height]


def from_the_head(data, k) -> None:
    data.InstanceNumber = 100 - k


def test_the_instance_of_a_point_is_that_of_the_slice_it_lies_in_whichever_way_they_are_counted(tmp_path):
    details = details_of(tmp_path / "ct", from_the_head)
    assert details.instance_at(point_at(-120.0)) == 100
    assert details.instance_at(point_at(-110.9)) == 100 - 5
    assert details.instance_at(point_at(-82.0)) == 100 - 19


def test_the_instance_is_right_where_slices_are_missing_and_none_is_said_between_them(tmp_path):
    heights = [-120.0 + 2.0 * k for k in range(20) if k not in (8, 9, 10)]
    details = details_of(tmp_path / "ct", from_the_head, heights=heights)
    volume = even_slices(read_volume(tmp_path / "ct"))
    assert volume.sizeIJK[2] == 20  # the slices between were made up
    assert details.instance_at(point_at(heights[10])) == 90
    assert details.instance_at(point_at(-102.0)) is None


def test_a_point_beside_the_stack_has_no_instance(tmp_path):
    details = details_of(tmp_path / "ct", from_the_head)
    assert details.instance_at(point_at(-125.0)) is None
    assert details.instance_at(point_at(-60.0)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data, k: setattr(data, "InstanceNumber", None),
        lambda data, k: setattr(data, "InstanceNumber", k // 2),
        lambda data, k: delattr(data, "InstanceNumber"),
    ],
    ids=["empty", "twice", "missing"],
)
def test_numbers_that_do_not_tell_the_images_apart_are_not_said(tmp_path, change):
    def changed(data, k):
        data.InstanceNumber = k + 1
        change(data, k)

    assert details_of(tmp_path / "ct", changed).instance_at(point_at(-110.0)) is None


def test_an_image_of_many_frames_has_no_instance_numbers(tmp_path):
    (tmp_path / "ct").mkdir()
    write_enhanced_ct(tmp_path / "ct" / "enhanced.dcm")
    details = series_details(choose_series(tmp_path / "ct", None))
    assert details.instance_at(point_at(-100.0)) is None


def test_thickness_kernel_day_and_description_are_what_all_images_say(tmp_path):
    def change(data, _k):
        data.SliceThickness, data.ConvolutionKernel = 2.5, ["I26f", "3"]
        data.StudyDate, data.SeriesDescription = "20190314", " thorax\tthin "

    details = details_of(tmp_path / "ct", change)
    assert (details.thickness_mm, details.kernel) == (2.5, "I26f 3")
    assert (details.study_date, details.description) == ("2019-03-14", "thorax thin")
    assert set(details.to_json(identifying=False)) == {"sliceThicknessMm", "kernel"}
    assert details.to_json(identifying=True)["studyDate"] == "2019-03-14"


@pytest.mark.parametrize("date", ["20191399", "yesterday", "2019", ""])
def test_what_images_do_not_say_alike_or_say_wrongly_is_empty_and_the_ct_is_read_all_the_same(tmp_path, date):
    def change(data, k):
        data.SliceThickness, data.ConvolutionKernel = 2.0 + k % 2, f"B{30 + k % 2}"
        del data.StudyDate
        if date:
            data.add_new("StudyDate", "LO", date)

    details = details_of(tmp_path / "ct", change)
    assert (details.thickness_mm, details.kernel, details.study_date) == (None, "", "")
    assert np.isfinite(read_volume(tmp_path / "ct").array).all()
