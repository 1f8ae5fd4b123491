"""The worker as a process of the operating system: how it is started, its three pipes, and how it ends.

What goes through the pipes are frames (`messages.Frame`): a JSON header and raw arrays. The whole CT goes along with every
request, where the worker sees it in memory without a name (`shared_voxels`), and else through the pipe. Named shared memory
was not chosen: containers often cap it at 64 MB, and what a killed process leaves there are patches of a patient. Nor were
crops around the boxes: how far a model looks, and what a warning needs to see, is the model's business, not the transport's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

from LesionLib.inference.messages import (
    PARENT_VARIABLE,
    Frame,
    RunnerError,
    WireError,
    read_first_frame,
    read_frame,
    write_frame,
)
from LesionLib.inference.shared_voxels import SHARED_VARIABLE, SharedVoxels

WORKER_ARGUMENTS = ("-m", "LesionLib.inference.worker")
_KEPT_LINES, _LONGEST_LINE, _QUOTED_LINES = 50, 2000, 4
_END_S = 2.0
_WRITTEN_AT_ONCE = 256 * 1024
_SHARED_FROM = 1024**2  # bytes; less is as fast through the pipe
# A thread that waits for another looks for some microseconds and then sleeps. Looking for longer burns what other programs need,
# and OpenVINO's threads (libgomp's own milliseconds make an answer beside a busy program up to ten times as slow); who sleeps
# at once is woken so late that small networks take twice as long. An OpenMP that is not GNU's sleeps at once.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "400"}
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # malloc.h


def worker_python() -> Path:
    """The Python that runs the worker. Inside 3D Slicer that is PythonSlicer: ``sys.executable`` may be Slicer itself."""
    if not sys.executable:
        msg = "this Python does not know its own executable; start the worker from Slicer or an ordinary Python."
        raise RunnerError(msg)
    slicers = Path(sys.executable).parent / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    return slicers if slicers.is_file() else Path(sys.executable)


def worker_threads() -> int:
    """Threads for the worker: one core stays free for the interface."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable - 1)


def worker_environment() -> dict[str, str]:
    """The environment of the worker: finds LesionLib, never the working folder's files; settled, one core left alone."""
    here = str(Path(__file__).resolve().parents[2])
    return {
        **settled_environment(),
        "PYTHONPATH": os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH", "")) if p),
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "PYTHONFAULTHANDLER": "1",
        "OMP_NUM_THREADS": str(worker_threads()),
        "MKL_NUM_THREADS": str(worker_threads()),
    }


def settled_environment() -> dict[str, str]:
    """The environment of a process in which torch waits without burning a core and keeps the memory of an answer."""
    return {**_kept_memory(), **os.environ, **_WAITING}


def settle_this_process() -> None:
    """The same for this process, before torch is imported; what the user set stays."""
    if not any(name in os.environ for name in _WAITING):
        os.environ.update(_WAITING)
    keep_memory()


def keep_memory() -> None:
    """Have this process keep the memory of a network's features for the next; what the user set stays."""
    for name, value in _kept_memory().items():
        if name not in os.environ:  # which the C library read when this process started
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).mallopt(_MALLOPT[name], int(value))


def _kept_memory() -> dict[str, str]:
    """glibc gives the blocks of an answer (a network's features: 10 to 60 MB) back to the system and fetches them again, page by
    page, for the next one: a third of a lesion's time. Up to 256 MB are kept; a CT (157 MB) is still given back.
    Before 2.35, glibc refuses such a threshold, and what is left of the setting would make it slower."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        is_new = name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= (2, 35)
    except (AttributeError, ValueError):  # another system; a version of another form
        return {}
    kept = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024**2), "MALLOC_TRIM_THRESHOLD_": str(256 * 1024**2)}
    return kept if is_new else {}


class WorkerGoneError(Exception):
    """The worker does not read or write any more, or what it wrote is not a message."""


class WorkerProcess:
    """The worker as an operating-system process: its pipes, its last words, its end. It never outlives this process,
    for it ends when its input is closed.

    ``was_ready``: it has imported everything and answered at least once. Raises `RunnerError` where it cannot start.
    """

    def __init__(self, arguments: Sequence[str] = WORKER_ARGUMENTS) -> None:
        self.was_ready = False
        self._sending = Lock()
        self._stderr_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._voxels, self._sees_voxels = SharedVoxels(), False
        self._popen = _started([str(worker_python()), *arguments], self._voxels)
        self._input = _Input(self._popen.stdin)
        self._stderr_reader = Thread(target=self._keep_stderr, name="LesionLens worker stderr", daemon=True)
        self._stderr_reader.start()

    @property
    def pid(self) -> int:
        """Process id, for tests and logs."""
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs and was not killed: the system may take a moment to end what was."""
        return not self._input.is_shut and self._popen.poll() is None

    def send(self, header: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Send one message. Raises `WorkerGoneError`."""
        with self._sending:
            try:
                if self._sees_voxels and arrays and arrays[0].nbytes >= _SHARED_FROM:
                    shared = self._voxels.put(arrays[0], lambda: not self._input.is_shut)
                    header, arrays = ({**header, "shared": shared}, arrays[1:]) if shared else (header, arrays)
                write_frame(self._input, header, arrays)
            except (OSError, ValueError) as error:  # ValueError: closed by another thread
                raise WorkerGoneError from error
            finally:
                self._input.close_if_shut()

    def send_if_free(self, header: Mapping[str, Any]) -> None:
        """Send a short message unless another one is still on its way, or the worker is gone."""
        if self._sending.acquire(blocking=False):
            with suppress(OSError, ValueError):
                write_frame(self._input, header)
            self._input.close_if_shut()
            self._sending.release()

    def receive(self) -> Frame:
        """Wait for a message. Raises `WorkerGoneError` where none can come any more."""
        read = read_frame if self.was_ready else read_first_frame
        try:
            frame = read(self._popen.stdout)
        except (EOFError, OSError, ValueError, WireError) as error:
            raise WorkerGoneError from error
        if not {"kind", "id"} <= frame.header.keys():
            msg = "a message without kind and number"
            raise WorkerGoneError(msg)
        self.was_ready = True
        if frame.header["kind"] == "ready":
            self._sees_voxels = frame.header.get("sees_voxels") is True
        return frame

    def kill(self) -> None:
        """End it now, with all it started. Whoever waits in `receive` or `send` is freed."""
        self._input.is_shut = True
        if os.name == "posix" and self._popen.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.kill()
        # PythonSlicer is a launcher: what it launched survives it, but ends when its input does. Whoever is sending
        # stops at the next piece, and closes the input then.
        if self._sending.acquire(blocking=False):
            self._input.close_if_shut()
            self._sending.release()

    def end(self) -> str:
        """Wait for its end, kill it where that takes long, close the pipes; how it ended and its last words."""
        with suppress(OSError):
            self._popen.stdin.close()
        try:
            self._popen.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._popen.wait()
        self._popen.stdout.close()
        self._voxels.close()
        self._stderr_reader.join(_END_S)
        text = " | ".join(list(self._stderr_lines)[-_QUOTED_LINES:])
        return _how_it_ended(self._popen.returncode) + (f"; it last said: {text}" if text else "")

    def _keep_stderr(self) -> None:
        with self._popen.stderr as stream:
            while line := stream.readline(_LONGEST_LINE):
                text = line.decode("utf-8", errors="replace").strip()
                if text:
                    self._stderr_lines.append(text[:300])


class _Input:
    """The worker's input, written to piece by piece, so that it can be shut in the middle of a CT."""

    def __init__(self, stream: RawIOBase) -> None:
        self._stream = stream
        self.is_shut = False

    def write(self, view: memoryview) -> int:
        """How many bytes were taken. Raises `OSError` where the input was shut."""
        if self.is_shut:
            msg = "the worker was ended"
            raise BrokenPipeError(msg)
        return self._stream.write(view[:_WRITTEN_AT_ONCE])

    def close_if_shut(self) -> None:
        """Nobody may be writing now."""
        if self.is_shut:
            with suppress(OSError):
                self._stream.close()


def _started(command: Sequence[str], voxels: SharedVoxels) -> subprocess.Popen[bytes]:
    # Its own session: Ctrl+C in a terminal is ours to handle, and one signal ends the worker with all it started.
    apart = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {"start_new_session": True}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = worker_environment() | ({} if voxels.number is None else {SHARED_VARIABLE: str(voxels.number)})
    try:
        return subprocess.Popen(command, bufsize=0, env=environment, **pipes, **apart)
    except OSError as error:
        voxels.close()
        msg = f"the worker process cannot be started with {command[0]}: {error}. Use the in-process runner instead."
        raise RunnerError(msg) from error


def _how_it_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"it ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = str(-returncode)
    memory = ", often because the computer ran out of memory" if name == "SIGKILL" else ""
    return f"it was ended by {name}{memory}"
