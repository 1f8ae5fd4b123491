"""Four readings of the Frangi filter: what they say of known patches, and that they are what scipy and skimage compute."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from LesionLib.sampling import frangi as frangi_module
from LesionLib.sampling.frangi import MODES, SIGMAS, TRUNCATE, frangi, frangi_input
from LesionLib.sampling.resample import windowed
from scipy import ndimage
from torch import Tensor

OWN = ("blob", "vesselness", "contour")
SHAPES = [(64, 64), (33, 50), (7, 90), (1, 12)]
CONTRAST, BASE = 0.2, 0.5
CONTOUR = (1 - np.exp(-0.5)) * np.exp(-0.5 / 0.6**2)  # .098, what R_A = R_B = 1 leaves of the two factors


def smooth_picture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """In 0 … 1, float32."""
    patch = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    return ((patch - patch.min()) / np.ptp(patch)).astype(np.float32)


def of_one(patch: np.ndarray, **options: object) -> np.ndarray:
    """The filter's answer for one patch."""
    return frangi(torch.from_numpy(patch)[None], **options)[0].numpy()


def by_scipy(patch: np.ndarray, mode: str, polarity: str = "both", *, saddles: bool = True) -> np.ndarray:
    """The definition, word for word, in float64."""
    best = np.zeros(patch.shape)
    for sigma in SIGMAS:
        down, mixed, across = (
            sigma**2
            * ndimage.gaussian_filter(patch.astype(np.float64), sigma, order=order, mode="reflect", truncate=TRUNCATE)
            for order in ((2, 0), (1, 1), (0, 2))
        )
        values = np.linalg.eigvalsh(np.stack([down, mixed, mixed, across], axis=-1).reshape(*patch.shape, 2, 2))
        l1, l2 = np.moveaxis(np.take_along_axis(values, np.abs(values).argsort(axis=-1), axis=-1), -1, 0)
        alike = np.exp(-((np.abs(l1) / np.maximum(np.abs(l2), 1e-30)) ** 2) / (2 * 0.6**2))
        structure = 1 - np.exp(-(l1**2 + l2**2) / (2 * 0.0444**2))
        value = {"blob": 1 - alike, "vesselness": alike, "contour": CONTOUR}[mode] * structure
        keep = {"both": True, "bright": l2 < 0, "dark": l2 > 0}[polarity]
        best = np.maximum(best, np.where(keep & (saddles | (l1 * l2 > 0)), value, 0))
    return best


@pytest.mark.parametrize("polarity", ["both", "bright", "dark"])
@pytest.mark.parametrize("mode", OWN)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_what_scipy_s_gaussian_derivatives_give(shape, mode, polarity):
    for patch in (smooth_picture(shape), np.random.default_rng(1).random(shape, dtype=np.float32)):
        found = of_one(patch, mode=mode, polarity=polarity)
        reference = by_scipy(patch, mode, polarity)
        assert reference.max() > 1e-3 or shape == (1, 12)
        np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("polarity", ["both", "bright", "dark"])
def test_without_saddles_both_eigenvalues_must_have_the_polarity_s_sign(polarity):
    patch = smooth_picture((40, 40))
    found = of_one(patch, polarity=polarity, saddles=False)
    np.testing.assert_allclose(found, by_scipy(patch, "blob", polarity, saddles=False), rtol=0, atol=1e-5)
    assert np.mean(of_one(patch, polarity=polarity) - found > 0.1) > 0.1


@pytest.mark.parametrize("sigma", [5.0, 7.0])
def test_without_saddles_a_blob_is_itk_s_objectness_of_dimension_0(sigma):
    # ITK takes differences of the smoothed patch instead of derivatives of a Gaussian; the larger sigma, the less it matters.
    patch = smooth_picture((64, 64))
    smooth = sigma**2 * ndimage.gaussian_filter(patch.astype(np.float64), sigma, mode="reflect", truncate=TRUNCATE)
    reference = sitk.ObjectnessMeasure(
        sitk.GetImageFromArray(smooth), alpha=0.6, beta=0.5, gamma=0.0444, scaleObjectnessMeasure=False,
        objectDimension=0, brightObject=True,
    )  # fmt: skip
    found = of_one(patch, sigmas=[sigma], polarity="bright", saddles=False)
    assert found.max() > 0.05
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(reference), atol=0.01)


def known_pictures() -> dict[str, np.ndarray]:
    """64 x 64 pixels, .2 above a grey of .5: a disc of radius 6, a line of width 5, and half of the patch."""
    row, column = np.mgrid[:64, :64] - 32
    shapes = {"disc": row**2 + column**2 <= 36, "line": np.abs(column) <= 2, "edge": column >= 0}
    return {name: (BASE + CONTRAST * inside).astype(np.float32) for name, inside in shapes.items()}


# The disc and the line at their centre. An edge answers on both sides of its step, most strongly in the second pixel from
# it (1.5 pixels off, at sigma 1.4); in the pixels that touch the step it is .332, and between them it is 0.
CENTRE = {"disc": (32, 32), "line": (32, 32), "edge": (32, 33)}
KNOWN = {
    "vesselness": {"disc": 0.233, "line": 0.912, "edge": 0.471},
    "blob": {"disc": 0.702, "line": 0.0, "edge": 0.0},
    "contour": {"disc": CONTOUR * 0.935, "line": CONTOUR * 0.912, "edge": CONTOUR * 0.471},
}


@pytest.mark.parametrize("name", ["disc", "line", "edge"])
@pytest.mark.parametrize("mode", OWN)
@pytest.mark.parametrize("sign", [1, -1])
def test_discs_lines_and_edges_score_as_the_specification_says(mode, name, sign):
    patch = known_pictures()[name]
    patch, tolerance = patch if sign > 0 else 1 - patch, 0.001 * (CONTOUR if mode == "contour" else 1)
    assert of_one(patch, mode=mode)[CENTRE[name]] == pytest.approx(KNOWN[mode][name], abs=tolerance)
    opposite = of_one(patch, mode=mode, polarity="dark" if sign > 0 else "bright")
    assert opposite[CENTRE[name]] == pytest.approx(0, abs=1e-5)


def test_an_edge_answers_most_beside_its_step():
    found = of_one(known_pictures()["edge"], mode="vesselness")[32]
    assert found.argmax() in (30, 33)
    np.testing.assert_allclose(found[30:34], [0.471, 0.332, 0.332, 0.471], atol=0.001)


def test_contour_is_the_sum_of_the_other_two_at_one_scale_but_for_its_constant():
    patch = smooth_picture((32, 32))
    blob, vessel, contour = (of_one(patch, mode=mode, sigmas=[2.0]) for mode in OWN)
    np.testing.assert_allclose((blob + vessel) * CONTOUR, contour, atol=1e-6)


def released_example() -> np.ndarray:
    """In 0 … 1, float64, the same everywhere."""
    row, column = np.mgrid[:9, :12].astype(np.float64)
    return 0.5 + 0.25 * np.sin(0.9 * row + 0.3 * column) + 0.25 * np.cos(1.1 * column - 0.05 * row**2)


# Measured with scikit-image 0.26.0 on `released_example`: one row each of its `frangi`.
SKIMAGE_ROWS = [
    (
        {},  # sigmas=(2, 3), beta=5, gamma=2e-8, black_ridges=True
        4,
        [0.999996, 0.999997, 0.999959, 0.999873, 0.999952, 0.99988, 0.998659, 0.996869, 0.997243, 0.999951, 0.998991,
         0.998653],
    ),
    (
        {"sigmas": (1, 3), "beta": 0.5, "gamma": 0.02},
        4,
        [0.10352, 0.130832, 0.895512, 0.208814, 0.220111, 0.98176, 0.098075, 0.053081, 0.816926, 0.999829, 0.50082,
         0.000776],
    ),
    (
        {"sigmas": (1, 3), "beta": 0.5, "gamma": 0.02, "polarity": "bright"},
        0,
        [0.874373, 0.895481, 0, 0, 0.192744, 0.846981, 0.90644, 0.529809, 0, 0, 0, 0.532023],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "row", "expected"), SKIMAGE_ROWS)
def test_released_gives_the_numbers_that_were_measured_with_skimage(options, row, expected):
    np.testing.assert_allclose(of_one(released_example(), mode="released", **options)[row], expected, atol=2e-6)


@pytest.mark.parametrize("shape", [*SHAPES[:3], (64, 47)])
def test_released_equals_skimage_s_call(shape):
    filters = pytest.importorskip("skimage.filters")
    for patch in (smooth_picture(shape), np.pad(smooth_picture((5, 5)), [(1, n - 6) for n in shape])):
        expected = filters.frangi(patch.astype(np.float64), sigmas=(2, 3), beta=5, gamma=2e-8, black_ridges=True)
        np.testing.assert_allclose(of_one(patch, mode="released"), expected, rtol=0, atol=1e-6)
        settings = {"sigmas": (0.8, 2.5), "beta": 0.7, "gamma": 0.03}
        expected = filters.frangi(patch.astype(np.float64), black_ridges=False, **settings)
        found = of_one(patch, mode="released", polarity="bright", **settings)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_released_is_nearly_a_mask():
    patch = smooth_picture((64, 64))
    bright, found, both = (of_one(patch, mode="released", polarity=p) for p in ("bright", None, "both"))
    np.testing.assert_array_equal(np.maximum(bright, found), both)
    assert (both > found).any()
    assert np.mean((found < 0.05) | (found > 0.95)) > 0.98
    assert 0.3 < found.mean() < 0.7


PICTURES = arrays(
    np.float32, st.tuples(st.integers(2, 24), st.integers(2, 24)), elements=st.floats(0, 1, width=16)
).map(lambda patch: torch.from_numpy(patch)[None])
few = settings(max_examples=15, deadline=None)


@few
@given(PICTURES, st.sampled_from(MODES))
def test_the_answer_lies_between_0_and_1_and_is_finite(patch, mode):
    found = frangi(patch, mode=mode)
    assert (found.dtype, found.shape) == (torch.float32, patch.shape)
    assert 0 <= found.min() <= found.max() <= 1


@few
@given(PICTURES, st.sampled_from(OWN))
def test_turning_the_picture_turns_the_answer(patch, mode):
    turned = frangi(patch.rot90(1, (1, 2)), mode=mode)
    torch.testing.assert_close(turned, frangi(patch, mode=mode).rot90(1, (1, 2)), rtol=0, atol=1e-5)


@few
@given(st.integers(0, 999), st.sampled_from(OWN))
def test_inverting_the_contrast_swaps_the_polarities(seed, mode):
    patch = torch.from_numpy(smooth_picture((20, 26), seed))[None]  # no l1 = -l2, where a rounding decides the polarity
    bright, dark, both = (frangi(patch, mode=mode, polarity=p) for p in ("bright", "dark", "both"))
    torch.testing.assert_close(frangi(1 - patch, mode=mode, polarity="dark"), bright, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.maximum(bright, dark), both, rtol=0, atol=0)
    assert (bright - dark).abs().max() > 0.3 * both.max()


@few
@given(st.floats(0, 1, width=32), st.sampled_from(MODES))
def test_a_picture_of_one_grey_gives_exactly_0(grey, mode):
    assert frangi(torch.full((1, 9, 14), grey), mode=mode).max() == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_s_answer_does_not_depend_on_the_others_nor_on_its_shape_s_form(mode):
    patches = torch.from_numpy(np.stack([smooth_picture((20, 31), seed) for seed in range(5)]))
    together = frangi(patches[:, None], mode=mode)
    assert together.shape == (5, 1, 20, 31)
    alone = torch.cat([frangi(patch[None], mode=mode) for patch in patches])
    torch.testing.assert_close(together[:, 0], alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mode", ["blob", "released"])
def test_scale_by_scale_without_kept_matrices_the_answer_is_the_same(mode, monkeypatch):
    patch = smooth_picture((40, 30))
    usual = of_one(patch, mode=mode)
    monkeypatch.setattr(frangi_module, "_CHUNK", 1)
    monkeypatch.setattr(frangi_module, "_BANK_BYTES", 0)
    np.testing.assert_allclose(of_one(patch, mode=mode), usual, atol=2e-6)


def test_the_matrices_are_made_once_and_only_so_many_are_kept():
    kept = frangi_module._kept_bank
    kept.cache_clear()
    _ = [frangi(torch.rand(2, 16, 18)) for _ in range(3)]
    assert (kept.cache_info().misses, kept.cache_info().hits) == (2, 4)
    for size in range(10, 22):
        frangi(torch.rand(1, size, size), sigmas=[2.0])
    assert kept.cache_info().currsize == kept.cache_info().maxsize <= 8


def test_autocast_does_not_coarsen_it():
    patch = torch.from_numpy(smooth_picture((24, 24)))[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = frangi(patch)
    torch.testing.assert_close(found, frangi(patch), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", MODES)
def test_a_gpu_gives_the_same(mode):
    patches = torch.from_numpy(np.stack([smooth_picture((64, 50), seed) for seed in range(3)]))
    torch.testing.assert_close(frangi(patches.cuda(), mode=mode).cpu(), frangi(patches, mode=mode), rtol=0, atol=1e-5)


def test_network_input_is_filtered_window_by_window_and_stays_between_minus_1_and_1():
    row, column = np.mgrid[:48, :48] - 24
    hu = np.where(row**2 + column**2 <= 36, 80.0, 0.0)[None].astype(np.float32)  # .2 of the first window's 400 HU
    patches = windowed(hu, ((-160.0, 240.0), (100.0, 1000.0)))
    found = frangi_input(patches, mode="blob")
    assert found.shape == patches.shape
    assert float(found[0, 0, 24, 24]) == pytest.approx(2 * 0.702 - 1, abs=0.002)
    assert (found[0, 1] == -1).all()  # nothing of the disc is seen in the second window
    torch.testing.assert_close(frangi_input(torch.from_numpy(patches)), found)


@pytest.mark.parametrize(
    ("patches", "options", "said"),
    [
        (torch.full((1, 8, 8), 1.5), {}, "from 1.5 to 1.5, expected 0 to 1; window the HU"),
        (torch.full((1, 8, 8), -900.0), {}, "window the HU"),
        (torch.full((1, 8, 8), float("nan")), {}, "window the HU"),
        (torch.zeros(8, 8), {}, r"\(n, h, w\)"),
        (torch.zeros(1, 3, 8, 8), {}, r"\(n, h, w\)"),
        (torch.zeros(0, 8, 8), {}, r"\(n, h, w\)"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), {}, "uint8"),
        (torch.zeros(1, 8, 8), {"mode": "tubes"}, "blob, vesselness, contour, released, not 'tubes'"),
        (torch.zeros(1, 8, 8), {"polarity": "grey"}, "polarity must be one of"),
        (torch.zeros(1, 8, 8), {"sigmas": []}, "sigmas"),
        (torch.zeros(1, 8, 8), {"sigmas": [1.0, 0.0]}, "sigmas"),
        (torch.zeros(1, 8, 8), {"gamma": 0.0}, "gamma"),
        (torch.zeros(1, 8, 8), {"mode": "contour", "saddles": False}, "saddles"),
    ],
)
def test_what_does_not_fit_is_refused_in_plain_words(patches: Tensor, options, said):
    with pytest.raises(ValueError, match=said):
        frangi(patches, **options)


def test_network_input_that_was_not_windowed_is_refused():
    with pytest.raises(ValueError, match="window the HU"):
        frangi_input(np.full((1, 1, 8, 8), 40.0, np.float32))
    with pytest.raises(ValueError, match="n, window, row, column"):
        frangi_input(np.zeros((1, 8, 8), np.float32))
