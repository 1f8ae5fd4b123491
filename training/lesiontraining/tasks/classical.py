"""Comparators without a network: features of the field's libraries, and a classifier on them.

``hand-crafted``: LBP (3 x 3 cells of 59 uniform patterns, 531) and HOG (6 x 6 blocks of 4 cells of 9 directions, 1296) of pictures
of 224 x 224, linear support vector machine, as DMRN's paper has it. ``texture``: grey-level co-occurrence and first-order figures,
support vector machine; the three-planes paper says no more of its own than that. ``radiomics``: the same with size and shape of the
box, gradient boosting; ours. Figures are of what a network would be shown; outlines are not used. Such a comparator is measured as a
network is, by the same commands, but does not become a model folder: nothing of what fits it is on a radiologist's machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import kurtosis, skew
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern
from skimage.transform import resize
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, every_image
from lesiontraining.tasks.base import LesionTask, TrainingError

EDGE = 224
_CELL, _CELLS, _PATTERNS = 64, 3, 59
_HOG_CELL = 32
_LEVELS = 16
_GLCM = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
_PERCENTILES = (10, 25, 50, 75, 90)
_INNER = 5


def hand_crafted(image: np.ndarray) -> np.ndarray:
    """LBP and HOG of a picture (channel, row, column) in -1 ... 1, whose channels are averaged: (1827,)."""
    grey = resize(image.mean(axis=0), (EDGE, EDGE), order=1, anti_aliasing=False)
    levels = np.round((np.clip(grey, -1, 1) + 1) * 127.5).astype(np.uint8)
    codes = local_binary_pattern(levels, 8, 1, method="nri_uniform")
    edges = np.arange(_PATTERNS + 1)
    cells = [
        codes[row : row + _CELL, column : column + _CELL]
        for row in range(0, _CELL * _CELLS, _CELL)
        for column in range(0, _CELL * _CELLS, _CELL)
    ]
    patterns = np.concatenate([np.histogram(cell, bins=edges)[0] / cell.size for cell in cells])
    gradients = hog(levels, orientations=9, pixels_per_cell=(_HOG_CELL,) * 2, cells_per_block=(2, 2))
    return np.concatenate([patterns, gradients])


def texture(image: np.ndarray) -> np.ndarray:
    """Of each channel of a picture (channel, row, column) or cube: first-order figures, and co-occurrence over four directions."""
    planes = image.reshape(-1, *image.shape[-2:])
    return np.concatenate([_texture_of(plane) for plane in planes])


def _texture_of(plane: np.ndarray) -> np.ndarray:
    values = plane.ravel().astype(np.float64)
    spread = values.std() > 0
    first = [values.mean(), values.std(), *np.percentile(values, _PERCENTILES)]
    first += [float(skew(values)), float(kurtosis(values))] if spread else [0.0, 0.0]
    low, high = min(-1.0, values.min()), max(1.0, values.max())
    levels = np.minimum((plane - low) / (high - low) * _LEVELS, _LEVELS - 1).astype(np.uint8)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    matrix = graycomatrix(levels, distances=[1, 2], angles=angles, levels=_LEVELS, symmetric=True, normed=True)
    second = [graycoprops(matrix, name) for name in _GLCM]
    return np.concatenate([first, *(of.mean(axis=1) for of in second), *(np.ptp(of, axis=1) for of in second)])


def shape_of(images: LesionDataset) -> np.ndarray:
    """Logarithms of the volume and of the box's edges from the longest, and how one goes with the next, (n, 6); 0 where not known."""
    edges = -np.sort(-images.size_mm, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(np.concatenate([images.volume_mm3[:, None], edges], axis=1))
        ratios = np.stack([edges[:, b] / edges[:, a] for a, b in pairwise(range(3))], axis=1)
    return np.nan_to_num(np.concatenate([logs, ratios], axis=1), posinf=0.0, neginf=0.0)


FEATURES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "hand-crafted": hand_crafted,
    "texture": texture,
    "radiomics": texture,
}


class ClassicalTask(LesionTask):
    """A comparator without a network, as a recipe: ``features`` names it. What is drawn in fitting depends on ``seed``."""

    has_network: ClassVar[bool] = False

    def __init__(
        self, *, class_names: list[str], features: Literal["hand-crafted", "texture", "radiomics"], seed: int = 0
    ) -> None:
        super().__init__(
            class_names=class_names, network="", arguments={}, weights=None, batch_size=1, epoch_size=None,
            augmentation=Augmentation(),
        )  # fmt: skip
        self.features, self.seed = features, seed

    def plan(self, flat: FlatImages) -> Plan:
        """Every image once: nothing is drawn."""
        return every_image(len(flat.labels))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """There is none."""
        msg = "a comparator without a network has no loss"
        raise TrainingError(msg)

    def answers_of_sets(self, sets: Sequence[LesionDataset]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of training, validation and test lesions, as `classical_answers`."""
        return classical_answers(self.features, sets, seed=self.seed)


def classical_answers(name: str, sets: Sequence[LesionDataset], *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the comparator ``name`` says of the lesions of each set, fitted on the labelled lesions of the first.

    Of each set probabilities (n, class), a lesion's being the mean over its pictures, and embeddings (n, feature): its standardised
    features, of length 1. Raises `TrainingError`.
    """
    if name not in FEATURES:
        msg = f"there is no comparator {name!r}; known are {', '.join(FEATURES)}."
        raise TrainingError(msg)
    train = sets[0]
    features = [[_of_lesion(name, images, row) for row in range(len(images))] for images in sets]
    known = np.flatnonzero(train.labels >= 0)
    counts = [len(features[0][row]) for row in known]
    x = np.concatenate([features[0][row] for row in known])
    y, patients = (np.repeat(of[known], counts) for of in (train.labels, train.patients))
    model = _fitted(name, x, y, patients, seed)
    scaler = StandardScaler().fit(x)
    parts = []
    for images, of_set in zip(sets, features, strict=True):
        p = np.zeros((len(images), len(train.class_names)))
        for row, of in enumerate(of_set):
            p[row, model.classes_] = model.predict_proba(of).mean(axis=0)
        embeddings = np.stack([scaler.transform(of).mean(axis=0) for of in of_set])
        parts.append((p, embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)))
    return parts


def _of_lesion(name: str, images: LesionDataset, row: int) -> np.ndarray:
    """(picture, feature)."""
    found = np.stack([FEATURES[name](image) for image in images.images[row]])
    if name != "radiomics":
        return found
    shape = shape_of(images.at([row]))
    return np.concatenate([found, np.repeat(shape, len(found), axis=0)], axis=1)


def _fitted(name: str, x: np.ndarray, y: np.ndarray, patients: np.ndarray, seed: int) -> BaseEstimator:
    if name == "radiomics":
        return HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.05, class_weight="balanced", early_stopping=False, random_state=seed
        ).fit(x, y)
    fewest = min(len(np.unique(patients[y == c])) for c in np.unique(y))
    if fewest < 2:
        msg = "every class needs training lesions of at least two patients."
        raise TrainingError(msg)
    parts = StratifiedGroupKFold(min(_INNER, fewest), shuffle=True, random_state=0)
    machine = make_pipeline(
        StandardScaler(), SVC(kernel="linear" if name == "hand-crafted" else "rbf", C=1.0, gamma="scale")
    )
    return CalibratedClassifierCV(machine, ensemble=False, cv=list(parts.split(x, y, patients))).fit(x, y)
