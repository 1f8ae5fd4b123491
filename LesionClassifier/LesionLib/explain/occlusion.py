"""Occlusion: which parts of a network's input a class needs, found by covering them one after the other.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 4.2. Slower than Grad-CAM by the
number of windows, and no gradient is trusted: what falls is the probability itself.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor

from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of, parted_output

# Cells of the map along an axis, and how many of them a window covers: 100 windows on a plane, 343 in a cube.
_CELLS = {2: (12, 3), 3: (8, 2)}
_BATCH = 16


def occlusion_map(
    network: LesionNet,
    patches: Tensor,
    class_index: int,
    *,
    temperature: float = 1.0,
    scores: int = 0,
    uncovered: int = 0,
    watch: Callable[[float], None] | None = None,
) -> Tensor:
    """How far the probability of a class falls, for each patch, where a part of it is covered: (batch, h, w), at least 0.

    ``patches``: network input, (batch, channel, row, column) or (batch, channel, slice, row, column), then the map is
    (batch, d, h, w). A window is filled with the median of the patch's outermost pixels, channel by channel: with what lies
    around the lesion. A cell's value is the mean fall over the windows that cover it; where covering helps the class it is 0.
    ``scores``: how many of the network's last columns are scores. ``uncovered``: how many of the last channels hold no pixels
    and stay as they are. ``watch`` is told before each pass which share is done; an exception that it raises stops here.
    """
    shape = patches.shape[2:]
    cells, width = _CELLS[len(shape)]
    grid = tuple(min(cells, size) for size in shape)
    windows = list(product(*(range(max(1, count - width + 1)) for count in grid)))
    edges = [np.linspace(0, size, count + 1).round().astype(int) for size, count in zip(shape, grid, strict=True)]
    spans = [_span(window, grid, width) for window in windows]
    channels = slice(patches.shape[1] - uncovered)
    fill = surroundings(patches[:, channels])
    whole = _probability(network, patches, class_index, temperature, scores)
    falls = torch.zeros(len(patches), *grid)
    covered = torch.zeros(grid)
    for done, span in enumerate(spans):
        if watch is not None:
            watch(done / len(spans))
        place = tuple(slice(int(e[a]), int(e[b])) for e, (a, b) in zip(edges, span, strict=True))
        cell = tuple(slice(a, b) for a, b in span)
        covered[cell] += 1
        window = (slice(None), channels, *place)
        if (patches[window] == fill).all():
            continue  # nothing is covered: most of a cube around a small lesion
        hidden = patches.clone()
        hidden[window] = fill
        fall = whole - _probability(network, hidden, class_index, temperature, scores)
        falls[(slice(None), *cell)] += fall.reshape(-1, *[1] * len(shape))
    return (falls / covered).clamp_min(0.0)


def _span(window: tuple[int, ...], grid: tuple[int, ...], width: int) -> list[tuple[int, int]]:
    """First cell and the one after the last, along each axis."""
    return [(first, min(first + width, count)) for first, count in zip(window, grid, strict=True)]


def surroundings(patches: Tensor) -> Tensor:
    """What stands around the lesion: the median of the outermost pixels of each patch and channel, (batch, channel, 1, ...)."""
    inner = torch.ones(patches.shape[2:], dtype=torch.bool)
    inner[tuple(slice(1, -1) for _ in inner.shape)] = False
    median = patches[:, :, inner].median(dim=2).values
    return median.reshape(*median.shape, *[1] * inner.ndim)


def _probability(network: LesionNet, patches: Tensor, class_index: int, temperature: float, scores: int) -> Tensor:
    """Of one class, for each patch, (batch,), on the CPU."""
    device = device_of(network)
    with torch.no_grad():
        parts = []
        for part in patches.split(_BATCH):
            logits, _ = parted_output(network.head(network.features(part.to(device))), scores)
            parts.append(network.probabilities(logits, temperature)[:, class_index].float().cpu())
        return torch.cat(parts)
