"""A quiz as one page that works from a disk or a stick, without a network and without Slicer."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from LesionRetrievalLib.quiz.file import learner_document
from LesionRetrievalLib.quiz.model import NOTICE, Quiz, QuizError
from LesionRetrievalLib.quiz.sealing import ROUNDS

from LesionLensApp.web.viewer import (
    VERSION,
    niivue_script,
    script_text,
    viewer_script,
    viewer_style,
    viewer_windows,
)

_HERE = Path(__file__).resolve().parent
# Nothing may be connected to: the quiz is in the page, pictures are data, and a link is the learner's own click.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)


def quiz_page(quiz: Quiz, *, truth: bool = True) -> str:
    """The page as text. ``truth``: whether it is in there, sealed, or stays with the teacher's quiz.

    Raises `QuizError`, and `ViewerMissingError` where NiiVue is not there.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # JavaScript reads a large seed as another number; as text it stays what it is.
    settings = {"seed": str(quiz.seed), "rounds": ROUNDS, "windows": {**viewer_windows(), "quiz": list(quiz.window_hu)}}
    return environment.get_template("quiz.html.j2").render(
        quiz=quiz,
        truth=truth,
        notice=NOTICE,
        policy=POLICY,
        niivue=VERSION,
        style=viewer_style() + (_HERE / "quiz.css").read_text(encoding="utf-8"),
        document=_json(learner_document(quiz, truth=truth)),
        settings=_json(settings),
        niivue_script=niivue_script(),
        viewer_script=viewer_script(),
        quiz_script=script_text(_HERE / "quiz.js"),
    )


def write_quiz_page(quiz: Quiz, out: Path, *, truth: bool = True, overwrite: bool = False) -> None:
    """Write the page to ``out``; the file appears when it is whole. Raises `QuizError` as `quiz_page` does."""
    if os.path.exists(out) and not overwrite:
        msg = f"{out} exists; give another name, or --overwrite to replace the page."
        raise QuizError(msg)
    text = quiz_page(quiz, truth=truth)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(partial).chmod(0o644)  # mkstemp keeps it to its owner; a class opens it
            os.replace(partial, out)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}); choose another place."
        raise QuizError(msg) from error


def _json(content: Any) -> str:
    """JSON that nothing in it can take out of its script element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
