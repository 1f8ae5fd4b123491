"""Where a run keeps its parts: one folder a fold, with checkpoints, logs, predictions and the fitted model."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from LesionLib.errors import BundleError, LesionLensError
from LesionLib.networks import LesionNet, build_network
from LesionLib.sampling.inputs import Spec, spec_from_section
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lesiontraining.evaluation.predictions import Predictions

WEIGHTS, DESCRIPTION, EXAMPLES = "network.safetensors", "network.json", "examples.npz"


class FittedModelError(LesionLensError):
    """A run's folder that holds no fitted model, or one that was changed."""


@dataclass(frozen=True)
class FittedModel:
    """A fitted network between training and export: weights as safetensors, all else as JSON. No checkpoint, no pickle.

    What is known of a fitted network beside its weights.

    ``architecture`` and ``arguments`` build it; ``input`` is the manifest's section. ``class_names`` is empty for a network
    that only compares. ``box_size_mm``, ``slice_distance_mm``: smallest and largest in training. ``training_content``: the
    manifest's section, by which lesions of its training are recognised; empty in runs of before. ``facts``: how it was made.
    """

    architecture: str
    arguments: dict[str, Any]
    input: dict[str, Any]
    class_names: tuple[str, ...]
    temperature: float
    box_size_mm: tuple[float, float]
    slice_distance_mm: tuple[float, float]
    facts: dict[str, Any] = field(default_factory=dict)
    training_content: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """How its images are cut."""
        return spec_from_section(self.input)

    def save(self, folder: Path, network: LesionNet) -> None:
        """Into ``folder``, which exists."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        try:
            save_file(state, folder / WEIGHTS)
        except SafetensorError as error:
            msg = f"{folder / WEIGHTS} cannot be written ({str(error).strip()[:120]}); make room on the disk."
            raise FittedModelError(msg) from error
        text = json.dumps({**asdict(self), "class_names": list(self.class_names)}, indent=2)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> tuple[FittedModel, LesionNet]:
        """What `save` wrote. Raises `FittedModelError`."""
        try:
            values = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            for name in ("class_names", "box_size_mm", "slice_distance_mm"):
                values[name] = tuple(values[name])
            model = cls(**values)
            network = build_network(model.architecture, model.arguments)
            network.load_state_dict(load_file(folder / WEIGHTS), strict=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, BundleError) as error:
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            msg = f"{folder} holds no fitted model ({first}); run lesiontrain fit for it first."
            raise FittedModelError(msg) from error
        return model, network.eval()


_FOLD = re.compile(r"fold-(\d+)")
_LAST = re.compile(r"last-epoch=(\d+)(?:-v(\d+))?\.ckpt")  # Lightning adds a version where the name is taken


class RunError(LesionLensError):
    """A run that is not there, not finished, or in the way."""


class RunInUseError(RunError):
    """Another program is at it."""


class StoppedByHandError(RunError):
    """Somebody, or the system, asked the program to end: nothing else is to be begun."""


@dataclass(frozen=True)
class FoldFolder:
    """One fold of a run. Finished when its ``done.json`` is there, which is written last."""

    path: Path
    number: int

    @property
    def checkpoints(self) -> Path:
        """Lightning's checkpoints; needed to go on with training, never to use a model."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path | None:
        """The end of the last whole epoch; None before the first. A file that a kill cut short is passed over."""
        found = ((_LAST.fullmatch(path.name), path) for path in self.checkpoints.glob("last-epoch=*.ckpt"))
        whole = [(int(name[1]), int(name[2] or 0), path) for name, path in found if name and is_zipfile(path)]
        return max(whole)[2] if whole else None

    def remove_leftovers(self) -> None:
        """Remove the checkpoints that a kill left beside the last whole epoch's: torn ones, older ones, and newer best ones.

        What that epoch's own state names stays: training goes on with it.
        """
        last = self.last_checkpoint
        kept = set() if last is None else {last.name, *_named_in(last)}
        for path in (p for kind in ("last", "best") for p in self.checkpoints.glob(f"{kind}-epoch=*.ckpt")):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    @property
    def is_done(self) -> bool:
        """Whether training, predictions and model are all there."""
        return (self.path / "done.json").is_file()

    @property
    def has_network(self) -> bool:
        """Whether a network was fitted, and not a comparator without one, which is measured and nothing else."""
        return self.facts.get("network", True) is not False

    @property
    def facts(self) -> dict[str, Any]:
        """What `finish` was given. Raises `RunError` where it is damaged."""
        try:
            facts = json.loads((self.path / "done.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            msg = (
                f"{self.path / 'done.json'} is damaged; delete it and run lesiontrain fit with the same options again."
            )
            raise RunError(msg) from error
        if not isinstance(facts, dict):
            msg = f"{self.path / 'done.json'} holds no facts of a fit; run lesiontrain fit with the same options again."
            raise RunError(msg)
        return facts

    def predictions(self) -> Predictions:
        """Train, val and test rows. Raises `RunError` before the fold is finished."""
        if not self.is_done:
            msg = f"{self.path} is not finished; run lesiontrain fit with the same options again, it goes on where it stopped."
            raise RunError(msg)
        return Predictions.load(self.path / "predictions.npz")

    def keep_examples(self, examples: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """What can be looked at of a few test lesions: arrays by kind and name, without pickle."""
        arrays = {f"{kind}/{name}": array for kind, of in examples.items() for name, array in of.items()}
        if arrays:
            np.savez_compressed(self.path / EXAMPLES, **arrays)

    def examples(self) -> dict[str, dict[str, np.ndarray]]:
        """What `keep_examples` kept; empty for a fold of before. Raises `RunError` where the file is damaged."""
        path, found = self.path / EXAMPLES, {}
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                for name in stored.files:
                    kind, _, part = name.partition("/")
                    found.setdefault(kind, {})[part] = stored[name]
        except Exception as error:  # zipfile, zlib and numpy raise many kinds for damaged bytes
            msg = f"{path} is damaged; delete it, the report then goes without those pictures."
            raise RunError(msg) from error
        return found

    def curves(self) -> list[dict[str, float]]:
        """What was logged, row by row, over all goes of a run."""
        rows: list[dict[str, float]] = []
        for path in sorted(
            self.path.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])
        ):
            with path.open(newline="", encoding="utf-8") as handle:
                rows += [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(handle)]
        return rows

    def finish(self, facts: dict[str, Any]) -> None:
        """Say that all is there."""
        text = json.dumps(facts, indent=2)
        unfinished = self.path / ".done.json"
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(self.path / "done.json")


def _named_in(checkpoint: Path) -> set[str]:
    """Names of the checkpoints that the callbacks of this one know."""
    callbacks = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("callbacks", {})
    paths = [state.get(key) for state in callbacks.values() for key in ("best_model_path", "kth_best_model_path")]
    paths += [path for state in callbacks.values() for path in state.get("best_k_models", {})]
    return {Path(path).name for path in paths if path}


@dataclass(frozen=True)
class RunFolder:
    """A run: the same recipe on one or several folds of the same data."""

    path: Path

    def fold(self, number: int) -> FoldFolder:
        """The folder of one fold, whether it is there or not."""
        return FoldFolder(self.path / f"fold-{number}", number)

    def finished_folds(self) -> list[FoldFolder]:
        """All that are finished, by number. Raises `RunError` where there is none."""
        found = [_FOLD.fullmatch(path.name) for path in self.path.glob("fold-*")] if self.path.is_dir() else []
        folds = [self.fold(int(match.group(1))) for match in found if match]
        done = sorted((fold for fold in folds if fold.is_done), key=lambda fold: fold.number)
        if not done:
            msg = f"{self.path} holds no finished fold; give the folder that lesiontrain fit was given as --out."
            raise RunError(msg)
        return done
