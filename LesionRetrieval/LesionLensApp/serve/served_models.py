"""The models that are installed here, by name: who each is, once the worker has loaded it."""

from __future__ import annotations

from pathlib import Path

from LesionLib.inference.messages import ModelDescription
from LesionLib.model.folder import installed_bundles

from LesionLensApp.serve.access import ApiError
from LesionLensApp.serve.jobs import Job, Queue

_LOADED_S = 300.0


class ServedModels:
    """Only names are taken, never paths: who asks is on another computer."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._described: dict[str, ModelDescription] = {}

    def names(self) -> list[str]:
        """Of all."""
        return sorted(installed_bundles())

    def folder_of(self, name: str) -> Path:
        """Where it lies. Raises `ApiError`."""
        found = installed_bundles().get(name)
        if found is None:
            there = ", ".join(self.names())
            msg = f"the server has no model {name[:80]!r}; it has {there}. Install it there, or choose one of these."
            raise ApiError(404, msg, error="BundleError")
        return found

    def describe(self, name: str) -> ModelDescription:
        """Load it and say who it is; on the thread of the jobs. Raises `BundleError` or `RunnerError`."""
        if name not in self._described:
            self._described[name] = self._queue.describe(self.folder_of(name))
        return self._described[name]

    def described(self, name: str) -> ModelDescription:
        """The same on any other thread: waits for its turn where it is not known yet."""
        self.folder_of(name)
        if name in self._described:
            return self._described[name]
        job = self.queued(name)
        if not job.ended.wait(_LOADED_S):
            self._queue.cancel(job)
            raise ApiError(503, f"{name} could not be loaded in time; try again in a minute.")
        if job.error is not None:
            raise job.error
        if job.value is None:
            raise ApiError(503, "the server is closing.")
        return job.value

    def queued(self, name: str) -> Job:
        """Let the worker load it when its turn comes. Raises `ApiError`."""
        return self._queue.put(Job("models", lambda _job: self.describe(name)))
