"""CT volumes: from a volume node to a `CTVolume` and back, without a copy and without losing geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from LesionLib.errors import LesionLensError, OutputError, VolumeError
from LesionLib.geometry import CTVolume
from slicer import (
    vtkMRMLNode,
    vtkMRMLNRRDStorageNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLScene,
    vtkMRMLTransformableNode,
    vtkMRMLVolumeArchetypeStorageNode,
    vtkMRMLVolumeNode,
)
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

HEAT_MAP_ATTRIBUTE = "LesionLens.HeatMap"

# vtkImageData does not hold it; the wider type holds every value.
_WIDENED = {np.dtype(np.float16): np.float32}


def firstVolume(scene: vtkMRMLScene) -> vtkMRMLScalarVolumeNode | None:
    """The first volume that may be a CT to work on: no Grad-CAM, no hidden patch of a quiz or a comparison."""
    shown = (node for node in nodesOfClass(scene, "vtkMRMLScalarVolumeNode") if not node.GetHideFromEditors())
    return next((node for node in shown if not node.GetAttribute(HEAT_MAP_ATTRIBUTE)), None)


def heatMapIds(scene: vtkMRMLScene) -> list[str]:
    """The volumes that are maps of this extension, which no selector of a CT offers."""
    volumes = nodesOfClass(scene, "vtkMRMLScalarVolumeNode")
    return [node.GetID() for node in volumes if node.GetAttribute(HEAT_MAP_ATTRIBUTE)]


def nodesOfClass(scene: vtkMRMLScene, className: str) -> list[vtkMRMLNode]:
    """All nodes of a class (or derived from it) in this scene, in scene order."""
    return [scene.GetNthNodeByClass(n, className) for n in range(scene.GetNumberOfNodesByClass(className))]


def volumeFromNode(volumeNode: vtkMRMLVolumeNode) -> CTVolume:
    """The node's voxels and where they lie in world RAS mm, parent transforms included.

    The array is the node's own memory, not a copy: treat it as read-only. Raises `VolumeError` for a node without an
    image, with several values per voxel (colour, vector), or under a non-linear transform.
    """
    name = volumeNode.GetName() or "volume"
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None or scalars.GetNumberOfTuples() == 0:
        msg = f"{name}: the volume holds no image; load a CT into it."
        raise VolumeError(msg)
    if scalars.GetNumberOfComponents() != 1:
        count = scalars.GetNumberOfComponents()
        msg = f"{name}: the volume has {count} values per voxel (a colour or vector image); choose a CT."
        raise VolumeError(msg)
    ijkToNode = vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToNode)
    ijkToRAS = parentToWorld(volumeNode, VolumeError) @ arrayFromMatrix(ijkToNode)
    return CTVolume(vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1]), ijkToRAS, name=name)


def addVolumeNode(
    scene: vtkMRMLScene,
    volume: CTVolume,
    *,
    windowHU: float = 1500.0,
    levelHU: float = -600.0,
    isShared: bool = False,
) -> vtkMRMLScalarVolumeNode:
    """A CT as a new volume node, shown with a window (lung by default; width and centre in HU).

    The voxel type is kept, int16 stays int16. What the reader of the file noticed becomes the node's description.
    ``isShared``: the node shows the very memory of the array, which nobody may change afterwards.
    """
    node = addScalarVolume(scene, volume.array, volume.ijkToRAS, name=volume.name, isShared=isShared)
    node.SetDescription(" ".join(volume.warnings))
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.AutoWindowLevelOff()
    display.SetWindowLevel(windowHU, levelHU)
    return node


def addScalarVolume(
    scene: vtkMRMLScene, array: np.ndarray, ijkToRAS: np.ndarray, *, name: str, isShared: bool = False
) -> vtkMRMLScalarVolumeNode:
    """A volume node with default display from an array (k, j, i), which is copied unless ``isShared``, and its 4x4 to RAS mm."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    node.SetName(name)
    dtype = _WIDENED.get(array.dtype, array.dtype.newbyteorder("="))
    voxels = np.ascontiguousarray(array, dtype=dtype)
    node.SetAndObserveImageData(_imageOf(voxels, isShared=isShared))
    node.SetIJKToRASMatrix(matrixFromArray(ijkToRAS))
    node.CreateDefaultDisplayNodes()
    return node


def matrixFromArray(array: np.ndarray) -> vtkMatrix4x4:
    """The VTK matrix of a 4x4 array; outside of Slicer `slicer.util`'s twin loads all of VTK, a third of a second of processor."""
    matrix = vtkMatrix4x4()
    matrix.DeepCopy(array.ravel())
    return matrix


def arrayFromMatrix(matrix: vtkMatrix4x4) -> np.ndarray:
    """The array, float64 (4, 4), of a VTK matrix."""
    array = np.eye(4)
    matrix.DeepCopy(array.ravel(), matrix)
    return array


def _imageOf(array: np.ndarray, *, isShared: bool) -> vtkImageData:
    """An image of a contiguous array (k, j, i): a copy, or with the array's own memory, which it keeps alive."""
    image = vtkImageData()
    image.SetDimensions(array.shape[::-1])
    scalars = numpy_to_vtk(array.reshape(-1), deep=not isShared)
    if isShared:
        scalars.keptArray = array  # VTK keeps what Python hangs on its object as long as the object lives
    image.GetPointData().SetScalars(scalars)
    return image


def parentToWorld(node: vtkMRMLTransformableNode, errorClass: type[LesionLensError]) -> np.ndarray:
    """4x4 of all transforms above the node; identity without any. Raises ``errorClass`` where one is not linear."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    matrix = vtkMatrix4x4()
    if not parent.IsTransformToWorldLinear() or not parent.GetMatrixTransformToWorld(matrix):
        msg = f"{node.GetName()} is under the non-linear transform {parent.GetName()}; harden the transform first."
        raise errorClass(msg)
    return arrayFromMatrix(matrix)


_RIGHT_ANGLE = 1e-3


def requireRightAngles(ijkToRAS: np.ndarray, name: str) -> None:
    """Refuse a lattice that NIfTI as it is written here would bend: its axes are not at right angles. Raises `OutputError`."""
    axes = ijkToRAS[:3, :3] / np.linalg.norm(ijkToRAS[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLE:
        msg = (
            f"{name}: its slices are tilted against their stack (gantry tilt), which .nii.gz cannot hold; write .nrrd."
        )
        raise OutputError(msg)


def writeVolumeFile(volumeNode: vtkMRMLScalarVolumeNode, path: Path) -> None:
    """Write the voxels and their geometry to a compressed .nrrd or .nii.gz; the node stays as it is. Raises `OutputError`."""
    if path.name.endswith(".nii.gz"):
        ijkToNode = vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(ijkToNode)
        requireRightAngles(arrayFromMatrix(ijkToNode), volumeNode.GetName() or "volume")
        storage = vtkMRMLVolumeArchetypeStorageNode()
    else:
        storage = vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(True)
    if not storage.WriteData(volumeNode):
        msg = f"{path} cannot be written; choose a folder that exists, is writable and has room."
        raise OutputError(msg)
