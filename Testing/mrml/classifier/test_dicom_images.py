"""Lesions as a DICOM segmentation and heat maps as parametric maps: read back voxel by voxel, where they lie in the patient."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from foreign_dicom import BALL_HU, BALL_RAS, write_ct, write_enhanced_ct
from LesionClassifierLib import dicom_images
from LesionClassifierLib.dicom_headers import LesionObjects, StructuredReportError, readDatasets, sourceSeries
from LesionClassifierLib.dicom_images import lesionVoxels, sourceImages, writeHeatMap, writeSegmentation
from LesionClassifierLib.export import writeStructuredReport
from LesionClassifierLib.scene.volumes import addScalarVolume, writeVolumeFile
from LesionLib.errors import OutputError
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.io.segmentations import read_segments
from LesionLib.io.volumes import read_ct, read_volume
from LesionLib.model.codes import DicomCode
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

RUN = RunInfo(
    "CT", "lung-nodule-malignancy", "1.1.0", "ab" * 32, "cpu", "LesionLens 0.1.0, torch 2.13.0, Python 3.12.1",
    finding_site=DicomCode("SCT", "39607008", "Lung"),
)  # fmt: skip
NOT_ITS = "Minkowski"
PLANTED = {
    "InstitutionName": NOT_ITS, "InstitutionAddress": NOT_ITS, "OperatorsName": NOT_ITS, "StationName": NOT_ITS,
    "PatientComments": NOT_ITS, "OtherPatientIDs": NOT_ITS, "Allergies": NOT_ITS, "PatientAddress": NOT_ITS,
    "AdditionalPatientHistory": NOT_ITS, "Occupation": NOT_ITS, "PhysiciansOfRecord": NOT_ITS, "ImageComments": NOT_ITS,
    "DeviceSerialNumber": NOT_ITS, "SeriesDescription": NOT_ITS, "ProtocolName": NOT_ITS, "ClinicalTrialSubjectID": NOT_ITS,
    "PerformingPhysicianName": NOT_ITS, "RequestingPhysician": NOT_ITS, "ManufacturerModelName": NOT_ITS, "Manufacturer": NOT_ITS,
}  # fmt: skip
NEEDS_VALIDATOR = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: apt install dicom3tools"
)


def part_of(volume: CTVolume, first: tuple[int, int, int]) -> np.ndarray:
    """4x4 of the lattice of ``volume`` from the voxel ``first`` (i, j, k) on."""
    matrix = volume.ijkToRAS.copy()
    matrix[:3, 3] = transformed_points(volume.ijkToRAS, first)
    return matrix


def heat_map(volume: CTVolume, *, seed: int = 0) -> HeatMap:
    array = np.random.default_rng(seed).random((5, 9, 8)).astype(np.float32)
    return HeatMap(array / array.max(), part_of(volume, (10, 11, 8)), 2.5, "malignant")


def result_for(volume: CTVolume, name: str, *, segment: CTVolume | None = None, size: float = 8.0) -> LesionResult:
    box = LesionBox(BALL_RAS, [size] * 3, name=name, segment=segment)
    probabilities = {"benign": 0.25, "malignant": 0.75}
    return LesionResult(name, box, "malignant", probabilities, np.ones(1, np.float32), heat_map(volume))


def ball_of(volume: CTVolume) -> CTVolume:
    return CTVolume((volume.array == BALL_HU).astype(np.uint8), volume.ijkToRAS, "ball")


def images_of(ct: Path) -> list[pydicom.Dataset]:
    return sourceImages(sourceSeries(readDatasets(sorted(ct.iterdir()))), read_ct(ct))


def segmentation_of(ct: Path, results: list[LesionResult], path: Path) -> Path:
    uids = [hd.UID() for _ in results]
    writeSegmentation(path, results, RUN, images_of(ct), read_ct(ct), trackingUIDs=uids)
    return path


def map_of(ct: Path, path: Path) -> tuple[Path, LesionResult]:
    volume = read_ct(ct)
    result = result_for(volume, "L1")
    writeHeatMap(path, result, RUN, images_of(ct), number=1, seriesUID=hd.UID())
    return path, result


def frames_with_affines(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every frame of a parametric map its real-world values (row, column) and the 4x4 from (column, row, 0) to RAS mm."""
    image = hd.pm.ParametricMap.from_file(path)
    shared = image.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    values = image.get_frames(apply_real_world_transform=True, apply_modality_transform=False)
    found = []
    for number, group in enumerate(image.PerFrameFunctionalGroupsSequence):
        matrix = np.eye(4)
        matrix[:3, 0], matrix[:3, 1] = row * between_columns, column * between_rows
        matrix[:3, 3] = group.PlanePositionSequence[0].ImagePositionPatient
        found.append((values[number], np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix))
    return found


def assert_same_map(path: Path, array: np.ndarray, ijkToRAS: np.ndarray) -> None:
    """The parametric map has these voxels (k, j, i), at these places."""
    corners = [[0, 0, 0], [array.shape[2] - 1, 0, 0], [0, array.shape[1] - 1, 0]]
    frames = frames_with_affines(path)
    assert len(frames) == len(array)
    taken = set()
    for values, matrix in frames:
        at = transformed_points(matrix, corners)
        expected = [transformed_points(ijkToRAS, np.add(corners, [0, 0, k])) for k in range(len(array))]
        errors = [np.abs(at - one).max() for one in expected]
        k = int(np.argmin(errors))
        assert errors[k] < 1e-6
        np.testing.assert_allclose(values, array[k], atol=1e-6)
        taken.add(k)
    assert len(taken) == len(array)


def tilted(data, k):
    """A gantry turned by 15 degrees: each slice lies a little further along its columns than the one below it."""
    angle = np.deg2rad(15)
    data.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))]
    data.ImagePositionPatient = [-6.0, -31.0, -125.0 + 2.0 * k]


UNEVEN = tuple(-120.0 + 2.0 * k for k in range(20) if k not in (3, 4))


@pytest.mark.parametrize(
    "kind", ["straight", "oblique gantry", "uneven", "enhanced, feet first", "enhanced, head first"]
)
def test_a_parametric_map_holds_the_voxels_of_the_heat_map_file_at_their_place(scene, tmp_path, kind):
    ct = tmp_path / "ct"
    if kind.startswith("enhanced"):
        ct.mkdir()
        write_enhanced_ct(ct / "all.dcm", order=1 if "feet" in kind else -1)
    elif kind == "uneven":
        write_ct(ct, heights=UNEVEN)
    else:
        write_ct(ct, change=tilted if kind == "oblique gantry" else None)
    path, result = map_of(ct, tmp_path / "map.dcm")
    node = addScalarVolume(scene, result.heat_map.array, result.heat_map.ijkToRAS, name="map")
    writeVolumeFile(node, tmp_path / "map.nrrd")
    written = read_volume(tmp_path / "map.nrrd")
    assert_same_map(path, written.array, written.ijkToRAS)


def test_a_map_says_what_its_values_are_and_what_it_is_derived_from(tmp_path):
    write_ct(tmp_path / "ct")
    path, _ = map_of(tmp_path / "ct", tmp_path / "map.dcm")
    image, first = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "ct" / "IM000.dcm")
    (mapping,) = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("grad_cam-2", "99LESIONLENS")
    assert quantity.CodeMeaning == "Grad-CAM heat for malignant"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert image.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert len(image.SourceImageSequence) == 20
    assert "1 stands for 2.5" in image.DerivationDescription
    assert "Grad-CAM for malignant, L1, by lung-nodule-malignancy 1.1.0" in image.DerivationDescription
    assert "not for diagnosis" in image.SeriesDescription
    assert image.ContentQualification == "RESEARCH"
    by_height = {float(d.ImagePositionPatient[2]): d.SOPInstanceUID for d in readDatasets((tmp_path / "ct").iterdir())}
    for group in image.PerFrameFunctionalGroupsSequence:
        (derived_from,) = group.DerivationImageSequence[0].SourceImageSequence
        height = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        assert derived_from.ReferencedSOPInstanceUID == by_height[height]


def test_the_window_of_a_map_is_given_as_the_installed_highdicom_takes_it():
    older = SimpleNamespace(pm=SimpleNamespace(ParametricMap=lambda *, window_center, window_width: None))
    assert dicom_images._shownFrom(older, 0.0, 1.0) == {"window_center": 0.5, "window_width": 1.0}
    (given,) = dicom_images._shownFrom(hd, 0.0, 1.0).values()
    assert (given[0].WindowCenter, given[0].WindowWidth) == (0.5, 1.0)


def test_a_lesion_without_a_map_has_no_parametric_map(tmp_path):
    write_ct(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    bare = replace(result_for(volume, "L1"), heat_map=None)
    with pytest.raises(StructuredReportError, match="L1 has no heat map"):
        writeHeatMap(tmp_path / "map.dcm", bare, RUN, images_of(tmp_path / "ct"), number=1, seriesUID=hd.UID())
    assert not (tmp_path / "map.dcm").exists()


@pytest.mark.parametrize("change", [None, tilted], ids=["straight", "oblique gantry"])
def test_segments_are_the_given_masks_slice_by_slice_also_where_they_overlap(tmp_path, change):
    write_ct(tmp_path / "ct", change=change)
    volume = read_ct(tmp_path / "ct")
    ball = ball_of(volume)
    cube = np.zeros_like(ball.array)
    cube[9:14, 12:20, 10:18] = 1
    part = CTVolume(cube[9:14, 12:20, 10:18], part_of(volume, (10, 12, 9)), "cube")  # on a part of the lattice
    results = [result_for(volume, "ball", segment=ball), result_for(volume, "cube", segment=part)]
    assert (ball.array & cube).any()
    path = segmentation_of(tmp_path / "ct", results, tmp_path / "lesions.seg.dcm")
    segmentation = hd.seg.segread(path)
    assert segmentation.SegmentationType == "BINARY"
    assert (segmentation.Rows, segmentation.Columns) == volume.array.shape[1:]
    uids = [d.SOPInstanceUID for d in readDatasets(sorted((tmp_path / "ct").iterdir()))]
    for number, wanted in ((1, ball.array), (2, cube)):
        found = segmentation.get_pixels_by_source_instance(
            uids, segment_numbers=[number], assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(found[..., 0], wanted)
    described = segmentation.SegmentSequence
    assert [(d.SegmentLabel, d.SegmentAlgorithmType) for d in described] == [("ball", "MANUAL"), ("cube", "MANUAL")]
    assert all(d.AnatomicRegionSequence[0].CodeMeaning == "Lung" for d in described)


def test_lesions_that_do_not_overlap_are_the_given_masks_too_and_are_read_by_our_own_reader(tmp_path):
    write_ct(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    cube = np.zeros_like(volume.array, dtype=np.uint8)
    cube[2:4, 4:7, 20:25] = 1
    wanted = {"ball": ball_of(volume).array, "cube": cube}
    results = [result_for(volume, name, segment=CTVolume(m, volume.ijkToRAS, name)) for name, m in wanted.items()]
    path = segmentation_of(tmp_path / "ct", results, tmp_path / "lesions.seg.dcm")
    for mask in read_segments(path).masks:
        onCT = np.argwhere(wanted[mask.name])[:, ::-1]
        inMask = np.argwhere(mask.array)[:, ::-1]
        expected = transformed_points(volume.ijkToRAS, onCT)
        found = transformed_points(mask.ijkToRAS, inMask)
        assert len(found) == len(expected)
        distances = np.linalg.norm(found[:, None] - expected[None], axis=-1)
        assert distances.min(axis=0).max() < 1e-6


def test_a_box_is_filled_with_the_voxels_whose_centres_lie_in_it_and_says_that_it_is_a_box(tmp_path):
    write_ct(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    angle = np.deg2rad(30)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    box = LesionBox(BALL_RAS + 0.3, [9.0, 5.0, 7.0], turned, name="L1")
    results = [replace(result_for(volume, "L1"), box=box)]
    segmentation = hd.seg.segread(segmentation_of(tmp_path / "ct", results, tmp_path / "lesions.seg.dcm"))
    uids = [d.SOPInstanceUID for d in readDatasets(sorted((tmp_path / "ct").iterdir()))]
    found = segmentation.get_pixels_by_source_instance(uids, segment_numbers=[1], assert_missing_frames_are_empty=True)[
        ..., 0
    ]
    index = np.indices(volume.array.shape)[::-1].reshape(3, -1).T
    inBox = (transformed_points(volume.ijkToRAS, index) - box.centerRAS) @ box.axesRAS
    expected = (np.abs(inBox) <= box.sizeMm / 2).all(axis=1).reshape(volume.array.shape)
    assert expected.sum() > 100
    np.testing.assert_array_equal(found.astype(bool), expected)
    (described,) = segmentation.SegmentSequence
    assert (described.SegmentLabel, described.SegmentAlgorithmType) == ("box of L1", "SEMIAUTOMATIC")
    assert described.SegmentAlgorithmName == "Box filled with voxels"
    assert "not the outline" in described.SegmentDescription
    assert described.TrackingID == "L1"


def test_a_box_between_voxels_and_a_segment_beside_the_ct_are_still_something(tmp_path):
    write_ct(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    tiny = lesionVoxels(volume, LesionBox(BALL_RAS + [0.5, 0.5, 1.0], [0.2] * 3, name="tiny"))
    assert (tiny.array.sum(), tiny.isSegment) == (1, False)
    elsewhere = np.diag([1.0, 1.0, 1.0, 1.0])
    elsewhere[:3, 3] = [500, 500, 500]
    beside = CTVolume(np.ones((2, 2, 2), np.uint8), elsewhere, "beside")
    filled = lesionVoxels(volume, LesionBox(BALL_RAS, [6.0] * 3, name="L1", segment=beside))
    assert filled.array.any()
    assert not filled.isSegment
    fine = np.diag([0.1, 0.1, 0.1, 1.0])
    fine[:3, 3] = BALL_RAS + [0.3, 0.3, 0.9]
    grain = lesionVoxels(volume, LesionBox(BALL_RAS, [6.0] * 3, segment=CTVolume(np.ones((1, 1, 1), np.uint8), fine)))
    assert (grain.array.sum(), grain.isSegment) == (1, True)


def test_a_segmentation_of_uneven_slices_lies_on_the_even_ones_that_were_answered(tmp_path):
    write_ct(tmp_path / "ct", heights=UNEVEN)
    volume = read_ct(tmp_path / "ct")
    segmentation = hd.seg.segread(
        segmentation_of(tmp_path / "ct", [result_for(volume, "L1", segment=ball_of(volume))], tmp_path / "s.dcm")
    )
    held = np.flatnonzero(ball_of(volume).array.any(axis=(1, 2)))
    heights = [
        float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in segmentation.PerFrameFunctionalGroupsSequence
    ]
    expected = [transformed_points(volume.ijkToRAS, [0, 0, k])[2] for k in held]
    np.testing.assert_allclose(sorted(heights), expected, atol=1e-6)


def test_too_many_overlapping_lesions_for_the_memory_are_refused_with_what_to_do(tmp_path, monkeypatch):
    write_ct(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    results = [result_for(volume, name, size=size) for name, size in (("a", 6.0), ("b", 10.0))]
    whole = 5 * volume.array[0].size * 2
    monkeypatch.setattr(dicom_images, "_MAX_BYTES", whole // 2)  # parts of slices fit
    part = hd.seg.segread(segmentation_of(tmp_path / "ct", results, tmp_path / "part.dcm"))
    assert part.Rows < volume.array.shape[1]
    for mask, result in zip(read_segments(tmp_path / "part.dcm").masks, results, strict=True):
        expected = lesionVoxels(volume, result.box)
        assert mask.array.sum() == expected.array.sum()
        onCT = np.argwhere(expected.array)[:, ::-1] + expected.first
        center = transformed_points(mask.ijkToRAS, np.argwhere(mask.array)[:, ::-1]).mean(axis=0)
        np.testing.assert_allclose(center, transformed_points(volume.ijkToRAS, onCT).mean(axis=0), atol=1e-6)
    monkeypatch.setattr(dicom_images, "_MAX_BYTES", 100)
    with pytest.raises(StructuredReportError, match="2 lesions, some of which overlap.*classify fewer"):
        segmentation_of(tmp_path / "ct", results, tmp_path / "none.dcm")
    assert not (tmp_path / "none.dcm").exists()


def test_nothing_of_the_header_goes_along_but_what_files_it_with_its_study(tmp_path):
    def planted(data, _k):
        for keyword, value in PLANTED.items():
            setattr(data, keyword, value)
        data.PatientBirthDate = "19500101"
        private = data.private_block(0x0011, "PRIVATE", create=True)
        private.add_new(1, "LO", NOT_ITS)

    write_ct(tmp_path / "ct", change=planted)
    assert NOT_ITS.encode() in (tmp_path / "ct" / "IM000.dcm").read_bytes()
    written = [map_of(tmp_path / "ct", tmp_path / "map.dcm")[0]]
    written.append(segmentation_of(tmp_path / "ct", [result_for(read_ct(tmp_path / "ct"), "L1")], tmp_path / "s.dcm"))
    for path in written:
        assert NOT_ITS.encode() not in path.read_bytes()
        data = pydicom.dcmread(path)
        assert (str(data.PatientName), data.PatientID, data.AccessionNumber) == ("Doe^John", "4711", "7")
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_header_with_values_that_are_not_valid_is_left_empty_and_names_in_any_letters_are_kept(tmp_path):
    def odd(data, _k):
        data.SpecificCharacterSet, data.PatientName = "ISO_IR 100", "Müller^Jörg"
        tag = Tag("PatientBirthDate")
        data._dict[tag] = RawDataElement(tag, "DA", 4, b"1950", 0, False, True)
        del data.AccessionNumber

    write_ct(tmp_path / "ct", change=odd)
    results = [result_for(read_ct(tmp_path / "ct"), "腫瘤 \\ rechts\n2")]
    image = pydicom.dcmread(segmentation_of(tmp_path / "ct", results, tmp_path / "s.dcm"))
    assert str(image.PatientName) == "Müller^Jörg"
    assert (image.AccessionNumber, image.PatientBirthDate) == ("", "")
    assert image.SegmentSequence[0].SegmentLabel == "box of 腫瘤 / rechts 2"


def written_all(ct: Path, folder: Path) -> tuple[Path, Path, Path]:
    """A segmentation of a segment and a box, the map of the first, and the report of both."""
    volume, datasets = read_ct(ct), readDatasets(sorted(ct.iterdir()))
    results = [result_for(volume, "L1", segment=ball_of(volume)), replace(result_for(volume, "L2"), heat_map=None)]
    images, objects = images_of(ct), [LesionObjects(hd.UID()) for _ in results]
    seg, pm, sr = folder / "lesions.seg.dcm", folder / "gradcam_1.dcm", folder / "results.dcm"
    image = writeSegmentation(seg, results, RUN, images, volume, trackingUIDs=[of.trackingUID for of in objects])
    objects = [replace(of, segmentation=(image, number)) for number, of in enumerate(objects, start=1)]
    heat = writeHeatMap(pm, results[0], RUN, images, number=1, seriesUID=hd.UID())
    objects[0] = replace(objects[0], heatMap=heat)
    writeStructuredReport(sr, results, RUN, datasets, objects=objects)
    return seg, pm, sr


def test_the_report_refers_to_segments_and_maps_and_names_the_finding_site(tmp_path):
    write_ct(tmp_path / "ct")
    seg, pm, sr = written_all(tmp_path / "ct", tmp_path)
    segmentation, heat, report = pydicom.dcmread(seg), pydicom.dcmread(pm), hd.sr.srread(sr)
    groups = report.content.get_volumetric_roi_measurement_groups()
    for number, group in enumerate(groups, start=1):
        described = segmentation.SegmentSequence[number - 1]
        assert (group.tracking_uid, group.tracking_identifier) == (described.TrackingUID, described.TrackingID)
        assert group.reference_type == hd.sr.CodedConcept("121191", "DCM", "Referenced Segment")
        items = group[0].ContentSequence
        (segment,) = [i for i in items if i.name.value == "121191"]
        assert segment.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert segment.ReferencedSOPSequence[0].ReferencedSegmentNumber == number
        faces = [i for i in items if i.name.value == "box"]
        assert len(faces) == 2
        said = {i.name.value: i.value for i in items if i.name.value in ("111000", "122405")}
        assert (said["111000"].meaning, said["122405"]) == ("Artificial Intelligence", "LesionLens")
        (site,) = group.finding_sites
        assert site.value.meaning == "Lung"
        maps = [i for i in items if i.name.value == "121200"]
        uids = [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in maps]
        assert uids == ([heat.SOPInstanceUID] if number == 1 else [])
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    images = {d.SOPInstanceUID for d in readDatasets((tmp_path / "ct").iterdir())}
    assert evidence == images | {segmentation.SOPInstanceUID, heat.SOPInstanceUID}


def test_the_box_beside_a_segment_is_read_back_to_a_thousandth_of_a_millimetre(tmp_path):
    write_ct(tmp_path / "ct")
    _, _, sr = written_all(tmp_path / "ct", tmp_path)
    for group in hd.sr.srread(sr).content.get_volumetric_roi_measurement_groups():
        faces = [i.GraphicData for i in group[0].ContentSequence if i.name.value == "box"]
        corners = np.concatenate([np.reshape(face, (5, 3))[:4] for face in faces])
        expected = LesionBox(BALL_RAS, [8.0] * 3).cornersRAS * [-1, -1, 1]
        assert np.linalg.norm(corners[:, None] - expected[None], axis=-1).min(axis=0).max() < 1e-3


@NEEDS_VALIDATOR
@pytest.mark.parametrize("kind", ["straight", "oblique gantry", "uneven", "enhanced"])
def test_a_validator_that_is_not_ours_finds_no_error_in_any_of_them(tmp_path, kind):
    ct = tmp_path / "ct"
    if kind == "enhanced":
        ct.mkdir()
        write_enhanced_ct(ct / "all.dcm")
    else:
        write_ct(
            ct,
            heights=UNEVEN if kind == "uneven" else tuple(-120.0 + 2.0 * k for k in range(20)),
            change=tilted if kind == "oblique gantry" else None,
        )
    for path, iod in zip(
        written_all(ct, tmp_path), ("Segmentation", "ParametricMap", "Comprehensive3DSR"), strict=True
    ):
        said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False, timeout=60)
        lines = (said.stdout + said.stderr).splitlines()
        assert [line for line in lines if line.startswith("Error")] == []
        assert iod in lines


def test_a_heat_map_goes_out_as_nifti_at_its_place_and_a_tilted_one_is_refused(scene, tmp_path):
    write_ct(tmp_path / "ct")
    found = heat_map(read_ct(tmp_path / "ct"))
    node = addScalarVolume(scene, found.array, found.ijkToRAS, name="map")
    writeVolumeFile(node, tmp_path / "map.nii.gz")
    written = read_volume(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(written.array, found.array, atol=1e-6)
    np.testing.assert_allclose(written.ijkToRAS, found.ijkToRAS, atol=1e-4)
    write_ct(tmp_path / "tilted", change=tilted)
    found = heat_map(read_ct(tmp_path / "tilted"))
    node = addScalarVolume(scene, found.array, found.ijkToRAS, name="map")
    with pytest.raises(OutputError, match=r"gantry tilt.*write \.nrrd"):
        writeVolumeFile(node, tmp_path / "tilted.nii.gz")
    assert not (tmp_path / "tilted.nii.gz").exists()
