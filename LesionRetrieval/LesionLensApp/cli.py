"""The command line: ``lesionlens demo | classify | library | models | quiz | serve``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from LesionLib.errors import LesionLensError
from LesionLib.faults import DONE, INTERRUPTED, guarded
from LesionLib.inference.process import settle_this_process
from LesionLib.inference.results import HEAT_MAP_FORMATS
from LesionLib.io.leftovers import leftovers, leftovers_note
from LesionLib.model.folder import find_bundle, user_model_root
from LesionLib.terminal import notify
from LesionRetrievalLib.libraries import library_location

from LesionLensApp.library.commands import add_library_commands, add_reading_options
from LesionLensApp.models import add_models_commands
from LesionLensApp.options import (
    BOXES_HELP,
    Parser,
    add_machine_options,
    default_model,
    default_of,
    finished,
    model_for,
)
from LesionLensApp.output import NOTICE, Steps, check_output, print_results, print_where_to_look
from LesionLensApp.quiz.commands import add_quiz_commands
from LesionLensApp.serve.commands import add_serve

_SHOWN_FAILURES = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, else the exit code of `guarded`: 2 for bad input, 3 for a fault of ours."""
    settle_this_process()
    return guarded("lesionlens", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    Steps.quiet = options.quiet
    if getattr(options, "key", "") is None and (key := default_of("key")):
        options.key = Path(key)
    _note_leftovers(options)
    command(options)
    sys.stdout.flush()
    return DONE


def _note_leftovers(options: argparse.Namespace) -> None:
    """Of the places this command writes to."""
    places = [getattr(options, name, None) for name in ("out", "library")]
    places += [user_model_root()] if hasattr(options, "archive") else []
    for place in (place for place in places if isinstance(place, Path)):
        for left in leftovers(place):
            notify(f"lesionlens: {leftovers_note(left, place)}", sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = Parser(prog="lesionlens", description=f"Lesions on CT: what, why, and what similar ones were. {NOTICE}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_classify(commands)
    add_library_commands(commands, default_model=default_model())
    add_models_commands(commands)
    add_quiz_commands(commands, default_model=default_model())
    add_serve(commands)
    return finished(parser)


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("demo", help="the whole way on a computed phantom, without any data")
    parser.epilog = "Where LESIONLENS_DATA names a folder of real nodules (one CSV table, image/ and mask/), it runs on some of them."
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for the results (default: demo-out)")
    parser.add_argument("--model", default=default_model(), help="name or folder of a model")
    add_machine_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="another seed, another phantom")
    parser.set_defaults(command=_demo)


def _add_classify(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("classify", help="answer the boxes on a CT")
    parser.add_argument("volume", type=Path, nargs="?", help="DICOM folder, NRRD or NIfTI file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--boxes", type=Path, help=BOXES_HELP)
    where.add_argument(
        "--segmentation", type=Path, help="label map, .seg.nrrd or DICOM SEG: every segment becomes a box"
    )
    where.add_argument(
        "--batch", type=Path, metavar="TABLE",
        help="many CTs: a CSV with the columns name, volume and, in each row, one of boxes, segmentation, mask; --out gets one "
        "results.csv, and failed.csv; the same command goes on after a break",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="with --batch: N processes (default: 1)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", default="",
        help="with --batch: hand the cases out over a Ray cluster, --jobs of its processes at a time (auto, local, or ray://host:10001)",
    )  # fmt: skip
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="FILE",
        help="with --batch: the lesions' embeddings as a table, .parquet or .csv",
    )
    add_reading_options(parser)
    parser.add_argument(
        "--margin-mm", type=float, help="margin around a segment (default: what the model was made for)"
    )
    parser.add_argument(
        "--answer-anyway", action="store_true",
        help="show what the network computed also for lesions that the model has no answer for",
    )  # fmt: skip
    parser.add_argument(
        "--model", help=f"name or folder of a model (default: {default_model()}, or else that of --library)"
    )
    add_machine_options(parser)
    parser.add_argument("--library", type=library_location, help="case library to compare with")
    parser.add_argument("--similar", type=int, default=9, metavar="K", help="how many similar cases (default: 9)")
    parser.add_argument(
        "--box-jitter", "--redrawn", type=int, default=0, metavar="N",
        help="ask N boxes drawn a little differently too, and say how the answer moves (default: 0; 8 is a good number)",
    )  # fmt: skip
    parser.add_argument(
        "--map", choices=("grad_cam", "occlusion", "none"), dest="map_method",
        help="how the map of where the model looked is made; occlusion takes up to a minute a lesion (default: as the model chose)",
    )  # fmt: skip
    parser.add_argument("--key", type=Path, help="pseudonym key of the library: leaves out cases of the same patient")
    parser.add_argument("--series", help="which series of a DICOM folder: its number in the list, or its UID")
    parser.add_argument("--name", help="what to call the volume in results (default: name of the file or folder)")
    parser.add_argument(
        "--window", default="auto", metavar="WINDOW",
        help="of the pictures: auto (by what lies around each lesion), lung, soft-tissue, liver, bone, brain, or WIDTH,LEVEL",
    )  # fmt: skip
    parser.add_argument(
        "--with-series", action="store_true",
        help="of a DICOM folder: also the date of the study and the description of the series on the page, which may tell whose CT "
        "it is (default: left out)",
    )  # fmt: skip
    parser.add_argument("--dicom-sr", action="store_true", help="also a DICOM structured report, for a DICOM folder")
    parser.add_argument(
        "--dicom-seg", action="store_true", help="also the lesions as a DICOM segmentation, for a DICOM folder"
    )
    parser.add_argument(
        "--dicom-map", action="store_true", help="also the heat maps as DICOM parametric maps, for a DICOM folder"
    )
    parser.add_argument(
        "--heat-map-format", choices=HEAT_MAP_FORMATS, help="format of the heat map files (default: nrrd)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in --out")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON instead of a table")
    parser.set_defaults(command=_classify)


# The imports below are late on purpose: --help and a mistyped option answer at once.


def _demo(options: argparse.Namespace) -> None:
    steps = Steps()
    steps.begin("Loading torch and the model")
    from LesionLensApp.demo import ALSO, run_demo
    from LesionLensApp.loaded_model import ModelSession

    model = ModelSession.of(options)
    others = [name for name in ALSO if name != model.described.name]
    also = [ModelSession(name, device=options.device, threads=options.threads) for name in others]
    scores = model.described.scores
    run_demo(
        options.out, model, steps, also=also, seed=options.seed,
        answered=lambda results: print_results(results, options.out, scores=scores),
    )  # fmt: skip
    print_where_to_look(options.out)


def _classify(options: argparse.Namespace) -> None:
    if options.batch:
        options.model = options.model or model_for(None)
        _classify_batch(options)
        return
    if options.volume is None:
        msg = "no CT is given; name a DICOM folder, NRRD or NIfTI file before the options."
        raise LesionLensError(msg)
    if options.ray or options.embeddings:
        msg = "--ray and --embeddings go with --batch; leave them out, or give a table of CTs by --batch."
        raise LesionLensError(msg)
    check_output(options.out, overwrite=options.overwrite)
    if options.library is None and (library := default_of("library")):
        options.library = library_location(library)
    from LesionLensApp.reading import require_files

    options.model = options.model or model_for(options.library)
    # Before torch is loaded: what is mistyped is refused at once.
    find_bundle(options.model)
    require_files(options)
    steps = Steps()
    steps.begin("Loading torch and the model")
    from LesionLensApp.loaded_model import ModelSession

    model = ModelSession.of(options)
    from LesionLensApp.classify import classify_files

    if options.json:
        classify_files(options, model, steps)
        notify((options.out / "results.json").read_text(encoding="utf-8"))
        return
    scores = model.described.scores
    classify_files(options, model, steps, answered=lambda results: print_results(results, options.out, scores=scores))
    print_where_to_look(options.out)


def _classify_batch(options: argparse.Namespace) -> None:
    steps = Steps()
    steps.begin("Loading torch and the model")
    from LesionLensApp.batch import FAILED, RESULTS, run_batch

    try:
        batch = run_batch(options, steps)
    except KeyboardInterrupt:
        notify("lesionlens: interrupted; what is answered is kept, the same command goes on.", sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    for name, error in batch.failed[:_SHOWN_FAILURES]:
        steps.note(f"{name}: {error}")
    notify(f"{batch.answered} cases in {options.out / RESULTS}. {NOTICE}")
    if batch.failed:
        msg = f"{len(batch.failed)} of {batch.answered + len(batch.failed)} cases failed; see {options.out / FAILED}."
        raise LesionLensError(msg)


if __name__ == "__main__":
    sys.exit(main())
