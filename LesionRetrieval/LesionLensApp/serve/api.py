"""What the page asks: sessions with a CT, boxes and an answer. And what Slicer on another computer asks: runs."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from LesionLib.inference.messages import (
    MAP_CHOICES,
    EmbeddingRequest,
    WireError,
    reply_to_frame,
)
from LesionLib.inference.model_description import description_to_json
from LesionLib.io.nifti import nifti_bytes, nifti_parts
from LesionLib.remote.messages import (
    DIGEST_HEADER,
    FRAME_TYPE,
    bytes_of_frame,
    digest_of,
    question_from_bytes,
)
from LesionLib.remote.runner import reach_to_json
from LesionLib.sampling.inputs import reach_of
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from LesionLensApp.serve.access import AllowedFolder, ApiError
from LesionLensApp.serve.jobs import Job, JobState, Queue
from LesionLensApp.serve.openapi import BINARY, Asking, Operation
from LesionLensApp.serve.pages import missing_viewer
from LesionLensApp.serve.served_models import ServedModels
from LesionLensApp.serve.sessions import Session, Sessions
from LesionLensApp.web.viewer import viewer_windows

if TYPE_CHECKING:  # they load Slicer's libraries: the page is up before
    from LesionLensApp.serve.answers import Answer, Answers

_PIECE = 4 * 1024**2
_MAX_RUNS, _IDLE_RUN_S = 64, 60.0
_FILES = {
    "results.json": "application/json",
    "results.csv": "text/csv; charset=utf-8",
    "similar.csv": "text/csv; charset=utf-8",
    "results.dcm": "application/dicom",
    "lesions.seg.dcm": "application/dicom",
}
_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1, "maxLength": 100, "pattern": r"^[^\x00-\x1f\x7f]*$"}
_MM = {"type": "number", "minimum": -1e6, "maximum": 1e6}
_THREE = {"type": "array", "items": _MM, "minItems": 3, "maxItems": 3}
_BOX = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "centerRAS", "sizeMm"],
    "properties": {
        "name": _NAME,
        "centerRAS": {**_THREE, "description": "mm, towards right, anterior, superior"},
        "sizeMm": {**_THREE, "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e4}},
        "axesRAS": {
            "type": "array",
            "items": _THREE,
            "minItems": 3,
            "maxItems": 3,
            "description": "columns: the box's axes",
        },
    },
}
_BOXES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["boxes"],
    "properties": {"boxes": {"type": "array", "items": _BOX, "maxItems": 200}},
}
_OPEN = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "path": {
            **_TEXT,
            "maxLength": 4096,
            "description": "in the folder that may be opened; left out: what was dropped",
        },
        "series": {**_TEXT, "maxLength": 128, "description": "of a DICOM folder: its number in the list, or its UID"},
    },
}
_ASKED = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "model": {**_TEXT, "maxLength": 200, "description": "left out: the server's own choice"},
        "similar": {"type": "integer", "minimum": 1, "maximum": 100},
        "boxJitter": {"type": "integer", "minimum": 0, "maximum": 32},
        "answerAnyway": {"type": "boolean"},
        "map": {"enum": list(MAP_CHOICES)},
    },
}
_OBJECT = {"type": "object"}
_PATH = {"path": {**_TEXT, "maxLength": 4096}}
_JOB = {
    "type": "object",
    "required": ["id", "state", "place", "done", "total", "name", "seconds", "error"],
    "properties": {
        "id": _TEXT,
        "state": {"enum": [str(state) for state in JobState]},
        "place": {"type": "integer", "description": "how many are before it"},
        "error": {"type": ["object", "null"]},
    },
}


class Runs:
    """Requests of other computers, until their answers are fetched. Of one who asks no more nothing stays."""

    def __init__(self, queue: Queue, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue, self._clock = queue, clock
        self._lock = Lock()
        self._jobs: dict[str, Job] = {}
        self._asked: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def begin(self, job: Job) -> Job:
        """Put a job into the queue. Raises `ApiError` where too many wait."""
        with self._lock:
            if len(self._jobs) >= _MAX_RUNS:
                raise ApiError(503, "too many wait for the model; try again in a minute.")
            self._queue.put(job)
            self._jobs[job.id], self._asked[job.id] = job, self._clock()
        return job

    def get(self, name: str) -> Job:
        """A run that is here. Raises `ApiError`."""
        with self._lock:
            if name not in self._jobs:
                raise ApiError(404, "this run is not here any more.")
            self._asked[name] = self._clock()
            return self._jobs[name]

    def forget(self, job: Job) -> None:
        """Stop it, and let go of its answer."""
        with self._lock:
            self._jobs.pop(job.id, None)
            self._asked.pop(job.id, None)
        self._queue.cancel(job)

    def forget_idle(self) -> int:
        """Those that nobody asked about for a minute; how many."""
        now = self._clock()
        with self._lock:
            idle = [job for name, job in self._jobs.items() if now - self._asked[name] > _IDLE_RUN_S]
        for job in idle:
            self.forget(job)
        return len(idle)


@dataclass(frozen=True, eq=False)
class Api:
    """The handlers.

    ``loading``: the module `opening` and what answers, which take seconds to load. ``folder``: whose files may be opened (None:
    only what is dropped). ``model``: what is asked where a session names none.
    """

    queue: Queue
    sessions: Sessions
    models: ServedModels
    loading: Future[tuple[Any, Answers]]
    folder: AllowedFolder | None
    model: str
    max_upload: int
    runs: Runs
    has_library: bool = False

    def operations(self) -> list[Operation]:
        """Everything that can be asked."""
        s, r = "/api/sessions/{session}", "/api/runs/{run}"
        return [
            Operation("GET", "/api/server", "What this server has", self.about, answer=_OBJECT),
            Operation(
                "GET", "/api/folder", "What lies in the folder that may be opened", self.list_folder, answer=_OBJECT,
                refuses=(403, 404), query=_PATH,
            ),
            Operation("GET", "/api/models", "The models that are here", self.list_models, answer=_OBJECT),
            Operation(
                "GET", "/api/models/{model}", "Load a model and say who it is", self.model_card, answer=_OBJECT, refuses=(422,)
            ),
            Operation("POST", "/api/sessions", "Begin a session", self.begin, answer=_OBJECT, status=201),
            Operation("DELETE", s, "End a session: all its files are deleted", self.end),
            Operation(
                "PUT", f"{s}/files/{{name}}", "Drop a file into the session", self.drop, body=BINARY, answer=_OBJECT,
                blocks=False,
            ),
            Operation("DELETE", f"{s}/files", "Forget the files that were dropped", self.forget),
            Operation(
                "GET", f"{s}/series", "The series of a DICOM folder, or of what was dropped", self.list_series, answer=_OBJECT,
                refuses=(403, 409, 422), query=_PATH,
            ),
            Operation("PUT", f"{s}/ct", "Open a CT", self.open, body=_OPEN, answer=_OBJECT, refuses=(403, 409, 422)),
            Operation("GET", f"{s}/ct", "The open CT, but not whose it is", self.show_ct, answer=_OBJECT, refuses=(409,)),
            Operation("GET", f"{s}/ct/volume.nii", "Its voxels as NIfTI", self.voxels, answer=BINARY, refuses=(409,)),
            Operation("GET", f"{s}/boxes", "The boxes", self.show_boxes, answer=_BOXES),
            Operation(
                "PUT", f"{s}/boxes", "These boxes in the place of those there are", self.put_boxes, body=_BOXES, answer=_BOXES,
                refuses=(422,),
            ),
            Operation(
                "GET", f"{s}/boxes.mrk.json", "The boxes as a markups file of 3D Slicer", self.save_boxes, answer=_OBJECT,
                refuses=(422,),
            ),
            Operation(
                "PUT", f"{s}/boxes.mrk.json", "The boxes of a markups file of 3D Slicer, or of a CSV", self.load_boxes,
                body="text/plain", answer=_BOXES, refuses=(409, 422),
            ),
            Operation(
                "POST", f"{s}/job", "Classify the boxes", self.classify, body=_ASKED, answer=_JOB, refuses=(409, 422), status=202
            ),
            Operation("GET", f"{s}/job", "How far that is", self.show_job, answer=_JOB, refuses=(409,)),
            Operation("DELETE", f"{s}/job", "Cancel it", self.cancel_job, refuses=(409,)),
            Operation("GET", f"{s}/answer", "The answer as the page shows it", self.show_answer, answer=_OBJECT, refuses=(409,)),
            *(self._file(f"{s}/{name}", name) for name in _FILES),
            Operation(
                "GET", f"{s}/maps/{{number}}/map.nii", "The map of a lesion, for a viewer", self.map_nifti, answer=BINARY,
                refuses=(409,),
            ),
            Operation(
                "GET", f"{s}/maps/{{number}}/map.nrrd", "The map of a lesion, as lesionlens classify writes it", self.map_nrrd,
                answer=BINARY, refuses=(409, 422),
            ),
            Operation(
                "POST", "/api/runs", "Ask a model (a frame of LesionLib.inference.messages)", self.run, body=FRAME_TYPE,
                answer=_JOB, refuses=(404, 422), status=202,
            ),
            Operation("GET", r, "How far that is", self.show_run, answer=_JOB),
            Operation("DELETE", r, "Cancel and forget it", self.forget_run),
            Operation(
                "GET", f"{r}/answer", "The answer, once it is there (a frame)", self.run_answer, answer=FRAME_TYPE,
                refuses=(409, 422),
            ),
        ]  # fmt: skip

    def _file(self, path: str, name: str) -> Operation:
        kind = _FILES[name].partition(";")[0]
        answer = _OBJECT if kind == "application/json" else kind
        text = f"{name}, as lesionlens classify writes it"
        return Operation("GET", path, text, self.file_of(name), answer=answer, refuses=(409, 422))

    # --- the server

    def about(self, _asking: Asking) -> dict[str, Any]:
        return {
            "model": self.model, "models": self.models.names(), "hasFolder": self.folder is not None,
            "hasLibrary": self.has_library, "maxUploadBytes": self.max_upload, "viewerMissing": missing_viewer(),
            "windowsHU": viewer_windows(), "notice": "Research use only, not for diagnosis.",
        }  # fmt: skip

    def list_folder(self, asking: Asking) -> dict[str, Any]:
        if self.folder is None:
            raise ApiError(403, "this server opens no files of its own computer (--folder); drop yours into the page.")
        entries = self.folder.entries(asking.query("path"))
        return {"entries": [{"name": e.name, "path": e.path, "isFolder": e.is_folder} for e in entries]}

    def list_models(self, _asking: Asking) -> dict[str, Any]:
        return {"models": [{"name": name} for name in self.models.names()]}

    def model_card(self, asking: Asking) -> dict[str, Any]:
        name = asking.path("model")
        described = self.models.described(name)
        return {
            "name": name, "version": described.version, "sha256": described.sha256,
            "reach": reach_to_json(reach_of(described.spec)),
            "description": {**description_to_json(described), "folder": name},
        }  # fmt: skip

    # --- sessions

    @property
    def _opening(self) -> Any:
        return self.loading.result()[0]

    @property
    def _answers(self) -> Answers:
        return self.loading.result()[1]

    def begin(self, _asking: Asking) -> dict[str, Any]:
        return {"id": self.sessions.create().id}

    def end(self, asking: Asking) -> None:
        self._session(asking)
        self.sessions.end(asking.path("session"))

    def _session(self, asking: Asking) -> Session:
        return self.sessions.get(asking.path("session"))

    async def drop(self, asking: Asking) -> dict[str, Any]:
        session = self._session(asking)
        opening, _ = await run_in_threadpool(self.loading.result)
        content: AsyncIterator[bytes] = asking.request.stream()
        return await opening.take_upload(session, asking.path("name"), content, most=self.max_upload)

    def forget(self, asking: Asking) -> None:
        session = self._session(asking)
        with session.lock:
            self._opening.forget_uploads(session)

    def _source(self, session: Session, path: str | None) -> tuple[Path, str | None]:
        """Where the CT lies, and what to call it."""
        if path is None:
            return self._opening.uploaded(session)
        if self.folder is None:
            raise ApiError(403, "this server opens no files of its own computer (--folder); drop yours into the page.")
        return self.folder.openable(path), None

    def list_series(self, asking: Asking) -> dict[str, Any]:
        path, name = self._source(self._session(asking), asking.request.query_params.get("path"))
        return {"series": self._opening.list_series(path, name=name)}

    def open(self, asking: Asking) -> dict[str, Any]:
        session = self._session(asking)
        path, name = self._source(session, asking.body.get("path"))
        boxes: list = []
        if path.suffix.lower() == ".mrb" and path.is_file():
            ct, boxes = self._opening.read_scene(path)
        else:
            series = asking.body.get("series")
            read = self._opening.read_shared if name is None else self._opening.read
            ct = read(path, series=series, name=name)
        with session.lock:
            self._stop_job(session)
            session.ct, session.boxes = ct, boxes
            session.replace_answer(None)
        return self._opening.ct_to_json(ct)

    def show_ct(self, asking: Asking) -> dict[str, Any]:
        return self._opening.ct_to_json(self._session(asking).require_ct())

    def voxels(self, asking: Asking) -> Response:
        volume = self._session(asking).require_ct().volume
        header, voxels = nifti_parts(volume.array, volume.ijkToRAS)
        size = str(len(header) + voxels.nbytes)
        return StreamingResponse(_pieces(header, voxels), media_type=BINARY, headers={"content-length": size})

    def show_boxes(self, asking: Asking) -> dict[str, Any]:
        return {"boxes": [self._opening.box_to_json(box) for box in self._session(asking).boxes]}

    def put_boxes(self, asking: Asking) -> dict[str, Any]:
        session = self._session(asking)
        with session.lock:
            session.boxes = self._opening.boxes_from_json(asking.body["boxes"], session.boxes)
        return self.show_boxes(asking)

    def save_boxes(self, asking: Asking) -> Response:
        text = self._opening.markups_text(self._session(asking).boxes)
        return _attached(text.encode(), "application/json", "boxes.mrk.json")

    def load_boxes(self, asking: Asking) -> dict[str, Any]:
        session = self._session(asking)
        try:
            text = asking.body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ApiError(400, "this is no file of boxes: it is not UTF-8 text.") from error
        with session.lock:
            session.boxes = self._opening.boxes_from_file(session, text)
        return self.show_boxes(asking)

    # --- answers

    def classify(self, asking: Asking) -> dict[str, Any]:
        session, given = self._session(asking), asking.body
        from LesionLensApp.serve.answers import Asked

        asked = Asked(
            given.get("model") or self.model, given.get("similar", 9), given.get("boxJitter", 0), given.get("answerAnyway", False),
            given.get("map"),
        )  # fmt: skip
        self.models.folder_of(asked.model)
        with session.lock:
            ct, drawn = session.require_ct(), list(session.boxes)
            if not drawn:
                raise ApiError(409, "there is no box to classify; draw one around a lesion.")
            if session.job is not None and not session.job.ended.is_set():
                raise ApiError(409, "a job of this session is under way; wait for it, or cancel it.")
            out = session.folder / f"answer-{secrets.token_hex(4)}"

            def work(job: Job) -> Answer:
                answer = self._answers.classify(job, asked, ct, drawn, out)
                with session.lock:
                    if session.job is job and not job.is_unwanted:
                        session.replace_answer(answer)
                    else:
                        answer.remove()
                return answer

            session.job = Job(session.id, work, total=len(drawn))
            self.queue.put(session.job)
        return self.queue.to_json(session.job)

    def _job(self, asking: Asking) -> Job:
        job = self._session(asking).job
        if job is None:
            raise ApiError(409, "nothing was classified yet.")
        return job

    def show_job(self, asking: Asking) -> dict[str, Any]:
        return self.queue.to_json(self._job(asking))

    def cancel_job(self, asking: Asking) -> None:
        self.queue.cancel(self._job(asking))

    def _stop_job(self, session: Session) -> None:
        if session.job is not None:
            self.queue.cancel(session.job)
            session.job = None

    def show_answer(self, asking: Asking) -> dict[str, Any]:
        return self._session(asking).require_answer().to_json()

    def file_of(self, name: str) -> Any:
        """The handler of one of the files."""

        def give(asking: Asking) -> Response:
            session = self._session(asking)
            with session.lock:  # the next answer takes the files of this one away
                answer = session.require_answer()
                path = answer.dicom_path(name) if name.endswith(".dcm") else answer.folder / name
                if not path.is_file():
                    raise ApiError(404, f"there is no {name}: this server has no case library.")
                return _attached(path.read_bytes(), _FILES[name], name)

        return give

    def map_nifti(self, asking: Asking) -> Response:
        found = self._session(asking).require_answer().result(_number(asking)).heat_map
        if found is None:
            raise ApiError(404, "this lesion has no map.")
        return Response(nifti_bytes(found.array, found.ijkToRAS), media_type=BINARY)

    def map_nrrd(self, asking: Asking) -> Response:
        number, session = _number(asking), self._session(asking)
        with session.lock:
            path = session.require_answer().map_path(number)
            return _attached(path.read_bytes(), BINARY, path.name)

    # --- runs of other computers

    def run(self, asking: Asking) -> dict[str, Any]:
        content: bytes = asking.body
        given = asking.request.headers.get(DIGEST_HEADER)
        if given != digest_of(content):
            raise ApiError(400, "the message did not arrive whole: its digest is missing or another; send it again.")
        try:
            request = question_from_bytes(content)
        except WireError as error:
            raise ApiError(400, f"the message cannot be read: {error}.") from error
        folder = self.models.folder_of(str(request.model))
        request = replace(request, model=str(folder))
        total = 1 if isinstance(request, EmbeddingRequest) else len(request.boxes)
        owner = secrets.token_hex(8)
        return self.queue.to_json(self.runs.begin(Job(owner, lambda job: self.queue.ask(job, request), total=total)))

    def show_run(self, asking: Asking) -> dict[str, Any]:
        return self.queue.to_json(self.runs.get(asking.path("run")))

    def forget_run(self, asking: Asking) -> None:
        self.runs.forget(self.runs.get(asking.path("run")))

    def run_answer(self, asking: Asking) -> Response:
        job = self.runs.get(asking.path("run"))
        if not job.ended.is_set():
            raise ApiError(409, "there is no answer yet.")
        if job.error is not None:
            raise job.error
        if job.value is None:
            raise ApiError(409, "the run was cancelled; there is no answer.")
        content = bytes_of_frame(reply_to_frame(job.value))
        return Response(content, media_type=FRAME_TYPE, headers={DIGEST_HEADER: digest_of(content)})


def _number(asking: Asking) -> int:
    text = asking.path("number")
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise ApiError(404, "lesions are counted from 1.")
    return int(text)


def _pieces(header: bytes, voxels: np.ndarray) -> Iterator[bytes]:
    yield header
    view = memoryview(voxels.reshape(-1).view(np.uint8))
    for start in range(0, len(view), _PIECE):
        yield bytes(view[start : start + _PIECE])


def _attached(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
