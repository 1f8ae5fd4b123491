"""The linear support vector machine of DMRN: fitted by scikit-learn, kept as the network's tensors."""

from __future__ import annotations

import numpy as np
import torch
from LesionLib.batches import in_channels_last
from LesionLib.networks.base import device_of
from LesionLib.networks.dmrn import DMRN
from LesionLib.networks.svm_head import fill_from_sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from .data.picture_set import PictureSet

_PICTURES_AT_ONCE = 64
_MOST_PARTS = 5


def fit_support_vectors(network: DMRN, train: PictureSet, *, c: float, class_weight: str | None) -> None:
    """Fit and calibrate on every picture of ``train`` (all labelled), and copy the numbers into ``network.svm``.

    ``CalibratedClassifierCV(SVC(kernel="linear"), ensemble=False)`` on standardised descriptors; the pictures that calibrate
    are of other patients than those the inner machine saw. Raises ValueError where a class has a single patient.
    """
    counts = [len(pictures) for pictures in train.pictures]
    labels = np.repeat(train.labels, counts)
    patients = np.repeat(train.patients, counts)
    fewest = min(len(np.unique(train.patients[train.labels == k])) for k in np.unique(labels))
    if fewest < 2 or len(np.unique(labels)) != len(np.unique(np.arange(labels.max() + 1))):
        msg = "every class needs lesions of at least two patients in the training folds"
        raise ValueError(msg)
    parts = StratifiedGroupKFold(min(_MOST_PARTS, fewest), shuffle=True, random_state=0)
    descriptors = _descriptors(network, train)
    splits = list(parts.split(descriptors, labels, patients))
    machine = make_pipeline(StandardScaler(), SVC(kernel="linear", C=c, class_weight=class_weight))
    fitted = CalibratedClassifierCV(machine, ensemble=False, cv=splits).fit(descriptors, labels)
    fill_from_sklearn(network.svm, fitted)


def _descriptors(network: DMRN, train: PictureSet) -> np.ndarray:
    found = []
    network.eval()
    together = np.concatenate(train.pictures)
    with torch.inference_mode():
        for start in range(0, len(together), _PICTURES_AT_ONCE):
            x = in_channels_last(torch.from_numpy(together[start : start + _PICTURES_AT_ONCE]).to(device_of(network)))
            found.append(network.descriptor(network.features(x)).double().cpu().numpy())
    return np.concatenate(found)
