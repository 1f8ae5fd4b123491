"""The command line of model building: ``lesiontrain lung-nodules``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from LesionLib.errors import LesionLensError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="lesiontrain", description="Build models and measure them honestly.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    nodules = commands.add_parser("lung-nodules", help="train, cross-validate and export lung-nodule-malignancy")
    nodules.add_argument("--data", type=Path, required=True, help="folder with nodules.csv, image/ and mask/")
    nodules.add_argument("--imagenet", type=Path, required=True, help="ImageNet weights of MobileNetV2 (.pth)")
    nodules.add_argument("--out", type=Path, required=True, help="model folder to write")
    nodules.set_defaults(command=_lung_nodules)
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except LesionLensError as error:
        print(f"lesiontrain: error: {error}", file=sys.stderr)
        return 2
    return 0


def _lung_nodules(options: argparse.Namespace) -> None:
    from .export import write_bundle
    from .lung_nodules import Recipe, train
    from .model_card import LICENSE_TEXT, card, manifest_head, manifest_section

    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    recipe = Recipe()
    trained = train(options.data, options.imagenet, recipe, say)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = card(trained, recipe)
    sha256 = write_bundle(
        options.out,
        head=manifest_head(),
        lesionlens=manifest_section(trained),
        network=trained.network,
        spec=recipe.spec,
        calibration=trained.calibration(),
        card=text,
        license_text=LICENSE_TEXT,
    )
    print(text)
    say(f"wrote {options.out}, sha256 {sha256}")


if __name__ == "__main__":
    sys.exit(main())
