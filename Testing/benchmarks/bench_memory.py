"""How much memory one box on a long CT takes, over all processes: ``python Testing/benchmarks/bench_memory.py``.

A computed CT of 512 x 512 x 2,000 int16 voxels (1 GB) in a NIfTI file with slope 1; one box. Asked are the command line, and a
worker as Slicer has one. Peaks are those of Linux (``VmHWM``) with all that the libraries take; the same is asked of a short CT, and
the difference is what the voxels cost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIZE_IJK, SMALL_SLICES, SPACING_MM = (512, 512, 2000), 100, (0.8, 0.8, 0.8)
COMMAND = """
import sys
from LesionLensApp.cli import main
code = main(sys.argv[1:])
print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""
_WORKER = """
import sys
from pathlib import Path
from LesionLib.geometry import LesionBox
from LesionLib.inference.messages import RunOptions, RunRequest
from LesionLib.inference.runner import WorkerRunner
from LesionLib.io.volumes import read_ct
def peak(pid):
    return int(next(line.split()[1] for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM")))
runner = WorkerRunner()
runner.start("lung-nodule-kind", RunOptions(precision="float32"))
runner.wait_until_warm()
volume = read_ct(Path(sys.argv[1]))
box = LesionBox([float(x) for x in sys.argv[2:5]], [16.0, 16.0, 16.0], name="L1")
runner.run(RunRequest("lung-nodule-kind", volume, [box], RunOptions(precision="float32", answer_anyway=True)))
print("peak", peak("self") + peak(runner.pid))
runner.close()
"""


def main() -> None:
    """Print one line a way: peak of all processes, and how many times the array the voxels took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=SIZE_IJK[2], help="of the long CT (default: 2000)")
    for name, times, peak_mb in measured(parser.parse_args().slices):
        print(
            f"{name}: the voxels take {times:.2f} times their array; peak of all processes {peak_mb:.0f} MB", flush=True
        )


def measured(slices: int) -> list[tuple[str, float, float]]:
    """(way, memory for the voxels as a multiple of their array, peak in MB) of each way."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cts = {n: write_ct(folder / f"ct{n}.nii", n) for n in (SMALL_SLICES, slices)}
        more_mb = SIZE_IJK[0] * SIZE_IJK[1] * (slices - SMALL_SLICES) * 2 / 1e6
        for way, peak_of in (("command line", of_command), ("worker", of_worker)):
            small, large = (peak_of(cts[n], n, folder) for n in (SMALL_SLICES, slices))
            found.append((way, (large - small) / more_mb, large))
    return found


def write_ct(path: Path, slices: int) -> Path:
    """An uncompressed NIfTI file of lung with a ball of 12 mm in the middle of its first 100 slices."""
    header = np.zeros(352, np.uint8)
    header[:4] = np.frombuffer(np.int32(348).tobytes(), np.uint8)
    header[40:56] = np.frombuffer(np.array([3, *SIZE_IJK[:2], slices, 1, 1, 1, 1], "<i2").tobytes(), np.uint8)
    header[70:74] = np.frombuffer(np.array([4, 16], "<i2").tobytes(), np.uint8)
    header[76:92] = np.frombuffer(np.array([1.0, *SPACING_MM], "<f4").tobytes(), np.uint8)
    header[108:116] = np.frombuffer(np.array([352.0, 1.0], "<f4").tobytes(), np.uint8)
    header[123] = 2  # mm
    header[254:256] = np.frombuffer(np.array([1], "<i2").tobytes(), np.uint8)
    rows = np.zeros((3, 4), "<f4")
    rows[range(3), range(3)] = SPACING_MM
    header[280:328] = np.frombuffer(rows.tobytes(), np.uint8)
    header[344:348] = np.frombuffer(b"n+1\0", np.uint8)
    rng = np.random.default_rng(0)
    lung = np.round(rng.normal(-850, 25, SIZE_IJK[1::-1])).astype("<i2")
    row, column = np.ogrid[: SIZE_IJK[1], : SIZE_IJK[0]]
    with path.open("wb") as file:
        file.write(header.tobytes())
        for k in range(slices):
            radius_mm = np.sqrt(((row - 256) * 0.8) ** 2 + ((column - 256) * 0.8) ** 2 + ((k - 50) * 0.8) ** 2)
            file.write(np.where(radius_mm < 6.0, 30, np.roll(lung, 7 * k, axis=1)).astype("<i2").tobytes())
    return path


def middle_mm() -> list[str]:
    """Of the ball, RAS mm."""
    return [f"{index * step:g}" for index, step in zip((256, 256, 50), SPACING_MM, strict=True)]


def of_command(ct: Path, slices: int, folder: Path) -> float:
    """Peak of ``lesionlens classify`` in MB, report and scene included."""
    return peak_mb(command(ct, f"out{slices}", folder))


def command(ct: Path, out: str, folder: Path) -> list[str]:
    """``lesionlens classify`` of one box, which leaves everything in the folder ``out`` of ``folder``."""
    boxes = folder / "boxes.csv"
    boxes.write_text(
        "name,frame,center_x,center_y,center_z,size_x,size_y,size_z\nL1,RAS," + ",".join(middle_mm()) + ",16,16,16\n"
    )
    arguments = ["classify", str(ct), "--boxes", str(boxes), "--out", str(folder / out), "--answer-anyway"]
    return [sys.executable, "-c", COMMAND, *arguments]


def of_worker(ct: Path, _slices: int, _folder: Path) -> float:
    """Peak in MB of a program that has the CT and of its worker together."""
    return peak_mb([sys.executable, "-c", _WORKER, str(ct), *middle_mm()])


def peak_mb(command: list[str]) -> float:
    """What a program says of itself."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "LESIONLENS_ACCELERATOR": "off"}
    )
    return int(done.stdout.rpartition("peak")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
