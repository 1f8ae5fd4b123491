"""``lesionlens classify --batch``: a table of CTs and their lesions in, one table of answers out.

The model is loaded once a process. A case that cannot be answered does not stop the others: it is named in ``failed.csv``. What
is answered is kept in the folder as it comes, so that the same command goes on after a break. Over several machines the cases
are handed out by Ray (``--ray``), which knows how; all of them must see the files under the same paths.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from LesionLib.errors import LesionLensError, OutputError
from LesionLib.geometry import require_overlap
from LesionLib.inference.messages import AcceleratorChoice, RunOptions, RunRequest
from LesionLib.inference.results import as_csv
from LesionLib.io.private_files import open_private, private_folder, write_private
from LesionLib.io.tables import csv_text
from LesionLib.model.folder import find_bundle, map_method, segment_margin_of

from LesionLensApp.case_table import (
    CASE_FAILURES,
    BatchCase,
    Reading,
    failed_table,
    failure_text,
    lesions_of,
    read_batch,
)
from LesionLensApp.loaded_model import ModelSession, accelerator_of
from LesionLensApp.output import Steps
from LesionLensApp.reading import (
    frame_source,
    require_numbers,
    warnings_of_box,
    with_reader_warnings,
)

RESULTS, FAILED = "results.csv", "failed.csv"
_PARTS, _MAX_JOBS = "answered", 64
_EMBEDDING = "embedding"  # a column of the parts only
_TABLES = (".parquet", ".csv")
_REACHED_S = 10.0
_FIRST = ("name", "lesion", "label")
_LAST = ("set", "usable", "warning_codes")


@dataclass(frozen=True)
class Batch:
    """What became of a batch: cases with an answer (``earlier`` of them by an earlier run), and (case, error) of the others."""

    answered: int
    earlier: int
    failed: tuple[tuple[str, str], ...]


def run_batch(options: argparse.Namespace, steps: Steps) -> Batch:
    """Answer every case of ``options.batch`` and leave `RESULTS` and `FAILED` in ``options.out``.

    Raises a `LesionLensError` for a bad table or option; a bad case is one of `Batch.failed`.
    """
    require_batch_options(options)
    require_numbers(options)
    cases = read_batch(options.batch)
    reading = Reading(
        options.margin_mm, options.split_parts, options.nifti_transform, options.box_jitter, options.answer_anyway
    )
    find_bundle(options.model)  # refused at once where it is mistyped
    parts = _parts_folder(options.out)
    session = ModelSession.of(options)
    if options.overwrite:  # after all that can be refused: the earlier answers go
        for old in (*parts.glob("*.csv"), options.out / RESULTS, options.out / FAILED):
            old.unlink(missing_ok=True)
    answered = {case.name: _part_of(parts, session.described.sha256, reading, case) for case in cases}
    open_cases = [case for case in cases if not answered[case.name].is_file()]
    failed: dict[str, str] = {}
    who = session.described
    what = f"Classifying {len(open_cases)} cases with {who.name} {who.version} on {who.device}"
    if len(open_cases) < len(cases):
        steps.note(
            f"{len(cases) - len(open_cases)} of {len(cases)} cases are answered already; --overwrite begins anew."
        )
    outcomes = _outcomes(open_cases, session, options, reading)
    for case, table, error in steps.each(outcomes, what, total=len(open_cases)):
        if error:
            failed[case.name] = error
        else:
            write_private(answered[case.name], table)
    done = [case for case in cases if case.name not in failed]
    tables = [(case.name, answered[case.name].read_text("utf-8")) for case in done]
    rows = [(name, row) for name, text in tables for row in csv.DictReader(io.StringIO(text))]
    write_private(options.out / RESULTS, _joined(rows))
    if options.embeddings:
        _write_embeddings(options.embeddings, rows)
    named = [(case.name, case.where, failed[case.name]) for case in cases if case.name in failed]
    write_private(options.out / FAILED, failed_table(named))
    return Batch(len(done), len(cases) - len(open_cases), tuple((name, error) for name, _, error in named))


def _outcomes(
    cases: Sequence[BatchCase], session: ModelSession, options: argparse.Namespace, reading: Reading
) -> Iterator[tuple[BatchCase, str, str]]:
    """(case, its rows as CSV, why there are none), in the order in which they are ready."""
    jobs = min(options.jobs, len(cases))
    if options.ray:
        yield from _by_ray(cases, options, reading)
        return
    if jobs < 2:
        yield from ((case, *_answered(case, session, reading)) for case in cases)
        return
    threads = max(1, (options.threads or os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(str(options.model), options.device, threads, accelerator_of(options)),
    ) as pool:
        waiting = {pool.submit(_answered_there, case, reading): case for case in cases}
        try:
            for future in as_completed(waiting):
                yield (waiting[future], *future.result())
        except BrokenProcessPool as error:
            msg = (
                "A process of the batch died, most often for lack of memory. What is answered is kept: run the same command "
                "again, with a smaller --jobs."
            )
            raise LesionLensError(msg) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _by_ray(
    cases: Sequence[BatchCase], options: argparse.Namespace, reading: Reading
) -> Iterator[tuple[BatchCase, str, str]]:
    """As `_outcomes`, by ``options.jobs`` actors of a Ray cluster, each with the model loaded once. Raises `LesionLensError`."""
    import ray
    from ray.util import ActorPool

    try:
        _require_somebody(options.ray)
        ray.init(options.ray, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray's own have no class in common
        msg = f"no Ray cluster answers at {options.ray} ({' '.join(str(error).split())[:200]}); start one by ray start --head."
        raise LesionLensError(msg) from error
    try:
        actor = ray.remote(num_gpus=0 if options.device == "cpu" or not ray.cluster_resources().get("GPU") else 1)(
            _Answering
        )
        jobs = max(1, min(options.jobs, len(cases)))
        given = (str(options.model), options.device, options.threads, accelerator_of(options))
        pool = ActorPool([actor.remote(*given) for _ in range(jobs)])
        yield from pool.map_unordered(lambda there, case: there.answer.remote(case, reading), cases)
    except ray.exceptions.RayError as error:
        msg = (
            f"Ray gave up ({type(error).__name__}: {' '.join(str(error).split())[:300]}). What is answered is kept: run the same "
            "command again."
        )
        raise LesionLensError(msg) from error
    finally:
        ray.shutdown()


def _require_somebody(address: str) -> None:
    """Whoever listens at host:port; Ray itself waits for minutes. Raises `OSError`."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_S).close()


class _Answering:
    """A process of a Ray cluster."""

    def __init__(self, model: str, device: str, threads: int | None, accelerator: AcceleratorChoice) -> None:
        self._session = ModelSession(model, device=device, threads=threads, accelerator=accelerator)

    def answer(self, case: BatchCase, reading: Reading) -> tuple[BatchCase, str, str]:
        return case, *_answered(case, self._session, reading)


_of_this_process: dict[str, ModelSession] = {}


def _begin(model: str, device: str, threads: int, accelerator: AcceleratorChoice) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    _of_this_process["session"] = ModelSession(model, device=device, threads=threads, accelerator=accelerator)


def _answered_there(case: BatchCase, reading: Reading) -> tuple[str, str]:
    return _answered(case, _of_this_process["session"], reading)


def _answered(case: BatchCase, session: ModelSession, reading: Reading) -> tuple[str, str]:
    """The rows of one case as CSV, and ""; or "" and what is wrong with it."""
    try:
        return _classified(case, session, reading), ""
    except CASE_FAILURES as error:
        return "", failure_text(error)


def _classified(case: BatchCase, session: ModelSession, reading: Reading) -> str:
    from LesionLib.io.volumes import read_ct, series_at  # late: a mistyped table is refused at once

    series = series_at(case.volume, case.series)
    volume = read_ct(case.volume, series=series or case.series, nifti_transform=reading.nifti_transform)
    margin_mm = segment_margin_of(session.described.manifest) if reading.margin_mm is None else reading.margin_mm
    boxes, odd = lesions_of(case, volume, series, reading, margin_mm)
    for box in boxes:
        require_overlap(volume, box)
    # Nobody sees a map of a batch; one that is made at once costs little and says how much of it lies inside.
    folder = session.described.folder
    shown = None if map_method(folder) == "grad_cam" else "none"
    options = RunOptions(box_jitter=reading.box_jitter, answer_anyway=reading.answer_anyway, map_method=shown)
    response = session.run(RunRequest(str(folder), volume, boxes, options))
    frame = frame_source(case.lesions if case.kind == "boxes" else None)
    of_boxes = [warnings_of_box(volume, box, frame=frame) for box in boxes]
    results = with_reader_warnings(response.results, (*volume.warnings, *odd), of_boxes)
    rows = list(csv.reader(io.StringIO(as_csv(replace(response.info, volume=case.name), results))))
    embeddings = [_EMBEDDING, *(json.dumps([float(f"{x:.9g}") for x in result.embedding]) for result in results)]
    return csv_text([[*row, embedding] for row, embedding in zip(rows, embeddings, strict=True)])


def _parts_folder(out: Path) -> Path:
    """The folder in ``out`` where answers are kept as they come; only a folder of a batch is gone on with. `OutputError`."""
    parts = out / _PARTS
    try:
        if out.is_dir() and any(out.iterdir()) and not parts.is_dir():
            msg = f"{out} is not empty and no folder of a batch; give another one with --out."
            raise OutputError(msg)
        private_folder(out)
        private_folder(parts)
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}); choose another folder with --out."
        raise OutputError(msg) from error
    return parts


def _part_of(parts: Path, model_sha256: str, reading: Reading, case: BatchCase) -> Path:
    """Where the answers of a case are kept: another file as soon as model, options or the case's files change."""
    described = [model_sha256, repr(reading), case.name, case.kind, case.series or ""]
    described += [_state_of(path) for path in (case.volume, case.lesions)]
    return parts / f"{sha256(json.dumps(described).encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.csv"


def _state_of(path: Path) -> str:
    """Path, sizes and times of a file, or of the files of a folder; "missing" where there is none."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return repr((str(path), [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]))
    except (OSError, ValueError):
        return repr((str(path), "missing"))


def _joined(rows: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """One table out of the cases' names and rows: a row a lesion, the case's name before the lesion's.

    Rows that an older version kept may lack columns; theirs are empty.
    """
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    classes = [column for column in columns if column.startswith("p_")]
    elsewhere = ("name", "label", "prediction_set", "volume", "grad_cam", _EMBEDDING, *_LAST, *classes)
    rest = [column for column in columns if column not in elsewhere]
    table: list[Sequence[str]] = [(*_FIRST, *classes, *_LAST, *rest)]
    for name, row in rows:
        first = (name, row["name"], row["label"])
        table.append(
            (
                *first,
                *(row.get(c, "") for c in classes),
                row["prediction_set"],
                *(row.get(c, "") for c in (*_LAST[1:], *rest)),
            )
        )
    return csv_text(table)


def _write_embeddings(path: Path, rows: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """A row a lesion, in the order of the answers: case, lesion, label, model, and the L2-normalised embedding as columns e0, e1, ...

    Raises `OutputError` for answers of a version that kept none, and for a place that cannot be written.
    """
    if any(not row.get(_EMBEDDING) for _, row in rows):
        msg = "some answers were kept by an older version, without embeddings; answer again with --overwrite."
        raise OutputError(msg)
    vectors = [json.loads(row[_EMBEDDING]) for _, row in rows]
    columns: dict[str, list] = {
        "name": [name for name, _ in rows],
        "lesion": [row["name"] for _, row in rows],
        "label": [row["label"] for _, row in rows],
        "model_sha256": [row["model_sha256"] for _, row in rows],
    }
    numbers = {f"e{i}": [vector[i] for vector in vectors] for i in range(len(vectors[0]) if vectors else 0)}
    try:
        if path.suffix.lower() == ".csv":
            table = columns | numbers
            write_private(path, csv_text([list(table), *zip(*table.values(), strict=True)]))
            return
        import pyarrow
        from pyarrow import parquet

        arrays = {name: pyarrow.array(values, pyarrow.float32()) for name, values in numbers.items()}
        with open_private(path) as file:
            parquet.write_table(pyarrow.table(columns | arrays), file)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place for --embeddings."
        raise OutputError(msg) from error


def require_batch_options(options: argparse.Namespace) -> None:
    """Refuse options that say something of one CT only. Raises `LesionLensError`."""
    one_only = {
        "a CT": options.volume, "--series": options.series, "--name": options.name, "--library": options.library,
        "--dicom-sr": options.dicom_sr, "--dicom-seg": options.dicom_seg, "--dicom-map": options.dicom_map,
        "--heat-map-format": options.heat_map_format, "--map": options.map_method, "--with-series": options.with_series,
    }  # fmt: skip
    given = [name for name, value in one_only.items() if value]
    if given:
        msg = f"--batch takes its cases from the table; leave out {', '.join(given)}, which go with one CT."
        raise LesionLensError(msg)
    if not 1 <= options.jobs <= _MAX_JOBS:
        msg = f"--jobs is {options.jobs}; give a number from 1 to {_MAX_JOBS}."
        raise LesionLensError(msg)
    if options.ray and find_spec("ray") is None:
        msg = "--ray needs Ray: pip install 'lesionlens[ray]'."
        raise LesionLensError(msg)
    if options.embeddings and options.embeddings.suffix.lower() not in _TABLES:
        msg = f"--embeddings is {options.embeddings.name}; its name ends in {' or '.join(_TABLES)}."
        raise LesionLensError(msg)
    if options.embeddings and options.embeddings.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        msg = "--embeddings as parquet needs pyarrow: pip install pyarrow, or name a .csv file."
        raise LesionLensError(msg)
