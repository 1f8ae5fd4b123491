"""From boxes to answers: a model on the lesions of a CT, models that stay loaded, and the engine that answers requests."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from LesionLib import __version__
from LesionLib.errors import BoxError, BundleError, InputWarning, WarningName
from LesionLib.explain.heat_map import HeatMap, resample_to_ct
from LesionLib.explain.localisation import energy_share
from LesionLib.explain.saliency import similarity_map
from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.inference.devices import chosen_device, device_name
from LesionLib.inference.input_checks import box_warnings, volume_warnings
from LesionLib.inference.lesion_maps import MapPlan, Watch, lesion_maps
from LesionLib.inference.loaded_models import LoadedModel, ModelCache
from LesionLib.inference.messages import (
    MAP_CHOICES,
    AcceleratorChoice,
    Embedding,
    EmbeddingRequest,
    MapChoice,
    ModelDescription,
    PrecisionChoice,
    Progress,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
    RunResponse,
)
from LesionLib.inference.results import LesionResult, RunInfo, abstention_codes, color_by_class
from LesionLib.model.bundle import Bundle
from LesionLib.model.explanation import METHOD_NAMES
from LesionLib.model.folder import same_embedding_as
from LesionLib.model.scores import named_scores
from LesionLib.networks.base import device_of, parted_output
from LesionLib.sampling.batches import Lesion, batches, crop_lesion, first_alike, stacked
from LesionLib.sampling.inputs import model_input_boxes
from LesionLib.sampling.statistics import LesionStatistics, lesion_statistics, longest_extent_mm
from LesionLib.uncertainty.conformal import prediction_set
from LesionLib.uncertainty.reliability import Reliability
from LesionLib.uncertainty.stability import box_stability


def software_versions() -> str:
    """What computes here, for results: ``LesionLens 0.1.0, torch 2.13.0, Python 3.12.1``."""
    return f"LesionLens {__version__}, torch {torch.__version__}, Python {platform.python_version()}"


@dataclass(frozen=True, eq=False)
class Classifier:
    """Answers for the boxes of one CT with one model: probabilities, embedding, Grad-CAM and reliability of every lesion."""

    bundle: Bundle
    volume: CTVolume

    def classify(
        self,
        box: LesionBox,
        *,
        class_name: str | None = None,
        box_jitter: int = 0,
        map_method: MapChoice | None = None,
    ) -> LesionResult:
        """The answer for one box; see `classify_all`."""
        (result,) = self.classify_all([box], class_name=class_name, box_jitter=box_jitter, map_method=map_method)
        return result

    def classify_all(
        self,
        boxes: Sequence[LesionBox],
        *,
        class_name: str | None = None,
        box_jitter: int = 0,
        answer_anyway: bool = False,
        max_lesions: int | None = None,
        map_method: MapChoice | None = None,
        watch: Watch | None = None,
    ) -> Iterator[LesionResult]:
        """One answer a box, in order: probabilities, embedding, and the map of ``class_name``.

        Without a ``class_name`` the map is of the class that the model chose, as a rule of the answer; ``map_method``: how it
        is made, as the model chose where it is None. ``watch`` is told, while a slow map is made, of which box and which share
        is done; an exception that it raises stops here.

        The patches of several boxes, at most ``max_lesions``, go through the network at once. The probability of a
        lesion is the mean of its patches' (DMRN's rule), and so is a score, brought onto its scale afterwards.
        ``box_jitter``: boxes drawn a little differently that are asked too, for the spread of the answer. Where the model
        abstains there is no label, and no map but of a ``class_name``; with ``answer_anyway`` there are. Raises `BoxError`
        for a box outside, `BundleError` for a model without classes.
        """
        self._require_classes()
        warnings = volume_warnings(self.volume)
        device, own = device_of(self.bundle.network), self.bundle.explanation
        plan = MapPlan(
            class_name=class_name or own.class_name,
            method=map_method or own.method,
            also_abstained=bool(class_name) or answer_anyway,
            watch=watch,
        )
        for batch in batches(self.volume, boxes, self.bundle.spec, device=device, max_lesions=max_lesions):
            predictions = self._predictions(batch)
            pairs = list(zip(batch, predictions, strict=True))
            skipped = [plan.is_slow and not plan.also_abstained and self._abstains(*pair) for pair in pairs]
            maps = lesion_maps(self.bundle, self.volume, pairs, plan, skipped=skipped)
            for lesion, prediction, heat_map in zip(batch, predictions, maps, strict=True):
                result = self._result(lesion, prediction, heat_map, warnings)
                if not (result.usable or answer_anyway):
                    explained = result.heat_map if class_name else None
                    result = replace(result.without_abstained, heat_map=explained)
                yield self._with_stability(result, prediction, box_jitter) if box_jitter else result

    def embed(self, box: LesionBox) -> np.ndarray:
        """The L2-normalised embedding of a lesion, float32, shape (d,)."""
        return self._directions_of(crop_lesion(self.volume, box, self.bundle.spec))[0]

    def embed_checked(self, box: LesionBox) -> tuple[np.ndarray, tuple[InputWarning, ...]]:
        """The same, and what is unusual about the lesion: all that is said beside an answer but of its heat map."""
        lesion = crop_lesion(self.volume, box, self.bundle.spec)
        embedding, likeness = self._directions_of(lesion)
        return embedding, self._warnings(lesion, likeness, volume_warnings(self.volume))

    def _directions_of(self, lesion: Lesion) -> tuple[np.ndarray, np.ndarray]:
        features = self._features([lesion])
        with torch.no_grad():
            return self._directions(features)

    def probabilities(self, box: LesionBox) -> np.ndarray:
        """The class probabilities of a lesion alone, float32, shape (class,)."""
        self._require_classes()
        return self._predictions([crop_lesion(self.volume, box, self.bundle.spec)])[0].probabilities

    def _values(self, box: LesionBox) -> np.ndarray:
        """Probabilities and scores of a lesion alone, (class + score,)."""
        prediction = self._predictions([crop_lesion(self.volume, box, self.bundle.spec)])[0]
        return np.append(prediction.probabilities, list(prediction.scores.values()))

    def similarity_to(self, box: LesionBox, embedding: np.ndarray, *, name: str = "similar") -> HeatMap:
        """What in a lesion makes it resemble the lesion of ``embedding`` (L2-normalised, (d,)), painted into the CT."""
        lesion = crop_lesion(self.volume, box, self.bundle.spec)
        found = similarity_map(self.bundle.network, self._features([lesion]), embedding, length_is_fixed=True)
        return resample_to_ct(
            found.cpu().numpy(), lesion.sample, box, self.volume, name, cell_centres=self.bundle.network.cell_centres
        )

    def _require_classes(self) -> None:
        if not self.bundle.class_names:
            msg = f"model {self.bundle.name} only compares lesions, it knows no classes; use it with a case library."
            raise BundleError(msg)

    def _predictions(self, batch: list[Lesion]) -> list[_Prediction]:
        """One a lesion; those that the network cannot tell apart share one."""
        alike = first_alike(batch)
        looked_at = sorted(set(alike))
        found = dict(zip(looked_at, self._distinct_predictions([batch[number] for number in looked_at]), strict=True))
        return [found[number] for number in alike]

    def _distinct_predictions(self, batch: list[Lesion]) -> list[_Prediction]:
        network, counts = self.bundle.network, [len(lesion.patches) for lesion in batch]
        features = self._features(batch)
        with torch.no_grad():
            logits, scores = parted_output(network.head(features), len(self.bundle.scores))
            probabilities = network.probabilities(logits, self.bundle.temperature)
            parts = zip(features.split(counts), probabilities.split(counts), scores.split(counts), strict=True)
            return [
                _Prediction(f, p.mean(dim=0).cpu().numpy(), *self._directions(f), self._named_scores(s))
                for f, p, s in parts
            ]

    def _named_scores(self, of_patches: Tensor) -> dict[str, float]:
        return named_scores(self.bundle.scores, of_patches.float().mean(dim=0).tolist())

    def _features(self, batch: list[Lesion]) -> Tensor:
        network, counts = self.bundle.network, [len(lesion.patches) for lesion in batch]
        with torch.no_grad():
            return network.features_of_lesions(stacked(batch, device_of(network)), counts)

    def _directions(self, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of one lesion: its embedding, and what its likeness to the training lesions is told by."""
        descriptor = self.bundle.network.descriptor(features)
        embedding = _mean_direction(descriptor)
        if self.bundle.ood is None:
            return embedding, embedding
        likeness = self.bundle.network.training_likeness(features, descriptor)
        return embedding, embedding if likeness is descriptor else _mean_direction(likeness)

    def _abstains(self, lesion: Lesion, prediction: _Prediction) -> bool:
        return bool(abstention_codes(self._warnings(lesion, prediction.likeness, ())))

    def _result(
        self, lesion: Lesion, prediction: _Prediction, heat_map: HeatMap | None, shared: Iterable[InputWarning]
    ) -> LesionResult:
        names = self.bundle.class_names
        warnings = self._warnings(lesion, prediction.likeness, shared)
        if heat_map is not None and heat_map.is_empty:
            method = METHOD_NAMES[heat_map.method]
            text = f"The {method} is empty: nothing in the box speaks for {heat_map.class_name!r}."
            warnings += (InputWarning(WarningName.EMPTY_HEAT_MAP, text),)
        return LesionResult(
            name=lesion.box.name,
            box=lesion.box,
            label=names[int(prediction.probabilities.argmax())],
            probabilities={name: float(p) for name, p in zip(names, prediction.probabilities, strict=True)},
            embedding=prediction.embedding,
            heat_map=heat_map,
            warnings=warnings,
            reliability=self._reliability(lesion.box, prediction, heat_map),
            statistics=_statistics(self.volume, lesion.box),
            model_input_boxes=model_input_boxes(lesion.sample, lesion.box.name),
            scores=prediction.scores,
            longest_mm=longest_extent_mm(lesion.box) if self.bundle.scores else None,
        )

    def _warnings(
        self, lesion: Lesion, likeness: np.ndarray, shared: Iterable[InputWarning]
    ) -> tuple[InputWarning, ...]:
        warnings = (*shared, *box_warnings(self.volume, lesion.box, lesion.sample, self.bundle))
        if (strange := self.bundle.ood and self.bundle.ood.warning(likeness)) is not None:
            warnings += (InputWarning(WarningName.OUT_OF_DISTRIBUTION, strange),)
        return warnings

    def _reliability(self, box: LesionBox, prediction: _Prediction, heat_map: HeatMap | None) -> Reliability:
        conformal, ood = self.bundle.conformal, self.bundle.ood
        shortest_mm = float(box.sizeMm.min())
        in_set = None if conformal is None else prediction_set(prediction.probabilities, conformal.of_size(shortest_mm))
        return Reliability(
            prediction_set=None if in_set is None else tuple(self.bundle.class_names[c] for c in in_set),
            target_coverage=None if conformal is None else 1.0 - conformal.alpha,
            distance=None if ood is None else ood.score(prediction.likeness),
            distance_threshold=None if ood is None else ood.threshold,
            energy_inside=None if heat_map is None or heat_map.is_empty else energy_share(heat_map, box.segment or box),
        )

    def _with_stability(self, result: LesionResult, prediction: _Prediction, box_jitter: int) -> LesionResult:
        spread = box_stability(
            self._values, result.box, self.volume, probabilities=prediction.probabilities, n=box_jitter
        )
        return replace(result, reliability=replace(result.reliability, spread=spread))


def _mean_direction(of_patches: Tensor) -> np.ndarray:
    """The mean of the patches' directions, normalised."""
    return functional.normalize(functional.normalize(of_patches, dim=1).mean(dim=0), dim=0).cpu().numpy()


def _statistics(volume: CTVolume, box: LesionBox) -> LesionStatistics | None:
    """None where a segment lies beside the CT: the box is answered all the same."""
    with suppress(BoxError):
        return lesion_statistics(volume, box)
    return None


@dataclass(frozen=True, eq=False)
class _Prediction:
    """``features``: of the lesion's patches. ``probabilities``: (class,). ``embedding``, ``likeness`` (to the training lesions):
    L2-normalised, (d,) and (n,). ``scores``: by name.
    """

    features: Tensor
    probabilities: np.ndarray
    embedding: np.ndarray
    likeness: np.ndarray
    scores: dict[str, float]


_OUT_OF_GPU_MEMORY = InputWarning(
    WarningName.GPU_MEMORY,
    "The GPU ran out of memory; this lesion was answered on the CPU. Close other programs that use the GPU.",
)


class Engine:
    """Answers requests, box by box: what the worker process and the in-process runner share.

    Keeps models warm and answers with them. One request at a time: not safe for several threads.
    """

    def __init__(self, *, default_precision: PrecisionChoice, default_accelerator: AcceleratorChoice = "off") -> None:
        self._models = ModelCache()
        self._default_precision, self._default_accelerator = default_precision, default_accelerator

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
            scores=bundle.scores,
        )

    def run(
        self, request: RunRequest, *, progress: Progress | None = None, is_cancelled: Callable[[], bool] = lambda: False
    ) -> RunResponse:
        """Answer all boxes; every box is checked before the first is classified.

        ``progress(done, total, name)`` comes before each box, with the name of that box, and once at the end with
        ``done == total`` and no name. Falls back to the CPU where the GPU's memory does not suffice.
        Raises `BoxError`, `BundleError`, `RunnerError`, and `RunnerCancelled` between two boxes.
        """
        model, warnings = self._model(request.model, request.options)
        _check(request, model)
        total, results, max_lesions = len(request.boxes), [], None
        while len(results) < total:
            left = request.boxes[len(results) :]

            def watch(name: str, share: float, done: int = len(results)) -> None:
                _report(progress, done, total, f"{name} (map {share:.0%})")
                if is_cancelled():
                    _refuse_further(done, total)

            predictions = _predictions(model, request, left, max_lesions, watch)
            for box in left:
                _report(progress, len(results), total, box.name)
                if is_cancelled():
                    _refuse_further(len(results), total)
                result = _next_result(predictions, box)
                if result is None:
                    break
                results.append(replace(result, warnings=(*result.warnings, *warnings)))
            else:
                break
            # One lesion at a time may fit where several did not; then the CPU; then nothing is left to try.
            if max_lesions is None and total - len(results) > 1:
                max_lesions = 1
            elif warnings:
                _refuse_for_memory(request.boxes[len(results)])
            else:
                model, warnings = self._on_cpu(request.model, request.options), (_OUT_OF_GPU_MEMORY,)
        _report(progress, total, total, "")
        if self._accelerates(request.options):
            self._models.convert_soon(model)
        return _response(request, model, results)

    def embed(
        self,
        request: EmbeddingRequest,
        *,
        progress: Progress | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Embedding:
        """Where the model sees the lesion among others, in float32. Progress, memory and errors as for `run`."""
        require_overlap(request.volume, request.box)
        options = replace(request.options, precision="float32", accelerator="off")
        model, warnings = self._model(request.model, options)
        _report(progress, 0, 1, request.box.name)
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
        _report(progress, 1, 1, "")
        return embedding

    def close(self) -> None:
        """Forget the models."""
        self._models.clear()

    def _model(self, name: str, options: RunOptions) -> tuple[LoadedModel, tuple[InputWarning, ...]]:
        precision = options.precision or self._default_precision
        # Out of the except block before the CPU is tried: a traceback would keep the GPU's tensors alive.
        with suppress(torch.OutOfMemoryError):
            device, accelerate = chosen_device(options.device), self._accelerates(options)
            return self._models.get(name, device, precision, accelerate=accelerate), ()
        return self._on_cpu(name, options), (_OUT_OF_GPU_MEMORY,)

    def _on_cpu(self, name: str, options: RunOptions) -> LoadedModel:
        self._models.clear()
        return self._models.get(name, torch.device("cpu"), options.precision or self._default_precision)

    def _accelerates(self, options: RunOptions) -> bool:
        return (options.accelerator or self._default_accelerator) == "auto"


def _refuse_further(done: int, total: int) -> NoReturn:
    msg = f"cancelled after {done} of {total} lesions."
    raise RunnerCancelled(msg)


def _check(request: RunRequest, model: LoadedModel) -> None:
    for box in request.boxes:
        require_overlap(request.volume, box)
    if request.options.map_method not in (None, *MAP_CHOICES):
        msg = f"unknown kind of map {request.options.map_method!r}; choose {', '.join(MAP_CHOICES)}."
        raise RunnerError(msg)
    wanted, known = request.options.class_name, model.bundle.class_names
    if wanted is not None and wanted not in known:
        msg = f"model {model.bundle.name} has no class {wanted!r} to explain; it knows {', '.join(known)}."
        raise BundleError(msg)


def _predictions(
    model: LoadedModel, request: RunRequest, boxes: Sequence[LesionBox], max_lesions: int | None, watch: Watch
) -> Iterator[LesionResult]:
    options = request.options
    classifier = Classifier(model.bundle, request.volume)
    return classifier.classify_all(
        boxes,
        class_name=options.class_name,
        box_jitter=options.box_jitter,
        answer_anyway=options.answer_anyway,
        max_lesions=max_lesions,
        map_method=options.map_method,
        watch=watch,
    )


def _next_result(predictions: Iterator[LesionResult], box: LesionBox) -> LesionResult | None:
    """The next answer; None where the GPU's memory does not suffice. Raises `RunnerError` for the CPU's."""
    try:
        return next(predictions)
    except torch.OutOfMemoryError:
        return None
    except MemoryError:
        _refuse_for_memory(box)


def _embedding(model: LoadedModel, request: EmbeddingRequest, warnings: tuple[InputWarning, ...]) -> Embedding | None:
    """The answer; None where the GPU's memory does not suffice. Raises `RunnerError` for the CPU's."""
    bundle, box, classifier = model.bundle, request.box, Classifier(model.bundle, request.volume)
    probabilities, scores, heat_map = {}, {}, None
    try:
        if bundle.class_names and not request.query_only:  # one pass through the network for both
            result = classifier.classify(box, map_method="none")
            vector, probabilities, noticed = result.embedding, result.probabilities, result.warnings
            scores = result.scores
        else:
            vector, noticed = classifier.embed_checked(box)
        if request.similar_to is not None:
            heat_map = classifier.similarity_to(box, request.similar_to)
    except torch.OutOfMemoryError:
        return None
    except MemoryError:
        _refuse_for_memory(box)
    return Embedding(
        vector=vector,
        probabilities=probabilities,
        scores=scores,
        class_colors=color_by_class(bundle),
        heat_map=heat_map,
        info=_info(request, model),
        warnings=(*warnings, *(w for w in noticed if getattr(w, "name", None) is not WarningName.EMPTY_HEAT_MAP)),
        same_embedding_as=same_embedding_as(bundle.manifest),
        metric=bundle.metric,
    )


def _refuse_for_memory(box: LesionBox) -> NoReturn:
    msg = f"there is not enough memory to answer box {box.name!r}; close other programs, or crop the CT around it."
    raise RunnerError(msg)


def _report(progress: Progress | None, done: int, total: int, name: str) -> None:
    if progress is not None:
        progress(done, total, name)


def _response(request: RunRequest, model: LoadedModel, results: list[LesionResult]) -> RunResponse:
    bundle = model.bundle
    return RunResponse(
        results=results,
        info=_info(request, model),
        class_names=bundle.class_names,
        class_colors=bundle.class_colors,
        precision=model.precision,
    )


def _info(request: RunRequest | EmbeddingRequest, model: LoadedModel) -> RunInfo:
    bundle = model.bundle
    named = [
        device_name(model.device),
        "bfloat16" if model.precision.name == "bfloat16" else "",
        model.precision.accelerator,
    ]
    return RunInfo(
        volume=request.volume.name,
        model_name=bundle.name,
        model_version=bundle.version,
        model_sha256=bundle.sha256,
        device=", ".join(filter(None, named)),
        software=software_versions(),
        scores=bundle.scores,
        finding_site=bundle.finding_site,
    )
