"""Text for a terminal: whatever names and notes of others hold, it is shown and steers nothing."""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

_TURNS_TEXT = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: object) -> str:
    """``text`` as a terminal may be given it: a character that would steer it stands there as its number, ``\\u001b``.

    Names and notes come from files of others. Valid JSON stays valid JSON.
    """
    return "".join(f"\\u{ord(c):04x}" if _steers(c) else c for c in str(text))


def _steers(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNS_TEXT


def notify(text: object, file: TextIO | None = None) -> None:
    """Print, whatever is in it, and whatever the terminal can show. ``file``: standard output unless it is given."""
    stream = file or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def show_every_letter() -> None:
    """A console or pipe in another code page shows letters that it lacks as codes, and does not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
