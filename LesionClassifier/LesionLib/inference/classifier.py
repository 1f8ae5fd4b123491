"""Answers requests, box by box: what the worker process and the in-process runner share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

import torch

from .classify import Classifier, device_name, software_versions
from .errors import BundleError
from .geometry import LesionBox, require_overlap
from .input_warning import InputWarning, WarningName
from .results import LesionResult, RunInfo
from .runner_models import LoadedModel, ModelCache, chosen_device
from .runner_types import (
    Embedding,
    EmbeddingRequest,
    ModelDescription,
    PrecisionChoice,
    Progress,
    RunAnswer,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
)

_OUT_OF_GPU_MEMORY = InputWarning(
    WarningName.GPU_MEMORY,
    "The GPU ran out of memory; this lesion was answered on the CPU. Close other programs that use the GPU.",
)


class Engine:
    """Keeps models warm and answers with them. One request at a time: not safe for several threads."""

    def __init__(self, *, default_precision: PrecisionChoice) -> None:
        self._models = ModelCache()
        self._default_precision = default_precision

    def warm(self, model: str, options: RunOptions) -> None:
        """Load a model now, so that the first request finds it. Raises what `load_bundle` raises, or `RunnerError`."""
        self._model(model, options)

    def describe(self, model: str, options: RunOptions) -> ModelDescription:
        """The same, and who the model is."""
        loaded, _ = self._model(model, options)
        bundle = loaded.bundle
        return ModelDescription(
            name=bundle.name,
            version=bundle.version,
            sha256=bundle.sha256,
            class_names=bundle.class_names,
            class_colors=bundle.class_colors,
            spec=bundle.spec,
            manifest=bundle.manifest,
            folder=bundle.folder,
            device=device_name(loaded.device),
        )

    def run(
        self, request: RunRequest, *, progress: Progress | None = None, is_cancelled: Callable[[], bool] = lambda: False
    ) -> RunAnswer:
        """Answer all boxes; every box is checked before the first is classified.

        ``progress(done, total, name)`` comes before each box, with the name of that box, and once at the end with
        ``done == total`` and no name. Falls back to the CPU where the GPU's memory does not suffice.
        Raises `BoxError`, `BundleError`, `RunnerError`, and `RunnerCancelled` between two boxes.
        """
        model, warnings = self._model(request.model, request.options)
        _check(request, model)
        total, results, most_lesions = len(request.boxes), [], None
        while len(results) < total:
            left = request.boxes[len(results) :]
            answers = _answers(model, request, left, most_lesions)
            for box in left:
                _tell(progress, len(results), total, box.name)
                if is_cancelled():
                    msg = f"cancelled after {len(results)} of {total} lesions."
                    raise RunnerCancelled(msg)
                result = _next_answer(answers, box)
                if result is None:
                    break
                results.append(replace(result, warnings=(*result.warnings, *warnings)))
            else:
                break
            # One lesion at a time may fit where several did not; then the CPU; then nothing is left to try.
            if most_lesions is None and total - len(results) > 1:
                most_lesions = 1
            elif warnings:
                _refuse_for_memory(request.boxes[len(results)])
            else:
                model, warnings = self._on_cpu(request.model, request.options), (_OUT_OF_GPU_MEMORY,)
        _tell(progress, total, total, "")
        return _answer(request, model, results)

    def embed(
        self,
        request: EmbeddingRequest,
        *,
        progress: Progress | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Embedding:
        """Where the model sees the lesion among others, in float32. Progress, memory and errors as for `run`."""
        require_overlap(request.volume, request.box)
        options = replace(request.options, precision="float32")
        model, warnings = self._model(request.model, options)
        _tell(progress, 0, 1, request.box.name)
        if is_cancelled():
            msg = "cancelled before the lesion was looked at."
            raise RunnerCancelled(msg)
        embedding = _embedding(model, request, warnings)
        if embedding is None and not warnings:
            del model  # it would keep the GPU's memory
            model, warnings = self._on_cpu(request.model, options), (_OUT_OF_GPU_MEMORY,)
            embedding = _embedding(model, request, warnings)
        if embedding is None:
            _refuse_for_memory(request.box)
        _tell(progress, 1, 1, "")
        return embedding

    def close(self) -> None:
        """Forget the models."""
        self._models.clear()

    def _model(self, name: str, options: RunOptions) -> tuple[LoadedModel, tuple[InputWarning, ...]]:
        precision = options.precision or self._default_precision
        # Out of the except block before the CPU is tried: a traceback would keep the GPU's tensors alive.
        with suppress(torch.OutOfMemoryError):
            return self._models.get(name, chosen_device(options.device), precision), ()
        return self._on_cpu(name, options), (_OUT_OF_GPU_MEMORY,)

    def _on_cpu(self, name: str, options: RunOptions) -> LoadedModel:
        self._models.clear()
        return self._models.get(name, torch.device("cpu"), options.precision or self._default_precision)


def _check(request: RunRequest, model: LoadedModel) -> None:
    for box in request.boxes:
        require_overlap(request.volume, box)
    wanted, known = request.options.class_name, model.bundle.class_names
    if wanted is not None and wanted not in known:
        msg = f"model {model.bundle.name} has no class {wanted!r} to explain; it knows {', '.join(known)}."
        raise BundleError(msg)


def _answers(
    model: LoadedModel, request: RunRequest, boxes: Sequence[LesionBox], most_lesions: int | None
) -> Iterator[LesionResult]:
    options = request.options
    classifier = Classifier(model.bundle, request.volume)
    return classifier.classify_all(
        boxes, class_name=options.class_name, redrawn=options.redrawn, most_lesions=most_lesions
    )


def _next_answer(answers: Iterator[LesionResult], box: LesionBox) -> LesionResult | None:
    """The next answer; None where the GPU's memory does not suffice. Raises `RunnerError` for the CPU's."""
    try:
        return next(answers)
    except torch.OutOfMemoryError:
        return None
    except MemoryError:
        _refuse_for_memory(box)


def _embedding(model: LoadedModel, request: EmbeddingRequest, warnings: tuple[InputWarning, ...]) -> Embedding | None:
    """The answer; None where the GPU's memory does not suffice. Raises `RunnerError` for the CPU's."""
    bundle, box, classifier = model.bundle, request.box, Classifier(model.bundle, request.volume)
    probabilities, heat_map = {}, None
    try:
        if bundle.class_names and not request.query_only:  # one pass through the network for both
            result = classifier.classify(box)
            vector, probabilities = result.embedding, result.probabilities
        else:
            vector = classifier.embed(box)
        if request.similar_to is not None:
            heat_map = classifier.similarity_to(box, request.similar_to)
    except torch.OutOfMemoryError:
        return None
    except MemoryError:
        _refuse_for_memory(box)
    return Embedding(
        vector=vector,
        probabilities=probabilities,
        class_colors=dict(zip(bundle.class_names, bundle.class_colors, strict=True)),
        heat_map=heat_map,
        info=_info(request, model),
        warnings=warnings,
    )


def _refuse_for_memory(box: LesionBox) -> NoReturn:
    msg = f"there is not enough memory to answer box {box.name!r}; close other programs, or crop the CT around it."
    raise RunnerError(msg)


def _tell(progress: Progress | None, done: int, total: int, name: str) -> None:
    if progress is not None:
        progress(done, total, name)


def _answer(request: RunRequest, model: LoadedModel, results: list[LesionResult]) -> RunAnswer:
    bundle = model.bundle
    return RunAnswer(
        results=results,
        info=_info(request, model),
        class_names=bundle.class_names,
        class_colors=bundle.class_colors,
        precision=model.precision,
    )


def _info(request: RunRequest | EmbeddingRequest, model: LoadedModel) -> RunInfo:
    bundle, suffix = model.bundle, ", bfloat16" if model.precision.name == "bfloat16" else ""
    return RunInfo(
        volume=request.volume.name,
        model_name=bundle.name,
        model_version=bundle.version,
        model_sha256=bundle.sha256,
        device=device_name(model.device) + suffix,
        software=software_versions(),
    )
