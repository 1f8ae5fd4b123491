"""How fast a case library on a Milvus server answers, beside one in a file: ``python Testing/benchmarks/bench_server.py``.

A real server on this machine, started here and ended here, with synthetic cases as many as DeepLesion's; what a network adds is
not in it. Both libraries hold the same cases and are asked the same by the same calls of `CaseStore`, in turns, so that a busy
machine slows them alike. Printed are the median and the 95th percentile of n searches of the nine nearest, without and with
filters. The first search of each is left out: the file's reads all vectors into memory then.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from time import perf_counter
from types import ModuleType

import numpy as np
from bench_library import MODEL, K, cases, fill, seconds, size_parser, vectors_and_queries
from LesionRetrievalLib.library.cases import CaseEntry, CaseStore, Neighbour
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.server.library import MAX_CASES_AT_ONCE, MilvusLibrary

TESTS_OF_THE_SERVER = Path(__file__).parents[1] / "server" / "conftest.py"
FEWEST = 20
FILTERS = {
    "all": {},
    "other patients": {"scope": "cross-patient", "patient": f"{7:032x}"},
    "one organ": {"organ": "liver"},
    "one label": {"label": "label 3"},
    "by attributes": {"attributes": {"size": (10, 20), "phase": "venous"}},
}


def main() -> None:
    """Print one table: milliseconds of both libraries under each filter."""
    parser = size_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="searches under each filter at most (default: 200)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each filter, after 20 searches (default: 60)")
    chosen = parser.parse_args()
    matrix, queries = vectors_and_queries(chosen)
    print(f"{chosen.cases} cases of {chosen.dimension} numbers, best {K}; {machine()}")
    with both_libraries(matrix) as stores:
        heading = "".join(f"{f'{name}, median':>18}{'95th percentile':>18}" for name in stores)
        print(f"{'ms':16}{heading}{'ratio':>8}{'n':>6}{'differ':>8}")
        for what, filters in FILTERS.items():
            times, differ = in_turns(stores, queries, filters, seconds=chosen.seconds)
            figures = "".join(f"{np.median(t):18.1f}{np.percentile(t, 95):18.1f}" for t in times.values())
            ratio = float(np.median(times["server"]) / np.median(times["file"]))
            print(f"{what:16}{figures}{ratio:8.1f}{len(times['file']):6}{differ:8}", flush=True)


@contextmanager
def both_libraries(matrix: np.ndarray) -> Iterator[dict[str, CaseStore]]:
    """One in a file and one on a server that runs meanwhile, of the same cases."""
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "milvus") as address:
        path = Path(folder) / "cases.lesionlib"
        print(f"  writing the file: {seconds(lambda: fill(path, matrix)):.1f} s")
        with MilvusLibrary.create(address("bench"), model=MODEL, dimension=matrix.shape[1]) as server:
            print(f"  writing to the server: {seconds(lambda: push(server, matrix)):.1f} s", flush=True)
            with CaseLibrary.open(path) as file:
                yield {"file": file, "server": server}


def machine() -> str:
    """What the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    threads = sum(line.startswith("processor") for line in lines)
    return f"{model}, {threads} processors, milvus {version('milvus')}, pymilvus {version('pymilvus')}, numpy {np.__version__}"


@contextmanager
def running_server(folder: Path) -> Iterator[Callable[[str], str]]:
    """The server that the tests start: library name to its address."""
    from milvus import _initialize_data_files

    folder.mkdir()
    _initialize_data_files(str(folder))
    server = tests_of_the_server().Server(folder, folder / "bin" / "milvus")
    server.start()
    try:
        yield server.address
    finally:
        server.kill()


def tests_of_the_server() -> ModuleType:
    """What the tests share: no second way to start a server."""
    spec = importlib.util.spec_from_file_location("tests_of_the_server", TESTS_OF_THE_SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def push(server: MilvusLibrary, matrix: np.ndarray) -> None:
    """The cases of the file, as `transfer` writes them."""
    entries = (CaseEntry(case, vector) for case, vector in zip(cases(len(matrix)), matrix, strict=True))
    while bite := list(islice(entries, MAX_CASES_AT_ONCE)):
        server.add_many(bite, model_sha256=MODEL.sha256, by=None)


def in_turns(
    stores: dict[str, CaseStore], queries: np.ndarray, filters: dict[str, object], *, seconds: float
) -> tuple[dict[str, list[float]], int]:
    """Milliseconds of each query in each library, and to how many they gave different cases."""
    times: dict[str, list[float]] = {name: [] for name in stores}
    differ = 0
    for store in stores.values():
        search(store, queries[0], filters)
    end = perf_counter() + seconds
    for number, query in enumerate(queries):
        if number >= FEWEST and perf_counter() > end:
            break
        answers = []
        for name, store in stores.items():
            start = perf_counter()
            found = search(store, query, filters)
            times[name].append(1e3 * (perf_counter() - start))
            answers.append([neighbour.case_id for neighbour in found])
        differ += any(answer != answers[0] for answer in answers)
    return times, differ


def search(store: CaseStore, query: np.ndarray, filters: dict[str, object]) -> list[Neighbour]:
    """The nearest cases."""
    return store.search(query, k=K, model_sha256=MODEL.sha256, **filters)


if __name__ == "__main__":
    main()
