"""The models of a server on several GPUs or nodes, by Ray Serve: replicas that answer, and the runners that ask them.

Sessions, files, the library and the token stay with the one process that the browser talks to; what goes to a replica is a
question, cut to what the model looks at, as `LesionLib.remote` sends it, and what comes back is its answer, so that it is the
one of a single process to the last digit. Nothing here listens to browsers: Ray Serve's own HTTP is off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    ModelDescription,
    Progress,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
    RunResponse,
    error_from_json,
    error_to_json,
    reply_from_frame,
    reply_to_frame,
)
from LesionLib.inference.model_description import description_from_json, description_to_json
from LesionLib.inference.runner import InferenceRunner, WorkerRunner
from LesionLib.remote.messages import (
    bytes_of_frame,
    frame_of_bytes,
    question_from_bytes,
    question_to_bytes,
    with_warnings_of,
)
from LesionLib.sampling.inputs import reach_of

from LesionLensApp.serve.sessions import FOLDER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray.serve.handle import DeploymentHandle

_REACHED_S, _JOIN_S, _DELETED_S = 5.0, 0.1, 30.0
_LONGEST = 8  # characters of /tmp, or little more
_STORE = 512 * 1024**2  # bytes, of questions and answers on their way
_CANCELLED = "the request was cancelled."
_UNFORESEEN = "a replica met something unforeseen; try again, and look into the log of Ray where it goes on."


class Replica:
    """Answers on one GPU or some cores of a node, one question at a time, by a worker process of its own."""

    def __init__(self, *, is_local: bool) -> None:
        if is_local:
            _listen_on_loopback()
        self._runner = WorkerRunner()

    async def describe(self, model: str, options: dict[str, Any]) -> AsyncIterator[tuple]:
        """("described", who the model is), or ("error", its JSON)."""

        def work(_tell: Callable) -> tuple:
            return "described", description_to_json(self._runner.describe(model, RunOptions(**options)))

        async for said in self._worked(work):
            yield said

    async def run(self, question: bytes) -> AsyncIterator[tuple]:
        """("progress", done, total, name) …, then ("answer", its frame), ("cancelled",) or ("error", its JSON).

        Whoever stops to listen cancels it.
        """

        def work(tell: Callable) -> tuple:
            request = question_from_bytes(question)
            answer = self._runner.run(request, progress=lambda *now: tell("progress", *now))
            return "answer", bytes_of_frame(reply_to_frame(answer))

        async for said in self._worked(work):
            yield said

    async def _worked(self, work: Callable[[Callable], tuple]) -> AsyncIterator[tuple]:
        loop = asyncio.get_running_loop()
        said: asyncio.Queue[tuple] = asyncio.Queue()

        def tell(*what: Any) -> None:
            loop.call_soon_threadsafe(said.put_nowait, what)

        def do() -> None:
            try:
                tell(*work(tell))
            except RunnerCancelled:
                tell("cancelled")
            except LesionLensError as error:
                tell("error", error_to_json(error))
            except Exception:
                logging.getLogger("ray.serve").exception("LesionLens: unforeseen")
                tell("error", error_to_json(RunnerError(_UNFORESEEN)))

        thread = Thread(target=do, name="LesionLens replica", daemon=True)
        thread.start()
        try:
            while True:
                what = await said.get()
                yield what
                if what[0] != "progress":
                    return
        finally:
            ending = loop.run_in_executor(None, self._end, thread)
            while not ending.done():
                with suppress(asyncio.CancelledError):  # said twice
                    await asyncio.shield(ending)

    def _end(self, thread: Thread) -> None:
        """Wait for a question to end, cancelled where it has not; the replica takes the next one only then."""
        while thread.is_alive():
            self._runner.cancel()
            thread.join(_JOIN_S)

    def __del__(self) -> None:
        self._runner.close()


def _listen_on_loopback() -> None:
    """Serve lets its replicas listen at all addresses, for each other; on a Ray of one computer nobody else is to reach them."""
    from ray.serve._private import replica

    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: bind(server, address.replace("[::]", "127.0.0.1"))


class ReplicaRunner:
    """Asks whichever replica is free; an `InferenceRunner` like any other, one question at a time."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._lock = Lock()
        self._asked: Any = None  # the answer that is under way
        self._is_cancelled = self._is_closed = False
        self._described: dict[str, ModelDescription] = {}

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """Let a replica load ``model``. Raises as `describe` does."""
        if model is not None:
            self.describe(model, options)

    def describe(self, model: str | Path, options: RunOptions | None = None) -> ModelDescription:
        """Let a replica load ``model``, and say who it is. Raises `BundleError` or `RunnerError`."""
        given = options or RunOptions()
        values = {"device": given.device, "precision": given.precision}
        for what in self._told(self._handle.describe, str(model), values):
            self._described[str(model)] = description_from_json(what[1])
        return self._described[str(model)]

    def run(
        self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None
    ) -> RunResponse | Embedding:
        """See `InferenceRunner.run`."""
        described = self._described.get(str(request.model)) or self.describe(request.model, request.options)
        content = question_to_bytes(request, reach_of(described.spec))
        answer = b""
        for what in self._told(self._handle.run, content):
            if what[0] == "answer":
                answer = what[1]
            elif progress is not None:
                progress(*what[1:])
        return with_warnings_of(request.volume, reply_from_frame(frame_of_bytes(answer), request))

    def cancel(self) -> bool:
        """Tell the replica that nobody waits for it any more."""
        with self._lock:
            if self._asked is None:
                return False
            if not self._is_cancelled:
                self._is_cancelled = True
                self._asked.cancel()
        return True

    def restart(self) -> None:
        """A request that is running is cancelled; the replicas are Ray's to restart."""
        self.cancel()
        self._described.clear()

    def close(self) -> None:
        """A running request is cancelled, the next one refused."""
        self._is_closed = True
        self.cancel()

    def _told(self, method: Any, *given: Any) -> Iterator[tuple]:
        """What a replica says, its errors raised."""
        with self._lock:
            if self._is_closed:
                msg = "the runner was closed; make a new one."
                raise RunnerError(msg)
            if self._asked is not None:
                msg = "the runner is busy with another request; wait for its answer or cancel it."
                raise RunnerError(msg)
            self._is_cancelled = False
            asked = self._asked = method.options(stream=True).remote(*given)
        try:
            for what in asked:
                if what[0] == "cancelled" or self._is_cancelled:
                    raise RunnerCancelled(_CANCELLED)
                if what[0] == "error":
                    raise error_from_json(what[1])
                yield what
        except LesionLensError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # Ray's own have no class in common
            if self._is_cancelled:
                raise RunnerCancelled(_CANCELLED) from error
            msg = f"a replica was lost in the middle of the request ({type(error).__name__}); Ray starts another: try again."
            raise RunnerError(msg) from error
        finally:
            with self._lock:
                self._asked = None


@contextmanager
def replicas(address: str, *, count: int | None, device: str) -> Iterator[list[InferenceRunner]]:
    """Runners, one for each replica, while the block runs.

    ``address``: "local" starts a Ray of this computer's own, which only this computer reaches and which ends with the block;
    "auto" or host:port is a cluster that this computer is a node of. ``count``: None: one for each GPU, or one. Raises
    `LesionLensError` where the cluster is not there or too small.
    """
    is_local = address == "local"
    own = _own_folder() if is_local else None
    try:
        _connect(address, own)
        try:
            yield from _deployed(count, device, is_local=is_local)
        finally:
            _disconnect()
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def _own_folder() -> Path:
    """For Ray's logs and sockets. The names of sockets are short by law: where the user's folder is too deep, in /tmp."""
    place = None if os.name != "posix" or len(tempfile.gettempdir()) <= _LONGEST else "/tmp"
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=place))


def _connect(address: str, own: Path | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    if own is not None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's name for: loopback only
        options |= {"_temp_dir": str(own), "_node_ip_address": "127.0.0.1", "object_store_memory": _STORE}
    handler = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        import ray

        _require_somebody(address)
        ray.init(address, **options)
    except Exception as error:  # Ray's own have no class in common
        msg = f"no Ray cluster answers at {address} ({' '.join(str(error).split())[:200]}); start one by ray start --head."
        raise LesionLensError(msg) from error
    finally:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, handler)


def _require_somebody(address: str) -> None:
    """Whoever listens at host:port; Ray itself waits for minutes. Raises `OSError`."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_S).close()


def _deployed(count: int | None, device: str, *, is_local: bool) -> Iterator[list[InferenceRunner]]:
    import ray
    from ray import serve

    there = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
    count = count or max(1, gpus)
    most, of = (gpus, "GPUs") if gpus else (int(there.get("CPU", 0)), "cores")
    if count > most:
        msg = f"--replicas is {count}, and the cluster has {most} {of}; give at most as many."
        raise LesionLensError(msg)
    name = f"lesionlens-{secrets.token_hex(4)}"
    needed = {"num_cpus": 0 if gpus else 1, "num_gpus": 1 if gpus else 0}
    quiet = {"enable_access_log": False, "log_level": "ERROR"}
    serve.start(proxy_location="Disabled", logging_config=quiet)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    deployment = serve.deployment(
        Replica,
        name="models",
        num_replicas=count,
        max_ongoing_requests=1,
        ray_actor_options=needed,
        logging_config=quiet,
    )
    handle = serve.run(deployment.bind(is_local=is_local), name=name, route_prefix=None)
    runners = [ReplicaRunner(handle) for _ in range(count)]
    try:
        yield runners
    finally:
        for runner in runners:
            runner.close()
        if not is_local:  # all of a local one goes
            _delete(name)


def _delete(name: str) -> None:
    """Take the models off the cluster, and Serve where nobody else uses it; not for ever, where the cluster is gone."""
    from ray import serve

    def do() -> None:
        with suppress(Exception):
            serve.delete(name)
            if not serve.status().applications:
                serve.shutdown()

    thread = Thread(target=do, name="LesionLens replicas", daemon=True)
    thread.start()
    thread.join(_DELETED_S)


def _disconnect() -> None:
    import ray

    ray.shutdown()
