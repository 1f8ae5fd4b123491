"""How fast the Frangi filter is, beside the usual ways, in one run: ``python Testing/benchmarks/bench_frangi.py``.

The usual ways take one picture at a time: scikit-image's `frangi`, and scipy's Gaussian derivatives with the same formula
in numpy, which is also what ours is compared with. All do ``vesselness``, the one mode that scikit-image has; it finds one
polarity where ours finds both. scikit-image is no dependency of the project: without it its row is left out.

Floor: the matrix products that ours consists of, alone. The ways take turns, so that a busy machine slows them alike.
Absolute times drift with the machine; the ratios are what to quote.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from time import perf_counter

import numpy as np
import torch
from LesionLib.sampling.frangi import SIGMAS, TRUNCATE, frangi
from scipy import ndimage

SIZE, BETA, GAMMA = 64, 0.6, 0.0444
OURS = "LesionLib, torch"
FLOOR = "  its matrix products alone"


def main() -> None:
    """Print one table: milliseconds a picture, and how many times ours goes into it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="pictures at once (default: 1 16)")
    parser.add_argument("--rounds", type=int, default=15, help="turns, of which the median counts (default: 15)")
    chosen = parser.parse_args()
    print(f"{len(SIGMAS)} scales, {SIZE} x {SIZE}; {torch.get_num_threads()} threads, torch {torch.__version__}")
    if find_spec("skimage") is None:
        print("scikit-image is not installed: its row is left out (pip install scikit-image)")
    print(f"{'':30}" + "".join(f"{f'batch {n}: ms':>14}{'ratio':>8}" for n in chosen.batch))
    measured = [milliseconds(lung_like(n), chosen.rounds) for n in chosen.batch]
    for name in measured[0]:
        cells = (f"{column[name]:14.2f}{column[name] / column[OURS]:8.1f}" for column in measured)
        print(f"{name:30}" + "".join(cells))
    print(f"largest difference of ours from scipy in float64: {difference(lung_like(2)):.1e}")


def lung_like(count: int) -> np.ndarray:
    """Smooth random pictures in 0 … 1, float32."""
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.random((count, SIZE, SIZE)), (0, 2, 2))
    return ((images - images.min()) / np.ptp(images)).astype(np.float32)


def milliseconds(images: np.ndarray, rounds: int) -> dict[str, float]:
    """Of each way, for one picture."""
    tensor = torch.from_numpy(images)
    ways: dict[str, Callable[[], object]] = {
        OURS: lambda: frangi(tensor, mode="vesselness"),
        FLOOR: products_alone(len(images)),
        "scipy derivatives, numpy": lambda: [by_scipy(p) for p in images],
    }
    if find_spec("skimage") is not None:
        from skimage.filters import frangi as by_skimage

        ways["scikit-image"] = lambda: [by_skimage(p, sigmas=SIGMAS, beta=BETA, gamma=GAMMA) for p in images]
    turns: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            started = perf_counter()
            way()
            turns[name].append(1e3 * (perf_counter() - started) / len(images))
    return {name: median(times) for name, times in turns.items()}


def products_alone(count: int) -> Callable[[], object]:
    """The multiplications with the derivatives' matrices, of random numbers, as many scales at once as fit the cache."""
    at_once = max(1, 64 // count)
    parts = [min(at_once, len(SIGMAS) - first) for first in range(0, len(SIGMAS), at_once)]
    rows = [torch.rand(scales * 3 * SIZE, SIZE) for scales in parts]
    columns = [torch.rand(scales * 3, SIZE, SIZE) for scales in parts]
    images = torch.rand(SIZE, count * SIZE)

    def products() -> None:
        for down, across in zip(rows, columns, strict=True):
            torch.bmm((down @ images).view(len(across), SIZE * count, SIZE), across)

    return products


def by_scipy(image: np.ndarray) -> np.ndarray:
    """Vesselness of both polarities."""
    best = np.zeros_like(image)
    for sigma in SIGMAS:
        down, mixed, across = (
            sigma**2 * ndimage.gaussian_filter(image, sigma, order=order, mode="reflect", truncate=TRUNCATE)
            for order in ((2, 0), (1, 1), (0, 2))
        )
        mean, half = (down + across) / 2, np.hypot((down - across) / 2, mixed)
        ratio = (np.abs(mean) - half) / np.maximum(np.abs(mean) + half, 1e-30)
        structure = -np.expm1(-(mean**2 + half**2) / GAMMA**2)
        np.maximum(best, np.exp(-(ratio**2) / (2 * BETA**2)) * structure, out=best)
    return best


def difference(images: np.ndarray) -> float:
    """The largest, between ours and scipy in float64."""
    ours = frangi(torch.from_numpy(images), mode="vesselness").numpy()
    return float(np.abs(ours - np.stack([by_scipy(p.astype(np.float64)) for p in images])).max())


if __name__ == "__main__":
    main()
