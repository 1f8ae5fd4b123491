"""The images of a report, each a matplotlib figure: no state shared, nothing shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.cm import viridis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import roc_curve

from lesiontraining.evaluation.classification import auc, reliability_bins, top_label
from lesiontraining.evaluation.predictions import Predictions

# Okabe and Ito: told apart by colour-blind eyes.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6B6B6B", "#8C6D31")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MAX_CLASSES = 8
_MAX_POINTS = 3000
_MIN_POINTS = 10
_HARDEST = 8
_NO_SIZES = 50


@dataclass(frozen=True, eq=False)
class Chart:
    """An image with its name (for the file), what it shows, and how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


def class_colors(names: Sequence[str]) -> list[str]:
    """A colour a class: steps of one ramp where the names are grades (0, 1, 2 or "grade 1", "grade 2"), else apart."""
    if not are_ordered(names):
        return _colors(len(names))
    return [to_hex(viridis(share)) for share in np.linspace(0.0, 0.95, len(names))]


def are_ordered(names: Sequence[str]) -> bool:
    """Whether three classes or more are numbers that rise, with one text before them all or none."""
    found = [re.fullmatch(r"(\D*?)(\d+(?:\.\d+)?)", name.strip()) for name in names]
    if len(names) < 3 or not all(found):
        return False
    values = [float(match.group(2)) for match in found]
    return len({match.group(1) for match in found}) == 1 and values == sorted(set(values))


def confusion_chart(matrix: np.ndarray, names: Sequence[str], method: str, *, name: str = "confusion") -> Chart:
    """Rows: what the lesion is; columns: what was answered."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 0.9 * len(names), 1.4 + 0.8 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("answered")
    axes.set_ylabel("labelled")
    for (row, column), count in np.ndenumerate(matrix):
        color = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, f"{count}\n{share[row, column]:.0%}", ha="center", va="center", color=color)
    caption = "How many lesions of each label (row) got each answer (column), and the share of the row."
    return Chart(name, f"Confusion, {method}", caption, figure)


def roc_chart(methods: Mapping[str, Predictions]) -> Chart | None:
    """The curve of each method: of the second class where there are two, else the mean is not drawn but the model's classes."""
    first = next(iter(methods.values()))
    figure, axes = _square()
    if len(first.class_names) == 2:
        curves = [(name, p.labels == 1, p.probabilities[:, 1]) for name, p in methods.items()]
        caption = (
            f"Share of {first.class_names[1]} lesions found against the share of others called so, for every threshold."
        )
    else:
        of_class = enumerate(first.class_names[:_MAX_CLASSES])
        curves = [(name, first.labels == c, first.probabilities[:, c]) for c, name in of_class]
        caption = "Of this model, each class against all others."
    two = len(first.class_names) == 2
    colors = _colors(len(curves)) if two else class_colors(first.class_names)[: len(curves)]
    drawn = 0
    for (name, truth, score), color in zip(curves, colors, strict=True):
        if 0 < truth.sum() < len(truth):
            false, true, _ = roc_curve(truth, score)
            axes.plot(false, true, color=color, linewidth=2, label=f"{name}: {auc(truth, score):.3f}")
            drawn += 1
    if not drawn:
        return None
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    axes.legend(loc="lower right", title="area under the curve", fontsize=8)
    return Chart("roc", "ROC curves", caption, figure)


def reliability_chart(model: Predictions, name: str) -> Chart:
    """Confidence against what came true."""
    confidence, right = top_label(model.probabilities, model.labels)
    bins = reliability_bins(confidence, right)
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    axes.plot(bins.confidence, bins.observed, color=PALETTE[0], marker="o", linewidth=2)
    for x, y, n in zip(bins.confidence, bins.observed, bins.lesions, strict=True):
        axes.annotate(str(n), (x, y), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    axes.set_xlabel("probability of the answer")
    axes.set_ylabel("share of right answers")
    caption = "On the dotted line a probability means what it says; below it the model is too sure. Numbers: lesions."
    return Chart("reliability", f"Reliability, {name}", caption, figure)


def tsne_chart(model: Predictions, method: str, *, name: str = "embeddings") -> Chart | None:
    """Embeddings in two dimensions: PCA to 50, then t-SNE; of one fold, for folds have networks of their own."""
    folds, counts = np.unique(model.folds, return_counts=True)
    part = model.at(model.folds == folds[counts.argmax()])
    part = part.at(np.random.default_rng(0).permutation(len(part))[:_MAX_POINTS])
    if len(part) < _MIN_POINTS:
        return None
    reduced = part.embeddings
    if min(reduced.shape) > _NO_SIZES:
        reduced = PCA(_NO_SIZES, random_state=0).fit_transform(reduced)
    perplexity = min(30.0, (len(part) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced.astype(np.float32))
    figure, axes = _square()
    for c, (label, color) in enumerate(zip(part.class_names, class_colors(part.class_names), strict=True)):
        here = points[part.labels == c]
        axes.scatter(*here.T, s=16, color=color, marker=_MARKS[c % len(_MARKS)], label=label, alpha=0.8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8)
    caption = (
        f"Test lesions of fold {part.folds[0]}: near each other where the network sees them as alike. "
        "Distances and empty space say little."
    )
    return Chart(name, f"Embeddings (t-SNE), {method}", caption, figure)


def hardest_chart(methods: Mapping[str, Predictions]) -> Chart | None:
    """Probabilities of every class and method for the lesions whose label the model held least likely."""
    names = list(methods)
    model = methods[names[0]]
    given = model.probabilities[np.arange(len(model)), model.labels]
    hardest = [row for row in np.argsort(given, kind="stable")[:_HARDEST] if given[row] < 0.5]
    if not hardest:
        return None
    columns = min(4, len(hardest))
    rows = -(-len(hardest) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    width = 0.8 / len(names)
    for axes, row in zip(grid.flat, hardest, strict=False):
        for index, (name, color) in enumerate(zip(names, _colors(len(names)), strict=True)):
            x = np.arange(len(model.class_names)) + width * (index - (len(names) - 1) / 2)
            axes.bar(x, methods[name].probabilities[row], width, color=color, label=name)
        axes.set_title(f"{model.lesion_ids[row]}: {model.class_names[model.labels[row]]}", fontsize=9)
        axes.set_xticks(range(len(model.class_names)), model.class_names, fontsize=7, rotation=20)
        axes.set_ylim(0, 1)
    for axes in list(grid.flat)[len(hardest) :]:
        axes.axis("off")
    grid[0, 0].legend(fontsize=7)
    caption = (
        "The tested lesions whose label this model held least likely; over each its line in the table, and its label."
    )
    return Chart("hardest", "Hardest lesions", caption, figure)


def curve_chart(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Chart | None:
    """Training and validation loss by epoch."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    drawn = 0
    for (name, rows), color in zip(curves.items(), _colors(len(curves)), strict=True):
        for figure_name, style in (("train_loss", "-"), ("val_loss", "--")):
            points = [(row["epoch"], row[figure_name]) for row in rows if figure_name in row and "epoch" in row]
            if points:
                axes.plot(*zip(*points, strict=True), linestyle=style, color=color, label=f"{name}, {figure_name}")
                drawn += 1
    if not drawn:
        return None
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(fontsize=7, ncols=2)
    caption = (
        "Solid: training lesions, dashed: validation lesions. The weights of the best epoch by validation were taken."
    )
    return Chart("training", "Training", caption, figure)


def _square() -> tuple[Figure, object]:
    figure = Figure(figsize=(5.0, 4.6), layout="constrained")
    return figure, figure.subplots()


def _colors(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]
