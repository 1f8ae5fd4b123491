"""Where things lie in the checkout, for tests that read or run its files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES_OF_0_1 = ROOT / "Testing" / "fixtures" / "v0_1"

WIDGET_STANDINS = ROOT / "Testing" / "standins" / "widgets"
"""`qt`, `ctk` and Slicer's own widgets: a folder for `sys.path`."""

SLICER_STANDINS = ROOT / "Testing" / "standins" / "slicer_package"
"""What Slicer adds to the package `slicer`: a folder for `slicer.__path__`."""
