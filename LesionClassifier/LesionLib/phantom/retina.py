"""Photographs of a retina that nobody has: a disc, vessels, and bright and dark spots whose number and size are the grade."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

GRADES = 5
_SIZE = 256
_RED, _DARK, _BRIGHT, _DISC = (
    np.array(c, np.float64) for c in ((178, 84, 38), (92, 24, 14), (236, 206, 120), (240, 190, 120))
)
_SPOTS = (0, 6, 12, 22, 36)  # of both kinds together, by grade
_RADII = (0.0, 2.4, 2.8, 3.2, 3.8)  # pixels, by grade


def retina_photo(grade: int, *, seed: int, style_seed: int, left: bool = False) -> np.ndarray:
    """uint8 (256, 256, 3), black outside the round field; the same arguments give the same bytes.

    ``grade``: 0 (no spot) to 4. ``seed``: of the eye; ``style_seed``: of what both eyes of a patient share: colour, light, course of
    the vessels. ``left``: the mirrored eye. Raises ValueError for another grade.
    """
    if grade not in range(GRADES):
        msg = f"grade is {grade!r}; it must be a whole number from 0 to {GRADES - 1}"
        raise ValueError(msg)
    style, rng = np.random.default_rng((style_seed, 11)), np.random.default_rng((seed, style_seed, 12))
    y, x = np.mgrid[:_SIZE, :_SIZE] - (_SIZE - 1) / 2
    photo = _RED * style.uniform(0.85, 1.15, 3) * np.ones((_SIZE, _SIZE, 1))
    photo *= 1.0 - style.uniform(0.1, 0.35) * ((x**2 + y**2) / (_SIZE / 2) ** 2)[..., None]
    disc = np.array([52.0 + style.normal(0, 3), style.normal(0, 5)])
    for course in style.uniform(0.5, 1.1, 4) * [1, -1, 0.6, -0.6]:
        _paint(photo, _vessel(x - disc[0], y - disc[1], course), _DARK, 0.75)
    _paint(photo, np.hypot(x - disc[0], y - disc[1]) < 15, _DISC, 0.9)
    count = max(0, _SPOTS[grade] + int(rng.integers(-2, 3))) if grade else 0
    for number in range(count):
        place = _place(rng, disc)
        radius = _RADII[grade] * rng.uniform(0.7, 1.4)
        spot = np.hypot(x - place[0], (y - place[1]) * rng.uniform(0.8, 1.25)) < radius
        _paint(photo, spot, _DARK if number % 2 else _BRIGHT, 0.9)
    photo = ndimage.gaussian_filter(photo, (0.8, 0.8, 0)) + rng.normal(0, style.uniform(2, 5), photo.shape)
    photo[np.hypot(x, y) > _SIZE / 2 - 4] = 0
    found = np.clip(photo, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(found[:, ::-1]) if left else found


def _paint(photo: np.ndarray, where: np.ndarray, color: np.ndarray, strength: float) -> None:
    photo[where] = photo[where] * (1 - strength) + color * strength


def _vessel(x: np.ndarray, y: np.ndarray, course: float) -> np.ndarray:
    """From the disc to the other side, thinner on the way."""
    along = np.clip(-x, 0, None)
    bend = course * 8.0 * np.sqrt(along)
    return (np.abs(y - bend) < np.clip(2.6 - 0.012 * along, 0.8, None)) & (x < 0)


def _place(rng: np.random.Generator, disc: np.ndarray) -> np.ndarray:
    """In the field, beside the disc."""
    while True:
        place = rng.uniform(-_SIZE / 2 + 20, _SIZE / 2 - 20, 2)
        if np.hypot(*place) < _SIZE / 2 - 20 and np.hypot(*(place - disc)) > 22:
            return place
