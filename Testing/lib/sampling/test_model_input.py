"""What a model looked at, as boxes: where the patch shows the CT, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from LesionLib.geometry import transformed_points
from LesionLib.model.folder import golden_case
from LesionLib.sampling.inputs import crop_sample, model_input_boxes
from LesionLib.sampling.planes import OrthogonalPlanesSpec, SliceWithNeighboursSpec
from LesionLib.sampling.resample import AxialStackSpec
from LesionLib.sampling.volumes import IsotropicCubeSpec


def test_of_a_stack_it_is_the_box_and_its_margin_to_a_pixel():
    volume, box = golden_case()
    spec = AxialStackSpec(margin_mm=3.0)
    sample = crop_sample(volume, box, spec)
    (seen,) = model_input_boxes(sample, "L1")
    np.testing.assert_allclose(seen.axesRAS, box.axesRAS, atol=1e-9)
    np.testing.assert_allclose(seen.sizeMm[:2], box.sizeMm[:2] + 6.0, atol=sample.pixel_mm)
    assert seen.sizeMm[2] == pytest.approx(len(sample.hu) * sample.slice_step_mm)
    np.testing.assert_allclose((seen.centerRAS - box.centerRAS) @ box.axesRAS[:, :2], 0, atol=1e-6)
    assert seen.name == "L1"


def test_a_cube_is_itself():
    volume, box = golden_case()
    (seen,) = model_input_boxes(crop_sample(volume, box, IsotropicCubeSpec(edge_mm=30.0, voxels=20)), "L1")
    np.testing.assert_allclose(seen.sizeMm, 30.0)
    np.testing.assert_allclose(seen.centerRAS, box.centerRAS, atol=1e-9)


def test_a_slice_with_its_neighbours_is_one_box_of_three_slices():
    volume, box = golden_case()
    spec = SliceWithNeighboursSpec(size=48, view="box", margin_mm=2.0)
    sample = crop_sample(volume, box, spec)
    (seen,) = model_input_boxes(sample, "L1")
    np.testing.assert_allclose(seen.sizeMm[:2], box.sizeMm[:2] + 4.0, atol=sample.pixel_mm + 1e-6)
    assert 2 * volume.sliceDistanceMm < seen.sizeMm[2] < 4 * volume.sliceDistanceMm + 1


def test_three_orthogonal_planes_are_three_thin_boxes_through_the_lesion():
    volume, box = golden_case()
    planes = model_input_boxes(crop_sample(volume, box, OrthogonalPlanesSpec(rows=64, columns=64)), "L1")
    assert len(planes) == 3
    normals = np.stack([plane.axesRAS[:, 2] for plane in planes], axis=1)
    np.testing.assert_allclose(np.abs(normals.T @ normals), np.eye(3), atol=1e-6)
    for plane in planes:
        crossing = transformed_points(np.linalg.inv(plane.boxToRAS), box.centerRAS)
        assert (np.abs(crossing) <= plane.sizeMm / 2 + 1e-6)[:2].all()
