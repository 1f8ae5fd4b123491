"""Where the voxels of a lesion are: a CT, some slices, a stored cube or a photograph, each read only when it is needed.

A source is a small frozen record that travels to worker processes. Those that are CTs have ``lesion()``, the others
``array()``. ``files()`` are what it depends on, ``group`` is what several lesions share and is read once for all.

A table says where in a CT a lesion is by a box in millimetres or in voxels (`LesionLib.io.boxes`), to become a `LesionBox` of its
volume.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from LesionLib.errors import BoxError, VolumeError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.io.boxes import BoxLocation, boxes_from_label_array
from LesionLib.io.image_files import looks_like_dicom
from LesionLib.io.segmentations import lattice_problem, read_label_map
from LesionLib.io.volumes import read_ct
from LesionLib.sampling.volumes import mask_on_lattice
from PIL import Image, UnidentifiedImageError

TRAINING_MARGIN_MM = 0.0  # models learn from the tight boxes of masks; their manifests say so
_AIR_HU = -1000
DEEPLESION_ZERO = 32768  # what a DeepLesion pixel of 0 HU holds
_MAX_PHOTOGRAPH = 200_000_000  # pixels


@dataclass(frozen=True)
class VolumeSource:
    """A lesion in a CT file or DICOM folder: by its box, its mask, or both (then the mask is the box's segment).

    ``mask_value``: the label of the lesion in the mask file; None takes all that is above 0. ``organ``: a label map of the
    organ, on any lattice; what lies outside it is -1000 HU when the CT is read.
    """

    volume: Path
    location: BoxLocation | None = None
    mask: Path | None = None
    mask_value: int | None = None
    series: str | None = None
    organ: Path | None = None

    @property
    def group(self) -> tuple[str, str]:
        """Lesions of one CT are cut together."""
        return (str(self.volume), f"{self.series or ''} {self.organ or ''}".strip())

    def files(self) -> tuple[Path, ...]:
        """The CT and the masks."""
        return tuple(path for path in (self.volume, self.mask, self.organ) if path is not None)

    def read(self) -> CTVolume:
        """The CT, of the organ alone where its mask is given. Raises `VolumeError`."""
        volume = read_ct(self.volume, series=self.series if os.path.isdir(self.volume) else None)
        return volume if self.organ is None else _organ_alone(volume, self.organ)

    def lesion(self, volume: CTVolume, *, name: str, margin_mm: float = TRAINING_MARGIN_MM) -> LesionBox:
        """The box with its segment where there is a mask. Raises `BoxError`, `VolumeError`.

        ``margin_mm``: how far the box reaches beyond a mask; another one only for a model that says so in its manifest.
        """
        around_mask = None if self.mask is None else mask_box(self.mask, self.mask_value, name=name, volume=volume)
        if self.location is None:
            return around_mask.grown(margin_mm)
        box = self.location.box(volume.ijkToRAS, name=name)
        return box if around_mask is None else replace(box, segment=around_mask.segment)


@dataclass(frozen=True)
class SlicesSource:
    """A lesion on a key slice of a folder of 16-bit PNG slices, as DeepLesion has them (HU = value - 32768).

    ``pixels``: the box (left, top, right, bottom) in pixels; ``spacing_mm``: of columns, rows and slices;
    ``neighbours``: how many slices on either side are read, as far as they follow without a gap.
    """

    folder: Path
    key: int
    pixels: tuple[float, float, float, float]
    spacing_mm: tuple[float, float, float]
    neighbours: int = 1

    @property
    def group(self) -> tuple[str, str]:
        """Lesions of one key slice are cut together."""
        return (str(self.folder), str(self.key))

    def files(self) -> tuple[Path, ...]:
        """The slices that exist, in order; the key slice also where it is missing."""
        found = [self.path(self.key)]
        for step in (-1, 1):
            for distance in range(1, self.neighbours + 1):
                path = self.path(self.key + step * distance)
                if not os.path.isfile(path):
                    break
                found.append(path)
        return tuple(sorted(found))

    def path(self, index: int) -> Path:
        """Where the slice ``index`` is."""
        return self.folder / f"{index:03d}.png"

    def read(self) -> CTVolume:
        """The slices as a CT; column towards L, row towards P, slice towards the feet. Raises `VolumeError`."""
        files = self.files()
        array = np.stack([read_slice(path) for path in files])
        x, y, z = self.spacing_mm
        matrix = np.diag([-x, -y, -z, 1.0])
        matrix[2, 3] = -z * int(files[0].stem)
        return CTVolume(array, matrix, name=f"{self.folder.name}/{self.key:03d}")

    def lesion(self, volume: CTVolume, *, name: str, margin_mm: float = TRAINING_MARGIN_MM) -> LesionBox:
        """The box on its key slice, one slice thick: DeepLesion says nothing of a lesion's depth. There is no mask."""
        left, top, right, bottom = self.pixels
        x, y, z = self.spacing_mm
        center = [-x * (left + right) / 2, -y * (top + bottom) / 2, -z * self.key]
        return LesionBox(center, [x * (right - left), y * (bottom - top), z], np.diag([-1.0, -1.0, 1.0]), name=name)


@dataclass(frozen=True)
class StoredCube:
    """One cube of a MedMNIST-3D archive, ``array[index]``; ``edge_mm`` NaN where the set does not say it.

    ``centred``: the shape is moved until the middle of its box is that of the cube. ``is_xyz``: the archive counts along x, y, z, and
    the cube is turned into (slice, row, column).
    """

    archive: Path
    key: str
    index: int
    is_mask: bool
    edge_mm: float
    centred: bool = False
    is_xyz: bool = False

    @property
    def group(self) -> tuple[str, str]:
        """Cubes of one array are read together: an archive cannot be entered in the middle."""
        return (str(self.archive), self.key)

    def files(self) -> tuple[Path, ...]:
        """The archive."""
        return (self.archive,)

    def read(self) -> np.ndarray:
        """The whole array (cube, slice, row, column), uint8."""
        with np.load(self.archive, allow_pickle=False) as stored:
            return stored[self.key]


@dataclass(frozen=True)
class Photograph:
    """A 2-D image, whole."""

    path: Path

    @property
    def group(self) -> tuple[str, str]:
        """A photograph stands alone."""
        return (str(self.path), "")

    def files(self) -> tuple[Path, ...]:
        """The image."""
        return (self.path,)

    def read(self) -> np.ndarray:
        """RGB, uint8, (row, column, 3). Raises `VolumeError`; an image of 16 bits is refused, not cut to 8."""
        with opened_image(self.path) as image:
            if image.mode.startswith(("I", "F")):
                msg = f"{self.path.name} has more than 8 bits a pixel; a CT slice is not a photograph, give it as a volume."
                raise VolumeError(msg)
            return np.asarray(image.convert("RGB"))


Source = VolumeSource | SlicesSource | StoredCube | Photograph


def opened_image(path: Path, *, decode: bool = True) -> Image.Image:
    """The image. Raises `VolumeError` for what is none, and for one too large to be true."""
    try:
        image = Image.open(path)
        if image.width * image.height > _MAX_PHOTOGRAPH:
            msg = f"{path.name} has {image.width} x {image.height} pixels; give a smaller image."
            raise VolumeError(msg)
        if decode:
            image.load()
    except VolumeError:
        raise
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        msg = f"{path} cannot be read as an image: {str(error)[:120]}."
        raise VolumeError(msg) from error
    return image


def read_slice(path: Path) -> np.ndarray:
    """HU of one DeepLesion slice, int16, (row, column). Raises `VolumeError` for an image of 8 bits.

    Eight bits leave 256 HU a grey level: the soft-tissue window has two of them (papers 1.4, the released code's defect).
    """
    with opened_image(path) as image:
        if not image.mode.startswith("I"):
            msg = (
                f"{path.name} is an image of mode {image.mode}, DeepLesion's slices are 16-bit grey (I;16); "
                "8 bits leave 256 HU a grey level. Get the released PNG files again."
            )
            raise VolumeError(msg)
        values = np.asarray(image).astype(np.int32) - DEEPLESION_ZERO
    return values.clip(-(2**15), 2**15 - 1).astype(np.int16)


def mask_box(path: Path, value: int | None, *, name: str, volume: CTVolume | None = None) -> LesionBox:
    """The tight box of a mask file's label, with the mask as its segment, where the file's own header says.

    Raises `BoxError` for an empty one, and for one whose header contradicts that of ``volume``.
    """
    stat = path.stat()
    overlapping = os.path.isdir(path) or looks_like_dicom(path)  # then each segment is a reading of its own
    labels, to_ras = _label_map(path, value if overlapping else None, stat.st_size, stat.st_mtime_ns)
    chosen = (labels > 0) if value is None else (labels == value)
    if not chosen.any():
        count = ", ".join(f"{v:g}" for v in np.unique(labels)[:8])
        wanted = "above 0" if value is None else f"equal to {value}"
        msg = f"the mask {path.name} has no voxel {wanted} (it holds {count}); check mask and mask_value."
        raise BoxError(msg)
    if volume is not None and labels.shape == volume.array.shape:
        problem = lattice_problem(chosen, to_ras, volume)
        if problem is not None:
            msg = f"the mask {path.name}: {problem}; export the mask on the image's own geometry."
            raise BoxError(msg)
    return boxes_from_label_array(chosen.astype(np.uint8), to_ras, {1: name})[0]


def _organ_alone(volume: CTVolume, path: Path) -> CTVolume:
    """The CT with air instead of all that is not the organ. Raises `VolumeError` for a mask that shows nothing of it."""
    labels = read_label_map(path, value=None)
    organ = CTVolume((labels.array > 0).astype(np.uint8), labels.ijkToRAS, name=path.name)
    inside = mask_on_lattice(organ, volume.ijkToRAS, volume.sizeIJK, interpolation="nearest")
    if not inside.any():
        msg = f"the organ's mask {path.name} shows nothing of {volume.name}; give the mask of this CT."
        raise VolumeError(msg)
    return CTVolume(
        np.where(inside, volume.array, _AIR_HU).astype(volume.array.dtype), volume.ijkToRAS, name=volume.name
    )


@lru_cache(maxsize=2)
def _label_map(path: Path, value: int | None, _size: int, _mtime_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask file's labels and place; lesions of one file follow each other, so the last ones read are kept."""
    labels = read_label_map(path, value=value)
    return labels.array, labels.ijkToRAS
