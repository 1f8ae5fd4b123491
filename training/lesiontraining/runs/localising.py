"""Whether the Grad-CAM of a network lies on the lesions of whole slices: by class, with the threshold from validation slices.

The paper's localisation accuracy of a class is the share of its slices that are correctly localised; a slice without a lesion
is none (papers 1.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from LesionLib.explain.localisation import (
    ClassLocalisation,
    LocalisationCase,
    choose_threshold,
    localisation,
    localised,
    map_box,
    map_on_pixels,
)
from LesionLib.explain.saliency import grad_cam
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.sampling.batches import in_channels_last
from LesionLib.uncertainty.conformal import Proportion

from lesiontraining.data.lesions import LesionDataset

NOT_MEASURED = "not measured: no box is known in the images of validation or test lesions"
_SHOWN = 8
_NORMAL = "normal"
_BESIDE = 0.3  # the IoU that is given beside the usual .5


@dataclass(frozen=True, eq=False)
class Localiser:
    """A fitted network on whole slices. ``without_lesion``: classes of slices that hold none; they are no case."""

    network: LesionNet
    class_names: Sequence[str]
    without_lesion: Sequence[str]

    def figures(self, val: LesionDataset, test: LesionDataset) -> dict[str, Any]:
        """Of ``test``, by class and of all lesion classes; the threshold from ``val``. Plain JSON."""
        choosing, measured = ([case for _, case in self._cases(images)] for images in (val, test))
        if not choosing or not measured:
            return {"localisation": NOT_MEASURED}
        threshold = choose_threshold(choosing)
        found = localisation(measured, threshold=threshold)
        beside = localisation(measured, threshold=choose_threshold(choosing, iou=_BESIDE), iou=_BESIDE)
        return {
            "localisation": {
                "threshold": threshold,
                "mean_over_classes": round(found.mean_gt_known, 4),
                **_shares(found.all_cases, beside.all_cases),
                "pointing_by_chance": round(float(np.mean([case.truth.mean() for case in measured])), 4),
                "classes": {name: _shares(of, beside.classes[name]) for name, of in found.classes.items()},
            }
        }

    def hits(self, images: LesionDataset, *, threshold: float) -> dict[int, bool]:
        """Whether the map of a lesion's class lies on it at IoU .5, by row of ``images``; of labelled lesions with a known box."""
        cases = self._cases(images)
        found = localised([case for _, case in cases], threshold=threshold) if cases else ()
        return {row: bool(hit) for (row, _), hit in zip(cases, found, strict=True)}

    def examples(self, test: LesionDataset, figures: dict[str, Any]) -> dict[str, np.ndarray]:
        """Slices with their map, the box of it and that of the lesion, each class in turn; empty where nothing was measured.

        ``image``: (n, row, column), the middle channel; ``cam``: (n, row, column); ``truth``, ``box``: (n, 4), row, column, rows and
        columns in pixels, NaN for a map without heat; ``label``, ``predicted``: class names, (n,); ``lesion``: rows of ``test``.
        """
        found = figures.get("localisation", NOT_MEASURED)
        if isinstance(found, str):
            return {}
        chosen = _in_turn(self._cases(test))
        cases = [case for _, case in chosen]
        images = [test.images[row][len(test.images[row]) // 2] for row, _ in chosen]
        boxes = [map_box(case, threshold=found["threshold"]) for case in cases]
        return {
            "image": np.stack([image[len(image) // 2] for image in images]),
            "cam": np.stack([map_on_pixels(case) / max(float(case.cam.max()), 1e-12) for case in cases]).astype(
                np.float32
            ),
            "truth": np.stack([test.targets[row] for row, _ in chosen]),
            "box": np.stack([np.full(4, np.nan) if b is None else np.concatenate([b[0], b[1] - b[0]]) for b in boxes]),
            "label": np.array([case.label for case in cases]),
            "predicted": np.array([case.predicted for case in cases]),
            "lesion": np.array([row for row, _ in chosen]),
        }

    def _cases(self, images: LesionDataset) -> list[tuple[int, LocalisationCase]]:
        """(row, case) of every labelled lesion of a lesion class whose box is known, of its middle image."""
        with_lesion = [c for c, name in enumerate(self.class_names) if name not in self.without_lesion]
        known = np.isfinite(images.targets).all(axis=1) & np.isin(images.labels, with_lesion)
        found = ((int(row), self._case(images, int(row))) for row in np.flatnonzero(known))
        return [(row, case) for row, case in found if case is not None]

    def _case(self, images: LesionDataset, row: int) -> LocalisationCase | None:
        of_lesion = images.images[row]
        x = in_channels_last(torch.from_numpy(of_lesion[len(of_lesion) // 2][None]).to(device_of(self.network)))
        label = int(images.labels[row])
        with torch.no_grad():
            features = self.network.features(x)
            predicted = int(self.network.head(features).argmax())
        cam = grad_cam(self.network, features, torch.tensor([label])).cpu().numpy()[0]
        top, left, rows, columns = images.targets[row]
        truth = np.zeros(of_lesion.shape[-2:], dtype=bool)
        first_row, first_column = max(0, round(top)), max(0, round(left))
        truth[
            first_row : max(first_row + 1, round(top + rows)),
            first_column : max(first_column + 1, round(left + columns)),
        ] = True
        if not truth.any():
            return None
        return LocalisationCase(
            np.squeeze(cam), truth, self.class_names[label], self.class_names[predicted], self.network.cell_centres
        )


def classes_without_lesion(class_names: Sequence[str], given: Sequence[str] | None) -> tuple[str, ...]:
    """Those that are ``given``; None: a class that is called normal. Raises ValueError for one that there is not."""
    if given is None:
        return tuple(name for name in class_names if name.casefold() == _NORMAL)
    if unknown := sorted(set(given) - set(class_names)):
        msg = f"without_lesion names {', '.join(unknown)}; the classes are {', '.join(class_names)}."
        raise ValueError(msg)
    return tuple(given)


def _in_turn(cases: list[tuple[int, LocalisationCase]]) -> list[tuple[int, LocalisationCase]]:
    """The first of each class, then the second of each, until enough are there."""
    seen: Counter[str] = Counter()
    turns = []
    for _, case in cases:
        turns.append(seen[case.label])
        seen[case.label] += 1
    return [cases[i] for i in np.argsort(turns, kind="stable")[:_SHOWN]]


def _shares(of: ClassLocalisation, beside: ClassLocalisation) -> dict[str, dict[str, float]]:
    shares = {
        "gt_known_iou_50": of.gt_known,
        "gt_known_iou_30": beside.gt_known,
        "top_1": of.top_1,
        "pointing": of.pointing,
    }
    return {name: _share(share) for name, share in shares.items()}


def _share(share: Proportion) -> dict[str, float]:
    return {"hits": share.hits, "n": share.n, "low": share.low, "high": share.high}
