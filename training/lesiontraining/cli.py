"""The command line of model building: ``lesiontrain check``, ``fit``, ``evaluate``, ``export``, ``index``, ``probe`` and more."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from LesionLib.errors import LesionLensError
from LesionLib.faults import DONE, guarded
from LesionLib.inference.process import keep_memory
from LesionLib.io.leftovers import leftovers, leftovers_note
from LesionLib.terminal import notify
from rich.console import Console
from rich.table import Table

_FIT = """Everything else is Lightning's: --config, --data.table, --model.init_args.lr, --trainer.max_epochs, --print_config, ...
A first run:   lesiontrain fit --config dmrn-lung-nodules --data.table lung_nodules --out runs/dmrn
Your table:    lesiontrain fit --config cross-entropy-table --data.table lesions.csv --data.label diagnosis --out runs/mine
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, else the exit code of `guarded`: 2 for bad input, 3 for a fault of ours."""
    keep_memory()  # a third of a step of large features
    return guarded("lesiontrain", lambda: _run(arguments), keeps_lines=True)


def _run(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _fit:
        parser.error(f"unknown: {' '.join(rest)}")
    options.rest = rest
    for left in leftovers(options.out) if getattr(options, "out", None) is not None else ():
        notify(f"lesiontrain: {leftovers_note(left, options.out)}", sys.stderr)
    options.command(options)
    sys.stdout.flush()
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options; those of ``fit`` that Lightning reads are left to it."""
    parser = argparse.ArgumentParser(prog="lesiontrain", description="Build models and measure them honestly.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_recipes(commands)
    _add_check(commands)
    _add_fit(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_index(commands)
    _add_retrieval(commands)
    _add_embed_bench(commands)
    _add_probe(commands)
    _add_lung_nodules(commands)
    _add_build(commands)
    _add_phantom(commands)
    _add_reproduce(commands)
    _add_annotate(commands)
    _add_box_margin(commands)
    return parser


def _add_recipes(commands: argparse._SubParsersAction) -> None:
    recipes = commands.add_parser("recipes", help="the recipes: paper, data that one must bring, hardware and time")
    recipes.add_argument("--json", action="store_true", help="as JSON instead of a table")
    recipes.set_defaults(command=_recipes)


def _add_check(commands: argparse._SubParsersAction) -> None:
    check = commands.add_parser("check", help="all that is wrong with a table of lesions, before anything is fitted")
    check.add_argument("table", type=Path)
    check.add_argument("--label", default="label", help="the column with the answers (default: label)")
    check.add_argument("--folds", type=int, help="how many folds are to be made of it")
    check.set_defaults(command=_check)


def _add_fit(commands: argparse._SubParsersAction) -> None:
    fit = commands.add_parser(
        "fit",
        help="fit a recipe on the folds of a table of lesions",
        epilog=_FIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument("--out", type=Path, required=True, help="folder of the run; what is finished there is left")
    fit.add_argument("--folds", default="0", help="the folds to hold out: 0, or 0,2, or all (default: 0)")
    fit.set_defaults(command=_fit)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("evaluate", help="figures and a page from the test lesions of a run")
    evaluate.add_argument("run", type=Path, nargs="+", help="the run; more runs on the same lesions stand beside it")
    evaluate.add_argument("--out", type=Path, help="folder of the report (default: RUN/report)")
    evaluate.add_argument("--draws", type=int, default=2000, help="bootstrap samples of patients (default: 2000)")
    evaluate.add_argument(
        "--positive", metavar="CLASS", help="of two classes the one that is looked for (default: the second)"
    )
    evaluate.set_defaults(command=_evaluate)


def _add_export(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser("export", help="a verified model folder from a run that was evaluated")
    export.add_argument("run", type=Path)
    export.add_argument("--out", type=Path, required=True, help="model folder to write")
    export.add_argument("--fold", type=int, help="whose network (default: the first finished fold's)")
    export.add_argument("--name", help="name of the model (default: that of the folder)")
    export.add_argument("--version", default="0.1.0")
    export.add_argument("--description", default="", help="what it answers, in a line")
    export.add_argument(
        "--intended-use", default="Research and teaching. Not for diagnosis or any decision about a patient."
    )
    export.add_argument("--license", type=Path, required=True, help="text file with the licence of weights and data")
    export.set_defaults(command=_export)


def _add_index(commands: argparse._SubParsersAction) -> None:
    index = commands.add_parser("index", help="a case library from a table of lesions, by a model folder")
    index.add_argument("table", type=Path)
    index.add_argument("--model", required=True, help="model folder, or the name of a model that comes along")
    index.add_argument("--out", type=Path, required=True, help="the library to write")
    index.add_argument("--reader", default="table", help="how the table is read (default: table)")
    index.add_argument("--label", default="label", help="the column with the answers")
    index.add_argument("--label-source", required=True, help="how they were established, such as histology")
    index.add_argument("--organ", default="not stated")
    index.add_argument("--key", type=Path, required=True, help="the owner's pseudonym key; made there at the first use")
    index.add_argument("--pictures", action="store_true", help="keep thumbnails of the CT")
    index.add_argument("--patches", action="store_true", help="keep the CT around each lesion")
    index.set_defaults(command=_index)


def _add_retrieval(commands: argparse._SubParsersAction) -> None:
    retrieval = commands.add_parser("retrieval", help="how well a model folder finds lesions with the same answer")
    retrieval.add_argument("table", type=Path)
    retrieval.add_argument("--model", required=True, help="model folder, or the name of a model that comes along")
    retrieval.add_argument("--reader", default="table", help="how the table is read (default: table)")
    retrieval.add_argument("--label", nargs="+", required=True, help="one or several columns with answers")
    retrieval.add_argument("--draws", type=int, default=2000, help="bootstrap samples of patients (default: 2000)")
    retrieval.add_argument("--out", type=Path, help="JSON file to write beside the printed tables")
    retrieval.set_defaults(command=_retrieval)


def _add_embed_bench(commands: argparse._SubParsersAction) -> None:
    bench = commands.add_parser("embed-bench", help="encoders side by side on a table, beside size and density")
    bench.add_argument("table", type=Path)
    bench.add_argument(
        "--model", nargs="+", required=True, metavar="MODEL",
        help="models by name or folder, or JSON files of ONNX networks (training/README.md)",
    )  # fmt: skip
    bench.add_argument("--reader", default="table", help="how the table is read (default: table)")
    bench.add_argument("--label", required=True, help="the column with the answers")
    bench.add_argument("--folds", default="5", help="how many folds, or the column that names them (default: 5)")
    bench.add_argument("--drawings", type=int, default=4, help="how often each box is drawn otherwise (default: 4)")
    bench.add_argument("--draws", type=int, default=2000, help="bootstrap samples of patients (default: 2000)")
    bench.add_argument("--out", type=Path, help="JSON file to write beside the printed table")
    bench.set_defaults(command=_embed_bench)


def _add_probe(commands: argparse._SubParsersAction) -> None:
    probe = commands.add_parser("probe", help="cross-validate and export a frozen network with a linear head")
    probe.add_argument("plan", help="a YAML file, or the name of a plan that comes along, such as lung-nodule-probe")
    probe.add_argument("--data", type=Path, required=True, help="the table of lesions, or the folder of the set")
    probe.add_argument(
        "--weights", type=Path, required=True, help="published weights of the network (.pth, .safetensors)"
    )
    _add_probe_outputs(probe)
    probe.set_defaults(command=_probe)


def _add_lung_nodules(commands: argparse._SubParsersAction) -> None:
    nodules = commands.add_parser("lung-nodules", help="train, cross-validate and export the models of lung nodules")
    nodules.add_argument(
        "--model", default="lung-nodule-malignancy", help="a YAML file, or the name of a plan that comes along"
    )
    nodules.add_argument("--data", type=Path, required=True, help="folder with nodules.csv, image/ and mask/")
    nodules.add_argument(
        "--imagenet", dest="weights", type=Path, required=True, help="ImageNet weights of MobileNetV2 (.pth)"
    )
    nodules.add_argument(
        "--readers", type=Path, help="folder with what each reader said (default: lidc_readers beside --data)"
    )
    nodules.add_argument(
        "--cache", type=Path, default=Path("runs/nodules"), help="folder where what the frozen network sees is kept"
    )
    nodules.add_argument(
        "--elsewhere", type=Path, nargs="+", default=(), help="CTs without nodules: how many boxes in them are refused"
    )
    nodules.add_argument(
        "--beside", type=Path, nargs="+", default=(), help="model folders to compare a model for retrieval with"
    )
    nodules.add_argument("--out", type=Path, required=True, help="model folder to write")
    nodules.set_defaults(command=_lung_nodules)
    recipes = commands.add_parser("nodule-recipes", help="what was tried for the malignancy of nodules, as a table")
    for name, description in (
        ("--data", "folder with nodules.csv, image/ and mask/"),
        ("--readers", "folder with what each reader said"),
        ("--imagenet", "ImageNet weights of MobileNetV2 (.pth)"),
        ("--out", "Markdown file to write"),
    ):
        recipes.add_argument(name, type=Path, required=True, help=description)
    recipes.add_argument("--cache", type=Path, default=Path("runs/nodules"), help="as of lung-nodules")
    recipes.set_defaults(command=_nodule_recipes)


def _add_build(commands: argparse._SubParsersAction) -> None:
    build = commands.add_parser("build", help="train, measure and export a model that comes along, by its plan")
    build.add_argument("plan", help="a YAML file, or the name of a plan that comes along, such as phantom-adrenal5")
    build.add_argument("--data", type=Path, help="the table or archive, for a plan that does not compute its own")
    build.add_argument("--runs", type=Path, default=Path("runs/build"), help="folder of what is made on the way")
    build.add_argument("--out", type=Path, required=True, help="model folder to write")
    build.set_defaults(command=_build)


def _add_phantom(commands: argparse._SubParsersAction) -> None:
    phantom = commands.add_parser("phantom", help="computed lesions with their truth, as a table to fit on")
    phantom.add_argument("variant", help="adrenal5, liver5, binary-fluid, search8 or retina5")
    phantom.add_argument("--out", type=Path, required=True, help="new folder for the table and its images")
    phantom.add_argument("--patients", type=int, help="how many; the variant's own number where left out")
    phantom.add_argument("--seed", type=int, help="the same seed gives the same bytes (default: 0)")
    knobs = phantom.add_argument_group("how hard it is (not for retina5); the variant's own values where left out")
    knobs.add_argument(
        "--imbalance", type=float, help="how many times as often the first class comes as the last (1: alike)"
    )
    knobs.add_argument("--variation", type=int, help="modes of mean HU within each class (1: none)")
    knobs.add_argument("--alike", type=float, help="share of the lesions whose pattern is half as strong, 0 to 1")
    knobs.add_argument("--size-confound", type=float, help="share of the lesions whose size tells the class, 0 to 1")
    phantom.set_defaults(command=_phantom)


def _add_reproduce(commands: argparse._SubParsersAction) -> None:
    again = commands.add_parser(
        "reproduce", help="the published claims tested on phantoms and public data, and their page"
    )
    again.add_argument(
        "--suite", choices=("phantom", "real"), help="computed lesions, or real ones; none: the page alone"
    )
    again.add_argument(
        "--budget", choices=("small", "full"), default="small", help="two cores or a GPU (default: small)"
    )
    again.add_argument(
        "--data", type=Path, help="folder that holds lung_nodules, lidc_readers and fundus, for --suite real"
    )
    again.add_argument("--weights", type=Path, help="published weights, for what starts from them")
    again.add_argument("--only", nargs="+", default=(), metavar="CLAIM", help="claims by a part of their name")
    again.add_argument("--hours", type=float, help="begin no run after so many; the same command goes on")
    again.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="folder of all that is large")
    again.add_argument("--results", type=Path, help="folder of the results (default: training/reproduction/results)")
    again.add_argument("--page", type=Path, help="the page (default: training/REPRODUCTION.md)")
    again.set_defaults(command=_reproduce)


def _add_probe_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--report", type=Path, help="folder for a page with all figures and charts")


def _add_annotate(commands: argparse._SubParsersAction) -> None:
    annotate = commands.add_parser(
        "annotate", help="complete what a model folder says of itself; weights and figures stay"
    )
    annotate.add_argument("model", type=Path, help="the model folder")
    annotate.add_argument(
        "--learned-from", type=Path, help="folder with one CSV table, image/ and mask/: its training lesions"
    )
    annotate.add_argument("--segment-margin-mm", type=float, help="how far boxes of training reached beyond a segment")
    annotate.add_argument(
        "--class-prior", type=float, nargs="+", default=(), help="share of each class that is assumed"
    )
    annotate.add_argument(
        "--finding-site", nargs=3, metavar=("SCHEME", "VALUE", "MEANING"),
        help="DICOM code of where in the body its lesions lie, such as SCT 39607008 Lung",
    )  # fmt: skip
    annotate.add_argument("--version", help="the version that says it")
    annotate.add_argument("--change", default="", help="a line for the change log")
    annotate.set_defaults(command=_annotate)


def _add_box_margin(commands: argparse._SubParsersAction) -> None:
    margin = commands.add_parser(
        "box-margin", help="what a margin around segments does to answers and similar cases, and what a user gets"
    )
    margin.add_argument("data", type=Path, help="folder with one CSV table, image/ and mask/")
    margin.add_argument("--model", required=True, help="model folder, or the name of a model that comes along")
    margin.add_argument("--label", default="malignant", help="the column with the answers (default: malignant)")
    margin.add_argument("--margins-mm", type=float, nargs="+", default=(2.0,), help="other margins to try (default: 2)")
    margin.add_argument("--draws", type=int, default=2000, help="bootstrap samples of patients (default: 2000)")
    margin.add_argument("--out", type=Path, help="JSON file to write beside the printed table")
    margin.set_defaults(command=_box_margin)


class _Clock:
    """Says what happens, with the seconds since the start, on stderr."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self.start:6.0f} s  {text}", file=sys.stderr, flush=True)


def _recipes(options: argparse.Namespace) -> None:
    from lesiontraining.commands.recipes import recipes

    if options.json:
        notify(json.dumps([{**asdict(recipe), "path": str(recipe.path)} for recipe in recipes()], indent=2))
        return
    table = Table(caption="lesiontrain fit --config NAME; see training/README.md")
    table.add_column("name", no_wrap=True)
    for heading in ("paper", "bring", "hardware and time"):
        table.add_column(heading)
    for recipe in recipes():
        table.add_row(recipe.name, recipe.paper, recipe.data, recipe.time)
    Console(highlight=False).print(table)


def _check(options: argparse.Namespace) -> None:
    from lesiontraining.data.checks import check_csv
    from lesiontraining.data.messages import TableError

    found = check_csv(options.table, label=options.label, folds=options.folds)
    for line, text in found.warnings:
        notify(f"{options.table.name}, line {line}: {text}", sys.stderr)
    if found.problems:
        raise TableError(options.table.name, found.problems, shown=len(found.problems))
    rows = found.table.rows
    counts = Counter(row.label for row in rows)
    classes = ", ".join(f"{counts[name]} {name}" for name in found.table.class_names)
    notify(f"{options.table.name}: {len(rows)} lesions of {len({row.patient for row in rows})} patients, {classes}.")


def _fit(options: argparse.Namespace) -> None:
    from lesiontraining.commands.fit import fit

    run = fit(options.out, options.rest, folds=options.folds, notify=_Clock())
    print(f"lesiontrain evaluate {run.path} makes figures and a page of it.")


def _evaluate(options: argparse.Namespace) -> None:
    from lesiontraining.commands.evaluate import MEAN, evaluate

    folder = evaluate(options.run, options.out, draws=options.draws, positive=options.positive, progress=_Clock())
    if (mean := folder / f"{MEAN}.md").is_file():
        print(mean.read_text(encoding="utf-8"))
    pages = [*folder.glob("mean_of_splits.html"), *sorted(folder.glob("split-*/report.html"))]
    for page in pages or [folder / "report.html"]:
        print(f"Open {page} in a browser.")


def _export(options: argparse.Namespace) -> None:
    from lesiontraining.commands.export import ExportError, ExportPlan, export

    try:
        license_text = options.license.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{options.license} cannot be read as text; give a file with the licence of the weights and the data."
        raise ExportError(msg) from error
    plan = ExportPlan(
        options.name or options.out.name, options.version, options.description, options.intended_use, license_text
    )
    sha256 = export(options.run, options.out, plan, fold=options.fold)
    print(f"{options.out}: verified, sha256 {sha256}")


def _index(options: argparse.Namespace) -> None:
    from LesionLib.inference.devices import best_device
    from LesionLib.model.bundle import load_bundle

    from lesiontraining.commands.index import IndexPlan, index
    from lesiontraining.data.readers.registry import read_with

    table = read_with(options.reader, options.table, label=options.label, classes=None)
    bundle = load_bundle(options.model, device=best_device())
    plan = IndexPlan(options.label_source, options.organ, options.pictures, options.patches)
    progress = _every_50(_Clock())
    count = index(table, bundle, options.out, plan=plan, key_path=options.key, progress=progress)
    print(f"{options.out}: {count} cases by {bundle.name} {bundle.version}")


def _embed_bench(options: argparse.Namespace) -> None:
    from lesiontraining.commands.embed_bench import as_text, embed_bench, write_rows
    from lesiontraining.data.readers.registry import read_with
    from lesiontraining.runs.encoders import open_encoder

    if not (0 <= options.drawings <= 20 and 1 <= options.draws <= 100_000):
        msg = f"--drawings is {options.drawings} (0 to 20), --draws is {options.draws} (1 to 100000)."
        raise LesionLensError(msg)
    table = read_with(options.reader, options.table, label=options.label, classes=None)
    encoders = [open_encoder(model) for model in options.model]
    report = _every_50(_Clock())
    rows = embed_bench(
        table,
        encoders,
        folds=int(options.folds) if options.folds.isdecimal() else options.folds,
        drawings=options.drawings,
        draws=options.draws,
        progress=lambda _name, done, total: report(done, total),
    )
    notify(as_text(rows, table))
    if options.out is not None:
        write_rows(rows, options.out)


def _retrieval(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from LesionLib.inference.devices import best_device
    from LesionLib.model.bundle import load_bundle

    from lesiontraining.commands.retrieval import as_text, embedded, retrieval_rows, write_rows
    from lesiontraining.data.readers.registry import read_with

    tables = {label: read_with(options.reader, options.table, label=label, classes=None) for label in options.label}
    first = next(iter(tables.values()))
    bundle = load_bundle(options.model, device=best_device())
    model = embedded(first, bundle, progress=_every_50(_Clock()))
    found = {}
    for label, table in tables.items():
        of_label = replace(model, labels=table.labels, class_names=table.class_names)
        found[label] = retrieval_rows(of_label, f"{bundle.name} {bundle.version}", draws=options.draws)
        counts = {name: int((table.labels == c).sum()) for c, name in enumerate(table.class_names)}
        print(as_text(found[label], label, counts), end="\n\n")
    if options.out is not None:
        write_rows(found, options.out)


def _every_50(notify: _Clock) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            notify(f"{done} of {total} lesions")

    return progress


def _annotate(options: argparse.Namespace) -> None:
    from LesionLib.model.codes import DicomCode

    from lesiontraining.commands.annotate import Annotation, annotate
    from lesiontraining.data.contents import content_of_folder

    progress = _every_50(_Clock())
    content = content_of_folder(options.learned_from, progress=progress) if options.learned_from else None
    site = DicomCode(*options.finding_site) if options.finding_site else None
    annotation = Annotation(
        options.version, options.change, options.segment_margin_mm, tuple(options.class_prior), content, site
    )
    print(f"{options.model}: verified, sha256 {annotate(options.model, annotation)}")


def _box_margin(options: argparse.Namespace) -> None:
    from LesionLib.inference.devices import best_device
    from LesionLib.model.bundle import load_bundle

    from lesiontraining.commands.box_margin import as_text, asked, compared, write_comparison

    bundle = load_bundle(options.model, device=best_device())
    lesions = asked(
        options.data, bundle, margins_mm=options.margins_mm, label=options.label, progress=_every_50(_Clock())
    )
    found = compared(lesions, draws=options.draws)
    print(as_text(found))
    if options.out is not None:
        write_comparison(found, options.out)


def _probe(options: argparse.Namespace) -> None:
    from lesiontraining.commands.export import write_bundle
    from lesiontraining.commands.probe import probe, report
    from lesiontraining.commands.probe_card import card, manifest_head, manifest_section
    from lesiontraining.commands.probe_plan import read_plan

    notify = _Clock()
    plan = read_plan(options.plan)
    probed = probe(plan, options.data, options.weights, notify)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = card(plan, probed)
    sha256 = write_bundle(
        options.out,
        head=manifest_head(plan),
        lesionlens=manifest_section(plan, probed),
        network=probed.network,
        spec=plan.spec,
        calibration=probed.calibration(),
        card=text,
        license_text=plan.text.license,
    )
    print(text)
    notify(f"wrote {options.out}, sha256 {sha256}")
    if options.report is not None:
        report(plan, probed, options.report, notify)
        print(f"Open {options.report / 'report.html'} in a browser.")


def _nodule_recipes(options: argparse.Namespace) -> None:
    from lesiontraining.nodules.recipes import recipe_table

    text = recipe_table(
        data=options.data, readers=options.readers, weights=options.imagenet, cache=options.cache, notify=_Clock()
    )
    options.out.write_text(text, encoding="utf-8")
    print(text)


_KNOBS = ("imbalance", "variation", "alike", "size_confound")


def _phantom(options: argparse.Namespace) -> None:
    from lesiontraining.data.phantom_tables import BENCHMARK, harder, write_phantom_table

    if options.variant not in BENCHMARK:
        msg = f"there is no phantom {options.variant!r}; known are {', '.join(BENCHMARK)}."
        raise LesionLensError(msg)
    if options.out.exists():
        msg = f"{options.out} is there already; give a new folder."
        raise LesionLensError(msg)
    given = {name: getattr(options, name) for name in ("patients", "seed", *_KNOBS)}
    table = write_phantom_table(options.out, harder(BENCHMARK[options.variant], **given))
    notify(f"{table}: computed lesions, no patient. Research use only, not for diagnosis.")


def _reproduce(options: argparse.Namespace) -> None:
    from lesiontraining.reproduce.command import reproduce

    page = reproduce(
        suite=options.suite,
        budget=options.budget,
        work=options.work,
        data=options.data,
        weights=options.weights,
        only=options.only,
        hours=options.hours,
        results=options.results,
        page=options.page,
        notify=_Clock(),
    )
    print(f"{page}: what was claimed, and what was found. Research use only, not for diagnosis.")


def _build(options: argparse.Namespace) -> None:
    from lesiontraining.commands.build import build, read_build_plan

    plan = read_build_plan(options.plan)
    sha256 = build(plan, out=options.out, runs=options.runs, data=options.data, notify=_Clock())
    print(f"{options.out}: verified, sha256 {sha256}")


def _lung_nodules(options: argparse.Namespace) -> None:
    from lesiontraining.commands.export import write_bundle
    from lesiontraining.nodules.build import build
    from lesiontraining.nodules.card import card, nodule_manifest
    from lesiontraining.nodules.plan import read_nodule_plan

    notify = _Clock()
    plan = read_nodule_plan(options.model)
    built = build(
        plan,
        data=options.data,
        readers=options.readers or options.data.parent / "lidc_readers",
        weights=options.weights,
        cache=options.cache,
        elsewhere=options.elsewhere,
        beside=options.beside,
        notify=notify,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = card(plan, built)
    head, section = nodule_manifest(plan, built)
    sha256 = write_bundle(
        options.out, head=head, lesionlens=section, network=built.network, spec=plan.spec,
        calibration=built.calibration(), card=text, license_text=plan.text.license,
    )  # fmt: skip
    print(text)
    notify(f"wrote {options.out}, sha256 {sha256}")


if __name__ == "__main__":
    sys.exit(main())
