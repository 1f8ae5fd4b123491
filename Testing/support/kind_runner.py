"""A model that answers at once: the kind of a computed nodule by its HU, in the name of the model that ships."""

from __future__ import annotations

import time

import numpy as np
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    Precision,
    RunnerCancelled,
    RunRequest,
    RunResponse,
)
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.model.folder import find_bundle, unchecked_manifest

KINDS = ("calcified", "solid", "subsolid")
_COLORS = ((0.9, 0.6, 0.0), (0.0, 0.45, 0.7), (0.0, 0.6, 0.45))


class KindRunner:
    """An `InferenceRunner`. ``waits_after``: after so many requests it answers no more until it is cancelled."""

    def __init__(self, *, waits_after: int | None = None) -> None:
        manifest = unchecked_manifest(find_bundle("lung-nodule-kind"))
        self._info = RunInfo("CT", "lung-nodule-kind", manifest["version"], manifest["sha256"], "cpu")
        self._waits_after = waits_after
        self.asked = 0
        self.is_cancelled = self.is_closed = False

    def start(self, model: object = None, options: object = None) -> None:
        """Nothing to warm up."""

    def run(self, request: RunRequest | EmbeddingRequest, *, progress: object = None) -> RunResponse | Embedding:
        self.asked += 1
        while self._waits_after is not None and self.asked > self._waits_after and not self.is_cancelled:
            time.sleep(0.005)
        if self.is_cancelled:
            msg = "the request was cancelled."
            raise RunnerCancelled(msg)
        if isinstance(request, EmbeddingRequest):
            _, vector = _looked_at(request.volume, request.box)
            return Embedding(vector, {}, {}, None, self._info)
        (box,) = request.boxes
        kind, vector = _looked_at(request.volume, box)
        probabilities = {name: 0.8 if name == kind else 0.1 for name in KINDS}
        heat = HeatMap(np.full((3, 3, 3), 0.5, np.float32), request.volume.ijkToRAS, 0.3, kind)
        result = LesionResult(box.name, box, kind, probabilities, vector, heat, ())
        return RunResponse([result], self._info, KINDS, _COLORS, Precision("float32", "canned"))

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True

    def restart(self) -> None:
        self.is_cancelled = False

    def close(self) -> None:
        self.is_closed = True


def _looked_at(volume: CTVolume, box: LesionBox) -> tuple[str, np.ndarray]:
    """The kind by the densest of the middle of the box; a vector that lies near those of its kind, and never on another."""
    i, j, k = np.round(transformed_points(volume.rasToIJK, box.centerRAS)).astype(int)
    middle = volume.array[k - 1 : k + 2, j - 2 : j + 3, i - 2 : i + 3]
    place = 0 if middle.max() > 350 else 1 if np.median(middle) > -200 else 2
    vector = np.random.default_rng(abs(int(middle.sum()))).normal(0, 0.2, 8)
    vector[place] += 1.0
    return KINDS[place], (vector / np.linalg.norm(vector)).astype(np.float32)
