"""The outermost guard of a command: one line and an exit code for whatever happens, details where nobody is named.

What is wrong with the input is a `LesionLensError`, and its line says all. What the machine refuses (a full disk, a folder
that cannot be written) is a line too. Everything else is a fault of ours: a line, a file with the details, and exit code 3.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from LesionLib import __version__
from LesionLib.errors import LesionLensError
from LesionLib.terminal import notify, show_every_letter

DONE, BAD_INPUT, UNFORESEEN, INTERRUPTED, NOBODY_READS = 0, 2, 3, 130, 141
_KEPT_FILES = 20
_MACHINE_SAYS_NO = {
    errno.ENOSPC: "the disk is full; make room there and run the command again",
    errno.EDQUOT: "your share of the disk is used up; make room there and run the command again",
    errno.EFBIG: "the file grew larger than this computer allows; choose another disk",
    errno.EROFS: "this place can only be read; choose another one",
    errno.EACCES: "you may not use this place; choose another one, or ask its owner",
    errno.EPERM: "you may not do this here; choose another place, or ask its owner",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n) and run the command again",
    errno.EIO: "the disk gives an error; choose another one, and check this one",
}


class StoppedError(KeyboardInterrupt):
    """A signal asked the process to end; what it began is cleaned up as after Ctrl-C."""


def guarded(program: str, body: Callable[[], int], *, keeps_lines: bool = False) -> int:
    """Run ``body`` and return its exit code; of what is raised, one line goes to standard error.

    ``keeps_lines``: an error of the input that lists several problems keeps a line for each.

    2 for bad input and for what the machine refuses, 3 for what nobody foresaw (with a file of details), 130 after Ctrl-C and
    128 + n after signal n, 141 where nobody reads standard output any more.
    """
    show_every_letter()
    with _stopping_signals() as received:
        try:
            code = body()
        except LesionLensError as error:
            code = _notify(program, BAD_INPUT, f"error: {error if keeps_lines else ' '.join(str(error).split())}")
        except KeyboardInterrupt as error:  # with what is kept all the same, where the command says that
            code = _notify(program, INTERRUPTED, str(error) or "interrupted; nothing was written.")
        except BrokenPipeError:
            code = _nobody_reads()
        except OSError as error:
            code = _machine_said(program, error)
        except SystemExit:  # the parser's, or a command that has said all itself
            if not received:
                raise
            code = INTERRUPTED
        except Exception as error:
            code = _unforeseen(program, error)
    return 128 + received[0] if received else code


def log_folder() -> Path:
    """Where files with details are kept: the user's folder for states and logs."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "LesionLens" / "Logs"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Logs" / "LesionLens"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lesionlens" / "log"


def details_of(error: BaseException) -> str:
    """What happened and where in the code, without any value.

    Neither arguments nor the error's own text: both can hold the name of a file or a patient. Places are lines of the code.
    """
    parts: list[str] = []
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        number = f" (errno {at.errno})" if isinstance(at, OSError) and at.errno is not None else ""
        frames = [
            f'  "{_short(frame.filename)}", line {frame.lineno}, in {frame.name}\n    {frame.line or ""}'.rstrip()
            for frame in traceback.extract_tb(at.__traceback__)
        ]
        parts.append("\n".join([f"{type(at).__module__}.{type(at).__qualname__}{number}", *frames]))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n\ncaused by\n\n".join(parts)


@contextmanager
def _stopping_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP raise like Ctrl-C, once; the list holds which came. What the caller ignores stays ignored."""
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if not received:  # a second one must not break off the cleaning up after the first
            received.append(number)
            raise StoppedError

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names] if threading.current_thread() is threading.main_thread() else []
    replaced = {number: signal.signal(number, stop) for number in numbers if signal.getsignal(number) is signal.SIG_DFL}
    try:
        yield received
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _notify(program: str, code: int, text: str) -> int:
    with suppress(OSError, ValueError):
        notify(f"{program}: {text}", sys.stderr)
        sys.stderr.flush()
    return code


def _nobody_reads() -> int:
    """As ``program | head``: no word, and nothing more is written when Python ends."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    return NOBODY_READS


def _machine_said(program: str, error: OSError) -> int:
    advice = _MACHINE_SAYS_NO.get(error.errno)
    if advice is None:
        return _unforeseen(program, error)
    where = f"{error.filename}: " if error.filename else ""
    return _notify(program, BAD_INPUT, f"error: {where}{advice}.")


def _unforeseen(program: str, error: Exception) -> int:
    kept = _keep_details(program, error)
    details = f"the details, without any name or value, are in {kept}" if kept else "its details could not be kept"
    what = "the memory does not suffice" if isinstance(error, MemoryError) else type(error).__name__
    text = " ".join(str(error).split())[:200]
    printed = f" ({text})" if text else ""
    return _notify(
        program, UNFORESEEN, f"error: unforeseen: {what}{printed}; {details}. Please report it with that file."
    )


def _keep_details(program: str, error: BaseException) -> Path | None:
    """The file with the details; None where none can be written. Only the newest few are kept."""
    torch = getattr(sys.modules.get("torch"), "__version__", "not loaded")
    head = (
        f"{program}: LesionLens {__version__}, Python {platform.python_version()}, torch {torch}, {platform.platform()}"
    )
    try:
        folder = log_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*-*.txt"), key=lambda path: path.stat().st_mtime)[: -_KEPT_FILES + 1]:
            old.unlink(missing_ok=True)
        path = folder / f"{program}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        path.write_text(f"{head}\n\n{details_of(error)}\n", encoding="utf-8")
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return path


def _short(filename: str) -> str:
    """The path of a source file from its package on: whose computer it is does not matter."""
    for root in sorted((os.path.abspath(entry) for entry in sys.path if entry), key=len, reverse=True):
        if filename.startswith(root + os.sep):
            return filename[len(root) + 1 :].replace(os.sep, "/")
    return Path(filename).name
