"""The segments of a segmentation node as masks, each on the smallest lattice that holds it, and masks as segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import slicer.util
import vtk
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, transformed_points
from scipy import ndimage
from slicer import vtkMRMLScene, vtkMRMLSegmentationNode
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .volume_nodes import parentToWorld


def segmentMasks(segmentationNode: vtkMRMLSegmentationNode) -> dict[str, CTVolume]:
    """Every segment that holds a voxel, by its ID, as 0 and 1 in world RAS mm, named as the segment.

    Slicer keeps many segments in one label map: each is walked through once, so that fifty segments stay usable.
    Raises `BoxError` for segments that cannot be made voxels, or under a non-linear transform.
    """
    toWorld = parentToWorld(segmentationNode, BoxError)
    segmentation = segmentationNode.GetSegmentation()
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation.GetNumberOfSegments() and not segmentation.CreateRepresentation(representation):
        msg = (
            f"{segmentationNode.GetName()}: its segments cannot be turned into voxels; create a binary label map first."
        )
        raise BoxError(msg)
    layers: dict[int, tuple[vtk.vtkImageData, dict[int, str]]] = {}
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        image = segment.GetRepresentation(representation)
        layers.setdefault(id(image), (image, {}))[1][segment.GetLabelValue()] = segmentId
    found = {}
    for image, idOfLabel in layers.values():
        found.update(_masksOfLayer(image, idOfLabel, toWorld))
    names = {segmentId: segmentation.GetSegment(segmentId).GetName() for segmentId in segmentation.GetSegmentIDs()}
    return {i: CTVolume(*found[i], names[i]) for i in names if i in found}


def _masksOfLayer(
    image: vtk.vtkImageData, idOfLabel: dict[int, str], toWorld: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    scalars = image.GetPointData().GetScalars()
    if scalars is None or scalars.GetNumberOfTuples() == 0:
        return {}
    labels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ijkToRAS = toWorld @ slicer.util.arrayFromVTKMatrix(matrix)
    origin = np.array(image.GetExtent()[::2])
    masks = {}
    for label, slices in enumerate(ndimage.find_objects(labels, max_label=max(idOfLabel)), start=1):
        if slices is None or label not in idOfLabel:
            continue
        cropToRAS = ijkToRAS.copy()
        cropToRAS[:3, 3] = transformed_points(ijkToRAS, origin + [s.start for s in reversed(slices)])
        masks[idOfLabel[label]] = ((labels[slices] == label).astype(np.uint8), cropToRAS)
    return masks


def addSegmentationNode(scene: vtkMRMLScene, masks: Sequence[CTVolume], *, name: str) -> vtkMRMLSegmentationNode:
    """A segmentation with one segment a mask (0 and 1, world RAS mm), named as the mask; segments may overlap."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    segmentation = node.GetSegmentation()
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation.SetSourceRepresentationName(representation)
    for mask in masks:
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*mask.sizeIJK)
        image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(mask.ijkToRAS))
        scalars = numpy_to_vtk(mask.array.astype(np.uint8).ravel(), deep=True)
        image.GetPointData().SetScalars(scalars)
        segment = slicer.vtkSegment()
        segment.SetName(mask.name)
        segment.AddRepresentation(representation, image)
        segmentation.AddSegment(segment)
    segmentation.CollapseBinaryLabelmaps(False)
    return node
