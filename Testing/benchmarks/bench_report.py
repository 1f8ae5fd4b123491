"""What the pictures of a report take beside the answers that they show: ``python Testing/benchmarks/bench_report.py``.

``lesionlens classify`` on a computed CT with many boxes, the model in the process itself; time of the processor, of all threads,
so that it counts for nothing what else the machine does. With the pictures is counted that the scene is saved.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bench_memory
import numpy as np

BOXES = 150
_MEASURED = """
import sys, time
from LesionLensApp import classify, cli
taken = {}
def measured(name):
    function = getattr(classify, name)
    def call(*arguments, **named):
        before = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            taken[name] = time.process_time() - before
    setattr(classify, name, call)
measured("_classified"), measured("_drawn")
code = cli.main(sys.argv[1:])
print("taken", taken["_classified"], taken["_drawn"])
sys.exit(code)
"""


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=BOXES, help=f"how many (default: {BOXES})")
    boxes = parser.parse_args().boxes
    answers, pictures = measured(boxes)
    print(f"{boxes} boxes: {answers:.2f} s of the processor for the answers, {pictures:.2f} s for pictures and scene")


def measured(boxes: int) -> tuple[float, float]:
    """Seconds of the processor for the answers, and for the pictures and the scene."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ct = bench_memory.write_ct(folder / "ct.nii", bench_memory.SMALL_SLICES)
        rows = ["name,frame,center_x,center_y,center_z,size_x,size_y,size_z"]
        for number in range(boxes):
            numbers = (*rng.uniform([60, 60, 15], [350, 350, 65]), *rng.uniform(8, 20, 3))
            rows.append(f"L{number + 1},RAS," + ",".join(f"{each:.2f}" for each in numbers))
        (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
        arguments = ["classify", str(ct), "--boxes", str(folder / "boxes.csv"), "--out", str(folder / "out")]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *arguments, "--answer-anyway", "--accelerator", "off"],
            capture_output=True, text=True, check=True, env={**os.environ, "LESIONLENS_ACCELERATOR": "off"},
        )  # fmt: skip
    answers, pictures = map(float, done.stdout.rpartition("taken")[2].split()[:2])
    return answers, pictures


if __name__ == "__main__":
    main()
