"""The recipe of ``lung-nodule-malignancy``: frozen ImageNet trunk, linear head, patient-wise folds, honest figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from LesionLib.explain.localisation import sanity_check
from LesionLib.model.bundle import TEMPERATURE
from LesionLib.networks import LesionNet, build_network
from LesionLib.networks.base import device_of
from LesionLib.networks.weights import load_pretrained
from LesionLib.sampling.batches import cut_lesion
from LesionLib.sampling.resample import AxialStackSpec
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from lesiontraining.evaluation.baselines import shortcut_features, shortcut_probabilities
from lesiontraining.linear_probe.data import Looseness, Nodule, patientwise, read_nodules, slice_descriptors
from lesiontraining.linear_probe.figures import (
    METRICS,
    Figure,
    HeatFigures,
    ReliabilityFit,
    auc,
    cross_fitted_probability,
    fit_reliability,
    fit_temperature,
    heat_figures,
    lesion_probability,
    paired_difference,
    patient_draws,
    with_interval,
)

Drawing = Sequence[np.ndarray]  # per lesion: descriptors (slice, d)
_INNER_FOLDS = 4


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier on slice descriptors, every lesion weighing the same, and the classes too.

    ``weight`` (d,) and ``bias`` of the log-odds of class 1; ``strength`` is the C it was fitted with. This is DMRN's last step
    (descriptor -> linear classifier -> mean over the slices) with logistic loss in the SVM's place.
    """

    weight: np.ndarray
    bias: float
    strength: float

    def logits(self, drawing: Drawing) -> list[np.ndarray]:
        """Two-class logits (slice, 2) of each lesion: minus and plus half of the log-odds."""
        halves = [(descriptors @ self.weight + self.bias) / 2 for descriptors in drawing]
        return [np.stack([-half, half], axis=1) for half in halves]


def fit_head(
    drawings: Sequence[Drawing], truth: np.ndarray, patients: np.ndarray, strengths: Sequence[float]
) -> LinearHead:
    """Fit on several drawings of the same lesions; C is chosen by inner folds that no patient crosses.

    The first drawing (the tight boxes) weighs as much as all others together, so that neither way to draw a box is favoured.
    ``truth``: bool, true for class 1, ``patients``: (lesion,) each.
    """
    if len(strengths) == 1:
        return _fit(drawings, truth, strengths[0])
    inner = GroupKFold(_INNER_FOLDS)
    scores = np.zeros(len(strengths))
    for rest, held_out in inner.split(truth, truth, patients):
        for place, strength in enumerate(strengths):
            head = _fit([[d[i] for i in rest] for d in drawings], truth[rest], strength)
            for drawing in drawings:
                log_odds = [logits[:, 1].mean() for logits in head.logits([drawing[i] for i in held_out])]
                scores[place] += roc_auc_score(truth[held_out], log_odds)
    return _fit(drawings, truth, strengths[int(scores.argmax())])


def _fit(drawings: Sequence[Drawing], truth: np.ndarray, strength: float) -> LinearHead:
    rows = [descriptors for drawing in drawings for descriptors in drawing]
    x = np.concatenate(rows).astype(np.float64)
    y = np.concatenate(
        [np.full(len(row), label) for drawing in drawings for row, label in zip(drawing, truth, strict=True)]
    )
    shares = [1.0] if len(drawings) == 1 else [0.5] + [0.5 / (len(drawings) - 1)] * (len(drawings) - 1)
    weights = np.concatenate(
        [
            np.full(len(row), share / len(row))
            for share, drawing in zip(shares, drawings, strict=True)
            for row in drawing
        ]
    )
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    of_class = np.where(truth, len(truth) / (2 * truth.sum()), len(truth) / (2 * (~truth).sum()))
    per_lesion = np.concatenate(
        [np.full(len(row), w) for drawing in drawings for row, w in zip(drawing, of_class, strict=True)]
    )
    model = LogisticRegression(C=strength, max_iter=500)
    model.fit((x - mean) / scale, y, sample_weight=weights * per_lesion)
    weight = model.coef_[0] / scale
    return LinearHead(weight, float(model.intercept_[0] - weight @ mean), strength)


ARCHITECTURE = "mobilenet_v2"
ARGUMENTS = {"classes": 2, "stem_stride": 1, "output_stride": 8}
CLASS_NAMES = ("benign", "malignant")
GROUPS: dict[str, Callable[[Nodule], bool]] = {
    "all nodules": lambda nodule: True,
    "nodules of 5-12 mm": lambda nodule: 5 <= nodule.diameter_mm <= 12,
}
BASELINES: dict[str, Callable[[Sequence[Nodule]], np.ndarray]] = {
    "volume only": lambda nodules: shortcut_features(volume_mm3=[n.volume_mm3 for n in nodules]),
    "size + mean HU": lambda nodules: shortcut_features(
        volume_mm3=[n.volume_mm3 for n in nodules],
        diameter_mm=[n.diameter_mm for n in nodules],
        mean_hu=[n.mean_hu for n in nodules],
    ),
}
NETWORK, LOOSE = "this model", "this model, loose boxes"


@dataclass(frozen=True)
class Recipe:
    """All that decides the model besides the data and the ImageNet weights."""

    spec: AxialStackSpec = field(default_factory=AxialStackSpec)
    looseness: Looseness = field(default_factory=Looseness)
    loose_drawings: int = 3
    strengths: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    bootstrap_draws: int = 2000
    alpha: float = 0.1
    sanity_pictures: int = 32
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Group:
    """Figures of one group of nodules: by row and metric, and AUC differences to the baselines."""

    name: str
    nodules: int
    malignant: int
    patients: int
    rows: dict[str, dict[str, Figure]]
    auc_difference: dict[str, Figure]


@dataclass(frozen=True, eq=False)
class Trained:
    """The network to ship, its temperature, and the figures of the recipe under cross-validation."""

    network: LesionNet
    temperature: float
    strength: float
    groups: list[Group]
    reliability: ReliabilityFit
    heat: dict[str, HeatFigures]
    moved_patients: tuple[str, ...]
    box_size_mm: tuple[float, float]
    slice_distance_mm: tuple[float, float]
    device: str

    def calibration(self) -> dict[str, torch.Tensor]:
        """What the bundle's tensors hold besides the weights."""
        return {TEMPERATURE: torch.tensor([self.temperature]), **self.reliability.tensors()}


def train(data: Path, imagenet: Path, recipe: Recipe, say: Callable[[str], None]) -> Trained:
    """Cross-validate the recipe on the patient-wise folds, then fit what is shipped on all nodules."""
    nodules, moved = patientwise(read_nodules(data))
    say(
        f"{len(nodules)} nodules of {len({n.patient for n in nodules})} patients; {len(moved)} patient(s) moved to one fold"
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(ARCHITECTURE, ARGUMENTS).to(device)
    report = load_pretrained(network, imagenet)
    say(f"{len(report.taken)} tensors from ImageNet weights, {len(report.left)} to be learned")
    truth = np.array([nodule.malignant for nodule in nodules])
    drawings = _drawings(network, nodules, recipe, say)
    unseen = slice_descriptors(network, nodules, recipe.looseness.boxes(nodules, recipe.seed + 1000), recipe.spec)
    say("cross-validating")
    logits = _out_of_fold_logits(nodules, drawings, [drawings[0], unseen], recipe)
    groups = _figures(nodules, logits, recipe)
    head = fit_head(drawings, truth, np.array([n.patient for n in nodules]), recipe.strengths)
    network, temperature = _with_head(network, head), fit_temperature(logits[0], truth)
    say("fitting what tells how far to rely on an answer")
    reliability = _reliability(network, nodules, drawings[0], logits[0], recipe)
    say("measuring where the heat maps lie")
    heat = heat_figures(network, nodules, recipe.spec, CLASS_NAMES)
    edges = np.array([nodule.box.sizeMm for nodule in nodules])
    distances = [nodule.volume.sliceDistanceMm for nodule in nodules]
    return Trained(
        network=network.cpu(),
        temperature=temperature,
        strength=head.strength,
        groups=groups,
        reliability=reliability,
        heat=heat,
        moved_patients=moved,
        box_size_mm=(float(edges.min()), float(edges.max() + 2 * recipe.looseness.grow_mm)),
        slice_distance_mm=(float(min(distances)), float(max(distances))),
        device=device.type,
    )


def _drawings(
    network: LesionNet, nodules: Sequence[Nodule], recipe: Recipe, say: Callable[[str], None]
) -> list[Drawing]:
    """Descriptors for the tight boxes first, then for each loose drawing."""
    boxes = [[nodule.box for nodule in nodules]]
    boxes += [recipe.looseness.boxes(nodules, recipe.seed + number) for number in range(1, recipe.loose_drawings + 1)]
    drawings = []
    for number, drawn in enumerate(boxes, start=1):
        say(f"descriptors of drawing {number} of {len(boxes)}")
        drawings.append(slice_descriptors(network, nodules, drawn, recipe.spec))
    return drawings


def _out_of_fold_logits(
    nodules: Sequence[Nodule], drawings: Sequence[Drawing], tested: Sequence[Drawing], recipe: Recipe
) -> list[list[np.ndarray]]:
    """For each tested drawing: logits of every nodule by the head that never saw its patient."""
    folds = np.array([nodule.fold for nodule in nodules])
    truth = np.array([nodule.malignant for nodule in nodules])
    patients = np.array([nodule.patient for nodule in nodules])
    answers: list[list[np.ndarray]] = [[np.empty(0)] * len(nodules) for _ in tested]
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        head = fit_head([[d[i] for i in rest] for d in drawings], truth[rest], patients[rest], recipe.strengths)
        for answer, drawing in zip(answers, tested, strict=True):
            for index, logits in zip(here, head.logits([drawing[i] for i in here]), strict=True):
                answer[index] = logits
    return answers


def _reliability(
    network: LesionNet, nodules: Sequence[Nodule], tight: Drawing, logits: list[np.ndarray], recipe: Recipe
) -> ReliabilityFit:
    truth = np.array([nodule.malignant for nodule in nodules])
    folds = np.array([nodule.fold for nodule in nodules])
    malignant = cross_fitted_probability(logits, truth, folds)
    shown = np.linspace(0, len(nodules) - 1, min(recipe.sanity_pictures, len(nodules))).astype(int)
    stacks = [cut_lesion(nodules[i].volume, nodules[i].box, recipe.spec).pictures for i in shown]
    middles = torch.from_numpy(np.stack([pictures[len(pictures) // 2] for pictures in stacks]))
    return fit_reliability(
        np.stack([1 - malignant, malignant], axis=1),
        truth.astype(int),
        np.stack([_embedding(descriptors) for descriptors in tight]),
        folds,
        class_names=CLASS_NAMES,
        sanity=sanity_check(network, middles.to(device_of(network)), seed=recipe.seed),
        alpha=recipe.alpha,
    )


def _embedding(descriptors: np.ndarray) -> np.ndarray:
    """As `Classifier.embed`: the mean of the slices' directions, normalised."""
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    return unit.mean(axis=0) / np.linalg.norm(unit.mean(axis=0))


def _figures(nodules: Sequence[Nodule], logits: Sequence[list[np.ndarray]], recipe: Recipe) -> list[Group]:
    folds = np.array([nodule.fold for nodule in nodules])
    truth = np.array([nodule.malignant for nodule in nodules])
    tight, loose = logits
    scores = {NETWORK: cross_fitted_probability(tight, truth, folds)}
    patients = np.array([nodule.patient for nodule in nodules])
    for name, features in BASELINES.items():
        beside = shortcut_probabilities(features(nodules), truth.astype(int), folds, classes=2, patients=patients)
        scores[name] = beside[:, 1]
    scores[LOOSE] = lesion_probability(loose, fit_temperature(tight, truth))
    return [_group(name, belongs, nodules, truth, scores, recipe) for name, belongs in GROUPS.items()]


def _group(
    name: str,
    belongs: Callable[[Nodule], bool],
    nodules: Sequence[Nodule],
    truth: np.ndarray,
    scores: dict[str, np.ndarray],
    recipe: Recipe,
) -> Group:
    kept = np.array([belongs(nodule) for nodule in nodules])
    patients = [nodule.patient for nodule, keep in zip(nodules, kept, strict=True) if keep]
    drawn = patient_draws(patients, draws=recipe.bootstrap_draws, seed=recipe.seed)
    rows = {
        row: {metric: with_interval(measure, truth[kept], score[kept], drawn) for metric, measure in METRICS.items()}
        for row, score in scores.items()
    }
    differences = {
        row: paired_difference(auc, truth[kept], scores[NETWORK][kept], scores[row][kept], drawn) for row in BASELINES
    }
    return Group(name, int(kept.sum()), int(truth[kept].sum()), len(set(patients)), rows, differences)


def _with_head(network: LesionNet, head: LinearHead) -> LesionNet:
    linear = network.classifier[1]
    weight = torch.from_numpy(head.weight).float().to(linear.weight.device)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([-weight / 2, weight / 2]))
        linear.bias.copy_(torch.tensor([-head.bias / 2, head.bias / 2]))
    return network.eval()
