"""A remedy for Python 3.11, where PySide6 6.12 loses references to None, True and False until Python stops."""

from __future__ import annotations

import ctypes
import sys

_PLENTY = 1 << 40


def install() -> None:
    """Give the three so many references that none is missed; from Python 3.12 on they have no count that matters.

    Measured with PySide6 6.12.0: one reference to None is lost with each ``QObject.property`` of an unknown name and each
    slot that returns None, one to True with each ``emit`` and ``disconnect``.
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += _PLENTY
