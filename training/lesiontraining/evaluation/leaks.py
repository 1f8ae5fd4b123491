"""What would make the figures too good: the same patient, study or image on both sides of a split, fits on test data.

A *leak* is certain and fails the run; a *suspicion* is to be looked at. What no table and no image can show is said, too
(`NOT_CHECKED`), so that an empty list of leaks isn't read as more than it is.

Pictures that are the same, or nearly, on both sides of a split are found by two detectors, because each is blind to something:

1. Direction of a fixed random network's answer, cosine above `COSINE`: two layers of seeded filters with tanh on the
   standardised image. It was never trained, so it can't have learned to call two lesions of a class alike; its filters
   have zero mean and tanh is odd, so that unrelated images don't all point one way as behind a ReLU; the first filters
   are smooth, so that noise of 2 %, requantisation to 8 bits and a slight blur leave the direction. Brightness and
   contrast it doesn't see.
2. Perceptual hash: signs of 63 low cosine-transform coefficients, at most `HASH_BITS` of them unlike. It also survives
   16 grey levels and 5 % noise. But images of one layout (whole slices, fundus photographs) share their low frequencies,
   so a hash pair counts only where the small images correlate by `HASH_CORRELATION`, and then as something to look at.

Both look at an image and at its seven mirrored and quarter-turned versions. A copy that was shifted, cropped anew or
turned by another angle is seen by neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, zoom

EDGE = 32
COSINE = 0.999
HASH_BITS = 4
HASH_CORRELATION = 0.98
_PAIRS_AT_ONCE = 1 << 22
_CONSTANT = 1e-9


@dataclass(frozen=True)
class NearDuplicate:
    """An image (row ``second``) and the one most like it in an earlier split (row ``first``).

    ``kind``: "identical" to the last bit, "cosine" or "hash"; ``cosine``: of the random network's answers.
    """

    first: int
    second: int
    kind: str
    cosine: float


@dataclass(frozen=True, eq=False)
class _Prints:
    """What is compared: unit vectors, (image, ...) each; zero for an image without contrast."""

    projection: np.ndarray
    signs: np.ndarray
    pixels: np.ndarray

    def at(self, rows: np.ndarray) -> _Prints:
        return _Prints(self.projection[rows], self.signs[rows], self.pixels[rows])


def find_near_duplicates(
    images: Sequence[np.ndarray] | np.ndarray, splits: Sequence[object] | np.ndarray
) -> list[NearDuplicate]:
    """For each image the most alike one of the splits before its own (in sorted order), where they are near-duplicates.

    ``images``: one 2-D array a lesion, of any size, e.g. its key slice as the network sees it; ``splits``: (image,).
    """
    _check(images, splits)
    _, split = np.unique(np.asarray(splits), return_inverse=True)
    small = np.stack([thumbnail(image) for image in images])
    digests = np.array([sha256(f"{np.shape(p)}".encode() + np.ascontiguousarray(p).tobytes()).digest() for p in images])
    prints = _prints(small)
    found = []
    for number in range(1, int(split.max()) + 1):
        later, earlier = np.flatnonzero(split == number), np.flatnonzero(split < number)
        at_once = max(1, _PAIRS_AT_ONCE // len(earlier))
        for start in range(0, len(later), at_once):
            rows = later[start : start + at_once]
            found += _matches(rows, small[rows], earlier, prints.at(earlier), digests)
    return found


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The image on `EDGE` x `EDGE` pixels, smoothed before it shrinks."""
    image = np.asarray(image, dtype=np.float64)
    smooth = gaussian_filter(image, [max(0.0, (size / EDGE - 1) / 2) for size in image.shape])
    return zoom(smooth, [EDGE / size for size in image.shape], order=1, mode="nearest", grid_mode=True)


def random_projections(small: np.ndarray) -> np.ndarray:
    """Directions of the random network's answers to thumbnails, (image, 400), length 1 (0 for one without contrast)."""
    first, second = _filters()
    hidden = np.tanh(_convolve(_standardised(small)[..., None], first))
    return _unit(np.tanh(_convolve(hidden, second)).reshape(len(small), -1))


def hash_signs(small: np.ndarray) -> np.ndarray:
    """The perceptual hash of thumbnails as -1 and 1, (image, 63)."""
    spectrum = dctn(_standardised(small), axes=(1, 2))[:, :8, :8]
    return np.sign(spectrum.reshape(len(small), -1)[:, 1:]).astype(np.float32)


def _prints(small: np.ndarray) -> _Prints:
    pixels = _unit(_standardised(small).reshape(len(small), -1))
    return _Prints(random_projections(small), hash_signs(small), pixels)


def _matches(
    rows: np.ndarray, small: np.ndarray, earlier: np.ndarray, theirs: _Prints, digests: np.ndarray
) -> list[NearDuplicate]:
    cosine = np.full((len(rows), len(earlier)), -1.0, dtype=np.float32)
    correlation = np.full(cosine.shape, -1.0, dtype=np.float32)  # only of the pairs that the hash calls alike
    for version in _versions(small):
        ours = _prints(version)
        np.maximum(cosine, ours.projection @ theirs.projection.T, out=cosine)
        unlike = (hash_signs(version).shape[1] - ours.signs @ theirs.signs.T) / 2
        a, b = np.nonzero(unlike <= HASH_BITS)
        alike = np.einsum("ij,ij->i", ours.pixels[a], theirs.pixels[b])
        correlation[a, b] = np.maximum(correlation[a, b], alike)
    same_bits = {digest: index for index, digest in reversed(list(enumerate(digests[earlier])))}
    found = []
    for index, row in enumerate(rows):
        best, hashed = int(cosine[index].argmax()), int(correlation[index].argmax())
        if digests[row] in same_bits:
            match, kind = same_bits[digests[row]], "identical"
        elif cosine[index, best] > COSINE:
            match, kind = best, "cosine"
        elif correlation[index, hashed] > HASH_CORRELATION:
            match, kind = hashed, "hash"
        else:
            continue
        found.append(NearDuplicate(int(earlier[match]), int(row), kind, float(cosine[index, match])))
    return found


def _versions(small: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(small, quarter, axes=(1, 2)) for quarter in range(4)]
    return turned + [version[:, :, ::-1] for version in turned]


def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Sixteen smooth 9 x 9 filters and sixteen 3 x 3 over them, (filter, row, column, channel), zero mean."""
    rng = np.random.default_rng(20181)
    first = gaussian_filter(rng.normal(size=(16, 9, 9, 1)), [0, 1, 1, 0])
    second = rng.normal(size=(16, 3, 3, 16))
    # The smaller gain keeps tanh off its ends, where noise would no longer count in proportion.
    return 0.3 * _zero_mean(first), _zero_mean(second)


def _zero_mean(filters: np.ndarray) -> np.ndarray:
    flat = filters.reshape(len(filters), -1)
    return _unit(flat - flat.mean(axis=1, keepdims=True)).reshape(filters.shape)


def _convolve(images: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Every second place of (image, row, column, channel), no padding -> (image, row, column, filter)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, filters.shape[1:3], axis=(1, 2))[:, ::2, ::2]
    return np.tensordot(windows, filters, axes=([4, 5, 3], [1, 2, 3]))


def _standardised(small: np.ndarray) -> np.ndarray:
    centred = small - small.mean(axis=(1, 2), keepdims=True)
    spread = centred.std(axis=(1, 2), keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > _CONSTANT)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > _CONSTANT)


def _check(images: Sequence[np.ndarray] | np.ndarray, splits: Sequence[object] | np.ndarray) -> None:
    if len(images) != len(splits) or not len(images):
        msg = f"{len(images)} images and {len(splits)} splits were given; one split an image is needed, at least 1"
        raise ValueError(msg)
    shapes = [np.shape(image) for image in images]
    wrong = next((i for i, shape in enumerate(shapes) if len(shape) != 2 or 0 in shape), None)
    if wrong is not None:
        msg = f"image {wrong} has shape {shapes[wrong]}; give one slice (row, column) a lesion"
        raise ValueError(msg)
    unfit = next((i for i, image in enumerate(images) if not np.isfinite(image).all()), None)
    if unfit is not None:
        msg = f"image {unfit} holds NaN or infinity; replace what lies outside of the volume by a HU value"
        raise ValueError(msg)


_AUGMENTATION = (
    "Augmentation before the split: only the recipe can promise that it split first and then augmented the training part. "
    "Mirrored and quarter-turned copies are recognised; those shifted, cropped, turned otherwise or blurred are not."
)
NOT_CHECKED = (
    _AUGMENTATION,
    "Choice of a model, an epoch or a threshold by its figures on the test data leaves no trace in a table.",
    "Patients under two identifiers, and lesions of test patients in a public pretraining set.",
)
_EXAMPLES = 10


@dataclass(frozen=True)
class Leak:
    """One finding: by which ``check``, in words, with some ``examples``; not ``certain``: a suspicion."""

    check: str
    message: str
    examples: tuple[str, ...] = ()
    certain: bool = True

    def as_json(self) -> dict[str, object]:
        """For metrics.json."""
        return {"check": self.check, "message": self.message, "examples": list(self.examples)}


@dataclass(frozen=True)
class LeakReport:
    """All findings and which checks were made."""

    findings: tuple[Leak, ...]
    checked: tuple[str, ...]

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """What is certain."""
        return tuple(finding for finding in self.findings if finding.certain)

    @property
    def suspicions(self) -> tuple[Leak, ...]:
        """What somebody should look at."""
        return tuple(finding for finding in self.findings if not finding.certain)

    def as_json(self) -> dict[str, object]:
        """The part of metrics.json: ``"leaks": []`` where there is none."""
        return {
            "leaks": [leak.as_json() for leak in self.leaks],
            "suspicions": [leak.as_json() for leak in self.suspicions],
            "checked": list(self.checked),
            "not_checked": list(NOT_CHECKED),
        }


def check_leaks(
    splits: Sequence[object] | np.ndarray,
    *,
    identifiers: Mapping[str, Sequence[object] | np.ndarray],
    images: Sequence[np.ndarray] | np.ndarray | None = None,
    fitted_on: Mapping[str, np.ndarray] | None = None,
    test: object = "test",
) -> LeakReport:
    """All checks for which there is something to check.

    ``splits``: "train", "validation", "test" or the fold's number, (lesion,). ``identifiers``: columns whose values must
    not be on two sides, at least "patient"; also "study", "series" or "file". ``images``: one 2-D array a lesion.
    ``fitted_on``: for each thing that was fitted ("SVM", "scaler", "threshold", "temperature") the rows it saw; it must
    not have seen a patient of the split called ``test``.
    """
    if "patient" not in identifiers:
        msg = f"identifiers has {', '.join(identifiers) or 'nothing'}; the column 'patient' is needed"
        raise ValueError(msg)
    findings: list[Leak] = []
    for name, values in identifiers.items():
        findings += shared_identifiers(name, values, splits)
    checked = [f"{name} on both sides of a split" for name in identifiers]
    if images is not None:
        findings += shared_images(images, splits)
        checked.append("identical and near-identical images on both sides of a split")
    for name, rows in (fitted_on or {}).items():
        findings += fitted_on_test(name, rows, np.asarray(splits) == test, identifiers["patient"])
        checked.append(f"{name} fitted without test patients")
    return LeakReport(tuple(findings), tuple(checked))


def shared_identifiers(
    name: str, values: Sequence[object] | np.ndarray, splits: Sequence[object] | np.ndarray
) -> list[Leak]:
    """Values on both sides of a split; spaces around them and capitals make no difference.

    ``values`` and ``splits``: (lesion,) each.
    """
    keys = _keys(name, values)
    if len(keys) != len(splits):
        msg = f"{len(keys)} values of {name!r} and {len(splits)} splits were given; one of each a lesion is needed"
        raise ValueError(msg)
    seen: dict[str, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        seen.setdefault(key, set()).add(str(split))
    shared = {key: sorted(sides) for key, sides in seen.items() if len(sides) > 1}
    if not shared:
        return []
    examples = tuple(f"{key}: {', '.join(sides)}" for key, sides in sorted(shared.items())[:_EXAMPLES])
    return [Leak(name, f"{len(shared)} of {len(seen)} values of {name!r} are in several splits", examples)]


def shared_images(images: Sequence[np.ndarray] | np.ndarray, splits: Sequence[object] | np.ndarray) -> list[Leak]:
    """Identical and near-identical images across splits, mirrored and quarter-turned ones too: see `find_near_duplicates`.

    ``images``: one 2-D array a lesion; ``splits``: (lesion,).
    """
    found = find_near_duplicates(images, splits)
    texts = {
        "identical": "are identical to one of another split",
        "cosine": "are near-identical to one of another split (random network, cosine above .999)",
        "hash": "look much like one of another split (perceptual hash); look at them",
    }
    leaks = []
    for kind, description in texts.items():
        pairs = [pair for pair in found if pair.kind == kind]
        if pairs:
            examples = tuple(f"rows {pair.first} and {pair.second}" for pair in pairs[:_EXAMPLES])
            leaks.append(Leak("pictures", f"{len(pairs)} images {description}", examples, certain=kind != "hash"))
    return leaks


def fitted_on_test(
    name: str, rows: np.ndarray, tested: np.ndarray, patients: Sequence[object] | np.ndarray
) -> list[Leak]:
    """Whether what was fitted on ``rows`` saw a patient of the test lesions.

    ``rows``: indices of lesions, (row,); ``tested``: bool, (lesion,); ``patients``: (lesion,).
    """
    keys = np.array(_keys("patient", patients))
    both = sorted(set(keys[np.asarray(rows, dtype=int)]) & set(keys[np.asarray(tested, dtype=bool)]))
    if not both:
        return []
    return [Leak("fit", f"the {name} was fitted on lesions of {len(both)} test patients", tuple(both[:_EXAMPLES]))]


def _keys(name: str, values: Sequence[object] | np.ndarray) -> list[str]:
    keys = ["" if value is None or value != value else str(value).strip().casefold() for value in values]  # noqa: PLR0124
    if "" in keys:
        msg = f"{keys.count('')} lesions have no {name}, the first in row {keys.index('')}; they cannot be checked"
        raise ValueError(msg)
    return keys
