"""NIfTI, NRRD and MetaImage files with odd headers: read where they say they lie, warned of, or refused before any memory is used."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionLib.errors import VolumeError, WarningName
from LesionLib.io.image_files import read_header, read_image_file
from LesionLib.io.volumes import read_ct, read_volume, volume_without_voxels

SIZE = (7, 6, 5)
HU = (np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE[::-1]) * 7 - 1000).astype(np.int16)
PLACE = np.diag([-0.8, -0.8, 2.0, 1.0])
PLACE[:3, 3] = [5, 55, -130]
NIFTI_TYPE = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


def nifti(
    path: Path,
    array: np.ndarray = HU,
    *,
    sform: np.ndarray | None = PLACE,
    sform_code: int = 1,
    qform_offset: tuple[float, float, float] | None = None,
    qform_code: int = 0,
    units: int = 2,
    scale: tuple[float, float] = (1.0, 0.0),
    dim: tuple[int, ...] | None = None,
    order: str = "<",
    is_second: bool = False,
) -> Path:
    """A NIfTI file, field by field. The qform has the axes of `PLACE` and ``qform_offset``."""
    dim = dim or array.shape[::-1]
    spacing = np.linalg.norm(PLACE[:3, :3], axis=0)
    code, bits = NIFTI_TYPE[array.dtype.str[1:]], 8 * array.dtype.itemsize
    # -x, -y, z is half a turn about z: quaternion (0, 0, 1).
    quaternion = (0.0, 0.0, 1.0, *(qform_offset or (0.0, 0.0, 0.0)))
    rows = (sform if sform is not None else np.zeros((4, 4)))[:3].ravel()
    sizes = [len(dim), *dim, *[1] * (7 - len(dim))]
    pixdim = [1.0, *spacing, 1.0, 1.0, 1.0, 1.0]
    s_code = sform_code if sform is not None else 0
    header = bytearray(540 if is_second else 348)

    def put(layout: str, at: int, *values: float) -> None:
        struct.pack_into(order + layout, header, at, *values)

    if is_second:
        put("i", 0, 540)
        header[4:12] = b"n+2\0\r\n\x1a\n"
        put("2h", 12, code, bits)
        put("8q", 16, *sizes)
        put("8d", 104, *pixdim)
        put("q", 168, 544)
        put("2d", 176, *scale)
        put("2i", 344, qform_code, s_code)
        put("6d", 352, *quaternion)
        put("12d", 400, *rows)
        put("i", 500, units)
    else:
        put("i", 0, 348)
        put("8h", 40, *sizes)
        put("2h", 70, code, bits)
        put("8f", 76, *pixdim)
        put("f", 108, 352.0)
        put("2f", 112, *scale)
        header[123] = units
        put("2h", 252, qform_code, s_code)
        put("6f", 256, *quaternion)
        put("12f", 280, *rows)
        header[344:348] = b"n+1\0"
    raw = bytes(header) + b"\0" * 4 + array.astype(array.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


# --- NIfTI


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_second", [False, True])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "packed.nii", "bare.nii.gz"])
def test_both_versions_and_byte_orders_are_read_whatever_the_ending_says(tmp_path, order, is_second, name):
    path = nifti(
        tmp_path / ("x.nii.gz" if name in ("packed.nii", "ct.nii.gz") else "x.nii"), order=order, is_second=is_second
    )
    volume = read_volume(path.rename(tmp_path / name))
    np.testing.assert_array_equal(volume.array, HU)
    np.testing.assert_allclose(volume.ijkToRAS, PLACE, atol=1e-6)
    assert volume.warnings == ()


@pytest.mark.parametrize(
    ("codes", "in_slicer"),
    [((1, 1), "sform"), ((2, 1), "qform"), ((1, 2), "sform"), ((2, 2), "qform"), ((4, 1), "qform")],
)
def test_transforms_that_differ_are_a_warning_with_the_distance_and_a_choice(tmp_path, codes, in_slicer):
    path = nifti(tmp_path / "ct.nii", sform_code=codes[0], qform_code=codes[1], qform_offset=(5, 55, -116))
    by_default, by_choice = read_volume(path), read_volume(path, nifti_transform="qform")
    np.testing.assert_allclose(by_default.ijkToRAS[:3, 3], [5, 55, -130], atol=1e-5)
    np.testing.assert_allclose(by_choice.ijkToRAS[:3, 3], [5, 55, -116], atol=1e-5)
    for volume in (by_default, by_choice):
        (warning,) = volume.warnings
        assert warning.name is WarningName.NIFTI_TRANSFORMS
        assert "differ by up to 14.0 mm" in warning
        assert f"3D Slicer takes the {in_slicer}" in warning
    assert "--nifti-transform qform" in by_default.warnings[0]


def test_transforms_that_agree_or_stand_alone_are_taken_without_a_word(tmp_path):
    both = nifti(tmp_path / "both.nii", qform_code=1, qform_offset=(5, 55, -130.00001))
    alone = nifti(tmp_path / "alone.nii", sform=None, qform_code=1, qform_offset=(5, 55, -130))
    for path in (both, alone):
        volume = read_volume(path)
        np.testing.assert_allclose(volume.ijkToRAS, PLACE, atol=1e-4)
        assert volume.warnings == ()


def test_a_file_that_says_nothing_of_its_place_is_a_warning(tmp_path):
    (warning,) = read_volume(nifti(tmp_path / "ct.nii", sform=None)).warnings
    assert warning.name is WarningName.NO_GEOMETRY


@pytest.mark.parametrize("shear", [0.002, 0.02, 0.7])
def test_a_sheared_nifti_is_read_as_it_is(tmp_path, shear):
    sheared = PLACE.copy()
    sheared[1, 2] = shear
    volume = read_volume(nifti(tmp_path / "ct.nii.gz", sform=sheared))
    np.testing.assert_allclose(volume.ijkToRAS, sheared, atol=1e-6)


@pytest.mark.parametrize(("units", "scale"), [(1, 0.001), (3, 1000.0), (0, 1.0)])
def test_metres_and_micrometres_become_millimetres(tmp_path, units, scale):
    place = PLACE.copy()
    place[:3] *= scale
    np.testing.assert_allclose(
        read_volume(nifti(tmp_path / "ct.nii", sform=place, units=units)).ijkToRAS, PLACE, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["i8", "u8", "u4", "i4", "f8"])
def test_wide_numbers_are_read_and_kept_in_what_a_viewer_has(tmp_path, kind):
    stored = (HU + 1024).astype(kind) if kind[0] == "u" else HU.astype(kind)
    volume = read_volume(nifti(tmp_path / "ct.nii", stored, scale=(1.0, -1024.0 if kind[0] == "u" else 0.0)))
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.array.dtype in (np.int16, np.float64)


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_that_is_none_rescales_nothing(tmp_path, slope):
    np.testing.assert_array_equal(read_volume(nifti(tmp_path / "ct.nii", scale=(slope, 5.0))).array, HU)


def test_a_series_of_one_volume_is_a_volume_and_of_two_is_none(tmp_path):
    assert read_volume(nifti(tmp_path / "one.nii", dim=(*SIZE, 1))).sizeIJK == SIZE
    with pytest.raises(VolumeError, match=r"two\.nii: the image has 4 dimensions"):
        read_volume(nifti(tmp_path / "two.nii", np.concatenate([HU, HU]), dim=(*SIZE, 2)))


def test_a_pair_of_header_and_image_is_read_by_either_name(tmp_path):
    raw = bytearray(nifti(tmp_path / "x.nii").read_bytes())
    raw[344:348], raw[108:112] = b"ni1\0", struct.pack("<f", 0.0)
    (tmp_path / "ct.hdr").write_bytes(raw[:348])
    (tmp_path / "ct.img").write_bytes(raw[352:])
    for name in ("ct.hdr", "ct.img"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, HU)


# --- NRRD and MetaImage


def nrrd(path: Path, *lines: str, sizes: str = "7 6 5", kind: str = "short", encoding: str = "raw") -> Path:
    head = ["NRRD0004", f"type: {kind}", "dimension: 3", f"sizes: {sizes}", "endian: little", f"encoding: {encoding}"]
    path.write_bytes("\n".join([*head, *lines, "", ""]).encode() + HU.astype("<i2").tobytes())
    return path


DIRECTIONS = ("space directions: (0.8,0,0) (0,0.8,0) (0,0,2)", "space origin: (1,2,3)")


@pytest.mark.parametrize("spacings", [("spacings: NaN NaN NaN",), ("spacings: 0.8 nan 2",), ()])
def test_an_nrrd_that_does_not_say_how_large_a_voxel_is_is_refused(tmp_path, spacings):
    with pytest.raises(VolumeError, match=r"ct\.nrrd: its header does not say how large a voxel is"):
        read_volume(nrrd(tmp_path / "ct.nrrd", *spacings))


@pytest.mark.parametrize("encoding", ["gzip", "bzip2", "ascii", "hex"])
def test_every_encoding_that_itk_writes_is_read(tmp_path, encoding):
    import bz2

    packed = {
        "gzip": gzip.compress(HU.astype("<i2").tobytes()), "bzip2": bz2.compress(HU.astype("<i2").tobytes()),
        "ascii": " ".join(map(str, HU.ravel())).encode(), "hex": HU.astype("<i2").tobytes().hex().encode(),
    }[encoding]  # fmt: skip
    path = nrrd(tmp_path / "ct.nrrd", "space: left-posterior-superior", *DIRECTIONS, encoding=encoding)
    path.write_bytes(path.read_bytes().split(b"\n\n")[0] + b"\n\n" + packed)
    np.testing.assert_array_equal(read_volume(path).array, HU)


@pytest.mark.parametrize("file", ["/etc/hostname", "../other.raw", "LIST", "%03d.raw 1 5 1"])
def test_a_header_that_points_elsewhere_is_refused(tmp_path, file):
    path = nrrd(tmp_path / "ct.nhdr", "space: left-posterior-superior", *DIRECTIONS, f"data file: {file}")
    with pytest.raises(VolumeError, match=r"outside its folder|in several files"):
        read_volume(path)


def test_voxels_in_a_file_that_is_gone_are_named(tmp_path):
    path = nrrd(tmp_path / "ct.nhdr", "space: left-posterior-superior", *DIRECTIONS, "data file: ct.raw")
    with pytest.raises(VolumeError, match=r"the file with its voxels, ct\.raw, is missing"):
        read_volume(path)


def test_a_meta_image_with_64_bits_a_voxel_is_read(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(HU.astype(np.int64)), str(tmp_path / "ct.mha"), True)
    volume = read_volume(tmp_path / "ct.mha")
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_and_place_are_simpleitk_s_for_every_type(tmp_path, suffix, dtype):
    image = sitk.GetImageFromArray(np.abs(HU[:, :, :4] // 16).astype(dtype))
    image.SetSpacing((0.5, 0.75, 2.5))
    image.SetOrigin((-1.0, 2.0, 30.0))
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(image, str(path), True)
    read = read_ct(path)
    np.testing.assert_array_equal(read.array, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(read.ijkToRAS @ [1, 2, 3, 1], [0.5, -3.5, 37.5, 1], atol=1e-5)
    assert volume_without_voxels(path).sizeIJK == (4, 6, 5)


def test_a_file_name_that_is_no_text_is_read_and_shown_readably(tmp_path):
    path = nifti(tmp_path / "x.nii")
    odd = Path(str(tmp_path / "l\udce4sion.nii"))
    try:
        path.rename(odd)
    except OSError:
        pytest.skip("this file system has no such names")
    volume = read_volume(odd)
    assert volume.name == "l\ufffdsion.nii"
    volume.name.encode("utf-8")


# --- what a header announces


def huge_headers(folder: Path) -> list[Path]:
    """Files of at most some kilobytes that announce gigabytes."""
    sound = nifti(folder / "sound.nii").read_bytes()
    raw = bytearray(sound)
    raw[42:48] = struct.pack("<3h", 30_000, 30_000, 30_000)
    (folder / "a.nii").write_bytes(raw)
    (folder / "b.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    raw[42:48] = struct.pack("<3h", 1500, 1200, 1000)
    (folder / "c.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    for name, offset in (("j", 1e9), ("k", 1e30)):
        far = bytearray(sound)
        far[108:112] = struct.pack("<f", offset)
        (folder / f"{name}.nii.gz").write_bytes(gzip.compress(bytes(far)))
        (folder / f"{name}.nii").write_bytes(far)
    space = "space: left-posterior-superior"
    nrrd(folder / "d.nrrd", space, *DIRECTIONS, sizes="2000 2000 1000")
    nrrd(folder / "e.nrrd", space, *DIRECTIONS, sizes="1000 1000 1000", encoding="gzip")
    nrrd(folder / "f.nrrd", space, *DIRECTIONS, sizes="99999999999 99999999999 99999999")
    nrrd(folder / "g.nrrd", space, *DIRECTIONS, sizes="-5 7 6")
    text = "ObjectType = Image\nNDims = 3\nDimSize = 1900 1000 1000\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
    (folder / "h.mha").write_text(text + "ElementDataFile = LOCAL\n")
    nrrd(folder / "l.nrrd", space, *DIRECTIONS, f"line skip: {10**12}")
    (folder / "i.mha").write_text(text + "CompressedData = True\nElementDataFile = LOCAL\nxx")
    return [path for path in sorted(folder.iterdir()) if path.name != "sound.nii"]


def test_sizes_that_the_file_cannot_hold_are_refused_without_asking_for_memory(tmp_path):
    for path in huge_headers(tmp_path):
        tracemalloc.start()
        with pytest.raises(VolumeError) as error:
            read_volume(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "\n" not in str(error.value)
        assert path.name in str(error.value)
        assert peak < 20_000_000, path


def test_a_packed_file_larger_than_announced_is_not_unpacked_beyond_it(tmp_path):
    path = nifti(tmp_path / "bomb.nii.gz")
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw + bytes(200_000_000), compresslevel=1))
    tracemalloc.start()
    volume = read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(volume.array, HU)
    assert peak < 40_000_000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 347), value=st.binary(min_size=1, max_size=8), which=st.sampled_from(["n", "d", "m"]))
def test_whatever_stands_in_a_header_the_answer_is_a_volume_or_one_line(tmp_path, at, value, which):
    path = tmp_path / "ct.img_file"
    if which == "n":
        raw = bytearray(nifti(tmp_path / "x.nii").read_bytes())
    elif which == "d":
        raw = bytearray(nrrd(tmp_path / "x.nrrd", "space: left-posterior-superior", *DIRECTIONS).read_bytes())
    else:
        sitk.WriteImage(sitk.GetImageFromArray(HU), str(tmp_path / "x.mha"))
        raw = bytearray((tmp_path / "x.mha").read_bytes())
    raw[at : at + len(value)] = value
    path.write_bytes(raw)
    try:
        volume = read_volume(path)
    except VolumeError as error:
        assert "\n" not in str(error)
    else:
        assert volume.array.ndim == 3


def test_a_header_is_read_without_its_voxels(tmp_path, monkeypatch):
    path = nifti(tmp_path / "ct.nii.gz")
    whole = read_image_file(path)
    monkeypatch.setattr("LesionLib.io.image_files.read_voxels", lambda *_: pytest.fail("voxels were read"))
    header = read_header(path)
    assert header.size == SIZE
    np.testing.assert_array_equal(header.ijkToRAS, whole.header.ijkToRAS)
