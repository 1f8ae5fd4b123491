"""A recipe's YAML and the command line as task, data and trainer: LightningCLI with our defaults."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from LesionLib.errors import LesionLensError
from LesionLib.networks import EXAMPLE_INPUTS
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from .data.data_module import LesionDataModule
from .run_folder import FoldFolder
from .tasks.base import LesionTask

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class OptionError(LesionLensError):
    """A recipe or an option that does not fit; the text is the parser's own."""


class RecipeCLI(LightningCLI):
    """Checkpoints every epoch, last and best; which figure is watched is the recipe's to say (``checkpoint.monitor``)."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside those of task, data and trainer."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "last")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val_loss",
                "checkpoint.mode": "min",
                "checkpoint.filename": "best-{epoch}",
                # Written under a name of its own before the one before is removed: a kill in between costs nothing.
                "last.filename": "last-{epoch}",
                "last.save_top_k": 1,
            }
        )
        parser.link_arguments("data", "model.init_args.class_names", compute_fn=_class_names, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """As Lightning does, but what is wrong is an error of ours, not the end of the process."""
        parser.exit_on_error = False
        super().parse_arguments(parser, args)


def recipe_cli(arguments: Sequence[str], fold: FoldFolder) -> RecipeCLI:
    """Task, data module and trainer of one fold. ``arguments``: LightningCLI's. Raises `OptionError`."""
    fold.path.mkdir(parents=True, exist_ok=True)
    ours = [
        f"--data.held_out={fold.number}",
        *(f"--{name}.dirpath={fold.checkpoints}" for name in ("checkpoint", "last")),
    ]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Our own options come before Lightning's on the same command line; its warning is about another use.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    try:
        cli = RecipeCLI(
            LesionTask,
            LesionDataModule,
            subclass_mode_model=True,
            run=False,
            args=[*_with_configs(arguments), *ours],
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "default_root_dir": str(fold.path),
                "logger": _loggers(fold),
                "use_distributed_sampler": False,  # our sampler gives each process its share
                "log_every_n_steps": 1,
            },
        )
    except (ValueError, TypeError, KeyError, ArgumentError) as error:
        if (own := _own_error(error)) is not None:
            raise own from error
        msg = f"the options do not fit: {_reason(str(error))}"
        raise OptionError(msg) from error
    _refuse_other_channels(cli)
    return cli


def _own_error(error: BaseException | None) -> LesionLensError | None:
    """The plain error at the bottom of a parser's: a table that cannot be read is no wrong option."""
    while error is not None:
        if isinstance(error, LesionLensError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _reason(text: str) -> str:
    """Of a parser's pages the lines that say why."""
    lines = [line.strip().removeprefix("- ") for line in text.strip().splitlines()]
    starts = [place for place, line in enumerate(lines) if line == "Errors:"]
    if not starts:
        return " ".join(lines)
    noise = ("Given value", "Expected a <class 'NoneType'>", "Subtypes:", "Errors:")
    return " ".join(line for line in lines[starts[0] :] if not line.startswith(noise))


def _refuse_other_channels(cli: RecipeCLI) -> None:
    """Said before hours of training: what the input gives and what the network takes."""
    given = cli.datamodule.train.pictures[0].shape[1]
    taken = cli.model.arguments.get("channels", EXAMPLE_INPUTS[cli.model.architecture][0])
    if given != taken:
        msg = (
            f"the pictures have {given} channels, the network takes {taken}; set model.init_args.arguments.channels to {given}, "
            "or change windows_hu of data.input."
        )
        raise OptionError(msg)


def _class_names(data: LesionDataModule) -> list[str]:
    """A task is built for the classes of its table, so the table is read first."""
    data.setup()
    return list(data.class_names)


def _loggers(fold: FoldFolder) -> list[dict[str, Any]]:
    """CSV always; TensorBoard where it is installed."""
    names = {"CSVLogger": "logs"} | ({"TensorBoardLogger": "tensorboard"} if find_spec("tensorboard") else {})
    return [
        {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": {"save_dir": str(fold.path), "name": name}}
        for kind, name in names.items()
    ]


def _with_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments with recipes first, so that options beside them count wherever they stand, and recipes' names as files."""
    configs: list[str] = []
    others: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, is_assigned, value = argument.partition("=")
        if name == "--config":
            configs.append(f"--config={_config(value if is_assigned else next(waiting, ''))}")
        else:
            others.append(argument)
    return [*configs, *others]


def _config(name: str) -> str:
    if Path(name).is_file():
        return name
    known = {f"{path.parent.name}/{path.stem}": path for path in _CONFIGS.glob("*/*.yaml")}
    known |= {path.stem: path for path in _CONFIGS.glob("public/*.yaml")}
    if name in known:
        return str(known[name])
    msg = f"there is no recipe {name!r}; give a YAML file, or one of {', '.join(sorted(known))}."
    raise OptionError(msg)
