"""The overview and the strip of slices of a report: the frame lies around the lesion, the slices go through its box."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from LesionLensApp.display_windows import WINDOWS
from LesionLensApp.report import overview_picture, slices_through
from LesionLib.geometry import CTVolume, LesionBox
from PIL import Image

FRAME = (255, 205, 0)


@pytest.fixture(params=[1.0, -1.0], ids=["head last", "head first"])
def ball(request) -> tuple[CTVolume, LesionBox]:
    """A ball of 6 mm radius in air, to the patient's left, front and below the middle of a CT that is no square."""
    ijkToRAS = np.diag([-1.0, -1.0, 2.5 * request.param, 1.0])
    ijkToRAS[:3, 3] = [60.0, 45.0, -40.0 * request.param]
    center = np.array([-35.0, 20.0, -12.0])
    k, j, i = np.indices((33, 90, 120))
    points = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ ijkToRAS.T
    inside = np.linalg.norm(points[..., :3] - center, axis=-1) < 6
    volume = CTVolume(np.where(inside, 100, -950).astype(np.int16), ijkToRAS, name="CT")
    return volume, LesionBox(center, [14.0, 14.0, 15.0], name="L1")


def test_the_frame_of_the_overview_lies_around_the_lesion(ball):
    picture = overview_picture(*ball, WINDOWS["lung"])
    rows, columns = np.nonzero((picture == FRAME).all(axis=-1))
    middle = np.array([np.ptp(rows) / 2 + rows.min(), np.ptp(columns) / 2 + columns.min()])
    lit = (picture.min(axis=-1) > 200) & ~(picture == FRAME).all(axis=-1)
    assert lit.any()
    assert np.argwhere(lit).mean(axis=0) == pytest.approx(middle, abs=1.5)
    pixelMm = 120 / 240
    assert np.ptp(columns) * pixelMm == pytest.approx(14 + 2, abs=1.5)
    assert middle[1] > 120 > middle[0]  # the patient's left is on the right, the front above


def test_the_slices_go_from_above_through_the_whole_box_and_show_the_lesion_largest_in_its_middle(ball):
    volume, box = ball
    strip = slices_through(volume, box, WINDOWS["lung"], widthMm=44.0)
    assert [part.heightMm for part in strip] == pytest.approx(np.linspace(-5.75, -18.25, 6))
    lit = [
        (np.asarray(Image.open(io.BytesIO(base64.b64decode(part.image.partition(",")[2])))) > 200).sum()
        for part in strip
    ]
    assert np.argmax(lit) in (2, 3)
    assert min(lit[0], lit[-1]) < lit[2] / 2


def test_a_thick_box_has_no_more_than_eleven_slices_and_a_thin_one_has_one(ball):
    volume, box = ball
    for heightMm, count in ((60.0, 11), (1.0, 1)):
        tall = LesionBox(box.centerRAS, [14.0, 14.0, heightMm], name="L1")
        assert len(slices_through(volume, tall, WINDOWS["lung"], widthMm=44.0)) == count
