"""Main of the worker process that looks at lesions: requests come in by standard input, looks leave by standard output.

Started by its path, so its folder's parent is put on the path here. It serves one request after the other and ends when
its input does; whoever does not want to wait kills it.
"""

from __future__ import annotations

import os
import sys
import traceback
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from LesionLib.runner_wire import Frame

    from LesionRetrievalLib.retrieval_engine import RetrievalEngine


def main() -> None:
    """Serve until the input ends."""
    requests, replies = _take_over_pipes()
    from LesionLib.runner_wire import ReusedMemory, read_frame, write_frame

    memory, engine = ReusedMemory(), _engine()
    write_frame(replies, {"kind": "ready", "id": 0})
    while True:
        try:
            frame = read_frame(requests, memory)
            header, arrays = _reply(engine, frame)
            write_frame(replies, {**header, "id": frame.header["id"]}, arrays)
        except (EOFError, OSError):  # nobody asks, or nobody listens any more
            return


def _take_over_pipes() -> tuple[RawIOBase, RawIOBase]:
    """The pipes, before anything prints: what prints afterwards prints into standard error."""
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


def _engine() -> RetrievalEngine:
    import torch
    from LesionLib.runner_process import worker_threads

    from LesionRetrievalLib.retrieval_engine import RetrievalEngine

    torch.set_num_threads(worker_threads())
    return RetrievalEngine()


def _reply(engine: RetrievalEngine, frame: Frame) -> tuple[dict[str, Any], list]:
    from LesionLib.errors import LesionLensError
    from LesionLib.runner_codec import error_to_json

    try:
        return _answer(engine, frame)
    except LesionLensError as error:
        return {"kind": "error", **error_to_json(error)}, []
    except Exception as error:  # the worker serves on; the text names what happened, standard error has the rest
        traceback.print_exc()
        msg = f"the worker failed with {type(error).__name__}: {str(error).strip()[:300]}. Please report this."
        return {"kind": "error", "error": "RunnerError", "message": msg}, []


def _answer(engine: RetrievalEngine, frame: Frame) -> tuple[dict[str, Any], list]:
    from LesionLib.runner_types import RunOptions

    from LesionRetrievalLib.retrieval_codec import look_request_from_frame, look_to_frame

    if frame.header["kind"] == "warm":
        engine.warm(frame.header["model"], RunOptions(**frame.header["options"]))
        return {"kind": "warm"}, []
    answered = look_to_frame(engine.look(look_request_from_frame(frame)))
    return {"kind": "look", **answered.header}, answered.arrays


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
