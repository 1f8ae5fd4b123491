"""What the frozen network sees of every nodule, in the given box and in boxes as others would draw them; kept on disk.

The four nodule models look through the same network: what it sees is computed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.networks.nodule import NoduleNet
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.inputs import Spec
from LesionLib.sampling.statistics import lesion_statistics
from LesionLib.sampling.volumes import IsotropicCubeSpec

from lesiontraining.data.lesions import LesionTable, ct_lesions
from lesiontraining.data.readers.lidc_ratings import NoduleReaders

# z: the cut-outs end with the nodule, so nothing beyond the box may be shown along it.
NODULE_SPEC = IsotropicCubeSpec(
    edge_mm=42.0,
    voxels=84,
    windows_hu=((-1000.0, 1600.0),),
    margin_mm=(3.0, 3.0, 0.0),
    fill_hu=-1000.0,
    box_channel=True,
)
SHIFT_MM, GROW_MM, TURN_DEGREES = 2.0, 3.0, 15.0
NEAR_SHIFT_MM, NEAR_GROW_MM = 0.5, 1.0  # as readers differ, for nodules whose readers' outlines are not known
_TRIES = 20
GIVEN, LOOSE, GROWN = "given", "loose", "grown"
Notify = Callable[[str], None]
Draw = Callable[[LesionBox, NoduleReaders | None, np.random.Generator], LesionBox]


def _as_given(box: LesionBox, _readers: NoduleReaders | None, _rng: np.random.Generator) -> LesionBox:
    return box


def _by_a_reader(box: LesionBox, readers: NoduleReaders | None, rng: np.random.Generator) -> LesionBox:
    if readers is None or not readers.boxes:
        return box.jittered(rng, shift_mm=NEAR_SHIFT_MM, grow_mm=NEAR_GROW_MM)
    return readers.drawn(box, rng)


def loosely_drawn(box: LesionBox, rng: np.random.Generator) -> LesionBox:
    """The box as somebody in a hurry might draw it: moved, larger, turned."""
    return box.jittered(rng, shift_mm=SHIFT_MM, grow_mm=GROW_MM, turn_degrees=TURN_DEGREES)


def _loose(box: LesionBox, _readers: NoduleReaders | None, rng: np.random.Generator) -> LesionBox:
    return loosely_drawn(box, rng)


def _grown(box: LesionBox, _readers: NoduleReaders | None, rng: np.random.Generator) -> LesionBox:
    return box.jittered(rng, grow_mm=GROW_MM)


# name -> seed beside the lesion's number, and how the box is drawn. The last two are only tested, never fitted on.
DRAWINGS: Mapping[str, tuple[int, Draw]] = {
    GIVEN: (0, _as_given),
    "reader": (1, _by_a_reader),
    "drawn loosely": (3, _loose),
    LOOSE: (6, _loose),
    GROWN: (8, _grown),
}
FITTED = tuple(name for name in DRAWINGS if name not in (LOOSE, GROWN))


@dataclass(frozen=True, eq=False)
class Described:
    """Of every lesion of the table: what the network sees of each drawing, float64 (lesion, number), and measures.

    ``size_mm``: edges of the given box, ``spacing_mm``: of the CT, (lesion, 3) each; ``hu``: mean, standard deviation, minimum,
    median and maximum of the readers' mask, (lesion, 5).
    """

    table: LesionTable
    seen: Mapping[str, np.ndarray]
    size_mm: np.ndarray
    spacing_mm: np.ndarray
    hu: np.ndarray


def seen_of(network: NoduleNet, volume: CTVolume, box: LesionBox, spec: Spec = NODULE_SPEC) -> np.ndarray:
    """What the network sees of one box, float32 (number,). Raises `BoxError` for a box outside."""
    with torch.inference_mode():
        return network.seen(torch.from_numpy(crop_lesion(volume, box, spec).patches))[0].numpy()


def describe(
    table: LesionTable,
    readers: Mapping[str, NoduleReaders],
    network: NoduleNet,
    *,
    cache: Path,
    notify: Notify,
) -> Described:
    """Show every lesion to the network once for each drawing, or take from ``cache`` what was seen there before.

    A file of the cache is named by all that decides it: weights, input, drawing and lesions.
    """
    cache.mkdir(parents=True, exist_ok=True)
    key = _key(table, network)
    files = {name: cache / f"{key}-{name.replace(' ', '-')}.npy" for name in DRAWINGS}
    measured = cache / f"{key}-measures.npy"
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing or not measured.is_file():
        _look(table, readers, network, {name: files[name] for name in missing}, measured, notify)
    measures = np.load(measured)
    seen = {name: np.load(file).astype(np.float64) for name, file in files.items()}
    return Described(table, seen, measures[:, :3], measures[:, 3:6], measures[:, 6:])


def _look(
    table: LesionTable,
    readers: Mapping[str, NoduleReaders],
    network: NoduleNet,
    files: Mapping[str, Path],
    measured: Path,
    notify: Notify,
) -> None:
    found: dict[str, list[np.ndarray]] = {name: [] for name in files}
    measures = []
    for index, (_, volume, box) in enumerate(ct_lesions(table)):
        of = lesion_statistics(volume, box)
        hu = (of.hu_mean, of.hu_sd, of.hu_minimum, of.hu_median, of.hu_maximum)
        measures.append([*box.sizeMm, *volume.spacingMm, *hu])
        for name, seen in found.items():
            number, draw = DRAWINGS[name]
            rng, said = np.random.default_rng([number, index]), readers.get(file_of(table, index))
            seen.append(
                _seen_inside(network, volume, lambda draw=draw, rng=rng, said=said, box=box: draw(box, said, rng))
            )
        if files and ((index + 1) % 50 == 0 or index + 1 == len(table)):
            notify(f"{index + 1} of {len(table)} lesions described, {len(files)} drawings each")
    for name, file in files.items():
        np.save(file, np.stack(found[name]))
    np.save(measured, np.array(measures, dtype=np.float64))


def _seen_inside(network: NoduleNet, volume: CTVolume, draw: Callable[[], LesionBox]) -> np.ndarray:
    """A box that was moved off a small cut-out is drawn again. Raises `BoxError` where none of them lies inside."""
    for _ in range(_TRIES):
        with suppress(BoxError):
            return seen_of(network, volume, draw())
    return seen_of(network, volume, draw())


def file_of(table: LesionTable, index: int) -> str:
    """The file name of a lesion's CT."""
    return table.rows[index].source.volume.name


def _key(table: LesionTable, network: NoduleNet) -> str:
    digest = hashlib.sha256(repr((NODULE_SPEC, [row.lesion_id for row in table.rows])).encode())
    for name, tensor in network.features_.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:12]
