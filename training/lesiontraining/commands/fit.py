"""``lesiontrain fit``: a recipe on one fold or all, and what it says of the lesions it did not see."""

from __future__ import annotations

import difflib
import logging
import os
import time
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LesionLib.errors import LesionLensError
from LesionLib.inference.classifier import software_versions
from LesionLib.inference.devices import best_device, device_name
from LesionLib.io.locks import held
from LesionLib.networks import EXAMPLE_INPUTS, LesionNet
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lesiontraining.commands.recipe_check import check_parsed, check_texts, restrict_imports
from lesiontraining.commands.recipes import recipe_file, recipe_names
from lesiontraining.data.contents import content_of_rows
from lesiontraining.data.crops import input_section
from lesiontraining.data.data_module import LesionDataModule
from lesiontraining.data.dataset import data_fingerprint
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.evaluation.predictions import Predictions, has_labelled_training
from lesiontraining.runs.folder import FittedModel, FoldFolder, RunError, RunFolder, RunInUseError, StoppedByHandError
from lesiontraining.runs.inference import fit_temperature, lesion_features, lesion_probabilities
from lesiontraining.runs.settings import keep_settings, kept_settings, require_same_settings, settings_of
from lesiontraining.tasks.base import LesionTask
from lesiontraining.tasks.classical import classical_answers


class OptionError(LesionLensError):
    """A recipe or an option that does not fit; the text is the parser's own."""


class RecipeCLI(LightningCLI):
    """A recipe's YAML and the command line as task, data and trainer: LightningCLI with our defaults.

    Checkpoints every epoch, last and best; which figure is watched is the recipe's to say (``checkpoint.monitor``).
    """

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
        check_parsed(self.config.as_dict())


def recipe_cli(arguments: Sequence[str], fold: FoldFolder) -> RecipeCLI:
    """Task, data module and trainer of one fold. ``arguments``: LightningCLI's. Raises `OptionError`."""
    given = _with_configs(arguments)
    check_texts(given)
    restrict_imports()
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
            args=[*given, *ours],
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
    cli.model.require_usable(cli.datamodule.train, cli.datamodule.val)
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
    starts = [index for index, line in enumerate(lines) if line == "Errors:"]
    if not starts:
        return " ".join(lines)
    noise = ("Given value", "Expected a <class 'NoneType'>", "Subtypes:", "Errors:")
    return " ".join(line for line in lines[starts[0] :] if not line.startswith(noise))


def _refuse_other_channels(cli: RecipeCLI) -> None:
    """Said before hours of training: what the input gives and what the network takes."""
    if not cli.model.has_network:
        return
    given = cli.datamodule.train.images[0].shape[1]
    taken = cli.model.arguments.get("channels", EXAMPLE_INPUTS[cli.model.architecture][0])
    if given != taken:
        msg = (
            f"the images have {given} channels, the network takes {taken}; set model.init_args.arguments.channels to {given}, "
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
    known = recipe_file(name)
    if known is not None:
        return str(known)
    if os.path.isfile(name):
        return name
    near = difflib.get_close_matches(name, recipe_names(), n=1)
    meant = f" did you mean {near[0]!r}?" if near else ""
    msg = f"there is no recipe {name!r};{meant} give a YAML file, or one of {', '.join(recipe_names())}."
    raise OptionError(msg)


Notify = Callable[[str], None]


def fit(out: Path, arguments: Sequence[str], *, folds: str, notify: Notify) -> RunFolder:
    """Fit the recipe on each of ``folds`` ("0", "0,2" or "all"); finished folds are left, begun ones go on.

    ``arguments``: those of LightningCLI. Raises a `LesionLensError` for bad input; checkpoints of whole epochs stay.
    """
    run = RunFolder(out)
    clis: dict[int, RecipeCLI] = {}
    numbers = _numbers(folds)
    if numbers is None:
        clis[0] = recipe_cli(arguments, run.fold(0))
        numbers = list(range(len(clis[0].datamodule.fold_split.fold_names)))
    for number in numbers:
        fold = run.fold(number)
        if fold.is_done:
            if kept_settings(fold) is not None:
                any_cli = next(iter(clis.values()), None) or clis.setdefault(number, recipe_cli(arguments, fold))
                require_same_settings(fold, _settings(any_cli))
            notify(f"fold {number} is finished; left as it is ({fold.path})")
            continue
        notify(f"fold {number}: reading the data")
        cli = clis.get(number) or recipe_cli(arguments, fold)
        settings = _settings(cli)
        require_same_settings(fold, settings)
        if not cli.trainer.is_global_zero:  # a process of several of one training
            _fit_fold(cli, fold, arguments, notify)
            continue
        with _only_program(fold):
            keep_settings(fold, settings)
            _fit_fold(cli, fold, arguments, notify)
    return run


@contextmanager
def _only_program(fold: FoldFolder) -> Iterator[None]:
    """Two that fit the same fold would write, and go on from, each other's checkpoints: the second is refused (`RunInUseError`)."""
    fold.path.mkdir(parents=True, exist_ok=True)
    with held(fold.path / ".fit.lock") as is_ours:
        if not is_ours:
            msg = f"{fold.path} is being fitted by another program; wait until that is done, or give another folder as --out."
            raise RunInUseError(msg)
        yield


def _settings(cli: RecipeCLI) -> dict[str, str]:
    """Of all folds the same."""
    rows = cli.datamodule.table.rows
    rest = [f"{row.patient} {row.split} {row.fold}" for row in rows]
    lesions = data_fingerprint([row.lesion_id for row in rows], [row.label for row in rows], rest)
    return settings_of(cli.config.as_dict(), data=lesions)


def _fit_fold(cli: RecipeCLI, fold: FoldFolder, arguments: Sequence[str], notify: Notify) -> None:
    start = time.monotonic()
    if not cli.model.has_network:
        _fit_without_network(cli, fold, arguments, notify)
        return
    if cli.trainer.is_global_zero:
        fold.remove_leftovers()
    begun = fold.last_checkpoint
    if begun is not None:
        notify(f"fold {fold.number}: going on from {begun}")
    with _kept(fold):
        # Checkpoints hold tensors and plain values: weights_only keeps it that way.
        cli.trainer.fit(
            cli.model,
            datamodule=cli.datamodule,
            ckpt_path=begun,
            weights_only=True,
        )
    if cli.trainer.interrupted or cli.trainer.received_sigterm:
        msg = f"stopped by hand; the same command goes on from {fold.last_checkpoint}."
        raise StoppedByHandError(msg)
    if not cli.trainer.is_global_zero:
        return
    fold.remove_leftovers()  # Lightning leaves the checkpoint that it went on from
    notify(f"fold {fold.number}: answering the lesions")
    _take_best(cli)
    predictions, model, network = _predictions_of(cli, arguments)
    predictions.save(fold.path / "predictions.npz")
    fold.keep_examples(_examples_of(cli, model))
    model.save(fold.path, network)
    fold.finish({**model.facts, "seconds": round(time.monotonic() - start, 1)})
    notify(f"fold {fold.number}: {_one_line(predictions, model)}")


def _fit_without_network(cli: RecipeCLI, fold: FoldFolder, arguments: Sequence[str], notify: Notify) -> None:
    """A comparator that is not trained: predictions and facts as of any other, and no model."""
    start = time.monotonic()
    if not cli.trainer.is_global_zero:
        return
    data = cli.datamodule
    notify(f"fold {fold.number}: fitting {type(cli.model).__name__} and answering the lesions")
    predictions = _predictions_by(cli.model.answers_of_sets, data)
    predictions.save(fold.path / "predictions.npz")
    facts = {**_facts(cli, arguments), "epochs": 0, "device": "CPU", "network": False, "figures": {}}
    fold.finish({**facts, "seconds": round(time.monotonic() - start, 1)})
    test = predictions.at((predictions.split == "test") & (predictions.labels >= 0))
    right = (test.probabilities.argmax(axis=1) == test.labels).mean() if len(test) else float("nan")
    notify(f"fold {fold.number}: {right:.1%} of {len(test)} test lesions right; lesiontrain evaluate tells the rest")


def classical_predictions(features: str, data: LesionDataModule, *, seed: int) -> Predictions:
    """What a comparator without a network says of all lesions. Raises `TrainingError`."""
    return _predictions_by(lambda sets: classical_answers(features, sets, seed=seed), data)


def _predictions_by(
    answers: Callable[[Sequence[LesionDataset]], Sequence[tuple[np.ndarray, np.ndarray]]], data: LesionDataModule
) -> Predictions:
    sets = {"train": data.train, "val": data.val, "test": data.test}
    lines = {row.lesion_id: f"line {row.line}" for row in data.table.rows}
    return predictions_of_sets(sets, answers(list(sets.values())), lines)


@contextmanager
def _kept(fold: FoldFolder) -> Iterator[None]:
    """Faults of long runs in plain words; what was kept is said."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        msg = (
            "the GPU ran out of memory; use smaller batches (--model.init_args.batch_size), --trainer.precision=16-mixed or "
            f"a smaller network. {_what_is_kept(fold)}"
        )
        raise RunError(msg) from error
    except FileNotFoundError as error:
        msg = f"{error.filename or error} is missing. {_what_is_kept(fold)}"
        raise RunError(msg) from error
    except SystemExit as error:  # how Lightning ends after Ctrl-C or SIGTERM
        msg = f"stopped by hand. {_what_is_kept(fold)}"
        raise StoppedByHandError(msg) from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
            raise
        msg = f"a checkpoint cannot be written to {fold.checkpoints}; make room on the disk. {_what_is_kept(fold)}"
        raise RunError(msg) from error


def _what_is_kept(fold: FoldFolder) -> str:
    if fold.last_checkpoint is not None:
        return f"The last good state is kept: {fold.last_checkpoint}; the same command goes on from it."
    return "No epoch was finished yet."


def _take_best(cli: RecipeCLI) -> None:
    """The weights of the best epoch by the figure that the recipe watches."""
    best = next(c.best_model_path for c in cli.trainer.callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    if best:
        state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
        cli.model.load_state_dict(state, strict=True)
    cli.model.to(best_device()).eval()


def _predictions_of(cli: RecipeCLI, arguments: Sequence[str]) -> tuple[Predictions, FittedModel, LesionNet]:
    data, task = cli.datamodule, cli.model
    task.fitted(data.train)
    architecture, network_arguments, network = task.bundle_parts()
    network = network.to(best_device()).eval()
    sets = {"train": data.train, "val": data.val, "test": data.test}
    temperature = 1.0
    parts = []
    if task.classifies:
        logits, embeddings = zip(*(lesion_features(network, s.images) for s in sets.values()), strict=True)
        known = np.flatnonzero(data.val.labels >= 0)
        temperature = fit_temperature(network, [logits[1][i] for i in known], data.val.labels[known]) or 1.0
        parts = [(lesion_probabilities(network, of, temperature), e) for of, e in zip(logits, embeddings, strict=True)]
    else:
        parts = [task.answers(s) for s in sets.values()]
    lines = {row.lesion_id: f"line {row.line}" for row in data.table.rows}
    predictions = replace(predictions_of_sets(sets, parts, lines), metric=network.metric)
    model = FittedModel(
        architecture=architecture,
        arguments=dict(network_arguments),
        input=input_section(data.spec),
        class_names=tuple(data.class_names) if task.classifies else (),
        temperature=temperature,
        box_size_mm=_range(data.train.size_mm),
        slice_distance_mm=_range(data.train.spacing_mm[:, 2]),
        facts=_facts(cli, arguments),
        training_content=_training_content(data),
    )
    model.facts["figures"] = task.figures(data.val, data.test)
    return predictions, model, network


def _examples_of(cli: RecipeCLI, model: FittedModel) -> dict[str, dict[str, np.ndarray]]:
    """Pictures for the report; lesions are named by their line, as in the predictions."""
    data = cli.datamodule
    found = {"maps": cli.model.examples(data.test, model.facts["figures"]), "frangi": data.filtered_examples()}
    lines = {row.lesion_id: f"line {row.line}" for row in data.table.rows}
    for of in found.values():
        if of:
            of["lesion"] = np.array([lines[str(data.test.lesion_ids[row])] for row in of["lesion"]])
    return found


def _training_content(data: LesionDataModule) -> dict[str, str]:
    """Of all lesions that the fold learned from: those of training, and those that its temperature and thresholds come from."""
    known = {str(i) for part in (data.train, data.val) for i in part.lesion_ids}
    return content_of_rows(row for row in data.table.rows if row.lesion_id in known).to_manifest()


def predictions_of_sets(
    sets: dict[str, LesionDataset], parts: Sequence[tuple[np.ndarray, np.ndarray]], lesions: dict[str, str]
) -> Predictions:
    """All rows of the ``sets`` (train, val, test) with their probabilities and embeddings; ``lesions``: the line of each, by name."""
    together = {
        name: np.concatenate([getattr(s, name) for s in sets.values()])
        for name in ("folds", "labels", "size_mm", "volume_mm3", "mean_hu", "spacing_mm")
    }
    # Identifiers of lesions are often made of patients': the line of the table says as much to its owner.
    lines = np.array([lesions[str(i)] for s in sets.values() for i in s.lesion_ids])
    # Every fold holds every patient, so that the same patient has the same code in each.
    codes = {
        name: _codes(letter, np.concatenate([getattr(s, name) for s in sets.values()]))
        for name, letter in (("patients", "P"), ("studies", "S"))
    }
    return Predictions(
        class_names=tuple(next(iter(sets.values())).class_names),
        split=np.concatenate([np.full(len(s), name) for name, s in sets.items()]),
        probabilities=np.concatenate([probabilities for probabilities, _ in parts]),
        embeddings=np.concatenate([embeddings for _, embeddings in parts]),
        lesion_ids=lines,
        **together,
        **codes,
    )


def _codes(letter: str, values: np.ndarray) -> np.ndarray:
    """P0001, P0002, … for who would be named otherwise: predictions and reports hold no identifiers."""
    _, number = np.unique(values.astype(str), return_inverse=True)
    return np.array([f"{letter}{n + 1:05d}" for n in number])


def _range(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (round(float(known.min()), 3), round(float(known.max()), 3)) if known.size else (0.0, 0.0)


def _facts(cli: RecipeCLI, arguments: Sequence[str]) -> dict[str, Any]:
    data = cli.datamodule.description()
    leaks = data.pop("leaks") or {"leaks": [], "suspicions": [], "checked": []}
    return {
        "task": type(cli.model).__name__,
        "classifies": cli.model.classifies,
        "epochs": cli.trainer.current_epoch,
        "device": device_name(best_device()),
        "software": software_versions(),
        "options": [_without_folder(argument) for argument in arguments],
        "seed": cli.config.get("seed_everything"),
        "data": data,
        "leaks": leaks,  # without examples: those were said on the screen and stay there
    }


def _without_folder(argument: str) -> str:
    """A report says which file, not where on whose disk."""
    name, is_option, value = argument.partition("=")
    if is_option:
        return f"{name}={Path(value).name if '/' in value else value}"
    return Path(argument).name if "/" in argument else argument


def _one_line(predictions: Predictions, model: FittedModel) -> str:
    test = predictions.at((predictions.split == "test") & (predictions.labels >= 0))
    if not model.class_names and not has_labelled_training(predictions):
        return f"finished; no training lesion has a label, so only the search among {len(test)} test lesions can be measured"
    right = (test.probabilities.argmax(axis=1) == test.labels).mean() if len(test) else float("nan")
    return f"{right:.1%} of {len(test)} test lesions right (temperature {model.temperature:.2f}); lesiontrain evaluate tells the rest"


def _numbers(folds: str) -> list[int] | None:
    if folds == "all":
        return None
    try:
        return [int(number) for number in folds.split(",")]
    except ValueError as error:
        msg = f"--folds is {folds!r}; give a number, several (0,2) or all."
        raise RunError(msg) from error
