"""From boxes to answers: probabilities, embedding, Grad-CAM and reliability of every lesion of a CT."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import __version__
from .batches import Lesion, batches, cut_lesion, stacked
from .box_spread import box_spread
from .bundle import Bundle
from .conformal import prediction_set
from .errors import BoxError, BundleError
from .explain import grad_cam
from .geometry import CTVolume, LesionBox
from .heat_map import HeatMap
from .input_warning import InputWarning, WarningName
from .lesion_statistics import LesionStatistics, lesion_statistics
from .localisation import energy_share
from .networks.base import device_of
from .painting import paint
from .reliability import Reliability
from .results import LesionResult
from .seen import seen_boxes
from .similarity_map import similarity_map
from .trust import box_warnings, volume_warnings


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """How a device is named in results."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def software_versions() -> str:
    """What computes here, for results: ``LesionLens 0.1.0, torch 2.13.0, Python 3.12.1``."""
    return f"LesionLens {__version__}, torch {torch.__version__}, Python {platform.python_version()}"


@dataclass(frozen=True, eq=False)
class Classifier:
    """Answers for the boxes of one CT with one model."""

    bundle: Bundle
    volume: CTVolume

    def classify(self, box: LesionBox, *, class_name: str | None = None, redrawn: int = 0) -> LesionResult:
        """The answer for one box; see `classify_all`."""
        (result,) = self.classify_all([box], class_name=class_name, redrawn=redrawn)
        return result

    def classify_all(
        self,
        boxes: Sequence[LesionBox],
        *,
        class_name: str | None = None,
        redrawn: int = 0,
        most_lesions: int | None = None,
    ) -> Iterator[LesionResult]:
        """One answer a box, in order: probabilities, embedding, and the Grad-CAM of ``class_name`` (default: the answer).

        The pictures of several boxes, at most ``most_lesions``, go through the network at once. The probability of a
        lesion is the mean of its pictures' (DMRN's rule). ``redrawn``: boxes drawn a little differently that are asked
        too, for the spread of the answer. Raises `BoxError` for a box outside, `BundleError` for a model without classes.
        """
        self._require_classes()
        warnings = volume_warnings(self.volume)
        device = device_of(self.bundle.network)
        for batch in batches(self.volume, boxes, self.bundle.spec, device=device, most_lesions=most_lesions):
            answers = self._answers(batch)
            maps = self._heat_maps(batch, answers, class_name)
            for lesion, answer, heat_map in zip(batch, answers, maps, strict=True):
                result = self._result(lesion, answer, heat_map, warnings)
                yield self._with_spread(result, answer, redrawn) if redrawn else result

    def embed(self, box: LesionBox) -> np.ndarray:
        """The L2-normalised embedding of a lesion, float32, shape (d,)."""
        lesion = cut_lesion(self.volume, box, self.bundle.spec)
        features = self._features([lesion])
        with torch.no_grad():
            return self._embedding(features)

    def probabilities(self, box: LesionBox) -> np.ndarray:
        """The class probabilities of a lesion alone, float32, shape (class,)."""
        self._require_classes()
        return self._answers([cut_lesion(self.volume, box, self.bundle.spec)])[0].probabilities

    def similarity_to(self, box: LesionBox, embedding: np.ndarray, *, name: str = "similar") -> HeatMap:
        """What in a lesion makes it resemble the lesion of ``embedding`` (L2-normalised, (d,)), painted into the CT."""
        lesion = cut_lesion(self.volume, box, self.bundle.spec)
        found = similarity_map(self.bundle.network, self._features([lesion]), embedding, length_is_fixed=True)
        return paint(found.cpu().numpy(), lesion.sample, box, self.volume, name)

    def _require_classes(self) -> None:
        if not self.bundle.class_names:
            msg = f"model {self.bundle.name} only compares lesions, it knows no classes; use it with a case library."
            raise BundleError(msg)

    def _answers(self, batch: list[Lesion]) -> list[_Answer]:
        network, counts = self.bundle.network, [len(lesion.pictures) for lesion in batch]
        features = self._features(batch)
        with torch.no_grad():
            probabilities = network.probabilities(network.head(features), self.bundle.temperature)
            parts = zip(features.split(counts), probabilities.split(counts), strict=True)
            return [_Answer(f, p.mean(dim=0).cpu().numpy(), self._embedding(f)) for f, p in parts]

    def _features(self, batch: list[Lesion]) -> Tensor:
        network, counts = self.bundle.network, [len(lesion.pictures) for lesion in batch]
        with torch.no_grad():
            return network.features_of_lesions(stacked(batch, device_of(network)), counts)

    def _embedding(self, features: Tensor) -> np.ndarray:
        """Of one lesion: the mean of its pictures' directions, normalised."""
        directions = functional.normalize(self.bundle.network.descriptor(features), dim=1)
        return functional.normalize(directions.mean(dim=0), dim=0).cpu().numpy()

    def _heat_maps(self, batch: list[Lesion], answers: list[_Answer], class_name: str | None) -> list[HeatMap]:
        names = self.bundle.class_names
        shown = [names.index(class_name) if class_name else int(a.probabilities.argmax()) for a in answers]
        classes = torch.tensor([c for c, a in zip(shown, answers, strict=True) for _ in range(len(a.features))])
        cam = grad_cam(self.bundle.network, torch.cat([a.features for a in answers]), classes).cpu()
        maps = cam.split([len(a.features) for a in answers])
        return [
            paint(of.numpy(), lesion.sample, lesion.box, self.volume, names[c])
            for of, lesion, c in zip(maps, batch, shown, strict=True)
        ]

    def _result(
        self, lesion: Lesion, answer: _Answer, heat_map: HeatMap, shared: Iterable[InputWarning]
    ) -> LesionResult:
        names = self.bundle.class_names
        warnings = (*shared, *box_warnings(self.volume, lesion.box, lesion.sample, self.bundle))
        if (strange := self.bundle.ood and self.bundle.ood.warning(answer.embedding)) is not None:
            warnings += (InputWarning(WarningName.OUT_OF_DISTRIBUTION, strange),)
        if heat_map.is_empty:
            text = f"The Grad-CAM is empty: nothing in the box speaks for {heat_map.class_name!r}."
            warnings += (InputWarning(WarningName.EMPTY_HEAT_MAP, text),)
        return LesionResult(
            name=lesion.box.name,
            box=lesion.box,
            label=names[int(answer.probabilities.argmax())],
            probabilities={name: float(p) for name, p in zip(names, answer.probabilities, strict=True)},
            embedding=answer.embedding,
            heat_map=heat_map,
            warnings=warnings,
            reliability=self._reliability(lesion.box, answer, heat_map),
            statistics=_statistics(self.volume, lesion.box),
            seen=seen_boxes(lesion.sample, lesion.box.name),
        )

    def _reliability(self, box: LesionBox, answer: _Answer, heat_map: HeatMap) -> Reliability:
        conformal, ood = self.bundle.conformal, self.bundle.ood
        held = None if conformal is None else prediction_set(answer.probabilities, conformal)
        return Reliability(
            prediction_set=None if held is None else tuple(self.bundle.class_names[c] for c in held),
            promised=None if conformal is None else 1.0 - conformal.alpha,
            distance=None if ood is None else ood.score(answer.embedding),
            usual_distance=None if ood is None else ood.threshold,
            heat_inside=None if heat_map.is_empty else energy_share(heat_map, box.segment or box),
        )

    def _with_spread(self, result: LesionResult, answer: _Answer, redrawn: int) -> LesionResult:
        spread = box_spread(self.probabilities, result.box, self.volume, probabilities=answer.probabilities, n=redrawn)
        return replace(result, reliability=replace(result.reliability, spread=spread))


def _statistics(volume: CTVolume, box: LesionBox) -> LesionStatistics | None:
    """None where a segment lies beside the CT: the box is answered all the same."""
    with suppress(BoxError):
        return lesion_statistics(volume, box)
    return None


@dataclass(frozen=True, eq=False)
class _Answer:
    """``features``: of the lesion's pictures. ``probabilities``: (class,). ``embedding``: L2-normalised, (d,)."""

    features: Tensor
    probabilities: np.ndarray
    embedding: np.ndarray
