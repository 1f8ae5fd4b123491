"""What tests of every kind of input are tried on."""

from __future__ import annotations

import pytest
from lattices import UNUSUAL, noise_ct
from LesionLib.geometry import CTVolume


@pytest.fixture(params=UNUSUAL)
def ct(request) -> CTVolume:
    """A CT on each lattice that is not the usual one."""
    return noise_ct(request.param)
