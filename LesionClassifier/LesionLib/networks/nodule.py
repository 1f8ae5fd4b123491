"""Lesions in a cube, read by a published picture network at several depths and planes, with a linear head.

The input is an isotropic cube with two channels: HU in one window, and the share of each voxel that lies inside the box
(`LesionLib.sampling.volumes.IsotropicCubeSpec` with ``box_channel``). Three axial planes, one coronal and one sagittal pass
through MobileNetV2 (Sandler et al., CVPR 2018; without its last convolution). After blocks 3, 6, 13 and 17 its maps are
averaged over the lesion, over the box and over the plane. Where the lesion is in its box is found from the HU themselves: a
soft threshold inside the box's ellipsoid, connected to its middle, so that a box drawn larger changes little. Numbers of that
lesion (volume, extent, distribution of HU, rim) and the edges of the box stand beside the averages. All is frozen and
computed in closed form; only the linear layers on top are fitted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from LesionLib.networks.base import LesionNet
from LesionLib.networks.mobilenet_v2 import MobileNetV2

_DEPTHS = {3: 24, 6: 32, 13: 96, 17: 320}  # block -> channels at full width
_CELLS = 14  # of the map, along each axis
_PICTURE = 112  # pixels of a plane, along each axis
_AXIAL, _ACROSS = 3, 2  # planes: axial; coronal and sagittal
_ORIENTATIONS = 3
_WINDOWS_HU = ((-1000.0, 400.0), (-160.0, 240.0), (100.0, 1000.0))
_LUNG_HU = -850.0
_THRESHOLD_HU = (-780.0, -250.0)
_THRESHOLD_PART = 0.3  # of the way from lung to the lesion's core
_SOFT_HU = 40.0
_DILATIONS = 24  # of 1/42 of the cube each: what is connected to the middle of a lesion
_LEVELS_HU = (-850.0, -700.0, -550.0, -400.0, -250.0, -100.0, 0.0, 50.0, 100.0, 200.0, 300.0, 450.0, 650.0, 900.0)
_LEVEL_SOFT_HU = 25.0
_EPS = 1e-4


class NoduleNet(LesionNet):
    """``classes`` logits and ``scores`` numbers from one cube; descriptor: ``space`` numbers, a linear map of what is seen.

    With neither classes nor scores it only compares lesions. ``likeness``: numbers of another linear map, by which lesions unlike
    those of the training are told where the descriptor is too short for that; 0: by the descriptor.

    ``edge_mm``: of the cube; ``low_hu``, ``high_hu``: its window. A map shows, on 14 x 14 x 14 places, what each place adds to
    each average, spread along the normal of its plane within the box; its sum over the places is what the head multiplies.
    All is told as the difference from ``center``, the average lesion, so that a map shows what sets a lesion apart.

    `features` holds the maps of the planes before they are spread, a fifth of the numbers: (batch, number + 1, 3, 14, 14), in the
    axial, the coronal or the sagittal plane, and 0 in the others. Behind the channels that belong to places, see
    `mapped_channels`, come the numbers that belong to none, and last how much of the box lies in each cell along z, y and
    x, by which `weighted_map` spreads them.
    """

    def __init__(
        self,
        *,
        classes: int = 2,
        scores: int = 0,
        space: int = 32,
        likeness: int = 0,
        edge_mm: float = 42.0,
        low_hu: float = -1000.0,
        high_hu: float = 1600.0,
    ) -> None:
        super().__init__()
        if min(classes, scores, likeness) < 0 or space < 1 or not (edge_mm > 0 and high_hu > low_hu):
            msg = f"space must be at least 1, edge_mm and the window above 0; not {space}, {edge_mm} and {low_hu} to {high_hu}"
            raise ValueError(msg)
        self.classes, self.scores, self.edge_mm = classes, scores, edge_mm
        self.window_hu = (low_hu, high_hu)
        self.features_ = MobileNetV2(stem_stride=2, output_stride=16).features_[: max(_DEPTHS) + 1]
        self.requires_grad_(requires_grad=False)
        self.register_buffer("center", torch.zeros(self.numbers))
        self.projection = nn.Linear(self.numbers, space)
        self.likeness = nn.Linear(self.numbers, likeness) if likeness else None
        self.classifier = nn.Linear(self.numbers, classes + scores) if classes + scores else None

    mapped_channels = 2 * 3 * sum(_DEPTHS.values())
    costly = "depth_maps"

    @property
    def numbers(self) -> int:
        """How many numbers are seen of a lesion."""
        return self.mapped_channels + len(MEASURES)

    def seen(self, x: Tensor) -> Tensor:
        """All that the linear layers multiply, (batch, number): the sum of `features` over the places."""
        hu, box, _, edges, lesion = self._parts(x)
        averages = [(maps * weights).sum(dim=(2, 3)) for maps, weights in self._weighted(hu, box, lesion, edges)]
        measured = _measures(hu, lesion, edges, self.edge_mm)
        return torch.cat([*(_grouped(a).flatten(1) for a in averages), measured], dim=1) - self.center

    def features(self, x: Tensor) -> Tensor:
        """(batch, 2, voxel, voxel, voxel) -> (batch, number + 1, 3, 14, 14)."""
        hu, box, shadows, edges, lesion = self._parts(x)
        f, start = x.new_zeros(len(x), self.numbers + 1, _ORIENTATIONS, _CELLS, _CELLS), 0
        for maps, weights in self._weighted(hu, box, lesion, edges):
            channels = maps.shape[1]
            center = self.center[start : start + 2 * channels].view(2, -1)
            of_planes = center[[0] * _AXIAL + [1] * _ACROSS].repeat(len(x), 1)
            cells = _shrunk((maps - of_planes[:, :, None, None]) * weights).unflatten(0, (-1, _AXIAL + _ACROSS))
            f[:, start : start + channels, 0] = cells[:, :_AXIAL].mean(dim=1)
            f[:, start + channels : start + 2 * channels, 1:] = cells[:, _AXIAL:].transpose(1, 2) / _ACROSS
            start += 2 * channels
        f[:, start:-1, 0, 0, 0] = _measures(hu, lesion, edges, self.edge_mm) - self.center[start:]
        f[:, -1, 0, :_ORIENTATIONS] = torch.stack(_profiles(shadows)[::-1], dim=1)
        return f

    def weighted_map(self, f: Tensor, weights: Tensor) -> Tensor:
        """(batch, 14, 14, 14): the sums of each plane, spread along its normal within the box."""
        z, y, x = f[:, -1, 0, :_ORIENTATIONS].unbind(dim=1)
        axial, coronal, sagittal = super().weighted_map(f, weights).unbind(dim=1)
        found = axial[:, None] * z[:, :, None, None]
        found += coronal[:, :, None] * y[:, None, :, None]
        return found.addcmul_(sagittal[..., None], x[:, None, None])

    def depth_maps(self, planes: Tensor) -> tuple[Tensor, ...]:
        """(batch * plane, 3, 112, 112) -> the maps after blocks 3, 6, 13 and 17: (batch * plane, channel, h, w) each."""
        h, found = planes, []
        for index, block in enumerate(self.features_):
            h = block(h)
            if index in _DEPTHS:
                found.append(h)
        return tuple(found)

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class), then the scores; the descriptor where it only compares."""
        seen = _added_up(f)
        return self.projection(seen) if self.classifier is None else self.classifier(seen)

    def descriptor(self, f: Tensor) -> Tensor:
        """(batch, space)."""
        return self.projection(_added_up(f))

    def training_likeness(self, f: Tensor, descriptor: Tensor) -> Tensor:
        """(batch, ``likeness``), or the descriptor."""
        return descriptor if self.likeness is None else self.likeness(_added_up(f))

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Of the classes alone; the scores are no logits."""
        return super().probabilities(logits[:, : self.classes], temperature)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, _Shadows, Tensor, Tensor]:
        """HU and share inside the box, (batch, voxel, voxel, voxel), the box along the axes, its edges, and the lesion on half
        as many voxels.
        """
        low, high = self.window_hu
        # With channels last, a channel lies scattered: put together once, all that reads it is several times as fast.
        hu, box = (x[:, 0] + 1.0) * ((high - low) / 2.0) + low, x[:, 1].contiguous()
        shadows = _shadows(box)  # once: they read the whole cube
        edges = _edges(shadows)
        return hu, box, shadows, edges, lesion_map(hu, edges)

    def _weighted(self, hu: Tensor, box: Tensor, lesion: Tensor, edges: Tensor):
        """For each depth and region: maps (batch * plane, channel, h, w), and weights that add up to 1 in each plane."""
        planes, in_box, in_lesion = (_planes(part, edges) for part in (hu, box, lesion))
        seen = torch.stack([((planes - a) * (2.0 / (b - a)) - 1.0).clamp(-1.0, 1.0) for a, b in _WINDOWS_HU], dim=1)
        for maps in self.depth_maps(seen.contiguous(memory_format=torch.channels_last)):
            for region in (in_lesion, in_box, torch.ones_like(in_box)):
                weights = functional.adaptive_avg_pool2d(region[:, None], maps.shape[2:]) + _EPS
                yield maps, weights / weights.sum(dim=(2, 3), keepdim=True)


MEASURES = (
    "volume", *(f"extent_{axis}" for axis in "xyz"), *(f"above_{level:g}_hu" for level in _LEVELS_HU),
    "mean_hu", "sd_hu", "rim_hu", "core_hu", *(f"box_{axis}" for axis in "xyz"),
)  # fmt: skip


def box_edges(box: Tensor) -> Tensor:
    """Edges of the box along x, y and z as shares of the cube's edge, (batch, 3), from its share of each voxel."""
    return _edges(_shadows(box))


_Shadows = tuple[Tensor, Tensor, Tensor]


def _edges(shadows: _Shadows) -> Tensor:
    return torch.stack([(a / a.amax(dim=1, keepdim=True).clamp_min(_EPS)).mean(dim=1) for a in shadows], dim=1)


def _shadows(box: Tensor) -> _Shadows:
    """The largest value along x, y and z, (batch, voxel) each; one axis after the other, which is many times faster."""
    from_below = box.amax(dim=1)
    return from_below.amax(dim=1), from_below.amax(dim=2), box.amax(dim=3).amax(dim=2)


def lesion_map(hu: Tensor, edges: Tensor) -> Tensor:
    """How much each place belongs to the lesion, 0 to 1, on half as many voxels a side: (batch, slice, row, column).

    ``edges``: of the box, as `box_edges` measures them.
    """
    coarse = _halved(hu)
    half = (edges / 2.0).clamp_min(1.5 / coarse.shape[-1])
    x, y, z = (_positions(coarse)[None] / half[:, axis : axis + 1] for axis in range(3))
    radius = (z[:, :, None, None] ** 2 + y[:, None, :, None] ** 2 + x[:, None, None, :] ** 2).sqrt()
    core = torch.sigmoid((0.55 - radius) / 0.05)
    mean, sd = _moments(coarse, core)
    threshold = (_LUNG_HU + _THRESHOLD_PART * (mean + 0.8 * sd - _LUNG_HU)).clamp(*_THRESHOLD_HU)
    inside = torch.sigmoid((1.06 - radius) / 0.03)
    lesion = torch.sigmoid((coarse - threshold[:, None, None, None]) / _SOFT_HU) * inside
    reached = lesion * core
    for _ in range(_DILATIONS):
        reached = torch.minimum(_dilated(reached), lesion)
    return reached + 0.02 * core * inside  # never nothing


def _positions(cube: Tensor) -> Tensor:
    """Of the voxels along an axis, from the middle, as shares of the cube's edge."""
    n = cube.shape[-1]
    return (torch.arange(n, device=cube.device, dtype=cube.dtype) - (n - 1) / 2) / n


def _halved(cube: Tensor) -> Tensor:
    return functional.avg_pool3d(cube[:, None], 2)[:, 0]


def _dilated(cube: Tensor) -> Tensor:
    """The largest value of each voxel and its neighbours; by shifts, which are many times faster than pooling."""
    for axis in (1, 2, 3):
        before, after = cube.narrow(axis, 0, cube.shape[axis] - 1), cube.narrow(axis, 1, cube.shape[axis] - 1)
        pairs = torch.maximum(before, after)
        first, last = cube.narrow(axis, 0, 1), cube.narrow(axis, cube.shape[axis] - 1, 1)
        cube = torch.maximum(torch.cat([first, pairs], dim=axis), torch.cat([pairs, last], dim=axis))
    return cube


def _moments(hu: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation, (batch,) each."""
    total = weights.sum(dim=(1, 2, 3)).clamp_min(_EPS)
    mean = (weights * hu).sum(dim=(1, 2, 3)) / total
    variance = (weights * (hu - mean[:, None, None, None]) ** 2).sum(dim=(1, 2, 3)) / total
    return mean, variance.sqrt()


def _measures(hu: Tensor, lesion: Tensor, edges: Tensor, edge_mm: float) -> Tensor:
    """`MEASURES`, (batch, number): logarithms of lengths in mm and volumes in mm3, shares, HU / 300."""
    coarse = _halved(hu)
    total = lesion.sum(dim=(1, 2, 3)).clamp_min(_EPS)
    voxel_mm = edge_mm / coarse.shape[-1]
    place = _positions(coarse) * edge_mm
    extents = []
    for others in ((1, 2), (1, 3), (2, 3)):
        along = lesion.sum(dim=others) / total[:, None]
        middle = (along * place).sum(dim=1, keepdim=True)
        extents.append(((along * (place - middle) ** 2).sum(dim=1) + 0.05).log() / 2.0)
    above = [
        (lesion * torch.sigmoid((coarse - level) / _LEVEL_SOFT_HU)).sum(dim=(1, 2, 3)) / total for level in _LEVELS_HU
    ]
    mean, sd = _moments(coarse, lesion)
    around = (_dilated(lesion) - lesion).clamp_min(0.0)
    rim, _ = _moments(coarse, around)
    weight = lesion**4 * (coarse.clamp(-1000.0, 1500.0) / 200.0).exp()
    densest = (weight * coarse).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(_EPS)
    lengths = (edges * edge_mm).clamp_min(0.5).log()
    numbers = [(total * voxel_mm**3).log(), *extents, *above, mean / 300.0, sd / 300.0, rim / 300.0, densest / 300.0]
    return torch.cat([torch.stack(numbers, dim=1), lengths], dim=1)


def _planes(cube: Tensor, edges: Tensor) -> Tensor:
    """Three axial planes a fifth of the box apart, the coronal and the sagittal middle plane: (batch * plane, 112, 112)."""
    n = cube.shape[-1]
    fifth = edges[:, 2] / 5.0
    depths = torch.stack([-fifth, torch.zeros_like(fifth), fifth], dim=1)
    weights = (1.0 - (_positions(cube)[None, None] - depths[:, :, None]).abs() * n).clamp_min(0.0)
    axial = torch.einsum("bps,bsyx->bpyx", weights, cube)
    middle = slice((n - 1) // 2, n // 2 + 1)
    coronal, sagittal = cube[:, :, middle].mean(dim=2), cube[:, :, :, middle].mean(dim=3)
    planes = torch.cat([axial, coronal[:, None], sagittal[:, None]], dim=1).flatten(0, 1)
    size = (_PICTURE, _PICTURE)
    return functional.interpolate(planes[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _grouped(averages: Tensor) -> Tensor:
    """(batch * plane, channel) -> (batch, 2, channel): the mean of the axial planes, and of the other two."""
    of_lesion = averages.unflatten(0, (-1, _AXIAL + _ACROSS))
    return torch.stack([of_lesion[:, :_AXIAL].mean(dim=1), of_lesion[:, _AXIAL:].mean(dim=1)], dim=1)


def _shrunk(maps: Tensor) -> Tensor:
    """(batch * plane, channel, h, w) -> the same sums on 14 x 14 cells."""
    size = (_CELLS, _CELLS)
    if maps.shape[-1] < _CELLS:
        return functional.interpolate(maps, size=size, mode="nearest") * (maps.shape[-1] / _CELLS) ** 2
    return functional.adaptive_avg_pool2d(maps, size) * (maps.shape[-1] / _CELLS) ** 2


def _profiles(shadows: _Shadows) -> tuple[Tensor, Tensor, Tensor]:
    """How much of the box lies in each cell along x, y and z, (batch, 14) each, adding up to 1."""
    found = []
    for shadow in shadows:
        along = functional.adaptive_avg_pool1d(shadow[:, None], _CELLS)[:, 0] + _EPS
        found.append(along / along.sum(dim=1, keepdim=True))
    return tuple(found)


def _added_up(f: Tensor) -> Tensor:
    """All that is seen, (batch, number), from a map."""
    return f[:, :-1].sum(dim=(2, 3, 4))
