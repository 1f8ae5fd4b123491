"""Main of the worker process: requests come in by standard input, answers leave by standard output.

Both pipes are taken over before anything else is imported, so that whatever prints afterwards prints into standard
error. Input is read in a thread of its own: a cancellation arrives in the middle of a request, and the end of the input,
like any fault of the thread, ends the process at once. The end of the input is missed where another process inherited the
pipe, or where a call holds the interpreter for ever; a second thread looks after both, so that no worker outlives the
process that started it.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import traceback
from io import RawIOBase
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import (
    PARENT_VARIABLE,
    EmbeddingRequest,
    Frame,
    ReusedMemory,
    RunnerCancelled,
    RunOptions,
    error_to_json,
    question_from_frame,
    read_frame,
    reply_to_frame,
    write_frame,
)
from LesionLib.inference.model_description import description_to_json
from LesionLib.inference.shared_voxels import seen_voxels

if TYPE_CHECKING:
    from LesionLib.inference.classifier import Engine


_LOOK_EVERY_S, _STUCK_S = 1.0, 300.0
_ENDED, _FAULT = 0, 3


class Inbox:
    """What has come in: requests to be answered in turn, and the numbers of those that were cancelled."""

    def __init__(self, stream: RawIOBase) -> None:
        self.requests: Queue[Frame] = Queue()
        self._cancelled: set[int] = set()
        self._stream, self._memory = stream, ReusedMemory()  # one request at a time: the runner sees to it
        self._voxels = seen_voxels()
        Thread(target=self._read, name="LesionLens requests", daemon=True).start()

    @property
    def sees_voxels(self) -> bool:
        """Whether a CT may be put where it needs no pipe."""
        return self._voxels is not None

    def is_cancelled(self, number: int) -> bool:
        """Whether the request ``number`` is not wanted any more."""
        return number in self._cancelled

    def _read(self) -> None:
        try:
            while True:
                self._keep(read_frame(self._stream, self._memory))
        except (EOFError, OSError):
            os._exit(_ENDED)
        except BaseException:  # whatever it is: nobody reads any more, and the one who asked would wait for ever
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(_FAULT)

    def _keep(self, frame: Frame) -> None:
        number, shared = int(frame.header["id"]), frame.header.pop("shared", None)
        if shared is not None:
            self._memory = ReusedMemory()  # the first question may have come through the pipe: no CT is kept twice
            frame = Frame(frame.header, [self._voxels.array(shared), *frame.arrays])
        if frame.header["kind"] == "cancel":
            self._cancelled.add(number)
        else:
            self.requests.put(frame)


def main() -> None:
    """Serve until the input ends."""
    requests, replies = _take_over_pipes()
    Thread(target=end_with_parent, name="LesionLens parent", daemon=True).start()
    inbox = Inbox(requests)
    engine = _engine()
    write_frame(replies, {"kind": "ready", "id": 0, "sees_voxels": inbox.sees_voxels})
    Thread(target=_import_what_answers_need, name="LesionLens imports", daemon=True).start()
    while True:
        frame = inbox.requests.get()
        header, arrays = _reply(engine, inbox, frame, replies)
        try:
            write_frame(replies, {**header, "id": frame.header["id"]}, arrays)
        except OSError:  # nobody listens any more
            return


def _import_what_answers_need() -> None:
    """While the user still draws: the command line imports it late, and a first answer that waited for it could not be cancelled."""
    import scipy.ndimage
    import scipy.spatial  # noqa: F401


def end_with_parent() -> None:
    """End this process soon after the one that started it; also where the interpreter is held and no thread can run."""
    named = os.environ.get(PARENT_VARIABLE, "")
    parent, first = int(named) if named.isdecimal() else None, os.getppid()
    while True:
        # Its timer runs outside the interpreter: it fires unless this thread comes round again.
        faulthandler.dump_traceback_later(_STUCK_S, exit=True)
        time.sleep(_LOOK_EVERY_S)
        if os.name == "posix" and (os.getppid() != first or not _is_there(parent)):
            os._exit(_ENDED)


def _is_there(process: int | None) -> bool:
    try:
        if process is not None:
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's: it is there
        return True
    return True


def _take_over_pipes() -> tuple[RawIOBase, RawIOBase]:
    requests, replies = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(requests, os.O_BINARY)
        msvcrt.setmode(replies, os.O_BINARY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return open(requests, "rb", buffering=0), open(replies, "wb", buffering=0)


def _engine() -> Engine:
    import torch

    from LesionLib.inference.classifier import Engine
    from LesionLib.inference.process import worker_threads

    torch.set_num_threads(worker_threads())
    return Engine(default_precision="auto", default_accelerator="auto")


def _reply(engine: Engine, inbox: Inbox, frame: Frame, replies: RawIOBase) -> tuple[dict[str, Any], list]:
    try:
        return _respond(engine, inbox, frame, replies)
    except RunnerCancelled as cancelled:
        return {"kind": "cancelled", "message": str(cancelled)}, []
    except LesionLensError as error:
        return {"kind": "error", **error_to_json(error)}, []
    except Exception as error:  # the worker serves on; the text names what happened, standard error has the rest
        traceback.print_exc()
        msg = f"the worker failed with {type(error).__name__}: {str(error).strip()[:300]}. Please report this."
        return {"kind": "error", "error": "RunnerError", "message": msg}, []


def _respond(engine: Engine, inbox: Inbox, frame: Frame, replies: RawIOBase) -> tuple[dict[str, Any], list]:
    number = frame.header["id"]
    if frame.header["kind"] == "warm":
        if frame.header["model"] is not None:
            engine.warm(frame.header["model"], RunOptions(**frame.header["options"]))
        return {"kind": "warm"}, []

    if frame.header["kind"] == "describe":
        described = engine.describe(frame.header["model"], RunOptions(**frame.header["options"]))
        return {"kind": "answer", "model": description_to_json(described)}, []

    def progress(done: int, total: int, name: str) -> None:
        write_frame(replies, {"kind": "progress", "id": number, "done": done, "total": total, "name": name})

    request = question_from_frame(frame)
    ask = engine.embed if isinstance(request, EmbeddingRequest) else engine.run
    response = reply_to_frame(ask(request, progress=progress, is_cancelled=lambda: inbox.is_cancelled(number)))
    return {"kind": "answer", **response.header}, response.arrays


if __name__ == "__main__":
    main()
