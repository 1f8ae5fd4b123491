"""A lesion that a model learned from is recognised, however its CT was stored and its box drawn; another one is not."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.errors import BundleError
from LesionLib.geometry import LPS_TO_RAS, CTVolume, LesionBox
from LesionLib.io.volumes import read_volume
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.sampling.content_hash import METHOD, TrainingContent, lesion_hash, window_hashes


@pytest.fixture(scope="module")
def lesions() -> list[tuple[CTVolume, LesionBox]]:
    return [(v, n.box) for v, n in (nodule_patch(kind="round", diameter_mm=9.0 + s, seed=s) for s in range(6))]


@pytest.fixture(scope="module")
def known(lesions) -> TrainingContent:
    """The first three were learned from."""
    return TrainingContent.of(lesion_hash(*lesion) for lesion in lesions[:3])


def stored_otherwise(volume: CTVolume, axes: tuple[int, int, int], flipped: tuple[int, ...]) -> CTVolume:
    """The same voxels at the same places, with other axes in memory; ``axes`` and ``flipped`` are of (k, j, i)."""
    matrix = volume.ijkToRAS.copy()
    array, columns = volume.array.transpose(axes), matrix[:, :3][:, [2 - a for a in axes[::-1]]]
    matrix[:, :3] = columns
    for axis in flipped:
        array = np.flip(array, axis)
        matrix[:3, 3] += matrix[:3, 2 - axis] * (array.shape[axis] - 1)
        matrix[:3, 2 - axis] *= -1
    return CTVolume(array.astype(np.float32), matrix)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2)])
def test_the_order_and_direction_of_axes_in_memory_make_no_difference(lesions, axes, flipped):
    volume, box = lesions[0]
    assert lesion_hash(stored_otherwise(volume, axes, flipped), box) == lesion_hash(volume, box)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nii.gz", "ct.mha"])
def test_the_file_format_makes_no_difference(lesions, known, tmp_path, name):
    volume, box = lesions[0]
    lps = LPS_TO_RAS @ volume.ijkToRAS
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / name))
    assert known.holds(read_volume(tmp_path / name), box)


@pytest.mark.parametrize("change", [{}, {"grow": 4.0}, {"grow": -1.0}, {"shift": 2.0}])
def test_a_box_drawn_otherwise_finds_the_lesion_all_the_same(lesions, known, change):
    volume, box = lesions[1]
    drawn = replace(box.grown(change.get("grow", 0.0)), centerRAS=box.centerRAS + change.get("shift", 0.0))
    assert known.holds(volume, drawn)


def test_lesions_that_were_not_learned_from_are_not_recognised(lesions, known):
    assert [known.holds(volume, box) for volume, box in lesions] == [True] * 3 + [False] * 3


def test_a_crop_and_the_whole_ct_have_the_same_hash(lesions):
    volume, box = lesions[0]
    matrix = volume.ijkToRAS.copy()
    matrix[:3, 3] = (matrix @ [6, 5, 2, 1])[:3]
    crop = CTVolume(volume.array[2:-2, 5:-5, 6:-6], matrix)
    assert lesion_hash(crop, box) == lesion_hash(volume, box)


def test_a_resampled_ct_is_another_content(lesions, known):
    volume, box = lesions[0]
    blurred = (volume.array[:, :, :-1].astype(np.float32) + volume.array[:, :, 1:]) / 2
    assert not known.holds(CTVolume(blurred, volume.ijkToRAS), box)


def test_air_and_padding_have_nothing_to_be_recognised_by(lesions):
    volume, box = lesions[0]
    empty = replace(volume, array=np.full_like(volume.array, -1000))
    assert lesion_hash(empty, box) is None
    assert len(TrainingContent.of([None, None]).hashes) == 0
    assert not TrainingContent.of([None]).holds(volume, box)


def test_a_box_beside_the_volume_or_far_too_large_is_not_looked_at(lesions, known):
    volume, box = lesions[0]
    assert not window_hashes(volume, replace(box, centerRAS=box.centerRAS + 500)).size
    huge = CTVolume(np.zeros((220, 220, 220), np.int16), np.eye(4))
    assert not window_hashes(huge, LesionBox([110, 110, 110], [219, 219, 219])).size


def test_a_manifest_holds_eight_bytes_a_lesion_and_gives_them_back(known):
    section = known.to_manifest()
    assert section["method"] == METHOD
    assert len(base64.b64decode(section["hashes"])) == 8 * 3
    np.testing.assert_array_equal(TrainingContent.from_manifest(section).hashes, known.hashes)


def test_a_manifest_without_the_list_or_with_one_of_another_method_says_nothing():
    assert TrainingContent.from_manifest(None) is None
    assert TrainingContent.from_manifest({"method": "something-newer", "hashes": ""}) is None


@pytest.mark.parametrize("hashes", ["AAAA", "====", "AAAAAAAAAAA"])
def test_a_list_that_cannot_be_read_is_refused(hashes):
    with pytest.raises(BundleError, match="get the model again"):
        TrainingContent.from_manifest({"method": METHOD, "hashes": hashes})
