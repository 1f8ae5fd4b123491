"""One real MRML scene for all tests here; every test finds it empty."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from LesionClassifierLib.headless import HeadlessSlicer, startHeadlessSlicer
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.runner import InProcessRunner
from repository import SLICER_STANDINS, WIDGET_STANDINS
from scipy.spatial.transform import Rotation
from slicer import vtkMRMLLinearTransformNode, vtkMRMLScene, vtkMRMLTransformNode


@pytest.fixture(scope="session")
def headless() -> HeadlessSlicer:
    return startHeadlessSlicer()


@pytest.fixture
def slicers_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scripted module imports: `slicer.ScriptedLoadableModule` and the like, `qt` and `ctk`, and `SampleData`."""
    if importlib.util.find_spec("PySide6") is None:
        pytest.skip(
            "PySide6 is not installed, and Slicer's modules do not load without Qt: pip install PySide6-Essentials"
        )
    monkeypatch.setattr(slicer, "__path__", [*slicer.__path__, str(SLICER_STANDINS)])
    monkeypatch.setattr(sys, "path", [*sys.path, str(WIDGET_STANDINS), str(SLICER_STANDINS / "scripted_modules")])


@pytest.fixture(scope="session")
def runner() -> Iterator[InProcessRunner]:
    """Models in this process, each loaded once for all tests."""
    runner = InProcessRunner()
    yield runner
    runner.close()


@pytest.fixture
def scene(headless: HeadlessSlicer) -> Iterator[vtkMRMLScene]:
    headless.scene.Clear(False)
    yield headless.scene
    headless.scene.Clear(False)


@pytest.fixture
def turned() -> Callable[..., np.ndarray]:
    """A rotation matrix from Euler angles about x, y, z in degrees."""
    return lambda x, y, z: Rotation.from_euler("xyz", (x, y, z), degrees=True).as_matrix()


@pytest.fixture
def an_oblique_ct(turned: Callable[..., np.ndarray]) -> Callable[..., CTVolume]:
    """A CT of noise at -800 HU, tilted, unequal spacing; left-handed on demand."""

    def make(*, leftHanded: bool = False, shape: tuple[int, int, int] = (40, 60, 70)) -> CTVolume:
        array = np.random.default_rng(7).integers(-830, -770, shape).astype(np.int16)
        ijkToRAS = np.eye(4)
        ijkToRAS[:3, :3] = turned(12, -8, 20) * [1.0, 1.2, -2.0 if leftHanded else 2.0]
        ijkToRAS[:3, 3] = [-30, 15, -40]
        return CTVolume(array, ijkToRAS, name="CT")

    return make


@pytest.fixture
def a_linear_transform(scene: vtkMRMLScene) -> Callable[..., vtkMRMLLinearTransformNode]:
    """A transform node from a 3x3 or 4x4 matrix, on demand under another one."""

    def make(matrix, *, above=None):
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        full = np.eye(4)
        full[: len(matrix), : len(matrix)] = matrix
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(full))
        if above is not None:
            transform.SetAndObserveTransformNodeID(above.GetID())
        return transform

    return make


@pytest.fixture
def a_bending_transform(scene: vtkMRMLScene) -> Callable[[], vtkMRMLTransformNode]:
    """A thin-plate spline: not linear, and not near it."""

    def make():
        spline = vtk.vtkThinPlateSplineTransform()
        points, moved = vtk.vtkPoints(), vtk.vtkPoints()
        for corner in np.ndindex(2, 2, 2):
            points.InsertNextPoint(*(100.0 * np.array(corner)))
            moved.InsertNextPoint(*(100.0 * np.array(corner) + 10 * np.sin(np.arange(3) + sum(corner) ** 2)))
        spline.SetSourceLandmarks(points)
        spline.SetTargetLandmarks(moved)
        spline.SetBasisToR()
        transform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
        transform.SetAndObserveTransformToParent(spline)
        return transform

    return make


@pytest.fixture
def a_box(turned: Callable[..., np.ndarray]) -> Callable[..., LesionBox]:
    """A turned box, with changes."""
    usual = {"centerRAS": [12, -30, 45.5], "sizeMm": [20, 30, 14], "axesRAS": turned(10, 20, 30)}
    return lambda **changes: LesionBox(**{**usual, **changes})


@pytest.fixture
def same_place() -> Callable[[LesionBox, np.ndarray], bool]:
    """Whether a box has these corners, in any order."""

    def check(box, corners):
        distances = np.linalg.norm(box.cornersRAS[:, None] - corners[None], axis=-1)
        return bool((distances.min(axis=0) < 1e-6).all() and (distances.min(axis=1) < 1e-6).all())

    return check
