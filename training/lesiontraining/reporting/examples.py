"""Pictures of single test lesions in a report: heat maps with their box beside the truth, filtered pictures beside the original."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lesiontraining.reporting.charts import PALETTE, Chart

Arrays = Mapping[str, np.ndarray]
_TRUTH, _MAP = PALETTE[2], PALETTE[1]


def maps_chart(methods: Mapping[str, Arrays]) -> Chart | None:
    """A row a lesion that every method has a map of: the picture with the lesion's box, then each method's map with its own box.

    ``methods``: by name, ``image`` and ``cam`` (n, row, column), ``truth`` and ``box`` (n, 4), ``label``, ``predicted`` and
    ``lesion`` (n,), as `lesiontraining.runs.localising` makes them; the model first.
    """
    if not methods:
        return None
    places = {name: {str(one): i for i, one in enumerate(of["lesion"])} for name, of in methods.items()}
    first = next(iter(methods.values()))
    lesions = [str(one) for one in first["lesion"] if all(str(one) in of for of in places.values())]
    if not lesions:
        return None
    columns = 1 + len(methods)
    figure = Figure(figsize=(2.4 * columns, 2.5 * len(lesions)), layout="constrained")
    grid = figure.subplots(len(lesions), columns, squeeze=False)
    for row, lesion in zip(grid, lesions, strict=True):
        index = next(iter(places.values()))[lesion]
        _picture(row[0], first["image"][index], f"{lesion}: {first['label'][index]}")
        _box(row[0], first["truth"][index], _TRUTH, "-")
        for axes, (name, of) in zip(row[1:], methods.items(), strict=True):
            here = places[name][lesion]
            shape = of["image"][here].shape
            _picture(axes, of["image"][here], f"{name}: {of['predicted'][here]}")
            extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
            axes.imshow(
                of["cam"][here], cmap="magma", alpha=0.45, extent=extent, vmin=0, vmax=1, interpolation="bilinear"
            )
            _box(axes, of["truth"][here], _TRUTH, "-")
            _box(axes, of["box"][here], _MAP, "--")
    caption = (
        "Grad-CAM of the labelled class on test slices; solid green: the lesion's box, dashed orange: the box of the hot part, at "
        "the threshold from validation slices. Over each what was answered. It shows where the network looked, not where disease is."
    )
    return Chart("maps", "Heat maps beside the truth", caption, figure)


def frangi_chart(examples: Arrays) -> Chart | None:
    """Above the windowed picture, below what the network gets of it: ``original`` and ``filtered``, (n, row, column)."""
    if not examples:
        return None
    count = len(examples["lesion"])
    figure = Figure(figsize=(1.9 * count, 4.0), layout="constrained")
    grid = figure.subplots(2, count, squeeze=False)
    for column in range(count):
        _picture(grid[0, column], examples["original"][column], str(examples["lesion"][column]))
        _picture(grid[1, column], examples["filtered"][column], "filtered")
    caption = (
        "Test lesions as they are windowed (above) and after the Frangi filter (below), which is what the network gets."
    )
    return Chart("frangi", "Before and after the Frangi filter", caption, figure)


def _picture(axes: object, image: np.ndarray, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def _box(axes: object, box: np.ndarray, color: str, style: str) -> None:
    """``box``: row, column, rows, columns from the upper left edge of the picture; NaN: none."""
    if np.isfinite(box).all():
        top, left, rows, columns = map(float, box)
        edges = {"edgecolor": color, "linestyle": style, "linewidth": 1.6, "facecolor": "none"}
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, **edges))
