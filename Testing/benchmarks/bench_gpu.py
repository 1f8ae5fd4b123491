"""Lesions on a GPU: ``python Testing/benchmarks/bench_gpu.py``. Prints "not run" where torch finds none; ``--device cpu`` tries the
script without one.

Milliseconds a lesion with its Grad-CAM, 1 and 20 at once, of a ResNet-50 on 16 slices of 224 x 224 and of the models that ship, and
the share of the measured ceiling of a matrix product in float32 (TF32 off) that the network's forward passes reach.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parent))
import bench_classify
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.model.folder import golden_case, shipped_bundles
from LesionLib.networks.base import device_of

_SIZES = {"cuda": 8192, "cpu": 1024}


def main() -> None:
    """Print one line a model and number of lesions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 20], help="lesions at once (default: 1 20)")
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the median counts (default: 5)")
    parser.add_argument("--models", nargs="+", help="of those that ship (default: all that classify)")
    options = parser.parse_args()
    device, counts = torch.device(options.device), options.counts
    if device.type == "cuda" and not torch.cuda.is_available():
        print("not run: torch finds no GPU here")
        return
    ceiling = ceiling_gflops(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "processor"
    print(f"{name}, torch {torch.__version__}: {ceiling / 1e3:.2f} TFLOP/s of a float32 matrix product")
    ct, boxes = bench_classify.phantom_ct(max(counts))
    bundle = bench_classify.resnet50_bundle(ct, boxes)
    gflop = bench_classify.forward_gflop(bundle.network) * bench_classify.SLICES
    bundle = replace(bundle, network=bundle.network.to(device))
    for count in counts:
        ms = ms_a_lesion(bundle, ct, boxes[:count], options.repeats)
        print(
            f"ResNet-50, {count} at once: {ms:.2f} ms a lesion, {gflop / ms / ceiling * 1e3:.0%} of the ceiling",
            flush=True,
        )
    for name in options.models or sorted(name for name, folder in shipped_bundles().items() if folder.is_dir()):
        shipped = load_bundle(name, device=options.device)
        if not shipped.class_names:
            continue
        volume, box = golden_case()
        for count in counts:
            ms = ms_a_lesion(shipped, volume, [box] * count, options.repeats)
            print(f"{name}, {count} at once: {ms:.2f} ms a lesion", flush=True)


def ms_a_lesion(bundle: Bundle, volume: CTVolume, boxes: list[LesionBox], repeats: int) -> float:
    """Median of several runs, cutting and the map in the CT included."""
    classifier = Classifier(bundle, volume)

    def run() -> None:
        list(classifier.classify_all(boxes, answer_anyway=True))
        wait_for(device)

    device = device_of(bundle.network)
    run()
    return 1e3 * median(bench_classify.timed(run)[0] for _ in range(repeats)) / len(boxes)


def wait_for(device: torch.device) -> None:
    """Until all that was asked of it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def ceiling_gflops(device: torch.device) -> float:
    """The fastest of several square matrix products."""
    size = _SIZES[device.type]
    a, b = (torch.randn(size, size, device=device) for _ in range(2))

    def product() -> None:
        torch.matmul(a, b)
        wait_for(device)

    product()
    return 2 * size**3 / min(bench_classify.timed(product)[0] for _ in range(8)) / 1e9


if __name__ == "__main__":
    main()
