"""How fast lesions are answered, beside the usual way, in one run: ``python Testing/benchmarks/bench_classify.py``.

The usual way: the whole CT resampled to the network's pixels, one forward pass a slice in eager float32, then
``monai.visualize.GradCAM`` a slice. Ours: `Classifier`, as the runner uses it. Both see the same pictures: the boxes lie so
that their pixels fall on those of the resampled CT. The network is a ResNet-50 with random weights (its speed does not
depend on them), its head scaled so that answers are as clear as a trained network's.

Ceiling: the fastest of several square matrix products in the precision that was used. Absolute times drift with the
machine; the ratios are what to quote.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import SimpleITK as sitk
import torch
from LesionLib.explain.heat_map import HeatMap, resample_to_ct
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.messages import Precision
from LesionLib.inference.precision import choose_precision, in_precision
from LesionLib.model.bundle import Bundle
from LesionLib.networks import LesionNet, build_network
from LesionLib.networks.base import folded
from LesionLib.phantom.nodules import KINDS, nodule_patch
from LesionLib.sampling.batches import crop_lesion, in_channels_last
from LesionLib.sampling.resample import AxialStackSpec, windowed
from monai.visualize import GradCAM
from torch.utils.flop_counter import FlopCounterMode

SPACING_MM, SIZE_IJK, SLICES = (0.7, 0.7, 1.25), (512, 512, 300), 16
SPEC = AxialStackSpec(size=224, spacing_mm=0.5, margin_mm=47.0, max_slices=SLICES)
CLASSES = ("benign", "malignant")
_REPEATS, _MANY = 3, 10  # many boxes are a mean already


@dataclass(frozen=True, eq=False)
class Measured:
    """Seconds for all boxes, and what came out: label and painted Grad-CAM of each."""

    seconds: float
    labels: list[str]
    maps: list[HeatMap]


def main() -> None:
    """Print one line a number of boxes and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=[1, 20], help="how many boxes (default: 1 20)")
    counts = parser.parse_args().boxes
    ct, boxes = phantom_ct(max(counts))
    bundle = resnet50_bundle(ct, boxes)
    chosen = choose_precision(bundle.network, example_pictures(ct, boxes[0]))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; {chosen.name}: {chosen.reason}")
    choices = [Precision("float32", "asked for")] + ([chosen] if chosen.name != "float32" else [])
    ceilings = {choice.name: ceiling_gflops(choice.name) for choice in choices}
    for count in counts:
        usual = usual_way(bundle, ct, boxes[:count])
        print(f"{count} boxes, the usual way: {usual.seconds:.2f} s")
        for choice in choices:
            ours = our_way(bundle, ct, boxes[:count], choice)
            share = forward_gflop(bundle.network) * count * SLICES / ours.seconds / ceilings[choice.name]
            print(
                f"{count} boxes of {SLICES} slices, {choice.name}: {ours.seconds:.2f} s, {agreement(usual, ours)}, "
                f"{share:.0%} of the {ceilings[choice.name]:.0f} GFLOP/s of a matrix product, "
                f"ratio {usual.seconds / ours.seconds:.1f}",
                flush=True,
            )


def phantom_ct(count: int) -> tuple[CTVolume, list[LesionBox]]:
    """512 x 512 x 300 voxels of lung with ``count`` phantom nodules, and a box of 16 slices around each."""
    rng = np.random.default_rng(0)
    array = np.clip(rng.normal(-850, 25, SIZE_IJK[::-1]), -1024, 0).astype(np.int16)
    columns = np.arange(5)
    places = [(84 + 84 * i, 84 + 84 * j, 30 + 60 * k) for k in range(4) for j in columns for i in columns][:count]
    boxes = []
    for number, place in enumerate(places):
        patch, _ = nodule_patch(kind=KINDS[number % len(KINDS)], diameter_mm=10 + number % 9, seed=number)
        size = np.array(patch.sizeIJK)
        low = np.array(place) - size // 2
        i, j, k = (slice(a, a + n) for a, n in zip(low, size, strict=True))
        array[k, j, i] = patch.array
        # Half way between two pixels of the resampled CT, whose first lies at the origin: so both see the same pixels.
        center_mm = np.array(place) * SPACING_MM
        center_mm[:2] = (np.round(center_mm[:2] / SPEC.spacing_mm) + 0.5) * SPEC.spacing_mm
        center_mm[2] = (place[2] + 0.5) * SPACING_MM[2]
        boxes.append(LesionBox(center_mm, [18.0, 18.0, (SLICES - 0.5) * SPACING_MM[2]], name=f"L{number + 1}"))
    return CTVolume(array, np.diag([*SPACING_MM, 1.0]), "phantom"), boxes


def resnet50_bundle(ct: CTVolume, boxes: list[LesionBox]) -> Bundle:
    """A model in memory; its head is centred and scaled on the boxes, so that margins are those of a trained network."""
    torch.manual_seed(0)
    network = build_network("resnet", {"depth": 50, "classes": 2}).to(memory_format=torch.channels_last)
    images = torch.cat([example_pictures(ct, box)[SLICES // 2 : SLICES // 2 + 1] for box in boxes[:8]])
    with torch.no_grad():
        margins = network(images).diff(dim=1)[:, 0]
        linear = network.classifier[-1]
        gain = 4.0 / float(margins.abs().max())
        linear.weight.mul_(gain), linear.bias.mul_(gain)
    return Bundle(
        name="bench", version="0.0.0", sha256="0" * 64, network=network, spec=SPEC, class_names=CLASSES,
        class_colors=((0, 1, 0), (1, 0, 0)), temperature=1.0, conformal=None, ood=None, box_size_mm=(1, 100),
        slice_distance_mm=(0.5, 5), segment_margin_mm=0.0, training_content=None, manifest={}, folder=Path(),
    )  # fmt: skip


def example_pictures(ct: CTVolume, box: LesionBox) -> torch.Tensor:
    """The network input of one box."""
    return in_channels_last(torch.from_numpy(crop_lesion(ct, box, SPEC).patches))


def our_way(
    bundle: Bundle, ct: CTVolume, boxes: list[LesionBox], precision: Precision, *, network: LesionNet | None = None
) -> Measured:
    """Median of several runs (of many boxes one) through `Classifier.classify_all`, everything included that a user waits for.

    ``network``: what computes in place of the bundle's own.
    """
    network = network or in_precision(folded(bundle.network), precision, dimensions=4, temperature=1.0)
    classifier = Classifier(replace(bundle, network=network), ct)
    classifier.classify(boxes[0])
    repeats = _REPEATS if len(boxes) < _MANY else 1
    runs = [timed(lambda: list(classifier.classify_all(boxes))) for _ in range(repeats)]
    results = runs[0][1]
    return Measured(median(s for s, _ in runs), [r.label for r in results], [r.heat_map for r in results])


def usual_way(bundle: Bundle, ct: CTVolume, boxes: list[LesionBox]) -> Measured:
    """One run; painting the maps is not counted, as few do it."""
    network = build_network("resnet", {"depth": 50, "classes": 2})
    network.load_state_dict(bundle.network.state_dict())
    cam = GradCAM(nn_module=network, target_layers="trunk.layer4", postprocessing=lambda x: x)

    def run() -> list[tuple[int, np.ndarray]]:
        image = resampled(ct)
        return [slice_by_slice(network, cam, pixels_around(image, box)) for box in boxes]

    slice_by_slice(network, cam, np.zeros((1, *(SPEC.size,) * 2), np.float32))
    seconds, answers = timed(run)
    labels = [CLASSES[c] for c, _ in answers]
    lesions = [crop_lesion(ct, box, SPEC) for box in boxes]
    first, stride = network.cell_centres
    maps = [
        resample_to_ct(cells(m, int(stride)), lesion.sample, lesion.box, ct, "any", cell_centres=(first, stride))
        for (_, m), lesion in zip(answers, lesions, strict=True)
    ]
    return Measured(seconds, labels, maps)


def cells(enlarged: np.ndarray, stride: int) -> np.ndarray:
    """The network's own map (n, h, w) in one that MONAI enlarged linearly, as if its cells were spread evenly: what stands in their
    middles. Ours are laid where the cells look, so that only the cells themselves can be compared.
    """
    n, rows, columns = enlarged.shape
    middle = slice(stride // 2 - 1, stride // 2 + 1)
    return enlarged.reshape(n, rows // stride, stride, columns // stride, stride)[:, :, middle, :, middle].mean((2, 4))


def resampled(ct: CTVolume) -> np.ndarray:
    """The whole CT at the network's pixel size, its own slices."""
    image = sitk.GetImageFromArray(ct.array)
    image.SetSpacing(SPACING_MM)
    size = [int(n * s / SPEC.spacing_mm) for n, s in zip(SIZE_IJK[:2], SPACING_MM[:2], strict=True)]
    spacing = (SPEC.spacing_mm, SPEC.spacing_mm, SPACING_MM[2])
    filled = sitk.Resample(
        image, [*size, SIZE_IJK[2]], sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing,
        image.GetDirection(), -1000.0, sitk.sitkFloat32,
    )  # fmt: skip
    return sitk.GetArrayFromImage(filled)


def pixels_around(image: np.ndarray, box: LesionBox) -> np.ndarray:
    """HU of the box's slices and their surroundings, (slice, row, column)."""
    half = SPEC.size // 2
    column, row = (int(np.floor(c / SPEC.spacing_mm)) - half + 1 for c in box.centerRAS[:2])
    first = round(box.centerRAS[2] / SPACING_MM[2] - SLICES / 2 + 0.5)
    return image[first : first + SLICES, row : row + SPEC.size, column : column + SPEC.size]


def slice_by_slice(network: LesionNet, cam: GradCAM, hu: np.ndarray) -> tuple[int, np.ndarray]:
    """The class of the mean probability, and the maps (slice, row, column) for it."""
    images = torch.from_numpy(windowed(hu, SPEC.windows_hu))
    with torch.no_grad():
        answers = [network(image[None]).softmax(dim=1) for image in images]
    label = int(torch.cat(answers).mean(dim=0).argmax())
    maps = [cam(image[None], class_idx=label)[0, 0] for image in images]
    return label, np.stack([m.detach().numpy() for m in maps])


def agreement(usual: Measured, ours: Measured) -> str:
    """How alike classes and maps are, in words."""
    same = sum(a == b for a, b in zip(usual.labels, ours.labels, strict=True))
    pairs = zip(usual.maps, ours.maps, strict=True)
    correlations = [float(np.corrcoef(a.array.ravel(), b.array.ravel())[0, 1]) for a, b in pairs]
    return f"same class {same} of {len(usual.labels)}, Grad-CAM correlation at least {min(correlations):.4f}"


def forward_gflop(network: LesionNet) -> float:
    """Of one picture, a multiplication and an addition counted as two."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 3, SPEC.size, SPEC.size))
    return counter.get_total_flops() / 1e9


def ceiling_gflops(name: str, size: int = 2048) -> float:
    """The fastest of several square matrix products."""
    a, b = (torch.randn(size, size).to(getattr(torch, name)) for _ in range(2))
    torch.matmul(a, b)
    return 2 * size**3 / min(timed(lambda: torch.matmul(a, b))[0] for _ in range(8)) / 1e9


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Seconds and the answer."""
    started = perf_counter()
    answer = function()
    return perf_counter() - started, answer


if __name__ == "__main__":
    main()
