"""One real MRML scene for all tests here; every test finds it empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from LesionClassifierLib.headless import HeadlessSlicer, startHeadlessSlicer
from LesionLib.geometry import CTVolume
from scipy.spatial.transform import Rotation
from slicer import vtkMRMLScene


@pytest.fixture(scope="session")
def headless() -> HeadlessSlicer:
    return startHeadlessSlicer()


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
