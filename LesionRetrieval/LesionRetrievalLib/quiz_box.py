"""How well two boxes agree."""

from __future__ import annotations

import numpy as np
from LesionLib.geometry import LesionBox

_PARALLEL = 1 - 1e-9  # cosine
_THIN = 1e-6  # of the smallest edge: what is thinner has no volume worth counting


def box_overlap(a: LesionBox, b: LesionBox) -> float:
    """Intersection over union of two boxes however they are turned, 0 … 1."""
    both = _parallel(a, b) if _are_parallel(a, b) else _turned(a, b)
    return both / float(np.prod(a.sizeMm) + np.prod(b.sizeMm) - both)


def _are_parallel(a: LesionBox, b: LesionBox) -> bool:
    """Whether their edges are, whichever axis is called x."""
    return bool((np.abs(a.axesRAS.T @ b.axesRAS).max(axis=0) > _PARALLEL).all())


def _parallel(a: LesionBox, b: LesionBox) -> float:
    """The volume of the intersection, in mm3: in the frame of ``a`` both are ranges along each axis."""
    turned = np.abs(a.axesRAS.T @ b.axesRAS)
    center, half = a.axesRAS.T @ (b.centerRAS - a.centerRAS), turned @ b.sizeMm / 2
    low, high = np.maximum(-a.sizeMm / 2, center - half), np.minimum(a.sizeMm / 2, center + half)
    return float(np.prod(np.clip(high - low, 0, None)))


def _turned(a: LesionBox, b: LesionBox) -> float:
    """The same of boxes in any position: the polytope that the twelve sides have in common."""
    from scipy.optimize import linprog
    from scipy.spatial import ConvexHull, HalfspaceIntersection

    normals = np.vstack([sign * box.axesRAS.T for box in (a, b) for sign in (1, -1)])
    # Distances from the middle between the centres: qhull likes numbers near zero.
    middle = (a.centerRAS + b.centerRAS) / 2
    reach = np.concatenate([box.sizeMm / 2 for box in (a, a, b, b)])
    offsets = reach + np.concatenate(
        [sign * box.axesRAS.T @ (box.centerRAS - middle) for box in (a, b) for sign in (1, -1)]
    )
    # The largest ball inside all sides (its radius is the fourth unknown) gives the inner point that qhull asks for.
    ball = linprog([0, 0, 0, -1], np.c_[normals, np.ones(12)], offsets, bounds=[(None, None)] * 4)
    if not ball.success or ball.x[3] < _THIN * min(a.sizeMm.min(), b.sizeMm.min()):
        return 0.0
    corners = HalfspaceIntersection(np.c_[normals, -offsets], ball.x[:3]).intersections
    return float(ConvexHull(corners, qhull_options="QJ").volume)
