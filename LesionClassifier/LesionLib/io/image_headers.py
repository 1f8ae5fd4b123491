"""The headers of NIfTI, NRRD and MetaImage files: what they say of size, voxels and place, checked as they are read.

Places follow 3D Slicer, but for a NIfTI whose two transforms differ: there the sform counts, as in nibabel, TorchIO and
TotalSegmentator, and a warning says how far Slicer's choice is from it.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from LesionLib.errors import InputWarning, VolumeError, WarningName
from LesionLib.geometry import LPS_TO_RAS, lattice_corners, transformed_points

IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
NIFTI_TRANSFORMS = ("sform", "qform")
_TRANSFORMS_AGREE_MM = 0.1
_MAX_HEADER = 2**22
_HALF_LETTERS = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # those between stand for bytes of a name that is not UTF-8


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """What a file says of itself. ``size``: voxels along i, j, k (and further axes, where there are); ``components``: values a
    voxel, on the axis ``component_axis`` of the file; ``ijkToRAS``: 4x4 in mm, None for an image that is not 3-D.

    ``data``: the file with the voxels, which begin at ``offset`` (negative: counted from the end) in ``encoding``.
    """

    path: Path
    size: tuple[int, ...]
    dtype: np.dtype
    ijkToRAS: np.ndarray | None
    data: Path
    offset: int
    encoding: str = "raw"
    components: int = 1
    component_axis: int = 0
    line_skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    keys: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[InputWarning, ...] = ()

    @property
    def voxel_bytes(self) -> int:
        """What all voxels take, unpacked."""
        return math.prod(self.size) * self.components * self.dtype.itemsize


def readable_name(path: Path) -> str:
    """The name of a file in letters that every screen and every file can hold."""
    return _readable(path.name)


def shown_path(path: Path) -> str:
    """The path in letters that every screen can hold."""
    return _readable(str(path))


def _readable(text: str) -> str:
    whole = _HALF_LETTERS.sub("\ufffd", text)
    return whole.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def unreadable(path: Path, why: str = "") -> VolumeError:
    """The error for what is no image, or none that is read here."""
    reason = f" ({why})" if why else ""
    kinds = ", ".join(IMAGE_SUFFIXES)
    return VolumeError(f"{shown_path(path)} cannot be read as an image{reason}; give a DICOM folder or one of {kinds}.")


def require_volume(path: Path) -> None:
    """Raises `VolumeError` where there is neither a file nor a folder."""
    if not os.path.exists(path):
        msg = f"{path} does not exist; give a DICOM folder or one of {', '.join(IMAGE_SUFFIXES)}."
        raise VolumeError(msg)


# --- NIfTI

_NIFTI_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 32: "c8", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
    1792: "c16",
}  # fmt: skip
_NIFTI_COLOURS = {128: 3, 2304: 4}
_METRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unit code -> mm


def nifti_header(path: Path, first: bytes, wanted: str) -> ImageHeader:
    """Of a NIfTI-1 or NIfTI-2 file, from its first bytes, unpacked. ``wanted``: which transform counts where there are two."""
    order = "<" if struct.unpack("<i", first[:4])[0] in (348, 540) else ">"
    is_second = struct.unpack(order + "i", first[:4])[0] == 540

    def read(layout: str, at: int) -> tuple:
        return struct.unpack_from(order + layout, first, at)

    magic = first[4:8] if is_second else first[344:348]
    if magic[:3] not in (b"n+1", b"ni1", b"n+2", b"ni2"):
        raise unreadable(path, "an Analyze file without the NIfTI mark, which does not say left from right")
    dim = read("8q", 16) if is_second else read("8h", 40)
    (kind,) = read("h", 12 if is_second else 70)
    pixdim = read("8d", 104) if is_second else read("8f", 76)
    (offset,) = read("q", 168) if is_second else read("f", 108)
    slope, intercept = read("2d", 176) if is_second else read("2f", 112)
    units = read("i", 500)[0] if is_second else first[123]
    q_code, s_code = read("2i", 344) if is_second else read("2h", 252)
    quaternion = read("6d", 352) if is_second else read("6f", 256)
    rows = read("12d", 400) if is_second else read("12f", 280)
    size = tuple(int(n) for n in dim[1 : dim[0] + 1]) if 1 <= dim[0] <= 7 else ()
    if not size:
        raise unreadable(path, f"its header says {dim[0]} dimensions")
    components = _NIFTI_COLOURS.get(kind, 1)
    if len(size) == 5 and size[3] == 1:  # a vector a voxel
        components, size = components * size[4], size[:3]
        component_axis = 3
    else:
        component_axis = 0
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    dtype = "u1" if kind in _NIFTI_COLOURS else _NIFTI_TYPES.get(kind)
    if dtype is None:
        raise unreadable(path, f"its voxels are of NIfTI type {kind}")
    is_pair = magic[:2] == b"ni"
    data = _pair_of(path) if is_pair else path
    is_packed = os.path.isfile(data) and starts_gzip(data, 0)
    matrix, warnings = None, ()
    if len(size) == 3:
        places = _nifti_places(pixdim, q_code, s_code, quaternion, rows)
        scale = np.diag([*[_METRES.get(units & 7, 1.0)] * 3, 1.0])
        matrix, warnings = _chosen_place(readable_name(path), size, places, wanted, scale, s_code)
    return ImageHeader(
        path=path,
        size=size,
        dtype=np.dtype(order + dtype),
        ijkToRAS=matrix,
        data=data,
        offset=int(offset) if is_pair else max(int(offset), 544 if is_second else 348),
        encoding="whole-gzip" if is_packed else "raw",
        components=components,
        component_axis=component_axis,
        slope=float(slope),
        intercept=float(intercept),
        warnings=warnings,
    )


def _pair_of(path: Path) -> Path:
    for ending in (".img", ".img.gz"):
        name = path.name.removesuffix(".gz").removesuffix(".hdr").removesuffix(".img") + ending
        if os.path.isfile(path.with_name(name)):
            return path.with_name(name)
    return path.with_suffix(".img")


def _nifti_places(
    pixdim: Sequence[float], q_code: int, s_code: int, quaternion: Sequence[float], rows: Sequence[float]
) -> dict[str, np.ndarray]:
    """The affines that the header gives, by name; "spacing" where it says nothing but the voxels' size."""
    found = {}
    if s_code > 0:
        found["sform"] = np.vstack([np.reshape(rows, (3, 4)), [0, 0, 0, 1]]).astype(float)
    spacing = np.abs(np.array(pixdim[1:4], dtype=float))
    if q_code > 0:
        b, c, d, *place = map(float, quaternion)
        a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        matrix = np.eye(4)
        matrix[:3, :3] = turn * spacing * [1, 1, -1 if pixdim[0] < 0 else 1]
        matrix[:3, 3] = place
        found["qform"] = matrix
    return found or {"spacing": LPS_TO_RAS @ np.diag([*spacing, 1.0])}


def _chosen_place(
    name: str, size: tuple[int, ...], places: Mapping[str, np.ndarray], wanted: str, scale: np.ndarray, s_code: int
) -> tuple[np.ndarray, tuple[InputWarning, ...]]:
    places = {which: scale @ matrix for which, matrix in places.items()}
    if "spacing" in places:
        text = f"{name} does not say where it lies (no sform, no qform): its place and its left and right are guesses."
        return places["spacing"], (InputWarning(WarningName.NO_GEOMETRY, text),)
    if len(places) == 1:
        ((_, matrix),) = places.items()
        return matrix, ()
    taken = wanted if wanted in places else "sform"
    other = "qform" if taken == "sform" else "sform"
    corners = lattice_corners(size)
    apart = transformed_points(places[taken], corners) - transformed_points(places[other], corners)
    distance = float(np.linalg.norm(apart, axis=1).max())
    if not distance > _TRANSFORMS_AGREE_MM:
        return places[taken], ()
    in_slicer = "sform" if s_code == 1 and _is_right_angled(places["sform"]) else "qform"
    where = "there, too" if in_slicer == taken else f"there it lies by its {in_slicer}, so boxes drawn there are off"
    text = (
        f"{name} says twice where it lies, and its sform and qform differ by up to {distance:.1f} mm: the {taken} is taken. "
        f"3D Slicer takes the {in_slicer}: {where}. The option --nifti-transform {other} takes the other one."
    )
    return places[taken], (InputWarning(WarningName.NIFTI_TRANSFORMS, text),)


def _is_right_angled(matrix: np.ndarray) -> bool:
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < 1e-3)


# --- NRRD

_NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_NRRD_TYPE = {name: code for code, names in _NRRD_TYPES.items() for name in names}
_NRRD_ENCODINGS = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2", "txt": "ascii", "text": "ascii",
    "ascii": "ascii", "hex": "hex",
}  # fmt: skip
# To RAS. Spaces that are none of a body are taken as RAS, as 3D Slicer takes them.
_NRRD_SPACES = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1), "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip
_NRRD_SPATIAL = ("domain", "space", "???", "none", "")


def nrrd_header(path: Path, first: bytes) -> ImageHeader:
    """Of an NRRD file (or .nhdr with its voxels beside it), from its first bytes."""
    fields, keys, offset = _nrrd_fields(path, first)
    dimension = int(fields["dimension"])
    sizes = tuple(int(part) for part in fields["sizes"].split())
    if len(sizes) != dimension or dimension > 16:
        raise unreadable(path, f"its header says {dimension} dimensions and {len(sizes)} sizes")
    code = _NRRD_TYPE.get(fields["type"].lower())
    encoding = _NRRD_ENCODINGS.get(fields["encoding"].lower())
    if code is None or encoding is None:
        raise unreadable(path, f"type {fields['type']!r}, encoding {fields['encoding']!r}")
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    dtype = np.dtype(order + code)
    axes, component_axes = _nrrd_axes(fields, dimension)
    if len(component_axes) > 1:
        axes, component_axes = list(range(dimension)), []
    components, component_axis = (sizes[component_axes[0]], component_axes[0]) if component_axes else (1, 0)
    kinds = fields.get("kinds", "").split()
    if component_axes and component_axis == 0 and kinds[:1] == ["complex"] and components == 2 and code in ("f4", "f8"):
        dtype, components = np.dtype(order + ("c8" if code == "f4" else "c16")), 1
    size = tuple(sizes[axis] for axis in axes)
    matrix, warnings = _nrrd_place(path, fields, axes, size) if len(axes) == 3 else (None, ())
    data, offset, line_skip = _nrrd_data(path, fields, offset)
    return ImageHeader(
        path=path, size=size, dtype=dtype, ijkToRAS=matrix, data=data, offset=offset, encoding=encoding,
        components=components, component_axis=component_axis, line_skip=line_skip, keys=keys, warnings=warnings,
    )  # fmt: skip


def _nrrd_fields(path: Path, first: bytes) -> tuple[dict[str, str], dict[str, str], int]:
    """Fields and key/value pairs of the header, and where the voxels begin in this file."""
    ends = [(at, len(mark)) for mark in (b"\n\n", b"\r\n\r\n") if (at := first.find(mark)) >= 0]
    at, length = min(ends, default=(len(first), 0))
    if not ends and len(first) >= _MAX_HEADER:
        raise unreadable(path, "its header has no end")
    text = decoded(first[:at])
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if line.startswith("#"):
            continue
        if ":=" in line and (": " not in line or line.index(":=") < line.index(": ")):
            key, value = line.split(":=", 1)
            keys[key] = value.replace("\\n", "\n").replace("\\\\", "\\")
        elif ":" in line:
            key, value = line.split(":", 1)
            fields[key.strip().lower()] = value.strip()
    missing = [name for name in ("type", "dimension", "sizes", "encoding") if not fields.get(name)]
    if missing:
        raise unreadable(path, f"its header has no {', '.join(missing)}")
    return fields, keys, at + length


def decoded(raw: bytes) -> str:
    """Text in UTF-8, or, where it is none, in the code page of Western Windows."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _nrrd_axes(fields: Mapping[str, str], dimension: int) -> tuple[list[int], list[int]]:
    """Which axes of the file are space, and which hold the values of a voxel."""
    kinds = fields.get("kinds", "").split()
    vectors = _nrrd_vectors(fields.get("space directions", ""))
    if len(vectors) == dimension and any(vector is None for vector in vectors):
        others = [axis for axis, vector in enumerate(vectors) if vector is None]
    elif len(kinds) == dimension and dimension > 1:
        others = [axis for axis, kind in enumerate(kinds) if kind.lower() not in _NRRD_SPATIAL]
    else:
        others = []
    return [axis for axis in range(dimension) if axis not in others], others


def _nrrd_vectors(text: str) -> list[np.ndarray | None]:
    found: list[np.ndarray | None] = []
    for part in text.replace(")", ") ").replace("(", " (").replace(", ", ",").split():
        found.append(None if part == "none" else np.array([float(v) for v in part.strip("()").split(",")]))
    return found


def _nrrd_place(
    path: Path, fields: Mapping[str, str], axes: Sequence[int], size: tuple[int, ...]
) -> tuple[np.ndarray, tuple[InputWarning, ...]]:
    """As 3D Slicer places it: without a space in RAS, without an origin around the origin. Raises `VolumeError`."""
    name = readable_name(path)
    space = fields.get("space", "").lower()
    vectors = _nrrd_vectors(fields.get("space directions", ""))
    if vectors:
        columns = [vectors[axis] for axis in axes]
    elif space:
        msg = f"{name}: its header names a space ({space}) and no space directions; save it again from 3D Slicer."
        raise VolumeError(msg)
    else:
        spacings = [float(part) for part in fields.get("spacings", "").split()] or [math.nan] * (max(axes) + 1)
        columns = list(np.diag([spacings[axis] for axis in axes]))
    if any(column is None or len(column) != 3 or not np.isfinite(column).all() for column in columns):
        msg = (
            f"{name}: its header does not say how large a voxel is (spacings {fields.get('spacings', 'missing')}); "
            "export the volume again."
        )
        raise VolumeError(msg)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(columns, axis=1)
    (origin,) = _nrrd_vectors(fields.get("space origin", "")) or [None]
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(size) - 1) / 2) if origin is None else origin
    unknown = [what for what, missing in (("space", not space), ("origin", origin is None)) if missing]
    warnings = ()
    if unknown:
        text = (
            f"{name} does not say where it lies (no {', no '.join(unknown)}): it is placed as 3D Slicer places it"
            + (", its middle at the origin" if origin is None else "")
            + ", and left and right are a guess."
        )
        warnings = (InputWarning(WarningName.NO_GEOMETRY, text),)
    return np.diag([*_NRRD_SPACES.get(space, (1, 1, 1)), 1.0]) @ matrix, warnings


def _nrrd_data(path: Path, fields: Mapping[str, str], offset: int) -> tuple[Path, int, int]:
    file = fields.get("data file", fields.get("datafile", ""))
    skip, lines = int(fields.get("byte skip", "0")), int(fields.get("line skip", "0"))
    if not file:
        return path, (-1 if skip == -1 else offset + skip), lines
    if file.upper().startswith("LIST") or "%" in file:
        raise unreadable(path, "its voxels are in several files; save it as one")
    return _beside(path, file), skip, lines


def _beside(path: Path, name: str) -> Path:
    """The file that a header names, which must lie in the header's own folder."""
    wanted = Path(name)
    if wanted.is_absolute() or ".." in wanted.parts or "\0" in name:
        msg = f"{readable_name(path)} points to {name!r} outside its folder; put both files into one folder."
        raise VolumeError(msg)
    return path.parent / wanted


# --- MetaImage

_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip


def meta_image_header(path: Path, first: bytes) -> ImageHeader:
    """Of a MetaImage (.mha, or .mhd with its voxels beside it), from its first bytes."""
    fields, offset = _meta_fields(path, first)

    def numbers(*names: str) -> np.ndarray | None:
        for name in names:
            if name in fields:
                return np.array([float(part) for part in fields[name].split()])
        return None

    def is_true(name: str) -> bool:
        return fields.get(name, "False").lower() in ("true", "1", "yes")

    count = int(fields["ndims"])
    size = tuple(int(part) for part in fields["dimsize"].split())
    kind = fields.get("elementtype", "").upper().removesuffix("_ARRAY")
    if kind not in _META_TYPES or len(size) != count:
        raise unreadable(path, f"{len(size)} sizes, voxels of type {kind or 'unknown'}")
    is_big = is_true("binarydatabyteordermsb") or is_true("elementbyteordermsb")
    matrix, warnings = None, ()
    if count == 3:
        axes = numbers("transformmatrix", "rotation", "orientation")
        spacing = numbers("elementspacing", "elementsize")
        origin = numbers("offset", "position", "origin")
        if spacing is None or not np.isfinite(spacing).all():
            msg = f"{readable_name(path)}: its header does not say how large a voxel is; export the volume again."
            raise VolumeError(msg)
        if origin is None:
            text = f"{readable_name(path)} does not say where it lies (no Offset): its place is a guess."
            warnings = (InputWarning(WarningName.NO_GEOMETRY, text),)
        place = np.eye(4)
        place[:3, :3] = (np.eye(3) if axes is None else axes.reshape(3, 3).T) * spacing
        place[:3, 3] = 0 if origin is None else origin
        matrix = LPS_TO_RAS @ place
    file = fields["elementdatafile"]
    if file.upper() == "LIST" or "%" in file:
        raise unreadable(path, "its voxels are in several files; save it as one")
    is_here = file.upper() == "LOCAL"
    skip = int(fields.get("headersize", "0"))
    packed = "zlib" if is_true("compresseddata") else "raw"
    if not is_true("binarydata") and "binarydata" in fields:
        packed = "ascii"
    data = path if is_here else _beside(path, file)
    if packed == "zlib" and os.path.isfile(data) and starts_gzip(data, offset if is_here else 0):
        packed = "gzip"
    return ImageHeader(
        path=path, size=size, dtype=np.dtype((">" if is_big else "<") + _META_TYPES[kind]), ijkToRAS=matrix, data=data,
        offset=offset if is_here else (-1 if skip == -1 else skip), encoding=packed,
        components=int(fields.get("elementnumberofchannels", "1")), warnings=warnings,
    )  # fmt: skip


def _meta_fields(path: Path, first: bytes) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    at = 0
    while at < len(first):
        end = first.find(b"\n", at)
        end = len(first) if end < 0 else end
        key, _, value = decoded(first[at:end]).partition("=")
        at = end + 1
        fields[key.strip().lower()] = value.strip()
        if key.strip().lower() == "elementdatafile":
            return fields, at
    raise unreadable(path, "its header has no ElementDataFile")


def starts_gzip(path: Path, offset: int) -> bool:
    """Whether a gzip stream begins there."""
    with path.open("rb") as handle:
        handle.seek(offset)
        return handle.read(2) == b"\x1f\x8b"
