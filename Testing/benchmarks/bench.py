"""All ratios with their peers, in one run: ``python Testing/benchmarks/bench.py``.

Every row is one of our ways beside the usual one, measured in turns on this machine: how many times as fast (or as small) ours is.
A peer that is not installed is "not measured". Absolute times drift with the machine; the ratios are what to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import bench_classify
import bench_frangi
import bench_library
import bench_memory
import bench_report
import bench_server
import bench_training
from LesionLensApp.output import NOTICE
from LesionLib.geometry import LesionBox
from LesionLib.inference.accelerator import (
    AcceleratorError,
    accelerated,
    accelerator_version,
    convert,
    golden_patches,
    measured_slowness,
)
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.messages import Precision, RunOptions, RunRequest
from LesionLib.inference.precision import choose_precision, interleaved_pairs_ms, machine
from LesionLib.inference.process import settled_environment
from LesionLib.inference.runner import WorkerRunner
from LesionLib.io.volumes import read_ct
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.model.folder import DEFAULT_MODEL, golden_case, shipped_bundles
from LesionLib.networks.base import folded
from LesionLib.sampling.batches import crop_lesion, in_channels_last, lesions_at_once
from LesionRetrievalLib.library.search.rounded import vector_file_of

NOT_MEASURED = "not measured"
FLOAT32 = Precision("float32", "asked for")
_PROBES = 3


@dataclass(frozen=True)
class Row:
    """``ours`` and ``peer`` in ``unit``, None where not measured; ``ratio``: how many times ours goes into the peer's."""

    part: str
    what: str
    beside: str
    ours: float | None
    peer: float | None
    unit: str
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.peer / self.ours if self.ours and self.peer else None

    @property
    def cells(self) -> list[str]:
        """As the table has them."""
        numbers = [NOT_MEASURED if n is None else f"{n:.4g} {self.unit}" for n in (self.ours, self.peer)]
        return [
            self.what,
            *numbers,
            self.beside,
            NOT_MEASURED if self.ratio is None else f"{self.ratio:.2f}",
            self.note,
        ]


def main() -> None:
    """Measure, print, write ``bench.json`` and the page made from it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which (default: all)")
    parser.add_argument("--boxes", type=int, nargs="+", default=[1, 20], help="how many boxes (default: 1 20)")
    parser.add_argument("--slices", type=int, default=bench_memory.SIZE_IJK[2], help="of the long CT (default: 2000)")
    parser.add_argument("--cases", type=int, default=1_000_000, help="of the large library (default: 1000000)")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the numbers go")
    parser.add_argument("--page", type=Path, help="write this page from the numbers, as BENCHMARKS.md")
    options = parser.parse_args()
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="lesionlens-bench-")  # nothing measured before counts
    os.environ.pop("LESIONLENS_ACCELERATOR", None)
    rows = []
    for name in options.parts:
        print(f"{name}:", flush=True)
        for row in PARTS[name](options):
            rows.append(row)
            print("  " + "  ".join(cell for cell in row.cells if cell), flush=True)
    content = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine().split("; ")[0].split(" flags")[0].removeprefix("model name").lstrip("\t :"),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": {name: versions_of(name) for name in ("torch", "numpy", "monai", "openvino", "faiss-cpu")},
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.page:
        options.page.write_text(page(content), encoding="utf-8")


def versions_of(name: str) -> str:
    """Of a package, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def page(content: dict) -> str:
    """The numbers for people, in Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    lines = [
        "# Benchmarks", "",
        "Made by `make bench` from `bench.json`; not written by hand. A ratio says how many times as fast, or as small, ours is as",
        "its peer, both measured in turns in one run. Times are this machine's, the ratios are what to quote.", "",
        f"{content['date']}: {content['machine']}, {content['threads']} threads, load {content['load']};",
        f"{content['system']}; {versions}.",
        "",
    ]  # fmt: skip
    for part in dict.fromkeys(row["part"] for row in content["rows"]):
        lines += [f"## {part}", "", "| what | ours | peer | beside | ratio | |", "|---|---|---|---|---|---|"]
        for row in content["rows"]:
            if row["part"] == part:
                cells = Row(**{key: value for key, value in row.items() if key != "ratio"}).cells
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def answers(options: argparse.Namespace) -> Iterator[Row]:
    """Whole answers with Grad-CAM of a ResNet-50, beside the usual way."""
    ct, boxes = bench_classify.phantom_ct(max(options.boxes))
    bundle = bench_classify.resnet50_bundle(ct, boxes)
    with as_a_command() as command:
        for count in options.boxes:
            usual = bench_classify.usual_way(bundle, ct, boxes[:count])
            for name, (ours, note) in command.submit(our_answers, max(options.boxes), count).result().items():
                notes = [bench_classify.agreement(usual, ours)] if ours else []
                yield Row(
                    "Answers", f"{count} boxes of 16 slices, ResNet-50, {name}",
                    "whole CT resampled, slice by slice, MONAI GradCAM", ours and ours.seconds, usual.seconds, "s",
                    "; ".join([*notes, note] if note else notes),
                )  # fmt: skip


@contextmanager
def as_a_command() -> Iterator[ProcessPoolExecutor]:
    """A process in which torch waits and keeps its memory as in a command of ours; in this one it is as everybody has it."""
    before = dict(os.environ)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        os.environ.update(settled_environment())
        try:
            pool.submit(os.getpid).result()  # it is there, with that environment
        finally:
            os.environ.clear()
            os.environ.update(before)
        yield pool


def our_answers(most: int, count: int) -> dict[str, tuple[bench_classify.Measured | None, str]]:
    """Those of the first boxes of ``most``, by way, each with a note; None where it is not measured."""
    ct, boxes = bench_classify.phantom_ct(most)
    bundle = bench_classify.resnet50_bundle(ct, boxes)
    chosen = choose_precision(bundle.network, bench_classify.example_pictures(ct, boxes[0]))
    found = {}
    for precision in (FLOAT32, chosen) if chosen.name != "float32" else (FLOAT32,):
        found[precision.name] = bench_classify.our_way(bundle, ct, boxes[:count], precision), ""
        network, note = of_accelerator(bundle, precision)
        note = note or (of_probe(bundle, precision) if count == 1 else "")
        fast = network and bench_classify.our_way(bundle, ct, boxes[:count], precision, network=network)
        found[f"OpenVINO, {precision.name}"] = fast, note
    return found


def of_accelerator(bundle: Bundle, precision: Precision = FLOAT32) -> tuple[torch.nn.Module | None, str]:
    """The network computed by OpenVINO, whether it pays or not; or why there is none."""
    if accelerator_version() is None:
        return None, "OpenVINO is not installed"
    try:
        convert(bundle, must_pay=False)
        return accelerated(bundle, precision), ""
    except AcceleratorError as error:
        return None, str(error)


def of_probe(bundle: Bundle, precision: Precision | None = None) -> str:
    """Whether OpenVINO pays, measured anew each time."""
    model = convert(bundle, must_pay=False) / "model.xml"
    said = ["no" if measured_slowness(bundle, model, precision) else "yes" for _ in range(_PROBES)]
    return f"does it pay, asked {_PROBES} times anew: {', '.join(said)}"


def crops(_options: argparse.Namespace) -> Iterator[Row]:
    """One box cut out of a CT, beside the whole CT resampled."""
    ct, boxes = bench_classify.phantom_ct(1)
    ours = median(bench_classify.timed(lambda: crop_lesion(ct, boxes[0], bench_classify.SPEC))[0] for _ in range(5))
    whole = bench_classify.timed(lambda: bench_classify.resampled(ct))[0]
    yield Row("Input", "a box of 16 slices of 224 x 224", "whole-volume resampling", 1e3 * ours, 1e3 * whole, "ms")


def networks(_options: argparse.Namespace) -> Iterator[Row]:
    """The features of the models that ship, beside eager float32."""
    with as_a_command() as command:
        for name in sorted(shipped_bundles()):
            yield from command.submit(of_model, name).result()


def of_model(name: str) -> list[Row]:
    """One lesion, and as many as go at once."""
    bundle = load_bundle(name)
    bundle = replace(bundle, network=folded(bundle.network))  # as it answers
    fast, note = of_accelerator(bundle)
    note, rows = note or of_probe(bundle), []
    for count in (1, lesions_at_once(crop_lesion(*golden_case(), bundle.spec))):
        patches = in_channels_last(torch.cat([golden_patches(bundle)] * count))
        with torch.no_grad():
            pairs = interleaved_pairs_ms(
                lambda p=patches: bundle.network.features(p), lambda p=patches: (fast or bundle.network).features(p),
                rounds=20, fewest=6, budget_s=6.0,
            )  # fmt: skip
        eager, ours = (median(times) for times in zip(*pairs, strict=True))
        what = f"{name}, {count} lesion{'s at once' if count > 1 else ''}, OpenVINO float32"
        part, beside = "Networks that ship", "eager float32"
        rows.append(Row(part, what, beside, ours if fast else None, eager, "ms of processor", note))
        note = ""
    return rows


def frangi(_options: argparse.Namespace) -> Iterator[Row]:
    """The filter of one picture, beside the usual ones."""
    times = bench_frangi.milliseconds(bench_frangi.lung_like(16), 5)
    times.setdefault("scikit-image", None)
    for name, peer in times.items():
        if name not in (bench_frangi.OURS, bench_frangi.FLOOR):
            yield Row("Frangi", "41 scales on 64 x 64, batch of 16", name, times[bench_frangi.OURS], peer, "ms")


def library(_options: argparse.Namespace) -> Iterator[Row]:
    """The nine most similar of DeepLesion's number of cases, beside bare products."""
    with as_a_command() as command:
        yield from command.submit(of_library).result()


def of_library() -> list[Row]:
    """Beside numpy, and apart from that beside faiss: whoever comes after it finds caches full of its own matrix."""
    matrix, queries = bench_library.vectors_and_queries(argparse.Namespace(cases=32_735, dimension=512, rounds=30))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.lesionlib"
        bench_library.fill(path, matrix)
        beside = {bench_library.BARE: bench_library.compared(path, matrix, queries)}
        faiss = of_faiss(matrix)
        beside["faiss flat"] = bench_library.compared(path, matrix, queries, also={"faiss flat": faiss})
    return [
        Row("Search", f"32,735 x 512, best 9: {way.removeprefix('library, ')}", peer, times[way], times.get(peer), "ms")
        for peer, times in beside.items()
        for way in times
        if way.startswith("library")
    ]


def large(options: argparse.Namespace) -> Iterator[Row]:
    """A library so large that its vectors are kept rounded and mapped from a file."""
    with as_a_command() as command:
        yield from command.submit(of_large_library, options.cases).result()


def of_large_library(count: int) -> list[Row]:
    """Beside numpy with all float32 vectors in memory, which gives the same nine: `compared` sees to that."""
    matrix, queries = bench_library.vectors_and_queries(argparse.Namespace(cases=count, dimension=512, rounds=10))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.lesionlib"
        bench_library.fill(path, matrix)
        opened_s = median(
            bench_library.seconds(lambda: bench_library.opened_and_asked(path, queries[0])) for _ in range(5)
        )
        times = bench_library.compared(path, matrix, queries)
        rounded_mb = vector_file_of(path).stat().st_size / 1e6
    of, peer = f"{count:,} x 512", bench_library.BARE
    return [
        *(
            Row("Search", f"{of}, best 9: {way.removeprefix('library, ')}", peer, times[way], times[peer], "ms")
            for way in times
            if way.startswith("library")
        ),
        Row("Search", f"{of}, vectors in memory", "float32", rounded_mb, matrix.nbytes / 1e6, "MB"),
        Row(
            "Search", f"{of}, opened and asked once (goal: 2 s)", peer, opened_s, None, "s", "the file was read before"
        ),
    ]


def server(_options: argparse.Namespace) -> Iterator[Row]:
    """The same cases on a Milvus server of this machine."""
    name, what = "Milvus on this machine", "32,735 x 512, best 9: "
    if find_spec("milvus") is None:
        yield Row("Search", f"{what}all", name, None, None, "ms", "Milvus is not installed")
        return
    size = argparse.Namespace(cases=32_735, dimension=512, rounds=bench_server.FEWEST)
    matrix, queries = bench_library.vectors_and_queries(size)
    with bench_server.both_libraries(matrix) as stores:
        for filters_name, filters in bench_server.FILTERS.items():
            times, differ = bench_server.in_turns(stores, queries, filters, seconds=0)
            ours, theirs = (median(times[store]) for store in ("file", "server"))
            note = f"the same nine in {len(queries) - differ} of {len(queries)}"
            yield Row("Search", f"{what}{filters_name}", name, ours, theirs, "ms", note)


def of_faiss(matrix: np.ndarray) -> Callable[[np.ndarray], object] | None:
    """An exact search by faiss; None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix)
    return lambda query: index.search(query[None], bench_library.K)


def start(_options: argparse.Namespace) -> Iterator[Row]:
    """The first answer of the command line on a small CT, and all that it leaves, beside torch alone, in time of the processor."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ct = bench_memory.write_ct(folder / "ct.nii", bench_memory.SMALL_SLICES)
        ours = min(processor_s(lambda n=n: bench_memory.of_command(ct, n, folder)) for n in range(3))
        first = min(until_answered_s(bench_memory.command(ct, f"first{n}", folder)) for n in range(3))
        torch_s = min(
            processor_s(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True)) for _ in range(3)
        )
    yield Row(
        "Start", "classify one box, until the answer is printed (goal: 3 s)", "import torch", first, torch_s,
        "s of processor",
    )  # fmt: skip
    yield Row("Start", "classify one box, report and scene included", "import torch", ours, torch_s, "s of processor")


def worker(_options: argparse.Namespace) -> Iterator[Row]:
    """The answer of a warm worker for one box with the model that is offered first, beside the classifier in the same process."""
    with tempfile.TemporaryDirectory() as name:
        volume = read_ct(bench_memory.write_ct(Path(name) / "ct.nii", bench_memory.SMALL_SLICES))
    options = RunOptions(precision="float32", accelerator="off", answer_anyway=True)
    box = LesionBox([float(x) for x in bench_memory.middle_mm()], [16.0, 16.0, 16.0], name="L1")
    bundle = load_bundle(DEFAULT_MODEL)
    here = Classifier(replace(bundle, network=folded(bundle.network)), volume)
    with closing(WorkerRunner()) as runner:
        runner.start(DEFAULT_MODEL, options)
        runner.wait_until_warm()
        request = RunRequest(DEFAULT_MODEL, volume, [box], options)
        ways = {"worker": lambda: runner.run(request), "here": lambda: here.classify(box)}
        for way in ways.values():
            way()
        times = {name: min(bench_classify.timed(way)[0] for _ in range(9)) for name, way in ways.items()}
    what = f"one box, {DEFAULT_MODEL}, float32, a worker that is warm (goal: 100 ms)"
    yield Row("Start", what, "the classifier alone", 1e3 * times["worker"], 1e3 * times["here"], "ms")


def batch(_options: argparse.Namespace) -> Iterator[Row]:
    """Three CTs in one batch, beside one: the start is paid once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_memory.write_ct(folder / "ct.nii", bench_memory.SMALL_SLICES)
        center = ",".join(bench_memory.middle_mm())
        (folder / "boxes.csv").write_text(
            f"name,frame,center_x,center_y,center_z,size_x,size_y,size_z\nL1,RAS,{center},16,16,16\n"
        )
        times = {}
        for count in (1, 5):
            table = folder / f"cases{count}.csv"
            table.write_text("name,volume,boxes\n" + "".join(f"c{n},ct.nii,boxes.csv\n" for n in range(count)))
            command = [sys.executable, "-c", bench_memory.COMMAND, "classify", "--batch", str(table)]
            command += ["--out", str(folder / f"out{count}"), "--answer-anyway", "--accelerator", "off"]
            times[count] = processor_s(lambda command=command: subprocess.run(command, check=True, capture_output=True))
    yield Row(
        "Start", "each further CT of a batch", "the first, start included", (times[5] - times[1]) / 4, times[1],
        "s of processor",
    )  # fmt: skip


def report(_options: argparse.Namespace) -> Iterator[Row]:
    """The pictures of a report with many lesions, beside their answers."""
    answers_s, pictures_s = bench_report.measured(bench_report.BOXES)
    what = f"pictures and scene of {bench_report.BOXES} boxes"
    yield Row("Report", what, "their answers", pictures_s, answers_s, "s of processor")


def training(_options: argparse.Namespace) -> Iterator[Row]:
    """A step of every public recipe as it is trained, beside eager float32 on data that are there."""
    bench_training.be_quiet()
    for each in bench_training.measured():
        note = f"{each.waiting:.0%} of the time is waiting for data"
        whole = each.step + each.loading
        yield Row(
            "Training", f"{each.recipe}, an item with its data", "the step alone, eager float32", whole, each.step,
            "ms of processor", note,
        )  # fmt: skip


def until_answered_s(command: list[str]) -> float:
    """What a command has taken when its answers are printed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        next(line for line in process.stdout if NOTICE in line)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.stdout.read()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor_s(call: Callable[[], object]) -> float:
    """What the processes took that a call started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory(options: argparse.Namespace) -> Iterator[Row]:
    """What the voxels of a long CT take, as multiples of their array."""
    for name, times, peak_mb in bench_memory.measured(options.slices):
        what = f"one box on 512 x 512 x {options.slices}, {name}"
        yield Row("Memory", what, "the array itself", times, 1.0, "x", f"peak of all processes {peak_mb:.0f} MB")


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "start": start, "worker": worker, "batch": batch, "crops": crops, "networks": networks, "answers": answers,
    "library": library, "large": large, "server": server, "frangi": frangi, "report": report, "memory": memory, "training": training,
}  # fmt: skip

if __name__ == "__main__":
    main()
