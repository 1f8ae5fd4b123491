"""The border between a runner and its worker: what crosses it, how, and which Python stands on the other side."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from io import BytesIO

import numpy as np
import pytest
from LesionLib.errors import BoxError, InputWarning, LesionLensError, VolumeError, WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import (
    ReusedMemory,
    RunnerError,
    RunRequest,
    WireError,
    error_from_json,
    error_to_json,
    read_first_frame,
    read_frame,
    request_from_frame,
    request_to_frame,
    write_frame,
)
from LesionLib.inference.process import _kept_memory, worker_environment, worker_python
from LesionLib.inference.results import LesionResult
from LesionLib.model.folder import golden_case
from LesionLib.uncertainty.reliability import Reliability
from repository import ROOT

CROSSING = {
    CTVolume: {"array", "ijkToRAS", "name", "warnings", "slicesAtK", "missingSlices"},
    LesionBox: {"centerRAS", "sizeMm", "axesRAS", "name", "segment"},
    HeatMap: {"array", "ijkToRAS", "peak", "class_name", "method"},
    # Similar cases are added in the parent, from its library.
    LesionResult: {
        "name", "box", "label", "probabilities", "embedding", "heat_map", "warnings", "similar_cases", "reliability",
        "statistics", "model_input_boxes", "scores", "longest_mm",
    },
    Reliability: {"prediction_set", "target_coverage", "distance", "distance_threshold", "spread", "energy_inside"},
}  # fmt: skip


@pytest.mark.parametrize("kind", CROSSING)
def test_every_field_crosses_the_process_border(kind):
    assert {field.name for field in fields(kind)} == CROSSING[kind]


def test_a_request_comes_out_as_it_went_in():
    volume, box = golden_case()
    kinds = (WarningName.PHANTOM, WarningName.GPU_MEMORY)
    uneven = np.linspace(0, 1, volume.array.shape[0]) ** 2
    volume = replace(
        volume,
        warnings=tuple(InputWarning(kind, "text") for kind in kinds),
        slicesAtK=uneven,
        missingSlices=((1.0, 3.0),),
    )
    sent = RunRequest("model", volume, [box, replace(box, segment=None)])
    got = request_from_frame(request_to_frame(sent))
    np.testing.assert_array_equal(got.volume.array, volume.array)
    np.testing.assert_array_equal(got.volume.ijkToRAS, volume.ijkToRAS)
    np.testing.assert_array_equal(got.boxes[0].cornersRAS, box.cornersRAS)
    np.testing.assert_array_equal(got.boxes[0].segment.array, box.segment.array)
    np.testing.assert_array_equal(got.boxes[0].segment.ijkToRAS, box.segment.ijkToRAS)
    assert got.boxes[1].segment is None
    assert (got.model, got.options, got.volume.name, got.boxes[0].name) == (
        "model",
        sent.options,
        volume.name,
        box.name,
    )
    np.testing.assert_array_equal(got.volume.slicesAtK, uneven)
    assert got.volume.missingSlices == ((1.0, 3.0),)
    assert tuple(warning.name for warning in got.volume.warnings) == kinds


def test_an_error_keeps_its_kind_and_text_and_one_of_another_kind_its_nearest():
    class NewError(BoxError):
        pass

    for error, kind in ((BoxError("b"), BoxError), (NewError("b"), BoxError), (RunnerError("b"), RunnerError)):
        got = error_from_json(error_to_json(error))
        assert type(got) is kind
        assert str(got) == "b"
    assert isinstance(error_from_json({"error": "SystemExit", "message": "b"}), LesionLensError)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize <= 8, reason="here the longest number has 8 bytes")
def test_voxels_that_no_other_machine_knows_are_refused_before_anything_is_sent():
    volume, box = golden_case()
    with pytest.raises(VolumeError, match=r"float128 cannot be used; convert them to int16 or float32"):
        request_to_frame(RunRequest("model", replace(volume, array=volume.array.astype(np.longdouble)), [box]))


def test_memory_that_is_used_again_is_used_again():
    memory = ReusedMemory()
    first = memory((4, 5), np.dtype(np.int32))
    first[...] = 7
    second = memory((3, 3), np.dtype(np.int16))
    assert (first.shape, second.shape, second.dtype) == ((4, 5), (3, 3), np.int16)
    assert np.shares_memory(first, second)
    assert not np.shares_memory(first, memory((100, 100), np.dtype(float)))


def test_a_second_array_does_not_take_the_memory_of_the_first():
    stream = BytesIO()
    write_frame(stream, {}, [np.arange(6), np.zeros(6)])
    first, second = read_frame(BytesIO(stream.getvalue()), ReusedMemory()).arrays
    np.testing.assert_array_equal(first, np.arange(6))
    np.testing.assert_array_equal(second, np.zeros(6))


def test_importing_the_runner_imports_no_torch():
    code = (
        "import sys, LesionLib.inference.runner; sys.exit('torch' in sys.modules or 'multiprocessing' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=worker_environment(), check=False).returncode == 0


def test_inside_slicer_the_worker_is_started_by_pythonslicer(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "SlicerApp-real"))
    assert worker_python() == tmp_path / "SlicerApp-real"
    slicers = tmp_path / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    slicers.touch()
    assert worker_python() == slicers


def test_the_worker_finds_the_library_and_leaves_a_core_to_the_interface(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    environment = worker_environment()
    assert environment["PYTHONPATH"] == os.pathsep.join([str(ROOT / "LesionClassifier"), "elsewhere"])
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert 0 < int(environment["GOMP_SPINCOUNT"]) < 1000
    assert 1 <= int(environment["OMP_NUM_THREADS"]) <= max(1, os.cpu_count() - 1)


@pytest.mark.parametrize(
    ("library", "keeps"), [("glibc 2.36", True), ("glibc 2.35.1", True), ("glibc 2.34", False), (None, False), ("musl 1.2", False)]
)  # fmt: skip
def test_the_worker_keeps_its_memory_where_the_c_library_can_and_nobody_says_otherwise(monkeypatch, library, keeps):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "confstr", lambda _name: library, raising=False)
    assert ({"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} <= worker_environment().keys()) == keeps
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert worker_environment()["MALLOC_TRIM_THRESHOLD_"] == "1000"


def test_a_frame_comes_out_as_it_went_in_and_anything_else_is_refused():
    arrays = [np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::2], np.zeros((0, 3), np.float32)]
    stream = BytesIO()
    write_frame(stream, {"text": "größer"}, arrays)
    content = stream.getvalue()
    for frame in (read_frame(BytesIO(content)), read_first_frame(BytesIO(b"stray LLW text" + content))):
        assert frame.header == {"text": "größer"}
        for sent, got in zip(arrays, frame.arrays, strict=True):
            assert sent.dtype == got.dtype
            np.testing.assert_array_equal(sent, got)
    with pytest.raises(WireError):
        read_frame(BytesIO(b"stray" + content))
    with pytest.raises(EOFError):
        read_frame(BytesIO(content[:-1]))
    with pytest.raises(WireError, match="of type"):
        write_frame(BytesIO(), {}, [np.array([object()])])


_KEEPS = """
import ctypes, sys
from LesionLib.inference.process import settle_this_process
settle_this_process()
class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split()] + [("rest", ctypes.c_size_t * 5)]
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.mallinfo2.restype = ctypes.c_void_p, Mallinfo2
before = libc.mallinfo2().hblks
libc.malloc(ctypes.c_size_t(64 * 1024**2))
sys.exit(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
@pytest.mark.parametrize(("threshold", "mapped"), [(None, False), (str(1024**2), True)])
def test_a_command_keeps_its_memory_as_a_worker_does_unless_the_user_wants_otherwise(monkeypatch, threshold, mapped):
    if "MALLOC_MMAP_THRESHOLD_" not in _kept_memory():
        pytest.skip("a C library that cannot")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    if threshold is not None:
        monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", threshold)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "LesionClassifier")}
    assert (
        subprocess.run([sys.executable, "-c", _KEEPS], env=environment, check=False).returncode == mapped
    )  # 64 MB in a block of its own, which goes back to the system with the tensor
