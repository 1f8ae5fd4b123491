"""A quiz as one page that works from a disk or a stick, without a network and without Slicer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from LesionRetrievalLib.quiz.file import (
    learner_document,
    pack_array,
    quiz_sha256,
    require_replaceable,
    require_unsealed,
    write_for_a_class,
)
from LesionRetrievalLib.quiz.making import with_less_around
from LesionRetrievalLib.quiz.model import NOTICE, Quiz
from LesionRetrievalLib.quiz.sealing import ROUNDS

from LesionLensApp.web.viewer import (
    VERSION,
    niivue_script,
    script_text,
    viewer_script,
    viewer_style,
    viewer_windows,
)

MAX_PAGE = 8_000_000  # bytes: goes by mail, opens at once
_OWN_CODE = 150_000
_MARGINS_MM = (25.0, 20.0, 16.0, 13.0, 10.0)
_HERE = Path(__file__).resolve().parent
# Nothing may be connected to: the quiz is in the page, pictures are data, and a link is the learner's own click.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)


def quiz_page(quiz: Quiz, *, truth: bool = True, fingerprint: str = "") -> str:
    """The page as text. ``truth``: whether it is in there, sealed, or stays with the teacher's quiz; ``fingerprint``: see
    `learner_document`.

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
        document=_json(learner_document(quiz, truth=truth, fingerprint=fingerprint)),
        settings=_json(settings),
        niivue_script=niivue_script(),
        viewer_script=viewer_script(),
        quiz_script=script_text(_HERE / "quiz.js"),
    )


def fitted(quiz: Quiz) -> tuple[Quiz, float | None]:
    """The quiz with no more CT around its boxes than a page of `MAX_PAGE` bytes takes, and the margin, mm; None: all of it fits.

    The least margin is taken where even that is too much.
    """
    room = MAX_PAGE - len(niivue_script().encode()) - _OWN_CODE
    kept, margin = quiz, None
    for narrower in _MARGINS_MM:
        if _packed_size(kept) <= room:
            break
        kept, margin = with_less_around(quiz, narrower), narrower
    return kept, margin


def _packed_size(quiz: Quiz) -> int:
    """Bytes of the cases in a page, without what is sealed of them: that is cut to the box already."""
    thumbnails = (
        picture for case in quiz.cases for one in case.prediction.similar for picture in one.thumbnails.values()
    )
    # Packed to some half, and written by four characters for three bytes.
    sealed = sum(picture.size for picture in thumbnails)
    pictures = sum(len(case.known.teaching.picture) for case in quiz.cases) * 2
    return sum(len(pack_array(case.volume.array)["zlib"]) for case in quiz.cases) + sealed + pictures


def write_quiz_page(quiz: Quiz, out: Path, *, truth: bool = True, overwrite: bool = False) -> float | None:
    """Write the page to ``out``; the file appears when it is whole. Returns the margin of `fitted`.

    Raises `QuizError` as `quiz_page` does.
    """
    require_replaceable(out, _looks_like_a_page, overwrite=overwrite, whole="the page", kind="a quiz page")
    require_unsealed(quiz)
    shown, margin = fitted(quiz)
    write_for_a_class(out, quiz_page(shown, truth=truth, fingerprint=quiz_sha256(quiz)))
    return margin


def _looks_like_a_page(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return "<title>LesionLens quiz: " in file.read(1000)
    except (OSError, UnicodeDecodeError):
        return False


def _json(content: Any) -> str:
    """JSON that nothing in it can take out of its script element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
