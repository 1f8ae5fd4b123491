"""What a trained model said of lesions it had not seen: the one thing that reports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.metric import COSINE, METRICS


class PredictionsError(LesionLensError):
    """A file of predictions that cannot be read, or predictions that do not belong together."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers on held-out lesions, one row a lesion.

    ``labels``: class index, -1 unknown; ``probabilities``: (n, class), rows sum to 1; ``embeddings``: (n, d), L2-normalised;
    ``size_mm``, ``spacing_mm``: (n, 3); ``volume_mm3``, ``mean_hu``: (n,); NaN where not known. ``split``: "val" or "test"
    of each row, ``folds``: the fold in which it was held out. ``metric``: how embeddings are compared, see `LesionLib.metric`.
    """

    class_names: tuple[str, ...]
    lesion_ids: np.ndarray
    patients: np.ndarray
    studies: np.ndarray
    folds: np.ndarray
    split: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    embeddings: np.ndarray
    size_mm: np.ndarray
    volume_mm3: np.ndarray
    mean_hu: np.ndarray
    spacing_mm: np.ndarray
    metric: str = COSINE

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: Sequence[int] | np.ndarray) -> Predictions:
        """The lesions ``rows`` (indices or a boolean mask), in that order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def save(self, path: Path) -> None:
        """As a compressed ``.npz`` of plain arrays: no pickle."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        texts = {name: array.astype(str) for name, array in arrays.items() if array.dtype.kind in "OU"}
        said = {} if self.metric == COSINE else {"metric": np.array(self.metric)}
        np.savez_compressed(path, class_names=np.array(self.class_names, dtype=str), **{**arrays, **texts, **said})

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Raises `PredictionsError` for what `save` did not write."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                metric = str(stored["metric"]) if "metric" in stored else COSINE
                arrays = {name: stored[name] for name in _ARRAYS}
                found = cls(tuple(map(str, stored["class_names"])), **arrays, metric=metric)
            found._require_rows()
        except Exception as error:  # zipfile, zlib and numpy raise many kinds for damaged bytes
            msg = f"{path} does not hold predictions of lesiontrain; run lesiontrain fit again, or give another folder."
            raise PredictionsError(msg) from error
        return found

    def _require_rows(self) -> None:
        """Raises ValueError where the arrays are not all of the same lesions, or not of their kind."""
        n, classes = len(self.labels), len(self.class_names)
        shapes = dict.fromkeys(_ARRAYS, (n,)) | {"size_mm": (n, 3), "spacing_mm": (n, 3)}
        shapes |= {"probabilities": (n, self.probabilities.shape[-1]), "embeddings": (n, self.embeddings.shape[-1])}
        fits = all(getattr(self, name).shape == shape for name, shape in shapes.items())
        whole = self.labels.dtype.kind in "iu" and (n == 0 or -1 <= self.labels.min() <= self.labels.max() < classes)
        numbers = all(getattr(self, name).dtype.kind == "f" for name in _NUMBERS)
        if not (fits and whole and numbers and self.metric in METRICS):
            msg = "its arrays do not belong together"
            raise ValueError(msg)


def has_labelled_training(predictions: Predictions) -> bool:
    """Whether a network that only compares had anything to vote by."""
    return bool(((predictions.split == "train") & (predictions.labels >= 0)).any())


_NUMBERS = ("probabilities", "embeddings", "size_mm", "volume_mm3", "mean_hu", "spacing_mm")
_ARRAYS = tuple(field.name for field in fields(Predictions) if field.name not in ("class_names", "metric"))


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Several folds as one. Raises `PredictionsError` where their classes differ or a lesion occurs twice."""
    names = {(part.class_names, part.metric) for part in parts}
    if len(names) != 1:
        msg = f"the folds do not have the same classes: {sorted(names)}; they are of different runs."
        raise PredictionsError(msg)
    whole = replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS})
    ids, counts = np.unique(whole.lesion_ids, return_counts=True)
    if (counts > 1).any():
        msg = f"lesion {ids[counts > 1][0]} is answered twice; give each fold once."
        raise PredictionsError(msg)
    return whole
