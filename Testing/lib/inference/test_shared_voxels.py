"""A CT that the worker sees in memory: the one that was asked about, whatever came before, and nothing stays behind."""

from __future__ import annotations

import os
from contextlib import closing

import numpy as np
import pytest
from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference import process, shared_voxels
from LesionLib.inference.messages import RunRequest, WireError
from LesionLib.inference.runner import WorkerRunner
from LesionLib.inference.shared_voxels import SeenVoxels, SharedVoxels

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's")

# The worker's own loop, with an engine that needs no torch and says what it sees.
TELLER = """
from LesionLib.errors import LesionLensError
from LesionLib.inference import worker
class Engine:
    def warm(self, model, options): pass
    def run(self, request, **_):
        ct = request.volume.array
        raise LesionLensError(f"{ct.shape} {ct.dtype} {ct.astype(float).sum():.0f} {ct.flags.writeable}")
worker._engine = Engine
BEFORE
worker.main()
"""
BOX = LesionBox([5, 5, 5], [4, 4, 4], name="L1")


def ct(shape: tuple[int, int, int], seed: int, dtype: type = np.int16) -> CTVolume:
    return CTVolume(np.random.default_rng(seed).integers(-1000, 1000, shape).astype(dtype), np.eye(4))


def told_of(runner: WorkerRunner, volume: CTVolume) -> str:
    with pytest.raises(LesionLensError) as error:
        runner.run(RunRequest("any", volume, [BOX]))
    return str(error.value)


def expected(volume: CTVolume) -> str:
    return f"{volume.array.shape} {volume.array.dtype} {volume.array.astype(float).sum():.0f}"


def teller(before: str = "") -> WorkerRunner:
    return WorkerRunner(arguments=("-c", TELLER.replace("BEFORE", before)))


def test_the_worker_sees_the_ct_that_was_asked_about_whatever_came_before(monkeypatch):
    put = []
    original = SharedVoxels.put
    monkeypatch.setattr(SharedVoxels, "put", lambda self, *args: put.append(original(self, *args)) or put[-1])
    first, smaller, larger = ct((40, 128, 128), 1), ct((9, 256, 256), 2, np.float32), ct((60, 200, 128), 3)
    turned = CTVolume(ct((128, 60, 200), 4).array.transpose(1, 0, 2), np.eye(4))
    tiny = ct((12, 12, 12), 5)
    with closing(teller()) as runner:
        runner.start()
        runner.wait_until_warm()
        for volume in (first, smaller, larger, turned, first):
            assert told_of(runner, volume) == f"{expected(volume)} False"
        first.array[:] += 1  # the same array with other voxels
        assert told_of(runner, first) == f"{expected(first)} False"
        assert len(put) == 6
        assert all(put)
        assert told_of(runner, tiny) == f"{expected(tiny)} True"
        assert len(put) == 6


@pytest.mark.parametrize("why", ["the worker does not see it", "there is none", "no room"])
def test_without_it_everything_goes_through_the_pipe(monkeypatch, why):
    if why == "there is none":
        monkeypatch.delattr(os, "memfd_create")
    elif why == "no room":
        monkeypatch.setattr(shared_voxels.os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
    before = "worker.seen_voxels = lambda: None" if why.startswith("the worker") else ""
    volume = ct((40, 128, 128), 1)
    with closing(teller(before)) as runner:
        runner.start()
        runner.wait_until_warm()
        assert told_of(runner, volume) == f"{expected(volume)} True"


def test_the_memory_is_given_back_with_the_worker():
    with closing(teller()) as runner:
        runner.start()
        runner.wait_until_warm()
        told_of(runner, ct((40, 128, 128), 1))
        number = runner._process._voxels.number
        assert os.fstat(number).st_size == 40 * 128 * 128 * 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_transfer_stops_where_the_worker_was_ended():
    shared, asked = SharedVoxels(), []
    with closing(shared):
        big = np.zeros(3 * shared_voxels._AT_ONCE, np.uint8)
        assert shared.put(big, lambda: asked.append(1) or len(asked) < 2) is None
        assert os.fstat(shared.number).st_size == shared_voxels._AT_ONCE


@pytest.mark.parametrize(
    "described",
    [
        {"dtype": "<i2", "shape": [1000, 1000]},
        {"dtype": "<i2", "shape": [-1, -4]},
        {"dtype": "O", "shape": [4]},
        {"dtype": "<i2", "shape": [0]},
        {"dtype": "<i2", "shape": [1e999]},
        {"dtype": "<i2"},
        {"dtype": "<i2", "shape": 7},
    ],
)
def test_what_cannot_be_there_is_a_wire_error(monkeypatch, described):
    shared = SharedVoxels()
    with closing(shared):
        monkeypatch.setenv(process.PARENT_VARIABLE, str(os.getpid()))
        monkeypatch.setenv(shared_voxels.SHARED_VARIABLE, str(shared.number))
        array = np.arange(12, dtype=np.int16).reshape(3, 4)
        told = shared.put(array, lambda: True)
        seen = SeenVoxels()
        assert np.array_equal(seen.array(told), array)
        with pytest.raises(WireError):
            seen.array(described)
