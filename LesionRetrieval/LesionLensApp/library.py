"""``lesionlens library build | add | search | list | remove | verify | export | reindex | push | pull``: the options of each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .console import Steps

if TYPE_CHECKING:
    from .asked_model import AskedModel

_SERVER = "milvus://host:port/library; who asks is in LESIONLENS_SERVER_TOKEN, or ..._USER and ..._PASSWORD"

# What needs torch or the library is imported where it is used: a mistyped option is answered at once.


def add_library_commands(commands: argparse._SubParsersAction, *, default_model: str) -> None:
    """Add the ``library`` commands to the command line."""
    library = commands.add_parser("library", help="case libraries").add_subparsers(required=True, metavar="COMMAND")
    _add_build(library, default_model)
    _add_add(library, default_model)
    _add_search(library, default_model)
    _add_list(library)
    _add_remove(library)
    _add_verify(library)
    _add_export(library)
    _add_reindex(library, default_model)
    _add_push(library)
    _add_pull(library)


def _add_build(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser("build", help="a library from a folder of cases: one CSV table, image/ and mask/")
    parser.add_argument("folder", type=Path, help="folder with the table, image/ and mask/")
    parser.add_argument("--model", default=default_model, help="name or folder of the model that embeds the cases")
    parser.add_argument("--out", type=Path, required=True, help="the library file to write")
    parser.add_argument("--label-column", help="column with the answers (default: label, or malignant)")
    parser.add_argument("--label-source", help="how the answers were established, in a few words")
    parser.add_argument("--organ", default="not stated", help="organ or site of the lesions")
    _add_images(parser)
    _add_key(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing library")
    parser.set_defaults(command=_build)


def _add_add(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser("add", help="add the lesions of a CT, made anonymous")
    _add_library(parser)
    parser.add_argument("volume", type=Path, help="DICOM folder, NRRD or NIfTI file")
    _add_where(parser, required=True)
    parser.add_argument("--label", required=True, help="the answer: what the lesions turned out to be")
    parser.add_argument("--label-source", required=True, help="how it was established, such as histology")
    parser.add_argument("--organ", default="not stated", help="organ or site of the lesions")
    parser.add_argument(
        "--case-id", help="id of the case; -1, -2, … is put behind it for several (default: a random one)"
    )
    parser.add_argument("--attribute", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument("--note", default="", help="a remark; no names, dates or numbers of a patient")
    parser.add_argument("--model", default=default_model, help="name or folder of the model that embeds the lesions")
    _add_patient(parser)
    _add_images(parser)
    parser.set_defaults(command=_add)


def _add_search(commands: argparse._SubParsersAction, default_model: str) -> None:
    parser = commands.add_parser("search", help="the most similar cases to one of the library, or to lesions on a CT")
    _add_place(parser)
    parser.add_argument("--case", help="id of the case to compare with; needs no model")
    parser.add_argument("--volume", type=Path, help="DICOM folder, NRRD or NIfTI file with the lesions to compare with")
    _add_where(parser, required=False)
    parser.add_argument("--model", default=default_model, help="name or folder of the model that embeds the lesions")
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
    _add_place(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=_list)


def _add_remove(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("remove", help="remove cases; their bytes in the file are overwritten")
    _add_library(parser)
    parser.add_argument("case", nargs="+", help="ids of the cases")
    parser.set_defaults(command=_remove)


def _add_verify(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("verify", help="read the whole file and say whether it is sound")
    _add_library(parser)
    parser.set_defaults(command=_verify)


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


def _add_place(parser: argparse.ArgumentParser) -> None:
    from LesionRetrievalLib.library_places import library_place

    parser.add_argument("library", type=library_place, help="the library file, or milvus://host:port/library")


def _add_library(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("library", type=Path, help="the library file")


def _add_where(parser: argparse.ArgumentParser, *, required: bool) -> None:
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--boxes", type=Path, help="boxes as .csv, or a Slicer markups file (.mrk.json)")
    where.add_argument("--segmentation", type=Path, help="label map or .seg.nrrd: every segment becomes a box")
    parser.add_argument("--margin-mm", type=float, default=2.0, help="margin around a segment (default: 2)")
    parser.add_argument("--series", help="which series of a DICOM folder: its number in the list, or its UID")


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
    model = _asked(options.model, steps)
    from LesionRetrievalLib.owner_key import default_key_path

    from .library_build import LibraryPlan, build_library

    plan = LibraryPlan(
        options.label_column, options.label_source, options.organ, options.pictures, with_patches=options.patches
    )
    key_path = options.key or default_key_path()
    count = build_library(
        options.folder, model, options.out, plan=plan, key_path=key_path, steps=steps, overwrite=options.overwrite
    )
    pictures = "with three small pictures each" if options.pictures else "without pictures (--pictures stores them)"
    patches = ", with the CT around each lesion" if options.patches else ""
    print(f"{options.out}: {count} cases, {pictures}{patches}.")
    print(f"Patients are salted hashes; their key is {key_path}, keep it private.")


def _add(options: argparse.Namespace) -> None:
    steps = Steps()
    model = _asked(options.model, steps)
    from .library_add import add_lesions

    added = add_lesions(options, model, steps)
    print(f"{options.library}: added {', '.join(added)}.")


def _search(options: argparse.Namespace) -> None:
    from .library_query import answer_query, as_json_text, print_answers

    answers = answer_query(options, lambda: _asked(options.model, Steps()))
    if options.json:
        print(as_json_text(answers))
    else:
        print_answers(answers)


def _list(options: argparse.Namespace) -> None:
    from .library_listing import contents_as_json, print_contents

    if options.json:
        print(contents_as_json(options.library))
    else:
        print_contents(options.library)


def _remove(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.library import CaseLibrary

    cases = dict.fromkeys(options.case)
    with CaseLibrary.open(options.library, read_only=False) as library, library.transaction():
        for case_id in cases:
            library.remove(case_id)
    print(f"{options.library}: removed {', '.join(cases)}.")


def _verify(options: argparse.Namespace) -> None:
    from .library_listing import verify_library

    print(verify_library(options.library))


def _export(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.library import CaseLibrary, ExportPlan

    plan = ExportPlan(pictures=options.pictures, patches=options.patches, notes=not options.without_notes)
    with CaseLibrary.open(options.library) as library:
        count = library.export(options.out, plan, overwrite=options.overwrite)
    left_out = [name for name in ("pictures", "patches", "notes") if not getattr(plan, name)]
    without = f", without {', '.join(left_out)}" if left_out else ""
    print(f"{options.out}: {count} cases{without}.")


def _reindex(options: argparse.Namespace) -> None:
    steps = Steps()
    model = _asked(options.model, steps)
    from .library_reindexing import reindex_library

    print(reindex_library(options.library, model, steps))


def _push(options: argparse.Namespace) -> None:
    from .library_transfer_commands import push

    print(push(options))


def _pull(options: argparse.Namespace) -> None:
    from .library_transfer_commands import pull

    print(pull(options))


def _asked(model: str, steps: Steps) -> AskedModel:
    steps.begin("Loading torch and the model")
    from .asked_model import AskedModel

    return AskedModel(model)
