"""The encoder for a case library: what the network sees mapped to the readers' ratings, and how well it finds alike nodules."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from LesionLib.inference.classifier import Classifier
from LesionLib.io.reader_ratings import KINDS
from LesionLib.model.bundle import load_bundle
from LesionLib.networks import build_network
from LesionLib.sampling.batches import crop_lesion

from lesiontraining.data.lesions import ct_lesions
from lesiontraining.data.readers.lidc_ratings import ATTRIBUTES
from lesiontraining.evaluation.retrieval import retrieve
from lesiontraining.nodules.described import GIVEN, LOOSE, NODULE_SPEC, Described, Notify, seen_of
from lesiontraining.nodules.figures import Aim, Figures, Measuring, Table
from lesiontraining.nodules.heads import Linear, unit
from lesiontraining.nodules.nested import Nested, Task
from lesiontraining.nodules.questions import LOOSE_ROW, MODEL, SIZE_HU, VOLUME, Nodules, kind_labels, score_loss

K = 10
_SHARE_WEIGHT = 2.0  # of the share of readers above 3 beside the ratings: as wide as they are
_CONSTANT = 0.3  # keeps nodules near the average apart from each other when lengths are set to 1
_RANGES = np.array([4.0] * 6 + [5.0])  # of `ATTRIBUTES`
_PIXELS = 12  # along each axis of the cube that is compared as it is
CHANCE, MEAN_HU, PIXELS, UNTRAINED, FROZEN = (
    "random",
    "mean HU",
    "raw voxels",
    "untrained network",
    "frozen network, no labels",
)


def search_task(nodules: Nodules) -> Task:
    """The readers' mean ratings of the seven attributes and of malignancy, and the share above 3."""
    share = np.array([np.nan if r is None else r.share_suspicious for r in nodules.readers])
    rated = [nodules.rated(name) for name in (*ATTRIBUTES, "malignancy")]
    targets = np.stack([*rated, _SHARE_WEIGHT * share], axis=1)
    return Task(targets, np.full(len(targets), -1), 0, np.ones(len(targets)), score_loss)


def search_descriptor(head: Linear, targets: np.ndarray) -> Linear:
    """What the ridge says less the average target, and a constant."""
    center, count = np.nanmean(targets, axis=0), targets.shape[1]
    weight = np.hstack([head.weight, np.zeros((len(head.weight), 1))])
    return Linear(weight, np.r_[head.bias - center, _CONSTANT * np.sqrt(count)])


def out_of_fold_vectors(nodules: Nodules, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Descriptors of each nodule by a map that never saw its patient, centred by the targets of the other folds."""
    found = np.empty_like(outputs)
    for fold in np.unique(nodules.folds):
        here = nodules.folds == fold
        found[here] = outputs[here] - np.nanmean(targets[~here], axis=0)
    return _with_constant(found, _CONSTANT)


def _with_constant(vectors: np.ndarray, constant: float) -> np.ndarray:
    """So that the cosine falls with the distance, also of vectors of one direction."""
    return np.column_stack([vectors, np.full(len(vectors), constant * np.sqrt(vectors.shape[1]))])


def _standard(columns: np.ndarray) -> np.ndarray:
    return (columns - columns.mean(axis=0)) / (columns.std(axis=0) + 1e-6)


def compared_vectors(
    nodules: Nodules, answers: Nested, task: Task, others: Mapping[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """The model first, then what stands beside it, (lesion, d) each."""
    size, hu = np.log(nodules.volume_mm3)[:, None], nodules.described.hu[:, :1]
    return {
        MODEL: out_of_fold_vectors(nodules, answers.outputs[GIVEN], task.targets),
        CHANCE: np.random.default_rng(seed).normal(size=(len(size), 8)),
        VOLUME: _with_constant(_standard(size), 3.0),
        MEAN_HU: _with_constant(_standard(hu), 3.0),
        SIZE_HU: _with_constant(_standard(np.hstack([size, hu])), 3.0),
        FROZEN: _with_constant(_standard(nodules.described.seen[GIVEN]), 3.0),
        **others,
        LOOSE_ROW: out_of_fold_vectors(nodules, answers.outputs[LOOSE], task.targets),
    }


def search_figures(nodules: Nodules, vectors: Mapping[str, np.ndarray], measuring: Measuring) -> Figures:
    """Every nodule asks for the ten nearest of other patients: same malignancy, same kind, alike description."""
    kinds = kind_labels(nodules)
    against = tuple(name for name in vectors if name != MODEL)
    tables = [
        _label_table(
            "Same label, benign or malignant", nodules.malignant, nodules.everyone, nodules, vectors, measuring, against
        ),
        _label_table("Same kind", kinds, kinds >= 0, nodules, vectors, measuring, against),
        _agreement_table(nodules, vectors, measuring, against),
    ]
    kind, description = tables[1].differences[SIZE_HU], tables[2].differences[SIZE_HU]
    aims = (
        Aim("kind, mAP@10 minus size + mean HU, lower end of the interval", 0.0, kind.low),
        Aim("description minus size + mean HU, lower end of the interval", 0.0, description.low),
        Aim("malignancy, mAP@10 minus size + mean HU", 0.0, tables[0].differences[SIZE_HU].value),
    )
    return Figures(tuple(tables), aims=aims)


def _label_table(
    title: str,
    labels: np.ndarray,
    rows: np.ndarray,
    nodules: Nodules,
    vectors: Mapping[str, np.ndarray],
    measuring: Measuring,
    against: Sequence[str],
) -> Table:
    index = np.flatnonzero(rows)
    found = {}
    for name, of in vectors.items():
        search = retrieve(of[index], labels[index], nodules.patients[index], rule="cross", k=K)
        values = np.full((len(labels), 3), np.nan)
        for column, figure in enumerate(("ap_a", "p_at_1", "p_at_k")):
            values[index[search.query], column] = search.per_query(figure)
        found[name] = values
    asked = rows & ~np.isnan(found[MODEL]).any(axis=1)
    metrics = {
        "mAP@10": lambda v, i: float(v[:, 0].mean()),
        "P@1": lambda v, i: float(v[:, 1].mean()),
        "P@10": lambda v, i: float(v[:, 2].mean()),
        "mAP@10, mean over classes": lambda v, i: _class_mean(v[:, 0], labels[i]),
    }
    names = ("benign", "malignant") if labels.max() < len(KINDS) - 1 else KINDS
    counts = {name: labels == c for c, name in enumerate(names)}
    return measuring.table(title, asked, found, metrics, counts=counts, against=tuple(against))


def _class_mean(values: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([values[labels == c].mean() for c in np.unique(labels)]))


def _agreement_table(
    nodules: Nodules, vectors: Mapping[str, np.ndarray], measuring: Measuring, against: Sequence[str]
) -> Table:
    rated = np.stack([nodules.rated(name) for name in ATTRIBUTES], axis=1)
    known = ~np.isnan(rated).any(axis=1)
    index = np.flatnonzero(known)
    scaled, patients = rated[index] / _RANGES, nodules.patients[index]
    same = patients[:, None] == patients[None]
    found = {}
    for name, of in vectors.items():
        near = unit(of[index])
        nearest = np.argsort(np.where(same, -np.inf, near @ near.T), axis=1)[:, ::-1][:, :K]
        values = np.full(len(rated), np.nan)
        values[index] = 1.0 - np.abs(scaled[nearest] - scaled[:, None]).mean(axis=(1, 2))
        found[name] = values
    return measuring.table(
        "Agreement of the description", known, found, {"agreement": lambda v, i: float(v.mean())}, against=tuple(against),
        note="One less the mean difference of the seven mean ratings between a nodule and the ten that were found, as a share of "
        "each scale.",
    )  # fmt: skip


def other_vectors(
    described: Described, *, cache: Path, models: Sequence[Path], seed: int, notify: Notify
) -> dict[str, np.ndarray]:
    """Raw voxels, an untrained network of the same form, and the embeddings of other model folders; kept in ``cache``."""
    torch.manual_seed(seed)
    untrained = build_network("nodule", {"classes": 2})
    ways: dict[str, Callable] = {
        PIXELS: lambda volume, box: _voxels(crop_lesion(volume, box, NODULE_SPEC).patches),
        UNTRAINED: lambda volume, box: seen_of(untrained, volume, box),
    }
    for path in models:
        bundle = load_bundle(path)
        ways[f"{bundle.name} {bundle.version}"] = lambda volume, box, bundle=bundle: Classifier(bundle, volume).embed(
            box
        )
    lesions = hashlib.sha256(repr([row.lesion_id for row in described.table.rows]).encode()).hexdigest()[:12]
    files = {name: cache / f"{lesions}-{seed}-{name.replace(' ', '-')}.npy" for name in ways}
    missing = [name for name, file in files.items() if not file.is_file()]
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in missing}
    for index, (_, volume, box) in enumerate(ct_lesions(described.table) if missing else ()):
        for name, found in vectors.items():
            found.append(ways[name](volume, box))
        if (index + 1) % 100 == 0:
            notify(f"{index + 1} of {len(described.table)} lesions seen by {len(missing)} others")
    for name, found in vectors.items():
        np.save(files[name], np.stack(found))
    loaded = {name: np.load(file).astype(np.float64) for name, file in files.items()}
    is_ours = (PIXELS, UNTRAINED)
    return {name: _with_constant(_standard(of), 3.0) if name in is_ours else of for name, of in loaded.items()}


def _voxels(patches: np.ndarray) -> np.ndarray:
    step = patches.shape[-1] // _PIXELS
    return patches[0, 0].reshape(_PIXELS, step, _PIXELS, step, _PIXELS, step).mean(axis=(1, 3, 5)).ravel()
