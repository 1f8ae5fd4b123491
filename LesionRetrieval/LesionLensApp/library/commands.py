"""``lesionlens library``: build, add, search, list, show, edit, remove, verify, key, export, reindex, push and pull cases.

Their options, and what they print; what they do is in the files beside this one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from LesionLib.errors import CaseLibraryError
from LesionLib.model.folder import find_bundle
from LesionLib.terminal import notify
from LesionRetrievalLib.libraries import library_location, open_store
from LesionRetrievalLib.library.cases import Case

from LesionLensApp.library.contents import (
    LISTED,
    contents_as_csv,
    contents_as_json,
    print_case,
    print_contents,
)
from LesionLensApp.options import (
    BOXES_HELP,
    add_code_option,
    add_machine_options,
    add_readers_option,
    add_window_option,
    code_of,
    model_for,
)
from LesionLensApp.output import NOTICE, Steps, kept_names, library_file

if TYPE_CHECKING:
    from LesionLensApp.loaded_model import ModelSession

_SERVER = "milvus://host:port/library; who asks is in LESIONLENS_SERVER_TOKEN, or ..._USER and ..._PASSWORD"

# What needs torch is imported where it is used: a mistyped option is answered at once.


def add_library_commands(commands: argparse._SubParsersAction, *, default_model: str) -> None:
    """Add the ``library`` commands to the command line."""
    library = commands.add_parser("library", help="case libraries").add_subparsers(required=True, metavar="COMMAND")
    _add_build(library, default_model)
    _add_phantom(library, default_model)
    _add_add(library, default_model)
    _add_search(library, default_model)
    _add_list(library)
    _add_show(library)
    _add_edit(library)
    _add_remove(library)
    _add_verify(library)
    _add_key_command(library)
    _add_export(library)
    _add_reindex(library, default_model)
    _add_push(library)
    _add_pull(library)


def _add_build(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser(
        "build",
        help="a library from a folder of cases: one CSV table, image/ and mask/; broken off, it goes on the next time",
    )
    parser.add_argument("folder", type=Path, help="folder with the table, image/ and mask/")
    parser.add_argument("--model", default=default_model, help="name or folder of the model that embeds the cases")
    add_machine_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="the library file to write")
    parser.add_argument("--label-column", help="column with the answers (default: label, or malignant)")
    add_readers_option(parser)
    parser.add_argument(
        "--without-unlabelled",
        action="store_true",
        help="leave out rows without an answer, and say how many (default: refuse)",
    )
    parser.add_argument("--label-source", help="how the answers were established, in a few words")
    parser.add_argument("--organ", default="not stated", help="organ or site of the lesions")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN",
        help="keep this column of the table with the cases; may be repeated (default: none is kept)",
    )  # fmt: skip
    add_window_option(parser, what="that are black and white in the pictures")
    parser.add_argument("--credit", default="", help="whom to name and under which licence; kept in the library")
    _add_images(parser)
    _add_key(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing library")
    add_code_option(parser)
    parser.set_defaults(command=_build)


def _add_phantom(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser("phantom", help="a first library without any data: computed nodules of three kinds")
    parser.add_argument("--model", default=default_model, help="name or folder of the model that embeds the cases")
    add_machine_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="the library file to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other nodules")
    _add_key(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing library")
    parser.set_defaults(command=_phantom)


def _add_add(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser("add", help="add the lesions of a CT, or of a table of CTs, made anonymous")
    _add_library_argument(parser)
    parser.add_argument("volume", type=Path, nargs="?", help="DICOM folder, NRRD or NIfTI file")
    _add_where(parser, required=True).add_argument(
        "--table", type=Path, metavar="TABLE",
        help="many CTs: a CSV with the columns name, volume and, in each row, one of boxes, segmentation, mask; and, where they "
        "differ from the options, label, label_source, organ, note, attributes (name=value; ...), case_id, patient, study, series",
    )  # fmt: skip
    parser.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN",
        help="with --table: keep this column as an attribute; may be repeated (default: none is kept)",
    )  # fmt: skip
    parser.add_argument(
        "--failed", type=Path, metavar="FILE",
        help="with --table: where the rows that could not be added are named (default: beside the table, TABLE.failed.csv)",
    )  # fmt: skip
    parser.add_argument("--label", help="the answer: what the lesions turned out to be")
    parser.add_argument("--label-source", help="how it was established, such as histology")
    parser.add_argument("--organ", default="not stated", help="organ or site of the lesions")
    parser.add_argument(
        "--case-id", help="id of the case; -1, -2, … is put behind it for several (default: a random one)"
    )
    parser.add_argument(
        "--attribute",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an attribute of the lesions; may be repeated",
    )
    parser.add_argument("--note", default="", help="a remark; no names, dates or numbers of a patient")
    parser.add_argument("--model", help=_model_help(default_model))
    add_machine_options(parser)
    _add_patient(parser)
    _add_images(parser)
    parser.add_argument(
        "--allow-burned-in", action="store_true",
        help="store pictures and patches although the CT says that text is burned into it; look at it first",
    )  # fmt: skip
    parser.add_argument(
        "--allow-duplicates", action="store_true", help="add lesions although the library holds the very same already"
    )
    add_code_option(parser)
    parser.set_defaults(command=_add)


def _model_help(default_model: str) -> str:
    return f"name or folder of the model that embeds the lesions (default: {default_model}, or else the library's own)"


def _add_search(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser("search", help="the most similar cases to one of the library, or to lesions on a CT")
    _add_library_argument(parser)
    parser.add_argument(
        "--case",
        help="id of the case to compare with; needs no model (--model names which of the library's vectors count)",
    )
    parser.add_argument("--volume", type=Path, help="DICOM folder, NRRD or NIfTI file with the lesions to compare with")
    _add_where(parser, required=False)
    parser.add_argument("--model", help=_model_help(default_model))
    add_machine_options(parser)
    parser.add_argument("--similar", type=int, default=9, metavar="K", help="how many cases (default: 9)")
    parser.add_argument(
        "--scope", choices=("all", "same-patient", "cross-patient"), default="all",
        help="search all other cases, those of the same patient, or those of other patients (default: all)",
    )  # fmt: skip
    parser.add_argument("--exclude-study", action="store_true", help="leave out cases of the same study")
    parser.add_argument("--label", help="only cases with this answer")
    parser.add_argument("--organ", help="only cases of this organ or site")
    parser.add_argument(
        "--attribute", action="append", default=[], metavar="NAME=VALUE",
        help="only cases with this value, or, as NAME=LOW..HIGH, within these; may be repeated",
    )  # fmt: skip
    _add_patient(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=_search)


def _add_list(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("list", help="what is in a library")
    _add_library_argument(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON instead of a table")
    how.add_argument("--csv", action="store_true", help="print all cases as CSV instead of a table")
    parser.add_argument(
        "--limit",
        type=int,
        default=LISTED,
        metavar="N",
        help=f"show N cases in the table, 0: all (default: {LISTED})",
    )
    parser.set_defaults(command=_list)


def _add_show(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("show", help="one case: what is said of it, and who added and changed it when")
    _add_library_argument(parser)
    parser.add_argument("case", help="id of the case")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=_show)


def _add_edit(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("edit", help="change the answer, the note or attributes of a case")
    _add_library_argument(parser)
    parser.add_argument("case", help="id of the case")
    parser.add_argument("--label", help="the answer: what the lesion turned out to be")
    parser.add_argument("--label-source", help="how it was established, such as histology")
    parser.add_argument("--organ", help="organ or site of the lesion")
    parser.add_argument("--note", help="another remark in the place of the old one; '' takes it out")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set an attribute; may be repeated"
    )
    parser.add_argument(
        "--unset", action="append", default=[], metavar="NAME", help="take an attribute out; may be repeated"
    )
    parser.add_argument(
        "--volume", type=Path,
        help="the case's CT, if at hand: names, numbers and dates in its header are then refused in what you type",
    )  # fmt: skip
    parser.add_argument("--series", help="which series of a DICOM folder: its number in the list, or its UID")
    _add_key(parser)
    add_code_option(parser)
    parser.set_defaults(command=_edit, patient=None, study=None)


def _add_remove(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("remove", help="remove cases; in a file their bytes are overwritten")
    _add_library_argument(parser)
    parser.add_argument("case", nargs="+", help="ids of the cases")
    parser.add_argument("--yes", action="store_true", help="remove them without asking")
    add_code_option(parser)
    parser.set_defaults(command=_remove)


def _add_verify(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("verify", help="read the whole library and say whether it is sound")
    _add_library_argument(parser)
    parser.set_defaults(command=_verify)


def _add_key_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("key", help="whether your key is the one by which a library knows its patients")
    _add_library_argument(parser)
    _add_key(parser)
    parser.add_argument(
        "--set", action="store_true", help="note your key as the one of a library that does not say it (of version 0.1)"
    )
    parser.set_defaults(command=_key)


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("export", help="a copy to give away, without pictures unless you ask for them")
    _add_library(parser)
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--pictures", action="store_true", help="with the small grey pictures")
    parser.add_argument("--patches", action="store_true", help="with the CT around each lesion")
    parser.add_argument("--without-notes", action="store_true", help="without the remarks")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing library")
    parser.set_defaults(command=_export)


def _add_reindex(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser(
        "reindex", help="embed the cases by another model; broken off, it goes on the next time"
    )
    _add_library(parser)
    parser.add_argument("--model", default=default_model, help="name or folder of the model")
    add_machine_options(parser)
    add_code_option(parser)
    parser.set_defaults(command=_reindex)


def _add_push(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("push", help="the cases of a file to a library on a server")
    _add_library(parser)
    parser.add_argument("server", help=_SERVER)
    _add_images(parser)
    parser.set_defaults(command=_push)


def _add_pull(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("pull", help="the cases of a library on a server into a file")
    parser.add_argument("server", help=_SERVER)
    _add_library(parser)
    _add_images(parser)
    parser.set_defaults(command=_pull)


def _add_library_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("library", type=library_location, help="the library file, or milvus://host:port/library")


def _add_library(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("library", type=library_file, help="the library file")


def _add_where(parser: argparse.ArgumentParser, *, required: bool) -> argparse._MutuallyExclusiveGroup:
    """Where the lesions are; returns the options of which one is given."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--boxes", type=Path, help=BOXES_HELP)
    where.add_argument(
        "--segmentation", type=Path, help="label map, .seg.nrrd or DICOM SEG: every segment becomes a box"
    )
    add_reading_options(parser)
    parser.add_argument(
        "--margin-mm", type=float, help="margin around a segment (default: what the model was made for)"
    )
    parser.add_argument("--series", help="which series of a DICOM folder: its number in the list, or its UID")
    return where


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """How odd files are read: the same for every command that takes a CT and lesions on it."""
    parser.add_argument(
        "--split-parts", type=float, nargs="?", const=14.0, metavar="MM3",
        help="every separate part of a segment is a lesion of its own; parts below MM3 cubic mm are left out (14: a ball of 3 mm)",
    )  # fmt: skip
    parser.add_argument(
        "--nifti-transform", choices=("sform", "qform"), default="sform",
        help="which of a NIfTI file's two places counts where they differ (default: sform)",
    )  # fmt: skip


def _add_patient(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--patient", help="identifier of the patient where the file has none; only its hash is stored")
    parser.add_argument("--study", help="identifier of the study where the file has none; only its hash is stored")
    _add_key(parser)


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", action="store_true", help="store three small grey pictures a case")
    parser.add_argument(
        "--patches", action="store_true",
        help="store the CT around each lesion, so that it can be shown, and embedded again by another model",
    )  # fmt: skip


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, help="pseudonym key file (default: one for all your libraries)")


def _build(options: argparse.Namespace) -> None:
    steps = Steps()
    model = _asked(options, steps)
    from LesionRetrievalLib.library.pseudonyms import default_key_path

    from LesionLensApp.library.cases import LibraryPlan, build_library

    plan = LibraryPlan(
        options.label_column, options.label_source, options.organ, options.pictures, with_patches=options.patches,
        keep=kept_names(options.keep), credit=options.credit, readers=options.readers,
        without_unlabelled=options.without_unlabelled,
        window_hu=tuple(options.window),
    )  # fmt: skip
    key_path = options.key or default_key_path()
    built = build_library(
        options.folder, model, options.out, plan=plan, key_path=key_path, steps=steps, overwrite=options.overwrite,
        by=code_of(options),
    )  # fmt: skip
    thumbnails = "with three small pictures each" if options.pictures else "without pictures (--pictures stores them)"
    patches = ", with the CT around each lesion" if options.patches else ""
    notify(f"{options.out}: {built.cases} cases, {thumbnails}{patches}.")
    if built.left_out:
        notify(f"Columns that were not kept (--keep COLUMN keeps one): {', '.join(built.left_out)}.")
    if built.unlabelled:
        why = "their readers agree on no kind, or are not known" if options.readers else "they have no answer"
        notify(f"{built.unlabelled} rows were left out: {why}.")
    for case_id, earlier in built.repeats:
        notify(f"{case_id} was left out: it is the very lesion of {earlier}.")
    notify(f"Patients are salted hashes; their key is {key_path}, keep it private.")


def _phantom(options: argparse.Namespace) -> None:
    steps = Steps()
    model = _asked(options, steps)
    from LesionRetrievalLib.library.pseudonyms import default_key_path

    from LesionLensApp.library.phantoms import build_phantom_library

    key_path = options.key or default_key_path()
    count = build_phantom_library(
        model, options.out, key_path=key_path, steps=steps, seed=options.seed, overwrite=options.overwrite
    )
    notify(f"{options.out}: {count} computed nodules with the CT around each. {NOTICE}")


def _add(options: argparse.Namespace) -> None:
    _require_add_options(options)
    by = code_of(options)
    steps = Steps()
    model = _asked(options, steps)
    if options.table:
        options.keep = kept_names(options.keep)
        _add_table(options, model, steps, by)
        return
    from LesionLensApp.library.cases import add_lesions

    added = add_lesions(options, model, steps, by=by)
    notify(f"{options.library}: added {', '.join(added)}.")


def _require_add_options(options: argparse.Namespace) -> None:
    """Refuse options that go with one CT only, or are missing for one. Raises `CaseLibraryError`."""
    if options.table:
        one_only = {
            "a CT": options.volume, "--series": options.series, "--case-id": options.case_id, "--patient": options.patient,
            "--study": options.study,
        }  # fmt: skip
        given = [name for name, value in one_only.items() if value]
        if given:
            msg = f"--table takes its lesions from the table; leave out {', '.join(given)}, which go with one CT."
            raise CaseLibraryError(msg)
        return
    wanted = {"a CT": options.volume, "--label": options.label, "--label-source": options.label_source}
    missing = [name for name, value in wanted.items() if value is None]
    if missing:
        msg = f"{', '.join(missing)} is missing; give it, or many CTs with what is said of each by --table."
        raise CaseLibraryError(msg)
    if options.keep or options.failed:
        msg = "--keep and --failed go with --table; leave them out, or give a table of CTs."
        raise CaseLibraryError(msg)


_SHOWN_FAILURES = 8


def _add_table(options: argparse.Namespace, model: ModelSession, steps: Steps, by: str) -> None:
    from LesionLensApp.library.table import add_table, failed_path

    done = add_table(options, model, steps, by=by)
    for name, where, error in done.failed[:_SHOWN_FAILURES]:
        steps.note(f"{where}, {name}: {error}")
    count = sum(map(len, done.cases.values()))
    there = f"; the lesions of {len(done.there)} rows were there already" if done.there else ""
    notify(f"{options.library}: added {count} cases of {len(done.cases)} rows{there}.")
    if done.left_out:
        notify(f"Columns that were not kept (--keep COLUMN keeps one): {', '.join(done.left_out)}.")
    if done.failed:
        rows = len(done.cases) + len(done.there) + len(done.failed)
        msg = f"{len(done.failed)} of {rows} rows failed; see {failed_path(options)}."
        raise CaseLibraryError(msg)


def _search(options: argparse.Namespace) -> None:
    from LesionLensApp.library.search import as_json_text, print_search_results, search_results

    results = search_results(options, lambda: _asked(options, Steps()))
    if options.json:
        notify(as_json_text(results))
    else:
        print_search_results(results)


def _list(options: argparse.Namespace) -> None:
    if options.json:
        notify(contents_as_json(options.library))
    elif options.csv:
        notify(contents_as_csv(options.library))
    else:
        print_contents(options.library, limit=options.limit)


def _show(options: argparse.Namespace) -> None:
    print_case(options.library, options.case, as_json=options.json)


def _edit(options: argparse.Namespace) -> None:
    from LesionLensApp.library.editing import edit_case

    changed = edit_case(options, by=code_of(options))
    what = f"changed {changed}" if changed else "nothing to change, it says so already"
    notify(f"{options.library}: case {options.case}: {what}.")


def _remove(options: argparse.Namespace) -> None:
    cases, by = dict.fromkeys(options.case), code_of(options)
    with open_store(options.library, writable=True) as library:
        known = [library.case(case_id) for case_id in cases]
        if not options.yes:
            _ask_to_remove(known, options.library)
        library.remove_many(list(cases), by=by)
    notify(f"{options.library}: removed {', '.join(cases)}.")


def _ask_to_remove(cases: Sequence[Case], location: Path | str) -> None:
    """Go on after a yes only. Raises `CaseLibraryError` where nobody can be asked, or says no."""
    named = ", ".join(f"{case.case_id} ({case.label})" for case in cases)
    if not sys.stdin.isatty():
        msg = f"{named} would be removed from {location} for ever; add --yes to do so."
        raise CaseLibraryError(msg)
    notify(f"Remove {named} from {location}? This cannot be undone. [y/N] ", sys.stderr)
    if input().strip().lower() not in ("y", "yes"):
        msg = "nothing was removed."
        raise CaseLibraryError(msg)


def _verify(options: argparse.Namespace) -> None:
    from LesionLensApp.library.upkeep import verify_library

    notify(verify_library(options.library))


def _key(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.library.ownership import KeyState, key_state, set_key
    from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, default_key_path

    path = options.key or default_key_path()
    key = Pseudonymiser.load(path)
    with open_store(options.library, writable=options.set) as library:
        if options.set:
            set_key(library, key)
        state = key_state(library, key)
    texts = {
        KeyState.OWN: f"{options.library} knows its patients by {path}.",
        KeyState.FOREIGN: f"{options.library} knows its patients by another key than {path}.",
        KeyState.UNKNOWN: f"{options.library} does not say which key it was made with; where it was {path}, add --set.",
    }
    notify(texts[state])


def _export(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.library.file import ExportPlan
    from LesionRetrievalLib.library.store import CaseLibrary

    plan = ExportPlan(thumbnails=options.pictures, patches=options.patches, notes=not options.without_notes)
    with CaseLibrary.open(options.library) as library:
        count = library.export(options.out, plan, overwrite=options.overwrite)
    left_out = [
        name
        for name, there in (("pictures", plan.thumbnails), ("patches", plan.patches), ("notes", plan.notes))
        if not there
    ]
    without = f", without {', '.join(left_out)}" if left_out else ""
    notify(f"{options.out}: {count} cases{without}.")


def _reindex(options: argparse.Namespace) -> None:
    from LesionLensApp.library.upkeep import reindex_library

    steps = Steps()
    model = _asked(options, steps)
    notify(reindex_library(options.library, model, steps, by=code_of(options)))


def _push(options: argparse.Namespace) -> None:
    from LesionLensApp.library.upkeep import push

    notify(push(options))


def _pull(options: argparse.Namespace) -> None:
    from LesionLensApp.library.upkeep import pull

    notify(pull(options))


def _asked(options: argparse.Namespace, steps: Steps) -> ModelSession:
    options.model = options.model or model_for(options.library)
    find_bundle(options.model)  # refused at once where it is mistyped
    steps.begin("Loading torch and the model")
    from LesionLensApp.loaded_model import ModelSession

    return ModelSession.of(options)
