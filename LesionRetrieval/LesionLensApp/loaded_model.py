"""The model of a command, asked in this process as Slicer's worker is asked in its own: with the CPU to fall back to."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
from LesionLib.errors import InputWarning, WarningName
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import (
    AcceleratorChoice,
    Embedding,
    EmbeddingRequest,
    ModelDescription,
    RunOptions,
    RunRequest,
    RunResponse,
)
from LesionLib.inference.results import LesionResult
from LesionLib.inference.runner import InProcessRunner
from LesionLib.terminal import notify


class ModelSession:
    """``described``: who the model is. On the GPU where there is one, until its memory does not suffice; then on the CPU.

    Raises what `load_bundle` raises.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        accelerator: AcceleratorChoice = "off",
    ) -> None:
        if threads is not None:
            import torch  # late: a command's options are refused without it

            torch.set_num_threads(threads)
        self._runner, self._options = InProcessRunner(), RunOptions(device=device)
        self._accelerator = accelerator
        self.described: ModelDescription = self._runner.describe(model, self._options)

    @classmethod
    def of(cls, options: argparse.Namespace) -> ModelSession:
        """As the command line names it: ``model``, ``device``, ``threads``, ``accelerator``."""
        return cls(options.model, device=options.device, threads=options.threads, accelerator=accelerator_of(options))

    def classify(
        self, volume: CTVolume, box: LesionBox, *, box_jitter: int = 0, answer_anyway: bool = False
    ) -> LesionResult:
        """The answer for one box. Raises `LesionLensError`."""
        options = RunOptions(box_jitter=box_jitter, answer_anyway=answer_anyway)
        return self.run(RunRequest(str(self.described.folder), volume, [box], options)).results[0]

    def embed(self, volume: CTVolume, box: LesionBox) -> np.ndarray:
        """The L2-normalised embedding of a lesion, float32, (d,). Raises `LesionLensError`."""
        return self.embed_checked(volume, box)[0]

    def embed_checked(self, volume: CTVolume, box: LesionBox) -> tuple[np.ndarray, tuple[InputWarning, ...]]:
        """The same, and what is unusual about the lesion. Raises `LesionLensError`."""
        response = self.run(EmbeddingRequest(str(self.described.folder), volume, box, query_only=True))
        return response.vector, response.warnings

    def embed_case(self, volume: CTVolume, box: LesionBox) -> Embedding:
        """Where the model sees a lesion that becomes a case, with what it scores of it, if it does. Raises `LesionLensError`."""
        query_only = not self.described.scores
        return self.run(EmbeddingRequest(str(self.described.folder), volume, box, query_only=query_only))

    @overload
    def run(self, request: RunRequest) -> RunResponse: ...

    @overload
    def run(self, request: EmbeddingRequest) -> Embedding: ...

    def run(self, request: RunRequest | EmbeddingRequest) -> RunResponse | Embedding:
        """Ask; the device is this model's to choose. Raises `LesionLensError`."""
        options = replace(request.options, device=self._options.device, accelerator=self._accelerator)
        response = self._runner.run(replace(request, options=options))
        parts = [response] if isinstance(response, Embedding) else response.results
        warned = [w for part in parts for w in part.warnings if getattr(w, "name", None) is WarningName.GPU_MEMORY]
        if warned and self._options.device != "cpu":
            self._options = RunOptions(device="cpu")  # else every lesion would try, and load the model, twice
            notify(f"lesionlens: {warned[0]}", sys.stderr)
        return response


def accelerator_of(options: argparse.Namespace) -> AcceleratorChoice:
    """What the command line asks for; where it says nothing, only a batch answers enough lesions to load it for."""
    chosen = getattr(options, "accelerator", None)
    return chosen or ("auto" if getattr(options, "batch", None) else "off")
