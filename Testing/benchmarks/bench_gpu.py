"""Lesions on a GPU: ``python Testing/benchmarks/bench_gpu.py``. Prints "not run" where torch finds none.

Milliseconds a lesion with its Grad-CAM, 1 and 20 at once, of a ResNet-50 on 16 slices of 224 x 224 and of the models that ship, and
the share of the measured ceiling of a matrix product in float32 (TF32 off) that the network's forward passes reach.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parent))
import bench_classify
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.model.folder import golden_case, shipped_bundles

_REPEATS, _SIZE = 5, 8192


def main() -> None:
    """Print one line a model and number of lesions."""
    if not torch.cuda.is_available():
        print("not run: torch finds no GPU here")
        return
    ceiling = ceiling_gflops()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {ceiling / 1e3:.1f} TFLOP/s of a float32 matrix product"
    )
    ct, boxes = bench_classify.phantom_ct(20)
    bundle = bench_classify.resnet50_bundle(ct, boxes)
    gflop = bench_classify.forward_gflop(bundle.network) * bench_classify.SLICES
    bundle = replace(bundle, network=bundle.network.to("cuda"))
    for count in (1, 20):
        ms = ms_a_lesion(bundle, ct, boxes[:count])
        print(
            f"ResNet-50, {count} at once: {ms:.2f} ms a lesion, {gflop / ms / ceiling * 1e3:.0%} of the ceiling",
            flush=True,
        )
    for name in sorted(name for name, folder in shipped_bundles().items() if folder.is_dir()):
        shipped = load_bundle(name, device="cuda")
        if not shipped.class_names:
            continue
        volume, box = golden_case()
        for count in (1, 20):
            ms = ms_a_lesion(shipped, volume, [box] * count)
            print(f"{name}, {count} at once: {ms:.2f} ms a lesion", flush=True)


def ms_a_lesion(bundle: Bundle, volume: object, boxes: list) -> float:
    """Median of several runs, cutting and the map in the CT included."""
    classifier = Classifier(bundle, volume)

    def run() -> None:
        list(classifier.classify_all(boxes, answer_anyway=True))
        torch.cuda.synchronize()

    run()
    return 1e3 * median(bench_classify.timed(run)[0] for _ in range(_REPEATS)) / len(boxes)


def ceiling_gflops() -> float:
    """The fastest of several square matrix products on the GPU."""
    a, b = (torch.randn(_SIZE, _SIZE, device="cuda") for _ in range(2))

    def product() -> None:
        torch.matmul(a, b)
        torch.cuda.synchronize()

    product()
    return 2 * _SIZE**3 / min(bench_classify.timed(product)[0] for _ in range(8)) / 1e9


if __name__ == "__main__":
    main()
