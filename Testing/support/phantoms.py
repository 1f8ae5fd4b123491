"""The chest phantom that both modules and the demonstration show, computed once for all tests of a process."""

from __future__ import annotations

from functools import cache

from LesionLib.phantom.chest import ChestPhantom, chest_phantom


@cache
def whole_phantom(*, seed: int = 0) -> ChestPhantom:
    """The phantom at its own spacing, which takes seconds; its voxels can't be written to."""
    phantom = chest_phantom(seed=seed)
    phantom.volume.array.setflags(write=False)
    return phantom
