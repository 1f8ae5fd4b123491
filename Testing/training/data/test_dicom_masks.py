"""Training tables whose masks are DICOM segmentations: the segment that is named, where it lies on the CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_segmentations import KINDS, ball_and_cube, write_seg
from foreign_dicom import BALL_RAS, write_ct
from lesion_tables import read_table, write_rows
from LesionLib.errors import BoxError
from lesiontraining.data.lesions import ct_lesions


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_ct(folder / "ct")
    return folder


def boxes_of(study: Path, mask: Path, **columns: object):
    row = {"volume": "ct", "mask": str(mask), "kind": "solid", "patient": "1", **columns}
    table = read_table("table", write_rows(study / "lesions.csv", [row]), label="kind")
    return [box for _, _, box in ct_lesions(table, margin_mm=0)]


@pytest.mark.parametrize("kind", [KINDS.BINARY, KINDS.LABELMAP, KINDS.FRACTIONAL])
def test_the_named_segment_is_the_lesion_and_lies_on_it(study, kind):
    both = ball_and_cube(study / "ct")
    both[..., 1] &= 1 - both[..., 0]
    pixels = both.astype(np.float32) if kind is KINDS.FRACTIONAL else both
    mask = write_seg(study / "ct", study / f"{kind.value}.dcm", pixels, kind, ("tumour", "cyst"))
    (ball,) = boxes_of(study, mask, mask_value=1)
    (cube,) = boxes_of(study, mask, mask_value=2)
    np.testing.assert_allclose(ball.centerRAS, BALL_RAS, atol=0.51)
    assert np.linalg.norm(cube.centerRAS - ball.centerRAS) > 5
    assert ball.segment.array.sum() == both[..., 0].sum()


def test_segments_that_overlap_are_told_apart_by_their_number(study):
    both = ball_and_cube(study / "ct")
    both[9:12, 13:19, 14:24, 1] = 1
    mask = write_seg(study / "ct", study / "overlapping.dcm", both, KINDS.BINARY, ("tumour", "cyst"))
    for value in (1, 2):
        (box,) = boxes_of(study, mask, mask_value=value)
        assert box.segment.array.sum() == both[..., value - 1].sum()


@pytest.mark.parametrize("place", ["a folder with it alone", "a file without an ending"])
def test_it_is_known_by_what_it_is_and_not_by_its_ending(study, tmp_path, place):
    folder = tmp_path / "seg"
    folder.mkdir()
    both = ball_and_cube(study / "ct")
    both[9:12, 13:19, 14:24, 1] = 1
    written = write_seg(study / "ct", folder / "IM0001", both, KINDS.BINARY, ("tumour", "cyst"))
    (box,) = boxes_of(study, folder if place.startswith("a folder") else written, mask_value=2)
    assert box.segment.array.sum() == both[..., 1].sum()


def test_a_segment_that_is_not_there_is_refused_with_those_that_are(study):
    mask = write_seg(study / "ct", study / "one.dcm", ball_and_cube(study / "ct"), KINDS.BINARY, ("tumour", "cyst"))
    with pytest.raises(BoxError, match=r"one.dcm has no segment 5 \(it holds 1, 2\)"):
        boxes_of(study, mask, mask_value=5)
