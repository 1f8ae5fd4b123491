"""What one who uses the page has here: a CT, boxes, an answer, and a folder that is gone when the session ends."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING

from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.io.boxes import FrameSource
from LesionLib.io.private_files import private_folder
from LesionLib.io.series_details import SeriesDetails

from LesionLensApp.serve.access import ApiError
from LesionLensApp.serve.jobs import Job, Queue

if TYPE_CHECKING:
    from LesionLib.io.volumes import DicomSeries

    from LesionLensApp.serve.answers import Answer

FOLDER_PREFIX = "lesionlens-serve-"
_OURS = re.compile(rf"{FOLDER_PREFIX}(\d+)-\w+")


@dataclass(frozen=True, eq=False)
class OpenCT:
    """The CT of a session; ``series`` and ``details`` where it comes from DICOM files."""

    volume: CTVolume
    series: DicomSeries | None = None
    details: SeriesDetails | None = None


@dataclass(frozen=True, eq=False)
class DrawnBox:
    """A box, and how it came to its frame."""

    box: LesionBox
    frame: FrameSource = FrameSource.SAVED


@dataclass(eq=False)
class Session:
    """``folder`` is its own; ``uploads``: by the name that the user's file has, where it lies. Hold ``lock`` to change it."""

    id: str
    folder: Path
    touched: float
    ct: OpenCT | None = None
    boxes: list[DrawnBox] = field(default_factory=list)
    answer: Answer | None = None
    job: Job | None = None
    uploads: dict[str, Path] = field(default_factory=dict)
    uploaded_bytes: int = 0
    lock: RLock = field(default_factory=RLock)

    def require_ct(self) -> OpenCT:
        """Raises `ApiError` where none is open."""
        if self.ct is None:
            raise ApiError(409, "no CT is open; open one first.")
        return self.ct

    def replace_answer(self, answer: Answer | None) -> None:
        """Another in the place of the one there is, whose files are deleted; hold ``lock``."""
        if self.answer is not None:
            self.answer.remove()
        self.answer = answer

    def require_answer(self) -> Answer:
        """Raises `ApiError` where there is none."""
        if self.answer is None:
            raise ApiError(409, "there is no answer yet; classify first.")
        return self.answer


class Sessions:
    """All sessions; their folders lie in one that is this process's alone, and go with it.

    ``idle_s``: after so long without a sign of life a session ends. ``clock`` is for tests.
    """

    def __init__(self, queue: Queue, *, idle_s: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue, self._idle_s, self._most, self._clock = queue, idle_s, most, clock
        self._lock = Lock()
        self._sessions: dict[str, Session] = {}
        remove_leftovers()
        self.root = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))

    def __len__(self) -> int:
        return len(self._sessions)

    def create(self) -> Session:
        """A new session. Raises `ApiError` where there are too many."""
        with self._lock:
            if len(self._sessions) >= self._most:
                raise ApiError(503, f"{self._most} sessions are open, more are not; try again later.")
            name = secrets.token_hex(16)
            session = Session(name, private_folder(self.root / name), self._clock())
            self._sessions[name] = session
        return session

    def get(self, name: str) -> Session:
        """A session that is open; it lives on from now. Raises `ApiError`."""
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                raise ApiError(404, "this session has ended; open the page again.")
            session.touched = self._clock()
        return session

    def end(self, name: str) -> None:
        """End a session: its job is stopped, its files are deleted."""
        with self._lock:
            session = self._sessions.pop(name, None)
        if session is not None:
            self._queue.cancel_all(session.id)
            session.ct = session.answer = session.job = None
            shutil.rmtree(session.folder, ignore_errors=True)

    def end_idle(self) -> int:
        """End those that nobody uses any more; how many."""
        now = self._clock()
        with self._lock:
            idle = [s.id for s in self._sessions.values() if now - s.touched > self._idle_s]
        for name in idle:
            self.end(name)
        return len(idle)

    def end_all(self) -> None:
        """The server stops: nothing stays."""
        for name in list(self._sessions):
            self.end(name)
        shutil.rmtree(self.root, ignore_errors=True)


def remove_leftovers() -> None:
    """Delete what a server left that was killed: folders of this user whose process is gone."""
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        found = _OURS.fullmatch(path.name)
        try:
            is_own = os.name != "posix" or path.lstat().st_uid == os.getuid()
        except OSError:
            continue
        if found and is_own and path.is_dir() and not path.is_symlink() and not _is_there(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_there(process: int) -> bool:
    if os.name != "posix":  # asking for a process there would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
