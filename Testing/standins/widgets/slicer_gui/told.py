"""What the user would have been told: every message that goes through ``slicer.util``, and the answers to its questions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import qt
import slicer.util


@dataclass(frozen=True)
class Message:
    """``kind``: info, warning, error, question, box (``messageBox``) or status (the status bar)."""

    kind: str
    text: str
    details: str = ""


class Told:
    """Records messages in order. Questions are answered by `answers` from the left, and with yes when these are used up."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answers: list[bool] = []

    def __contains__(self, part: str) -> bool:
        return any(part in message.text for message in self.messages)

    def of(self, kind: str) -> list[str]:
        """The texts of one kind."""
        return [message.text for message in self.messages if message.kind == kind]

    def install(self, monkeypatch: Any) -> None:
        """Step in below ``errorDisplay``, ``warningDisplay``, ``infoDisplay``, ``confirm…Display``, ``messageBox``, …"""
        monkeypatch.setattr(slicer.util, "_messageDisplay", self._display)
        monkeypatch.setattr(slicer.util, "messageBox", self._box)
        monkeypatch.setattr(slicer.util, "showStatusMessage", self._status)
        monkeypatch.setattr(slicer.util, "delayDisplay", lambda message, *_, **__: self._add("info", message))

    def _add(self, kind: str, text: str, details: str | None = "") -> None:
        self.messages.append(Message(kind, text, details or ""))

    def _display(self, logLevel: int, text: str, testingReturnValue: Any, **given: Any) -> Any:
        buttons = given.get("standardButtons", qt.QMessageBox.Ok)
        isQuestion = testingReturnValue is not None
        kind = "question" if isQuestion else logging.getLevelName(logLevel).lower()
        self._add(kind, text, given.get("detailedText"))
        return self._answer(buttons) if isQuestion else None

    def _box(self, text: str, parent: Any = None, **given: Any) -> Any:
        self._add("box", text, given.get("detailedText"))
        return self._answer(given.get("standardButtons", qt.QMessageBox.Ok))

    def _answer(self, buttons: Any) -> Any:
        isYes = self.answers.pop(0) if self.answers else True
        order = (qt.QMessageBox.Ok, qt.QMessageBox.Yes, qt.QMessageBox.Retry) if isYes else ()
        order += (qt.QMessageBox.Cancel, qt.QMessageBox.No, qt.QMessageBox.Close)
        return next((button for button in order if button & buttons), qt.QMessageBox.Ok)

    def _status(self, message: str, duration: int = 0) -> bool:
        self._add("status", message)
        return True
