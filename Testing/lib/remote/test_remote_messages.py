"""The part of a CT that is sent is enough: from it a server cuts the very input, bit for bit, that the whole CT gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import InputWarning, VolumeError, WarningName
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.input_checks import volume_warnings
from LesionLib.inference.messages import EmbeddingRequest, RunOptions, RunRequest, WireError
from LesionLib.inference.runner import InProcessRunner
from LesionLib.remote.messages import (
    bytes_of_frame,
    digest_of,
    frame_of_bytes,
    question_from_bytes,
    question_to_bytes,
)
from LesionLib.sampling.content_hash import window_hashes
from LesionLib.sampling.inputs import crop_sample, reach_of
from LesionLib.sampling.planes import KeySliceSpec, OrthogonalPlanesSpec, SliceWithNeighboursSpec
from LesionLib.sampling.resample import AxialStackSpec
from LesionLib.sampling.statistics import lesion_statistics
from LesionLib.sampling.volumes import IsotropicCubeSpec
from scored_model import small_model

SPECS = [
    AxialStackSpec(),
    AxialStackSpec(fit_box=True),
    SliceWithNeighboursSpec(view="box", slices="every"),
    OrthogonalPlanesSpec(margin_mm=5.0),
    KeySliceSpec(),
    IsotropicCubeSpec(edge_mm=40.0, voxels=32),
    IsotropicCubeSpec(edge_mm=30.0, voxels=32, margin_mm=(8.0, 8.0, 8.0), box_channel=True),
]
TURN = np.deg2rad(35)
TURNED = np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def volume() -> CTVolume:
    """Noise, so that one voxel in another place is seen; oblique and left-handed, as CTs are."""
    array = np.random.default_rng(0).integers(-1000, 400, (110, 190, 180), dtype=np.int16)
    matrix = np.eye(4)
    matrix[:3, :3] = TURNED @ np.diag([-1.3, -1.3, 2.0])
    matrix[:3, 3] = [110.3, 120.7, -90.1]
    return CTVolume(array, matrix, "noise")


def box_at(volume: CTVolume, ijk: tuple[int, int, int], size: tuple[float, float, float], axes=None) -> LesionBox:
    centre = (volume.ijkToRAS @ [*ijk, 1])[:3] + 0.37
    return LesionBox(centre, np.array(size), np.eye(3) if axes is None else axes, name="L1")


def arrived(request, reach):
    return question_from_bytes(question_to_bytes(request, reach))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{type(spec).__name__}-{getattr(spec, 'edge_mm', '')}")
@pytest.mark.parametrize(
    ("ijk", "size", "axes"),
    [((90, 95, 55), (12, 9, 15), None), ((4, 186, 2), (20, 14, 9), TURNED.T), ((90, 95, 55), (70, 12, 10), TURNED)],
    ids=["inside", "in a corner, turned", "longer than the patch"],
)
def test_the_part_that_is_sent_gives_the_same_input_bit_for_bit(volume, spec, ijk, size, axes):
    box = box_at(volume, ijk, size, axes)
    request = RunRequest("m", volume, [box])
    message = question_to_bytes(request, reach_of(spec))
    there = question_from_bytes(message)
    here = crop_sample(volume, box, spec)
    again = crop_sample(there.volume, there.boxes[0], spec)
    assert np.array_equal(here.hu, again.hu)
    assert here.outside_share == again.outside_share
    assert there.volume.array.shape == volume.array.shape
    assert np.array_equal(window_hashes(volume, box, margin_mm=3.0), window_hashes(there.volume, box, margin_mm=3.0))
    assert lesion_statistics(volume, box) == lesion_statistics(there.volume, box)
    if max(size) < 20:
        assert len(message) < volume.array.nbytes / 2


def test_of_a_model_that_looks_at_whole_slices_the_whole_ct_is_sent(volume):
    assert reach_of(SliceWithNeighboursSpec()) is None
    request = RunRequest("m", volume, [box_at(volume, (90, 95, 55), (12, 9, 15))])
    assert np.array_equal(arrived(request, None).volume.array, volume.array)


def test_options_names_and_segments_arrive_as_they_were(volume):
    mask = CTVolume(np.ones((3, 4, 5), np.uint8), np.eye(4), "seg")
    box = replace(box_at(volume, (90, 95, 55), (12, 9, 15)), segment=mask)
    there = arrived(RunRequest("m", volume, [box], RunOptions(box_jitter=3)), reach_of(SPECS[0]))
    assert there.options == RunOptions(box_jitter=3)
    assert np.array_equal(there.boxes[0].segment.array, mask.array)
    compared = EmbeddingRequest("m", volume, box, similar_to=np.arange(4, dtype=np.float32), query_only=True)
    assert np.array_equal(arrived(compared, reach_of(SPECS[0])).similar_to, compared.similar_to)


def test_what_is_damaged_on_the_way_is_no_message(volume):
    message = question_to_bytes(
        RunRequest("m", volume, [box_at(volume, (90, 95, 55), (12, 9, 15))]), reach_of(SPECS[0])
    )
    assert digest_of(message) != digest_of(message[:-1])
    for damaged in (message[:-1], message + b"x", b"", b"GIF89a" + message):
        with pytest.raises(WireError):
            frame_of_bytes(damaged)


@pytest.mark.parametrize("start", [[0, 0, 10**6], [-1, 0, 0], ["a", 0, 0], [0, 0], None])
def test_a_part_that_does_not_lie_in_its_ct_is_refused(volume, start):
    frame = frame_of_bytes(
        question_to_bytes(RunRequest("m", volume, [box_at(volume, (9, 9, 9), (9, 9, 9))]), reach_of(SPECS[0]))
    )
    frame.header["volume"]["within"]["start"] = start
    with pytest.raises((WireError, VolumeError)):
        question_from_bytes(bytes_of_frame(frame))


def test_a_ct_larger_than_any_is_refused_before_memory_is_asked_for(volume):
    frame = frame_of_bytes(
        question_to_bytes(RunRequest("m", volume, [box_at(volume, (9, 9, 9), (9, 9, 9))]), reach_of(SPECS[0]))
    )
    frame.header["volume"]["within"]["shape"] = [10**6, 10**6, 10**6]
    with pytest.raises(VolumeError, match="larger than is taken"):
        question_from_bytes(bytes_of_frame(frame))


def test_a_whole_answer_by_the_part_is_the_one_by_the_ct_but_for_what_is_said_of_the_ct(volume):
    from LesionLib.remote.messages import with_warnings_of

    odd = replace(volume, array=volume.array + np.int16(3000), warnings=(InputWarning(WarningName.MODALITY, "MR."),))
    request = RunRequest(small_model(), odd, [box_at(odd, (90, 95, 55), (12, 9, 15))], RunOptions(answer_anyway=True))
    runner = InProcessRunner()
    here = runner.run(request)
    model = runner.describe(small_model())
    there = with_warnings_of(odd, runner.run(arrived(request, reach_of(model.spec))))
    one, other = here.results[0], there.results[0]
    assert one.warnings == other.warnings
    assert [w.name for w in volume_warnings(odd)] == [WarningName.MODALITY, WarningName.NOT_HU]
    assert one.probabilities == other.probabilities
    assert one.embedding.tobytes() == other.embedding.tobytes()
    assert np.array_equal(one.heat_map.array, other.heat_map.array)
    assert np.array_equal(one.heat_map.ijkToRAS, other.heat_map.ijkToRAS)
    runner.close()
