"""Texts in the user's language: Slicer's own, and English where the application is not there."""

from __future__ import annotations

try:
    from slicer.i18n import tr
except ImportError:  # slicer-core has no translations

    def tr(text: str) -> str:
        """The text itself."""
        return text


__all__ = ["tr"]
