"""How fast a case library is beside bare numpy, in one run: ``python Testing/benchmarks/bench_library.py``.

The bare way is one matrix product and `numpy.argpartition` over the same float32 vectors: no filter, no ties, no check
that the model is the right one, no cases. Opening is measured warm: the file has been read before. The ways take turns,
so that a busy machine slows them alike; the median of the turns counts. Absolute times drift with the machine; the
ratios are what to quote.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = ModelIdentity("benchmark", "1", "a" * 64)
K = 9
ORGANS = ("bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft tissue", "pelvis")
BARE = "bare numpy: product, argpartition"


def size_parser(about: str) -> argparse.ArgumentParser:
    """How large a library is measured; ``about``: the text whose first line says what is."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--cases", type=int, default=32_735, help="how many (default: DeepLesion's 32735)")
    parser.add_argument("--dimension", type=int, default=512, help="numbers a vector (default: 512)")
    return parser


def vectors_and_queries(chosen: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The library's vectors, of length 1, and those that are asked for, float32 (number, dimension) each."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((chosen.cases, chosen.dimension), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix, rng.standard_normal((chosen.rounds, chosen.dimension)).astype(np.float32)


def main() -> None:
    """Print one table: milliseconds, and how many times the bare way goes into it."""
    parser = size_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="turns, of which the median counts (default: 50)")
    chosen = parser.parse_args()
    matrix, queries = vectors_and_queries(chosen)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.lesionlib"
        started = perf_counter()
        fill(path, matrix)
        print(f"{chosen.cases} x {chosen.dimension}, numpy {np.__version__}, best {K}")
        size = path.stat().st_size / 1e6
        print(f"writing in one transaction: {perf_counter() - started:.1f} s, {size:.0f} MB")
        opening = median(seconds(lambda: opened_and_asked(path, queries[0])) for _ in range(5))
        print(f"opening, with its first answer, warm: {opening:.2f} s")
        report(path, matrix, queries)


def cases(count: int) -> Iterator[Case]:
    """Three lesions a patient, a few attributes each."""
    for i in range(count):
        attributes = {"size": float(i % 50), "phase": ("venous", "arterial")[i % 2]}
        organ, patient = ORGANS[i % len(ORGANS)], f"{i // 3:032x}"
        yield Case(f"c{i:07}", f"label {i % 20}", "histology", organ, patient, patient, attributes)


def fill(path: Path, matrix: np.ndarray) -> None:
    """A library of these vectors."""
    with CaseLibrary.create(path, model=MODEL, dimension=matrix.shape[1]) as library:
        library.add_many(zip(cases(len(matrix)), matrix, strict=True), model_sha256=MODEL.sha256)


def opened_and_asked(path: Path, query: np.ndarray) -> None:
    """All that a user waits for before the first answer."""
    with CaseLibrary.open(path) as library:
        library.search(query, k=K, model_sha256=MODEL.sha256)


def report(path: Path, matrix: np.ndarray, queries: np.ndarray) -> None:
    """The table of queries."""
    times = compared(path, matrix, queries)
    for name, milliseconds in times.items():
        print(f"{name:36}{milliseconds:8.2f} ms  ratio {milliseconds / times[BARE]:.2f}")


def compared(
    path: Path,
    matrix: np.ndarray,
    queries: np.ndarray,
    *,
    also: dict[str, Callable[[np.ndarray], object] | None] | None = None,
) -> dict[str, float]:
    """Median milliseconds of a query in each way. ``also``: other ways, None for one that is not installed.

    Raises `AssertionError` where the library's nine are not those of the bare way.
    """
    patient = f"{7:032x}"
    with CaseLibrary.open(path) as library:

        def ours(**filters: object) -> Callable[[np.ndarray], list[str]]:
            return lambda query: [
                found.case_id for found in library.search(query, k=K, model_sha256=MODEL.sha256, **filters)
            ]

        ways = {
            BARE: lambda query: bare(matrix, query),
            "library, all": ours(),
            "library, other patients": ours(scope="cross-patient", patient=patient),
            "library, one organ": ours(organ="liver"),
            "library, by attributes": ours(attributes={"size": (10, 20), "phase": "venous"}),
            **{name: way for name, way in (also or {}).items() if way is not None},
        }
        assert all(set(ways[BARE](query)) == set(ways["library, all"](query)) for query in queries)
        return in_turns(ways, queries)


def bare(matrix: np.ndarray, query: np.ndarray) -> list[str]:
    """The nine nearest, in no order."""
    return [f"c{i:07}" for i in np.argpartition(-(matrix @ query), K)[:K]]


def in_turns(ways: dict[str, Callable[[np.ndarray], object]], queries: np.ndarray) -> dict[str, float]:
    """Median milliseconds of each way; in an order drawn for each query, for the next one finds caches full of another matrix."""
    turns: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(queries[0])
    names, drawn = list(ways), np.random.default_rng(0)
    for query in queries:
        for name in drawn.permutation(names):
            way = ways[name]
            turns[name].append(seconds(lambda way=way, query=query: way(query)))
    return {name: 1e3 * median(times) for name, times in turns.items()}


def seconds(call: Callable[[], object]) -> float:
    """How long it takes."""
    started = perf_counter()
    call()
    return perf_counter() - started


if __name__ == "__main__":
    main()
