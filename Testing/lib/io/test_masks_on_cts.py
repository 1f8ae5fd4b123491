"""A mask lies where its own header says: mapped onto the CT, or refused with both geometries; never paired by array index."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.errors import BoxError, WarningName
from LesionLib.geometry import CTVolume
from LesionLib.io.boxes import CaseTableError, boxes_from_label_array, read_case_table
from LesionLib.io.segmentations import parts_of, parts_warning, read_segments, split_parts

SHAPE, SPACING, LESION = (12, 20, 24), (0.8, 0.8, 1.5), (slice(4, 8), slice(3, 8), slice(14, 20))


@pytest.fixture
def ct() -> sitk.Image:
    """Lung with a bright lesion off the middle."""
    hu = np.full(SHAPE, -850, np.int16)
    hu[LESION] = 80
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(SPACING)
    image.SetOrigin((5.0, -7.0, 11.0))
    return image


@pytest.fixture
def mask(ct) -> sitk.Image:
    image = sitk.Cast(ct > 0, sitk.sitkUInt8)
    image.CopyInformation(ct)
    return image


def case(folder: Path, ct: sitk.Image, mask: sitk.Image) -> tuple[CTVolume, np.ndarray, np.ndarray]:
    for name, image in (("image", ct), ("mask", mask)):
        (folder / name).mkdir()
        sitk.WriteImage(image, str(folder / name / "n.nii.gz"))
    (folder / "t.csv").write_text("file,patient_id,label\nn.nii.gz,1,1\n")
    volume, box, found = read_case_table(folder, columns=[])[0].load()
    return volume, box.centerRAS, found


CENTER_RAS = np.array([-(5.0 + 0.8 * 16.5), 7.0 - 0.8 * 5.0, 11.0 + 1.5 * 5.5])


@pytest.mark.parametrize(
    "change",
    [
        lambda mask: mask,
        lambda mask: sitk.Flip(mask, (True, False, False)),
        lambda mask: sitk.Flip(mask, (False, True, True)),
        lambda mask: sitk.PermuteAxes(mask, (1, 0, 2)),
        lambda mask: mask[10:22, 1:12, 2:10],
        lambda mask: sitk.Expand(mask, (2, 2, 2), sitk.sitkNearestNeighbor),
    ],
    ids=["the same", "flipped", "flipped twice", "other axes", "cropped", "finer"],
)
def test_a_mask_on_another_lattice_finds_its_tissue(tmp_path, ct, mask, change):
    volume, center, found = case(tmp_path, ct, change(mask))
    assert found.shape == volume.array.shape
    np.testing.assert_array_equal(found, volume.array == 80)
    np.testing.assert_allclose(center, CENTER_RAS, atol=1e-3)


def test_a_mask_of_the_same_size_at_another_place_is_refused_with_both_geometries(tmp_path, ct, mask):
    mask.SetOrigin((15.0, -7.0, 11.0))
    with pytest.raises(
        CaseTableError, match=r"t\.csv, line 2: the mask has the image's size and lies elsewhere"
    ) as error:
        case(tmp_path, ct, mask)
    assert "the mask is 24 x 20 x 12 voxels at R -33.8" in str(error.value)
    assert "the image 24 x 20 x 12 voxels at R -23.8" in str(error.value)


def test_a_mask_outside_the_ct_is_refused(tmp_path, ct, mask):
    cropped = mask[10:22, 1:12, 2:10]
    cropped.SetOrigin([v + 200 for v in cropped.GetOrigin()])
    with pytest.raises(CaseTableError, match="100% of the mask lie outside the image"):
        case(tmp_path, ct, cropped)


# --- several lesions under one label


def three_parts() -> CTVolume:
    array = np.zeros((20, 20, 30), np.uint8)
    array[2:8, 2:8, 2:8] = 1  # 216 mm3
    array[10:14, 10:14, 12:16] = 1  # 64 mm3
    array[18, 18, 28] = 1  # one voxel
    return CTVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "tumour")


def test_parts_are_found_largest_first_and_specks_do_not_count():
    large, small = parts_of(three_parts())
    assert (int(large.array.sum()), int(small.array.sum())) == (216, 64)
    np.testing.assert_allclose(small.ijkToRAS[:3, 3], [-12, -10, 10])
    assert len(parts_of(three_parts(), smallest_mm3=0)) == 3


def test_a_segment_in_parts_is_a_warning_with_their_number_and_one_in_a_piece_is_none():
    warning = parts_warning("L1", three_parts())
    assert warning.name is WarningName.SEVERAL_PARTS
    assert "in 2 separate parts" in warning
    assert "--split-parts" in warning
    assert parts_warning("L1", parts_of(three_parts())[0]) is None


def test_parts_become_lesions_of_their_own_and_what_is_left_out_is_said():
    masks, warnings = split_parts([three_parts(), parts_of(three_parts())[1]])
    assert [mask.name for mask in masks] == ["tumour 1", "tumour 2", "tumour"]
    assert [str(warning) for warning in warnings] == ["1 part(s) of tumour are smaller than 14 mm³ and were left out."]
    assert split_parts([three_parts()], smallest_mm3=0.0)[1] == ()


def test_a_mask_of_specks_keeps_its_largest():
    array = np.zeros((5, 5, 5), np.uint8)
    array[0, 0, 0] = array[4, 4, 3:5] = 1
    (kept,) = parts_of(CTVolume(array, np.eye(4), "m"))
    assert int(kept.array.sum()) == 2


# --- Slicer's own files


def seg_nrrd(path: Path, layers: np.ndarray, keys: dict[str, str], *, encoding: str = "utf-8") -> Path:
    """``layers`` (k, j, i, layer) as Slicer writes them."""
    sizes = " ".join(map(str, layers.shape[::-1]))
    lines = [
        "NRRD0004", "type: unsigned char", "dimension: 4", "space: left-posterior-superior", f"sizes: {sizes}",
        "space directions: none (1,0,0) (0,1,0) (0,0,2)", "kinds: list domain domain domain", "encoding: raw",
        "space origin: (1,2,3)", *(f"{key}:={value}" for key, value in keys.items()),
    ]  # fmt: skip
    path.write_bytes("\n".join([*lines, "", ""]).encode(encoding) + layers.astype(np.uint8).tobytes())
    return path


def two_layers() -> np.ndarray:
    layers = np.zeros((6, 8, 9, 2), np.uint8)
    layers[1:3, 2:4, 2:5, 0] = 1
    layers[1:5, 2:6, 2:7, 1] = 1
    return layers


def test_segments_of_a_file_from_before_layers_had_keys_are_read_with_their_names(tmp_path):
    keys = {f"Segment{n}_{k}": v for n in (0, 1) for k, v in (("ID", f"S{n}"), ("Name", ("ball", "both")[n]))}
    found = read_segments(seg_nrrd(tmp_path / "old.seg.nrrd", two_layers(), keys))
    assert [(mask.name, int(mask.array.sum())) for mask in found.masks] == [("ball", 12), ("both", 80)]


def test_a_segment_name_in_another_code_page_is_read(tmp_path):
    keys = {"Segment0_ID": "S0", "Segment0_Name": "Läsion", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    path = seg_nrrd(tmp_path / "s.seg.nrrd", two_layers(), keys, encoding="cp1252")
    assert [mask.name for mask in read_segments(path).masks] == ["Läsion"]


def test_voxels_of_no_segment_are_left_out_and_named(tmp_path):
    layers = two_layers()[..., 1:] + two_layers()[..., :1]
    keys = {"Segment0_ID": "S0", "Segment0_Name": "ball", "Segment0_LabelValue": "2", "Segment0_Layer": "0"}
    found = read_segments(seg_nrrd(tmp_path / "s.seg.nrrd", layers, keys))
    assert [mask.name for mask in found.masks] == ["ball"]
    (warning,) = found.warnings
    assert "label value(s) 1 belong to no segment" in warning


def test_a_picture_in_colours_is_not_taken_for_one_lesion_a_colour(tmp_path):
    grey = np.zeros((4, 5, 6, 3), np.uint8)
    grey[1:3, 2:4, 2:4] = 255
    sitk.WriteImage(sitk.GetImageFromArray(grey, isVector=True), str(tmp_path / "m.nrrd"))
    with pytest.raises(BoxError, match=r"m\.nrrd is a grey picture in 3 colours"):
        read_segments(tmp_path / "m.nrrd")


def test_a_name_for_a_label_beyond_all_others_takes_no_memory(tmp_path):
    image = sitk.GetImageFromArray(np.pad(np.ones((2, 2, 2), np.uint8), 1))
    keys = {"Segment0_Name": "nodule", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    keys |= {"Segment1_Name": "far", "Segment1_LabelValue": str(2**31 - 1), "Segment1_Layer": "0"}
    for key, value in keys.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(tmp_path / "s.seg.nrrd"))
    tracemalloc.start()
    assert [mask.name for mask in read_segments(tmp_path / "s.seg.nrrd").masks] == ["nodule"]
    labels = sitk.GetArrayFromImage(image)
    assert [box.name for box in boxes_from_label_array(labels, np.eye(4), {1: "nodule", 2**31 - 1: "far"})] == [
        "nodule"
    ]
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
