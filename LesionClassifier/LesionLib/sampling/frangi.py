"""Modified Frangi filter of Lesion Search (DeepLesion): blobs, vessels or contours of a patch, 2-D, over many scales.

Four readings of one paper, because its equation and its words disagree. With l1, l2 (|l1| <= |l2|) the eigenvalues of
sigma^2 times the Hessian at scale sigma, R_B = |l1| / |l2| and S = sqrt(l1^2 + l2^2), the answer is the maximum over all
scales of

- ``blob`` (our choice): (1 - exp(-R_B^2 / 2 beta^2)) (1 - exp(-S^2 / 2 gamma^2)), the objectness of dimension 0 (Antiga,
  Insight Journal 2007): high where a patch is curved alike in every direction, as in the middle of a lesion;
- ``vesselness``: exp(-R_B^2 / 2 beta^2) (1 - exp(-S^2 / 2 gamma^2)), the paper's equation 1 (Frangi et al., MICCAI 1998,
  equation 15), whose R_A factor is 1 in two dimensions: it *suppresses* blobs;
- ``contour``: the paper's words "the eigenvalues are made equal", taken literally: R_A = R_B = 1 leaves
  (1 - exp(-1 / 2 alpha^2)) exp(-1 / 2 beta^2) (1 - exp(-S^2 / 2 gamma^2)), by default .098 times the last factor;
- ``released``: what the paper's published code does, ``skimage.filters.frangi(patch, sigmas=(2, 3), beta=5, gamma=2e-8,
  black_ridges=True)``: nearly a mask (0, or above .98) of where a patch is curved upwards. Not scale-normalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, isfinite, sqrt
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from LesionLib.sampling.planes import FRANGI_MODES

MODES = FRANGI_MODES
POLARITIES = ("both", "bright", "dark")
SIGMAS = tuple(round(1.0 + 0.2 * step, 1) for step in range(41))
TRUNCATE = 8.0  # at the usual 4 a second derivative's weights miss 0 by 1e-3, and a white patch isn't empty

_PAPER = (SIGMAS, 0.6, 0.0444, "both")
_RELEASED = ((2.0, 3.0), 5.0, 2e-8, "dark")
_CHUNK = 1 << 18  # pixels x scales worked on at once: what stays in a CPU's cache
_GPU_CHUNK = 1 << 24
_BANK_BYTES = 32 << 20  # of the matrices of one axis; larger ones are made scale by scale and not kept
_LEAST_DOMINANT = 1e-10  # skimage's


class FrangiOptions(TypedDict, total=False):
    """The keyword arguments of `frangi`."""

    mode: str
    sigmas: Sequence[float] | None
    beta: float | None
    gamma: float | None
    alpha: float
    polarity: str | None
    saddles: bool


@dataclass(frozen=True)
class _Settings:
    mode: str
    sigmas: tuple[float, ...]
    beta: float
    gamma: float
    alpha: float
    polarity: str
    saddles: bool

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            msg = f"mode must be one of {', '.join(MODES)}, not {self.mode!r}"
            raise ValueError(msg)
        if self.polarity not in POLARITIES:
            msg = f"polarity must be one of {', '.join(POLARITIES)}, not {self.polarity!r}"
            raise ValueError(msg)
        if not self.sigmas or not all(isfinite(s) and s > 0 for s in self.sigmas):
            msg = f"sigmas must be one or more lengths in pixels above 0, not {self.sigmas}"
            raise ValueError(msg)
        if not all(isfinite(v) and v > 0 for v in (self.beta, self.gamma, self.alpha)):
            msg = f"beta, gamma and alpha must be above 0, not {self.beta}, {self.gamma} and {self.alpha}"
            raise ValueError(msg)
        if not self.saddles and self.mode != "blob":
            msg = f"saddles=False is for mode 'blob', not {self.mode!r}: leave it out"
            raise ValueError(msg)


@torch.no_grad()
def frangi(
    patches: Tensor,
    *,
    mode: str = "blob",
    sigmas: Sequence[float] | None = None,
    beta: float | None = None,
    gamma: float | None = None,
    alpha: float = 1.0,
    polarity: str | None = None,
    saddles: bool = True,
) -> Tensor:
    """The filtered patches, float32 in 0 … 1, of the shape given.

    ``patches``: (n, h, w) or (n, 1, h, w) with values in 0 … 1, on any device: gamma presumes that range, so HU are
    windowed first. ``mode``: see above. ``sigmas``: scales in pixels. None means the mode's own: sigmas 1, 1.2 … 9, beta .6,
    gamma .0444, both polarities; for ``released`` those of its call. ``alpha`` is used by ``contour`` alone. ``polarity``:
    "bright" keeps what is brighter than its surroundings (l2 < 0), "dark" what is darker; elsewhere the answer is 0.
    ``saddles=False``, for ``blob`` only, asks the smaller eigenvalue for the polarity's sign too, as ITK does: the plain
    measure also answers where a patch is curved up one way and down the other.

    Derivatives and borders are those of ``scipy.ndimage.gaussian_filter(order=…, mode="reflect", truncate=8)``;
    ``released`` derives twice by first order at sigma / sqrt(2), as skimage does, in float64, as its gamma needs. Agrees
    with scipy in float64 to 1e-5; less where a GPU is allowed TF32 products. Nothing is differentiated. Raises ValueError
    where patches or settings do not fit.
    """
    own_sigmas, own_beta, own_gamma, own_polarity = _RELEASED if mode == "released" else _PAPER
    settings = _Settings(
        mode,
        tuple(float(s) for s in (own_sigmas if sigmas is None else sigmas)),
        own_beta if beta is None else beta,
        own_gamma if gamma is None else gamma,
        alpha,
        own_polarity if polarity is None else polarity,
        saddles,
    )
    stack = _checked(patches)
    with torch.autocast(stack.device.type, enabled=False):
        return _filtered(stack, settings).reshape(patches.shape)


def frangi_input(patches: np.ndarray | Tensor, **options: Unpack[FrangiOptions]) -> Tensor:
    """Network input filtered: what `resample.windowed` gives, (n, window, row, column) in -1 … 1, in the same shape and range.

    Each window is filtered by itself. ``options``: those of `frangi`.
    """
    x = torch.as_tensor(patches)
    if x.ndim != 4 or not x.is_floating_point():
        msg = f"expected windowed patches (n, window, row, column) in -1 to 1, not {x.dtype} of shape {tuple(x.shape)}"
        raise ValueError(msg)
    found = frangi((x.flatten(0, 1) + 1.0) / 2.0, **options)
    return (found * 2.0 - 1.0).reshape(x.shape)


def _checked(patches: Tensor) -> Tensor:
    """The patches as (n, h, w)."""
    fits = patches.ndim == 3 or (patches.ndim == 4 and patches.shape[1] == 1)
    if not fits or not patches.is_floating_point() or not patches.numel():
        msg = f"expected patches (n, h, w) or (n, 1, h, w) in float32, not {patches.dtype} of shape {tuple(patches.shape)}"
        raise ValueError(msg)
    low, high = (float(v) for v in patches.aminmax())
    if not (low >= 0.0 and high <= 1.0):  # also where either is NaN
        msg = f"the patches' values go from {low:g} to {high:g}, expected 0 to 1; window the HU first, then scale to 0 to 1"
        raise ValueError(msg)
    return patches.reshape(-1, *patches.shape[-2:])


def _filtered(stack: Tensor, settings: _Settings) -> Tensor:
    best = None
    for mean, half in _eigenvalues(stack, settings):
        value = _released(mean, half, settings) if settings.mode == "released" else _response(mean, half, settings)
        value = value.amax(dim=0)
        best = value if best is None else torch.maximum(best, value, out=best)
    return best.permute(1, 0, 2).float().contiguous()


def _response(mean: Tensor, half: Tensor, settings: _Settings) -> Tensor:
    """(scale, h, n, w) of all modes but ``released``. ``half`` is written over.

    The eigenvalue of larger magnitude is |mean| + half with the sign of the mean, the other one has magnitude
    ||mean| - half|: nothing needs sorting.
    """
    size = mean.abs()
    structure = torch.addcmul(mean.square(), half, half).mul_(-1.0 / settings.gamma**2)  # -S^2 / 2 gamma^2
    structure = structure.expm1_().neg_()
    wrong = size < half if not settings.saddles else None
    if settings.mode == "contour":
        value = structure.mul_((1.0 - exp(-0.5 / settings.alpha**2)) * exp(-0.5 / settings.beta**2))
    else:
        ratio = (size - half).div_(half.add_(size).clamp_min_(1e-30)).square_().mul_(-0.5 / settings.beta**2)
        value = structure.mul_(ratio.exp_() if settings.mode == "vesselness" else ratio.expm1_().neg_())
    if settings.polarity != "both":
        value.masked_fill_(mean >= 0 if settings.polarity == "bright" else mean <= 0, 0.0)
    return value if wrong is None else value.masked_fill_(wrong, 0.0)


def _released(mean: Tensor, half: Tensor, settings: _Settings) -> Tensor:
    """(scale, h, n, w) of ``released``."""
    signs = {"both": (1, -1), "bright": (-1,), "dark": (1,)}[settings.polarity]
    return torch.stack([_as_skimage(sign * mean, half, settings) for sign in signs]).amax(dim=0)


def _as_skimage(mean: Tensor, half: Tensor, settings: _Settings) -> Tensor:
    """Dark ridges. A dominant eigenvalue of the wrong sign becomes 1e-10, and R_B so large that nothing is left."""
    size = mean.abs()
    dominant = torch.where(mean > 0, size + half, -1.0).clamp_min_(_LEAST_DOMINANT)
    ratio = ((size - half) / dominant).square_().mul_(-0.5 / settings.beta**2).exp_()
    structure = torch.addcmul(mean.square(), half, half).mul_(-1.0 / settings.gamma**2)  # -S^2 / 2 gamma^2
    return structure.expm1_().neg_().mul_(ratio)


def _eigenvalues(stack: Tensor, settings: _Settings) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean and half difference of the eigenvalues, each (scale, h, n, w), a few scales at a time."""
    n, h, w = stack.shape
    twice = settings.mode == "released"
    dtype = torch.float64 if twice else torch.float32
    # Derivatives do not see the middle grey, rounding does: without it a patch of one grey is exactly empty.
    low, high = stack.to(dtype).amin(dim=(1, 2), keepdim=True), stack.to(dtype).amax(dim=(1, 2), keepdim=True)
    side_by_side = (stack.to(dtype) - (low + high) / 2.0).permute(1, 0, 2).reshape(h, n * w)
    step = max(1, (_CHUNK if stack.device.type == "cpu" else _GPU_CHUNK) // stack.numel())
    for first in range(0, len(settings.sigmas), step):
        chosen = slice(first, first + step)
        rows = _matrices(h, settings.sigmas, chosen, "rows", twice=twice, like=side_by_side)
        columns = _matrices(w, settings.sigmas, chosen, "columns", twice=twice, like=side_by_side)
        scales = len(rows)
        half_done = (rows.flatten(0, 2) @ side_by_side).view(scales * 3, h * n, w)
        second = torch.bmm(half_done, columns.flatten(0, 1).mT).view(scales, 3, h, n, w)
        down, mixed, across = second.unbind(dim=1)
        yield down + across, torch.sub(down, across).square_().addcmul_(mixed, mixed).sqrt_()


def _matrices(length: int, sigmas: tuple[float, ...], chosen: slice, axis: str, *, twice: bool, like: Tensor) -> Tensor:
    """The chosen scales of `_bank`; kept for the next call where all scales together are small."""
    if len(sigmas) * 3 * length**2 * like.element_size() <= _BANK_BYTES:
        return _kept_bank(length, sigmas, axis, twice, like.device, like.dtype)[chosen]
    return _bank(length, sigmas[chosen], axis, twice, like.device, like.dtype)


def _bank(
    length: int, sigmas: tuple[float, ...], axis: str, twice: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(scale, 3, length, length): what to multiply an axis with for the second derivative down, mixed, and across.

    Scaled so that a product of a row and a column matrix is, in this order, sigma^2 I_yy / 2, sigma^2 I_xy and
    sigma^2 I_xx / 2, whose sum is the mean of the eigenvalues. With ``twice`` the first derivative is taken twice at
    sigma / sqrt(2), borders and all, and sigma^2 is left out.
    """
    banks = []
    for sigma in sigmas:
        if twice:
            smooth, slope = (_derivative(length, sigma / sqrt(2.0), order) for order in (0, 1))
            # skimage derives down first, then across: at a border the order of the two matters.
            zeroth, first, second = smooth @ smooth, smooth @ slope if axis == "rows" else slope @ smooth, slope @ slope
        else:
            zeroth, first, second = (sigma**order * _derivative(length, sigma, order) for order in range(3))
        matrices = [second / sqrt(2.0), first, zeroth / sqrt(2.0)]
        banks.append(np.stack(matrices if axis == "rows" else matrices[::-1]))
    return torch.from_numpy(np.stack(banks)).to(device=device, dtype=dtype)


_kept_bank = lru_cache(maxsize=8)(_bank)


def _derivative(length: int, sigma: float, order: int) -> np.ndarray:
    """(length, length), float64: what ``scipy.ndimage.gaussian_filter1d`` does to an axis, mode "reflect", as a matrix."""
    radius = int(TRUNCATE * sigma + 0.5)
    x = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    weights /= weights.sum()
    weights *= (np.ones_like(weights), x / sigma**2, x**2 / sigma**4 - 1.0 / sigma**2)[order]
    rows = np.arange(length)[:, None]
    reached = (rows + x) % (2 * length)
    reached = np.minimum(reached, 2 * length - 1 - reached)  # half-sample mirrors, as often as the kernel needs them
    cells = (rows * length + reached).ravel()
    return np.bincount(cells, np.tile(weights, length), minlength=length**2).reshape(length, length)
