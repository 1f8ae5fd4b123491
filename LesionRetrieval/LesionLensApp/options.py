"""What all commands share: their parser, the options that each of them has, and defaults that a user sets once."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from LesionLib import __version__
from LesionLib.errors import CaseLibraryError, LesionLensError
from LesionLib.model.folder import DEFAULT_MODEL, find_bundle
from LesionRetrievalLib.library.cases import checked_code
from LesionRetrievalLib.library.patches import LUNG_WINDOW_HU
from LesionRetrievalLib.library.pseudonyms import settings_folder

CONFIG = "config.toml"
BOXES_HELP = (
    "boxes as .csv (name, frame RAS or LPS, center_x ... size_z in mm; or name, i_min ... k_max in voxels, from 0), or a Slicer "
    "markups file (.mrk.json)"
)
_DEFAULTS = ("model", "library", "key", "by")


class Parser(argparse.ArgumentParser):
    """As argparse's, and it says what a mistyped command or choice may have meant."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and end with code 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            meant = difflib.get_close_matches(wrong[1], re.findall(r"'([^']+)'", wrong[2]), n=1)
            message += f"; did you mean {meant[0]!r}?" if meant else ""
        super().error(message)


def finished(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with what each command has: ``--quiet``, and ``--version`` at the top; completion where argcomplete is there."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for command in _commands_of(parser):
        command.add_argument("--quiet", action="store_true", help="say nothing of the progress")
    try:
        import argcomplete
    except ImportError:
        pass
    else:
        argcomplete.autocomplete(parser)
    return parser


def _commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        for command in dict.fromkeys(action.choices.values()):
            yield from _commands_of(command)


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """On what a model computes: ``device``, ``threads`` and ``accelerator``."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda[:N]",
        help="where the model computes (default: auto, a GPU if any)",
    )
    parser.add_argument("--threads", type=_threads, metavar="N", help="processor threads at most (default: all cores)")
    parser.add_argument(
        "--accelerator", choices=("auto", "off"),
        help="auto: OpenVINO computes the network on the processor, where it is installed and has converted the model, which it does "
        "after the first answer (default: auto for a batch, else off)",
    )  # fmt: skip


def add_code_option(parser: argparse.ArgumentParser) -> None:
    """Of what changes a library: by whom."""
    parser.add_argument(
        "--by", type=_code, metavar="CODE",
        help="your code, kept with the time: 1 to 16 of A-Z a-z 0-9 . _ -, with a digit, nobody's name "
        "(default: LESIONLENS_BY, or none)",
    )  # fmt: skip


def code_of(options: argparse.Namespace) -> str:
    """The code of who asks, "" where none is given. Raises `LesionLensError` for a default that is none."""
    return checked_code(options.by or default_of("by") or "")


def _code(text: str) -> str:
    try:
        return checked_code(text)
    except CaseLibraryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_readers_option(parser: argparse.ArgumentParser) -> None:
    """Of what a folder of LIDC-IDRI nodules is labelled by."""
    parser.add_argument(
        "--readers", type=Path, metavar="FOLDER",
        help="label by what most readers of LIDC-IDRI saw (calcified, solid, subsolid): folder with reader_ratings_train.csv",
    )  # fmt: skip


def add_window_option(parser: argparse.ArgumentParser, *, what: str) -> None:
    """``what``: what becomes of these HU, in words."""
    parser.add_argument(
        "--window", type=float, nargs=2, metavar=("LOW", "HIGH"), default=LUNG_WINDOW_HU,
        help=f"HU {what} (default: {LUNG_WINDOW_HU[0]:g} {LUNG_WINDOW_HU[1]:g}, for the lung)",
    )  # fmt: skip


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        msg = f"{text!r} is no number of threads from 1 to 1024"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def default_of(name: str) -> str | None:
    """The user's default of ``model``, ``library``, ``key`` or ``by``; None: there is none.

    The environment (``LESIONLENS_MODEL`` ...) goes before the file, ``config.toml`` beside the user's key. Raises
    `LesionLensError` for a file that is no TOML or names anything else.
    """
    return os.environ.get(f"LESIONLENS_{name.upper()}") or _of_file().get(name)


def default_model() -> str:
    """The model that is asked where none is named."""
    return default_of("model") or DEFAULT_MODEL


def model_for(location: Path | str | None) -> str:
    """The model to ask where none is named: the default, or the library's own where it holds no vectors of the default."""
    default = default_model()
    if location is None:
        return default
    from LesionRetrievalLib.libraries import open_store  # not for a plain --help

    try:
        with open_store(location) as library:
            names = [indexed.identity.name for indexed in library.models()]
    except LesionLensError:  # for whoever opens it next to say
        return default
    return default if default in names else next(filter(_is_here, names), default)


def _is_here(name: str) -> bool:
    try:
        find_bundle(name)
    except LesionLensError:
        return False
    return True


def _of_file() -> dict[str, str]:
    path = settings_folder() / CONFIG
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read ({error}); mend it or delete it."
        raise LesionLensError(msg) from error
    wrong = [name for name, value in values.items() if name not in _DEFAULTS or not isinstance(value, str)]
    if wrong:
        msg = f"{path}: {wrong[0]} is no default with a text; there may be {', '.join(_DEFAULTS)}."
        raise LesionLensError(msg)
    return values
