"""The backend: from a CT and a box to an answer, its reasons and an embedding. Knows no Slicer, no vtk, no qt."""

from __future__ import annotations

__version__ = "0.1.0"
