"""``lesionlens models list | show | verify | install | architectures``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from LesionLib.errors import BundleError
from LesionLib.model.folder import installed_bundles
from LesionLib.model.scores import ScoreSpec
from LesionLib.terminal import notify

from LesionLensApp.output import NOTICE, cell, new_console, new_table

if TYPE_CHECKING:
    from rich.table import Table

# LesionLib.model.bundle is imported where it is used: it brings torch, and a mistyped option should be answered at once.


def add_models_commands(commands: argparse._SubParsersAction) -> None:
    """Add the ``models`` commands to the command line."""
    models = commands.add_parser("models", help="the models there are").add_subparsers(required=True, metavar="COMMAND")
    listing = models.add_parser("list", help="all models, with version and what they answer")
    listing.add_argument("--json", action="store_true", help="as JSON instead of a table")
    listing.set_defaults(command=_list)
    show = models.add_parser("show", help="the card of a model: what it is for, and its figures")
    verify = models.add_parser("verify", help="check a model's files and that it answers its own test case")
    for parser, command in ((show, _show), (verify, _verify)):
        parser.add_argument("model", help="name or folder")
        parser.set_defaults(command=command)
    architectures = models.add_parser("architectures", help="the networks a model can be made of, for model builders")
    architectures.set_defaults(command=_architectures)
    install = models.add_parser("install", help="install a model from a .zip file")
    install.add_argument("archive", type=Path, help="the .zip file")
    install.add_argument("--overwrite", action="store_true", help="replace an installed model of the same name")
    install.set_defaults(command=_install)


def _list(options: argparse.Namespace) -> None:
    models = [_listed(name, folder) for name, folder in sorted(installed_bundles().items())]
    if options.json:
        notify(json.dumps(models, indent=2, ensure_ascii=False))
        return
    table = new_table(caption=NOTICE)
    # A name is typed as it stands: it is never cut, however narrow the terminal is.
    table.add_column("model", no_wrap=True, min_width=max((len(model["name"]) for model in models), default=0))
    for heading in ("version", "answers", "folder"):
        table.add_column(heading)
    for model in models:
        answers = f"cannot be used: {model['error']}" if model["error"] else model["description"]
        table.add_row(*map(cell, (model["name"], model["version"] or "-", answers, model["folder"])))
    new_console().print(table)


def _listed(name: str, folder: Path) -> dict[str, str]:
    from LesionLib.inference.accelerator import accelerator_state
    from LesionLib.model.bundle import read_manifest

    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        return {"name": name, "version": "", "description": "", "folder": str(folder), "error": str(error)}
    about = {key: manifest[key] for key in ("version", "description")}
    return {
        "name": name,
        **about,
        "folder": str(folder),
        "error": "",
        "accelerator": accelerator_state(manifest["sha256"]),
    }


def _show(options: argparse.Namespace) -> None:
    from LesionLib.model.bundle import load_bundle
    from LesionLib.model.folder import CARD

    bundle = load_bundle(options.model)
    notify((bundle.folder / CARD).read_text(encoding="utf-8"))
    if bundle.scores:
        new_console().print(_score_table(bundle.scores))
    notify(json.dumps({"input": bundle.manifest["lesionlens"]["input"], "sha256": bundle.sha256}, indent=2))


def _score_table(scores: Sequence[ScoreSpec]) -> Table:
    """The scales, and how far model and readers are off on them."""
    table = new_table(title="Scores", caption="Mean absolute error of the model, and of one reader against the others.")
    table.add_column("score", no_wrap=True)
    for heading in ("scale", "model", "one reader"):
        table.add_column(heading)
    for spec in scores:
        scale = f"{spec.description}: {spec.low} {spec.levels[0]} to {spec.high} {spec.levels[-1]}"
        errors = ("not measured", "-")
        if spec.error is not None:
            worse = ", more than a reader" if spec.errs_more_than_a_reader else ""
            errors = (f"{spec.error.model:.2f}{worse}", f"{spec.error.reader:.2f} (n = {spec.error.n})")
        table.add_row(*map(cell, (spec.name, scale, *errors)))
    return table


def _verify(options: argparse.Namespace) -> None:
    from LesionLib.model.bundle import load_bundle

    bundle = load_bundle(options.model)
    notify(
        f"{bundle.name} {bundle.version}: all files are as they were made, and its test case is answered as it should be."
    )
    notify(f"sha256 {bundle.sha256}")


def _architectures(_options: argparse.Namespace) -> None:
    from LesionLib.networks import ARCHITECTURES, EXAMPLE_INPUTS, sizes_of

    table = new_table(caption="With the arguments they have by default. Shapes without the batch.")
    for heading in ("architecture", "parameters", "input", "map", "descriptor"):
        table.add_column(heading, justify="left" if heading == "architecture" else "right")
    for name in ARCHITECTURES:
        sizes = sizes_of(name)
        shapes = (" x ".join(map(str, shape)) for shape in (EXAMPLE_INPUTS[name], sizes.map, sizes.descriptor))
        table.add_row(name, f"{sizes.parameters:,}", *shapes)
    new_console().print(table)


def _install(options: argparse.Namespace) -> None:
    from LesionLib.model.bundle import load_bundle
    from LesionLib.model.install import install_bundle

    folder = install_bundle(options.archive, overwrite=options.overwrite)
    bundle = load_bundle(folder)
    notify(f"{bundle.name} {bundle.version} is installed in {folder}.")
