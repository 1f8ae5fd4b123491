"""``lesionlens quiz make | edit | seal | page | score``: a quiz for a class, and what the class made of it."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from LesionLib.model.folder import find_bundle, segment_margin_of
from LesionLib.terminal import notify

from LesionLensApp.options import add_machine_options, add_readers_option, add_window_option, model_for
from LesionLensApp.output import Steps, check_output, kept_names, library_file

if TYPE_CHECKING:
    from LesionLib.inference.messages import ModelDescription
    from LesionRetrievalLib.library.store import CaseLibrary
    from LesionRetrievalLib.quiz.making import QuizCaseSource


FEW_SLICES = 8

# What is heavy is imported where it is used: a mistyped option should be answered at once.


def add_quiz_commands(commands: argparse._SubParsersAction, *, default_model: str) -> None:
    """Add the ``quiz`` commands to the command line."""
    quiz = commands.add_parser("quiz", help="a quiz for teaching").add_subparsers(required=True, metavar="COMMAND")
    _add_make(quiz, default_model)
    _add_for_learners(quiz)
    score = quiz.add_parser("score", help="score sheet and summary page of all learners")
    score.add_argument("quiz", type=Path, help="the quiz file")
    score.add_argument("answers", type=Path, help="folder with the learners' files (attempt-CODE.jsonl)")
    score.add_argument("--out", type=Path, required=True, help="folder for score.csv and summary.html")
    score.add_argument(
        "--moodle", action="store_true", help="moodle.csv too: grades for Moodle's gradebook, the code as ID number"
    )
    score.add_argument("--overwrite", action="store_true", help="replace an earlier score in --out")
    score.set_defaults(command=_score)


def _add_for_learners(quiz: argparse._SubParsersAction) -> None:
    edit = quiz.add_parser("edit", help="put a teacher's own questions, texts, links and pictures into a quiz")
    edit.add_argument("quiz", type=Path, help="the quiz file")
    edit.add_argument(
        "--with", dest="teaching", type=Path, required=True, help="what to put in (.json, see the README)"
    )
    edit.add_argument("--out", type=Path, required=True, help="the quiz file to write (.json)")
    edit.add_argument("--overwrite", action="store_true", help="replace an existing quiz")
    edit.set_defaults(command=_edit)
    seal = quiz.add_parser("seal", help="a quiz for learners in Slicer: its answers cannot be read in an editor")
    seal.add_argument("quiz", type=Path, help="the teacher's quiz file")
    seal.add_argument("--out", type=Path, required=True, help="the quiz file for learners to write (.json)")
    seal.add_argument("--overwrite", action="store_true", help="replace an existing quiz")
    seal.set_defaults(command=_seal)
    page = quiz.add_parser("page", help="the quiz as one page for any browser, without a network and without Slicer")
    page.add_argument("quiz", type=Path, help="the teacher's quiz file")
    page.add_argument("--out", type=Path, required=True, help="the page to write (.html)")
    page.add_argument(
        "--without-truth",
        action="store_true",
        help="what the cases turned out to be stays in the quiz file: no feedback",
    )
    page.add_argument("--overwrite", action="store_true", help="replace an existing page")
    page.set_defaults(command=_page)


def _add_make(quiz: argparse._SubParsersAction, model: str) -> None:
    make = quiz.add_parser("make", help="a quiz file with its own CT patches and the model's answers")
    where = make.add_mutually_exclusive_group()
    where.add_argument("--from", dest="folder", type=Path, help="folder with one CSV table, image/ and mask/")
    where.add_argument(
        "--table", type=Path,
        help="whole CTs: a CSV with the columns name, volume, label and, in each row, one of boxes, segmentation, mask",
    )  # fmt: skip
    where.add_argument("--phantom", action="store_true", help="computed nodules, without any data")
    where.add_argument(
        "--case", dest="case_ids", action="append", metavar="ID", help="this case of --library; repeatable"
    )
    make.add_argument("--cases", type=int, default=10, metavar="N", help="how many cases (default: 10)")
    make.add_argument("--seed", type=int, default=0, help="another seed, other cases in another order")
    make.add_argument("--model", help=f"name or folder of a model (default: {model}, or else that of --library)")
    add_machine_options(make)
    make.add_argument(
        "--library", type=library_file,
        help="case library for the similar cases; without --from and --phantom for the cases too, if it keeps their CT",
    )  # fmt: skip
    make.add_argument("--similar", type=int, default=9, metavar="K", help="how many similar cases (default: 9)")
    make.add_argument("--key", type=Path, help="pseudonym key of the library: leaves out cases of the same patient")
    make.add_argument(
        "--other-patients", action="store_true", help="the library holds none of these patients, so no key is needed"
    )
    make.add_argument(
        "--boxes", choices=("given", "placed", "free"), default="given",
        help="whose box: the teacher's, the learner's, or as the learner likes (default: given)",
    )  # fmt: skip
    add_window_option(make, what="shown black and white at first")
    make.add_argument("--title", default="Quiz", help="title of the quiz")
    make.add_argument("--instructions", default="", help="what the learners read first")
    make.add_argument("--margin-mm", type=float, default=25.0, help="CT packed around each box (default: 25)")
    make.add_argument(
        "--box-jitter",
        "--redrawn",
        type=int,
        default=0,
        metavar="N",
        help="ask N boxes drawn a little differently too (default: 0)",
    )
    make.add_argument(
        "--answer-anyway", action="store_true",
        help="reveal what the network computed also for cases that the model has no answer for",
    )  # fmt: skip
    make.add_argument("--label-column", help="column with the answers (default: label, or malignant)")
    add_readers_option(make)
    make.add_argument(
        "--min-slices", type=int, default=0, metavar="N",
        help="of the folder only cases whose CT has at least N slices to look through (default: all)",
    )  # fmt: skip
    make.add_argument("--label-source", help="how the answers were established, in a few words")
    make.add_argument("--organ", default="not stated", help="organ or site of the lesions")
    make.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN",
        help="show learners this column of the table of --from; may be repeated (default: none)",
    )  # fmt: skip
    make.add_argument("--out", type=Path, required=True, help="the quiz file to write (.json)")
    make.add_argument("--overwrite", action="store_true", help="replace an existing quiz")
    make.set_defaults(command=_make)


def _make(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.quiz.file import require_free_path, save_quiz
    from LesionRetrievalLib.quiz.making import PHANTOM_NOTE, QuizPlan, make_quiz, quiz_classes
    from LesionRetrievalLib.quiz.model import MAX_CASES, QuizError

    require_free_path(options.out, overwrite=options.overwrite)
    if not (options.folder or options.table or options.phantom or options.library):
        msg = "Where do the cases come from? Give --from FOLDER, --table TABLE, --phantom, or --library LIBRARY."
        raise QuizError(msg)
    if not (1 <= options.cases <= MAX_CASES and options.seed >= 0 and 0 <= options.box_jitter <= 100):
        msg = (
            f"--cases is {options.cases} (1 to {MAX_CASES}), --seed is {options.seed} (0 or more) and --box-jitter is "
            f"{options.box_jitter} (0 to 100)."
        )
        raise QuizError(msg)
    options.model = options.model or model_for(options.library)
    find_bundle(options.model)  # refused at once where it is mistyped
    steps = Steps()
    steps.begin("Loading torch and the model")
    from LesionRetrievalLib.library.cases import ModelIdentity
    from LesionRetrievalLib.library.store import CaseLibrary

    from LesionLensApp.loaded_model import ModelSession

    model = ModelSession.of(options)
    who = model.described
    with ExitStack() as stack:
        library = stack.enter_context(CaseLibrary.open(options.library)) if options.library else None
        source = _source(options, who, library)
        chosen = _chosen(source, options)
        lesions = steps.each(
            (source.load(number) for number in chosen), f"Packing {len(chosen)} cases", total=len(chosen)
        )
        quiz = make_quiz(
            lesions,
            plan=QuizPlan(
                title=options.title,
                instructions=options.instructions or (PHANTOM_NOTE if options.phantom else ""),
                boxes=options.boxes,
                seed=options.seed,
                margin_mm=options.margin_mm,
                window_hu=tuple(options.window),
                similar=options.similar,
            ),
            model=ModelIdentity.of_model(who),
            classes=quiz_classes(who.manifest),
            answer=lambda volume, box: model.classify(
                volume, box, box_jitter=options.box_jitter, answer_anyway=options.answer_anyway
            ),
            library=library,
            scores=who.scores,
        )
    save_quiz(quiz, options.out, overwrite=options.overwrite)
    size = options.out.stat().st_size / 1e6
    if few := [case.case_id for case in quiz.cases if min(case.volume.array.shape) < FEW_SLICES]:
        notify(
            f"warning: fewer than {FEW_SLICES} slices to look through in {', '.join(few)}; give CTs that reach further around "
            "the lesions (--table takes whole ones)."
        )
    notify(
        f"{options.out}: {len(quiz.cases)} cases, {size:.1f} MB. It holds the answers: learners get `quiz page` or `quiz seal`."
    )


def _chosen(source: QuizCaseSource, options: argparse.Namespace) -> list[int]:
    from LesionRetrievalLib.quiz.making import choose_cases

    if options.case_ids:  # they are the whole source
        return list(range(len(options.case_ids)))
    return choose_cases(source, options.cases, seed=options.seed)


def _source(options: argparse.Namespace, model: ModelDescription, library: CaseLibrary | None) -> QuizCaseSource:
    from LesionRetrievalLib.library.ownership import require_key
    from LesionRetrievalLib.library.patches import sees_beyond
    from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, default_key_path
    from LesionRetrievalLib.quiz.making import CaseFolder, PhantomNodules, with_context
    from LesionRetrievalLib.quiz.model import QuizError
    from LesionRetrievalLib.quiz.requests import LibraryCases

    if options.phantom:
        return PhantomNodules(options.cases, seed=options.seed, class_names=model.class_names)
    if options.folder is None and options.table is None:
        return LibraryCases(
            library,
            class_names=model.class_names,
            only=options.case_ids,
            sees_beyond=lambda patch: sees_beyond(patch, model.spec),
        )
    key = options.key or default_key_path()
    if library is not None and not options.other_patients and not key.exists():
        msg = (
            f"{key} is not there, so that a patient's own cases cannot be left out of the similar ones; give the library's "
            "key by --key, or --other-patients where the library holds none of these patients."
        )
        raise QuizError(msg)
    hashing = None
    if library is not None and not options.other_patients:
        owner = Pseudonymiser.load(key)
        require_key(library, owner)
        hashing = owner.hash
    if options.table is not None:
        from LesionLensApp.quiz.table import TableCases

        return TableCases(
            options.table,
            class_names=model.class_names,
            defaults=options,
            patient_hash=hashing,
            margin_mm=segment_margin_of(model.manifest),
            keep=kept_names(options.keep),
        )
    cases = CaseFolder(
        options.folder,
        class_names=model.class_names,
        label_column=options.label_column,
        label_source=options.label_source,
        organ=options.organ,
        patient_hash=hashing,
        margin_mm=segment_margin_of(model.manifest),
        keep=kept_names(options.keep),
        readers=options.readers,
    )
    return with_context(cases, options.min_slices) if options.min_slices else cases


def _edit(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.quiz.editing import edited_quiz
    from LesionRetrievalLib.quiz.file import load_quiz, require_free_path, require_unsealed, save_quiz

    require_free_path(options.out, overwrite=options.overwrite)
    quiz = load_quiz(options.quiz)
    require_unsealed(quiz)
    edited = edited_quiz(quiz, options.teaching)
    save_quiz(edited, options.out, overwrite=options.overwrite)
    notify(f"{options.out}: {len(edited.cases)} cases, {len(edited.questions)} questions of your own.")


def _seal(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.quiz.file import load_quiz, save_learner_quiz

    quiz = load_quiz(options.quiz)
    save_learner_quiz(quiz, options.out, overwrite=options.overwrite)
    notify(f"{options.out}: for learners; score their answers with {options.quiz}.")


def _page(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.quiz.file import load_quiz

    from LesionLensApp.web.quiz_page import MAX_PAGE, write_quiz_page

    quiz = load_quiz(options.quiz)
    margin = write_quiz_page(quiz, options.out, truth=not options.without_truth, overwrite=options.overwrite)
    size = options.out.stat().st_size
    notify(
        f"{options.out}: {len(quiz.cases)} cases, {size / 1e6:.1f} MB; score the learners' files with {options.quiz}."
    )
    if margin is not None:
        notify(
            f"It shows {margin:g} mm of CT around each box, less than the quiz has: a page is to stay below {MAX_PAGE / 1e6:g} MB."
        )
    if size > MAX_PAGE:
        notify("It is larger all the same; fewer cases make it smaller.")


def _score(options: argparse.Namespace) -> None:
    from LesionRetrievalLib.quiz.attempt import read_attempts
    from LesionRetrievalLib.quiz.file import load_quiz, require_unsealed
    from LesionRetrievalLib.quiz.report import PAGE, SHEET, score_of, write_score

    quiz = load_quiz(options.quiz)
    require_unsealed(quiz)
    score = score_of(quiz, read_attempts(quiz, options.answers))
    check_output(options.out, overwrite=options.overwrite)
    graded = score.learners if options.moodle else None
    write_score(options.out, quiz, score.rows, score.summary, moodle_learners=graded)
    for note in score.notes:
        notify(note)
    if score.summary is None:
        notify(f"Nobody of {len(score.learners)} has answered a case yet; {options.out / SHEET} has no rows.")
        return
    everyone = score.summary.everyone
    notify(f"{len(score.summary.learners)} learners, {everyone.n} answered cases.")
    notify(f"right before the reveal  {everyone.before.right}")
    notify(f"right after the reveal   {everyone.after.right}")
    notify(f"the model                {everyone.ai}")
    notify(f"Open {options.out / PAGE} in a browser; the sheet is {options.out / SHEET}.")
