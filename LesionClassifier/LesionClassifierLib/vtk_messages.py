"""VTK's and MRML's messages go to Python `logging`, not to the user's terminal."""

from __future__ import annotations

import logging

import vtk

LOGGER = logging.getLogger("LesionLens.vtk")
# Without a handler of its own, Python would print warnings of an application that set up no logging.
LOGGER.addHandler(logging.NullHandler())

# MRML says the first two about its own helper scenes whenever a scene is saved or loaded; nothing is wrong then.
_HARMLESS = (
    "GetUnitNode failed: selection node not found",
    "invalid orientation preset name: Reformat",
    # Resources of the application that the package slicer-core does not carry.
    "Failed to load terminology",
    "Failed to load region context",
    "Default color files will not be loaded",
)
_LEVELS = {"ErrorEvent": logging.ERROR, "WarningEvent": logging.WARNING}


def routeVtkMessagesToLogging() -> None:
    """Send every VTK, MRML and Slicer-logic message to the logger ``LesionLens.vtk``; the terminal stays clean.

    Errors are logged as ERROR and warnings as WARNING, known harmless ones as DEBUG.
    """
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToNever()
    for event in _LEVELS:
        window.AddObserver(event, _logMessage)
    vtk.vtkOutputWindow.SetInstance(window)
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)


def stopRoutingVtkMessages() -> None:
    """Drop the route without printing anything: at the interpreter's end no Python code may be called any more."""
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToNever()
    vtk.vtkOutputWindow.SetInstance(window)


def _logMessage(_window: vtk.vtkOutputWindow, event: str, text: str) -> None:
    text = (text or "").strip()
    harmless = any(known in text for known in _HARMLESS)
    LOGGER.log(logging.DEBUG if harmless else _LEVELS[event], "%s", text)


_logMessage.CallDataType = vtk.VTK_STRING
