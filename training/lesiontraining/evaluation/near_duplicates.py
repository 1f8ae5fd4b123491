"""Pictures that are the same, or nearly, on both sides of a split.

Two detectors, because each is blind to something:

1. Direction of a fixed random network's answer, cosine above `COSINE`: two layers of seeded filters with tanh on the
   standardised picture. It was never trained, so it can't have learned to call two lesions of a class alike; its filters
   have zero mean and tanh is odd, so that unrelated pictures don't all point one way as behind a ReLU; the first filters
   are smooth, so that noise of 2 %, requantisation to 8 bits and a slight blur leave the direction. Brightness and
   contrast it doesn't see.
2. Perceptual hash: signs of 63 low cosine-transform coefficients, at most `HASH_BITS` of them unlike. It also survives
   16 grey levels and 5 % noise. But pictures of one layout (whole slices, fundus photographs) share their low frequencies,
   so a hash pair counts only where the small pictures correlate by `HASH_CORRELATION`, and then as something to look at.

Both look at a picture and at its seven mirrored and quarter-turned versions. A copy that was shifted, cropped anew or
turned by another angle is seen by neither.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """A picture (row ``second``) and the one most like it in an earlier split (row ``first``).

    ``kind``: "identical" to the last bit, "cosine" or "hash"; ``cosine``: of the random network's answers.
    """

    first: int
    second: int
    kind: str
    cosine: float


@dataclass(frozen=True, eq=False)
class _Prints:
    """What is compared: unit vectors, (picture, ...) each; zero for a picture without contrast."""

    answer: np.ndarray
    signs: np.ndarray
    pixels: np.ndarray

    def at(self, rows: np.ndarray) -> _Prints:
        return _Prints(self.answer[rows], self.signs[rows], self.pixels[rows])


def find_near_duplicates(
    pictures: Sequence[np.ndarray] | np.ndarray, splits: Sequence[object] | np.ndarray
) -> list[NearDuplicate]:
    """For each picture the most alike one of the splits before its own (in sorted order), where they are near-duplicates.

    ``pictures``: one 2-D array a lesion, of any size, e.g. its key slice as the network sees it; ``splits``: (picture,).
    """
    _check(pictures, splits)
    _, split = np.unique(np.asarray(splits), return_inverse=True)
    small = np.stack([thumbnail(picture) for picture in pictures])
    digests = np.array(
        [sha256(f"{np.shape(p)}".encode() + np.ascontiguousarray(p).tobytes()).digest() for p in pictures]
    )
    prints = _prints(small)
    found = []
    for number in range(1, int(split.max()) + 1):
        later, earlier = np.flatnonzero(split == number), np.flatnonzero(split < number)
        at_once = max(1, _PAIRS_AT_ONCE // len(earlier))
        for start in range(0, len(later), at_once):
            rows = later[start : start + at_once]
            found += _matches(rows, small[rows], earlier, prints.at(earlier), digests)
    return found


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """The picture on `EDGE` x `EDGE` pixels, smoothed before it shrinks."""
    image = np.asarray(picture, dtype=np.float64)
    smooth = gaussian_filter(image, [max(0.0, (size / EDGE - 1) / 2) for size in image.shape])
    return zoom(smooth, [EDGE / size for size in image.shape], order=1, mode="nearest", grid_mode=True)


def random_answers(small: np.ndarray) -> np.ndarray:
    """Directions of the random network's answers to thumbnails, (picture, 400), length 1 (0 for one without contrast)."""
    first, second = _filters()
    hidden = np.tanh(_convolve(_standardised(small)[..., None], first))
    return _unit(np.tanh(_convolve(hidden, second)).reshape(len(small), -1))


def hash_signs(small: np.ndarray) -> np.ndarray:
    """The perceptual hash of thumbnails as -1 and 1, (picture, 63)."""
    spectrum = dctn(_standardised(small), axes=(1, 2))[:, :8, :8]
    return np.sign(spectrum.reshape(len(small), -1)[:, 1:]).astype(np.float32)


def _prints(small: np.ndarray) -> _Prints:
    pixels = _unit(_standardised(small).reshape(len(small), -1))
    return _Prints(random_answers(small), hash_signs(small), pixels)


def _matches(
    rows: np.ndarray, small: np.ndarray, earlier: np.ndarray, theirs: _Prints, digests: np.ndarray
) -> list[NearDuplicate]:
    cosine = np.full((len(rows), len(earlier)), -1.0, dtype=np.float32)
    correlation = np.full(cosine.shape, -1.0, dtype=np.float32)  # only of the pairs that the hash calls alike
    for version in _versions(small):
        ours = _prints(version)
        np.maximum(cosine, ours.answer @ theirs.answer.T, out=cosine)
        unlike = (hash_signs(version).shape[1] - ours.signs @ theirs.signs.T) / 2
        a, b = np.nonzero(unlike <= HASH_BITS)
        alike = np.einsum("ij,ij->i", ours.pixels[a], theirs.pixels[b])
        correlation[a, b] = np.maximum(correlation[a, b], alike)
    same_bits = {digest: place for place, digest in reversed(list(enumerate(digests[earlier])))}
    found = []
    for place, row in enumerate(rows):
        best, hashed = int(cosine[place].argmax()), int(correlation[place].argmax())
        if digests[row] in same_bits:
            match, kind = same_bits[digests[row]], "identical"
        elif cosine[place, best] > COSINE:
            match, kind = best, "cosine"
        elif correlation[place, hashed] > HASH_CORRELATION:
            match, kind = hashed, "hash"
        else:
            continue
        found.append(NearDuplicate(int(earlier[match]), int(row), kind, float(cosine[place, match])))
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
    """Every second place of (picture, row, column, channel), no padding -> (picture, row, column, filter)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, filters.shape[1:3], axis=(1, 2))[:, ::2, ::2]
    return np.tensordot(windows, filters, axes=([4, 5, 3], [1, 2, 3]))


def _standardised(small: np.ndarray) -> np.ndarray:
    centred = small - small.mean(axis=(1, 2), keepdims=True)
    spread = centred.std(axis=(1, 2), keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > _CONSTANT)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > _CONSTANT)


def _check(pictures: Sequence[np.ndarray] | np.ndarray, splits: Sequence[object] | np.ndarray) -> None:
    if len(pictures) != len(splits) or not len(pictures):
        msg = f"{len(pictures)} pictures and {len(splits)} splits were given; one split a picture is needed, at least 1"
        raise ValueError(msg)
    shapes = [np.shape(picture) for picture in pictures]
    wrong = next((i for i, shape in enumerate(shapes) if len(shape) != 2 or 0 in shape), None)
    if wrong is not None:
        msg = f"picture {wrong} has shape {shapes[wrong]}; give one slice (row, column) a lesion"
        raise ValueError(msg)
    unfit = next((i for i, picture in enumerate(pictures) if not np.isfinite(picture).all()), None)
    if unfit is not None:
        msg = f"picture {unfit} holds NaN or infinity; replace what lies outside of the volume by a HU value"
        raise ValueError(msg)
