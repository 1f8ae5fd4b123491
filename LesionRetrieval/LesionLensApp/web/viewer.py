"""The viewer of the pages: NiiVue, which paints, and our own script and style on it, as texts to put into a page.

NiiVue is no code of ours: ``npm ci`` brings it into ``node_modules``, and a wheel carries it beside this file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from LesionLib.errors import LesionLensError

from LesionLensApp.display_windows import WINDOWS

_HERE = Path(__file__).resolve().parent
_BUNDLED = _HERE / "vendor" / "niivue.umd.js"
_LOCKED = Path("node_modules", "@niivue", "niivue", "dist", "niivue.umd.js")
VERSION = "0.69.0"


class ViewerMissingError(LesionLensError):
    """NiiVue is not there; the text says how to bring it."""


def niivue_path() -> Path:
    """NiiVue's one file: of this wheel, or of the checkout's ``node_modules``. Raises `ViewerMissingError`."""
    for path in (_BUNDLED, *(folder / _LOCKED for folder in _HERE.parents[2:3])):
        if path.is_file():
            return path
    msg = (
        f"The viewer NiiVue {VERSION} is not there, which a page with slices needs; run `npm ci` in the folder of LesionLens "
        f"({_HERE.parents[2]}), or install a wheel that was built after it."
    )
    raise ViewerMissingError(msg)


@cache
def niivue_script() -> str:
    """NiiVue as the text of a plain script, its licence before it; it defines the global ``niivue``.

    Raises `ViewerMissingError`.
    """
    licence = (_HERE / "NIIVUE_LICENSE").read_text(encoding="utf-8")
    return f"/*! NiiVue {VERSION}\n{licence}*/\n{script_text(niivue_path())}"


def viewer_script() -> str:
    """Our viewer on it as the text of a plain script; it defines the globals ``SlicePainter`` and ``LesionViewer``."""
    return script_text(_HERE / "slices.js") + script_text(_HERE / "viewer.js")


def viewer_style() -> str:
    """Its style sheet."""
    return (_HERE / "viewer.css").read_text(encoding="utf-8")


def viewer_windows() -> dict[str, list[float]]:
    """The windows that a report knows, for the viewer's option ``windows``: name -> black and white, HU."""
    return {window.name: list(window.range_hu) for window in WINDOWS.values()}


def script_text(path: Path) -> str:
    """A script that can stand inside a page: nothing in it ends the element."""
    text = path.read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
