"""``lesiontrain fit``: a recipe on one fold or all, and what it says of the lesions it did not see."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LesionLib.classify import best_device, device_name, software_versions
from LesionLib.networks import LesionNet
from lightning.pytorch.callbacks import ModelCheckpoint

from .data.picture_kinds import picture_section
from .data.picture_set import PictureSet
from .fitted_model import FittedModel
from .lesion_answers import fit_temperature, lesion_features, lesion_probabilities
from .lightning_cli import RecipeCLI, recipe_cli
from .predictions import Predictions
from .run_folder import FoldFolder, RunError, RunFolder

Say = Callable[[str], None]


def fit(out: Path, arguments: Sequence[str], *, folds: str, say: Say) -> RunFolder:
    """Fit the recipe on each of ``folds`` ("0", "0,2" or "all"); finished folds are left, begun ones go on.

    ``arguments``: those of LightningCLI. Raises a `LesionLensError` for bad input; checkpoints of whole epochs stay.
    """
    run = RunFolder(out)
    cli = None
    numbers = _numbers(folds)
    if numbers is None:
        cli = recipe_cli(arguments, run.fold(0))
        numbers = list(range(len(cli.datamodule.division.fold_names)))
    for number in numbers:
        fold = run.fold(number)
        if fold.is_done:
            say(f"fold {number} is finished; left as it is ({fold.path})")
            continue
        say(f"fold {number}: reading the data")
        _fit_fold(cli if cli is not None and number == 0 else recipe_cli(arguments, fold), fold, arguments, say)
    return run


def _fit_fold(cli: RecipeCLI, fold: FoldFolder, arguments: Sequence[str], say: Say) -> None:
    start = time.monotonic()
    begun = fold.last_checkpoint
    if begun is not None:
        say(f"fold {fold.number}: going on from {begun}")
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
        raise RunError(msg)
    if not cli.trainer.is_global_zero:
        return
    say(f"fold {fold.number}: answering the lesions")
    _take_best(cli)
    predictions, model, network = _answers(cli, arguments)
    predictions.save(fold.path / "predictions.npz")
    model.save(fold.path, network)
    fold.finish({**model.facts, "seconds": round(time.monotonic() - start, 1)})
    say(f"fold {fold.number}: {_one_line(predictions, model)}")


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


def _answers(cli: RecipeCLI, arguments: Sequence[str]) -> tuple[Predictions, FittedModel, LesionNet]:
    data, task = cli.datamodule, cli.model
    task.fitted(data.train)
    architecture, network_arguments, network = task.bundle_parts()
    network = network.to(best_device()).eval()
    sets = {"train": data.train, "val": data.val, "test": data.test}
    temperature = 1.0
    parts = []
    if task.classifies:
        logits, embeddings = zip(*(lesion_features(network, s.pictures) for s in sets.values()), strict=True)
        known = np.flatnonzero(data.val.labels >= 0)
        temperature = fit_temperature(network, [logits[1][i] for i in known], data.val.labels[known]) or 1.0
        parts = [(lesion_probabilities(network, of, temperature), e) for of, e in zip(logits, embeddings, strict=True)]
    else:
        parts = [task.answers(s) for s in sets.values()]
    predictions = _predictions(sets, parts, {row.lesion_id: f"line {row.line}" for row in data.table.rows})
    model = FittedModel(
        architecture=architecture,
        arguments=dict(network_arguments),
        input=picture_section(data.spec),
        class_names=tuple(data.class_names) if task.classifies else (),
        temperature=temperature,
        box_size_mm=_range(data.train.size_mm),
        slice_distance_mm=_range(data.train.spacing_mm[:, 2]),
        facts=_facts(cli, arguments),
    )
    model.facts["figures"] = task.figures(data.val, data.test)
    return predictions, model, network


def _predictions(
    sets: dict[str, PictureSet], parts: Sequence[tuple[np.ndarray, np.ndarray]], lesions: dict[str, str]
) -> Predictions:
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
    right = (test.probabilities.argmax(axis=1) == test.labels).mean() if len(test) else float("nan")
    return f"{right:.1%} of {len(test)} test lesions right (temperature {model.temperature:.2f}); lesiontrain evaluate tells the rest"


def curves(fold: FoldFolder) -> list[dict[str, float]]:
    """What was logged, row by row, over all goes of a run."""
    rows: list[dict[str, float]] = []
    for path in sorted(fold.path.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])):
        with path.open(newline="", encoding="utf-8") as handle:
            rows += [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(handle)]
    return rows


def _numbers(folds: str) -> list[int] | None:
    if folds == "all":
        return None
    try:
        return [int(number) for number in folds.split(",")]
    except ValueError as error:
        msg = f"--folds is {folds!r}; give a number, several (0,2) or all."
        raise RunError(msg) from error
