"""Where a run keeps its parts: one folder a fold, with checkpoints, logs, predictions and the fitted model."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from LesionLib.errors import LesionLensError

from .predictions import Predictions

_FOLD = re.compile(r"fold-(\d+)")


class RunError(LesionLensError):
    """A run that is not there, not finished, or in the way."""


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
        whole = [path for path in self.checkpoints.glob("last-epoch=*.ckpt") if is_zipfile(path)]
        return max(whole, key=lambda path: int(path.stem.partition("=")[2]), default=None)

    @property
    def is_done(self) -> bool:
        """Whether training, predictions and model are all there."""
        return (self.path / "done.json").is_file()

    @property
    def facts(self) -> dict[str, Any]:
        """What `finish` was given."""
        return json.loads((self.path / "done.json").read_text(encoding="utf-8"))

    def predictions(self) -> Predictions:
        """Train, val and test rows. Raises `RunError` before the fold is finished."""
        if not self.is_done:
            msg = f"{self.path} is not finished; run lesiontrain fit with the same options again, it goes on where it stopped."
            raise RunError(msg)
        return Predictions.load(self.path / "predictions.npz")

    def finish(self, facts: dict[str, Any]) -> None:
        """Say that all is there."""
        text = json.dumps(facts, indent=2)
        unfinished = self.path / ".done.json"
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(self.path / "done.json")


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
