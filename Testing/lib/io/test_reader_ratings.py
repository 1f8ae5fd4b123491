"""What LIDC's readers said of a nodule becomes a kind, by majority, or none."""

from __future__ import annotations

import pytest
from LesionLib.io.boxes import CaseTableError
from LesionLib.io.reader_ratings import RATINGS, kind_of_ratings, kinds_by_file


@pytest.mark.parametrize(
    ("texture", "calcification", "kind"),
    [
        ((5, 5, 4), (6, 6, 6), "solid"),
        ((1, 2, 5), (6, 6, 6), "subsolid"),
        ((1, 5), (6, 6), ""),
        ((3, 5, 5), (6, 6, 6), ""),
        ((5, 5, 5), (3, 4, 6), "calcified"),
        ((5, 5), (3, 6), ""),
    ],
)
def test_the_kind_is_what_most_readers_saw_and_a_tie_has_none(texture, calcification, kind):
    assert kind_of_ratings(texture, calcification) == kind


def test_only_nodules_whose_readers_were_matched_have_a_kind(tmp_path):
    lines = ["file,match,texture,calcification", "a.nii.gz,yes,5,6", "a.nii.gz,yes,4,6", "b.nii.gz,check,5,6"]
    (tmp_path / RATINGS).write_text("\n".join(lines) + "\n")
    assert kinds_by_file(tmp_path) == {"a.nii.gz": "solid"}


def test_a_folder_without_ratings_and_a_rating_that_is_none_are_named(tmp_path):
    with pytest.raises(CaseTableError, match=RATINGS):
        kinds_by_file(tmp_path)
    (tmp_path / RATINGS).write_text("file,match,texture,calcification\na.nii.gz,yes,soft,6\n")
    with pytest.raises(CaseTableError, match="line 2"):
        kinds_by_file(tmp_path)
